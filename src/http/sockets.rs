//! Options of each accepted socket, by which the kernel bounds what a stalled
//! client costs.

use std::any::Any;
use std::io;
use std::time::Duration;

use actix_web::rt::net::TcpStream;
use socket2::SockRef;

/// Kernel memory one socket's unsent and unacknowledged bytes may take; by
/// default it grows to megabytes for a client that never reads.
const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// Unsent bytes above which a socket counts as full: the rest stays in the
/// run's ring, which all its clients share.
#[cfg(target_os = "linux")]
const NOTSENT_LOWAT_BYTES: u32 = 16 * 1024;

/// Sets the options of a new connection. Failing to is logged and no more: the
/// connection works without.
pub(super) fn tune(connection: &dyn Any, write_timeout: Duration) {
    let Some(stream) = connection.downcast_ref::<TcpStream>() else {
        return;
    };
    if let Err(error) = set_options(SockRef::from(stream), write_timeout) {
        tracing::debug!(%error, "socket options could not be set");
    }
}

fn set_options(socket: SockRef<'_>, write_timeout: Duration) -> io::Result<()> {
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    #[cfg(target_os = "linux")]
    {
        socket.set_tcp_notsent_lowat(NOTSENT_LOWAT_BYTES)?;
        // HTTP/1.1 in actix has no write timeout. This one ends a connection
        // whose bytes stay unacknowledged, and one with a window of zero.
        socket.set_tcp_user_timeout(Some(write_timeout))?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = write_timeout;
    Ok(())
}
