//! [`Sizes`]: one broker with ever more streams, at rest and with one event to
//! all of them.

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::{Scale, check, median, shown};
use crate::load::{self, LoadPlan, Rate};
use crate::report::LoadReport;
use crate::servers::Redis;

/// What was measured of each size.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct Sizes(Vec<Size>);

/// One number of streams.
#[derive(Debug, Serialize)]
struct Size {
    /// Over how long they came; 0: as fast as they were let in.
    came_over_seconds: f64,
    report: LoadReport,
    /// From a publish until the last client had read it; median of some.
    last_ms: Option<f64>,
}

impl Sizes {
    /// Measures each size with all clients coming at once, and the greatest
    /// with clients that come over one hold.
    pub(super) fn measure(scale: &Scale) -> Result<Self> {
        let mut sizes = Vec::new();
        for streams in &scale.sizes {
            sizes.push(Size::measure(scale, *streams, Duration::ZERO)?);
        }
        if let Some(streams) = scale.sizes.iter().max() {
            sizes.push(Size::measure(scale, *streams, scale.hold)?);
        }
        Ok(Self(sizes))
    }
}

impl Size {
    fn measure(scale: &Scale, streams: usize, ramp: Duration) -> Result<Self> {
        let redis = Redis::start()?;
        let broker = scale.start_broker(&redis, &[])?;
        let report = load::run(&LoadPlan {
            url: broker.url(),
            redis: redis.url,
            pid: vec![broker.pid()],
            subscribers: streams,
            ramp,
            hold: scale.hold,
            // Each is one event to all, long read when the next is sent.
            rate: Rate::PerSecond(1.0),
            warmup: Duration::from_millis(500),
            duration: scale.duration,
            ..LoadPlan::default()
        })?;
        check("one event to all", &report)?;
        eprintln!(
            "{streams} streams over {ramp:?}: {:?}",
            report.rest.as_ref().map(|rest| rest.all)
        );
        // A point is shorter than the time between two events.
        let last_ms = median(
            report
                .latency_over_time
                .iter()
                .map(|point| point.latency_ms.max),
        );
        Ok(Self {
            came_over_seconds: ramp.as_secs_f64(),
            report,
            last_ms,
        })
    }

    fn row(&self) -> String {
        let report = &self.report;
        let server = report.server.as_ref();
        let rest = report.rest.as_ref();
        let came = if self.came_over_seconds > 0.0 {
            format!("over {:.0} s", self.came_over_seconds)
        } else {
            "at once".to_owned()
        };
        let figures = [
            came,
            shown(Some(report.connects.per_second), 0),
            shown(server.map(|server| server.cpu_us_per_accept), 1),
            shown(server.map(|server| server.rss_bytes as f64 / 1e6), 1),
            shown(
                server.map(|server| server.rss_bytes_per_connection / 1e3),
                2,
            ),
            shown(Some(report.connects.kernel_bytes_each / 1e3), 1),
            shown(rest.and_then(|rest| rest.all.server_cpu_percent), 2),
            shown(
                rest.map(|rest| rest.all.heartbeats as f64 / rest.all.seconds),
                0,
            ),
            shown(rest.map(|rest| rest.heartbeats_max() as f64), 0),
            shown(rest.and_then(|rest| rest.cpu_percent_max()), 1),
            shown(report.latency_ms.map(|latency| latency.p50), 1),
            shown(self.last_ms, 1),
            shown(Some(report.others_cpu_percent), 0),
        ];
        format!("| {} | {} |", report.subscribers, figures.join(" | "))
    }
}

impl fmt::Display for Sizes {
    /// A table in Markdown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = [
            "streams",
            "came",
            "opened/s",
            "CPU µs per accept",
            "broker MB",
            "kB a stream",
            "kernel kB, both ends",
            "at rest: CPU %",
            "heartbeats/s",
            "most in a second",
            "CPU % of that second",
            "event to all: median ms",
            "last ms",
            "all others CPU %",
        ];
        writeln!(
            f,
            "| {} |\n|{}",
            head.join(" | "),
            "--:|".repeat(head.len())
        )?;
        for size in &self.0 {
            writeln!(f, "{}", size.row())?;
        }
        Ok(())
    }
}
