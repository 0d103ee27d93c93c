//! The tool against its own bare loop and a real redis-server: it must count
//! exactly, or its figures about anything else mean nothing.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use port::free_port;
use serde_json::Value;

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

fn start_broker(redis: &str) -> (Server, String) {
    // Built beside the tool, as by `cargo build --workspace`.
    let program = Path::new(TOOL).with_file_name("runcast");
    assert!(program.exists(), "there is no {}", program.display());
    let mut child = Command::new(program)
        .current_dir("/")
        .env("RUNCAST__SERVER__BIND", "127.0.0.1:0")
        .env("RUNCAST__REDIS__URL", redis)
        .env("RUNCAST__LOG__FORMAT", "json")
        .stderr(Stdio::piped())
        .spawn()
        .expect("the broker runs");
    let log = BufReader::new(child.stderr.take().expect("piped"));
    let server = Server(child);
    let mut lines = log.lines().map_while(Result::ok);
    let mut said = |text: &str| {
        let line = lines.find(|line| line.contains(text));
        line.unwrap_or_else(|| panic!("the broker says {text}"))
    };
    let line = said("\"message\":\"listening\"");
    // The last it says before it is ready: Redis knows the function.
    said("runcast_publish loaded");
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let addr = line["addr"].as_str().expect("its address").to_owned();
    // Whatever else it says must not wait for a full pipe.
    std::thread::spawn(move || lines.for_each(drop));
    (server, format!("http://{addr}"))
}

/// The result of one run of the tool.
struct Report {
    json: Value,
    text: String,
}

impl Report {
    /// Runs the tool with arguments as typed, and some that are not known
    /// before.
    fn of(typed: &str, args: &[&str]) -> Self {
        let output = Command::new(TOOL)
            .arg("run")
            .args(typed.split_whitespace())
            .args(args)
            .args(["--json", "/dev/stdout"])
            .output()
            .expect("the tool runs");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let errors = String::from_utf8_lossy(&output.stderr);
        let json = &text[text.find("\n{").unwrap_or_else(|| panic!("{text}{errors}"))..];
        let json = serde_json::from_str(json).expect("JSON after the table");
        Self { json, text }
    }

    fn count(&self, at: &str) -> u64 {
        let value = self.json.pointer(at).and_then(Value::as_u64);
        value.unwrap_or_else(|| panic!("{at}: {}", self.text))
    }

    fn number(&self, at: &str) -> f64 {
        let value = self.json.pointer(at).and_then(Value::as_f64);
        value.unwrap_or_else(|| panic!("{at}: {}", self.text))
    }

    /// Nothing was lost, doubled, disordered or told to be lost.
    fn assert_no_fault(&self, deliveries: &str) {
        for fault in ["lost", "duplicated", "out_of_order", "misrouted", "gaps"] {
            let at = format!("{deliveries}/{fault}");
            assert_eq!(self.count(&at), 0, "{at}: {}", self.text);
        }
        let failures = &self.json["failures"];
        assert_eq!(*failures, serde_json::json!({}), "{}", self.text);
    }

    /// Every one of `subscribers` got each message of its run, once, in order.
    fn assert_all_came(&self, subscribers: u64, runs: u64) {
        let expected = self.count("/published") * subscribers / runs;
        assert!(expected > 0, "{}", self.text);
        assert_eq!(self.count("/deliveries/total"), expected, "{}", self.text);
        self.assert_no_fault("/deliveries");
    }
}

#[test]
fn every_message_is_counted_once_for_each_subscriber() {
    let (_redis, redis) = start_redis();
    let (server, url) = start_bare_loop(&redis);
    let pid = server.0.id().to_string();
    let typed = "--subscribers 30 --runs 3 --rate 50 --warmup 100ms --duration 500ms --threads 2";
    let args = ["--url", &url, "--redis", &redis, "--pid", &pid];
    let report = Report::of(typed, &args);
    report.assert_all_came(30, 3);
    assert!(report.count("/published") >= 3 * 25, "{}", report.text);
    assert_eq!(report.count("/connects/connected"), 30, "{}", report.text);
    for measured in [
        "/latency_ms/p50",
        "/server/cpu_us_per_delivery",
        "/server/deliveries_per_core_second",
        "/server/cpu_us_per_accept",
        "/server/rss_bytes",
    ] {
        assert!(report.number(measured) > 0.0, "{measured}: {}", report.text);
    }
}

#[test]
fn messages_that_never_come_are_counted_as_lost() {
    let (_redis, redis) = start_redis();
    let (_server, url) = start_bare_loop(&redis);
    let typed = "--subscribers 2 --channel nowhere:{run} --warmup 50ms --duration 100ms \
                --patience 200ms";
    let args = ["--url", &url, "--redis", &redis];
    let report = Report::of(typed, &args);
    let published = report.count("/published");
    assert_eq!(report.count("/deliveries/lost"), 2 * published);
    assert_eq!(report.count("/unheard"), published);
}

#[test]
fn flat_out_over_redis_nothing_is_lost_and_both_bounds_are_told() {
    let (_redis, redis) = start_redis();
    let (server, url) = start_bare_loop(&redis);
    let pid = server.0.id().to_string();
    let typed = "--subscribers 10 --runs 4 --publishers 2 --rate max --in-flight 50 \
                --warmup 50ms --duration 300ms";
    let args = ["--url", &url, "--redis", &redis, "--pid", &pid];
    let report = Report::of(typed, &args);
    assert_eq!(report.json["rate"], "max");
    report.assert_no_fault("/deliveries");
    // Three of the runs or two have more than their share of 10 clients.
    assert!(report.count("/deliveries/total") > 2 * report.count("/published"));
    assert!(report.number("/deliveries/per_second") > 0.0);
    assert!(report.number("/server/deliveries_per_core_second") > 0.0);
}

#[test]
fn events_posted_to_a_broker_all_come() {
    let (_redis, redis) = start_redis();
    let (_broker, url) = start_broker(&redis);
    let typed = "--subscribers 6 --runs 2 --publishers 2 --post --rate max --in-flight 20 \
                --warmup 50ms --duration 300ms";
    let args = ["--url", &url];
    Report::of(typed, &args).assert_all_came(6, 2);
}

#[test]
fn who_goes_and_comes_back_by_its_last_id_misses_nothing() {
    let (_redis, redis) = start_redis();
    let (_broker, url) = start_broker(&redis);
    let typed = "--durable --subscribers 20 --runs 2 --rate 50 --warmup 100ms --duration 800ms \
                 --reconnect-every 200ms --drop-all-at 400ms --threads 2";
    let report = Report::of(typed, &["--url", &url, "--redis", &redis]);
    report.assert_all_came(20, 2);
    for returns in ["/reconnects", "/drop_all"] {
        let went = report.count(&format!("{returns}/went"));
        assert!(went > 0, "{returns}: {}", report.text);
        assert_eq!(
            report.count(&format!("{returns}/served")),
            went,
            "{}",
            report.text
        );
    }
}

#[test]
fn the_stalled_are_counted_apart_and_read_all_in_the_end() {
    let (_redis, redis) = start_redis();
    let (_broker, url) = start_broker(&redis);
    let typed = "--durable --subscribers 9 --stalled 3 --runs 3 --rate 50 --payload-bytes 2000 \
                 --warmup 50ms --duration 500ms";
    let report = Report::of(typed, &["--url", &url, "--redis", &redis]);
    report.assert_all_came(6, 3);
    report.assert_no_fault("/stalled/deliveries");
    let published = report.count("/published");
    assert_eq!(
        report.count("/stalled/deliveries/total"),
        published,
        "{}",
        report.text
    );
}

#[test]
fn a_stalled_client_that_is_cut_is_told_from_one_that_is_served() {
    let (_redis, redis) = start_redis();
    let (_server, url) = start_bare_loop(&redis);
    // More than its socket takes and the bare loop keeps for a client.
    let typed = "--subscribers 2 --stalled 1 --rate max --in-flight 10 --payload-bytes 200000 \
                 --warmup 0s --duration 1s";
    let report = Report::of(typed, &["--url", &url, "--redis", &redis]);
    report.assert_all_came(1, 1);
    let cut = report.json["stalled"]["failures"]
        .as_object()
        .expect("causes");
    assert_eq!(cut.len(), 1, "{}", report.text);
    assert!(
        report.count("/stalled/deliveries/lost") > 0,
        "{}",
        report.text
    );
    assert_eq!(
        report.count("/stalled/deliveries/untold"),
        0,
        "{}",
        report.text
    );
}

#[test]
fn who_comes_under_load_gets_what_is_sent_from_then_on() {
    let (_redis, redis) = start_redis();
    let (_broker, url) = start_broker(&redis);
    let typed = "--subscribers 10 --runs 2 --rate 100 --ramp 300ms --ramp-under-load --hold 100ms \
                 --churn 50/s --churn-stay 100ms --warmup 50ms --duration 500ms";
    let report = Report::of(typed, &["--url", &url, "--redis", &redis]);
    report.assert_no_fault("/deliveries");
    assert_eq!(report.count("/connects/connected"), 10, "{}", report.text);
    assert!(report.count("/churn/connected") > 0, "{}", report.text);
    assert!(report.count("/deliveries/total") > 0, "{}", report.text);
    // Evenly over the time, not at once.
    assert!(
        report.number("/connects/per_second") < 10.0 / 0.25,
        "{}",
        report.text
    );
    assert!(report.number("/rest/seconds") >= 0.1, "{}", report.text);
}

#[test]
fn a_sweep_is_one_result_for_each_number_and_is_drawn() {
    let (_redis, redis) = start_redis();
    let (server, url) = start_bare_loop(&redis);
    let dir = tempfile::tempdir().expect("a directory");
    let json = dir.path().join("sweep.json");
    let output = Command::new(TOOL)
        .args(["sweep", "--over", "2,6", "--rate", "50"])
        .args(["--warmup", "50ms", "--duration", "500ms"])
        .args(["--url", &url, "--redis", &redis])
        .args(["--pid", &server.0.id().to_string()])
        .arg("--json")
        .arg(&json)
        .arg("--plot")
        .arg(dir.path())
        .output()
        .expect("the tool runs");
    assert!(output.status.success(), "{output:?}");
    let text = std::fs::read_to_string(json).expect("the result");
    let reports: Value = serde_json::from_str(&text).expect("JSON");
    for (index, subscribers) in [2, 6].into_iter().enumerate() {
        let report = &reports[index];
        let published = report["published"].as_u64().expect("a count");
        assert_eq!(report["subscribers"], subscribers, "{text}");
        let total = report.pointer("/deliveries/total").and_then(Value::as_u64);
        assert_eq!(total, Some(published * subscribers), "{text}");
    }
    for (name, lines) in [("sweep-latency.svg", 3), ("sweep-cpu.svg", 1)] {
        let svg = std::fs::read_to_string(dir.path().join(name)).expect("a plot");
        // A point for each number on each line.
        assert_eq!(svg.matches("<circle").count(), 2 * lines, "{svg}");
    }
}

#[test]
fn the_latency_over_time_is_drawn() {
    let (_redis, redis) = start_redis();
    let (_server, url) = start_bare_loop(&redis);
    let dir = tempfile::tempdir().expect("a directory");
    let plot = dir.path().to_str().expect("UTF-8");
    let typed = "--subscribers 2 --rate 20 --warmup 50ms --duration 200ms";
    let report = Report::of(typed, &["--url", &url, "--redis", &redis, "--plot", plot]);
    let points = report.json["latency_over_time"].as_array().expect("points");
    assert!(!points.is_empty(), "{}", report.text);
    let svg = std::fs::read_to_string(dir.path().join("latency.svg")).expect("a plot");
    assert_eq!(svg.matches("<circle").count(), 3 * points.len(), "{svg}");
}
