//! What arrives live: plain messages, framed copies, events of our own store.

use std::fmt::Display;

use actix::prelude::*;
use tracing::{debug, warn};

use super::ending::EndState;
use super::writer::{IdSource, NewFrame, source_of};
use super::{Arrived, Incoming, RunHub};
use crate::metrics::{EventResult, RejectReason};
use crate::order::OrderInput;
use crate::protocol::{
    DurableId, EventKind, FramedEvent, Gap, GapReason, Timestamp, TraceContext, TracedEvent,
};
use crate::sse::FrameClass;
use crate::store::{Page, StoredEvent};

impl Handler<Arrived> for RunHub {
    type Result = ();

    fn handle(&mut self, arrived: Arrived, ctx: &mut Self::Context) {
        self.pass_on(&arrived);
        self.writer.begin(arrived.received_at);
        self.refused(arrived.refused_before, ctx);
        let now = Timestamp::now();
        for message in arrived.messages {
            match message {
                Incoming::Plain {
                    kind,
                    channel,
                    source_start,
                    payload,
                } => {
                    let source = source_of(&channel, source_start);
                    self.plain(kind, source, &payload, now, ctx);
                }
                Incoming::TooLarge(kind) => self.too_large(kind, FrameClass::CONTROL),
                durable => self.arrived(durable, now, ctx),
            }
        }
        self.publish(ctx);
    }
}

/// Panics at the payload that `RUNCAST_FAULT_PANIC` names, in a build with the
/// feature `fault-switches`: to show what a failure of ours costs.
fn fail_at(payload: &[u8]) {
    #[cfg(not(feature = "fault-switches"))]
    let _ = payload;
    #[cfg(feature = "fault-switches")]
    if std::env::var("RUNCAST_FAULT_PANIC").is_ok_and(|told| told.as_bytes() == payload) {
        panic!("RUNCAST_FAULT_PANIC says so");
    }
}

/// A durable event, from wherever it was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Durable<'a> {
    pub(super) id: DurableId,
    pub(super) lost: u64,
    pub(super) kind: EventKind,
    pub(super) source: &'a str,
    pub(super) payload: &'a [u8],
    /// The function says that it ends the run.
    pub(super) is_terminal: bool,
    /// What its delivery belongs to.
    pub(super) trace: Option<&'a TraceContext>,
}

impl<'a> From<FramedEvent<'a>> for Durable<'a> {
    fn from(event: FramedEvent<'a>) -> Self {
        Self {
            id: event.id,
            lost: event.lost,
            kind: event.kind,
            source: event.source,
            payload: event.payload,
            is_terminal: event.terminal,
            // Announced before it, if at all.
            trace: None,
        }
    }
}

impl<'a> From<&'a StoredEvent> for Durable<'a> {
    fn from(event: &'a StoredEvent) -> Self {
        Self {
            id: event.id,
            lost: event.lost,
            kind: event.kind,
            source: &event.source,
            payload: &event.payload,
            // Its data tells, by our own settings.
            is_terminal: false,
            trace: event.trace.as_ref(),
        }
    }
}

impl RunHub {
    /// Counts an event, once for all hubs of the run.
    pub(super) fn count_in(&self, kind: EventKind, result: EventResult) {
        if self.failover.is_none() {
            self.shared.metrics.event_in(kind, result);
        }
    }

    fn plain(
        &mut self,
        kind: EventKind,
        source: &str,
        payload: &[u8],
        now: Timestamp,
        ctx: &mut Context<Self>,
    ) {
        if matches!(self.end, EndState::Ended { .. }) {
            self.count_in(kind, EventResult::Closed);
            debug!(run_id = %self.run_id, kind = %kind, "event after the run's end dropped");
            return;
        }
        fail_at(payload);
        if self.was_shown(kind, payload, now, false) {
            if let Some(status) = self.status_hidden(kind, payload) {
                self.begin_end(status, ctx);
            }
            return;
        }
        let terminal = self.writer.event(&NewFrame {
            kind,
            source,
            ts: now,
            payload,
            id: IdSource::Plain,
        });
        self.count_in(kind, EventResult::Accepted);
        if let Some(status) = terminal {
            self.begin_end(status, ctx);
        }
    }

    fn too_large(&mut self, kind: EventKind, class: FrameClass) {
        self.count_in(kind, EventResult::TooLarge);
        let gap = Gap {
            missed: Some(1),
            ..Gap::unknown(GapReason::TooLarge)
        };
        self.gap(gap, class);
    }

    /// Takes a durable event that arrived live, now or after it was held.
    pub(super) fn arrived(&mut self, message: Incoming, now: Timestamp, ctx: &mut Context<Self>) {
        let mut announced = None;
        let mut event = match &message {
            Incoming::Stored(event) => Durable::from(event),
            Incoming::Framed(bytes) => {
                match FramedEvent::parse(bytes).and_then(|event| event.checked_at(now)) {
                    Ok(event) => {
                        if event.recorded && !self.shared.settings.history.record_plain {
                            self.shared.told_twice();
                        }
                        Durable::from(event)
                    }
                    Err(_) if self.announced(&message) => return,
                    Err(error) => {
                        let rejected = &self.shared.metrics.redis.rejected;
                        rejected.of(RejectReason::BadFrame).inc();
                        self.say_bad_frame(&error);
                        return;
                    }
                }
            }
            Incoming::Plain { .. } | Incoming::TooLarge(_) => return,
        };
        let id = event.id;
        if self.traces.has_announced() {
            announced = self.take_trace(id);
            event.trace = announced.as_ref().or(event.trace);
        }
        fail_at(event.payload);
        if event.is_terminal {
            self.shared.note_end(&self.run_id, Some(id.epoch));
        }
        if std::mem::take(&mut self.is_unproven) {
            self.step(OrderInput::Doubt, ctx);
        }
        let hold = self.step_live(OrderInput::<Page>::Live(event.id), &event, ctx);
        if hold {
            if let Some(trace) = announced {
                self.hold(Incoming::Framed(
                    TracedEvent { id, trace }.to_string().into(),
                ));
            }
            self.hold(message);
        }
    }

    /// Warns of the first one; whoever publishes more must not fill the log.
    fn say_bad_frame(&mut self, error: &dyn Display) {
        match std::mem::replace(&mut self.has_told_bad_frame, true) {
            false => {
                warn!(run_id = %self.run_id, %error, "message on the framed channel dropped; of further ones nothing is said");
            }
            true => debug!(run_id = %self.run_id, %error, "message on the framed channel dropped"),
        }
    }

    /// Writes a durable event that follows on.
    pub(super) fn deliver(&mut self, event: &Durable<'_>, ctx: &mut Context<Self>) {
        if matches!(self.end, EndState::Ended { .. }) {
            // Only a plain status ended it; the store never closed it, and
            // accepted this: nothing accepted is lost.
            self.begin_epoch(event.id, ctx);
        }
        self.order_epoch = Some(event.id.epoch);
        if event.lost > 0 {
            let gap = Gap {
                before: Some(event.id.to_string()),
                missed: Some(event.lost),
                ..Gap::unknown(GapReason::Producer)
            };
            self.gap(gap, FrameClass::STORE_GAP);
        }
        let limits = &self.live.now().limits;
        let is_too_large = event.payload.len() as u64 > limits.max_event_bytes.as_u64()
            || event.source.len() > limits.max_source_bytes;
        let status = match is_too_large {
            true => {
                self.too_large(event.kind, FrameClass::STORE_GAP);
                self.writer.pass(event.id);
                None
            }
            false if self.was_shown_durable(event) => {
                self.writer.pass(event.id);
                self.status_hidden(event.kind, event.payload)
            }
            false => {
                self.count_in(event.kind, EventResult::Accepted);
                let status = self.writer.event(&NewFrame {
                    kind: event.kind,
                    source: event.source,
                    ts: Timestamp::from_micros(event.id.us as i64),
                    payload: event.payload,
                    id: IdSource::Durable(event.id),
                });
                if let Some(trace) = event.trace {
                    self.note_traced(trace, event);
                }
                status
            }
        };
        if event.is_terminal || status.is_some() {
            let status = status.or_else(|| self.writer.status.clone());
            self.begin_end(status.unwrap_or_else(|| "completed".to_owned()), ctx);
        }
    }
}
