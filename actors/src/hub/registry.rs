//! [`Registry`]: which hubs there are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use actix::prelude::*;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::{HubStats, Overflowed, Refused, Retire, RunHub};
use crate::metrics::Gauge;
use crate::protocol::{BackendKind, RunId};

/// Part of all hubs that goes at once when there are too many.
const EVICTED_SHARE: usize = 16;

/// How long no idle hub is looked for after there was none.
const SEARCH_PAUSE: Duration = Duration::from_millis(50);

/// A hub as others reach it.
#[derive(Debug, Clone)]
pub struct HubEntry {
    /// Its mailbox.
    pub hub: Addr<RunHub>,
    /// What may be read without asking it.
    pub stats: Arc<HubStats>,
}

/// All hubs of a broker, by backend and run. Bounded by `hub.max_hubs`.
///
/// Whoever sends to a hub does so, and touches its stats, while holding the
/// entry; a hub takes itself out under the same lock only if nobody touched it
/// lately. So no message is lost to a hub that ends.
#[derive(Debug)]
pub struct Registry {
    hubs: [DashMap<RunId, HubEntry>; BackendKind::ALL.len()],
    hubs_max: usize,
    /// Bytes of hubs that were taken out to make room and have not ended yet.
    evicting_bytes: Gauge,
    made_at: Instant,
    /// Time since `made_at` before which no idle hub is looked for.
    no_search_before_ms: AtomicU64,
}

impl Registry {
    /// Makes an empty registry for at most `hubs_max` hubs.
    pub fn new(hubs_max: usize) -> Self {
        Self {
            hubs: std::array::from_fn(|_| DashMap::new()),
            hubs_max,
            evicting_bytes: Gauge::default(),
            made_at: Instant::now(),
            no_search_before_ms: AtomicU64::new(0),
        }
    }

    fn of(&self, backend: BackendKind) -> &DashMap<RunId, HubEntry> {
        &self.hubs[backend as usize]
    }

    /// Number of hubs of all backends.
    pub fn len(&self) -> usize {
        self.hubs.iter().map(DashMap::len).sum()
    }

    /// Whether there is no hub.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `send` with the hub of a run, if there is one. Allocates nothing.
    pub fn with<T>(
        &self,
        backend: BackendKind,
        run_id: &str,
        send: impl FnOnce(&HubEntry) -> T,
    ) -> Option<T> {
        let entry = self.of(backend).get(run_id)?;
        entry.stats.touch();
        Some(send(&entry))
    }

    /// Calls `ask` with the hub of a run, if there is one, without keeping it
    /// from growing idle.
    pub fn peek<T>(
        &self,
        backend: BackendKind,
        run_id: &str,
        ask: impl FnOnce(&HubEntry) -> T,
    ) -> Option<T> {
        self.of(backend).get(run_id).map(|entry| ask(&entry))
    }

    /// Calls `send` with the hub of a run, made by `make` if there is none;
    /// `None` when `make` makes none, or hubs are at their limit and none is
    /// idle to make room.
    pub fn with_or_make<T>(
        &self,
        backend: BackendKind,
        run_id: &RunId,
        make: impl FnOnce() -> Option<HubEntry>,
        send: impl FnOnce(&HubEntry) -> T,
    ) -> Option<T> {
        // Counted before the entry's shard is locked: `len` locks them all.
        // Hubs made at once on several threads may pass the limit by as many.
        let is_full = self.len() >= self.hubs_max
            && self.peek(backend, run_id.as_str(), |_| ()).is_none()
            && !self.make_room();
        let entry = match self.of(backend).entry(run_id.clone()) {
            Entry::Occupied(entry) => entry.into_ref(),
            Entry::Vacant(_) if is_full => return None,
            Entry::Vacant(entry) => entry.insert(make()?),
        };
        entry.stats.touch();
        Some(send(&entry))
    }

    /// Takes out the very hub that `stats` belong to.
    pub(super) fn remove(&self, backend: BackendKind, run_id: &RunId, stats: &Arc<HubStats>) {
        self.of(backend)
            .remove_if(run_id, |_, entry| Arc::ptr_eq(&entry.stats, stats));
    }

    /// The same, if nobody touched it for `idle_ttl`; says whether it did.
    pub(super) fn remove_idle(
        &self,
        backend: BackendKind,
        run_id: &RunId,
        stats: &Arc<HubStats>,
        idle_ttl: Duration,
    ) -> bool {
        let removed = self.of(backend).remove_if(run_id, |_, entry| {
            Arc::ptr_eq(&entry.stats, stats)
                && stats.is_unwatched()
                && stats.idle_time() >= idle_ttl
        });
        removed.is_some()
    }

    /// Calls `visit` with every hub of `backend`.
    pub fn each(&self, backend: BackendKind, mut visit: impl FnMut(&RunId, &HubEntry)) {
        for entry in self.of(backend) {
            visit(entry.key(), entry.value());
        }
    }

    /// Asks hubs idle for longer than their time to end, and tells those whose
    /// mailbox refused messages to say so.
    pub(crate) fn sweep(&self, idle_ttl: impl Fn(BackendKind) -> Duration) {
        for backend in BackendKind::ALL {
            let ttl = idle_ttl(backend);
            self.each(backend, |_, entry| {
                let stats = &entry.stats;
                if stats.is_unwatched() && stats.idle_time() >= ttl {
                    retire(entry);
                }
                let refused = stats.take_refused();
                if refused != Refused::NONE && entry.hub.try_send(Overflowed(refused)).is_err() {
                    // The next sweep or message tells.
                    stats.refuse(refused);
                }
            });
        }
    }

    /// Ends idle hubs, longest idle first, until `bytes` are free, and an
    /// eighth more, so that the search is not repeated for each message.
    pub(crate) fn evict_idle(&self, bytes: u64) {
        let mut idle = self.idle_hubs();
        idle.sort_by_key(|hub| std::cmp::Reverse(hub.idle_time));
        let total: u64 = idle.iter().map(|hub| hub.entry.stats.ring_bytes()).sum();
        let mut wanted = bytes + total / 8;
        for hub in idle {
            if wanted == 0 {
                break;
            }
            if self.evict(&hub) {
                wanted = wanted.saturating_sub(hub.entry.stats.ring_bytes());
            }
        }
    }

    /// Ends the longest idle hubs, to make room for others; says whether there
    /// is room now.
    ///
    /// A sixteenth of all hubs at once: a search looks at every hub, and a
    /// flood of new runs must not cost one search each.
    fn make_room(&self) -> bool {
        let mut idle = self.idle_hubs();
        let wanted = (self.hubs_max / EVICTED_SHARE).max(1);
        if idle.len() > wanted {
            idle.select_nth_unstable_by_key(wanted, |hub| std::cmp::Reverse(hub.idle_time));
            idle.truncate(wanted);
        }
        for hub in &idle {
            self.evict(hub);
        }
        // Another thread may have made it, out of the same hubs.
        self.len() < self.hubs_max
    }

    /// Bytes that hubs on their way out will free.
    pub(super) fn evicting_bytes(&self) -> u64 {
        self.evicting_bytes.get()
    }

    /// Takes back what [`Registry::evicting_bytes`] counted for a hub.
    pub(super) fn evicted(&self, bytes: u64) {
        self.evicting_bytes.sub(bytes);
    }

    /// Finds the hubs that nobody watches; none for a while after there were
    /// none, so that a broker full of watched runs does not search all day.
    fn idle_hubs(&self) -> Vec<IdleHub> {
        let mut idle = Vec::new();
        let now_ms = self.made_at.elapsed().as_millis() as u64;
        if now_ms < self.no_search_before_ms.load(Relaxed) {
            return idle;
        }
        for backend in BackendKind::ALL {
            self.each(backend, |run_id, entry| {
                if entry.stats.is_unwatched() {
                    idle.push(IdleHub {
                        backend,
                        run_id: run_id.clone(),
                        idle_time: entry.stats.idle_time(),
                        entry: entry.clone(),
                    });
                }
            });
        }
        if idle.is_empty() {
            let pause = SEARCH_PAUSE.as_millis() as u64;
            self.no_search_before_ms.store(now_ms + pause, Relaxed);
        }
        idle
    }

    /// Takes a hub out, if it is still unwatched, and has it end.
    fn evict(&self, hub: &IdleHub) -> bool {
        let stats = &hub.entry.stats;
        let gone = self.remove_idle(hub.backend, &hub.run_id, stats, Duration::ZERO);
        if gone {
            let bytes = stats.ring_bytes();
            self.evicting_bytes.add(bytes);
            #[expect(
                clippy::disallowed_methods,
                reason = "one per hub, and it must not be refused"
            )]
            hub.entry.hub.do_send(Retire {
                evicted_bytes: Some(bytes),
            });
        }
        gone
    }
}

/// A hub that nobody watches.
struct IdleHub {
    backend: BackendKind,
    run_id: RunId,
    idle_time: Duration,
    entry: HubEntry,
}

fn retire(entry: &HubEntry) {
    let asked = Retire {
        evicted_bytes: None,
    };
    if entry.stats.begin_retiring() && entry.hub.try_send(asked).is_err() {
        entry.stats.stop_retiring();
    }
}
