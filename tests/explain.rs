//! `GET /api/v1/runs/{run_id}/explain`: why a run is as it is, in plain words.

use serde_json::{Value, json};

use crate::support::http::Request;
use crate::support::token::{guarded, token_for};
use crate::support::wait::SOON;
use crate::support::{Broker, Redis, eventually};

async fn explain(broker: &Broker, run_id: &str) -> Value {
    broker.json(&format!("/api/v1/runs/{run_id}/explain")).await
}

fn all(explanation: &Value, list: &str) -> String {
    let texts = explanation[list].as_array().expect("a list").iter();
    let texts: Vec<_> = texts.map(|text| text.as_str().expect("a text")).collect();
    texts.join("\n")
}

#[tokio::test]
async fn a_run_that_nobody_published_to_says_how_to() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let told = explain(&broker, "42").await;
    assert_eq!(
        (&told["run_id"], &told["backend"]),
        (&json!("42"), &json!("redis"))
    );
    assert_eq!(told["redis"]["status"], "up");
    assert!(told["store"].is_null() && told["store_error"].is_null());
    let says = all(&told, "says");
    for part in [
        "nothing was ever published",
        "keeps nothing of it",
        "Nobody follows it",
    ] {
        assert!(says.contains(part), "{says}");
    }
    assert!(all(&told, "do").contains("PUBLISH run:<id>:output:stdout"));
}

#[tokio::test]
async fn what_is_kept_followed_and_missing_is_told() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("history.max_events", 3)
        .set("limits.max_event_bytes", "1KiB")
        .start_ready()
        .await;
    let mut client = broker.follow("42/stream").await;
    let mut last = String::new();
    for number in 0..300 {
        last = broker.publish("42", json!(number)).await;
    }
    client.run_events(300).await;
    let large = vec![b'x'; 2000];
    let mut publisher = redis.publisher().await;
    publisher.publish("run:42:output:stdout", large).await;
    client.gap().await;
    let told = explain(&broker, "42").await;
    let store = &told["store"];
    assert_eq!(
        (&store["accepted"], &store["last_id"]),
        (&json!(300), &json!(last))
    );
    assert!(
        store["kept"].as_u64().is_some_and(|kept| kept < 300),
        "{told:#}"
    );
    let hub = &told["hubs"][0];
    assert_eq!((&hub["clients"], &hub["behind"]), (&json!(1), &json!(0)));
    assert!(hub["ring_bytes"].as_u64().is_some_and(|bytes| bytes > 0));
    let says = all(&told, "says");
    for part in [
        "trimmed",
        "1 streams follow it here",
        "A gap (too_large): 1 events",
    ] {
        assert!(says.contains(part), "{says}");
    }
    assert!(all(&told, "do").contains("limits.max_event_bytes"));
}

#[tokio::test]
async fn a_redis_that_is_away_is_told_and_a_run_that_is_over() {
    let mut redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("runs.end_grace", "10ms")
        .start_ready()
        .await;
    let mut client = broker.follow("42/stream").await;
    broker.publish_status("42", json!("failed")).await;
    client.rest(SOON).await;
    assert!(all(&explain(&broker, "42").await, "says").contains("The run is over: failed."));
    redis.kill();
    eventually("the outage is noticed", SOON, async || {
        explain(&broker, "43").await["redis"]["status"] == "down"
    })
    .await;
    let told = explain(&broker, "43").await;
    assert!(all(&told, "says").contains("The subscription to Redis is down since"));
    assert!(told["store_error"].is_string(), "{told:#}");
}

#[tokio::test]
async fn only_who_may_read_a_run_is_told() {
    let broker = guarded(Broker::embedded()).start_ready().await;
    let reader = token_for(json!({"subscribe": ["42"]}));
    for (run_id, status) in [("42", 200), ("43", 404)] {
        let request = Request::get(format!("/api/v1/runs/{run_id}/explain"))
            .header("Authorization", format!("Bearer {reader}"));
        assert_eq!(request.send(broker.addr).await.status(), status);
    }
    assert_eq!(broker.get("/api/v1/runs/42/explain").await.status(), 401);
}
