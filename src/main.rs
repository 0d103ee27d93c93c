//! Runcast: a live-run streaming broker.

mod demo;
mod http;
mod server;

use runcast_actors::broker::Broker;
use runcast_actors::settings::{DefaultBackend, LimitSettings};

/// Stands in for the command line until it lands.
fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter("debug")
        .init();
    let options = http::ServerOptions {
        bind: std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
        workers: 2,
        max_connections_per_worker: 1000,
        backlog: 1024,
        shutdown_grace: std::time::Duration::from_secs(20),
    };
    let settings = http::HttpSettings {
        default_backend: DefaultBackend::Embedded,
        log_level: Default::default(),
        kubectl_enabled: true,
        heartbeat_interval: std::time::Duration::from_secs(30),
        limits: LimitSettings::default(),
        allowed_origins: vec!["http://localhost:3000".to_owned()],
        metrics_enabled: true,
    };
    actix_web::rt::System::new().block_on(server::serve(options, settings, Broker, true))
}
