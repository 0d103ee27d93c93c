//! [`Publishers`]: stamped messages at a rate, or as fast as they are taken.

mod post;
mod redis;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

pub(crate) use self::post::{PostBody, PostTarget};
use crate::clock::monotonic_ns;
use crate::durable::DurableRun;
use crate::load::Rate;
use crate::stamp::Stamp;
use crate::subscribers::Progress;

/// Most messages sent in one go.
const BATCH_MAX: u64 = 100;

/// How long a publisher that is far enough ahead waits before it looks again.
const GATE_INTERVAL: Duration = Duration::from_micros(50);

/// Nothing came for so long: what is under way is lost, and the publisher
/// goes on.
const GATE_PATIENCE: Duration = Duration::from_secs(1);

/// Where each run's messages go.
#[derive(Debug, Clone)]
pub(crate) enum Outlets {
    /// A channel of Redis each: live only.
    Plain {
        /// The Redis server.
        redis_url: String,
        /// By run.
        channels: Vec<String>,
    },
    /// Through the function in Redis: kept, and live.
    Durable {
        /// The Redis server.
        redis_url: String,
        /// By run.
        runs: Vec<DurableRun>,
    },
    /// By HTTP.
    Post(PostTarget),
}

/// What to publish where.
#[derive(Debug, Clone)]
pub(crate) struct PublishPlan {
    /// Where each run's messages go.
    pub(crate) outlets: Outlets,
    /// Subscribers of each run that are waited for.
    pub(crate) fan_out: Vec<u64>,
    /// Messages a second to each run.
    pub(crate) rate: Rate,
    /// Flat out, messages sent that not every subscriber has yet.
    pub(crate) in_flight: u64,
    /// Connections, each with a thread.
    pub(crate) connections: usize,
    /// Bytes of a payload.
    pub(crate) payload_bytes: usize,
}

/// What was published.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Published {
    /// Messages.
    pub(crate) messages: u64,
    /// Messages that Redis gave to no subscriber.
    pub(crate) unheard: u64,
    /// How long it took.
    pub(crate) elapsed: Duration,
}

/// A connection that messages are published over, a batch at a time.
trait Outlet {
    /// Adds a message of a run to the batch.
    fn push(&mut self, run: usize, payload: &[u8]);

    /// Sends the batch and waits until all of it is answered; returns how many
    /// messages were given to nobody, as far as the answers tell.
    fn send(&mut self) -> Result<u64>;
}

/// The running publisher threads.
#[derive(Debug)]
pub(crate) struct Publishers {
    threads: Vec<JoinHandle<Result<Published>>>,
    stop: Arc<AtomicBool>,
}

impl Publishers {
    /// Connects and starts to publish.
    pub(crate) fn start(plan: PublishPlan, progress: &Arc<Progress>) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let plan = Arc::new(plan);
        let mut threads = Vec::new();
        for index in 0..plan.connections {
            let mut outlet = connect(&plan.outlets)?;
            let (plan, progress) = (Arc::clone(&plan), Arc::clone(progress));
            let stop = Arc::clone(&stop);
            let thread = std::thread::Builder::new()
                .name(format!("publisher-{index}"))
                .spawn(move || Publisher::new(&plan, index, &progress).run(&mut *outlet, &stop))?;
            threads.push(thread);
        }
        Ok(Self { threads, stop })
    }

    /// Stops publishing and returns what was sent.
    pub(crate) fn stop(self) -> Result<Published> {
        self.stop.store(true, Relaxed);
        let mut total = Published::default();
        for thread in self.threads {
            let published = thread
                .join()
                .map_err(|_| anyhow!("a publisher panicked"))??;
            total.messages += published.messages;
            total.unheard += published.unheard;
            total.elapsed = total.elapsed.max(published.elapsed);
        }
        Ok(total)
    }
}

fn connect(outlets: &Outlets) -> Result<Box<dyn Outlet + Send>> {
    Ok(match outlets {
        Outlets::Plain {
            redis_url,
            channels,
        } => Box::new(redis::Plain::connect(redis_url, channels.clone())?),
        Outlets::Durable { redis_url, runs } => {
            Box::new(redis::Durable::connect(redis_url, runs.clone())?)
        }
        Outlets::Post(target) => Box::new(post::Poster::connect(target.clone())?),
    })
}

/// One connection's share: every run whose number leaves `index` when divided
/// by the number of connections.
struct Publisher<'a> {
    plan: &'a PublishPlan,
    progress: &'a Progress,
    index: usize,
    runs: u64,
    published: Published,
    payload: Vec<u8>,
    /// Deliveries no longer waited for.
    given_up: u64,
    /// Deliveries when the gate last opened, or they last changed.
    seen: (u64, Instant),
}

impl<'a> Publisher<'a> {
    fn new(plan: &'a PublishPlan, index: usize, progress: &'a Progress) -> Self {
        Self {
            plan,
            progress,
            index,
            runs: plan
                .fan_out
                .iter()
                .skip(index)
                .step_by(plan.connections)
                .count() as u64,
            published: Published::default(),
            payload: Vec::new(),
            given_up: 0,
            seen: (0, Instant::now()),
        }
    }

    fn run(mut self, outlet: &mut dyn Outlet, stop: &AtomicBool) -> Result<Published> {
        let start_ns = monotonic_ns();
        while !stop.load(Relaxed) {
            let batch = match self.plan.rate {
                Rate::PerSecond(rate) => self.due(rate, monotonic_ns() - start_ns),
                Rate::Max => self.room(),
            };
            match batch {
                Ok(batch) => self.publish(batch.min(BATCH_MAX), outlet)?,
                Err(pause) => std::thread::sleep(pause),
            }
        }
        self.published.elapsed = Duration::from_nanos(monotonic_ns() - start_ns);
        Ok(self.published)
    }

    /// Returns how many messages are due, or how long until the next one is.
    fn due(&self, rate: f64, elapsed_ns: u64) -> Result<u64, Duration> {
        let interval_ns = 1e9 / (rate * self.runs as f64);
        let due = (elapsed_ns as f64 / interval_ns) as u64 + 1;
        if due > self.published.messages {
            return Ok(due - self.published.messages);
        }
        let next_ns = (self.published.messages as f64 * interval_ns) as u64;
        Err(Duration::from_nanos(next_ns.saturating_sub(elapsed_ns)))
    }

    /// Returns how many more messages may be under way, or how long to wait.
    fn room(&mut self) -> Result<u64, Duration> {
        let delivered = self.progress.awaited.load(Relaxed);
        let expected = self.progress.expected.load(Relaxed);
        let under_way = expected.saturating_sub(delivered + self.given_up);
        if delivered != self.seen.0 {
            self.seen = (delivered, Instant::now());
        } else if self.seen.1.elapsed() > GATE_PATIENCE {
            self.given_up = expected.saturating_sub(delivered);
            self.seen.1 = Instant::now();
        }
        let runs = self.plan.fan_out.len() as u64;
        let fan_out = (self.plan.fan_out.iter().sum::<u64>() / runs).max(1);
        match self.plan.in_flight.saturating_sub(under_way / fan_out) {
            0 => Err(GATE_INTERVAL),
            room => Ok(room),
        }
    }

    /// Publishes message `i` to the connection's run `i % runs`, so that the
    /// runs' messages are spread evenly over time.
    fn publish(&mut self, batch: u64, outlet: &mut dyn Outlet) -> Result<()> {
        for message in self.published.messages..self.published.messages + batch {
            let own = (message % self.runs) as usize;
            let run = self.index + own * self.plan.connections;
            let stamp = Stamp {
                sent_ns: monotonic_ns(),
                run: run as u32,
                seq: message / self.runs + 1,
            };
            stamp.write(self.plan.payload_bytes, &mut self.payload);
            outlet.push(run, &self.payload);
            self.progress.sent[run].store(stamp.seq, Relaxed);
            let fan_out = self.plan.fan_out[run];
            self.progress.expected.fetch_add(fan_out, Relaxed);
        }
        self.published.unheard += outlet.send()?;
        self.published.messages += batch;
        Ok(())
    }
}
