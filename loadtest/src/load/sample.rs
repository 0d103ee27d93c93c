//! What processes have used up to an instant, and between two of them.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::http;
use crate::process::{Process, Processes, machine_cpu_time};
use crate::report::{RestSecond, ServerCost, StoreWork, ToolCost};
use crate::subscribers::{Progress, Subscribers};

/// CPU times and counts at one instant.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    at: Instant,
    delivered: u64,
    heartbeats: u64,
    server: Option<Duration>,
    tool: Duration,
    machine: Duration,
    threads: Vec<Duration>,
    store: Option<StoreWork>,
}

/// Who is looked at before and after the window.
pub(super) struct Measured<'a> {
    pub(super) server: Option<&'a Processes>,
    /// Of a server that tells of its store; nobody else is asked, since the
    /// answer would wait for what is under way.
    pub(super) broker: Option<SocketAddr>,
    pub(super) subscribers: &'a Subscribers,
    pub(super) progress: &'a Progress,
}

impl Measured<'_> {
    /// Looks before the window. What the look itself costs is not in it.
    pub(super) fn begin(&self) -> Result<Sample> {
        let store = self.store_work()?;
        self.sample(store)
    }

    /// Looks after the window, likewise.
    pub(super) fn end(&self) -> Result<Sample> {
        let sample = self.sample(None)?;
        let store = self.store_work()?;
        Ok(Sample { store, ..sample })
    }

    fn store_work(&self) -> Result<Option<StoreWork>> {
        self.broker.map_or(Ok(None), store_work)
    }

    /// Looks without asking the broker.
    pub(super) fn look(&self) -> Result<Sample> {
        self.sample(None)
    }

    fn sample(&self, store: Option<StoreWork>) -> Result<Sample> {
        let tool = Process::current();
        Ok(Sample {
            at: Instant::now(),
            delivered: self.progress.delivered.load(Relaxed),
            heartbeats: self.progress.heartbeats.load(Relaxed),
            server: self.server.map(Processes::cpu_time).transpose()?,
            tool: tool.cpu_time()?,
            machine: machine_cpu_time()?,
            threads: self
                .subscribers
                .thread_ids()
                // One that has failed says why when it is joined.
                .map(|thread| tool.thread_cpu_time(thread).unwrap_or_default())
                .collect(),
            store,
        })
    }
}

/// What happened between two samples.
pub(super) struct Window {
    before: Sample,
    after: Sample,
}

impl Window {
    pub(super) fn between(before: Sample, after: Sample) -> Self {
        Self { before, after }
    }

    pub(super) fn length(&self) -> Duration {
        self.after.at - self.before.at
    }

    pub(super) fn delivered(&self) -> u64 {
        self.after.delivered - self.before.delivered
    }

    /// CPU time of the server.
    fn server(&self) -> Option<Duration> {
        let (before, after) = self.before.server.zip(self.after.server)?;
        Some(after.saturating_sub(before))
    }

    /// CPU of the server, if it is measured; 100 is one core.
    pub(super) fn server_percent(&self) -> Option<f64> {
        Some(percent(self.server()?, self.length()))
    }

    /// What the server used and sent while nothing was published.
    pub(super) fn rest_second(&self) -> RestSecond {
        RestSecond {
            seconds: self.length().as_secs_f64(),
            heartbeats: self.after.heartbeats - self.before.heartbeats,
            server_cpu_percent: self.server_percent(),
        }
    }

    /// What the server has used in the window; its memory and the cost of
    /// accepting are known from elsewhere.
    pub(super) fn server_cost(&self, opened: &Opened) -> Option<ServerCost> {
        let used = self.server()?;
        let delivered = self.delivered();
        let us = (delivered > 0).then(|| micros_each(used, delivered));
        Some(ServerCost {
            cpu_percent: percent(used, self.length()),
            cpu_us_per_delivery: us,
            deliveries_per_core_second: us.filter(|us| *us > 0.0).map(|us| 1e6 / us),
            cpu_us_per_accept: micros_each(opened.cpu, opened.streams.max(1)),
            rss_bytes: opened.rss_after,
            rss_bytes_per_connection: opened.rss_after.saturating_sub(opened.rss_before) as f64
                / opened.streams.max(1) as f64,
        })
    }

    /// What this tool has used.
    pub(super) fn tool_cost(&self) -> ToolCost {
        let threads = self.before.threads.iter().zip(&self.after.threads);
        let busiest = threads
            .map(|(before, after)| percent(after.saturating_sub(*before), self.length()))
            .fold(0.0, f64::max);
        ToolCost::new(percent(self.tool(), self.length()), busiest)
    }

    fn tool(&self) -> Duration {
        self.after.tool.saturating_sub(self.before.tool)
    }

    /// CPU of whatever else ran, Redis and programs that have nothing to do
    /// with this; 100 is one core.
    pub(super) fn others_percent(&self) -> f64 {
        let all = self.after.machine.saturating_sub(self.before.machine);
        let others = all
            .saturating_sub(self.tool())
            .saturating_sub(self.server().unwrap_or_default());
        percent(others, self.length())
    }

    pub(super) fn store(&self) -> Option<StoreWork> {
        let (before, after) = self.before.store.zip(self.after.store)?;
        Some(StoreWork {
            reads: after.reads - before.reads,
            checks: after.checks - before.checks,
        })
    }
}

/// The server before and after all streams were opened.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Opened {
    pub(super) streams: u64,
    pub(super) cpu: Duration,
    pub(super) rss_before: u64,
    pub(super) rss_after: u64,
    pub(super) kernel_before: u64,
    pub(super) kernel_after: u64,
}

impl Opened {
    /// By how much the kernel's memory grew for each stream.
    pub(super) fn kernel_bytes_each(&self) -> f64 {
        let grown = self.kernel_after.saturating_sub(self.kernel_before);
        grown as f64 / self.streams.max(1) as f64
    }
}

/// Returns what a broker has asked its store for so far; `None` of a server
/// that is no broker, or does not tell.
pub(super) fn store_work(addr: SocketAddr) -> Result<Option<StoreWork>> {
    let answer = http::get(addr, "/metrics")?;
    let count = |family| http::sum_samples(&answer.body, family) as u64;
    let is_broker = answer.status == 200 && answer.body.contains("runcast_store_");
    Ok(is_broker.then(|| StoreWork {
        reads: count("runcast_store_reads_total"),
        checks: count("runcast_store_checks_total"),
    }))
}

fn micros_each(time: Duration, count: u64) -> f64 {
    time.as_secs_f64() * 1e6 / count as f64
}

fn percent(cpu: Duration, elapsed: Duration) -> f64 {
    100.0 * cpu.as_secs_f64() / elapsed.as_secs_f64()
}
