//! [`Dropped`]: what a log remembers of the frames it no longer has.

use crate::protocol::{DurableId, EventId, Place};
use crate::sse::{FrameClass, Segment};

/// What a client may have missed among the frames a log has dropped, apart
/// from what it can count, or read from the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Events of the run before the newest gap dropped. How many are missing
    /// in that gap is not known here.
    gap_after: Option<u64>,
    /// Loose frames before that gap.
    gap_loose: Option<u64>,
    /// The stream's place at the newest loose frame dropped.
    loose_at: Option<Place>,
}

impl Dropped {
    /// Adds the frames of a segment.
    pub(crate) fn add(&mut self, segment: &Segment) {
        if segment.loose_before() == segment.loose_through() {
            return;
        }
        let mut events = segment.events_before();
        let mut loose = segment.loose_before();
        let mut place = segment.durable_before();
        for (index, frame) in segment.frames().iter().enumerate() {
            if frame.class() == FrameClass::CONTROL {
                self.gap_after = Some(events);
                self.gap_loose = Some(loose);
            }
            if segment.is_loose(index) {
                self.loose_at = place;
                loose += 1;
            } else if let Some(Ok(EventId::Durable(id))) = segment.id_of(index).map(str::parse) {
                place = Some(id.into());
            }
            events += u64::from(frame.class().is_event());
        }
    }

    /// Adds loose frames of which nothing is known but that the last of them,
    /// number `loose` of the log, came before the first `events` of the run
    /// ended, and before this place.
    pub(crate) fn add_loose(&mut self, loose: u64, events: u64, place: Option<Place>) {
        self.gap_after = Some(events);
        self.gap_loose = loose.checked_sub(1);
        self.loose_at = place;
    }

    /// Whether a client that has seen the first `events` of the run may have
    /// missed a gap.
    pub(crate) fn hides_gap_after(self, events: u64) -> bool {
        self.gap_after.is_some_and(|gap| events <= gap)
    }

    /// The same of a client that has seen, or does not miss, the first `loose`
    /// loose frames.
    pub(crate) fn hides_gap_after_loose(self, loose: u64) -> bool {
        self.gap_loose.is_some_and(|gap| loose <= gap)
    }

    /// Whether a loose frame was dropped that came after `id`.
    pub(crate) fn has_loose_after(self, id: DurableId) -> bool {
        self.loose_at
            .is_some_and(|place| (place.epoch, place.seq) >= (id.epoch, id.seq))
    }
}
