//! Posted events on Redis: through the function, the stream and back.

use std::time::Duration;

use serde_json::json;

use crate::support::wait::SOON;
use crate::support::{Broker, Redis};

#[tokio::test]
async fn a_posted_event_is_appended_and_seen_by_every_broker_under_one_id() {
    let redis = Redis::start().await;
    let settings = Broker::redis(&redis);
    let (one, two) = (settings.start_ready().await, settings.start_ready().await);
    let (mut here, mut there) = (one.follow("42/stream").await, two.follow("42/stream").await);
    for n in 1..=3 {
        let id = one.publish("42", json!({"n": n})).await;
        let frame = here.run_event().await;
        assert_eq!(frame.id(), id);
        assert_eq!(there.run_event().await, frame, "the same bytes elsewhere");
        assert_eq!(id.split('-').nth(1), Some(n.to_string().as_str()));
    }
    let mut publisher = redis.publisher().await;
    let kept: i64 = publisher.command(&["XLEN", "run:{42}:stream"]).await;
    assert_eq!(kept, 3);
}

/// Only Redis decides whether a posted event is accepted; what it accepted
/// was once dropped by a hub that a plain status had ended.
#[tokio::test]
async fn an_event_accepted_after_a_plain_end_is_delivered() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("runs.end_grace", "100ms")
        .start_ready()
        .await;
    let mut client = broker.follow("42/stream").await;
    let mut publisher = redis.publisher().await;
    publisher.publish("run:42:status", "completed").await;
    let ended = client.rest(SOON).await;
    assert_eq!(ended.last().map(|frame| frame.event.as_str()), Some("end"));
    let id = broker.publish("42", json!("again")).await;
    let mut client = broker.follow("42/stream").await;
    assert_eq!(client.run_event().await.id(), id);
}

#[tokio::test]
async fn the_terminal_statuses_of_the_settings_hold_for_posted_events() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("runs.end_grace", "100ms")
        .set("runs.terminal_statuses", "done")
        .start_ready()
        .await;
    let mut client = broker.follow("42/stream").await;
    broker.publish_status("42", json!("failed")).await;
    let last = broker.publish_status("42", json!("DONE")).await;
    let frames = client.rest(SOON).await;
    assert_eq!(frames.len(), 3, "{frames:?}");
    assert_eq!(frames[2].id(), format!("{last}-end"));
    assert_eq!(frames[2].data, r#"{"status":"done","events":2}"#);
    let late = broker
        .post("42", &json!({"kind": "output", "data": 1}))
        .await;
    late.problem(409);
}

/// A restart begins a new epoch: those who watch are told, those who come see
/// only the new one.
#[tokio::test]
async fn a_restart_begins_the_run_anew() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let mut client = broker.follow("42/stream").await;
    let old = broker.publish("42", json!("old")).await;
    assert_eq!(client.run_event().await.id(), old);
    let event = json!({"kind": "output", "source": "stdout", "data": "new"});
    let path = "/api/v1/runs/42/events?restart=true";
    let request = crate::support::http::Request::post(path, "application/json", event.to_string());
    let answer = request.send(broker.addr).await;
    let new = crate::support::broker::accepted_ids(&answer).remove(0);
    let (reason, gap) = client.gap().await;
    assert_eq!((reason.as_str(), &gap["after"]), ("expired", &json!(old)));
    assert_eq!(client.run_event().await.id(), new);
    let mut late = broker.follow("42/stream").await;
    assert_eq!(late.run_event().await.id(), new);
    let mut back = broker.resume("42/stream", &old).await;
    assert_eq!(back.preamble().await.hello["resume"], "gap");
    assert_eq!(back.gap().await.0, "expired");
    assert_eq!(back.run_event().await.id(), new);
}

/// A hole in the numbers is told with its count, a number seen before is
/// dropped.
#[tokio::test]
async fn a_lost_announcement_is_read_from_the_stream_and_a_doubled_one_dropped() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let mut client = broker.follow("42/stream").await;
    let mut publisher = redis.publisher().await;
    let first = broker.publish("42", json!(1)).await;
    let (id, us) = first.rsplit_once('-').expect("<epoch>-<seq>-<us>");
    let (epoch, _) = id.split_once('-').expect("<epoch>-<seq>");
    let again = format!("1 {epoch} 1 {us} 0 output 0 6 stdout\n1");
    publisher.publish("run:{42}:events", again).await;
    // As the function does it, but for the announcement.
    let us: u64 = us.parse().expect("µs");
    let add = |seq: u64| {
        let mut pipe = ::redis::pipe();
        let (entry, us) = (format!("{seq}-{}", us + seq), us + seq);
        pipe.cmd("XADD").arg("run:{42}:stream").arg(entry);
        pipe.arg(&["k", "output", "s", "stdout", "d"]).arg(seq);
        pipe.cmd("HSET").arg("run:{42}:meta").arg("s").arg(seq);
        pipe.arg("u").arg(us);
        pipe
    };
    for seq in 2..=5 {
        publisher.pipeline(&add(seq)).await;
    }
    broker.publish("42", json!(6)).await;
    for seq in 1..=6 {
        assert_eq!(client.run_event().await.payload(), seq.to_string());
    }
    let doubled = [("kind", "output"), ("result", "duplicate")];
    assert_eq!(
        broker.metric("runcast_events_in_total", &doubled).await,
        1.0
    );
    // The last one of all: only the comparison of positions can show it.
    publisher.pipeline(&add(7)).await;
    assert_eq!(client.run_event().await.payload(), "7");
}

/// Whoever may publish on the channel can tell lies there, but the stream is
/// the truth.
#[tokio::test]
async fn a_forged_number_at_its_limit_harms_nobody() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let mut client = broker.follow("42/stream").await;
    let mut publisher = redis.publisher().await;
    for round in 1..=3 {
        for (seq, us) in [(u64::MAX, 1001), (3, 1002), (u64::MAX, 1003)] {
            let message = format!("1 1795464000123 {seq} {us} 0 output 0 1 s\n{us}");
            publisher.publish("run:{42}:events", message).await;
        }
        broker.publish("42", json!(round)).await;
        assert_eq!(client.run_event().await.payload(), round.to_string());
    }
}

/// One that follows on cannot be told from a true one until that comes.
#[tokio::test]
async fn a_forged_next_event_is_taken_back() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let mut client = broker.follow("42/stream").await;
    let mut publisher = redis.publisher().await;
    let first = broker.publish("42", json!(1)).await;
    client.run_event().await;
    let (id, us) = first.rsplit_once('-').expect("<epoch>-<seq>-<us>");
    let (epoch, _) = id.split_once('-').expect("<epoch>-<seq>");
    let us: u64 = us.parse().expect("µs");
    let forged = format!("1 {epoch} 2 {} 0 output 0 1 s\n0", us + 1);
    publisher.publish("run:{42}:events", forged).await;
    assert_eq!(client.run_event().await.payload(), "0");
    broker.publish("42", json!(2)).await;
    assert_eq!(client.gap().await.0, "rewound");
    assert_eq!(client.run_event().await.payload(), "2");
}

#[tokio::test]
async fn a_forged_announcement_over_the_limit_is_told_not_delivered() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let mut client = broker.follow("42/stream").await;
    let mut publisher = redis.publisher().await;
    let large = "x".repeat(600_000);
    let header = "1 1795464000123";
    publisher
        .publish(
            "run:{42}:events",
            format!("{header} 1 1001 0 output 0 1 s\n{large}"),
        )
        .await;
    publisher
        .publish(
            "run:{42}:events",
            format!("{header} 2 1002 0 output 0 1 s\n2"),
        )
        .await;
    assert_eq!(client.gap().await.0, "too_large");
    assert_eq!(client.run_event().await.payload(), "2");
}

#[tokio::test]
async fn probes_of_other_brokers_are_not_counted_as_strangers() {
    let redis = Redis::start().await;
    let settings = Broker::redis(&redis).set("redis.probe_interval", "100ms");
    let (one, two) = (settings.start_ready().await, settings.start_ready().await);
    let probes = one.metric("runcast_redis_probes_total", &[]).await;
    one.wait_metric("runcast_redis_probes_total", &[], probes + 5.0)
        .await;
    for broker in [&one, &two] {
        assert_eq!(
            broker.metric("runcast_redis_rejected_total", &[]).await,
            0.0
        );
        assert_eq!(
            broker.metric("runcast_redis_probe_misses_total", &[]).await,
            0.0
        );
    }
}

/// Redis without its data has forgotten the function: the next post loads it.
#[tokio::test]
async fn a_redis_that_forgot_the_function_is_given_it_again() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    broker.publish("42", json!(1)).await;
    let mut publisher = redis.publisher().await;
    let _: String = publisher.command(&["FUNCTION", "FLUSH"]).await;
    let started = std::time::Instant::now();
    broker.publish("42", json!(2)).await;
    assert!(started.elapsed() < Duration::from_secs(2));
}
