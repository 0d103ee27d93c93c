//! `runcast tail`: what it shows, and how it exits.

use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::time::timeout;

use crate::support::http::Request;
use crate::support::process::Process;
use crate::support::wait::SOON;
use crate::support::{Broker, Redis, eventually};

/// `runcast tail RUN` with the words of `arguments`, on `broker`.
pub(crate) fn command(broker: &Broker, run_and_arguments: &str) -> Command {
    let mut command = bare(&format!("http://{}", broker.addr));
    command.args(run_and_arguments.split(' '));
    command
}

/// `runcast tail` with nothing but the broker's address.
pub(crate) fn bare(url: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runcast"));
    // Settings of whoever runs the tests are none of theirs.
    for name in [
        "http_proxy",
        "HTTP_PROXY",
        "ALL_PROXY",
        "all_proxy",
        "NO_COLOR",
        "CLICOLOR_FORCE",
    ] {
        command.env_remove(name);
    }
    command.args(["tail", "--url", url]);
    command
}

/// What a program wrote, and how it ended.
struct Output {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: String,
}

/// Runs a program that ends by itself.
async fn run(command: Command) -> Output {
    let output = timeout(SOON, tokio::process::Command::from(command).output());
    let output = output.await.expect("it ends soon").expect("it starts");
    Output {
        status: output.status,
        stdout: output.stdout,
        stderr: String::from_utf8(output.stderr).expect("notes are text"),
    }
}

async fn check(broker: &Broker, run_and_arguments: &str, stdout: &str) {
    let output = run(command(broker, run_and_arguments)).await;
    assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), stdout);
    assert_eq!(output.stderr, "");
}

async fn embedded() -> Broker {
    Broker::embedded()
        .set("runs.end_grace", "50ms")
        .start()
        .await
}

async fn post(broker: &Broker, run_id: &str, events: &[Value]) {
    for event in events {
        assert_eq!(broker.post(run_id, event).await.status(), 202);
    }
}

fn output(data: impl Into<Value>) -> Value {
    json!({"kind": "output", "source": "stdout", "data": data.into()})
}

fn log(data: Value) -> Value {
    json!({"kind": "log", "source": "app", "data": data})
}

fn status(data: impl Into<Value>) -> Value {
    json!({"kind": "status", "data": data.into()})
}

#[tokio::test]
async fn output_is_printed_as_it_is_and_the_rest_is_labelled() {
    let broker = embedded().await;
    let events = [
        status("running"),
        output("\x1b[31mred\x1b[0m"),
        output("two\nlines\n"),
        output(json!({"step": 1})),
        json!({"kind": "output", "source": "stderr", "data_base64": "//4="}),
        log(json!({"level": "warn", "msg": "late"})),
        log(json!("plain")),
        log(json!({"level": "debug"})),
        status(json!({"status": "completed", "steps": 1})),
    ];
    post(&broker, "42", &events).await;
    let output = run(command(&broker, "42")).await;
    let mut expected = b"status running\n\x1b[31mred\x1b[0m\ntwo\nlines\n{\"step\":1}\n".to_vec();
    expected.extend(b"\xff\xfe\nWARN  app: {\"level\":\"warn\",\"msg\":\"late\"}\n");
    expected.extend(b"INFO  app: plain\nstatus {\"status\":\"completed\",\"steps\":1}\n");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&expected)
    );
    assert_eq!(output.stdout, expected);
    assert_eq!(
        (output.stderr.as_str(), output.status.code()),
        ("", Some(0))
    );
}

#[tokio::test]
async fn filters_and_colours_are_as_asked_for() {
    let broker = embedded().await;
    let other = json!({"kind": "output", "source": "other", "data": "b"});
    let debug = log(json!({"level": "debug"}));
    post(
        &broker,
        "42",
        &[output("a"), other, debug, status("completed")],
    )
    .await;
    let green = "\x1b[0m\x1b[1m\x1b[32mstatus\x1b[0m completed\n";
    let debugged = "DEBUG app: {\"level\":\"debug\"}\n";
    for (arguments, expected) in [
        ("42", "a\nb\nstatus completed\n"),
        ("42 --kinds output", "a\nb\n"),
        ("42 --sources other,none", "b\n"),
        ("42 --kinds log --log-level trace", debugged),
        ("42 --since -1", "status completed\n"),
        (
            "42 --since=-2 --kinds output,status",
            "b\nstatus completed\n",
        ),
        ("42 --since 1h", "a\nb\nstatus completed\n"),
        ("42 --since -1 --color always", green),
        ("42 --since -1 --color auto", "status completed\n"),
        ("42 --since -1 --no-color", "status completed\n"),
        ("42 --backend auto", "a\nb\nstatus completed\n"),
    ] {
        check(&broker, arguments, expected).await;
    }
}

#[tokio::test]
async fn events_older_than_asked_for_are_not_shown() {
    let broker = embedded().await;
    post(&broker, "42", &[output("old")]).await;
    // An event grows old in no other way.
    tokio::time::sleep(Duration::from_secs(3)).await;
    post(&broker, "42", &[output("new"), status("completed")]).await;
    check(&broker, "42 --since 1s", "new\nstatus completed\n").await;
}

#[tokio::test]
async fn json_lines_hold_what_the_stream_holds() {
    let broker = embedded().await;
    let huge_number = json!({"kind": "output", "source": "stdout", "data": {"n": 0}})
        .to_string()
        .replace(":0}", ":1.000000000000000000000000001}");
    let path = "/api/v1/runs/42/events";
    let request = Request::post(path, "application/json", huge_number);
    assert_eq!(request.send(broker.addr).await.status(), 202);
    post(
        &broker,
        "42",
        &[output("a\u{2028}b\n"), log(json!({})), status("completed")],
    )
    .await;

    let printed = run(command(&broker, "42 --json")).await;
    assert_eq!(printed.status.code(), Some(0), "{}", printed.stderr);
    let stdout = String::from_utf8(printed.stdout).expect("JSON is text");
    let mut strict = broker.follow("42/stream").await;
    let frames = strict.rest(SOON).await;
    assert_eq!(stdout.lines().count(), 5);
    assert_eq!(frames.len(), 5);
    for (line, frame) in stdout.lines().zip(&frames) {
        let (event, id, data) = (&frame.event, json!(frame.id()), &frame.data);
        assert_eq!(
            line,
            format!("{{\"event\":\"{event}\",\"id\":{id},\"data\":{data}}}")
        );
    }
}

#[tokio::test]
async fn a_gap_is_shown_where_it_is() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("limits.max_event_bytes", "1KiB")
        .set("runs.end_grace", "50ms")
        .start_ready()
        .await;
    let mut publisher = redis.publisher().await;
    publisher.publish("run:42:output:stdout", "before").await;
    publisher
        .publish("run:42:output:stdout", "x".repeat(2000))
        .await;
    publisher.publish("run:42:output:stdout", "after").await;
    publisher.publish("run:42:status", "completed").await;
    let gap = "--- gap: 1 event is missing here (too_large: over the broker's limit) ---\n";
    let expected = format!("before\n{gap}after\nstatus completed\n");
    check(&broker, "42", &expected).await;
    let printed = run(command(&broker, "42 --json")).await;
    let stdout = String::from_utf8(printed.stdout).expect("JSON is text");
    let lines: Vec<Value> = stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines[1]["event"], "gap");
    assert_eq!(lines[1]["data"]["reason"], "too_large");
    assert!(lines[1]["id"].is_null());
}

#[tokio::test]
async fn it_exits_as_the_run_did() {
    let broker = embedded().await;
    let failed = json!({"status": "failed", "exit_code": 7});
    for (n, (data, arguments, expected)) in [
        (json!("completed"), "", 0),
        (json!({"status": "Succeeded", "exit_code": 7}), "", 0),
        (json!("failed"), "", 1),
        (json!("error"), "", 1),
        (failed.clone(), "", 7),
        (failed.clone(), " --kinds output", 7),
        (failed.clone(), " --sources none", 7),
        (failed, " --since now", 7),
        (json!("canceled"), "", 130),
        (json!("timeout"), " --json", 124),
    ]
    .into_iter()
    .enumerate()
    {
        let run_id = format!("run-{n}");
        post(&broker, &run_id, &[output("x"), status(data.clone())]).await;
        let output = run(command(&broker, &format!("{run_id}{arguments}"))).await;
        assert_eq!(output.stderr, "");
        assert_eq!(output.status.code(), Some(expected), "{data} {arguments}");
    }
}

#[tokio::test]
async fn what_will_never_work_is_told_at_once() {
    let broker = Broker::embedded()
        .set("kubectl.enabled", "true")
        .set("kubectl.command", "/nowhere/kubectl")
        .start()
        .await;
    let only_embedded = embedded().await;
    for (broker, arguments, expected, told) in [
        (&broker, "42 --kinds outputs", 64, "\"outputs\""),
        (&broker, "42 --log-level loud", 64, "\"loud\""),
        (&broker, "42 --since yesterday", 64, "yesterday"),
        (&broker, "42-", 64, "run id"),
        (&broker, "..", 64, "run id"),
        (&broker, "42 --backend files", 64, "files"),
        (&broker, "42 --backend kubectl", 2, "kubectl.command"),
        (&only_embedded, "42 --backend kubectl", 2, "kubectl.enabled"),
    ] {
        let output = run(command(broker, arguments)).await;
        assert_eq!(
            output.status.code(),
            Some(expected),
            "{arguments}: {}",
            output.stderr
        );
        assert!(
            output.stderr.contains(told),
            "{arguments}: {}",
            output.stderr
        );
        assert_eq!(output.stdout, b"");
    }
    let mut wrong_place = bare(&format!("http://{}/metrics/", broker.addr));
    wrong_place.arg("42");
    assert_eq!(run(wrong_place).await.status.code(), Some(2), "404");
    let mut nobody = bare("http://user:secret@127.0.0.1:1");
    nobody.args(["42", "--attempts", "2"]);
    let output = run(nobody).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stderr.contains("refused"), "{}", output.stderr);
    assert!(!output.stderr.contains("secret"), "{}", output.stderr);
    assert!(output.stderr.contains("attempts: 2"), "{}", output.stderr);
}

#[tokio::test]
async fn events_appear_as_they_happen_and_ctrl_c_ends_it() {
    let broker = embedded().await;
    let mut process = Process::spawn(command(&broker, "42 --since now"));
    crate::metrics::wait_sessions(&broker, 1).await;
    for n in 0..3 {
        post(&broker, "42", &[output(n)]).await;
        eventually("it is printed", SOON, async || {
            process.log() == (0..=n).map(|n| n.to_string()).collect::<Vec<_>>()
        })
        .await;
    }
    process.signal(Signal::INT);
    assert_eq!(process.exit(SOON).await.code(), Some(130));
}

#[tokio::test]
async fn a_reader_that_leaves_is_no_error() {
    let broker = embedded().await;
    let mut command = tokio::process::Command::from(command(&broker, "42"));
    command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().expect("it starts");
    post(&broker, "42", &[output("first")]).await;
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    stdout.read_line(&mut line).await.expect("readable");
    assert_eq!(line, "first\n");
    drop(stdout);
    post(&broker, "42", &[output("second")]).await;
    let ended = timeout(SOON, child.wait_with_output()).await;
    let ended = ended.expect("it ends").expect("it is ours");
    assert_eq!(ended.status.code(), Some(141));
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
}
