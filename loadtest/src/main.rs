//! `runcast-loadtest`: what a broker does under many subscribers, and what it
//! costs: latency, loss, CPU time per delivery, memory per connection.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool speaks through its standard streams"
)]

mod arguments;
mod bare_loop;
mod bars;
mod bench;
mod clock;
mod durable;
mod http;
mod load;
mod memory;
mod plot;
mod process;
mod publish_cost;
mod publisher;
mod report;
mod resync;
mod scale;
mod section;
mod sequence;
mod servers;
mod sse;
mod stamp;
mod subscribers;
mod sweep;
mod totals;

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use serde::Serialize;

/// Loads an event-stream server and measures what its users would see.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Subscribes to a running server, publishes, and measures
    Run {
        #[command(flatten)]
        plan: Box<load::LoadPlan>,
        #[command(flatten)]
        outputs: Outputs,
    },
    /// Does that with several numbers of subscribers, one after the other
    Sweep {
        #[command(flatten)]
        sweep: sweep::Sweep,
        #[command(flatten)]
        outputs: Outputs,
    },
    /// Serves streams with the least work possible: the floor to compare with
    BareLoop(bare_loop::BareLoop),
    /// Measures a broker and the bare loop side by side
    Bench(bench::Bench),
    /// Measures what an event costs Redis, durable beside plain
    PublishCost(publish_cost::PublishCost),
    /// Measures what runs with a history take, in Redis and in the broker
    Memory(memory::Memory),
    /// Measures how the broker's costs grow, and whom a run can disturb
    Scale(Box<scale::Scale>),
    /// Measures how long many hubs take to have what they missed
    Resync(resync::Resync),
}

/// Where results go beside standard output.
#[derive(Debug, clap::Args)]
struct Outputs {
    /// Also write the result there, as JSON
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// Also draw the result, as SVG into this directory
    #[arg(long, value_name = "DIR")]
    plot: Option<PathBuf>,
}

impl Outputs {
    fn write<R: Display + Serialize>(
        &self,
        result: &R,
        plot: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        println!("{result}");
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(result)?;
            fs::write(path, text + "\n")
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        self.plot.as_deref().map_or(Ok(()), plot)
    }
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    process::raise_open_files_limit()?;
    match cli.command {
        Command::Run { plan, outputs } => {
            let report = load::run(&plan)?;
            outputs.write(&report, |dir| plot::over_time(&report, dir))
        }
        Command::Sweep { sweep, outputs } => {
            let swept = sweep.run()?;
            outputs.write(&swept, |dir| swept.plot(dir))
        }
        Command::BareLoop(bare_loop) => bare_loop.serve(),
        Command::Bench(bench) => bench.run(),
        Command::Scale(scale) => scale.run(),
        Command::PublishCost(plan) => {
            println!("{}", plan.run()?);
            Ok(())
        }
        Command::Memory(plan) => {
            println!("{}", plan.run()?);
            Ok(())
        }
        Command::Resync(plan) => {
            println!("{}", plan.run()?);
            Ok(())
        }
    }
}
