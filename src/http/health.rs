//! `GET /health`, `/health/live`, `/health/ready`.

use std::collections::BTreeMap;

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use runcast_actors::broker::{Broker, DependencyHealth};
use runcast_actors::protocol::Problem;
use serde::Serialize;
use utoipa::ToSchema;

use super::problem::{ApiError, ProblemJson, json_answer};
use super::query::Pairs;
use super::{HttpState, VERSION};

/// The process and its dependencies.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HealthJson {
    /// `ok`, or `degraded` while a dependency is down.
    #[schema(example = "ok")]
    status: &'static str,
    version: &'static str,
    uptime_seconds: u64,
    /// Whether the process is shutting down.
    draining: bool,
    /// By name: `redis`, `kubectl`.
    dependencies: BTreeMap<&'static str, DependencyJson>,
}

/// One dependency.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DependencyJson {
    /// `up` or `down`.
    #[schema(example = "up")]
    status: &'static str,
    /// Since when.
    since: String,
    /// The last error, while it is down.
    error: Option<String>,
    /// The last probe's way there and back.
    latency_ms: Option<f64>,
    /// Of `kubectl` only: who asks the cluster, `command` or `api`.
    #[serde(skip_serializing_if = "Option::is_none")]
    engine: Option<&'static str>,
}

/// Answer of the two probes.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ProbeJson {
    /// `ok`.
    status: &'static str,
}

/// Tells how the process and its dependencies are; 200 while it serves.
#[utoipa::path(
    get,
    path = "/health",
    tag = "health",
    security(()),
    responses((status = 200, description = "The process serves", body = HealthJson))
)]
pub(super) async fn health(state: Data<HttpState>) -> HttpResponse {
    let dependencies = state.broker.dependencies();
    let all_up = dependencies.iter().all(|(_, health)| health.up);
    json_answer(&HealthJson {
        status: if all_up { "ok" } else { "degraded" },
        version: VERSION,
        uptime_seconds: state.started.elapsed().as_secs(),
        draining: state.broker.is_leaving(),
        dependencies: dependencies
            .into_iter()
            .map(|(name, health)| (name, dependency(name, health, &state.broker)))
            .collect(),
    })
}

/// Tells that the process is alive.
#[utoipa::path(
    get,
    path = "/health/live",
    tag = "health",
    security(()),
    responses((status = 200, description = "The process is alive", body = ProbeJson))
)]
pub(super) async fn live() -> HttpResponse {
    json_answer(&ProbeJson { status: "ok" })
}

/// Tells whether new clients should be sent here. A broker that is starting
/// does not listen yet.
///
/// A dependency that is down does not count unless `strict` asks for it: it is
/// down for every broker, and a balancer that takes all of them out answers
/// 503 to clients that would have waited in an open stream.
#[utoipa::path(
    get,
    path = "/health/ready",
    tag = "health",
    security(()),
    params(("strict" = Option<bool>, Query, description = "true: also 503 while the default backend is unusable")),
    responses(
        (status = 200, description = "Ready", body = ProbeJson),
        (status = 400, description = "Bad query value", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 503, description = "Draining, or (strict) without its default backend", content_type = "application/problem+json", body = ProblemJson<'_>),
    )
)]
pub(super) async fn ready(
    request: HttpRequest,
    state: Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    let strict = Pairs::parse(request.query_string()).switch("strict")?;
    let broker = &state.broker;
    let why = if broker.is_leaving() {
        Some(("draining", "the broker is shutting down; use another one"))
    } else if strict && !broker.default_backend_usable() {
        Some((
            "backend-unusable",
            "the default backend cannot be used now; see /health",
        ))
    } else {
        None
    };
    match why {
        None => Ok(json_answer(&ProbeJson { status: "ok" })),
        Some((slug, detail)) => Err(Problem::new(503, slug, "Not ready", detail).into()),
    }
}

/// Returns what is told of a dependency.
pub(super) fn dependency(name: &str, health: DependencyHealth, broker: &Broker) -> DependencyJson {
    DependencyJson {
        status: if health.up { "up" } else { "down" },
        since: health.since.to_string(),
        error: health.error,
        latency_ms: health.latency_ms,
        engine: (name == "kubectl").then(|| broker.kubectl_engine().name()),
    }
}
