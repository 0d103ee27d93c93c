//! Clients that only count the bytes they read, at a pace of their own.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use socket2::{Domain, Socket, Type};

/// How often a reader looks whether it shall stop.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// What a slow client takes at once, and how long it then waits: 80 kB/s.
const SLOW_BYTES: usize = 8 * 1024;
const SLOW_PAUSE: Duration = Duration::from_millis(100);

const BUFFER_BYTES: usize = 256 * 1024;

/// How fast clients read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// Whatever comes, at once.
    AsItComes,
    /// Less than comes, with little room to wait in.
    Slow,
}

/// Opens `count` streams of a run and reads them until it shall stop.
pub(super) fn read(
    addr: SocketAddr,
    path: &str,
    count: usize,
    pace: Pace,
    stop: &AtomicBool,
    read: &AtomicU64,
) -> Result<()> {
    let mut sockets = Vec::new();
    for _ in 0..count {
        sockets.push(open(addr, path, pace)?);
    }
    let mut buffer = vec![0; BUFFER_BYTES];
    let most = match pace {
        Pace::AsItComes => BUFFER_BYTES,
        Pace::Slow => SLOW_BYTES,
    };
    while !stop.load(Relaxed) {
        for socket in &mut sockets {
            let length = read_once(socket, &mut buffer[..most])?;
            read.fetch_add(length as u64, Relaxed);
        }
        if pace == Pace::Slow {
            std::thread::sleep(SLOW_PAUSE);
        }
    }
    Ok(())
}

/// Opens a stream and reads so many bytes of it, or until it shall stop.
pub(super) fn read_some(
    addr: SocketAddr,
    path: &str,
    bytes: usize,
    stop: &AtomicBool,
    read: &AtomicU64,
) -> Result<()> {
    let mut socket = open(addr, path, Pace::AsItComes)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut left = bytes;
    while left > 0 && !stop.load(Relaxed) {
        let length = read_once(&mut socket, &mut buffer)?;
        read.fetch_add(length as u64, Relaxed);
        left = left.saturating_sub(length);
    }
    Ok(())
}

fn open(addr: SocketAddr, path: &str, pace: Pace) -> Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    if pace == Pace::Slow {
        socket.set_recv_buffer_size(SLOW_BYTES)?;
    }
    socket.set_read_timeout(Some(POLL_INTERVAL))?;
    socket.connect(&addr.into())?;
    let mut socket = TcpStream::from(socket);
    let head = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nAccept: text/event-stream\r\n\r\n");
    socket.write_all(head.as_bytes())?;
    Ok(socket)
}

/// Reads what there is; 0 of a stream that has nothing for a while.
fn read_once(socket: &mut TcpStream, buffer: &mut [u8]) -> Result<usize> {
    match socket.read(buffer) {
        Ok(0) => bail!("the broker closed a stream"),
        Ok(length) => Ok(length),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(0),
        Err(error) => Err(error).context("cannot read a stream"),
    }
}
