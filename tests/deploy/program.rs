//! `runcast health` and `runcast install`: what an image without a shell needs.

use std::process::Command;

use tempfile::TempDir;

use super::{output, succeed};
use crate::support::authority::Authority;
use crate::support::broker::BrokerSettings;
use crate::support::http::Request;
use crate::support::port::free_port;
use crate::support::wait::SOON;
use crate::support::{Broker, Redis, SseClient, eventually};

/// What `runcast health` says of the broker at `bind`: its exit code, its words.
fn health(settings: BrokerSettings, bind: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let output = settings
        .arguments(&[&["health"], arguments].concat())
        .set("server.bind", bind)
        .output();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

#[tokio::test]
async fn a_broker_that_serves_is_healthy_without_redis() {
    let settings = BrokerSettings::default()
        .set("redis.url", "redis://127.0.0.1:1")
        .set("kubectl.enabled", "false");
    let broker = settings.start().await;
    let bind = broker.addr.to_string();
    // A proxy of the environment is not asked.
    let asking = settings.variable("http_proxy", "http://127.0.0.1:1");
    for arguments in [&[][..], &["--ready"]] {
        let answer = health(asking.clone(), &bind, arguments);
        assert_eq!(answer, (Some(0), String::new()));
    }
}

#[tokio::test]
async fn where_nobody_listens_nobody_is_healthy() {
    let bind = format!("127.0.0.1:{}", free_port());
    let (code, said) = health(BrokerSettings::default(), &bind, &[]);
    assert_eq!(code, Some(1), "{said}");
    let url = format!("no answer from http://{bind}/health/live");
    assert!(said.contains(&url), "{said}");
}

/// A draining broker lives, and is not ready.
#[tokio::test]
async fn a_broker_that_drains_is_alive_and_not_ready() {
    let redis = Redis::start().await;
    let settings = Broker::redis(&redis).set("server.shutdown_grace", "60s");
    let broker = settings.start_ready().await;
    // Who does not read holds the drain open.
    let request = Request::get("/api/v1/runs/42/stream").receive_buffer(8 * 1024);
    let stalled = SseClient::request(broker.addr, &request).await;
    let mut publisher = redis.publisher().await;
    for _ in 0..200 {
        let payload = vec![b'x'; 60_000];
        publisher.publish("run:42:output:stdout", payload).await;
    }
    broker
        .wait_metric("runcast_sessions", &[("backend", "redis")], 1.0)
        .await;
    broker.terminate();
    let bind = broker.addr.to_string();
    eventually("it says that it is not ready", SOON, async || {
        let (code, said) = health(settings.clone(), &bind, &["--ready"]);
        code == Some(1) && said.contains("answers 503")
    })
    .await;
    assert_eq!(health(settings, &bind, &[]).0, Some(0));
    drop(stalled);
}

#[tokio::test]
async fn https_is_asked_by_https() {
    let authority = Authority::new();
    authority.issue("localhost");
    let settings = Broker::embedded()
        .set("server.tls_cert", authority.path("localhost.pem"))
        .set("server.tls_key", authority.path("localhost.key"));
    let broker = settings.start().await;
    // 127.0.0.1 is not the name in the certificate.
    let answer = health(settings, &broker.addr.to_string(), &[]);
    assert_eq!(answer, (Some(0), String::new()));
}

/// As an init container does: into a directory, or as a file; over an old one.
#[test]
fn the_program_installs_itself() {
    let dir = TempDir::new().expect("a temporary directory");
    let installed = dir.path().join("runcast");
    for to in [dir.path(), &installed] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runcast"));
        // A mistake in them is none of its business.
        command
            .env("RUNCAST__NONE__SUCH", "1")
            .arg("install")
            .arg(to);
        succeed(&mut command);
        let told = succeed(Command::new(&installed).arg("--version"));
        let expected = format!("runcast {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(String::from_utf8_lossy(&told.stdout), expected);
    }
    let names = std::fs::read_dir(dir.path()).expect("it is there");
    assert_eq!(names.count(), 1, "nothing unfinished is left");

    let mut command = Command::new(env!("CARGO_BIN_EXE_runcast"));
    command.arg("install").arg(dir.path().join("none/runcast"));
    let output = output(&mut command);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write"));
}
