//! What arrives from Redis: plain messages and framed copies, in order.

use actix::prelude::*;
use tracing::{debug, warn};

use super::ending::EndState;
use super::writer::{IdSource, NewFrame, source_of};
use super::{Arrived, Incoming, RunHub};
use crate::metrics::{EventResult, RejectReason};
use crate::protocol::{DurableId, EventKind, FramedEvent, Gap, GapReason, Timestamp};

impl Handler<Arrived> for RunHub {
    type Result = ();

    fn handle(&mut self, arrived: Arrived, ctx: &mut Self::Context) {
        self.writer.begin(arrived.received_at);
        if let Some(gap) = arrived.refused_before.gap() {
            self.gap(gap);
        }
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
                Incoming::Framed(message) => self.framed(&message, ctx),
                Incoming::TooLarge(kind) => self.too_large(kind),
            }
        }
        self.publish(ctx);
    }
}

impl RunHub {
    fn plain(
        &mut self,
        kind: EventKind,
        source: &str,
        payload: &[u8],
        now: Timestamp,
        ctx: &mut Context<Self>,
    ) {
        if self.refuses_late(kind) {
            return;
        }
        let terminal = self.writer.event(&NewFrame {
            kind,
            source,
            ts: now,
            payload,
            id: IdSource::Plain,
        });
        self.shared.metrics.event_in(kind, EventResult::Accepted);
        if let Some(status) = terminal {
            self.begin_end(status, ctx);
        }
    }

    /// Counts and drops what comes after `end`.
    fn refuses_late(&self, kind: EventKind) -> bool {
        if !matches!(self.end, EndState::Ended { .. }) {
            return false;
        }
        self.shared.metrics.event_in(kind, EventResult::Closed);
        debug!(run_id = %self.run_id, kind = %kind, "event after the run's end dropped");
        true
    }

    fn too_large(&mut self, kind: EventKind) {
        self.shared.metrics.event_in(kind, EventResult::TooLarge);
        self.gap(Gap {
            missed: Some(1),
            ..Gap::unknown(GapReason::TooLarge)
        });
    }

    fn framed(&mut self, message: &[u8], ctx: &mut Context<Self>) {
        let event = match FramedEvent::parse(message).and_then(FramedEvent::checked_now) {
            Ok(event) => event,
            Err(error) => {
                self.shared
                    .metrics
                    .redis
                    .rejected
                    .of(RejectReason::BadFrame)
                    .inc();
                warn!(run_id = %self.run_id, %error, "message on the framed channel dropped");
                return;
            }
        };
        if !self.follows(event.id, event.kind, ctx) {
            return;
        }
        let limits = &self.shared.settings.limits;
        let is_too_large = event.payload.len() as u64 > limits.max_event_bytes.as_u64()
            || event.source.len() > limits.max_source_bytes;
        if is_too_large {
            self.too_large(event.kind);
            self.writer.last_durable = Some(event.id);
            return;
        }
        if event.lost > 0 {
            self.gap(Gap {
                before: Some(event.id.to_string()),
                missed: Some(event.lost),
                ..Gap::unknown(GapReason::Producer)
            });
        }
        let status = self.writer.event(&NewFrame {
            kind: event.kind,
            source: event.source,
            ts: Timestamp::from_micros(event.id.us as i64),
            payload: event.payload,
            id: IdSource::Durable(event.id),
        });
        self.shared
            .metrics
            .event_in(event.kind, EventResult::Accepted);
        if event.terminal {
            let status = status.or_else(|| self.writer.status.clone());
            self.begin_end(status.unwrap_or_else(|| "completed".to_owned()), ctx);
        }
    }

    /// Compares a durable id with the last one: whether to deliver it, and
    /// what to tell before it.
    fn follows(&mut self, id: DurableId, kind: EventKind, ctx: &mut Context<Self>) -> bool {
        let has_ended = matches!(self.end, EndState::Ended { .. });
        let Some(last) = self.writer.last_durable else {
            if has_ended {
                // Only a plain status ended it; for Redis it was never closed.
                self.begin_epoch(Some(id.to_string()), ctx);
            }
            return true;
        };
        let gap = |missed, reason| Gap {
            before: Some(id.to_string()),
            missed,
            ..Gap::unknown(reason)
        };
        if id.epoch > last.epoch {
            self.begin_epoch(Some(id.to_string()), ctx);
            return true;
        }
        if id.epoch < last.epoch || (id.seq <= last.seq && id.us <= last.us) {
            self.shared.metrics.event_in(kind, EventResult::Duplicate);
            return false;
        }
        if has_ended {
            // Redis accepted it, so the run goes on: nothing accepted is lost.
            self.begin_epoch(Some(id.to_string()), ctx);
            return true;
        }
        if id.seq <= last.seq {
            self.gap(gap(None, GapReason::Rewound));
        } else if id.seq - last.seq > 1 {
            self.gap(gap(Some(id.seq - last.seq - 1), GapReason::Disconnected));
        }
        true
    }
}
