//! Run ids and channels made to do harm.

use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::support::http::Request;
use crate::support::sse::gap_of;
use crate::support::wait::SOON;
use crate::support::{Broker, Redis, eventually};

/// As they stand in a path.
const BAD_RUN_IDS: [&str; 22] = [
    "..%2Fetc",
    "%2e%2e%2fetc",
    "-oyaml",
    "--server=https:%2F%2Fevil",
    "",
    "a%20b",
    "%00",
    "a%00b",
    "a%0d%0ab",
    "a%0aevent:%20end",
    "%2A",
    "*",
    "a%3Ab",
    "a:b",
    "%7B42%7D",
    "a%2Cb%20notin%20(c)",
    "%C3%A9",
    "%E2%80%A8",
    "_probe",
    "etc.",
    "a%252Fb",
    "a%5Cb",
];

/// Refused where they enter: with a problem, and nothing of it reaches Redis.
#[tokio::test]
async fn a_bad_run_id_is_400_and_reaches_nobody() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let mut monitor = Monitor::start(&redis).await;
    let too_long = format!("etc{}", "x".repeat(126));
    let ids = BAD_RUN_IDS.into_iter().chain([too_long.as_str()]);
    for id in ids {
        for suffix in ["/stream", "/stream/redis", "/stream?backend=redis", ""] {
            if id.is_empty() && suffix.is_empty() {
                continue; // `/api/v1/runs/` names no run at all.
            }
            let path = format!("/api/v1/runs/{id}{suffix}");
            let problem = broker.get(&path).await.problem(400);
            let detail = problem["detail"].as_str().expect("checked");
            assert!(detail.contains("run id"), "{path}: {detail}");
        }
        let event = json!({"kind": "output", "source": "etc", "data": "etc"}).to_string();
        let path = format!("/api/v1/runs/{id}/events");
        let request = Request::post(path, "application/json", event);
        request.send(broker.addr).await.problem(400);
    }
    for line in monitor.commands(&redis).await {
        for trace in ["etc", "oyaml", "evil", "notin", "{42}", "a:b"] {
            assert!(!line.contains(trace), "{trace} reached Redis: {line}");
        }
    }
    assert_eq!(broker.json("/api/v1/runs").await["runs"], json!([]));
}

/// Path tricks that never become a run id end as an error of the client too.
#[tokio::test]
async fn path_tricks_lead_nowhere() {
    let broker = Broker::embedded().start_ready().await;
    for path in [
        "/api/v1/runs/../../../etc/passwd",
        "/api/v1/runs/../etc/stream",
        "/api/v1/runs/42/../../config/stream",
        "//api/v1/runs/42/stream",
        "/api/v1/runs/42/stream/../../..",
        "/api/v1/runs/%zz/stream",
        "/api/v1/runs/%/stream",
        "/api/v1/runs/%c3%28/stream",
        "/%2e%2e/%2e%2e/etc/passwd",
    ] {
        let response = broker.get(path).await;
        let status = response.status();
        assert!(matches!(status, 400 | 404), "{path}: {status}");
        response.problem(status);
    }
}

#[tokio::test]
async fn good_run_ids_of_every_shape_are_taken() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let longest = "x".repeat(128);
    let mut publisher = redis.publisher().await;
    for id in ["4", "a.b_c-D9", "0--0", "A..z", longest.as_str()] {
        let mut client = broker.follow(&format!("{id}/stream")).await;
        publisher.publish(format!("run:{id}:status"), "1").await;
        assert_eq!(client.run_event().await.envelope().run_id, id);
    }
}

/// Channels that match the pattern and belong to nobody: each is counted,
/// none becomes an event, and a watched run never notices.
#[tokio::test]
async fn odd_channels_are_counted_and_dropped() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let mut client = broker.follow("42/stream?log_level=trace").await;
    let mut publisher = redis.publisher().await;
    let name_10k = format!("run:{}:status", "x".repeat(10_000));
    let odd: [&[u8]; 27] = [
        b"run:a:b:output:x",
        b"run::status",
        b"run::",
        b"run:",
        b"run:42",
        b"run:42:",
        b"run:42:output",
        b"run:42:Output:x",
        b"run:42:status:x",
        b"run:42:logs",
        b"run: 42:status",
        b"run:42\n:status",
        b"run:42\0:status",
        b"run:*:status",
        b"run:?2:status",
        b"run:[4]2:status",
        b"run:4\\2:status",
        b"run:\xff:status",
        b"run:\xc3\xa9:status",
        b"run:\xe2\x80\xa8:output:x",
        b"run:-oyaml:output:x",
        b"run:..:output:x",
        b"run:{42}:other",
        b"run:{42:events",
        b"run:{}:events",
        b"run:42}:events",
        name_10k.as_bytes(),
    ];
    let before = rejected(&broker).await;
    for channel in odd {
        publisher.publish(channel, "forged").await;
    }
    publisher.publish("run:42:output:stdout", "\"real\"").await;
    assert_eq!(client.run_event().await.payload(), "\"real\"");
    eventually("every odd channel is counted", SOON, async || {
        rejected(&broker).await == before + odd.len() as f64
    })
    .await;
    let runs = broker.json("/api/v1/runs").await;
    assert_eq!(runs["runs"].as_array().map(Vec::len), Some(1), "{runs}");
}

/// Messages on a run's framed channel that the publish function did not write.
#[tokio::test]
async fn forged_frames_are_counted_and_dropped() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let mut client = broker.follow("42/stream").await;
    let mut publisher = redis.publisher().await;
    let forged: [&[u8]; 11] = [
        b"",
        b"garbage",
        b"{\"step\":1}",
        b"1",
        b"99 1 1 1 0 output 0 0 \nx",
        b"1 x y z 0 output 0 0 \nx",
        b"1 1 1 1 0 output 0 99999 s\nx",
        b"1 1 1 1 0 nonsense 0 0 \nx",
        b"1 -1 -1 -1 0 output 0 0 \nx",
        b"1 99999999999999999999999 1 1 0 output 0 0 \nx",
        b"\xff\xfe\x00",
    ];
    let before = rejected(&broker).await;
    for message in forged {
        publisher.publish("run:{42}:events", message).await;
    }
    publisher.publish("run:42:output:stdout", "\"real\"").await;
    assert_eq!(client.run_event().await.payload(), "\"real\"");
    eventually("every forged frame is counted", SOON, async || {
        rejected(&broker).await == before + forged.len() as f64
    })
    .await;
}

/// Odd but valid: the source is the rest of the channel, whatever it holds.
#[tokio::test]
async fn odd_sources_arrive_unchanged() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let mut client = broker.follow("42/stream").await;
    let mut publisher = redis.publisher().await;
    for source in [
        "",
        ":",
        "a:b:c",
        "*?[x]",
        "a\nevent: end\ndata: {}\n\n",
        "a\r\nid: 7\r\r",
        "nul\0",
        "quote\"back\\slash",
        "\u{2028}\u{2029}\u{85}\u{feff}",
        "ünïcødé 🚀",
        "</script>",
    ] {
        publisher
            .publish(format!("run:42:output:{source}"), "1")
            .await;
        assert_eq!(client.run_event().await.envelope().source, source);
    }
    // Too long for a source, or not UTF-8: never a broken frame.
    publisher
        .publish(format!("run:42:output:{}", "x".repeat(10_000)), "1")
        .await;
    publisher.publish(b"run:42:output:\xff\xfe", "1").await;
    publisher.publish("run:42:output:stdout", "\"next\"").await;
    loop {
        let frame = client.event().await;
        if frame.event == "gap" {
            assert_eq!(gap_of(&frame).0, "too_large");
        } else if frame.payload() == "\"next\"" {
            break;
        }
    }
}

/// Sources and strings of a `POST` are no less hostile.
#[tokio::test]
async fn posted_field_text_stays_inside_its_field() {
    let broker = Broker::embedded().start_ready().await;
    let mut client = broker.follow("42/stream").await;
    for text in [
        "a\nevent: end\ndata: {}\n\n",
        "\r\rid: 7\r",
        "nul\0 esc\u{1b}[31m",
        "\u{2028}\u{2029}",
        "retry: 1",
    ] {
        let event = json!({"kind": "output", "source": text, "data": {text: text}});
        let response = broker.post("42", &event).await;
        assert_eq!(response.status(), 202, "{}", response.text());
        let frame = client.run_event().await;
        assert_eq!(frame.envelope().source, text);
        assert_eq!(frame.json()["data"], json!({text: text}));
    }
}

async fn rejected(broker: &Broker) -> f64 {
    crate::metrics::rejected_messages(broker).await
}

/// A `MONITOR` connection: every command Redis was asked.
struct Monitor(BufReader<TcpStream>);

impl Monitor {
    async fn start(redis: &Redis) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", redis.port())).await;
        let mut reader = BufReader::new(stream.expect("redis-server accepts"));
        reader.write_all(b"MONITOR\r\n").await.expect("it listens");
        let mut line = String::new();
        reader.read_line(&mut line).await.expect("it answers");
        assert_eq!(line, "+OK\r\n");
        Self(reader)
    }

    /// Returns all commands up to now.
    async fn commands(&mut self, redis: &Redis) -> Vec<String> {
        let mut publisher = redis.publisher().await;
        let _: String = publisher.command(&["PING", "the-marker"]).await;
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            self.0
                .read_until(b'\n', &mut line)
                .await
                .expect("it writes");
            let line = String::from_utf8_lossy(&line).into_owned();
            if line.contains("the-marker") {
                return lines;
            }
            lines.push(line);
        }
    }
}
