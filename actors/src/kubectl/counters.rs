//! What the kubectl backend counts, and how much it may do at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use super::failure::FailureReason;

/// Counters of all runs of this broker, for `/metrics`. None is on the path
/// of a single line: lines are added once per batch.
#[derive(Debug, Default)]
pub struct KubectlCounters {
    follows: AtomicU64,
    follows_started: AtomicU64,
    lines: AtomicU64,
    restarts: AtomicU64,
    killed: AtomicU64,
    paced: AtomicU64,
    watches: AtomicU64,
    failures: [AtomicU64; FailureReason::ALL.len()],
}

impl KubectlCounters {
    /// Returns how many logs are followed now.
    pub fn follows(&self) -> u64 {
        self.follows.load(Ordering::Relaxed)
    }

    /// Returns how many follows of a log were started.
    pub fn follows_started(&self) -> u64 {
        self.follows_started.load(Ordering::Relaxed)
    }

    /// Returns how many lines were delivered to hubs.
    pub fn lines(&self) -> u64 {
        self.lines.load(Ordering::Relaxed)
    }

    /// Returns how many container restarts were told.
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// Returns how many child processes were killed by us.
    pub fn killed(&self) -> u64 {
        self.killed.load(Ordering::Relaxed)
    }

    /// Returns how many reads of a log waited for `kubectl.follow_rate`.
    pub fn paced(&self) -> u64 {
        self.paced.load(Ordering::Relaxed)
    }

    /// Returns how many runs' pods are watched now.
    pub fn watches(&self) -> u64 {
        self.watches.load(Ordering::Relaxed)
    }

    /// Returns how often each failure happened.
    pub fn failures(&self) -> impl Iterator<Item = (FailureReason, u64)> + '_ {
        let counts = self.failures.iter().map(|n| n.load(Ordering::Relaxed));
        FailureReason::ALL.into_iter().zip(counts)
    }

    pub(crate) fn add_paced(&self) {
        self.paced.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_lines(&self, lines: usize) {
        self.lines.fetch_add(lines as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_restart(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_killed(&self) {
        self.killed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_failure(&self, reason: FailureReason) {
        self.failures[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a follow while the guard lives.
    pub(crate) fn follow(self: &Arc<Self>) -> FollowGuard {
        self.follows_started.fetch_add(1, Ordering::Relaxed);
        self.follows.fetch_add(1, Ordering::Relaxed);
        FollowGuard(Arc::clone(self))
    }
}

/// One running follow, counted.
#[derive(Debug)]
pub(crate) struct FollowGuard(Arc<KubectlCounters>);

impl Drop for FollowGuard {
    fn drop(&mut self) {
        self.0.follows.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One watch, counted, and its place among all.
#[derive(Debug)]
pub(crate) struct WatchPlace {
    counters: Arc<KubectlCounters>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for WatchPlace {
    fn drop(&mut self) {
        self.counters.watches.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Most short questions at once, of all runs: each may be a `kubectl get`,
/// which costs about 50 MB and 100 ms of CPU while it runs, and a hundred runs
/// may look for their pods at the same moment.
const QUERIES_MAX: usize = 4;

/// How much this broker may ask of a cluster at once, shared by all its runs.
#[derive(Debug)]
pub struct FollowPermits {
    follows: Arc<Semaphore>,
    watches: Arc<Semaphore>,
    queries: Semaphore,
}

impl FollowPermits {
    /// Returns permits for `max_follows` containers followed at once
    /// (`kubectl.max_follows`). A container past that is told by the problem
    /// `too-many-follows` and tried again; short questions wait for their turn;
    /// of as many runs the pods may be watched, further ones list them.
    pub fn new(max_follows: usize) -> Self {
        Self {
            follows: Arc::new(Semaphore::new(max_follows)),
            watches: Arc::new(Semaphore::new(max_follows)),
            queries: Semaphore::new(QUERIES_MAX),
        }
    }

    /// Takes a permit for one container, if one is free.
    pub(crate) fn try_follow(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.follows).try_acquire_owned().ok()
    }

    /// Takes a place for the watch of one run's pods, if one is free.
    pub(crate) fn try_watch(&self, counters: &Arc<KubectlCounters>) -> Option<WatchPlace> {
        let permit = Arc::clone(&self.watches).try_acquire_owned().ok()?;
        counters.watches.fetch_add(1, Ordering::Relaxed);
        Some(WatchPlace {
            counters: Arc::clone(counters),
            _permit: permit,
        })
    }

    pub(crate) async fn query(&self) -> SemaphorePermit<'_> {
        self.queries
            .acquire()
            .await
            .expect("the semaphore is never closed")
    }
}
