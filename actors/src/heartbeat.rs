//! [`HeartbeatActor`]: the broker's one clock.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;

use crate::broker::BrokerShared;

/// How often idle hubs are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Turns the wheels of all workers, one step a tick, so that every client
/// beats once each `heartbeat.interval` and the beats spread over it: no timer
/// per client, and 100,000 sockets are never written at one instant.
///
/// Owns nothing but its timers. Takes no messages; writes a `Tick` into each
/// worker's inbox, at most one at a time. Also has the registry swept and the
/// subscriber replaced should it have panicked.
pub struct HeartbeatActor {
    shared: Arc<BrokerShared>,
}

impl HeartbeatActor {
    /// Makes the clock of `shared`.
    pub fn new(shared: Arc<BrokerShared>) -> Self {
        Self { shared }
    }
}

impl Actor for HeartbeatActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(self.shared.settings.tick(), |clock, _| {
            for inbox in clock.shared.inboxes() {
                inbox.push_tick();
            }
        });
        ctx.run_interval(SWEEP_INTERVAL, |clock, _| {
            let shared = &clock.shared;
            shared
                .registry
                .sweep(|backend| shared.settings.idle_ttl(backend));
            shared.watch_subscriber();
        });
    }
}

impl Supervised for HeartbeatActor {}
