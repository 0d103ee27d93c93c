//! Where a client joins a [`RunLog`]: its cursor's place, or what is told.

use super::{LogPosition, RunLog};
use crate::broker::StreamStart;
use crate::order::{JoinFrom, Joiner, LogIndex as _, Safeguards};
use crate::protocol::{
    BackendKind, Cursor, DurableId, EventId, Gap, GapReason, HubId, KubectlPosition, PlainId,
};
use crate::sse::{FrameClass, Segment};
use crate::stream_filter::FrameFilter;

/// Whose log it is.
#[derive(Debug, Clone, Copy)]
pub struct HubIdentity {
    /// The hub that numbers plain events.
    pub id: HubId,
    /// Where its events come from.
    pub backend: BackendKind,
    /// The hub whose log this one began as a copy of, and how many events that
    /// had: their numbers hold here, too.
    pub former: Option<(HubId, u64)>,
}

impl HubIdentity {
    /// Whether the number of a plain event is one of this log.
    fn knows(&self, id: &PlainId) -> bool {
        let is_former = |(hub, events)| id.hub == hub && id.n <= events;
        id.hub == self.id || self.former.is_some_and(is_former)
    }
}

/// Where and how a client begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// The next frame to send.
    pub position: LogPosition,
    /// Id of the event the stream starts after, if known.
    pub cursor: Option<String>,
    /// What is to be told first.
    pub gap: Option<Gap>,
    /// Lines to skip, of a kubectl stream read again from its beginning.
    pub covered: Option<KubectlPosition>,
}

impl Join {
    fn at(position: LogPosition, cursor: Option<String>) -> Self {
        Self {
            position,
            cursor,
            gap: None,
            covered: None,
        }
    }

    fn told(position: LogPosition, gap: Gap) -> Self {
        Self {
            gap: Some(gap),
            ..Self::at(position, None)
        }
    }
}

/// How a client comes into a log.
#[derive(Debug)]
pub enum Joining {
    /// It reads the log from here on.
    Seated(Join),
    /// It may have to read the store first.
    Reading(Joiner),
    /// It wants the last events that pass its filter; so many of them must lie
    /// in the store before the log's base.
    Counting(u64),
}

impl RunLog {
    /// Finds how a client begins.
    pub fn join(
        &self,
        start: &StreamStart,
        filter: &FrameFilter,
        hub: HubIdentity,
        safeguards: Safeguards,
    ) -> Joining {
        if hub.backend == BackendKind::Kubectl {
            return Joining::Seated(self.join_lines(start, filter));
        }
        let joiner = |from| Joiner::new(from, self, safeguards);
        match start {
            StreamStart::Start => Joining::Reading(joiner(JoinFrom::Start)),
            StreamStart::BadCursor => {
                Joining::Reading(joiner(JoinFrom::Start).with_gap(GapReason::BadCursor, None))
            }
            StreamStart::Now => Joining::Seated(self.join_known(self.live_end())),
            StreamStart::Last(count) => self.join_last(*count, filter),
            StreamStart::After(cursor) => match &cursor.id {
                EventId::Durable(id) => Joining::Reading(joiner(JoinFrom::Seen((*id).into()))),
                EventId::Plain(id) if hub.knows(id) => self.join_after_plain(id, joiner),
                EventId::Plain(id) => {
                    // What it saw last cannot be told: on from the durable part.
                    let joiner = joiner(seen(id.durable));
                    Joining::Reading(joiner.with_gap(GapReason::Restarted, None))
                }
                EventId::Kubectl(_) => self.join(&StreamStart::BadCursor, filter, hub, safeguards),
            },
        }
    }

    /// Joins the log of a run's lines, which has no store behind it.
    fn join_lines(&self, start: &StreamStart, filter: &FrameFilter) -> Join {
        match start {
            StreamStart::Start => Join::at(self.front(), None),
            StreamStart::Now => self.join_known(self.live_end()),
            StreamStart::Last(count) => match self.join_last(*count, filter) {
                Joining::Seated(join) => join,
                Joining::Reading(_) | Joining::Counting(_) => Join::at(self.front(), None),
            },
            StreamStart::After(cursor) => match &cursor.id {
                EventId::Kubectl(position) => self.join_after_line(cursor, position),
                EventId::Durable(_) | EventId::Plain(_) => {
                    self.join_lines(&StreamStart::BadCursor, filter)
                }
            },
            StreamStart::BadCursor => Join::told(
                self.front(),
                Gap {
                    before: self.id_after(self.front()).map(str::to_owned),
                    ..Gap::unknown(GapReason::BadCursor)
                },
            ),
        }
    }

    /// The place where what is yet to come begins: of a run that is over,
    /// before its `end`.
    fn live_end(&self) -> LogPosition {
        match self.segments.back() {
            Some(last) if last.classes().meets(FrameClass::END) => {
                LogPosition::at_segment(last.no())
            }
            _ => self.end(),
        }
    }

    /// Joins at a place whose last event before it is known. Of an older
    /// branch it is not: who was given an id of it would have to be told the
    /// gap between the two.
    fn join_known(&self, position: LogPosition) -> Join {
        let in_log = self.id_between(self.start(), position).map(str::to_owned);
        let before_log = || Some(self.base()?.id()?.to_string());
        Join::at(position, in_log.or_else(before_log))
    }

    fn join_last(&self, count: u64, filter: &FrameFilter) -> Joining {
        let start = self.start();
        let mut position = self.end();
        let mut found = 0;
        for segment in self.segments.iter().rev() {
            for index in (0..segment.frames().len()).rev() {
                if found == count {
                    return Joining::Seated(self.join_known(position));
                }
                let before = LogPosition {
                    segment_no: segment.no(),
                    frame: index as u32,
                };
                if before < start {
                    return self.join_last_before(count - found, position);
                }
                let is_event = segment.frames()[index].class().is_event();
                if is_event && filter.passes(segment, index) {
                    found += 1;
                }
                position = before;
            }
        }
        match found == count {
            true => Joining::Seated(self.join_known(position)),
            false => self.join_last_before(count - found, position),
        }
    }

    /// All of the log is wanted, and `count` events before it.
    fn join_last_before(&self, count: u64, front: LogPosition) -> Joining {
        match self.base().is_some_and(|base| base.seq > 0) {
            true => Joining::Counting(count),
            false => Joining::Seated(Join::at(front, None)),
        }
    }

    /// After an event number of this very hub.
    fn join_after_plain(&self, id: &PlainId, joiner: impl FnOnce(JoinFrom) -> Joiner) -> Joining {
        let through = self.events_through;
        let kept_from = self.events_before(self.front());
        if id.n > through {
            // Ahead of all there is: no hub gave this id.
            let joiner = joiner(seen(id.durable));
            return Joining::Reading(joiner.with_gap(GapReason::Rewound, None));
        }
        if id.n < kept_from || self.dropped.hides_gap_after(id.n) {
            let joiner = joiner(seen(id.durable));
            return Joining::Reading(match self.plain_dropped_after(id) {
                Some(0) => joiner.without_gap(),
                missed => joiner.with_gap(GapReason::Trimmed, missed),
            });
        }
        let position = self.after_event(id.n);
        if self.has_ended_between(position) {
            return Joining::Reading(joiner(JoinFrom::Start).with_gap(GapReason::Expired, None));
        }
        let cursor = Some(EventId::Plain(*id).to_string());
        Joining::Seated(Join::at(position, cursor))
    }

    /// Whether the run ended after `position` and began anew: its old `end` is
    /// for those only who were there.
    fn has_ended_between(&self, position: LogPosition) -> bool {
        let old = self.segments.iter();
        let old = old.take_while(|segment| segment.no() < self.branch.segment_no);
        old.skip_while(|segment| segment.no() < position.segment_no)
            .any(|segment| segment.classes().meets(FrameClass::END))
    }

    /// How many plain events after `id` were dropped, if that can be known:
    /// durable ones are read again.
    fn plain_dropped_after(&self, id: &PlainId) -> Option<u64> {
        if self.dropped.hides_gap_after(id.n) || self.branch.segment_no > 0 {
            return None;
        }
        let dropped = self.events_before(self.front()).checked_sub(id.n)?;
        let start = self.start_state();
        // Before the first durable event the stream stood where the log began.
        let first = self.branch.base.map_or(0, |base| base.seq);
        let seen = id.durable.map_or(first, |durable| durable.seq);
        let durable = start.durable.map_or(first, |place| place.seq);
        dropped.checked_sub(durable.checked_sub(seen)?)
    }

    /// The place after the run's event number `n`, which the log holds.
    fn after_event(&self, n: u64) -> LogPosition {
        let at = self
            .segments
            .partition_point(|segment| segment.events_through() < n);
        let Some(segment) = self.segments.get(at) else {
            return self.end();
        };
        let mut events = segment.events_before();
        for (index, frame) in segment.frames().iter().enumerate() {
            if events == n {
                return LogPosition {
                    segment_no: segment.no(),
                    frame: index as u32,
                };
            }
            events += u64::from(frame.class().is_event());
        }
        LogPosition::at_segment(segment.no() + 1)
    }

    fn join_after_line(&self, cursor: &Cursor, position: &KubectlPosition) -> Join {
        let text = cursor.id.to_string();
        let found = self.segments.iter().rev().find_map(|segment| {
            let index = (0..segment.frames().len())
                .find(|index| segment.id_of(*index) == Some(text.as_str()))?;
            Some(after_frame(segment, index))
        });
        match found {
            Some(found) => Join::at(found, Some(text)),
            // The logs are being read again from their beginning: the client
            // skips what its cursor covers, container by container.
            None => Join {
                covered: Some(position.clone()),
                ..self.join_front_after(text, position)
            },
        }
    }

    /// At the oldest line kept. Lines before it are gone, and the client knows
    /// them all for sure only if it knows that one, too.
    fn join_front_after(&self, cursor: String, position: &KubectlPosition) -> Join {
        let front = self.front();
        let first = self.id_after(front).filter(|_| front.segment_no > 0);
        let first_known = first
            .and_then(|id| id.parse().ok())
            .is_none_or(|first: KubectlPosition| position.covers_all(&first));
        if first_known {
            return Join::at(front, Some(cursor));
        }
        let gap = Gap {
            after: Some(cursor),
            before: first.map(str::to_owned),
            ..Gap::unknown(GapReason::Trimmed)
        };
        Join::told(front, gap)
    }
}

fn seen(durable: Option<DurableId>) -> JoinFrom {
    durable.map_or(JoinFrom::Start, |id| JoinFrom::Seen(id.into()))
}

/// The place after a frame; after a segment's last one that is the next
/// segment, so that who has all there is stands at the end.
pub(super) fn after_frame(segment: &Segment, index: usize) -> LogPosition {
    match index + 1 == segment.frames().len() {
        true => LogPosition::at_segment(segment.no() + 1),
        false => LogPosition {
            segment_no: segment.no(),
            frame: index as u32 + 1,
        },
    }
}
