//! Requests that are sent ahead: how many a connection may hold, and that it
//! holds no core.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use super::tls::{Tls, settings};
use super::{Raw, refusals};
use crate::support::authority::Authority;
use crate::support::broker::sum_samples;
use crate::support::http::Request;
use crate::support::wait::SOON;
use crate::support::{Broker, Redis, eventually};

/// How long the processor's time is looked at, and the most that a broker which
/// does nothing takes of it.
const LOOK: Duration = Duration::from_secs(2);
const IDLE: Duration = Duration::from_millis(40);

/// Waits until the broker needs no processor; one that looks for room again and
/// again never comes to that.
async fn until_idle(broker: &Broker) {
    let time = || broker.process.cpu_time();
    eventually("the broker needs no processor", 3 * SOON, async || {
        let before = time();
        sleep(LOOK).await;
        time() - before < IDLE
    })
    .await;
}

/// A connection whose client's kernel takes little for it.
async fn connect(broker: &Broker) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .set_recv_buffer_size(4096)
        .expect("it is not connected");
    socket.connect(broker.addr).await.expect("it listens")
}

fn request(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// Writes all, and leaves the way open: whoever closes it wants no answer.
async fn write(mut writer: OwnedWriteHalf, requests: String) -> OwnedWriteHalf {
    let written = writer.write_all(requests.as_bytes()).await;
    written.expect("it is open");
    writer
}

/// Counts the answers of a connection, whatever they are, until there are
/// `expected`.
async fn answers(client: &mut (impl tokio::io::AsyncRead + Unpin), expected: usize) {
    let (mut bytes, mut found) = (Vec::new(), 0);
    while found < expected {
        let reading = client.read_buf(&mut bytes);
        let length = timeout(SOON, reading).await;
        let length = length.unwrap_or_else(|_| panic!("silent after {found}"));
        assert!(length.expect("it is open") > 0, "closed after {found}");
        found += memchr::memmem::find_iter(&bytes, b"HTTP/1.1 ").count();
        // What may be the beginning of one.
        let kept = bytes.len().min(b"HTTP/1.1".len());
        bytes.drain(..bytes.len() - kept);
    }
    assert_eq!(found, expected);
}

/// The first answers fill the way to the client, so that nothing more can be
/// written; whatever came after them was read until actix' buffer was full, and
/// then looked at without an end.
#[tokio::test]
async fn a_client_that_pipelines_and_reads_nothing_costs_nothing() {
    const COUNT: usize = 30_000;
    let broker = Broker::embedded()
        .set("limits.write_timeout", "120s")
        .set("server.workers", 1)
        .start_ready()
        .await;
    for (method, path) in [
        ("GET", "/api/v1/config"),
        ("HEAD", "/health/live"),
        ("GET", "/api/v1/runs"),
    ] {
        let client = connect(&broker).await;
        let memory = broker.process.rss_bytes();
        let (mut reader, writer) = client.into_split();
        let requests = request(method, path).repeat(COUNT);
        let writing = tokio::spawn(write(writer, requests));
        until_idle(&broker).await;
        let grown = broker.process.rss_bytes().saturating_sub(memory);
        assert!(grown < 16 * 1024 * 1024, "{method} {path}: {grown} bytes");
        // Nothing is lost by that: who reads is answered.
        answers(&mut reader, COUNT).await;
        writing.await.expect("it has read all");
    }
}

#[tokio::test]
async fn requests_that_wait_for_the_store_hold_no_core() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("redis.command_timeout", "60s")
        .set("server.workers", 1)
        .start_ready()
        .await;
    redis.freeze();
    let client = TcpStream::connect(broker.addr).await.expect("it listens");
    let (mut reader, writer) = client.into_split();
    let count = 20_000;
    let first = request("GET", "/api/v1/runs/42/events");
    let requests = first + &request("GET", "/health/live").repeat(count);
    let writing = tokio::spawn(write(writer, requests));
    until_idle(&broker).await;
    redis.thaw();
    answers(&mut reader, count + 1).await;
    writing.await.expect("it has read all");
}

/// Under TLS a stream stays with actix.
#[tokio::test]
async fn a_client_of_a_stream_that_goes_on_asking_is_closed() {
    let authority = Authority::new();
    let broker = settings(&authority)
        .set("limits.header_timeout", "1s")
        .start()
        .await;
    let mut quiet = Tls::follow(&authority, &broker).await;
    // What it says is no head, and has no time in which it must end.
    quiet.send("GET /health/live HTTP/1.1\r\nX-").await;
    let mut loud = Tls::follow(&authority, &broker).await;
    let much = request("GET", "/health/live").repeat(100_000);
    let (mut reader, mut writer) = tokio::io::split(&mut loud.stream);
    let writing = writer.write_all(much.as_bytes());
    let reading = async {
        let mut piece = [0; 4096];
        while reader.read(&mut piece).await.is_ok_and(|n| n > 0) {}
    };
    let both = async { tokio::join!(writing, reading) };
    let (written, ()) = timeout(SOON, both).await.expect("it is closed");
    written.expect_err("not all of it was read");
    let closed = async || {
        let metrics = Request::get("/metrics").send(broker.operator_addr()).await;
        let family = "runcast_http_talkative_streams_total";
        sum_samples(&metrics.text(), family, &[])
    };
    eventually("it is counted", SOON, async || closed().await == 1.0).await;
    for _ in 0..3 {
        quiet.text.clear();
        quiet.until("event: heartbeat").await;
    }
    assert_eq!(closed().await, 1.0);
}

#[tokio::test]
async fn many_requests_at_once_are_all_answered_in_order() {
    const ROUNDS: usize = 400;
    let broker = Broker::embedded().start_ready().await;
    let client = TcpStream::connect(broker.addr).await.expect("it listens");
    let (mut reader, writer) = client.into_split();
    let mut requests = String::new();
    for round in 0..ROUNDS {
        // Some larger than all that is read ahead.
        let body = "x".repeat(if round % 50 == 0 { 150_000 } else { 300 });
        let length = body.len();
        requests += &format!(
            "POST /api/v1/runs/42/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        requests += &request("GET", "/health/live");
    }
    let writing = tokio::spawn(write(writer, requests));
    let mut bytes = Vec::new();
    let mut statuses = Vec::new();
    while statuses.len() < 2 * ROUNDS {
        let length = timeout(SOON, reader.read_buf(&mut bytes)).await;
        let length = length.unwrap_or_else(|_| panic!("silent after {}", statuses.len()));
        assert!(length.expect("open") > 0, "closed after {}", statuses.len());
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let found = text.match_indices("HTTP/1.1 ");
        statuses = found
            .filter_map(|(at, word)| text[at + word.len()..].get(..3))
            .map(str::to_owned)
            .collect();
    }
    let expected: Vec<&str> = ["202", "200"].repeat(ROUNDS);
    assert_eq!(statuses, expected);
    writing.await.expect("it has read all");
}

/// A part of a head that came with the request before it had no deadline.
#[tokio::test]
async fn a_head_that_begins_with_another_request_must_end_in_time() {
    let broker = Broker::embedded()
        .set("limits.header_timeout", "1s")
        .start_ready()
        .await;
    for whole in [
        request("GET", "/health/live"),
        request("GET", "/health/live").repeat(5),
        request("HEAD", "/api/v1/runs/42/stream"),
    ] {
        let mut client = Raw::connect(broker.addr).await;
        client.send(whole.clone() + "GET /health/live HTT").await;
        let answers = client.rest().await;
        let expected = whole.matches("HTTP/1.1").count();
        assert_eq!(answers.matches("HTTP/1.1 200 ").count(), expected);
    }
    assert_eq!(refusals(&broker, "limits.header_timeout").await, 3.0);
}

/// A connection was closed the time of a head after its second request, if that
/// was answered at once.
#[tokio::test]
async fn a_connection_that_rests_between_requests_is_kept() {
    let broker = Broker::embedded()
        .set("limits.header_timeout", "1s")
        .start_ready()
        .await;
    let mut client = Raw::connect(broker.addr).await;
    for _ in 0..3 {
        client.send(request("GET", "/health/live")).await;
        assert!(client.answer().await.starts_with("HTTP/1.1 200 "));
    }
    // Longer than a head may take.
    sleep(Duration::from_secs(2)).await;
    client.send(request("GET", "/health/live")).await;
    assert!(client.answer().await.starts_with("HTTP/1.1 200 "));
    assert_eq!(refusals(&broker, "limits.header_timeout").await, 0.0);
}
