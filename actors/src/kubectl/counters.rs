//! What the kubectl backend counts, and how many processes it may run.

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
    failures: [AtomicU64; FailureReason::ALL.len()],
}

impl KubectlCounters {
    /// Returns how many `kubectl logs` run now.
    pub fn follows(&self) -> u64 {
        self.follows.load(Ordering::Relaxed)
    }

    /// Returns how many `kubectl logs` were started.
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

/// Most short `kubectl` calls (`get`) at once, of all runs: each costs about
/// 50 MB and 100 ms of CPU while it runs, and a hundred runs may look for
/// their pods at the same moment.
const QUERIES_MAX: usize = 4;

/// How many kubectl processes this broker may run, shared by all its runs.
#[derive(Debug)]
pub struct FollowPermits {
    follows: Arc<Semaphore>,
    queries: Semaphore,
}

impl FollowPermits {
    /// Returns permits for `max_follows` containers followed at once
    /// (`kubectl.max_follows`). A container past that is told by the problem
    /// `too-many-follows` and tried again; short calls wait for their turn.
    pub fn new(max_follows: usize) -> Self {
        Self {
            follows: Arc::new(Semaphore::new(max_follows)),
            queries: Semaphore::new(QUERIES_MAX),
        }
    }

    /// Takes a permit for one container, if one is free.
    pub(crate) fn try_follow(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.follows).try_acquire_owned().ok()
    }

    pub(crate) async fn query(&self) -> SemaphorePermit<'_> {
        self.queries
            .acquire()
            .await
            .expect("the semaphore is never closed")
    }
}
