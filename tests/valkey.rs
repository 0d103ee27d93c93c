//! Valkey in the place of Redis: streams and history, an outage, a Cluster with a
//! failover. The store's contract on it is in `tests/store/`; all other tests
//! run on it with `RUNCAST_TEST_REDIS_SERVER=<path of valkey-server>`, but those of
//! TLS, which this build of it does not speak.

use serde_json::json;

use crate::support::cluster::RedisCluster;
use crate::support::failover::check_failover;
use crate::support::wait::SOON;
use crate::support::{Broker, Redis, eventually};

#[tokio::test]
async fn plain_and_durable_events_stream_and_are_kept() {
    let valkey = Redis::start_valkey(&[]).await;
    let mut publisher = valkey.publisher().await;
    let info: String = publisher.command(&["INFO", "server"]).await;
    assert!(info.contains("server_name:valkey"), "{info}");
    let broker = Broker::redis(&valkey).start_ready().await;
    let mut client = broker.follow("42/stream").await;
    publisher.publish("run:42:output:stdout", "1").await;
    assert_eq!(client.run_event().await.payload(), "1");
    let posted = broker.publish("42", json!(2)).await;
    assert_eq!(client.run_event().await.id(), posted);
    // By function, not by script.
    let libraries: Vec<redis::Value> = publisher.command(&["FUNCTION", "LIST"]).await;
    assert_eq!(libraries.len(), 1);
    let mut late = broker.follow("42/stream").await;
    let frames = late.run_events(2).await;
    assert_eq!(
        (frames[0].payload(), frames[1].id()),
        ("1".into(), &*posted)
    );
    let check = Broker::redis(&valkey).arguments(&["check"]).output();
    assert!(check.status.success(), "{check:?}");
}

#[tokio::test]
async fn after_an_outage_without_its_data_streams_go_on() {
    let mut valkey = Redis::start_valkey(&[]).await;
    let broker = Broker::redis(&valkey).start_ready().await;
    let mut client = broker.follow("42/stream").await;
    let posted = broker.publish("42", json!(1)).await;
    assert_eq!(client.run_event().await.id(), posted);
    valkey.kill();
    valkey.restart().await;
    eventually("an event is accepted again", SOON, async || {
        let event = json!({"kind": "output", "data": 2});
        broker.post("42", &event).await.status() == 202
    })
    .await;
    // It forgot what was seen.
    assert_eq!(client.gap().await.0, "expired");
    assert_eq!(client.run_event().await.payload(), "2");
}

#[tokio::test]
async fn a_failover_in_a_cluster_of_them_loses_nothing_in_silence() {
    let mut cluster = RedisCluster::start_valkeys().await;
    let broker = cluster.broker().start_ready().await;
    let master = cluster.master_of("42").await;
    check_failover(&broker, || cluster.nodes[master].kill()).await;
}
