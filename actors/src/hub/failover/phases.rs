//! When the pods are followed, and when no more.

use std::time::{Duration, Instant};

use actix::prelude::*;
use bytes::Bytes;
use tracing::warn;

use super::super::RunHub;
use super::super::ending::EndState;
use super::{Failover, Phase, Reason};
use crate::protocol::{BackendKind, Gap, GapReason, Timestamp};
use crate::sse::{FrameClass, problem_frame};
use crate::worker::RunMessage;

/// How long who comes while Redis is down waits for the first look at the pods.
const HELLO_PATIENCE: Duration = Duration::from_secs(1);

/// How long a gap that lines may stand for waits for them.
const GAP_PATIENCE: Duration = Duration::from_secs(10);

/// Longest and shortest time between two looks at whether Redis is well.
const TICK_MAX: Duration = Duration::from_millis(500);
const TICK_MIN: Duration = Duration::from_millis(50);

/// Least pause before the pods are followed again.
const PAUSE: Duration = Duration::from_millis(250);

impl RunHub {
    pub(super) fn begin_ticking(&self, ctx: &mut Context<Self>) {
        let every = self.shared.settings.auto.after / 4;
        ctx.run_interval(every.clamp(TICK_MIN, TICK_MAX), Self::tick);
    }

    /// A worker attached.
    pub(in crate::hub) fn auto_attached(&mut self, ctx: &mut Context<Self>) {
        let Some(failover) = &mut self.failover else {
            return;
        };
        if !failover.is_seeded {
            // All of them are answered when it is.
            return;
        }
        let now = Instant::now();
        failover.watched_since.get_or_insert(now);
        let is_over = matches!(self.end, EndState::Ended { .. });
        let is_down = !self.shared.redis.is_up();
        if is_down && !is_over {
            if failover.told == BackendKind::Redis {
                failover
                    .hello_held_until
                    .get_or_insert(now + HELLO_PATIENCE);
            }
            if failover.phase == Phase::Redis && failover.next_try <= now {
                self.begin_joining(Reason::RedisDown, ctx);
            }
        }
        self.send_standing_problem();
        self.watched(ctx);
        if is_down && !self.is_hello_held() {
            self.publish(ctx);
            self.release_hello();
        }
    }

    /// Tells those who come what is wrong with kubectl.
    fn send_standing_problem(&self) {
        let failover = self.failover.as_ref();
        let Some(problem) = failover.and_then(|failover| failover.problem.as_ref()) else {
            return;
        };
        let frame = Bytes::from(problem_frame(problem));
        for (attach_id, attachment) in &self.attachments {
            if attachment.waits {
                let notice = RunMessage::StandingNotice(Some(frame.clone()));
                attachment.tell(*attach_id, notice);
            }
        }
    }

    /// The last worker went: nobody is shown any lines.
    pub(in crate::hub) fn auto_unwatched(&mut self) {
        if let Some(failover) = &mut self.failover {
            failover.watched_since = None;
            failover.hello_held_until = None;
            failover.leave_pods(PAUSE);
            failover.enter(Phase::Redis);
        }
    }

    /// Looks whether it is time for another phase.
    fn tick(&mut self, ctx: &mut Context<Self>) {
        if matches!(self.end, EndState::Ended { .. }) {
            return self.leave_ended();
        }
        if self.attachments.is_empty() {
            return;
        }
        let is_up = self.shared.redis.is_up();
        self.watch_hello(is_up, ctx);
        self.watch_follow();
        let Some(failover) = &self.failover else {
            return;
        };
        match failover.phase {
            Phase::Redis => self.look_for_reason(is_up, ctx),
            Phase::Joining => self.joining(is_up, ctx),
            Phase::OnKubectl => self.on_kubectl(is_up),
            Phase::Returning => self.returning(is_up, ctx),
            Phase::Draining => self.draining(is_up, ctx),
        }
    }

    /// The run is over: nothing is told any more.
    fn leave_ended(&mut self) {
        let Some(failover) = &mut self.failover else {
            return;
        };
        failover.leave_pods(PAUSE);
        failover.enter(Phase::Redis);
        // Should it begin anew, all of it comes from Redis.
        failover.matcher.forget();
        failover.is_ended_by_pods = false;
        if std::mem::replace(&mut failover.told, BackendKind::Redis) == BackendKind::Kubectl {
            self.shared.metrics.auto.failed_over.sub(1);
            self.stats.set_live_backend(BackendKind::Redis);
        }
    }

    /// Who waits to be told where the stream begins does not wait for long.
    fn watch_hello(&mut self, is_up: bool, ctx: &mut Context<Self>) {
        let held = self.failover.as_ref();
        let Some(until) = held.and_then(|failover| failover.hello_held_until) else {
            return;
        };
        if is_up {
            self.release_hello();
        } else if until <= Instant::now() {
            self.tell_source(BackendKind::Kubectl, Reason::RedisDown.begins(), ctx);
        }
    }

    /// A follow that is gone without a word has panicked.
    fn watch_follow(&mut self) {
        let Some(failover) = &mut self.failover else {
            return;
        };
        let is_gone = |follow: &super::Follow| !follow.actor.connected();
        if failover.follow.as_ref().is_some_and(is_gone) {
            self.shared.metrics.actor_restarts.inc();
            failover.leave_pods(PAUSE);
            failover.enter(Phase::Redis);
        }
    }

    fn look_for_reason(&mut self, is_up: bool, ctx: &mut Context<Self>) {
        let after = self.shared.settings.auto.after;
        let knows_nothing = self.writer.last_id.is_none()
            && self.order.place().is_none()
            && !self.order.is_unplaced()
            && !self.order.is_syncing();
        let Some(failover) = &mut self.failover else {
            return;
        };
        let is_leaving = failover.left.as_ref().is_some_and(Addr::connected);
        if failover.next_try > Instant::now() || is_leaving {
            return;
        }
        let is_told = failover.told == BackendKind::Kubectl;
        if !is_up {
            if is_told || self.shared.redis.is_down_for(after) {
                self.begin_joining(Reason::RedisDown, ctx);
            }
        } else if is_told {
            failover.back_ts = Timestamp::now().as_micros();
            failover.enter(Phase::Draining);
        } else if knows_nothing
            && failover
                .watched_since
                .is_some_and(|since| since.elapsed() >= after)
        {
            self.begin_joining(Reason::NoPublisher, ctx);
        }
    }

    fn joining(&mut self, is_up: bool, ctx: &mut Context<Self>) {
        let is_over = self.is_join_over();
        let Some(failover) = &mut self.failover else {
            return;
        };
        let has_lines = failover.backlog.has_lines();
        let is_moot = match failover.reason {
            Reason::RedisDown => is_up,
            Reason::NoPublisher => failover.events > 0,
        };
        if is_moot {
            failover.leave_pods(PAUSE);
            failover.enter(Phase::Redis);
            return self.auto_problem(None);
        }
        if failover.owes_gap && failover.phase_began.elapsed() >= GAP_PATIENCE {
            failover.owes_gap = false;
            self.gap(Gap::unknown(GapReason::Disconnected), FrameClass::CONTROL);
            return self.publish(ctx);
        }
        if failover.problem.is_some() && failover.backlog.is_silent() {
            // There is no pod, or nothing of it can be read: nothing to go on from.
            return;
        }
        // A run that Redis knows nothing of has lines, or it has nothing.
        if is_over && (has_lines || failover.reason == Reason::RedisDown) {
            self.go_on_from_pods(ctx);
        }
    }

    fn on_kubectl(&mut self, is_up: bool) {
        let Some(failover) = &mut self.failover else {
            return;
        };
        let is_back = match failover.reason {
            Reason::RedisDown => is_up,
            Reason::NoPublisher => is_up && failover.events > 0,
        };
        if is_back {
            let now = Timestamp::now().as_micros();
            failover.back_ts = match failover.reason {
                // What is read first may be from before the outage.
                Reason::RedisDown => now,
                // It may have said all that it has to say by now.
                Reason::NoPublisher => failover.first_event_ts.unwrap_or(now),
            };
            failover.enter(Phase::Returning);
        }
    }

    /// Redis is well. Lines are shown until its publisher is back, too.
    fn returning(&mut self, is_up: bool, ctx: &mut Context<Self>) {
        let settings = self.shared.settings.auto.clone();
        let is_plain = self.order.place().is_none();
        let is_read = !self.order.is_syncing();
        let Some(failover) = &mut self.failover else {
            return;
        };
        if !is_up {
            failover.reason = Reason::RedisDown;
            return failover.enter(Phase::OnKubectl);
        }
        if failover.phase_began.elapsed() < settings.window || !is_read {
            return;
        }
        let now = Timestamp::now().as_micros();
        failover.matcher.settle(now, failover.back_ts, is_plain);
        let keeps_up = failover.matcher.is_fresh_since(failover.back_ts);
        if keeps_up || failover.matcher.awaited() == 0 {
            failover.leave_pods(PAUSE);
            return failover.enter(Phase::Draining);
        }
        let is_unmet = failover.met_at.elapsed() >= settings.settle;
        let is_quiet = failover.line_at.elapsed() >= settings.settle;
        // While only lines come, the run has no publisher: it stays with them.
        if is_unmet && (failover.new_events > 0 || is_quiet) {
            self.back_to_redis(true, ctx);
        }
    }

    /// Redis alone is shown; what lines stood for is not shown again.
    fn draining(&mut self, is_up: bool, ctx: &mut Context<Self>) {
        let settle = self.shared.settings.auto.settle;
        let is_plain = self.order.place().is_none();
        let is_read = !self.order.is_syncing();
        let Some(failover) = &mut self.failover else {
            return;
        };
        if !is_up {
            // Told already: the pods are followed with the next look.
            return failover.enter(Phase::Redis);
        }
        if !is_read {
            return;
        }
        let now = Timestamp::now().as_micros();
        failover.matcher.settle(now, failover.back_ts, is_plain);
        if failover.matcher.awaited() == 0 {
            let has_forgotten = failover.matcher.has_forgotten();
            self.back_to_redis(has_forgotten, ctx);
        } else if failover.met_at.elapsed() >= settle {
            self.back_to_redis(true, ctx);
        }
    }

    /// Ends the failover: tells it, and first what may be doubled from here on.
    fn back_to_redis(&mut self, is_doubtful: bool, ctx: &mut Context<Self>) {
        self.auto_problem(None);
        let awaited = self.failover.as_ref().map(|it| it.matcher.awaited());
        if is_doubtful {
            warn!(run_id = %self.run_id, awaited, "lines of pods that Redis has not brought are given up");
        }
        // What was only published, and not printed, is nowhere.
        let was_down = |it: &Failover| it.reason == Reason::RedisDown;
        let has_lost = self.writer.has_plain && self.failover.as_deref().is_some_and(was_down);
        if is_doubtful || has_lost {
            self.gap(Gap::unknown(GapReason::Disconnected), FrameClass::CONTROL);
        }
        let Some(failover) = &mut self.failover else {
            return;
        };
        let switch = failover.reason.ends();
        failover.matcher.forget();
        failover.leave_pods(PAUSE);
        failover.enter(Phase::Redis);
        self.tell_source(BackendKind::Redis, switch, ctx);
    }
}
