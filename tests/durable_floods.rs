//! Durable events past every bound of the live path: what does not fit is read
//! from the store, and no client notices.

use std::time::Duration;

use futures_util::future::{join, join_all};
use serde_json::json;

use crate::support::broker::BrokerSettings;
use crate::support::kept::{Kept, Store, append, expect_hello, publish_numbers};
use crate::support::redis::Publisher;
use crate::support::sse::Next;
use crate::support::{Broker, SseClient};

const FLOOD: usize = 20_000;

/// Appends many events in one round trip, so that they are announced faster
/// than a broker reads.
async fn flood(publisher: &mut Publisher, numbers: std::ops::Range<usize>) {
    let mut pipe = redis::pipe();
    for n in numbers {
        pipe.cmd("FCALL").arg("runcast_publish").arg(2);
        pipe.arg("run:{42}:stream").arg("run:{42}:meta");
        pipe.arg(&["42", "output", "stdout"]).arg(n);
        pipe.arg("MAXLEN").arg(2 * FLOOD).ignore();
    }
    publisher.pipeline(&pipe).await;
}

async fn expect_numbers(client: &mut SseClient, numbers: std::ops::Range<usize>) {
    for due in numbers {
        assert_eq!(client.run_event().await.payload(), due.to_string());
    }
}

/// Floods a broker until the bound that `counter` counts was reached: on a busy
/// machine one may keep up.
async fn flood_over(
    counter: (&str, &[(&str, &str)]),
    settings: impl Fn(BrokerSettings) -> BrokerSettings,
) {
    for _ in 0..10 {
        let kept = Kept::empty(Store::Redis, &settings).await;
        let mut publisher = kept.publisher().await;
        let mut clients = Vec::new();
        append(&mut publisher, "42", "0").await;
        for _ in 0..3 {
            clients.push(kept.broker.follow("42/stream").await);
        }
        let reading = join_all(clients.iter_mut().map(async |client| {
            expect_numbers(client, 0..FLOOD).await;
        }));
        join(flood(&mut publisher, 1..FLOOD), reading).await;
        for client in &mut clients {
            let next = client.next_within(Duration::from_millis(200)).await;
            assert_eq!(next, Next::Silence);
        }
        if kept.broker.metric(counter.0, counter.1).await > 0.0 {
            return;
        }
    }
    panic!("{counter:?} does not move: the bound is not reached");
}

#[tokio::test]
async fn a_full_queue_costs_a_durable_run_nothing() {
    let tiny = |settings: BrokerSettings| settings.set("redis.queue_messages", 200);
    flood_over(("runcast_redis_queue_overflows_total", &[]), tiny).await;
}

#[tokio::test]
async fn a_full_inbox_costs_a_durable_run_nothing() {
    let tiny = |settings: BrokerSettings| {
        settings
            .set("limits.max_event_bytes", "1KiB")
            .set("hub.inbox_bytes", "1KiB")
            .set("hub.ring_bytes", "8KiB")
            .set("server.workers", 1)
    };
    flood_over(("runcast_inbox_refusals_total", &[]), tiny).await;
}

/// In memory a post is accepted whole or not; a hub that cannot take it reads
/// it.
#[tokio::test]
async fn a_full_mailbox_costs_an_embedded_run_nothing() {
    let tiny = |settings: BrokerSettings| {
        settings
            .set("hub.mailbox", 1)
            .set("history.max_events", 2 * FLOOD)
    };
    let kept = Kept::empty(Store::Embedded, tiny).await;
    let mut client = kept.broker.follow("42/stream").await;
    let posting = join_all((0..8).map(async |_| {
        for _ in 0..40 {
            publish_numbers(&kept.broker, "42", 0..50).await;
        }
    }));
    let reading = async {
        let mut last = 0;
        for _ in 0..8 * 40 * 50 {
            let frame = client.run_event().await;
            let seq = crate::support::kept::parts(frame.id()).1;
            assert_eq!(seq, last + 1);
            last = seq;
        }
    };
    join(posting, reading).await;
}

/// Redis cuts a subscriber whose output is too large; of what was durable
/// nothing is missing.
#[tokio::test]
async fn a_subscription_cut_by_its_output_buffer_costs_a_durable_run_nothing() {
    let kept = Kept::empty(Store::Redis, |settings| settings).await;
    let mut publisher = kept.publisher().await;
    let limit = [
        "CONFIG",
        "SET",
        "client-output-buffer-limit",
        "pubsub 64kb 64kb 1",
    ];
    let _: String = publisher.command(&limit).await;
    append(&mut publisher, "42", "0").await;
    let mut client = kept.broker.follow("42/stream").await;
    let subscribes = "runcast_redis_subscribes_total";
    let mut next = 1;
    let mut rounds = 0;
    while kept.broker.metric(subscribes, &[]).await < 3.0 {
        rounds += 1;
        assert!(rounds < 50, "Redis cuts nobody");
        // Large ones to no run of ours, between events.
        let huge = vec![b'x'; 200_000];
        let huge = vec![huge; 10];
        publisher
            .publish_all("run:other:output:stdout", &huge)
            .await;
        flood(&mut publisher, next..next + 200).await;
        next += 200;
    }
    expect_numbers(&mut client, 0..next).await;
}

/// Ten seconds of silence without an error: told to nobody, since nothing is
/// missing.
#[tokio::test]
async fn a_frozen_redis_costs_a_durable_run_nothing() {
    let kept = Kept::empty(Store::Redis, |settings| {
        settings.set("redis.probe_interval", "300ms")
    })
    .await;
    let mut publisher = kept.publisher().await;
    append(&mut publisher, "42", "0").await;
    let mut client = kept.broker.follow("42/stream").await;
    let redis = kept.redis.as_ref().expect("over Redis");
    for round in 0..2 {
        redis.freeze();
        kept.broker.wait_metric("runcast_redis_up", &[], 0.0).await;
        redis.thaw();
        flood(&mut publisher, 1 + round * 500..1 + (round + 1) * 500).await;
        kept.broker.wait_metric("runcast_redis_up", &[], 1.0).await;
    }
    expect_numbers(&mut client, 0..1001).await;
}

/// Each client comes back the moment it has the newest event, on another
/// broker or worker, to which that event may still be on its way.
#[tokio::test]
async fn coming_back_at_once_elsewhere_is_no_gap() {
    let kept = Kept::empty(Store::Redis, |settings| settings.set("server.workers", 3)).await;
    let mut publisher = kept.publisher().await;
    append(&mut publisher, "42", "0").await;
    let brokers: Vec<Broker> = vec![
        kept.settings.start_ready().await,
        kept.settings.start_ready().await,
        kept.settings.start_ready().await,
    ];
    let mut clients = Vec::new();
    for _ in 0..12 {
        clients.push(brokers[0].follow("42/stream?from=now").await);
    }
    let mut random = fastrand::Rng::with_seed(7);
    for n in 1..200 {
        append(&mut publisher, "42", &n.to_string()).await;
        let targets: Vec<usize> = clients.iter().map(|_| random.usize(..3)).collect();
        let hops = clients.iter_mut().zip(targets).map(async |(client, at)| {
            let frame = client.run_event().await;
            assert_eq!(frame.payload(), n.to_string());
            *client = brokers[at].resume("42/stream", frame.id()).await;
            let preamble = client.preamble().await;
            assert_ne!(preamble.hello["resume"], "gap", "after {n}");
            assert_eq!(preamble.cursor.as_deref(), Some(frame.id()));
        });
        join_all(hops).await;
    }
}

/// No store is asked for what comes live.
#[tokio::test]
async fn the_live_path_reads_no_store() {
    let kept = Kept::empty(Store::Redis, |settings| settings).await;
    let mut publisher = kept.publisher().await;
    append(&mut publisher, "42", "0").await;
    let mut client = kept.broker.stream("42/stream?from=now").await;
    client.preamble().await;
    let reads = kept.broker.metric("runcast_store_reads_total", &[]).await;
    for first in (1..2001).step_by(100) {
        flood(&mut publisher, first..first + 100).await;
        expect_numbers(&mut client, first..first + 100).await;
    }
    let after = kept.broker.metric("runcast_store_reads_total", &[]).await;
    assert_eq!(after - reads, 0.0, "2000 events arrived live");
    let last = kept.broker.publish("42", json!("post")).await;
    assert_eq!(client.run_event().await.id(), last);
    let mut second = kept.broker.stream("42/stream?from=now").await;
    expect_hello(&mut second, "live", Some(&last)).await;
    let after = kept.broker.metric("runcast_store_reads_total", &[]).await;
    assert_eq!(after - reads, 0.0, "nor for who comes to what is live");
}
