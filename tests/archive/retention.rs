//! What is too old, or too much, is removed.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::{Archive, wait_written};
use crate::support::Broker;

async fn write_runs(broker: &Broker, count: u32) {
    for run in 0..count {
        let run_id = format!("run-{run}");
        broker.publish(&run_id, json!("x".repeat(1000))).await;
        broker.publish_status(&run_id, json!("completed")).await;
    }
    wait_written(broker, count).await;
}

fn age(object: &Path, hours: u64) {
    let file = File::options()
        .write(true)
        .open(object)
        .expect("it is there");
    let then = SystemTime::now() - Duration::from_secs(hours * 3600);
    file.set_modified(then).expect("it is ours");
}

fn names(archive: &Archive) -> Vec<String> {
    let run = |object: &std::path::PathBuf| {
        let run = object.parent().and_then(Path::file_name).expect("a run");
        run.to_string_lossy().into_owned()
    };
    archive.objects().iter().map(run).collect()
}

#[tokio::test]
async fn what_is_too_old_goes() {
    let archive = Archive::start().await;
    let broker = archive.settings().start_ready().await;
    write_runs(&broker, 3).await;
    let objects = archive.objects();
    age(&objects[0], 30);
    age(&objects[1], 50);
    age(&objects[2], 10);
    // What a writer left behind that died two days ago.
    let leftover = objects[2].with_extension("zst#1");
    std::fs::write(&leftover, "half").expect("the directory is ours");
    age(&leftover, 50);
    // Beside it, what is none of ours.
    let foreign = archive.dir.path().join("README");
    std::fs::write(&foreign, "by hand").expect("the directory is ours");
    age(&foreign, 1000);
    drop(broker);
    archive.flush().await;
    let settings = archive
        .settings()
        .set("archive.max_age", "1d")
        .set("archive.retention_interval", "1s");
    // One of the two has the turn.
    let brokers = [settings.start_ready().await, settings.start_ready().await];
    crate::support::eventually("two are gone", crate::support::wait::SOON, async || {
        let sum = async |family: &str, labels: &[(&str, &str)]| {
            brokers[0].metric(family, labels).await + brokers[1].metric(family, labels).await
        };
        sum("runcast_archive_removed_total", &[("reason", "age")]).await == 2.0
            && sum("runcast_archive_objects", &[]).await >= 1.0
    })
    .await;
    assert!(foreign.exists());
    crate::support::eventually(
        "the leftover is gone",
        crate::support::wait::SOON,
        async || !leftover.exists(),
    )
    .await;
    assert_eq!(names(&archive), ["run-2"]);
    let page = brokers[0].json("/api/v1/runs/run-2/events").await;
    assert_eq!(page["events"].as_array().map(Vec::len), Some(2));
    let gone = brokers[0].json("/api/v1/runs/run-0/events").await;
    assert_eq!(gone["events"], json!([]));
}

#[tokio::test]
async fn past_the_bound_of_bytes_the_oldest_go() {
    let archive = Archive::start().await;
    let broker = archive.settings().start_ready().await;
    write_runs(&broker, 4).await;
    let objects = archive.objects();
    for (object, hours) in objects.iter().zip([2, 8, 1, 4]) {
        age(object, hours);
    }
    let size = |object| std::fs::metadata(object).expect("it is there").len();
    let two = size(&objects[0]) + size(&objects[2]);
    let limited = archive
        .settings()
        .set("archive.max_bytes", format!("{two}B"))
        .set("archive.retention_interval", "1s");
    drop(broker);
    archive.flush().await;
    let broker = limited.start_ready().await;
    let removed = [("reason", "size")];
    broker
        .wait_metric("runcast_archive_removed_total", &removed, 2.0)
        .await;
    broker
        .wait_metric("runcast_archive_bytes", &[], two as f64)
        .await;
    assert_eq!(names(&archive), ["run-0", "run-2"]);
    assert_eq!(broker.metric("runcast_archive_objects", &[]).await, 2.0);
    let told = broker
        .process
        .log()
        .iter()
        .filter(|line| line.contains("archived run removed"))
        .count();
    assert_eq!(told, 2);
}
