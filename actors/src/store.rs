//! [`RunStore`]: the boundary to where a run's durable events are kept.
//!
//! Two implementations: [`RedisStore`](crate::redis::RedisStore), a stream per
//! run, and the embedded backend's, in memory. Hubs, sessions and HTTP know
//! only this.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{LocalBoxFuture, ready};

use crate::broker::{NewEvent, PublishResult};
use crate::protocol::{DurableId, EventKind, RunId, TraceContext};

/// Where a run's durable events are kept. Each call has a deadline of its own
/// (`redis.command_timeout`); calls made together travel together.
pub trait RunStore: Send + Sync {
    /// Appends a batch to a run in order, under ids without holes. One result
    /// for each event.
    fn append<'a>(
        &'a self,
        run_id: &'a RunId,
        batch: AppendBatch,
    ) -> StoreFuture<'a, AppendResults>;

    /// Reads a page of a run's history and the state of the run, both of one
    /// moment.
    fn read<'a>(&'a self, run_id: &'a RunId, query: PageQuery) -> StoreFuture<'a, Page>;

    /// Claims a post with a key, so that it is published once, whichever
    /// broker it is sent to and however often.
    ///
    /// A store of one process leaves that to it: nobody else takes its posts.
    fn claim<'a>(&'a self, _: &'a RunId, _: &'a PostClaim) -> StoreFuture<'a, Claimed> {
        Box::pin(ready(Ok(Claimed::Mine(None))))
    }

    /// Keeps the answer of a post claimed, for all that repeat it. `None`: it
    /// is not final, and whoever repeats the post may publish it.
    fn settle<'a>(
        &'a self,
        _: &'a RunId,
        _: &'a PostClaim,
        _: Lease,
        _: Option<String>,
    ) -> StoreFuture<'a, ()> {
        Box::pin(ready(Ok(())))
    }

    /// Reads the last id of each run; `None` for a run it does not know.
    fn positions<'a>(&'a self, run_ids: &'a [RunId]) -> StoreFuture<'a, Vec<Option<DurableId>>>;
}

/// What a store answers, or why it cannot.
pub type StoreFuture<'a, T> = LocalBoxFuture<'a, Result<T, StoreError>>;

/// One result for each event of a batch.
pub type AppendResults = Vec<PublishResult>;

/// Events to append together.
#[derive(Debug, Clone, Default)]
pub struct AppendBatch {
    /// In order.
    pub events: Vec<NewEvent>,
    /// Begin the run anew, under a new epoch, with the first of them.
    pub restart: bool,
    /// Who publishes them, if that is to be exact.
    pub producer: Option<Producer>,
    /// What their delivery belongs to, if that is recorded.
    pub trace: Option<TraceContext>,
}

/// A publisher that numbers its events: a retry is no second event, an older
/// process of the same name is fenced off, a jump in its numbers is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Producer {
    /// Its name in the run: 1–64 of `A-Z a-z 0-9 . _ -`.
    pub id: String,
    /// Grows with each of its processes; a lower one is fenced.
    pub epoch: u64,
    /// Its number of the batch's first event, from 1; the others follow on.
    pub first_seq: u64,
}

/// A post that is to be published once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostClaim {
    /// Stands for its key, in the run: hexadecimal digits.
    pub key: String,
    /// Stands for all it asks for: hexadecimal digits.
    pub fingerprint: String,
    /// Name of the [`Producer`] that publishes its events, numbered from 1 in
    /// epoch 1.
    pub producer: String,
    /// How long its answer is kept.
    pub ttl: Duration,
}

/// What became of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// Publish it: as its producer, then settle; `None`: without either.
    Mine(Option<Lease>),
    /// Another broker is about to publish it.
    Busy,
    /// It was published; its answer.
    Settled(String),
    /// The key stands for another post.
    Other,
}

/// The right to publish a claimed post, for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// How often the post was claimed.
    pub turn: u64,
}

/// Which part of a run's history to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageQuery {
    /// From where, in which direction.
    pub from: PageFrom,
    /// Most events of the page, at least 1.
    pub events_max: usize,
    /// The page ends once its payloads hold as many bytes; one event always
    /// fits.
    pub bytes_max: usize,
}

/// Where a page lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageFrom {
    /// The oldest events with a seq above this one; 0: the oldest kept.
    After(u64),
    /// The newest events with a seq below this one; `u64::MAX`: the newest.
    Before(u64),
}

/// A page of a run's history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The run's state; `None` for a run the store does not know (then the
    /// rest is empty).
    pub head: Option<Head>,
    /// The oldest event kept.
    pub first: Option<DurableId>,
    /// The event at the very seq that the page begins after, or ends before,
    /// if it is kept: who has seen that seq compares its `us`.
    pub anchor: Option<DurableId>,
    /// The events, oldest first, whichever the direction.
    pub events: Vec<StoredEvent>,
    /// More events lie beyond, in the direction asked for.
    pub more: bool,
}

/// The state of a run in its store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The last event accepted, kept or not. Of an epoch without events, `seq`
    /// and `us` are 0.
    pub last: DurableId,
    /// Events accepted in this epoch, in the order of [`EventKind::ALL`].
    pub counts: [u64; 3],
    /// The last status in short, as a word of at most 64 characters.
    pub status: Option<String>,
    /// Set once a terminal status was accepted.
    pub closed: Option<Closed>,
    /// The store's clock at this moment, in µs.
    pub now_us: u64,
}

/// A run that is over, or is about to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// The terminal status, in lower case.
    pub status: String,
    /// When it was accepted, in µs of the store's clock.
    pub at_us: u64,
    /// When the grace for late output ends, in µs of the store's clock:
    /// nothing is accepted after it.
    pub sealed_us: u64,
}

impl Head {
    /// Whether nothing will ever be accepted any more in this epoch.
    pub fn is_sealed(&self) -> bool {
        let sealed = self.closed.as_ref().map(|closed| closed.sealed_us);
        sealed.is_some_and(|sealed_us| self.now_us > sealed_us)
    }
}

/// One event as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its id.
    pub id: DurableId,
    /// How many events its producer numbered but never got through before it.
    pub lost: u64,
    /// Its kind.
    pub kind: EventKind,
    /// Its source.
    pub source: String,
    /// What was published.
    pub payload: Bytes,
    /// What its delivery belongs to.
    pub trace: Option<TraceContext>,
}

/// The store cannot answer now; asking again later may help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the store does not answer: {0}")]
pub struct StoreError(pub String);
