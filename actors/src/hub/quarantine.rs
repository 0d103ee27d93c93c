//! [`Quarantine`]: runs whose hubs panicked again and again.
//!
//! A hub that panics takes its run's ring along and is made anew; its clients
//! are told the gap. If what makes it panic is in the run, that would go on for
//! ever: such a run, and it alone, is not served for a while.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::protocol::{BackendKind, RunId};

/// Runs remembered at once; past it the one that panicked longest ago goes.
const RUNS_MAX: usize = 1024;

/// The runs whose hubs panicked lately.
#[derive(Debug)]
pub(crate) struct Quarantine {
    panics_max: usize,
    time: Duration,
    runs: Mutex<HashMap<(BackendKind, RunId), Panics>>,
}

#[derive(Debug, Clone, Copy)]
struct Panics {
    count: usize,
    last: Instant,
}

impl Quarantine {
    /// A run with `panics_max` panics, each within `time` of the one before, is
    /// not served until `time` after the last.
    pub(crate) fn new(panics_max: usize, time: Duration) -> Self {
        Self {
            panics_max,
            time,
            runs: Mutex::default(),
        }
    }

    /// Notes a panic; says whether the run is in quarantine now.
    pub(crate) fn note(&self, backend: BackendKind, run_id: &RunId, now: Instant) -> bool {
        let mut runs = self.lock();
        runs.retain(|_, panics| self.is_recent(*panics, now));
        let key = (backend, run_id.clone());
        if runs.len() >= RUNS_MAX && !runs.contains_key(&key) {
            let oldest = runs.iter().min_by_key(|(_, panics)| panics.last);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                runs.remove(&oldest);
            }
        }
        let none = Panics {
            count: 0,
            last: now,
        };
        let panics = runs.entry(key).or_insert(none);
        panics.count += 1;
        panics.last = now;
        panics.count >= self.panics_max
    }

    /// Whether the run is in quarantine.
    pub(crate) fn holds(&self, backend: BackendKind, run_id: &RunId, now: Instant) -> bool {
        let runs = self.lock();
        if runs.is_empty() {
            // Nearly always: nothing is copied for it.
            return false;
        }
        let panics = runs.get(&(backend, run_id.clone()));
        panics.is_some_and(|panics| self.is_held(*panics, now))
    }

    /// How many runs are in quarantine.
    pub(crate) fn count(&self, now: Instant) -> usize {
        let runs = self.lock();
        runs.values()
            .filter(|panics| self.is_held(**panics, now))
            .count()
    }

    fn is_held(&self, panics: Panics, now: Instant) -> bool {
        panics.count >= self.panics_max && self.is_recent(panics, now)
    }

    fn is_recent(&self, panics: Panics, now: Instant) -> bool {
        now.saturating_duration_since(panics.last) < self.time
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(BackendKind, RunId), Panics>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn run(text: &str) -> RunId {
        RunId::parse(text).expect("a run id")
    }

    #[test]
    fn a_run_is_held_after_its_last_panic_in_a_row_and_no_other() {
        let quarantine = Quarantine::new(3, MINUTE);
        let (backend, now) = (BackendKind::Redis, Instant::now());
        assert!(!quarantine.note(backend, &run("42"), now));
        assert!(!quarantine.note(backend, &run("43"), now));
        assert!(!quarantine.note(backend, &run("42"), now + MINUTE / 2));
        assert!(!quarantine.holds(backend, &run("42"), now));
        let last = now + MINUTE;
        assert!(quarantine.note(backend, &run("42"), last));
        assert!(quarantine.holds(backend, &run("42"), last));
        assert!(!quarantine.holds(BackendKind::Kubectl, &run("42"), last));
        assert!(!quarantine.holds(backend, &run("43"), last));
        assert_eq!(quarantine.count(last), 1);
        assert!(!quarantine.holds(backend, &run("42"), last + MINUTE));
        // Panics far from each other are not repeated ones.
        assert!(!quarantine.note(backend, &run("42"), last + MINUTE));
    }

    #[test]
    fn runs_without_end_take_no_more_room() {
        let quarantine = Quarantine::new(1, MINUTE);
        let (backend, now) = (BackendKind::Redis, Instant::now());
        for index in 0..2 * RUNS_MAX {
            let at = now + Duration::from_millis(index as u64);
            quarantine.note(backend, &run(&index.to_string()), at);
        }
        assert_eq!(quarantine.count(now + MINUTE / 2), RUNS_MAX);
        assert!(!quarantine.holds(backend, &run("0"), now + MINUTE / 2));
    }
}
