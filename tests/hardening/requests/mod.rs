//! Hostile requests, as a table: what is sent, and what must come of it.
//!
//! All go to a broker that asks for tokens, which has a secret run. Whatever
//! comes back, nothing of that run is in it; nothing was written; and a good
//! client is served all the while. Tokens have a table of their own
//! (`auth_tokens`).

mod bodies;
mod framing;
mod headers;
mod lines;
mod runs;
mod slow;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::http::Request;
use crate::support::token::{guarded, token_for};
use crate::support::{Broker, SseClient};

/// Stands in the events of the secret run alone.
const CANARY: &str = "canary-of-the-secret-run";
/// Whoever gets a header of this name into an answer has split it.
const SPLIT: &str = "x-evil";
/// A page of somebody else's may not be told to read an answer, nor a client to go
/// to another place.
const LEADS_AWAY: [&str; 3] = [
    "location:",
    "access-control-allow-origin: https://evil",
    "access-control-allow-origin: null",
];
/// Connections at a time.
const AT_ONCE: usize = 24;
/// A connection that is not closed within it is left hanging.
const PATIENCE: Duration = Duration::from_secs(20);

/// What comes of a request: one answer of one of these statuses, after which the
/// connection is closed. [`CLOSED`] is no answer.
type Expected = &'static [u16];

const CLOSED: u16 = 0;
const BAD: Expected = &[400];

/// Requests that are hostile, and what must come of each.
struct Case {
    name: String,
    bytes: Vec<u8>,
    expected: Expected,
}

/// The table, and how its requests are written.
struct Table {
    cases: Vec<Case>,
    /// Header line of a token for `open-*`, which is not the secret run.
    bearer: String,
}

impl Table {
    fn new(token: &str) -> Self {
        let mut table = Self {
            cases: Vec::new(),
            bearer: format!("Authorization: Bearer {token}\r\n"),
        };
        headers::add(&mut table);
        framing::add(&mut table);
        lines::add(&mut table);
        runs::add(&mut table);
        bodies::add(&mut table);
        slow::add(&mut table);
        table
    }

    /// Adds bytes as they are.
    fn raw(&mut self, name: impl Into<String>, bytes: impl Into<Vec<u8>>, expected: Expected) {
        self.cases.push(Case {
            name: name.into(),
            bytes: bytes.into(),
            expected,
        });
    }

    /// Adds a `GET` with a good token.
    fn get(&mut self, path: &str, expected: Expected) {
        let bytes = self.head("GET", path, "");
        self.raw(format!("GET {}", shown(path)), bytes, expected);
    }

    /// Adds a `GET` of an open run, with further header lines.
    fn with(&mut self, lines: &str, expected: Expected) {
        let bytes = self.head("GET", "/api/v1/runs/open-1", &format!("{lines}\r\n"));
        self.raw(format!("with {}", shown(lines)), bytes, expected);
    }

    /// Adds a `POST` of text to an open run; `lines` say how long it is.
    fn post(&mut self, lines: &str, body: &str, expected: Expected) {
        let lines = format!("Content-Type: text/plain\r\n{lines}\r\n");
        let head = self.head("POST", "/api/v1/runs/open-2/events", &lines);
        let name = format!("post {} {}", shown(&lines), shown(body));
        self.raw(name, head + body, expected);
    }

    fn head(&self, method: &str, path: &str, lines: &str) -> String {
        let bearer = &self.bearer;
        format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{bearer}Connection: close\r\n{lines}\r\n")
    }
}

/// A piece of a request for a failure's text.
fn shown(text: &str) -> String {
    let mut short: String = text.escape_debug().take(80).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

impl Case {
    /// Sends it, and says what is wrong with what comes back.
    async fn check(&self, broker: &Broker) -> Option<String> {
        let Ok(answer) = timeout(PATIENCE, self.answer(broker)).await else {
            return Some(format!("{}: left hanging", self.name));
        };
        let text = String::from_utf8_lossy(&answer);
        let statuses: Vec<u16> = text
            .split("\r\n")
            .filter_map(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok())
            // `100 Continue` is no answer yet.
            .filter(|status| *status != 100)
            .collect();
        let is_expected = match statuses[..] {
            [] => answer.is_empty() && self.expected.contains(&CLOSED),
            [status] => self.expected.contains(&status),
            _ => false,
        };
        let lower = text.to_lowercase();
        let is_led = lower.lines().any(|line| {
            line.starts_with(SPLIT) || LEADS_AWAY.iter().any(|start| line.starts_with(start))
        });
        let is_good = is_expected && !is_led && !text.contains(CANARY);
        let (name, expected) = (&self.name, self.expected);
        (!is_good).then(|| {
            format!(
                "{name}: {statuses:?} for {expected:?}, led {is_led}: {}",
                shown(&text)
            )
        })
    }

    /// Returns all that comes back until the connection is closed.
    async fn answer(&self, broker: &Broker) -> Vec<u8> {
        let mut socket = TcpStream::connect(broker.addr).await.expect("it listens");
        let (mut reader, mut writer) = socket.split();
        let mut answer = Vec::new();
        // It may be closed before it has read all, and reset after that.
        let writing = writer.write_all(&self.bytes);
        let _ = tokio::join!(writing, reader.read_to_end(&mut answer));
        answer
    }
}

/// The secret run, watched by a good client while the table is gone through.
struct Secret<'a> {
    broker: &'a Broker,
    token: String,
    is_over: AtomicBool,
}

impl Secret<'_> {
    async fn publish(&self, n: u64) {
        let event = json!({"kind": "output", "data": format!("{CANARY} {n}")});
        let post = Request::post(
            "/api/v1/runs/42/events",
            "application/json",
            event.to_string(),
        );
        let post = post.header("Authorization", format!("Bearer {}", self.token));
        let response = post.send(self.broker.addr).await;
        assert_eq!(response.status(), 202, "{}", response.text());
    }

    /// Publishes, and sees each event come, until told to stop; returns their
    /// number.
    async fn watch(&self) -> u64 {
        let request = Request::get("/api/v1/runs/42/stream");
        let request = request.header("Authorization", format!("Bearer {}", self.token));
        let mut client = SseClient::request(self.broker.addr, &request).await;
        client.preamble().await;
        let mut n = 0;
        while !self.is_over.load(Ordering::Relaxed) {
            n += 1;
            self.publish(n).await;
            let payload = client.run_event().await.payload();
            assert_eq!(payload, format!("\"{CANARY} {n}\""));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        n
    }
}

async fn post(broker: &Broker, token: &str, run: &str, body: &str) {
    let path = format!("/api/v1/runs/{run}/events");
    let post = Request::post(path, "application/json", body);
    let post = post.header("Authorization", format!("Bearer {token}"));
    assert_eq!(post.send(broker.addr).await.status(), 202);
}

#[tokio::test]
async fn hostile_requests_get_what_they_must_and_nothing_more() {
    let broker = guarded(Broker::embedded())
        .set("limits.header_timeout", "1s")
        .set("limits.body_timeout", "1s")
        .start()
        .await;
    let all = token_for(json!({"subscribe": ["*"], "publish": ["*"]}));
    // Streams of a run that is over end by themselves.
    post(
        &broker,
        &all,
        "open-1",
        r#"{"kind":"status","data":"completed"}"#,
    )
    .await;
    let token = token_for(json!({"subscribe": ["open-*"], "publish": ["open-2"]}));
    let table = Table::new(&token);
    let count = table.cases.len();
    assert!(count >= 150, "only {count} requests");
    let secret = Secret {
        broker: &broker,
        token: all,
        is_over: AtomicBool::new(false),
    };
    let going_through = async {
        let mut failures = Vec::new();
        for cases in table.cases.chunks(AT_ONCE) {
            let checks = cases.iter().map(|case| case.check(&broker));
            failures.extend(join_all(checks).await.into_iter().flatten());
        }
        secret.is_over.store(true, Ordering::Relaxed);
        failures
    };
    let (failures, published) = tokio::join!(going_through, secret.watch());
    let failed = failures.len();
    assert!(
        failures.is_empty(),
        "{failed} of {count}:\n{}",
        failures.join("\n")
    );
    check_that_nothing_was_written(&secret, published).await;
    let log = broker.process.log();
    let is_error = |line: &&String| line.contains("\"ERROR\"") || line.contains("panic");
    let errors: Vec<_> = log.iter().filter(is_error).collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

/// The secret run has its own events, and there are no runs but those it should
/// have.
async fn check_that_nothing_was_written(secret: &Secret<'_>, published: u64) {
    let asked = async |path: &str| {
        let request = Request::get(path);
        let request = request.header("Authorization", format!("Bearer {}", secret.token));
        request.send(secret.broker.addr).await.json()
    };
    let run = asked("/api/v1/runs/42").await;
    assert_eq!(
        run["events"],
        json!({"output": published, "status": 0, "log": 0})
    );
    let runs = asked("/api/v1/runs?limit=1000").await;
    let mut ids: Vec<&str> = runs["runs"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|run| run["run_id"].as_str().expect("an id"))
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, ["42", "open-1", "open-2"]);
}
