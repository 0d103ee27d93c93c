//! [`Target`]: what the broker shall reach, and whether it does.

use std::fmt::Write as _;

use serde::Serialize;

use super::Results;
use super::cell::Figure;
use super::part::Part;
use super::system::System;

/// Whose figure bounds the broker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reference {
    BareLoop,
    Coalescing,
    /// With memory storage; the better of one worker and two.
    Nchan,
    /// The broker's own, in another part.
    Itself(Part),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Bound {
    /// At most this, in the unit of the figure.
    AtMost(f64),
    /// At most, or for a gain at least, so many times another's.
    Times(f64, Reference),
}

/// A bound of one figure.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Target {
    part: Part,
    figure: Figure,
    system: System,
    bound: Bound,
}

const fn target(part: Part, figure: Figure, system: System, bound: Bound) -> Target {
    Target {
        part,
        figure,
        system,
        bound,
    }
}

/// The broker's bar: the kernel's pace, and the fastest hub there is.
const TARGETS: &[Target] = {
    use Bound::{AtMost, Times};
    use Figure::{Accept, Cpu, P99, PerCore, PerSecond, Rss, Served};
    use Part::{DropAll, FanOut, FlatOut, Idle, ManyRuns, Stalled, Tokens};
    use Reference::{BareLoop, Coalescing, Itself, Nchan};
    use System::{Runcast, Unpaced};
    &[
        target(FanOut, Cpu, Runcast, Times(0.85, BareLoop)),
        target(FanOut, Cpu, Unpaced, Times(1.25, BareLoop)),
        target(FanOut, P99, Runcast, AtMost(50.0)),
        target(FanOut, P99, Unpaced, Times(1.5, BareLoop)),
        target(FlatOut, PerSecond, Runcast, Times(0.6, Coalescing)),
        target(FlatOut, PerSecond, Runcast, Times(12.0, Nchan)),
        target(FlatOut, PerCore, Runcast, Times(0.6, Coalescing)),
        target(FlatOut, PerCore, Runcast, Times(12.0, Nchan)),
        target(ManyRuns, Cpu, Runcast, Times(1.0, Nchan)),
        target(ManyRuns, P99, Runcast, Times(1.0, Nchan)),
        target(Tokens, Cpu, Runcast, Times(1.3, BareLoop)),
        target(Tokens, P99, Runcast, Times(1.3, BareLoop)),
        // "As without them", but for what two measures differ by anyway.
        target(Stalled, P99, Runcast, Times(1.25, Itself(FanOut))),
        target(Stalled, P99, Unpaced, Times(1.25, Itself(FanOut))),
        target(DropAll, Served, Runcast, AtMost(400.0)),
        target(Idle, Rss, Runcast, AtMost(8_000.0)),
        target(Idle, Accept, Runcast, AtMost(60.0)),
    ]
};

/// A target and what was measured for it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Verdict {
    work: &'static str,
    system: System,
    figure: &'static str,
    measured: String,
    to_bare_loop: Option<f64>,
    to_coalescing: Option<f64>,
    to_nchan: Option<f64>,
    bound: String,
    /// Whether the bound holds; `None` where either side was not measured.
    is_met: Option<bool>,
}

/// Judges the broker.
pub(super) fn verdicts(results: &Results) -> Vec<Verdict> {
    TARGETS.iter().map(|target| target.judge(results)).collect()
}

impl Target {
    fn judge(self, results: &Results) -> Verdict {
        let Self {
            part,
            figure,
            system,
            bound,
        } = self;
        let value = results.median(part, system, figure);
        let ratio = |reference| Some(value? / self.reference(reference, results)?);
        let limit = match bound {
            Bound::AtMost(limit) => Some(limit),
            Bound::Times(times, reference) => self
                .reference(reference, results)
                .map(|value| times * value),
        };
        let is_met = value.zip(limit).map(|(value, limit)| {
            if figure.is_gain() {
                value >= limit
            } else {
                value <= limit
            }
        });
        let is_met = is_met.map(|met| met && !results.is_faulty(part, system));
        Verdict {
            work: part.title(),
            system,
            figure: figure.name(),
            measured: figure.show(value),
            to_bare_loop: ratio(Reference::BareLoop),
            to_coalescing: ratio(Reference::Coalescing),
            to_nchan: ratio(Reference::Nchan),
            bound: self.describe(limit),
            is_met,
        }
    }

    fn reference(self, reference: Reference, results: &Results) -> Option<f64> {
        let of = |system| results.median(self.part, system, self.figure);
        match reference {
            Reference::BareLoop => of(System::BareLoop),
            Reference::Coalescing => of(System::Coalescing),
            Reference::Nchan => {
                let both = [of(System::Nchan), of(System::Nchan2)];
                let better = if self.figure.is_gain() {
                    f64::max
                } else {
                    f64::min
                };
                both.into_iter().flatten().reduce(better)
            }
            Reference::Itself(part) => results.median(part, self.system, self.figure),
        }
    }

    fn describe(self, limit: Option<f64>) -> String {
        let sign = if self.figure.is_gain() { "≥" } else { "≤" };
        let limit = self.figure.show(limit);
        match self.bound {
            Bound::AtMost(_) => format!("{sign} {limit}"),
            Bound::Times(times, reference) => {
                let whose = match reference {
                    Reference::BareLoop => "bare loop",
                    Reference::Coalescing => "coalescing",
                    Reference::Nchan => "nchan",
                    Reference::Itself(_) => "without them",
                };
                format!("{sign} {times} × {whose} ({limit})")
            }
        }
    }
}

/// Writes the verdicts as a table in Markdown.
pub(super) fn table(verdicts: &[Verdict], text: &mut String) {
    text.push_str(
        "| load | server | figure | measured | to the bare loop | to the coalescing one \
         | to nchan (memory) | to reach | |\n|---|---|---|--:|--:|--:|--:|---|---|\n",
    );
    let ratio = |ratio: Option<f64>| ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.2}"));
    let mut last = "";
    for verdict in verdicts {
        let work = if verdict.work == last {
            ""
        } else {
            verdict.work
        };
        last = verdict.work;
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {work} | {} | {} | {} | {} | {} | {} | {} | {} |",
            verdict.system.name(),
            verdict.figure,
            verdict.measured,
            ratio(verdict.to_bare_loop),
            ratio(verdict.to_coalescing),
            ratio(verdict.to_nchan),
            verdict.bound,
            match verdict.is_met {
                Some(true) => "met",
                Some(false) => "**missed**",
                None => "not measured",
            }
        );
    }
    text.push('\n');
}
