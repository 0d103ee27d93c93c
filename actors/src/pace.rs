//! [`Pace`]: how fast bytes may be taken from where they can wait.

use std::time::Duration;

use tokio::time::Instant;

/// Bytes that may be taken at once after a rest: a page of `GET …/events`.
const BURST_BYTES: u64 = 1024 * 1024;

/// A bound of bytes a second, with a burst of 1 MiB. Bytes are noted once they
/// are known, so that the first ones never wait. Pure: the caller waits.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Bytes a second; 0 is no bound.
    rate: u64,
    /// When all that was taken is paid for, at that rate.
    paid_at: Instant,
}

impl Pace {
    pub(crate) fn new(rate: u64, now: Instant) -> Self {
        Self { rate, paid_at: now }
    }

    /// Keeps another rate from now on; what is not paid for yet is paid at it.
    pub(crate) fn set_rate(&mut self, rate: u64, now: Instant) {
        if rate == self.rate {
            return;
        }
        let owed = self.paid_at.saturating_duration_since(now).as_secs_f64() * self.rate as f64;
        self.rate = rate;
        self.paid_at = now + self.time_of(owed as u64);
    }

    /// Notes bytes that were taken.
    pub(crate) fn took(&mut self, bytes: u64, now: Instant) {
        self.paid_at = self.paid_at.max(now) + self.time_of(bytes);
    }

    /// Returns until when nothing more may be taken, if that is to come.
    pub(crate) fn rests_until(&self, now: Instant) -> Option<Instant> {
        let rested = self.paid_at.checked_sub(self.time_of(BURST_BYTES))?;
        (rested > now).then_some(rested)
    }

    fn time_of(&self, bytes: u64) -> Duration {
        match self.rate {
            0 => Duration::ZERO,
            rate => Duration::from_secs_f64(bytes as f64 / rate as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn what_fits_the_burst_never_waits() {
        let now = Instant::now();
        let mut pace = Pace::new(4 * MIB, now);
        pace.took(MIB, now);
        assert_eq!(pace.rests_until(now), None);
        // Paid for a quarter of a second later: the burst is there again.
        let later = now + Duration::from_millis(250);
        pace.took(MIB, later);
        assert_eq!(pace.rests_until(later), None);
    }

    #[test]
    fn the_rate_is_kept() {
        let now = Instant::now();
        let mut pace = Pace::new(4 * MIB, now);
        let mut at = now;
        let mut taken = 0;
        while at < now + Duration::from_secs(10) {
            pace.took(MIB / 16, at);
            taken += MIB / 16;
            at = pace.rests_until(at).unwrap_or(at);
        }
        let expected = (41 * MIB)..=(41 * MIB + MIB / 8);
        assert!(expected.contains(&taken), "{taken}");
    }

    #[test]
    fn what_was_taken_is_paid_for_at_the_rate_of_now() {
        let now = Instant::now();
        let mut pace = Pace::new(1024, now);
        pace.took(3 * MIB, now);
        let hour = Duration::from_secs(3600);
        assert!(
            pace.rests_until(now)
                .is_some_and(|until| until > now + hour / 2)
        );
        pace.set_rate(MIB, now);
        let second = Duration::from_secs(1);
        let until = pace.rests_until(now).expect("two seconds");
        assert!(until > now + second && until < now + 3 * second);
        pace.set_rate(0, now);
        assert_eq!(pace.rests_until(now), None);
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        let now = Instant::now();
        let mut pace = Pace::new(0, now);
        pace.took(u64::MAX, now);
        assert_eq!(pace.rests_until(now), None);
    }
}
