//! [`Dropped`]: what a log remembers of the frames it no longer has.

use crate::sse::{FrameClass, Segment};

/// What a client may have missed among the frames a log has dropped, apart
/// from the events that it can count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Events of the run before the newest gap dropped. How many are missing
    /// in that gap is not known here.
    gap_after: Option<u64>,
    /// An event without a durable id was dropped.
    has_plain: bool,
}

impl Dropped {
    /// Adds the frames of a segment.
    pub(crate) fn add(&mut self, segment: &Segment) {
        let mut events = segment.events_before();
        for (index, frame) in segment.frames().iter().enumerate() {
            if frame.class().is_event() {
                events += 1;
                self.has_plain =
                    self.has_plain || segment.id_of(index).is_some_and(|id| id.starts_with('~'));
            } else if frame.class() != FrameClass::END {
                self.gap_after = Some(events);
            }
        }
    }

    /// Adds a gap after the first `events` of the run.
    pub(crate) fn add_gap(&mut self, events: u64) {
        self.gap_after = Some(events);
    }

    /// Whether a client that has seen the first `events` of the run may have
    /// missed a gap.
    pub(crate) fn hides_gap_after(self, events: u64) -> bool {
        self.gap_after.is_some_and(|gap| events <= gap)
    }

    /// Whether durable ids tell all that was dropped.
    pub(crate) fn is_durable(self) -> bool {
        self.gap_after.is_none() && !self.has_plain
    }
}
