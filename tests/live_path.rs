//! The live path does no I/O for an event: without a fault no page of history
//! is read for those who watch, nor for those who join where the ring reaches.

use std::time::Duration;

use crate::support::redis::Publisher;
use crate::support::wait::SOON;
use crate::support::{Broker, Redis, SseClient, eventually};

const READS: &str = "runcast_store_reads_total";
const CHECKS: &str = "runcast_store_checks_total";

/// Events in one round trip, all delivered before the next: on a busy machine,
/// too, none is on its way for as long as one that is lost.
const BATCH: usize = 100;

/// Publishes a batch of durable events of run 42; their data are numbers from
/// `first` on.
async fn publish(publisher: &mut Publisher, first: usize) {
    let mut pipe = ::redis::pipe();
    for number in first..first + BATCH {
        pipe.cmd("FCALL")
            .arg(&["runcast_publish", "2", "run:{42}:stream", "run:{42}:meta"])
            .arg(&["42", "output", "stdout"])
            .arg(number);
    }
    publisher.pipeline(&pipe).await;
}

/// Reads a batch of events, in order.
async fn read(client: &mut SseClient, first: usize) -> String {
    let frames = client.run_events(BATCH).await;
    for (frame, number) in frames.iter().zip(first..) {
        assert_eq!(frame.payload(), number.to_string());
    }
    frames[BATCH - 1].id().to_owned()
}

#[tokio::test]
async fn durable_events_are_delivered_and_joined_at_without_a_read() {
    const BATCHES: usize = 20;
    let redis = Redis::start().await;
    let settings = Broker::redis(&redis).set("redis.check_interval", "200ms");
    let broker = settings.start_ready().await;
    let mut publisher = redis.publisher().await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(broker.follow("42/stream").await);
    }
    publish(&mut publisher, 0).await;
    for client in &mut clients {
        read(client, 0).await;
    }

    let (reads, checks) = (
        broker.metric(READS, &[]).await,
        broker.metric(CHECKS, &[]).await,
    );
    for batch in 1..BATCHES {
        publish(&mut publisher, batch * BATCH).await;
        let mut last = String::new();
        for client in &mut clients {
            last = read(client, batch * BATCH).await;
        }
        // At the end of the log, somewhere in it, and at its end without an id.
        let path = match batch % 3 {
            0 => "42/stream?from=now",
            1 => "42/stream?from=-7",
            _ => "42/stream",
        };
        let mut joined = match path {
            "42/stream" => broker.resume(path, &last).await,
            _ => broker.stream(path).await,
        };
        joined.preamble().await;
        if path.ends_with("-7") {
            joined.run_events(7).await;
        }
        clients.push(joined);
    }
    assert_eq!(broker.metric(READS, &[]).await, reads, "pages were read");
    eventually("positions are checked all the while", SOON, async || {
        broker.metric(CHECKS, &[]).await >= checks + 2.0
    })
    .await;
    assert_eq!(broker.metric(READS, &[]).await, reads, "a check read pages");

    // The counter does move: a broker that has heard nothing reads.
    let other = settings.start_ready().await;
    let mut late = other.follow("42/stream").await;
    read(&mut late, 0).await;
    assert!(other.metric(READS, &[]).await >= 1.0);
}

/// A run nobody publishes to costs a look at its position, shared with others,
/// and no page.
#[tokio::test]
async fn quiet_runs_are_checked_together() {
    const RUNS: usize = 50;
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("redis.check_interval", "200ms")
        .start_ready()
        .await;
    let mut clients = Vec::new();
    for run in 0..RUNS {
        clients.push(broker.follow(&format!("{run}/stream")).await);
    }
    let reads = broker.metric(READS, &[]).await;
    let (checks, began) = (broker.metric(CHECKS, &[]).await, std::time::Instant::now());
    eventually("some checks were made", SOON, async || {
        broker.metric(CHECKS, &[]).await >= checks + 5.0
    })
    .await;
    let made = broker.metric(CHECKS, &[]).await - checks;
    let most = began.elapsed().as_secs_f64() / Duration::from_millis(200).as_secs_f64() + 2.0;
    assert!(
        made <= most,
        "{made} looks, more than {most} for {RUNS} runs"
    );
    assert_eq!(broker.metric(READS, &[]).await, reads);
}
