//! [`Cell`]: one system under one load, measured several times.

use serde::Serialize;

use super::part::Part;
use super::system::System;
use crate::report::LoadReport;

/// The rounds of one system under one load.
#[derive(Debug, Serialize)]
pub(crate) struct Cell {
    pub(crate) part: Part,
    pub(crate) system: System,
    pub(crate) rounds: Vec<LoadReport>,
}

/// A figure of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figure {
    /// CPU time of the server for a delivery.
    Cpu,
    /// Median of the latency.
    P50,
    /// 99th percentile of the latency.
    P99,
    /// Deliveries by the clock.
    PerSecond,
    /// Deliveries that a core of the server would make.
    PerCore,
    /// When all that dropped were served again.
    Served,
    /// Resident memory of a stream.
    Rss,
    /// CPU time of accepting a stream.
    Accept,
    /// Streams opened a second.
    Opened,
    /// CPU of the server in the window.
    Load,
}

impl Figure {
    /// Reads it; `None` where it was not measured.
    pub(crate) fn of(self, report: &LoadReport) -> Option<f64> {
        let server = report.server.as_ref();
        match self {
            Self::Cpu => report.cpu_us_per_delivery(),
            Self::P50 => Some(report.latency_ms?.p50),
            Self::P99 => Some(report.latency_ms?.p99),
            Self::PerSecond => Some(report.deliveries.per_second),
            Self::PerCore => server?.deliveries_per_core_second,
            Self::Served => report
                .drop_all
                .filter(|returns| returns.served == returns.went)
                .map(|returns| returns.latency_ms.max),
            Self::Rss => Some(server?.rss_bytes_per_connection),
            Self::Accept => Some(server?.cpu_us_per_accept),
            Self::Opened => Some(report.connects.per_second),
            Self::Load => Some(server?.cpu_percent),
        }
    }

    /// Whether a greater one is better.
    pub(crate) fn is_gain(self) -> bool {
        matches!(self, Self::PerSecond | Self::PerCore | Self::Opened)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cpu => "CPU per delivery",
            Self::P50 => "median",
            Self::P99 => "p99",
            Self::PerSecond => "deliveries/s",
            Self::PerCore => "deliveries/s of one core",
            Self::Served => "all served after",
            Self::Rss => "resident, each",
            Self::Accept => "CPU per accept",
            Self::Opened => "opened/s",
            Self::Load => "CPU",
        }
    }

    /// Writes a value with its unit.
    pub(crate) fn show(self, value: Option<f64>) -> String {
        let Some(value) = value else {
            return "–".to_owned();
        };
        match self {
            Self::Cpu | Self::Accept => format!("{} µs", digits(value)),
            Self::P50 | Self::P99 | Self::Served => format!("{} ms", digits(value)),
            Self::PerSecond | Self::PerCore | Self::Opened => thousands(value),
            Self::Rss => format!("{:.1} kB", value / 1e3),
            Self::Load => format!("{value:.1} %"),
        }
    }
}

/// Three digits that count.
fn digits(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

fn thousands(value: f64) -> String {
    if value >= 1e6 {
        format!("{:.2} M", value / 1e6)
    } else if value >= 1e4 {
        format!("{:.0} k", value / 1e3)
    } else {
        format!("{value:.0}")
    }
}

impl Cell {
    /// Clients of its load.
    pub(crate) fn subscribers(&self) -> usize {
        self.rounds.first().map_or(0, |report| report.subscribers)
    }

    /// Returns the median of a figure over its rounds.
    pub(crate) fn median(&self, figure: Figure) -> Option<f64> {
        let values = self.rounds.iter().filter_map(|round| figure.of(round));
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        // Of two in the middle, the worse.
        let middle = if figure.is_gain() {
            last / 2
        } else {
            last.div_ceil(2)
        };
        Some(values[middle])
    }

    /// Returns the round in the middle by its 99th percentile.
    pub(crate) fn typical(&self) -> Option<&LoadReport> {
        let p99 = |report: &&LoadReport| Figure::P99.of(report).unwrap_or(f64::MAX);
        let mut rounds: Vec<&LoadReport> = self.rounds.iter().collect();
        rounds.sort_by(|a, b| p99(a).total_cmp(&p99(b)));
        rounds.get(rounds.len() / 2).copied()
    }

    /// Tells how its load differs from that of the other systems.
    pub(crate) fn slower(&self) -> &'static str {
        match self.part {
            Part::Idle | Part::IdleRuns | Part::FlatOut => "",
            _ if self.system.is_slow() => ", a tenth of the rate",
            _ => "",
        }
    }

    /// Returns the messages that were lost in all rounds together.
    pub(crate) fn lost(&self) -> u64 {
        self.rounds.iter().map(|round| round.deliveries.lost).sum()
    }

    /// Returns what went wrong in a round, if anything did. Flat out, a client
    /// may be left so far behind that what it is to get next is gone: that is
    /// right if it is told.
    pub(crate) fn fault(&self) -> Option<String> {
        let fault = match self.part {
            Part::FlatOut => LoadReport::untold_fault,
            _ => LoadReport::fault,
        };
        self.rounds.iter().find_map(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_as_many_digits_as_count() {
        let cases = [
            (Figure::Cpu, 4.567, "4.57 µs"),
            (Figure::P99, 123.4, "123 ms"),
            (Figure::PerSecond, 1_234_567.0, "1.23 M"),
            (Figure::PerSecond, 99_900.0, "100 k"),
            (Figure::Rss, 12_340.0, "12.3 kB"),
        ];
        for (figure, value, expected) in cases {
            assert_eq!(figure.show(Some(value)), expected);
        }
        assert_eq!(Figure::Cpu.show(None), "–");
    }
}
