//! Opens a server's socket, for a connection that is read through a
//! [`PushTap`](super::push_tap::PushTap), or is under TLS.

use std::io;

use redis::{ConnectionAddr, ConnectionInfo};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use super::tls;
use crate::settings::RedisSettings;

/// A socket of either kind.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl Socket for TcpStream {}
impl Socket for UnixStream {}
impl Socket for TlsStream<TcpStream> {}

/// Connects to a server, and sets what `info` says of TCP.
///
/// # Errors
/// It cannot be connected to, or TLS does not come about.
pub(super) async fn open(
    info: &ConnectionInfo,
    settings: &RedisSettings,
) -> io::Result<Box<dyn Socket>> {
    match info.addr() {
        ConnectionAddr::Tcp(host, port) => Ok(Box::new(open_tcp(info, host, *port).await?)),
        ConnectionAddr::TcpTls { host, port, .. } => {
            let socket = open_tcp(info, host, *port).await?;
            Ok(Box::new(tls::connect(socket, host, settings).await?))
        }
        ConnectionAddr::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        other => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("cannot connect to {other}"),
        )),
    }
}

async fn open_tcp(info: &ConnectionInfo, host: &str, port: u16) -> io::Result<TcpStream> {
    let socket = TcpStream::connect((host, port)).await?;
    let settings = info.tcp_settings();
    socket.set_nodelay(settings.nodelay())?;
    #[cfg(target_os = "linux")]
    SockRef::from(&socket).set_tcp_user_timeout(settings.user_timeout())?;
    Ok(socket)
}
