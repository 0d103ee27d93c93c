//! [`PageWriter`]: what a client reads of the store, as frames.

use std::time::Instant;

use crate::metrics::Metrics;
use crate::order::PAGE_EVENTS;
use crate::protocol::{
    BackendKind, EventId, EventKind, Gap, GapReason, LogLevel, Payload, RunId, Timestamp,
    TimestampText, log_level_of,
};
use crate::settings::LimitSettings;
use crate::sse::{EventFrame, FrameClass, Segment, SegmentBuilder, gap_frame};
use crate::store::StoredEvent;

/// Most events of a page that is sent to one client.
pub(super) const CLIENT_PAGE_EVENTS: usize = PAGE_EVENTS;

/// Writes events of one run, read from the store, as the hub would have.
pub(super) struct PageWriter<'a> {
    run_id: &'a RunId,
    backend: BackendKind,
    limits: &'a LimitSettings,
    metrics: &'a Metrics,
    builder: SegmentBuilder,
    ts_text: TimestampText,
    /// Id of the last event before what is written next, if known.
    last_id: Option<String>,
    read_at: Instant,
}

impl<'a> PageWriter<'a> {
    /// Begins after the event `last_id`.
    pub(super) fn new(
        run_id: &'a RunId,
        backend: BackendKind,
        limits: &'a LimitSettings,
        metrics: &'a Metrics,
        last_id: Option<String>,
    ) -> Self {
        Self {
            run_id,
            backend,
            limits,
            metrics,
            builder: SegmentBuilder::default(),
            ts_text: TimestampText::default(),
            last_id,
            read_at: Instant::now(),
        }
    }

    /// Writes a gap after the last event.
    pub(super) fn gap(&mut self, gap: Gap) {
        self.metrics.gaps.of(gap.reason).inc();
        let gap = Gap {
            after: gap.after.or_else(|| self.last_id.clone()),
            ..gap
        };
        let frame = gap_frame(&gap);
        self.builder
            .push_control(&frame, FrameClass::STORE_GAP, "", self.read_at);
    }

    /// Writes an event, and the gap before it if its producer lost some.
    pub(super) fn event(&mut self, event: &StoredEvent) {
        let id = event.id.to_string();
        if event.lost > 0 {
            self.gap(Gap {
                before: Some(id.clone()),
                missed: Some(event.lost),
                ..Gap::unknown(GapReason::Producer)
            });
        }
        let is_too_large = event.payload.len() as u64 > self.limits.max_event_bytes.as_u64()
            || event.source.len() > self.limits.max_source_bytes;
        if is_too_large {
            self.gap(Gap {
                missed: Some(1),
                ..Gap::unknown(GapReason::TooLarge)
            });
            return self.builder.pass(event.id);
        }
        let payload = Payload::classify(&event.payload);
        let level = match event.kind {
            EventKind::Log => log_level_of(payload),
            EventKind::Output | EventKind::Status => LogLevel::Info,
        };
        let ts = Timestamp::from_micros(event.id.us as i64);
        self.builder.push_event(
            &EventFrame {
                run_id: self.run_id,
                kind: event.kind,
                source: &event.source,
                ts: self.ts_text.of(ts),
                backend: self.backend,
                payload,
            },
            &EventId::Durable(event.id),
            FrameClass::of(event.kind, level),
            Some(event.id),
            ts,
            self.read_at,
        );
        self.last_id = Some(id);
    }

    /// Returns all that was written.
    pub(super) fn finish(mut self) -> Vec<Segment> {
        self.builder.take(self.read_at)
    }
}
