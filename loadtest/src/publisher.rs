//! [`Publisher`]: stamped messages to Redis at a rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use redis::Value;

use crate::clock::monotonic_ns;
use crate::durable::{DurableRun, check_accepted};
use crate::stamp::Stamp;
use crate::subscribers::Progress;

/// Most messages sent in one go when the publisher is behind its schedule.
const BATCH_MAX: u64 = 100;

/// Where a run's messages go.
#[derive(Debug, Clone)]
pub(crate) enum Outlet {
    /// A channel: live only.
    Plain(String),
    /// Through the function: kept, and live.
    Durable(DurableRun),
}

impl Outlet {
    fn publish(&self, pipe: &mut redis::Pipeline, payload: &[u8]) {
        match self {
            Self::Plain(channel) => pipe.cmd("PUBLISH").arg(channel).arg(payload),
            Self::Durable(run) => run.publish(pipe, payload),
        };
    }
}

/// What to publish where.
#[derive(Debug, Clone)]
pub(crate) struct PublishPlan {
    /// The Redis server.
    pub(crate) redis_url: String,
    /// Where each run's messages go.
    pub(crate) outlets: Vec<Outlet>,
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
    let runs = plan.outlets.len() as u64;
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
            plan.outlets[run].publish(&mut pipe, &payload);
            progress.sent[run].store(stamp.seq, Relaxed);
        }
        let answers: Vec<Value> = pipe.query(&mut redis).context("cannot publish")?;
        published.unheard += unheard(&answers, &plan.outlets)?;
        published.messages += batch;
    }
    published.elapsed = Duration::from_nanos(monotonic_ns() - start_ns);
    Ok(published)
}

/// Returns how many plain messages were given to nobody. Of durable ones the
/// function does not tell; but it may refuse one, and that is an error.
fn unheard(answers: &[Value], outlets: &[Outlet]) -> Result<u64> {
    if let Some(Outlet::Durable(_)) = outlets.first() {
        check_accepted(answers)?;
        return Ok(0);
    }
    let nobody = |answer: &&Value| **answer == Value::Int(0);
    Ok(answers.iter().filter(nobody).count() as u64)
}
