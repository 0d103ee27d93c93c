//! What once went wrong under a hostile client or publisher.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::http::{Request, slug};
use crate::support::wait::SOON;
use crate::support::{Broker, Redis};

const EVENTS: &str = "/api/v1/runs/42/events";

fn framed(epoch: u64, seq: u64, us: u64, payload: &str) -> String {
    format!("1 {epoch} {seq} {us} 0 output 0 1 x\n{payload}")
}

fn now_ms() -> u64 {
    jiff::Timestamp::now().as_millisecond() as u64
}

/// Unfinished bodies were held without bound: a hundred took half a gigabyte.
#[tokio::test]
async fn unfinished_bodies_filled_the_memory() {
    let broker = Broker::embedded()
        .set("limits.max_body_bytes", "1MiB")
        .set("limits.total_body_bytes", "4MiB")
        .start_ready()
        .await;
    let head = format!(
        "POST {EVENTS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 1000000\r\n\r\n"
    );
    let part = vec![b'x'; 900_000];
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = TcpStream::connect(broker.addr).await.expect("it listens");
        client.write_all(head.as_bytes()).await.expect("connected");
        client.write_all(&part).await.expect("connected");
        clients.push(client);
    }
    broker
        .wait_metric("runcast_http_body_bytes", &[], 3_600_000.0)
        .await;
    let large = Request::post(EVENTS, "text/plain", vec![b'x'; 900_000]);
    let problem = large.send(broker.addr).await.problem(503);
    assert_eq!(slug(&problem), "too-many-posts");
    // Small ones still get in, and those under way go on.
    broker.publish("42", json!("small")).await;
    for mut client in clients {
        client.write_all(&part[..100_000]).await.expect("connected");
        let mut answer = [0; 12];
        client.read_exact(&mut answer).await.expect("an answer");
        // One line is over the limit of an event: it was read to its end.
        assert_eq!(&answer, b"HTTP/1.1 413");
    }
    broker
        .wait_metric("runcast_http_body_bytes", &[], 0.0)
        .await;
    assert_eq!(large.send(broker.addr).await.status(), 413);
}

/// Whatever came on a stream's connection was read, for as long as it came.
#[tokio::test]
async fn a_stream_read_for_nothing_without_an_end() {
    let broker = Broker::embedded().start_ready().await;
    let mut client = TcpStream::connect(broker.addr).await.expect("it listens");
    let request = b"GET /api/v1/runs/42/stream HTTP/1.1\r\nHost: localhost\r\n\r\n";
    client.write_all(request).await.expect("connected");
    let mut head = [0; 12];
    client.read_exact(&mut head).await.expect("an answer");
    // A little more is no harm.
    client.write_all(&[b'x'; 10_000]).await.expect("connected");
    broker.publish("42", json!("seen")).await;
    let mut text = Vec::new();
    while memchr::memmem::find(&text, b"\"seen\"").is_none() {
        let n = client.read_buf(&mut text).await.expect("a stream");
        assert!(n > 0, "closed after {:?}", String::from_utf8_lossy(&text));
    }
    let much = vec![b'x'; 64 * 1024 * 1024];
    let refused = timeout(SOON, client.write_all(&much)).await;
    refused
        .expect("it is closed")
        .expect_err("the whole was read");
    let gone = [("reason", "client_gone")];
    broker
        .wait_metric("runcast_sessions_closed_total", &gone, 1.0)
        .await;
}

/// A browser sends a post of plain text without a preflight.
#[tokio::test]
async fn any_web_page_could_publish() {
    let broker = Broker::embedded().start_ready().await;
    let post = |origin: &str| Request::post(EVENTS, "text/plain", "x").header("Origin", origin);
    for origin in [
        "http://evil.example",
        "null",
        "http://localhost:3000.evil.example",
    ] {
        for request in [
            post(origin),
            post(origin).header("Sec-Fetch-Site", "cross-site"),
        ] {
            let problem = request.send(broker.addr).await.problem(403);
            assert_eq!(slug(&problem), "forbidden-origin", "{origin}");
        }
    }
    for request in [
        post("http://localhost:3000"),
        // Of the broker's own page; the test's `Host` is `localhost`.
        post("http://localhost"),
        post("https://console.example").header("Sec-Fetch-Site", "same-origin"),
    ] {
        assert_eq!(request.send(broker.addr).await.status(), 202);
    }
    let run = broker.json("/api/v1/runs/42").await;
    assert_eq!(run["events"]["output"], 3);
}

/// Each new run at the limit cost a search through all hubs.
#[tokio::test]
async fn a_flood_of_run_ids_stalled_all_other_runs() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("hub.max_hubs", 2000)
        .start_ready()
        .await;
    let mut watched = broker.follow("watched/stream").await;
    let mut publisher = redis.publisher().await;
    for round in 0..6 {
        let mut commands = ::redis::pipe();
        for run in 0..1000 {
            let channel = format!("run:flood-{round}-{run}:output:x");
            commands.cmd("PUBLISH").arg(channel).arg("x").ignore();
        }
        publisher.pipeline(&commands).await;
    }
    publisher.publish("run:watched:status", "\"here\"").await;
    assert_eq!(watched.run_event().await.payload(), "\"here\"");
    // A new run finds room at its first request.
    let mut new = broker.stream("new/stream").await;
    new.preamble().await;
    assert!(broker.metric("runcast_hubs", &[]).await <= 2000.0);
}

/// The limit of an event held on the plain channels only.
#[tokio::test]
async fn a_framed_event_of_any_size_was_taken() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let mut client = broker.follow("42/stream").await;
    let mut publisher = redis.publisher().await;
    let now = now_ms();
    let big = format!("\"{}\"", "x".repeat(8 << 20));
    for (seq, payload) in [(1, "\"a\""), (2, big.as_str()), (3, "\"c\"")] {
        let message = framed(now, seq, now * 1000 + seq, payload);
        publisher.publish("run:{42}:events", message).await;
    }
    assert_eq!(client.run_event().await.payload(), "\"a\"");
    let (reason, gap) = client.gap().await;
    assert_eq!((reason.as_str(), &gap["missed"]), ("too_large", &json!(1)));
    assert_eq!(client.run_event().await.payload(), "\"c\"");
}

/// An id of the farthest future made all later events of the run look old.
#[tokio::test]
async fn a_forged_frame_silenced_its_run_for_ever() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let mut client = broker.follow("42/stream").await;
    let mut publisher = redis.publisher().await;
    let now = now_ms();
    for (epoch, seq, us) in [
        (u64::MAX, u64::MAX, u64::MAX),
        (u64::MAX, 1, now * 1000),
        (now, u64::MAX, u64::MAX),
        (now + 48 * 3_600_000, 1, now * 1000),
    ] {
        let message = framed(epoch, seq, us, "\"forged\"");
        publisher.publish("run:{42}:events", message).await;
    }
    let id = broker.publish("42", json!("true")).await;
    let frame = client.run_event().await;
    assert_eq!(
        (frame.id(), frame.payload().as_str()),
        (id.as_str(), "\"true\"")
    );
    let rejected = broker
        .metric("runcast_redis_rejected_total", &[("reason", "bad_frame")])
        .await;
    assert_eq!(rejected, 4.0);
}

/// Ids at the edges of their numbers, on a log that has the nearest ones.
#[tokio::test]
async fn ids_at_the_edge_of_their_numbers_do_no_harm() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let mut client = broker.follow("42/stream").await;
    let mut publisher = redis.publisher().await;
    publisher.publish("run:42:output:x", "1").await;
    let plain = client.run_event().await.id().to_owned();
    let (hub, _) = plain.split_once('-').expect("~hub-n");
    let now = now_ms();
    for (seq, us) in [
        (3, now * 1000),
        (u64::MAX, now * 1000 + 1),
        (2, now * 1000 + 2),
    ] {
        let message = framed(now, seq, us, "1");
        publisher.publish("run:{42}:events", message).await;
        broker.publish("42", serde_json::json!(seq)).await;
        while client.event().await.event == "gap" {}
    }
    let max = u64::MAX;
    for cursor in [
        format!("{hub}-{max}"),
        format!("{hub}-0"),
        format!("{hub}-{max}~{max}-{max}-{max}"),
        format!("{now}-0-0"),
        format!("{now}-{max}-{max}"),
        format!("{max}-{max}-{max}-end"),
        format!("k0:ffffffffffffffff-{max}-{}", u32::MAX),
        "9".repeat(8192),
    ] {
        let mut back = broker.resume("42/stream", &cursor).await;
        back.preamble().await;
    }
    let mut back = broker.stream(&format!("42/stream?from=-{max}")).await;
    back.preamble().await;
    for _ in 0..4 {
        while back.event().await.event == "gap" {}
    }
    let log = broker.process.log();
    assert!(!log.iter().any(|line| line.contains("panic")), "{log:#?}");
}

/// Each source of a filter is compared with each event's, for each client.
#[tokio::test]
async fn a_filter_could_name_thousands_of_sources() {
    let broker = Broker::embedded().start_ready().await;
    let path = |count: usize| {
        let sources: Vec<String> = (0..count).map(|n| n.to_string()).collect();
        format!("/api/v1/runs/42/stream?sources={}", sources.join(","))
    };
    let problem = broker.get(&path(257)).await.problem(400);
    assert_eq!(slug(&problem), "bad-query");
    let longest = path(256);
    let mut client = broker
        .follow(longest.trim_start_matches("/api/v1/runs/"))
        .await;
    let post = Request::post(format!("{EVENTS}?source=255"), "text/plain", "x");
    assert_eq!(post.send(broker.addr).await.status(), 202);
    assert_eq!(client.run_event().await.payload(), "\"x\"");
}
