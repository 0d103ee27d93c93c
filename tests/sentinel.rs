//! A broker on the master that Sentinels name: it goes where the master goes.

use serde_json::Value;

use crate::support::authority::Authority;
use crate::support::failover::{FAILOVER, Posts, check_failover};
use crate::support::sentinel::Sentinels;
use crate::support::wait::SOON;
use crate::support::{Broker, eventually};

/// The heart of it: `kill -9` of the master under a stream of posts.
#[tokio::test]
async fn a_failover_loses_nothing_in_silence() {
    let mut redis = Sentinels::start(3).await;
    let broker = redis.broker().start_ready().await;
    let mut client = check_failover(&broker, || redis.master.kill()).await;
    // An agent of today publishes on the new master.
    broker.wait_ready().await;
    let mut publisher = redis.replica.publisher().await;
    publisher.publish("run:42:output:stdout", "\"plain\"").await;
    loop {
        let frame = client.event().await;
        if frame.is_run_event() {
            assert_eq!(frame.payload(), "\"plain\"");
            break;
        }
    }
}

/// Sentinels, master and replica all speak TLS, and so does the broker with them.
#[tokio::test]
async fn under_tls_a_failover_loses_nothing_in_silence() {
    let authority = Authority::new();
    let mut redis = Sentinels::start_with_tls(3, Some(&authority)).await;
    let settings = redis.broker().set("redis.tls_ca", authority.path("ca.pem"));
    let check = settings.clone().arguments(&["check"]).output();
    assert!(check.status.success(), "{check:?}");
    let broker = settings.start_ready().await;
    subscribed_to(&broker, redis.master.best_port()).await;
    check_failover(&broker, || redis.master.kill()).await;
    subscribed_to(&broker, redis.replica.best_port()).await;
    // Whom we do not trust is told nothing.
    let stranger = Authority::new();
    let check = settings.set("redis.tls_ca", stranger.path("ca.pem"));
    let check = check.arguments(&["check"]).output();
    assert_eq!(check.status.code(), Some(1), "{check:?}");
}

/// A switch by hand: the old master lives on, and takes writes for some ten
/// seconds more, until Sentinels make a replica of it.
#[tokio::test]
async fn a_switch_by_hand_moves_the_subscription() {
    let redis = Sentinels::start(1).await;
    let broker = redis
        .broker()
        .set("redis.probe_interval", "100ms")
        .start_ready()
        .await;
    let mut client = broker.follow("42/stream").await;
    let mut posts = Posts::default();
    posts.post(&broker, "42", 10).await;
    let mut sentinel = redis.sentinel(0).await;
    let _: String = sentinel.command(&["SENTINEL", "FAILOVER", "runs"]).await;
    redis.replica.wait_info("replication", "role:master").await;
    subscribed_to(&broker, redis.replica.port()).await;
    posts.post(&broker, "42", 10).await;
    posts.check(&mut client).await;
    // What is accepted now is not lost with the old master.
    let mut master = redis.replica.publisher().await;
    let stream: ::redis::Value = master
        .command(&["XREVRANGE", "run:{42}:stream", "+", "-", "COUNT", "10"])
        .await;
    let stream = format!("{stream:?}");
    for id in &posts.accepted[10..] {
        let (_, entry) = id.split_once('-').expect("epoch, seq and µs");
        assert!(stream.contains(entry), "{id} is not in {stream}");
    }
}

/// A replica echoes probes as well as a master: its role gives it away.
#[tokio::test]
async fn a_demoted_master_is_left() {
    let redis = Sentinels::start(1).await;
    let broker = redis
        .broker()
        .set("redis.probe_interval", "100ms")
        .start_ready()
        .await;
    redis.freeze_sentinel(0);
    let mut master = redis.master.publisher().await;
    let port = redis.replica.port().to_string();
    let _: String = master.command(&["REPLICAOF", "127.0.0.1", &port]).await;
    eventually("the subscription is given up", SOON, async || {
        let log = broker.process.log();
        log.iter()
            .any(|line| line.contains("the server is no master any more"))
    })
    .await;
    eventually("posts are refused", SOON, async || {
        let event = serde_json::json!({"kind": "output", "source": "s", "data": 1});
        broker.post("42", &event).await.status() == 503
    })
    .await;
}

/// Sentinels are asked all at once.
#[tokio::test]
async fn a_frozen_sentinel_keeps_nobody_waiting() {
    let redis = Sentinels::start(2).await;
    redis.freeze_sentinel(0);
    let broker = redis.broker().start_ready().await;
    broker.publish("42", Value::from(1)).await;
}

#[tokio::test]
async fn check_finds_the_master_or_says_why_not() {
    let redis = Sentinels::start(1).await;
    let unknown = redis.url().replace("/runs", "/walks");
    for (url, code, finding) in [
        (redis.url(), 0, "redis: ok (redis+sentinel://"),
        (unknown, 1, "redis: FAILED (redis+sentinel://"),
    ] {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_runcast"))
            .args([
                "check",
                "--redis-url",
                &url,
                "--set",
                "kubectl.enabled=false",
            ])
            .output()
            .await
            .expect("runcast starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains(finding), "{text}");
    }
}

/// Waits until the broker's last subscription is at a port.
async fn subscribed_to(broker: &Broker, port: u16) {
    let address = format!("127.0.0.1:{port}");
    eventually("the subscription moves", FAILOVER, async || {
        let log = broker.process.log();
        let lines = log
            .iter()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let last = lines
            .rev()
            .find(|line| line["message"] == "subscribed to Redis");
        last.is_some_and(|line| line["address"] == *address)
    })
    .await;
}
