//! What a [`RunHub`](super::RunHub) is told and asked.

use std::sync::Arc;
use std::time::Instant;

use actix::Message;
use bytes::Bytes;

use super::failover::Seed;
use super::{HubEntry, HubStats, Refused};
use crate::broker::RunDetail;
use crate::protocol::{Cursor, DurableId, EventKind, TracedEvent};
use crate::store::StoredEvent;
use crate::worker::{AttachId, Inbox, RunMessage, WorkerMessage};

/// A message as the subscriber read it, its channel already split.
#[derive(Debug, Clone)]
pub enum Incoming {
    /// A plain publish.
    Plain {
        /// The channel's kind.
        kind: EventKind,
        /// The whole channel name.
        channel: Bytes,
        /// Where in it the source begins.
        source_start: usize,
        /// What was published.
        payload: Bytes,
    },
    /// A durable event's framed copy, header included.
    Framed(Bytes),
    /// A durable event that this process's own store accepted.
    Stored(StoredEvent),
    /// A plain publish over `limits.max_event_bytes`; its payload is gone.
    TooLarge(EventKind),
}

impl Incoming {
    /// Whether it is an event, and not what is announced before one.
    pub(crate) fn is_event(&self) -> bool {
        !matches!(self, Self::Framed(bytes) if TracedEvent::is_begun_by(bytes))
    }

    /// The kind it is counted under; a framed one tells its own only when it
    /// is parsed, and counts as output until then.
    pub(crate) fn kind(&self) -> EventKind {
        match self {
            Self::Plain { kind, .. } | Self::TooLarge(kind) => *kind,
            Self::Framed(_) => EventKind::Output,
            Self::Stored(event) => event.kind,
        }
    }
}

/// Messages of one run, read together. Sent with `try_send`; a refusal is
/// counted in the hub's stats: the hub reads the store, and tells of plain events
/// by `gap` reason `overflow`.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Arrived {
    /// What the mailbox refused right before them.
    pub refused_before: Refused,
    /// In the order of arrival.
    pub messages: Vec<Incoming>,
    /// When the first of them was read.
    pub received_at: Instant,
}

/// The subscription was lost, or is back after it was.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Disconnected {
    /// It is back: what was missed can be read now.
    pub is_back: bool,
}

/// Plain messages may be missing that nobody could record
/// (`history.record_plain`).
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct RecordingBroke;

/// The store's last id of the run.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct StorePosition {
    /// `None`: the store does not know the run.
    pub last: Option<DurableId>,
    /// It was asked after the subscription was back: a difference is believed
    /// at once.
    pub sure: bool,
}

/// The queue before the hubs dropped messages of unknown runs, or batches of
/// this run were refused.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Overflowed(pub Refused);

/// The run is subscribed to in its shard from now on; what was published before
/// may not have come.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct ShardSubscribed;

/// A worker's first client of the run came: send the log, then what follows.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Attach {
    /// Names the attachment in every answer.
    pub attach_id: AttachId,
    /// Where to answer; `None` once the hub has taken it.
    pub inbox: Option<Arc<Inbox>>,
}

impl Drop for Attach {
    /// A hub that ends with this in its mailbox never answers it.
    fn drop(&mut self) {
        if let Some(inbox) = self.inbox.take() {
            inbox.push(WorkerMessage::Run(self.attach_id, RunMessage::Lost));
        }
    }
}

/// A worker's last client of the run left.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Detach {
    /// Of [`Attach`].
    pub attach_id: AttachId,
}

/// Pass on to this hub, which serves the run to `auto`, all that arrives; first
/// what the run is by now.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Mirror(pub(crate) Option<HubEntry>);

impl Drop for Mirror {
    /// A hub that ends with this in its mailbox passes nothing on.
    fn drop(&mut self) {
        if let Some(entry) = self.0.take() {
            #[expect(
                clippy::disallowed_methods,
                reason = "one per hub, and it must not be refused"
            )]
            entry.hub.do_send(MirroredEnded);
        }
    }
}

/// The hub that asked for [`Mirror`], known by its stats, ends.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Unmirror(pub(crate) Arc<HubStats>);

/// What a hub that asked for [`Mirror`] begins with.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Seeded(pub(super) Box<Seed>);

/// The hub that was mirrored ended.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct MirroredEnded;

/// Panic, as a test asks.
#[cfg(test)]
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Panic;

/// What is known of the run?
#[derive(Debug, Message)]
#[rtype(result = "RunDetail")]
pub struct Describe;

/// Has a client with this cursor seen the run's `end`?
#[derive(Debug, Message)]
#[rtype(result = "bool")]
pub struct HasSeenEnd(pub Cursor);

/// End, if idle for long enough, or because the registry has dropped it.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Retire {
    /// It was taken out of the registry to make room: this many bytes.
    pub evicted_bytes: Option<u64>,
}
