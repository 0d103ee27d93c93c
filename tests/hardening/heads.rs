//! Heads and bodies: how large, how slow.

use super::{Raw, refusals};
use crate::support::http::slug;
use crate::support::wait::SOON;
use crate::support::{Broker, eventually};

const EVENTS: &str = "/api/v1/runs/42/events";

fn request(header_bytes: usize) -> String {
    let filler = "x".repeat(header_bytes);
    format!("GET /health/live HTTP/1.1\r\nHost: localhost\r\nX-Filler: {filler}\r\n\r\n")
}

fn check_too_large(answer: &str) {
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
    let problem = serde_json::from_str(body).expect("JSON");
    assert_eq!(slug(&problem), "head-too-large");
}

#[tokio::test]
async fn a_head_over_the_limit_is_431_wherever_it_comes() {
    let broker = Broker::embedded().start_ready().await;
    let large = [17_000, 40_000, 100_000, 200_000];
    for bytes in large {
        let mut client = Raw::connect(broker.addr).await;
        client.send(request(bytes)).await;
        check_too_large(&client.rest().await);
        // In pieces, and never ending.
        let mut client = Raw::connect(broker.addr).await;
        for piece in request(bytes).as_bytes()[..bytes].chunks(1000) {
            client.send(piece).await;
        }
        check_too_large(&client.rest().await);
        let path = format!(
            "GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "x".repeat(bytes)
        );
        let mut client = Raw::connect(broker.addr).await;
        client.send(path).await;
        check_too_large(&client.rest().await);
    }
    // As a later request of its connection, and behind one.
    let mut client = Raw::connect(broker.addr).await;
    client.send(request(10)).await;
    assert!(client.answer().await.starts_with("HTTP/1.1 200 "));
    client.send(request(100_000)).await;
    check_too_large(&client.rest().await);
    let mut client = Raw::connect(broker.addr).await;
    client.send(request(10) + &request(17_000)).await;
    let answers = client.rest().await;
    assert!(answers.starts_with("HTTP/1.1 200 "), "{answers}");
    assert!(answers.contains("HTTP/1.1 431 "), "{answers}");
    let refused = 3.0 * large.len() as f64 + 2.0;
    assert_eq!(refusals(&broker, "limits.max_header_bytes").await, refused);
}

#[tokio::test]
async fn a_head_below_the_limit_and_a_body_above_it_are_taken() {
    let broker = Broker::embedded().start_ready().await;
    let mut client = Raw::connect(broker.addr).await;
    for _ in 0..3 {
        client.send(request(16_000)).await;
        assert!(client.answer().await.starts_with("HTTP/1.1 200 "));
        // A body is no head, though it comes with it.
        let body = "x".repeat(200_000);
        client
            .send(format!(
                "POST {EVENTS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ))
            .await;
        assert!(client.answer().await.starts_with("HTTP/1.1 202 "));
    }
    assert_eq!(refusals(&broker, "limits.max_header_bytes").await, 0.0);
}

#[tokio::test]
async fn slow_heads_are_closed_on_any_request_of_a_connection() {
    let broker = Broker::embedded()
        .set("limits.header_timeout", "1s")
        .start_ready()
        .await;
    let mut patient = Raw::connect(broker.addr).await;
    patient.send(request(10)).await;
    patient.answer().await;
    let mut first = Raw::connect(broker.addr).await;
    first.send("GET /health/live HTTP/1.1\r\nX-").await;
    let mut later = Raw::connect(broker.addr).await;
    later.send(request(10)).await;
    later.answer().await;
    later.send("GET /health/live HTTP/1.1\r\nX-").await;
    assert!(first.rest().await.starts_with("HTTP/1.1 408 "));
    assert_eq!(later.rest().await, "");
    assert_eq!(refusals(&broker, "limits.header_timeout").await, 2.0);
    // One that asks nothing for as long is no slow one.
    patient.send(request(10)).await;
    assert!(patient.answer().await.starts_with("HTTP/1.1 200 "));
}

/// CORS answers a preflight before any route is asked.
#[tokio::test]
async fn a_preflight_switches_no_bound_off() {
    const PREFLIGHT: &str = "OPTIONS /api/v1/runs HTTP/1.1\r\nHost: localhost\r\n\
        Origin: http://localhost:3000\r\nAccess-Control-Request-Method: POST\r\n\r\n";
    let broker = Broker::embedded()
        .set("limits.header_timeout", "1s")
        .set("limits.max_header_bytes", "1KiB")
        .start_ready()
        .await;
    let mut client = Raw::connect(broker.addr).await;
    // Each is small, however many they are.
    for _ in 0..50 {
        client.send(PREFLIGHT).await;
        assert!(client.answer().await.starts_with("HTTP/1.1 200 "));
    }
    client.send("GET /health/live HTTP/1.1\r\nX-").await;
    assert_eq!(client.rest().await, "");
    assert_eq!(refusals(&broker, "limits.header_timeout").await, 1.0);
}

/// An answer without a look at the body, of which the rest never comes.
#[tokio::test]
async fn a_body_that_nobody_reads_holds_no_connection() {
    let broker = Broker::embedded().start_ready().await;
    for (method, path, status) in [
        ("POST", "/api/v1/runs/-/events", "400"),
        ("POST", "/api/v1/runs/42/stream", "405"),
        ("POST", "/nowhere", "404"),
        ("GET", "/health/live", "200"),
    ] {
        for framing in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
            let mut client = Raw::connect(broker.addr).await;
            client
                .send(format!(
                    "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n3"
                ))
                .await;
            let answer = client.rest().await;
            let expected = format!("HTTP/1.1 {status} ");
            assert!(answer.starts_with(&expected), "{answer}");
        }
    }
}

#[tokio::test]
async fn a_slow_body_is_408() {
    let broker = Broker::embedded()
        .set("limits.body_timeout", "1s")
        .start_ready()
        .await;
    for framing in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        let mut client = Raw::connect(broker.addr).await;
        client
            .send(format!(
                "POST {EVENTS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n{framing}\r\n\r\n3"
            ))
            .await;
        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    assert_eq!(refusals(&broker, "limits.body_timeout").await, 2.0);
    eventually("their room is given back", SOON, async || {
        broker.metric("runcast_http_body_bytes", &[]).await == 0.0
    })
    .await;
}
