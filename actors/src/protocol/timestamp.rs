//! [`Timestamp`]: times as the stream shows them.

use std::cell::RefCell;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// A point in time, microseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Returns the present time of this machine.
    pub fn now() -> Self {
        let elapsed = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self(elapsed.as_micros() as i64)
    }

    /// Returns the time that lies `micros` after the Unix epoch.
    pub fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Reads what [`Display`](fmt::Display) writes.
    pub fn parse(text: &str) -> Option<Self> {
        let time: jiff::Timestamp = text.parse().ok()?;
        Some(Self(time.as_microsecond()))
    }

    /// Returns microseconds since the Unix epoch.
    pub fn as_micros(self) -> i64 {
        self.0
    }

    /// Returns milliseconds since the Unix epoch.
    pub fn as_millis(self) -> i64 {
        self.0.div_euclid(1000)
    }
}

impl fmt::Display for Timestamp {
    /// Writes `2026-11-23T20:00:00.123Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Years outside jiff's range (-9999..=9999) can only come from a
        // forged id; the epoch stands in for them.
        let time = jiff::Timestamp::from_millisecond(self.as_millis()).unwrap_or_default();
        write!(f, "{time:.3}")
    }
}

/// The text of the last time written: events of one batch mostly share their
/// millisecond, and formatting is the dearest part of a small frame.
#[derive(Debug, Default)]
pub struct TimestampText {
    millis: Option<i64>,
    text: String,
}

thread_local! {
    /// What this thread formatted last: the runs of a turn share it, too.
    static LAST: RefCell<TimestampText> = RefCell::default();
}

impl TimestampText {
    /// Returns `time` as [`Timestamp`]'s `Display` writes it.
    pub fn of(&mut self, time: Timestamp) -> &str {
        if self.millis != Some(time.as_millis()) {
            self.set(time);
        }
        &self.text
    }

    #[cold]
    fn set(&mut self, time: Timestamp) {
        use fmt::Write as _;
        LAST.with_borrow_mut(|last| {
            if last.millis != Some(time.as_millis()) {
                last.millis = Some(time.as_millis());
                last.text.clear();
                write!(last.text, "{time}").expect("writing to a string cannot fail");
            }
            self.millis = last.millis;
            self.text.clone_from(&last.text);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_in_milliseconds_of_utc() {
        // Two runs of a thread, which share what it formats.
        let [mut first, mut second] = [(); 2].map(|()| TimestampText::default());
        for (micros, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_795_464_000_123_456, "2026-11-23T20:00:00.123Z"),
            (1_795_464_000_123_999, "2026-11-23T20:00:00.123Z"),
            (1_795_464_000_124_000, "2026-11-23T20:00:00.124Z"),
        ] {
            assert_eq!(first.of(Timestamp::from_micros(micros)), expected);
            assert_eq!(second.of(Timestamp::from_micros(micros)), expected);
            assert_ne!(second.of(Timestamp::from_micros(1_000)), expected);
            assert_eq!(first.of(Timestamp::from_micros(micros)), expected);
        }
    }
}
