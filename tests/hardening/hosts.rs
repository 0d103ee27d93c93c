//! The names that a broker may be asked by: a page that lets its own name point
//! to this machine (DNS rebinding) gets nothing.

use super::Raw;
use crate::support::Broker;
use crate::support::broker::BrokerSettings;
use crate::support::http::slug;
use crate::support::token::guarded;

const REBOUND: &str = "evil.example:8000";

/// Returns status and problem of a request that comes by a name.
async fn ask(addr: std::net::SocketAddr, method: &str, path: &str, host: &str) -> (u16, String) {
    let body = if method == "POST" { "x" } else { "" };
    let length = body.len();
    let mut client = Raw::connect(addr).await;
    client
        .send(format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nAccept: application/json\r\nConnection: close\r\n\r\n{body}"
        ))
        .await;
    let answer = client.rest().await;
    let status = answer.get(9..12).and_then(|text| text.parse().ok());
    let problem = answer.split_once("\r\n\r\n").and_then(|(_, body)| {
        let problem = serde_json::from_str::<serde_json::Value>(body).ok()?;
        problem["type"]
            .is_string()
            .then(|| slug(&problem).to_owned())
    });
    (status.unwrap_or(0), problem.unwrap_or_default())
}

async fn status(broker: &Broker, host: &str) -> u16 {
    ask(broker.addr, "GET", "/api/v1/runs", host).await.0
}

#[tokio::test]
async fn a_page_whose_name_points_here_gets_nothing() {
    let broker = Broker::embedded()
        .set("metrics.bind", "127.0.0.1:0")
        .start_ready()
        .await;
    let operator = broker.operator_addr();
    let mut asked = 0;
    for (addr, method, path) in [
        (broker.addr, "GET", "/"),
        (broker.addr, "GET", "/api/v1/runs"),
        (broker.addr, "GET", "/api/v1/runs/42"),
        (broker.addr, "GET", "/api/v1/runs/42/stream"),
        (broker.addr, "GET", "/api/v1/runs/42/events"),
        (broker.addr, "POST", "/api/v1/runs/42/events"),
        (broker.addr, "OPTIONS", "/api/v1/runs/42/events"),
        (broker.addr, "GET", "/api/v1/config"),
        (broker.addr, "GET", "/health"),
        (broker.addr, "GET", "/nowhere"),
        (operator, "GET", "/metrics"),
    ] {
        let answer = ask(addr, method, path, REBOUND).await;
        let expected = (403, "forbidden-host".to_owned());
        assert_eq!(answer, expected, "{method} {path}");
        asked += 1;
    }
    let (status, _) = ask(operator, "GET", "/metrics", "localhost").await;
    assert_eq!(status, 200);
    let metrics = crate::support::http::Request::get("/metrics");
    let metrics = metrics.send(operator).await.text();
    let counted = format!("runcast_http_host_refusals_total {asked}\n");
    assert!(metrics.contains(&counted), "{metrics}");
    // Nothing was published.
    let history = broker.json("/api/v1/runs/42/events").await;
    assert_eq!(history["events"].as_array().map(Vec::len), Some(0));
}

#[tokio::test]
async fn names_of_this_machine_and_addresses_may_be_asked_by() {
    let broker = Broker::embedded().start_ready().await;
    let port = broker.addr.port();
    for host in [
        "localhost".to_owned(),
        format!("localhost:{port}"),
        format!("LOCALHOST.:{port}"),
        format!("console.localhost:{port}"),
        format!("runcast:{port}"),
        format!("127.0.0.1:{port}"),
        "127.1.2.3".to_owned(),
        format!("[::1]:{port}"),
        "10.1.2.3".to_owned(),
    ] {
        assert_eq!(status(&broker, &host).await, 200, "{host}");
    }
    for host in [
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example@localhost",
        "localhost@evil.example",
        "localhost, evil.example",
        "[::1].evil",
    ] {
        assert_eq!(status(&broker, host).await, 403, "{host}");
    }
    // Two of them, a target that says another, and none: no browser's.
    for (head, expected) in [
        (
            "GET /api/v1/runs HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n",
            "4",
        ),
        (
            "GET http://evil.example/api/v1/runs HTTP/1.1\r\nHost: localhost\r\n",
            "403",
        ),
        ("GET /api/v1/runs HTTP/1.0\r\n", "200"),
    ] {
        let mut client = Raw::connect(broker.addr).await;
        client
            .send(format!("{head}Connection: close\r\n\r\n"))
            .await;
        let answer = client.rest().await;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(status.starts_with(expected), "{head}: {answer}");
    }
}

#[tokio::test]
async fn where_others_may_ask_only_settings_forbid_a_name() {
    let named =
        |settings: BrokerSettings| settings.set("server.hosts", "runcast.example,b.example");
    let is_any = |settings: BrokerSettings| settings.set("server.hosts", "*");
    // Behind a proxy that passes the name on. With tokens as without `hosts`.
    for (settings, expected) in [
        (named(Broker::embedded()), [200, 200, 403]),
        (is_any(Broker::embedded()), [200, 200, 200]),
        (guarded(Broker::embedded()), [401, 401, 401]),
        (named(guarded(Broker::embedded())), [401, 401, 403]),
        (
            Broker::embedded()
                .set("server.bind", "0.0.0.0:0")
                .set("auth.allow_anonymous", true),
            [200, 200, 200],
        ),
    ] {
        let broker = settings.start().await;
        let hosts = ["RunCast.example", "localhost:1", "evil.example"];
        for (host, expected) in hosts.into_iter().zip(expected) {
            let addr = std::net::SocketAddr::from(([127, 0, 0, 1], broker.addr.port()));
            let (status, _) = ask(addr, "GET", "/api/v1/runs", host).await;
            assert_eq!(status, expected, "{host}");
        }
    }
}
