//! Rings much smaller than the history: who falls off, or comes back, reads on
//! in the store, with no hole and no twin.

use std::ops::Range;

use futures_util::future::{join, join_all};
use serde_json::{Value, json};

use crate::support::broker::BrokerSettings;
use crate::support::http::Request;
use crate::support::kept::{BOTH, Kept, Store, expect_gap, expect_hello, publish_numbers};
use crate::support::redis::Publisher;
use crate::support::sse::gap_of;
use crate::support::{Broker, SseClient};

const PLAIN: &str = "run:42:output:plain";

/// A ring of a few large events.
fn small_ring(settings: BrokerSettings) -> BrokerSettings {
    settings
        .set("limits.max_event_bytes", "32KiB")
        .set("hub.ring_bytes", "128KiB")
        .set("history.max_bytes_per_run", "64MiB")
}

/// A client that reads nothing until it is asked to, and of which the kernel
/// takes little.
async fn slow_client(broker: &Broker) -> SseClient {
    let request = Request::get("/api/v1/runs/42/stream").receive_buffer(8 * 1024);
    let mut client = SseClient::request(broker.addr, &request).await;
    client.preamble().await;
    client
}

/// About 20 kB that begin with a number.
fn large(n: usize) -> Value {
    json!([n, "x".repeat(20_000)])
}

fn number(payload: &str) -> usize {
    let number = payload.trim_start_matches('[').split(',').next();
    number.and_then(|n| n.parse().ok()).expect("[n,…")
}

async fn publish_large(broker: &Broker, numbers: Range<usize>) -> Vec<String> {
    let mut ids = Vec::new();
    for n in numbers {
        ids.push(broker.publish("42", large(n)).await);
    }
    ids
}

#[tokio::test]
async fn a_slow_client_of_a_durable_run_loses_nothing_and_is_told_nothing() {
    for store in BOTH {
        let kept = Kept::empty(store, small_ring).await;
        let mut slow = slow_client(&kept.broker).await;
        let mut reader = kept.broker.follow("42/stream").await;
        let ids = publish_large(&kept.broker, 0..500).await;
        for client in [&mut reader, &mut slow] {
            for (n, id) in ids.iter().enumerate() {
                let frame = client.run_event().await;
                assert_eq!((frame.id(), number(&frame.payload())), (&**id, n));
            }
        }
        let last = kept.broker.publish("42", json!("live")).await;
        assert_eq!(slow.run_event().await.id(), last);
        let reads = kept.broker.metric("runcast_store_reads_total", &[]).await;
        assert!(reads > 10.0, "10 MB do not fit a ring of 128 KiB: {reads}");
    }
}

/// What only was published is in no store: it is counted, the rest comes.
#[tokio::test]
async fn a_slow_client_of_a_mixed_run_is_told_how_many_plain_events_it_missed() {
    let kept = Kept::empty(Store::Redis, small_ring).await;
    let mut slow = slow_client(&kept.broker).await;
    let mut witness = kept.broker.follow("42/stream").await;
    let mut publisher = kept.publisher().await;
    // What the witness gets in turn is what the run's order is.
    let mut order = Vec::new();
    for n in 0..400 {
        if n % 4 == 1 {
            publisher.publish(PLAIN, large(n).to_string()).await;
        } else {
            kept.broker.publish("42", large(n)).await;
        }
        order.push(witness.run_event().await);
    }
    kept.broker.publish_status("42", json!("last")).await;
    let (mut seen, mut missed) = (Vec::new(), 0);
    loop {
        let frame = slow.event().await;
        match frame.event.as_str() {
            "gap" => {
                let (reason, gap) = gap_of(&frame);
                assert_eq!(reason, "slow_client");
                missed += gap["missed"].as_u64().expect("counted");
            }
            "status" => break,
            _ => seen.push(frame),
        }
    }
    // Exactly those of the witness, in its order, but for the plain ones told.
    let mut due = order.iter();
    let mut lost = 0;
    for frame in &seen {
        loop {
            let next = due.next().expect("known to the witness, in its order");
            if next == frame {
                break;
            }
            assert!(next.id().starts_with('~'), "a durable one is missing");
            lost += 1;
        }
    }
    lost += due.len() as u64;
    assert!(lost > 50, "8 MB do not fit a ring of 128 KiB: {lost}");
    assert_eq!(missed, lost, "the count is true");
}

#[tokio::test]
async fn a_slow_client_of_a_trimmed_run_is_told_the_exact_hole() {
    for store in BOTH {
        let settings = |settings| small_ring(settings).set("history.max_events", 100);
        let kept = Kept::empty(store, settings).await;
        let mut slow = slow_client(&kept.broker).await;
        let ids = publish_large(&kept.broker, 0..400).await;
        kept.trim(100).await;
        // What fitted into sockets and what the store still had when it was
        // asked comes; what lies between is one hole or more, each counted.
        let (mut due, mut missed) = (0, 0);
        let mut last: Option<String> = None;
        while due < 400 {
            let mut frame = slow.event().await;
            if frame.event == "gap" {
                let (reason, gap) = gap_of(&frame);
                assert_eq!(reason, "slow_client", "{store:?}");
                assert_eq!(gap["after"], json!(last));
                let count = gap["missed"].as_u64().expect("counted") as usize;
                missed += count;
                due += count;
                assert_eq!(gap["before"], json!(ids[due]));
                frame = slow.event().await;
            }
            assert_eq!(frame.id(), ids[due]);
            last = frame.id;
            due += 1;
        }
        assert!(missed > 100, "the store has 100 of 400: {missed}");
        let live = kept.broker.publish("42", json!("live")).await;
        assert_eq!(slow.run_event().await.id(), live);
    }
}

/// Those who page are overtaken by what arrives: no hole, no twin, in order.
#[tokio::test]
async fn paging_while_thousands_arrive_has_no_hole_and_no_twin() {
    const COUNT: usize = 6000;
    for store in BOTH {
        let settings = |settings: BrokerSettings| {
            settings
                .set("limits.max_event_bytes", "1KiB")
                .set("hub.ring_bytes", "4KiB")
                .set("history.page_bytes", "1KiB")
                .set("history.max_events", 2 * COUNT)
        };
        let kept = Kept::with(store, 500, settings).await;
        let broker = &kept.broker;
        let publishing = async {
            for first in (501..=COUNT).step_by(50) {
                publish_numbers(broker, "42", first..(first + 50).min(COUNT + 1)).await;
            }
        };
        let clients = (0..6).map(|seed| async move {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut client = broker.follow("42/stream").await;
            let mut hops = 0;
            for due in 1..=COUNT {
                let frame = client.run_event().await;
                assert_eq!(frame.payload(), due.to_string(), "{store:?} seed {seed}");
                if random.u32(..400) == 0 {
                    hops += 1;
                    client = broker.resume("42/stream", frame.id()).await;
                    let preamble = client.preamble().await;
                    assert_eq!(preamble.cursor.as_deref(), Some(frame.id()));
                }
            }
            assert!(hops > 3, "seed {seed}");
        });
        join(publishing, join_all(clients)).await;
        let reads = broker.metric("runcast_store_reads_total", &[]).await;
        assert!(reads > 20.0, "the ring holds little: {reads}");
    }
}

/// A mixed run of small events: `count` of them, every third only published.
/// Returns them as a client that saw all got them.
async fn mixed(
    broker: &Broker,
    publisher: &mut Publisher,
    count: usize,
) -> Vec<crate::support::Frame> {
    let mut witness = broker.follow("42/stream?from=now").await;
    let mut frames = Vec::new();
    for n in 0..count {
        if n % 3 == 2 {
            publisher.publish(PLAIN, n.to_string()).await;
        } else {
            broker.publish("42", json!(n)).await;
        }
        let frame = witness.run_event().await;
        assert_eq!(frame.payload(), n.to_string());
        assert_eq!(frame.id().starts_with('~'), n % 3 == 2);
        frames.push(frame);
    }
    frames
}

/// From the ring: exact after every id of either kind.
#[tokio::test]
async fn a_mixed_run_is_resumed_from_the_ring_after_ids_of_both_kinds() {
    let kept = Kept::empty(Store::Redis, |settings| settings).await;
    let mut publisher = kept.publisher().await;
    let frames = mixed(&kept.broker, &mut publisher, 30).await;
    for n in 0..30 {
        let mut client = kept.broker.resume("42/stream", frames[n].id()).await;
        let resume = if n == 29 { "live" } else { "replay" };
        expect_hello(&mut client, resume, Some(frames[n].id())).await;
        assert_eq!(
            client.run_events(29 - n).await,
            frames[n + 1..],
            "after {n}"
        );
    }
    let mut client = kept.broker.follow("42/stream").await;
    assert_eq!(client.run_events(30).await, frames);
    let mut client = kept.broker.follow("42/stream?from=-7").await;
    assert_eq!(client.run_events(7).await, frames[23..]);
}

/// On another broker only what is durable is known; whoever saw a plain event
/// is told that others may be missing, and nothing durable comes twice.
#[tokio::test]
async fn a_mixed_run_is_resumed_elsewhere_from_the_durable_part() {
    let kept = Kept::empty(Store::Redis, |settings| settings).await;
    let mut publisher = kept.publisher().await;
    let frames = mixed(&kept.broker, &mut publisher, 30).await;
    let other = kept.settings.start_ready().await;
    let durable_after = |n: usize| {
        let after = frames[n + 1..].iter();
        after.filter(|frame| !frame.id().starts_with('~'))
    };
    for n in 0..29 {
        let id = frames[n].id();
        let mut client = other.resume("42/stream", id).await;
        if n % 3 == 2 {
            let before = frames[n - 1].id();
            expect_hello(&mut client, "gap", Some(before)).await;
            let next = frames[n + 1].id();
            expect_gap(&mut client, ("restarted", Some(id), Some(next), None)).await;
        } else {
            let last_durable = durable_after(n).count() == 0;
            let resume = if last_durable { "live" } else { "replay" };
            expect_hello(&mut client, resume, Some(id)).await;
        }
        for due in durable_after(n) {
            assert_eq!(&client.run_event().await, due, "after {n}");
        }
    }
}

/// A plain id whose place fell off the ring: what was durable is read from the
/// store, what was not is counted.
#[tokio::test]
async fn a_mixed_run_is_resumed_over_ring_and_store() {
    let settings = |settings: BrokerSettings| {
        settings
            .set("limits.max_event_bytes", "1KiB")
            .set("hub.ring_bytes", "4KiB")
    };
    let kept = Kept::empty(Store::Redis, settings).await;
    let mut publisher = kept.publisher().await;
    let frames = mixed(&kept.broker, &mut publisher, 300).await;
    for n in [0, 1, 2, 3, 50, 101] {
        let id = frames[n].id();
        let mut client = kept.broker.resume("42/stream", id).await;
        assert_eq!(client.preamble().await.hello["resume"], "gap", "after {n}");
        let (reason, gap) = client.gap().await;
        assert_eq!((reason.as_str(), &gap["after"]), ("trimmed", &json!(id)));
        let mut due = frames[n + 1..].iter();
        let mut lost = 0;
        let mut left = 299 - n;
        while left > 0 {
            let frame = client.run_event().await;
            loop {
                let next = due.next().expect("in the witness' order");
                left -= 1;
                if *next == frame {
                    break;
                }
                assert!(next.id().starts_with('~'), "{next:?} is missing");
                lost += 1;
            }
        }
        assert!(lost > 10, "the ring holds few of 300: {lost}");
        if n % 3 == 2 {
            assert_eq!(gap["missed"], json!(lost), "after {n}");
        } else if let Some(missed) = gap["missed"].as_u64() {
            assert_eq!(missed, lost, "after {n}");
        }
    }
}

/// Three hundred come back at once, each from another place that only the
/// store has: all exact, by few reads at a time, in little memory.
#[tokio::test]
async fn a_herd_that_comes_back_at_once_is_served_exactly() {
    const CLIENTS: usize = 300;
    for store in BOTH {
        let settings = |settings: BrokerSettings| {
            settings
                .set("hub.ring_bytes", "4KiB")
                .set("limits.max_event_bytes", "2KiB")
                .set("history.max_reads", 4)
                // The last of the herd may have to wait for its hello.
                .set("history.page_bytes", "64KiB")
        };
        let mut kept = Kept::with(store, 2000, settings).await;
        // The hub has been watched, and its ring holds the newest only.
        let mut witness = kept.broker.follow("42/stream?from=now").await;
        let fresh = kept.publish(500).await;
        kept.expect(&mut witness, fresh).await;
        let before = kept.broker.metric("runcast_store_reads_total", &[]).await;
        let rss = kept.broker.process.rss_bytes();
        let all = kept.ids.len();
        let returning = (0..CLIENTS).map(|k| {
            let kept = &kept;
            async move {
                let n = 1 + k * 5;
                let mut tries = 0;
                let mut client = loop {
                    let mut client = kept.broker.resume("42/stream", kept.id(n)).await;
                    client.frame().await;
                    let frame = client.frame().await;
                    if frame.event == "hello" {
                        assert_eq!(frame.json()["resume"], "replay", "from {n}");
                        assert_eq!(client.frame().await.id(), kept.id(n));
                        break client;
                    }
                    // Over a second in the queue: told to come back.
                    assert_eq!(frame.event, "problem", "{frame:?}");
                    tries += 1;
                    assert!(tries < 10, "served in the end");
                };
                kept.expect(&mut client, n + 1..all + 1).await;
                client
            }
        });
        let mut clients = join_all(returning).await;
        let grown = kept.broker.process.rss_bytes().saturating_sub(rss);
        assert!(
            grown < 64 * 1024 * 1024,
            "{grown} bytes for {CLIENTS} clients"
        );
        let reads = kept.broker.metric("runcast_store_reads_total", &[]).await - before;
        assert!(reads >= CLIENTS as f64, "{reads} reads are counted");
        assert!(
            reads < CLIENTS as f64 * 20.0,
            "{reads} reads, a few for each"
        );
        kept.publish(1).await;
        for client in &mut clients {
            kept.expect(client, all + 1..all + 2).await;
        }
    }
}
