//! Who writes a run, and what.

use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Archive, archiving, objects, wait_written};
use crate::support::cluster::RedisCluster;
use crate::support::eventually;
use crate::support::wait::SOON;

/// Several brokers see the end; one object is written, by one of them.
#[tokio::test]
async fn two_brokers_write_one_object() {
    let archive = Archive::start().await;
    let settings = archive.settings().set("archive.timeout", "1s");
    let brokers = [settings.start_ready().await, settings.start_ready().await];
    for run in 0..20 {
        let run_id = format!("run-{run}");
        brokers[0].publish(&run_id, json!(run)).await;
        brokers[0].publish_status(&run_id, json!("completed")).await;
    }
    let sum = async |family: &str| {
        brokers[0].metric(family, &[]).await + brokers[1].metric(family, &[]).await
    };
    eventually(
        "all are written, and nobody has any left",
        SOON,
        async || {
            archive.objects().len() == 20
                && sum("runcast_archive_queue").await + sum("runcast_archive_writing").await == 0.0
        },
    )
    .await;
    assert_eq!(sum("runcast_archive_written_total").await, 20.0);
    assert_eq!(sum("runcast_archive_write_failures_total").await, 0.0);
    let mut publisher = archive.redis.publisher().await;
    let claims: Vec<Option<String>> = publisher
        .command(&["HMGET", "run:{run-7}:meta", "aw", "au"])
        .await;
    assert_eq!(claims, [None, None], "no claim is left");
}

/// `zstd -dc` shows NDJSON: what is known of the run, then its events.
#[tokio::test]
async fn an_object_is_ndjson_for_whoever_has_zstd() {
    let archive = Archive::start().await;
    let broker = archive.settings().start_ready().await;
    for n in 0..30 {
        broker.publish("42", json!({"n": n})).await;
    }
    broker.publish_status("42", json!("completed")).await;
    let mut publisher = archive.redis.publisher().await;
    let trimmed: i64 = publisher
        .command(&["XTRIM", "run:{42}:stream", "MAXLEN", "=", "25"])
        .await;
    wait_written(&broker, 1).await;
    let object = &archive.objects()[0];
    let shown = Command::new("zstd").arg("-dc").arg(object).output();
    let shown = shown.expect("scripts/install-test-deps installs it");
    assert!(shown.status.success(), "{shown:?}");
    let text = String::from_utf8(shown.stdout).expect("UTF-8");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let meta = &lines[0];
    assert_eq!(
        (&meta["runcast_archive"], &meta["run_id"]),
        (&json!(1), &json!("42"))
    );
    assert_eq!(meta["ended"]["status"], "completed");
    assert_eq!(meta["trimmed"], json!(trimmed));
    assert_eq!(meta["first_id"], lines[1]["id"]);
    assert_eq!(lines.len(), 26);
    assert_eq!(lines[25]["data"], "completed");
    assert_eq!(meta["last_id"], lines[25]["id"]);
}

/// No broker was there when it ended; the first one to come finds it.
#[tokio::test]
async fn a_run_whose_end_nobody_saw_is_found_by_a_sweep() {
    let archive = Archive::start().await;
    let without = archive
        .settings()
        .set("archive.url", "")
        .start_ready()
        .await;
    without.publish("42", json!(1)).await;
    without.publish_status("42", json!("completed")).await;
    without.publish("43", json!("goes on")).await;
    super::wait_ended(&without, "42").await;
    drop(without);
    // Somebody else's keys, by names like ours, are passed over.
    let mut publisher = archive.redis.publisher().await;
    let _: String = publisher
        .command(&["SET", "run:{zz}:meta", "foreign"])
        .await;
    let _: i64 = publisher
        .command(&["HSET", "run:{yy}:meta", "e", "x", "c", "y"])
        .await;
    let broker = archive.settings().start_ready().await;
    wait_written(&broker, 1).await;
    // Once it is known to be done, no sweep writes it again.
    let again = archive
        .settings()
        .set("archive.sweep_interval", "1s")
        .start_ready()
        .await;
    again.publish_status("44", json!("completed")).await;
    eventually("the other is written", SOON, async || {
        archive.objects().len() == 2
    })
    .await;
    let sum = broker.metric("runcast_archive_written_total", &[]).await
        + again.metric("runcast_archive_written_total", &[]).await;
    assert_eq!(sum, 2.0);
}

#[tokio::test]
async fn runs_that_find_no_room_in_the_queue_are_found_by_a_sweep() {
    let archive = Archive::start().await;
    let settings = archive
        .settings()
        .set("runs.end_grace", "1s")
        .set("archive.queue", "1")
        .set("archive.sweep_interval", "1s");
    let broker = settings.start_ready().await;
    for run in 0..3 {
        broker
            .publish_status(&format!("run-{run}"), json!("completed"))
            .await;
    }
    let overflows = "runcast_archive_queue_overflows_total";
    eventually("two find no room", SOON, async || {
        broker.metric(overflows, &[]).await > 0.0
    })
    .await;
    wait_written(&broker, 3).await;
}

/// The servers of a Cluster are looked through one after another.
#[tokio::test]
async fn runs_of_a_cluster_are_archived_and_found_by_a_sweep() {
    let cluster = RedisCluster::start().await;
    let dir = TempDir::new().expect("a temporary directory");
    let without = cluster
        .broker()
        .set("runs.end_grace", "50ms")
        .start_ready()
        .await;
    let runs = ["a", "b", "c", "d", "e", "f", "g", "h"];
    for run_id in runs {
        without.publish_status(run_id, json!("completed")).await;
    }
    for run_id in runs {
        super::wait_ended(&without, run_id).await;
    }
    let broker = archiving(cluster.broker(), dir.path()).start_ready().await;
    broker.publish_status("seen", json!("completed")).await;
    wait_written(&broker, 9).await;
    assert_eq!(objects(dir.path()).len(), 9);
}
