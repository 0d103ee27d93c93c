//! How much, how often: connections, posts, streams of a run.

use serde_json::json;

use super::{Raw, refusals};
use crate::support::broker::sum_samples;
use crate::support::http::{Request, slug};
use crate::support::token::{claims_but, guarded, token};
use crate::support::wait::SOON;
use crate::support::{Broker, SseClient, eventually};

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

/// By its token, from whichever address.
#[tokio::test]
async fn a_subject_that_posts_too_fast_is_told_when_to_go_on() {
    let broker = guarded(Broker::embedded())
        .set("limits.publish_rate_per_subject", 10)
        .set("server.trusted_proxies", "127.0.0.1")
        .set("metrics.bind", "127.0.0.1:0")
        .start_ready()
        .await;
    let post = async |subject: &str, address: &str, lines: usize| {
        let rights = json!({"publish": ["42"]});
        let token = token(&claims_but(rights, json!({"sub": subject})));
        let path = "/api/v1/runs/42/events";
        let post = Request::post(path, "text/plain", "line\n".repeat(lines))
            .header("X-Forwarded-For", address)
            .header("Authorization", format!("Bearer {token}"));
        post.send(broker.addr).await
    };
    assert_eq!(post("alice", "192.0.2.1", 25).await.status(), 202);
    for address in ["192.0.2.1", "192.0.2.2"] {
        let refused = post("alice", address, 1).await;
        let problem = refused.problem(429);
        assert_eq!(slug(&problem), "publishing-too-fast");
        let detail = problem["detail"].as_str().expect("text");
        assert!(
            detail.contains("limits.publish_rate_per_subject"),
            "{detail}"
        );
        let wait = refused.header("retry-after").expect("when to come back");
        assert!(matches!(wait.as_str(), "1" | "2"), "{wait}");
    }
    assert_eq!(post("bob", "192.0.2.1", 1).await.status(), 202);
    eventually("its pace is kept again", SOON, async || {
        post("alice", "192.0.2.1", 1).await.status() == 202
    })
    .await;
    let metrics = Request::get("/metrics").send(broker.operator_addr()).await;
    let sum = |family, labels| sum_samples(&metrics.text(), family, labels);
    let limit = [("limit", "limits.publish_rate_per_subject")];
    assert!(sum("runcast_limit_refusals_total", &limit) >= 2.0);
    assert_eq!(sum("runcast_http_publish_subjects", &[]), 2.0);
}

#[tokio::test]
async fn a_subject_has_its_own_limit_of_streams() {
    let broker = guarded(Broker::embedded())
        .set("limits.max_streams_per_subject", 2)
        .set("metrics.bind", "127.0.0.1:0")
        .start_ready()
        .await;
    let stream = |subject: &str, run: &str| {
        let rights = json!({"subscribe": ["*"]});
        let token = token(&claims_but(rights, json!({"sub": subject})));
        let request = Request::get(format!("/api/v1/runs/{run}/stream"));
        request.header("Authorization", format!("Bearer {token}"))
    };
    let open = async |subject: &str, run: &str| {
        let mut client = SseClient::request(broker.addr, &stream(subject, run)).await;
        client.frame().await;
        let second = client.frame().await;
        (second, client)
    };
    let mut clients = Vec::new();
    for (subject, run) in [("alice", "42"), ("alice", "43"), ("bob", "42")] {
        let (second, client) = open(subject, run).await;
        assert_eq!(second.event, "hello", "{subject} {run}");
        clients.push(client);
    }
    let (second, _) = open("alice", "44").await;
    assert_eq!(second.json()["status"], 429);
    // Who wants no stream is told as by any other route.
    let plain = stream("alice", "44").header("Accept", "application/json");
    let refused = plain.send(broker.addr).await;
    assert_eq!(slug(&refused.problem(429)), "too-many-streams");
    assert!(refused.header("retry-after").is_some());
    let metrics = Request::get("/metrics").send(broker.operator_addr()).await;
    let limit = [("limit", "limits.max_streams_per_subject")];
    let counted = sum_samples(&metrics.text(), "runcast_limit_refusals_total", &limit);
    assert_eq!(counted, 2.0);
    clients.remove(0);
    eventually("its place is free", SOON, async || {
        open("alice", "44").await.0.event == "hello"
    })
    .await;
}

/// One client that began many posts and ended none kept all others from posting.
#[tokio::test]
async fn one_client_does_not_take_the_room_of_all_posts() {
    const PART: usize = 900_000;
    let broker = Broker::embedded()
        .set("limits.max_body_bytes", "1MiB")
        .set("limits.body_bytes_per_client", "2MiB")
        .set("limits.total_body_bytes", "4MiB")
        .set("server.trusted_proxies", "127.0.0.1")
        .start_ready()
        .await;
    let path = "/api/v1/runs/42/events";
    let begun = |address: &str| {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {address}\r\n\
             Content-Type: text/plain\r\nContent-Length: 1000000\r\n\r\n"
        );
        head + &"x".repeat(PART)
    };
    let held = async |count: usize| {
        let bytes = (count * PART) as f64;
        broker
            .wait_metric("runcast_http_body_bytes", &[], bytes)
            .await;
    };
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = Raw::connect(broker.addr).await;
        client.send(begun("2001:db8::1")).await;
        clients.push(client);
        held(clients.len()).await;
    }
    let post = |address: &str, bytes: usize| {
        let lines = format!("{}\n", "x".repeat(999)).repeat(bytes / 1000);
        let post = Request::post(path, "text/plain", lines);
        post.header("X-Forwarded-For", address)
    };
    // From another address of the same network, too.
    for address in ["2001:db8::1", "2001:db8::2"] {
        let refused = post(address, PART).send(broker.addr).await;
        assert_eq!(slug(&refused.problem(429)), "too-many-posts");
        assert!(refused.header("retry-after").is_some());
    }
    // The others have their room, and the client itself for what is small.
    for (address, bytes) in [
        ("2001:db8:0:1::1", PART),
        ("192.0.2.1", PART),
        ("2001:db8::1", 1000),
    ] {
        let taken = post(address, bytes).send(broker.addr).await;
        assert_eq!(taken.status(), 202, "{address}: {}", taken.text());
    }
    assert_eq!(refusals(&broker, "limits.body_bytes_per_client").await, 2.0);
    drop(clients);
    held(0).await;
    assert_eq!(
        post("2001:db8::1", PART).send(broker.addr).await.status(),
        202
    );
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
