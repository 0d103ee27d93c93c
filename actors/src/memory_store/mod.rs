//! [`MemoryStore`]: the embedded backend's store, in this process's memory.
//!
//! Keeps the same promises as `runcast_publish` in Redis: ids without holes,
//! closed runs, exact producers, histories that are trimmed and expire.

mod archive;
mod clock;
mod ledger;
mod producers;
mod run;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use futures_util::future::ready;
use tracing::{debug, warn};

use self::clock::SteadyClock;
use self::ledger::{Entry, Ledger};
use self::run::{Appended, Moment, Rules, RunState};
use crate::broker::{BrokerSettings, PublishError, PublishResult};
use crate::metrics::{EventResult, Metrics};
use crate::protocol::{DurableId, EventKind, RunId};
use crate::store::{
    AppendBatch, AppendResults, Page, PageQuery, RunStore, StoreFuture, StoredEvent,
};

/// How much longer than its history a run's state is kept, so that its ids do
/// not come again and a closed run stays closed; the same as in Redis.
const STATE_TTL_EXTRA: Duration = Duration::from_secs(24 * 3600);

/// Hands accepted events of a run to its hub. Called under the run's lock, so
/// that hubs get them in the order of their ids: it must not wait, nor ask the
/// store for the same run.
pub type StoredSink = Box<dyn Fn(&RunId, Vec<StoredEvent>) + Send + Sync>;

/// What tells the time, in µs since the Unix epoch.
pub type StoreClock = Box<dyn Fn() -> u64 + Send + Sync>;

/// Keeps runs in memory, each bounded by `history.max_events` and
/// `history.max_bytes_per_run`, all together by `history.embedded_total_bytes`.
///
/// At that limit the run idle longest goes first, with its state: who comes
/// back to it later finds a new epoch. Each run has its own lock; payloads are
/// shared with whoever reads them, not copied.
pub struct MemoryStore {
    rules: Rules,
    ttl_us: u64,
    total_bytes_max: u64,
    metrics: Arc<Metrics>,
    clock: StoreClock,
    sink: StoredSink,
    runs: DashMap<RunId, Arc<Run>>,
    ledger: Mutex<Ledger>,
    /// The greatest epoch of the runs forgotten: a run that comes back begins
    /// above it.
    forgotten_epoch: AtomicU64,
}

/// A run in the store.
#[derive(Debug)]
struct Run {
    id: RunId,
    slot: Mutex<Slot>,
}

/// What a run's lock guards.
#[derive(Debug, Default)]
struct Slot {
    state: RunState,
    /// `None` before the first event.
    entry: Option<Entry>,
    /// The epoch that was archived last.
    archived: Option<u64>,
    /// It was forgotten; who still holds it looks it up anew.
    is_gone: bool,
}

impl Run {
    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

impl MemoryStore {
    /// Makes an empty store that hands what it accepts to `sink`.
    pub fn new(settings: &BrokerSettings, metrics: Arc<Metrics>, sink: StoredSink) -> Self {
        let clock = SteadyClock::new();
        Self::with_clock(settings, metrics, sink, Box::new(move || clock.now_us()))
    }

    /// The same, by another clock than that of this machine.
    pub fn with_clock(
        settings: &BrokerSettings,
        metrics: Arc<Metrics>,
        sink: StoredSink,
        clock: StoreClock,
    ) -> Self {
        Self {
            rules: Rules::new(settings),
            ttl_us: settings.history.ttl.as_micros() as u64,
            total_bytes_max: settings.history.embedded_total_bytes.as_u64(),
            metrics,
            clock,
            sink,
            runs: DashMap::new(),
            ledger: Mutex::default(),
            forgotten_epoch: AtomicU64::new(0),
        }
    }

    /// Drops histories that outlived `history.ttl`, and later the runs. Called
    /// now and then: what has expired is not read even before.
    pub fn sweep(&self) {
        let now_us = (self.clock)();
        let Some(before_us) = now_us.checked_sub(self.ttl_us) else {
            return;
        };
        loop {
            // Not in the loop's head: there the ledger would stay locked.
            let due = self.ledger().full_since(before_us);
            let Some(run) = due else { break };
            self.expire(&run, &mut run.lock(), now_us);
        }
        let Some(before_us) = before_us.checked_sub(STATE_TTL_EXTRA.as_micros() as u64) else {
            return;
        };
        loop {
            let due = self.ledger().bare_since(before_us);
            let Some(run) = due else { break };
            self.expire(&run, &mut run.lock(), now_us);
        }
    }

    // ---- one run -----------------------------------------------------------

    fn append_now(&self, run_id: &RunId, batch: AppendBatch) -> AppendResults {
        let kinds: Vec<EventKind> = batch.events.iter().map(|event| event.kind).collect();
        if !batch.producer.as_ref().is_none_or(producers::is_good) {
            let refused = PublishError::Unavailable("bad name or number of a producer".to_owned());
            return vec![Err(refused); kinds.len()];
        }
        let results = loop {
            let run = self.run_or_new(run_id);
            let mut slot = run.lock();
            let now_us = (self.clock)();
            self.expire(&run, &mut slot, now_us);
            if !slot.is_gone {
                break self.append_to(&run, &mut slot, batch, now_us);
            }
        };
        self.keep_total_bounded();
        self.count_refused(&kinds, &results);
        results
    }

    fn append_to(
        &self,
        run: &Arc<Run>,
        slot: &mut Slot,
        batch: AppendBatch,
        now_us: u64,
    ) -> AppendResults {
        let at = Moment {
            now_us,
            epoch_min: self.forgotten_epoch.load(Relaxed) + 1,
        };
        let Appended { results, events } = slot.state.append(&self.rules, batch, at);
        if slot.state.last().is_none() {
            // Nothing was accepted: it is no run.
            self.forget(run, slot);
        }
        if !events.is_empty() {
            let bytes = slot.state.cost();
            let mut ledger = self.ledger();
            ledger.touch(run, &mut slot.entry, now_us, bytes);
            self.measure(&ledger);
            drop(ledger);
            (self.sink)(&run.id, events);
        }
        results
    }

    fn run_or_new(&self, run_id: &RunId) -> Arc<Run> {
        if let Some(run) = self.runs.get(run_id) {
            return Arc::clone(&run);
        }
        let new = || {
            Arc::new(Run {
                id: run_id.clone(),
                slot: Mutex::default(),
            })
        };
        Arc::clone(&self.runs.entry(run_id.clone()).or_insert_with(new))
    }

    /// Calls `read` with a run's state and the time, if there is such a run.
    fn with_run<T>(&self, run_id: &RunId, read: impl FnOnce(&RunState, u64) -> T) -> Option<T> {
        let run = self.runs.get(run_id).map(|run| Arc::clone(&run))?;
        let mut slot = run.lock();
        let now_us = (self.clock)();
        self.expire(&run, &mut slot, now_us);
        // Between two looks it was forgotten, or nothing was accepted yet.
        (!slot.is_gone && slot.state.last().is_some()).then(|| read(&slot.state, now_us))
    }

    // ---- forgetting --------------------------------------------------------

    /// Drops what of the run has outlived its time.
    fn expire(&self, run: &Arc<Run>, slot: &mut Slot, now_us: u64) {
        let Some(entry) = &mut slot.entry else {
            return;
        };
        let idle_us = now_us.saturating_sub(entry.turn.since_us);
        if idle_us < self.ttl_us {
            return;
        }
        if idle_us - self.ttl_us >= STATE_TTL_EXTRA.as_micros() as u64 {
            debug!(run_id = %run.id, "run expired");
            return self.forget(run, slot);
        }
        slot.state.drop_history();
        let mut ledger = self.ledger();
        ledger.bare(entry, slot.state.cost());
        self.measure(&ledger);
    }

    /// Takes a run out, wholly.
    fn forget(&self, run: &Arc<Run>, slot: &mut Slot) {
        slot.is_gone = true;
        if let Some(last) = slot.state.last() {
            self.forgotten_epoch.fetch_max(last.epoch, Relaxed);
        }
        slot.state = RunState::default();
        self.runs
            .remove_if(&run.id, |_, other| Arc::ptr_eq(other, run));
        let mut ledger = self.ledger();
        ledger.remove(&mut slot.entry);
        self.measure(&ledger);
    }

    /// Forgets runs, idle longest first, until all fit; of the last one left,
    /// its oldest events.
    fn keep_total_bounded(&self) {
        loop {
            let ledger = self.ledger();
            if ledger.bytes() <= self.total_bytes_max {
                return;
            }
            let is_only = ledger.len() == 1;
            let oldest = ledger.oldest();
            drop(ledger);
            let Some((turn, run)) = oldest else { return };
            let mut slot = run.lock();
            // Appended to or forgotten meanwhile: another is idle longest.
            if slot.entry.as_ref().map(|entry| entry.turn) != Some(turn) {
                continue;
            }
            if is_only {
                return self.trim(&mut slot);
            }
            warn!(
                run_id = %run.id,
                bytes = slot.state.cost(),
                "run forgotten: all runs together hold history.embedded_total_bytes"
            );
            self.metrics.store.evicted_runs.inc();
            self.forget(&run, &mut slot);
        }
    }

    fn trim(&self, slot: &mut Slot) {
        while slot.state.cost() > self.total_bytes_max && slot.state.drop_oldest() {}
        if let Some(entry) = &mut slot.entry {
            let mut ledger = self.ledger();
            ledger.shrink(entry, slot.state.cost());
            self.measure(&ledger);
        }
    }

    // ---- counting ----------------------------------------------------------

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn measure(&self, ledger: &Ledger) {
        self.metrics.store.bytes.set(ledger.bytes());
        self.metrics.store.runs.set(ledger.len() as u64);
    }

    /// Counts what no hub will ever see; a hub counts what it is handed.
    fn count_refused(&self, kinds: &[EventKind], results: &[PublishResult]) {
        for (kind, result) in kinds.iter().zip(results) {
            let result = match result {
                Ok(published) if published.is_duplicate => EventResult::Duplicate,
                Err(PublishError::TooLarge { .. }) => EventResult::TooLarge,
                Err(PublishError::Closed) => EventResult::Closed,
                Ok(_) | Err(_) => continue,
            };
            self.metrics.event_in(*kind, result);
        }
    }
}

impl RunStore for MemoryStore {
    fn append<'a>(
        &'a self,
        run_id: &'a RunId,
        batch: AppendBatch,
    ) -> StoreFuture<'a, AppendResults> {
        Box::pin(async move { Ok(self.append_now(run_id, batch)) })
    }

    fn read<'a>(&'a self, run_id: &'a RunId, query: PageQuery) -> StoreFuture<'a, Page> {
        let read = |state: &RunState, now_us| state.page(query, now_us);
        let page = self.with_run(run_id, read).unwrap_or_default();
        let counters = &self.metrics.store;
        counters.reads.inc();
        counters.read_events.add(page.events.len() as u64);
        Box::pin(ready(Ok(page)))
    }

    fn positions<'a>(&'a self, run_ids: &'a [RunId]) -> StoreFuture<'a, Vec<Option<DurableId>>> {
        self.metrics.store.checks.inc();
        let last = |run_id| self.with_run(run_id, |state, _| state.last()).flatten();
        Box::pin(ready(Ok(run_ids.iter().map(last).collect())))
    }
}
