//! [`BareLoop`]: the least a server can do per delivery.
//!
//! One thread, one `epoll` loop, one `write` per message and socket: no HTTP
//! framework, no history, no ids to resume by, no filters. What a broker needs
//! beyond this, on the same machine in the same minutes, is its own cost.
//! Coalescing, it writes the messages of a run that arrived together at once;
//! bounded, into sockets that take as little ahead as the broker's.

use std::collections::HashMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail};
use memchr::{memchr, memmem};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const REDIS: Token = Token(usize::MAX);
const LISTENER: Token = Token(usize::MAX - 1);

/// Unsent bytes of a client beyond this close it.
const UNSENT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What the broker lets a socket hold (its `src/http/sockets.rs`).
const SEND_BUFFER_BYTES: usize = 64 * 1024;
const NOTSENT_LOWAT_BYTES: u32 = 16 * 1024;

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
    Cache-Control: no-cache\r\n\r\nretry: 1000\n\n";

/// What is asked for names no run.
const NOT_FOUND: &[u8] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";

/// Serves `/<anything>/runs/<run>/…` from Redis channels `run:<run>:…`.
#[derive(Debug, clap::Args)]
pub(crate) struct BareLoop {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:0")]
    bind: SocketAddr,
    /// The Redis to subscribe to
    #[arg(long, default_value = "redis://127.0.0.1:6379")]
    redis: String,
    /// Write messages that arrived together once per socket
    #[arg(long)]
    coalesce: bool,
    /// Give sockets the small send buffers of the broker's, so that a client
    /// that does not read takes as little of the kernel's memory
    #[arg(long)]
    bounded: bool,
}

struct Client {
    socket: TcpStream,
    run: Option<String>,
    unsent: Vec<u8>,
}

struct Server {
    poll: Poll,
    listener: TcpListener,
    clients: HashMap<usize, Client>,
    next_client: usize,
    runs: HashMap<String, Vec<usize>>,
    messages: u64,
    /// Frames of each run that are to be written together, if any shall.
    waiting: Option<HashMap<String, Vec<u8>>>,
    is_bounded: bool,
}

impl BareLoop {
    /// Serves until killed; says where on standard error, as the broker does.
    pub(crate) fn serve(&self) -> Result<()> {
        let mut redis = subscribe(&self.redis)?;
        let mut listener = TcpListener::from_std(listen(self.bind)?);
        let addr = listener.local_addr()?;
        let poll = Poll::new()?;
        let registry = poll.registry();
        registry.register(&mut redis, REDIS, Interest::READABLE)?;
        registry.register(&mut listener, LISTENER, Interest::READABLE)?;
        eprintln!(
            "{}",
            serde_json::json!({"message": "listening", "addr": addr})
        );
        Server {
            poll,
            listener,
            clients: HashMap::new(),
            next_client: 0,
            runs: HashMap::new(),
            messages: 0,
            waiting: self.coalesce.then(HashMap::new),
            is_bounded: self.bounded,
        }
        .serve(redis)
    }
}

impl Server {
    fn serve(mut self, mut redis: TcpStream) -> Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut pushes = Vec::new();
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() != ErrorKind::Interrupted => bail!(error),
                _ => {}
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    REDIS => {
                        let open = drain(&mut redis, &mut pushes)?;
                        let mut rest = &pushes[..];
                        while let Some((channel, payload, after)) = parse_push(rest)? {
                            self.on_message(channel, payload);
                            rest = after;
                        }
                        self.broadcast_waiting();
                        let left = rest.len();
                        pushes.drain(..pushes.len() - left);
                        if !open {
                            bail!("Redis closed the connection");
                        }
                    }
                    Token(client) => self.on_client(client),
                }
            }
        }
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            match self.listener.accept() {
                Ok((mut socket, _)) => {
                    socket.set_nodelay(true)?;
                    if self.is_bounded {
                        let socket = socket2::SockRef::from(&socket);
                        socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
                        #[cfg(target_os = "linux")]
                        socket.set_tcp_notsent_lowat(NOTSENT_LOWAT_BYTES)?;
                    }
                    let token = Token(self.next_client);
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    self.poll
                        .registry()
                        .register(&mut socket, token, interest)?;
                    let client = Client {
                        socket,
                        run: None,
                        unsent: Vec::new(),
                    };
                    self.clients.insert(self.next_client, client);
                    self.next_client += 1;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("cannot accept"),
            }
        }
    }

    fn on_client(&mut self, id: usize) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        let mut request = Vec::new();
        let open = drain(&mut client.socket, &mut request).unwrap_or(false);
        // A request comes in one piece from the tool this serves.
        if client.run.is_none() && !request.is_empty() {
            let Some(run) = run_of(&request).map(str::to_owned) else {
                client.send(NOT_FOUND);
                self.close(id);
                return;
            };
            self.runs.entry(run.clone()).or_default().push(id);
            client.run = Some(run);
            client.unsent.extend_from_slice(HEAD);
        }
        if !open || !client.flush() {
            self.close(id);
        }
    }

    fn on_message(&mut self, channel: &[u8], payload: &[u8]) {
        self.messages += 1;
        let run = channel.split(|byte| *byte == b':').nth(1);
        let Some(run) = run.and_then(|run| std::str::from_utf8(run).ok()) else {
            return;
        };
        if !self.runs.contains_key(run) {
            return;
        }
        let frame = frame(run, payload, self.messages);
        match &mut self.waiting {
            None => self.broadcast(run, &frame),
            Some(waiting) => match waiting.get_mut(run) {
                Some(frames) => frames.extend_from_slice(&frame),
                None => {
                    waiting.insert(run.to_owned(), frame);
                }
            },
        }
    }

    /// Writes what arrived together.
    fn broadcast_waiting(&mut self) {
        let waiting = self.waiting.as_mut().map(std::mem::take);
        for (run, frames) in waiting.into_iter().flatten() {
            self.broadcast(&run, &frames);
        }
    }

    fn broadcast(&mut self, run: &str, bytes: &[u8]) {
        let Some(ids) = self.runs.get(run) else {
            return;
        };
        let mut broken = Vec::new();
        for id in ids {
            let client = self.clients.get_mut(id).expect("runs hold open clients");
            if !client.send(bytes) {
                broken.push(*id);
            }
        }
        for id in broken {
            self.close(id);
        }
    }

    fn close(&mut self, id: usize) {
        let Some(Client { run: Some(run), .. }) = self.clients.remove(&id) else {
            return;
        };
        if let Some(ids) = self.runs.get_mut(&run) {
            ids.retain(|other| *other != id);
        }
    }
}

impl Client {
    /// Sends `bytes`, or keeps what the socket does not take; returns whether
    /// the client is still of use.
    fn send(&mut self, bytes: &[u8]) -> bool {
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(bytes);
            return self.unsent.len() <= UNSENT_BYTES_MAX;
        }
        match self.socket.write(bytes) {
            Ok(written) => self.unsent.extend_from_slice(&bytes[written..]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.unsent.extend_from_slice(bytes);
            }
            Err(_) => return false,
        }
        true
    }

    fn flush(&mut self) -> bool {
        let unsent = std::mem::take(&mut self.unsent);
        unsent.is_empty() || self.send(&unsent)
    }
}

/// Returns the bytes of an event like the broker's own, so that both write
/// the same amount.
fn frame(run: &str, payload: &[u8], id: u64) -> Vec<u8> {
    let mut frame = format!(
        "event: output\ndata: {{\"run_id\":\"{run}\",\"kind\":\"output\",\"source\":\"loadtest\",\
         \"ts\":\"2026-01-01T00:00:00.000Z\",\"backend\":\"redis\",\"data\":"
    )
    .into_bytes();
    frame.extend_from_slice(payload);
    write!(frame, "}}\nid: ~000000000000-{id}\n\n").expect("writing to memory cannot fail");
    frame
}

fn run_of(request: &[u8]) -> Option<&str> {
    const MARK: &[u8] = b"/runs/";
    let rest = &request[memmem::find(request, MARK)? + MARK.len()..];
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b' '))?;
    std::str::from_utf8(&rest[..end]).ok()
}

fn listen(bind: SocketAddr) -> Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(bind),
        socket2::Type::STREAM,
        None,
    )?;
    socket.set_nonblocking(true)?;
    socket.bind(&bind.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

fn subscribe(url: &str) -> Result<TcpStream> {
    let addr = url.strip_prefix("redis://").unwrap_or(url);
    let addr = addr.split('/').next().unwrap_or_default();
    let mut socket = std::net::TcpStream::connect(addr)
        .with_context(|| format!("cannot connect to {url}; it must be redis://HOST:PORT"))?;
    socket.write_all(b"PSUBSCRIBE run:*\r\n")?;
    // The confirmation: read whole before any message can come.
    let mut confirmation = [0; "*3\r\n$10\r\npsubscribe\r\n$5\r\nrun:*\r\n:1\r\n".len()];
    socket.read_exact(&mut confirmation)?;
    socket.set_nonblocking(true)?;
    Ok(TcpStream::from_std(socket))
}

/// Reads what there is; returns whether the peer is still there.
fn drain(socket: &mut TcpStream, into: &mut Vec<u8>) -> Result<bool> {
    let mut buffer = [0; 16 * 1024];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(length) => into.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A channel, a payload, and the bytes after them.
type Push<'a> = (&'a [u8], &'a [u8], &'a [u8]);

/// Parses `*4 pmessage <pattern> <channel> <payload>`; `None` when it is not
/// complete yet.
fn parse_push(bytes: &[u8]) -> Result<Option<Push<'_>>> {
    let Some(mut rest) = strip_line(bytes, b'*').map(|(_, rest)| rest) else {
        return Ok(None);
    };
    let mut parts = [&bytes[..0]; 4];
    for part in &mut parts {
        let Some((length, after)) = strip_line(rest, b'$') else {
            return Ok(None);
        };
        let length: usize = std::str::from_utf8(length)?.parse()?;
        let Some((text, after)) = after.split_at_checked(length + 2) else {
            return Ok(None);
        };
        *part = &text[..length];
        rest = after;
    }
    Ok(Some((parts[2], parts[3], rest)))
}

fn strip_line(bytes: &[u8], kind: u8) -> Option<(&[u8], &[u8])> {
    let end = memchr(b'\n', bytes)?;
    let line = bytes[..end].strip_suffix(b"\r")?;
    let line = line.strip_prefix(&[kind])?;
    Some((line, &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pushes_are_read_when_complete() {
        let push = b"*4\r\n$8\r\npmessage\r\n$5\r\nrun:*\r\n$5\r\nrun:a\r\n$3\r\nx\ny\r\nrest";
        let whole = parse_push(push).expect("well-formed");
        assert_eq!(whole, Some((&b"run:a"[..], &b"x\ny"[..], &b"rest"[..])));
        for end in 0..push.len() - "rest".len() {
            assert_eq!(
                parse_push(&push[..end]).expect("well-formed"),
                None,
                "{end}"
            );
        }
    }

    #[test]
    fn the_run_is_read_from_the_path() {
        let request = b"GET /api/v1/runs/42/stream/redis HTTP/1.1\r\n\r\n";
        assert_eq!(run_of(request), Some("42"));
        assert_eq!(run_of(b"GET / HTTP/1.1\r\n\r\n"), None);
    }
}
