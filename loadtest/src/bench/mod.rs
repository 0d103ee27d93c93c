//! [`Bench`]: the figures of `docs/performance.md`, measured in one go.
//!
//! Each cell gets a server process of its own, so that no cell pays for what
//! another left behind. Every load is put on all servers in turn, several
//! times, so that their ratios hold whatever else the machine is doing.

mod cell;
mod document;
mod part;
mod plots;
mod system;
mod target;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum as _;
use serde::Serialize;

use self::cell::{Cell, Figure};
use self::part::{Part, Scale};
use self::system::{Programs, System};
use self::target::Verdict;
use crate::load;
use crate::memory::{Bytes, Memory};
use crate::publish_cost::{Costs, PublishCost};
use crate::report::LoadReport;
use crate::resync::{Resync, Resynced};
use crate::section;
use crate::servers::{Redis, Server};

/// Times the broker is started for its start-up time.
const STARTS: usize = 9;

/// Between two loads: servers that ended a moment ago still give back their
/// sockets and memory.
const PAUSE: Duration = Duration::from_millis(500);

/// Puts the same loads on the broker and on its peers in turn.
#[derive(Debug, clap::Args)]
pub(crate) struct Bench {
    /// The broker's program, a release build
    #[arg(long, default_value = "target/release/runcast")]
    broker: PathBuf,
    /// A Python interpreter with what the Python peers need
    #[arg(long, default_value = "target/bench-venv/bin/python")]
    python: PathBuf,
    /// Document whose figures are replaced, between its two markers
    #[arg(long, conflicts_with_all = ["parts", "systems"])]
    document: Option<PathBuf>,
    /// Also draw the results, as SVG into this directory
    #[arg(long)]
    plot: Option<PathBuf>,
    /// Also write all results there, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Only these loads, and nothing but loads; all by default
    #[arg(long, value_delimiter = ',', value_enum)]
    parts: Vec<Part>,
    /// Only these servers; all by default
    #[arg(long, value_delimiter = ',', value_enum)]
    systems: Vec<System>,
    /// Times each load is put on what the targets compare; the median is shown
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// What else a reader of the figures should know
    #[arg(long)]
    note: Option<String>,
    /// How long each is measured
    #[arg(long, default_value = "3s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Divide the numbers of clients and runs of the loads by this
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    fewer: u16,
    /// Runs of the measures of memory and of resync; a tenth of them is watched
    /// for the memory
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(10..))]
    many: u32,
}

/// Everything measured.
#[derive(Debug, Default, Serialize)]
struct Results {
    /// What measuring took, without the pauses.
    seconds: f64,
    verdicts: Vec<Verdict>,
    cells: Vec<Cell>,
    ours: Option<Ours>,
}

/// What is measured of the broker alone.
#[derive(Debug, Serialize)]
struct Ours {
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
    /// Also when the broker or the bare loop lost, doubled or disordered a
    /// message: its other figures mean nothing then.
    pub(crate) fn run(&self) -> Result<()> {
        let redis = Redis::start()?;
        let mut results = Results::default();
        for part in self.parts() {
            begin(part.title());
            let started = Instant::now();
            results.cells.extend(self.part(part, &redis)?);
            results.seconds += started.elapsed().as_secs_f64();
        }
        if self.parts.is_empty() {
            begin("the broker alone: publish cost, memory, resync, start-up");
            let started = Instant::now();
            results.ours = Some(self.ours(&redis)?);
            results.seconds += started.elapsed().as_secs_f64();
        }
        results.verdicts = target::verdicts(&results);
        let figures = document::figures(&results, self.note.as_deref());
        println!("{figures}");
        if let Some(path) = &self.json {
            fs::write(path, serde_json::to_string_pretty(&results)? + "\n")?;
        }
        if let Some(path) = &self.document {
            let text = fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            fs::write(
                path,
                section::replace(&text, "figures", "make bench", &figures)?,
            )?;
        }
        if let Some(dir) = &self.plot {
            plots::write(&results, dir)?;
        }
        results.check()
    }

    fn parts(&self) -> Vec<Part> {
        if self.parts.is_empty() {
            Part::value_variants().to_vec()
        } else {
            self.parts.clone()
        }
    }

    fn systems(&self) -> Vec<System> {
        if self.systems.is_empty() {
            System::value_variants().to_vec()
        } else {
            self.systems.clone()
        }
    }

    /// Puts one load on each system in turn, and again.
    fn part(&self, part: Part, redis: &Redis) -> Result<Vec<Cell>> {
        let mut cells: Vec<Cell> = Vec::new();
        for round in 0..self.rounds {
            for system in self.systems() {
                if round < part.rounds(system, self.rounds) {
                    for report in self.measure(part, system, redis)? {
                        add(&mut cells, part, system, report);
                    }
                }
            }
        }
        Ok(cells)
    }

    fn measure(&self, part: Part, system: System, redis: &Redis) -> Result<Vec<LoadReport>> {
        let programs = Programs {
            broker: self.broker.clone(),
            python: self.python.clone(),
        };
        let scale = Scale {
            fewer: usize::from(self.fewer),
            duration: self.duration,
        };
        let mut reports = Vec::new();
        for load in part.loads(system, &scale) {
            let started = Instant::now();
            let server = system
                .start(&programs, redis)
                .with_context(|| format!("starting {}", system.name()))?;
            let plan = system.aim(load, &server, redis);
            let report =
                load::run(&plan).with_context(|| format!("measuring {}", system.name()))?;
            drop(server);
            let took = started.elapsed().as_secs_f64();
            eprintln!("{took:4.1} s {}", in_a_line(part, system, &report));
            reports.push(report);
        }
        Ok(reports)
    }

    fn ours(&self, redis: &Redis) -> Result<Ours> {
        Ok(Ours {
            publish: self.publish_cost()?,
            memory: self.memory()?,
            resync: self.resync()?,
            start_up_ms: self.start_up_ms(redis)?,
            binary_bytes: fs::metadata(&self.broker)?.len(),
        })
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
            let server = Server::broker(&self.broker, redis, &[])?;
            times.push(server.time_to_first_answer("/health/live")?);
        }
        times.sort_unstable();
        Ok(times[STARTS / 2].as_secs_f64() * 1e3)
    }
}

/// Says what comes next, after a pause.
fn begin(what: &str) {
    eprintln!("# {what}");
    std::thread::sleep(PAUSE);
}

/// Puts a report to those of the same system and load.
fn add(cells: &mut Vec<Cell>, part: Part, system: System, report: LoadReport) {
    let same = |cell: &&mut Cell| {
        (cell.part, cell.system, cell.subscribers()) == (part, system, report.subscribers)
    };
    if let Some(cell) = cells.iter_mut().find(same) {
        cell.rounds.push(report);
    } else {
        cells.push(Cell {
            part,
            system,
            rounds: vec![report],
        });
    }
}

/// Tells how a measure went, for who waits for all of them.
fn in_a_line(part: Part, system: System, report: &LoadReport) -> String {
    let shown = [
        Figure::PerSecond,
        Figure::P99,
        Figure::Cpu,
        Figure::Served,
        Figure::Rss,
        Figure::Accept,
    ];
    let figures = shown.into_iter().filter_map(|figure| {
        let value = figure.of(report)?;
        Some(format!("{} {}", figure.name(), figure.show(Some(value))))
    });
    let fault = report.fault().map(|fault| format!("; {fault}"));
    format!(
        "{part:?}, {} clients: {}: {}{}",
        report.subscribers,
        system.name(),
        figures.collect::<Vec<_>>().join(", "),
        fault.unwrap_or_default()
    )
}

impl Results {
    /// Returns the loads that were measured, in the order of the tables.
    fn parts(&self) -> impl Iterator<Item = Part> {
        let is_measured = |part: &Part| self.cells.iter().any(|cell| cell.part == *part);
        Part::value_variants().iter().copied().filter(is_measured)
    }

    /// Returns the cell of a system under a load of a single size.
    fn cell(&self, part: Part, system: System) -> Option<&Cell> {
        let is_it = |cell: &&Cell| (cell.part, cell.system) == (part, system);
        self.cells.iter().find(is_it)
    }

    fn median(&self, part: Part, system: System, figure: Figure) -> Option<f64> {
        self.cell(part, system)?.median(figure)
    }

    /// Whether a message was lost, or worse, so that no figure counts.
    fn is_faulty(&self, part: Part, system: System) -> bool {
        let cell = self.cell(part, system);
        cell.is_some_and(|cell| cell.fault().is_some())
    }

    fn check(&self) -> Result<()> {
        for cell in &self.cells {
            let Cell { part, system, .. } = cell;
            if system.is_ours() && cell.rounds.iter().any(LoadReport::reads_needlessly) {
                bail!("{} read the store under load", system.name());
            }
            // It keeps nothing for who comes back.
            let may_lose = *part == Part::DropAll && !system.is_ours();
            let is_checked = system.is_ours() || *system == System::BareLoop;
            if let Some(fault) = cell.fault()
                && is_checked
                && !may_lose
            {
                bail!("{} in {part:?} {fault}", system.name());
            }
        }
        Ok(())
    }

    /// The most CPU that other programs took from any cell; 100 is one core.
    fn others_cpu_percent(&self) -> f64 {
        let rounds = self.cells.iter().flat_map(|cell| &cell.rounds);
        rounds
            .map(|round| round.others_cpu_percent)
            .fold(0.0, f64::max)
    }
}
