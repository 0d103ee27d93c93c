//! A broker on a Redis Cluster: plain events from any node, durable ones on the
//! node that serves their run.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::authority::Authority;
use crate::support::cluster::RedisCluster;
use crate::support::failover::{FAILOVER, check_failover};
use crate::support::{Broker, eventually};

#[tokio::test]
async fn a_plain_event_arrives_from_whichever_node() {
    let cluster = RedisCluster::start().await;
    let broker = cluster.broker().start_ready().await;
    let mut client = broker.follow("42/stream").await;
    for (n, node) in cluster.nodes.iter().enumerate() {
        let mut publisher = node.publisher().await;
        publisher
            .publish("run:42:output:stdout", n.to_string())
            .await;
        assert_eq!(client.run_event().await.payload(), n.to_string());
    }
}

#[tokio::test]
async fn durable_events_of_every_slot_range_are_kept_in_one_slot_and_delivered() {
    let cluster = RedisCluster::start().await;
    let broker = cluster.broker().start_ready().await;
    for (index, run_id) in cluster.run_of_each_master().await.iter().enumerate() {
        let mut client = broker.follow(&format!("{run_id}/stream")).await;
        let posted = broker.publish(run_id, json!("posted")).await;
        assert_eq!(client.run_event().await.id(), posted);
        // As an agent does that knows one node only.
        let called = fcall(cluster.nodes[(index + 1) % 3].port(), run_id, "\"called\"");
        let frame = client.run_event().await;
        assert_eq!(frame.payload(), "\"called\"");
        assert!(called.contains(frame.id()), "{called}: {}", frame.id());
        let mut master = cluster.nodes[index].publisher().await;
        let kept: usize = master
            .command(&["XLEN", &format!("run:{{{run_id}}}:stream")])
            .await;
        assert_eq!(kept, 2);
        let keys: Vec<String> = master.command(&["KEYS", &format!("*{run_id}*")]).await;
        assert_eq!(keys.len(), 2, "stream and meta: {keys:?}");
    }
}

#[tokio::test]
async fn under_tls_runs_of_every_node_stream_and_a_failover_loses_nothing_in_silence() {
    let authority = Authority::new();
    let mut cluster = RedisCluster::start_with_tls(Some(&authority)).await;
    let settings = cluster
        .broker()
        .set("redis.tls_ca", authority.path("ca.pem"));
    let check = settings.clone().arguments(&["check"]).output();
    assert!(check.status.success(), "{check:?}");
    let broker = settings.start_ready().await;
    for run_id in cluster.run_of_each_master().await {
        let mut client = broker.follow(&format!("{run_id}/stream")).await;
        let posted = broker.publish(&run_id, json!("posted")).await;
        assert_eq!(client.run_event().await.id(), posted);
        let mut late = broker.follow(&format!("{run_id}/stream")).await;
        assert_eq!(late.run_event().await.id(), posted);
    }
    let master = cluster.master_of("42").await;
    check_failover(&broker, || cluster.nodes[master].kill()).await;
}

#[tokio::test]
async fn a_failover_of_the_runs_master_loses_nothing_in_silence() {
    let mut cluster = RedisCluster::start().await;
    let broker = cluster.broker().start_ready().await;
    let master = cluster.master_of("42").await;
    check_failover(&broker, || cluster.nodes[master].kill()).await;
    let mut new_master = cluster.nodes[master + 3].publisher().await;
    let role: Vec<::redis::Value> = new_master.command(&["ROLE"]).await;
    assert_eq!(role[0], ::redis::Value::BulkString(b"master".to_vec()));
}

#[tokio::test]
async fn the_subscription_moves_when_its_node_dies() {
    let mut cluster = RedisCluster::start().await;
    let broker = cluster.broker().start_ready().await;
    let mut client = broker.follow("42/stream").await;
    let port = subscribed_port(&broker).expect("it is ready");
    let at = |cluster: &RedisCluster| cluster.nodes.iter().position(|node| node.port() == port);
    let dead = at(&cluster).expect("it is one of ours");
    cluster.nodes[dead].kill();
    eventually("another node is found", FAILOVER, async || {
        subscribed_port(&broker).is_some_and(|now| now != port)
    })
    .await;
    broker.wait_ready().await;
    let alive = (dead + 1) % cluster.nodes.len();
    let mut publisher = cluster.nodes[alive].publisher().await;
    publisher.publish("run:42:output:stdout", "1").await;
    let mut frame = client.event().await;
    while !frame.is_run_event() {
        assert_eq!(frame.event, "gap", "{frame:?}");
        frame = client.event().await;
    }
    assert_eq!(frame.payload(), "1");
}

#[tokio::test]
async fn check_logs_in_to_every_master() {
    let mut cluster = RedisCluster::start().await;
    let url = cluster.url();
    let check = || {
        let output = Command::new(env!("CARGO_BIN_EXE_runcast"))
            .args([
                "check",
                "--redis-url",
                &url,
                "--set",
                "kubectl.enabled=false",
            ])
            .output()
            .expect("runcast starts");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    };
    let (code, text) = check();
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("redis: ok (redis+cluster://"), "{text}");
    cluster
        .nodes
        .iter_mut()
        .for_each(crate::support::Redis::kill);
    let (code, text) = check();
    assert_eq!(code, Some(1), "{text}");
}

/// `redis-cli -c`, which follows the Cluster's redirects.
fn fcall(port: u16, run_id: &str, payload: &str) -> String {
    let keys = ["stream", "meta"].map(|key| format!("run:{{{run_id}}}:{key}"));
    let output = Command::new("redis-cli")
        .args([
            "-c",
            "-p",
            &port.to_string(),
            "FCALL",
            "runcast_publish",
            "2",
        ])
        .args(keys)
        .args([run_id, "output", "stdout", payload])
        .output()
        .expect("redis-cli is there");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Where the broker last subscribed.
fn subscribed_port(broker: &Broker) -> Option<u16> {
    let log = broker.process.log();
    let lines = log
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let last = lines
        .rev()
        .find(|line| line["message"] == "subscribed to Redis")?;
    last["address"].as_str()?.rsplit(':').next()?.parse().ok()
}
