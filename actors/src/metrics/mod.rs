//! Counters of everything the actors do, and their form for a scrape.
//!
//! Hot-path counters live per worker ([`WorkerCounters`]) and are added up at
//! scrape; the rest is shared. Names and help texts stand here only; turning
//! them into Prometheus text is HTTP's work.

mod counters;
mod exemplar;
mod families;
mod limit;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use counters::{Counter, Gauge, Histogram, Member, PerMember};
pub use exemplar::Exemplar;
pub use families::{DELIVERY_LAG, Families, Family, Labels, Samples};
pub use limit::Limit;

use crate::protocol::{BackendKind, EventKind, GapReason};
use crate::session::CloseReason;

/// What became of a message that arrived for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventResult {
    /// Written to its hub's log.
    Accepted,
    /// Delivered before under the same id.
    Duplicate,
    /// Over a size limit.
    TooLarge,
    /// The run is over.
    Closed,
    /// Nobody watches the run, and unwatched runs are not retained.
    Unwatched,
    /// Live order has a hole before it: it is read from the store.
    Left,
    /// The hub's mailbox was full, or hubs are at their limit.
    Refused,
}

impl EventResult {
    /// All results, in the order used for counters.
    pub const ALL: [Self; 7] = [
        Self::Accepted,
        Self::Duplicate,
        Self::TooLarge,
        Self::Closed,
        Self::Unwatched,
        Self::Left,
        Self::Refused,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::TooLarge => "too_large",
            Self::Closed => "closed",
            Self::Unwatched => "unwatched",
            Self::Left => "left",
            Self::Refused => "refused",
        }
    }
}

/// Why a Redis message belongs to no run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectReason {
    /// The channel is none of ours.
    ForeignChannel,
    /// The channel is not UTF-8.
    ChannelNotUtf8,
    /// The channel's run id is none.
    BadRunId,
    /// The channel names no kind.
    UnknownKind,
    /// A message on a framed channel that the function did not write.
    BadFrame,
}

impl RejectReason {
    /// All reasons, in the order used for counters.
    pub const ALL: [Self; 5] = [
        Self::ForeignChannel,
        Self::ChannelNotUtf8,
        Self::BadRunId,
        Self::UnknownKind,
        Self::BadFrame,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::ForeignChannel => "foreign_channel",
            Self::ChannelNotUtf8 => "channel_not_utf8",
            Self::BadRunId => "bad_run_id",
            Self::UnknownKind => "unknown_kind",
            Self::BadFrame => "bad_frame",
        }
    }
}

/// Why a stream of `auto` went on from the other backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// To kubectl: Redis cannot be used.
    RedisDown,
    /// To kubectl: Redis knows nothing of the run.
    NoPublisher,
    /// To Redis: it can be used again.
    RedisUp,
    /// To Redis: the run is there now.
    Publisher,
}

impl Switch {
    /// All reasons, in the order used for counters.
    pub const ALL: [Self; 4] = [
        Self::RedisDown,
        Self::NoPublisher,
        Self::RedisUp,
        Self::Publisher,
    ];

    /// Returns the word used in the `source` event and as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RedisDown => "redis-down",
            Self::NoPublisher => "no-publisher",
            Self::RedisUp => "redis-up",
            Self::Publisher => "publisher",
        }
    }

    pub(crate) fn to(self) -> BackendKind {
        match self {
            Self::RedisDown | Self::NoPublisher => BackendKind::Kubectl,
            Self::RedisUp | Self::Publisher => BackendKind::Redis,
        }
    }
}

/// What hubs that serve `auto` do.
#[derive(Debug, Default)]
pub struct AutoCounters {
    /// Streams of runs that went on from the other backend.
    pub switches: PerMember<Counter, { Switch::ALL.len() }>,
    /// Runs whose `auto` streams come from kubectl now.
    pub failed_over: Gauge,
    /// Lines and events not shown because their like was.
    pub matched: Counter,
    /// Lines shown.
    pub shown: Counter,
}

const LAG_BOUNDS: [f64; 12] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5,
];
const CHUNK_BOUNDS: [f64; 7] = [256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 65536.0];

/// What one worker delivers. Written by that worker only.
#[derive(Debug)]
pub struct WorkerCounters {
    /// Events handed to sockets.
    pub deliveries: Counter,
    /// Bytes of chunks handed to sockets, control frames included.
    pub bytes: Counter,
    /// `heartbeat` events handed to sockets.
    pub heartbeats: Counter,
    chunk_bytes: Histogram<7>,
    lag_seconds: Histogram<12>,
    chunks: Counter,
    lag_exemplar: Mutex<Option<Exemplar>>,
}

impl Default for WorkerCounters {
    fn default() -> Self {
        Self {
            deliveries: Counter::default(),
            bytes: Counter::default(),
            heartbeats: Counter::default(),
            chunk_bytes: Histogram::new(&CHUNK_BOUNDS),
            lag_seconds: Histogram::new(&LAG_BOUNDS),
            chunks: Counter::default(),
            lag_exemplar: Mutex::default(),
        }
    }
}

impl WorkerCounters {
    /// One chunk in 8 has its lag measured: reading the clock for each would
    /// be dear beside the rest of a delivery.
    const LAG_SAMPLE: u64 = 8;

    /// Counts a chunk of log frames handed to a socket.
    pub(crate) fn delivered(&self, events: u64, bytes: usize, lag: impl FnOnce() -> Duration) {
        self.deliveries.add_local(events);
        self.bytes.add_local(bytes as u64);
        self.chunk_bytes.observe(bytes as f64);
        if self.chunks.get().is_multiple_of(Self::LAG_SAMPLE) {
            self.lag_seconds.observe(lag().as_secs_f64());
        }
        self.chunks.add_local(1);
    }

    /// Notes the lag of an event that is traced.
    pub(crate) fn note_traced_lag(&self, exemplar: Exemplar) {
        *self.lock_lag_exemplar() = Some(exemplar);
    }

    fn lock_lag_exemplar(&self) -> std::sync::MutexGuard<'_, Option<Exemplar>> {
        let exemplar = self.lag_exemplar.lock();
        exemplar.unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a chunk of control frames handed to a socket.
    pub(crate) fn sent_control(&self, bytes: usize) {
        self.bytes.add_local(bytes as u64);
    }
}

/// What the Redis side counts.
#[derive(Debug, Default)]
pub struct RedisCounters {
    /// 1 while the subscription is confirmed.
    pub up: Gauge,
    /// Subscriptions confirmed.
    pub subscribes: Counter,
    /// Subscriptions lost.
    pub disconnects: Counter,
    /// Probes sent.
    pub probes: Counter,
    /// Probes not echoed in time.
    pub probe_misses: Counter,
    /// Messages read from the subscription.
    pub messages: Counter,
    /// Payload bytes read from the subscription.
    pub bytes: Counter,
    /// Messages that wait to be routed.
    pub queue_messages: Gauge,
    /// Payload bytes that wait to be routed.
    pub queue_bytes: Gauge,
    /// Messages dropped because that queue was full.
    pub queue_overflows: Counter,
    /// Calls of `runcast_publish` by whether they were answered.
    pub publishes: Counter,
    /// Calls of `runcast_publish` that failed.
    pub publish_failures: Counter,
    /// Runs whose events did not arrive although the subscription looked well.
    pub positions_off: Counter,
    /// Runs subscribed to in their shards, or about to be.
    pub shard_runs: Gauge,
    /// Those of them that their shard has not confirmed.
    pub shard_pending: Gauge,
    /// Messages that belong to no run.
    pub rejected: PerMember<Counter, { RejectReason::ALL.len() }>,
}

/// What the recorder of plain messages counts; all of it stands still while
/// `history.record_plain` is off.
#[derive(Debug, Default)]
pub struct RecorderCounters {
    /// 1 while this broker records.
    pub is_recorder: Gauge,
    /// 1 while it could take over from a recorder that dies, without a loss.
    pub is_standby: Gauge,
    /// How often it became the recorder.
    pub takeovers: Counter,
    /// Messages it had then that were not seen to be recorded.
    pub taken_over: Counter,
    /// Messages it recorded.
    pub recorded: Counter,
    /// Messages whose recorded copy it saw, whoever recorded them.
    pub matched: Counter,
    /// Messages that it could not record.
    pub dropped: Counter,
    /// How often all brokers may have missed messages.
    pub breaks: Counter,
    /// Messages kept until they are recorded.
    pub messages: Gauge,
    /// What they take, in bytes.
    pub bytes: Gauge,
}

/// What the archive counts; all of it stands still while there is none.
#[derive(Debug, Default)]
pub struct ArchiveCounters {
    /// Runs that wait to be written.
    pub queue: Gauge,
    /// Runs that found no room there, and are left to a sweep.
    pub queue_overflows: Counter,
    /// Runs being written.
    pub writing: Gauge,
    /// Runs written.
    pub written: Counter,
    /// Bytes of these objects.
    pub written_bytes: Counter,
    /// Attempts to write one that failed, and are repeated.
    pub write_failures: Counter,
    /// Runs whose history went before it was written.
    pub lost: Counter,
    /// Reads of objects.
    pub reads: Counter,
    /// Bytes read of objects.
    pub read_bytes: Counter,
    /// Pages served from the archive.
    pub served: Counter,
    /// Pages that could not be read.
    pub read_failures: Counter,
    /// Runs looked for that are not there.
    pub missing: Counter,
    /// Objects, when this broker last counted them.
    pub objects: Gauge,
    /// Their bytes.
    pub bytes: Gauge,
    /// Objects removed for their age.
    pub removed_for_age: Counter,
    /// Objects removed since all took too much.
    pub removed_for_size: Counter,
    /// Looks through all objects that failed.
    pub retention_failures: Counter,
}

/// What the store of runs counts. Under a load without faults `reads` stand
/// still: no live event is read.
#[derive(Debug, Default)]
pub struct StoreCounters {
    /// Pages read.
    pub reads: Counter,
    /// Those for clients that waited for `history.read_rate`.
    pub reads_paced: Counter,
    /// Events in pages.
    pub read_events: Counter,
    /// Reads of pages or positions that failed.
    pub read_failures: Counter,
    /// Reads of the positions of runs, of many at a time.
    pub checks: Counter,
    /// Runs the embedded store knows now.
    pub runs: Gauge,
    /// What they take together, in bytes.
    pub bytes: Gauge,
    /// Runs it forgot to make room.
    pub evicted_runs: Counter,
}

/// Panics of this process, of whatever task; counted by its panic hook.
pub static PANICS: Counter = Counter::new();

/// Everything counted in one broker.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Streams open now, by backend.
    pub sessions_open: PerMember<Gauge, { BackendKind::ALL.len() }>,
    /// Streams opened, by backend.
    pub sessions_opened: PerMember<Counter, { BackendKind::ALL.len() }>,
    /// Streams closed, by backend and reason.
    pub sessions_closed:
        PerMember<PerMember<Counter, { CloseReason::ALL.len() }>, { BackendKind::ALL.len() }>,
    /// Stream requests answered with `problem` and `goodbye`, by reason.
    pub sessions_refused: PerMember<Counter, { CloseReason::ALL.len() }>,
    /// Who was refused at a limit, by the limit.
    pub refusals: PerMember<Counter, { Limit::ALL.len() }>,
    /// What is shed because memory is short: 0 nothing, 1 idle rings, 2 log
    /// events of slow clients, 3 new streams.
    pub memory_pressure: Gauge,
    /// Clients that fell behind and get no log events since, as memory was
    /// short.
    pub logs_shed: Counter,
    /// Hubs now, by backend.
    pub hubs: PerMember<Gauge, { BackendKind::ALL.len() }>,
    /// Idle hubs ended by their time.
    pub hubs_retired: Counter,
    /// Idle hubs ended to make room.
    pub hubs_evicted: Counter,
    /// Runs listed whose hub is gone.
    pub past_runs: Gauge,
    /// Messages for runs by kind and result.
    pub events_in:
        PerMember<PerMember<Counter, { EventResult::ALL.len() }>, { EventKind::ALL.len() }>,
    /// Gaps told, by reason.
    pub gaps: PerMember<Counter, { GapReason::ALL.len() }>,
    /// Bytes in all rings.
    pub ring_bytes: Gauge,
    /// Bytes of pages on their way to clients that are not in their log yet.
    pub paged_bytes: Gauge,
    /// Live events dropped, to be read later, because too many were held while
    /// a store was read.
    pub held_overflows: Counter,
    /// Batches a full hub mailbox refused.
    pub mailbox_refusals: Counter,
    /// Batches a full worker inbox refused.
    pub inbox_refusals: Counter,
    /// Actors that ended by a panic and were replaced.
    pub actor_restarts: Counter,
    /// Subjects and tokens revoked that the broker knows.
    pub revocations: Gauge,
    /// Reads of what is revoked that failed.
    pub revocation_read_failures: Counter,
    /// Hubs that ended by a panic.
    pub hub_panics: Counter,
    /// Runs not served because their hubs panicked again and again.
    pub quarantined_runs: Gauge,
    /// Streams of `auto`.
    pub auto: AutoCounters,
    /// The Redis side.
    pub redis: RedisCounters,
    /// The store of runs.
    pub store: StoreCounters,
    /// The recorder of plain messages.
    pub recorder: RecorderCounters,
    /// The archive.
    pub archive: ArchiveCounters,
    workers: Mutex<Vec<Arc<WorkerCounters>>>,
}

impl Metrics {
    /// Adds a worker whose counters count in the totals from now on.
    pub(crate) fn add_worker(&self) -> Arc<WorkerCounters> {
        let counters = Arc::new(WorkerCounters::default());
        self.lock_workers().push(Arc::clone(&counters));
        counters
    }

    /// Takes the newest exemplar of each worker for [`DELIVERY_LAG`].
    pub fn take_lag_exemplars(&self) -> Vec<Exemplar> {
        let workers = self.lock_workers();
        let exemplars = workers.iter();
        exemplars
            .filter_map(|worker| worker.lock_lag_exemplar().take())
            .collect()
    }

    fn lock_workers(&self) -> std::sync::MutexGuard<'_, Vec<Arc<WorkerCounters>>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an event that arrived for a run.
    pub fn event_in(&self, kind: EventKind, result: EventResult) {
        self.events_in.of(kind).of(result).inc();
    }
}
