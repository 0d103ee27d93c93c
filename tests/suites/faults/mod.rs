//! `make faults`: random faults against three built brokers on a real
//! redis-server with a replica, and every client's streams held against what
//! Redis accepted.
//!
//! | variable | |
//! |---|---|
//! | `RUNCAST_FAULTS_SECONDS` | for how long trials are begun |
//! | `RUNCAST_FAULTS_TRIALS` | how many there are at most |
//! | `RUNCAST_SEED` | repeats the draws of a run, not the timing of processes |
//! | `RUNCAST_FAULTS_TRIAL` | the first trial, to look at one that failed |
//! | `RUNCAST_FAULTS_PARALLEL` | how many worlds there are at once |
//! | `RUNCAST_FAULTS_REPORT` | a document that has a place for the report |
//!
//! docs/reliability.md says what is promised.

mod checker;
mod client;
mod document;
mod fault;
mod history;
mod id;
mod ledger;
pub(crate) mod proxy;
mod publisher;
mod redis_pair;
mod run;
mod seen;
pub(crate) mod silent;
mod sum;
mod trial;
mod world;

use std::panic::AssertUnwindSafe;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::LocalSet;

use self::sum::Sum;
use super::{number_from_env, report};

/// Far more than a trial takes: it hangs.
const TRIAL_MAX: Duration = Duration::from_secs(120);

#[test]
fn faults() {
    let plan = Plan::from_env();
    let sum = plan.run();
    sum.stories().for_each(report);
    sum.sorts().for_each(|line| report(&line));
    let table = sum.markdown(&plan);
    report(&table);
    if let Ok(path) = std::env::var("RUNCAST_FAULTS_REPORT") {
        document::write_into(&path, "faults", &table);
    }
    assert_eq!(sum.violations(), 0, "see above");
}

/// Shows what each safeguard of the broker is for: without it, the same trials
/// must find what clients then lose.
#[cfg(feature = "fault-switches")]
#[test]
fn safeguards() {
    let mut table = document::safeguards_head();
    let mut unneeded = Vec::new();
    for safeguard in document::SAFEGUARDS {
        let mut plan = Plan::from_env();
        plan.switched_off = Some(safeguard);
        let sum = plan.run();
        sum.sorts().for_each(|line| report(&line));
        table.push_str(&document::safeguards_row(&plan, &sum));
        if sum.violations() == 0 {
            unneeded.push(safeguard);
        }
    }
    report(&table);
    if let Ok(path) = std::env::var("RUNCAST_FAULTS_REPORT") {
        document::write_into(&path, "safeguards", &table);
    }
    assert!(
        unneeded.is_empty(),
        "nothing was found without {unneeded:?}"
    );
}

/// What to run.
#[derive(Debug)]
struct Plan {
    seed: u64,
    first: u64,
    trials: u64,
    parallel: u64,
    until: Instant,
    begin: Instant,
    /// A safeguard that the brokers lack.
    switched_off: Option<&'static str>,
}

impl Plan {
    fn from_env() -> Self {
        let begin = Instant::now();
        let seconds = number_from_env("RUNCAST_FAULTS_SECONDS", 35);
        Self {
            seed: number_from_env("RUNCAST_SEED", 1),
            first: number_from_env("RUNCAST_FAULTS_TRIAL", 0),
            trials: number_from_env("RUNCAST_FAULTS_TRIALS", u64::MAX),
            parallel: number_from_env("RUNCAST_FAULTS_PARALLEL", 4),
            until: begin + Duration::from_secs(seconds),
            begin,
            switched_off: None,
        }
    }

    /// Runs all trials, some at once.
    fn run(&self) -> Sum {
        report(&format!("faults: {self:?}"));
        let sum = Mutex::new(Sum::default());
        let next = AtomicU64::new(self.first);
        std::thread::scope(|scope| {
            for _ in 0..self.parallel {
                scope.spawn(|| self.run_trials(&next, &sum));
            }
        });
        sum.into_inner().expect("no trial panics with it")
    }

    /// Runs one trial after the other, on a thread of its own.
    fn run_trials(&self, next: &AtomicU64, sum: &Mutex<Sum>) {
        while Instant::now() < self.until {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number - self.first >= self.trials {
                return;
            }
            // A trial that cannot go on fails; the others go on.
            let ended = std::panic::catch_unwind(AssertUnwindSafe(|| self.run_trial(number)));
            let mut sum = sum.lock().expect("no trial panics with it");
            match ended {
                Ok(outcomes) => sum.add(outcomes),
                Err(panic) => sum.broke(number, &panic),
            }
            if sum.trials.is_multiple_of(25) {
                report(&sum.progress(self.begin.elapsed()));
            }
        }
    }

    fn run_trial(&self, number: u64) -> trial::Outcomes {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime starts");
        let trial = trial::run(self.seed, number, self.switched_off);
        let trial = async {
            let ended = tokio::time::timeout(TRIAL_MAX, trial).await;
            ended.expect("a trial comes to its end")
        };
        LocalSet::new().block_on(&runtime, trial)
    }
}
