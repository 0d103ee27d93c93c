//! [`Feed`]: the subscriber's end of the recorder.

use std::sync::Arc;

use actix::prelude::*;
use bytes::Bytes;
use tracing::error;

use super::{Notice, Observation, Observed, PlainMessage, Recorder};
use crate::broker::BrokerShared;
use crate::redis::RedisStore;

/// Gathers what a turn brought for the recorder, which it makes, and replaces
/// should it have panicked.
pub(in crate::redis) struct Feed {
    shared: Arc<BrokerShared>,
    store: RedisStore,
    recorder: Option<Addr<Recorder>>,
    observations: Vec<Observation>,
    is_subscribed: bool,
    /// The recorder ends when this is gone.
    alive: Arc<()>,
}

impl Feed {
    /// Makes a feed, if settings say that plain messages are recorded.
    pub(in crate::redis) fn new(shared: &Arc<BrokerShared>, store: &RedisStore) -> Option<Self> {
        shared.settings.history.record_plain.then(|| Self {
            shared: Arc::clone(shared),
            store: store.clone(),
            recorder: None,
            observations: Vec::new(),
            is_subscribed: false,
            alive: Arc::default(),
        })
    }

    /// Adds a plain message to this turn.
    pub(in crate::redis) fn plain(&mut self, message: PlainMessage) {
        self.observations.push(Observation::Plain(message));
    }

    /// Adds a message on a run's framed channel.
    pub(in crate::redis) fn framed(&mut self, run_id: Bytes, message: Bytes) {
        self.observations.push(Observation::Framed(run_id, message));
    }

    /// Adds what a recorder says; `rest` is its channel behind the prefix.
    pub(in crate::redis) fn notice(&mut self, rest: &[u8], payload: &[u8]) {
        let notice = Notice::read(rest, payload);
        self.observations.extend(notice.map(Observation::Notice));
    }

    /// Adds that messages were dropped.
    pub(in crate::redis) fn missed(&mut self) {
        self.observations.push(Observation::Missed);
    }

    /// The subscription is there, or gone.
    pub(in crate::redis) fn set_subscribed(&mut self, is_subscribed: bool) {
        self.is_subscribed = is_subscribed;
        self.observations.push(match is_subscribed {
            true => Observation::Subscribed,
            false => Observation::Unsubscribed,
        });
        self.send();
    }

    /// Hands the turn over.
    pub(in crate::redis) fn send(&mut self) {
        self.keep_alive();
        let observations = std::mem::take(&mut self.observations);
        if observations.is_empty() {
            return;
        }
        if let Some(recorder) = &self.recorder
            && recorder.try_send(Observed(observations)).is_err()
        {
            // What it held is gone; the next turn begins with saying so.
            self.shared.metrics.mailbox_refusals.inc();
            let state = match self.is_subscribed {
                true => Observation::Subscribed,
                false => Observation::Unsubscribed,
            };
            self.observations.extend([Observation::Missed, state]);
        }
    }

    /// Has a recorder, a new one if the last one died.
    fn keep_alive(&mut self) {
        if self.recorder.as_ref().is_some_and(Addr::connected) {
            return;
        }
        let (shared, store) = (Arc::clone(&self.shared), self.store.clone());
        let recorder = Recorder::new(shared, store, Arc::downgrade(&self.alive)).start();
        self.shared.set_recorder(recorder.clone());
        if self.recorder.replace(recorder).is_some() {
            error!("the recorder died and is replaced");
            self.shared.metrics.actor_restarts.inc();
            if self.is_subscribed {
                // It has seen nothing of what went before.
                self.observations.insert(0, Observation::Subscribed);
            }
        }
    }
}
