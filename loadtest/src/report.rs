//! [`LoadReport`]: what a load measured, as JSON and as a table.

use std::collections::BTreeMap;
use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::load::Rate;

/// A thread of the tool busier than this delays what it measures.
const BOTTLENECK_PERCENT: f64 = 85.0;

/// An event longer on its way may look lost to the broker: half of the time it
/// gives one whose number it has heard of.
const SLOW_MS: f64 = 250.0;

/// The result of one load.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct LoadReport {
    /// Streams asked for.
    pub(crate) subscribers: usize,
    /// Runs they were spread over.
    pub(crate) runs: usize,
    /// Messages a second to each run, as asked for, or `max`.
    pub(crate) rate: Rate,
    /// Bytes of a payload.
    pub(crate) payload_bytes: usize,
    /// Length of the measured window.
    pub(crate) seconds: f64,
    /// Messages published, warm-up included.
    pub(crate) published: u64,
    /// The same, a second.
    pub(crate) published_per_second: f64,
    /// Messages that Redis gave to no subscriber.
    pub(crate) unheard: u64,
    /// Opening the streams.
    pub(crate) connects: Connects,
    /// What came.
    pub(crate) deliveries: Deliveries,
    /// From publish to read, of messages sent in the window.
    pub(crate) latency_ms: Option<LatencyMs>,
    /// CPU and memory of the server, if its process id was given.
    pub(crate) server: Option<ServerCost>,
    /// CPU of this tool.
    pub(crate) tool: ToolCost,
    /// CPU in the window of all other programs, Redis among them; 100 is one
    /// core. Whatever they took, the server and this tool had to wait for.
    pub(crate) others_cpu_percent: f64,
    /// What the broker asked its store for in the window, if it tells.
    pub(crate) store: Option<StoreWork>,
    /// Streams not opened or closed early, by cause.
    pub(crate) failures: BTreeMap<String, u64>,
}

impl LoadReport {
    /// Returns the server's cost, if it was measured and anything delivered.
    pub(crate) fn cpu_us_per_delivery(&self) -> Option<f64> {
        self.server.as_ref()?.cpu_us_per_delivery
    }

    /// Whether the broker read its store without a reason: for an event that
    /// was on its way for long it has one, since that looks lost.
    pub(crate) fn reads_needlessly(&self) -> bool {
        let reads = self.store.is_some_and(|store| store.reads > 0);
        let was_slow = self.latency_ms.is_some_and(|latency| latency.max > SLOW_MS);
        reads && !was_slow
    }

    /// Returns what went wrong with the messages or streams, if anything did.
    pub(crate) fn fault(&self) -> Option<String> {
        let Deliveries {
            lost,
            duplicated,
            out_of_order,
            misrouted,
            ..
        } = self.deliveries;
        let closed = self.failures.values().sum();
        let wrong = [lost, duplicated, out_of_order, misrouted, closed];
        wrong.iter().any(|count| *count > 0).then(|| {
            format!(
                "lost {lost}, doubled {duplicated}, disordered {out_of_order} and misrouted \
                 {misrouted} messages, and did not keep {closed} streams"
            )
        })
    }
}

/// Opening the streams.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Connects {
    /// Streams open.
    pub(crate) connected: usize,
    /// Opened a second.
    pub(crate) per_second: f64,
    /// From `connect` to the response head.
    pub(crate) latency_ms: LatencyMs,
}

/// What came, warm-up included but for `per_second`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Deliveries {
    /// Distinct messages read by all subscribers together.
    pub(crate) total: u64,
    /// The same, a second of the window.
    pub(crate) per_second: f64,
    /// Bytes read.
    pub(crate) bytes: u64,
    /// Sent to a subscriber's run and never read by it.
    pub(crate) lost: u64,
    /// Read again.
    pub(crate) duplicated: u64,
    /// Read after a newer one.
    pub(crate) out_of_order: u64,
    /// Of another run.
    pub(crate) misrouted: u64,
    /// `gap` events.
    pub(crate) gaps: u64,
    /// `heartbeat` events.
    pub(crate) heartbeats: u64,
    /// `problem` events.
    pub(crate) problems: u64,
}

/// Percentiles in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct LatencyMs {
    /// Median.
    pub(crate) p50: f64,
    /// 90th percentile.
    pub(crate) p90: f64,
    /// 99th percentile.
    pub(crate) p99: f64,
    /// 99.9th percentile.
    pub(crate) p999: f64,
    /// Greatest.
    pub(crate) max: f64,
}

impl LatencyMs {
    /// Reads the percentiles of a histogram of nanoseconds.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let ms = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e6;
        Self {
            p50: ms(0.5),
            p90: ms(0.9),
            p99: ms(0.99),
            p999: ms(0.999),
            max: histogram.max() as f64 / 1e6,
        }
    }
}

impl fmt::Display for LatencyMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            p50,
            p90,
            p99,
            p999,
            max,
        } = self;
        write!(
            f,
            "p50 {p50:.2}  p90 {p90:.2}  p99 {p99:.2}  p99.9 {p999:.2}  max {max:.2} ms"
        )
    }
}

/// What a broker asked its store for.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct StoreWork {
    /// Pages of history: none, if nothing went wrong.
    pub(crate) reads: u64,
    /// Comparisons of positions, at their interval.
    pub(crate) checks: u64,
}

/// What the load cost the server.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct ServerCost {
    /// CPU in the window; 100 is one core.
    pub(crate) cpu_percent: f64,
    /// CPU time of the window divided by its deliveries.
    pub(crate) cpu_us_per_delivery: Option<f64>,
    /// The inverse: what one core of the server would deliver.
    pub(crate) deliveries_per_core_second: Option<f64>,
    /// CPU time of opening the streams, divided by them.
    pub(crate) cpu_us_per_accept: f64,
    /// Resident memory with all streams open.
    pub(crate) rss_bytes: u64,
    /// By how much it grew for each stream.
    pub(crate) rss_bytes_per_connection: f64,
}

/// What the load cost this tool.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct ToolCost {
    /// CPU in the window; 100 is one core.
    pub(crate) cpu_percent: f64,
    /// The same of its busiest subscriber thread.
    pub(crate) busiest_thread_percent: f64,
    /// Whether the tool had too much to do itself to measure the server.
    pub(crate) is_bottleneck: bool,
}

impl ToolCost {
    pub(crate) fn new(cpu_percent: f64, busiest_thread_percent: f64) -> Self {
        Self {
            cpu_percent,
            busiest_thread_percent,
            is_bottleneck: busiest_thread_percent > BOTTLENECK_PERCENT,
        }
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            connects,
            deliveries: d,
            tool,
            ..
        } = self;
        writeln!(
            f,
            "streams       {} of {} on {} runs, {:.0}/s; {}",
            connects.connected,
            self.subscribers,
            self.runs,
            connects.per_second,
            connects.latency_ms
        )?;
        for (why, count) in &self.failures {
            writeln!(f, "  failed      {count}: {why}")?;
        }
        writeln!(
            f,
            "published     {} of {} bytes, {:.0}/s; {} heard by nobody",
            self.published, self.payload_bytes, self.published_per_second, self.unheard
        )?;
        writeln!(
            f,
            "delivered     {} ({:.0}/s); lost {}, duplicated {}, out of order {}, misrouted {}",
            d.total, d.per_second, d.lost, d.duplicated, d.out_of_order, d.misrouted
        )?;
        writeln!(
            f,
            "also read     {} gaps, {} heartbeats, {} problems; {:.1} MB in all",
            d.gaps,
            d.heartbeats,
            d.problems,
            d.bytes as f64 / 1e6
        )?;
        if let Some(latency) = &self.latency_ms {
            writeln!(f, "latency       {latency}")?;
        }
        if let Some(server) = &self.server {
            write!(f, "server        CPU {:.1} %", server.cpu_percent)?;
            if let Some(us) = server.cpu_us_per_delivery {
                write!(f, ", {us:.2} µs a delivery")?;
            }
            if let Some(count) = server.deliveries_per_core_second {
                write!(f, " ({count:.0}/s of one core)")?;
            }
            write!(f, ", {:.1} µs an accept", server.cpu_us_per_accept)?;
            writeln!(
                f,
                "; {:.1} MB resident, {:.2} kB a stream",
                server.rss_bytes as f64 / 1e6,
                server.rss_bytes_per_connection / 1e3
            )?;
        }
        if let Some(StoreWork { reads, checks }) = self.store {
            writeln!(f, "store         {reads} reads, {checks} position checks")?;
        }
        write!(
            f,
            "this tool     CPU {:.1} %, busiest thread {:.1} %; all others {:.1} %",
            tool.cpu_percent, tool.busiest_thread_percent, self.others_cpu_percent
        )?;
        if tool.is_bottleneck {
            write!(
                f,
                "\nTHE TOOL WAS THE BOTTLENECK: give it more --threads, or read the server's figures as a floor"
            )?;
        }
        Ok(())
    }
}
