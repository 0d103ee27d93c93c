//! [`Sweep`]: the same load with ever more subscribers.

use std::fmt;
use std::path::Path;

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::load::{self, LoadPlan};
use crate::report::LoadReport;

/// Repeats a load with each of several numbers of subscribers.
// The command that flattens this has a group of that name.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Sweep {
    #[command(flatten)]
    plan: Box<LoadPlan>,
    /// The numbers of subscribers, in the order to measure them
    #[arg(long, value_delimiter = ',', required = true)]
    over: Vec<usize>,
}

/// What each of the loads measured.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Swept(Vec<LoadReport>);

impl Sweep {
    /// Runs one load after the other; says on standard error where it is.
    ///
    /// # Errors
    /// As [`load::run`], and when a number is smaller than that of the runs.
    pub(crate) fn run(&self) -> Result<Swept> {
        let plans: Vec<LoadPlan> = self.over.iter().map(|count| self.plan(*count)).collect();
        for plan in &plans {
            plan.check()?;
        }
        let mut reports = Vec::new();
        for plan in plans {
            eprintln!("{} subscribers", plan.subscribers);
            reports.push(load::run(&plan)?);
        }
        Ok(Swept(reports))
    }

    fn plan(&self, subscribers: usize) -> LoadPlan {
        LoadPlan {
            subscribers,
            ..LoadPlan::clone(&self.plan)
        }
    }
}

impl Swept {
    /// Draws the plots of [`crate::plot::sweep`].
    ///
    /// # Errors
    /// As there.
    pub(crate) fn plot(&self, dir: &Path) -> Result<()> {
        crate::plot::sweep(&self.0, dir)
    }
}

impl fmt::Display for Swept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header([
            "subscribers",
            "deliveries/s",
            "p50 ms",
            "p99 ms",
            "max ms",
            "CPU µs a delivery",
            "kB a stream",
            "faults",
        ]);
        for report in &self.0 {
            let ms =
                |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.2}"));
            let latency = report.latency_ms;
            let server = report.server.as_ref();
            let rss = server.map(|server| server.rss_bytes_per_connection / 1e3);
            table.add_row([
                report.subscribers.to_string(),
                format!("{:.0}", report.deliveries.per_second),
                ms(latency.map(|latency| latency.p50)),
                ms(latency.map(|latency| latency.p99)),
                ms(latency.map(|latency| latency.max)),
                ms(report.cpu_us_per_delivery()),
                ms(rss),
                report.fault().unwrap_or_else(|| "none".to_owned()),
            ]);
        }
        for column in table.column_iter_mut().take(7) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        write!(f, "{table}")
    }
}
