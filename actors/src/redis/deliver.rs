//! [`deliver`]: what was read in a turn goes to the hubs of its runs.

use std::sync::Arc;
use std::time::Instant;

use actix::prelude::SendError;
use tracing::debug;

use super::batches::Batches;
use crate::broker::BrokerShared;
use crate::hub::{Arrived, HubEntry, Incoming, Refused};
use crate::metrics::EventResult;
use crate::protocol::{BackendKind, EventKind, RunId};

/// Sends each run's messages to its hub.
pub(super) fn deliver(shared: &Arc<BrokerShared>, batches: &mut Batches, received_at: Instant) {
    for (run_id, messages) in batches.drain() {
        let run_id = std::str::from_utf8(&run_id).unwrap_or_default();
        let batch = Arrived {
            refused_before: Refused::NONE,
            messages,
            received_at,
        };
        let registry = &shared.registry;
        let mut batch = Some(batch);
        registry.with(BackendKind::Redis, run_id, |entry| {
            if let Some(batch) = batch.take() {
                send_to(shared, entry, batch);
            }
        });
        if let Some(batch) = batch {
            send_to_new(shared, run_id, batch);
        }
    }
}

fn send_to(shared: &BrokerShared, entry: &HubEntry, mut batch: Arrived) {
    batch.refused_before = entry.stats.take_refused();
    if let Err(refused) = entry.hub.try_send(batch) {
        shared.metrics.mailbox_refusals.inc();
        let (SendError::Full(batch) | SendError::Closed(batch)) = refused;
        let is_framed = |message: &Incoming| matches!(message, Incoming::Framed(_));
        let count = match batch.messages.iter().any(is_framed) {
            // Their own numbers tell how many are missing.
            true => Refused::UNKNOWN,
            false => Refused::count(batch.messages.len()),
        };
        entry.stats.refuse(batch.refused_before.and(count));
        count_all(shared, &batch.messages, EventResult::Refused);
    }
}

/// A run without a hub: nobody watches it here. A hub keeps its beginning
/// for a late viewer, if settings say so.
fn send_to_new(shared: &Arc<BrokerShared>, run_id: &str, batch: Arrived) {
    let retain = shared.settings.hub.retain_unwatched;
    let Some(run_id) = retain.then(|| RunId::parse(run_id).ok()).flatten() else {
        return count_all(shared, &batch.messages, EventResult::Unwatched);
    };
    let messages = batch.messages.len();
    let events = batch.messages.iter().filter(|message| message.is_event());
    let kinds: Vec<EventKind> = events.map(Incoming::kind).collect();
    let sent = shared.with_hub(BackendKind::Redis, &run_id, |entry| {
        send_to(shared, entry, batch);
    });
    if sent.is_none() {
        debug!(%run_id, dropped = messages, "no room for another hub");
        for kind in kinds {
            shared.metrics.event_in(kind, EventResult::Refused);
        }
    }
}

fn count_all(shared: &BrokerShared, messages: &[Incoming], result: EventResult) {
    for message in messages.iter().filter(|message| message.is_event()) {
        shared.metrics.event_in(message.kind(), result);
    }
}
