//! [`Broker`]: the built `runcast`, started on a port of its own.

use std::net::SocketAddr;
use std::process::{Command, Output};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::http::{Request, Response};
use super::process::Process;
use super::redis::Redis;
use super::sse::SseClient;
use super::wait::{SOON, eventually};

/// Settings of a broker that is not started yet.
#[derive(Clone, Default)]
pub(crate) struct BrokerSettings {
    environment: Vec<(String, String)>,
    file: Option<String>,
    arguments: Vec<String>,
    open_files: Option<u32>,
}

impl BrokerSettings {
    /// Sets `key` (`section.name`), as `RUNCAST__SECTION__NAME`.
    pub(crate) fn set(mut self, key: &str, value: impl ToString) -> Self {
        let name = format!("RUNCAST__{}", key.to_uppercase().replace('.', "__"));
        self.environment.retain(|(known, _)| *known != name);
        self.environment.push((name, value.to_string()));
        self
    }

    /// Sets an environment variable that is no setting.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Gives the broker a `settings.toml`.
    pub(crate) fn file(mut self, text: &str) -> Self {
        self.file = Some(text.to_owned());
        self
    }

    /// Gives the broker a command line of its own in place of `serve`.
    pub(crate) fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments = arguments.iter().map(ToString::to_string).collect();
        self
    }

    /// Lets the broker open no more files than this.
    pub(crate) fn open_files(mut self, files: u32) -> Self {
        self.open_files = Some(files);
        self
    }

    /// Makes the command that starts it in `dir`.
    fn command(&self, dir: &TempDir) -> Command {
        if let Some(text) = &self.file {
            let path = dir.path().join("settings.toml");
            std::fs::write(path, text).expect("the directory is ours");
        }
        let program = env!("CARGO_BIN_EXE_runcast");
        let mut command = match self.open_files {
            None => Command::new(program),
            Some(files) => {
                // It sets the limit, and becomes the program.
                let mut command = Command::new("prlimit");
                command
                    .arg(format!("--nofile={files}:{files}"))
                    .arg(program);
                command
            }
        };
        // Settings of whoever runs the tests are none of theirs.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text == "RUNCAST_CONFIG"
                || text.starts_with("RUNCAST__")
                || text.starts_with("OTEL_")
            {
                command.env_remove(name);
            }
        }
        match self.arguments.as_slice() {
            [] => command.arg("serve"),
            arguments => command.args(arguments),
        };
        command
            .current_dir(dir.path())
            .env("RUNCAST__SERVER__BIND", "127.0.0.1:0")
            .env("RUNCAST__LOG__FORMAT", "json")
            .envs(self.environment.iter().cloned());
        command
    }

    /// Runs it to its end, as a command that does not serve.
    pub(crate) fn output(&self) -> Output {
        let dir = TempDir::new().expect("a temporary directory");
        self.command(&dir).output().expect("the program was built")
    }

    /// Starts the broker and waits until it listens.
    pub(crate) async fn start(&self) -> Broker {
        let dir = TempDir::new().expect("a temporary directory");
        let command = self.command(&dir);
        let mut process = Process::spawn(command);
        let mut addr = None;
        eventually("the broker says where it listens", SOON, || {
            let ended = process.ended();
            assert!(ended.is_none(), "{ended:?}: {:#?}", process.whole_log());
            addr = logged_addr(&process.log(), "listening");
            let found = addr.is_some();
            async move { found }
        })
        .await;
        Broker {
            addr: addr.expect("just seen"),
            process,
            _dir: dir,
        }
    }

    /// Starts the broker and waits until its default backend is usable.
    pub(crate) async fn start_ready(&self) -> Broker {
        let broker = self.start().await;
        broker.wait_ready().await;
        broker
    }
}

/// Finds the address of a log line with this message.
fn logged_addr(log: &[String], message: &str) -> Option<SocketAddr> {
    log.iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|line| line["message"] == message)
        .and_then(|line| line["addr"].as_str()?.parse().ok())
}

/// A running broker; killed when dropped.
pub(crate) struct Broker {
    pub(crate) addr: SocketAddr,
    pub(crate) process: Process,
    _dir: TempDir,
}

impl Broker {
    /// Settings of a broker without Redis and kubectl.
    pub(crate) fn embedded() -> BrokerSettings {
        BrokerSettings::default()
            .set("streaming.default_backend", "embedded")
            .set("kubectl.enabled", "false")
    }

    /// Settings of a broker on `redis`, without kubectl.
    pub(crate) fn redis(redis: &Redis) -> BrokerSettings {
        BrokerSettings::default()
            .set("streaming.default_backend", "redis")
            .set("redis.url", redis.url())
            .set("kubectl.enabled", "false")
    }

    /// Waits until the default backend is usable: from then on nothing
    /// published is missed.
    pub(crate) async fn wait_ready(&self) {
        eventually("the default backend is usable", SOON, async || {
            self.get("/health/ready?strict=true").await.status() == 200
        })
        .await;
    }

    /// Returns where the operator's socket is (`metrics.bind`).
    pub(crate) fn operator_addr(&self) -> SocketAddr {
        let addr = logged_addr(&self.process.log(), "listening for operators");
        addr.expect("it is bound before the workers start")
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        Request::get(path).send(self.addr).await
    }

    /// Returns the JSON of a route that must answer 200.
    pub(crate) async fn json(&self, path: &str) -> Value {
        let response = self.get(path).await;
        assert_eq!(response.status(), 200, "{path}: {}", response.text());
        response.json()
    }

    /// Opens `GET /api/v1/runs/<run_and_rest>`, for instance `42/stream?from=now`.
    pub(crate) async fn stream(&self, run_and_rest: &str) -> SseClient {
        SseClient::open(self.addr, &format!("/api/v1/runs/{run_and_rest}")).await
    }

    /// As `stream`, with the preamble already read.
    pub(crate) async fn follow(&self, run_and_rest: &str) -> SseClient {
        let mut client = self.stream(run_and_rest).await;
        client.preamble().await;
        client
    }

    /// As `stream`, with a cursor in the header.
    pub(crate) async fn resume(&self, run_and_rest: &str, last_event_id: &str) -> SseClient {
        let path = format!("/api/v1/runs/{run_and_rest}");
        SseClient::resume(self.addr, &path, last_event_id).await
    }

    /// Posts `body` as JSON to the run's events.
    pub(crate) async fn post(&self, run_id: &str, body: &Value) -> Response {
        let path = format!("/api/v1/runs/{run_id}/events");
        Request::post(path, "application/json", body.to_string())
            .send(self.addr)
            .await
    }

    /// Posts one output event that must be accepted; returns its id.
    pub(crate) async fn publish(&self, run_id: &str, data: Value) -> String {
        let event = serde_json::json!({"kind": "output", "source": "stdout", "data": data});
        let response = self.post(run_id, &event).await;
        assert_eq!(response.status(), 202, "{}", response.text());
        accepted_ids(&response).remove(0)
    }

    /// Posts a status that must be accepted; returns its id.
    pub(crate) async fn publish_status(&self, run_id: &str, data: Value) -> String {
        let event = serde_json::json!({"kind": "status", "data": data});
        let response = self.post(run_id, &event).await;
        assert_eq!(response.status(), 202, "{}", response.text());
        accepted_ids(&response).remove(0)
    }

    /// Returns the sum of the samples of `family` that have all of `labels`.
    pub(crate) async fn metric(&self, family: &str, labels: &[(&str, &str)]) -> f64 {
        let text = self.get("/metrics").await.text();
        sum_samples(&text, family, labels)
    }

    /// Waits until `family` adds up to `value`.
    pub(crate) async fn wait_metric(&self, family: &str, labels: &[(&str, &str)], value: f64) {
        eventually(
            &format!("{family}{labels:?} is {value}"),
            SOON,
            async || self.metric(family, labels).await == value,
        )
        .await;
    }

    /// Asks the broker to end, as an orchestrator does.
    pub(crate) fn terminate(&self) {
        self.process.signal(Signal::TERM);
    }

    /// Waits for its end and returns the exit code.
    pub(crate) async fn exit_code(&mut self, deadline: Duration) -> Option<i32> {
        self.process.exit(deadline).await.code()
    }
}

/// Returns the ids of a 202, all of which must be there.
pub(crate) fn accepted_ids(response: &Response) -> Vec<String> {
    let answer = response.json();
    assert!(
        answer["errors"].as_array().is_none_or(Vec::is_empty),
        "{answer}"
    );
    let ids = answer["ids"].as_array().expect("a list of ids");
    ids.iter()
        .map(|id| id.as_str().expect("an id").to_owned())
        .collect()
}

/// Adds up samples of the Prometheus text format.
pub(crate) fn sum_samples(text: &str, family: &str, labels: &[(&str, &str)]) -> f64 {
    let mut sum = 0.0;
    for line in text.lines() {
        let Some(rest) = line.strip_prefix(family) else {
            continue;
        };
        if !rest.starts_with([' ', '{']) {
            continue;
        }
        let matches = labels
            .iter()
            .all(|(name, value)| rest.contains(&format!("{name}=\"{value}\"")));
        if matches {
            let value = line.rsplit(' ').next().unwrap_or_default();
            sum += value.parse::<f64>().expect("a sample is a number");
        }
    }
    sum
}
