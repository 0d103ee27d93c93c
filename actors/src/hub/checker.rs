//! [`PositionChecker`]: compares what hubs have with what the store has.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tracing::debug;

use super::{HubEntry, StorePosition};
use crate::broker::BrokerShared;
use crate::protocol::{BackendKind, RunId};

/// Runs asked for in one call.
const RUNS_AT_ONCE: usize = 1000;

/// Pause before a check that must be made is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// Asks the store every `redis.check_interval` for the last id of every run
/// that is watched, and tells each hub: so a dead subscription, or a last
/// message that never came, shows even in a quiet run.
///
/// Lives on the core arbiter, supervised. Takes [`CheckNow`] from the
/// subscriber. One check at a time.
pub struct PositionChecker {
    shared: Arc<BrokerShared>,
    is_checking: bool,
    /// A check that is sure is wanted after the one under way.
    is_wanted: bool,
}

impl PositionChecker {
    /// Makes a checker for `shared`.
    pub fn new(shared: Arc<BrokerShared>) -> Self {
        Self {
            shared,
            is_checking: false,
            is_wanted: false,
        }
    }

    fn check(&mut self, sure: bool, ctx: &mut Context<Self>) {
        if self.is_checking {
            self.is_wanted |= sure;
            return;
        }
        if !sure && !self.shared.store_is_reachable() {
            return;
        }
        self.is_checking = true;
        let shared = Arc::clone(&self.shared);
        let checking = async move { check_all(&shared, sure).await };
        ctx.spawn(checking.into_actor(self).map(move |done, checker, ctx| {
            checker.is_checking = false;
            if sure && !done {
                ctx.run_later(RETRY_DELAY, |checker, ctx| checker.check(true, ctx));
            } else if std::mem::take(&mut checker.is_wanted) {
                checker.check(true, ctx);
            }
        }));
    }
}

/// Asks for all watched runs, newest activity first; `false` if the store did
/// not answer.
async fn check_all(shared: &BrokerShared, sure: bool) -> bool {
    let mut watched: Vec<(RunId, HubEntry)> = Vec::new();
    for backend in [shared.settings.backend(), BackendKind::Auto] {
        shared.registry.each(backend, |run_id, entry| {
            if !entry.stats.is_unwatched() {
                watched.push((run_id.clone(), entry.clone()));
            }
        });
    }
    watched.sort_by_cached_key(|(_, entry)| entry.stats.idle_time());
    for chunk in watched.chunks(RUNS_AT_ONCE) {
        let run_ids: Vec<RunId> = chunk.iter().map(|(run_id, _)| run_id.clone()).collect();
        let positions = match shared.positions(&run_ids).await {
            Ok(positions) => positions,
            Err(error) => {
                debug!(%error, "positions not checked");
                return false;
            }
        };
        for ((_, entry), last) in chunk.iter().zip(positions) {
            #[expect(
                clippy::disallowed_methods,
                reason = "one per watched hub and check, and a sure one must not be refused"
            )]
            entry.hub.do_send(StorePosition { last, sure });
        }
    }
    true
}

impl Actor for PositionChecker {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.is_checking = false;
        ctx.run_interval(self.shared.settings.redis.check_interval, |checker, ctx| {
            checker.check(false, ctx);
        });
    }
}

impl Supervised for PositionChecker {}

/// The subscription is back: check all watched runs now, and believe every
/// difference.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct CheckNow;

impl Handler<CheckNow> for PositionChecker {
    type Result = ();

    fn handle(&mut self, _: CheckNow, ctx: &mut Self::Context) {
        self.check(true, ctx);
    }
}
