//! The settings sections that the actors read, as plain typed values.
//!
//! Each part is handed only its own section. Reading files, the environment
//! and flags, and checking values against each other, is the root package's
//! work (`src/settings`); here are only the types and the defaults.

use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::protocol::{LogLevel, RunId};

mod archive;
mod kubectl_engine;
mod live;
mod redis_place;
mod redis_url;

pub use archive::ArchiveSettings;
pub use kubectl_engine::{KubeconfigChoice, KubectlEngine};
pub(crate) use live::LiveReader;
pub use live::{Live, LiveSettings};
pub use redis_place::{RedisPlace, SentinelPlace};
pub(crate) use redis_place::{tcp_address, with_tls};
pub use redis_url::{BadRedisUrl, RedisUrl};

/// `[redis]`: where events come from and how a dead link is noticed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisSettings {
    /// Where Redis is, and of which kind.
    pub url: RedisUrl,
    /// File of the certificates trusted under TLS, as PEM; empty: the system's.
    pub tls_ca: String,
    /// File of our own certificate, as PEM; empty: none.
    pub tls_cert: String,
    /// File of its private key, as PEM.
    pub tls_key: String,
    /// What every channel and key begins with; `PSUBSCRIBE <prefix>*`.
    pub channel_prefix: String,
    /// How often the subscription is probed with a message to ourselves; two
    /// probes without an echo mean the link is dead.
    #[serde(with = "humantime_serde")]
    pub probe_interval: Duration,
    /// How often the last ids of watched runs are compared with the store's.
    #[serde(with = "humantime_serde")]
    pub check_interval: Duration,
    /// How long one connection attempt may take.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// How long one command may wait for its answer.
    #[serde(with = "humantime_serde")]
    pub command_timeout: Duration,
    /// Longest pause between two attempts to reconnect (jittered).
    #[serde(with = "humantime_serde")]
    pub reconnect_max_delay: Duration,
    /// Messages read from Redis and not yet routed; past either bound further
    /// ones are dropped: every run reads the store, and plain events are told
    /// by `gap` reason `overflow`.
    pub queue_messages: usize,
    /// The same bound in bytes.
    pub queue_bytes: ByteSize,
    /// Whether durable events of a Cluster go only where somebody watches.
    pub sharded_pubsub: ShardedPubSub,
}

/// A value of `redis.sharded_pubsub`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShardedPubSub {
    /// Events are announced at every node, and each broker hears all.
    #[default]
    Off,
    /// The same, and brokers subscribe to the runs that they serve: what comes
    /// between the other two.
    Listen,
    /// Events are announced in their run's shard alone.
    On,
}

impl RedisSettings {
    /// Whether runs that are watched are subscribed to in their shards.
    pub fn listens_to_shards(&self) -> bool {
        let is_cluster = matches!(self.url.place(), RedisPlace::Cluster(_));
        is_cluster && self.sharded_pubsub != ShardedPubSub::Off
    }

    /// Whether durable events are announced in their shards alone.
    pub fn announces_to_shards(&self) -> bool {
        self.listens_to_shards() && self.sharded_pubsub == ShardedPubSub::On
    }
}

impl Default for RedisSettings {
    fn default() -> Self {
        Self {
            url: "redis://127.0.0.1:6379"
                .parse()
                .expect("the default URL parses; a test sees to it"),
            tls_ca: String::new(),
            tls_cert: String::new(),
            tls_key: String::new(),
            channel_prefix: "run:".to_owned(),
            probe_interval: Duration::from_secs(2),
            check_interval: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(2),
            command_timeout: Duration::from_secs(5),
            reconnect_max_delay: Duration::from_millis(500),
            queue_messages: 100_000,
            queue_bytes: ByteSize::mib(64),
            sharded_pubsub: ShardedPubSub::Off,
        }
    }
}

/// `[history]`: what is kept of a run for those who come late.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HistorySettings {
    /// Most events kept of one run.
    pub max_events: u64,
    /// Most bytes kept of one run.
    pub max_bytes_per_run: ByteSize,
    /// Most bytes the runs of an embedded broker take together; past it the
    /// run idle longest is forgotten.
    pub embedded_total_bytes: ByteSize,
    /// How long a run's history outlives its last event.
    #[serde(with = "humantime_serde")]
    pub ttl: Duration,
    /// Payload bytes of a page read from the store, or one event.
    pub page_bytes: ByteSize,
    /// Most pages read at once; further readers wait.
    pub max_reads: usize,
    /// Most bytes a second that clients read of the store, all together; 0 is
    /// no bound.
    pub read_rate: ByteSize,
    /// Bytes of pages on their way to clients past which no further page is
    /// read for one.
    pub total_page_bytes: ByteSize,
    /// Give agents that only `PUBLISH` a durable history as well. All brokers
    /// on one Redis must agree.
    pub record_plain: bool,
    /// Most plain messages kept until they are recorded; past it the newest
    /// are dropped and told by a gap.
    pub record_plain_messages: usize,
    /// The same bound in bytes.
    pub record_plain_bytes: ByteSize,
    /// How long one is kept while it cannot be recorded.
    #[serde(with = "humantime_serde")]
    pub record_plain_max_age: Duration,
}

impl Default for HistorySettings {
    fn default() -> Self {
        Self {
            max_events: 10_000,
            max_bytes_per_run: ByteSize::mib(16),
            embedded_total_bytes: ByteSize::mib(512),
            ttl: Duration::from_secs(24 * 3600),
            page_bytes: ByteSize::kib(64),
            max_reads: 64,
            read_rate: ByteSize::mib(32),
            total_page_bytes: ByteSize::mib(256),
            record_plain: false,
            record_plain_messages: 100_000,
            record_plain_bytes: ByteSize::mib(64),
            record_plain_max_age: Duration::from_secs(30),
        }
    }
}

/// `[hub]`: the per-run hub, its ring and the pace of its writes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HubSettings {
    /// Most bytes a run's ring keeps for resuming clients.
    pub ring_bytes: ByteSize,
    /// Most bytes all rings keep together; idle hubs go first, oldest first.
    pub total_ring_bytes: ByteSize,
    /// Most hubs at once; past it the oldest idle hub goes, and if none is
    /// idle new runs are refused as overload.
    pub max_hubs: usize,
    /// Most runs that are listed after their hub has ended; the one whose hub
    /// ended first goes first.
    pub max_past_runs: usize,
    /// How long a hub outlives its last client and event.
    #[serde(with = "humantime_serde")]
    pub idle_ttl: Duration,
    /// Keep a ring of runs nobody watches, so that a late viewer of a plain
    /// run sees its beginning.
    pub retain_unwatched: bool,
    /// Longest time an event may wait to be written together with the next
    /// ones; 0 writes each at once.
    #[serde(with = "humantime_serde")]
    pub max_flush_delay: Duration,
    /// What one more client of a run adds to the pause between two of its
    /// flushes.
    #[serde(with = "humantime_serde")]
    pub flush_delay_per_client: Duration,
    /// Panics of a run's hub, each within `quarantine` of the one before, after
    /// which the run is not served for a while.
    pub max_panics: usize,
    /// For how long.
    #[serde(with = "humantime_serde")]
    pub quarantine: Duration,
    /// Messages a hub's mailbox holds; what a refused batch held is read from
    /// the store, or, if plain, told by `gap` reason `overflow`.
    pub mailbox: usize,
    /// Bytes of live events a hub holds while it reads the store; past it they
    /// are dropped, and read from the store in their turn.
    pub held_bytes: ByteSize,
    /// Bytes of live events that may wait in one worker's inbox; past it the
    /// worker is caught up from the hub's ring.
    pub inbox_bytes: ByteSize,
}

impl Default for HubSettings {
    fn default() -> Self {
        Self {
            ring_bytes: ByteSize::mib(1),
            total_ring_bytes: ByteSize::mib(512),
            max_hubs: 100_000,
            max_past_runs: 10_000,
            idle_ttl: Duration::from_secs(60),
            retain_unwatched: true,
            max_flush_delay: Duration::from_millis(50),
            flush_delay_per_client: Duration::from_micros(20),
            max_panics: 3,
            quarantine: Duration::from_secs(60),
            mailbox: 1024,
            held_bytes: ByteSize::kib(256),
            inbox_bytes: ByteSize::mib(64),
        }
    }
}

/// `[heartbeat]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeartbeatSettings {
    /// Time between two `heartbeat` events of one stream; whole seconds.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
}

impl Default for HeartbeatSettings {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(30),
        }
    }
}

/// `[auto]`: when a stream of `auto` goes on from kubectl, and how what both
/// backends have is matched.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AutoSettings {
    /// How long Redis is unusable, or a run without an event there, before its
    /// pods are looked at.
    #[serde(with = "humantime_serde")]
    pub after: Duration,
    /// How far the clocks of Redis and of a node may be apart, and how long
    /// after it is printed a line is published by who keeps up.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// How long nothing may match before the join is told by a gap.
    #[serde(with = "humantime_serde")]
    pub settle: Duration,
    /// Most lines remembered of each backend, for a run that has failed over.
    pub remembered_lines: usize,
}

impl Default for AutoSettings {
    fn default() -> Self {
        Self {
            after: Duration::from_secs(5),
            window: Duration::from_secs(5),
            settle: Duration::from_secs(30),
            remembered_lines: 10_000,
        }
    }
}

/// `[retry]`: the range from which each connection's `retry:` is drawn.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetrySettings {
    /// Least reconnection time told to a client.
    #[serde(with = "humantime_serde")]
    pub min: Duration,
    /// Greatest reconnection time told to a client.
    #[serde(with = "humantime_serde")]
    pub max: Duration,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            min: Duration::from_secs(1),
            max: Duration::from_secs(3),
        }
    }
}

impl RetrySettings {
    /// Returns a random reconnection time in milliseconds inside the range.
    pub fn draw_ms(&self) -> u64 {
        let (min, max) = (self.min.as_millis() as u64, self.max.as_millis() as u64);
        fastrand::u64(min..=max.max(min))
    }
}

/// `[runs]`: when a run is over.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunSettings {
    /// Statuses that end a run, compared without case.
    pub terminal_statuses: Vec<String>,
    /// How long late output is still accepted after a terminal status.
    #[serde(with = "humantime_serde")]
    pub end_grace: Duration,
}

impl Default for RunSettings {
    fn default() -> Self {
        Self {
            terminal_statuses: [
                "completed",
                "succeeded",
                "failed",
                "cancelled",
                "canceled",
                "error",
                "timeout",
            ]
            .map(str::to_owned)
            .to_vec(),
            end_grace: Duration::from_secs(2),
        }
    }
}

/// `[kubectl]`: following a run's pods.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KubectlSettings {
    /// Whether the backend is on offer.
    pub enabled: bool,
    /// Who asks the cluster.
    pub engine: KubectlEngine,
    /// The program, found on `PATH` or by its path.
    pub command: String,
    /// Arguments before ours, for instance `["--context=dev"]`.
    pub extra_args: Vec<String>,
    /// Namespace of the pods.
    pub namespace: String,
    /// Label selector of a run's pods; `{run_id}` stands for the run id.
    pub selector: String,
    /// Most logs followed at once: processes (about 50 MB each) or connections.
    pub max_follows: usize,
    /// Most bytes a second taken of the log of one container; 0 is no bound.
    pub follow_rate: ByteSize,
    /// How long a follow outlives its last client.
    #[serde(with = "humantime_serde")]
    pub linger: Duration,
    /// How long a question to the cluster may take, and a follow may take to be accepted.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Longest pause between two looks for pods or two follows (jittered).
    #[serde(with = "humantime_serde")]
    pub max_backoff: Duration,
    /// Environment variables kubectl keeps beside `PATH`, `HOME` and
    /// `KUBECONFIG`, for credential plugins; the rest is cleared.
    pub env_keep: Vec<String>,
}

impl Default for KubectlSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            engine: KubectlEngine::Command,
            command: "kubectl".to_owned(),
            extra_args: Vec::new(),
            namespace: "default".to_owned(),
            selector: "run-id={run_id}".to_owned(),
            max_follows: 64,
            follow_rate: ByteSize::mib(8),
            linger: Duration::from_secs(10),
            timeout: Duration::from_secs(10),
            max_backoff: Duration::from_secs(10),
            env_keep: Vec::new(),
        }
    }
}

impl KubectlSettings {
    /// Returns the label selector of `run_id`'s pods.
    pub fn selector_of(&self, run_id: &RunId) -> String {
        self.selector.replace("{run_id}", run_id.as_str())
    }
}

/// `[limits]`: what one client or publisher may ask of us.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitSettings {
    /// Most bytes of a request's head.
    pub max_header_bytes: ByteSize,
    /// How long a request's head may take.
    #[serde(with = "humantime_serde")]
    pub header_timeout: Duration,
    /// How long a request's body may take.
    #[serde(with = "humantime_serde")]
    pub body_timeout: Duration,
    /// Most bytes of one event's payload.
    pub max_event_bytes: ByteSize,
    /// Most bytes of one `POST` body.
    pub max_body_bytes: ByteSize,
    /// Most bytes of all `POST` bodies being read or published.
    pub total_body_bytes: ByteSize,
    /// The same of one client's: of its token's subject, else of its address.
    pub body_bytes_per_client: ByteSize,
    /// Most events in one `POST`.
    pub max_batch_events: usize,
    /// Most bytes of an event's source.
    pub max_source_bytes: usize,
    /// A client that takes no byte for this long is closed.
    #[serde(with = "humantime_serde")]
    pub write_timeout: Duration,
    /// Most streams at once; past it clients get `problem` and `goodbye`.
    pub max_streams: usize,
    /// Most streams of one client address, of a /64 with IPv6; 0 is no limit.
    pub max_streams_per_ip: usize,
    /// Most streams of one token's subject; 0 is no limit.
    pub max_streams_per_subject: usize,
    /// Most streams of one run; 0 is no limit.
    pub max_streams_per_run: usize,
    /// Memory of the process from which on it sheds; 0 is no limit.
    pub max_memory: ByteSize,
    /// Most connections accepted in a second; 0 is no limit.
    pub accept_rate: usize,
    /// Most events that one client address posts in a second; 0 is no limit.
    pub publish_rate_per_ip: usize,
    /// The same of one token's subject; 0 is no limit.
    pub publish_rate_per_subject: usize,
    /// Most pages of history read or sent at once.
    pub history_reads: usize,
    /// Most `Idempotency-Key`s whose answer is remembered.
    pub idempotency_keys: usize,
    /// How long each is.
    #[serde(with = "humantime_serde")]
    pub idempotency_ttl: Duration,
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            max_header_bytes: ByteSize::kib(16),
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            max_event_bytes: ByteSize::kib(256),
            max_body_bytes: ByteSize::mib(4),
            total_body_bytes: ByteSize::mib(256),
            body_bytes_per_client: ByteSize::mib(64),
            max_batch_events: 10_000,
            max_source_bytes: 16 * 1024,
            write_timeout: Duration::from_secs(30),
            max_streams: 100_000,
            max_streams_per_ip: 0,
            max_streams_per_subject: 0,
            max_streams_per_run: 0,
            max_memory: ByteSize::b(0),
            accept_rate: 0,
            publish_rate_per_ip: 0,
            publish_rate_per_subject: 0,
            history_reads: 128,
            idempotency_keys: 10_000,
            idempotency_ttl: Duration::from_secs(600),
        }
    }
}

/// `[streaming]`: what a stream is unless its query says otherwise.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StreamingSettings {
    /// The backend of bare `/stream`.
    pub default_backend: DefaultBackend,
    /// Least level of `log` events sent.
    pub log_level: LogLevel,
    /// Longest life of one stream (jittered); 0 is no limit.
    #[serde(with = "humantime_serde")]
    pub max_age: Duration,
}

impl Default for StreamingSettings {
    fn default() -> Self {
        Self {
            default_backend: DefaultBackend::Redis,
            log_level: LogLevel::Info,
            max_age: Duration::ZERO,
        }
    }
}

/// A value of `streaming.default_backend`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DefaultBackend {
    /// Redis Pub/Sub.
    Redis,
    /// `kubectl logs`.
    Kubectl,
    /// In memory, without Redis.
    Embedded,
    /// Redis or, if that is unusable, kubectl; chosen at connect.
    Auto,
}
