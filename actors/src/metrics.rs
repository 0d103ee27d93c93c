//! Counters of everything the actors do, and their form for a scrape.
//!
//! Hot-path counters live per worker ([`WorkerCounters`]) and are added up at
//! scrape; the rest is shared. Names and help texts stand here only; turning
//! them into Prometheus text is HTTP's work.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

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
    /// The hub's mailbox was full, or hubs are at their limit.
    Refused,
}

impl EventResult {
    /// All results, in the order used for counters.
    pub const ALL: [Self; 6] = [
        Self::Accepted,
        Self::Duplicate,
        Self::TooLarge,
        Self::Closed,
        Self::Unwatched,
        Self::Refused,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::TooLarge => "too_large",
            Self::Closed => "closed",
            Self::Unwatched => "unwatched",
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

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    /// Adds `count` where only one thread ever writes: no locked instruction.
    pub(crate) fn add_local(&self, count: u64) {
        self.0.store(self.0.load(Relaxed) + count, Relaxed);
    }

    /// Returns the number.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    /// Takes `count` off.
    pub fn sub(&self, count: u64) {
        self.0.fetch_sub(count, Relaxed);
    }

    /// Sets the number.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Returns the number.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Numbers of a closed set, one per member.
#[derive(Debug)]
pub struct PerMember<T, const N: usize>([T; N]);

impl<T: Default, const N: usize> Default for PerMember<T, N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| T::default()))
    }
}

/// Maps a member of a closed set to its place in `ALL`.
macro_rules! member_index {
    ($($set:ty),+) => {$(
        impl Member for $set {
            fn index(self) -> usize {
                Self::ALL.iter().position(|member| *member == self).unwrap_or(0)
            }
        }
    )+};
}

/// A member of a closed set that counters are kept for.
pub trait Member {
    /// Its place in the set.
    fn index(self) -> usize;
}

member_index!(
    EventKind,
    BackendKind,
    GapReason,
    CloseReason,
    EventResult,
    RejectReason
);

impl<T, const N: usize> PerMember<T, N> {
    /// Returns the number of `member`.
    pub fn of(&self, member: impl Member) -> &T {
        &self.0[member.index()]
    }
}

/// A histogram with fixed bounds; only one thread writes it.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    bounds: &'static [f64; N],
    buckets: [Counter; N],
    above: Counter,
    /// In millionths of the unit.
    sum_micro: Counter,
}

impl<const N: usize> Histogram<N> {
    fn new(bounds: &'static [f64; N]) -> Self {
        Self {
            bounds,
            buckets: std::array::from_fn(|_| Counter::default()),
            above: Counter::default(),
            sum_micro: Counter::default(),
        }
    }

    fn observe(&self, value: f64) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        self.buckets.get(at).unwrap_or(&self.above).add_local(1);
        self.sum_micro.add_local((value * 1e6) as u64);
    }
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
    /// Messages that belong to no run.
    pub rejected: PerMember<Counter, 5>,
}

/// Everything counted in one broker.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Streams open now, by backend.
    pub sessions_open: PerMember<Gauge, 3>,
    /// Streams opened, by backend.
    pub sessions_opened: PerMember<Counter, 3>,
    /// Streams closed, by reason.
    pub sessions_closed: PerMember<Counter, 8>,
    /// Stream requests answered with `problem` and `goodbye`, by reason.
    pub sessions_refused: PerMember<Counter, 8>,
    /// Hubs now, by backend.
    pub hubs: PerMember<Gauge, 3>,
    /// Idle hubs ended by their time.
    pub hubs_retired: Counter,
    /// Idle hubs ended to make room.
    pub hubs_evicted: Counter,
    /// Messages for runs by kind and result.
    pub events_in: PerMember<PerMember<Counter, 6>, 3>,
    /// Gaps told, by reason.
    pub gaps: PerMember<Counter, 10>,
    /// Bytes in all rings.
    pub ring_bytes: Gauge,
    /// Batches a full hub mailbox refused.
    pub mailbox_refusals: Counter,
    /// Batches a full worker inbox refused.
    pub inbox_refusals: Counter,
    /// Reads of stored history.
    pub store_reads: Counter,
    /// Actors that ended by a panic and were replaced.
    pub actor_restarts: Counter,
    /// The Redis side.
    pub redis: RedisCounters,
    workers: Mutex<Vec<Arc<WorkerCounters>>>,
}

impl Metrics {
    /// Adds a worker whose counters count in the totals from now on.
    pub(crate) fn add_worker(&self) -> Arc<WorkerCounters> {
        let counters = Arc::new(WorkerCounters::default());
        self.lock_workers().push(Arc::clone(&counters));
        counters
    }

    fn lock_workers(&self) -> std::sync::MutexGuard<'_, Vec<Arc<WorkerCounters>>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an event that arrived for a run.
    pub fn event_in(&self, kind: EventKind, result: EventResult) {
        self.events_in.of(kind).of(result).inc();
    }

    /// Returns all families for a scrape.
    pub fn families(&self) -> Vec<Family> {
        let mut out = Families::default();
        self.session_families(&mut out);
        self.hub_families(&mut out);
        self.worker_families(&mut out);
        self.redis_families(&mut out);
        out.0
    }

    fn session_families(&self, out: &mut Families) {
        let by_backend = |numbers: &dyn Fn(BackendKind) -> u64| {
            BackendKind::ALL.map(|backend| (vec![("backend", backend.as_str())], numbers(backend)))
        };
        out.gauge(
            "runcast_sessions",
            "Streams open now.",
            by_backend(&|backend| self.sessions_open.of(backend).get()),
        );
        out.counter(
            "runcast_sessions_opened_total",
            "Streams opened.",
            by_backend(&|backend| self.sessions_opened.of(backend).get()),
        );
        let by_reason = |numbers: &PerMember<Counter, 8>| {
            CloseReason::ALL
                .map(|reason| (vec![("reason", reason.as_str())], numbers.of(reason).get()))
        };
        out.counter(
            "runcast_sessions_closed_total",
            "Streams closed.",
            by_reason(&self.sessions_closed),
        );
        out.counter(
            "runcast_sessions_refused_total",
            "Stream requests answered with problem and goodbye.",
            by_reason(&self.sessions_refused),
        );
    }

    fn hub_families(&self, out: &mut Families) {
        out.gauge(
            "runcast_hubs",
            "Run hubs now.",
            BackendKind::ALL.map(|backend| {
                (
                    vec![("backend", backend.as_str())],
                    self.hubs.of(backend).get(),
                )
            }),
        );
        out.counter(
            "runcast_events_in_total",
            "Messages that arrived for runs, by kind and what became of them.",
            EventKind::ALL.into_iter().flat_map(|kind| {
                EventResult::ALL.map(|result| {
                    (
                        vec![("kind", kind.as_str()), ("result", result.as_str())],
                        self.events_in.of(kind).of(result).get(),
                    )
                })
            }),
        );
        out.counter(
            "runcast_gaps_total",
            "Gaps told: per run where all clients of a hub are told, else per client.",
            GapReason::ALL.map(|reason| {
                (
                    vec![("reason", reason.as_str())],
                    self.gaps.of(reason).get(),
                )
            }),
        );
        out.gauge(
            "runcast_ring_bytes",
            "Bytes in the rings of all hubs.",
            [(vec![], self.ring_bytes.get())],
        );
        for (name, help, counter) in [
            (
                "runcast_hubs_retired_total",
                "Idle hubs ended by their time.",
                &self.hubs_retired,
            ),
            (
                "runcast_hubs_evicted_total",
                "Idle hubs ended to make room.",
                &self.hubs_evicted,
            ),
            (
                "runcast_mailbox_refusals_total",
                "Batches a full hub mailbox refused.",
                &self.mailbox_refusals,
            ),
            (
                "runcast_inbox_refusals_total",
                "Batches a full worker inbox refused.",
                &self.inbox_refusals,
            ),
            (
                "runcast_store_reads_total",
                "Reads of stored history.",
                &self.store_reads,
            ),
            (
                "runcast_actor_restarts_total",
                "Actors that ended by a panic and were replaced.",
                &self.actor_restarts,
            ),
        ] {
            out.counter(name, help, [(vec![], counter.get())]);
        }
    }

    fn worker_families(&self, out: &mut Families) {
        let workers = self.lock_workers();
        let total = |pick: &dyn Fn(&WorkerCounters) -> u64| {
            [(vec![], workers.iter().map(|worker| pick(worker)).sum())]
        };
        out.counter(
            "runcast_deliveries_total",
            "Events handed to client sockets.",
            total(&|worker| worker.deliveries.get()),
        );
        out.counter(
            "runcast_delivered_bytes_total",
            "Bytes handed to client sockets.",
            total(&|worker| worker.bytes.get()),
        );
        out.counter(
            "runcast_heartbeats_total",
            "Heartbeat events handed to client sockets.",
            total(&|worker| worker.heartbeats.get()),
        );
        out.histogram(
            "runcast_chunk_bytes",
            "Sizes of the chunks handed to client sockets.",
            &CHUNK_BOUNDS,
            workers.iter().map(|worker| &worker.chunk_bytes),
        );
        out.histogram(
            "runcast_delivery_lag_seconds",
            "Time from reading an event from its source to handing it to a socket; one chunk in 8.",
            &LAG_BOUNDS,
            workers.iter().map(|worker| &worker.lag_seconds),
        );
    }

    fn redis_families(&self, out: &mut Families) {
        let redis = &self.redis;
        for (name, help, gauge) in [
            (
                "runcast_redis_up",
                "Whether the subscription is confirmed.",
                &redis.up,
            ),
            (
                "runcast_redis_queue_messages",
                "Messages read and not yet routed.",
                &redis.queue_messages,
            ),
            (
                "runcast_redis_queue_bytes",
                "Payload bytes read and not yet routed.",
                &redis.queue_bytes,
            ),
        ] {
            out.gauge(name, help, [(vec![], gauge.get())]);
        }
        for (name, help, counter) in [
            (
                "runcast_redis_subscribes_total",
                "Subscriptions confirmed.",
                &redis.subscribes,
            ),
            (
                "runcast_redis_disconnects_total",
                "Subscriptions lost.",
                &redis.disconnects,
            ),
            (
                "runcast_redis_probes_total",
                "Probes sent to ourselves.",
                &redis.probes,
            ),
            (
                "runcast_redis_probe_misses_total",
                "Probes not echoed in time.",
                &redis.probe_misses,
            ),
            (
                "runcast_redis_messages_total",
                "Messages read from the subscription.",
                &redis.messages,
            ),
            (
                "runcast_redis_bytes_total",
                "Payload bytes read from the subscription.",
                &redis.bytes,
            ),
            (
                "runcast_redis_queue_overflows_total",
                "Messages dropped because the queue before routing was full.",
                &redis.queue_overflows,
            ),
            (
                "runcast_redis_publishes_total",
                "Events given to runcast_publish.",
                &redis.publishes,
            ),
            (
                "runcast_redis_publish_failures_total",
                "Events that runcast_publish did not answer for.",
                &redis.publish_failures,
            ),
        ] {
            out.counter(name, help, [(vec![], counter.get())]);
        }
        out.counter(
            "runcast_redis_rejected_total",
            "Messages that belong to no run.",
            RejectReason::ALL.map(|reason| {
                (
                    vec![("reason", reason.as_str())],
                    redis.rejected.of(reason).get(),
                )
            }),
        );
    }
}

/// A metric with all its samples.
#[derive(Debug, Clone)]
pub struct Family {
    /// Prometheus name.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// What its samples are.
    pub samples: Samples,
}

/// Label names and values of one sample.
pub type Labels = Vec<(&'static str, &'static str)>;

/// The samples of a [`Family`].
#[derive(Debug, Clone)]
pub enum Samples {
    /// Numbers that only grow.
    Counter(Vec<(Labels, f64)>),
    /// Numbers that go up and down.
    Gauge(Vec<(Labels, f64)>),
    /// One histogram.
    Histogram {
        /// Upper bounds and how many observations lie at or below each.
        buckets: Vec<(f64, u64)>,
        /// All observations.
        count: u64,
        /// Their sum.
        sum: f64,
    },
}

/// Families as they are gathered.
#[derive(Debug, Default)]
pub struct Families(pub Vec<Family>);

impl Families {
    /// Adds a counter.
    pub fn counter(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Labels, u64)>,
    ) {
        let samples = samples.into_iter().map(|(l, value)| (l, value as f64));
        self.0.push(Family {
            name,
            help,
            samples: Samples::Counter(samples.collect()),
        });
    }

    /// Adds a gauge.
    pub fn gauge(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Labels, u64)>,
    ) {
        let samples = samples.into_iter().map(|(l, value)| (l, value as f64));
        self.0.push(Family {
            name,
            help,
            samples: Samples::Gauge(samples.collect()),
        });
    }

    fn histogram<'a, const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        bounds: &'static [f64; N],
        parts: impl Iterator<Item = &'a Histogram<N>>,
    ) {
        let mut counts = [0; N];
        let (mut count, mut sum_micro) = (0, 0);
        for part in parts {
            for (total, bucket) in counts.iter_mut().zip(&part.buckets) {
                *total += bucket.get();
            }
            count += part.above.get();
            sum_micro += part.sum_micro.get();
        }
        let mut below = 0;
        let buckets = bounds.iter().zip(counts).map(|(bound, bucket)| {
            below += bucket;
            (*bound, below)
        });
        let buckets: Vec<_> = buckets.collect();
        self.0.push(Family {
            name,
            help,
            samples: Samples::Histogram {
                buckets,
                count: count + below,
                sum: sum_micro as f64 / 1e6,
            },
        });
    }
}
