//! [`SteadyClock`]: the time of day, but it never goes back nor stands still.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::protocol::Timestamp;

/// Follows the time of day. Where that is set back, it goes on at its own pace
/// until the time of day has come up: a run's grace ends all the same, and
/// nothing expires twice.
#[derive(Debug)]
pub(super) struct SteadyClock(Mutex<Reading>);

/// What the clock showed, and when.
#[derive(Debug, Clone, Copy)]
struct Reading {
    us: u64,
    at: Instant,
}

impl SteadyClock {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Reading {
            us: 0,
            at: Instant::now(),
        }))
    }

    /// Returns the time in µs since the Unix epoch.
    pub(super) fn now_us(&self) -> u64 {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = Instant::now();
        let day_us = Timestamp::now().as_micros() as u64;
        let us = steady(last.us, at.saturating_duration_since(last.at), day_us);
        *last = Reading { us, at };
        us
    }
}

/// The reading after `last_us`, `elapsed` later, when the time of day is
/// `day_us`.
fn steady(last_us: u64, elapsed: Duration, day_us: u64) -> u64 {
    day_us.max(last_us.saturating_add(elapsed.as_micros() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_set_back_goes_on_from_where_it_was() {
        let second = Duration::from_secs(1);
        assert_eq!(steady(5_000_000, second, 6_000_000), 6_000_000);
        // Set forward: it follows.
        assert_eq!(steady(5_000_000, second, 90_000_000), 90_000_000);
        // Set back: it goes on.
        assert_eq!(steady(90_000_000, second, 7_000_000), 91_000_000);
        assert_eq!(steady(91_000_000, second, 92_500_000), 92_500_000);
    }

    #[test]
    fn it_shows_the_time_of_day() {
        let clock = SteadyClock::new();
        let before = Timestamp::now().as_micros() as u64;
        let first = clock.now_us();
        assert!(first >= before && clock.now_us() >= first);
    }
}
