//! [`KubectlLogActor`]: the actor that owns a run's follows.

use std::sync::Arc;
use std::time::Duration;

use actix::{
    Actor, ActorContext as _, ActorFutureExt as _, Addr, AsyncContext as _, Context, Handler,
    Message, Recipient, ResponseFuture, WrapFuture as _,
};
use actix_rt::ArbiterHandle;
use tokio::sync::watch;

use super::controller::Controller;
use super::counters::{FollowPermits, KubectlCounters};
use super::engine::{Cluster, Engine};
use super::follow::Shared;
use super::outlet::Outlet;
use super::update::KubectlUpdate;
use crate::protocol::RunId;

/// What a [`KubectlLogActor`] is started with.
#[derive(Debug)]
pub struct KubectlFollow {
    /// The run whose pods are followed.
    pub run_id: RunId,
    /// How the cluster is asked.
    pub engine: Engine,
    /// Lines before this time, in nanoseconds since the epoch, are not wanted.
    pub since_ns: Option<u64>,
    /// `limits.max_event_bytes`.
    pub max_event_bytes: usize,
    /// `runs.end_grace`: how long all pods must have been over.
    pub end_grace: Duration,
    /// How many logs may be followed, shared by all runs.
    pub permits: Arc<FollowPermits>,
    /// Shared by all runs.
    pub counters: Arc<KubectlCounters>,
    /// Who is told; when it is gone the actor stops.
    pub hub: Recipient<KubectlUpdate>,
}

/// Follows the logs of a run's pods: one per run, shared by its sessions.
///
/// It owns the `kubectl` children of the run, or its connections to the
/// Kubernetes API. It always reads each log from
/// its start; sessions that resume skip what their cursor covers. To the hub
/// it sends [`KubectlUpdate`]s, one at a time and awaited, so that a flood of
/// lines waits in kubectl's pipe, or in the connection, and nothing is queued here beyond one
/// batch per container. It takes [`Stop`], and stops by itself after `Ended`,
/// after `Failed`, and when the hub is gone. However it stops, every child's
/// process group is killed, and every connection closed.
#[derive(Debug)]
pub struct KubectlLogActor {
    stop: Arc<watch::Sender<bool>>,
    follow: Option<KubectlFollow>,
}

impl KubectlLogActor {
    /// Starts following on `arbiter`.
    pub fn start(follow: KubectlFollow, arbiter: &ArbiterHandle) -> Addr<Self> {
        Self::start_in_arbiter(arbiter, move |_| Self {
            stop: Arc::new(watch::Sender::new(false)),
            follow: Some(follow),
        })
    }
}

impl Actor for KubectlLogActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let Some(follow) = self.follow.take() else {
            return;
        };
        let stop = self.stop.subscribe();
        let counters = follow.counters;
        let shared = Shared {
            outlet: Outlet::new(follow.hub, stop.clone(), Arc::clone(&counters)),
            cluster: Cluster {
                engine: follow.engine,
                counters,
                permits: follow.permits,
                stop: stop.clone(),
            },
            stop,
            since_ns: follow.since_ns,
            max_event_bytes: follow.max_event_bytes,
        };
        let controller = Controller::new(
            follow.run_id,
            follow.end_grace,
            shared,
            Arc::clone(&self.stop),
        );
        let life = Box::pin(controller.run()).into_actor(self);
        ctx.spawn(life.map(|(), _, ctx| ctx.stop()));
    }
}

/// Ends all follows of the run; answered when every child is killed and
/// reaped. The actor is gone afterwards.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Stop;

impl Handler<Stop> for KubectlLogActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Stop, _: &mut Self::Context) -> Self::Result {
        let stop = Arc::clone(&self.stop);
        Box::pin(async move {
            stop.send_replace(true);
            // Everything that owns a child holds a receiver.
            stop.closed().await;
        })
    }
}
