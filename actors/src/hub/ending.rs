//! How a run ends: terminal status, grace, the store's word, `end`.

use std::time::Duration;

use actix::prelude::*;
use tracing::info;

use super::RunHub;
use crate::order::OrderInput;
use crate::protocol::BackendKind;
use crate::store::Head;

/// Added to a grace that another clock counts.
const CLOCK_MARGIN: Duration = Duration::from_millis(50);

/// Where a run is on its way to its end.
#[derive(Debug)]
pub(super) enum EndState {
    /// Not ended.
    Open,
    /// A terminal status came; late output is still taken.
    Ending {
        /// The status, in lower case.
        status: String,
        /// The grace's timer.
        timer: Option<SpawnHandle>,
    },
    /// `end` was sent; nothing is taken any more.
    Ended {
        /// Id of the `end` event.
        id: String,
        /// The status, in lower case.
        status: String,
    },
}

impl RunHub {
    /// Notes a terminal status: the first one counts.
    pub(super) fn begin_end(&mut self, status: String, ctx: &mut Context<Self>) {
        if !matches!(self.end, EndState::Open) {
            return;
        }
        self.end = EndState::Ending {
            status,
            timer: None,
        };
        if self.backend != BackendKind::Kubectl && self.order.place().is_some() {
            self.shared.note_end(&self.run_id, self.order_epoch);
        }
        let grace = match self.backend {
            BackendKind::Auto if self.is_on_kubectl() => Duration::ZERO,
            BackendKind::Redis | BackendKind::Embedded | BackendKind::Auto => {
                self.shared.settings.runs.end_grace + CLOCK_MARGIN
            }
            // The grace is over when `KubectlLogActor` says so.
            BackendKind::Kubectl => Duration::ZERO,
        };
        self.end_after(grace, ctx);
    }

    /// Ends the run a while later, if it may by then.
    fn end_after(&mut self, delay: Duration, ctx: &mut Context<Self>) {
        if let EndState::Ending { timer, .. } = &mut self.end {
            let new = ctx.run_later(delay, Self::grace_over);
            if let Some(old) = timer.replace(new) {
                ctx.cancel_future(old);
            }
        }
    }

    /// The grace is over by our clock. Where a store has the last word it is
    /// asked, and read to its end: nothing accepted can follow `end`.
    fn grace_over(&mut self, ctx: &mut Context<Self>) {
        let EndState::Ending { timer, .. } = &mut self.end else {
            return;
        };
        *timer = None;
        if self.order.place().is_none() || self.is_ended_by_pods() {
            return self.finish(ctx);
        }
        // Who is not watched asks when somebody comes.
        self.step(OrderInput::Doubt, ctx);
    }

    /// Notes what the store says of the run, all of which was read.
    pub(super) fn learn(&mut self, head: Option<&Head>, ctx: &mut Context<Self>) {
        if self.order.is_syncing() {
            return;
        }
        let Some(closed) = head.and_then(|head| head.closed.as_ref()) else {
            // Ended by a plain status, or the store has lost the run.
            if matches!(self.end, EndState::Ending { timer: None, .. }) {
                self.finish(ctx);
            }
            return;
        };
        if matches!(self.end, EndState::Open) {
            self.end = EndState::Ending {
                status: closed.status.clone(),
                timer: None,
            };
        }
        let Some(head) = head else { return };
        if head.is_sealed() {
            // It may stand after events that were never written here.
            self.writer.stands_after(Some(head.last));
            self.finish(ctx);
        } else {
            let left = closed.sealed_us.saturating_sub(head.now_us);
            self.end_after(Duration::from_micros(left) + CLOCK_MARGIN, ctx);
        }
    }

    fn finish(&mut self, ctx: &mut Context<Self>) {
        let EndState::Ending { status, timer } = &mut self.end else {
            return;
        };
        let status = std::mem::take(status);
        if let Some(timer) = timer.take() {
            ctx.cancel_future(timer);
        }
        // Only a history that is whole has a count: plain events may have
        // come before this hub lived.
        let events = match self.writer.has_plain || self.is_ended_by_pods() {
            true => None,
            false => self.order.place().map(|place| place.seq),
        };
        let id = self.writer.end(&status, events);
        info!(run_id = %self.run_id, backend = %self.backend, status, "run ended");
        self.end = EndState::Ended { id, status };
        self.publish(ctx);
    }

    /// Takes back an end: the run begins anew.
    pub(super) fn reopen(&mut self, ctx: &mut Context<Self>) {
        if let EndState::Ending {
            timer: Some(timer), ..
        } = self.end
        {
            ctx.cancel_future(timer);
        }
        self.end = EndState::Open;
    }
}
