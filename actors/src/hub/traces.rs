//! The traces of events, on their way through a hub.

use std::time::Instant;

use super::arrivals::Durable;
use super::{Incoming, RunHub};
use crate::protocol::{DurableId, TraceContext, TracedEvent};
use crate::spans::{OpenSpan, TracedDelivery};
use crate::worker::TracedSegment;

/// Traced events that a hub has to do with. Both are empty while none comes.
#[derive(Debug, Default)]
pub(super) struct Traces {
    /// Announced; its event comes next.
    announced: Option<TracedEvent>,
    /// Written and not published yet, each with the segment that it is in. No
    /// more than events of a batch.
    written: Vec<(u64, TracedDelivery)>,
}

impl Traces {
    /// Whether a trace was announced, and its event is still to come.
    pub(super) fn has_announced(&self) -> bool {
        self.announced.is_some()
    }
}

impl RunHub {
    /// Takes a message that may announce a trace; says whether it does.
    pub(super) fn announced(&mut self, message: &Incoming) -> bool {
        let Incoming::Framed(bytes) = message else {
            return false;
        };
        let Some(traced) = TracedEvent::parse(bytes) else {
            return false;
        };
        if self.shared.settings.spans.are_made() {
            match self.order.is_syncing() {
                // Its event is going to be held, too.
                true => self.hold(message.clone()),
                false => self.traces.announced = Some(traced),
            }
        }
        true
    }

    /// Returns the trace announced for an event, if one was.
    pub(super) fn take_trace(&mut self, id: DurableId) -> Option<TraceContext> {
        let traced = self.traces.announced.take()?;
        (traced.id == id).then_some(traced.trace)
    }

    /// Notes that a traced event was written.
    pub(super) fn note_traced(&mut self, trace: &TraceContext, event: &Durable<'_>) {
        if !self.shared.settings.spans.are_made() {
            return;
        }
        let delivery = TracedDelivery {
            trace: trace.clone(),
            id: event.id,
            kind: event.kind,
            backend: self.backend,
            received_at: self.writer.received_at(),
            clients: self.stats.clients(),
        };
        self.traces
            .written
            .push((self.writer.open_segment_no(), delivery));
    }

    /// Returns the spans of what was written since the last call, which end when
    /// the workers have it, and what these need for theirs.
    pub(super) fn delivered(&mut self) -> (Vec<OpenSpan>, Vec<TracedSegment>) {
        if self.traces.written.is_empty() {
            return (Vec::new(), Vec::new());
        }
        let spans = &self.shared.settings.spans;
        let queued_at = Instant::now();
        let written = self.traces.written.drain(..);
        let delivered = written.filter_map(|(segment_no, delivery)| {
            let span = spans.delivery(&self.run_id, &delivery)?;
            let segment = TracedSegment {
                segment_no,
                received_at: delivery.received_at,
                queued_at,
                trace: span.trace()?,
            };
            Some((span, segment))
        });
        delivered.unzip()
    }
}
