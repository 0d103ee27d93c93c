//! [`Fleet`]: several brokers on one Redis, each with a load test process: more
//! streams than one process may open files.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use serde_json::Value;
use tempfile::TempDir;

use super::{Scale, median};
use crate::clock::monotonic_ns;
use crate::http;
use crate::process::{Processes, kernel_bytes};
use crate::servers::{Guard, Redis, Server};
use crate::stamp::Stamp;

/// The one run that all follow.
const RUN_PREFIX: &str = "fleet";

/// Events to all.
const EVENTS: u64 = 4;

/// Between two of them: longer than a point of the clients' latency over time.
const EVENT_INTERVAL: Duration = Duration::from_millis(2_500);

/// How much longer than the hold and the events a client process stays: others
/// may still open streams when it has opened all of its own.
const SLACK: Duration = Duration::from_secs(30);

/// How long no stream may be opened before it is given up.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often the brokers are asked how many streams they have.
const TICK: Duration = Duration::from_millis(100);

/// What was measured.
#[derive(Debug, Serialize)]
pub(super) struct Fleet {
    brokers: usize,
    streams: u64,
    opened_per_second: f64,
    cpu_us_per_accept: f64,
    brokers_rss_bytes: u64,
    rss_bytes_each: f64,
    kernel_bytes_each: f64,
    rest: Vec<Second>,
    /// From a publish until the last client of all had read it, by event.
    last_ms: Vec<f64>,
    /// Until half of the clients of the slowest broker had.
    median_ms: f64,
}

/// A second at rest.
#[derive(Debug, Serialize)]
struct Second {
    seconds: f64,
    heartbeats: f64,
    cpu_percent: f64,
}

impl Fleet {
    /// Measures once.
    ///
    /// # Errors
    /// Also when not all streams can be opened, or an event did not come to
    /// every one of them exactly once.
    pub(super) fn measure(scale: &Scale) -> Result<Self> {
        let redis = Redis::start()?;
        let start = |_| scale.start_broker(&redis, &[]);
        let brokers: Vec<Server> = (0..scale.brokers).map(start).collect::<Result<_>>()?;
        let pids: Vec<u32> = brokers.iter().map(Server::pid).collect();
        let servers = Processes::with_children(&pids)?;
        let streams = scale.streams_each as u64 * brokers.len() as u64;
        let (rss, kernel, cpu) = (servers.rss_bytes()?, kernel_bytes()?, servers.cpu_time()?);
        let mut clients = Clients::start(scale, &brokers)?;
        let opening = clients.await_open(&brokers, streams)?;
        let accepting = servers.cpu_time()?.saturating_sub(cpu);
        let rest = rest(&brokers, &servers, scale.hold)?;
        let each = |grown: u64| grown as f64 / streams as f64;
        let brokers_rss_bytes = servers.rss_bytes()?;
        let rss_bytes_each = each(brokers_rss_bytes.saturating_sub(rss));
        let kernel_bytes_each = each(kernel_bytes()?.saturating_sub(kernel));
        publish(&redis)?;
        let reports = clients.reports()?;
        check(&reports, scale.streams_each as u64)?;
        Ok(Self {
            brokers: brokers.len(),
            streams,
            opened_per_second: streams as f64 / opening.as_secs_f64(),
            cpu_us_per_accept: accepting.as_secs_f64() * 1e6 / streams as f64,
            brokers_rss_bytes,
            rss_bytes_each,
            kernel_bytes_each,
            rest,
            last_ms: last_ms(&reports)?,
            median_ms: greatest(&reports, "/latency_ms/p50")?,
        })
    }
}

/// The load test processes, and where they write their reports.
struct Clients {
    processes: Vec<(Guard, PathBuf)>,
    started: Instant,
    _dir: TempDir,
}

impl Clients {
    /// Starts one for each broker.
    fn start(scale: &Scale, brokers: &[Server]) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("runcast-fleet-")
            .tempdir()?;
        let duration = scale.hold + EVENT_INTERVAL * EVENTS as u32 + SLACK;
        let started = Instant::now();
        let mut processes = Vec::new();
        // All from one address: each broker has a port of its own, so that the
        // same ports of ours will do for each.
        for (index, broker) in brokers.iter().enumerate() {
            let path = dir.path().join(format!("{index}.json"));
            let process = Command::new(std::env::current_exe()?)
                .args(["run", "--url", &broker.url()])
                .args(["--subscribers", &scale.streams_each.to_string()])
                .args(["--runs", "1", "--run-prefix", RUN_PREFIX, "--rate", "0"])
                .args(["--duration", &format!("{}ms", duration.as_millis())])
                .arg("--json")
                .arg(&path)
                .stdout(Stdio::null())
                .spawn()
                .context("cannot start a load test process")?;
            processes.push((Guard::new(process), path));
        }
        Ok(Self {
            processes,
            started,
            _dir: dir,
        })
    }

    /// Waits until the brokers have all streams; returns how long that took.
    fn await_open(&mut self, brokers: &[Server], streams: u64) -> Result<Duration> {
        let (mut open, mut last_change) = (0, Instant::now());
        loop {
            let now = sum(brokers, "runcast_sessions")? as u64;
            if now != open {
                (open, last_change) = (now, Instant::now());
            }
            if open >= streams {
                return Ok(self.started.elapsed());
            }
            ensure!(
                last_change.elapsed() < PATIENCE,
                "only {open} of {streams} streams could be opened"
            );
            std::thread::sleep(TICK);
        }
    }

    /// Waits until all have ended; returns what they say.
    fn reports(self) -> Result<Vec<Value>> {
        let mut reports = Vec::new();
        for (mut process, path) in self.processes {
            let status = process.wait()?;
            ensure!(status.success(), "a load test process ended with {status}");
            reports.push(serde_json::from_str(&fs::read_to_string(path)?)?);
        }
        Ok(reports)
    }
}

fn sum(brokers: &[Server], family: &str) -> Result<f64> {
    let one = |broker: &Server| {
        let answer = http::get(broker.addr, "/metrics")?;
        Ok(http::sum_samples(&answer.body, family))
    };
    brokers.iter().map(one).sum()
}

/// Looks each second what the brokers do while nothing is sent.
fn rest(brokers: &[Server], servers: &Processes, hold: Duration) -> Result<Vec<Second>> {
    let look = || -> Result<_> {
        let heartbeats = sum(brokers, "runcast_heartbeats_total")?;
        Ok((Instant::now(), heartbeats, servers.cpu_time()?))
    };
    let started = Instant::now();
    let (mut before, mut seconds) = (look()?, Vec::new());
    while started.elapsed() < hold {
        std::thread::sleep(Duration::from_secs(1));
        let after = look()?;
        let length = (after.0 - before.0).as_secs_f64();
        seconds.push(Second {
            seconds: length,
            heartbeats: after.1 - before.1,
            cpu_percent: 100.0 * (after.2.saturating_sub(before.2)).as_secs_f64() / length,
        });
        before = after;
    }
    Ok(seconds)
}

/// Sends events to all, one after the other.
fn publish(redis: &Redis) -> Result<()> {
    let mut connection = redis.connect()?;
    let mut payload = Vec::new();
    for seq in 1..=EVENTS {
        let stamp = Stamp {
            sent_ns: monotonic_ns(),
            run: 0,
            seq,
        };
        stamp.write(200, &mut payload);
        redis::cmd("PUBLISH")
            .arg(format!("run:{RUN_PREFIX}-0:output:loadtest"))
            .arg(&payload)
            .query::<u64>(&mut connection)?;
        std::thread::sleep(EVENT_INTERVAL);
    }
    Ok(())
}

/// Makes sure that every event came to every client once.
fn check(reports: &[Value], streams_each: u64) -> Result<()> {
    for report in reports {
        let total = report.pointer("/deliveries/total").and_then(Value::as_u64);
        ensure!(
            total == Some(streams_each * EVENTS),
            "of {EVENTS} events to {streams_each} clients {total:?} came"
        );
        for fault in ["duplicated", "out_of_order", "misrouted", "gaps"] {
            let at = format!("/deliveries/{fault}");
            ensure!(
                report.pointer(&at) == Some(&Value::from(0)),
                "{fault}: {report}"
            );
        }
        let failures = &report["failures"];
        ensure!(
            *failures == serde_json::json!({}),
            "streams failed: {failures}"
        );
    }
    Ok(())
}

/// Returns, for each event, when the last client of all processes read it.
fn last_ms(reports: &[Value]) -> Result<Vec<f64>> {
    let mut last = vec![0.0; EVENTS as usize];
    for report in reports {
        let points = report["latency_over_time"]
            .as_array()
            .context("no points")?;
        ensure!(
            points.len() == last.len(),
            "not an event a point: {points:?}"
        );
        for (last, point) in last.iter_mut().zip(points) {
            let max = point.pointer("/latency_ms/max").and_then(Value::as_f64);
            *last = f64::max(*last, max.context("a point without latency")?);
        }
    }
    Ok(last)
}

fn greatest(reports: &[Value], at: &str) -> Result<f64> {
    let values = reports.iter().map(|report| report.pointer(at)?.as_f64());
    let values = values.collect::<Option<Vec<f64>>>();
    let values = values.with_context(|| format!("a report without {at}"))?;
    Ok(values.into_iter().fold(0.0, f64::max))
}

impl fmt::Display for Fleet {
    /// A table in Markdown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds: f64 = self.rest.iter().map(|second| second.seconds).sum();
        let mean = |value: fn(&Second) -> f64| {
            let weighted = self.rest.iter().map(value);
            weighted.sum::<f64>() / seconds.max(1e-9)
        };
        let most = |value: fn(&Second) -> f64| self.rest.iter().map(value).fold(0.0, f64::max);
        let rows = [
            (
                "streams on as many brokers",
                format!("{} on {}", self.streams, self.brokers),
            ),
            (
                "opened a second, all together",
                format!("{:.0}", self.opened_per_second),
            ),
            (
                "CPU per accept, brokers",
                format!("{:.1} µs", self.cpu_us_per_accept),
            ),
            (
                "resident, all brokers",
                format!(
                    "{:.0} MB, {:.2} kB a stream",
                    self.brokers_rss_bytes as f64 / 1e6,
                    self.rss_bytes_each / 1e3
                ),
            ),
            (
                "kernel memory, both ends",
                format!(
                    "{:.1} kB a stream, {:.0} MB in all",
                    self.kernel_bytes_each / 1e3,
                    self.kernel_bytes_each * self.streams as f64 / 1e6
                ),
            ),
            (
                "at rest: CPU of all brokers",
                format!(
                    "{:.1} %, at most {:.1} % in a second",
                    mean(|second| second.cpu_percent * second.seconds),
                    most(|second| second.cpu_percent)
                ),
            ),
            (
                "heartbeats",
                format!(
                    "{:.0} a second, at most {:.0}",
                    mean(|second| second.heartbeats),
                    most(|second| second.heartbeats)
                ),
            ),
            (
                "one event to all: the last client had it after",
                format!(
                    "{:.0} ms (median of {}; half of the clients of each broker after {:.0} ms)",
                    median(self.last_ms.iter().copied()).unwrap_or_default(),
                    self.last_ms.len(),
                    self.median_ms
                ),
            ),
        ];
        writeln!(f, "| | |\n|---|---|")?;
        for (name, value) in rows {
            writeln!(f, "| {name} | {value} |")?;
        }
        Ok(())
    }
}
