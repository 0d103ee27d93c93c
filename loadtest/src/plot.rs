//! Plots as SVG.

use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context as _, Result};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

use crate::report::LoadReport;

const SIZE: (u32, u32) = (900, 480);
const FONT: &str = "sans-serif";

/// Told apart by their brightness, too.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x1b, 0x4f, 0x8a),
    RGBColor(0xd0, 0x6a, 0x10),
    RGBColor(0x8a, 0x8a, 0x8a),
    RGBColor(0x2f, 0x8f, 0x4e),
    RGBColor(0xb0, 0x2a, 0x6f),
    RGBColor(0x11, 0x11, 0x11),
];

/// A line of a plot.
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

/// A plot; both axes begin and end with what there is to show.
struct Chart {
    title: String,
    x_label: &'static str,
    y_label: &'static str,
    log_x: bool,
    lines: Vec<Line>,
}

/// Writes `latency.svg`, the latency over time, into `dir`.
///
/// # Errors
/// When nothing was measured, or the file cannot be written.
pub(crate) fn over_time(report: &LoadReport, dir: &Path) -> Result<()> {
    let points = &report.latency_over_time;
    let line = |name: &str, value: fn(&crate::report::LatencyMs) -> f64| Line {
        name: name.to_owned(),
        points: points
            .iter()
            .map(|point| (point.at_seconds, value(&point.latency_ms)))
            .collect(),
    };
    let chart = Chart {
        title: format!("{} subscribers on {} runs", report.subscribers, report.runs),
        x_label: "seconds",
        y_label: "latency, ms",
        log_x: false,
        lines: vec![
            line("p50", |latency| latency.p50),
            line("p99", |latency| latency.p99),
            line("max", |latency| latency.max),
        ],
    };
    chart.write(dir, "latency.svg")
}

/// Writes `sweep-latency.svg` and, if the server was measured,
/// `sweep-cpu.svg`: both against the number of subscribers.
///
/// # Errors
/// As [`over_time`].
pub(crate) fn sweep(reports: &[LoadReport], dir: &Path) -> Result<()> {
    let line = |name: &str, value: fn(&LoadReport) -> Option<f64>| Line {
        name: name.to_owned(),
        points: reports
            .iter()
            .filter_map(|report| Some((report.subscribers as f64, value(report)?)))
            .collect(),
    };
    let chart = |y_label, lines| Chart {
        title: format!("{} against subscribers", y_label),
        x_label: "subscribers",
        y_label,
        log_x: true,
        lines,
    };
    let latency = vec![
        line("p50", |report| Some(report.latency_ms?.p50)),
        line("p99", |report| Some(report.latency_ms?.p99)),
        line("max", |report| Some(report.latency_ms?.max)),
    ];
    chart("latency, ms", latency).write(dir, "sweep-latency.svg")?;
    let cpu = line("server", LoadReport::cpu_us_per_delivery);
    if cpu.points.is_empty() {
        return Ok(());
    }
    chart("CPU µs a delivery", vec![cpu]).write(dir, "sweep-cpu.svg")
}

/// Lines of several servers under the same loads, each a name and points.
pub(crate) type Lines = Vec<(String, Vec<(f64, f64)>)>;

/// Writes a plot of latency over time with a line for each server.
///
/// # Errors
/// As [`over_time`].
pub(crate) fn servers_over_time(title: &str, lines: Lines, path: &Path) -> Result<()> {
    servers(
        title,
        "seconds",
        "p99 of the latency, ms",
        false,
        lines,
        path,
    )
}

/// Writes a plot against the number of subscribers, likewise.
///
/// # Errors
/// As [`over_time`].
pub(crate) fn servers_sweep(
    title: &str,
    y_label: &'static str,
    lines: Lines,
    path: &Path,
) -> Result<()> {
    servers(title, "subscribers", y_label, true, lines, path)
}

fn servers(
    title: &str,
    x_label: &'static str,
    y_label: &'static str,
    log_x: bool,
    lines: Lines,
    path: &Path,
) -> Result<()> {
    let lines = lines.into_iter();
    let chart = Chart {
        title: title.to_owned(),
        x_label,
        y_label,
        log_x,
        lines: lines.map(|(name, points)| Line { name, points }).collect(),
    };
    let dir = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().and_then(|name| name.to_str());
    chart.write(dir, name.context("a plot needs a name")?)
}

impl Chart {
    fn write(&self, dir: &Path, name: &str) -> Result<()> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let path = dir.join(name);
        self.draw(&path)
            .with_context(|| format!("cannot draw {}", path.display()))
    }

    fn draw(&self, path: &Path) -> Result<()> {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let x = bounds(points().map(|point| point.0)).context("there is nothing to show")?;
        let y = bounds(points().map(|point| point.1)).context("there is nothing to show")?;
        let area = SVGBackend::new(path, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        // Latencies lie decades apart; above them there is room for the legend.
        let (least, greatest) = (y.start.max(1e-3) * 0.8, y.end.max(1e-3) * 1.25);
        let y = least..greatest * (greatest / least).powf(0.4);
        if self.log_x {
            self.draw_on(&area, (x.start..x.end.max(x.start * 1.01)).log_scale(), y)?;
        } else {
            self.draw_on(&area, x.start..x.end.max(x.start + 1.0), y)?;
        }
        area.present()?;
        Ok(())
    }

    fn draw_on<X>(
        &self,
        area: &DrawingArea<SVGBackend<'_>, Shift>,
        x: X,
        y: Range<f64>,
    ) -> Result<()>
    where
        X: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64>,
    {
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, (FONT, 20))
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(x, y.log_scale())?;
        chart
            .configure_mesh()
            .x_desc(self.x_label)
            .y_desc(self.y_label)
            .label_style((FONT, 14))
            .max_light_lines(1)
            .x_label_formatter(&|x| short(*x))
            .y_label_formatter(&|y| short(*y))
            .light_line_style(BLACK.mix(0.06))
            .bold_line_style(BLACK.mix(0.15))
            .draw()?;
        for (line, colour) in self.lines.iter().zip(COLOURS) {
            let points = line.points.iter().copied();
            chart
                .draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))?
                .label(&line.name)
                .legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3))
                });
            chart.draw_series(points.map(|at| Circle::new(at, 3, colour.filled())))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.3))
            .label_font((FONT, 14))
            .draw()?;
        Ok(())
    }
}

/// Returns the least and the greatest; `None` of nothing.
fn bounds(values: impl Iterator<Item = f64> + Clone) -> Option<Range<f64>> {
    let least = values.clone().reduce(f64::min)?;
    Some(least..values.reduce(f64::max)?)
}

/// A label: no more digits than it needs.
fn short(value: f64) -> String {
    if value >= 10.0 {
        return format!("{value:.0}");
    }
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
