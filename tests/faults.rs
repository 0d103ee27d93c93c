//! Redis ill in every way we know.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::http::{Request, check_problem};
use crate::support::sse::{Next, gap_of};
use crate::support::wait::SOON;
use crate::support::{Broker, Frame, Redis, SseClient, eventually};

/// Reads up to the event with `payload`; returns the reasons of the gaps told
/// before it.
async fn gaps_before(client: &mut SseClient, payload: &str) -> Vec<String> {
    let mut reasons = Vec::new();
    loop {
        let frame = client.event().await;
        match frame.event.as_str() {
            "gap" => reasons.push(gap_of(&frame).0),
            "problem" => check_outage(&frame),
            _ if frame.payload() == payload => return reasons,
            _ => {}
        }
    }
}

/// While Redis is away a stream may be told so.
fn check_outage(frame: &Frame) {
    check_problem(&frame.json());
    assert_eq!(frame.json()["retryable"], true, "{frame:?}");
}

async fn redis_status(broker: &Broker) -> String {
    let health = broker.json("/health").await;
    let status = &health["dependencies"]["redis"]["status"];
    status.as_str().expect("a status").to_owned()
}

#[tokio::test]
async fn an_oversize_payload_is_a_gap_and_the_run_goes_on() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("limits.max_event_bytes", "10KiB")
        .start_ready()
        .await;
    let mut client = broker.follow("42/stream").await;
    let mut other = broker.follow("43/stream").await;
    let mut publisher = redis.publisher().await;
    publisher.publish("run:42:output:stdout", "1").await;
    publisher
        .publish("run:42:output:stdout", vec![b'x'; 10 * 1024 + 1])
        .await;
    publisher.publish("run:42:output:stdout", "2").await;
    publisher
        .publish("run:42:output:stdout", vec![b'y'; 10 * 1024])
        .await;
    publisher.publish("run:43:output:stdout", "3").await;

    let first = client.run_event().await;
    let (reason, gap) = client.gap().await;
    assert_eq!((reason.as_str(), &gap["missed"]), ("too_large", &json!(1)));
    assert_eq!(gap["after"], first.id());
    assert_eq!(client.run_event().await.payload(), "2");
    assert_eq!(
        client.run_event().await.payload().len(),
        10 * 1024 + 2,
        "just fits"
    );
    assert_eq!(other.run_event().await.payload(), "3");
    let counted = crate::metrics::gaps(&broker, "too_large").await;
    assert!(counted >= 1.0, "{counted}");
    let told = broker
        .process
        .log()
        .iter()
        .filter(|line| line.contains("too large") || line.contains("too_large"))
        .count();
    assert_eq!(told, 1, "one log line");
}

/// Redis cuts a subscriber that is sent more than its output buffer may hold.
#[tokio::test]
async fn a_33_mib_message_costs_a_gap_and_less_than_a_second() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let mut clients = Vec::new();
    for run in ["42", "43", "44"] {
        clients.push(broker.follow(&format!("{run}/stream")).await);
    }
    let mut publisher = redis.publisher().await;
    let huge = vec![b'x'; 33 * 1024 * 1024];
    // One round that meets a busy machine proves nothing.
    let mut times = Vec::new();
    while times.len() < 3 && !times.iter().any(|time| *time < Duration::from_secs(1)) {
        publisher.publish("run:42:output:stdout", &huge).await;
        let cut_at = Instant::now();
        for client in &mut clients {
            let (reason, _) = client.gap().await;
            assert_eq!(reason, "disconnected");
        }
        times.push(cut_at.elapsed());
        for (run, client) in ["42", "43", "44"].iter().zip(&mut clients) {
            publisher
                .publish(format!("run:{run}:status"), "\"back\"")
                .await;
            assert_eq!(client.run_event().await.payload(), "\"back\"");
        }
    }
    let best = times.iter().min().expect("at least one round");
    assert!(*best < Duration::from_secs(1), "{times:?}");
}

/// The link is cut, nothing else: every watched run is told.
#[tokio::test]
async fn a_cut_subscription_is_told_and_resumed() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let mut clients = Vec::new();
    for run in 0..10 {
        clients.push(broker.follow(&format!("run-{run}/stream")).await);
    }
    let mut publisher = redis.publisher().await;
    for round in 0..3 {
        let killed: i64 = publisher
            .command(&["CLIENT", "KILL", "TYPE", "pubsub"])
            .await;
        assert!(killed >= 1, "round {round}");
        for client in &mut clients {
            assert_eq!(client.gap().await.0, "disconnected");
        }
        for (run, client) in clients.iter_mut().enumerate() {
            publisher
                .publish(format!("run:run-{run}:status"), round.to_string())
                .await;
            assert_eq!(client.run_event().await.payload(), round.to_string());
        }
    }
}

/// A proxy, or a Redis at its limit of clients, may take each subscription and
/// cut it at once: that is no reason to come back without a pause.
#[tokio::test]
async fn a_subscription_cut_each_time_is_made_anew_at_a_pause() {
    const CUTS: u32 = 9;
    let redis = Redis::start().await;
    let _broker = Broker::redis(&redis).start_ready().await;
    let publisher = redis.publisher().await;
    // No probe comes back any more: no subscription proves good.
    let _: String = publisher
        .clone()
        .command(&["ACL", "SETUSER", "default", "-publish"])
        .await;
    let begin = Instant::now();
    for _ in 0..CUTS {
        eventually("it has subscribed", SOON, || {
            let mut publisher = publisher.clone();
            async move {
                let killed: i64 = publisher
                    .command(&["CLIENT", "KILL", "TYPE", "pubsub"])
                    .await;
                killed == 1
            }
        })
        .await;
    }
    // The halves of 20, 40, 80, 160, 320, 500 and 500 ms, and the first at once.
    let elapsed = begin.elapsed();
    assert!(elapsed >= Duration::from_millis(800), "{elapsed:?}");
}

/// A stopped Redis is silence without an error: only a probe notices.
#[tokio::test]
async fn a_frozen_redis_is_noticed_told_and_healed() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let mut client = broker.follow("42/stream").await;
    redis.freeze();
    let frozen_at = Instant::now();
    eventually("the probe notices", Duration::from_secs(10), async || {
        redis_status(&broker).await == "down"
    })
    .await;
    let ready = broker.get("/health/ready").await.status();
    assert_eq!(ready, 200, "a Redis blip takes no broker out");
    assert_eq!(broker.get("/health/ready?strict=true").await.status(), 503);
    // The fault itself lasts ten seconds; there is nothing to await.
    tokio::time::sleep(Duration::from_secs(10).saturating_sub(frozen_at.elapsed())).await;
    redis.thaw();
    broker.wait_ready().await;
    assert_eq!(redis_status(&broker).await, "up");
    let mut publisher = redis.publisher().await;
    publisher
        .publish("run:42:output:stdout", "\"healed\"")
        .await;
    let reasons = gaps_before(&mut client, "\"healed\"").await;
    assert!(
        reasons.iter().all(|reason| reason == "disconnected"),
        "{reasons:?}"
    );
    assert!(!reasons.is_empty(), "the hole is told");
}

fn check_unavailable(frames: &[Frame]) {
    let names: Vec<&str> = frames.iter().map(|frame| frame.event.as_str()).collect();
    assert_eq!(names, ["", "problem", "goodbye"], "retry, problem, goodbye");
    let problem = frames[1].json();
    check_problem(&problem);
    assert_eq!(problem["status"], 503);
    assert_eq!(problem["retryable"], true);
    assert_eq!(frames[2].json(), json!({"reason": "unavailable"}));
}

#[tokio::test]
async fn redis_down_at_start_is_waited_for() {
    let mut redis = Redis::down();
    let broker = Broker::redis(&redis).start().await;
    assert_eq!(broker.get("/health/ready?strict=true").await.status(), 503);
    let health = broker.json("/health").await;
    assert_eq!(health["status"], "degraded");
    let of_redis = &health["dependencies"]["redis"];
    assert_eq!(of_redis["status"], "down");
    eventually("the error is told", SOON, async || {
        let health = broker.json("/health").await;
        let error = &health["dependencies"]["redis"]["error"];
        error.as_str().is_some_and(|text| !text.is_empty())
    })
    .await;
    eventually("started, so ready", SOON, async || {
        broker.get("/health/ready").await.status() == 200
    })
    .await;

    let mut client = broker.stream("42/stream").await;
    check_unavailable(&client.rest(SOON).await);
    // What does not want a stream gets an error it can understand.
    let posted = broker
        .post("42", &json!({"kind": "output", "source": "s", "data": 1}))
        .await;
    posted.problem(503);

    redis.restart().await;
    broker.wait_ready().await;
    let mut client = broker.follow("42/stream").await;
    redis
        .publisher()
        .await
        .publish("run:42:output:stdout", "1")
        .await;
    assert_eq!(client.run_event().await.payload(), "1");
    assert_eq!(redis_status(&broker).await, "up");
}

#[tokio::test]
async fn a_redis_that_dies_for_three_seconds_leaves_sessions_open() {
    let mut redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("heartbeat.interval", "1s")
        .start_ready()
        .await;
    let mut client = broker.follow("42/stream").await;
    let mut publisher = redis.publisher().await;
    publisher.publish("run:42:output:stdout", "1").await;
    assert_eq!(client.run_event().await.payload(), "1");

    redis.kill();
    let killed_at = Instant::now();
    let mut beats = 0;
    while killed_at.elapsed() < Duration::from_secs(3) {
        match client.next_within(Duration::from_millis(100)).await {
            Next::Frame(frame) if frame.event == "heartbeat" => beats += 1,
            Next::Frame(frame) if frame.event == "problem" => check_outage(&frame),
            Next::Frame(frame) => assert_eq!(frame.event, "gap", "{frame:?}"),
            Next::Silence => {}
            other => panic!("{other:?}: the session is to stay open"),
        }
    }
    assert!(beats >= 2, "heartbeats go on: {beats}");
    redis.restart().await;
    broker.wait_ready().await;
    let mut publisher = redis.publisher().await;
    publisher.publish("run:42:output:stdout", "2").await;
    loop {
        let frame = client.event().await;
        match frame.event.as_str() {
            "gap" => assert_eq!(gap_of(&frame).0, "disconnected"),
            "problem" => check_outage(&frame),
            _ => {
                assert_eq!(frame.payload(), "2");
                break;
            }
        }
    }
    let text = String::from_utf8_lossy(client.bytes()).into_owned();
    assert!(text.contains("\"disconnected\""), "the hole is told");
}

/// What a run published before the link broke is still there to resume from.
#[tokio::test]
async fn a_cursor_survives_a_cut_link() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let mut client = broker.follow("42/stream").await;
    let mut publisher = redis.publisher().await;
    for n in 0..3 {
        publisher
            .publish("run:42:output:stdout", n.to_string())
            .await;
    }
    let events = client.run_events(3).await;
    let _: i64 = publisher
        .command(&["CLIENT", "KILL", "TYPE", "pubsub"])
        .await;
    assert_eq!(client.gap().await.0, "disconnected");
    publisher.publish("run:42:output:stdout", "3").await;
    let after = client.run_event().await;
    let mut back = broker.resume("42/stream", events[0].id()).await;
    back.preamble().await;
    assert_eq!(back.run_event().await, events[1]);
    assert_eq!(back.run_event().await, events[2]);
    assert_eq!(back.gap().await.0, "disconnected");
    assert_eq!(back.run_event().await, after);
}

/// Requests that ask for no stream get a plain 503 while Redis is away.
#[tokio::test]
async fn a_client_that_wants_no_stream_gets_a_status_code() {
    let redis = Redis::down();
    let broker = Broker::redis(&redis).start().await;
    let response = Request::get("/api/v1/runs/42/stream")
        .header("Accept", "application/json")
        .send(broker.addr)
        .await;
    response.problem(503);
}
