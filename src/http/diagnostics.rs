//! `GET /api/v1/diagnostics`: how a request came here, and how the broker's
//! dependencies are to it; what `runcast doctor` cannot see from outside.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::Version;
use actix_web::http::header::HeaderMap;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use moka::future::Cache;
use runcast_actors::broker::Broker;
use runcast_actors::protocol::{BackendKind, Problem, Timestamp};
use runcast_actors::reach::{self, OutputBuffer};
use serde::Serialize;
use utoipa::ToSchema;

use super::HttpState;
use super::caller::Caller;
use super::problem::{ApiError, ProblemJson, json_answer};

/// How long what was found counts: a look takes connections, and a process.
const FOUND_FOR: Duration = Duration::from_secs(3);

/// How a request came here, and how the dependencies are.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DiagnosticsJson {
    /// The broker's clock.
    now: String,
    request: RequestJson,
    /// `null` on an embedded broker.
    redis: Option<RedisJson>,
    /// `null` where kubectl is switched off.
    kubectl: Option<KubectlJson>,
}

/// The request as it came here.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RequestJson {
    /// Version of HTTP that whoever stands in front speaks to the broker.
    #[schema(example = "1.1")]
    http: &'static str,
    /// Its `Last-Event-ID`.
    last_event_id: Option<String>,
}

/// Redis, as a broker needs it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct RedisJson {
    /// The first thing that cannot be done there.
    error: Option<String>,
    /// How long a `PING` takes.
    latency_ms: Option<f64>,
    /// `client-output-buffer-limit pubsub`; `null` if it cannot be read.
    output_buffer: Option<OutputBufferJson>,
    /// Why it cannot be read.
    output_buffer_error: Option<String>,
}

/// What a subscriber may leave unread, in bytes; 0 is no bound.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct OutputBufferJson {
    hard: u64,
    soft: u64,
    soft_seconds: u64,
}

/// Kubectl, as a broker needs it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct KubectlJson {
    /// The namespace of the runs' pods.
    namespace: String,
    /// Type of the problem that its clients are told, without its address.
    problem: Option<&'static str>,
    /// What is wrong.
    error: Option<String>,
}

/// What was found last, for a moment; those who ask meanwhile wait for one
/// look.
#[derive(Debug)]
pub(super) struct Diagnoses(Cache<(), Arc<Found>>);

#[derive(Debug)]
struct Found {
    redis: Option<RedisJson>,
    kubectl: Option<KubectlJson>,
}

impl Default for Diagnoses {
    fn default() -> Self {
        Self(Cache::builder().time_to_live(FOUND_FOR).build())
    }
}

impl Diagnoses {
    async fn of(&self, broker: &Broker) -> Arc<Found> {
        let look = async {
            let (redis, kubectl) = tokio::join!(redis(broker), kubectl(broker));
            Arc::new(Found { redis, kubectl })
        };
        // Boxed: it is seldom, and large.
        Box::pin(self.0.get_with((), look)).await
    }
}

/// Tells how the request came here and how the broker's dependencies are, by
/// doing with each what a broker does.
#[utoipa::path(
    get,
    path = "/api/v1/diagnostics",
    tag = "access",
    responses(
        (status = 200, description = "What was found", body = DiagnosticsJson),
        (status = 401, description = "No token, or one that does not count", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 403, description = "The token is no admin's", content_type = "application/problem+json", body = ProblemJson<'_>),
    )
)]
pub(super) async fn diagnostics(
    caller: Caller,
    request: HttpRequest,
    state: Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    caller.may_administer()?;
    let found = state.diagnoses.of(&state.broker).await;
    Ok(json_answer(&DiagnosticsJson {
        now: Timestamp::now().to_string(),
        request: RequestJson {
            http: match request.version() {
                Version::HTTP_10 | Version::HTTP_09 => "1.0",
                _ => "1.1",
            },
            last_event_id: header_text(request.headers(), "last-event-id"),
        },
        redis: found.redis.clone(),
        kubectl: found.kubectl.clone(),
    }))
}

async fn redis(broker: &Broker) -> Option<RedisJson> {
    let settings = broker.settings();
    if settings.backend() != BackendKind::Redis {
        return None;
    }
    let look = reach::redis_look(&settings.redis).await;
    let error = match &look {
        Ok(_) => reach::redis(&settings.redis, &settings.access).await.err(),
        Err(error) => Some(error.clone()),
    };
    let buffer = look.as_ref().ok().map(|look| look.output_buffer.clone());
    let buffer = buffer.unwrap_or(Ok(None));
    Some(RedisJson {
        error,
        latency_ms: look.ok().map(|look| look.latency.as_secs_f64() * 1000.0),
        output_buffer: buffer.clone().ok().flatten().map(OutputBufferJson::from),
        output_buffer_error: buffer.err(),
    })
}

async fn kubectl(broker: &Broker) -> Option<KubectlJson> {
    let settings = &broker.settings().kubectl;
    if !settings.enabled {
        return None;
    }
    let problem: Option<Problem> = reach::kubectl(settings).await.err();
    Some(KubectlJson {
        namespace: settings.namespace.clone(),
        problem: problem.as_ref().map(|problem| problem.slug),
        error: problem.map(|problem| problem.detail),
    })
}

impl From<OutputBuffer> for OutputBufferJson {
    fn from(limit: OutputBuffer) -> Self {
        Self {
            hard: limit.hard,
            soft: limit.soft,
            soft_seconds: limit.soft_seconds,
        }
    }
}

fn header_text(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    Some(value.to_owned())
}
