//! The archive: runs that ended are written, and served when their store has
//! forgotten them.

mod access;
mod embedded;
mod faults;
mod large;
mod retention;
mod s3;
mod serving;
mod writing;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::broker::BrokerSettings;
use crate::support::http::Request;
use crate::support::redis::Publisher;
use crate::support::{Broker, Redis};

/// A Redis, and a directory as the archive of its brokers.
struct Archive {
    redis: Redis,
    dir: TempDir,
}

impl Archive {
    async fn start() -> Self {
        Self {
            redis: Redis::start().await,
            dir: TempDir::new().expect("a temporary directory"),
        }
    }

    fn settings(&self) -> BrokerSettings {
        archiving(Broker::redis(&self.redis), self.dir.path())
    }

    fn objects(&self) -> Vec<PathBuf> {
        objects(self.dir.path())
    }

    /// Has Redis forget everything.
    async fn flush(&self) {
        let mut publisher = self.redis.publisher().await;
        let _: String = publisher.command(&["FLUSHALL"]).await;
    }
}

fn archiving(settings: BrokerSettings, dir: &Path) -> BrokerSettings {
    settings
        .set("archive.url", format!("file://{}", dir.display()))
        .set("archive.timeout", "2s")
        .set("runs.end_grace", "50ms")
}

/// All objects below an archive's directory; not those half written.
fn objects(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.path().is_dir() {
            true => found.extend(objects(&entry.path())),
            false if entry.path().extension() == Some("zst".as_ref()) => found.push(entry.path()),
            false => {}
        }
    }
    found.sort();
    found
}

/// Waits until a broker has written so many runs.
async fn wait_written(broker: &Broker, count: u32) {
    let family = "runcast_archive_written_total";
    broker.wait_metric(family, &[], f64::from(count)).await;
}

/// Publishes one event that only the function can take: any bytes, numbered.
async fn publish_raw(publisher: &mut Publisher, run_id: &str, rest: &[&[u8]]) {
    let keys = ["stream", "meta"].map(|key| format!("run:{{{run_id}}}:{key}"));
    let mut pipe = ::redis::pipe();
    let call = pipe.cmd("FCALL").arg("runcast_publish").arg(2);
    call.arg(&keys).arg(run_id).arg(rest).ignore();
    publisher.pipeline(&pipe).await;
}

/// A run with what runs have: payloads of every form, levels, statuses, events
/// that its producer lost. Returns the ids of two in the middle.
async fn publish_varied(broker: &Broker, redis: Option<&Redis>, run_id: &str) -> Vec<String> {
    broker
        .publish_status(run_id, json!({"status": "running"}))
        .await;
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(
            broker
                .publish(run_id, json!({"n": n, "text": "ü\u{1F600}\n"}))
                .await,
        );
    }
    for body in [
        r#"{"kind":"output","source":"a\nb","data":{"n":123456789012345678901234567890.10e+400, "n":[1,2]}}"#,
        "{\"kind\":\"log\",\"source\":\"app\",\"data\":{\r\n  \"level\": \"error\"\n}}",
        r#"{"kind":"log","source":"app","data":{"level":"debug"}}"#,
        r#"{"kind":"output","source":"stderr","data":null}"#,
    ] {
        let path = format!("/api/v1/runs/{run_id}/events");
        let posted = Request::post(path, "application/json", body);
        assert_eq!(posted.send(broker.addr).await.status(), 202);
    }
    if let Some(redis) = redis {
        let mut publisher = redis.publisher().await;
        for rest in [
            &[&b"output"[..], b"bin", b"\xff\xfe\x00\n\x01"][..],
            &[b"output", b"text", b"no json\r\nat all\0"],
            &[b"output", b"", b"", b"PRODUCER", b"p", b"1", b"1"],
            &[b"output", b"", b" [1] ", b"PRODUCER", b"p", b"1", b"5"],
        ] {
            publish_raw(&mut publisher, run_id, rest).await;
        }
    }
    vec![ids[3].clone(), ids[12].clone()]
}

/// A path, with its status and its body.
type Answer = (String, u16, Vec<u8>);

/// What a client gets of a run, by every way there is.
async fn everything(broker: &Broker, run_id: &str, ids: &[String], last: &str) -> Vec<Answer> {
    let (one, two) = (&ids[0], &ids[1]);
    let forgotten = "1-7-1000";
    let paths = [
        String::new(),
        "/events".to_owned(),
        "/events?limit=7".to_owned(),
        format!("/events?limit=5&after={one}"),
        format!("/events?limit=5&before={two}"),
        format!("/events?limit=500&before={last}-end"),
        format!("/events?after={last}"),
        "/events?kinds=status,log".to_owned(),
        "/events?sources=bin,text".to_owned(),
        format!("/events?after={forgotten}"),
        "/stream".to_owned(),
        "/stream?backend=auto".to_owned(),
        "/stream/redis?from=now".to_owned(),
        "/stream/redis?from=-3".to_owned(),
        "/stream?kinds=log&log_level=warn".to_owned(),
        "/stream?sources=stderr".to_owned(),
        format!("/stream?from={one}"),
        format!("/stream?last_event_id={two}"),
        format!("/stream?from={last}"),
        format!("/stream?last_event_id={last}-end"),
        format!("/stream?last_event_id={forgotten}"),
        "/stream?last_event_id=nonsense".to_owned(),
    ];
    let mut found = Vec::new();
    for path in paths {
        let path = format!("/api/v1/runs/{run_id}{path}");
        let response = broker.get(&path).await;
        let mut body = response.body.clone();
        if path.contains("/stream") && response.status() == 200 {
            // `retry:` is drawn for each connection.
            let length = memchr::memmem::find(&body, b"\n\n").expect("a block") + 2;
            assert!(body.starts_with(b"retry: "));
            body.drain(..length);
        }
        found.push((path, response.status(), body));
    }
    found
}

/// Expects the same by every way.
fn expect_same(found: &[Answer], expected: &[Answer]) {
    for ((path, status, body), (_, known, bytes)) in found.iter().zip(expected) {
        let text = String::from_utf8_lossy;
        assert_eq!(text(body), text(bytes), "{path}");
        assert_eq!((status, body == bytes), (known, true), "{path}");
    }
    assert_eq!(found.len(), expected.len());
}

/// Waits until a run is over for good by its store's clock.
async fn wait_ended(broker: &Broker, run_id: &str) {
    let path = format!("/api/v1/runs/{run_id}");
    let what = format!("{run_id} has ended");
    crate::support::eventually(&what, crate::support::wait::SOON, async || {
        let run: Value = broker.json(&path).await;
        run["ended"] == true
    })
    .await;
}
