//! [`HttpServer`]: the listening sockets, the workers, and an orderly end.

use std::future::Future;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use actix_server::{Server, ServerBuilder};
use actix_web::web::Data;
use anyhow::Context as _;
use prometheus::core::Collector;
use runcast_actors::broker::Broker;

use super::door::Door;
use super::listener::{Listener, Surface};
use super::metrics::MetricsSource;
use super::tls::Tls;
use super::{Gate, HttpSettings, HttpState, configure, configure_operator, configure_public};
use crate::auth::KeySet;
use crate::settings::{ServerSettings, Settings};

/// Part of the grace that open streams have; the rest is for closing sockets.
const DRAIN_SHARE: f64 = 0.8;

/// Connections to the operator's socket at once: scrapes, not clients.
pub(crate) const OPERATOR_CONNECTIONS: usize = 64;

/// A bound server that is yet to run.
pub(crate) struct HttpServer {
    server: Server,
    /// Of `metrics.bind`: with a thread and connections of its own, so that it
    /// answers when all others are taken.
    operator: Option<Server>,
    addresses: Vec<SocketAddr>,
    metrics: MetricsSource,
    broker: Broker,
    state: Data<HttpState>,
    drain_delay: Duration,
    drain_rate: usize,
    shutdown_grace: Duration,
}

/// Changes a server while it serves.
pub(crate) struct HttpControls {
    state: Data<HttpState>,
}

impl HttpControls {
    /// Has other pages read us, and tokens judged by other keys and rules,
    /// both from the next request on.
    pub(crate) fn change(&self, settings: &Settings, keys: KeySet) {
        let origins = &settings.cors.allowed_origins;
        self.state.settings.allowed_origins.replace(origins);
        if let Some(gate) = &self.state.gate {
            gate.change(&settings.auth, keys);
        }
    }

    /// Shows another part's metric beside ours.
    ///
    /// # Errors
    /// [`prometheus::Error`] if two metrics have one name.
    pub(crate) fn register(&self, metric: Box<dyn Collector>) -> Result<(), prometheus::Error> {
        self.state.metrics.register(metric)
    }
}

impl HttpServer {
    /// Binds the sockets and starts the workers; call it inside the system that
    /// is to run them.
    ///
    /// # Errors
    /// An address cannot be bound, or the certificate cannot be used.
    pub(crate) fn bind(
        options: &ServerSettings,
        settings: HttpSettings,
        gate: Option<Gate>,
        broker: Broker,
    ) -> anyhow::Result<Self> {
        let metrics_bind = settings.metrics_bind;
        let state = Data::new(HttpState::new(broker.clone(), settings)?.behind(gate)?);
        let tls = options.tls_files();
        let tls = tls.map(|files| Tls::start(files, state.metrics.clone()));
        let is_tls = tls.is_some();
        let metrics = MetricsSource::new(&state);
        let surface = Surface {
            door: Door::new(Data::clone(&state), tls.transpose()?),
            is_open: state.gate.is_none(),
            state: Data::clone(&state),
            routes: match metrics_bind {
                None => configure,
                Some(_) => configure_public,
            },
        };
        let shared = Data::clone(&state);
        let operator = metrics_bind.map(|bind| operator(bind, options, shared));
        let operator = operator.transpose()?;
        let listener = Listener::bind(options.bind, options.backlog)?;
        let address = listener.address;
        let builder = builder(options)
            .workers(options.worker_count())
            .max_concurrent_connections(options.max_connections_per_worker());
        let server = listener.add_to(builder, surface)?;
        tracing::info!(addr = %address, tls = is_tls, "listening");
        Ok(Self {
            server: server.run(),
            operator,
            addresses: vec![address],
            metrics,
            broker,
            state,
            drain_delay: options.drain_delay,
            drain_rate: options.drain_rate,
            shutdown_grace: options.shutdown_grace,
        })
    }

    /// Returns what changes it while it serves.
    pub(crate) fn controls(&self) -> HttpControls {
        HttpControls {
            state: Data::clone(&self.state),
        }
    }

    /// Returns where it listens, with the port that was taken for 0.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Returns where its metrics are read.
    pub(crate) fn metrics(&self) -> MetricsSource {
        self.metrics.clone()
    }

    /// Serves until `stop` is ready, and for the drain's delay, in which proxies
    /// learn that it is to go; then ends within the grace: streams get
    /// `goodbye` while new requests still find a broker that says it is
    /// draining, then the sockets close.
    ///
    /// # Errors
    /// The server ended by itself.
    pub(crate) async fn run(self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let handle = self.server.handle();
        if let Some(operator) = self.operator {
            // Ends with the process: until then it says how the end goes.
            actix_web::rt::spawn(operator);
        }
        let mut server = actix_web::rt::spawn(self.server);
        tokio::select! {
            ended = &mut server => {
                ended.context("the server panicked")??;
                anyhow::bail!("the server ended by itself");
            }
            () = stop => {}
        }
        if !self.drain_delay.is_zero() {
            self.broker.leave();
            tracing::info!(
                delay_seconds = self.drain_delay.as_secs_f64(),
                "leaving: not ready, and serving on"
            );
            tokio::time::sleep(self.drain_delay).await;
        }
        let started = Instant::now();
        tracing::info!(
            grace_seconds = self.shutdown_grace.as_secs_f64(),
            "draining"
        );
        let streams_left = self
            .broker
            .drain(self.shutdown_grace.mul_f64(DRAIN_SHARE), self.drain_rate)
            .await;
        if streams_left > 0 {
            tracing::warn!(streams_left, "some streams did not end in time");
        }
        let left = self.shutdown_grace.saturating_sub(started.elapsed());
        if tokio::time::timeout(left, handle.stop(true)).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
        let left = self.shutdown_grace.saturating_sub(started.elapsed());
        self.broker.finish_archive(left).await;
        self.broker.stop().await;
        tracing::info!(elapsed_ms = started.elapsed().as_millis() as u64, "stopped");
        Ok(())
    }
}

fn builder(options: &ServerSettings) -> ServerBuilder {
    Server::build()
        .backlog(options.backlog)
        .disable_signals()
        .shutdown_timeout(options.shutdown_grace.as_secs().max(1))
}

/// Starts what serves the operator's socket.
fn operator(
    bind: SocketAddr,
    options: &ServerSettings,
    state: Data<HttpState>,
) -> anyhow::Result<Server> {
    let listener = Listener::bind(bind, options.backlog)?;
    tracing::info!(addr = %listener.address, "listening for operators");
    let builder = builder(options)
        .workers(1)
        .max_concurrent_connections(OPERATOR_CONNECTIONS);
    let surface = Surface {
        door: Door::of_operators(Data::clone(&state)),
        is_open: true,
        state,
        routes: configure_operator,
    };
    Ok(listener.add_to(builder, surface)?.run())
}
