//! [`TelemetrySettings`]: the section `[telemetry]`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::settings::Secret;

/// `[telemetry]`: what is sent to an OpenTelemetry collector.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TelemetrySettings {
    /// Base URL of its OTLP/HTTP receiver; empty sends nothing. It may hold a
    /// password.
    pub(crate) otlp_endpoint: Secret,
    /// Whether spans are sent.
    pub(crate) traces: bool,
    /// Whether metrics are sent.
    pub(crate) metrics: bool,
    /// Share of the requests without a trace of their own that begin one.
    pub(crate) sample_ratio: f64,
    /// How often metrics are sent.
    #[serde(with = "humantime_serde")]
    pub(crate) interval: Duration,
    /// How long one batch is tried.
    #[serde(with = "humantime_serde")]
    pub(crate) timeout: Duration,
    /// Most spans that wait; further ones are dropped.
    pub(crate) queue_spans: usize,
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self {
            otlp_endpoint: Secret::default(),
            traces: true,
            metrics: true,
            sample_ratio: 0.01,
            interval: Duration::from_secs(60),
            timeout: Duration::from_secs(10),
            queue_spans: 2048,
        }
    }
}
