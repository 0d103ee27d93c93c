//! What one client saw, in order, and what can be wrong with it.

use std::collections::BTreeMap;
use std::fmt;

use super::id::Id;

/// Where a client without a cursor asked to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    Start,
    Now,
    /// `from=-N`.
    Newest,
}

/// One thing a client saw.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Seen {
    /// A stream began. Plain events from number `due_from` of the ledger on
    /// are due to a client without a cursor.
    Joined {
        cursor: Option<Id>,
        from: From,
        due_from: usize,
    },
    /// A `cursor` frame.
    Position(Id),
    /// Event number `n` of the ledger.
    Event {
        n: usize,
        id: Id,
    },
    Gap(Gap),
    /// `end`: the id of the last event, and the count of all events.
    End {
        last: Option<Id>,
        events: Option<u64>,
    },
    /// Nothing at all came for far longer than a heartbeat.
    Silent,
}

/// A `gap` frame; the bounds are exclusive.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Gap {
    pub(crate) reason: String,
    pub(crate) after: Option<Id>,
    pub(crate) before: Option<Id>,
    pub(crate) missed: Option<u64>,
}

/// What is broken.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Violation {
    /// Durable events that Redis accepted and kept on this history are
    /// missing, and no gap covers them.
    SilentLoss {
        missing: Vec<u64>,
        before: Id,
    },
    /// Plain events are missing, and no gap stands at that place.
    PlainLoss {
        missing: Vec<usize>,
        before: usize,
    },
    /// The client went over to another history or epoch without a word.
    UntoldTurn {
        from: Id,
        to: Id,
    },
    Duplicate {
        n: usize,
        id: Id,
    },
    OutOfOrder {
        n: usize,
        due: usize,
    },
    /// It was refused, or never published.
    NeverAccepted(usize),
    /// Another id than the publisher was answered.
    WrongId {
        n: usize,
        id: Id,
    },
    /// A count that is not what lies between the bounds.
    WrongCount {
        gap: Box<Gap>,
        missing: u64,
    },
    /// A gap over an event that this client was sent.
    WrongRange {
        gap: Box<Gap>,
        holds: Id,
    },
    /// Events a producer numbered and never got through, told wrongly or not.
    WrongProducerGap {
        n: usize,
        lost: u64,
        told: Option<u64>,
    },
    /// A gap although nothing was lost in Redis.
    NeedlessGap(Box<Gap>),
    /// `end` with a wrong count of events.
    WrongEnd {
        events: u64,
        accepted: u64,
    },
    SilentStream,
    /// The last event never came, although all is well again.
    NeverReached,
    /// A cursor at `end` was answered with this status in place of 204.
    NotEnded(u16),
}

impl Violation {
    /// Returns its name, and the reason of a gap.
    pub(crate) fn name(&self) -> String {
        let text = format!("{self:?}");
        let name = text.split([' ', '(', '{']).next().unwrap_or_default();
        match self {
            Self::NeedlessGap(gap)
            | Self::WrongCount { gap, .. }
            | Self::WrongRange { gap, .. } => format!("{name} {}", gap.reason),
            _ => name.to_owned(),
        }
    }

    /// Returns the column of the report it counts in.
    pub(crate) fn column(&self) -> Column {
        match self {
            Self::SilentLoss { .. } | Self::PlainLoss { .. } | Self::UntoldTurn { .. } => {
                Column::SilentLosses
            }
            Self::Duplicate { .. } => Column::Duplicates,
            Self::OutOfOrder { .. } => Column::OutOfOrder,
            Self::WrongCount { .. }
            | Self::WrongRange { .. }
            | Self::WrongProducerGap { .. }
            | Self::WrongEnd { .. } => Column::WrongCounts,
            Self::NeedlessGap(_) => Column::NeedlessGaps,
            Self::SilentStream | Self::NeverReached => Column::Hangs,
            Self::NeverAccepted(_) | Self::WrongId { .. } | Self::NotEnded(_) => Column::Others,
        }
    }
}

/// The sorts of violations a report tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Column {
    SilentLosses,
    Duplicates,
    OutOfOrder,
    WrongCounts,
    NeedlessGaps,
    Hangs,
    Others,
}

impl Column {
    pub(crate) const ALL: [Self; 7] = [
        Self::SilentLosses,
        Self::Duplicates,
        Self::OutOfOrder,
        Self::WrongCounts,
        Self::NeedlessGaps,
        Self::Hangs,
        Self::Others,
    ];
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SilentLosses => "lost in silence",
            Self::Duplicates => "doubled",
            Self::OutOfOrder => "out of order",
            Self::WrongCounts => "wrong ranges or counts",
            Self::NeedlessGaps => "gaps where nothing was lost",
            Self::Hangs => "hanging or never at the end",
            Self::Others => "never accepted, or wrong id or status",
        })
    }
}

/// What clients saw, added up.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    pub(crate) deliveries: u64,
    pub(crate) streams: u64,
    pub(crate) gaps: BTreeMap<String, u64>,
    /// Events missing at some client, and told by a gap.
    pub(crate) told_missing: u64,
    /// Stated counts and ranges that were compared to the letter.
    pub(crate) counts_checked: u64,
    /// Stated counts that are too small, since a trim hid that Redis had
    /// forgotten the place itself.
    pub(crate) hidden_turns: u64,
    /// Plain events missing before a client that came back with the id of a
    /// durable one: that id holds nothing of them.
    pub(crate) beyond_promise: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.deliveries += other.deliveries;
        self.streams += other.streams;
        self.told_missing += other.told_missing;
        self.counts_checked += other.counts_checked;
        self.hidden_turns += other.hidden_turns;
        self.beyond_promise += other.beyond_promise;
        for (reason, count) in &other.gaps {
            *self.gaps.entry(reason.clone()).or_default() += count;
        }
    }
}
