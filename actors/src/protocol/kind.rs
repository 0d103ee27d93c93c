//! [`EventKind`], [`LogLevel`] and [`BackendKind`]: the small closed sets.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What kind of thing happened in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// What the run printed or produced.
    Output,
    /// A change of the run's state.
    Status,
    /// A system log line, filtered by level.
    Log,
}

impl EventKind {
    /// All kinds, in the order used for counters.
    pub const ALL: [Self; 3] = [Self::Output, Self::Status, Self::Log];

    /// Returns the word used as SSE `event` and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Output => "output",
            Self::Status => "status",
            Self::Log => "log",
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no [`EventKind`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown kind {0:?}; it is one of output, status, log")]
pub struct UnknownKind(pub String);

impl FromStr for EventKind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

/// The level of a `log` event, least first.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Finest detail.
    Trace,
    /// For those who debug.
    Debug,
    /// The level of a log event that names none.
    #[default]
    Info,
    /// Something degraded; also written `warning`.
    Warn,
    /// Something failed.
    Error,
    /// The run cannot go on; also written `critical`.
    Fatal,
}

impl LogLevel {
    /// All levels, least first.
    pub const ALL: [Self; 6] = [
        Self::Trace,
        Self::Debug,
        Self::Info,
        Self::Warn,
        Self::Error,
        Self::Fatal,
    ];

    /// Returns the level of pino's and bunyan's numbers (10 trace … 60 fatal);
    /// a number between two belongs to the lower one.
    pub fn from_number(number: f64) -> Self {
        match number {
            n if n >= 60.0 => Self::Fatal,
            n if n >= 50.0 => Self::Error,
            n if n >= 40.0 => Self::Warn,
            n if n >= 30.0 => Self::Info,
            n if n >= 20.0 => Self::Debug,
            _ => Self::Trace,
        }
    }
}

/// A word that names no [`LogLevel`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown log level {0:?}; it is one of trace, debug, info, warn, warning, error, fatal, critical"
)]
pub struct UnknownLevel(pub String);

impl FromStr for LogLevel {
    type Err = UnknownLevel;

    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        const WORDS: [(&str, LogLevel); 8] = [
            ("trace", LogLevel::Trace),
            ("debug", LogLevel::Debug),
            ("info", LogLevel::Info),
            ("warn", LogLevel::Warn),
            ("warning", LogLevel::Warn),
            ("error", LogLevel::Error),
            ("fatal", LogLevel::Fatal),
            ("critical", LogLevel::Fatal),
        ];
        WORDS
            .into_iter()
            .find(|(word, _)| word.eq_ignore_ascii_case(text))
            .map(|(_, level)| level)
            .ok_or_else(|| UnknownLevel(text.to_owned()))
    }
}

/// Where a run's events come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendKind {
    /// Redis Pub/Sub, with Redis Streams as its history.
    Redis,
    /// `kubectl logs`.
    Kubectl,
    /// This process's memory.
    Embedded,
    /// Redis, and kubectl while Redis is of no use; each event says which.
    Auto,
}

impl BackendKind {
    /// All backends, in the order used for counters.
    pub const ALL: [Self; 4] = [Self::Redis, Self::Kubectl, Self::Embedded, Self::Auto];

    /// Returns the word used in headers, JSON and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Kubectl => "kubectl",
            Self::Embedded => "embedded",
            Self::Auto => "auto",
        }
    }
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
