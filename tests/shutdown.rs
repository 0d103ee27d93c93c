//! SIGTERM: not ready, goodbye, closed, exit code 0.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::support::http::Request;
use crate::support::wait::SOON;
use crate::support::{Broker, Frame, Redis, SseClient, eventually};

fn check_goodbye(frames: &[Frame]) -> u64 {
    let last = frames.last().expect("at least a goodbye");
    assert_eq!(last.event, "goodbye", "{frames:?}");
    assert_eq!(last.json(), json!({"reason": "drain"}));
    last.retry.expect("a goodbye has a retry")
}

#[tokio::test]
async fn streams_are_told_goodbye_with_a_spread_retry() {
    let redis = Redis::start().await;
    let mut broker = Broker::redis(&redis)
        .set("server.shutdown_grace", "5s")
        .start_ready()
        .await;
    let mut clients = Vec::new();
    for run in 0..30 {
        clients.push(broker.follow(&format!("run-{}/stream", run % 5)).await);
    }
    broker.terminate();
    let begin = Instant::now();
    let mut retries = Vec::new();
    for client in &mut clients {
        retries.push(check_goodbye(&client.rest(SOON).await));
    }
    assert_eq!(broker.exit_code(SOON).await, Some(0));
    assert!(
        begin.elapsed() < Duration::from_secs(6),
        "{:?}",
        begin.elapsed()
    );
    retries.sort_unstable();
    retries.dedup();
    assert!(retries.len() > 10, "spread, not a herd: {retries:?}");
}

#[tokio::test]
async fn goodbyes_are_said_at_the_rate_and_others_are_served_on() {
    let mut broker = Broker::embedded()
        .set("server.drain_rate", 20)
        .start_ready()
        .await;
    let mut clients = Vec::new();
    for run in 0..40 {
        clients.push(broker.follow(&format!("run-{}/stream", run % 4)).await);
    }
    broker.terminate();
    let begin = Instant::now();
    let ends = clients.iter_mut().map(|client| async move {
        let frames = client.rest(SOON).await;
        check_goodbye(&frames);
        (begin.elapsed(), frames.len() > 1)
    });
    let publishing = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        for run in 0..4 {
            let event = json!({"kind": "output", "data": "late"});
            broker.post(&format!("run-{run}"), &event).await;
        }
    };
    let (mut told, ()) = tokio::join!(futures_util::future::join_all(ends), publishing);
    told.sort_unstable();
    let (first, half, last) = (told[0].0, told[20].0, told[39].0);
    assert!(last - first > Duration::from_millis(1500), "{told:?}");
    assert!(half - first > (last - first) / 4, "{told:?}");
    assert!(last - half > (last - first) / 4, "{told:?}");
    assert!(
        told[39].1 && !told[0].1,
        "who is told last sees it: {told:?}"
    );
    assert_eq!(broker.exit_code(SOON).await, Some(0));
}

/// Proxies learn that it is to go; who comes all the same is served.
#[tokio::test]
async fn for_the_delay_it_is_not_ready_and_serves_on() {
    let mut broker = Broker::embedded()
        .set("server.drain_delay", "2s")
        .start_ready()
        .await;
    let mut early = broker.follow("42/stream").await;
    broker.terminate();
    let begin = Instant::now();
    eventually("it says that it is not ready", SOON, async || {
        broker.get("/health/ready").await.status() == 503
    })
    .await;
    let mut late = broker.follow("42/stream").await;
    let id = broker.publish("42", json!(1)).await;
    for client in [&mut early, &mut late] {
        assert_eq!(client.run_event().await.id(), id);
        check_goodbye(&client.rest(SOON).await);
    }
    assert!(begin.elapsed() >= Duration::from_secs(2));
    assert_eq!(broker.exit_code(SOON).await, Some(0));
}

/// A client that does not read holds the drain open to the grace, not longer;
/// meanwhile the broker says that it is not ready and takes no new stream.
#[tokio::test]
async fn draining_is_told_and_bounded_by_the_grace() {
    let redis = Redis::start().await;
    let mut broker = Broker::redis(&redis)
        .set("server.shutdown_grace", "3s")
        .start_ready()
        .await;
    let request = Request::get("/api/v1/runs/42/stream").receive_buffer(8 * 1024);
    let stalled = SseClient::request(broker.addr, &request).await;
    let mut publisher = redis.publisher().await;
    let payloads = vec![vec![b'x'; 60_000]; 200];
    publisher
        .publish_all("run:42:output:stdout", &payloads)
        .await;
    let mut reader = broker.follow("42/stream?from=now").await;

    broker.terminate();
    let begin = Instant::now();
    eventually("ready says 503 while draining", SOON, async || {
        let answer = Request::get("/health/ready").try_send(broker.addr).await;
        answer.expect("it still answers").status() == 503
    })
    .await;
    // The stalled client keeps the broker there: it still answers, and with a
    // 200, or no EventSource would come back.
    let mut late = broker.stream("43/stream").await;
    let frames = late.rest(SOON).await;
    let names: Vec<&str> = frames.iter().map(|frame| frame.event.as_str()).collect();
    assert_eq!(names, ["", "problem", "goodbye"]);
    check_goodbye(&frames);
    check_goodbye(&reader.rest(SOON).await);
    assert_eq!(broker.exit_code(SOON).await, Some(0));
    assert!(
        begin.elapsed() < Duration::from_secs(6),
        "{:?}",
        begin.elapsed()
    );
    drop(stalled);
}

/// The operator's socket answers until the end, is no reason to wait for it, and
/// is free for the next broker.
#[tokio::test]
async fn metrics_are_told_until_the_end_and_keep_nobody_waiting() {
    let mut broker = Broker::embedded()
        .set("metrics.bind", "127.0.0.1:0")
        .set("server.shutdown_grace", "3s")
        .start_ready()
        .await;
    let operator = broker.operator_addr();
    let request = Request::get("/api/v1/runs/42/stream").receive_buffer(8 * 1024);
    let _stalled = SseClient::request(broker.addr, &request).await;
    let event = json!({"kind": "output", "source": "s", "data": "x".repeat(200_000)});
    for _ in 0..40 {
        assert_eq!(broker.post("42", &event).await.status(), 202);
    }
    // A scrape that has begun and never goes on.
    let mut scrape = tokio::net::TcpStream::connect(operator)
        .await
        .expect("it listens");
    scrape
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\nGET /met")
        .await
        .expect("connected");
    broker.terminate();
    let begin = Instant::now();
    eventually("ready says 503 while draining", SOON, async || {
        let answer = Request::get("/health/ready").try_send(operator).await;
        answer.expect("it still answers").status() == 503
    })
    .await;
    let metrics = Request::get("/metrics").send(operator).await;
    assert!(metrics.text().contains("runcast_sessions"));
    assert_eq!(broker.exit_code(SOON).await, Some(0));
    assert!(
        begin.elapsed() < Duration::from_secs(6),
        "{:?}",
        begin.elapsed()
    );
    let _free = std::net::TcpListener::bind(operator).expect("nobody listens there");
}

#[tokio::test]
async fn an_idle_broker_ends_at_once() {
    for settings in [Broker::embedded(), Broker::redis(&Redis::down())] {
        let mut broker = settings.start().await;
        broker.terminate();
        let begin = Instant::now();
        assert_eq!(broker.exit_code(SOON).await, Some(0));
        assert!(
            begin.elapsed() < Duration::from_secs(3),
            "{:?}",
            begin.elapsed()
        );
    }
}

#[tokio::test]
async fn ctrl_c_ends_it_as_well() {
    let mut broker = Broker::embedded().start_ready().await;
    let mut client = broker.follow("42/stream").await;
    broker.process.signal(rustix::process::Signal::INT);
    check_goodbye(&client.rest(SOON).await);
    assert_eq!(broker.exit_code(SOON).await, Some(0));
}

/// What a client had not read yet comes before the goodbye.
#[tokio::test]
async fn events_before_the_signal_are_not_lost() {
    let broker = Broker::embedded().start_ready().await;
    let mut client = broker.follow("42/stream").await;
    let mut ids = Vec::new();
    for n in 0..50 {
        ids.push(broker.publish("42", json!(n)).await);
    }
    broker.terminate();
    let frames = client.rest(SOON).await;
    check_goodbye(&frames);
    let seen: Vec<&str> = frames
        .iter()
        .filter_map(|frame| frame.id.as_deref())
        .collect();
    assert_eq!(seen, ids);
}

/// A program that stands where kubectl stands and never ends by itself.
#[tokio::test]
async fn no_child_is_left_behind() {
    let dir = tempfile::TempDir::new().expect("a temporary directory");
    let (program, pids) = (dir.path().join("kubectl"), dir.path().join("pids"));
    let script = format!("#!/bin/sh\necho $$ >>{}\nexec sleep 600\n", pids.display());
    std::fs::write(&program, script).expect("the directory is ours");
    std::fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("the file is ours");
    let mut broker = Broker::embedded()
        .set("kubectl.enabled", "true")
        .set("kubectl.command", program.display())
        .start_ready()
        .await;
    let _client = broker.stream("42/stream/kubectl").await;
    let started = || std::fs::read_to_string(&pids).unwrap_or_default();
    eventually("the program is started", SOON, async || {
        started().ends_with('\n')
    })
    .await;
    broker.terminate();
    assert_eq!(broker.exit_code(SOON).await, Some(0));
    for pid in started().lines() {
        eventually("the child is gone", SOON, async || {
            !std::path::Path::new(&format!("/proc/{pid}")).exists()
        })
        .await;
    }
}
