//! A bucket of a real S3 server as the archive.

use std::time::Duration;

use serde_json::json;

use super::{everything, expect_same, publish_varied, wait_written};
use crate::support::broker::BrokerSettings;
use crate::support::http::{Request, slug};
use crate::support::s3::{S3, SECRET};
use crate::support::wait::SOON;
use crate::support::{Broker, Redis, eventually};

struct Bucket {
    redis: Redis,
    s3: S3,
}

impl Bucket {
    async fn start() -> Self {
        let (redis, s3) = tokio::join!(Redis::start(), S3::start());
        Self { redis, s3 }
    }

    fn settings(&self) -> BrokerSettings {
        let settings = Broker::redis(&self.redis).set("runs.end_grace", "50ms");
        self.s3.of(settings)
    }

    async fn flush(&self) {
        let mut publisher = self.redis.publisher().await;
        let _: String = publisher.command(&["FLUSHALL"]).await;
    }
}

/// Also one so large that it is written in parts; and a check that reaches it.
#[tokio::test]
async fn runs_are_kept_in_a_bucket() {
    let bucket = Bucket::start().await;
    let settings = bucket.settings();
    let check = settings.clone().arguments(&["check"]).output();
    let text = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(text.contains("archive: ok (s3://runs/a/b"), "{text}");
    let broker = settings.start_ready().await;
    let ids = publish_varied(&broker, Some(&bucket.redis), "42").await;
    let last = broker.publish_status("42", json!("completed")).await;
    wait_written(&broker, 1).await;
    let put_once = bucket.s3.requests("PUT");
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..60 {
        let text: String = (0..150_000).map(|_| random.alphanumeric()).collect();
        broker.publish("large", json!(text)).await;
    }
    broker.publish_status("large", json!("completed")).await;
    wait_written(&broker, 2).await;
    assert!(bucket.s3.requests("PUT") > put_once + 1, "in parts");
    let fresh = settings.start_ready().await;
    let expected = everything(&fresh, "42", &ids, &last).await;
    let large = fresh.get("/api/v1/runs/large/events?limit=20").await.text();
    bucket.flush().await;
    let fresh = settings.start_ready().await;
    expect_same(&everything(&fresh, "42", &ids, &last).await, &expected);
    let found = fresh.get("/api/v1/runs/large/events?limit=20").await.text();
    assert!(found == large, "another page");
    // Retention, too; whoever is there has had its turn.
    bucket.flush().await;
    let few = settings
        .set("archive.max_bytes", "1MiB")
        .set("archive.retention_interval", "1s")
        .start_ready()
        .await;
    // The old one does not make room enough.
    let removed = [("reason", "size")];
    few.wait_metric("runcast_archive_removed_total", &removed, 2.0)
        .await;
    for broker in [&broker, &fresh, &few] {
        let log = broker.process.log().join("\n");
        assert!(!log.contains(SECRET), "{log}");
    }
}

/// It hangs: that is told, and no run is said to be unknown. Live runs go on.
#[tokio::test]
async fn a_bucket_that_does_not_answer_is_a_problem() {
    let bucket = Bucket::start().await;
    let settings = bucket.settings().set("archive.timeout", "1s");
    let broker = settings.start_ready().await;
    let id = broker.publish("42", json!(1)).await;
    broker.publish_status("42", json!("completed")).await;
    wait_written(&broker, 1).await;
    bucket.flush().await;
    let broker = settings.start_ready().await;
    bucket.s3.freeze();
    let problem = broker.get("/api/v1/runs/42/events").await.problem(503);
    assert_eq!(slug(&problem), "store-unavailable");
    let text = broker.get("/api/v1/runs/42/stream").await.text();
    assert!(
        text.contains("event: problem") && text.contains("goodbye"),
        "{text}"
    );
    let request =
        Request::get("/api/v1/runs/42/stream").header("Last-Event-ID", format!("{id}-end"));
    assert_eq!(
        request.send(broker.addr).await.status(),
        200,
        "no 204 by guess"
    );
    let run = broker.json("/api/v1/runs/42").await;
    assert!(
        run["quiet_because"]
            .as_str()
            .is_some_and(|words| !words.contains("never")),
        "{run}"
    );
    let mut publisher = bucket.redis.publisher().await;
    publisher.publish("run:plain:output:stdout", "1").await;
    eventually("the plain run is known", SOON, async || {
        let run = broker.json("/api/v1/runs").await;
        run.to_string().contains("\"plain\"")
    })
    .await;
    let mut live = broker.follow("plain/stream").await;
    assert_eq!(live.run_event().await.payload(), "1");
    let first = broker.publish("durable", json!(1)).await;
    let mut live = broker.follow("durable/stream").await;
    assert_eq!(live.run_event().await.id(), first);
    bucket.s3.thaw();
    eventually("it is served again", SOON, async || {
        broker.get("/api/v1/runs/42/events").await.status() == 200
    })
    .await;
}

/// A broker dies in the middle of a write: another does it.
#[tokio::test]
async fn a_broker_that_dies_while_it_writes_loses_nothing() {
    let bucket = Bucket::start().await;
    let settings = bucket
        .settings()
        .set("archive.timeout", "1s")
        .set("archive.sweep_interval", "1s");
    let mut first = settings
        .clone()
        .set("archive.timeout", "2s")
        .start_ready()
        .await;
    bucket.s3.freeze();
    first.publish("42", json!(1)).await;
    first.publish_status("42", json!("completed")).await;
    first.wait_metric("runcast_archive_writing", &[], 1.0).await;
    let mut publisher = bucket.redis.publisher().await;
    eventually("it has the claim", SOON, async || {
        let claim: Option<String> = publisher
            .clone()
            .command(&["HGET", "run:{42}:meta", "aw"])
            .await;
        claim.is_some()
    })
    .await;
    first.process.kill();
    bucket.s3.thaw();
    let second = settings.start_ready().await;
    eventually(
        "another writes it",
        SOON + Duration::from_secs(10),
        async || second.metric("runcast_archive_written_total", &[]).await == 1.0,
    )
    .await;
    let archived: Option<String> = publisher.command(&["HGET", "run:{42}:meta", "ad"]).await;
    assert!(archived.is_some());
    bucket.flush().await;
    let page = second.json("/api/v1/runs/42/events").await;
    assert_eq!(page["events"].as_array().map(Vec::len), Some(2));
}
