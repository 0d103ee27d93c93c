//! [`Sum`]: what all trials came to, as a table.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::Plan;
use super::fault::{Class, Fault};
use super::seen::{Column, Tally};
use super::trial::Outcomes;

/// Stories printed at most; the file has all.
const STORIES_MAX: usize = 30;

/// All trials of one run.
#[derive(Default)]
pub(crate) struct Sum {
    pub(crate) trials: u64,
    classes: BTreeMap<Class, ClassSum>,
    faults: BTreeMap<Fault, u64>,
    /// Violations by class, sort of run and exact violation.
    sorts: BTreeMap<String, u64>,
    stories: Vec<String>,
    /// Trials that could not be brought to their end.
    broken: u64,
}

#[derive(Default)]
struct ClassSum {
    trials: u64,
    faults: u64,
    published: u64,
    forgotten: u64,
    clients: u64,
    tally: Tally,
    durable_gaps: BTreeMap<String, u64>,
    violations: BTreeMap<Column, u64>,
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

    /// Returns the report, as it stands in docs/reliability.md.
    pub(crate) fn markdown(&self, plan: &Plan) -> String {
        let mut text = String::new();
        let seconds = plan.begin.elapsed().as_secs();
        let without = match &plan.switched_off {
            None => String::new(),
            Some(safeguards) => format!(", without {safeguards}"),
        };
        let seed = plan.seed;
        self.write(&mut text, &format!("Seed {seed}, {seconds} s{without}."))
            .expect("a string takes all");
        text
    }

    fn write(&self, out: &mut String, head: &str) -> std::fmt::Result {
        let classes: Vec<&Class> = Class::ALL
            .iter()
            .filter(|class| self.classes.contains_key(class))
            .collect();
        writeln!(out, "{head}\n")?;
        write!(out, "|")?;
        for class in &classes {
            write!(out, " | {class}")?;
        }
        writeln!(out, " | all |\n|---|{}", "---|".repeat(classes.len() + 1))?;
        self.row(out, "trials", &classes, |one| one.trials)?;
        self.row(out, "faults", &classes, |one| one.faults)?;
        self.row(out, "events published", &classes, |one| one.published)?;
        self.row(out, "… accepted, not kept by Redis", &classes, |one| {
            one.forgotten
        })?;
        self.row(out, "clients", &classes, |one| one.clients)?;
        self.row(out, "streams", &classes, |one| one.tally.streams)?;
        self.row(out, "**deliveries**", &classes, |one| one.tally.deliveries)?;
        for reason in self.reasons() {
            let name = format!("gaps `{reason}`");
            self.row(out, &name, &classes, |one| of(&one.tally.gaps, &reason))?;
            let durable = |one: &ClassSum| of(&one.durable_gaps, &reason);
            self.row(out, "… in durable runs", &classes, durable)?;
        }
        let told = |one: &ClassSum| one.tally.told_missing;
        self.row(out, "missing and told", &classes, told)?;
        let compared = |one: &ClassSum| one.tally.counts_checked;
        self.row(out, "counts and ranges compared", &classes, compared)?;
        let beyond = |one: &ClassSum| one.tally.beyond_promise;
        self.row(out, "plain events beyond the promise", &classes, beyond)?;
        for column in Column::ALL {
            let name = format!("**{column}**");
            self.row(out, &name, &classes, |one| of(&one.violations, &column))?;
        }
        if self.broken > 0 {
            writeln!(out, "\n{} trials broke.", self.broken)?;
        }
        writeln!(out, "\n| fault | times |\n|---|---|")?;
        for (fault, count) in &self.faults {
            writeln!(out, "| {} | {count} |", fault.words())?;
        }
        Ok(())
    }

    fn row(
        &self,
        out: &mut String,
        name: &str,
        classes: &[&Class],
        value: impl Fn(&ClassSum) -> u64,
    ) -> std::fmt::Result {
        let values: Vec<u64> = classes
            .iter()
            .map(|one| value(&self.classes[one]))
            .collect();
        write!(out, "| {name} |")?;
        for value in &values {
            write!(out, " {} |", grouped(*value))?;
        }
        writeln!(out, " {} |", grouped(values.iter().sum()))
    }

    fn reasons(&self) -> Vec<String> {
        let mut reasons: Vec<String> = self
            .classes
            .values()
            .flat_map(|one| one.tally.gaps.keys().cloned())
            .collect();
        reasons.sort();
        reasons.dedup();
        reasons
    }
}

fn of<K: Ord>(counts: &BTreeMap<K, u64>, key: &K) -> u64 {
    counts.get(key).copied().unwrap_or(0)
}

fn add_all<K: Ord + Clone>(to: &mut BTreeMap<K, u64>, counts: &BTreeMap<K, u64>) {
    for (key, count) in counts {
        *to.entry(key.clone()).or_default() += count;
    }
}

/// Writes a number with commas between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Puts a report in its place in a document: between `<!-- <name> -->` and
/// `<!-- end of <name> -->`.
pub(crate) fn write_into(path: &str, name: &str, report: &str) {
    let text = std::fs::read_to_string(path).unwrap_or_else(|why| panic!("{path}: {why}"));
    let (begin, end) = (
        format!("<!-- {name} -->\n"),
        format!("<!-- end of {name} -->"),
    );
    let place = text.find(&begin).zip(text.find(&end));
    let (from, to) = place.unwrap_or_else(|| panic!("{path} has no place for {name}"));
    let (head, tail) = (&text[..from + begin.len()], &text[to..]);
    std::fs::write(path, format!("{head}{report}{tail}"))
        .unwrap_or_else(|why| panic!("{path}: {why}"));
}
