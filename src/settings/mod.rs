//! [`Settings`]: everything that can be set, one struct per section of
//! `settings.toml`.
//!
//! [`load`] merges the defaults, the file, the environment and the flags;
//! [`check`](self::check) looks at the whole. The sections that the actors
//! read are declared in `runcast_actors::settings`.

mod auth;
mod check;
mod error;
mod load;
mod shape;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::Duration;

use runcast_actors::settings::{
    HeartbeatSettings, HistorySettings, HubSettings, KubectlSettings, LimitSettings, RedisSettings,
    RetrySettings, RunSettings, StreamingSettings,
};
use serde::{Deserialize, Deserializer, Serialize};

use crate::exec::ExecSettings;

pub(crate) use auth::{AuthMode, AuthSettings, Secret};
pub(crate) use error::SettingsError;
pub(crate) use load::{Flag, Inputs, load};

/// The whole of `settings.toml`. Cheap to build, cloned section by section to
/// the part that needs it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// The listening socket and the process.
    pub(crate) server: ServerSettings,
    /// What a stream is unless its query says otherwise.
    pub(crate) streaming: StreamingSettings,
    /// Where events come from.
    pub(crate) redis: RedisSettings,
    /// What is kept of a run.
    pub(crate) history: HistorySettings,
    /// The per-run hub.
    pub(crate) hub: HubSettings,
    /// The time between two heartbeats.
    pub(crate) heartbeat: HeartbeatSettings,
    /// The range of `retry:`.
    pub(crate) retry: RetrySettings,
    /// When a run is over.
    pub(crate) runs: RunSettings,
    /// Following pods.
    pub(crate) kubectl: KubectlSettings,
    /// What one client or publisher may ask.
    pub(crate) limits: LimitSettings,
    /// Who may watch and publish.
    pub(crate) auth: AuthSettings,
    /// Which web pages may read us.
    pub(crate) cors: CorsSettings,
    /// `GET /metrics`.
    pub(crate) metrics: MetricsSettings,
    /// Our own log.
    pub(crate) log: LogSettings,
    /// `runcast exec`.
    pub(crate) exec: ExecSettings,
}

impl Settings {
    /// Returns what keeps a broker with these settings from serving, beside what
    /// is wrong with them for every command: files of keys, and an address that
    /// others can reach without a token.
    pub(crate) fn check_serving(&self) -> Vec<SettingsError> {
        let mut errors = Vec::new();
        let bind = self.server.bind;
        let is_open = self.auth.mode == AuthMode::None && !self.auth.allow_anonymous;
        if is_open && !bind.ip().to_canonical().is_loopback() {
            errors.push(SettingsError::Open { bind });
        }
        if self.auth.mode == AuthMode::Jwt
            && let Err((key, reason)) = self.auth.keys()
        {
            let key = key.to_owned();
            errors.push(SettingsError::Keys { key, reason });
        }
        errors
    }
}

/// `[server]`: the listening socket and the process.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ServerSettings {
    /// IP address and port; port 0 takes a free one.
    #[serde(deserialize_with = "address")]
    pub(crate) bind: SocketAddr,
    /// Threads that serve HTTP; 0 is one per core.
    pub(crate) workers: usize,
    /// Most connections open at once, all workers together; past it new ones
    /// wait in the backlog.
    pub(crate) max_connections: usize,
    /// Connections the kernel holds for us before they are accepted.
    pub(crate) backlog: u32,
    /// How long open streams have to end after SIGTERM.
    #[serde(with = "humantime_serde")]
    pub(crate) shutdown_grace: Duration,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from(([127, 0, 0, 1], 8000)),
            workers: 0,
            max_connections: 110_000,
            backlog: 4096,
            shutdown_grace: Duration::from_secs(20),
        }
    }
}

impl ServerSettings {
    /// Returns the number of HTTP threads: `workers`, or one per core.
    pub(crate) fn worker_count(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        }
    }

    /// Returns each worker's share of `max_connections`, rounded up.
    pub(crate) fn max_connections_per_worker(&self) -> usize {
        self.max_connections.div_ceil(self.worker_count())
    }
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        serde::de::Error::custom(
            "must be an IP address and a port, like 127.0.0.1:8000 or [::]:8000",
        )
    })
}

/// `[cors]`: which web pages may read us.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CorsSettings {
    /// Origins `scheme://host[:port]`, or `*` alone for any.
    pub(crate) allowed_origins: Vec<String>,
}

impl Default for CorsSettings {
    fn default() -> Self {
        Self {
            allowed_origins: vec!["http://localhost:3000".to_owned()],
        }
    }
}

/// `[metrics]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct MetricsSettings {
    /// Whether `GET /metrics` answers; 404 otherwise.
    pub(crate) enabled: bool,
}

impl Default for MetricsSettings {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// `[log]`: our own log, on stderr.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LogSettings {
    /// How a line looks.
    pub(crate) format: LogFormat,
    /// `level` or `level,target=level,…`, as in `tracing`'s `EnvFilter`.
    pub(crate) level: String,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            format: LogFormat::Json,
            level: "info".to_owned(),
        }
    }
}

/// A value of `log.format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// One JSON object per line, for machines.
    Json,
    /// Coloured lines, for people.
    Pretty,
}
