//! Clients that do not read, and clients that vanish: nobody else notices.

use std::time::{Duration, Instant};

use crate::metrics::wait_sessions;
use crate::support::http::Request;
use crate::support::{Broker, Redis, SseClient, eventually};

const MIB: u64 = 1024 * 1024;

/// Stalled readers of a busy run: memory stays flat, another reader of the
/// same run misses nothing and is not delayed, the stalled are closed.
#[tokio::test]
async fn stalled_clients_cost_nothing_and_are_closed() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("limits.write_timeout", "2s")
        .start_ready()
        .await;
    let mut reader = broker.follow("42/stream").await;
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let request = Request::get("/api/v1/runs/42/stream").receive_buffer(8 * 1024);
        stalled.push(SseClient::request(broker.addr, &request).await);
    }
    wait_sessions(&broker, 21).await;
    let mut publisher = redis.publisher().await;
    let payload = vec![b'x'; 50_000];
    let mut warm = 0;
    let mut waits = Vec::new();
    // 20 MB, far more than the kernel takes for a client that does not read.
    for n in 0..400 {
        let published = Instant::now();
        publisher.publish("run:42:output:stdout", &payload).await;
        reader.run_event().await;
        waits.push(published.elapsed());
        if n == 100 {
            warm = broker.process.rss_bytes();
        }
    }
    let grown = broker.process.rss_bytes().saturating_sub(warm);
    assert!(grown < 16 * MIB, "{grown} bytes more for 15 MB of events");
    // Whoever is delayed by others is delayed often; a busy machine pauses now
    // and then.
    waits.sort_unstable();
    let wait = waits[395];
    assert!(wait < Duration::from_secs(1), "the reader waits {wait:?}");

    wait_sessions(&broker, 1).await;
    let timeout = [("reason", "write_timeout")];
    let closed = broker
        .metric("runcast_sessions_closed_total", &timeout)
        .await;
    assert_eq!(closed, 20.0);
    publisher
        .publish("run:42:output:stdout", "\"still here\"")
        .await;
    assert_eq!(reader.run_event().await.payload(), "\"still here\"");
    drop(stalled);
}

/// Reads slowly but reads: never cut, and told what it missed.
#[tokio::test]
async fn a_slow_reader_is_told_what_it_missed() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("hub.ring_bytes", "256KiB")
        .start_ready()
        .await;
    let request = Request::get("/api/v1/runs/42/stream").receive_buffer(8 * 1024);
    let mut slow = SseClient::request(broker.addr, &request).await;
    slow.preamble().await;
    let mut publisher = redis.publisher().await;
    let text = "x".repeat(40_000);
    for n in 0..400u32 {
        let payload = format!("[{n},\"{text}\"]");
        publisher.publish("run:42:output:stdout", payload).await;
    }
    publisher.publish("run:42:status", "\"last\"").await;
    let status = [("kind", "status"), ("result", "accepted")];
    broker
        .wait_metric("runcast_events_in_total", &status, 1.0)
        .await;
    let mut due = 0;
    let mut missed = 0;
    loop {
        let frame = slow.event().await;
        match frame.event.as_str() {
            "gap" => {
                let (reason, gap) = crate::support::sse::gap_of(&frame);
                assert_eq!(reason, "slow_client");
                missed += gap["missed"].as_u64().expect("counted");
                due += gap["missed"].as_u64().expect("counted");
            }
            "status" => break,
            _ => {
                let begin = format!("[{due},");
                assert!(frame.payload().starts_with(&begin), "event {due} is due");
                due += 1;
            }
        }
    }
    assert_eq!(due, 400, "every event came or was counted");
    assert!(missed > 0, "16 MB do not fit a ring of 256 KiB");
}

/// A silent run gives the server nothing to write, so nothing to fail at.
#[tokio::test]
async fn vanished_clients_of_a_silent_run_are_gone_within_seconds() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let fds = broker.process.fd_count();
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(broker.follow("42/stream").await);
    }
    wait_sessions(&broker, 20).await;
    let vanished = Instant::now();
    for (n, client) in clients.into_iter().enumerate() {
        match n % 2 {
            0 => drop(client),
            _ => client.reset(),
        }
    }
    wait_sessions(&broker, 0).await;
    assert!(
        vanished.elapsed() < Duration::from_secs(3),
        "{:?}",
        vanished.elapsed()
    );
    eventually(
        "their sockets are closed",
        Duration::from_secs(3),
        async || broker.process.fd_count() <= fds + 2,
    )
    .await;
}
