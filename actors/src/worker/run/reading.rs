//! What bodies read of a [`WorkerRun`]: the next bytes after a client's place.

use bytes::Bytes;
use tracing::{debug, warn};

use super::WorkerRun;
use crate::order::LogIndex as _;
use crate::protocol::{BackendKind, Gap, GapReason};
use crate::run_log::{LogPosition, RunLog};
use crate::session::{CloseReason, NextPage, Seat, SeatState, Way};
use crate::sse::{FrameClass, Piece, Segment, gap_frame};

/// What a body finds in the log.
pub(crate) enum LogChunk {
    /// The next frames.
    Piece(Piece),
    /// Its place is not kept any more, and it can come back this way.
    Behind(Way),
}

/// What a body finds in its pages.
pub(crate) enum PageChunk {
    /// The next frames.
    Piece(Piece),
    /// All were sent: its session is to be told.
    Sent,
    /// All were sent, or there were none. It may have its place in the log.
    None,
}

impl WorkerRun {
    /// Returns the next frames for `seat` and moves it on; `None` when it has
    /// all there is.
    pub(crate) fn next_chunk(&self, seat: &Seat) -> Option<LogChunk> {
        self.note_polled(seat);
        let log = self.log.borrow();
        loop {
            let position = seat.position.get();
            if position.segment_no >= self.flushed_no.get() {
                return None;
            }
            let Some(segment) = log.segment(position.segment_no) else {
                return Some(self.fallen_behind(seat, &log));
            };
            if let Some(piece) = self.passing_frames(seat, segment, position) {
                return Some(LogChunk::Piece(piece));
            }
        }
    }

    /// Returns the next frames of the pages that `seat` was given.
    pub(crate) fn next_page_chunk(&self, seat: &Seat) -> PageChunk {
        self.note_polled(seat);
        loop {
            match seat.next_page() {
                NextPage::Segment(segment) => {
                    let piece = self.passing_frames(seat, &segment, seat.position.get());
                    if let Some(piece) = piece {
                        return PageChunk::Piece(piece);
                    }
                }
                NextPage::Log(position) => {
                    self.take_place(seat, position);
                    return PageChunk::None;
                }
                NextPage::Sent => return PageChunk::Sent,
                NextPage::None => return PageChunk::None,
            }
        }
    }

    fn note_polled(&self, seat: &Seat) {
        if let Some(worker) = self.worker.upgrade() {
            seat.polled_tick.set(worker.tick());
        }
    }

    /// Returns the next frames of `segment` that pass the filter, in one piece,
    /// and moves the seat behind them; `None` if none is left in it.
    fn passing_frames(
        &self,
        seat: &Seat,
        segment: &Segment,
        position: LogPosition,
    ) -> Option<Piece> {
        if seat.filter.borrow().is_resuming() {
            return self
                .resumed_frames(seat, segment, position)
                .map(Piece::Part);
        }
        let filter = seat.filter.borrow();
        let count = segment.frames().len();
        let mut first = position.frame as usize;
        let mut hidden = None;
        let mut last = count;
        if !filter.passes_all(segment) {
            while first < count && !filter.passes(segment, first) {
                hidden = Some(first);
                first += 1;
            }
            last = first;
            while last < count && filter.passes(segment, last) {
                last += 1;
            }
        }
        let next = match last == count {
            true => LogPosition::at_segment(position.segment_no + 1),
            false => LogPosition {
                frame: last as u32,
                ..position
            },
        };
        seat.position.set(next);
        let events = match last == count {
            true => segment.events_through(),
            false => segment.events_before_frame(last),
        };
        let passed = events.saturating_sub(seat.events_seen.replace(events));
        seat.loose_seen.set(match last == count {
            true => segment.loose_through(),
            false => segment.loose_before_frame(last),
        });
        if first >= last {
            let id = hidden.and_then(|index| segment.id_of(index));
            seat.note_hidden(id.map(|id| Bytes::copy_from_slice(id.as_bytes())));
            return None;
        }
        seat.note_sent(segment, last - 1);
        if segment.classes().meets(FrameClass::END) {
            seat.state.set(SeatState::Closing(CloseReason::End));
        }
        let piece = segment.piece(first..last);
        let bytes = piece.bytes().len();
        self.counters
            .delivered(passed, bytes, || segment.received_at().elapsed());
        self.note_handed(segment);
        Some(piece)
    }

    /// Returns what of the rest of `segment` a client has not seen that resumes
    /// a kubectl stream whose logs are read again, with ids of its own, and
    /// moves the seat behind it. Once it has caught up it reads like the others.
    fn resumed_frames(
        &self,
        seat: &Seat,
        segment: &Segment,
        position: LogPosition,
    ) -> Option<Bytes> {
        let mut chunk = Vec::new();
        let mut hidden = None;
        let mut sent = None;
        let mut caught_up = false;
        let mut filter = seat.filter.borrow_mut();
        for index in position.frame as usize..segment.frames().len() {
            let id = filter.resumed_id(segment, index);
            caught_up = id.as_ref().map_or(caught_up, |(_, caught_up)| *caught_up);
            if !filter.passes(segment, index) {
                hidden = id.map(|(id, _)| Bytes::from(id));
                continue;
            }
            let frame = segment.slice(index..index + 1);
            match (id, segment.id_of(index)) {
                (Some((id, _)), Some(old)) => {
                    // `id` is the frame's last line; two line feeds follow.
                    chunk.extend_from_slice(&frame[..frame.len() - old.len() - 2]);
                    chunk.extend_from_slice(id.as_bytes());
                    chunk.extend_from_slice(b"\n\n");
                }
                _ => chunk.extend_from_slice(&frame),
            }
            (sent, hidden) = (Some(index), None);
        }
        if caught_up {
            filter.set_covered(None);
        }
        seat.position
            .set(LogPosition::at_segment(position.segment_no + 1));
        let events = segment.events_through();
        let passed = events.saturating_sub(seat.events_seen.replace(events));
        if let Some(last) = sent {
            seat.note_sent(segment, last);
        }
        seat.note_hidden(hidden);
        sent?;
        if segment.classes().meets(FrameClass::END) {
            seat.state.set(SeatState::Closing(CloseReason::End));
        }
        self.counters
            .delivered(passed, chunk.len(), || segment.received_at().elapsed());
        Some(Bytes::from(chunk))
    }

    /// The seat's place is not kept any more. Where a store is behind the log
    /// the client reads on there; else it is told the gap and goes to the
    /// oldest segment that is.
    fn fallen_behind(&self, seat: &Seat, log: &RunLog) -> LogChunk {
        let reason = match seat.position.get().segment_no < self.overflowed_no.get() {
            true => GapReason::Overflow,
            false => GapReason::SlowClient,
        };
        let seen = seat.events_seen.get();
        let is_known = !log.dropped().hides_gap_after(seen);
        if self.backend != BackendKind::Kubectl {
            let loose = log.loose_dropped().saturating_sub(seat.loose_seen.get());
            let gap = (loose > 0).then(|| (reason, is_known.then_some(loose)));
            debug!(run_id = %self.run_id, session_id = %seat.id, reason = reason.as_str(), "client fell off the ring");
            return LogChunk::Behind(Way::Back {
                from: seat.seen(),
                gap,
                loose_seen: Some(log.loose_dropped()),
            });
        }
        let front = log.front();
        let events = log.events_before(front);
        let gap = Gap {
            after: seat.last_id(),
            before: log.id_after(front).map(str::to_owned),
            missed: is_known.then(|| events.saturating_sub(seen)),
            reason,
        };
        seat.position.set(front);
        seat.events_seen.set(events);
        seat.note_hidden(None);
        self.worker().shared.metrics.gaps.of(reason).inc();
        warn!(
            run_id = %self.run_id,
            session_id = %seat.id,
            reason = reason.as_str(),
            dropped = gap.missed,
            "client fell off the ring"
        );
        LogChunk::Piece(Piece::Part(Bytes::from(gap_frame(&gap))))
    }
}
