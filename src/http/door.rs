//! [`Door`]: what stands between a connection that was accepted and HTTP.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use actix_web::rt::net::TcpStream;
use actix_web::web::Data;
use runcast_actors::metrics::Limit;
use tokio::time::{sleep, timeout};
use tokio_util::either::Either;

use super::connection::{ClientSocket, Connection};
use super::tls::Tls;
use super::{HttpState, proxy_protocol, sockets};

/// How long a connection waits for its turn at `limits.accept_rate`. Longer,
/// and it is closed without an answer: an EventSource comes back after that,
/// but never after a status.
const PATIENCE: Duration = Duration::from_secs(1);

/// Lets connections in: at the pace set, under the address of their client.
#[derive(Clone)]
pub(super) struct Door {
    state: Data<HttpState>,
    tls: Option<Tls>,
    /// Whoever comes is let in as it is.
    is_open: bool,
}

impl Door {
    pub(super) fn new(state: Data<HttpState>, tls: Option<Tls>) -> Self {
        Self {
            state,
            tls,
            is_open: false,
        }
    }

    /// A door without any of it.
    pub(super) fn of_operators(state: Data<HttpState>) -> Self {
        Self {
            state,
            tls: None,
            is_open: true,
        }
    }

    pub(super) fn state(&self) -> &HttpState {
        &self.state
    }

    /// Returns the connection and whose it is; `None` if it was turned away.
    pub(super) async fn let_in(
        &self,
        socket: TcpStream,
    ) -> Option<(Connection, Option<SocketAddr>)> {
        let state = &self.state;
        sockets::tune(&socket, state.broker.live().limits.write_timeout);
        let peer = socket.peer_addr().ok();
        if self.is_open {
            return Some((
                Connection::new(Either::Left(socket), Data::clone(state)),
                peer,
            ));
        }
        let rate = state.broker.live().limits.accept_rate;
        match state.accept_pace.take(rate, Instant::now(), PATIENCE) {
            Ok(Duration::ZERO) => {}
            // Boxed likewise, as below.
            Ok(wait) => Box::pin(sleep(wait)).await,
            Err(_) => {
                state.broker.refused(Limit::AcceptRate);
                return None;
            }
        }
        let proxy = peer.filter(|peer| state.addresses.speaks_proxy_protocol(peer.ip()));
        if proxy.is_none() && self.tls.is_none() {
            return Some((
                Connection::new(Either::Left(socket), Data::clone(state)),
                peer,
            ));
        }
        // Boxed: a connection that needs none of it keeps no room for it.
        let preparing = Box::pin(timeout(
            state.broker.live().limits.header_timeout,
            self.prepare(socket, proxy),
        ));
        match preparing.await {
            Ok(Some((socket, client))) => {
                let connection = Connection::new(socket, Data::clone(state));
                Some((connection, client.or(peer)))
            }
            Ok(None) => None,
            Err(_) => {
                state.broker.refused(Limit::HeaderTime);
                None
            }
        }
    }

    /// Reads what comes before HTTP; `None` if that is not as it must be.
    async fn prepare(
        &self,
        mut socket: TcpStream,
        proxy: Option<SocketAddr>,
    ) -> Option<(ClientSocket, Option<SocketAddr>)> {
        let mut client = None;
        if let Some(proxy) = proxy {
            match proxy_protocol::read_header(&mut socket).await {
                Ok(told) => client = told,
                Err(error) => {
                    // One that only ends looks whether we listen.
                    if error.kind() != io::ErrorKind::UnexpectedEof {
                        tracing::warn!(%proxy, %error, "a connection of a proxy is refused");
                    }
                    return None;
                }
            }
        }
        let Some(tls) = &self.tls else {
            return Some((Either::Left(socket), client));
        };
        match tls.accept(socket).await {
            Ok(socket) => Some((Either::Right(Box::new(socket)), client)),
            Err(error) => {
                self.state.metrics.tls_failures.inc();
                tracing::debug!(%error, "a TLS handshake failed");
                None
            }
        }
    }
}
