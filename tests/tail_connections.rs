//! `runcast tail` over more than one connection: it comes back where it was.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::proxies::Proxy;
use crate::support::http::Request;
use crate::support::port::free_port;
use crate::support::process::Process;
use crate::support::wait::SOON;
use crate::support::{Broker, Redis, eventually};
use crate::tail::{bare, command};

/// Waits until `line` was printed.
async fn printed(process: &Process, line: &str) {
    eventually(&format!("{line:?} is printed"), SOON, async || {
        process.log().iter().any(|printed| printed == line)
    })
    .await;
}

/// Returns what was printed, but for notes, which begin with the program's name.
fn shown(process: &Process) -> Vec<String> {
    let mut lines = process.log();
    lines.retain(|line| !line.starts_with("runcast"));
    lines
}

/// One broker is killed, the next drains: on each the client goes on where it
/// was on the one before.
#[tokio::test]
async fn it_follows_a_run_over_brokers_that_come_and_go() {
    let redis = Redis::start().await;
    let settings = Broker::redis(&redis)
        .set("server.bind", format!("127.0.0.1:{}", free_port()))
        .set("runs.end_grace", "50ms")
        .set("retry.min", "50ms")
        .set("retry.max", "100ms");
    let mut broker = settings.start_ready().await;
    let mut process = Process::spawn(command(&broker, "42"));
    crate::metrics::wait_sessions(&broker, 1).await;
    for n in 0..4 {
        broker.publish("42", json!(n.to_string())).await;
        printed(&process, &n.to_string()).await;
        if n % 2 == 0 {
            broker.process.kill();
        } else {
            broker.terminate();
            assert_eq!(broker.exit_code(SOON).await, Some(0));
        }
        broker = settings.start_ready().await;
        crate::metrics::wait_sessions(&broker, 1).await;
    }
    broker.publish_status("42", json!("completed")).await;
    assert_eq!(process.exit(SOON).await.code(), Some(0));
    let log = process.whole_log();
    assert_eq!(shown(&process), ["0", "1", "2", "3", "status completed"]);
    let notes = log.iter().filter(|line| line.contains("drain")).count();
    assert_eq!(notes, 2, "{log:#?}");
}

/// A frozen broker looks like one where nothing happens, but for its
/// heartbeats.
#[tokio::test]
async fn a_silent_connection_is_given_up() {
    let broker = Broker::embedded()
        .set("heartbeat.interval", "1s")
        .set("runs.end_grace", "50ms")
        .set("retry.min", "50ms")
        .set("retry.max", "100ms")
        .start()
        .await;
    let mut process = Process::spawn(command(&broker, "42"));
    crate::metrics::wait_sessions(&broker, 1).await;
    broker.publish("42", json!("before")).await;
    printed(&process, "before").await;
    // A client that hears its heartbeats stays for longer than it would stay
    // without them.
    broker
        .wait_metric("runcast_heartbeats_total", &[], 4.0)
        .await;
    assert_eq!(process.log(), ["before"]);

    broker.process.signal(rustix::process::Signal::STOP);
    eventually("the silence is noticed", SOON, async || {
        process
            .log()
            .iter()
            .any(|line| line.contains("nothing heard for 2 s"))
    })
    .await;
    broker.process.signal(rustix::process::Signal::CONT);
    broker.publish("42", json!("after")).await;
    broker.publish_status("42", json!("completed")).await;
    assert_eq!(process.exit(SOON).await.code(), Some(0));
    process.whole_log();
    assert_eq!(shown(&process), ["before", "after", "status completed"]);
}

#[tokio::test]
async fn a_run_that_begins_anew_is_followed_on_if_asked_for() {
    let broker = Broker::embedded()
        .set("runs.end_grace", "50ms")
        .start()
        .await;
    let process = Process::spawn(command(&broker, "42 --until never"));
    crate::metrics::wait_sessions(&broker, 1).await;
    broker.publish_status("42", json!("completed")).await;
    eventually("the end is told", SOON, async || {
        process
            .log()
            .iter()
            .any(|line| line.contains("the run is over"))
    })
    .await;
    let event = json!({"kind": "output", "source": "stdout", "data": "again"});
    let path = "/api/v1/runs/42/events?restart=true";
    let request = Request::post(path, "application/json", event.to_string());
    assert_eq!(request.send(broker.addr).await.status(), 202);
    eventually("the new life is shown", 3 * SOON, async || {
        shown(&process).last().is_some_and(|line| line == "again")
    })
    .await;
}

/// A broker that cannot serve for now is waited for.
#[tokio::test]
async fn a_broker_without_redis_is_waited_for() {
    let mut redis = Redis::down();
    let broker = Broker::redis(&redis)
        .set("retry.min", "50ms")
        .set("retry.max", "100ms")
        .set("runs.end_grace", "50ms")
        .start()
        .await;
    let mut process = Process::spawn(command(&broker, "42"));
    eventually("the trouble is told", SOON, async || {
        process
            .log()
            .iter()
            .any(|line| line.contains("unavailable"))
    })
    .await;
    redis.restart().await;
    broker.wait_ready().await;
    crate::metrics::wait_sessions(&broker, 1).await;
    broker.publish("42", json!("here")).await;
    broker.publish_status("42", json!("completed")).await;
    let status = process.exit(Duration::from_secs(20)).await;
    assert_eq!(status.code(), Some(0), "{:#?}", process.log());
    process.whole_log();
    assert_eq!(shown(&process), ["here", "status completed"]);
}

/// Makes a certificate for 127.0.0.1 that is its own authority.
async fn certificate(dir: &Path) {
    let mut command = Command::new("openssl");
    command
        .current_dir(dir)
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ])
        .args(["-nodes", "-days", "2", "-subj", "/CN=runcast test"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", "key.pem", "-out", "cert.pem"]);
    let mut process = Process::spawn(command);
    assert!(process.exit(SOON).await.success(), "{:#?}", process.log());
}

/// Over TLS, if the certificate is trusted; the machine's trust store is used,
/// which `SSL_CERT_FILE` names.
#[tokio::test]
async fn a_broker_behind_tls_is_followed() {
    let broker = Broker::embedded()
        .set("runs.end_grace", "50ms")
        .start()
        .await;
    let dir = tempfile::TempDir::new().expect("a temporary directory");
    certificate(dir.path()).await;
    let (port, files) = (free_port(), dir.path().display());
    let server = format!(
        "server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {files}/cert.pem; \
         ssl_certificate_key {files}/key.pem; \
         location /runcast/ {{ proxy_pass http://{}/; }} }}",
        broker.addr
    );
    let _proxy = Proxy::nginx(&broker, &server).await;
    broker.publish("42", json!("secret")).await;
    broker.publish_status("42", json!("completed")).await;

    let url = format!("https://127.0.0.1:{port}/runcast");
    let follow = || {
        let mut command = bare(&url);
        command.args(["42", "--attempts", "1"]);
        command
    };
    let mut trusting = follow();
    trusting.env("SSL_CERT_FILE", dir.path().join("cert.pem"));
    let mut process = Process::spawn(trusting);
    assert_eq!(
        process.exit(SOON).await.code(),
        Some(0),
        "{:#?}",
        process.log()
    );
    assert_eq!(process.whole_log(), ["secret", "status completed"]);
    let mut stranger = Process::spawn(follow());
    assert_eq!(stranger.exit(SOON).await.code(), Some(2));
    let log = stranger.whole_log();
    assert!(log[0].contains("certificate"), "{log:#?}");
}
