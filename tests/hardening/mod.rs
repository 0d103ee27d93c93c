//! What one client can do to another: each bound and each surface from outside,
//! over sockets.

mod addresses;
mod heads;
mod hosts;
mod http2;
mod memory;
mod open_files;
mod pipelines;
#[cfg(feature = "fault-switches")]
mod quarantine;
mod rates;
mod redis_access;
mod requests;
mod surfaces;
mod tls;

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::Broker;
use crate::support::wait::SOON;

/// Returns how often somebody was refused at a limit.
async fn refusals(broker: &Broker, limit: &str) -> f64 {
    let labels = [("limit", limit)];
    broker.metric("runcast_limit_refusals_total", &labels).await
}

/// A connection that says exactly what it is told.
struct Raw(TcpStream);

impl Raw {
    async fn connect(addr: SocketAddr) -> Self {
        Self(TcpStream::connect(addr).await.expect("it listens"))
    }

    /// Sends bytes; a server may have closed before it has read them.
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.0.write_all(bytes.as_ref()).await;
    }

    /// Reads an answer that has a length, and leaves the connection open.
    async fn answer(&mut self) -> String {
        let reading = async {
            let mut text = String::new();
            while !is_whole(&text) {
                let mut buffer = [0; 4096];
                let length = self.0.read(&mut buffer).await.expect("an answer");
                assert!(length > 0, "closed after {text:?}");
                text.push_str(std::str::from_utf8(&buffer[..length]).expect("ASCII"));
            }
            text
        };
        timeout(SOON, reading).await.expect("it is answered")
    }

    /// Reads until the connection ends.
    async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        // A reset may follow an answer to what was not read whole.
        let _ = timeout(SOON, self.0.read_to_end(&mut bytes))
            .await
            .expect("closed, not left hanging");
        String::from_utf8(bytes).expect("ASCII")
    }
}

fn is_whole(answer: &str) -> bool {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse::<usize>().expect("a number"))
    });
    body.len() >= length.unwrap_or(0)
}
