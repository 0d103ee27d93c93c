//! [`Resync`]: how long many hubs take to have what they missed.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use redis::{FromRedisValue as _, Value};
use serde::Serialize;

use crate::arguments;
use crate::clock::monotonic_ns;
use crate::durable::{DurableRun, check_accepted};
use crate::http;
use crate::report::LatencyMs;
use crate::servers::{Redis, Server};
use crate::stamp::Stamp;
use crate::subscribers::{Behaviour, Progress, Subscribers, Target};

/// Bytes of a payload.
const PAYLOAD_BYTES: usize = 200;

/// How long what is missing is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often it is looked whether it came.
const TICK: Duration = Duration::from_millis(1);

/// Follows many runs with a client each, cuts the broker's subscription,
/// publishes an event to every run in the hole, and measures until the last
/// client has it.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Resync {
    /// The broker's program
    #[arg(long, default_value = "target/release/runcast")]
    pub(crate) broker: PathBuf,
    /// Runs, each with a client
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) runs: u32,
    /// Events of each run in the hole
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) events: u32,
    /// Fail when it takes longer
    #[arg(long, value_parser = humantime::parse_duration)]
    pub(crate) within: Option<Duration>,
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Resynced {
    /// Runs, each with a client.
    pub(crate) runs: u32,
    /// Events missed by all runs together.
    pub(crate) missed: u64,
    /// How long Redis was busy with the cut and the events: until then nobody
    /// can be told anything.
    pub(crate) hole_ms: f64,
    /// From the end of the hole until the last client had its events.
    pub(crate) last_ms: f64,
    /// The same from the cut.
    pub(crate) since_cut_ms: f64,
    /// From the cut to each client's read.
    pub(crate) latency_ms: LatencyMs,
    /// CPU time of the broker from the cut to the end.
    pub(crate) broker_cpu_ms: f64,
    /// Pages it read.
    pub(crate) reads: u64,
}

impl Default for Resync {
    fn default() -> Self {
        arguments::defaults()
    }
}

impl Resync {
    /// Measures once.
    ///
    /// # Errors
    /// Also when an event never came, came twice or out of order, when a
    /// client was told a gap, and when it took longer than asked for.
    pub(crate) fn run(&self) -> Result<Resynced> {
        let redis = Redis::start()?;
        let broker = Server::broker(&self.broker, &redis, &[])?;
        broker.wait_ready()?;
        let runs: Vec<String> = (0..self.runs).map(|run| format!("resync-{run}")).collect();
        let progress = Arc::new(Progress::new(runs.len()));
        let target = Arc::new(Target {
            addr: broker.addr,
            host: broker.addr.to_string(),
            paths: in_stream_paths(&runs),
            first_address: None,
            behaviour: Behaviour::default(),
        });
        let subscribers = Subscribers::start(&target, &progress, runs.len(), 1)?;
        await_count("a client of each run", runs.len() as u64, || {
            (progress.connected.load(Relaxed)) as u64
        })?;
        let mut hole = Hole::new(&redis, &runs, &progress)?;
        // From now on each hub knows its run's position.
        hole.publish(1, false)?;
        hole.await_delivered(&progress)?;

        let reads_before = store_reads(&broker)?;
        let cpu_before = broker.process()?.cpu_time()?;
        progress.measure_from_ns.store(monotonic_ns(), Relaxed);
        let cut = Instant::now();
        hole.publish(self.events, true)?;
        let hole_time = cut.elapsed();
        hole.await_delivered(&progress)?;
        let since_cut = cut.elapsed();
        let cpu = broker.process()?.cpu_time()? - cpu_before;
        let reads = store_reads(&broker)? - reads_before;
        let totals = subscribers.stop()?;
        let faults = [
            totals.lost,
            totals.duplicated,
            totals.out_of_order,
            totals.gaps,
            totals.failures.values().sum(),
        ];
        ensure!(
            faults == [0; 5],
            "lost, doubled, disordered, gaps, closed: {faults:?}"
        );
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let resynced = Resynced {
            runs: self.runs,
            missed: u64::from(self.runs) * u64::from(self.events),
            hole_ms: ms(hole_time),
            last_ms: ms(since_cut - hole_time),
            since_cut_ms: ms(since_cut),
            latency_ms: LatencyMs::of(&totals.latency.total()),
            broker_cpu_ms: ms(cpu),
            reads,
        };
        if let Some(within) = self.within
            && since_cut > within
        {
            bail!("{resynced}\nnot within {within:?}");
        }
        Ok(resynced)
    }
}

fn in_stream_paths(runs: &[String]) -> Vec<String> {
    runs.iter()
        .map(|run| format!("/api/v1/runs/{run}/stream/redis"))
        .collect()
}

fn store_reads(broker: &Server) -> Result<u64> {
    let metrics = http::get(broker.addr, "/metrics")?.body;
    Ok(http::sum_samples(&metrics, "runcast_store_reads_total") as u64)
}

/// Publishes to every run, with or without the subscription.
struct Hole<'a> {
    connection: redis::Connection,
    runs: Vec<DurableRun>,
    progress: &'a Progress,
    published: u64,
}

impl<'a> Hole<'a> {
    fn new(redis: &Redis, runs: &[String], progress: &'a Progress) -> Result<Self> {
        Ok(Self {
            connection: redis.connect()?,
            runs: runs.iter().map(|run| DurableRun::new(run)).collect(),
            progress,
            published: 0,
        })
    }

    /// Publishes `events` events to each run. With `cut`, every subscription
    /// is cut first, in the same transaction: none can be made anew before the
    /// last event is published.
    fn publish(&mut self, events: u32, cut: bool) -> Result<()> {
        let mut pipe = redis::pipe();
        if cut {
            pipe.atomic();
            pipe.cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub");
        }
        let mut payload = Vec::new();
        for _ in 0..events {
            for (index, run) in self.runs.iter().enumerate() {
                let stamp = Stamp {
                    sent_ns: monotonic_ns(),
                    run: index as u32,
                    seq: self.progress.sent[index].fetch_add(1, Relaxed) + 1,
                };
                stamp.write(PAYLOAD_BYTES, &mut payload);
                run.publish(&mut pipe, &payload);
            }
        }
        let answers: Vec<Value> = pipe.query(&mut self.connection)?;
        let accepted = if cut {
            let killed = u64::from_redis_value_ref(answers.first().context("no answer")?)?;
            ensure!(killed > 0, "there was no subscription to cut");
            &answers[1..]
        } else {
            &answers[..]
        };
        check_accepted(accepted)?;
        self.published += accepted.len() as u64;
        Ok(())
    }

    fn await_delivered(&self, progress: &Progress) -> Result<()> {
        await_count("every event at its client", self.published, || {
            progress.delivered.load(Relaxed)
        })
    }
}

fn await_count(what: &str, expected: u64, count: impl Fn() -> u64) -> Result<()> {
    let begin = Instant::now();
    while count() < expected {
        if begin.elapsed() > PATIENCE {
            bail!("{what}: only {} of {expected}", count());
        }
        std::thread::sleep(TICK);
    }
    Ok(())
}

impl fmt::Display for Resynced {
    /// A table in Markdown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| runs, each with a client | missed | Redis busy with them | first half of the clients | \
             last client, from the cut | CPU of the broker |\n|--:|--:|--:|--:|--:|--:|"
        )?;
        writeln!(
            f,
            "| {} | {} events | {:.0} ms | {:.0} ms | {:.0} ms | {:.0} ms |",
            self.runs,
            self.missed,
            self.hole_ms,
            self.latency_ms.p50,
            self.since_cut_ms,
            self.broker_cpu_ms,
        )
    }
}
