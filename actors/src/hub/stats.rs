//! [`HubStats`]: what others may read of a hub without asking it.

use std::sync::LazyLock;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::{Duration, Instant};

use crate::protocol::{BackendKind, Gap, GapReason};

static PROCESS_START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Shared between a hub, the registry and the workers it serves.
#[derive(Debug, Default)]
pub struct HubStats {
    clients: AtomicU64,
    attachments: AtomicU64,
    touched_us: AtomicU64,
    refused: AtomicU64,
    ring_bytes: AtomicU64,
    log_end_no: AtomicU64,
    /// The stream goes on from kubectl now, of a hub that serves `auto`.
    on_kubectl: AtomicBool,
    /// A `Retire` is on its way.
    retiring: AtomicBool,
}

impl HubStats {
    /// Notes that something was sent to the hub.
    pub fn touch(&self) {
        self.touched_us
            .store(PROCESS_START.elapsed().as_micros() as u64, Relaxed);
    }

    /// Time since something was last sent to the hub.
    pub fn idle_time(&self) -> Duration {
        let now = PROCESS_START.elapsed().as_micros() as u64;
        Duration::from_micros(now.saturating_sub(self.touched_us.load(Relaxed)))
    }

    /// Whether nobody watches.
    pub fn is_unwatched(&self) -> bool {
        self.clients.load(Relaxed) == 0 && self.attachments.load(Relaxed) == 0
    }

    /// Streams open on the run.
    pub fn clients(&self) -> u64 {
        self.clients.load(Relaxed)
    }

    pub(crate) fn add_clients(&self, count: u64) {
        self.clients.fetch_add(count, Relaxed);
    }

    pub(crate) fn remove_client(&self) {
        self.touch();
        self.clients.fetch_sub(1, Relaxed);
    }

    /// Counts an attachment from the moment it is asked for.
    pub(crate) fn add_attachment(&self) {
        self.attachments.fetch_add(1, Relaxed);
    }

    pub(crate) fn remove_attachment(&self) {
        self.touch();
        self.attachments.fetch_sub(1, Relaxed);
    }

    pub(crate) fn set_ring_bytes(&self, bytes: u64) {
        self.ring_bytes.store(bytes, Relaxed);
    }

    /// Notes where the hub's log ends, before any worker can know.
    pub(crate) fn set_log_end_no(&self, segment_no: u64) {
        self.log_end_no.store(segment_no, Release);
    }

    /// Number of the segment the hub's log will have next. A worker whose log
    /// ends before it has segments on their way.
    pub(crate) fn log_end_no(&self) -> u64 {
        self.log_end_no.load(Acquire)
    }

    /// Bytes of the hub's log.
    pub(crate) fn ring_bytes(&self) -> u64 {
        self.ring_bytes.load(Relaxed)
    }

    /// Notes where the events of a hub that serves `auto` come from now.
    pub(crate) fn set_live_backend(&self, backend: BackendKind) {
        self.on_kubectl
            .store(backend == BackendKind::Kubectl, Relaxed);
    }

    /// Where the events of a hub on `backend` come from now.
    pub(crate) fn live_backend(&self, backend: BackendKind) -> BackendKind {
        match backend {
            BackendKind::Auto if self.on_kubectl.load(Relaxed) => BackendKind::Kubectl,
            BackendKind::Auto => BackendKind::Redis,
            BackendKind::Redis | BackendKind::Kubectl | BackendKind::Embedded => backend,
        }
    }

    /// Notes messages the mailbox refused.
    pub(crate) fn refuse(&self, refused: Refused) {
        let add = |before| Some(Refused(before).and(refused).0);
        // Never refuses to add, so there is no error.
        let _ = self.refused.fetch_update(Relaxed, Relaxed, add);
    }

    /// Takes what was refused since the last call. Whoever sends next takes it
    /// along: so it is told after all that was accepted before.
    pub(crate) fn take_refused(&self) -> Refused {
        match self.refused.load(Relaxed) {
            0 => Refused::NONE,
            _ => Refused(self.refused.swap(0, Relaxed)),
        }
    }

    /// Marks the hub as about to be retired; `false` if it is already.
    pub(crate) fn begin_retiring(&self) -> bool {
        !self.retiring.swap(true, Relaxed)
    }

    pub(crate) fn stop_retiring(&self) {
        self.retiring.store(false, Relaxed);
    }
}

/// How many messages of a run its hub's mailbox refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused(u64);

impl Refused {
    /// None at all.
    pub const NONE: Self = Self(0);
    /// Some, and nobody knows how many.
    pub const UNKNOWN: Self = Self(u64::MAX);

    /// This many.
    pub fn count(messages: usize) -> Self {
        Self(messages as u64)
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// Returns what is to be told of it, if anything: a gap, with its count if
    /// that is known.
    pub fn gap(self) -> Option<Gap> {
        (self != Self::NONE).then(|| Gap {
            missed: (self != Self::UNKNOWN).then_some(self.0),
            ..Gap::unknown(GapReason::Overflow)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_once_unknown_stays_unknown() {
        let told = |refused: Refused| refused.gap().map(|gap| gap.missed);
        assert_eq!(told(Refused::NONE), None);
        assert_eq!(
            told(Refused::count(2).and(Refused::count(3))),
            Some(Some(5))
        );
        assert_eq!(told(Refused::UNKNOWN.and(Refused::count(1))), Some(None));
    }
}
