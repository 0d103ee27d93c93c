//! What is refused, how, and with which sentence.

use serde_json::json;

use crate::support::http::{Request, slug};
use crate::support::{Broker, Redis, SseClient};

const STREAM: &str = "/api/v1/runs/42/stream";
const EVENTS: &str = "/api/v1/runs/42/events";

fn detail(problem: &serde_json::Value) -> &str {
    problem["detail"].as_str().expect("checked")
}

#[tokio::test]
async fn a_bad_query_value_is_named() {
    let broker = Broker::embedded().start_ready().await;
    for (key, value) in [
        ("kinds", "output,loud"),
        ("kinds", "Output"),
        ("log_level", "loud"),
        ("from", "yesterday"),
        ("backend", "postgres"),
    ] {
        let response = broker.get(&format!("{STREAM}?{key}={value}")).await;
        let problem = response.problem(400);
        let detail = detail(&problem);
        let bad = value.rsplit(',').next().expect("a value");
        assert!(detail.contains(key), "the key {key:?} is named: {detail}");
        assert!(detail.contains(bad), "the value {bad:?} is named: {detail}");
    }
}

#[tokio::test]
async fn unknown_query_keys_are_ignored() {
    let broker = Broker::embedded().start_ready().await;
    let mut client = broker
        .follow("42/stream?_=1795464000&utm_source=x&kinds=output")
        .await;
    broker.publish("42", json!(1)).await;
    assert_eq!(client.run_event().await.payload(), "1");
}

#[tokio::test]
async fn an_unknown_route_is_404_and_says_so() {
    let broker = Broker::embedded().start_ready().await;
    for path in [
        "/nothing",
        "/api/v1/",
        "/api/v2/runs",
        "/api/v1/runs/42/streams",
    ] {
        broker.get(path).await.problem(404);
    }
}

#[tokio::test]
async fn a_wrong_method_is_405() {
    let broker = Broker::embedded().start_ready().await;
    for (method, path) in [
        ("DELETE", "/api/v1/runs"),
        ("POST", STREAM),
        ("PUT", EVENTS),
        ("DELETE", "/health"),
        ("POST", "/api/v1/config"),
    ] {
        let response = Request::new(method, path).send(broker.addr).await;
        response.problem(405);
        assert!(response.header("allow").is_some(), "{method} {path}");
    }
}

#[tokio::test]
async fn a_backend_that_is_switched_off_is_404() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    for path in [
        "/api/v1/runs/42/stream/kubectl",
        "/api/v1/runs/42/stream?backend=kubectl",
    ] {
        for accept in ["text/event-stream", "application/json"] {
            let response = Request::get(path)
                .header("Accept", accept)
                .send(broker.addr)
                .await;
            let problem = response.problem(404);
            assert_eq!(slug(&problem), "backend-disabled");
            assert!(detail(&problem).contains("kubectl"));
        }
    }
}

#[tokio::test]
async fn json_that_is_none_is_400_with_line_and_column() {
    let broker = Broker::embedded().start_ready().await;
    for (body, line) in [
        ("{", "line 1"),
        ("", "line 1"),
        ("{\"kind\":\"output\",\n \"source\": nope}", "line 2"),
    ] {
        let request = Request::post(EVENTS, "application/json", body);
        let problem = request.send(broker.addr).await.problem(400);
        let detail = detail(&problem);
        assert!(
            detail.contains(line) && detail.contains("column"),
            "{detail}"
        );
    }
    let good = json!({"kind": "output", "source": "s", "data": 1});
    let body = format!("{good}\n{good}\n{{\"kind\":\n");
    let request = Request::post(EVENTS, "application/x-ndjson", body);
    let problem = request.send(broker.addr).await.problem(400);
    assert!(detail(&problem).contains("line 3"), "{problem}");
}

#[tokio::test]
async fn an_unknown_kind_is_422() {
    let broker = Broker::embedded().start_ready().await;
    let body = json!({"kind": "progress", "source": "s", "data": 1});
    let problem = broker.post("42", &body).await.problem(422);
    let sentence = detail(&problem);
    assert!(sentence.contains("progress"), "{sentence}");
    assert!(
        sentence.contains("output") && sentence.contains("status"),
        "{sentence}"
    );
    for body in [
        json!([1]),
        json!("text"),
        json!({"source": "s"}),
        json!({"kind": 7, "data": 1}),
    ] {
        broker.post("42", &body).await.problem(422);
    }
    let request = Request::post(format!("{EVENTS}?kind=loud"), "text/plain", "x");
    request.send(broker.addr).await.problem(422);
}

#[tokio::test]
async fn a_body_over_the_limit_is_413() {
    let broker = Broker::embedded()
        .set("limits.max_event_bytes", "16KiB")
        .set("limits.max_body_bytes", "64KiB")
        .start_ready()
        .await;
    for kind in ["application/json", "application/x-ndjson", "text/plain"] {
        let request = Request::post(EVENTS, kind, vec![b'x'; 70_000]);
        request.send(broker.addr).await.problem(413);
    }
    assert_eq!(broker.json("/api/v1/runs").await["runs"], json!([]));
}

#[tokio::test]
async fn an_event_over_the_limit_is_not_accepted() {
    let broker = Broker::embedded()
        .set("limits.max_event_bytes", "1KiB")
        .start_ready()
        .await;
    let mut client = broker.follow("42/stream").await;
    let data = "x".repeat(5000);
    let response = broker
        .post(
            "42",
            &json!({"kind": "output", "source": "s", "data": data}),
        )
        .await;
    assert_eq!(slug(&response.problem(413)), "event-too-large");
    broker.publish("42", json!("next")).await;
    assert_eq!(client.run_event().await.payload(), "\"next\"");
}

#[tokio::test]
async fn an_unknown_content_type_is_415() {
    let broker = Broker::embedded().start_ready().await;
    for kind in [
        "application/xml",
        "application/x-www-form-urlencoded",
        "nonsense",
    ] {
        let problem = Request::post(EVENTS, kind, "x")
            .send(broker.addr)
            .await
            .problem(415);
        assert!(detail(&problem).contains("application/json"), "{problem}");
    }
}

#[tokio::test]
async fn a_closed_run_refuses_with_409() {
    let broker = Broker::embedded()
        .set("runs.end_grace", "50ms")
        .start_ready()
        .await;
    let mut client = broker.follow("42/stream").await;
    broker.publish_status("42", json!("completed")).await;
    client.rest(crate::support::wait::SOON).await;
    let event = json!({"kind": "output", "source": "s", "data": 1});
    let body = format!("{event}\n{event}\n");
    let request = Request::post(EVENTS, "application/x-ndjson", body);
    for response in [
        request.send(broker.addr).await,
        broker.post("42", &event).await,
    ] {
        assert_eq!(response.status(), 409, "{}", response.text());
        assert!(
            response.text().contains("restart"),
            "says what to do: {}",
            response.text()
        );
    }
}

/// A stream asked for as anything else is still a stream: `*/*`, no `Accept`.
#[tokio::test]
async fn any_accept_that_allows_a_stream_gets_one() {
    let broker = Broker::embedded().start_ready().await;
    for accept in [
        None,
        Some("*/*"),
        Some("text/*"),
        Some("text/event-stream, */*;q=0.1"),
    ] {
        let mut request = Request::get(STREAM);
        if let Some(accept) = accept {
            request = request.header("Accept", accept);
        }
        SseClient::raw(broker.addr, &request).await.preamble().await;
    }
}

#[tokio::test]
async fn requests_that_are_no_http_do_no_harm() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let broker = Broker::embedded().start_ready().await;
    let long_path = format!(
        "GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "x".repeat(200_000)
    );
    let many_headers = format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n",
        "X-H: y\r\n".repeat(5000)
    );
    for bytes in [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc".as_slice(),
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /api/v1/runs/42/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /api/v1/runs/42/events HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        long_path.as_bytes(),
        many_headers.as_bytes(),
    ] {
        let mut stream = tokio::net::TcpStream::connect(broker.addr).await.expect("connects");
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        // A reset may follow an answer to a request that is not read whole.
        let _ = tokio::time::timeout(crate::support::wait::SOON, read)
            .await
            .expect("closed, not left hanging");
        let answer = String::from_utf8_lossy(&answer);
        let begin = String::from_utf8_lossy(&bytes[..bytes.len().min(30)]).into_owned();
        assert!(
            ["HTTP/1.1 400 ", "HTTP/1.1 431 "]
                .iter()
                .any(|status| answer.starts_with(status)),
            "{answer:?} to {begin:?}"
        );
    }
    assert_eq!(broker.get("/health").await.status(), 200);
}
