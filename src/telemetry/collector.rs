//! [`Collector`]: the receiver of spans and metrics, asked over OTLP/HTTP.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Context as _;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prometheus::{IntCounterVec, Opts, Registry};
use prost::Message;
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Client, StatusCode};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::TelemetrySettings;
use super::headers::headers_of;
use crate::web_client::{cause_of, web_client};

/// First pause before a batch is sent again; doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(200);

/// Longest answer read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// Spans.
    Traces,
    /// Metrics.
    Metrics,
}

impl Signal {
    const ALL: [Self; 2] = [Self::Traces, Self::Metrics];

    fn as_str(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
        }
    }

    /// Names the headers for this signal alone.
    pub(super) fn headers_variable(self) -> &'static str {
        match self {
            Self::Traces => "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
            Self::Metrics => "OTEL_EXPORTER_OTLP_METRICS_HEADERS",
        }
    }

    /// Returns how many parts of a batch the answer refuses, and why.
    fn refused(self, answer: &[u8]) -> Option<(i64, String)> {
        let (count, why) = match self {
            Self::Traces => {
                let partial = ExportTraceServiceResponse::decode(answer).ok()?;
                let partial = partial.partial_success?;
                (partial.rejected_spans, partial.error_message)
            }
            Self::Metrics => {
                let partial = ExportMetricsServiceResponse::decode(answer).ok()?;
                let partial = partial.partial_success?;
                (partial.rejected_data_points, partial.error_message)
            }
        };
        (count > 0).then_some((count, why))
    }
}

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// No answer, or none any more.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// No answer in time.
    #[error("no answer in time")]
    Late,
    /// An answer that is no success.
    #[error("answered {status}")]
    Status {
        /// Its status.
        status: StatusCode,
        /// When to try again, if it says so.
        again: Option<Duration>,
    },
    /// Parts of it were taken.
    #[error("{count} refused: {why}")]
    Partly {
        /// How many were not.
        count: i64,
        /// Why, in the receiver's words.
        why: String,
    },
}

impl SendError {
    /// How long to wait before it is sent again, at least; `None` if that is of
    /// no use.
    fn pause(&self) -> Option<Duration> {
        match self {
            Self::NoAnswer(_) => Some(Duration::ZERO),
            // As the protocol says.
            Self::Status { status, again } => {
                matches!(status.as_u16(), 429 | 502 | 503 | 504).then(|| again.unwrap_or_default())
            }
            Self::Late | Self::Partly { .. } => None,
        }
    }
}

/// An OTLP receiver: both signals go there, each batch repeated for
/// `telemetry.timeout` while it is away. What it does not take by then is gone,
/// counted, and told once until it takes something again.
#[derive(Debug)]
pub(crate) struct Collector {
    client: Client,
    base: Url,
    headers: [HeaderMap; Signal::ALL.len()],
    timeout: Duration,
    is_told: AtomicBool,
    /// The process ends: nothing is sent twice.
    stopping: CancellationToken,
    exports: IntCounterVec,
}

impl Collector {
    /// Prepares to send to `telemetry.otlp_endpoint`.
    ///
    /// # Errors
    /// Headers that are none, or a machine without root certificates.
    pub(crate) fn of(settings: &TelemetrySettings) -> anyhow::Result<Self> {
        let variable = |name: &str| std::env::var(name).ok();
        let [traces, metrics] = Signal::ALL.map(|signal| headers_of(signal, variable));
        let exports = IntCounterVec::new(
            Opts::new(
                "runcast_telemetry_exports_total",
                "Batches for telemetry.otlp_endpoint, by what became of them.",
            ),
            &["signal", "result"],
        )?;
        for signal in Signal::ALL {
            for result in ["sent", "failed"] {
                exports.with_label_values(&[signal.as_str(), result]);
            }
        }
        Ok(Self {
            client: web_client(settings.timeout).context("cannot send telemetry")?,
            base: Url::parse(settings.otlp_endpoint.reveal())?,
            headers: [traces?, metrics?],
            timeout: settings.timeout,
            is_told: AtomicBool::new(false),
            stopping: CancellationToken::new(),
            exports,
        })
    }

    /// Adds what is counted.
    ///
    /// # Errors
    /// [`prometheus::Error`] if two metrics have one name.
    pub(super) fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.exports.clone()))
    }

    /// Has nothing sent twice from now on.
    pub(super) fn stop_repeating(&self) {
        self.stopping.cancel();
    }

    /// Where it is, without user and password.
    pub(crate) fn place(&self) -> String {
        self.base.origin().ascii_serialization()
    }

    /// Looks whether it answers, by a batch of no spans.
    ///
    /// # Errors
    /// It does not.
    pub(crate) async fn probe(&self) -> Result<(), SendError> {
        let empty = ExportTraceServiceRequest::default().encode_to_vec();
        let deadline = Instant::now() + self.timeout;
        self.send_once(Signal::Traces, empty, deadline).await
    }

    /// Sends a batch, again and again for a while if need be.
    ///
    /// # Errors
    /// It was not taken; told and counted already.
    pub(super) async fn send(
        &self,
        signal: Signal,
        request: impl Message,
    ) -> Result<(), SendError> {
        let sent = self.send_until_taken(signal, request.encode_to_vec()).await;
        let result = if sent.is_ok() { "sent" } else { "failed" };
        self.exports
            .with_label_values(&[signal.as_str(), result])
            .inc();
        let was_told = self.is_told.swap(sent.is_err(), Relaxed);
        match &sent {
            Err(error) if !was_told => {
                let (place, signal) = (self.place(), signal.as_str());
                tracing::warn!(%error, signal, place, "telemetry not taken; until it is, nothing more is said");
            }
            Ok(()) if was_told => tracing::info!(place = self.place(), "telemetry is taken again"),
            _ => {}
        }
        sent
    }

    async fn send_until_taken(&self, signal: Signal, body: Vec<u8>) -> Result<(), SendError> {
        let deadline = Instant::now() + self.timeout;
        let mut pause = PAUSE_MIN;
        loop {
            let Err(error) = self.send_once(signal, body.clone(), deadline).await else {
                return Ok(());
            };
            let Some(wait) = error.pause().map(|asked| asked.max(pause)) else {
                return Err(error);
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if self.stopping.is_cancelled() || wait >= left {
                return Err(error);
            }
            tokio::select! {
                () = sleep(wait) => pause *= 2,
                // Once more, at once.
                () = self.stopping.cancelled() => {}
            }
        }
    }

    async fn send_once(
        &self,
        signal: Signal,
        body: Vec<u8>,
        deadline: Instant,
    ) -> Result<(), SendError> {
        let asking = async {
            let request = self
                .client
                .post(self.url(signal))
                .headers(self.headers[signal as usize].clone())
                .header(CONTENT_TYPE, "application/x-protobuf")
                .body(body);
            // The URL may hold a password.
            let no_answer =
                |error: reqwest::Error| SendError::NoAnswer(cause_of(&error.without_url()));
            let mut answer = request.send().await.map_err(no_answer)?;
            let status = answer.status();
            if !status.is_success() {
                let again = answer.headers().get(RETRY_AFTER);
                let again = again.and_then(|value| value.to_str().ok()?.parse().ok());
                let again = again.map(Duration::from_secs);
                return Err(SendError::Status { status, again });
            }
            let mut text = Vec::new();
            // It was taken, whatever the rest of the answer is.
            while let Ok(Some(piece)) = answer.chunk().await {
                if text.len() + piece.len() > ANSWER_BYTES_MAX {
                    return Ok(());
                }
                text.extend_from_slice(&piece);
            }
            match signal.refused(&text) {
                None => Ok(()),
                Some((count, why)) => Err(SendError::Partly { count, why }),
            }
        };
        timeout_at(deadline, asking)
            .await
            .unwrap_or(Err(SendError::Late))
    }

    fn url(&self, signal: Signal) -> Url {
        let mut url = self.base.clone();
        let base = url.path().trim_end_matches('/');
        let path = format!("{base}/v1/{}", signal.as_str());
        url.set_path(&path);
        url
    }
}
