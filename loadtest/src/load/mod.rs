//! One load: subscribers connect, messages are published, both are counted.

mod plan;
mod sample;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::Result;

pub(crate) use self::plan::{LoadPlan, Rate};
use self::sample::{Measured, Opened, Window};
use crate::bars::{bar, wait};
use crate::clock::monotonic_ns;
use crate::process::{Process, Processes};
use crate::publisher::{Published, Publishers};
use crate::report::{Connects, Deliveries, LatencyMs, LoadReport};
use crate::subscribers::{Progress, Subscribers, Target};
use crate::totals::Totals;

/// Longest time to wait until a server's memory no longer changes.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often counts are looked at.
const TICK: Duration = Duration::from_millis(50);

/// Runs `plan` to its end and returns what was measured.
///
/// # Errors
/// When the plan contradicts itself, the server cannot be connected to or
/// measured, or a message cannot be published. What goes wrong with a stream
/// is in the report.
pub(crate) fn run(plan: &LoadPlan) -> Result<LoadReport> {
    plan.check()?;
    let run_ids = plan.run_ids();
    let progress = Arc::new(Progress::new(plan.runs));
    let server = (!plan.pid.is_empty())
        .then(|| Processes::with_children(&plan.pid))
        .transpose()?;

    let target = Arc::new(plan.target(&run_ids)?);
    let (subscribers, opening, opened) = open(plan, &target, &progress, server.as_ref())?;
    let measured = Measured {
        server: server.as_ref(),
        addr: target.addr,
        subscribers: &subscribers,
        progress: &progress,
    };
    let (published, window) = if plan.publishes() {
        publish(plan, &run_ids, &progress, &measured)?
    } else {
        (Published::default(), hold(plan, &measured)?)
    };
    let totals = subscribers.stop()?;
    let connects = Connects {
        connected: opened.streams as usize,
        per_second: per_second(opened.streams, opening),
        latency_ms: LatencyMs::of(&totals.connect_latency),
    };
    Ok(LoadReport {
        subscribers: plan.subscribers,
        runs: plan.runs,
        rate: plan.rate,
        payload_bytes: plan.payload_bytes,
        seconds: window.length().as_secs_f64(),
        published_per_second: per_second(published.messages, published.elapsed),
        published: published.messages,
        unheard: published.unheard,
        connects,
        deliveries: deliveries(&totals, &window),
        latency_ms: (!totals.latency.is_empty()).then(|| LatencyMs::of(&totals.latency)),
        server: window.server_cost(&opened),
        tool: window.tool_cost(),
        others_cpu_percent: window.others_percent(),
        store: window.store(),
        failures: totals.failures,
    })
}

fn deliveries(totals: &Totals, window: &Window) -> Deliveries {
    Deliveries {
        total: totals.deliveries,
        per_second: per_second(window.delivered(), window.length()),
        bytes: totals.bytes,
        lost: totals.lost,
        duplicated: totals.duplicated,
        out_of_order: totals.out_of_order,
        misrouted: totals.misrouted,
        gaps: totals.gaps,
        heartbeats: totals.heartbeats,
        problems: totals.problems,
    }
}

/// Opens every stream; returns how long that took, and what it cost.
fn open(
    plan: &LoadPlan,
    target: &Arc<Target>,
    progress: &Arc<Progress>,
    server: Option<&Processes>,
) -> Result<(Subscribers, Duration, Opened)> {
    let cpu = || server.map_or(Ok(Duration::ZERO), Processes::cpu_time);
    let rss_before = server.map_or(Ok(0), Processes::rss_bytes)?;
    let cpu_before = cpu()?;
    let started = Instant::now();
    let threads = usize::from(plan.threads);
    let subscribers = Subscribers::start(target, progress, plan.subscribers, threads)?;
    let opening = await_connected(plan, progress, started);
    let opened = Opened {
        streams: progress.connected.load(Relaxed) as u64,
        cpu: cpu()?.saturating_sub(cpu_before),
        rss_before,
        rss_after: server.map_or(Ok(0), |server| settled(|| server.rss_bytes()))?,
    };
    Ok((subscribers, opening, opened))
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
    settled(|| server.rss_bytes())
}

fn settled(rss_bytes: impl Fn() -> Result<u64>) -> Result<u64> {
    let started = Instant::now();
    let mut rss = rss_bytes()?;
    loop {
        std::thread::sleep(Duration::from_millis(500));
        let now = rss_bytes()?;
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
) -> Result<(Published, Window)> {
    let publishers = Publishers::start(plan.publish_plan(run_ids)?, progress)?;
    wait("warming up", plan.warmup);
    let window = measure(plan, measured, "measuring")?;
    let published = publishers.stop()?;
    await_delivered(plan, progress);
    Ok((published, window))
}

fn hold(plan: &LoadPlan, measured: &Measured<'_>) -> Result<Window> {
    measure(plan, measured, "holding")
}

fn measure(plan: &LoadPlan, measured: &Measured<'_>, what: &'static str) -> Result<Window> {
    let before = measured.begin()?;
    let progress = measured.progress;
    progress.measure_from_ns.store(monotonic_ns(), Relaxed);
    wait(what, plan.duration);
    progress.measure_until_ns.store(monotonic_ns(), Relaxed);
    Ok(Window::between(before, measured.end()?))
}

fn await_delivered(plan: &LoadPlan, progress: &Progress) {
    let expected = progress.expected.load(Relaxed);
    let (mut delivered, mut last_change) = (0, Instant::now());
    while delivered < expected && last_change.elapsed() < plan.patience {
        std::thread::sleep(TICK);
        let now = progress.awaited.load(Relaxed);
        if now != delivered {
            (delivered, last_change) = (now, Instant::now());
        }
    }
}

fn per_second(count: u64, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64().max(1e-9)
}
