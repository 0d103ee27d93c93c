//! HTTPS: streams, a certificate that changes under them, and clients that mean
//! no good.

use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Raw;
use crate::support::authority::Authority;
use crate::support::broker::{BrokerSettings, sum_samples};
use crate::support::http::Request;
use crate::support::wait::SOON;
use crate::support::{Broker, eventually};

pub(super) fn settings(authority: &Authority) -> BrokerSettings {
    authority.issue("localhost");
    Broker::embedded()
        .set("server.tls_cert", authority.path("localhost.pem"))
        .set("server.tls_key", authority.path("localhost.key"))
        .set("metrics.bind", "127.0.0.1:0")
        .set("heartbeat.interval", "1s")
}

/// A connection under TLS, and what it has read.
pub(super) struct Tls {
    pub(super) stream: TlsStream<TcpStream>,
    pub(super) text: String,
}

impl Tls {
    async fn connect(authority: &Authority, broker: &Broker) -> Self {
        let socket = TcpStream::connect(broker.addr).await.expect("it listens");
        let name = ServerName::try_from("localhost").expect("a name");
        let connector = TlsConnector::from(authority.client());
        let stream = connector.connect(name, socket).await.expect("a handshake");
        Self {
            stream,
            text: String::new(),
        }
    }

    pub(super) async fn send(&mut self, text: &str) {
        // Who is refused in the middle of it reads why.
        let _ = self.stream.write_all(text.as_bytes()).await;
        let _ = self.stream.flush().await;
    }

    pub(super) async fn follow(authority: &Authority, broker: &Broker) -> Self {
        let mut client = Self::connect(authority, broker).await;
        client
            .send("GET /api/v1/runs/42/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await;
        client.until("event: hello").await;
        client
    }

    pub(super) async fn until(&mut self, wanted: &str) {
        let reading = async {
            while !self.text.contains(wanted) {
                let mut buffer = [0; 4096];
                let length = self.stream.read(&mut buffer).await.expect("open");
                assert!(length > 0, "closed after {:?}", self.text);
                self.text += std::str::from_utf8(&buffer[..length]).expect("UTF-8");
            }
        };
        let read = timeout(SOON, reading).await;
        assert!(read.is_ok(), "no {wanted:?} in {:?}", self.text);
    }

    async fn post(authority: &Authority, broker: &Broker, body: &str) {
        let mut client = Self::connect(authority, broker).await;
        let length = body.len();
        client
            .send(&format!(
                "POST /api/v1/runs/42/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
            ))
            .await;
        client.until("HTTP/1.1 202 ").await;
    }

    fn certificate(&self) -> Vec<u8> {
        let (_, connection) = self.stream.get_ref();
        let chain = connection.peer_certificates().expect("it has one");
        chain[0].to_vec()
    }
}

async fn reloads(broker: &Broker, result: &str) -> f64 {
    let metrics = Request::get("/metrics").send(broker.operator_addr()).await;
    let labels = [("result", result)];
    sum_samples(&metrics.text(), "runcast_tls_reloads_total", &labels)
}

fn output(data: u32) -> String {
    json!({"kind": "output", "source": "stdout", "data": data}).to_string()
}

#[tokio::test]
async fn streams_under_tls_outlive_their_certificate() {
    let authority = Authority::new();
    let broker = settings(&authority).start().await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(Tls::follow(&authority, &broker).await);
    }
    for number in 1000..1100 {
        Tls::post(&authority, &broker, &output(number)).await;
    }
    let in_order = |text: &str| {
        let numbers = text
            .match_indices("\"data\":1")
            .map(|(at, _)| &text[at + 7..at + 11]);
        numbers.map(str::to_owned).collect::<Vec<_>>()
    };
    let all: Vec<String> = (1000..1100).map(|number: u32| number.to_string()).collect();
    for client in &mut clients {
        client.until("\"data\":1099").await;
        assert_eq!(in_order(&client.text), all);
    }
    let old = clients[0].certificate();
    authority.issue("localhost");
    eventually(
        "a new connection gets the new certificate",
        SOON,
        async || Tls::connect(&authority, &broker).await.certificate() != old,
    )
    .await;
    let new = Tls::connect(&authority, &broker).await.certificate();
    assert_eq!(reloads(&broker, "taken").await, 1.0);
    // Between its two files being renewed one may not have fitted the other.
    let refused = reloads(&broker, "refused").await;
    // What is no certificate is no use: the last good one stays.
    std::fs::write(authority.file("localhost.pem"), "no certificate")
        .expect("the directory is ours");
    eventually("the broken one is refused", SOON, async || {
        reloads(&broker, "refused").await > refused
    })
    .await;
    assert_eq!(Tls::connect(&authority, &broker).await.certificate(), new);
    Tls::post(&authority, &broker, &output(1100)).await;
    Tls::post(
        &authority,
        &broker,
        "{\"kind\":\"status\",\"data\":\"completed\"}",
    )
    .await;
    for client in &mut clients {
        client.until("\"data\":1100").await;
        client.until("event: heartbeat").await;
        client.until("event: end").await;
        client.until("\r\n0\r\n\r\n").await;
    }
}

#[tokio::test]
async fn what_is_no_tls_gets_nothing() {
    let authority = Authority::new();
    let broker = settings(&authority)
        .set("limits.header_timeout", "1s")
        .start()
        .await;
    let mut plain = Raw::connect(broker.addr).await;
    plain
        .send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    // An alert at most, and no word of HTTP.
    let mut answer = Vec::new();
    let reading = plain.0.read_to_end(&mut answer);
    let _ = timeout(SOON, reading).await.expect("closed");
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    // A handshake that never ends.
    let mut silent = Raw::connect(broker.addr).await;
    silent.send(b"\x16\x03\x01\x02\x00").await;
    assert_eq!(silent.rest().await, "");
    let operator = broker.operator_addr();
    eventually("both are counted", SOON, async || {
        let metrics = Request::get("/metrics").send(operator).await;
        let text = metrics.text();
        text.contains("runcast_tls_handshake_failures_total 1\n")
            && text.contains("{limit=\"limits.header_timeout\"} 1\n")
    })
    .await;
    // The heads of requests have the same bounds.
    let mut client = Tls::connect(&authority, &broker).await;
    let large = "x".repeat(100_000);
    client
        .send(&format!(
            "GET / HTTP/1.1\r\nHost: localhost\r\nX: {large}\r\n\r\n"
        ))
        .await;
    client.until("HTTP/1.1 431 ").await;
}
