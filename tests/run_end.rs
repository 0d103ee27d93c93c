//! The end of a run whose events are in the store: on every broker, also on
//! those that were not there when it ended.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::broker::accepted_ids;
use crate::support::http::Request;
use crate::support::kept::{BOTH, Kept, Store, expect_gap, expect_hello};
use crate::support::wait::SOON;
use crate::support::{Broker, Frame, SseClient};

const STREAM: &str = "/api/v1/runs/42/stream";

/// What a broker that was there waits before `end`; one that comes later need
/// not, which shows by this being longer than the test's patience.
const GRACE_OF_THE_LATE: &str = "60s";

fn check_end(end: &Frame, last_id: &str, status: &str, events: Value) {
    assert_eq!(end.event, "end", "{end:?}");
    assert_eq!(end.id(), format!("{last_id}-end"));
    assert_eq!(end.json(), json!({"status": status, "events": events}));
}

/// A run of `count` outputs and a status that ended it for good.
async fn ended(store: Store, count: usize) -> Kept {
    let settings =
        |settings: crate::support::broker::BrokerSettings| settings.set("runs.end_grace", "100ms");
    let mut kept = Kept::empty(store, settings).await;
    kept.publish(count).await;
    let mut client = kept.broker.follow("42/stream").await;
    let last = kept.broker.publish_status("42", json!("completed")).await;
    kept.ids.push(last);
    let frames = client.rest(SOON).await;
    assert_eq!(frames.len(), count + 2);
    check_end(
        &frames[count + 1],
        kept.id(count + 1),
        "completed",
        json!(count + 1),
    );
    drop(client);
    if store == Store::Redis {
        kept.settings = kept.settings.set("runs.end_grace", GRACE_OF_THE_LATE);
    }
    kept.forget().await;
    kept
}

/// Expects the events from `first` on, the status that ended the run, `end`,
/// and nothing more.
async fn expect_rest(kept: &Kept, client: &mut SseClient, first: usize) {
    let count = kept.ids.len();
    kept.expect(client, first..count).await;
    if first <= count {
        assert_eq!(client.run_event().await.id(), kept.id(count));
    }
    let rest = client.rest(SOON).await;
    assert_eq!(rest.len(), 1, "{rest:?}");
    check_end(&rest[0], kept.id(count), "completed", json!(count));
}

async fn expect_204(broker: &Broker, cursor: &str) {
    let request = Request::get(STREAM).header("Last-Event-ID", cursor);
    let response = request.send(broker.addr).await;
    assert_eq!((response.status(), response.body.len()), (204, 0));
}

async fn restart(broker: &Broker, data: Value) -> String {
    let event = json!({"kind": "output", "source": "stdout", "data": data});
    let path = "/api/v1/runs/42/events?restart=true";
    let request = Request::post(path, "application/json", event.to_string());
    accepted_ids(&request.send(broker.addr).await).remove(0)
}

#[tokio::test]
async fn late_output_is_sent_before_the_end_on_every_broker() {
    let kept = Kept::empty(Store::Redis, |settings| {
        settings.set("runs.end_grace", "700ms")
    })
    .await;
    let other = kept.settings.start_ready().await;
    let mut clients = [
        kept.broker.follow("42/stream").await,
        other.follow("42/stream").await,
    ];
    let status = kept.broker.publish_status("42", json!("Failed")).await;
    let late = other.publish("42", json!("late")).await;
    let mut ends = Vec::new();
    for client in &mut clients {
        let frames = client.rest(SOON).await;
        assert_eq!(frames.len(), 3, "{frames:?}");
        assert_eq!((frames[0].id(), frames[1].id()), (&*status, &*late));
        check_end(&frames[2], &late, "failed", json!(2));
        ends.push(frames[2].clone());
    }
    assert_eq!(ends[0], ends[1], "the same bytes elsewhere");
    let event = json!({"kind": "output", "source": "s", "data": "too late"});
    for broker in [&kept.broker, &other] {
        broker.post("42", &event).await.problem(409);
        expect_204(broker, ends[0].id()).await;
    }
}

/// The call that closed the run says how long its grace is, not a broker.
#[tokio::test]
async fn a_grace_longer_than_a_brokers_is_waited_for() {
    let kept = Kept::empty(Store::Redis, |settings| {
        settings.set("runs.end_grace", "50ms")
    })
    .await;
    let mut client = kept.broker.follow("42/stream").await;
    let mut publisher = kept.publisher().await;
    let (stream, meta) = ("run:{42}:stream", "run:{42}:meta");
    let call = |kind, data| {
        let call = [
            "FCALL",
            "runcast_publish",
            "2",
            stream,
            meta,
            "42",
            kind,
            "s",
            data,
        ];
        [call.as_slice(), &["GRACE", "1500"]].concat()
    };
    let words: Vec<String> = publisher.command(&call("status", "completed")).await;
    assert_eq!(words[0], "OK");
    let closed_at = Instant::now();
    assert_eq!(client.run_event().await.id(), words[1]);
    // One who comes in the grace waits for its end like the others.
    let late_broker = kept.settings.start_ready().await;
    let mut newcomer = late_broker.follow("42/stream").await;
    assert_eq!(newcomer.run_event().await.id(), words[1]);
    while closed_at.elapsed() < Duration::from_millis(700) {
        let silence = client.next_within(Duration::from_millis(50)).await;
        assert_eq!(silence, crate::support::sse::Next::Silence);
    }
    let late: Vec<String> = publisher.command(&call("output", "late")).await;
    assert_eq!(late[0], "OK");
    for client in [&mut client, &mut newcomer] {
        let frames = client.rest(SOON).await;
        assert_eq!(frames.len(), 2, "{frames:?}");
        assert_eq!(frames[0].id(), late[1]);
        check_end(&frames[1], &late[1], "completed", json!(2));
    }
    let refused: Vec<String> = publisher.command(&call("output", "no")).await;
    assert_eq!(refused[0], "CLOSED");
}

#[tokio::test]
async fn a_new_client_gets_all_and_the_end_at_once() {
    for store in BOTH {
        for (from, first) in [
            ("", 1),
            ("?from=start", 1),
            ("?from=-3", 9),
            ("?from=now", 12),
        ] {
            let kept = ended(store, 10).await;
            let mut client = kept.broker.follow(&format!("42/stream{from}")).await;
            expect_rest(&kept, &mut client, first).await;
        }
    }
}

#[tokio::test]
async fn who_comes_back_gets_the_rest_and_the_end_at_once() {
    for store in BOTH {
        for n in [1, 10, 11] {
            let kept = ended(store, 10).await;
            let mut client = kept.broker.resume("42/stream", kept.id(n)).await;
            let preamble = client.preamble().await;
            assert_eq!(preamble.cursor.as_deref(), Some(kept.id(n)));
            assert_ne!(preamble.hello["resume"], "gap");
            expect_rest(&kept, &mut client, n + 1).await;
            // And once more, now that the hub knows.
            let mut client = kept.broker.resume("42/stream", kept.id(n)).await;
            client.preamble().await;
            expect_rest(&kept, &mut client, n + 1).await;
        }
    }
}

/// However many hubs, and brokers, have come and gone since.
#[tokio::test]
async fn the_id_of_the_end_is_204_for_ever() {
    for store in BOTH {
        let mut kept = ended(store, 3).await;
        let end = format!("{}-end", kept.id(4));
        for _ in 0..2 {
            expect_204(&kept.broker, &end).await;
            let mut client = kept.broker.follow("42/stream").await;
            expect_rest(&kept, &mut client, 1).await;
            expect_204(&kept.broker, &end).await;
            drop(client);
            kept.forget().await;
        }
        // The end of another event is not the end.
        let no_end = format!("{}-end", kept.id(2));
        let mut client = kept.broker.resume("42/stream", &no_end).await;
        client.preamble().await;
        expect_rest(&kept, &mut client, 3).await;
    }
}

/// A filter hides events, not how many there were, and not the end.
#[tokio::test]
async fn a_filter_hides_neither_the_end_nor_its_count() {
    for store in BOTH {
        let kept = ended(store, 10).await;
        let mut client = kept.broker.follow("42/stream?kinds=log").await;
        let mut rest = client.rest(SOON).await;
        let end = rest.pop().expect("an end");
        check_end(&end, kept.id(11), "completed", json!(11));
        assert!(rest.iter().all(|frame| frame.event == "cursor"), "{rest:?}");
    }
}

/// Who watches as the run begins anew after its end was told: closed streams
/// come back, each with what it has.
#[tokio::test]
async fn a_run_that_begins_anew_after_its_end_is_told_to_who_comes_back() {
    for store in BOTH {
        // On a broker whose hub saw the end, and on one that did not.
        for has_hub in [true, false] {
            let mut kept = ended(store, 5).await;
            if has_hub {
                let mut client = kept.broker.follow("42/stream").await;
                expect_rest(&kept, &mut client, 1).await;
            }
            let new = restart(&kept.broker, json!("new")).await;
            if !has_hub {
                kept.forget().await;
            }
            for cursor in [
                kept.id(3).to_owned(),
                kept.id(6).to_owned(),
                format!("{}-end", kept.id(6)),
            ] {
                let mut client = kept.broker.resume("42/stream", &cursor).await;
                expect_hello(&mut client, "gap", None).await;
                let (reason, gap) = client.gap().await;
                assert_eq!((reason.as_str(), &gap["before"]), ("expired", &json!(new)));
                assert_eq!(client.run_event().await.id(), new);
            }
            let mut client = kept.broker.follow("42/stream").await;
            assert_eq!(client.run_event().await.id(), new);
            let next = kept.broker.publish("42", json!("next")).await;
            assert_eq!(client.run_event().await.id(), next);
        }
    }
}

/// Who watches on every broker sees the old life, a gap, and the new one.
#[tokio::test]
async fn a_run_that_begins_anew_is_told_to_who_watches_on_every_broker() {
    let mut kept = Kept::empty(Store::Redis, |settings| {
        settings.set("runs.end_grace", "300ms")
    })
    .await;
    let other = kept.settings.start_ready().await;
    let third = kept.settings.start_ready().await;
    kept.publish(3).await;
    let mut clients = Vec::new();
    for broker in [&kept.broker, &other, &third] {
        let mut client = broker.follow("42/stream").await;
        kept.expect(&mut client, 1..4).await;
        clients.push(client);
    }
    // In the grace, so that nobody was told the end.
    let status = other.publish_status("42", json!("completed")).await;
    let new = restart(&third, json!("new")).await;
    for client in &mut clients {
        assert_eq!(client.run_event().await.id(), status);
        expect_gap(client, ("expired", Some(&status), Some(&new), None)).await;
        assert_eq!(client.run_event().await.id(), new);
    }
    // The grace of the old life is over, and ends nothing.
    for client in &mut clients {
        let next = client.next_within(Duration::from_millis(600)).await;
        assert_eq!(next, crate::support::sse::Next::Silence);
    }
    // The new life ends with its own count.
    let last = other.publish_status("42", json!("failed")).await;
    for client in &mut clients {
        let rest = client.rest(SOON).await;
        assert_eq!(rest.len(), 2, "{rest:?}");
        assert_eq!(rest[0].id(), last);
        check_end(&rest[1], &last, "failed", json!(2));
    }
}

/// The end is told in time also if the broker is cut off as it comes.
#[tokio::test]
async fn an_end_that_was_not_announced_is_found() {
    let mut kept = Kept::empty(Store::Redis, |settings| {
        settings.set("runs.end_grace", "300ms")
    })
    .await;
    let mut client = kept.broker.follow("42/stream").await;
    kept.publish(2).await;
    kept.expect(&mut client, 1..3).await;
    // Nothing that is published from here on reaches a broker.
    let mut publisher = kept.publisher().await;
    let mut pipe = redis::pipe();
    pipe.cmd("CLIENT").arg(&["KILL", "TYPE", "pubsub"]).ignore();
    pipe.cmd("FCALL").arg("runcast_publish").arg(2);
    pipe.arg(&[
        "run:{42}:stream",
        "run:{42}:meta",
        "42",
        "status",
        "",
        "completed",
    ]);
    pipe.arg("GRACE").arg(300).ignore();
    publisher.pipeline(&pipe).await;
    let begin = Instant::now();
    let frames = client.rest(SOON).await;
    assert_eq!(frames.len(), 2, "{frames:?}");
    assert_eq!(frames[0].event, "status");
    check_end(&frames[1], frames[0].id(), "completed", json!(3));
    assert!(
        begin.elapsed() < Duration::from_secs(6),
        "{:?}",
        begin.elapsed()
    );
}
