//! A real browser: the page at `/` and an `EventSource` of a page.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::clients::node;
use crate::support::process::{Process, require};
use crate::support::wait::SOON;
use crate::support::{Broker, Redis, eventually};

/// Opens run 42 in a browser.
fn browse(mode: &str, broker: &Broker, profile: &Path) -> Process {
    require("chromium");
    let mut command = node("browser.mjs");
    command
        .arg(mode)
        .arg(format!("http://{}/", broker.addr))
        .arg("42")
        .arg(profile);
    Process::spawn(command)
}

/// Ends the browser before its profile goes.
pub(crate) async fn close(process: &mut Process) {
    process.signal(Signal::TERM);
    process.exit(SOON).await;
}

/// Lines of JSON the browser's script printed.
pub(crate) fn printed(process: &Process) -> Vec<Value> {
    let lines = process.log();
    lines
        .iter()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

#[tokio::test]
async fn the_page_shows_a_run_as_it_happens() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("runs.end_grace", "500ms")
        .start_ready()
        .await;
    let profile = tempfile::TempDir::new().expect("a temporary directory");
    let mut process = browse("page", &broker, profile.path());
    let long = Duration::from_secs(60);
    eventually("the page follows the run", long, async || {
        broker.metric("runcast_sessions", &[]).await >= 1.0
    })
    .await;
    let mut publisher = redis.publisher().await;
    for n in 0..5 {
        publisher
            .publish("run:42:output:stdout", format!("line-{n}-<b>&\u{2028}"))
            .await;
        eventually("the line stands on the page", SOON, async || {
            let wanted = format!("line-{n}-<b>&");
            printed(&process).iter().any(|line| {
                line["text"]
                    .as_str()
                    .is_some_and(|text| text.contains(&wanted))
            })
        })
        .await;
    }
    publisher.publish("run:42:status", "completed").await;
    crate::metrics::wait_sessions(&broker, 0).await;
    close(&mut process).await;
}

/// The browser's own `EventSource`: odd payloads whole, `end` final, no
/// connection after it.
#[tokio::test]
async fn an_event_source_in_a_page_reads_a_run_right() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("runs.end_grace", "500ms")
        .set("retry.min", "100ms")
        .set("retry.max", "200ms")
        .start_ready()
        .await;
    let profile = tempfile::TempDir::new().expect("a temporary directory");
    let mut process = browse("event-source", &broker, profile.path());
    let long = Duration::from_secs(60);
    eventually("the page follows the run", long, async || {
        broker.metric("runcast_sessions", &[]).await >= 1.0
    })
    .await;
    let payloads: [&[u8]; 6] = [
        b"{\"step\":1}",
        b"a\r\nb\rc",
        "\u{2028}\u{2029}".as_bytes(),
        b"\xff\x00",
        b"data: x\n\nevent: end\n\n",
        b"",
    ];
    let mut publisher = redis.publisher().await;
    for payload in payloads {
        publisher.publish("run:42:output:stdout", payload).await;
    }
    publisher.publish("run:42:status", "completed").await;
    // The page does not close it: the server's 204 must.
    eventually("the EventSource is closed for good", long, async || {
        printed(&process).iter().any(|line| line["closed"] == true)
    })
    .await;
    close(&mut process).await;

    let mut strict = broker.follow("42/stream").await;
    let expected = strict.rest(SOON).await;
    let seen: Vec<Value> = printed(&process)
        .into_iter()
        .filter(|line| line["event"].is_string())
        .filter(|line| {
            !matches!(
                line["event"].as_str(),
                Some("hello" | "heartbeat" | "cursor")
            )
        })
        .collect();
    assert_eq!(seen.len(), expected.len(), "{seen:#?}");
    for (seen, frame) in seen.iter().zip(&expected) {
        let wanted = json!({"event": frame.event, "id": frame.id(), "data": frame.data});
        assert_eq!(*seen, wanted);
    }
    for (frame, payload) in expected.iter().zip(payloads) {
        frame.envelope().restored().assert_same(payload);
    }
}
