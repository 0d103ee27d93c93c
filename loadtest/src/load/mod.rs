//! One load: subscribers connect, messages are published, both are counted.

mod plan;
mod sample;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::Result;

pub(crate) use self::plan::{LoadPlan, Rate};
use self::sample::{Measured, Opened, Window, store_work};
use crate::bars::{bar, wait};
use crate::clock::monotonic_ns;
use crate::process::{Process, Processes, kernel_bytes};
use crate::publisher::Publishers;
use crate::report::{
    Churn, Connects, Deliveries, LatencyMs, LoadReport, Point, Rest, Returns, Stalled,
};
use crate::subscribers::{Progress, Subscribers, Target};

/// Longest time to wait until a server's memory no longer changes.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often it is looked what happens at rest.
const SECOND: Duration = Duration::from_secs(1);

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
    let broker = store_work(target.addr)?.map(|_| target.addr);
    let publish = || Publishers::start(plan.publish_plan(&run_ids)?, &progress);
    let early = plan.ramp_under_load.then(publish).transpose()?;
    let (subscribers, opening, opened) = open(plan, &target, &progress, server.as_ref())?;
    let measured = Measured {
        server: server.as_ref(),
        broker,
        subscribers: &subscribers,
        progress: &progress,
    };
    let rest = rest(plan, &measured)?;
    let publishers = match early {
        None if plan.publishes() => Some(publish()?),
        early => early,
    };
    let window = measure(plan, &measured)?;
    progress.settle.store(true, Relaxed);
    let published = publishers.map(Publishers::stop).transpose()?;
    let published = published.unwrap_or_default();
    await_delivered(plan, &progress);
    await_stalled(plan, &progress);
    let seen = subscribers.stop_all()?;
    let totals = &seen.reading;
    let latency = totals.latency.total();
    Ok(LoadReport {
        subscribers: plan.subscribers,
        runs: plan.runs,
        rate: plan.rate,
        payload_bytes: plan.payload_bytes,
        seconds: window.length().as_secs_f64(),
        published_per_second: per_second(published.messages, published.elapsed),
        published: published.messages,
        unheard: published.unheard,
        connects: Connects {
            connected: opened.streams as usize,
            per_second: per_second(opened.streams, opening),
            latency_ms: LatencyMs::of(&totals.connect_latency),
            kernel_bytes_each: opened.kernel_bytes_each(),
        },
        rest,
        deliveries: Deliveries::of(totals, per_second(window.delivered(), window.length())),
        latency_ms: (!latency.is_empty()).then(|| LatencyMs::of(&latency)),
        latency_over_time: Point::series(totals.latency.points(), plan.point()),
        stalled: (plan.stalled > 0).then(|| Stalled::of(plan.stalled, &seen.stalled)),
        reconnects: Returns::of(&totals.reconnect_latency, None),
        drop_all: Returns::of(&totals.drop_latency, Some(totals.dropped)),
        churn: Churn::of(&totals.churned),
        server: window.server_cost(&opened),
        tool: window.tool_cost(),
        others_cpu_percent: window.others_percent(),
        store: window.store(),
        failures: seen.reading.failures,
    })
}

/// Opens every stream; returns how long that took, and what it cost.
fn open(
    plan: &LoadPlan,
    target: &Arc<Target>,
    progress: &Arc<Progress>,
    server: Option<&Processes>,
) -> Result<(Subscribers, Duration, Opened)> {
    let cpu = || server.map_or(Ok(Duration::ZERO), Processes::cpu_time);
    let kernel_before = kernel_bytes()?;
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
        kernel_before,
        kernel_after: kernel_bytes()?,
    };
    Ok((subscribers, opening, opened))
}

/// Waits until every stream is open, or none has opened for a while; returns
/// the time until the last one did.
fn await_connected(plan: &LoadPlan, progress: &Progress, started: Instant) -> Duration {
    let bar = bar("connecting", plan.subscribers as u64);
    let (mut settled, mut last_change) = (0, Instant::now());
    while settled < plan.subscribers && last_change.elapsed() < plan.patience + plan.ramp {
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

/// Holds all streams open before the first message.
fn rest(plan: &LoadPlan, measured: &Measured<'_>) -> Result<Option<Rest>> {
    if plan.hold.is_zero() {
        return Ok(None);
    }
    let bar = bar("holding", plan.hold.as_millis() as u64);
    let started = Instant::now();
    let first = measured.look()?;
    let (mut before, mut by_second) = (first.clone(), Vec::new());
    while let Some(left) = plan.hold.checked_sub(started.elapsed()) {
        bar.set_position(started.elapsed().as_millis() as u64);
        std::thread::sleep(left.min(SECOND));
        let after = measured.look()?;
        by_second.push(Window::between(before, after.clone()).rest_second());
        before = after;
    }
    bar.finish_and_clear();
    let all = Window::between(first, before).rest_second();
    Ok(Some(Rest { all, by_second }))
}

/// Measures the window, after the warm-up if something is published.
fn measure(plan: &LoadPlan, measured: &Measured<'_>) -> Result<Window> {
    let what = if plan.publishes() {
        wait("warming up", plan.warmup);
        "measuring"
    } else {
        "holding"
    };
    let before = measured.begin()?;
    let progress = measured.progress;
    let now_ns = monotonic_ns();
    progress.measure_from_ns.store(now_ns, Relaxed);
    if let Some(at) = plan.drop_all_at {
        let drop_at_ns = now_ns + at.as_nanos() as u64;
        progress.drop_at_ns.store(drop_at_ns, Relaxed);
    }
    wait(what, plan.duration);
    progress.measure_until_ns.store(monotonic_ns(), Relaxed);
    Ok(Window::between(before, measured.end()?))
}

/// Waits until those that read have all that was sent to them, or nothing
/// comes any more.
fn await_delivered(plan: &LoadPlan, progress: &Progress) {
    let expected = progress.expected.load(Relaxed);
    await_while_it_goes_on(plan, || {
        let awaited = progress.awaited.load(Relaxed);
        (awaited >= expected, awaited)
    });
}

/// Lets the stalled read and waits until they are at the end, likewise.
fn await_stalled(plan: &LoadPlan, progress: &Progress) {
    progress.wake_stalled.store(true, Relaxed);
    await_while_it_goes_on(plan, || {
        let done = progress.stalled_done.load(Relaxed);
        let delivered = progress.stalled_delivered.load(Relaxed);
        (done >= plan.stalled, delivered + done as u64)
    });
}

/// Waits until `look` says that it is done, or its count has not changed for
/// the plan's patience.
fn await_while_it_goes_on(plan: &LoadPlan, look: impl Fn() -> (bool, u64)) {
    let (mut last, mut last_change) = (0, Instant::now());
    while let (false, count) = look()
        && last_change.elapsed() < plan.patience
    {
        if count != last {
            (last, last_change) = (count, Instant::now());
        }
        std::thread::sleep(TICK);
    }
}

fn per_second(count: u64, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64().max(1e-9)
}
