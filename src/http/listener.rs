//! [`Listener`]: a socket that listens, and how its connections are served.

use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::Duration;

use actix_http::HttpService;
use actix_server::{GracefulShutdownSignal, ServerBuilder};
use actix_service::{
    IntoServiceFactory as _, ServiceFactory, ServiceFactoryExt as _, fn_factory, fn_service,
    map_config,
};
use actix_web::dev::AppConfig;
use actix_web::middleware::from_fn;
use actix_web::rt::net::TcpStream;
use actix_web::web::{Data, ServiceConfig};
use actix_web::{App, Error};
use actix_web_lab::middleware::CatchPanic;
use anyhow::Context as _;

use super::connection::{self, Connection};
use super::cors::{cors, say_any_origin};
use super::door::Door;
use super::host_check::{HostCheck, check_host};
use super::problem::{convert_failures, rewrite_errors};
use super::request_head::check_head;
use super::request_log::log_request;
use super::request_trace::trace_request;
use super::secure_headers::secure_headers;
use super::{HttpState, sockets};

/// Longer than the usual minute after which proxies drop an idle upstream
/// connection: the side that closes first must not be the one that gets the
/// next request.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// An answer that ends the connection, to a request that was not read whole,
/// gets this time to be read.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A socket that listens and is yet to be served.
pub(super) struct Listener {
    socket: TcpListener,
    pub(super) address: SocketAddr,
}

/// What its connections are served by.
#[derive(Clone)]
pub(super) struct Surface {
    pub(super) state: Data<HttpState>,
    pub(super) door: Door,
    /// It asks for no token.
    pub(super) is_open: bool,
    /// Registers the routes that are here.
    pub(super) routes: fn(&mut ServiceConfig),
}

impl Listener {
    /// # Errors
    /// The address cannot be bound.
    pub(super) fn bind(address: SocketAddr, backlog: u32) -> anyhow::Result<Self> {
        let cannot_listen = || format!("cannot listen on {address}");
        let socket = sockets::listen(address, backlog).with_context(cannot_listen)?;
        let address = socket.local_addr().with_context(cannot_listen)?;
        Ok(Self { socket, address })
    }

    /// Adds it to a server.
    ///
    /// # Errors
    /// The socket cannot be used.
    pub(super) fn add_to(
        self,
        builder: ServerBuilder,
        surface: Surface,
    ) -> anyhow::Result<ServerBuilder> {
        let shutdown = builder.graceful_shutdown_signal();
        let address = self.address;
        let factory = move || surface.service(address, shutdown.clone());
        let added = builder.listen("http", self.socket, factory);
        added.with_context(|| format!("cannot listen on {address}"))
    }
}

impl Surface {
    fn service(
        &self,
        address: SocketAddr,
        shutdown: GracefulShutdownSignal,
    ) -> impl ServiceFactory<TcpStream, Config = (), InitError = ()> + use<> {
        let Self {
            state,
            door,
            is_open,
            routes,
        } = self.clone();
        let hosts = HostCheck::new(
            &state.settings.hosts,
            is_open && address.ip().to_canonical().is_loopback(),
            state.metrics.host_refusals.clone(),
        );
        let header_timeout = state.broker.live().limits.header_timeout;
        let allowed = state.settings.allowed_origins.clone();
        let cors = match state
            .gate
            .as_ref()
            .is_some_and(|gate| gate.cookie.is_some())
        {
            true => cors(&allowed).supports_credentials(),
            false => cors(&allowed),
        };
        // Outermost last: the log sees every answer, errors carry the CORS
        // headers, and a panic in a handler is an error like others.
        let app = App::new()
            .app_data(Data::clone(&state))
            .configure(routes)
            .wrap(CatchPanic::default())
            .wrap(from_fn(convert_failures))
            .wrap(cors)
            .wrap(from_fn(move |request, next| {
                say_any_origin(allowed.clone(), request, next)
            }))
            .wrap(from_fn(move |request, next| {
                check_host(hosts.clone(), request, next)
            }))
            // It must see preflights, too, which CORS answers.
            .wrap(from_fn(check_head))
            .wrap(from_fn(rewrite_errors))
            .wrap(from_fn(secure_headers))
            .wrap(from_fn(trace_request))
            .wrap(from_fn(log_request))
            .into_factory()
            .map_err(|error: Error| error.error_response());
        // As `actix_web::HttpServer` would, but for the I/O object.
        let http = HttpService::build()
            // By it a connection that waits for another request ends at once.
            .graceful_shutdown_signal(move || {
                let shutdown = shutdown.clone();
                async move { shutdown.notified().await }
            })
            .keep_alive(KEEP_ALIVE)
            .client_request_timeout(header_timeout)
            .client_disconnect_timeout(DISCONNECT_TIMEOUT)
            // Otherwise a client that vanished while it waits for an
            // answer stays until the next write to it.
            .h1_allow_half_closed(false)
            .local_addr(address)
            .on_connect_ext(|connection: &Connection, data| {
                data.insert(connection.handle());
            })
            .h1(map_config(app, |()| AppConfig::default()));
        fn_factory(move || {
            let (http, door) = (http.new_service(()), door.clone());
            async move {
                let http = Rc::new(http.await?);
                Ok(fn_service(move |socket: TcpStream| {
                    connection::serve(Rc::clone(&http), socket, door.clone())
                }))
            }
        })
    }
}
