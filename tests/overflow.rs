//! Floods over the bounds of the event path: what does not fit is told by a
//! gap at its place, or is caught up. Nothing is lost in silence.

use std::time::Duration;

use crate::support::broker::BrokerSettings;
use crate::support::sse::{Next, gap_of};
use crate::support::{Broker, Redis, SseClient};

const FLOOD: u64 = 20_000;
const CHANNEL: &str = "run:42:output:stdout";

/// What a client has seen of a flood.
#[derive(Debug, Default)]
struct Seen {
    events: u64,
    /// Gaps, and what their `missed` adds up to.
    gaps: u64,
    counted: u64,
    /// The gap before the next event, and its count if it has one.
    gap: Option<Option<u64>>,
}

/// Floods brokers until one has reached the bound that `counter` counts: on a
/// busy machine one may keep up. Each time all is there or told.
async fn flood_over(
    counter: &str,
    settings: impl Fn(BrokerSettings) -> BrokerSettings,
) -> (Broker, Seen) {
    for _ in 0..10 {
        let (broker, seen) = flood(&settings).await;
        assert_eq!(seen.events + seen.counted, FLOOD, "{seen:?}");
        if broker.metric(counter, &[]).await > 0.0 {
            return (broker, seen);
        }
        assert_eq!(seen.gaps, 0, "{seen:?}");
    }
    panic!("{counter} does not move: the bound is not reached");
}

/// Starts a broker, publishes the flood to it and reads all that comes.
async fn flood(settings: impl Fn(BrokerSettings) -> BrokerSettings) -> (Broker, Seen) {
    let redis = Redis::start().await;
    // Room for all of it: who falls off the ring is told of a hole of his own.
    let roomy = Broker::redis(&redis).set("hub.ring_bytes", "64MiB");
    let broker = settings(roomy).start_ready().await;
    let mut client = broker.follow("42/stream").await;
    let mut publisher = redis.publisher().await;
    let payloads: Vec<Vec<u8>> = (0..FLOOD).map(|n| n.to_string().into()).collect();
    publisher.publish_all(CHANNEL, &payloads).await;
    let mut seen = Seen::default();
    while !read_to_silence(&mut client, &mut seen).await {
        // All that got through was read; this one must get through.
        publisher.publish(CHANNEL, "\"last\"").await;
    }
    (broker, seen)
}

/// Reads until nothing comes; returns whether the last event was read. Fails
/// on an event that is missing without a gap, and on a gap with a count that
/// is not true.
async fn read_to_silence(client: &mut SseClient, seen: &mut Seen) -> bool {
    let mut due = seen.events + seen.counted;
    loop {
        let frame = match client.next_within(Duration::from_millis(500)).await {
            Next::Frame(frame) => frame,
            Next::Silence => return false,
            other => panic!("{other:?}"),
        };
        if frame.event == "gap" {
            let (reason, told) = gap_of(&frame);
            assert_eq!(reason, "overflow");
            seen.gaps += 1;
            // Two in a row are one hole; one without a count makes it unknown.
            let missed = told["missed"].as_u64();
            seen.gap = Some(match seen.gap {
                None => missed,
                Some(before) => before.zip(missed).map(|(one, two)| one + two),
            });
            continue;
        }
        let payload = frame.payload();
        let n = match payload.as_str() {
            "\"last\"" => FLOOD,
            number => number.parse().expect("a number"),
        };
        match seen.gap.take() {
            None => assert_eq!(n, due, "no gap stands there"),
            Some(None) => assert!(n >= due, "{n} where {due} was due"),
            Some(Some(missed)) => assert_eq!(n, due + missed, "the count is true"),
        }
        seen.counted += n - due;
        if n == FLOOD {
            return true;
        }
        seen.events += 1;
        due = n + 1;
    }
}

/// Checks that what the queue before routing drops is what clients are told.
async fn check_queue(settings: impl Fn(BrokerSettings) -> BrokerSettings) {
    let counter = "runcast_redis_queue_overflows_total";
    let (broker, seen) = flood_over(counter, settings).await;
    let dropped = broker.metric(counter, &[]).await;
    assert_eq!(dropped, seen.counted as f64, "{seen:?}");
}

#[tokio::test]
async fn a_queue_full_of_messages_is_told_by_gaps() {
    let tiny = |settings: BrokerSettings| settings.set("redis.queue_messages", 200);
    check_queue(tiny).await;
}

#[tokio::test]
async fn a_queue_full_of_bytes_is_told_by_gaps() {
    let small = |settings: BrokerSettings| {
        settings
            .set("limits.max_event_bytes", "1KiB")
            .set("redis.queue_bytes", "1KiB")
    };
    check_queue(small).await;
}

/// A batch that a hub's mailbox refuses is counted and told with its count.
#[tokio::test]
async fn a_full_mailbox_of_a_hub_loses_nothing_in_silence() {
    let tiny = |settings: BrokerSettings| settings.set("hub.mailbox", 1);
    let (broker, seen) = flood_over("runcast_mailbox_refusals_total", tiny).await;
    let refused = [("result", "refused")];
    let refused = broker.metric("runcast_events_in_total", &refused).await;
    assert_eq!(refused, seen.counted as f64, "{seen:?}");
}

/// A worker that falls behind is caught up from the hub's log: no gap.
#[tokio::test]
async fn a_full_inbox_of_a_worker_is_caught_up_without_loss() {
    let tiny = |settings: BrokerSettings| {
        settings
            .set("limits.max_event_bytes", "1KiB")
            .set("hub.inbox_bytes", "1KiB")
            .set("server.workers", 1)
    };
    let (_broker, seen) = flood_over("runcast_inbox_refusals_total", tiny).await;
    assert_eq!((seen.events, seen.gaps), (FLOOD, 0), "{seen:?}");
}
