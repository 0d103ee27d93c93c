//! [`LogWriter`]: gives events their ids and encodes them, once.

use std::time::Instant;

use bytes::Bytes;

use crate::protocol::{
    BackendKind, DurableId, EventId, EventKind, Gap, HubId, LogLevel, Payload, Place, PlainId,
    RunId, Timestamp, TimestampText, log_level_of, terminal_status,
};
use crate::run_log::{HubIdentity, RunLog};
use crate::sse::{
    EventFrame, FrameClass, Segment, SegmentBuilder, end_frame, gap_data, gap_frame, source_frame,
};

/// Newest gaps remembered for `GET /api/v1/runs/{run_id}`.
const GAPS_KEPT: usize = 16;

/// How an event comes by its id.
#[derive(Debug)]
pub(super) enum IdSource {
    /// The next number of this hub.
    Plain,
    /// Given by the store.
    Durable(DurableId),
    /// Given by a log's position.
    Given(EventId),
}

/// An event about to be written.
pub(super) struct NewFrame<'a> {
    pub(super) kind: EventKind,
    pub(super) source: &'a str,
    pub(super) ts: Timestamp,
    pub(super) payload: &'a [u8],
    pub(super) id: IdSource,
}

/// Writes one run's events into segments, and remembers what the run's page
/// tells of them.
pub(super) struct LogWriter {
    run_id: RunId,
    pub(super) hub: HubIdentity,
    builder: SegmentBuilder,
    ts_text: TimestampText,
    terminal_statuses: Vec<String>,
    pub(super) last_durable: Option<DurableId>,
    pub(super) last_id: Option<EventId>,
    pub(super) last_ts: Option<Timestamp>,
    pub(super) status: Option<String>,
    pub(super) counts: [u64; 3],
    /// Those of them without a durable id.
    pub(super) plain_counts: [u64; 3],
    pub(super) gaps: Vec<String>,
    /// An event without a durable id was written since the run began.
    pub(super) has_plain: bool,
    received_at: Instant,
    /// Where the events written now come from.
    pub(super) source: BackendKind,
}

impl LogWriter {
    pub(super) fn new(run_id: RunId, backend: BackendKind, terminal_statuses: Vec<String>) -> Self {
        Self {
            run_id,
            hub: HubIdentity {
                id: HubId::random(),
                backend,
                former: None,
            },
            builder: SegmentBuilder::default(),
            ts_text: TimestampText::default(),
            terminal_statuses,
            last_durable: None,
            last_id: None,
            last_ts: None,
            status: None,
            counts: [0; 3],
            plain_counts: [0; 3],
            gaps: Vec::new(),
            has_plain: false,
            received_at: Instant::now(),
            source: source_of_hub(backend),
        }
    }

    /// Makes the writer of another hub, whose log begins as a copy of `log`.
    pub(super) fn fork(&self, backend: BackendKind, log: &RunLog) -> Self {
        let former = Some((self.hub.id, log.events_through()));
        Self {
            run_id: self.run_id.clone(),
            hub: HubIdentity {
                id: HubId::random(),
                backend,
                former,
            },
            builder: SegmentBuilder::after(log.end_state()),
            ts_text: TimestampText::default(),
            terminal_statuses: self.terminal_statuses.clone(),
            last_durable: self.last_durable,
            last_id: self.last_id.clone(),
            last_ts: self.last_ts,
            status: self.status.clone(),
            counts: self.counts,
            plain_counts: self.plain_counts,
            gaps: self.gaps.clone(),
            has_plain: self.has_plain,
            received_at: Instant::now(),
            source: source_of_hub(backend),
        }
    }

    /// Sets when the events written next were read from their source.
    pub(super) fn begin(&mut self, received_at: Instant) {
        self.received_at = received_at;
    }

    /// When that was.
    pub(super) fn received_at(&self) -> Instant {
        self.received_at
    }

    /// Number of the segment that holds the event written last.
    pub(super) fn open_segment_no(&self) -> u64 {
        self.builder.open_no()
    }

    /// Writes an event; returns the status that ends the run, if it is one.
    pub(super) fn event(&mut self, frame: &NewFrame<'_>) -> Option<String> {
        let payload = Payload::classify(frame.payload);
        let level = match frame.kind {
            EventKind::Log => log_level_of(payload),
            EventKind::Output | EventKind::Status => LogLevel::Info,
        };
        let id = self.id_for(&frame.id);
        self.trace(frame, &id);
        let durable = match &id {
            EventId::Durable(id) => Some(*id),
            EventId::Plain(_) | EventId::Kubectl(_) => None,
        };
        self.has_plain |= durable.is_none();
        self.last_durable = durable.or(self.last_durable);
        self.builder.push_event(
            &EventFrame {
                run_id: &self.run_id,
                kind: frame.kind,
                source: frame.source,
                ts: self.ts_text.of(frame.ts),
                backend: self.source,
                payload,
            },
            &id,
            FrameClass::of(frame.kind, level),
            durable,
            frame.ts,
            self.received_at,
        );
        self.last_id = Some(id);
        self.last_ts = Some(frame.ts);
        self.counts[frame.kind as usize] += 1;
        self.plain_counts[frame.kind as usize] += u64::from(durable.is_none());
        if frame.kind != EventKind::Status {
            return None;
        }
        self.status = status_word(payload);
        terminal_status(payload, &self.terminal_statuses)
    }

    /// Logs an event, the only place where payloads are. While the level is off
    /// no field is made: it costs one atomic load.
    fn trace(&self, frame: &NewFrame<'_>, id: &EventId) {
        tracing::trace!(
            run_id = %self.run_id,
            event_id = %id,
            kind = %frame.kind,
            source = frame.source,
            backend = %self.source,
            payload = %String::from_utf8_lossy(frame.payload),
            "event written"
        );
    }

    fn id_for(&self, source: &IdSource) -> EventId {
        match source {
            IdSource::Plain => EventId::Plain(PlainId {
                hub: self.hub.id,
                n: self.builder.events() + 1,
                durable: self.last_durable,
            }),
            IdSource::Durable(id) => EventId::Durable(*id),
            IdSource::Given(id) => id.clone(),
        }
    }

    /// Writes a gap after the last event. One that the store tells whoever
    /// reads it again is a `STORE_GAP`, others are `CONTROL`.
    pub(super) fn gap(&mut self, mut gap: Gap, class: FrameClass) {
        gap.after = gap.after.or_else(|| self.last_id_text());
        self.builder
            .push_control(&gap_frame(&gap), class, "", self.received_at);
        if self.gaps.len() == GAPS_KEPT {
            self.gaps.remove(0);
        }
        self.gaps.push(gap_data(&gap));
    }

    /// Writes that the stream goes on from another backend.
    pub(super) fn source(&mut self, from: BackendKind, to: BackendKind, reason: &str) {
        let frame = source_frame(from, to, reason);
        // Who comes when Redis is back reads of it what lines stood for.
        let begins_branch = to == BackendKind::Redis;
        self.builder
            .push_source(&frame, begins_branch, self.received_at);
    }

    /// Whether a status ends the run, and how it is called then.
    pub(super) fn terminal_status(&self, payload: &[u8]) -> Option<String> {
        terminal_status(Payload::classify(payload), &self.terminal_statuses)
    }

    /// Passes over a durable event that is not written.
    pub(super) fn pass(&mut self, id: DurableId) {
        self.builder.pass(id);
        self.stands_after(Some(id));
    }

    /// Begins a branch of the log after `base` with a gap, which only who knew
    /// the old one is told.
    pub(super) fn begin_branch(&mut self, base: Place, gap: Gap) {
        self.builder.begin_branch(base, 1, self.received_at);
        self.gap(gap, FrameClass::STORE_GAP);
        self.stands_after(base.id());
    }

    /// Notes that what is written next comes after a durable event that was not
    /// written here.
    pub(super) fn stands_after(&mut self, id: Option<DurableId>) {
        if self.last_durable != id || self.last_id.is_none() {
            self.last_durable = id;
            self.last_id = id.map(EventId::Durable).or(self.last_id.take());
        }
    }

    /// Notes where the stream stands, before the first durable event.
    pub(super) fn set_base(&mut self, base: Option<Place>) {
        self.builder.set_base(base);
        self.stands_after(base.and_then(Place::id));
    }

    /// Forgets what was said of the run's last epoch.
    pub(super) fn begin_epoch(&mut self) {
        self.status = None;
        self.counts = [0; 3];
        self.plain_counts = [0; 3];
        self.gaps.clear();
        self.has_plain = false;
    }

    /// Writes the run's end; returns its id.
    pub(super) fn end(&mut self, status: &str, events: Option<u64>) -> String {
        let last_id = self
            .last_id_text()
            .expect("a run ends by a status event, which has an id");
        let id = format!("{last_id}-end");
        let frame = end_frame(status, events, &last_id);
        self.builder
            .push_control(&frame, FrameClass::END, &id, self.received_at);
        id
    }

    pub(super) fn last_id_text(&self) -> Option<String> {
        self.last_id.as_ref().map(ToString::to_string)
    }

    /// Returns the segments written since the last call.
    pub(super) fn take(&mut self) -> Vec<Segment> {
        self.builder.take(self.received_at)
    }
}

/// Where the events of a hub come from unless it says otherwise.
fn source_of_hub(backend: BackendKind) -> BackendKind {
    match backend {
        BackendKind::Auto => BackendKind::Redis,
        BackendKind::Redis | BackendKind::Kubectl | BackendKind::Embedded => backend,
    }
}

/// The status as a word, for lists of runs: a string, field `status` of an
/// object, or plain text; cut to a sane length.
fn status_word(payload: Payload<'_>) -> Option<String> {
    const CHARS_MAX: usize = 64;
    let word = match payload {
        Payload::Json(json) => crate::protocol::json_string_or_field(json, "status"),
        Payload::Text(text) => Some(text.to_owned()),
        Payload::Binary(_) => None,
    };
    word.map(|word| word.chars().take(CHARS_MAX).collect())
}

/// Returns the source part of a channel that was checked to be UTF-8.
pub(super) fn source_of(channel: &Bytes, source_start: usize) -> &str {
    std::str::from_utf8(&channel[source_start..]).unwrap_or_default()
}
