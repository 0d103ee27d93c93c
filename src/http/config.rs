//! `GET /api/v1/config`: what a frontend needs to know before it streams.

use actix_web::HttpResponse;
use actix_web::web::Data;
use runcast_actors::settings::DefaultBackend;
use serde::Serialize;
use utoipa::ToSchema;

use super::problem::json_answer;
use super::{HttpState, VERSION};

/// How often a client should try to reconnect to Redis before it gives up or
/// turns to the other backend.
const RECONNECT_REDIS: u32 = 10;

/// The same for kubectl, where each attempt starts processes.
const RECONNECT_KUBECTL: u32 = 3;

/// What a frontend needs.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ConfigJson {
    version: &'static str,
    /// Of bare `/stream`: `redis`, `kubectl`, `embedded` or `auto`.
    #[schema(value_type = String)]
    default_backend: DefaultBackend,
    /// Backends on offer.
    backends: Vec<&'static str>,
    /// Time between two `heartbeat` events of a stream.
    heartbeat_seconds: u64,
    /// Attempts to reconnect, by backend.
    reconnect: ReconnectJson,
}

/// Attempts to reconnect, by backend.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReconnectJson {
    redis: u32,
    kubectl: u32,
}

/// Tells what a frontend needs.
#[utoipa::path(
    get,
    path = "/api/v1/config",
    tag = "about",
    security(()),
    responses((status = 200, description = "The settings a frontend needs", body = ConfigJson))
)]
pub(super) async fn config(state: Data<HttpState>) -> HttpResponse {
    let backends = state.backends();
    json_answer(&ConfigJson {
        version: VERSION,
        default_backend: backends.default,
        backends: backends
            .on_offer()
            .iter()
            .map(|backend| backend.as_str())
            .collect(),
        heartbeat_seconds: state.broker.settings().heartbeat.interval.as_secs(),
        reconnect: ReconnectJson {
            redis: RECONNECT_REDIS,
            kubectl: RECONNECT_KUBECTL,
        },
    })
}
