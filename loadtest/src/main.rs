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
mod process;
mod publish_cost;
mod publisher;
mod report;
mod resync;
mod sequence;
mod servers;
mod sse;
mod stamp;
mod subscribers;
mod totals;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

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
        /// Also write the result there, as JSON
        #[arg(long, value_name = "PATH")]
        json: Option<PathBuf>,
    },
    /// Serves streams with the least work possible: the floor to compare with
    BareLoop(bare_loop::BareLoop),
    /// Measures a broker and the bare loop side by side
    Bench(bench::Bench),
    /// Measures what an event costs Redis, durable beside plain
    PublishCost(publish_cost::PublishCost),
    /// Measures what runs with a history take, in Redis and in the broker
    Memory(memory::Memory),
    /// Measures how long many hubs take to have what they missed
    Resync(resync::Resync),
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    process::raise_open_files_limit()?;
    match cli.command {
        Command::Run { plan, json } => {
            let report = load::run(&plan)?;
            println!("{report}");
            if let Some(path) = json {
                let text = serde_json::to_string_pretty(&report)?;
                fs::write(&path, text + "\n")
                    .with_context(|| format!("cannot write {}", path.display()))?;
            }
            Ok(())
        }
        Command::BareLoop(bare_loop) => bare_loop.serve(),
        Command::Bench(bench) => bench.run(),
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
