//! Reads the header of the PROXY protocol, by which a proxy that knows no HTTP
//! says whose connection it passes on
//! (<https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>).
//!
//! Not a byte past the header is read: what follows is the client's own, and
//! may be TLS.

use std::io;
use std::net::SocketAddr;

use ppp::{v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// How much tells the versions apart; the shortest header is longer.
const PREFIX_BYTES: usize = 12;

/// Bytes of a header of version 2 before its addresses.
const V2_HEAD_BYTES: usize = 16;

/// Bytes of addresses and what else proxies add; ours need 36 at most.
const V2_BODY_BYTES_MAX: usize = 4096;

/// Bytes of a header of version 1 at most.
const V1_BYTES_MAX: usize = 107;

/// Reads a header of either version. `None`: the proxy speaks for itself (a
/// health check), or of a connection that has no IP address.
///
/// # Errors
/// The connection ended, or does not begin with a header.
pub(super) async fn read_header(
    socket: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<SocketAddr>> {
    let mut header = vec![0; PREFIX_BYTES];
    socket.read_exact(&mut header).await?;
    match header[..] == *v2::PROTOCOL_PREFIX {
        true => read_v2(socket, header).await,
        false => read_v1(socket, header).await,
    }
}

async fn read_v2(
    socket: &mut (impl AsyncRead + Unpin),
    mut header: Vec<u8>,
) -> io::Result<Option<SocketAddr>> {
    header.resize(V2_HEAD_BYTES, 0);
    socket.read_exact(&mut header[PREFIX_BYTES..]).await?;
    let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
    if length > V2_BODY_BYTES_MAX {
        return Err(broken("its header is too long"));
    }
    header.resize(V2_HEAD_BYTES + length, 0);
    socket.read_exact(&mut header[V2_HEAD_BYTES..]).await?;
    let header = v2::Header::try_from(&header[..]).map_err(broken)?;
    Ok(match (header.command, header.addresses) {
        (v2::Command::Local, _) => None,
        (_, v2::Addresses::IPv4(ip)) => Some((ip.source_address, ip.source_port).into()),
        (_, v2::Addresses::IPv6(ip)) => Some((ip.source_address, ip.source_port).into()),
        (_, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => None,
    })
}

/// A line: read byte by byte, since nobody says how long it is.
async fn read_v1(
    socket: &mut (impl AsyncRead + Unpin),
    mut header: Vec<u8>,
) -> io::Result<Option<SocketAddr>> {
    if !header.starts_with(v1::PROTOCOL_PREFIX.as_bytes()) {
        return Err(broken(
            "it does not begin with a header of the PROXY protocol",
        ));
    }
    while !header.ends_with(v1::PROTOCOL_SUFFIX.as_bytes()) {
        if header.len() == V1_BYTES_MAX {
            return Err(broken("its header is too long"));
        }
        header.push(socket.read_u8().await?);
    }
    let header = v1::Header::try_from(&header[..]).map_err(broken)?;
    Ok(match header.addresses {
        v1::Addresses::Tcp4(ip) => Some((ip.source_address, ip.source_port).into()),
        v1::Addresses::Tcp6(ip) => Some((ip.source_address, ip.source_port).into()),
        v1::Addresses::Unknown => None,
    })
}

fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
