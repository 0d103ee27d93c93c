//! SSE clients that others wrote read our streams right.
//!
//! Each small program under `tests/clients` follows a run with one client and
//! prints every event as a line of JSON: `{"event","id","data"}`. It ends by
//! itself after the event `end`.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::process::{Process, require};
use crate::support::wait::SOON;
use crate::support::{Broker, Redis, eventually};

/// The Python of the tests, with `tests/clients/python/requirements.txt`.
pub(crate) fn python() -> PathBuf {
    root().join("target/venv/bin/python")
}

/// Where npm has put `tests/clients/node/package-lock.json`.
pub(crate) fn node_clients() -> PathBuf {
    root().join("tests/clients/node")
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn node(script: &str) -> Command {
    require(node_clients().join("node_modules"));
    let mut command = Command::new("node");
    command.arg(node_clients().join(script));
    command
}

/// Payloads that clients are known to stumble over.
fn payloads() -> Vec<Vec<u8>> {
    let huge = format!("{{\"huge\":\"{}\"}}", "x".repeat(200_000));
    let mut payloads: Vec<Vec<u8>> = [
        b"{\"step\":1}".as_slice(),
        b"",
        b"plain text",
        b"a\r\nb\rc\nd",
        b"\r",
        b"\n\n",
        b"data: x\n\nevent: end\nid: 1-1-1-end\n\n",
        "\u{2028}\u{2029}\u{85}".as_bytes(),
        "\"\u{2028}\"".as_bytes(),
        "\u{feff}bom".as_bytes(),
        b"nul \0 esc \x1b[31m",
        b"\xff\xfe",
        b"{\n  \"pretty\": [1,\n 2]\n}",
        "ünïcødé 🚀".as_bytes(),
        b": comment",
        b" leading and trailing ",
        huge.as_bytes(),
    ]
    .map(<[u8]>::to_vec)
    .into();
    payloads.extend((0..200).map(|n| n.to_string().into_bytes()));
    payloads
}

/// What the program printed, once it has ended.
async fn run_client(command: Command, broker: &Broker, redis: &Redis) -> Vec<Value> {
    let mut process = Process::spawn(command);
    crate::metrics::wait_sessions(broker, 1).await;
    let mut publisher = redis.publisher().await;
    publisher
        .publish_all("run:42:output:stdout", &payloads())
        .await;
    publisher
        .publish("run:42:logs:app", "{\"level\":\"warn\"}")
        .await;
    publisher.publish("run:42:status", "completed").await;
    let status = process.exit(Duration::from_secs(30)).await;
    let printed = process.whole_log();
    assert!(status.success(), "{status}: {printed:#?}");
    printed
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
        .collect()
}

/// Starts `command` for a run and compares what the client saw with what our
/// own strict reader sees of the same run.
async fn check(command: impl FnOnce(&str) -> Command) {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("runs.end_grace", "500ms")
        .set("heartbeat.interval", "60s")
        .start_ready()
        .await;
    let url = format!("http://{}/api/v1/runs/42/stream", broker.addr);
    let events = run_client(command(&url), &broker, &redis).await;
    let seen: Vec<Value> = events
        .into_iter()
        .filter(|event| {
            !matches!(
                event["event"].as_str(),
                Some("hello" | "cursor" | "message" | "")
            )
        })
        .collect();

    let mut strict = broker.follow("42/stream").await;
    let expected = strict.rest(SOON).await;
    assert_eq!(expected.len(), payloads().len() + 3, "log, status and end");
    assert_eq!(seen.len(), expected.len());
    for (seen, frame) in seen.iter().zip(&expected) {
        let wanted = json!({"event": frame.event, "id": frame.id(), "data": frame.data});
        assert_eq!(*seen, wanted);
    }
    for (frame, payload) in expected.iter().zip(&payloads()) {
        frame.envelope().restored().assert_same(payload);
    }
}

#[tokio::test]
async fn npm_eventsource_reads_a_run_right() {
    check(|url| {
        let mut command = node("eventsource.mjs");
        command.arg(url);
        command
    })
    .await;
}

#[tokio::test]
async fn npm_fetch_event_source_reads_a_run_right() {
    check(|url| {
        let mut command = node("fetch-event-source.mjs");
        command.arg(url);
        command
    })
    .await;
}

#[tokio::test]
async fn pypi_httpx_sse_reads_a_run_right() {
    check(|url| {
        let mut command = Command::new(python());
        command
            .arg(root().join("tests/clients/python/follow.py"))
            .arg(url);
        command
    })
    .await;
}

/// An `EventSource` comes back by itself with the id it stored: after a broker
/// that ended it goes on with the next one on the same port.
#[tokio::test]
async fn npm_eventsource_comes_back_where_it_was() {
    let redis = Redis::start().await;
    let port = crate::support::port::free_port();
    let settings = Broker::redis(&redis)
        .set("server.bind", format!("127.0.0.1:{port}"))
        .set("retry.min", "100ms")
        .set("retry.max", "200ms")
        .set("runs.end_grace", "100ms");
    let mut first = settings.start_ready().await;
    let mut command = node("eventsource.mjs");
    command.arg(format!("http://{}/api/v1/runs/42/stream", first.addr));
    let mut process = Process::spawn(command);
    crate::metrics::wait_sessions(&first, 1).await;
    let before = first.publish("42", json!("before")).await;
    let outputs = |process: &Process, id: &str| {
        let begin = format!("{{\"event\":\"output\",\"id\":\"{id}\"");
        let log = process.log();
        log.iter().filter(|line| line.starts_with(&begin)).count()
    };
    eventually("the client has the event", SOON, async || {
        outputs(&process, &before) == 1
    })
    .await;
    first.terminate();
    assert_eq!(first.exit_code(SOON).await, Some(0));
    drop(first);

    let second = settings.start_ready().await;
    let after = second.publish("42", json!("after")).await;
    eventually("it came back", SOON, async || {
        outputs(&process, &after) == 1
    })
    .await;
    second.publish_status("42", json!("completed")).await;
    assert!(process.exit(SOON).await.success());
    assert_eq!(outputs(&process, &before), 1, "{:#?}", process.log());
}
