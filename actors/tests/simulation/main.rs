//! A seeded simulation of a run's durable order: a store with all that can
//! befall it, hubs with their core and log, clients with theirs.
//!
//! `make simulate` runs many seeds; `SEED=n make simulate` runs one again and
//! prints each step.

mod checker;
mod client;
mod driver;
mod hub;
mod log;
mod store;

use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use runcast_actors::order::Safeguards;

use crate::driver::World;

/// Steps of every seed.
const STEPS: usize = 1000;
/// Seeds of a plain `cargo test`.
const SEEDS: u64 = 3000;
/// Seeds with a safeguard off.
const SEEDS_UNSAFE: u64 = 500;

fn say(text: &str) {
    writeln!(std::io::stderr(), "{text}").expect("stderr");
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    )
}

fn run(seed: u64, safeguards: Safeguards, trace: Option<fn(&str)>) -> Result<(), String> {
    World::new(seed, safeguards, trace)
        .run(STEPS)
        .map_err(|problem| format!("SEED={seed}: {problem}"))
}

/// Runs seeds on all cores; returns the problems found.
fn run_all(seeds: u64, safeguards: Safeguards) -> Vec<String> {
    let next = AtomicU64::new(1);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut problems = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores)
            .map(|_| {
                scope.spawn(|| {
                    let seeds = std::iter::from_fn(|| {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        (seed <= seeds).then_some(seed)
                    });
                    seeds
                        .filter_map(|seed| run(seed, safeguards, None).err())
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        let found = workers
            .into_iter()
            .flat_map(|worker| worker.join().expect("no panic"));
        found.collect::<Vec<_>>()
    });
    problems.sort();
    problems
}

#[test]
fn nothing_is_lost_in_silence() {
    if let Some(seed) = number("SEED") {
        run(seed, Safeguards::default(), Some(say)).expect("no problem");
        return;
    }
    let seeds = number("SEEDS").unwrap_or(SEEDS);
    let started = Instant::now();
    let problems = run_all(seeds, Safeguards::default());
    say(&format!(
        "{seeds} seeds of {STEPS} steps in {:.1?}",
        started.elapsed()
    ));
    let some = problems.iter().take(20).cloned().collect::<Vec<_>>();
    assert!(
        problems.is_empty(),
        "{} seeds:\n{}",
        problems.len(),
        some.join("\n")
    );
}

#[test]
fn each_safeguard_is_needed() {
    let all = Safeguards::default();
    let cases = [
        (
            "position check",
            Safeguards {
                position_check: false,
                ..all
            },
        ),
        (
            "us check",
            Safeguards {
                us_check: false,
                ..all
            },
        ),
        (
            "sync on hole",
            Safeguards {
                sync_on_hole: false,
                ..all
            },
        ),
        (
            "attach before read",
            Safeguards {
                attach_before_read: false,
                ..all
            },
        ),
    ];
    for (name, safeguards) in cases {
        let problems = run_all(SEEDS_UNSAFE, safeguards);
        say(&format!(
            "without {name}: {} of {SEEDS_UNSAFE} seeds fail",
            problems.len()
        ));
        assert!(!problems.is_empty(), "{name} is not needed");
    }
}
