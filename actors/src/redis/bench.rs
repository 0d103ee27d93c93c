//! [`LivePath`]: the way of an event from Redis to its clients on one thread,
//! whole or a part of it. For benches; only with feature `bench`.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::RedisSubscriber;
use super::push_queue::{Push, PushQueue, Turn};
use super::push_tap::PushTap;
use crate::broker::{Broker, BrokerSettings, BrokerShared};
use crate::hub::Attach;
use crate::memory_store::MemoryStore;
use crate::metrics::WorkerCounters;
use crate::protocol::{BackendKind, RunId};
use crate::worker::{AttachId, Inbox, Worker};

/// A broker whose actors, worker and streams all live on the calling thread,
/// so that what they do together is counted by one, and comes in one order.
///
/// It has no connection to Redis: what its subscription would bring is pushed
/// by whoever drives it. The store behind it is empty.
pub struct LivePath {
    shared: Arc<BrokerShared>,
    queue: Arc<PushQueue>,
    counters: Arc<WorkerCounters>,
}

impl LivePath {
    /// Makes it on this thread, which must run an actix system.
    pub fn new(settings: BrokerSettings) -> Self {
        let here = Arbiter::current();
        let shared = BrokerShared::on_arbiters(settings, here.clone(), here);
        let (settings, metrics) = (&shared.settings, Arc::clone(&shared.metrics));
        let store = MemoryStore::new(settings, metrics, Box::new(|_, _| {}));
        // Nobody else sets it.
        let _ = shared.store.set(Arc::new(store));
        shared.redis.set_up();
        let queue = PushQueue::new(
            settings.redis.queue_messages,
            settings.redis.queue_bytes.as_u64() as usize,
        );
        Self {
            queue,
            counters: Arc::clone(&Worker::current(&shared).counters),
            shared,
        }
    }

    /// Returns what the client library reads a subscription's `stream` through.
    pub fn tap<S>(&self, stream: S) -> impl AsyncRead + AsyncWrite + Send + Unpin + use<S>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        PushTap::new(stream, Arc::clone(&self.queue))
    }

    /// Pushes a message, as the tap does.
    pub fn push(&self, channel: Bytes, payload: Bytes) {
        let message = Push::Message { channel, payload };
        self.queue.extend(std::iter::once(message));
    }

    /// Takes what was pushed, as much as is routed at once.
    pub fn take_turn(&self) -> Option<PushedTurn> {
        self.queue.take_turn().map(PushedTurn)
    }

    /// Makes a router.
    pub fn router(&self) -> Router {
        let shared = Arc::clone(&self.shared);
        let (settings, metrics) = (Arc::clone(&shared.settings), Arc::clone(&shared.metrics));
        let store = super::RedisStore::new(settings, metrics);
        let link = Arc::clone(&shared.redis);
        Router {
            subscriber: RedisSubscriber::new(shared, link, store),
            subscriber_ctx: Context::new(),
            queue: Arc::clone(&self.queue),
        }
    }

    /// The broker, to open streams.
    pub fn broker(&self) -> Broker {
        Broker::of(Arc::clone(&self.shared))
    }

    /// What its actors share, and what they count.
    pub fn shared(&self) -> &BrokerShared {
        &self.shared
    }

    /// Events handed to clients so far.
    pub fn deliveries(&self) -> u64 {
        self.counters.deliveries.get()
    }

    /// Attaches an inbox that no worker reads to a run's hub.
    pub fn attach(&self, run_id: &RunId) -> Arc<Inbox> {
        let inbox = Arc::new(Inbox::new(usize::MAX));
        let attach = Attach {
            attach_id: AttachId::next(),
            inbox: Some(Arc::clone(&inbox)),
        };
        let sent = self.shared.with_hub(BackendKind::Redis, run_id, |entry| {
            entry.stats.add_attachment();
            entry.hub.try_send(attach)
        });
        sent.expect("there is room for a hub")
            .expect("its mailbox is empty");
        inbox
    }

    /// Returns this thread's inbox, and what it knows a run by that is streamed
    /// here.
    pub fn inbox_of(&self, run_id: &RunId) -> (Arc<Inbox>, AttachId) {
        let worker = Worker::current(&self.shared);
        let run = worker.run(BackendKind::Redis, run_id);
        let run = run.expect("a run that is streamed needs no room");
        (Arc::clone(worker.inbox()), run.attach_id())
    }
}

/// What is routed at once.
pub struct PushedTurn(Turn);

impl PushedTurn {
    /// How many messages it has.
    pub fn messages(&self) -> usize {
        self.0.pushes.len()
    }
}

/// The subscriber without its connection: it only routes. Started, it routes
/// whatever is pushed.
pub struct Router {
    subscriber: RedisSubscriber,
    /// Of a subscriber that was never started; used only if its link is lost.
    subscriber_ctx: Context<RedisSubscriber>,
    queue: Arc<PushQueue>,
}

impl Router {
    /// Routes a turn to the hubs' mailboxes.
    pub fn route(&mut self, turn: PushedTurn) {
        self.subscriber.route(turn.0, &mut self.subscriber_ctx);
    }
}

impl Actor for Router {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.add_stream(Arc::clone(&self.queue).turns(Duration::ZERO));
    }
}

impl StreamHandler<Turn> for Router {
    fn handle(&mut self, turn: Turn, _: &mut Self::Context) {
        self.route(PushedTurn(turn));
    }
}
