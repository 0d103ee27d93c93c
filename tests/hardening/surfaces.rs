//! What is where, and what answers say to browsers.

use super::Raw;
use crate::support::Broker;
use crate::support::http::{Head, Request};

fn check_headers(path: &str, head: &Head) {
    let header = |name| head.header(name).unwrap_or_default();
    assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
    assert_eq!(header("referrer-policy"), "no-referrer", "{path}");
    assert_eq!(header("cross-origin-resource-policy"), "same-origin");
    let policy = header("content-security-policy");
    assert!(
        policy.starts_with("default-src 'none';"),
        "{path}: {policy}"
    );
    assert!(
        policy.contains("frame-ancestors 'none'"),
        "{path}: {policy}"
    );
    assert!(!policy.contains("unsafe"), "{path}: {policy}");
}

#[tokio::test]
async fn every_answer_says_what_browsers_may_do_with_it() {
    let broker = Broker::embedded().start_ready().await;
    for (path, status) in [
        ("/", 200),
        ("/icon.svg", if console_is_built() { 200 } else { 404 }),
        ("/api/v1/config", 200),
        ("/api/v1/runs", 200),
        ("/api/v1/runs/42", 200),
        ("/api/v1/runs/42/events", 200),
        ("/api/v1/runs/-/stream", 400),
        ("/api/v1/openapi.json", 200),
        ("/health", 200),
        ("/metrics", 200),
        ("/nowhere", 404),
        ("/assets/none.js", 404),
    ] {
        let response = broker.get(path).await;
        assert_eq!(response.status(), status, "{path}");
        check_headers(path, &response.head);
    }
    let client = broker.follow("42/stream").await;
    check_headers("a stream", client.head());
    let refused = Request::new("DELETE", "/api/v1/runs")
        .send(broker.addr)
        .await;
    check_headers("a wrong method", &refused.head);
    let large = Request::get("/").header("X", "x".repeat(15_900));
    let large = large.header("Y", "y".repeat(600)).send(broker.addr).await;
    large.problem(431);
}

fn console_is_built() -> bool {
    std::path::Path::new("frontend/console/dist/icon.svg").exists()
}

#[tokio::test]
async fn metrics_have_a_socket_of_their_own_that_answers_when_all_others_are_taken() {
    let broker = Broker::embedded()
        .set("metrics.bind", "127.0.0.1:0")
        .set("limits.max_streams", 1)
        .set("server.max_connections", 2)
        .set("server.workers", 1)
        .start()
        .await;
    let operator = broker.operator_addr();
    broker.get("/metrics").await.problem(404);
    for (path, status) in [
        ("/metrics", 200),
        ("/health", 200),
        ("/health/ready", 200),
        ("/api/v1/runs", 404),
        ("/", 404),
    ] {
        let response = Request::get(path).send(operator).await;
        assert_eq!(response.status(), status, "{path}");
        check_headers(path, &response.head);
    }
    let mut taken = Vec::new();
    for _ in 0..2 {
        let mut client = Raw::connect(broker.addr).await;
        client
            .send("GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await;
        client.answer().await;
        taken.push(client);
    }
    let mut waiting = Raw::connect(broker.addr).await;
    waiting
        .send("GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await;
    let metrics = Request::get("/metrics").send(operator).await;
    assert!(metrics.text().contains("runcast_build_info"));
    drop(taken);
    assert!(waiting.rest().await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn only_the_very_origin_may_read() {
    let allowed = "https://app.example";
    let broker = Broker::embedded()
        .set("cors.allowed_origins", allowed)
        .start_ready()
        .await;
    let asked = |origin: &str| Request::get("/api/v1/config").header("Origin", origin);
    let header = async |origin: &str, name: &str| {
        let response = asked(origin).send(broker.addr).await;
        response.header(name)
    };
    let name = "access-control-allow-origin";
    assert_eq!(header(allowed, name).await.as_deref(), Some(allowed));
    assert_eq!(
        header(allowed, "access-control-allow-credentials").await,
        None
    );
    for origin in [
        "http://app.example",
        "https://app.example:8443",
        "https://app.example.evil.example",
        "https://evil.example/https://app.example",
        "https://evilapp.example",
        "https://xapp.example",
        "https://sub.app.example",
        "https://APP.example.",
        "https://app.example/",
        "https://app.example, https://evil.example",
        "null",
        "*",
        "",
    ] {
        assert_eq!(header(origin, name).await, None, "{origin}");
        let post = Request::post("/api/v1/runs/42/events", "text/plain", "x");
        let post = post.header("Origin", origin).send(broker.addr).await;
        post.problem(403);
    }
}
