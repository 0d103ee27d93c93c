//! [`HeartbeatActor`]: the broker's one clock.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tracing::error;

use crate::broker::BrokerShared;

/// How often idle hubs are looked for, and actors that panicked.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Turns the wheels of all workers, one step a tick, so that every client
/// beats once each `heartbeat.interval` and the beats spread over it: no timer
/// per client, and 100,000 sockets are never written at one instant.
///
/// Owns nothing but its timers. Takes no messages; writes a `Tick` into each
/// worker's inbox, at most one at a time. Also has the registry swept and the
/// subscriber replaced should it have panicked; [`keep_clock`] does that for
/// the clock itself.
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
            shared.watch_shards();
            shared.watch_checker();
        });
    }
}

impl Supervised for HeartbeatActor {}

/// Runs the clock on this arbiter, for ever: should it panic, which takes its
/// supervisor along, another takes its place.
pub(crate) async fn keep_clock(shared: Arc<BrokerShared>) {
    let kept = Arc::clone(&shared);
    keep(shared, move || start_clock(&kept)).await;
}

async fn keep(shared: Arc<BrokerShared>, start: impl Fn() -> Addr<HeartbeatActor>) {
    loop {
        let clock = start();
        while clock.connected() {
            actix_rt::time::sleep(SWEEP_INTERVAL).await;
        }
        error!("the clock died and is replaced");
        shared.metrics.actor_restarts.inc();
    }
}

fn start_clock(shared: &Arc<BrokerShared>) -> Addr<HeartbeatActor> {
    let shared = Arc::clone(shared);
    Supervisor::start(|_| HeartbeatActor::new(shared))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::poll_fn;
    use std::rc::Rc;

    use super::*;
    use crate::broker::BrokerSettings;

    #[derive(Message)]
    #[rtype(result = "()")]
    struct Panic;

    impl Handler<Panic> for HeartbeatActor {
        type Result = ();

        fn handle(&mut self, _: Panic, _: &mut Self::Context) {
            panic!("as asked");
        }
    }

    #[actix::test]
    async fn a_clock_that_panicked_is_replaced() {
        let mut settings = BrokerSettings::default();
        settings.heartbeat.interval = SWEEP_INTERVAL;
        let shared = BrokerShared::new(settings);
        let inbox = shared.add_inbox(1024);
        let ticked = async || poll_fn(|context| inbox.poll_drain(context)).await;
        let clocks: Rc<RefCell<Vec<Addr<HeartbeatActor>>>> = Rc::default();
        let (started, kept) = (Rc::clone(&clocks), Arc::clone(&shared));
        actix_rt::spawn(keep(Arc::clone(&shared), move || {
            let clock = start_clock(&kept);
            started.borrow_mut().push(clock.clone());
            clock
        }));
        ticked().await;
        let first = clocks.borrow()[0].clone();
        first.send(Panic).await.expect_err("it is dead");
        ticked().await;
        // A second tick can only be of another clock.
        ticked().await;
        assert_eq!(clocks.borrow().len(), 2);
        assert_eq!(shared.metrics.actor_restarts.get(), 1);
        shared.core.stop();
    }
}
