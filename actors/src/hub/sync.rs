//! Reading the store: when the live order has a hole, and what is done then.
//!
//! [`RunOrder`](crate::order::RunOrder) decides; here its outputs are carried
//! out.

use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use tracing::{debug, info, warn};

use super::arrivals::Durable;
use super::ending::EndState;
use super::{
    Disconnected, Incoming, Overflowed, RecordingBroke, Refused, RunHub, ShardSubscribed,
    StorePosition,
};
use crate::metrics::EventResult;
use crate::order::{OrderInput, OrderOutput, PAGE_EVENTS};
use crate::protocol::{DurableId, Gap, GapReason, Place, Timestamp};
use crate::sse::FrameClass;
use crate::store::{Page, PageFrom, PageQuery, StoreError};

/// Pause before a failed read is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Pause before an archive that was left out is asked again.
const ARCHIVE_DELAY: Duration = Duration::from_secs(5);

/// Pause before a position that looked wrong is asked for again: longer than
/// an event, or an answer, is on its way.
const RECHECK_DELAY: Duration = Duration::from_millis(500);

/// What a held event costs beside its payload; counted, so that many small
/// ones cannot outgrow `hub.held_bytes`.
const HELD_OVERHEAD_BYTES: usize = 128;

/// Live events that wait until the store was read.
#[derive(Debug, Default)]
pub(super) struct Held {
    messages: Vec<Incoming>,
    bytes: usize,
    /// Some were dropped.
    is_over: bool,
}

impl RunHub {
    // ---- steps -------------------------------------------------------------

    /// Gives the order an input that is no live event.
    pub(super) fn step(&mut self, input: OrderInput<'_, Page>, ctx: &mut Context<Self>) {
        let page = match input {
            OrderInput::Page(page) => Some(page),
            _ => None,
        };
        let mut out = Vec::new();
        self.order.step(input, &self.log, &mut out);
        for output in out {
            self.carry_out(output, page, ctx);
        }
    }

    /// Gives the order a live event; says whether to hold it.
    pub(super) fn step_live(
        &mut self,
        input: OrderInput<'_, Page>,
        event: &Durable<'_>,
        ctx: &mut Context<Self>,
    ) -> bool {
        // One buffer for all events of all turns: this is the hot path.
        let mut out = std::mem::take(&mut self.outputs);
        self.order.step(input, &self.log, &mut out);
        let mut hold = false;
        for output in out.drain(..) {
            match output {
                OrderOutput::DeliverLive => self.deliver(event, ctx),
                OrderOutput::Hold => hold = true,
                OrderOutput::Duplicate => self.count(event, EventResult::Duplicate),
                OrderOutput::Leave => self.count(event, EventResult::Left),
                other => self.carry_out(other, None, ctx),
            }
        }
        self.outputs = out;
        hold
    }

    fn count(&self, event: &Durable<'_>, result: EventResult) {
        self.count_in(event.kind, result);
    }

    fn carry_out(&mut self, output: OrderOutput, page: Option<&Page>, ctx: &mut Context<Self>) {
        match output {
            OrderOutput::DeliverPage(range) => {
                let events = page.and_then(|page| page.events.get(range));
                for event in events.unwrap_or_default() {
                    self.deliver(&Durable::from(event), ctx);
                }
            }
            OrderOutput::Gap {
                reason,
                before,
                missed,
                base,
            } => self.branch(reason, before, missed, base, ctx),
            OrderOutput::Base(base) => {
                if base.is_some_and(|base| base.seq > 0) {
                    // Plain events of the time before have ids that do not tell
                    // what came before them: a client that went elsewhere with
                    // one would be sent the history twice. Nobody has read them.
                    self.publish(ctx);
                    self.log.forget_before_base(base);
                    self.count_bytes();
                }
                self.order_epoch = base.map(|base| base.epoch);
                self.writer.set_base(base);
                self.log.set_base(base);
            }
            OrderOutput::Read(from) => self.read(from, ctx),
            OrderOutput::CheckAgain => self.check_again(ctx),
            OrderOutput::Ready => {
                self.publish(ctx);
                self.send_log_to_waiting();
                self.read_earlier(ctx);
            }
            OrderOutput::Replay => self.replay(ctx),
            // Answers to live events only.
            OrderOutput::DeliverLive
            | OrderOutput::Hold
            | OrderOutput::Duplicate
            | OrderOutput::Leave => {}
        }
    }

    /// Tells a gap and goes on in a new branch of the log.
    fn branch(
        &mut self,
        reason: GapReason,
        before: Option<DurableId>,
        missed: Option<u64>,
        base: Place,
        ctx: &mut Context<Self>,
    ) {
        let is_new_epoch = self
            .order_epoch
            .replace(base.epoch)
            .is_some_and(|epoch| epoch != base.epoch);
        if is_new_epoch {
            info!(run_id = %self.run_id, backend = %self.backend, "run began anew");
        }
        if is_new_epoch || reason == GapReason::Rewound {
            // The status that ended it may be of what was forgotten, or forged;
            // else the store still knows that it is closed.
            self.reopen(ctx);
        }
        self.note_gap(reason, missed);
        let gap = Gap {
            after: None,
            before: before.map(|id| id.to_string()),
            missed,
            reason,
        };
        self.writer.begin_branch(base, gap);
        if is_new_epoch {
            self.writer.begin_epoch();
        }
    }

    /// Begins a new branch because an event came after the run's end.
    pub(super) fn begin_epoch(&mut self, first: DurableId, ctx: &mut Context<Self>) {
        self.order_epoch = None;
        self.reopen(ctx);
        self.branch(
            GapReason::Expired,
            Some(first),
            None,
            Place::before(first),
            ctx,
        );
        self.writer.begin_epoch();
    }

    // ---- holding -----------------------------------------------------------

    pub(super) fn hold(&mut self, message: Incoming) {
        let limit = self.shared.settings.hub.held_bytes.as_u64() as usize;
        let held = &mut self.held;
        let payload = match &message {
            Incoming::Framed(bytes) => bytes.len(),
            Incoming::Stored(event) => event.payload.len(),
            Incoming::Plain { .. } | Incoming::TooLarge(_) => 0,
        };
        let bytes = payload + HELD_OVERHEAD_BYTES;
        if held.is_over || held.bytes + bytes > limit && !held.messages.is_empty() {
            held.is_over = true;
            return self.shared.metrics.held_overflows.inc();
        }
        held.bytes += bytes;
        held.messages.push(match message {
            // Not with all that it was read with.
            Incoming::Framed(bytes) => Incoming::Framed(Bytes::copy_from_slice(&bytes)),
            message => message,
        });
    }

    fn replay(&mut self, ctx: &mut Context<Self>) {
        let held = std::mem::take(&mut self.held);
        let now = Timestamp::now();
        for message in held.messages {
            self.arrived(message, now, ctx);
        }
        if held.is_over {
            self.step(OrderInput::Doubt, ctx);
        }
    }

    // ---- reading -----------------------------------------------------------

    fn read(&mut self, from: PageFrom, ctx: &mut Context<Self>) {
        let shared = self.shared.clone();
        let run_id = self.run_id.clone();
        let query = PageQuery {
            from,
            events_max: PAGE_EVENTS,
            bytes_max: shared.settings.history.page_bytes.as_u64() as usize,
        };
        // It has plain events alone, and may be shown without what an archive
        // has of it.
        let is_live = self.order.place().is_none() && self.log.end_no() > 0;
        let reading = async move { shared.read_hub_page(&run_id, query, is_live).await };
        ctx.spawn(
            reading
                .into_actor(self)
                .map(|page, hub, ctx| hub.was_read(page, ctx)),
        );
    }

    fn was_read(&mut self, page: Result<(Page, bool), StoreError>, ctx: &mut Context<Self>) {
        let page = match page {
            Ok((page, is_sure)) => {
                if !is_sure {
                    ctx.run_later(ARCHIVE_DELAY, |hub, ctx| hub.step(OrderInput::Doubt, ctx));
                }
                page
            }
            Err(error) => {
                debug!(run_id = %self.run_id, %error, "history not read, trying again");
                ctx.run_later(RETRY_DELAY, |hub, ctx| hub.step(OrderInput::Retry, ctx));
                return;
            }
        };
        self.writer.begin(std::time::Instant::now());
        self.step(OrderInput::Page(&page), ctx);
        self.learn(page.head.as_ref(), ctx);
        self.publish(ctx);
    }

    /// Asks for the store's position once more, a while later.
    fn check_again(&mut self, ctx: &mut Context<Self>) {
        ctx.run_later(RECHECK_DELAY, |hub, ctx| {
            let shared = hub.shared.clone();
            let run_id = hub.run_id.clone();
            let asking = async move { shared.positions(&[run_id]).await };
            ctx.spawn(asking.into_actor(hub).map(|positions, hub, ctx| {
                if let Ok(Some(last)) = positions.map(|positions| positions.first().copied()) {
                    hub.positioned(StorePosition { last, sure: false }, ctx);
                }
            }));
        });
    }

    fn positioned(&mut self, position: StorePosition, ctx: &mut Context<Self>) {
        let was_syncing = self.order.is_syncing();
        let StorePosition { last, sure } = position;
        self.step(OrderInput::Position { last, sure }, ctx);
        if !was_syncing && self.order.is_syncing() && !sure {
            // The subscription looked well and brought less than there is.
            warn!(run_id = %self.run_id, "events did not arrive live, reading them");
            self.shared.metrics.redis.positions_off.inc();
            self.shared.resubscribe();
        }
    }

    /// Whether all that is missed can be read from the store.
    pub(super) fn is_durable_only(&self) -> bool {
        self.order.place().is_some() && !self.writer.has_plain
    }

    /// Whether it has written nothing, and its clients still wait for their
    /// `hello`: to none of them anything is missing.
    pub(super) fn is_unseen(&self) -> bool {
        self.order.is_unplaced() && self.log.end_no() == 0
    }

    /// Notes messages that the mailbox or a queue before it dropped.
    pub(super) fn refused(&mut self, refused: Refused, ctx: &mut Context<Self>) {
        let Some(gap) = refused.gap() else { return };
        if !self.is_durable_only() {
            self.gap(gap, FrameClass::CONTROL);
        }
        self.step(OrderInput::Doubt, ctx);
    }

    pub(super) fn send_log_to_waiting(&mut self) {
        if self.is_hello_held() {
            return;
        }
        let waiting = self.attachments.iter().filter(|(_, known)| known.waits);
        let waiting: Vec<_> = waiting.map(|(attach_id, _)| *attach_id).collect();
        for attach_id in waiting {
            self.send_log(attach_id);
        }
    }
}

impl Handler<Disconnected> for RunHub {
    type Result = ();

    fn handle(&mut self, Disconnected { is_back }: Disconnected, ctx: &mut Self::Context) {
        self.pass_on_loss(Disconnected { is_back });
        let is_over = matches!(self.end, EndState::Ended { .. });
        if self.is_made_up_for(is_back) {
            // Lines of pods stand for what is missed, or a gap will be told.
        } else if !is_over && !self.is_durable_only() && !self.is_unseen() {
            self.gap(Gap::unknown(GapReason::Disconnected), FrameClass::CONTROL);
        }
        // Who is watched gets the store's position, with all others; what
        // comes live before it is not laid on a place that may be forgotten.
        self.is_unproven |= is_back;
        if is_back && self.attachments.is_empty() && self.mirror.is_none() {
            self.step(OrderInput::Doubt, ctx);
        }
        self.publish(ctx);
    }
}

impl Handler<RecordingBroke> for RunHub {
    type Result = ();

    fn handle(&mut self, _: RecordingBroke, ctx: &mut Self::Context) {
        self.pass_on_broken_record();
        self.gap(Gap::unknown(GapReason::Disconnected), FrameClass::CONTROL);
        self.publish(ctx);
    }
}

impl Handler<StorePosition> for RunHub {
    type Result = ();

    fn handle(&mut self, position: StorePosition, ctx: &mut Self::Context) {
        self.positioned(position, ctx);
    }
}

impl Handler<ShardSubscribed> for RunHub {
    type Result = ();

    fn handle(&mut self, _: ShardSubscribed, ctx: &mut Self::Context) {
        self.pass_on_shard();
        self.step(OrderInput::Doubt, ctx);
        self.publish(ctx);
    }
}

impl Handler<Overflowed> for RunHub {
    type Result = ();

    fn handle(&mut self, Overflowed(refused): Overflowed, ctx: &mut Self::Context) {
        self.pass_on_overflow(refused);
        self.refused(refused, ctx);
        self.publish(ctx);
    }
}
