//! [`Recorder`]: gives agents that only `PUBLISH` a durable history
//! (`history.record_plain`).
//!
//! One broker of all on a Redis records; see docs/record-plain.md for what is
//! promised, and decision 016 for why it is so.

mod buffer;
mod feed;
mod lease;
mod recording;

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use actix::prelude::*;
use bytes::Bytes;
use tracing::{info, warn};

pub(super) use buffer::PlainMessage;
use buffer::{Bounds, Buffer};
pub(super) use feed::Feed;
use lease::{Ask, Holder, LEASE, LeaseState};
pub(super) use lease::{Notice, RECORDER_PREFIX, RecorderLease};

use super::RedisStore;
use crate::broker::BrokerShared;
use crate::hub::RecordingBroke;
use crate::protocol::{BackendKind, FramedEvent, RunId};
use crate::settings::RedisPlace;

/// How often the lease is renewed, or asked for.
const RENEW_INTERVAL: Duration = Duration::from_secs(1);

/// A recorder that has received all it has within this time keeps up.
const FRESH_MAX_AGE: Duration = Duration::from_secs(1);

/// How often a holder that keeps up must be seen to renew the lease, until
/// what it may not have recorded can only be what we have, too.
const RENEWALS_SEEN_MIN: u64 = 2;

/// Turns that may wait in the mailbox; past it a turn is missed, and told.
const MAILBOX: usize = 1024;

/// What the subscription brought, in order.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Observed(pub(super) Vec<Observation>);

/// One thing the subscription brought.
#[derive(Debug)]
pub(super) enum Observation {
    /// It is back; what was published before was missed.
    Subscribed,
    /// It is gone.
    Unsubscribed,
    /// Messages were dropped, of whichever run.
    Missed,
    /// A plain message.
    Plain(PlainMessage),
    /// A message on a framed channel: run and message.
    Framed(Bytes, Bytes),
    /// Another recorder, or our own, has something to say.
    Notice(Notice),
}

/// Give the lease up: the broker ends.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub(crate) struct Leave;

/// Records plain messages while it holds the lease; else keeps them until it
/// sees that they are recorded, for the case that the recorder dies.
///
/// Lives on the core arbiter beside the subscriber, which makes it, feeds it
/// and replaces it should it panic. Takes [`Observed`] from it and [`Leave`]
/// when the broker ends; its mailbox holds 1024 turns. Hubs get nothing from it but the copies of
/// what it recorded, by the subscription, as all brokers do.
pub(crate) struct Recorder {
    /// Gone with the subscriber that feeds us.
    feed: Weak<()>,
    shared: Arc<BrokerShared>,
    store: RedisStore,
    lease: RecorderLease,
    buffer: Buffer,
    is_subscribed: bool,
    /// Counts what spoils an answer that is under way.
    interruptions: u64,
    /// A question for the lease is under way.
    is_asking: bool,
    is_leaving: bool,
    /// Number of the lease, while it is ours, and until when it surely is.
    held: Option<(u64, Instant)>,
    renewals: Option<u64>,
    /// How often others were seen to renew it in this subscription.
    renewals_seen: u64,
    breaks: Option<u64>,
    /// When another was last seen to hold the lease.
    other_seen_at: Option<Instant>,
    /// Something was lost that all have to be told of.
    has_lost: bool,
    /// Runs that have a call under way.
    busy: usize,
    queue: recording::Queue,
}

impl Recorder {
    fn new(shared: Arc<BrokerShared>, store: RedisStore, feed: Weak<()>) -> Self {
        let history = &shared.settings.history;
        let bounds = Bounds {
            messages: history.record_plain_messages,
            bytes: history.record_plain_bytes.as_u64() as usize,
            age: history.record_plain_max_age,
        };
        let place = shared.settings.redis.url.place();
        let is_cluster = matches!(place, RedisPlace::Cluster(_));
        Self {
            buffer: Buffer::new(bounds, is_cluster),
            lease: store.recorder_lease(),
            feed,
            shared,
            store,
            is_subscribed: false,
            interruptions: 0,
            is_asking: false,
            is_leaving: false,
            held: None,
            renewals: None,
            renewals_seen: 0,
            breaks: None,
            other_seen_at: None,
            has_lost: false,
            busy: 0,
            queue: recording::Queue::default(),
        }
    }

    // ---- what the subscription brings --------------------------------------

    fn observe(&mut self, observation: Observation, now: Instant, ctx: &mut Context<Self>) {
        match observation {
            Observation::Subscribed => {
                self.is_subscribed = true;
                self.interrupted();
                self.ask(ctx);
            }
            Observation::Unsubscribed => {
                self.is_subscribed = false;
                self.give_up(ctx);
            }
            Observation::Missed => self.give_up(ctx),
            Observation::Plain(message) => {
                let run_id = message.run_id.clone();
                match self.buffer.push(message, now) {
                    true => self.queue.add(run_id),
                    false => self.full(),
                }
            }
            Observation::Framed(run_id, message) => self.framed(&run_id, &message, now),
            Observation::Notice(notice) => self.noticed(notice, ctx),
        }
    }

    fn framed(&mut self, run_id: &[u8], message: &Bytes, now: Instant) {
        let Ok(copy) = FramedEvent::parse(message) else {
            return;
        };
        let Ok(run_id) = std::str::from_utf8(run_id) else {
            return;
        };
        if copy.recorded && self.buffer.strike(run_id, &copy, message, now) {
            self.shared.metrics.recorder.matched.inc();
        }
    }

    fn noticed(&mut self, notice: Notice, ctx: &mut Context<Self>) {
        match notice {
            Notice::Free | Notice::Break => self.ask(ctx),
            Notice::Fence { broker, text } => {
                if broker != self.lease.broker {
                    return;
                }
                let Some((number, run_id)) = text.split_once(' ') else {
                    return;
                };
                let is_current = self
                    .held
                    .is_some_and(|(held, _)| number == held.to_string());
                if let (true, Ok(run_id)) = (is_current, RunId::parse(run_id)) {
                    self.buffer.fence_noticed(&run_id);
                    self.queue.add(run_id);
                }
            }
        }
    }

    /// There is no room: the newest go.
    fn full(&mut self) {
        self.lost(1);
        // What we have is no longer all that may not be recorded.
        self.renewals_seen = 0;
    }

    /// Notes messages dropped. If we are who should have recorded them, all are
    /// told with the next renewal; if nobody is, our own clients are at once.
    fn lost(&mut self, count: u64) {
        let counters = &self.shared.metrics.recorder;
        if self.held.is_some() {
            counters.dropped.add(count);
            if !std::mem::replace(&mut self.has_lost, true) {
                warn!("plain messages are lost: they cannot be recorded in time");
            }
        } else if self.other_seen_at.is_none_or(|at| at.elapsed() > 2 * LEASE) {
            counters.dropped.add(count);
            self.tell_break();
        }
    }

    // ---- the lease ---------------------------------------------------------

    /// Something was missed: others that missed nothing shall record.
    fn interrupted(&mut self) {
        self.interruptions += 1;
        self.held = None;
        self.renewals = None;
        self.renewals_seen = 0;
        self.shared.metrics.recorder.is_recorder.set(0);
        self.buffer.open_all();
        self.buffer.forget_recorded();
        self.busy = 0;
    }

    fn give_up(&mut self, ctx: &mut Context<Self>) {
        let was_held = self.held.is_some();
        self.interrupted();
        if was_held {
            info!("gives up recording plain messages");
            self.release(ctx);
        }
    }

    /// Lets others have the lease. If that fails it ends by itself.
    fn release(&self, ctx: &mut Context<Self>) {
        let lease = self.lease.clone();
        ctx.spawn(async move { drop(lease.release().await) }.into_actor(self));
    }

    /// Asks for the lease, or renews it.
    fn ask(&mut self, ctx: &mut Context<Self>) {
        if !self.is_subscribed || self.is_leaving || self.is_asking {
            return;
        }
        self.is_asking = true;
        let now = Instant::now();
        let is_fresh = |oldest: Instant| now.saturating_duration_since(oldest) < FRESH_MAX_AGE;
        let ask = Ask {
            is_held: self.held.is_some(),
            is_fresh: self.buffer.oldest().is_none_or(is_fresh),
            is_continuous: self.renewals_seen >= RENEWALS_SEEN_MIN,
            has_lost: std::mem::take(&mut self.has_lost),
        };
        let (lease, interruptions) = (self.lease.clone(), self.interruptions);
        let asking = async move { lease.hold(ask).await };
        ctx.spawn(
            asking
                .into_actor(self)
                .map(move |answer, recorder, ctx| match answer {
                    Ok(state) => recorder.answered(state, ask, now, interruptions, ctx),
                    Err(error) => {
                        warn!(%error, "the recorder's lease is not answered");
                        recorder.is_asking = false;
                        recorder.has_lost |= ask.has_lost;
                    }
                }),
        );
    }

    fn answered(
        &mut self,
        state: LeaseState,
        ask: Ask,
        asked_at: Instant,
        interruptions: u64,
        ctx: &mut Context<Self>,
    ) {
        self.is_asking = false;
        if self.interruptions != interruptions || self.is_leaving {
            let is_ours = state.holder == Holder::Us;
            if is_ours {
                self.release(ctx);
            }
            self.has_lost |= ask.has_lost && !is_ours;
            return;
        }
        let known = self.breaks.replace(state.breaks);
        if known.is_some_and(|known| known != state.breaks) {
            self.tell_break();
        }
        if state.holder != Holder::Us {
            self.has_lost |= ask.has_lost;
            return self.others(state, ctx);
        }
        let had = self.held.map(|(number, _)| number);
        self.held = Some((state.number, asked_at + LEASE));
        if had != Some(state.number) {
            self.took_over(state);
        }
        self.pump(ctx);
    }

    fn took_over(&mut self, state: LeaseState) {
        let counters = &self.shared.metrics.recorder;
        counters.is_recorder.set(1);
        counters.takeovers.inc();
        counters.taken_over.add(self.buffer.messages() as u64);
        info!(
            number = state.number,
            waiting = self.buffer.messages(),
            "records plain messages from now on"
        );
        self.buffer.open_all();
        self.busy = 0;
        for run_id in self.buffer.waiting() {
            self.queue.add(run_id);
        }
    }

    /// Another broker records.
    fn others(&mut self, state: LeaseState, ctx: &mut Context<Self>) {
        if self.held.is_some() {
            info!(
                number = state.number,
                "another broker records plain messages"
            );
            self.give_up(ctx);
        }
        if state.holder == Holder::Other {
            self.other_seen_at = Some(Instant::now());
        }
        let known = self.renewals.replace(state.renewals);
        if known.is_some_and(|known| known != state.renewals) {
            self.renewals_seen += 1;
        }
    }

    /// Tells every run that plain messages may be missing from now on.
    fn tell_break(&self) {
        warn!("plain messages may be missing: nobody could record them");
        self.shared.metrics.recorder.breaks.inc();
        self.shared.registry.each(BackendKind::Redis, |_, entry| {
            if entry.hub.try_send(RecordingBroke).is_err() {
                entry.stats.refuse(crate::hub::Refused::UNKNOWN);
            }
        });
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        if self.feed.strong_count() == 0 {
            // The subscriber died: another one feeds another recorder.
            self.is_subscribed = false;
            self.give_up(ctx);
            let released = LEASE.min(self.shared.settings.redis.command_timeout);
            ctx.run_later(released, |_, ctx| ctx.stop());
        }
        let expired = self.buffer.expire(Instant::now());
        if expired > 0 {
            self.lost(expired);
        }
        let counters = &self.shared.metrics.recorder;
        let is_standby = self.held.is_none() && self.renewals_seen >= RENEWALS_SEEN_MIN;
        counters.is_standby.set(is_standby.into());
        counters.messages.set(self.buffer.messages() as u64);
        counters.bytes.set(self.buffer.bytes() as u64);
        self.ask(ctx);
    }
}

impl Actor for Recorder {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        ctx.run_interval(RENEW_INTERVAL, Self::tick);
    }
}

impl Handler<Observed> for Recorder {
    type Result = ();

    fn handle(&mut self, Observed(observations): Observed, ctx: &mut Self::Context) {
        let now = Instant::now();
        for observation in observations {
            self.observe(observation, now, ctx);
        }
        self.pump(ctx);
    }
}

impl Handler<Leave> for Recorder {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Leave, _: &mut Self::Context) -> Self::Result {
        self.is_leaving = true;
        let was_held = self.held.is_some();
        self.interrupted();
        let lease = self.lease.clone();
        Box::pin(async move {
            if was_held {
                drop(lease.release().await);
            }
        })
    }
}
