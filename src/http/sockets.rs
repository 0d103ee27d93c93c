//! Options of each accepted socket, by which the kernel bounds what a stalled
//! client costs.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use actix_web::rt::net::TcpStream;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Kernel memory one socket's unsent and unacknowledged bytes may take; by
/// default it grows to megabytes for a client that never reads.
const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// Unsent bytes above which a socket counts as full: the rest stays in the
/// run's ring, which all its clients share.
#[cfg(target_os = "linux")]
const NOTSENT_LOWAT_BYTES: u32 = 16 * 1024;

/// Opens the listening socket.
///
/// # Errors
/// The address cannot be bound.
pub(super) fn listen(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A broker that starts anew takes its port while connections of the one
    // before still time out.
    #[cfg(not(windows))]
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(TcpListener::from(socket))
}

/// Sets the options of a new connection. Failing to is logged and no more: the
/// connection works without.
pub(super) fn tune(stream: &TcpStream, write_timeout: Duration) {
    if let Err(error) = set_options(SockRef::from(stream), write_timeout) {
        tracing::debug!(%error, "socket options could not be set");
    }
}

fn set_options(socket: SockRef<'_>, write_timeout: Duration) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    #[cfg(target_os = "linux")]
    {
        socket.set_tcp_notsent_lowat(NOTSENT_LOWAT_BYTES)?;
        // There is no other write timeout. This one ends a connection
        // whose bytes stay unacknowledged, and one with a window of zero.
        socket.set_tcp_user_timeout(Some(write_timeout))?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = write_timeout;
    Ok(())
}
