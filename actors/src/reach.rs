//! [`redis()`] and [`kubectl()`]: one look at whether each answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::access::AccessSettings;
use crate::kubectl::{FollowPermits, Kubectl, KubectlCounters};
use crate::protocol::{Problem, RunId};
use crate::settings::{KubectlSettings, RedisSettings};

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
/// one that does, and returns how long that took: program, cluster,
/// credentials and the permission to list pods are good.
///
/// # Errors
///
/// What a client of a stream would be told.
pub async fn kubectl(settings: &KubectlSettings) -> Result<Duration, Problem> {
    let begin = Instant::now();
    let run_id = RunId::parse("runcast-check").expect("it is a run id");
    let selector = settings.selector_of(&run_id);
    let never = watch::Sender::new(false);
    let kubectl = Kubectl {
        settings: Arc::new(settings.clone()),
        counters: Arc::new(KubectlCounters::default()),
        permits: Arc::new(FollowPermits::new(1)),
        stop: never.subscribe(),
    };
    let namespace = settings.namespace.as_str();
    let args = [
        "get", "pods", "-n", namespace, "-l", &selector, "-o", "json",
    ];
    match kubectl.query(&args).await {
        Ok(_) => Ok(begin.elapsed()),
        Err(failure) => Err(failure.problem()),
    }
}
