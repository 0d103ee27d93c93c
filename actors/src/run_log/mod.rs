//! [`RunLog`]: the ring of a run's newest segments, and where a client joins
//! it. Pure; the hub keeps one, and each worker one of the runs it serves.

mod dropped;
mod index;
mod join;

use std::collections::VecDeque;

pub use dropped::Dropped;
pub use join::{HubIdentity, Join, Joining};

use crate::protocol::Place;
use crate::sse::{Branch, LogEnd, Segment};

/// A place in a log: the next frame to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPosition {
    /// Number of the segment.
    pub segment_no: u64,
    /// Index of the frame in it.
    pub frame: u32,
}

impl LogPosition {
    /// The place before the first frame of segment `segment_no`.
    pub fn at_segment(segment_no: u64) -> Self {
        Self {
            segment_no,
            frame: 0,
        }
    }
}

/// The newest segments of a run, bounded by bytes and events, oldest out.
/// At least one segment stays, however large.
#[derive(Debug, Clone)]
pub struct RunLog {
    segments: VecDeque<Segment>,
    /// Number of the segment that comes next.
    end_no: u64,
    /// How many events of the run lie before that one.
    events_through: u64,
    /// The stream's place there, and how many loose frames lie before it.
    durable_through: Option<Place>,
    loose_through: u64,
    /// The newest branch.
    branch: Branch,
    bytes: usize,
    bytes_max: usize,
    events_max: u64,
    dropped: Dropped,
}

/// Where a log stands before its first segment.
#[derive(Debug, Clone, Copy)]
pub struct LogStart {
    /// Number of the first segment.
    pub segment_no: u64,
    /// Events of the run before it.
    pub events: u64,
    /// Loose frames before it.
    pub loose: u64,
    /// The stream's place before it.
    pub durable: Option<Place>,
    /// The newest branch that began at or before it.
    pub branch: Branch,
    /// What is remembered of the frames before it.
    pub dropped: Dropped,
}

impl Default for LogStart {
    fn default() -> Self {
        Self {
            segment_no: 0,
            events: 0,
            loose: 0,
            durable: None,
            branch: FIRST_BRANCH,
            dropped: Dropped::default(),
        }
    }
}

const FIRST_BRANCH: Branch = Branch {
    segment_no: 0,
    skipped_frames: 0,
    base: None,
};

impl RunLog {
    /// Makes an empty log that keeps at most `bytes_max` bytes and, but for
    /// whole segments, `events_max` events.
    pub fn new(bytes_max: usize, events_max: u64) -> Self {
        Self {
            segments: VecDeque::new(),
            end_no: 0,
            events_through: 0,
            durable_through: None,
            loose_through: 0,
            branch: FIRST_BRANCH,
            bytes: 0,
            bytes_max,
            events_max,
            dropped: Dropped::default(),
        }
    }

    /// Appends the next segment. One that does not follow on (segments were
    /// missed) empties the log first: a log has no holes.
    pub fn push(&mut self, segment: Segment) {
        self.push_untrimmed(segment);
        self.trim_before(self.end_no);
    }

    /// Appends the next segment and keeps all others, over the bounds if need
    /// be, until [`RunLog::trim_before`].
    pub fn push_untrimmed(&mut self, segment: Segment) {
        if segment.no() != self.end_no {
            self.clear();
            if segment.loose_before() > self.loose_through {
                self.dropped.add_loose(
                    segment.loose_before(),
                    segment.events_before(),
                    segment.durable_before(),
                );
            }
        }
        if let Some(branch) = segment.branch() {
            self.branch = *branch;
        }
        self.end_no = segment.no() + 1;
        self.events_through = segment.events_through();
        self.durable_through = segment.durable_through();
        self.loose_through = segment.loose_through();
        self.bytes += segment.weight();
        self.segments.push_back(segment);
    }

    /// Drops the oldest segments until the log is inside its bounds, but none
    /// from `no` on.
    pub fn trim_before(&mut self, no: u64) {
        while self.front_no() < no && self.is_over() && self.pop_front() {}
    }

    /// Bytes of the segments from `no` on.
    pub fn bytes_from(&self, no: u64) -> usize {
        let from = self.segments.iter().rev();
        from.take_while(|segment| segment.no() >= no)
            .map(Segment::weight)
            .sum()
    }

    /// The bound in bytes.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    fn is_over(&self) -> bool {
        let (Some(first), Some(second), Some(last)) = (
            self.segments.front(),
            self.segments.get(1),
            self.segments.back(),
        ) else {
            return false;
        };
        debug_assert!(first.no() < last.no());
        // Whole segments go, and only if what stays still has `events_max`.
        self.bytes > self.bytes_max
            || last.events_through() - second.events_before() >= self.events_max
    }

    /// Drops the oldest segment; `false` if that would leave none.
    pub fn pop_front(&mut self) -> bool {
        if self.segments.len() <= 1 {
            return false;
        }
        if let Some(segment) = self.segments.pop_front() {
            self.bytes -= segment.weight();
            self.dropped.add(&segment);
        }
        true
    }

    /// Drops all segments; the next one follows on `start`.
    pub fn reset(&mut self, start: LogStart) {
        self.clear();
        self.end_no = start.segment_no;
        self.events_through = start.events;
        self.loose_through = start.loose;
        self.durable_through = start.durable;
        self.branch = start.branch;
        self.dropped = start.dropped;
    }

    /// Where the log stands before its first segment.
    pub fn start_state(&self) -> LogStart {
        let front = self.segments.front();
        LogStart {
            segment_no: self.front_no(),
            events: front.map_or(self.events_through, Segment::events_before),
            loose: front.map_or(self.loose_through, Segment::loose_before),
            durable: front.map_or(self.durable_through, Segment::durable_before),
            // A later one is told by its own segment.
            branch: self.branch,
            dropped: self.dropped,
        }
    }

    /// Where it ends, for segments that follow on it.
    pub fn end_state(&self) -> LogEnd {
        LogEnd {
            segment_no: self.end_no,
            events: self.events_through,
            loose: self.loose_through,
            durable: self.durable_through,
        }
    }

    /// Notes where the stream stands, before the log has a durable event.
    pub fn set_base(&mut self, base: Option<Place>) {
        self.branch.base = base;
        if self.segments.is_empty() {
            self.durable_through = base;
        }
    }

    /// Drops all segments because the stream's place after them is known now;
    /// who comes back from before it may have missed loose ones.
    pub fn forget_before_base(&mut self, base: Option<Place>) {
        let had_loose = self.loose_through > 0;
        self.clear();
        if had_loose {
            let (loose, events) = (self.loose_through, self.events_through);
            self.dropped.add_loose(loose, events, base);
        }
    }

    /// Drops all segments; numbering goes on.
    pub fn clear(&mut self) {
        for segment in self.segments.drain(..) {
            self.dropped.add(&segment);
        }
        self.bytes = 0;
    }

    /// What is remembered of the frames dropped.
    pub fn dropped(&self) -> Dropped {
        self.dropped
    }

    /// Bytes of all segments kept, their overhead included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Number of the oldest segment kept; that of the next one if none is.
    pub fn front_no(&self) -> u64 {
        self.segments.front().map_or(self.end_no, Segment::no)
    }

    /// Number of the segment that comes next.
    pub fn end_no(&self) -> u64 {
        self.end_no
    }

    /// How many events of the run lie before the place after the last frame.
    pub fn events_through(&self) -> u64 {
        self.events_through
    }

    /// The place after the last frame.
    pub fn end(&self) -> LogPosition {
        LogPosition::at_segment(self.end_no)
    }

    /// Returns segment `no`, if it is kept.
    pub fn segment(&self, no: u64) -> Option<&Segment> {
        let index = no.checked_sub(self.front_no())?;
        self.segments.get(usize::try_from(index).ok()?)
    }

    /// The segments kept, oldest first.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &Segment> {
        self.segments.iter()
    }

    /// Returns how many events of the run lie before `position`, which must
    /// not lie before what is kept.
    pub fn events_before(&self, position: LogPosition) -> u64 {
        match self.segment(position.segment_no) {
            Some(segment) => segment.events_before_frame(position.frame as usize),
            None => self.events_through,
        }
    }

    /// How many loose frames of the run lie before the place after the last
    /// frame.
    pub fn loose_through(&self) -> u64 {
        self.loose_through
    }

    /// Returns how many loose frames of the run lie before `position`, which
    /// must not lie before what is kept.
    pub fn loose_before(&self, position: LogPosition) -> u64 {
        match self.segment(position.segment_no) {
            Some(segment) => segment.loose_before_frame(position.frame as usize),
            None => self.loose_through,
        }
    }

    /// Returns the id of the last frame from `start` on and before `position`
    /// that has one.
    pub fn id_between(&self, start: LogPosition, position: LogPosition) -> Option<&str> {
        let is_after = |(segment, index): &(&Segment, usize)| {
            (segment.no(), *index) >= (start.segment_no, start.frame as usize)
        };
        let last = self.segment(position.segment_no);
        let in_last = last.into_iter().flat_map(|segment| {
            (0..position.frame as usize)
                .rev()
                .map(move |index| (segment, index))
        });
        let before = self
            .segments
            .iter()
            .rev()
            .filter(|segment| segment.no() < position.segment_no)
            .flat_map(|segment| (0..segment.frames().len()).rev().map(move |i| (segment, i)));
        in_last
            .chain(before)
            .take_while(is_after)
            .find_map(|(segment, index)| segment.id_of(index))
    }

    /// Returns the id of the first frame at or after `position` that has one.
    pub fn id_after(&self, position: LogPosition) -> Option<&str> {
        self.frames_from(position)
            .find_map(|(segment, index)| segment.id_of(index))
    }

    fn frames_from(&self, position: LogPosition) -> impl Iterator<Item = (&Segment, usize)> {
        let skip = position.segment_no.saturating_sub(self.front_no());
        self.segments
            .iter()
            .skip(usize::try_from(skip).unwrap_or(usize::MAX))
            .flat_map(move |segment| {
                let first = match segment.no() == position.segment_no {
                    true => position.frame as usize,
                    false => 0,
                };
                (first..segment.frames().len()).map(move |index| (segment, index))
            })
    }

    /// The place before the oldest frame kept.
    pub fn front(&self) -> LogPosition {
        LogPosition::at_segment(self.front_no())
    }
}
