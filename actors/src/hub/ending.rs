//! How a run ends: terminal status, grace, `end`.

use std::time::Duration;

use actix::prelude::*;
use tracing::info;

use super::RunHub;
use crate::protocol::BackendKind;

/// Added to the grace where another clock counts it (Redis refuses late
/// output), so that nothing accepted can arrive after `end`.
const CLOCK_MARGIN: Duration = Duration::from_millis(250);

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
        timer: SpawnHandle,
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
        let grace = self.shared.settings.runs.end_grace;
        let grace = match self.backend {
            BackendKind::Redis => grace + CLOCK_MARGIN,
            BackendKind::Embedded => grace,
            // The grace is over when `KubectlLogActor` says so.
            BackendKind::Kubectl => Duration::ZERO,
        };
        let timer = ctx.run_later(grace, Self::finish);
        self.end = EndState::Ending { status, timer };
    }

    fn finish(&mut self, ctx: &mut Context<Self>) {
        let EndState::Ending { status, .. } = &self.end else {
            return;
        };
        let status = status.clone();
        // Only a history that is whole has a count: plain events may have
        // come before this hub lived.
        let events = match self.writer.has_plain {
            true => None,
            false => self.writer.last_durable.map(|id| id.seq),
        };
        let id = self.writer.end(&status, events);
        info!(run_id = %self.run_id, backend = %self.backend, status, "run ended");
        self.end = EndState::Ended { id, status };
        self.publish(ctx);
    }

    /// Takes back an end: the run begins anew.
    pub(super) fn reopen(&mut self, ctx: &mut Context<Self>) {
        if let EndState::Ending { timer, .. } = self.end {
            ctx.cancel_future(timer);
        }
        self.end = EndState::Open;
    }
}
