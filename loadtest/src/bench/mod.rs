//! [`Bench`]: the figures of `docs/performance.md`, measured in one go.
//!
//! Each cell gets a server process of its own, so that no cell pays for what
//! another left behind, and the bare loop is measured between the broker's
//! cells, so that their ratio holds whatever else the machine is doing.

mod document;

use std::path::PathBuf;
use std::time::Duration;
use std::{fs, io};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use crate::load::{self, LoadPlan, Rate};
use crate::memory::{Bytes, Memory};
use crate::publish_cost::{Costs, PublishCost};
use crate::report::LoadReport;
use crate::resync::{Resync, Resynced};
use crate::servers::{Redis, Server};

/// Streams on one run in the fan-out cells.
const FAN_OUT: [usize; 3] = [1, 100, 1_000];

/// Streams in the idle cells.
const IDLE_STREAMS: usize = 10_000;

/// Times the broker is started for its start-up time.
const STARTS: usize = 9;

/// Starts Redis, the broker and the bare loop, and measures them in turn.
#[derive(Debug, clap::Args)]
pub(crate) struct Bench {
    /// The broker's program, a release build
    #[arg(long, default_value = "target/release/runcast")]
    broker: PathBuf,
    /// Document whose figures are replaced, between its two markers
    #[arg(long)]
    document: Option<PathBuf>,
    /// Also write all results there, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Times each fan-out cell is measured; the quietest is shown
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// What else a reader of the figures should know
    #[arg(long)]
    note: Option<String>,
    /// How long each is measured
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Runs of the measures of memory and of resync; a tenth of them is watched
    /// for the memory
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(10..))]
    many: u32,
}

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum System {
    /// [`crate::bare_loop`].
    BareLoop,
    /// The broker as it comes.
    Runcast,
    /// The broker with `hub.max_flush_delay = 0`.
    RuncastUnpaced,
    /// The broker as it comes, with durable events.
    RuncastDurable,
}

impl System {
    const ALL: [Self; 4] = [
        Self::BareLoop,
        Self::Runcast,
        Self::RuncastUnpaced,
        Self::RuncastDurable,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::BareLoop => "bare loop",
            Self::Runcast => "Runcast",
            Self::RuncastUnpaced => "Runcast, unpaced",
            Self::RuncastDurable => "Runcast, durable events",
        }
    }
}

/// One load on one system.
#[derive(Debug, Serialize)]
struct Cell {
    system: System,
    report: LoadReport,
}

/// Everything measured.
#[derive(Debug, Serialize)]
struct Results {
    fan_out: Vec<Cell>,
    idle: Vec<Cell>,
    publish: Costs,
    memory: Bytes,
    resync: Resynced,
    start_up_ms: f64,
    binary_bytes: u64,
}

impl Bench {
    /// Measures, prints and writes.
    ///
    /// # Errors
    /// Also when a server lost, doubled or disordered a message: its other
    /// figures mean nothing then.
    pub(crate) fn run(&self) -> Result<()> {
        let redis = Redis::start()?;
        let results = Results {
            start_up_ms: self.start_up_ms(&redis)?,
            binary_bytes: fs::metadata(&self.broker)?.len(),
            fan_out: self.fan_out(&redis)?,
            idle: self.idle(&redis)?,
            publish: self.publish_cost()?,
            memory: self.memory()?,
            resync: self.resync()?,
        };
        let figures = document::figures(&results, self.note.as_deref());
        println!("{figures}");
        if let Some(path) = &self.json {
            fs::write(path, serde_json::to_string_pretty(&results)? + "\n")?;
        }
        if let Some(path) = &self.document {
            let text = fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            fs::write(path, document::replace(&text, &figures)?)?;
        }
        results.check()
    }

    fn start(&self, system: System, redis: &Redis) -> Result<Server> {
        match system {
            System::BareLoop => Server::bare_loop(redis),
            System::Runcast | System::RuncastDurable => Server::broker(&self.broker, redis, &[]),
            System::RuncastUnpaced => {
                let unpaced = [("RUNCAST__HUB__MAX_FLUSH_DELAY", "0s")];
                Server::broker(&self.broker, redis, &unpaced)
            }
        }
    }

    fn cell(&self, system: System, redis: &Redis, load: LoadPlan) -> Result<Cell> {
        let server = self.start(system, redis)?;
        if system != System::BareLoop {
            server.wait_ready()?;
        }
        let plan = LoadPlan {
            url: server.url(),
            redis: redis.url.clone(),
            durable: system == System::RuncastDurable,
            pid: vec![server.pid()],
            ..load
        };
        let report = load::run(&plan).with_context(|| format!("measuring {}", system.name()))?;
        eprintln!("{}\n{report}\n", system.name());
        Ok(Cell { system, report })
    }

    fn fan_out(&self, redis: &Redis) -> Result<Vec<Cell>> {
        let mut cells = Vec::new();
        for subscribers in FAN_OUT {
            let mut rounds: [Vec<Cell>; 4] = Default::default();
            for _ in 0..self.rounds {
                for (system, rounds) in System::ALL.into_iter().zip(&mut rounds) {
                    let load = LoadPlan {
                        subscribers,
                        warmup: Duration::from_secs(1),
                        duration: self.duration,
                        ..LoadPlan::default()
                    };
                    rounds.push(self.cell(system, redis, load)?);
                }
            }
            cells.extend(rounds.into_iter().filter_map(quietest));
        }
        Ok(cells)
    }

    fn idle(&self, redis: &Redis) -> Result<Vec<Cell>> {
        let mut cells = Vec::new();
        for runs in [1, IDLE_STREAMS] {
            let load = LoadPlan {
                subscribers: IDLE_STREAMS,
                runs,
                rate: Rate::PerSecond(0.0),
                duration: Duration::from_secs(5),
                ..LoadPlan::default()
            };
            cells.push(self.cell(System::Runcast, redis, load)?);
        }
        Ok(cells)
    }

    fn publish_cost(&self) -> Result<Costs> {
        let plan = PublishCost {
            broker: self.broker.clone(),
            rounds: self.rounds,
            duration: self.duration.min(Duration::from_secs(2)),
            ..PublishCost::default()
        };
        plan.run().context("measuring the cost of a publish")
    }

    fn memory(&self) -> Result<Bytes> {
        let plan = Memory {
            broker: self.broker.clone(),
            runs: self.many,
            watched: self.many / 10,
            ..Memory::default()
        };
        plan.run().context("measuring memory")
    }

    fn resync(&self) -> Result<Resynced> {
        let plan = Resync {
            broker: self.broker.clone(),
            runs: self.many,
            ..Resync::default()
        };
        plan.run().context("measuring a resync")
    }

    fn start_up_ms(&self, redis: &Redis) -> Result<f64> {
        let mut times = Vec::new();
        for _ in 0..STARTS {
            let server = self.start(System::Runcast, redis)?;
            times.push(server.time_to_first_answer("/health/live")?);
        }
        times.sort_unstable();
        Ok(times[STARTS / 2].as_secs_f64() * 1e3)
    }
}

/// Returns the cell during which other programs did least; any cell that went
/// wrong wins, so that it cannot hide behind two good ones.
fn quietest(mut cells: Vec<Cell>) -> Option<Cell> {
    if let Some(at) = cells.iter().position(|cell| cell.report.fault().is_some()) {
        return Some(cells.swap_remove(at));
    }
    let others = |cell: &Cell| cell.report.others_cpu_percent;
    cells
        .into_iter()
        .min_by(|a, b| others(a).total_cmp(&others(b)))
}

impl Results {
    fn check(&self) -> Result<()> {
        for Cell { system, report } in self.fan_out.iter().chain(&self.idle) {
            if report.reads_needlessly() {
                bail!("{} read the store under load", system.name());
            }
            if let Some(fault) = report.fault() {
                bail!(
                    "{} with {} streams {fault}",
                    system.name(),
                    report.subscribers
                );
            }
        }
        Ok(())
    }

    /// The most CPU that other programs took from any cell; 100 is one core.
    fn others_cpu_percent(&self) -> f64 {
        let cells = self.fan_out.iter().chain(&self.idle);
        cells
            .map(|cell| cell.report.others_cpu_percent)
            .fold(0.0, f64::max)
    }

    /// The cost of the bare loop under the same load.
    fn floor(&self, subscribers: usize) -> Option<f64> {
        let same = |cell: &&Cell| {
            cell.system == System::BareLoop && cell.report.subscribers == subscribers
        };
        self.fan_out.iter().find(same)?.report.cpu_us_per_delivery()
    }
}

/// Returns the first line a program prints.
fn first_line_of(program: &str, args: &[&str]) -> io::Result<String> {
    let output = std::process::Command::new(program).args(args).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
