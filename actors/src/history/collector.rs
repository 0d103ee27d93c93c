//! [`Collector`]: stored events as a stream would send them, gathered into a
//! page. Pure.

use std::fmt::Display;

use super::HistoryEvent;
use crate::broker::StreamFilter;
use crate::protocol::{
    BackendKind, DurableId, EventId, EventKind, Gap, GapReason, LogLevel, Payload, RunId,
    Timestamp, TimestampText, log_level_of,
};
use crate::sse::{EventFrame, FrameClass, gap_data, write_event};
use crate::store::StoredEvent;

/// What an event of an answer costs beside its data.
const EVENT_OVERHEAD_BYTES: usize = 128;

/// What a page is made under.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageRules<'a> {
    pub(super) run_id: &'a RunId,
    pub(super) backend: BackendKind,
    pub(super) filter: &'a StreamFilter,
    /// Most events of the page.
    pub(super) events_max: usize,
    /// The page is full once it has as many bytes.
    pub(super) bytes_max: usize,
    /// A larger event is told as a gap, as a stream does.
    pub(super) event_bytes_max: u64,
    /// The same of its source.
    pub(super) source_bytes_max: usize,
}

/// Gathers events of a page, in either direction.
#[derive(Debug)]
pub(super) struct Collector<'a> {
    rules: PageRules<'a>,
    hidden: FrameClass,
    ts_text: TimestampText,
    scratch: Vec<u8>,
    events: Vec<HistoryEvent>,
    found: usize,
    bytes: usize,
}

impl<'a> Collector<'a> {
    pub(super) fn new(rules: PageRules<'a>) -> Self {
        Self {
            hidden: FrameClass::hidden_by(&rules.filter.kinds, rules.filter.log_level),
            rules,
            ts_text: TimestampText::default(),
            scratch: Vec::new(),
            events: Vec::new(),
            found: 0,
            bytes: 0,
        }
    }

    /// How many more events fit.
    pub(super) fn room(&self) -> usize {
        self.rules.events_max - self.found
    }

    /// Whether no event fits any more.
    pub(super) fn is_full(&self) -> bool {
        self.room() == 0 || self.bytes >= self.rules.bytes_max
    }

    /// Takes the next event of a page read forwards; `before` is the one seen
    /// before it, and `follows` whether its number is to follow on.
    pub(super) fn push(&mut self, event: &StoredEvent, before: Option<DurableId>, follows: bool) {
        if follows && let Some(before) = before {
            self.push_hole(before, event.id);
        }
        if let Some(gap) = lost_before(event, before) {
            self.push_gap(&gap);
        }
        self.push_event(event, before);
    }

    /// Takes the next event of a page read backwards; `after` is the one taken
    /// last, which lies after it, `before` the one that comes next.
    pub(super) fn push_back(
        &mut self,
        event: &StoredEvent,
        before: Option<DurableId>,
        after: Option<DurableId>,
    ) {
        if let Some(after) = after {
            self.push_hole(event.id, after);
        }
        self.push_event(event, before);
        if let Some(gap) = lost_before(event, before) {
            self.push_gap(&gap);
        }
    }

    /// Returns what was gathered, in the order it was taken.
    pub(super) fn into_events(self) -> Vec<HistoryEvent> {
        self.events
    }

    /// Between two reads, or by hand, events in the middle may have gone.
    fn push_hole(&mut self, before: DurableId, after: DurableId) {
        let missed = after.seq.saturating_sub(before.seq + 1);
        if missed > 0 {
            self.push_gap(&Gap {
                after: Some(before.to_string()),
                before: Some(after.to_string()),
                missed: Some(missed),
                reason: GapReason::Trimmed,
            });
        }
    }

    fn push_gap(&mut self, gap: &Gap) {
        self.add("gap", None, gap_data(gap));
    }

    fn push_event(&mut self, event: &StoredEvent, before: Option<DurableId>) {
        let rules = self.rules;
        let is_too_large = event.payload.len() as u64 > rules.event_bytes_max
            || event.source.len() > rules.source_bytes_max;
        if is_too_large {
            self.push_gap(&Gap {
                after: text(before),
                missed: Some(1),
                ..Gap::unknown(GapReason::TooLarge)
            });
            return;
        }
        let payload = Payload::classify(&event.payload);
        if !self.wants(event, payload) {
            return;
        }
        let frame = EventFrame {
            run_id: rules.run_id,
            kind: event.kind,
            source: &event.source,
            ts: self.ts_text.of(Timestamp::from_micros(event.id.us as i64)),
            backend: rules.backend,
            payload,
        };
        self.scratch.clear();
        let spans = write_event(&mut self.scratch, &frame, &EventId::Durable(event.id));
        let data = String::from_utf8_lossy(&self.scratch[spans.data]).into_owned();
        self.add(event.kind.as_str(), Some(event.id), data);
        self.found += 1;
    }

    fn wants(&self, event: &StoredEvent, payload: Payload<'_>) -> bool {
        let sources = &self.rules.filter.sources;
        let level = match event.kind {
            EventKind::Log => log_level_of(payload),
            EventKind::Output | EventKind::Status => LogLevel::Info,
        };
        !self.hidden.meets(FrameClass::of(event.kind, level))
            && (sources.is_empty() || sources.contains(&event.source))
    }

    fn add(&mut self, event: &'static str, id: Option<DurableId>, data: String) {
        self.bytes += data.len() + EVENT_OVERHEAD_BYTES;
        self.events.push(HistoryEvent { event, id, data });
    }
}

/// What the producer of `event` numbered before it and never got through.
fn lost_before(event: &StoredEvent, before: Option<DurableId>) -> Option<Gap> {
    (event.lost > 0).then(|| Gap {
        after: text(before),
        before: Some(event.id.to_string()),
        missed: Some(event.lost),
        reason: GapReason::Producer,
    })
}

fn text(id: Option<impl Display>) -> Option<String> {
    id.map(|id| id.to_string())
}
