//! [`Pace`]: so many a second, and who comes too early is told when.
//!
//! The generic cell rate algorithm: one time for each who is counted, when all
//! that was taken so far would be paid at the even pace. A second's worth may
//! be taken ahead. What comes in one piece is taken whole, and makes the next
//! one wait for as long.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How much may be taken ahead of the even pace.
const AHEAD: Duration = Duration::from_secs(1);

/// Keys that a pace is kept for; past it those that have caught up are
/// forgotten, and if there are none newcomers share one pace.
const KEYS_MAX: usize = 65_536;

/// A pace that all keep together.
#[derive(Debug, Default)]
pub(super) struct Pace {
    paid_at: Mutex<Option<Instant>>,
}

/// A pace for each key: a client's address, or a token's subject.
#[derive(Debug)]
pub(super) struct PacePer<K> {
    /// `None`: of the newcomers that share one.
    paid_at: Mutex<HashMap<Option<K>, Instant>>,
}

impl Pace {
    /// Takes one at a pace of so many a second, and returns how long to wait
    /// for it; 0 is none, and all may come at once.
    ///
    /// # Errors
    /// The wait, if it is longer than `patience`; then nothing is taken.
    pub(super) fn take(
        &self,
        per_second: usize,
        now: Instant,
        patience: Duration,
    ) -> Result<Duration, Duration> {
        if per_second == 0 {
            return Ok(Duration::ZERO);
        }
        let mut paid_at = lock(&self.paid_at);
        let (wait, paid) = turn(*paid_at, now, 1, per_second);
        if wait > patience {
            return Err(wait);
        }
        *paid_at = Some(paid);
        Ok(wait)
    }
}

impl<K> Default for PacePer<K> {
    fn default() -> Self {
        Self {
            paid_at: Mutex::default(),
        }
    }
}

impl<K: Eq + Hash> PacePer<K> {
    /// How many keys are known now.
    pub(super) fn count(&self) -> usize {
        lock(&self.paid_at).len()
    }

    /// Takes `count` for `key` at a pace of so many a second, if it may have
    /// one now; 0 is no pace, and all may come at once.
    ///
    /// # Errors
    /// How long it has to wait; then nothing is taken.
    pub(super) fn take(
        &self,
        per_second: usize,
        key: K,
        now: Instant,
        count: usize,
    ) -> Result<(), Duration> {
        if per_second == 0 {
            return Ok(());
        }
        let mut key = Some(key);
        let mut paid_at = lock(&self.paid_at);
        if paid_at.len() >= KEYS_MAX && !paid_at.contains_key(&key) {
            paid_at.retain(|_, paid| *paid > now);
            if paid_at.len() >= KEYS_MAX {
                key = None;
            }
        }
        let (wait, paid) = turn(paid_at.get(&key).copied(), now, count, per_second);
        if !wait.is_zero() {
            return Err(wait);
        }
        paid_at.insert(key, paid);
        Ok(())
    }
}

/// Returns how long to wait for one's turn, and when it will have been paid.
fn turn(
    paid_at: Option<Instant>,
    now: Instant,
    count: usize,
    per_second: usize,
) -> (Duration, Instant) {
    let from = paid_at.map_or(now, |paid| paid.max(now));
    let wait = from.duration_since(now).saturating_sub(AHEAD);
    let cost = Duration::from_secs_f64(count as f64 / per_second as f64);
    (wait, from + cost)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_may_be_taken_ahead_and_then_each_waits_its_turn() {
        let pace = Pace::default();
        let now = Instant::now();
        for taken in 0..=10 {
            assert_eq!(
                pace.take(10, now, Duration::ZERO),
                Ok(Duration::ZERO),
                "{taken}"
            );
        }
        let wait = Duration::from_millis(100);
        assert_eq!(pace.take(10, now, Duration::ZERO), Err(wait));
        assert_eq!(pace.take(10, now, wait), Ok(wait));
        assert_eq!(pace.take(10, now, wait), Err(2 * wait));
        assert_eq!(
            pace.take(10, now + 2 * wait, Duration::ZERO),
            Ok(Duration::ZERO)
        );
    }

    #[test]
    fn a_batch_is_taken_whole_and_makes_the_next_one_wait() {
        let paces = PacePer::default();
        let [one, other] = ["one", "other"];
        let now = Instant::now();
        assert_eq!(paces.take(100, one, now, 1000), Ok(()));
        assert_eq!(paces.take(100, one, now, 1), Err(Duration::from_secs(9)));
        assert_eq!(paces.take(100, other, now, 1), Ok(()));
        assert_eq!(
            paces.take(100, one, now + Duration::from_secs(9), 1),
            Ok(())
        );
    }

    #[test]
    fn keys_without_end_share_a_pace_and_take_no_more_room() {
        let paces = PacePer::default();
        let now = Instant::now();
        for key in 0..KEYS_MAX {
            assert_eq!(paces.take(1, key, now, 1), Ok(()));
        }
        let newcomers = (0..5).map(|index| paces.take(1, KEYS_MAX + index, now, 1));
        assert_eq!(newcomers.filter(Result::is_ok).count(), 2);
        assert_eq!(paces.count(), KEYS_MAX + 1);
        let later = now + Duration::from_secs(2);
        assert_eq!(paces.take(1, 2 * KEYS_MAX, later, 1), Ok(()));
        assert!(paces.count() < 10, "who caught up is forgotten");
    }

    #[test]
    fn no_pace_counts_nobody() {
        let (pace, paces) = (Pace::default(), PacePer::default());
        let now = Instant::now();
        for _ in 0..1000 {
            assert!(pace.take(0, now, Duration::ZERO).is_ok());
            assert!(paces.take(0, "anybody", now, 1000).is_ok());
        }
        assert_eq!(paces.count(), 0);
    }
}
