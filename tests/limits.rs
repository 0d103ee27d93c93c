//! Bounds of a broker: age and number of streams, memory of all rings, hubs.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::http::check_problem;
use crate::support::wait::SOON;
use crate::support::{Broker, Redis, SseClient, eventually};

/// Opens a stream as soon as one that is being closed has left its place.
pub(crate) async fn admitted(broker: &Broker, run_and_rest: &str) -> SseClient {
    let begin = Instant::now();
    loop {
        let mut client = broker.stream(run_and_rest).await;
        client.frame().await;
        let second = client.frame().await;
        if second.event == "hello" {
            assert!(second.json()["cursor"].is_null(), "no event yet");
            return client;
        }
        assert_eq!(second.event, "problem", "{second:?}");
        assert!(begin.elapsed() < SOON, "no place becomes free");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_stream_past_its_age_is_told_to_come_back() {
    let broker = Broker::embedded()
        .set("streaming.max_age", "3s")
        .start_ready()
        .await;
    let mut client = broker.follow("42/stream").await;
    let id = broker.publish("42", json!(1)).await;
    let begin = Instant::now();
    let frames = client.rest(SOON).await;
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(frames.len(), 2, "{frames:?}");
    assert_eq!(
        (frames[0].id(), frames[1].event.as_str()),
        (&*id, "goodbye")
    );
    assert_eq!(frames[1].json(), json!({"reason": "max_age"}));
    let next = broker.publish("42", json!(2)).await;
    let mut back = broker.resume("42/stream", &id).await;
    back.preamble().await;
    assert_eq!(back.run_event().await.id(), next);
}

/// The limit of one address is not that of the others.
#[tokio::test]
async fn an_address_with_too_many_streams_is_asked_to_come_back() {
    let broker = Broker::embedded()
        .set("limits.max_streams_per_ip", 2)
        .start_ready()
        .await;
    let mut clients = vec![
        broker.follow("42/stream").await,
        broker.follow("43/stream").await,
    ];
    let mut refused = broker.stream("42/stream").await;
    let frames = refused.rest(SOON).await;
    assert_eq!(frames[1].json()["status"], 429);
    assert_eq!(frames[2].json(), json!({"reason": "overload"}));
    clients.pop();
    admitted(&broker, "42/stream").await;
}

/// Never a status that an EventSource gives up at.
#[tokio::test]
async fn one_stream_too_many_is_asked_to_come_back() {
    let broker = Broker::embedded()
        .set("limits.max_streams", 3)
        .start_ready()
        .await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(broker.follow("42/stream").await);
    }
    let mut refused = broker.stream("42/stream").await;
    let frames = refused.rest(SOON).await;
    let names: Vec<&str> = frames.iter().map(|frame| frame.event.as_str()).collect();
    assert_eq!(names, ["", "problem", "goodbye"]);
    check_problem(&frames[1].json());
    assert_eq!(frames[1].json()["retryable"], true);
    assert_eq!(frames[2].json(), json!({"reason": "overload"}));

    clients.pop();
    let mut admitted = admitted(&broker, "42/stream").await;
    broker.publish("42", json!(1)).await;
    assert_eq!(admitted.run_event().await.payload(), "1");
}

/// Runs nobody watches fill their rings only up to the total; the oldest go.
#[tokio::test]
async fn all_rings_together_stay_inside_their_bound() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("limits.max_event_bytes", "16KiB")
        .set("hub.ring_bytes", "128KiB")
        .set("hub.total_ring_bytes", "1MiB")
        .start_ready()
        .await;
    let mut watched = broker.follow("watched/stream").await;
    let mut publisher = redis.publisher().await;
    publisher.publish("run:watched:status", "\"first\"").await;
    let seen = watched.run_event().await;
    let payloads = vec![vec![b'x'; 1000]; 100];
    for run in 0..40 {
        publisher
            .publish_all(&format!("run:run-{run}:output:stdout"), &payloads)
            .await;
    }
    let accepted = [("kind", "output"), ("result", "accepted")];
    broker
        .wait_metric("runcast_events_in_total", &accepted, 4000.0)
        .await;
    eventually("rings fit their bound", SOON, async || {
        let bytes = broker.metric("runcast_ring_bytes", &[]).await;
        bytes > 0.0 && bytes <= 1024.0 * 1024.0
    })
    .await;
    // The newest is kept whole, a watched one as well.
    let mut newest = broker.follow("run-39/stream").await;
    let first = newest.run_event().await;
    assert!(first.id().ends_with("-1"), "begins at {}", first.id());
    newest.run_events(99).await;
    publisher.publish("run:watched:status", "\"second\"").await;
    let mut back = broker.resume("watched/stream", seen.id()).await;
    back.preamble().await;
    assert_eq!(back.run_event().await.payload(), "\"second\"");
}

#[tokio::test]
async fn the_oldest_idle_hub_makes_room_for_a_new_run() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("hub.max_hubs", 10)
        .start_ready()
        .await;
    let mut watched = broker.follow("watched/stream").await;
    let mut publisher = redis.publisher().await;
    for run in 0..100 {
        publisher
            .publish(format!("run:run-{run}:status"), "1")
            .await;
    }
    publisher
        .publish("run:watched:status", "\"still here\"")
        .await;
    assert_eq!(watched.run_event().await.payload(), "\"still here\"");
    eventually("no more hubs than allowed", SOON, async || {
        broker.metric("runcast_hubs", &[]).await <= 10.0
    })
    .await;
    // The first event of a run may find no room yet, but makes some.
    eventually("a new run is kept", SOON, async || {
        publisher.clone().publish("run:newest:status", "1").await;
        broker.json("/api/v1/runs/newest").await["events"]["status"] != 0
    })
    .await;
}
