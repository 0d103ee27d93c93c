//! Opens a server's socket, for a connection that is read through a
//! [`PushTap`](super::push_tap::PushTap).

use std::io;

use redis::{ConnectionAddr, ConnectionInfo};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// A socket of either kind.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl Socket for TcpStream {}
impl Socket for UnixStream {}

/// Connects to a server, and sets what `info` says of TCP.
///
/// # Errors
/// It cannot be connected to, or by TLS only.
pub(super) async fn open(info: &ConnectionInfo) -> io::Result<Box<dyn Socket>> {
    match info.addr() {
        ConnectionAddr::Tcp(host, port) => {
            let socket = TcpStream::connect((host.as_str(), *port)).await?;
            let settings = info.tcp_settings();
            socket.set_nodelay(settings.nodelay())?;
            #[cfg(target_os = "linux")]
            SockRef::from(&socket).set_tcp_user_timeout(settings.user_timeout())?;
            Ok(Box::new(socket))
        }
        ConnectionAddr::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        other => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("cannot connect to {other}"),
        )),
    }
}
