//! [`redis()`], [`redis_look()`], [`kubectl()`] and [`archive()`]: one look at
//! whether each answers, and how.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::access::AccessSettings;
use crate::kubectl::{Cluster, Engine, FollowPermits, KubectlCounters, PodView};
use crate::protocol::{Problem, RunId};
use crate::settings::{ArchiveSettings, KubectlSettings, RedisSettings};

/// Does at Redis all that a broker does, once: connects to each server that
/// takes writes, subscribes, sees a probe come back, loads the functions and
/// calls them; where there are tokens, keeps and takes a ticket and a
/// revocation. Returns how long connecting and a `PING` took.
///
/// # Errors
///
/// A sentence that names what cannot be done, within
/// `redis.connect_timeout` and `redis.command_timeout`.
pub async fn redis(settings: &RedisSettings, access: &AccessSettings) -> Result<Duration, String> {
    crate::redis::check(settings, access).await
}

/// How Redis is to a broker.
#[derive(Debug, Clone)]
pub struct RedisLook {
    /// How long a `PING` takes.
    pub latency: Duration,
    /// What a subscriber may leave unread; `None` if Redis has no such bound,
    /// an error if it does not say.
    pub output_buffer: Result<Option<OutputBuffer>, String>,
}

/// `client-output-buffer-limit pubsub`, in bytes; 0 is no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputBuffer {
    /// At more than this a subscriber is cut off at once.
    pub hard: u64,
    /// At more than this it is, after a while.
    pub soft: u64,
    /// After so long.
    pub soft_seconds: u64,
}

/// Looks how fast Redis answers, and what it lets a slow subscriber have.
///
/// # Errors
///
/// When it does not answer.
pub async fn redis_look(settings: &RedisSettings) -> Result<RedisLook, String> {
    crate::redis::look(settings).await
}

/// Lists the pods of a run that does not exist, as the broker lists those of
/// one that does, and returns how long that took: program (if it is called),
/// cluster, credentials and the permission to list pods, and with the engine
/// `api` to watch them, are good.
///
/// # Errors
///
/// What a client of a stream would be told.
pub async fn kubectl(settings: &KubectlSettings) -> Result<Duration, Problem> {
    let begin = Instant::now();
    let run_id = RunId::parse("runcast-check").expect("it is a run id");
    let never = watch::Sender::new(false);
    let cluster = Cluster {
        engine: Engine::new(settings.clone()),
        counters: KubectlCounters::default().into(),
        permits: FollowPermits::new(1).into(),
        stop: never.subscribe(),
    };
    match PodView::default().pods(&cluster, &run_id).await {
        Ok(_) => Ok(begin.elapsed()),
        Err(failure) => Err(failure.problem()),
    }
}

/// Lists what lies in the archive, up to the first object, and returns how long
/// that took: the place is there, credentials are good. Nothing is written.
///
/// # Errors
///
/// A sentence that says what is wrong, within `archive.timeout`.
pub async fn archive(settings: &ArchiveSettings) -> Result<Duration, String> {
    crate::archive::reach(settings).await
}
