//! `benches/budgets.toml`: how many instructions each case may need.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

use crate::cases::{SPECS, Spec};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/budgets.toml");

/// How much more than its budget a case may need, in per cent. Counts are not
/// the same everywhere: processors have different forms of `memcpy`,
/// distributions different C libraries, and hash maps random keys.
const MARGIN_PERCENT: f64 = 4.0;

/// What was counted: a case, and its instructions for one message or delivery.
pub(crate) type Counted<'a> = (&'a Spec, f64);

/// The budgets, by the names of cases.
pub(crate) struct Budgets(BTreeMap<String, f64>);

impl Budgets {
    /// Reads them.
    ///
    /// # Errors
    /// A sentence.
    pub(crate) fn read() -> Result<Self, String> {
        let text = std::fs::read_to_string(FILE).map_err(|error| format!("{FILE}: {error}"))?;
        let budgets = toml::from_str(&text).map_err(|error| format!("{FILE}: {error}"))?;
        Ok(Self(budgets))
    }

    /// Prints what was counted beside the budgets; says whether all is within
    /// them.
    pub(crate) fn compare(&self, counted: &[Counted<'_>]) -> bool {
        println!(
            "{:<28}{:>14}{:>10}",
            "each message or delivery", "instructions", "budget"
        );
        let mut is_within = true;
        for (spec, instructions) in counted {
            let budget = self.0.get(spec.name).copied();
            let verdict = Verdict::of(*instructions, budget);
            let budget = budget.map_or_else(|| "none".to_owned(), |it| format!("{it:.0}"));
            println!("{:<28}{instructions:>14.0}{budget:>10}{verdict}", spec.name);
            is_within &= verdict.is_within;
        }
        for name in self.0.keys() {
            if !SPECS.iter().any(|spec| spec.name == name) {
                println!("{name}: a budget of no case");
                is_within = false;
            }
        }
        is_within
    }

    /// Writes what was counted as the new budgets; `is_all` if that is all
    /// there are.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn update(mut self, counted: &[Counted<'_>], is_all: bool) -> Result<(), String> {
        if is_all {
            self.0.clear();
        }
        let counted = counted.iter();
        self.0
            .extend(counted.map(|(spec, instructions)| (spec.name.to_owned(), *instructions)));
        std::fs::write(FILE, self.text()).map_err(|error| format!("{FILE}: {error}"))
    }

    fn text(&self) -> String {
        let mut text = format!(
            "# Instructions for one message or delivery of each case of `make instructions`,\n\
             # which fails past {MARGIN_PERCENT} % more. Written by `make instructions UPDATE=1`,\n\
             # here with {} and {}.\n\n",
            version("rustc"),
            version("valgrind"),
        );
        for spec in SPECS {
            if let Some(instructions) = self.0.get(spec.name) {
                writeln!(text, "\"{}\" = {instructions:.1}", spec.name)
                    .expect("writing to a string cannot fail");
            }
        }
        text
    }
}

/// What is to be said of a count.
#[derive(Clone, Copy)]
struct Verdict {
    percent_more: Option<f64>,
    is_within: bool,
}

impl Verdict {
    fn of(instructions: f64, budget: Option<f64>) -> Self {
        let percent_more = budget.map(|budget| (instructions / budget - 1.0) * 100.0);
        Self {
            percent_more,
            is_within: percent_more.is_some_and(|percent| percent <= MARGIN_PERCENT),
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.percent_more {
            None => f.write_str("  HAS NONE"),
            Some(percent) if !self.is_within => write!(f, "{percent:>+8.1} %  OVER"),
            // Else what was gained could be lost again without a word.
            Some(percent) if percent < -MARGIN_PERCENT => {
                write!(f, "{percent:>+8.1} %  the budget can be lowered")
            }
            Some(percent) => write!(f, "{percent:>+8.1} %"),
        }
    }
}

fn version(program: &str) -> String {
    let output = Command::new(program).arg("--version").output();
    let text = output.map_or_else(|_| Vec::new(), |output| output.stdout);
    String::from_utf8_lossy(&text).trim().to_owned()
}
