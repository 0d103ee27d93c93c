//! `redis.sharded_pubsub`: durable events come by their run's shard. The check
//! of positions is put off where a test shows that they come without it.

use std::time::Duration;

use redis::Value;
use serde_json::json;

use crate::support::broker::BrokerSettings;
use crate::support::cluster::RedisCluster;
use crate::support::failover::{FAILOVER, Posts, check_failover};
use crate::support::{Broker, Redis, SseClient, eventually};

fn sharded(cluster: &RedisCluster) -> BrokerSettings {
    cluster.broker().set("redis.sharded_pubsub", "on")
}

fn unchecked(cluster: &RedisCluster) -> BrokerSettings {
    sharded(cluster).set("redis.check_interval", "1h")
}

/// Starts a broker; when it has published, the library is loaded.
async fn start(settings: &BrokerSettings) -> Broker {
    let broker = settings.start_ready().await;
    broker.publish("another", json!(0)).await;
    broker
}

async fn until_subscribed(cluster: &RedisCluster, node: usize, run_id: &str, count: usize) {
    let what = format!("{count} subscribe to {run_id}");
    eventually(&what, FAILOVER, async || {
        cluster.shard_subscribers(node, run_id).await == count
    })
    .await;
}

/// The library as the brokers with `"on"` load it, or as all others.
async fn load_library(cluster: &RedisCluster, sharded: bool) {
    let source = include_str!("../actors/src/redis/runcast.lua");
    let line = "\nlocal SHARDED = false\n";
    assert!(source.contains(line));
    let source = source.replace(line, &format!("\nlocal SHARDED = {sharded}\n"));
    for node in &cluster.nodes[..3] {
        let load = ["FUNCTION", "LOAD", "REPLACE", &source];
        let _: String = node.publisher().await.command(&load).await;
    }
}

/// Publishes as an agent does, at the run's master.
async fn fcall(cluster: &RedisCluster, run_id: &str, payload: &str) -> String {
    let keys = ["stream", "meta"].map(|key| format!("run:{{{run_id}}}:{key}"));
    let call = ["FCALL", "runcast_publish", "2", &keys[0], &keys[1]];
    let event = [run_id, "output", "stdout", payload];
    let master = cluster.master_of(run_id).await;
    let mut master = cluster.nodes[master].publisher().await;
    let answer: Vec<String> = master.command(&[&call[..], &event[..]].concat()).await;
    assert_eq!(answer[0], "OK");
    answer[1].clone()
}

/// Every accepted event comes, in order, and nothing else.
async fn check_all(posts: &Posts, client: &mut SseClient) {
    for id in &posts.accepted {
        assert_eq!(client.run_event().await.id(), id);
    }
}

#[tokio::test]
async fn durable_events_of_watched_runs_come_by_their_shard_and_plain_ones_as_ever() {
    let cluster = RedisCluster::start().await;
    let settings = unchecked(&cluster).set("hub.idle_ttl", "1s");
    let brokers = [start(&settings).await, start(&settings).await];
    for (node, run_id) in cluster.run_of_each_master().await.iter().enumerate() {
        let path = format!("{run_id}/stream");
        let mut clients = [
            brokers[0].follow(&path).await,
            brokers[1].follow(&path).await,
        ];
        until_subscribed(&cluster, node, run_id, 2).await;
        let ids = [
            fcall(&cluster, run_id, "1").await,
            brokers[0].publish(run_id, json!(2)).await,
        ];
        let mut publisher = cluster.nodes[(node + 1) % 3].publisher().await;
        for client in &mut clients {
            for id in &ids {
                assert_eq!(client.run_event().await.id(), id);
            }
        }
        publisher
            .publish(format!("run:{run_id}:output:s"), "3")
            .await;
        for client in &mut clients {
            assert_eq!(client.run_event().await.payload(), "3");
        }
        drop(clients);
        until_subscribed(&cluster, node, run_id, 0).await;
        let mut master = cluster.nodes[node].publisher().await;
        let stats: String = master.command(&["INFO", "commandstats"]).await;
        let calls = stats
            .split_once("cmdstat_spublish:calls=")
            .and_then(|(_, rest)| rest.split(',').next())
            .and_then(|calls| calls.parse::<usize>().ok());
        assert!(calls >= Some(2), "{stats}");
    }
}

#[tokio::test]
async fn who_comes_while_it_is_published_misses_nothing() {
    let cluster = RedisCluster::start().await;
    let broker = start(&unchecked(&cluster)).await;
    for round in 0..20 {
        let run_id = format!("joined-{round}");
        let path = format!("{run_id}/stream");
        let (client, ids) = tokio::join!(broker.follow(&path), async {
            let mut ids = Vec::new();
            for n in 0..10 {
                ids.push(fcall(&cluster, &run_id, &n.to_string()).await);
            }
            ids
        });
        let mut client = client;
        for id in ids {
            assert_eq!(client.run_event().await.id(), id);
        }
    }
}

#[tokio::test]
async fn while_its_slot_moves_no_event_is_missed() {
    let cluster = RedisCluster::start().await;
    let broker = sharded(&cluster).start_ready().await;
    let mut client = broker.follow("42/stream").await;
    let from = cluster.master_of("42").await;
    let to = (from + 1) % 3;
    until_subscribed(&cluster, from, "42", 1).await;
    let mut posts = Posts::default();
    posts.post(&broker, "42", 20).await;
    let moving = cluster.move_run("42", to, async || {
        tokio::time::sleep(Duration::from_millis(500)).await;
    });
    tokio::join!(moving, posts.post(&broker, "42", 200));
    until_subscribed(&cluster, to, "42", 1).await;
    posts.post(&broker, "42", 20).await;
    check_all(&posts, &mut client).await;
}

/// The events after the move come without a check of positions.
#[tokio::test]
async fn a_subscription_follows_its_slot() {
    let cluster = RedisCluster::start().await;
    let broker = unchecked(&cluster).start_ready().await;
    let mut client = broker.follow("42/stream").await;
    let from = cluster.master_of("42").await;
    let to = (from + 1) % 3;
    until_subscribed(&cluster, from, "42", 1).await;
    let mut posts = Posts::default();
    // A slot that moves takes no keys that are new.
    posts.post(&broker, "42", 1).await;
    cluster
        .move_run("42", to, async || {
            // Announced where nobody subscribes yet.
            posts.post(&broker, "42", 5).await;
        })
        .await;
    check_all(&posts, &mut client).await;
    until_subscribed(&cluster, to, "42", 1).await;
    let last = broker.publish("42", json!("after")).await;
    assert_eq!(client.run_event().await.id(), last);
}

#[tokio::test]
async fn a_failover_of_the_shard_loses_nothing_in_silence() {
    let mut cluster = RedisCluster::start().await;
    let broker = sharded(&cluster).start_ready().await;
    let master = cluster.master_of("42").await;
    let mut other = broker.follow("42/stream?from=now").await;
    until_subscribed(&cluster, master, "42", 1).await;
    let mut client = check_failover(&broker, || cluster.nodes[master].kill()).await;
    until_subscribed(&cluster, master + 3, "42", 1).await;
    let last = broker.publish("42", json!("after")).await;
    assert_eq!(client.run_event().await.id(), last);
    while other.event().await.id.as_deref() != Some(&last) {}
}

/// Brokers of both kinds, and a library of either: all see all.
#[tokio::test]
async fn brokers_that_do_not_listen_to_shards_find_what_they_do_not_hear() {
    let cluster = RedisCluster::start().await;
    let on = start(&sharded(&cluster)).await;
    let sharded: Value = cluster.nodes[0]
        .publisher()
        .await
        .command(&["FCALL", "runcast_sharded", "0"])
        .await;
    assert_eq!(sharded, Value::Int(1));
    let listens = cluster.broker().set("redis.sharded_pubsub", "listen");
    let listens = listens.start_ready().await;
    let off = cluster.broker().start_ready().await;
    let mut clients = [
        on.follow("42/stream").await,
        listens.follow("42/stream").await,
        off.follow("42/stream").await,
    ];
    let master = cluster.master_of("42").await;
    until_subscribed(&cluster, master, "42", 2).await;
    for sharded in [true, false, true] {
        load_library(&cluster, sharded).await;
        let ids = [
            fcall(&cluster, "42", "1").await,
            on.publish("42", json!(2)).await,
        ];
        for client in &mut clients {
            for id in &ids {
                assert_eq!(client.run_event().await.id(), id);
            }
        }
    }
}

/// Without a Cluster there are no shards to speak of.
#[tokio::test]
async fn on_a_single_server_the_setting_changes_nothing() {
    let redis = Redis::start().await;
    let settings = Broker::redis(&redis)
        .set("redis.sharded_pubsub", "on")
        .set("redis.check_interval", "1h");
    let broker = start(&settings).await;
    let mut client = broker.follow("42/stream").await;
    let id = broker.publish("42", json!(1)).await;
    assert_eq!(client.run_event().await.id(), id);
    let mut publisher = redis.publisher().await;
    let sharded: Value = publisher.command(&["FCALL", "runcast_sharded", "0"]).await;
    assert_eq!(sharded, Value::Int(0));
}
