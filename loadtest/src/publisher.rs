//! [`Publisher`]: stamped messages to Redis at a rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

use crate::clock::monotonic_ns;
use crate::stamp::Stamp;
use crate::subscribers::Progress;

/// Most messages sent in one go when the publisher is behind its schedule.
const BATCH_MAX: u64 = 100;

/// What to publish where.
#[derive(Debug, Clone)]
pub(crate) struct PublishPlan {
    /// The Redis server.
    pub(crate) redis_url: String,
    /// A channel for each run.
    pub(crate) channels: Vec<String>,
    /// Messages a second to each run.
    pub(crate) rate: f64,
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

/// A running publisher thread.
#[derive(Debug)]
pub(crate) struct Publisher {
    thread: JoinHandle<Result<Published>>,
    stop: Arc<AtomicBool>,
}

impl Publisher {
    /// Connects and starts to publish.
    pub(crate) fn start(plan: PublishPlan, progress: &Arc<Progress>) -> Result<Self> {
        let redis = redis::Client::open(plan.redis_url.as_str())
            .and_then(|client| client.get_connection())
            .with_context(|| format!("cannot connect to {}", plan.redis_url))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, progress) = (Arc::clone(&stop), Arc::clone(progress));
        let thread = std::thread::Builder::new()
            .name("publisher".to_owned())
            .spawn(move || publish(&plan, redis, &progress, &stopped))?;
        Ok(Self { thread, stop })
    }

    /// Stops publishing and returns what was sent.
    pub(crate) fn stop(self) -> Result<Published> {
        self.stop.store(true, Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow!("the publisher panicked"))?
    }
}

/// Publishes message `i` to run `i % runs`, so that the runs' messages are
/// spread evenly over time.
fn publish(
    plan: &PublishPlan,
    mut redis: redis::Connection,
    progress: &Progress,
    stop: &AtomicBool,
) -> Result<Published> {
    let runs = plan.channels.len() as u64;
    let interval_ns = 1e9 / (plan.rate * runs as f64);
    let start_ns = monotonic_ns();
    let mut published = Published::default();
    let mut payload = Vec::new();
    while !stop.load(Relaxed) {
        let elapsed_ns = monotonic_ns() - start_ns;
        let due = (elapsed_ns as f64 / interval_ns) as u64 + 1;
        let batch = due.saturating_sub(published.messages).min(BATCH_MAX);
        if batch == 0 {
            let next_ns = (published.messages as f64 * interval_ns) as u64;
            std::thread::sleep(Duration::from_nanos(next_ns.saturating_sub(elapsed_ns)));
            continue;
        }
        let mut pipe = redis::pipe();
        for message in published.messages..published.messages + batch {
            let run = (message % runs) as usize;
            let stamp = Stamp {
                sent_ns: monotonic_ns(),
                run: run as u32,
                seq: message / runs + 1,
            };
            stamp.write(plan.payload_bytes, &mut payload);
            pipe.cmd("PUBLISH").arg(&plan.channels[run]).arg(&payload);
            progress.sent[run].store(stamp.seq, Relaxed);
        }
        let heard: Vec<u64> = pipe.query(&mut redis).context("cannot publish")?;
        published.unheard += heard.iter().filter(|count| **count == 0).count() as u64;
        published.messages += batch;
    }
    published.elapsed = Duration::from_nanos(monotonic_ns() - start_ns);
    Ok(published)
}
