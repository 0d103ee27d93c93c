//! How a run ends: terminal status, grace, `end`, and what comes after.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::broker::accepted_ids;
use crate::support::http::Request;
use crate::support::wait::SOON;
use crate::support::{Broker, Frame, Redis, eventually};

async fn broker() -> Broker {
    Broker::embedded()
        .set("runs.end_grace", "500ms")
        .start_ready()
        .await
}

fn check_end(end: &Frame, last_id: &str, status: &str, events: Value) {
    assert_eq!(end.event, "end", "{end:?}");
    assert_eq!(end.id(), format!("{last_id}-end"));
    assert_eq!(end.json(), json!({"status": status, "events": events}));
}

#[tokio::test]
async fn a_terminal_status_ends_the_run_after_the_grace() {
    let broker = broker().await;
    let mut client = broker.follow("42/stream").await;
    broker.publish("42", json!(1)).await;
    broker.publish_status("42", json!("Completed")).await;
    let late = broker.publish("42", json!("late but in time")).await;
    assert_eq!(client.run_event().await.payload(), "1");
    assert_eq!(client.run_event().await.payload(), "\"Completed\"");
    assert_eq!(client.run_event().await.id(), late);
    let rest = client.rest(SOON).await;
    assert_eq!(rest.len(), 1, "{rest:?}");
    check_end(&rest[0], &late, "completed", json!(3));

    let refused = broker
        .post(
            "42",
            &json!({"kind": "output", "source": "s", "data": "too late"}),
        )
        .await;
    assert_eq!(refused.status(), 409, "{}", refused.text());
}

#[tokio::test]
async fn those_who_come_back_after_the_end_are_told_so() {
    let broker = broker().await;
    let mut client = broker.follow("42/stream").await;
    let first = broker.publish("42", json!(1)).await;
    let last = broker
        .publish_status("42", json!({"status": "FAILED", "code": 1}))
        .await;
    let frames = client.rest(SOON).await;
    assert_eq!(frames.len(), 3);
    check_end(&frames[2], &last, "failed", json!(2));

    let end_id = format!("{last}-end");
    for request in [
        Request::get("/api/v1/runs/42/stream").header("Last-Event-ID", &*end_id),
        Request::get(format!("/api/v1/runs/42/stream?last_event_id={end_id}")),
    ] {
        let response = request.send(broker.addr).await;
        assert_eq!((response.status(), response.body.len()), (204, 0));
    }

    let mut seen_all = broker.resume("42/stream", &last).await;
    seen_all.preamble().await;
    let rest = seen_all.rest(SOON).await;
    assert_eq!(rest.len(), 1, "{rest:?}");
    check_end(&rest[0], &last, "failed", json!(2));

    let mut seen_one = broker.resume("42/stream", &first).await;
    seen_one.preamble().await;
    let rest = seen_one.rest(SOON).await;
    assert_eq!(rest, frames[1..]);

    let mut new = broker.follow("42/stream").await;
    assert_eq!(new.rest(SOON).await, frames);

    let mut now = broker.follow("42/stream?from=now").await;
    let rest = now.rest(SOON).await;
    assert_eq!(rest, frames[2..], "nothing more is to come");
}

/// `end` is never hidden: a filter must not keep a client waiting for ever.
#[tokio::test]
async fn a_filter_does_not_hide_the_end() {
    let broker = broker().await;
    let mut client = broker.follow("42/stream?kinds=output").await;
    broker.publish("42", json!(1)).await;
    let last = broker.publish_status("42", json!("succeeded")).await;
    assert_eq!(client.run_event().await.payload(), "1");
    let rest = client.rest(SOON).await;
    check_end(rest.last().expect("an end"), &last, "succeeded", json!(2));
}

#[tokio::test]
async fn each_terminal_status_is_known_in_any_case_and_form() {
    let broker = broker().await;
    for (n, data) in [
        json!("completed"),
        json!("SUCCEEDED"),
        json!({"status": "Failed"}),
        json!({"code": 7, "status": "cancelled"}),
        json!("canceled"),
        json!("error"),
        json!({"status": "TIMEOUT"}),
    ]
    .into_iter()
    .enumerate()
    {
        let run = format!("run-{n}");
        let mut client = broker.follow(&format!("{run}/stream")).await;
        let last = broker.publish_status(&run, data.clone()).await;
        assert!(client.run_event().await.event == "status");
        let word = data.as_str().or(data["status"].as_str()).expect("a word");
        let end = client.event().await;
        check_end(&end, &last, &word.to_lowercase(), json!(1));
    }
}

#[tokio::test]
async fn other_statuses_end_nothing() {
    let broker = broker().await;
    let mut client = broker.follow("42/stream").await;
    for data in [
        json!("running"),
        json!({"state": "failed"}),
        json!(["failed"]),
        json!("completed soon"),
        json!(null),
    ] {
        broker.publish_status("42", data).await;
    }
    // An output that reads like a status is none.
    broker.publish("42", json!({"status": "failed"})).await;
    client.run_events(6).await;
    let next = client.next_within(Duration::from_millis(1500)).await;
    assert_eq!(next, crate::support::sse::Next::Silence);
    assert_eq!(broker.json("/api/v1/runs/42").await["ended"], false);
}

#[tokio::test]
async fn an_explicit_restart_begins_a_new_epoch() {
    let broker = broker().await;
    let mut client = broker.follow("42/stream").await;
    let old = broker.publish("42", json!("old")).await;
    broker.publish_status("42", json!("failed")).await;
    client.rest(SOON).await;
    let event = json!({"kind": "output", "source": "s", "data": "new"});
    let request = Request::post(
        "/api/v1/runs/42/events?restart=true",
        "application/json",
        event.to_string(),
    );
    let new = accepted_ids(&request.send(broker.addr).await).remove(0);
    let numbers = |id: &str| -> Vec<u64> {
        id.split('-')
            .map(|part| part.parse().expect("a number"))
            .collect()
    };
    assert!(numbers(&new)[0] > numbers(&old)[0], "a newer epoch: {new}");
    assert_eq!(numbers(&new)[1], 1, "counted anew");

    let mut fresh = broker.follow("42/stream").await;
    assert_eq!(fresh.run_event().await.id(), new);
    let mut back = broker.resume("42/stream", &old).await;
    assert_eq!(back.preamble().await.hello["resume"], "gap");
    assert_eq!(back.gap().await.0, "expired");
    assert_eq!(back.run_event().await.id(), new);
    assert_eq!(broker.json("/api/v1/runs/42").await["ended"], false);
}

/// Agents that know nothing of Runcast end their runs too.
#[tokio::test]
async fn a_run_of_plain_events_is_remembered_as_ended() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("runs.end_grace", "200ms")
        .start_ready()
        .await;
    let mut client = broker.follow("42/stream/redis").await;
    let mut publisher = redis.publisher().await;
    publisher.publish("run:42:output:stdout", "1").await;
    publisher.publish("run:42:status", "completed").await;
    let events = client.run_events(2).await;
    let rest = client.rest(SOON).await;
    assert_eq!(rest.len(), 1, "{rest:?}");
    assert_eq!(rest[0].id(), format!("{}-end", events[1].id()));
    assert_eq!(rest[0].json()["status"], "completed");

    let gone = Request::get("/api/v1/runs/42/stream/redis")
        .header("Last-Event-ID", rest[0].id())
        .send(broker.addr)
        .await;
    assert_eq!(gone.status(), 204);
    let mut new = broker.follow("42/stream/redis").await;
    let frames = new.rest(SOON).await;
    assert_eq!(frames[..2], events);
    assert_eq!(frames[2], rest[0]);
    eventually("the run is known as ended", SOON, async || {
        broker.json("/api/v1/runs/42").await["ended"] == true
    })
    .await;
}

/// Terminal statuses are a setting.
#[tokio::test]
async fn what_ends_a_run_can_be_set() {
    let broker = Broker::embedded()
        .set("runs.end_grace", "100ms")
        .file("[runs]\nterminal_statuses = [\"done\"]\n")
        .start_ready()
        .await;
    let mut client = broker.follow("42/stream").await;
    broker.publish_status("42", json!("failed")).await;
    let last = broker.publish_status("42", json!("DONE")).await;
    client.run_events(2).await;
    check_end(&client.event().await, &last, "done", json!(2));
}
