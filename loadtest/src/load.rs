//! One load: subscribers connect, messages are published, both are counted.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use crate::arguments;
use crate::clock::monotonic_ns;
use crate::durable::DurableRun;
use crate::http;
use crate::process::{Process, machine_cpu_time};
use crate::publisher::{Outlet, PublishPlan, Published, Publisher};
use crate::report::{Connects, Deliveries, LatencyMs, LoadReport, ServerCost, StoreWork, ToolCost};
use crate::subscribers::{Progress, Subscribers, Target};

/// Longest time to wait until a server's memory no longer changes.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often counts are looked at.
const TICK: Duration = Duration::from_millis(50);

/// What to load a server with.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct LoadPlan {
    /// The server
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    pub(crate) url: String,
    /// Path of a run's stream; {run} stands for the run id
    #[arg(long, default_value = "/api/v1/runs/{run}/stream/redis")]
    pub(crate) path: String,
    /// The Redis to publish to
    #[arg(long, default_value = "redis://127.0.0.1:6379")]
    pub(crate) redis: String,
    /// Channel of a run; {run} stands for the run id
    #[arg(long, default_value = "run:{run}:output:loadtest")]
    pub(crate) channel: String,
    /// Publish durably, through the function, which a broker has loaded
    #[arg(long, conflicts_with = "channel")]
    pub(crate) durable: bool,
    /// Streams to open
    #[arg(short = 'n', long, default_value_t = 100)]
    pub(crate) subscribers: usize,
    /// Runs to spread them over
    #[arg(long, default_value_t = 1)]
    pub(crate) runs: usize,
    /// What run ids begin with; a new one for each load unless given
    #[arg(long)]
    pub(crate) run_prefix: Option<String>,
    /// Messages a second to each run; 0 only holds the streams open
    #[arg(long, default_value_t = 100.0)]
    pub(crate) rate: f64,
    /// Bytes of a payload
    #[arg(long, default_value_t = 200)]
    pub(crate) payload_bytes: usize,
    /// How long to publish before measuring
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    pub(crate) warmup: Duration,
    /// How long to measure
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,
    /// How long nothing may come before what is missing counts as lost
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) patience: Duration,
    /// Threads for the subscribers
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) threads: u16,
    /// Process id of the server, to measure its CPU time and memory
    #[arg(long)]
    pub(crate) pid: Option<u32>,
}

impl Default for LoadPlan {
    fn default() -> Self {
        arguments::defaults()
    }
}

/// CPU times at one instant.
struct Sample {
    at: Instant,
    delivered: u64,
    server: Option<Duration>,
    tool: Duration,
    machine: Duration,
    threads: Vec<Duration>,
    store: Option<StoreWork>,
}

/// Runs `plan` to its end and returns what was measured.
pub(crate) fn run(plan: &LoadPlan) -> Result<LoadReport> {
    if plan.runs == 0 || plan.runs > plan.subscribers {
        bail!("--runs must lie between 1 and the number of subscribers");
    }
    let run_ids = run_ids(plan);
    let progress = Arc::new(Progress::new(plan.runs));
    let server = plan.pid.map(Process::new).transpose()?;
    let rss_before = server.map(Process::rss_bytes).transpose()?;

    let target = Arc::new(target(plan, &run_ids)?);
    let started = Instant::now();
    let subscribers = Subscribers::start(
        &target,
        &progress,
        plan.subscribers,
        usize::from(plan.threads),
    )?;
    let connecting = await_connected(plan, &progress, started);
    let rss_connected = server.map(settled_rss).transpose()?;

    let measured = Measured {
        server,
        addr: target.addr,
        subscribers: &subscribers,
        progress: &progress,
    };
    let (published, samples) = if plan.rate > 0.0 {
        publish(plan, &run_ids, &progress, &measured)?
    } else {
        (Published::default(), hold(plan, &measured)?)
    };
    let connected = progress.connected.load(Relaxed);
    let totals = subscribers.stop()?;

    let [before, after] = samples;
    let window = after.at - before.at;
    let delivered = after.delivered - before.delivered;
    let per_connection = |rss: u64| {
        let grown = rss.saturating_sub(rss_before.unwrap_or_default());
        grown as f64 / connected.max(1) as f64
    };
    Ok(LoadReport {
        subscribers: plan.subscribers,
        runs: plan.runs,
        rate: plan.rate,
        payload_bytes: plan.payload_bytes,
        seconds: window.as_secs_f64(),
        published_per_second: per_second(published.messages, published.elapsed),
        published: published.messages,
        unheard: published.unheard,
        connects: Connects {
            connected,
            per_second: per_second(connected as u64, connecting),
            latency_ms: LatencyMs::of(&totals.connect_latency),
        },
        deliveries: Deliveries {
            total: totals.deliveries,
            per_second: per_second(delivered, window),
            bytes: totals.bytes,
            lost: totals.lost,
            duplicated: totals.duplicated,
            out_of_order: totals.out_of_order,
            misrouted: totals.misrouted,
            gaps: totals.gaps,
            heartbeats: totals.heartbeats,
            problems: totals.problems,
        },
        latency_ms: (!totals.latency.is_empty()).then(|| LatencyMs::of(&totals.latency)),
        server: before
            .server
            .zip(after.server)
            .map(|(before, after)| ServerCost {
                cpu_percent: percent(after - before, window),
                cpu_us_per_delivery: (delivered > 0)
                    .then(|| (after - before).as_secs_f64() * 1e6 / delivered as f64),
                rss_bytes: rss_connected.unwrap_or_default(),
                rss_bytes_per_connection: rss_connected.map_or(0.0, per_connection),
            }),
        tool: ToolCost {
            cpu_percent: percent(after.tool - before.tool, window),
            busiest_thread_percent: before
                .threads
                .iter()
                .zip(&after.threads)
                .map(|(before, after)| percent(*after - *before, window))
                .fold(0.0, f64::max),
        },
        others_cpu_percent: percent(others_cpu_time(&before, &after), window),
        store: before
            .store
            .zip(after.store)
            .map(|(before, after)| StoreWork {
                reads: after.reads - before.reads,
                checks: after.checks - before.checks,
            }),
        failures: totals.failures,
    })
}

/// Returns what a broker has asked its store for so far; `None` of a server
/// that is no broker, or does not tell.
fn store_work(addr: SocketAddr) -> Result<Option<StoreWork>> {
    let answer = http::get(addr, "/metrics")?;
    let count = |family| http::sum_samples(&answer.body, family) as u64;
    Ok((answer.status == 200).then(|| StoreWork {
        reads: count("runcast_store_reads_total"),
        checks: count("runcast_store_checks_total"),
    }))
}

/// CPU time of whatever else ran: Redis, and programs that have nothing to do
/// with this.
fn others_cpu_time(before: &Sample, after: &Sample) -> Duration {
    let server = after.server.unwrap_or_default() - before.server.unwrap_or_default();
    (after.machine - before.machine)
        .saturating_sub(after.tool - before.tool)
        .saturating_sub(server)
}

fn run_ids(plan: &LoadPlan) -> Vec<String> {
    let prefix = plan
        .run_prefix
        .clone()
        .unwrap_or_else(|| format!("load-{}-{}", std::process::id(), monotonic_ns()));
    (0..plan.runs)
        .map(|run| format!("{prefix}-{run}"))
        .collect()
}

fn target(plan: &LoadPlan, run_ids: &[String]) -> Result<Target> {
    let host = plan.url.strip_prefix("http://").unwrap_or(&plan.url);
    let host = host.trim_end_matches('/');
    let addr: SocketAddr = host
        .to_socket_addrs()
        .with_context(|| format!("--url {} is not http://HOST:PORT", plan.url))?
        .next()
        .with_context(|| format!("{host} has no address"))?;
    Ok(Target {
        addr,
        host: host.to_owned(),
        paths: in_each(&plan.path, run_ids),
    })
}

fn in_each(template: &str, run_ids: &[String]) -> Vec<String> {
    run_ids
        .iter()
        .map(|run_id| template.replace("{run}", run_id))
        .collect()
}

/// Waits until every stream is open, or none has opened for a while; returns
/// the time until the last one did.
fn await_connected(plan: &LoadPlan, progress: &Progress, started: Instant) -> Duration {
    let bar = bar("connecting", plan.subscribers as u64);
    let (mut settled, mut last_change) = (0, Instant::now());
    while settled < plan.subscribers && last_change.elapsed() < plan.patience {
        std::thread::sleep(Duration::from_millis(1));
        let connected = progress.connected.load(Relaxed);
        let now_settled = connected + progress.failed.load(Relaxed);
        if now_settled != settled {
            (settled, last_change) = (now_settled, Instant::now());
            bar.set_position(connected as u64);
        }
    }
    bar.finish_and_clear();
    last_change - started
}

/// Returns the memory once it no longer changes: allocators and the kernel
/// take their time.
pub(crate) fn settled_rss(server: Process) -> Result<u64> {
    let started = Instant::now();
    let mut rss = server.rss_bytes()?;
    loop {
        std::thread::sleep(Duration::from_millis(500));
        let now = server.rss_bytes()?;
        if now.abs_diff(rss) < 64 * 1024 || started.elapsed() > SETTLE_TIMEOUT {
            return Ok(now);
        }
        rss = now;
    }
}

/// Publishes through warm-up and measurement, then waits for the last message.
fn publish(
    plan: &LoadPlan,
    run_ids: &[String],
    progress: &Arc<Progress>,
    measured: &Measured<'_>,
) -> Result<(Published, [Sample; 2])> {
    let publish_plan = PublishPlan {
        redis_url: plan.redis.clone(),
        outlets: outlets(plan, run_ids),
        rate: plan.rate,
        payload_bytes: plan.payload_bytes,
    };
    let publisher = Publisher::start(publish_plan, progress)?;
    wait("warming up", plan.warmup);
    let before = measured.begin()?;
    progress.measure_from_ns.store(monotonic_ns(), Relaxed);
    wait("measuring", plan.duration);
    progress.measure_until_ns.store(monotonic_ns(), Relaxed);
    let after = measured.end()?;
    let published = publisher.stop()?;
    await_delivered(plan, progress);
    Ok((published, [before, after]))
}

fn outlets(plan: &LoadPlan, run_ids: &[String]) -> Vec<Outlet> {
    if plan.durable {
        let run = |run_id: &String| Outlet::Durable(DurableRun::new(run_id));
        return run_ids.iter().map(run).collect();
    }
    let channels = in_each(&plan.channel, run_ids);
    channels.into_iter().map(Outlet::Plain).collect()
}

fn hold(plan: &LoadPlan, measured: &Measured<'_>) -> Result<[Sample; 2]> {
    let before = measured.begin()?;
    wait("holding", plan.duration);
    Ok([before, measured.end()?])
}

fn await_delivered(plan: &LoadPlan, progress: &Progress) {
    let expected: u64 = (0..plan.subscribers)
        .map(|index| progress.sent[index % plan.runs].load(Relaxed))
        .sum();
    let (mut delivered, mut last_change) = (0, Instant::now());
    while delivered < expected && last_change.elapsed() < plan.patience {
        std::thread::sleep(TICK);
        let now = progress.delivered.load(Relaxed);
        if now != delivered {
            (delivered, last_change) = (now, Instant::now());
        }
    }
}

/// Who is looked at before and after the window.
struct Measured<'a> {
    server: Option<Process>,
    addr: SocketAddr,
    subscribers: &'a Subscribers,
    progress: &'a Progress,
}

impl Measured<'_> {
    /// Looks before the window. What the look itself costs is not in it.
    fn begin(&self) -> Result<Sample> {
        let store = store_work(self.addr)?;
        self.sample(store)
    }

    /// Looks after the window, likewise.
    fn end(&self) -> Result<Sample> {
        let sample = self.sample(None)?;
        let store = store_work(self.addr)?;
        Ok(Sample { store, ..sample })
    }

    fn sample(&self, store: Option<StoreWork>) -> Result<Sample> {
        let tool = Process::current();
        Ok(Sample {
            at: Instant::now(),
            delivered: self.progress.delivered.load(Relaxed),
            server: self.server.map(Process::cpu_time).transpose()?,
            tool: tool.cpu_time()?,
            machine: machine_cpu_time()?,
            threads: self
                .subscribers
                .thread_ids()
                .map(|thread| tool.thread_cpu_time(thread))
                .collect::<Result<_>>()?,
            store,
        })
    }
}

fn wait(what: &'static str, duration: Duration) {
    let bar = bar(what, duration.as_millis() as u64);
    let started = Instant::now();
    while let Some(left) = duration.checked_sub(started.elapsed()) {
        bar.set_position(started.elapsed().as_millis() as u64);
        std::thread::sleep(left.min(TICK));
    }
    bar.finish_and_clear();
}

/// A progress bar; invisible when standard error is no terminal.
fn bar(what: &'static str, length: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:>12} [{bar:40}] {percent:>3}% {elapsed}")
        .expect("the template is well-formed");
    ProgressBar::new(length)
        .with_style(style)
        .with_message(what)
}

fn per_second(count: u64, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64().max(1e-9)
}

fn percent(cpu: Duration, elapsed: Duration) -> f64 {
    100.0 * cpu.as_secs_f64() / elapsed.as_secs_f64()
}
