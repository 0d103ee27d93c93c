//! `scripts/test_redis_streaming.py`: says of a working broker that it works,
//! and of a broken one what is broken.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::clients::python;
use crate::support::process::require;
use crate::support::{Broker, Redis};

/// Runs the script against a broker and a Redis.
async fn check(api: String, redis: &Redis, arguments: &[&str]) -> Output {
    let python = python();
    require(&python);
    let mut command = Command::new(python);
    command
        .arg(script())
        .args(["--api", &api, "--redis", &redis.url()])
        .args(arguments);
    tokio::task::spawn_blocking(move || command.output().expect("the script runs"))
        .await
        .expect("no panic")
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/test_redis_streaming.py")
}

/// Returns what the script printed, on both.
fn printed(output: &Output) -> String {
    let both = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8(both).expect("UTF-8")
}

#[tokio::test]
async fn all_checks_hold_of_a_working_broker() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("heartbeat.interval", "1s")
        .set("runs.end_grace", "200ms")
        .start_ready()
        .await;
    let output = check(format!("http://{}", broker.addr), &redis, &[]).await;
    let text = printed(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert_eq!(text.matches("\nok    ").count(), 9, "{text}");
    assert!(text.contains("9 hold, 0 do not"), "{text}");
}

#[tokio::test]
async fn a_broker_of_another_redis_is_found_out() {
    let (redis, other) = (Redis::start().await, Redis::start().await);
    let broker = Broker::redis(&redis).start_ready().await;
    let output = check(
        format!("http://{}", broker.addr),
        &other,
        &["--no-heartbeat", "--timeout", "1"],
    )
    .await;
    let text = printed(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("is this the broker's Redis?"), "{text}");
    assert!(
        text.contains("FAIL  durable events arrive unchanged"),
        "{text}"
    );
}

#[tokio::test]
async fn without_a_broker_it_does_not_begin() {
    let redis = Redis::start().await;
    let output = check("http://127.0.0.1:1".to_owned(), &redis, &[]).await;
    let text = printed(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("cannot begin"), "{text}");
}

#[test]
fn without_its_packages_it_says_what_to_install() {
    let python = python();
    require(&python);
    // -S: Python as it is without any package.
    let output = Command::new(python).arg("-S").arg(script()).output();
    let output = output.expect("the script runs");
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        printed(&output),
        "cannot begin: No module named 'httpx': pip install redis httpx\n"
    );
}
