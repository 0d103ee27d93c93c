//! [`Disturbance`]: what keeps a broker busy beside its quiet runs.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde::Serialize;

use super::history;
use super::slow::{self, Pace};
use crate::http;
use crate::servers::{Guard, Redis, Server};

/// The run of the load that disturbs; `runcast-loadtest run` numbers its runs.
const RUN_PREFIX: &str = "disturbing";

/// The run whose pods flood; the stand-in has pods for any.
const FLOODED_RUN: &str = "flooded";

/// Clients that read slowly.
const SLOW_CLIENTS: usize = 10;

/// How long a disturbance may take to begin.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often it is looked whether it has.
const TICK: Duration = Duration::from_millis(5);

/// What keeps the broker busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(in crate::scale) enum Disturbance {
    /// A history of 10 MB read again and again, by pages and as a stream.
    History,
    /// Clients of a busy run that read slowly, or not at all.
    SlowClients,
    /// A run of 10,000 messages a second with 10 clients.
    HotRun,
    /// kubectl writes lines as fast as they are taken.
    Kubectl,
}

impl Disturbance {
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::History => "a history of 10 MB read without pause",
            Self::SlowClients => "slow and stalled clients of a run of 2 MB/s",
            Self::HotRun => "a run of 10,000 messages/s",
            Self::Kubectl => "a flood from kubectl",
        }
    }
}

/// A disturbance under way.
pub(super) struct Running {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
    _load: Option<Guard>,
    addr: SocketAddr,
    read: Arc<AtomicU64>,
    began: Instant,
    before: Counts,
}

/// What it did.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Done {
    seconds: f64,
    counts: Counts,
    read_bytes: u64,
}

/// A figure of what a disturbance did; `None` where it did nothing of the sort.
type Figure = fn(&Done) -> Option<f64>;

impl Done {
    /// What is told, each a second.
    pub(super) const FIGURES: [(&'static str, Figure); 3] = [
        ("events/s taken in", |done| {
            done.a_second(done.counts.taken, 1.0)
        }),
        ("events/s read from the store", |done| {
            done.a_second(done.counts.stored, 1.0)
        }),
        ("MB/s read by its clients", |done| {
            done.a_second(done.read_bytes, 1e6)
        }),
    ];

    fn a_second(&self, count: u64, unit: f64) -> Option<f64> {
        let value = count as f64 / unit / self.seconds;
        (value >= 1.0).then_some(value)
    }
}

/// What the broker has counted so far.
#[derive(Debug, Clone, Copy, Serialize)]
struct Counts {
    /// Events taken from agents and pods, those of the quiet runs included.
    taken: u64,
    /// Events read from the store.
    stored: u64,
}

impl Counts {
    fn of(addr: SocketAddr) -> Result<Self> {
        let answer = http::get(addr, "/metrics")?;
        let count = |family| http::sum_samples(&answer.body, family) as u64;
        Ok(Self {
            taken: count("runcast_events_in_total"),
            stored: count("runcast_store_read_events_total"),
        })
    }
}

impl Running {
    /// Starts it, and waits until it is under way.
    ///
    /// # Errors
    /// When it does not begin.
    pub(super) fn start(disturbance: Disturbance, broker: &Server, redis: &Redis) -> Result<Self> {
        let addr = broker.addr;
        let mut running = Self {
            stop: Arc::default(),
            threads: Vec::new(),
            _load: None,
            addr,
            read: Arc::default(),
            began: Instant::now(),
            before: Counts::of(addr)?,
        };
        match disturbance {
            Disturbance::History => {
                history::publish(redis)?;
                running.spawn(move |stop, read| history::read_pages(addr, stop, read));
                running.spawn(move |stop, read| history::read_streams(addr, stop, read));
            }
            Disturbance::SlowClients => {
                running.load(
                    broker,
                    redis,
                    "--durable -n 11 --stalled 10 --rate 200 --payload-bytes 10000",
                )?;
                let path = stream_path(&format!("{RUN_PREFIX}-0"), "redis");
                running.spawn(move |stop, read| {
                    slow::read(addr, &path, SLOW_CLIENTS, Pace::Slow, stop, read)
                });
            }
            Disturbance::HotRun => running.load(broker, redis, "-n 10 --rate 10000")?,
            Disturbance::Kubectl => {
                let path = stream_path(FLOODED_RUN, "kubectl");
                running.spawn(move |stop, read| {
                    slow::read(addr, &path, 1, Pace::AsItComes, stop, read)
                });
            }
        }
        running.await_begin(disturbance)?;
        running.began = Instant::now();
        running.before = Counts::of(addr)?;
        running.read.store(0, Relaxed);
        Ok(running)
    }

    /// Runs `work` on a thread until it shall stop; it adds what it has read.
    fn spawn(&mut self, work: impl FnOnce(&AtomicBool, &AtomicU64) -> Result<()> + Send + 'static) {
        let (stop, read) = (Arc::clone(&self.stop), Arc::clone(&self.read));
        self.threads
            .push(std::thread::spawn(move || work(&stop, &read)));
    }

    /// Starts this tool once more, with a load of its own.
    fn load(&mut self, broker: &Server, redis: &Redis, typed: &str) -> Result<()> {
        let process = Command::new(std::env::current_exe()?)
            .args(["run", "--url", &broker.url(), "--redis", &redis.url])
            .args(["--run-prefix", RUN_PREFIX, "--duration", "1h"])
            .args(typed.split_whitespace())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start a load test process")?;
        self._load = Some(Guard::new(process));
        Ok(())
    }

    fn await_begin(&self, disturbance: Disturbance) -> Result<()> {
        let started = Instant::now();
        while !self.has_begun(disturbance)? {
            ensure!(started.elapsed() < PATIENCE, "it does not begin");
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    fn has_begun(&self, disturbance: Disturbance) -> Result<bool> {
        let taken = || -> Result<u64> { Ok(Counts::of(self.addr)?.taken - self.before.taken) };
        match disturbance {
            Disturbance::History => Ok(self.read.load(Relaxed) > 0),
            // Beyond what sockets hold.
            Disturbance::SlowClients => Ok(taken()? > 100),
            Disturbance::HotRun | Disturbance::Kubectl => Ok(taken()? > 1_000),
        }
    }

    /// Ends it and returns what it did since it was under way.
    ///
    /// # Errors
    /// When it was none: it has ended before, or did nothing.
    pub(super) fn stop(self) -> Result<Done> {
        let after = Counts::of(self.addr)?;
        let done = Done {
            seconds: self.began.elapsed().as_secs_f64(),
            counts: Counts {
                taken: after.taken - self.before.taken,
                stored: after.stored - self.before.stored,
            },
            read_bytes: self.read.load(Relaxed),
        };
        self.stop.store(true, Relaxed);
        for thread in self.threads {
            let result = thread.join().map_err(|_| anyhow!("a thread panicked"))?;
            result.context("the disturbance ended early")?;
        }
        Ok(done)
    }
}

fn stream_path(run_id: &str, backend: &str) -> String {
    format!("/api/v1/runs/{run_id}/stream/{backend}")
}
