//! How a subscriber connects, and what it asks for.

use std::io::{ErrorKind, Write as _};
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result, bail};
use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

use super::Target;

/// Sockets from one loopback address, well below its 28 k ephemeral ports.
const SOCKETS_PER_ADDRESS: usize = 20_000;

/// Bytes the kernel keeps for one that does not read: as few as it allows.
const STALLED_RECEIVE_BYTES: usize = 4096;

/// Begins to connect subscriber `index`.
pub(super) fn connect(target: &Target, index: usize, stalled: bool) -> Result<TcpStream> {
    let addr = target.addr;
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if stalled {
        socket.set_recv_buffer_size(STALLED_RECEIVE_BYTES)?;
    }
    if let Some(source) = source_address(target, index)? {
        socket.bind(&SocketAddr::from((source, 0)).into())?;
    }
    match socket.connect(&addr.into()) {
        Err(error)
            if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) =>
        {
            Err(error).context("cannot connect")
        }
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

/// Returns where subscriber `index` connects from; `None` leaves it to the
/// kernel, as for all to a server elsewhere and for the first few to one here.
fn source_address(target: &Target, index: usize) -> Result<Option<Ipv4Addr>> {
    let step = u32::try_from(index / SOCKETS_PER_ADDRESS)?;
    let is_local = target.addr.is_ipv4() && target.addr.ip().is_loopback();
    let first = match target.first_address {
        Some(first) => first,
        None if is_local && step > 0 => Ipv4Addr::LOCALHOST,
        None => return Ok(None),
    };
    let address = u32::from(first).checked_add(step);
    Ok(Some(address.context("too many subscribers")?.into()))
}

/// Sends the request once the socket is connected; returns whether it is.
pub(super) fn send_request(
    socket: &mut TcpStream,
    target: &Target,
    run: usize,
    last_id: Option<&[u8]>,
) -> Result<bool> {
    if let Some(error) = socket.take_error()? {
        bail!(error);
    }
    // A readiness of the socket that had this one's place before says nothing.
    match socket.peer_addr() {
        Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(false),
        Err(error) => bail!(error),
        Ok(_) => {}
    }
    let mut request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\n",
        target.paths[run], target.host
    )
    .into_bytes();
    if let Some(id) = last_id {
        request.extend_from_slice(b"Last-Event-ID: ");
        request.extend_from_slice(id);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    // A fresh socket takes a request whole.
    socket.write_all(&request)?;
    Ok(true)
}
