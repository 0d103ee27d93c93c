//! The backend in memory: what it archived outlives the process.

use serde_json::json;
use tempfile::TempDir;

use super::{archiving, everything, expect_same, objects, publish_varied, wait_written};
use crate::support::Broker;
use crate::support::wait::SOON;

#[tokio::test]
async fn a_run_outlives_an_embedded_broker() {
    let dir = TempDir::new().expect("a temporary directory");
    let settings = archiving(Broker::embedded().set("hub.idle_ttl", "1s"), dir.path());
    let broker = settings.start_ready().await;
    let ids = publish_varied(&broker, None, "42").await;
    let last = broker.publish_status("42", json!("completed")).await;
    wait_written(&broker, 1).await;
    broker.wait_metric("runcast_hubs", &[], 0.0).await;
    let expected = everything(&broker, "42", &ids, &last).await;
    drop(broker);
    let broker = settings.start_ready().await;
    expect_same(&everything(&broker, "42", &ids, &last).await, &expected);
    assert!(
        broker
            .metric("runcast_archive_pages_served_total", &[])
            .await
            > 0.0
    );
}

/// Nobody else would write it: the broker ends when it has.
#[tokio::test]
async fn a_run_that_ends_as_the_broker_does_is_archived() {
    let dir = TempDir::new().expect("a temporary directory");
    let settings = archiving(Broker::embedded(), dir.path()).set("runs.end_grace", "1s");
    let mut broker = settings.start_ready().await;
    broker.publish("42", json!("the last words")).await;
    broker.publish_status("42", json!("completed")).await;
    assert!(objects(dir.path()).is_empty(), "it is not over yet");
    broker.terminate();
    assert_eq!(broker.exit_code(SOON).await, Some(0));
    assert_eq!(objects(dir.path()).len(), 1);
    let broker = settings.start_ready().await;
    let page = broker.json("/api/v1/runs/42/events").await;
    assert_eq!(page["events"][0]["data"]["data"], "the last words");
}
