//! `GET /metrics`: [`HttpMetrics`] and what the actors count, as Prometheus
//! text.

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::Data;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{
    Encoder as _, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TEXT_FORMAT, TextEncoder,
};
use runcast_actors::metrics::Exemplar;

use super::broker_metrics::metric_family;
use super::caller::Caller;
use super::gate::Gate;
use super::problem::{ApiError, ProblemJson};
use super::{HttpState, VERSION};

/// Seconds to an answer's head; a stream's counts too, for its preamble waits
/// for the store.
const DURATION_BUCKETS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0];

/// What the HTTP side counts, with the process's own figures.
#[derive(Debug, Clone)]
pub(super) struct HttpMetrics {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    /// Posts answered with the answer of an earlier one.
    pub(super) idempotent_replays: IntCounter,
    idempotency_keys: IntGauge,
    body_bytes: IntGauge,
    /// Changed certificates by what became of them: `taken`, `refused`.
    pub(super) tls_reloads: IntCounterVec,
    /// Handshakes that failed.
    pub(super) tls_failures: IntCounter,
    history_reads: IntGauge,
    publish_addresses: IntGauge,
    publish_subjects: IntGauge,
    /// Streams closed because their client went on sending.
    pub(super) talkative_streams: IntCounter,
    /// Requests refused because of the name in `Host`.
    pub(super) host_refusals: IntCounter,
    /// Pages of history refused because too many were being read.
    pub(super) history_refused: IntCounter,
}

impl HttpMetrics {
    /// Registers the metrics of this process.
    ///
    /// # Errors
    /// [`prometheus::Error`] if two have one name.
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let requests = IntCounterVec::new(
            Opts::new("runcast_http_requests_total", "HTTP requests answered."),
            &["method", "route", "status"],
        )?;
        let durations = HistogramVec::new(
            HistogramOpts::new(
                "runcast_http_request_duration_seconds",
                "Time from an HTTP request's head to its answer's head.",
            )
            .buckets(DURATION_BUCKETS.to_vec()),
            &["route"],
        )?;
        let idempotent_replays = IntCounter::new(
            "runcast_http_idempotent_replays_total",
            "Posts whose Idempotency-Key had its answer already.",
        )?;
        let idempotency_keys = IntGauge::new(
            "runcast_http_idempotency_keys",
            "Idempotency keys whose answer is remembered.",
        )?;
        let body_bytes = IntGauge::new(
            "runcast_http_body_bytes",
            "Bytes of posts that are being read or published.",
        )?;
        let tls_reloads = IntCounterVec::new(
            Opts::new(
                "runcast_tls_reloads_total",
                "Certificates that changed while serving, by what became of them.",
            ),
            &["result"],
        )?;
        for result in ["taken", "refused"] {
            tls_reloads.with_label_values(&[result]);
        }
        let tls_failures = IntCounter::new(
            "runcast_tls_handshake_failures_total",
            "TLS handshakes that failed.",
        )?;
        let history_reads = IntGauge::new(
            "runcast_http_history_reads",
            "Pages of history that are being read or sent.",
        )?;
        let publish_addresses = IntGauge::new(
            "runcast_http_publish_addresses",
            "Client addresses whose pace of publishing is known.",
        )?;
        let publish_subjects = IntGauge::new(
            "runcast_http_publish_subjects",
            "Subjects of tokens whose pace of publishing is known.",
        )?;
        let talkative_streams = IntCounter::new(
            "runcast_http_talkative_streams_total",
            "Streams closed because their client sent more than 64 KiB after its request.",
        )?;
        let host_refusals = IntCounter::new(
            "runcast_http_host_refusals_total",
            "Requests refused because of the name in Host (server.hosts).",
        )?;
        let history_refused = IntCounter::new(
            "runcast_http_history_refused_total",
            "Pages of history refused because too many were being read.",
        )?;
        let build_info = IntGaugeVec::new(
            Opts::new("runcast_build_info", "Always 1; its label is the version."),
            &["version"],
        )?;
        build_info.with_label_values(&[VERSION]).set(1);
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(durations.clone()))?;
        registry.register(Box::new(idempotent_replays.clone()))?;
        registry.register(Box::new(idempotency_keys.clone()))?;
        registry.register(Box::new(body_bytes.clone()))?;
        registry.register(Box::new(tls_reloads.clone()))?;
        registry.register(Box::new(tls_failures.clone()))?;
        registry.register(Box::new(history_reads.clone()))?;
        registry.register(Box::new(publish_addresses.clone()))?;
        registry.register(Box::new(publish_subjects.clone()))?;
        registry.register(Box::new(talkative_streams.clone()))?;
        registry.register(Box::new(host_refusals.clone()))?;
        registry.register(Box::new(history_refused.clone()))?;
        registry.register(Box::new(build_info))?;
        #[cfg(target_os = "linux")]
        registry.register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))?;
        Ok(Self {
            registry,
            requests,
            durations,
            idempotent_replays,
            idempotency_keys,
            body_bytes,
            tls_reloads,
            tls_failures,
            history_reads,
            publish_addresses,
            publish_subjects,
            talkative_streams,
            host_refusals,
            history_refused,
        })
    }

    /// Adds what another part counts.
    ///
    /// # Errors
    /// [`prometheus::Error`] if two metrics have one name.
    pub(super) fn register(&self, metric: Box<dyn Collector>) -> Result<(), prometheus::Error> {
        self.registry.register(metric)
    }

    /// Adds what a gate counts.
    ///
    /// # Errors
    /// [`prometheus::Error`] if two metrics have one name.
    pub(super) fn register_gate(&self, gate: &Gate) -> Result<(), prometheus::Error> {
        gate.register(&self.registry)
    }

    /// Counts one answer. `route` is a pattern and `method` a known one, so
    /// that a client cannot make up labels.
    pub(super) fn count(&self, method: &str, route: &str, status: u16, elapsed: Duration) {
        let mut digits = itoa::Buffer::new();
        self.requests
            .with_label_values(&[method, route, digits.format(status)])
            .inc();
        self.durations
            .with_label_values(&[route])
            .observe(elapsed.as_secs_f64());
    }
}

fn gauge_value(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Answers with all metrics as Prometheus text.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "health",
    responses(
        (status = 200, description = "Prometheus text", content_type = "text/plain", body = String),
        (status = 401, description = "No token, or one that does not count (auth.mode)", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 403, description = "The token is no admin's", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 404, description = "Switched off by metrics.enabled", content_type = "application/problem+json", body = ProblemJson<'_>),
    )
)]
pub(super) async fn metrics(
    caller: Caller,
    state: Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    caller.may_administer()?;
    metrics_for_operators(state).await
}

/// The same on a socket of its own, where only operators come: Prometheus is
/// not asked for a token.
pub(super) async fn metrics_for_operators(
    state: Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    if !state.settings.metrics_enabled {
        return Err(ApiError::not_found());
    }
    let all = MetricsSource(state).gather().await;
    let mut text = Vec::new();
    TextEncoder::new()
        .encode(&all, &mut text)
        .map_err(|error| {
            tracing::error!(%error, "metrics could not be written");
            ApiError::internal()
        })?;
    Ok(HttpResponse::Ok()
        .insert_header((
            header::CONTENT_TYPE,
            format!("{TEXT_FORMAT}; charset=utf-8"),
        ))
        .body(text))
}

/// All that a broker counts, whichever way it leaves.
#[derive(Clone)]
pub(crate) struct MetricsSource(Data<HttpState>);

impl MetricsSource {
    /// Of what serves HTTP with `state`.
    pub(super) fn new(state: &Data<HttpState>) -> Self {
        Self(Data::clone(state))
    }

    /// Where further metrics are registered.
    pub(crate) fn registry(&self) -> &Registry {
        &self.0.metrics.registry
    }

    /// Takes what leads from [`runcast_actors::metrics::DELIVERY_LAG`] to traces.
    pub(crate) fn take_lag_exemplars(&self) -> Vec<Exemplar> {
        self.0.broker.take_lag_exemplars()
    }

    /// Returns every metric as it stands now.
    pub(crate) async fn gather(&self) -> Vec<MetricFamily> {
        let Self(state) = self;
        let now = &state.metrics;
        now.idempotency_keys
            .set(gauge_value(state.idempotency.count().await));
        now.body_bytes.set(gauge_value(state.body_room.held()));
        now.history_reads
            .set(gauge_value(state.history_reads.count() as u64));
        now.publish_addresses
            .set(gauge_value(state.publish_pace.count() as u64));
        now.publish_subjects
            .set(gauge_value(state.publish_pace_of_subjects.count() as u64));
        let mut all = state.metrics.registry.gather();
        all.extend(state.broker.families().into_iter().map(metric_family));
        all
    }
}
