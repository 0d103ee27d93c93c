//! How much, how often: connections, posts, streams of a run.

use serde_json::json;

use super::{Raw, refusals};
use crate::support::http::{Request, slug};
use crate::support::wait::SOON;
use crate::support::{Broker, eventually};

#[tokio::test]
async fn a_herd_of_connections_is_let_in_at_a_pace() {
    const HERD: usize = 60;
    let broker = Broker::embedded()
        .set("limits.accept_rate", 10)
        .start()
        .await;
    let mut herd = Vec::new();
    for _ in 0..HERD {
        let mut client = Raw::connect(broker.addr).await;
        client
            .send("GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await;
        herd.push(client);
    }
    let (mut answered, mut closed) = (0, 0);
    for mut client in herd {
        let answer = client.rest().await;
        match answer.as_str() {
            // No status: an EventSource would not come back after one.
            "" => closed += 1,
            answer => {
                assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
                answered += 1;
            }
        }
    }
    // A second's worth at once, as much in turn, and what time has added.
    assert!((20..HERD).contains(&answered), "{answered}");
    eventually("the others are counted", SOON, async || {
        let metrics = Request::get("/metrics").try_send(broker.addr).await;
        let line = format!("{{limit=\"limits.accept_rate\"}} {closed}\n");
        metrics.is_ok_and(|metrics| metrics.text().contains(&line))
    })
    .await;
}

#[tokio::test]
async fn an_address_that_posts_too_fast_is_told_when_to_go_on() {
    let broker = Broker::embedded()
        .set("limits.publish_rate_per_ip", 10)
        .set("server.trusted_proxies", "127.0.0.1")
        .start_ready()
        .await;
    let post = |address: &str, lines: usize| {
        let path = "/api/v1/runs/42/events";
        Request::post(path, "text/plain", "line\n".repeat(lines)).header("X-Forwarded-For", address)
    };
    // A post is taken whole.
    let taken = post("192.0.2.1", 25).send(broker.addr).await;
    assert_eq!(taken.status(), 202);
    let refused = post("192.0.2.1", 1).send(broker.addr).await;
    assert_eq!(slug(&refused.problem(429)), "publishing-too-fast");
    let wait = refused.header("retry-after").expect("when to come back");
    assert!(matches!(wait.as_str(), "1" | "2"), "{wait}");
    assert_eq!(post("192.0.2.2", 1).send(broker.addr).await.status(), 202);
    eventually("its pace is kept again", SOON, async || {
        post("192.0.2.1", 1).send(broker.addr).await.status() == 202
    })
    .await;
    assert!(refusals(&broker, "limits.publish_rate_per_ip").await >= 1.0);
    let known = broker.metric("runcast_http_publish_addresses", &[]).await;
    assert_eq!(known, 2.0);
    // Nothing of a refused post was published.
    let history = broker.json("/api/v1/runs/42/events?limit=100").await;
    assert_eq!(history["events"].as_array().map(Vec::len), Some(27));
}

#[tokio::test]
async fn a_run_has_its_own_limit_of_streams() {
    let broker = Broker::embedded()
        .set("limits.max_streams_per_run", 2)
        .start_ready()
        .await;
    let mut clients = Vec::new();
    for run in ["42", "42", "43"] {
        clients.push(broker.follow(&format!("{run}/stream")).await);
    }
    let refused = broker.stream("42/stream").await.rest(SOON).await;
    assert_eq!(refused[1].json()["status"], 503);
    assert_eq!(refused[2].json(), json!({"reason": "overload"}));
    assert_eq!(refusals(&broker, "limits.max_streams_per_run").await, 1.0);
    clients.remove(0);
    eventually("its place is free", SOON, async || {
        let mut client = broker.stream("42/stream").await;
        client.frame().await;
        client.frame().await.event == "hello"
    })
    .await;
}
