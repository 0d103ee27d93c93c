//! How a hub that serves `auto` begins and what it is passed on: as a copy of
//! the run's Redis hub, and then all that this one is sent.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;

use super::super::ending::EndState;
use super::super::messages::{Mirror, MirroredEnded, Seeded, Unmirror};
use super::super::writer::LogWriter;
use super::super::{
    Arrived, Disconnected, HubEntry, Overflowed, RecordingBroke, Refused, RunHub, ShardSubscribed,
};
use crate::order::{OrderInput, RunOrder};
use crate::protocol::BackendKind;
use crate::run_log::RunLog;

/// What a hub begins with that serves `auto`.
pub(in crate::hub) struct Seed {
    log: RunLog,
    writer: LogWriter,
    order: RunOrder,
    /// The status that ended the run, and the id of its `end` if that was sent.
    end: Option<(String, Option<String>)>,
    is_unproven: bool,
}

/// The Redis hub that a hub is passed on everything by. It lives as long.
pub(in crate::hub) struct Parent {
    entry: HubEntry,
    hub: HubEntry,
}

impl Drop for Parent {
    fn drop(&mut self) {
        self.entry.stats.remove_attachment();
        #[expect(
            clippy::disallowed_methods,
            reason = "one per hub, and it must not be refused"
        )]
        self.entry
            .hub
            .do_send(Unmirror(Arc::clone(&self.hub.stats)));
    }
}

impl RunHub {
    /// Asks the run's Redis hub, made if need be, for its log and all that
    /// arrives after it.
    pub(in crate::hub) fn ask_for_mirror(&mut self, ctx: &mut Context<Self>) {
        let hub = HubEntry {
            hub: ctx.address(),
            stats: Arc::clone(&self.stats),
        };
        let shared = Arc::clone(&self.shared);
        let asked = shared.with_hub(BackendKind::Redis, &self.run_id, |entry| {
            entry.stats.add_attachment();
            #[expect(
                clippy::disallowed_methods,
                reason = "one per hub, and it must not be refused"
            )]
            entry.hub.do_send(Mirror(Some(hub.clone())));
            entry.clone()
        });
        let Some(entry) = asked else {
            let problem = shared.no_hub(BackendKind::Redis, &self.run_id);
            self.shared
                .registry
                .remove(self.backend, &self.run_id, &self.stats);
            self.retired = true;
            // Whoever found it before it was out of the registry has sent his
            // `Attach` by now: it is answered before this one ends.
            self.refusal = Some(problem);
            ctx.run_later(Duration::ZERO, |_, ctx| ctx.stop());
            return;
        };
        if let Some(failover) = &mut self.failover {
            failover.parent = Some(Parent { entry, hub });
        }
    }

    /// Clients of the run that stream from `auto`.
    pub(in crate::hub) fn mirror_clients(&self) -> u64 {
        let mirror = self.mirror.as_ref();
        mirror.map_or(0, |mirror| mirror.stats.clients())
    }

    /// Passes on what arrived. What its mailbox refuses it reads from the store,
    /// or tells by a gap, as any hub does.
    pub(in crate::hub) fn pass_on(&self, arrived: &Arrived) {
        let Some(mirror) = &self.mirror else { return };
        let refused_before = arrived.refused_before.and(mirror.stats.take_refused());
        let batch = Arrived {
            refused_before,
            messages: arrived.messages.clone(),
            received_at: arrived.received_at,
        };
        if mirror.hub.try_send(batch).is_err() {
            self.shared.metrics.mailbox_refusals.inc();
            mirror.stats.refuse(refused_before.and(Refused::UNKNOWN));
        }
    }

    /// Passes on that the subscription was lost, or is back.
    pub(in crate::hub) fn pass_on_loss(&self, disconnected: Disconnected) {
        if let Some(mirror) = &self.mirror
            && mirror.hub.try_send(disconnected).is_err()
        {
            mirror.stats.refuse(Refused::UNKNOWN);
        }
    }

    /// Passes on that plain messages could not be recorded.
    pub(in crate::hub) fn pass_on_broken_record(&self) {
        if let Some(mirror) = &self.mirror
            && mirror.hub.try_send(RecordingBroke).is_err()
        {
            mirror.stats.refuse(Refused::UNKNOWN);
        }
    }

    /// Passes on that the run is subscribed to in its shard since now.
    pub(in crate::hub) fn pass_on_shard(&self) {
        if let Some(mirror) = &self.mirror
            && mirror.hub.try_send(ShardSubscribed).is_err()
        {
            mirror.stats.refuse(Refused::UNKNOWN);
        }
    }

    /// Passes on that messages were dropped before they came here.
    pub(in crate::hub) fn pass_on_overflow(&self, refused: Refused) {
        if let Some(mirror) = &self.mirror
            && mirror.hub.try_send(Overflowed(refused)).is_err()
        {
            mirror.stats.refuse(refused);
        }
    }

    /// This hub ends, and so must the one it passes on to: that one would miss
    /// everything.
    pub(in crate::hub) fn end_mirror(&mut self) {
        if let Some(mirror) = self.mirror.take() {
            #[expect(
                clippy::disallowed_methods,
                reason = "one per hub, and it must not be refused"
            )]
            mirror.hub.do_send(MirroredEnded);
        }
        self.forget_failover();
    }

    fn seed(&self) -> Seed {
        let end = match &self.end {
            EndState::Open => None,
            EndState::Ending { status, .. } => Some((status.clone(), None)),
            EndState::Ended { id, status } => Some((status.clone(), Some(id.clone()))),
        };
        Seed {
            log: self.log.clone(),
            writer: self.writer.fork(BackendKind::Auto, &self.log),
            order: self.order.fork(),
            end,
            is_unproven: self.is_unproven,
        }
    }
}

impl Handler<Mirror> for RunHub {
    type Result = ();

    fn handle(&mut self, mut mirror: Mirror, ctx: &mut Self::Context) {
        let Some(entry) = mirror.0.take() else { return };
        #[expect(
            clippy::disallowed_methods,
            reason = "one per hub, and it must not be refused"
        )]
        entry.hub.do_send(Seeded(Box::new(self.seed())));
        self.mirror = Some(entry);
        self.watch_shard();
        // It has no worker of its own, perhaps, and follows the run all the same.
        self.watched(ctx);
        self.publish(ctx);
    }
}

impl Handler<Unmirror> for RunHub {
    type Result = ();

    fn handle(&mut self, Unmirror(stats): Unmirror, ctx: &mut Self::Context) {
        // Another may have taken its place.
        let left = self
            .mirror
            .take_if(|mirror| Arc::ptr_eq(&mirror.stats, &stats));
        if left.is_some() && self.attachments.is_empty() {
            self.step(OrderInput::Unwatched, ctx);
        }
    }
}

impl Handler<MirroredEnded> for RunHub {
    type Result = ();

    fn handle(&mut self, _: MirroredEnded, ctx: &mut Self::Context) {
        // Its workers attach to another, which begins as a copy of another.
        ctx.stop();
    }
}

impl Handler<Seeded> for RunHub {
    type Result = ();

    fn handle(&mut self, Seeded(seed): Seeded, ctx: &mut Self::Context) {
        let Seed {
            log,
            writer,
            order,
            end,
            is_unproven,
        } = *seed;
        (self.log, self.writer, self.order) = (log, writer, order);
        self.is_unproven = is_unproven;
        self.order_epoch = self.writer.last_durable.map(|id| id.epoch);
        self.stats.set_log_end_no(self.log.end_no());
        self.keep_total_bounded();
        match end {
            None => {}
            Some((status, None)) => self.begin_end(status, ctx),
            Some((status, Some(id))) => self.end = EndState::Ended { id, status },
        }
        if let Some(failover) = &mut self.failover {
            failover.is_seeded = true;
        }
        self.begin_ticking(ctx);
        if !self.attachments.is_empty() {
            self.auto_attached(ctx);
        }
    }
}
