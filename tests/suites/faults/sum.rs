//! [`Sum`]: what all trials came to.

use std::any::Any;
use std::collections::BTreeMap;
use std::time::Duration;

use super::fault::{Class, Fault};
use super::seen::{Column, Tally};
use super::trial::Outcomes;

/// Stories printed at most; the file has all.
const STORIES_MAX: usize = 30;

/// All trials of one run.
#[derive(Default)]
pub(crate) struct Sum {
    pub(crate) trials: u64,
    pub(crate) classes: BTreeMap<Class, ClassSum>,
    pub(crate) faults: BTreeMap<Fault, u64>,
    /// Violations by class, sort of run and exact violation.
    sorts: BTreeMap<String, u64>,
    stories: Vec<String>,
    /// Trials that could not be brought to their end.
    pub(crate) broken: u64,
}

/// The trials of one class.
#[derive(Default)]
pub(crate) struct ClassSum {
    pub(crate) trials: u64,
    pub(crate) faults: u64,
    pub(crate) published: u64,
    pub(crate) forgotten: u64,
    pub(crate) clients: u64,
    pub(crate) tally: Tally,
    pub(crate) durable_gaps: BTreeMap<String, u64>,
    pub(crate) violations: BTreeMap<Column, u64>,
}

impl Sum {
    pub(crate) fn add(&mut self, outcomes: Outcomes) {
        self.trials += 1;
        let class = self.classes.entry(outcomes.class).or_default();
        class.trials += 1;
        class.faults += outcomes.faults.values().sum::<u64>();
        class.published += outcomes.published;
        class.forgotten += outcomes.forgotten;
        class.clients += outcomes.clients;
        class.tally.add(&outcomes.tally);
        add_all(&mut class.durable_gaps, &outcomes.durable_gaps);
        add_all(&mut class.violations, &outcomes.violations);
        add_all(&mut self.faults, &outcomes.faults);
        for (sort, count) in &outcomes.sorts {
            let sort = format!("{:?} {sort}", outcomes.class);
            *self.sorts.entry(sort).or_default() += count;
        }
        self.stories.extend(outcomes.stories);
    }

    /// Takes note of a trial that panicked.
    pub(crate) fn broke(&mut self, number: u64, panic: &(dyn Any + Send)) {
        self.trials += 1;
        self.broken += 1;
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        let text = text.unwrap_or("no words");
        self.stories.push(format!("trial {number} broke: {text}"));
    }

    /// Returns how much was found that must not be.
    pub(crate) fn violations(&self) -> u64 {
        let found = self
            .classes
            .values()
            .flat_map(|class| class.violations.values());
        self.broken + found.sum::<u64>()
    }

    /// Writes all stories into a file; returns its path and the first of them.
    pub(crate) fn stories(&self) -> impl Iterator<Item = &str> {
        const PATH: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/faults.txt");
        std::fs::write(PATH, self.stories.join("\n")).expect("the directory is there");
        std::iter::once(PATH).chain(self.stories.iter().map(String::as_str).take(STORIES_MAX))
    }

    /// Returns how often each violation was found, a line each.
    pub(crate) fn sorts(&self) -> impl Iterator<Item = String> {
        self.sorts
            .iter()
            .map(|(sort, count)| format!("{count:>6} {sort}"))
    }

    pub(crate) fn progress(&self, after: Duration) -> String {
        let deliveries: u64 = self.classes.values().map(|one| one.tally.deliveries).sum();
        format!(
            "{:>5} s: {} trials, {deliveries} deliveries, {} violations",
            after.as_secs(),
            self.trials,
            self.violations()
        )
    }
}

fn add_all<K: Ord + Clone>(to: &mut BTreeMap<K, u64>, counts: &BTreeMap<K, u64>) {
    for (key, count) in counts {
        *to.entry(key.clone()).or_default() += count;
    }
}
