//! [`Subscribers`]: many event-stream clients on a few threads.
//!
//! One `epoll` loop per thread over raw sockets. What a client needs at rest
//! is its socket and some hundred bytes.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Protocol, Socket, Type};

use crate::clock::monotonic_ns;
use crate::sequence::Sequence;
use crate::sse::{Item, Response};
use crate::totals::Totals;

/// Connections being opened at once by one thread: fewer than the smallest
/// usual accept backlog.
const CONNECTS_IN_FLIGHT_MAX: usize = 100;

/// Sockets from one loopback address, well below its 28 k ephemeral ports.
const SOCKETS_PER_ADDRESS: usize = 20_000;

/// How often a thread looks whether it shall stop.
const POLL_TIMEOUT: Duration = Duration::from_millis(20);

const READ_BUFFER_BYTES: usize = 256 * 1024;

/// Whom to subscribe to what.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The server's address.
    pub(crate) addr: SocketAddr,
    /// The `Host` header.
    pub(crate) host: String,
    /// A path for each run; subscriber `i` takes `paths[i % paths.len()]`.
    pub(crate) paths: Vec<String>,
    /// Where to connect from, and from the next addresses as it fills up.
    pub(crate) first_address: Option<Ipv4Addr>,
}

/// What the threads and their owner tell each other.
#[derive(Debug)]
pub(crate) struct Progress {
    /// Streams whose response head has come with status 200.
    pub(crate) connected: AtomicUsize,
    /// Streams that could not be opened, or were closed before the end.
    pub(crate) failed: AtomicUsize,
    /// Distinct messages received, by all together.
    pub(crate) delivered: AtomicU64,
    /// The same, by those that the publishers wait for.
    pub(crate) awaited: AtomicU64,
    /// What these shall receive of the messages sent so far.
    pub(crate) expected: AtomicU64,
    /// Messages sent from this time on count for the latency …
    pub(crate) measure_from_ns: AtomicU64,
    /// … up to this time.
    pub(crate) measure_until_ns: AtomicU64,
    /// Messages sent to each run.
    pub(crate) sent: Vec<AtomicU64>,
    /// Set to end all threads.
    pub(crate) stop: AtomicBool,
}

impl Progress {
    /// Nothing has happened yet; nothing is measured.
    pub(crate) fn new(runs: usize) -> Self {
        Self {
            connected: AtomicUsize::new(0),
            failed: AtomicUsize::new(0),
            delivered: AtomicU64::new(0),
            awaited: AtomicU64::new(0),
            expected: AtomicU64::new(0),
            measure_from_ns: AtomicU64::new(u64::MAX),
            measure_until_ns: AtomicU64::new(u64::MAX),
            sent: (0..runs).map(|_| AtomicU64::new(0)).collect(),
            stop: AtomicBool::new(false),
        }
    }
}

/// The running threads.
#[derive(Debug)]
pub(crate) struct Subscribers {
    threads: Vec<(u32, JoinHandle<Result<Totals>>)>,
    progress: Arc<Progress>,
}

impl Subscribers {
    /// Starts `threads` threads that open `count` streams together.
    pub(crate) fn start(
        target: &Arc<Target>,
        progress: &Arc<Progress>,
        count: usize,
        threads: usize,
    ) -> Result<Self> {
        let mut subscribers = Self {
            threads: Vec::new(),
            progress: Arc::clone(progress),
        };
        for index in 0..threads {
            let range = count * index / threads..count * (index + 1) / threads;
            subscribers.add(target, range)?;
        }
        Ok(subscribers)
    }

    /// Starts one more thread, for the streams of these numbers.
    pub(crate) fn add(&mut self, target: &Arc<Target>, range: Range<usize>) -> Result<()> {
        let index = self.threads.len();
        let (target, progress) = (Arc::clone(target), Arc::clone(&self.progress));
        let (send_id, thread_id) = mpsc::sync_channel(1);
        let handle = std::thread::Builder::new()
            .name(format!("subscribers-{index}"))
            .spawn(move || {
                let id = rustix::thread::gettid().as_raw_nonzero().get();
                send_id.send(id.unsigned_abs())?;
                Worker::new(&target, &progress)?.run(range)
            })?;
        let id = thread_id.recv().context("a subscriber thread died")?;
        self.threads.push((id, handle));
        Ok(())
    }

    /// Returns the threads' ids, to read their CPU time by.
    pub(crate) fn thread_ids(&self) -> impl Iterator<Item = u32> {
        self.threads.iter().map(|(id, _)| *id)
    }

    /// Closes every stream and returns what was seen.
    pub(crate) fn stop(self) -> Result<Totals> {
        self.progress.stop.store(true, Relaxed);
        let mut totals = Totals::new();
        for (_, thread) in self.threads {
            let result = thread.join().map_err(|_| anyhow!("a thread panicked"))?;
            totals.add(&result?);
        }
        Ok(totals)
    }
}

struct Client {
    socket: TcpStream,
    response: Response,
    sequence: Sequence,
    run: u32,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Connecting { since_ns: u64 },
    AwaitingHead { since_ns: u64 },
    Open,
    Closed,
}

struct Worker<'a> {
    target: &'a Target,
    progress: &'a Progress,
    poll: Poll,
    clients: Vec<Client>,
    opening: usize,
    totals: Totals,
    buffer: Box<[u8]>,
}

impl<'a> Worker<'a> {
    fn new(target: &'a Target, progress: &'a Progress) -> Result<Self> {
        Ok(Self {
            target,
            progress,
            poll: Poll::new()?,
            clients: Vec::new(),
            opening: 0,
            totals: Totals::new(),
            buffer: vec![0; READ_BUFFER_BYTES].into_boxed_slice(),
        })
    }

    fn run(mut self, mut range: Range<usize>) -> Result<Totals> {
        let mut events = Events::with_capacity(4096);
        while !self.progress.stop.load(Relaxed) {
            while self.opening < CONNECTS_IN_FLIGHT_MAX
                && let Some(index) = range.next()
            {
                self.open(index)?;
            }
            match self.poll.poll(&mut events, Some(POLL_TIMEOUT)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => bail!(error),
                _ => {}
            }
            let mut delivered = 0;
            for event in &events {
                delivered += self.on_ready(event.token().0);
            }
            if delivered > 0 {
                self.progress.delivered.fetch_add(delivered, Relaxed);
                self.progress.awaited.fetch_add(delivered, Relaxed);
            }
        }
        for client in &self.clients {
            let sent = self.progress.sent[client.run as usize].load(Relaxed);
            self.totals.lost += client.sequence.lost(sent);
        }
        Ok(self.totals)
    }

    fn open(&mut self, index: usize) -> Result<()> {
        let since_ns = monotonic_ns();
        let mut socket = connect(self.target, index)?;
        let token = Token(self.clients.len());
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut socket, token, interest)?;
        self.opening += 1;
        self.clients.push(Client {
            socket,
            response: Response::new(),
            sequence: Sequence::default(),
            run: (index % self.target.paths.len()) as u32,
            state: State::Connecting { since_ns },
        });
        Ok(())
    }

    /// Does what a socket is ready for; returns the distinct messages read.
    fn on_ready(&mut self, index: usize) -> u64 {
        if let State::Connecting { since_ns } = self.clients[index].state {
            match send_request(&mut self.clients[index], self.target) {
                Ok(()) => self.clients[index].state = State::AwaitingHead { since_ns },
                Err(error) => self.close(index, &error.to_string()),
            }
        }
        let mut delivered = 0;
        while !matches!(
            self.clients[index].state,
            State::Closed | State::Connecting { .. }
        ) {
            match self.clients[index].socket.read(&mut self.buffer) {
                Ok(0) => self.close(index, "the server closed the connection"),
                Ok(length) => {
                    delivered += self.on_bytes(index, length);
                    // Less than asked for: the socket is drained, and epoll
                    // tells of whatever comes after.
                    if length < self.buffer.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => self.close(index, &error.to_string()),
            }
        }
        delivered
    }

    fn on_bytes(&mut self, index: usize, length: usize) -> u64 {
        let client = &mut self.clients[index];
        let (totals, sequence) = (&mut self.totals, &mut client.sequence);
        let now_ns = monotonic_ns();
        let measured = self.progress.measure_from_ns.load(Relaxed)
            ..self.progress.measure_until_ns.load(Relaxed);
        let (mut delivered, mut head) = (0, None);
        let result = client
            .response
            .read(&self.buffer[..length], |item| match item {
                Item::Head { status } => head = Some(status),
                Item::Data { event, data } => {
                    delivered +=
                        totals.on_data(event, data, client.run, sequence, now_ns, &measured);
                }
            });
        totals.bytes += length as u64;
        if let (Some(status), State::AwaitingHead { since_ns }) = (head, client.state) {
            if status != 200 {
                self.close(index, &format!("the server answered with status {status}"));
                return delivered;
            }
            client.state = State::Open;
            totals.connect_latency.saturating_record(now_ns - since_ns);
            self.opening -= 1;
            self.progress.connected.fetch_add(1, Relaxed);
        }
        if let Err(error) = result {
            self.close(index, &format!("the stream cannot be read on: {error:?}"));
        }
        delivered
    }

    fn close(&mut self, index: usize, why: &str) {
        let client = &mut self.clients[index];
        // Deregistering an open socket of this poll cannot fail, and if it
        // did, the next readiness would find the client closed.
        let _ = self.poll.registry().deregister(&mut client.socket);
        let _ = client.socket.shutdown(std::net::Shutdown::Both);
        if client.state != State::Open {
            self.opening -= 1;
        }
        client.state = State::Closed;
        self.progress.failed.fetch_add(1, Relaxed);
        self.totals.on_failure(why);
    }
}

fn connect(target: &Target, index: usize) -> Result<TcpStream> {
    let addr = target.addr;
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
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

fn send_request(client: &mut Client, target: &Target) -> Result<()> {
    if let Some(error) = client.socket.take_error()? {
        bail!(error);
    }
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\n\r\n",
        target.paths[client.run as usize], target.host
    );
    // A fresh socket takes a request whole.
    client.socket.write_all(request.as_bytes())?;
    Ok(())
}
