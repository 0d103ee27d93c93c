//! [`Settings`]: everything that can be set, one struct per section of
//! `settings.toml`.
//!
//! [`load`] merges the defaults, the file, the environment and the flags;
//! [`check`](self::check) looks at the whole. The sections that the actors
//! read are declared in `runcast_actors::settings`.

mod auth;
mod check;
mod error;
mod live;
mod load;
mod shape;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use runcast_actors::settings::{
    ArchiveSettings, AutoSettings, HeartbeatSettings, HistorySettings, HubSettings,
    KubectlSettings, LimitSettings, RedisSettings, RetrySettings, RunSettings, StreamingSettings,
};
use serde::{Deserialize, Deserializer, Serialize};

use crate::exec::ExecSettings;
use crate::http::TlsFiles;
use crate::telemetry::TelemetrySettings;

pub(crate) use auth::{AuthMode, AuthSettings, Secret};
pub(crate) use error::SettingsError;
pub(crate) use live::Change;
pub(crate) use load::{Flag, Inputs, Loaded, load};

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
    /// Where histories of runs that ended are kept for long.
    pub(crate) archive: ArchiveSettings,
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
    /// Going on from kubectl while Redis is of no use.
    pub(crate) auto: AutoSettings,
    /// What one client or publisher may ask.
    pub(crate) limits: LimitSettings,
    /// Who may watch and publish.
    pub(crate) auth: AuthSettings,
    /// Which web pages may read us.
    pub(crate) cors: CorsSettings,
    /// `GET /metrics`.
    pub(crate) metrics: MetricsSettings,
    /// What is sent to an OpenTelemetry collector.
    pub(crate) telemetry: TelemetrySettings,
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
    /// After SIGTERM: how long we say that we are not ready, and serve on.
    #[serde(with = "humantime_serde")]
    pub(crate) drain_delay: Duration,
    /// Then: how many streams are told `goodbye` in a second; 0 is all at once.
    pub(crate) drain_rate: usize,
    /// How long open streams have to end then.
    #[serde(with = "humantime_serde")]
    pub(crate) shutdown_grace: Duration,
    /// Names, beside those of this machine, that the broker may be asked by;
    /// `*` alone is any.
    pub(crate) hosts: Vec<String>,
    /// Networks whose proxies are believed about the addresses of clients.
    #[serde(deserialize_with = "networks")]
    pub(crate) trusted_proxies: Vec<IpNet>,
    /// How they tell them.
    pub(crate) proxy_header: ProxyHeader,
    /// File of the certificate, as PEM; empty is no TLS.
    pub(crate) tls_cert: String,
    /// File of its private key, as PEM.
    pub(crate) tls_key: String,
}

/// A value of `server.proxy_header`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ProxyHeader {
    /// `X-Forwarded-For` of each request.
    #[default]
    XForwardedFor,
    /// `Forwarded` of each request (RFC 7239).
    Forwarded,
    /// The PROXY protocol, version 1 or 2, at the start of each connection.
    ProxyProtocol,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from(([127, 0, 0, 1], 8000)),
            workers: 0,
            max_connections: 110_000,
            backlog: 4096,
            drain_delay: Duration::ZERO,
            drain_rate: 5000,
            shutdown_grace: Duration::from_secs(20),
            hosts: Vec::new(),
            trusted_proxies: Vec::new(),
            proxy_header: ProxyHeader::default(),
            tls_cert: String::new(),
            tls_key: String::new(),
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

    /// Returns where certificate and key are, if TLS is wanted.
    pub(crate) fn tls_files(&self) -> Option<TlsFiles> {
        (!self.tls_cert.is_empty()).then(|| TlsFiles {
            cert: PathBuf::from(&self.tls_cert),
            key: PathBuf::from(&self.tls_key),
        })
    }

    /// Returns each worker's share of `max_connections`, rounded up.
    pub(crate) fn max_connections_per_worker(&self) -> usize {
        self.max_connections.div_ceil(self.worker_count())
    }
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    parse_address(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

fn parse_address(text: &str) -> Result<SocketAddr, &'static str> {
    const RULE: &str = "must be an IP address and a port, like 127.0.0.1:8000 or [::]:8000";
    text.parse().map_err(|_| RULE)
}

/// An address, or an empty text for none.
mod optional_address {
    use std::net::SocketAddr;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        address: &Option<SocketAddr>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match address {
            Some(address) => serializer.collect_str(address),
            None => serializer.serialize_str(""),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SocketAddr>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let address = || super::parse_address(&text).map_err(serde::de::Error::custom);
        (!text.is_empty()).then(address).transpose()
    }
}

fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let network = |text: String| {
        let address = || text.parse::<IpAddr>().map(IpNet::from);
        text.parse().or_else(|_| address()).map_err(|_| {
            serde::de::Error::custom("must be networks or addresses, like 10.0.0.0/8 or fd00::1")
        })
    };
    texts.into_iter().map(network).collect()
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
    /// IP address and port of its own; empty is that of `server.bind`.
    #[serde(with = "optional_address")]
    pub(crate) bind: Option<SocketAddr>,
}

impl Default for MetricsSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            bind: None,
        }
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
