//! Settings that are read again while the broker serves: on SIGHUP and when a
//! file changes. No stream is cut by it.

use std::fs;
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::support::broker::BrokerSettings;
use crate::support::http::{Request, Response};
use crate::support::token::{SECRET, claims_but, hs256, signed};
use crate::support::wait::SOON;
use crate::support::{Broker, Redis, SseClient, eventually};

const OTHER_SECRET: &str = "another secret, as long as the first one has to be";

/// A settings file, and a broker that is started with it.
struct Settings {
    dir: TempDir,
}

impl Settings {
    fn new(text: &str) -> Self {
        let settings = Self {
            dir: TempDir::new().expect("a temporary directory"),
        };
        settings.write(text);
        settings
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, text: &str) {
        fs::write(self.path("settings.toml"), text).expect("the directory is ours");
    }

    async fn start(&self) -> Broker {
        start(&self.path("settings.toml")).await
    }
}

async fn start(file: &Path) -> Broker {
    let file = file.to_str().expect("UTF-8");
    let settings = BrokerSettings::default().arguments(&["serve", "--config", file]);
    settings.start_ready().await
}

/// Settings of a broker of its own, with some more.
fn embedded(more: &str) -> String {
    format!(
        "[streaming]\ndefault_backend = \"embedded\"\n[kubectl]\nenabled = false\n[metrics]\n{more}"
    )
}

/// Waits until so many settings were read again, with this result.
async fn reloaded(broker: &Broker, result: &str, times: f64) {
    let labels = [("result", result)];
    broker
        .wait_metric("runcast_settings_reloads_total", &labels, times)
        .await;
}

/// The lines of the log with this message.
fn lines(broker: &Broker, message: &str) -> Vec<serde_json::Value> {
    let log = broker.process.log();
    let lines = log
        .iter()
        .filter_map(|line| serde_json::from_str(line).ok());
    lines
        .filter(|line: &serde_json::Value| line["message"] == message)
        .collect()
}

fn allowed_origin(response: &Response) -> Option<String> {
    response.header("access-control-allow-origin")
}

/// A post that is too large where `limits.max_batch_events` is 1.
fn two_events() -> Request {
    let lines = "1\n2\n";
    Request::post("/api/v1/runs/42/events", "text/plain", lines)
}

/// A token of this secret for everything.
fn bearer(secret: &str) -> String {
    let rights = json!({"subscribe": ["*"], "publish": ["*"], "admin": true});
    let claims = claims_but(rights, json!({"iss": null, "aud": null}));
    let header = r#"{"alg":"HS256","typ":"JWT"}"#;
    let token = signed(header, &claims.to_string(), &hs256(secret.as_bytes()));
    format!("Bearer {token}")
}

/// The log's level, a limit, the default backend and the pages that may read,
/// all in one file, and one SIGHUP.
#[tokio::test]
async fn a_signal_changes_what_may_change_and_cuts_no_stream() {
    let redis = Redis::start().await;
    let text = |backend: &str, origin: &str, streams: usize, level: &str| {
        format!(
            "[streaming]\ndefault_backend = \"{backend}\"\n[redis]\nurl = \"{}\"\n\
             [limits]\nmax_streams_per_run = {streams}\nmax_batch_events = {streams}\n\
             [cors]\nallowed_origins = [\"{origin}\"]\n[log]\nlevel = \"{level}\"\n",
            redis.url()
        )
    };
    let settings = Settings::new(&text("redis", "http://a.example", 3, "info"));
    let broker = settings.start().await;
    let mut open = broker.follow("42/stream/redis").await;
    let from = |origin: &str| Request::get("/api/v1/config").header("Origin", origin);
    let answer = from("http://b.example").send(broker.addr).await;
    assert_eq!(allowed_origin(&answer), None);
    assert_eq!(answer.json()["default_backend"], "redis");

    settings.write(&text(
        "kubectl",
        "http://b.example",
        1,
        "runcast=debug,info",
    ));
    broker.process.signal(Signal::HUP);
    reloaded(&broker, "taken", 1.0).await;

    let answer = from("http://b.example").send(broker.addr).await;
    assert_eq!(allowed_origin(&answer).as_deref(), Some("http://b.example"));
    assert_eq!(answer.json()["default_backend"], "kubectl");
    let answer = from("http://a.example").send(broker.addr).await;
    assert_eq!(allowed_origin(&answer), None);
    // The stream that is open is counted, and its run has one place now.
    let mut refused = broker.stream("42/stream/redis").await;
    let frames = refused.rest(SOON).await;
    assert!(
        frames.iter().any(|frame| frame.event == "problem"),
        "{frames:?}"
    );
    assert_eq!(two_events().send(broker.addr).await.status(), 413);
    eventually("the log has lines of level debug", SOON, async || {
        broker.get("/health").await;
        let log = broker.process.log();
        log.iter().any(|line| line.contains("\"level\":\"DEBUG\""))
    })
    .await;
    let told = &lines(&broker, "settings reloaded")[0];
    assert_eq!(
        told["changed"],
        "cors.allowed_origins, limits.max_batch_events, limits.max_streams_per_run, log.level, \
         streaming.default_backend"
    );
    assert_eq!(told["trigger"], "SIGHUP");

    // Who was here before is still.
    broker.publish("42", json!("after")).await;
    assert_eq!(open.run_event().await.payload(), "\"after\"");
}

#[tokio::test]
async fn a_new_secret_counts_when_its_file_has_it_and_the_old_one_no_more() {
    let settings = Settings::new("");
    let secret = settings.path("secret");
    fs::write(&secret, SECRET).expect("the directory is ours");
    let auth = format!("[auth]\nmode = \"jwt\"\nsecret_file = {secret:?}\n");
    settings.write(&(embedded("") + &auth));
    let broker = settings.start().await;
    let stream =
        |secret| Request::get("/api/v1/runs/42/stream").header("Authorization", bearer(secret));
    let mut open = SseClient::request(broker.addr, &stream(SECRET)).await;
    open.preamble().await;
    let runs = |secret| Request::get("/api/v1/runs").header("Authorization", bearer(secret));
    assert_eq!(runs(OTHER_SECRET).send(broker.addr).await.status(), 401);

    fs::write(&secret, OTHER_SECRET).expect("the directory is ours");
    eventually("the new secret counts", SOON, async || {
        runs(OTHER_SECRET).send(broker.addr).await.status() == 200
    })
    .await;
    assert_eq!(runs(SECRET).send(broker.addr).await.status(), 401);

    let event = json!({"kind": "output", "data": "after"}).to_string();
    let post = Request::post("/api/v1/runs/42/events", "application/json", event)
        .header("Authorization", bearer(OTHER_SECRET));
    assert_eq!(post.send(broker.addr).await.status(), 202);
    assert_eq!(open.run_event().await.payload(), "\"after\"");

    // Too short: neither the settings nor the keys change.
    fs::write(&secret, "short").expect("the directory is ours");
    eventually("the short one is refused", SOON, async || {
        !lines(&broker, "settings refused, all stay as they were").is_empty()
    })
    .await;
    assert_eq!(runs(OTHER_SECRET).send(broker.addr).await.status(), 200);
}

#[tokio::test]
async fn bad_settings_are_refused_as_a_whole_and_told_in_one_line() {
    let settings = Settings::new(&embedded(""));
    let broker = settings.start().await;
    let mut open = broker.follow("42/stream").await;
    let is_good = || broker.metric("runcast_settings_last_reload_successful", &[]);
    assert_eq!(is_good().await, 1.0);
    let bad = "[limits]\nmax_batch_events = 1\nmax_streams = \"many\"\n[log]\nlevl = \"warn\"\n";
    settings.write(&embedded(bad));
    broker.process.signal(Signal::HUP);
    reloaded(&broker, "refused", 1.0).await;
    assert_eq!(is_good().await, 0.0);
    let refused = lines(&broker, "settings refused, all stay as they were");
    let error = refused[0]["error"].as_str().expect("a text");
    for key in ["limits.max_streams", "log.levl"] {
        assert!(error.contains(key), "{error}");
    }
    assert_eq!(error.lines().count(), 1);
    assert_eq!(two_events().send(broker.addr).await.status(), 202);
    open.run_events(2).await;

    // A file that is gone is no file of defaults.
    fs::remove_file(settings.path("settings.toml")).expect("it is there");
    broker.process.signal(Signal::HUP);
    reloaded(&broker, "refused", 2.0).await;
    settings.write(&embedded(""));
    broker.process.signal(Signal::HUP);
    eventually("good settings are taken", SOON, async || {
        is_good().await == 1.0
    })
    .await;
}

#[tokio::test]
async fn what_needs_a_restart_is_named_and_keeps_nothing_else_from_changing() {
    let settings = Settings::new(&embedded(""));
    let broker = settings.start().await;
    let more =
        "[server]\nworkers = 1\n[limits]\nmax_batch_events = 1\n[heartbeat]\ninterval = \"5s\"\n";
    settings.write(&embedded(more));
    broker.process.signal(Signal::HUP);
    reloaded(&broker, "taken", 1.0).await;
    let told = lines(
        &broker,
        "settings changed that need a restart, they stay as they were",
    );
    assert_eq!(told[0]["keys"], "heartbeat.interval, server.workers");
    assert_eq!(
        broker.metric("runcast_settings_restart_keys", &[]).await,
        2.0
    );
    let config = broker.json("/api/v1/config").await;
    assert_eq!(config["heartbeat_seconds"], 30);
    assert_eq!(two_events().send(broker.addr).await.status(), 413);

    // Good for a start; but the inbox stays as small as it is.
    settings.write(&embedded("[hub]\ninbox_bytes = \"1MiB\"\n"));
    let broker = settings.start().await;
    let more = "[limits]\nmax_event_bytes = \"4MiB\"\n[hub]\ninbox_bytes = \"4MiB\"\n";
    settings.write(&embedded(more));
    broker.process.signal(Signal::HUP);
    reloaded(&broker, "refused", 1.0).await;
    let refused = lines(&broker, "settings refused, all stay as they were");
    assert_eq!(
        refused[0]["error"],
        "hub.inbox_bytes: must hold one event: at least limits.max_event_bytes (4.0 MiB); so it \
         needs a restart, together with hub.inbox_bytes"
    );
}

/// As Kubernetes changes a config map: a directory beside the old one, and one
/// symbolic link turned.
#[tokio::test]
async fn a_link_that_is_turned_is_seen() {
    let settings = Settings::new("");
    fs::remove_file(settings.path("settings.toml")).expect("it is there");
    for (version, level) in [("v1", "info"), ("v2", "warn")] {
        fs::create_dir(settings.path(version)).expect("the directory is ours");
        let text = embedded(&format!("[log]\nlevel = \"{level}\"\n"));
        fs::write(settings.path(version).join("settings.toml"), text).expect("ours");
    }
    symlink("v1", settings.path("..data")).expect("ours");
    symlink("..data/settings.toml", settings.path("settings.toml")).expect("ours");
    let broker = settings.start().await;
    let mut open = broker.follow("42/stream").await;
    symlink("v2", settings.path("..data_tmp")).expect("ours");
    fs::rename(settings.path("..data_tmp"), settings.path("..data")).expect("ours");
    reloaded(&broker, "taken", 1.0).await;
    broker.publish("42", json!("after")).await;
    open.run_event().await;
}

/// An editor writes beside and renames; somebody saves again and again, and
/// signals on top.
#[tokio::test]
async fn a_burst_of_changes_ends_with_the_last_one() {
    let settings = Settings::new(&embedded(""));
    let broker = settings.start().await;
    let mut open = broker.follow("42/stream").await;
    for events in (1..=20).rev() {
        let text = embedded(&format!("[limits]\nmax_batch_events = {events}\n"));
        fs::write(settings.path("settings.toml~"), text).expect("the directory is ours");
        fs::rename(
            settings.path("settings.toml~"),
            settings.path("settings.toml"),
        )
        .expect("ours");
        broker.process.signal(Signal::HUP);
        sleep(Duration::from_millis(5)).await;
    }
    eventually("the last one holds", SOON, async || {
        two_events().send(broker.addr).await.status() == 413
    })
    .await;
    broker.publish("42", json!("after")).await;
    while open.run_event().await.payload() != "\"after\"" {}
    let refused = [("result", "refused")];
    let refused = broker
        .metric("runcast_settings_reloads_total", &refused)
        .await;
    assert_eq!(refused, 0.0);
}

/// A mount whose server is gone, say. A pipe hangs whoever reads it, as long as
/// somebody might write.
#[tokio::test]
async fn a_file_that_hangs_keeps_no_signal_from_being_heard() {
    let settings = Settings::new(&embedded(""));
    let mut broker = settings.start().await;
    let path = settings.path("settings.toml");
    let pipe = settings.path("pipe");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, mode).expect("a pipe");
    fs::rename(&pipe, &path).expect("the directory is ours");
    let writer = std::cell::RefCell::new(None);
    eventually("the broker reads it", SOON, async || {
        // Without a reader it cannot be opened.
        let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let opened = fs::OpenOptions::new()
            .write(true)
            .custom_flags(flags)
            .open(&path);
        *writer.borrow_mut() = opened.ok();
        writer.borrow().is_some()
    })
    .await;
    broker.terminate();
    assert_eq!(broker.exit_code(SOON).await, Some(0));
    drop(writer);
}
