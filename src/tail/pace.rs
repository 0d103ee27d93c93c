//! [`Pace`]: how long to wait before the next connection.

use std::time::Duration;

/// The wait when no `retry:` was heard yet.
const DEFAULT_RETRY: Duration = Duration::from_secs(2);
/// No wait is longer, whatever a server asks for.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// What the waits after failures grow up to.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Spaces connections out: what the server asked for with `retry:` after one
/// that worked, more and more after each that did not.
#[derive(Debug)]
pub(super) struct Pace {
    retry: Duration,
    failures: u32,
    failures_max: u32,
}

impl Pace {
    /// Gives up after `failures_max` failures in a row; 0 never does.
    pub(super) fn new(failures_max: u32) -> Self {
        Self {
            retry: DEFAULT_RETRY,
            failures: 0,
            failures_max,
        }
    }

    /// Heeds a `retry:` of so many milliseconds.
    pub(super) fn heed(&mut self, millis: u64) {
        self.retry = Duration::from_millis(millis).min(WAIT_MAX);
    }

    /// A stream began.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// A connection came to nothing.
    pub(super) fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    /// Whether the last connection was one.
    pub(super) fn is_well(&self) -> bool {
        self.failures == 0
    }

    /// Whether it is time to give up.
    pub(super) fn is_exhausted(&self) -> bool {
        self.failures_max > 0 && self.failures >= self.failures_max
    }

    /// Returns how long to wait now; `chance` is 0 to 1, drawn by the caller.
    /// The server draws `retry:` for each client, so it is taken as it is; the
    /// growing part is ours to spread.
    pub(super) fn wait(&self, chance: f64) -> Duration {
        let Some(doublings) = self.failures.checked_sub(1) else {
            return self.retry;
        };
        let grown = self.retry.saturating_mul(1 << doublings.min(10));
        let spread = grown
            .min(BACKOFF_MAX)
            .mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0);
        spread.max(self.retry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_with_failures_and_are_never_below_what_was_asked() {
        let mut pace = Pace::new(3);
        pace.heed(1000);
        assert_eq!(pace.wait(0.0), Duration::from_secs(1), "a clean goodbye");
        let mut waits = Vec::new();
        for _ in 0..8 {
            pace.failed();
            assert!(pace.wait(0.0) >= Duration::from_secs(1));
            assert!(pace.wait(0.0) <= pace.wait(1.0));
            waits.push(pace.wait(1.0).as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
        pace.succeeded();
        assert_eq!(pace.wait(1.0), Duration::from_secs(1));
    }

    #[test]
    fn a_server_cannot_ask_for_more_than_a_minute() {
        let mut pace = Pace::new(0);
        pace.heed(u64::MAX);
        assert_eq!(pace.wait(1.0), WAIT_MAX);
    }

    #[test]
    fn the_budget_is_of_failures_in_a_row() {
        let mut pace = Pace::new(2);
        pace.failed();
        pace.succeeded();
        pace.failed();
        assert!(!pace.is_exhausted());
        pace.failed();
        assert!(pace.is_exhausted());
        let mut patient = Pace::new(0);
        (0..1000).for_each(|_| patient.failed());
        assert!(!patient.is_exhausted());
    }
}
