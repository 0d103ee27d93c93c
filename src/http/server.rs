//! [`HttpServer`]: the listening socket, the workers, and an orderly end.

use std::future::Future;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use actix_http::HttpService;
use actix_server::Server;
use actix_service::{
    IntoServiceFactory as _, ServiceFactoryExt as _, apply_fn_factory, map_config,
};
use actix_web::dev::AppConfig;
use actix_web::middleware::from_fn;
use actix_web::rt::net::TcpStream;
use actix_web::web::Data;
use actix_web::{App, Error};
use actix_web_lab::middleware::CatchPanic;
use anyhow::Context as _;
use runcast_actors::broker::Broker;

use super::connection::{self, Connection};
use super::cors::cors;
use super::problem::{convert_failures, rewrite_errors};
use super::request_log::log_request;
use super::{Gate, HttpSettings, HttpState, configure, sockets};
use crate::settings::ServerSettings;

/// A request's head must be here in this time; a slow one is a client that
/// holds connections open, and gets 408.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Longer than the usual minute after which proxies drop an idle upstream
/// connection: the side that closes first must not be the one that gets the
/// next request.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// An answer that ends the connection, to a request that was not read whole,
/// gets this time to be read.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Part of the grace that open streams have; the rest is for closing sockets.
const DRAIN_SHARE: f64 = 0.8;

/// A bound server that is yet to run.
pub(crate) struct HttpServer {
    server: Server,
    addresses: Vec<SocketAddr>,
    broker: Broker,
    shutdown_grace: Duration,
}

impl HttpServer {
    /// Binds the socket and starts the workers; call it inside the system that
    /// is to run them.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub(crate) fn bind(
        options: &ServerSettings,
        settings: HttpSettings,
        gate: Option<Gate>,
        broker: Broker,
    ) -> anyhow::Result<Self> {
        let write_timeout = broker.settings().limits.write_timeout;
        let with_cookies = gate.as_ref().is_some_and(|gate| gate.cookie.is_some());
        let state = Data::new(HttpState::new(broker.clone(), settings)?.behind(gate)?);
        let cannot_listen = || format!("cannot listen on {}", options.bind);
        let listener =
            sockets::listen(options.bind, options.backlog).with_context(cannot_listen)?;
        let address = listener.local_addr().with_context(cannot_listen)?;
        let builder = Server::build()
            .workers(options.worker_count())
            .max_concurrent_connections(options.max_connections_per_worker())
            .backlog(options.backlog)
            .disable_signals()
            .shutdown_timeout(options.shutdown_grace.as_secs().max(1));
        let shutdown = builder.graceful_shutdown_signal();
        let factory = move || {
            let cors = match with_cookies {
                true => cors(&state.settings.allowed_origins).supports_credentials(),
                false => cors(&state.settings.allowed_origins),
            };
            // Outermost last: the log sees every answer, errors carry the CORS
            // headers, and a panic in a handler is an error like others.
            let app = App::new()
                .app_data(Data::clone(&state))
                .configure(configure)
                .wrap(CatchPanic::default())
                .wrap(from_fn(convert_failures))
                .wrap(cors)
                .wrap(from_fn(rewrite_errors))
                .wrap(from_fn(log_request))
                .into_factory()
                .map_err(|error: Error| error.error_response());
            let shutdown = shutdown.clone();
            // As `actix_web::HttpServer` would, but for the I/O object.
            let http = HttpService::build()
                // By it a connection that waits for another request ends at once.
                .graceful_shutdown_signal(move || {
                    let shutdown = shutdown.clone();
                    async move { shutdown.notified().await }
                })
                .keep_alive(KEEP_ALIVE)
                .client_request_timeout(REQUEST_TIMEOUT)
                .client_disconnect_timeout(DISCONNECT_TIMEOUT)
                // Otherwise a client that vanished while it waits for an
                // answer stays until the next write to it.
                .h1_allow_half_closed(false)
                .local_addr(address)
                .on_connect_ext(|connection: &Connection, data| {
                    data.insert(connection.handle());
                })
                .h1(map_config(app, |()| AppConfig::default()));
            apply_fn_factory(http, move |socket: TcpStream, http| {
                sockets::tune(&socket, write_timeout);
                connection::serve(http, socket)
            })
        };
        let server = builder
            .listen("http", listener, factory)
            .with_context(cannot_listen)?;
        let addresses = vec![address];
        for address in &addresses {
            tracing::info!(addr = %address, "listening");
        }
        Ok(Self {
            server: server.run(),
            addresses,
            broker,
            shutdown_grace: options.shutdown_grace,
        })
    }

    /// Returns where it listens, with the port that was taken for 0.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Serves until `stop` is ready, then ends within the grace: streams get
    /// `goodbye` while new requests still find a broker that says it is
    /// draining, then the sockets close.
    ///
    /// # Errors
    /// The server ended by itself.
    pub(crate) async fn run(self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let handle = self.server.handle();
        let mut server = actix_web::rt::spawn(self.server);
        tokio::select! {
            ended = &mut server => {
                ended.context("the server panicked")??;
                anyhow::bail!("the server ended by itself");
            }
            () = stop => {}
        }
        let started = Instant::now();
        tracing::info!(
            grace_seconds = self.shutdown_grace.as_secs_f64(),
            "draining"
        );
        let streams_left = self
            .broker
            .drain(self.shutdown_grace.mul_f64(DRAIN_SHARE))
            .await;
        if streams_left > 0 {
            tracing::warn!(streams_left, "some streams did not end in time");
        }
        let left = self.shutdown_grace.saturating_sub(started.elapsed());
        if tokio::time::timeout(left, handle.stop(true)).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
        self.broker.stop().await;
        tracing::info!(elapsed_ms = started.elapsed().as_millis() as u64, "stopped");
        Ok(())
    }
}
