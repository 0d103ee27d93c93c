//! [`Gap`]: what is said where events are missing.

use std::fmt;

/// Why events are missing at a place in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// Older than what is kept.
    Trimmed,
    /// The cursor is of another epoch of the run.
    Expired,
    /// The subscription was lost for a while.
    Disconnected,
    /// The cursor is a plain one of another hub.
    Restarted,
    /// The client was slower than what is kept.
    SlowClient,
    /// An event was larger than `limits.max_event_bytes`.
    TooLarge,
    /// The history lost its newest entries, or another took their place.
    Rewound,
    /// The publisher's own sequence jumped.
    Producer,
    /// The cursor cannot be read, or is another backend's.
    BadCursor,
    /// A queue of ours was full.
    Overflow,
}

impl GapReason {
    /// All reasons, in the order used for counters.
    pub const ALL: [Self; 10] = [
        Self::Trimmed,
        Self::Expired,
        Self::Disconnected,
        Self::Restarted,
        Self::SlowClient,
        Self::TooLarge,
        Self::Rewound,
        Self::Producer,
        Self::BadCursor,
        Self::Overflow,
    ];

    /// Returns the word used in the event and as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trimmed => "trimmed",
            Self::Expired => "expired",
            Self::Disconnected => "disconnected",
            Self::Restarted => "restarted",
            Self::SlowClient => "slow_client",
            Self::TooLarge => "too_large",
            Self::Rewound => "rewound",
            Self::Producer => "producer",
            Self::BadCursor => "bad_cursor",
            Self::Overflow => "overflow",
        }
    }
}

impl fmt::Display for GapReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A place in a stream where events are missing; bounds are exclusive.
///
/// Ids are text as sent to clients: they are safe in JSON and in an SSE field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Id of the last event before the gap, if known.
    pub after: Option<String>,
    /// Id of the first event after the gap, if known.
    pub before: Option<String>,
    /// How many events are missing, before filters, if known.
    pub missed: Option<u64>,
    /// Why.
    pub reason: GapReason,
}

impl Gap {
    /// A gap of which only the reason is known.
    pub fn unknown(reason: GapReason) -> Self {
        Self {
            after: None,
            before: None,
            missed: None,
            reason,
        }
    }
}
