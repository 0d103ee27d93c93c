//! [`RedisSubscriber`]: the one subscription, from which every run is fed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::fut::wrap_future;
use actix::prelude::*;
use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, error, info, warn};

use super::access::REVOKED;
use super::batches::{Batches, ChannelRead};
use super::deliver::deliver;
use super::node::backoff;
use super::push_queue::{Push, PushQueue, Turn};
use super::recorder::{Feed, PlainMessage, RECORDER_PREFIX};
use super::subscription::{Finder, Subscription, Watch};
use super::{RedisLink, RedisStore};
use crate::broker::BrokerShared;
use crate::hub::{Disconnected, Overflowed, Refused, Registry};
use crate::metrics::RejectReason;
use crate::protocol::{BackendKind, Channel, ChannelError, RunId};
use crate::settings::LiveReader;

/// How long an outage lasts before it is told while it lasts.
const OUTAGE_TOLD_AFTER: Duration = Duration::from_millis(3500);

/// What follows the channel prefix in the name of a probe's channel.
pub(super) const PROBE_PREFIX: &str = "_probe:";

/// Probes without an echo after which the link counts as dead.
const PROBE_MISSES_MAX: u32 = 2;

/// Least age of a subscription that is made anew because somebody asks for it.
const RESUBSCRIBE_MIN_AGE: Duration = Duration::from_secs(30);

/// Asks for a new subscription, at another place if there is one: this one
/// looks well, but does not bring what was published.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Resubscribe;

/// Of one message, as the settings are in this turn.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    event_bytes: u64,
    source_bytes: usize,
}

/// Owns the subscription: one RESP3 connection, `PSUBSCRIBE <prefix>*`, and
/// nothing on it but our own probes.
///
/// Lives on the core arbiter beside the hubs, supervised. Reads at most 512
/// messages a turn, sends one [`Arrived`] per hub and turn with `try_send`.
/// When the connection ends or two probes are not echoed it connects anew: at
/// once, then after 20 ms, then twice as long each time up to
/// `redis.reconnect_max_delay`, jittered, until a probe comes back. Every hub is
/// told [`Disconnected`] when it is subscribed again, and once before if that
/// takes long. Where that is, [`Finder`] knows; a server that turns out to be
/// the wrong one (a master that was demoted, a node cut off from its Cluster) is
/// left likewise.
pub struct RedisSubscriber {
    shared: Arc<BrokerShared>,
    live: LiveReader,
    link: Arc<RedisLink>,
    /// Told after each subscription: Redis may have forgotten its functions.
    store: RedisStore,
    finder: Finder,
    connection: Option<MultiplexedConnection>,
    driver: Option<AbortOnDropHandle<()>>,
    subscribed_at: Instant,
    /// Where it is, or was last.
    address: Option<String>,
    watch: Watch,
    /// A look at whether the server is still the right one, under way.
    is_watching: bool,
    /// Attempts to connect since a probe last came back.
    attempts: u32,
    probe: Probe,
    /// Counts connections: what an older one still says is dropped.
    generation: u64,
    queue: Option<Arc<PushQueue>>,
    /// The subscription was lost and is not back.
    is_lost: bool,
    /// Counts subscriptions lost.
    losses: u64,
    /// Where plain messages go in place of hubs, if they are to be recorded.
    feed: Option<Feed>,
    /// Empty between turns; kept for its room.
    batches: Batches,
}

/// The probe: a message to ourselves on a channel that is no run.
#[derive(Debug)]
struct Probe {
    channel: String,
    sent_at: Option<Instant>,
    misses: u32,
}

impl RedisSubscriber {
    /// Makes a subscriber for `shared`; it connects when it is started.
    pub fn new(shared: Arc<BrokerShared>, link: Arc<RedisLink>, store: RedisStore) -> Self {
        // `run:*` delivers it, and `_probe` is no valid run id.
        let prefix = &shared.settings.redis.channel_prefix;
        let channel = format!("{prefix}{PROBE_PREFIX}{:016x}", fastrand::u64(..));
        let finder = Finder::new(shared.settings.redis.url.place());
        Self {
            feed: Feed::new(&shared, &store),
            live: shared.settings.live.reader(),
            shared,
            link,
            store,
            finder,
            connection: None,
            driver: None,
            subscribed_at: Instant::now(),
            address: None,
            watch: Watch::None,
            is_watching: false,
            attempts: 0,
            probe: Probe {
                channel,
                sent_at: None,
                misses: 0,
            },
            generation: 0,
            queue: None,
            // Nothing is missed before the first subscription, but one may take
            // the place of another that died.
            is_lost: true,
            losses: 0,
            batches: Batches::default(),
        }
    }

    fn connect(&mut self, ctx: &mut Context<Self>) {
        self.attempts += 1;
        self.generation += 1;
        let generation = self.generation;
        let settings = self.shared.settings.redis.clone();
        let queue = PushQueue::new(
            settings.queue_messages,
            settings.queue_bytes.as_u64() as usize,
        );
        let receiver = Arc::clone(&queue);
        let candidate = self.finder.next(self.attempts as usize - 1);
        let attempt = async move { candidate.subscribe(&settings, queue).await };
        ctx.spawn(wrap_future(attempt).map(
            move |result: Result<Subscription, String>, actor: &mut Self, ctx| {
                if actor.generation != generation {
                    return;
                }
                match result {
                    Ok(subscription) => actor.subscribed(subscription, receiver, ctx),
                    Err(error) => actor.failed(error, ctx),
                }
            },
        ));
    }

    fn subscribed(
        &mut self,
        subscription: Subscription,
        queue: Arc<PushQueue>,
        ctx: &mut Context<Self>,
    ) {
        let Subscription {
            connection,
            driver,
            address,
            nodes,
            watch,
        } = subscription;
        self.finder.learn(&nodes);
        self.connection = Some(connection);
        self.driver = Some(driver);
        self.subscribed_at = Instant::now();
        self.watch = watch;
        self.is_watching = false;
        self.probe.sent_at = None;
        self.probe.misses = 0;
        ctx.add_stream(Arc::clone(&queue).turns());
        self.queue = Some(queue);
        if self.address.replace(address.clone()) != Some(address.clone()) {
            // Its old master may live on and take what is lost with it.
            self.store.reconnect();
        }
        self.store.load_library();
        let metrics = &self.shared.metrics.redis;
        metrics.subscribes.inc();
        metrics.up.set(1);
        // First the gap, then new streams: those have no part in the outage.
        if std::mem::take(&mut self.is_lost) {
            tell_disconnected(&self.shared.registry, true);
        }
        self.link.set_up();
        if let Some(feed) = &mut self.feed {
            feed.set_subscribed(true);
        }
        self.shared.check_positions();
        // What was revoked meanwhile was not told here.
        self.shared.revocation_news.tell();
        info!(
            address,
            pattern = format!("{}*", self.shared.settings.redis.channel_prefix),
            "subscribed to Redis"
        );
        self.send_probe(ctx);
    }

    fn failed(&mut self, error: String, ctx: &mut Context<Self>) {
        self.link.set_down(error.clone());
        if self.attempts == 1 {
            warn!(%error, "cannot subscribe to Redis, trying again");
        } else {
            debug!(%error, attempts = self.attempts, "cannot subscribe to Redis");
        }
        self.connect_later(ctx);
    }

    /// Connects at once after a link that proved good, else after a pause that
    /// grows with each attempt: one may be accepted and cut each time.
    fn connect_later(&mut self, ctx: &mut Context<Self>) {
        let Some(attempts) = self.attempts.checked_sub(1) else {
            return self.connect(ctx);
        };
        let max = self.shared.settings.redis.reconnect_max_delay;
        ctx.run_later(backoff(attempts, max), Self::connect);
    }

    /// The subscription is gone: whatever is published now is missed. All runs
    /// are told by a gap when it is back, so that who reads his state anew on
    /// a gap misses nothing after it; if that takes long, once before, too.
    fn lost(&mut self, error: &str, ctx: &mut Context<Self>) {
        if self.connection.take().is_none() {
            return;
        }
        self.driver = None;
        if let Some(queue) = self.queue.take() {
            queue.close();
        }
        warn!(error, "subscription to Redis lost");
        self.link.set_down(error.to_owned());
        self.shared.metrics.redis.up.set(0);
        self.shared.metrics.redis.disconnects.inc();
        if let Some(feed) = &mut self.feed {
            feed.set_subscribed(false);
        }
        self.is_lost = true;
        self.losses += 1;
        let losses = self.losses;
        ctx.run_later(OUTAGE_TOLD_AFTER, move |actor, _| {
            // Subscribed meanwhile, or lost again: told then.
            if actor.is_lost && actor.losses == losses {
                tell_disconnected(&actor.shared.registry, false);
            }
        });
        self.connect_later(ctx);
    }

    // ---- probing -----------------------------------------------------------

    fn probe(&mut self, ctx: &mut Context<Self>) {
        if self.connection.is_none() {
            return;
        }
        if self.probe.sent_at.is_some() {
            self.probe.misses += 1;
            self.shared.metrics.redis.probe_misses.inc();
            if self.probe.misses >= PROBE_MISSES_MAX {
                return self.lost("two probes in a row came not back", ctx);
            }
        }
        self.send_probe(ctx);
        self.watch(ctx);
        if let Some(feed) = &mut self.feed {
            feed.send();
        }
    }

    /// Looks whether the server is still the right one: a master that was
    /// demoted, or a node cut off from its Cluster, echoes as well as ever.
    fn watch(&mut self, ctx: &mut Context<Self>) {
        let Some(connection) = self.connection.clone() else {
            return;
        };
        if std::mem::replace(&mut self.is_watching, true) {
            return;
        }
        let (watch, generation) = (self.watch.clone(), self.generation);
        let settings = self.shared.settings.redis.clone();
        let look = async move { watch.objection(connection, &settings).await };
        ctx.spawn(wrap_future(look).map(
            move |objection, actor: &mut Self, ctx: &mut Context<Self>| {
                if actor.generation == generation {
                    actor.is_watching = false;
                    if let Some(objection) = objection {
                        actor.lost(&objection, ctx);
                    }
                }
            },
        ));
    }

    /// Publishes on the subscription's own connection: only so does the echo
    /// prove this very link, there and back.
    fn send_probe(&mut self, ctx: &mut Context<Self>) {
        let Some(mut connection) = self.connection.clone() else {
            return;
        };
        self.shared.metrics.redis.probes.inc();
        self.probe.sent_at.get_or_insert_with(Instant::now);
        let channel = self.probe.channel.clone();
        let publish = async move {
            let sent: redis::RedisResult<()> = redis::cmd("PUBLISH")
                .arg(channel)
                .arg("")
                .query_async(&mut connection)
                .await;
            sent
        };
        ctx.spawn(wrap_future(publish).map(|sent, _: &mut Self, _| {
            // A failure shows as a probe that does not come back.
            if let Err(error) = sent {
                debug!(%error, "probe not sent");
            }
        }));
    }

    fn probe_came_back(&mut self) {
        if let Some(sent_at) = self.probe.sent_at.take() {
            self.link
                .set_latency(sent_at.elapsed().as_secs_f64() * 1000.0);
        }
        self.probe.misses = 0;
        self.attempts = 0;
    }

    // ---- routing -----------------------------------------------------------

    pub(super) fn route(&mut self, turn: Turn, ctx: &mut Context<Self>) {
        let received_at = Instant::now();
        // What arrives proves the link as well as an echo does.
        self.probe.misses = 0;
        let metrics = &self.shared.metrics.redis;
        metrics.queue_messages.set(turn.left.0);
        metrics.queue_bytes.set(turn.left.1);
        let mut batches = std::mem::take(&mut self.batches);
        let limits = &self.live.now().limits;
        // Once a turn, not once a message.
        let bounds = Bounds {
            event_bytes: limits.max_event_bytes.as_u64(),
            source_bytes: limits.max_source_bytes,
        };
        let mut is_lost = false;
        for push in turn.pushes {
            match push {
                Push::Message { channel, payload } => {
                    self.sort(&mut batches, channel, payload, bounds);
                }
                Push::Disconnected => is_lost = true,
                // Of a shard's connection only.
                Push::Subscribed(_) | Push::Unsubscribed(_) | Push::Refused(_) | Push::Pong => {}
                Push::Overflow(count) => {
                    deliver(&self.shared, &mut batches, received_at);
                    self.overflowed(count);
                    if let Some(feed) = &mut self.feed {
                        feed.missed();
                    }
                }
            }
        }
        deliver(&self.shared, &mut batches, received_at);
        self.batches = batches;
        if let Some(feed) = &mut self.feed {
            feed.send();
        }
        if is_lost {
            self.lost("the connection was closed", ctx);
        }
    }

    /// Puts a message to those of its run.
    fn sort(&mut self, batches: &mut Batches, channel: Bytes, payload: Bytes, bounds: Bounds) {
        let metrics = &self.shared.metrics.redis;
        metrics.messages.inc();
        metrics.bytes.add(payload.len() as u64);
        let is_too_large = payload.len() as u64 > bounds.event_bytes;
        let (channel, payload) = match is_too_large || self.feed.is_some() {
            true => (channel, payload),
            false => match batches.repeat(channel, payload) {
                Ok(()) => return,
                Err(other) => other,
            },
        };
        let prefix = &self.shared.settings.redis.channel_prefix;
        let rest = channel.strip_prefix(prefix.as_bytes()).unwrap_or_default();
        if rest.first() == Some(&b'_') {
            if rest.starts_with(PROBE_PREFIX.as_bytes()) {
                // Other brokers on this Redis probe, too.
                if channel == self.probe.channel.as_bytes() {
                    self.probe_came_back();
                }
                return;
            }
            if rest == REVOKED.as_bytes() {
                // Only a hint, which anybody may give: what counts is read.
                return self.shared.revocation_news.tell();
            }
            if let Some(rest) = rest.strip_prefix(RECORDER_PREFIX.as_bytes()) {
                if let Some(feed) = &mut self.feed {
                    feed.notice(rest, &payload);
                }
                return;
            }
        }
        match Channel::parse(prefix, &channel) {
            Ok(Channel::Framed { run_id }) => {
                if let Some(feed) = &mut self.feed {
                    feed.framed(channel.slice_ref(run_id.as_bytes()), payload.clone());
                }
                let read = ChannelRead::Framed;
                batches.add(run_id, &channel, read, payload);
            }
            Ok(Channel::Plain {
                run_id,
                kind,
                source,
            }) => {
                let source_start = channel.len() - source.len();
                if is_too_large || source.len() > bounds.source_bytes {
                    return batches.add_too_large(run_id, &channel, kind);
                }
                if let (Some(feed), Ok(run_id)) = (&mut self.feed, RunId::parse(run_id)) {
                    // Kept for long: not with all that it was read with.
                    return feed.plain(PlainMessage {
                        run_id,
                        kind,
                        source_start,
                        channel: Bytes::copy_from_slice(&channel),
                        payload: Bytes::copy_from_slice(&payload),
                    });
                }
                let read = ChannelRead::Plain { kind, source_start };
                batches.add(run_id, &channel, read, payload);
            }
            Err(error) => self.reject(error),
        }
    }

    fn reject(&self, error: ChannelError) {
        let reason = match error {
            ChannelError::Foreign => RejectReason::ForeignChannel,
            ChannelError::NotUtf8 => RejectReason::ChannelNotUtf8,
            ChannelError::RunId(_) => RejectReason::BadRunId,
            ChannelError::UnknownKind => RejectReason::UnknownKind,
        };
        self.shared.metrics.redis.rejected.of(reason).inc();
        debug!(%error, "message that belongs to no run dropped");
    }

    /// Messages of runs we do not know were dropped: all are told.
    fn overflowed(&self, count: u64) {
        error!(
            dropped = count,
            "Redis is faster than we are: messages dropped"
        );
        self.shared.metrics.redis.queue_overflows.add(count);
        self.shared.registry.each(BackendKind::Redis, |_, entry| {
            // What was refused before is in the same gap, whose size is unknown.
            entry.stats.take_refused();
            if entry.hub.try_send(Overflowed(Refused::UNKNOWN)).is_err() {
                entry.stats.refuse(Refused::UNKNOWN);
            }
        });
    }
}

/// Tells every run that it misses what is published now.
fn tell_disconnected(registry: &Registry, is_back: bool) {
    registry.each(BackendKind::Redis, |_, entry| {
        // Refused: the next message or sweep tells of a gap all the same.
        if entry.hub.try_send(Disconnected { is_back }).is_err() {
            entry.stats.refuse(Refused::UNKNOWN);
        }
    });
}

impl Actor for RedisSubscriber {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.connect(ctx);
        ctx.run_interval(self.shared.settings.redis.probe_interval, Self::probe);
    }
}

impl Handler<Resubscribe> for RedisSubscriber {
    type Result = ();

    fn handle(&mut self, _: Resubscribe, ctx: &mut Self::Context) {
        // Many hubs may find out together.
        if self.subscribed_at.elapsed() >= RESUBSCRIBE_MIN_AGE {
            self.lost("it did not bring what was published", ctx);
        }
    }
}

impl Supervised for RedisSubscriber {
    fn restarting(&mut self, ctx: &mut Self::Context) {
        self.shared.metrics.actor_restarts.inc();
        self.lost("the subscriber was restarted", ctx);
    }
}

impl StreamHandler<Turn> for RedisSubscriber {
    fn handle(&mut self, turn: Turn, ctx: &mut Self::Context) {
        self.route(turn, ctx);
    }

    fn finished(&mut self, _: &mut Self::Context) {}
}
