//! What HTTP and the [`Broker`](super::Broker) say to each other.

use std::net::IpAddr;

use bytes::Bytes;

use crate::access::Bearer;
use crate::protocol::{
    BackendKind, Cursor, DurableId, EventKind, LogLevel, Problem, RunId, Timestamp,
};

/// Where a stream begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamStart {
    /// All history kept, then live.
    Start,
    /// Only what is yet to come.
    Now,
    /// The last `n` events that pass the filter, then live.
    Last(u64),
    /// After a cursor.
    After(Cursor),
    /// A cursor was given that cannot be read: `gap` reason `bad_cursor`, then
    /// all history kept.
    BadCursor,
}

/// Which events a client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamFilter {
    /// The kinds wanted; empty means all.
    pub kinds: Vec<EventKind>,
    /// The sources wanted; empty means all.
    pub sources: Vec<String>,
    /// Least level of `log` events.
    pub log_level: LogLevel,
}

/// A client's wish for a stream, checked.
#[derive(Debug, Clone)]
pub struct StreamRequest {
    /// The run to follow.
    pub run_id: RunId,
    /// From where; `Embedded` stands in for `Redis` on an embedded broker.
    pub backend: BackendKind,
    /// Which events.
    pub filter: StreamFilter,
    /// From which place on.
    pub start: StreamStart,
    /// From where, for the limit per address.
    pub peer: Option<IpAddr>,
    /// Whose token it comes with: the stream ends with it.
    pub bearer: Option<Bearer>,
    /// Name of the ticket it comes with: taken last, when nothing else refuses
    /// the stream.
    pub ticket: Option<String>,
}

/// What a stream request is answered with.
#[derive(Debug)]
pub enum StreamAnswer<B> {
    /// 200 and this body.
    Stream(B),
    /// It cannot begin for now: 200 and this short body (`retry`, `problem`,
    /// `goodbye`) for who accepts a stream, the problem for others.
    Refused {
        /// What is wrong.
        problem: Problem,
        /// The same as a stream.
        body: B,
    },
    /// 204: the client has seen the run's `end`.
    Ended,
    /// 401: its ticket was used by somebody else meanwhile.
    TicketUsed,
}

/// One event of a `POST`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// Its kind.
    pub kind: EventKind,
    /// Its source; `""` for a status.
    pub source: String,
    /// Its payload, as a publisher would send it to Redis.
    pub payload: Bytes,
}

/// Why one event of a `POST` was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The run is over.
    #[error("the run is over; publish with ?restart=true to begin it anew")]
    Closed,
    /// A newer producer took over.
    #[error("a newer producer of the same name has taken over")]
    Fenced,
    /// The payload is over the limit.
    #[error("the event is larger than {limit} bytes")]
    TooLarge {
        /// `limits.max_event_bytes`, or the store's own.
        limit: u64,
    },
    /// The store answered something else, or not at all; the event may or may
    /// not have been accepted.
    #[error("it is unknown whether the event was accepted: {0}")]
    Unavailable(String),
}

/// What is known of one run.
#[derive(Debug, Clone)]
pub struct RunSummary {
    /// The run.
    pub run_id: RunId,
    /// Its hub's backend.
    pub backend: BackendKind,
    /// Data of its last `status` event in short: the status word.
    pub status: Option<String>,
    /// Whether `end` was sent.
    pub ended: bool,
    /// Streams open on this broker.
    pub clients: u64,
    /// Time of its last event.
    pub last_event_ts: Option<Timestamp>,
    /// Id of its last event.
    pub last_id: Option<String>,
}

/// What is known of one run, at length.
#[derive(Debug, Clone)]
pub struct RunDetail {
    /// In short.
    pub summary: RunSummary,
    /// Id of the oldest event kept.
    pub first_id: Option<String>,
    /// The epoch, of a run with durable events.
    pub epoch: Option<u64>,
    /// The last durable event that its hub here has sent on.
    pub last_durable: Option<DurableId>,
    /// Events seen by kind, in the order of [`EventKind::ALL`].
    pub events: [u64; 3],
    /// Those of them that were only published, and no store holds.
    pub plain_events: [u64; 3],
    /// The newest gaps as the JSON of their `gap` events, oldest first.
    pub gaps: Vec<String>,
    /// Why nothing comes, in plain words.
    pub quiet_because: String,
}

/// State of one dependency, for `/health`.
#[derive(Debug, Clone)]
pub struct DependencyHealth {
    /// Whether it can be used now.
    pub up: bool,
    /// Since when.
    pub since: Timestamp,
    /// The last error, if it is down.
    pub error: Option<String>,
    /// Time of the last probe's way there and back.
    pub latency_ms: Option<f64>,
}

impl DependencyHealth {
    /// A dependency that is well, as far as we know, from now on.
    pub(crate) fn up_now() -> Self {
        Self {
            up: true,
            since: Timestamp::now(),
            error: None,
            latency_ms: None,
        }
    }
}

/// An event that the store holds, or why it was refused.
pub type PublishResult = Result<Published, PublishError>;

/// An event that the store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Its id; `None` for a retry so late that the store forgot which event it
    /// repeats.
    pub id: Option<DurableId>,
    /// It was accepted before: this is a retry of its producer.
    pub is_duplicate: bool,
}

impl Published {
    /// An event just accepted.
    pub fn new(id: DurableId) -> Self {
        Self {
            id: Some(id),
            is_duplicate: false,
        }
    }
}

/// A failure before a stream or an answer begins.
pub type BrokerResult<T> = Result<T, Problem>;
