//! [`ShardSubscriber`]: the runs that are watched here, subscribed to in their
//! shards of a Cluster.

mod link;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::fut::wrap_future;
use actix::prelude::*;
use bytes::Bytes;
use futures_util::StreamExt as _;
use tracing::{debug, info, warn};

use self::link::{ShardLink, encode};
use super::RedisStore;
use super::batches::{Batches, ChannelRead};
use super::cluster::{Slots, slot_of};
use super::connection::at;
use super::deliver::deliver;
use super::node::long_lived;
use super::push_queue::{Push, PushQueue, Turn};
use crate::broker::BrokerShared;
use crate::hub::ShardSubscribed;
use crate::protocol::{BackendKind, Channel, EVENTS_SUFFIX, RunId};
use crate::settings::{RedisPlace, RedisSettings};

/// Pause before the slots are looked at again after something went wrong.
const LOOK_DELAY: Duration = Duration::from_millis(100);

/// Probes in a row without an answer after which a link counts as dead.
const PROBE_MISSES_MAX: u32 = 2;

/// Has a run subscribed to.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Watch(pub(crate) RunId);

/// Has the subscription of a run ended, if no hub of it is watched.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Look(pub(crate) RunId);

/// Keeps a connection to each master that serves a run which is watched here,
/// and on it `SSUBSCRIBE run:{<id>}:events` for each such run.
///
/// Lives on the core arbiter beside [`RedisSubscriber`](super::RedisSubscriber),
/// which goes on hearing all that is published plainly, or by others to every
/// node. Only with `redis.sharded_pubsub` and a Cluster. Bound of each
/// connection: as that of the one subscription.
///
/// Each confirmation makes the run's hub read the store once more, so whatever
/// was published before it is not missed; nor is what comes while a slot moves
/// or a master fails over, when subscriptions end and are made anew: where each
/// slot is, is looked at after every such end, and at every
/// `redis.probe_interval`. What gets lost without an end is found by the check
/// of positions, as ever.
pub struct ShardSubscriber {
    shared: Arc<BrokerShared>,
    store: RedisStore,
    slots: Arc<Slots>,
    runs: HashMap<RunId, Subscribed>,
    links: HashMap<String, Link>,
    /// Counts links: what an older one still says is dropped.
    generation: u64,
    /// A look begins in a moment.
    will_look: bool,
    is_looking: bool,
    /// Look once more when the look under way is over.
    looks_again: bool,
    /// Empty between turns; kept for its room.
    batches: Batches,
}

/// How far the subscription of a run is.
#[derive(Debug, Default)]
struct Subscribed {
    /// The master that was asked.
    at: Option<String>,
    asked_at: Option<Instant>,
    is_confirmed: bool,
}

struct Link {
    generation: u64,
    /// `None` while it is being made.
    link: Option<ShardLink>,
    queue: Arc<PushQueue>,
    probes_missed: u32,
}

/// What one link said.
struct LinkTurn {
    address: String,
    generation: u64,
    turn: Turn,
}

impl ShardSubscriber {
    /// Makes a subscriber for `shared`.
    pub fn new(shared: Arc<BrokerShared>, store: RedisStore) -> Self {
        Self {
            shared,
            store,
            slots: Arc::default(),
            runs: HashMap::new(),
            links: HashMap::new(),
            generation: 0,
            will_look: false,
            is_looking: false,
            looks_again: false,
            batches: Batches::default(),
        }
    }

    fn settings(&self) -> &RedisSettings {
        &self.shared.settings.redis
    }

    fn channel(&self, run_id: &RunId) -> String {
        let prefix = &self.settings().channel_prefix;
        format!("{prefix}{{{run_id}}}{EVENTS_SUFFIX}")
    }

    // ---- where runs are ----------------------------------------------------

    /// Reads which master serves what, and has every run subscribed to there.
    fn look(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.is_looking, true) {
            self.looks_again = true;
            return;
        }
        let reads = self.store.reads().clone();
        let looking = async move { reads.slots(reads.deadline()).await };
        ctx.spawn(wrap_future(looking).map(|slots, actor: &mut Self, ctx| {
            actor.is_looking = false;
            match slots {
                Ok(slots) => actor.arrange(slots, ctx),
                // The next probe looks again.
                Err(error) => debug!(%error, "slots not read"),
            }
            if std::mem::take(&mut actor.looks_again) {
                actor.look(ctx);
            }
        }));
    }

    /// The same in a moment, once for all that ask until then.
    fn look_soon(&mut self, ctx: &mut Context<Self>) {
        if !std::mem::replace(&mut self.will_look, true) {
            ctx.run_later(LOOK_DELAY, |actor, ctx| {
                actor.will_look = false;
                actor.look(ctx);
            });
        }
    }

    fn arrange(&mut self, slots: Arc<Slots>, ctx: &mut Context<Self>) {
        self.slots = slots;
        let masters = self.slots.masters();
        let gone = self.links.keys();
        let gone = gone.filter(|address| !masters.contains(&address.as_str()));
        for address in gone.cloned().collect::<Vec<_>>() {
            self.drop_link(&address);
        }
        let again = self.settings().probe_interval;
        let is_elsewhere = |(run_id, run): &(&RunId, &Subscribed)| {
            let is_asked = |at: Instant| at.elapsed() < again;
            run.at.as_deref() != self.slots.master_of(slot_of(run_id))
                || !run.is_confirmed && !run.asked_at.is_some_and(is_asked)
        };
        let moved = self.runs.iter().filter(is_elsewhere);
        let moved: Vec<RunId> = moved.map(|(run_id, _)| run_id.clone()).collect();
        self.subscribe(&moved, ctx);
    }

    /// Asks the masters of runs for their subscriptions, over links that are
    /// made if there is none.
    fn subscribe(&mut self, run_ids: &[RunId], ctx: &mut Context<Self>) {
        let slots = Arc::clone(&self.slots);
        let mut commands: HashMap<String, Vec<u8>> = HashMap::new();
        for run_id in run_ids {
            let master = slots.master_of(slot_of(run_id));
            let asked = self.runs.get(run_id).and_then(|run| run.at.as_deref());
            if asked != master {
                self.unsubscribe(run_id, &mut commands);
            }
            let Some(address) = master else {
                self.look_soon(ctx);
                continue;
            };
            match self.links.get(address) {
                None => self.connect(address, ctx),
                // All its runs are subscribed to when it is made.
                Some(Link { link: None, .. }) => {}
                Some(_) => {
                    let channel = self.channel(run_id);
                    let commands = commands.entry(address.to_owned()).or_default();
                    encode(commands, &["SSUBSCRIBE", &channel]);
                    if let Some(run) = self.runs.get_mut(run_id) {
                        run.at = Some(address.to_owned());
                        run.asked_at = Some(Instant::now());
                    }
                }
            }
        }
        self.send(commands, ctx);
    }

    /// Takes back what was asked for a run, wherever that was.
    fn unsubscribe(&mut self, run_id: &RunId, commands: &mut HashMap<String, Vec<u8>>) {
        let channel = self.channel(run_id);
        let Some(run) = self.runs.get_mut(run_id) else {
            return;
        };
        let Subscribed { at, .. } = std::mem::take(run);
        if let Some(address) = at
            && self.links.contains_key(&address)
        {
            let commands = commands.entry(address).or_default();
            encode(commands, &["SUNSUBSCRIBE", &channel]);
        }
    }

    fn send(&mut self, commands: HashMap<String, Vec<u8>>, ctx: &mut Context<Self>) {
        for (address, commands) in commands {
            let link = self.links.get(&address).and_then(|link| link.link.as_ref());
            if link.is_some_and(|link| !link.send(commands)) {
                self.lost(&address, "it takes no commands", ctx);
            }
        }
    }

    // ---- links ---------------------------------------------------------------

    fn connect(&mut self, address: &str, ctx: &mut Context<Self>) {
        let RedisPlace::Cluster(seeds) = self.settings().url.place() else {
            return;
        };
        let info = long_lived(at(&seeds[0], address));
        let settings = self.settings().clone();
        let queue = PushQueue::new(
            settings.queue_messages,
            settings.queue_bytes.as_u64() as usize,
        );
        self.generation += 1;
        let generation = self.generation;
        let link = Link {
            generation,
            link: None,
            queue: Arc::clone(&queue),
            probes_missed: 0,
        };
        self.links.insert(address.to_owned(), link);
        let address = address.to_owned();
        let connecting = async move { ShardLink::connect(&info, &settings, queue).await };
        ctx.spawn(
            wrap_future(connecting).map(move |link, actor: &mut Self, ctx| match link {
                Ok(link) => actor.connected(&address, generation, link, ctx),
                Err(error) => actor.failed(&address, generation, &error, ctx),
            }),
        );
    }

    fn connected(
        &mut self,
        address: &str,
        generation: u64,
        link: ShardLink,
        ctx: &mut Context<Self>,
    ) {
        let Some(known) = self.links.get_mut(address) else {
            return;
        };
        if known.generation != generation {
            return;
        }
        known.link = Some(link);
        let name = address.to_owned();
        let turns = Arc::clone(&known.queue).turns();
        ctx.add_stream(turns.map(move |turn| LinkTurn {
            address: name.clone(),
            generation,
            turn,
        }));
        info!(address, "connected to a shard");
        let is_served = |run_id: &&RunId| self.slots.master_of(slot_of(run_id)) == Some(address);
        let served = self.runs.keys().filter(is_served);
        let served: Vec<RunId> = served.cloned().collect();
        self.subscribe(&served, ctx);
    }

    fn failed(&mut self, address: &str, generation: u64, error: &str, ctx: &mut Context<Self>) {
        let link = self.links.get(address);
        if link.is_some_and(|link| link.generation == generation) {
            debug!(address, error, "cannot connect to a shard");
            self.links.remove(address);
            self.look_soon(ctx);
        }
    }

    fn lost(&mut self, address: &str, error: &str, ctx: &mut Context<Self>) {
        warn!(address, error, "subscriptions to a shard lost");
        self.drop_link(address);
        self.look_soon(ctx);
    }

    fn drop_link(&mut self, address: &str) {
        if let Some(link) = self.links.remove(address) {
            link.queue.close();
        }
        for run in self.runs.values_mut() {
            if run.at.as_deref() == Some(address) {
                *run = Subscribed::default();
            }
        }
    }

    fn probe(&mut self, ctx: &mut Context<Self>) {
        let mut commands = HashMap::new();
        let mut dead = Vec::new();
        for (address, link) in &mut self.links {
            if link.link.is_none() {
                continue;
            }
            if link.probes_missed >= PROBE_MISSES_MAX {
                dead.push(address.clone());
                continue;
            }
            link.probes_missed += 1;
            encode(commands.entry(address.clone()).or_default(), &["PING"]);
        }
        for address in dead {
            self.lost(&address, "it answers no probes", ctx);
        }
        self.send(commands, ctx);
        self.look(ctx);
        let metrics = &self.shared.metrics.redis;
        let pending = self.runs.values().filter(|run| !run.is_confirmed);
        metrics.shard_pending.set(pending.count() as u64);
        metrics.shard_runs.set(self.runs.len() as u64);
    }

    // ---- what they say -------------------------------------------------------

    fn route(&mut self, address: &str, turn: Turn, ctx: &mut Context<Self>) {
        let received_at = Instant::now();
        let mut batches = std::mem::take(&mut self.batches);
        for push in turn.pushes {
            match push {
                Push::Message { channel, payload } => self.sort(&mut batches, channel, payload),
                Push::Subscribed(channel) => self.confirmed(address, &channel),
                Push::Unsubscribed(channel) => self.ended(address, &channel, ctx),
                Push::Refused(error) => {
                    let error = String::from_utf8_lossy(&error);
                    debug!(address, %error, "a shard refuses a subscription");
                    self.look_soon(ctx);
                }
                Push::Overflow(count) => self.overflowed(address, count),
                Push::Disconnected => self.lost(address, "the connection was closed", ctx),
                Push::Pong => {}
            }
        }
        deliver(&self.shared, &mut batches, received_at);
        self.batches = batches;
    }

    fn sort(&self, batches: &mut Batches, channel: Bytes, payload: Bytes) {
        let metrics = &self.shared.metrics.redis;
        metrics.messages.inc();
        metrics.bytes.add(payload.len() as u64);
        let Err((channel, payload)) = batches.repeat(channel, payload) else {
            return;
        };
        if let Some(run_id) = self.run_of(&channel) {
            batches.add(run_id, &channel, ChannelRead::Framed, payload);
        }
    }

    fn run_of<'a>(&self, channel: &'a [u8]) -> Option<&'a str> {
        match Channel::parse(&self.settings().channel_prefix, channel) {
            Ok(Channel::Framed { run_id }) => Some(run_id),
            _ => None,
        }
    }

    fn confirmed(&mut self, address: &str, channel: &[u8]) {
        let run_id = self.run_of(channel).unwrap_or_default();
        if let Some(run) = self.runs.get_mut(run_id)
            && run.at.as_deref() == Some(address)
        {
            run.is_confirmed = true;
            self.tell_hub(run_id);
        }
    }

    /// A node ended a subscription, or did as it was asked.
    fn ended(&mut self, address: &str, channel: &[u8], ctx: &mut Context<Self>) {
        let run_id = self.run_of(channel).unwrap_or_default();
        if let Some(run) = self.runs.get_mut(run_id)
            && run.at.as_deref() == Some(address)
        {
            *run = Subscribed::default();
            self.look(ctx);
        }
    }

    fn overflowed(&self, address: &str, count: u64) {
        warn!(
            address,
            dropped = count,
            "a shard is faster than we are: messages dropped"
        );
        self.shared.metrics.redis.queue_overflows.add(count);
        for (run_id, run) in &self.runs {
            if run.at.as_deref() == Some(address) {
                self.tell_hub(run_id.as_str());
            }
        }
    }

    /// Has a run's hub read the store: something may not have come.
    fn tell_hub(&self, run_id: &str) {
        let registry = &self.shared.registry;
        registry.peek(BackendKind::Redis, run_id, |entry| {
            #[expect(
                clippy::disallowed_methods,
                reason = "one per subscription or overflow, and it must not be refused"
            )]
            entry.hub.do_send(ShardSubscribed);
        });
    }
}

impl Actor for ShardSubscriber {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // It may take the place of one that died.
        let registry = &self.shared.registry;
        registry.each(BackendKind::Redis, |run_id, entry| {
            if !entry.stats.is_unwatched() {
                self.runs.insert(run_id.clone(), Subscribed::default());
            }
        });
        self.look(ctx);
        let interval = self.settings().probe_interval;
        ctx.run_interval(interval, Self::probe);
    }
}

impl Supervised for ShardSubscriber {}

impl Handler<Watch> for ShardSubscriber {
    type Result = ();

    fn handle(&mut self, Watch(run_id): Watch, ctx: &mut Self::Context) {
        if !self.runs.contains_key(&run_id) {
            self.runs.insert(run_id.clone(), Subscribed::default());
            self.subscribe(&[run_id], ctx);
        }
    }
}

impl Handler<Look> for ShardSubscriber {
    type Result = ();

    fn handle(&mut self, Look(run_id): Look, ctx: &mut Self::Context) {
        // Another hub of the run may have come meanwhile.
        let registry = &self.shared.registry;
        let is_watched = registry.peek(BackendKind::Redis, run_id.as_str(), |entry| {
            !entry.stats.is_unwatched()
        });
        if is_watched != Some(true) {
            let mut commands = HashMap::new();
            self.unsubscribe(&run_id, &mut commands);
            self.runs.remove(&run_id);
            self.send(commands, ctx);
        }
    }
}

impl StreamHandler<LinkTurn> for ShardSubscriber {
    fn handle(&mut self, said: LinkTurn, ctx: &mut Self::Context) {
        let Some(link) = self.links.get_mut(&said.address) else {
            return;
        };
        if link.generation == said.generation {
            // What arrives proves the link as well as an answer does.
            link.probes_missed = 0;
            self.route(&said.address, said.turn, ctx);
        }
    }

    // The others go on.
    fn finished(&mut self, _: &mut Self::Context) {}
}
