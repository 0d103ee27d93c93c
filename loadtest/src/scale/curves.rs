//! [`Curves`]: CPU of the broker as one thing grows tenfold, the others held.

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::{Scale, check, median, shown};
use crate::load::{self, LoadPlan, Rate};
use crate::report::LoadReport;
use crate::servers::Redis;

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Grows {
    /// Clients, on the same runs: ten times the deliveries.
    Clients,
    /// Runs, with a client each; messages and deliveries a second stay.
    Runs,
    /// Messages, to the same clients of the same runs.
    Messages,
}

/// Every curve.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct Curves(Vec<Curve>);

/// One thing that grows.
#[derive(Debug, Serialize)]
struct Curve {
    grows: Grows,
    points: Vec<Point>,
}

/// One load, measured several times.
#[derive(Debug, Serialize)]
struct Point {
    /// So many times what the first point has.
    factor: usize,
    rounds: Vec<LoadReport>,
}

impl Grows {
    const ALL: [Self; 3] = [Self::Clients, Self::Runs, Self::Messages];

    fn factors(self) -> &'static [usize] {
        match self {
            Self::Clients => &[1, 10],
            Self::Runs | Self::Messages => &[1, 10, 100],
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::Runs => "runs, with as many messages in all",
            Self::Messages => "messages",
        }
    }

    /// Returns clients, runs, and messages a second to each run.
    fn load(self, factor: usize) -> (usize, usize, f64) {
        match self {
            Self::Clients => (500 * factor, 50, 2.0),
            Self::Runs => (100 * factor, 100 * factor, 20.0 / factor as f64),
            Self::Messages => (100, 10, 2.0 * factor as f64),
        }
    }
}

impl Curves {
    /// Measures every point in turn, and again, so that what the machine does
    /// besides falls on all of them.
    pub(super) fn measure(scale: &Scale) -> Result<Self> {
        let mut curves = Grows::ALL.map(Curve::new);
        for _ in 0..scale.rounds {
            for curve in &mut curves {
                for point in &mut curve.points {
                    let report = measure(scale, curve.grows, point.factor)?;
                    point.rounds.push(report);
                }
            }
        }
        Ok(Self(curves.into()))
    }
}

fn measure(scale: &Scale, grows: Grows, factor: usize) -> Result<LoadReport> {
    let redis = Redis::start()?;
    let broker = scale.start_broker(&redis, &[])?;
    let fewer = usize::from(scale.fewer);
    let (clients, runs, rate) = grows.load(factor);
    let report = load::run(&LoadPlan {
        url: broker.url(),
        redis: redis.url,
        pid: vec![broker.pid()],
        subscribers: (clients / fewer).max(1),
        runs: (runs / fewer).max(1),
        rate: Rate::PerSecond(rate),
        warmup: scale.duration.min(Duration::from_secs(1)),
        duration: scale.duration,
        ..LoadPlan::default()
    })?;
    check(grows.title(), &report)?;
    eprintln!(
        "{} × {factor}: {} µs a delivery",
        grows.title(),
        shown(report.cpu_us_per_delivery(), 2)
    );
    Ok(report)
}

impl Curve {
    fn new(grows: Grows) -> Self {
        let factors = grows.factors().iter();
        let points = factors.map(|factor| Point {
            factor: *factor,
            rounds: Vec::new(),
        });
        Self {
            grows,
            points: points.collect(),
        }
    }

    /// Returns how the broker's CPU grows from the first point to another: the
    /// power of the factor. 1 is in proportion, 0 not at all.
    fn exponent(&self, point: &Point) -> Option<f64> {
        let first = self.points.first()?;
        exponent(first.cpu()?, point.cpu()?, point.factor)
    }
}

/// Returns the power of `factor` by which `from` became `to`.
fn exponent(from: f64, to: f64, factor: usize) -> Option<f64> {
    (factor > 1 && from > 0.0 && to > 0.0).then(|| (to / from).ln() / (factor as f64).ln())
}

impl Point {
    fn median(&self, figure: impl Fn(&LoadReport) -> Option<f64>) -> Option<f64> {
        median(self.rounds.iter().filter_map(figure))
    }

    /// CPU of the broker; 100 is one core.
    fn cpu(&self) -> Option<f64> {
        self.median(|report| Some(report.server.as_ref()?.cpu_percent))
    }
}

impl fmt::Display for Curves {
    /// A table in Markdown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = [
            "× ",
            "clients",
            "runs",
            "messages/s",
            "deliveries/s",
            "broker CPU %",
            "CPU µs a delivery",
            "to the first",
            "CPU grows as the power",
            "p99 ms",
            "all others CPU %",
        ];
        writeln!(
            f,
            "| grows | {} |\n|---|{}",
            head.join(" | "),
            "--:|".repeat(head.len())
        )?;
        for curve in &self.0 {
            for point in &curve.points {
                writeln!(f, "{}", row(curve, point))?;
            }
        }
        Ok(())
    }
}

fn row(curve: &Curve, point: &Point) -> String {
    let first = point.rounds.first();
    let count = |value: fn(&LoadReport) -> usize| first.map(value).unwrap_or_default().to_string();
    let each = |point: &Point| point.median(LoadReport::cpu_us_per_delivery);
    let least = curve.points.first().and_then(each);
    let ratio = each(point).zip(least).map(|(each, least)| each / least);
    let figures = [
        curve.grows.title().to_owned(),
        point.factor.to_string(),
        count(|report| report.subscribers),
        count(|report| report.runs),
        shown(point.median(|report| Some(report.published_per_second)), 0),
        shown(point.median(|report| Some(report.deliveries.per_second)), 0),
        shown(point.cpu(), 1),
        shown(each(point), 2),
        shown(ratio, 2),
        shown(curve.exponent(point), 2),
        shown(point.median(|report| Some(report.latency_ms?.p99)), 2),
        shown(point.median(|report| Some(report.others_cpu_percent)), 0),
    ];
    format!("| {} |", figures.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponent_tells_constant_from_linear_from_square() {
        for (to, expected) in [(2.0, 0.0), (20.0, 1.0), (200.0, 2.0)] {
            let exponent = exponent(2.0, to, 10).expect("a factor");
            assert!((exponent - expected).abs() < 1e-9, "{to}: {exponent}");
        }
        assert_eq!(exponent(2.0, 4.0, 1), None);
        assert_eq!(exponent(0.0, 4.0, 10), None);
    }

    #[test]
    fn more_runs_are_no_more_messages() {
        let per_second = |factor| {
            let (_, runs, rate) = Grows::Runs.load(factor);
            runs as f64 * rate
        };
        assert_eq!(per_second(1), per_second(100));
    }
}
