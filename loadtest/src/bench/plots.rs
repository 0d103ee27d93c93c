//! The plots beside the document.

use std::path::Path;

use anyhow::Result;

use super::Results;
use super::cell::{Cell, Figure};
use super::part::Part;
use super::system::System;
use crate::plot::{Lines, servers_over_time, servers_sweep};

/// Those that have a line; more would hide each other.
const DRAWN: [System; 6] = [
    System::BareLoop,
    System::Coalescing,
    System::Nchan,
    System::Runcast,
    System::Unpaced,
    System::Durable,
];

/// Writes the latency over time of the main load, and latency and CPU against
/// the number of clients; what was not measured is left out.
pub(super) fn write(results: &Results, dir: &Path) -> Result<()> {
    let over_time = lines(|system| {
        let report = results.cell(Part::FanOut, system)?.typical()?;
        let points = report.latency_over_time.iter();
        Some(
            points
                .map(|point| (point.at_seconds, point.latency_ms.p99))
                .collect(),
        )
    });
    if !over_time.is_empty() {
        let title = Part::FanOut.title();
        servers_over_time(title, over_time, &dir.join("latency.svg"))?;
    }
    for (figure, label, name) in [
        (Figure::P99, "p99 of the latency, ms", "clients-latency.svg"),
        (
            Figure::Cpu,
            "server CPU of a delivery, µs",
            "clients-cpu.svg",
        ),
    ] {
        let sweep = lines(|system| Some(over_clients(results, system, figure)));
        if !sweep.is_empty() {
            let title = "One run, 100 messages a second of 200 bytes";
            servers_sweep(title, label, sweep, &dir.join(name))?;
        }
    }
    Ok(())
}

fn over_clients(results: &Results, system: System, figure: Figure) -> Vec<(f64, f64)> {
    let is_it =
        |cell: &&Cell| cell.system == system && matches!(cell.part, Part::FanOut | Part::Sizes);
    let cells = results.cells.iter().filter(is_it);
    let mut points: Vec<(f64, f64)> = cells
        .filter_map(|cell| Some((cell.subscribers() as f64, cell.median(figure)?)))
        .collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    points
}

fn lines(points: impl Fn(System) -> Option<Vec<(f64, f64)>>) -> Lines {
    DRAWN
        .into_iter()
        .filter_map(|system| Some((system.name().to_owned(), points(system)?)))
        .filter(|(_, points)| points.len() > 1)
        .collect()
}
