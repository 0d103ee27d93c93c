//! An archive that is away, or damaged; a broker that dies while it writes.

use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use super::{Archive, archiving, everything, expect_same, publish_varied, wait_written};
use crate::support::http::slug;
use crate::support::wait::SOON;
use crate::support::{Broker, Redis, eventually};

/// A place that cannot be used, and can be later: nothing is lost, and the run
/// goes on meanwhile.
#[tokio::test]
async fn what_cannot_be_written_is_written_later() {
    let redis = Redis::start().await;
    let dir = TempDir::new().expect("a temporary directory");
    let place = dir.path().join("archive");
    std::fs::write(&place, "in the way").expect("the directory is ours");
    let settings = archiving(Broker::redis(&redis), &place);
    let broker = settings.start_ready().await;
    broker.publish("42", json!("first")).await;
    let mut client = broker.follow("42/stream").await;
    let ids = publish_varied(&broker, Some(&redis), "42").await;
    let last = broker.publish_status("42", json!("completed")).await;
    let frames = client.rest(SOON).await;
    assert_eq!(frames.last().expect("an end").id(), format!("{last}-end"));
    let failures = "runcast_archive_write_failures_total";
    eventually("it fails", SOON, async || {
        broker.metric(failures, &[]).await >= 1.0
    })
    .await;
    assert_eq!(broker.metric("runcast_archive_queue", &[]).await, 1.0);
    let expected = everything(&settings.start_ready().await, "42", &ids, &last).await;
    std::fs::remove_file(&place).expect("it is ours");
    wait_written(&broker, 1).await;
    let mut publisher = redis.publisher().await;
    let _: String = publisher.command(&["FLUSHALL"]).await;
    expect_same(
        &everything(&settings.start_ready().await, "42", &ids, &last).await,
        &expected,
    );
}

/// A run whose history is gone before it could be written is told.
#[tokio::test]
async fn a_run_that_went_before_it_was_written_is_counted() {
    let archive = Archive::start().await;
    let settings = archive.settings().set("runs.end_grace", "400ms");
    let broker = settings.start_ready().await;
    broker.publish_status("42", json!("completed")).await;
    broker.publish_status("43", json!("completed")).await;
    let mut publisher = archive.redis.publisher().await;
    let _: i64 = publisher
        .command(&["DEL", "run:{42}:stream", "run:{42}:meta", "run:{43}:stream"])
        .await;
    broker
        .wait_metric("runcast_archive_lost_total", &[], 2.0)
        .await;
    assert_eq!(broker.metric("runcast_archive_queue", &[]).await, 0.0);
    let told = broker
        .process
        .log()
        .iter()
        .filter(|line| line.contains("not archived"))
        .count();
    assert_eq!(told, 2);
}

/// Damage is told as what it is, wherever it lies: no panic, and no run that
/// never was.
#[tokio::test]
async fn a_damaged_object_is_a_problem() {
    let archive = Archive::start().await;
    let settings = archive.settings();
    let broker = settings.start_ready().await;
    for n in 0..50 {
        broker
            .publish(
                "42",
                json!({"n": n, "text": format!("{:x}", fastrand::u128(..))}),
            )
            .await;
    }
    broker.publish_status("42", json!("completed")).await;
    wait_written(&broker, 1).await;
    archive.flush().await;
    let object = archive.objects().remove(0);
    let whole = std::fs::read(&object).expect("it is there");
    let length = whole.len();
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        bytes
    };
    for (what, bytes) in [
        ("a block", flipped(length / 3)),
        ("the index", flipped(length - 40)),
        ("the end", flipped(length - 1)),
        ("cut", whole[..length / 2].to_vec()),
        ("a stump", whole[..3].to_vec()),
        ("empty", Vec::new()),
        ("another thing", b"{}\n".repeat(1000)),
    ] {
        replace(&object, &bytes);
        let broker = settings.start_ready().await;
        let problem = broker.get("/api/v1/runs/42/events").await.problem(503);
        assert_eq!(slug(&problem), "store-unavailable", "{what}");
        // A stream tries for two seconds.
        if what.starts_with("a ") {
            let stream = broker.get("/api/v1/runs/42/stream?from=start").await;
            let text = stream.text();
            assert_eq!(stream.status(), 200);
            assert!(
                text.contains("event: problem") && text.contains("goodbye"),
                "{what}: {text}"
            );
            assert!(!text.contains("event: end"), "{what}: {text}");
        }
        assert_eq!(
            broker.metric("runcast_panics_total", &[]).await,
            0.0,
            "{what}"
        );
        assert!(
            broker
                .metric("runcast_archive_read_failures_total", &[])
                .await
                > 0.0
        );
        replace(&object, &whole);
        eventually("it is served again", SOON, async || {
            broker.get("/api/v1/runs/42/events").await.status() == 200
        })
        .await;
    }
}

fn replace(object: &Path, bytes: &[u8]) {
    let next = object.with_extension("next");
    std::fs::write(&next, bytes).expect("the directory is ours");
    std::fs::rename(next, object).expect("the directory is ours");
}
