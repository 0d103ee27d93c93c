//! [`LoadReport`]: what a load measured, as JSON and as a table.

mod table;

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::load::Rate;
use crate::totals::Totals;

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
    /// All streams open and nothing sent, if that was asked for.
    pub(crate) rest: Option<Rest>,
    /// What came to those that read.
    pub(crate) deliveries: Deliveries,
    /// From publish to read, of messages sent in the window.
    pub(crate) latency_ms: Option<LatencyMs>,
    /// The same by the time they were sent.
    pub(crate) latency_over_time: Vec<Point>,
    /// Those that read nothing until the end, if there were any.
    pub(crate) stalled: Option<Stalled>,
    /// Those that went and came back one by one, if any did.
    pub(crate) reconnects: Option<Returns>,
    /// Those that did it all at once, likewise.
    pub(crate) drop_all: Option<Returns>,
    /// Those that came for a while, likewise.
    pub(crate) churn: Option<Churn>,
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
        self.fault_with(self.deliveries.lost)
    }

    /// The same, but for losses that the clients were told of.
    pub(crate) fn untold_fault(&self) -> Option<String> {
        self.fault_with(self.deliveries.untold)
    }

    fn fault_with(&self, lost: u64) -> Option<String> {
        let Deliveries {
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
    /// By how much the kernel's memory grew for each: for both ends, if the
    /// server is on this machine.
    pub(crate) kernel_bytes_each: f64,
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
    /// What `gap` events count as lost.
    pub(crate) told: u64,
    /// Lost, and neither counted by a `gap` nor on a stream that was cut.
    pub(crate) untold: u64,
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

impl Deliveries {
    pub(crate) fn of(totals: &Totals, per_second: f64) -> Self {
        Self {
            total: totals.deliveries,
            per_second,
            bytes: totals.bytes,
            lost: totals.lost,
            told: totals.told,
            untold: totals.untold,
            duplicated: totals.duplicated,
            out_of_order: totals.out_of_order,
            misrouted: totals.misrouted,
            gaps: totals.gaps,
            heartbeats: totals.heartbeats,
            problems: totals.problems,
        }
    }
}

/// All streams open, nothing sent.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Rest {
    /// All of it.
    #[serde(flatten)]
    pub(crate) all: RestSecond,
    /// The same second by second.
    pub(crate) by_second: Vec<RestSecond>,
}

impl Rest {
    /// Returns the most heartbeats of a second.
    pub(crate) fn heartbeats_max(&self) -> u64 {
        let seconds = self.by_second.iter();
        seconds.map(|second| second.heartbeats).max().unwrap_or(0)
    }

    /// Returns the most CPU of a second; 100 is one core.
    pub(crate) fn cpu_percent_max(&self) -> Option<f64> {
        let seconds = self.by_second.iter();
        seconds
            .filter_map(|second| second.server_cpu_percent)
            .reduce(f64::max)
    }
}

/// Some time of rest.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct RestSecond {
    /// For how long.
    pub(crate) seconds: f64,
    /// Heartbeats read in it by those that read.
    pub(crate) heartbeats: u64,
    /// CPU of the server, if it is measured; 100 is one core.
    pub(crate) server_cpu_percent: Option<f64>,
}

/// A part of the window.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Point {
    /// When it begins.
    pub(crate) at_seconds: f64,
    /// Messages sent in it that were read, by all subscribers together.
    pub(crate) deliveries: u64,
    /// Of these.
    pub(crate) latency_ms: LatencyMs,
}

impl Point {
    /// Reads points of the given length; those without a message are left out.
    pub(crate) fn series(points: &[Histogram<u64>], length: Duration) -> Vec<Self> {
        let points = points.iter().enumerate();
        points
            .filter(|(_, point)| !point.is_empty())
            .map(|(number, point)| Self {
                at_seconds: number as f64 * length.as_secs_f64(),
                deliveries: point.len(),
                latency_ms: LatencyMs::of(point),
            })
            .collect()
    }
}

/// Subscribers that read nothing but the head until the publishers had
/// stopped, and then all they could get.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Stalled {
    /// How many.
    pub(crate) subscribers: usize,
    /// What came to them in the end.
    pub(crate) deliveries: Deliveries,
    /// Those that the server cut, by how they learnt of it.
    pub(crate) failures: BTreeMap<String, u64>,
}

impl Stalled {
    pub(crate) fn of(subscribers: usize, totals: &Totals) -> Self {
        Self {
            subscribers,
            deliveries: Deliveries::of(totals, 0.0),
            failures: totals.failures.clone(),
        }
    }
}

/// Subscribers that went and came back with the id of the last event they had.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Returns {
    /// How often one went, as far as that is known.
    pub(crate) went: u64,
    /// How often one was served again: the head had come, and every message
    /// sent before it asked.
    pub(crate) served: u64,
    /// From going until served again.
    pub(crate) latency_ms: LatencyMs,
}

impl Returns {
    /// Reads the latencies; `None` if none went.
    pub(crate) fn of(latency: &Histogram<u64>, went: Option<u64>) -> Option<Self> {
        let went = went.unwrap_or(latency.len());
        (went > 0).then(|| Self {
            went,
            served: latency.len(),
            latency_ms: LatencyMs::of(latency),
        })
    }
}

/// Subscribers that came for a while.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Churn {
    /// How many were let in.
    pub(crate) connected: u64,
    /// From `connect` to the response head.
    pub(crate) latency_ms: LatencyMs,
}

impl Churn {
    /// Reads the latencies; `None` if none came.
    pub(crate) fn of(latency: &Histogram<u64>) -> Option<Self> {
        (!latency.is_empty()).then(|| Self {
            connected: latency.len(),
            latency_ms: LatencyMs::of(latency),
        })
    }
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
