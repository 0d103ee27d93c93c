//! The backend in memory: what it archived outlives the process.

use serde_json::json;
use tempfile::TempDir;

use super::{archiving, everything, expect_same, publish_varied, wait_written};
use crate::support::Broker;

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
