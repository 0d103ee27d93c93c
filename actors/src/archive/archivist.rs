//! [`Archivist`]: has every run that ends written, some at a time.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, error, warn};

use super::duty::{ArchiveDuty, OwedFrom};
use super::error::ArchiveError;
use super::objects::Objects;
use super::place::Place;
use super::queue::Queue;
use super::reader::read_page;
use super::retention;
use super::writer::{Writer, Written};
use crate::broker::{BrokerShared, lock};
use crate::metrics::{Gauge, Metrics};
use crate::protocol::{DurableId, RunId};
use crate::settings::ArchiveSettings;
use crate::store::{Page, PageQuery};

/// Added to a run's grace before it is claimed: Redis counts it.
const GRACE_MARGIN: Duration = Duration::from_millis(100);

/// Pause after a write that failed, and after more of them in a row.
const REST_MIN: Duration = Duration::from_millis(500);
const REST_MAX: Duration = Duration::from_secs(30);

/// Pause before a run that failed is tried again: one that fails alone must not
/// fill the log.
const RETRY_MIN: Duration = Duration::from_secs(3);

/// Pause between two steps of a sweep: whoever else asks Redis goes first.
const SWEEP_PAUSE: Duration = Duration::from_millis(5);

/// How often it is looked, at the end, whether all is written.
const FINISH_STEP: Duration = Duration::from_millis(20);

/// Part of an interval after which another broker may have its turn.
const TURN_PART: f64 = 0.75;

/// The archive of one broker: what is to be written, and what was read. On an
/// arbiter of its own, and all reads of it run there, too.
#[derive(Debug)]
pub(crate) struct Archivist {
    pub(super) settings: ArchiveSettings,
    pub(super) place: Arc<Place>,
    pub(super) objects: Arc<Objects>,
    pub(super) metrics: Arc<Metrics>,
    end_grace: Duration,
    runtime: Handle,
    queue: Mutex<Queue>,
    changed: Notify,
}

impl Archivist {
    /// Makes one whose work runs on `runtime`.
    pub(crate) fn new(
        settings: &ArchiveSettings,
        end_grace: Duration,
        metrics: Arc<Metrics>,
        runtime: Handle,
    ) -> Self {
        let place = Arc::new(Place::new(settings));
        Self {
            objects: Arc::new(Objects::new(
                Arc::clone(&place),
                settings,
                Arc::clone(&metrics),
            )),
            place,
            metrics,
            end_grace,
            runtime,
            queue: Mutex::new(Queue::new(settings.queue)),
            changed: Notify::new(),
            settings: settings.clone(),
        }
    }

    /// Notes that a run's life `epoch` ends: it is written when its grace is over.
    pub(crate) fn ends(&self, run_id: &RunId, epoch: Option<u64>) {
        self.add(run_id.clone(), epoch, self.end_grace + GRACE_MARGIN);
    }

    /// Waits, for a while, until all runs that ended are written; returns how many
    /// are not.
    pub(crate) async fn finish(&self, patience: Duration) -> u64 {
        let deadline = Instant::now() + patience;
        loop {
            let waiting = lock(&self.queue).len() as u64;
            let left = waiting + self.metrics.archive.writing.get();
            if left == 0 || Instant::now() >= deadline {
                return left;
            }
            sleep(FINISH_STEP).await;
        }
    }

    /// Reads a page of an archived run; `last` is where it ends, if that is
    /// known.
    pub(super) async fn read(
        &self,
        run_id: &RunId,
        query: PageQuery,
        last: Option<DurableId>,
    ) -> Result<Option<Page>, ArchiveError> {
        let (objects, run_id) = (Arc::clone(&self.objects), run_id.clone());
        let reading = self
            .runtime
            .spawn(async move { read_page(&objects, &run_id, query, last).await });
        let read = reading.await;
        let page = read.unwrap_or(Err(ArchiveError::Unavailable("the program ends")));
        let counters = &self.metrics.archive;
        match &page {
            Ok(Some(_)) => counters.served.inc(),
            Ok(None) => {}
            Err(_) => counters.read_failures.inc(),
        }
        page
    }

    /// Adds a run to what is to be written. Without room it is left to a sweep.
    fn add(&self, run_id: RunId, epoch: Option<u64>, delay: Duration) {
        let mut queue = lock(&self.queue);
        if !queue.add(run_id, epoch, Instant::now() + delay) {
            self.metrics.archive.queue_overflows.inc();
        }
        self.metrics.archive.queue.set(queue.len() as u64);
        drop(queue);
        self.changed.notify_one();
    }

    /// Takes the next run, once it is due.
    async fn next(&self) -> (RunId, Option<u64>) {
        loop {
            let next_at = {
                let mut queue = lock(&self.queue);
                if let Some(next) = queue.take(Instant::now()) {
                    self.metrics.archive.queue.set(queue.len() as u64);
                    return next;
                }
                queue.next_at()
            };
            let due = async {
                match next_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                () = self.changed.notified() => {}
            }
        }
    }
}

/// Writes, sweeps and removes for as long as the broker lives.
pub(crate) async fn keep_archive(
    shared: Arc<BrokerShared>,
    archivist: Arc<Archivist>,
    duty: Arc<dyn ArchiveDuty>,
) {
    let work = Work {
        shared,
        archivist,
        duty,
        rest: Mutex::default(),
    };
    let work = Arc::new(work);
    loop {
        let working = join(work.write_all(), join(work.sweep_all(), work.count_all()));
        if AssertUnwindSafe(working).catch_unwind().await.is_err() {
            error!("the archive's work died and begins anew");
            work.shared.metrics.actor_restarts.inc();
        }
        sleep(REST_MIN).await;
    }
}

/// Counts what is under way, also if it ends by a panic.
struct Counted<'a>(&'a Gauge);

impl<'a> Counted<'a> {
    fn new(gauge: &'a Gauge) -> Self {
        gauge.add(1);
        Self(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.sub(1);
    }
}

struct Work {
    shared: Arc<BrokerShared>,
    archivist: Arc<Archivist>,
    duty: Arc<dyn ArchiveDuty>,
    /// Failures in a row, and until when nothing is written.
    rest: Mutex<Option<(u32, Instant)>>,
}

impl Work {
    // ---- writing -------------------------------------------------------------

    async fn write_all(self: &Arc<Self>) {
        let writers = Arc::new(Semaphore::new(self.archivist.settings.max_writes.max(1)));
        loop {
            let permit = Arc::clone(&writers).acquire_owned().await;
            let permit = permit.expect("nobody closes it");
            let rests_until = lock(&self.rest).map(|(_, until)| until);
            if let Some(until) = rests_until {
                sleep_until(until).await;
            }
            let (run_id, epoch) = self.archivist.next().await;
            let work = Arc::clone(self);
            actix_rt::spawn(async move {
                work.write(run_id, epoch).await;
                drop(permit);
            });
        }
    }

    async fn write(&self, run_id: RunId, epoch: Option<u64>) {
        let writer = Writer {
            shared: &self.shared,
            archivist: &self.archivist,
            duty: &*self.duty,
            name: format!("{:016x}", fastrand::u64(..)),
        };
        let counters = &self.shared.metrics.archive;
        let counted = Counted::new(&counters.writing);
        let written = writer.write(&run_id, epoch).await;
        drop(counted);
        match written {
            Ok(Written::Done) => *lock(&self.rest) = None,
            Ok(Written::Later(delay)) => self.archivist.add(run_id, epoch, delay),
            Err(error) => {
                counters.write_failures.inc();
                let pause = self.failed().max(RETRY_MIN);
                warn!(%run_id, %error, ?pause, "run not archived, it is tried again");
                self.archivist.add(run_id, epoch, pause);
            }
        }
    }

    /// Notes a failure; returns for how long to rest.
    fn failed(&self) -> Duration {
        let mut rest = lock(&self.rest);
        let failures = rest.map_or(0, |(failures, _)| failures) + 1;
        let pause = (REST_MIN * 2u32.saturating_pow(failures.min(16) - 1)).min(REST_MAX);
        *rest = Some((failures, Instant::now() + pause));
        pause
    }

    // ---- sweeping ------------------------------------------------------------

    /// Looks now and then for runs that nobody archived: whose end no broker
    /// saw, or whose writer died.
    async fn sweep_all(&self) {
        let interval = self.archivist.settings.sweep_interval;
        loop {
            if self.has_turn("sweep", interval).await
                && let Err(error) = self.sweep().await
            {
                debug!(%error, "not all runs were looked through");
            }
            // As often as a turn is free, and not all brokers at once.
            sleep(interval.mul_f64(0.25 + 0.25 * fastrand::f64())).await;
        }
    }

    async fn has_turn(&self, name: &'static str, interval: Duration) -> bool {
        let time = interval.mul_f64(TURN_PART);
        self.duty.turn(name, time).await.unwrap_or(false)
    }

    async fn sweep(&self) -> Result<(), crate::store::StoreError> {
        let mut from = OwedFrom::default();
        loop {
            let owed = self.duty.owed(from).await?;
            for run_id in owed.run_ids {
                self.archivist.add(run_id, None, Duration::ZERO);
            }
            let is_full = lock(&self.archivist.queue).is_full();
            match owed.next {
                // What does not fit is found by the next one.
                Some(next) if !is_full => from = next,
                _ => return Ok(()),
            }
            sleep(SWEEP_PAUSE).await;
        }
    }

    // ---- retention -----------------------------------------------------------

    async fn count_all(&self) {
        let interval = self.archivist.settings.retention_interval;
        let counters = &self.shared.metrics.archive;
        let mut counted_at = Instant::now();
        loop {
            if self.has_turn("retention", interval).await {
                counted_at = Instant::now();
                if let Err(error) = retention::keep(&self.archivist).await {
                    counters.retention_failures.inc();
                    warn!(%error, "the archive's objects are not counted or removed");
                }
            } else if counted_at.elapsed() > interval {
                // Another broker counts.
                counters.objects.set(0);
                counters.bytes.set(0);
            }
            sleep(interval.mul_f64(0.25 + 0.25 * fastrand::f64())).await;
        }
    }
}
