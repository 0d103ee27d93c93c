//! An archived run is as guarded as any, and Redis is asked for no more than
//! is documented.

use serde_json::{Value, json};

use super::{Archive, wait_written};
use crate::support::eventually;
use crate::support::http::Request;
use crate::support::token::{guarded, token_for};
use crate::support::wait::SOON;

#[tokio::test]
async fn a_token_reads_the_archived_runs_that_it_may() {
    let archive = Archive::start().await;
    let settings = guarded(archive.settings());
    let broker = settings.start_ready().await;
    let asked = async |broker: &crate::support::Broker, request: Request, rights: Value| {
        let request = request.header("Authorization", format!("Bearer {}", token_for(rights)));
        request.send(broker.addr).await
    };
    let end = json!({"kind": "status", "data": "completed"}).to_string();
    let post = Request::post("/api/v1/runs/42/events", "application/json", end);
    let posted = asked(&broker, post, json!({"publish": ["42"]})).await;
    assert_eq!(posted.status(), 202, "{}", posted.text());
    eventually("it is written", SOON, async || archive.objects().len() == 1).await;
    archive.flush().await;
    let broker = settings.start_ready().await;
    for path in ["42", "42/events", "42/stream"] {
        let get = || Request::get(format!("/api/v1/runs/{path}"));
        assert_eq!(get().send(broker.addr).await.status(), 401, "{path}");
        let other = asked(&broker, get(), json!({"subscribe": ["43"]})).await;
        // As if it were not there, whether it is or not.
        assert_eq!(other.status(), 404, "{path}");
    }
    for path in ["42", "42/events", "42/stream"] {
        let get = Request::get(format!("/api/v1/runs/{path}"));
        let own = asked(&broker, get, json!({"subscribe": ["42"]})).await;
        assert_eq!(own.status(), 200, "{path}");
        assert!(own.text().contains("completed"), "{path}");
    }
}

#[tokio::test]
async fn the_documented_redis_user_is_enough() {
    let archive = Archive::start().await;
    let text = include_str!("../../docs/configuration.md");
    let rule = text
        .lines()
        .map(str::trim)
        .find(|line| line.starts_with("ACL SETUSER runcast "));
    let rule = rule
        .expect("it is documented")
        .replace("PASSWORD", "secret");
    let words: Vec<&str> = rule.split_whitespace().collect();
    let mut publisher = archive.redis.publisher().await;
    let _: String = publisher.command(&words).await;
    let url = archive
        .redis
        .url()
        .replace("redis://", "redis://runcast:secret@");
    let settings = archive.settings().set("redis.url", url);
    let broker = settings.clone().set("archive.url", "").start_ready().await;
    broker.publish_status("swept", json!("completed")).await;
    let broker = settings.start_ready().await;
    broker.publish_status("42", json!("completed")).await;
    wait_written(&broker, 2).await;
    let log: Vec<::redis::Value> = publisher.command(&["ACL", "LOG"]).await;
    let denied: Vec<String> = log.iter().map(|entry| format!("{entry:?}")).collect();
    let denied = denied
        .iter()
        .filter(|entry| !entry.contains("setinfo"))
        .count();
    assert_eq!(denied, 0, "{log:?}");
}
