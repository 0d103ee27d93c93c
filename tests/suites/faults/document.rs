//! The reports as they stand in docs/reliability.md.

use std::collections::BTreeMap;
use std::fmt::{Result, Write as _};

use super::Plan;
use super::seen::Column;
use super::sum::{ClassSum, Sum};

/// What the brokers can be told to do without, by `RUNCAST_FAULT_OFF`.
#[cfg(feature = "fault-switches")]
pub(crate) const SAFEGUARDS: [&str; 4] = [
    "position_check",
    "us_check",
    "sync_on_hole",
    "attach_before_read",
];

impl Sum {
    /// Returns the report of a run.
    pub(crate) fn markdown(&self, plan: &Plan) -> String {
        let mut text = String::new();
        self.write(&mut text, plan).expect("a string takes all");
        text
    }

    fn write(&self, out: &mut String, plan: &Plan) -> Result {
        let seconds = plan.begin.elapsed().as_secs();
        writeln!(out, "Seed {}, {seconds} s.\n", plan.seed)?;
        self.write_classes(out)?;
        if self.broken > 0 {
            writeln!(out, "\n{} trials broke.", self.broken)?;
        }
        writeln!(out, "\n| fault | times |\n|---|---|")?;
        for (fault, count) in &self.faults {
            writeln!(out, "| {} | {} |", fault.words(), grouped(*count))?;
        }
        Ok(())
    }

    fn write_classes(&self, out: &mut String) -> Result {
        write!(out, "|")?;
        for class in self.classes.keys() {
            write!(out, " | {class}")?;
        }
        let columns = "---|".repeat(self.classes.len() + 1);
        writeln!(out, " | all |\n|---|{columns}")?;
        self.row(out, "trials", |one| one.trials)?;
        self.row(out, "faults", |one| one.faults)?;
        self.row(out, "events published", |one| one.published)?;
        self.row(out, "… accepted, forgotten by Redis", |one| one.forgotten)?;
        self.row(out, "clients", |one| one.clients)?;
        self.row(out, "streams", |one| one.tally.streams)?;
        self.row(out, "**deliveries**", |one| one.tally.deliveries)?;
        self.write_gaps(out)?;
        self.row(out, "missing and told", |one| one.tally.told_missing)?;
        self.row(out, "counts compared", |one| one.tally.counts_checked)?;
        self.row(out, "… too small behind a trim, see above", |one| {
            one.tally.hidden_turns
        })?;
        self.row(out, "plain events beyond the promise", |one| {
            one.tally.beyond_promise
        })?;
        for column in Column::ALL {
            let found = |one: &ClassSum| of(&one.violations, &column);
            self.row(out, &format!("**{column}**"), found)?;
        }
        Ok(())
    }

    fn write_gaps(&self, out: &mut String) -> Result {
        let gaps = |one: &ClassSum| one.tally.gaps.values().sum();
        self.row(out, "gaps", gaps)?;
        let durable = |one: &ClassSum| one.durable_gaps.values().sum();
        self.row(out, "… in runs without plain events", durable)?;
        let mut reasons: Vec<&String> = self
            .classes
            .values()
            .flat_map(|one| one.durable_gaps.keys())
            .collect();
        reasons.sort();
        reasons.dedup();
        for reason in reasons {
            let name = format!("… of them `{reason}`");
            self.row(out, &name, |one| of(&one.durable_gaps, reason))?;
        }
        Ok(())
    }

    fn row(&self, out: &mut String, name: &str, value: impl Fn(&ClassSum) -> u64) -> Result {
        let values: Vec<u64> = self.classes.values().map(value).collect();
        write!(out, "| {name} |")?;
        for value in &values {
            write!(out, " {} |", grouped(*value))?;
        }
        writeln!(out, " {} |", grouped(values.iter().sum()))
    }

    /// Returns how often a sort of violation was found in all.
    #[cfg(feature = "fault-switches")]
    fn found(&self, column: Column) -> u64 {
        let classes = self.classes.values();
        classes.map(|class| of(&class.violations, &column)).sum()
    }
}

/// Returns the head of the table of [`safeguards_row`]s.
#[cfg(feature = "fault-switches")]
pub(crate) fn safeguards_head() -> String {
    let mut text = "| without | trials | deliveries".to_owned();
    for column in Column::ALL {
        text.push_str(&format!(" | {column}"));
    }
    let columns = "---|".repeat(Column::ALL.len() + 3);
    format!("{text} |\n|{columns}\n")
}

/// Returns the row of a run without a safeguard.
#[cfg(feature = "fault-switches")]
pub(crate) fn safeguards_row(plan: &Plan, sum: &Sum) -> String {
    let deliveries = sum.classes.values().map(|one| one.tally.deliveries).sum();
    let mut text = format!(
        "| `{}` | {} | {}",
        plan.switched_off.unwrap_or("none"),
        grouped(sum.trials),
        grouped(deliveries)
    );
    for column in Column::ALL {
        text.push_str(&format!(" | {}", grouped(sum.found(column))));
    }
    text + " |\n"
}

fn of<K: Ord>(counts: &BTreeMap<K, u64>, key: &K) -> u64 {
    counts.get(key).copied().unwrap_or(0)
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
