//! [`Ledger`]: what the publishers of one run know of each of its events.

use super::id::Durable;

/// How an event was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// `PUBLISH`, by the one plain publisher of the run.
    Plain,
    /// Over HTTP: without an answer nobody knows whether it was taken.
    Post,
    /// Through the function with `PRODUCER`, again and again until answered;
    /// the producer's own number.
    Function { number: u64 },
}

/// What its publisher knows of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Not answered: it may come, once, at any place.
    Unsure,
    /// Redis or the broker took it; the id if the answer told one.
    Accepted(Option<Durable>),
    /// It was refused: it must not come.
    Refused,
}

/// The kinds of events, as bits of a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kinds(u8);

impl Kinds {
    pub(crate) const OUTPUT: Self = Self(1);
    pub(crate) const STATUS: Self = Self(2);
    pub(crate) const LOG: Self = Self(4);
    pub(crate) const ALL: Self = Self(7);
    pub(crate) const OUTPUT_LOG: Self = Self(5);
    pub(crate) const OUTPUT_STATUS: Self = Self(3);

    pub(crate) fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns the value of the query key `kinds`.
    pub(crate) fn query(self) -> String {
        [Self::OUTPUT, Self::STATUS, Self::LOG]
            .into_iter()
            .filter(|one| self.contains(*one))
            .map(Self::word)
            .collect::<Vec<_>>()
            .join(",")
    }

    /// Returns the word of a single kind.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::STATUS => "status",
            Self::LOG => "log",
            _ => "output",
        }
    }
}

/// One event of a run, at its number in [`Ledger::events`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Published {
    pub(crate) way: Way,
    pub(crate) kind: Kinds,
    pub(crate) outcome: Outcome,
}

/// Everything that was published in a run. The number of an event is in its
/// payload.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) events: Vec<Published>,
}

impl Ledger {
    /// Writes an event down before it is sent; returns its number.
    pub(crate) fn open(&mut self, way: Way, kind: Kinds) -> usize {
        self.events.push(Published {
            way,
            kind,
            outcome: Outcome::Unsure,
        });
        self.events.len() - 1
    }

    pub(crate) fn close(&mut self, n: usize, outcome: Outcome) {
        self.events[n].outcome = outcome;
    }
}
