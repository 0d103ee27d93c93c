//! [`Queue`]: runs that are to be written, each at its time. Pure.

use std::collections::{BTreeSet, HashMap};

use tokio::time::Instant;

use crate::protocol::RunId;

/// Runs that wait, each once; at most so many.
#[derive(Debug)]
pub(super) struct Queue {
    runs_max: usize,
    by_time: BTreeSet<(Instant, RunId)>,
    times: HashMap<RunId, Instant>,
}

impl Queue {
    pub(super) fn new(runs_max: usize) -> Self {
        Self {
            runs_max,
            by_time: BTreeSet::new(),
            times: HashMap::new(),
        }
    }

    /// Adds a run that is due at a time. One that waits already keeps its
    /// earlier time. `false`: there is no room.
    pub(super) fn add(&mut self, run_id: RunId, at: Instant) -> bool {
        if let Some(&known) = self.times.get(&run_id) {
            if known <= at {
                return true;
            }
            self.by_time.remove(&(known, run_id.clone()));
        } else if self.times.len() >= self.runs_max {
            return false;
        }
        self.times.insert(run_id.clone(), at);
        self.by_time.insert((at, run_id));
        true
    }

    /// Takes the run that is due longest.
    pub(super) fn take(&mut self, now: Instant) -> Option<RunId> {
        let (at, _) = self.by_time.first()?;
        if *at > now {
            return None;
        }
        let (_, run_id) = self.by_time.pop_first()?;
        self.times.remove(&run_id);
        Some(run_id)
    }

    /// When the next one is due.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    pub(super) fn len(&self) -> usize {
        self.times.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.times.len() >= self.runs_max
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
        assert!(queue.add(run("a"), later));
        assert!(queue.add(run("b"), now));
        assert!(!queue.add(run("c"), now), "it is full");
        assert!(queue.add(run("a"), now + Duration::from_secs(9)));
        assert_eq!((queue.len(), queue.next_at()), (2, Some(now)));
        assert_eq!(queue.take(now), Some(run("b")));
        assert_eq!(queue.take(now), None);
        assert!(queue.add(run("a"), now), "sooner than before");
        assert_eq!(queue.take(now), Some(run("a")));
        assert_eq!((queue.take(later), queue.len()), (None, 0));
    }
}
