//! What is served from the archive is what was served before, to the byte.

use serde_json::json;

use super::{Answer, Archive, everything, expect_same, publish_varied, wait_ended, wait_written};
use crate::support::Broker;
use crate::support::broker::BrokerSettings;
use crate::support::eventually;
use crate::support::http::slug;
use crate::support::wait::SOON;

#[tokio::test]
async fn a_run_that_redis_forgot_is_served_as_before() {
    let archive = Archive::start().await;
    let settings = archive.settings();
    let broker = settings.start_ready().await;
    let ids = publish_varied(&broker, Some(&archive.redis), "42").await;
    let last = broker.publish_status("42", json!("Failed")).await;
    wait_written(&broker, 1).await;

    // From a broker that has nothing of it in memory, each time.
    let before = settings.start_ready().await;
    let expected = everything(&before, "42", &ids, &last).await;
    let statuses: Vec<u16> = expected.iter().map(|(_, status, _)| *status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 204).count(), 1);
    let whole = String::from_utf8_lossy(&expected[10].2).into_owned();
    assert!(
        whole.contains("event: end\ndata: {\"status\":\"failed\""),
        "{whole}"
    );
    assert!(
        whole.contains("data_base64") && whole.contains("\"producer\""),
        "{whole}"
    );
    assert_eq!(
        before
            .metric("runcast_archive_pages_served_total", &[])
            .await,
        0.0
    );

    let expected_touched = touched(&archive, &settings, &ids, &last).await;

    archive.flush().await;
    let after = settings.start_ready().await;
    let found = everything(&after, "42", &ids, &last).await;
    expect_same(&found, &expected);
    assert!(
        after
            .metric("runcast_archive_pages_served_total", &[])
            .await
            > 0.0
    );

    // Who still publishes to it, and not durably, changes as much as before.
    let found = touched(&archive, &settings, &ids, &last).await;
    expect_same(&found, &expected_touched);

    // Those who had it in memory go on with it, too.
    expect_same(&everything(&before, "42", &ids, &last).await, &expected);
}

/// What a broker serves that first hears of the run by a plain message.
async fn touched(
    archive: &Archive,
    settings: &BrokerSettings,
    ids: &[String],
    last: &str,
) -> Vec<Answer> {
    let broker = settings.start_ready().await;
    let mut publisher = archive.redis.publisher().await;
    publisher.publish("run:42:output:stdout", "late").await;
    broker.wait_metric("runcast_hubs", &[], 1.0).await;
    // Not that it was heard: when, and by which hub.
    let mut found = everything(&broker, "42", ids, last).await;
    found.split_off(10)
}

/// The stream of a run expires a day before what is known of the run.
#[tokio::test]
async fn a_run_whose_history_expired_is_served_as_before() {
    let archive = Archive::start().await;
    let settings = archive.settings();
    let broker = settings.start_ready().await;
    let ids = publish_varied(&broker, Some(&archive.redis), "42").await;
    let last = broker.publish_status("42", json!("completed")).await;
    wait_written(&broker, 1).await;
    let expected = everything(&settings.start_ready().await, "42", &ids, &last).await;
    let mut publisher = archive.redis.publisher().await;
    let expired: i64 = publisher
        .command(&["PEXPIRE", "run:{42}:stream", "0"])
        .await;
    assert_eq!(expired, 1);
    let found = everything(&settings.start_ready().await, "42", &ids, &last).await;
    expect_same(&found, &expected);
}

/// Each life of a run has its object; the newest is served, unless Redis knows
/// of a later one.
#[tokio::test]
async fn a_later_life_of_a_run_wins() {
    let archive = Archive::start().await;
    let settings = archive.settings();
    let broker = settings.start_ready().await;
    let old = broker.publish("42", json!("old")).await;
    broker.publish_status("42", json!("failed")).await;
    wait_written(&broker, 1).await;
    let restart = "/api/v1/runs/42/events?restart=true";
    let event = json!({"kind": "output", "source": "stdout", "data": "new"});
    let request =
        crate::support::http::Request::post(restart, "application/json", event.to_string());
    assert_eq!(request.send(broker.addr).await.status(), 202);
    let fresh = settings.start_ready().await;
    let data = async |broker: &Broker| {
        let page = broker.json("/api/v1/runs/42/events?limit=1").await;
        page["events"][0]["data"]["data"].clone()
    };
    assert_eq!(data(&fresh).await, "new", "it has not ended");
    broker.publish_status("42", json!("completed")).await;
    // Either of the two writes it.
    eventually("both lives are written", SOON, async || {
        archive.objects().len() == 2
    })
    .await;
    archive.flush().await;
    let fresh = settings.start_ready().await;
    assert_eq!(data(&fresh).await, "new");
    let page = fresh
        .json(&format!("/api/v1/runs/42/events?after={old}"))
        .await;
    assert_eq!(page["gap"]["reason"], "expired");
    // It begins anew, and what Redis has counts.
    fresh.publish("42", json!("newest")).await;
    assert_eq!(data(&fresh).await, "newest");
}

/// Nobody has the bucket asked again and again for what is not there.
#[tokio::test]
async fn unknown_runs_are_looked_for_once() {
    let archive = Archive::start().await;
    let broker = archive.settings().start_ready().await;
    for _ in 0..10 {
        let run = broker.json("/api/v1/runs/unknown").await;
        assert_eq!(run["status"], serde_json::Value::Null);
        let page = broker.json("/api/v1/runs/unknown/events").await;
        assert_eq!(page["events"], json!([]));
    }
    assert_eq!(
        broker.metric("runcast_archive_missing_total", &[]).await,
        1.0
    );
    // A live run, too.
    let mut publisher = archive.redis.publisher().await;
    publisher.publish("run:plain:output:stdout", "1").await;
    broker.wait_metric("runcast_hubs", &[], 1.0).await;
    for _ in 0..3 {
        let mut client = broker.follow("plain/stream").await;
        assert_eq!(client.run_event().await.payload(), "1");
    }
    let missing = broker.metric("runcast_archive_missing_total", &[]).await;
    assert_eq!(missing, 2.0);
}

#[tokio::test]
async fn a_run_id_cannot_leave_the_archive() {
    let archive = Archive::start().await;
    let broker = archive.settings().start_ready().await;
    let secret = archive.dir.path().join("secret");
    std::fs::create_dir(&secret).expect("the directory is ours");
    std::fs::write(secret.join("7.ndjson.zst"), "secret").expect("the directory is ours");
    for run_id in [
        "..%2fsecret",
        "%2e%2e",
        "a%2f..%2f..%2fsecret",
        "a%00",
        "..\\secret",
        "a..%2f",
    ] {
        for rest in ["", "/events", "/stream"] {
            let response = broker.get(&format!("/api/v1/runs/{run_id}{rest}")).await;
            assert!([400, 404].contains(&response.status()), "{run_id}{rest}");
            slug(&response.json());
        }
    }
    assert_eq!(
        broker.metric("runcast_archive_missing_total", &[]).await,
        0.0
    );
    // Those that look like it are names like others.
    for run_id in ["a..secret", "0.ndjson.zst", "a...b"] {
        broker.publish_status(run_id, json!("completed")).await;
        wait_ended(&broker, run_id).await;
    }
    wait_written(&broker, 3).await;
    for run_id in ["a..secret", "0.ndjson.zst", "a...b"] {
        assert!(archive.dir.path().join("runs").join(run_id).is_dir());
    }
}
