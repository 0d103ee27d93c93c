//! [`Queue`]: runs that are to be written, each at its time. Pure.

use std::collections::{BTreeSet, HashMap};

use tokio::time::Instant;

use crate::protocol::RunId;

/// Runs that wait, each once; at most so many.
#[derive(Debug)]
pub(super) struct Queue {
    runs_max: usize,
    by_time: BTreeSet<(Instant, RunId)>,
    runs: HashMap<RunId, Waiting>,
}

/// A run that waits.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    at: Instant,
    /// Its newest life that is known to have ended.
    epoch: Option<u64>,
}

impl Queue {
    pub(super) fn new(runs_max: usize) -> Self {
        Self {
            runs_max,
            by_time: BTreeSet::new(),
            runs: HashMap::new(),
        }
    }

    /// Adds a run that is due at a time. One that waits already keeps its
    /// earlier time, and the newest `epoch` told. `false`: there is no room.
    pub(super) fn add(&mut self, run_id: RunId, epoch: Option<u64>, at: Instant) -> bool {
        let mut new = Waiting { at, epoch };
        if let Some(known) = self.runs.get_mut(&run_id) {
            known.epoch = known.epoch.max(epoch);
            if known.at <= at {
                return true;
            }
            new.epoch = known.epoch;
            self.by_time.remove(&(known.at, run_id.clone()));
        } else if self.is_full() {
            return false;
        }
        self.runs.insert(run_id.clone(), new);
        self.by_time.insert((at, run_id));
        true
    }

    /// Takes the run that is due longest.
    pub(super) fn take(&mut self, now: Instant) -> Option<(RunId, Option<u64>)> {
        let (at, _) = self.by_time.first()?;
        if *at > now {
            return None;
        }
        let (_, run_id) = self.by_time.pop_first()?;
        let waiting = self.runs.remove(&run_id)?;
        Some((run_id, waiting.epoch))
    }

    /// When the next one is due.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    pub(super) fn len(&self) -> usize {
        self.runs.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.runs.len() >= self.runs_max
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn runs_come_in_the_order_of_their_times_each_once() {
        let run = |text| RunId::parse(text).expect("a run id");
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut queue = Queue::new(2);
        assert!(queue.add(run("a"), Some(1), later));
        assert!(queue.add(run("b"), None, now));
        assert!(!queue.add(run("c"), None, now), "it is full");
        assert!(queue.add(run("a"), Some(2), now + Duration::from_secs(9)));
        assert_eq!((queue.len(), queue.next_at()), (2, Some(now)));
        assert_eq!(queue.take(now), Some((run("b"), None)));
        assert_eq!(queue.take(now), None);
        assert!(queue.add(run("a"), None, now), "sooner than before");
        assert_eq!(queue.take(now), Some((run("a"), Some(2))));
        assert_eq!((queue.take(later), queue.len()), (None, 0));
    }
}
