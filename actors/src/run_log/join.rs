//! Where a client joins a [`RunLog`]: its cursor's place, or what is told.

use super::{LogPosition, RunLog};
use crate::broker::StreamStart;
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

impl RunLog {
    /// Finds where a client begins.
    pub fn join(&self, start: &StreamStart, filter: &FrameFilter, hub: HubIdentity) -> Join {
        match start {
            StreamStart::Start => Join::at(self.front(), None),
            StreamStart::Now => self.join_known(self.live_end()),
            StreamStart::Last(count) => self.join_last(*count, filter),
            StreamStart::BadCursor => Join::told(
                self.front(),
                Gap {
                    before: self.id_after(self.front()).map(str::to_owned),
                    ..Gap::unknown(GapReason::BadCursor)
                },
            ),
            StreamStart::After(cursor) => self.join_after(cursor, hub),
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

    /// Joins at a place whose last event before it is known from the log.
    fn join_known(&self, position: LogPosition) -> Join {
        Join::at(position, self.id_before(position).map(str::to_owned))
    }

    fn join_last(&self, count: u64, filter: &FrameFilter) -> Join {
        let mut position = self.end();
        let mut found = 0;
        for segment in self.segments.iter().rev() {
            for index in (0..segment.frames().len()).rev() {
                if found == count {
                    return self.join_known(position);
                }
                let is_event = segment.frames()[index].class().is_event();
                if is_event && filter.passes(segment, index) {
                    found += 1;
                }
                position = LogPosition {
                    segment_no: segment.no(),
                    frame: index as u32,
                };
            }
        }
        self.join_known(position)
    }

    fn join_after(&self, cursor: &Cursor, hub: HubIdentity) -> Join {
        let join = match (&cursor.id, hub.backend) {
            (EventId::Kubectl(position), BackendKind::Kubectl) => {
                return self.join_after_line(cursor, position);
            }
            (EventId::Kubectl(_), _) | (_, BackendKind::Kubectl) => {
                return self.join(&StreamStart::BadCursor, &FrameFilter::default(), hub);
            }
            (EventId::Plain(id), _) if id.hub == hub.id => self.join_after_plain(id),
            (EventId::Plain(id), _) => self.join_after_foreign(id),
            (EventId::Durable(id), _) => self.join_after_durable(*id),
        };
        match join {
            Ok(position) => Join::at(position, Some(cursor.id.to_string())),
            Err(Lost {
                position,
                reason,
                missed,
                known,
            }) => Join {
                cursor: known.map(|id| id.to_string()),
                ..Join::told(
                    position,
                    Gap {
                        after: Some(cursor.to_string()),
                        before: self.id_after(position).map(str::to_owned),
                        missed,
                        reason,
                    },
                )
            },
        }
    }

    /// After event number `id.n` of this very hub.
    fn join_after_plain(&self, id: &PlainId) -> Result<LogPosition, Lost> {
        let kept_from = self.events_before(self.front());
        let through = self.events_through;
        let hides_gap = self.dropped.hides_gap_after(id.n);
        if id.n < kept_from || hides_gap {
            let missed = (!hides_gap).then(|| kept_from - id.n);
            return Err(Lost::from_front(self, GapReason::Trimmed, missed));
        }
        if id.n > through {
            // Ahead of all there is: no hub gave this id.
            return Err(Lost {
                position: self.end(),
                ..Lost::from_front(self, GapReason::Rewound, None)
            });
        }
        let at = self
            .segments
            .partition_point(|segment| segment.events_through() < id.n);
        let Some(segment) = self.segments.get(at) else {
            return Ok(self.end());
        };
        let mut seen = segment.events_before();
        for (index, frame) in segment.frames().iter().enumerate() {
            if seen == id.n {
                return Ok(LogPosition {
                    segment_no: segment.no(),
                    frame: index as u32,
                });
            }
            seen += u64::from(frame.class().is_event());
        }
        Ok(LogPosition::at_segment(segment.no() + 1))
    }

    /// After a plain event of a hub that is gone: what it saw last cannot be
    /// told, so a gap, then on from the durable part of the id.
    fn join_after_foreign(&self, id: &PlainId) -> Result<LogPosition, Lost> {
        let lost = match id
            .durable
            .map(|durable| (durable, self.join_after_durable(durable)))
        {
            Some((durable, Ok(position))) => Lost {
                position,
                known: Some(EventId::Durable(durable)),
                reason: GapReason::Restarted,
                missed: None,
            },
            Some((_, Err(lost))) => Lost {
                reason: GapReason::Restarted,
                missed: None,
                ..lost
            },
            None => Lost::from_front(self, GapReason::Restarted, None),
        };
        Err(lost)
    }

    fn join_after_durable(&self, id: DurableId) -> Result<LogPosition, Lost> {
        let Some((first, last)) = self.durable_bounds() else {
            // Nothing to compare with: the history is not in this log.
            return Err(Lost::from_front(self, GapReason::Trimmed, None));
        };
        if id.epoch != last.epoch && id.epoch != first.epoch {
            return Err(Lost::from_front(self, GapReason::Expired, None));
        }
        if id.epoch == first.epoch && id.seq < first.seq {
            let missed = self.dropped.is_durable().then_some(first.seq - id.seq - 1);
            return match missed {
                Some(0) => Ok(self.front()),
                _ => Err(Lost::from_front(self, GapReason::Trimmed, missed)),
            };
        }
        if (id.epoch, id.seq) > (last.epoch, last.seq) {
            return Err(Lost {
                position: self.end(),
                reason: GapReason::Rewound,
                missed: None,
                known: self.id_before(self.end()).and_then(|id| id.parse().ok()),
            });
        }
        let at = self
            .segments
            .partition_point(|segment| segment.durable_through() < Some(id));
        let found = self.segments.get(at).and_then(|segment| {
            let index = (0..segment.frames().len())
                .find(|index| segment.id_of(*index) == Some(id.to_string().as_str()))?;
            Some(after_frame(segment, index))
        });
        // Another entry stands at that place.
        found.ok_or_else(|| Lost::from_front(self, GapReason::Rewound, None))
    }

    /// The first and last durable event kept.
    fn durable_bounds(&self) -> Option<(DurableId, DurableId)> {
        let last = self.segments.back()?.durable_through()?;
        let first = self
            .frames_from(self.front())
            .filter_map(|(segment, index)| segment.id_of(index))
            .find_map(|id| match id.parse() {
                Ok(EventId::Durable(id)) => Some(id),
                _ => None,
            })?;
        Some((first, last))
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

/// A cursor whose place is not in the log.
struct Lost {
    position: LogPosition,
    reason: GapReason,
    missed: Option<u64>,
    known: Option<EventId>,
}

impl Lost {
    fn from_front(log: &RunLog, reason: GapReason, missed: Option<u64>) -> Self {
        Self {
            position: log.front(),
            reason,
            missed,
            known: None,
        }
    }
}

/// The place after a frame; after a segment's last one that is the next
/// segment, so that who has all there is stands at the end.
fn after_frame(segment: &Segment, index: usize) -> LogPosition {
    match index + 1 == segment.frames().len() {
        true => LogPosition::at_segment(segment.no() + 1),
        false => LogPosition {
            segment_no: segment.no(),
            frame: index as u32 + 1,
        },
    }
}
