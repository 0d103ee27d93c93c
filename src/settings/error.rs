//! [`SettingsError`]: one thing wrong with the settings, said in one line.

use std::fmt;
use std::net::SocketAddr;

/// One thing wrong with the settings. `Display` is one line that names the
/// key, the value, where it came from and what is allowed; a secret is hidden.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SettingsError {
    /// The file cannot be read, or is no TOML.
    #[error("{path}: {reason}")]
    File {
        /// As it was given.
        path: String,
        /// Why, with line and column if it is the syntax.
        reason: String,
    },
    /// No such key. Its value is not shown: it may be a mistyped secret.
    #[error("unknown key {key} ({origin}): {allowed}")]
    UnknownKey {
        /// Section and key, dotted.
        key: String,
        /// Where it was set.
        origin: Origin,
        /// The keys there are.
        allowed: String,
    },
    /// The value is not of the key's type, outside its range, or does not go
    /// with another one.
    #[error("{key} = {value} ({origin}): {reason}")]
    BadValue {
        /// Section and key, dotted.
        key: String,
        /// As it was given.
        value: String,
        /// Where it was set.
        origin: Origin,
        /// What is allowed.
        reason: String,
    },
    /// An environment variable that is not Unicode.
    #[error("environment {name}: is not valid UTF-8")]
    NotUnicode {
        /// The variable.
        name: String,
    },
    /// Anybody could reach the broker, and would be let in.
    #[error(
        "server.bind = {bind}: whoever reaches this address could read and publish every run, since auth.mode is \"none\"; set auth.mode = \"jwt\" and its keys, or, where only those can reach it who may do so, auth.allow_anonymous = true"
    )]
    Open {
        /// Where it was to listen.
        bind: SocketAddr,
    },
    /// Keys that cannot be used. Nothing of them is shown.
    #[error("{key}: {reason}")]
    Keys {
        /// The setting that names them.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// What may change at once does not go with what needs a restart.
    #[error("{key}: {reason}; so it needs a restart, together with {waiting}")]
    Waits {
        /// Section and key, dotted.
        key: String,
        /// What is allowed beside the settings that the broker runs with.
        reason: String,
        /// The keys that changed and need a restart.
        waiting: String,
    },
    /// A `--set` without `=`.
    #[error("--set {text}: must be section.key=value, like --set heartbeat.interval=15s")]
    BadSet {
        /// What stood there, credentials hidden.
        text: String,
    },
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nobody set it.
    Default,
    /// What `runcast dev` sets.
    Dev,
    /// A file.
    File(String),
    /// An environment variable.
    Environment(String),
    /// A flag of the command line.
    Flag(String),
}

impl Origin {
    /// Returns whether every value from here is a text, to be read by the key's
    /// type.
    pub(crate) fn is_untyped(&self) -> bool {
        matches!(self, Self::Environment(_) | Self::Flag(_))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Dev => f.write_str("set by runcast dev"),
            Self::File(path) => f.write_str(path),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}
