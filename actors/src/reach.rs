//! [`redis()`], [`kubectl()`] and [`archive()`]: one look at whether each
//! answers.

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
