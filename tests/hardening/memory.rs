//! A broker whose memory is short sheds in order, and goes on.

use super::refusals;
use crate::limits::admitted;
use crate::support::http::Request;
use crate::support::wait::SOON;
use crate::support::{Broker, Redis, SseClient, eventually};

const MIB: u64 = 1024 * 1024;

/// Bytes of a broker that has nothing to do.
async fn idle_bytes(redis: &Redis) -> u64 {
    let broker = Broker::redis(redis).start_ready().await;
    resident(&broker)
}

fn resident(broker: &Broker) -> u64 {
    let status = format!("/proc/{}/status", broker.process.pid());
    let status = std::fs::read_to_string(status).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.expect("a number").parse::<u64>().expect("a number") * 1024
}

/// Whether a new stream is let in, or else its problem.
async fn outcome(broker: &Broker, run_and_rest: &str) -> String {
    let mut client = broker.stream(run_and_rest).await;
    client.frame().await;
    let second = client.frame().await;
    match second.event.as_str() {
        "problem" => second.json()["type"].as_str().expect("a type").to_owned(),
        event => event.to_owned(),
    }
}

#[tokio::test]
async fn memory_that_is_short_is_shed_in_order_and_comes_back() {
    let redis = Redis::start().await;
    let max = idle_bytes(&redis).await + 40 * MIB;
    let broker = Broker::redis(&redis)
        .set("limits.max_memory", max)
        .start_ready()
        .await;
    let request = Request::get("/api/v1/runs/slow/stream").receive_buffer(8 * 1024);
    let mut slow = SseClient::request(broker.addr, &request).await;
    slow.preamble().await;
    let mut publisher = redis.publisher().await;
    let mut logs = publisher.clone();
    let megabyte: Vec<Vec<u8>> = (0..32)
        .map(|_| format!("\"{}\"", "x".repeat(32_000)).into_bytes())
        .collect();

    // Redis cuts a subscriber that is 32 MiB behind.
    let mut published = 0.0;
    let mut fill = async |run: &str| {
        let channel = format!("run:{run}:output:stdout");
        publisher.publish_all(&channel, &megabyte).await;
        published += megabyte.len() as f64;
        let output = [("kind", "output")];
        broker
            .wait_metric("runcast_events_in_total", &output, published)
            .await;
    };

    // Rings that nobody watches go first, and nobody notices.
    for run in 0..100 {
        fill(&format!("idle-{run}")).await;
    }
    eventually("idle rings are evicted", SOON, async || {
        broker.metric("runcast_hubs_evicted_total", &[]).await > 0.0
    })
    .await;
    eventually("it needs less than it may", SOON, async || {
        resident(&broker) < max
    })
    .await;
    eventually("nothing but idle rings is shed", SOON, async || {
        broker.metric("runcast_memory_pressure", &[]).await <= 1.0
    })
    .await;

    let mut watching = Vec::new();
    for run in 0..48 {
        // What was freed may not all be given back yet: then it comes back.
        watching.push(admitted(&broker, &format!("watched-{run}/stream?kinds=status")).await);
    }
    // Watched rings stay: now new streams find no room.
    for run in 0..48 {
        fill(&format!("watched-{run}")).await;
    }
    broker
        .wait_metric("runcast_memory_pressure", &[], 3.0)
        .await;
    let refused = outcome(&broker, "42/stream").await;
    assert_eq!(refused, "urn:runcast:problem:memory-short");
    assert!(refusals(&broker, "limits.max_memory").await >= 1.0);
    // Posts and reads go on.
    broker.publish_status("posted", "working".into()).await;
    broker.json("/api/v1/runs/posted/events").await;

    // A client that falls behind is told, and gets no more logs. Some are in the
    // last megabyte, which the ring keeps, and far from its end.
    for _ in 0..4 {
        for part in megabyte.chunks(4) {
            publisher.publish_all("run:slow:output:stdout", part).await;
            publisher.publish("run:slow:logs:agent", "\"a log\"").await;
        }
    }
    // Before it reads: else it may keep up.
    let outputs = f64::from((100 + 48 + 4) * 32);
    broker
        .wait_metric("runcast_events_in_total", &[("kind", "output")], outputs)
        .await;
    logs.publish("run:slow:status", "\"last\"").await;
    let mut told = false;
    loop {
        let frame = slow.event().await;
        match frame.event.as_str() {
            "problem" => {
                assert_eq!(frame.json()["type"], "urn:runcast:problem:logs-left-out");
                told = true;
            }
            "log" => assert!(!told, "a log after the problem"),
            "status" => break,
            _ => {}
        }
    }
    assert!(told, "it fell behind");
    assert_eq!(broker.metric("runcast_logs_shed_total", &[]).await, 1.0);

    // Those who watched are gone: memory is there again.
    drop(watching);
    drop(slow);
    eventually("streams are let in again", SOON, async || {
        outcome(&broker, "42/stream").await == "hello"
    })
    .await;
    assert!(resident(&broker) < max);
}
