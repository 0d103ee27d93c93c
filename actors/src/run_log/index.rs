//! A [`RunLog`] as the order reads it: by durable ids.

use super::join::after_frame;
use super::{LogPosition, RunLog};
use crate::order::{KnownIds, LogIndex};
use crate::protocol::{DurableId, EventId, Place};
use crate::sse::{FrameClass, Segment};

/// Room for the id of a durable event.
const DURABLE_ID_BYTES: usize = 62;

impl LogIndex for RunLog {
    type Position = LogPosition;

    fn base(&self) -> Option<Place> {
        // Of what was written before the base was known, only the branch has it.
        match self.segments.front() {
            Some(front) if front.no() > self.branch.segment_no => {
                front.durable_before().or(self.branch.base)
            }
            None if self.end_no > self.branch.segment_no => {
                self.durable_through.or(self.branch.base)
            }
            _ => self.branch.base,
        }
    }

    fn start(&self) -> LogPosition {
        match self.branch.segment_no >= self.front_no() {
            true => LogPosition {
                segment_no: self.branch.segment_no,
                frame: self.branch.skipped_frames,
            },
            false => self.front(),
        }
    }

    fn end(&self) -> LogPosition {
        RunLog::end(self)
    }

    fn after(&self, id: DurableId) -> Option<LogPosition> {
        let mut text = Vec::with_capacity(DURABLE_ID_BYTES);
        EventId::Durable(id).append_to(&mut text);
        let in_segment = |segment: &Segment| {
            let mut frames = 0..segment.frames().len();
            let index = frames.find(|index| segment.id_bytes_of(*index) == text)?;
            Some(after_frame(segment, index))
        };
        let newest = self.segment_with(id.epoch, id.seq);
        let newest = newest.and_then(|segment| in_segment(segment).or(passed(segment, id.seq)));
        let is_of_epoch = |place: Place| place.epoch == id.epoch;
        newest.or_else(|| {
            // Older branches of the epoch: few clients come from there. Who
            // comes from an older epoch is told that it expired.
            let older = self.durable_through.is_some_and(is_of_epoch);
            let older = older.then(|| self.segments.iter().rev())?;
            older
                .skip_while(|segment| segment.no() >= self.branch.segment_no)
                .find_map(in_segment)
        })
    }

    fn loose_dropped(&self) -> u64 {
        let front = self.segments.front();
        front.map_or(self.loose_through, Segment::loose_before)
    }

    fn loose_before(&self, position: LogPosition) -> u64 {
        RunLog::loose_before(self, position)
    }

    fn loose_missed(&self, seen: u64, position: LogPosition) -> Option<u64> {
        // Seldom asked, so that gaps still kept need no bookkeeping of their own.
        let passed = self.segments.iter();
        let passed = passed.take_while(|segment| segment.no() <= position.segment_no);
        let mut passed = passed.filter(|segment| segment.loose_through() > seen);
        let hides_gap = self.dropped.hides_gap_after_loose(seen)
            || passed.any(|segment| has_loose_control(segment, seen, position));
        let missed = RunLog::loose_before(self, position).saturating_sub(seen);
        (!hides_gap).then_some(missed)
    }

    fn dropped_loose_after(&self, id: DurableId) -> bool {
        self.dropped.has_loose_after(id)
    }
}

/// Whether `segment` has a loose frame that is no event (a gap that hides how many
/// are missing) after `seen` of them and before `position`.
fn has_loose_control(segment: &Segment, seen: u64, position: LogPosition) -> bool {
    let frames = match segment.no() == position.segment_no {
        true => position.frame as usize,
        false => segment.frames().len(),
    };
    let loose = (0..frames).filter(|index| segment.is_loose(*index));
    let unseen = loose.skip(seen.saturating_sub(segment.loose_before()) as usize);
    unseen
        .map(|index| segment.frames()[index].class())
        .any(|class| class == FrameClass::CONTROL)
}

impl RunLog {
    /// The segment of the newest branch that holds durable event number `seq`,
    /// if any does.
    fn segment_with(&self, epoch: u64, seq: u64) -> Option<&Segment> {
        let at = self.segments.partition_point(|segment| {
            segment.no() < self.branch.segment_no
                || segment
                    .durable_through()
                    .is_none_or(|place| place.seq < seq)
        });
        let segment = self.segments.get(at)?;
        (segment.durable_through()?.epoch == epoch).then_some(segment)
    }
}

impl KnownIds for RunLog {
    fn us_of(&self, epoch: u64, seq: u64) -> Option<u64> {
        let segment = self.segment_with(epoch, seq)?;
        (0..segment.frames().len()).find_map(|index| match segment.id_of(index)?.parse() {
            Ok(EventId::Durable(id)) if id.seq == seq => Some(id.us),
            _ => None,
        })
    }

    fn oldest_seq(&self) -> Option<u64> {
        let base = self.base().map_or(0, |base| base.seq);
        let newest = self.durable_through.and_then(Place::id)?;
        (newest.seq > base).then_some(base + 1)
    }
}

/// The place after event number `seq`, if `segment` covers it and has no frame
/// for it: it was too large, and told by a gap.
fn passed(segment: &Segment, seq: u64) -> Option<LogPosition> {
    segment.durable_before().filter(|before| before.seq < seq)?;
    let mut position = LogPosition::at_segment(segment.no());
    for index in 0..segment.frames().len() {
        match segment.id_of(index).map(str::parse) {
            Some(Ok(EventId::Durable(id))) if id.seq == seq => return None,
            Some(Ok(EventId::Durable(id))) if id.seq > seq => return Some(position),
            Some(Ok(EventId::Durable(_))) => position = after_frame(segment, index),
            _ => {}
        }
    }
    Some(LogPosition::at_segment(segment.no() + 1))
}
