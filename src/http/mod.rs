//! The HTTP API: routes, and everything between a request and the broker.
//!
//! Talks to the actors only through [`Broker`]; knows no Redis, no kubectl.
//! Reading what clients send is pure (`query`, `stream_query`,
//! `publish_body`); every error is made in `problem`.

mod backend_choice;
mod body_form;
mod broker_metrics;
mod caller;
mod client_address;
mod config;
mod connection;
mod console;
mod cors;
mod credential;
mod diagnostics;
mod door;
mod explain;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod gate;
mod health;
mod history;
mod host_check;
mod idempotency;
mod listener;
mod metrics;
mod openapi;
mod pace;
mod page;
mod problem;
mod proxy_protocol;
mod publish;
mod publish_body;
mod query;
mod request_body;
mod request_head;
mod request_log;
mod request_trace;
mod revocations;
mod run_path;
mod runs;
mod secure_headers;
mod server;
mod small_body;
mod sockets;
mod stream;
mod stream_query;
mod stream_writer;
#[cfg(test)]
mod tests;
mod tickets;
mod tls;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use actix_web::web::{self, ServiceConfig};
use actix_web::{Handler, HttpRequest, Resource, Responder};
use ipnet::IpNet;
use runcast_actors::broker::Broker;

use backend_choice::Backends;
use client_address::ClientAddresses;
use diagnostics::Diagnoses;
use history::HistoryReads;
use idempotency::IdempotencyKeys;
use metrics::HttpMetrics;
use pace::{Pace, PacePer};
use problem::ApiError;
use request_body::BodyRoom;

use crate::settings::ProxyHeader;

pub(crate) use cors::AllowedOrigins;
pub(crate) use gate::Gate;
pub(crate) use metrics::MetricsSource;
pub(crate) use publish_body::{read_event, read_source};
pub(crate) use server::{HttpControls, HttpServer, OPERATOR_CONNECTIONS};
pub(crate) use tls::TlsFiles;

/// Version of this build.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A run id in a route: any segment, the empty one too, so that a bad run id
/// is told as such and not as an unknown route.
const RUN_ID_PATTERN: &str = "{run_id:[^/]*}";

/// The settings that the routes read beside the broker's own.
#[derive(Debug, Clone, Default)]
pub(crate) struct HttpSettings {
    /// `cors.allowed_origins`.
    pub(crate) allowed_origins: AllowedOrigins,
    /// `metrics.enabled`.
    pub(crate) metrics_enabled: bool,
    /// `metrics.bind`.
    pub(crate) metrics_bind: Option<SocketAddr>,
    /// `server.trusted_proxies`.
    pub(crate) trusted_proxies: Vec<IpNet>,
    /// `server.proxy_header`.
    pub(crate) proxy_header: ProxyHeader,
    /// `server.hosts`.
    pub(crate) hosts: Vec<String>,
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
    /// Of the access routes: posts that fill the other must not keep an admin
    /// from revoking.
    small_body_room: BodyRoom,
    history_reads: HistoryReads,
    diagnoses: Diagnoses,
    addresses: ClientAddresses,
    accept_pace: Pace,
    /// By the address, or with IPv6 its /64.
    publish_pace: PacePer<IpAddr>,
    publish_pace_of_subjects: PacePer<Arc<str>>,
    started: Instant,
}

impl HttpState {
    fn new(broker: Broker, settings: HttpSettings) -> Result<Self, prometheus::Error> {
        let limits = &broker.live().limits;
        Ok(Self {
            idempotency: IdempotencyKeys::new(limits.idempotency_keys, limits.idempotency_ttl),
            body_room: BodyRoom::new(broker.clone()),
            small_body_room: BodyRoom::new(broker.clone()),
            history_reads: HistoryReads::default(),
            diagnoses: Diagnoses::default(),
            addresses: ClientAddresses::new(&settings),
            accept_pace: Pace::default(),
            publish_pace: PacePer::default(),
            publish_pace_of_subjects: PacePer::default(),
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
            default: settings.live.now().streaming.default_backend,
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

/// The routes for clients and publishers.
fn public_routes() -> Vec<Route> {
    let mut routes = vec![
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
        get("/api/v1/runs/{run_id}/explain", explain::explain),
        post("/api/v1/tickets", tickets::tickets),
        post("/api/v1/revocations", revocations::revocations),
        get("/api/v1/config", config::config),
        get("/api/v1/diagnostics", diagnostics::diagnostics),
        get("/api/v1/openapi.json", openapi::openapi),
        get("/", page::page),
    ];
    routes.extend(health_routes());
    routes
}

/// The routes for whoever runs brokers, where everybody comes.
fn operator_routes() -> Vec<Route> {
    vec![get("/metrics", metrics::metrics)]
}

/// The routes for both, and for what stands in front of brokers.
fn health_routes() -> Vec<Route> {
    vec![
        get("/health", health::health),
        get("/health/live", health::live),
        get("/health/ready", health::ready),
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
    register(app, operator_routes());
    configure_public(app);
}

/// The same without the routes that have a socket of their own.
fn configure_public(app: &mut ServiceConfig) {
    register(app, public_routes());
    console::configure(app);
    app.default_service(web::to(problem::unknown_route));
}

/// Registers those, where only operators come.
fn configure_operator(app: &mut ServiceConfig) {
    register(app, vec![get("/metrics", metrics::metrics_for_operators)]);
    register(app, health_routes());
    app.default_service(web::to(problem::unknown_route));
}

fn register(app: &mut ServiceConfig, routes: Vec<Route>) {
    for route in routes {
        app.service(route.into_resource());
    }
}
