//! [`Subscribers`]: many event-stream clients on a few threads.
//!
//! One `epoll` loop per thread over raw sockets. What a client needs at rest
//! is its socket and some hundred bytes.

mod client;
mod schedule;
mod socket;
mod worker;

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

use self::worker::Worker;
use crate::totals::{Seen, Totals};

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
    /// What the subscribers do beside reading.
    pub(crate) behaviour: Behaviour,
}

/// What subscribers do beside reading.
#[derive(Debug, Clone)]
pub(crate) struct Behaviour {
    /// How long opening them all shall take.
    pub(crate) ramp: Duration,
    /// Streams that a thread opens at once: fewer than the smallest usual
    /// accept backlog.
    pub(crate) connects_in_flight: usize,
    /// So many, the first, read nothing after the head until they are woken.
    pub(crate) stalled: usize,
    /// Each of the others goes and comes back that often.
    pub(crate) reconnect_every: Option<Duration>,
    /// Whether ids are kept, to come back with.
    pub(crate) resumes: bool,
    /// Further subscribers that come each second …
    pub(crate) churn: f64,
    /// … and go after so long.
    pub(crate) churn_stay: Duration,
    /// Whether the publisher is another process, so that nobody here knows
    /// what was sent.
    pub(crate) publisher_is_elsewhere: bool,
    /// Length of a point of the latency over time; 0 for a single point.
    pub(crate) point_ns: u64,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            ramp: Duration::ZERO,
            connects_in_flight: 100,
            stalled: 0,
            reconnect_every: None,
            resumes: false,
            churn: 0.0,
            churn_stay: Duration::ZERO,
            publisher_is_elsewhere: false,
            point_ns: 0,
        }
    }
}

/// What the threads and their owner tell each other.
#[derive(Debug)]
pub(crate) struct Progress {
    /// Streams whose response head has come with status 200.
    pub(crate) connected: AtomicUsize,
    /// Streams that could not be opened, or were closed before the end.
    pub(crate) failed: AtomicUsize,
    /// Distinct messages received, by all together but the stalled.
    pub(crate) delivered: AtomicU64,
    /// The same, by those that the publishers wait for; of one that came
    /// later, what it was too late for counts, too.
    pub(crate) awaited: AtomicU64,
    /// What these shall receive of the messages sent so far.
    pub(crate) expected: AtomicU64,
    /// Distinct messages received by the stalled.
    pub(crate) stalled_delivered: AtomicU64,
    /// Stalled streams that are at the last message, or closed.
    pub(crate) stalled_done: AtomicUsize,
    /// Messages sent from this time on count for the latency …
    pub(crate) measure_from_ns: AtomicU64,
    /// … up to this time.
    pub(crate) measure_until_ns: AtomicU64,
    /// When all streams drop, and come back.
    pub(crate) drop_at_ns: AtomicU64,
    /// Messages sent to each run.
    pub(crate) sent: Vec<AtomicU64>,
    /// Heartbeats read by those that read.
    pub(crate) heartbeats: AtomicU64,
    /// Set when nobody shall come or go any more.
    pub(crate) settle: AtomicBool,
    /// Set to let the stalled read.
    pub(crate) wake_stalled: AtomicBool,
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
            stalled_delivered: AtomicU64::new(0),
            stalled_done: AtomicUsize::new(0),
            measure_from_ns: AtomicU64::new(u64::MAX),
            measure_until_ns: AtomicU64::new(u64::MAX),
            drop_at_ns: AtomicU64::new(u64::MAX),
            sent: (0..runs).map(|_| AtomicU64::new(0)).collect(),
            heartbeats: AtomicU64::new(0),
            settle: AtomicBool::new(false),
            wake_stalled: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        }
    }
}

/// The running threads.
#[derive(Debug)]
pub(crate) struct Subscribers {
    threads: Vec<(u32, JoinHandle<Result<Seen>>)>,
    progress: Arc<Progress>,
    /// Threads there shall be: what comes and goes is divided by it.
    planned: usize,
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
            planned: threads.max(1),
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
        let churn = target.behaviour.churn / self.planned as f64;
        let (send_id, thread_id) = mpsc::sync_channel(1);
        let handle = std::thread::Builder::new()
            .name(format!("subscribers-{index}"))
            .spawn(move || {
                let id = rustix::thread::gettid().as_raw_nonzero().get();
                send_id.send(id.unsigned_abs())?;
                Worker::new(&target, &progress, range, churn)?.run()
            })?;
        let id = thread_id.recv().context("a subscriber thread died")?;
        self.threads.push((id, handle));
        Ok(())
    }

    /// Returns the threads' ids, to read their CPU time by.
    pub(crate) fn thread_ids(&self) -> impl Iterator<Item = u32> {
        self.threads.iter().map(|(id, _)| *id)
    }

    /// Closes every stream and returns what was seen by those that read.
    pub(crate) fn stop(self) -> Result<Totals> {
        Ok(self.stop_all()?.reading)
    }

    /// The same, of the stalled, too.
    pub(crate) fn stop_all(self) -> Result<Seen> {
        self.progress.stop.store(true, Relaxed);
        let mut seen = Seen::new(0);
        for (_, thread) in self.threads {
            let result = thread.join().map_err(|_| anyhow!("a thread panicked"))?;
            seen.add(&result?);
        }
        Ok(seen)
    }
}
