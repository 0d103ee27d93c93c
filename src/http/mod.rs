//! The HTTP API: routes, and everything between a request and the broker.
//!
//! Talks to the actors only through [`Broker`]; knows no Redis, no kubectl.
//! Reading what clients send is pure (`query`, `stream_query`,
//! `publish_body`); every error is made in `problem`.

mod backend_choice;
mod body_form;
mod broker_metrics;
mod caller;
mod config;
mod connection;
mod console;
mod cors;
mod credential;
mod gate;
mod health;
mod history;
mod idempotency;
mod metrics;
mod openapi;
mod page;
mod problem;
mod publish;
mod publish_body;
mod query;
mod request_body;
mod request_log;
mod revocations;
mod run_path;
mod runs;
mod server;
mod small_body;
mod sockets;
mod stream;
mod stream_query;
mod stream_writer;
#[cfg(test)]
mod tests;
mod tickets;

use std::time::Instant;

use actix_web::web::{self, ServiceConfig};
use actix_web::{Handler, HttpRequest, Resource, Responder};
use runcast_actors::broker::Broker;

use backend_choice::Backends;
use history::HistoryReads;
use idempotency::IdempotencyKeys;
use metrics::HttpMetrics;
use problem::ApiError;
use request_body::BodyRoom;

pub(crate) use gate::Gate;
pub(crate) use publish_body::{read_event, read_source};
pub(crate) use server::HttpServer;

/// Version of this build.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A run id in a route: any segment, the empty one too, so that a bad run id
/// is told as such and not as an unknown route.
const RUN_ID_PATTERN: &str = "{run_id:[^/]*}";

/// The settings that the routes read beside the broker's own.
#[derive(Debug, Clone)]
pub(crate) struct HttpSettings {
    /// `cors.allowed_origins`.
    pub(crate) allowed_origins: Vec<String>,
    /// `metrics.enabled`.
    pub(crate) metrics_enabled: bool,
}

/// What every handler shares.
struct HttpState {
    broker: Broker,
    settings: HttpSettings,
    /// None with `auth.mode = "none"`.
    gate: Option<Gate>,
    metrics: HttpMetrics,
    idempotency: IdempotencyKeys,
    body_room: BodyRoom,
    history_reads: HistoryReads,
    started: Instant,
}

impl HttpState {
    fn new(broker: Broker, settings: HttpSettings) -> Result<Self, prometheus::Error> {
        let limits = &broker.settings().limits;
        Ok(Self {
            idempotency: IdempotencyKeys::new(limits.idempotency_keys, limits.idempotency_ttl),
            body_room: BodyRoom::new(limits.total_body_bytes.as_u64()),
            history_reads: HistoryReads::new(limits.history_reads),
            broker,
            settings,
            gate: None,
            metrics: HttpMetrics::new()?,
            started: Instant::now(),
        })
    }

    /// Lets only those in whom `gate` does.
    fn behind(mut self, gate: Option<Gate>) -> Result<Self, prometheus::Error> {
        if let Some(gate) = &gate {
            self.metrics.register_gate(gate)?;
        }
        self.gate = gate;
        Ok(self)
    }

    fn backends(&self) -> Backends {
        let settings = self.broker.settings();
        Backends {
            default: settings.streaming.default_backend,
            store: settings.backend(),
            kubectl_enabled: settings.kubectl.enabled,
        }
    }
}

/// One path with its methods, as registered and as described.
struct Route {
    path: &'static str,
    /// Value of the `Allow` header.
    allow: &'static str,
    methods: Vec<actix_web::Route>,
}

impl Route {
    fn into_resource(self) -> Resource {
        let allow = self.allow;
        let refuse = move |request: HttpRequest| async move {
            let method = request.method().as_str();
            Err::<&str, _>(ApiError::method_not_allowed(method, allow))
        };
        let pattern = self.path.replace("{run_id}", RUN_ID_PATTERN);
        let resource = web::resource(pattern).default_service(web::to(refuse));
        self.methods.into_iter().fold(resource, Resource::route)
    }
}

/// Every route there is.
fn routes() -> Vec<Route> {
    vec![
        get("/api/v1/runs/{run_id}/stream", stream::stream),
        get("/api/v1/runs/{run_id}/stream/redis", stream::stream_redis),
        get(
            "/api/v1/runs/{run_id}/stream/kubectl",
            stream::stream_kubectl,
        ),
        Route {
            path: "/api/v1/runs/{run_id}/events",
            allow: "GET, HEAD, POST",
            methods: vec![
                web::get().to(history::history),
                web::head().to(history::history),
                web::post().to(publish::publish),
            ],
        },
        get("/api/v1/runs", runs::runs),
        get("/api/v1/runs/{run_id}", runs::run),
        post("/api/v1/tickets", tickets::tickets),
        post("/api/v1/revocations", revocations::revocations),
        get("/api/v1/config", config::config),
        get("/api/v1/openapi.json", openapi::openapi),
        get("/health", health::health),
        get("/health/live", health::live),
        get("/health/ready", health::ready),
        get("/metrics", metrics::metrics),
        get("/", page::page),
    ]
}

fn get<F, Args>(path: &'static str, handler: F) -> Route
where
    F: Handler<Args>,
    Args: actix_web::FromRequest + 'static,
    F::Output: Responder + 'static,
{
    Route {
        path,
        allow: "GET, HEAD",
        methods: vec![web::get().to(handler.clone()), web::head().to(handler)],
    }
}

fn post<F, Args>(path: &'static str, handler: F) -> Route
where
    F: Handler<Args>,
    Args: actix_web::FromRequest + 'static,
    F::Output: Responder + 'static,
{
    Route {
        path,
        allow: "POST",
        methods: vec![web::post().to(handler)],
    }
}

/// Registers every route, and what answers all other paths.
fn configure(app: &mut ServiceConfig) {
    for route in routes() {
        app.service(route.into_resource());
    }
    console::configure(app);
    app.default_service(web::to(problem::unknown_route));
}
