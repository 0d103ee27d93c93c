//! [`Matcher`]: which of what comes from one side was shown from the other.

use std::collections::HashMap;

use super::{Content, Entry, Pool};
use crate::protocol::EventKind;

/// A frame of a line keeps its time in milliseconds only.
const LINE_TIME_STEP: i64 = 1_000;

/// Where something came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The run's stream: it may be published long after it was printed.
    Durable,
    /// Only published: it arrives when it is published, or never.
    Plain,
    /// A line of a container's log.
    Line,
}

/// A line of a container's log.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// Its data.
    pub content: Content,
    /// The kubelet's time, in microseconds.
    pub ts: i64,
    /// Its kind.
    pub kind: EventKind,
    /// Names its container.
    pub container: u64,
}

/// An event of Redis.
#[derive(Debug, Clone, Copy)]
pub struct RedisEvent {
    /// Its data.
    pub content: Content,
    /// Its time, in microseconds: of the append, or of its arrival here.
    pub ts: i64,
    /// Whether the stream has it.
    pub is_durable: bool,
}

/// How a line was met that Redis had shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Met {
    /// How many events were shown from Redis after it.
    pub newer: u64,
    /// It was published long after it was printed: so others may not be yet that
    /// were printed before what is remembered.
    pub is_late: bool,
}

/// What is known of one container's publisher.
#[derive(Debug, Clone, Copy)]
struct Progress {
    /// Time of the newest line that was met in Redis.
    ts: i64,
    /// Time of the newest event that was published as soon as printed.
    fresh_ts: Option<i64>,
}

impl Progress {
    fn is_fresh_since(&self, ts: i64) -> bool {
        self.fresh_ts.is_some_and(|fresh| fresh >= ts)
    }
}

/// Matches lines and events one to one, by content and time.
///
/// Either side remembers what it has shown until it is met on the other. An
/// event can be published any time after its line was printed
/// (`runcast exec` keeps lines while Redis is away), but, clocks apart, not
/// before; one that is only published comes at once or never.
#[derive(Debug)]
pub struct Matcher {
    window: i64,
    /// Shown from Redis, not met in a log yet.
    shown: Pool,
    /// All that Redis ever showed of the run is, or was, in `shown`.
    is_complete: bool,
    /// Redis showed something.
    has_shown: bool,
    /// Shown from logs, not met in Redis yet.
    awaited: Pool,
    /// Some of them were forgotten.
    has_forgotten: bool,
    progress: HashMap<u64, Progress>,
}

impl Matcher {
    /// Makes one that remembers at most `entries_max` of each side. Clocks may
    /// be `window` microseconds apart, and so may line and event of a
    /// publisher that keeps up.
    pub fn new(window: i64, entries_max: usize) -> Self {
        Self {
            window,
            shown: Pool::new(entries_max),
            is_complete: true,
            has_shown: false,
            awaited: Pool::new(entries_max),
            has_forgotten: false,
            progress: HashMap::new(),
        }
    }

    /// Forgets what was shown from Redis, to be told it anew; what is awaited
    /// stays.
    pub fn begin_join(&mut self) {
        self.shown.clear();
        (self.is_complete, self.has_shown) = (true, false);
    }

    /// Forgets all.
    pub fn forget(&mut self) {
        self.begin_join();
        self.awaited.clear();
        self.has_forgotten = false;
        self.progress.clear();
    }

    /// Notes that more was shown from Redis than is remembered.
    pub fn set_incomplete(&mut self) {
        self.is_complete = false;
    }

    /// Whether all that Redis showed is remembered.
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Remembers what clients were shown before.
    pub fn remember(&mut self, entry: Entry) {
        self.has_shown = true;
        self.is_complete &= !self.shown.push(entry);
    }

    /// Time of the oldest that is remembered.
    pub fn oldest_shown(&self) -> Option<i64> {
        self.shown.iter().map(|entry| entry.ts).min()
    }

    /// Whether Redis showed nothing.
    pub fn has_shown_nothing(&self) -> bool {
        !self.has_shown
    }

    /// A line came: whether it was shown before.
    ///
    /// Where all is remembered, equal lines are met in their order, so that
    /// their count comes out; else the one nearest in time is.
    pub fn meets_shown(&mut self, line: &Line) -> Option<Met> {
        let next_no = self.shown.next_no();
        let (window, is_complete) = (self.window, self.is_complete);
        let (no, entry) = self.shown.take(line.content, |no, entry| {
            let apart = entry.ts - line.ts;
            match entry.origin {
                Origin::Line => (apart.abs() <= LINE_TIME_STEP).then_some(0),
                Origin::Durable if apart < -window => None,
                Origin::Plain if apart.abs() > window => None,
                _ if is_complete => Some(no + 1),
                _ => Some(apart.unsigned_abs() + 1),
            }
        })?;
        if entry.origin != Origin::Line {
            self.note_progress(line.container, line.ts, entry.ts);
        }
        Some(Met {
            newer: next_no - 1 - no,
            is_late: entry.origin == Origin::Durable && entry.ts - line.ts > window,
        })
    }

    /// A line was shown: it is awaited from Redis.
    pub fn await_line(&mut self, line: &Line) {
        self.has_forgotten |= self.awaited.push(Entry {
            content: line.content,
            ts: line.ts,
            origin: Origin::Line,
            kind: line.kind,
            container: line.container,
        });
    }

    /// An event of Redis came: the kind its line was shown as, if it was.
    pub fn meets_awaited(&mut self, event: &RedisEvent) -> Option<EventKind> {
        let window = self.window;
        // The first one that fits, where many may be alike.
        let (_, line) = match event.is_durable {
            true => self
                .awaited
                .take_first(event.content, |line| event.ts - line.ts >= -window)?,
            false => self.awaited.take(event.content, |_, line| {
                let apart = event.ts - line.ts;
                (apart.abs() <= window).then_some(apart.unsigned_abs())
            })?,
        };
        self.note_progress(line.container, line.ts, event.ts);
        Some(line.kind)
    }

    fn note_progress(&mut self, container: u64, line_ts: i64, event_ts: i64) {
        let progress = self.progress.entry(container).or_insert(Progress {
            ts: line_ts,
            fresh_ts: None,
        });
        progress.ts = progress.ts.max(line_ts);
        if event_ts - line_ts <= self.window {
            progress.fresh_ts = progress.fresh_ts.max(Some(event_ts));
        }
    }

    /// Whether an event no older than `ts` was met that was published as soon
    /// as it was printed: its publisher has caught up.
    pub fn is_fresh_since(&self, ts: i64) -> bool {
        let mut all = self.progress.values();
        all.any(|progress| progress.is_fresh_since(ts))
    }

    /// How many lines Redis has not shown yet.
    pub fn awaited(&self) -> usize {
        self.awaited.len()
    }

    /// Whether lines were forgotten before they were met.
    pub fn has_forgotten(&self) -> bool {
        self.has_forgotten
    }

    /// Whether a line of `container` printed at `ts` was passed by its
    /// publisher: one printed well after it was met already.
    pub fn is_passed(&self, container: u64, ts: i64) -> bool {
        let progress = self.progress.get(&container);
        progress.is_some_and(|progress| ts < progress.ts - self.window)
    }

    /// Stops to await lines that were printed and never published: those their
    /// publisher has passed; old ones, if it keeps up, as an event since `back`
    /// shows, when Redis was back; and, where `is_plain`, all old ones, since what
    /// is only published never comes late.
    pub fn settle(&mut self, now: i64, back: i64, is_plain: bool) {
        let old = now - 2 * self.window;
        let (progress, window) = (&self.progress, self.window);
        self.awaited.retain(|line| {
            let known = progress.get(&line.container);
            let is_passed = known.is_some_and(|known| line.ts < known.ts - window);
            let keeps_up = known.is_some_and(|known| known.is_fresh_since(back));
            !(is_passed || line.ts < old && (keeps_up || is_plain))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn line(text: &str, ts: i64) -> Line {
        Line {
            content: Content::of(text.as_bytes()),
            ts,
            kind: EventKind::Output,
            container: 1,
        }
    }

    fn event(text: &str, ts: i64) -> RedisEvent {
        RedisEvent {
            content: Content::of(text.as_bytes()),
            ts,
            is_durable: true,
        }
    }

    fn shown(text: &str, ts: i64, origin: Origin) -> Entry {
        Entry {
            content: Content::of(text.as_bytes()),
            ts,
            origin,
            kind: EventKind::Output,
            container: 0,
        }
    }

    fn matcher() -> Matcher {
        Matcher::new(5 * SECOND, 100)
    }

    #[test]
    fn equal_lines_are_counted() {
        let mut matcher = matcher();
        // 70 of 100 were published, the first 30 s late.
        for tick in 0..70 {
            matcher.remember(shown("tick", (tick + 30) * SECOND, Origin::Durable));
        }
        let new =
            (0..100).filter(|tick| matcher.meets_shown(&line("tick", tick * SECOND)).is_none());
        assert_eq!(new.collect::<Vec<_>>(), (70..100).collect::<Vec<_>>());
    }

    #[test]
    fn where_the_beginning_is_forgotten_the_nearest_is_met() {
        let mut matcher = matcher();
        matcher.set_incomplete();
        for tick in 50..70 {
            matcher.remember(shown("tick", tick * SECOND + 3_000, Origin::Durable));
        }
        let new =
            (50..75).filter(|tick| matcher.meets_shown(&line("tick", tick * SECOND)).is_none());
        assert_eq!(new.collect::<Vec<_>>(), (70..75).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_only_published_comes_at_once_or_never() {
        let mut matcher = matcher();
        matcher.await_line(&line("tick", 0));
        let plain = |ts| RedisEvent {
            is_durable: false,
            ..event("tick", ts)
        };
        assert_eq!(matcher.meets_awaited(&plain(6 * SECOND)), None);
        assert!(matcher.meets_awaited(&plain(4 * SECOND)).is_some());
        assert_eq!(matcher.meets_awaited(&plain(4 * SECOND)), None);
        matcher.await_line(&line("lost", 0));
        matcher.settle(9 * SECOND, 0, true);
        assert_eq!(matcher.awaited(), 1);
        matcher.settle(11 * SECOND, 0, true);
        assert_eq!(matcher.awaited(), 0);
    }

    #[test]
    fn what_was_kept_while_redis_was_away_is_met_minutes_later() {
        let mut matcher = matcher();
        for second in 0..30 {
            matcher.await_line(&line(&format!("step {second}"), second * SECOND));
        }
        for second in 0..30 {
            let late = event(&format!("step {second}"), (second + 300) * SECOND);
            assert!(matcher.meets_awaited(&late).is_some());
        }
        assert_eq!(matcher.awaited(), 0);
        assert!(!matcher.is_fresh_since(0));
        // Not before it was printed.
        matcher.await_line(&line("soon", 100 * SECOND));
        assert_eq!(matcher.meets_awaited(&event("soon", 90 * SECOND)), None);
    }

    #[test]
    fn lines_that_are_never_published_are_given_up_when_their_publisher_passed_them() {
        let mut matcher = matcher();
        matcher.await_line(&line("only printed", 0));
        matcher.await_line(&line("printed and published", 10 * SECOND));
        matcher.settle(100 * SECOND, 50 * SECOND, false);
        assert_eq!(matcher.awaited(), 2, "nothing is known of the publisher");
        let late = event("printed and published", 100 * SECOND);
        assert!(matcher.meets_awaited(&late).is_some());
        assert!(matcher.is_passed(1, 0) && !matcher.is_passed(2, 0));
        matcher.settle(100 * SECOND, 50 * SECOND, false);
        assert_eq!(matcher.awaited(), 0);
        // One that keeps up has published all that is old.
        assert!(matcher.meets_awaited(&event("x", 0)).is_none());
        matcher.await_line(&line("fresh", 200 * SECOND));
        matcher.await_line(&line("only printed", 201 * SECOND));
        assert!(
            matcher
                .meets_awaited(&event("fresh", 200 * SECOND))
                .is_some()
        );
        assert!(matcher.is_fresh_since(200 * SECOND));
        matcher.settle(210 * SECOND, 150 * SECOND, false);
        assert_eq!(matcher.awaited(), 1);
        matcher.settle(212 * SECOND, 150 * SECOND, false);
        assert_eq!(matcher.awaited(), 0);
    }

    #[test]
    fn who_kept_up_before_redis_went_may_lag_when_it_is_back() {
        let mut matcher = matcher();
        matcher.remember(shown("early", 0, Origin::Durable));
        assert!(matcher.meets_shown(&line("early", 0)).is_some());
        matcher.await_line(&line("kept for later", 2 * SECOND));
        matcher.settle(60 * SECOND, 30 * SECOND, false);
        assert_eq!(matcher.awaited(), 1);
        let late = event("kept for later", 61 * SECOND);
        assert!(matcher.meets_awaited(&late).is_some());
    }

    #[test]
    fn lines_shown_before_are_met_by_their_own_time() {
        let mut matcher = matcher();
        matcher.remember(shown("tick", SECOND + 123_000, Origin::Line));
        assert!(matcher.meets_shown(&line("tick", 2 * SECOND)).is_none());
        assert!(
            matcher
                .meets_shown(&line("tick", SECOND + 123_456))
                .is_some()
        );
    }

    #[test]
    fn what_is_over_the_bound_is_forgotten_and_known_to_be() {
        let mut matcher = Matcher::new(SECOND, 10);
        let met = |newer| Met {
            newer,
            is_late: false,
        };
        for n in 0..11 {
            matcher.remember(shown(&n.to_string(), n, Origin::Durable));
        }
        assert!(!matcher.is_complete() && matcher.meets_shown(&line("0", 0)).is_none());
        assert_eq!(matcher.meets_shown(&line("10", 10)), Some(met(0)));
        assert_eq!(matcher.meets_shown(&line("1", 1)), Some(met(9)));
        for n in 0..11 {
            matcher.await_line(&line(&n.to_string(), n));
        }
        assert!(matcher.has_forgotten() && matcher.awaited() == 10);
    }
}
