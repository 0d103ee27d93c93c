//! The tool against its own bare loop and a real redis-server: it must count
//! exactly, or its figures about anything else mean nothing.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use port::free_port;

#[path = "../../tests/support/port.rs"]
mod port;

const TOOL: &str = env!("CARGO_BIN_EXE_runcast-loadtest");

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_redis() -> (Server, String) {
    let port = free_port();
    let mut child = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--loglevel", "notice"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("redis-server is installed");
    let log = BufReader::new(child.stdout.take().expect("piped"));
    let server = Server(child);
    // Its own word: a connect alone may meet another server, or itself.
    let is_ready = |line: &String| line.contains("Ready to accept connections");
    log.lines()
        .map_while(Result::ok)
        .find(is_ready)
        .expect("redis-server starts");
    (server, format!("redis://127.0.0.1:{port}"))
}

fn start_bare_loop(redis: &str) -> (Server, String) {
    let mut child = Command::new(TOOL)
        .args(["bare-loop", "--redis", redis])
        .stderr(Stdio::piped())
        .spawn()
        .expect("the tool runs");
    let mut line = String::new();
    let log = child.stderr.take().expect("piped");
    let server = Server(child);
    BufReader::new(log).read_line(&mut line).expect("a line");
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let addr = line["addr"].as_str().expect("its address");
    (server, format!("http://{addr}"))
}

#[test]
fn every_message_is_counted_once_for_each_subscriber() {
    let (_redis, redis) = start_redis();
    let (server, url) = start_bare_loop(&redis);
    let pid = server.0.id().to_string();
    let output = Command::new(TOOL)
        .args(["run", "--url", &url, "--redis", &redis, "--pid", &pid])
        .args(["--subscribers", "30", "--runs", "3", "--rate", "50"])
        .args(["--warmup", "100ms", "--duration", "500ms", "--threads", "2"])
        .args(["--json", "/dev/stdout"])
        .output()
        .expect("the tool runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let json = &text[text.find('{').expect("JSON after the table")..];
    let report: serde_json::Value = serde_json::from_str(json).expect("JSON");
    let count = |at: &str| report.pointer(at).and_then(|value| value.as_u64());
    // Each of 3 runs has 10 of the 30 subscribers.
    let published = count("/published").expect("a count");
    assert!(published >= 3 * 25, "{text}");
    assert_eq!(count("/deliveries/total"), Some(published * 10), "{text}");
    assert_eq!(count("/connects/connected"), Some(30), "{text}");
    for fault in ["lost", "duplicated", "out_of_order", "misrouted"] {
        assert_eq!(count(&format!("/deliveries/{fault}")), Some(0), "{text}");
    }
    for measured in ["/latency_ms/p50", "/server/cpu_us_per_delivery"] {
        let value = report.pointer(measured).and_then(|value| value.as_f64());
        assert!(value.is_some_and(|value| value > 0.0), "{measured}: {text}");
    }
}

#[test]
fn messages_that_never_come_are_counted_as_lost() {
    let (_redis, redis) = start_redis();
    let (_server, url) = start_bare_loop(&redis);
    let output = Command::new(TOOL)
        .args([
            "run",
            "--url",
            &url,
            "--redis",
            &redis,
            "--subscribers",
            "2",
        ])
        .args(["--channel", "nowhere:{run}", "--warmup", "50ms"])
        .args(["--duration", "100ms", "--patience", "200ms"])
        .output()
        .expect("the tool runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!text.contains("lost 0,"), "{text}");
    assert!(!text.contains("; 0 heard by nobody"), "{text}");
}
