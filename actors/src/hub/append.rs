//! Publishing into an embedded run: the hub is its own store.

use std::time::Instant;

use actix::prelude::*;

use super::ending::EndState;
use super::writer::{IdSource, NewFrame};
use super::{Append, RunHub};
use crate::broker::{NewEvent, PublishError, PublishResult, Published};
use crate::metrics::EventResult;
use crate::protocol::{DurableId, Timestamp};

impl Handler<Append> for RunHub {
    type Result = MessageResult<Append>;

    fn handle(&mut self, append: Append, ctx: &mut Self::Context) -> Self::Result {
        self.writer.begin(Instant::now());
        if append.restart {
            self.restart(ctx);
        }
        let results = append
            .events
            .iter()
            .map(|event| self.append(event, ctx))
            .collect();
        self.publish(ctx);
        MessageResult(results)
    }
}

impl RunHub {
    fn append(&mut self, event: &NewEvent, ctx: &mut Context<Self>) -> PublishResult {
        let limit = self.shared.settings.limits.max_event_bytes.as_u64();
        let metrics = &self.shared.metrics;
        if event.payload.len() as u64 > limit {
            metrics.event_in(event.kind, EventResult::TooLarge);
            return Err(PublishError::TooLarge { limit });
        }
        if matches!(self.end, EndState::Ended { .. }) {
            metrics.event_in(event.kind, EventResult::Closed);
            return Err(PublishError::Closed);
        }
        metrics.event_in(event.kind, EventResult::Accepted);
        let id = self.next_durable();
        let terminal = self.writer.event(&NewFrame {
            kind: event.kind,
            source: &event.source,
            ts: Timestamp::from_micros(id.us as i64),
            payload: &event.payload,
            id: IdSource::Durable(id),
        });
        if let Some(status) = terminal {
            self.begin_end(status, ctx);
        }
        Ok(Published::new(id))
    }

    /// The id that follows the last one, as `runcast_publish` would give it.
    fn next_durable(&self) -> DurableId {
        let us = Timestamp::now().as_micros() as u64;
        match self.writer.last_durable {
            // A clock set back does not turn ids back.
            Some(last) => DurableId {
                epoch: last.epoch,
                seq: last.seq + 1,
                us: us.max(last.us),
            },
            None => DurableId {
                epoch: us / 1000,
                seq: 1,
                us,
            },
        }
    }

    /// Begins a new epoch.
    fn restart(&mut self, ctx: &mut Context<Self>) {
        let Some(last) = self.writer.last_durable else {
            return;
        };
        self.begin_epoch(None, ctx);
        let now = Timestamp::now().as_micros() as u64;
        let epoch = (now / 1000).max(last.epoch + 1);
        self.writer.last_durable = Some(DurableId {
            epoch,
            seq: 0,
            us: now,
        });
    }
}
