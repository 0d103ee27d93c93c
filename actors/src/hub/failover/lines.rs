//! What pods say while they are followed, and what Redis does.

use std::time::Instant;

use actix::prelude::*;
use bytes::Bytes;

use super::super::RunHub;
use super::super::arrivals::Durable;
use super::super::ending::EndState;
use super::super::writer::{IdSource, NewFrame};
use super::join::line_of;
use super::{Phase, Reason};
use crate::failover::{Content, Entry, Line, Origin, RedisEvent};
use crate::kubectl::{KubectlLine, KubectlUpdate};
use crate::protocol::{BackendKind, EventKind, Gap, GapReason, Problem, Timestamp};
use crate::sse::{FrameClass, problem_frame};
use crate::worker::RunMessage;

impl RunHub {
    // ---- lines -------------------------------------------------------------

    /// Takes what the follow of the pods says.
    pub(in crate::hub) fn pods_say(&mut self, update: KubectlUpdate, ctx: &mut Context<Self>) {
        let Some(failover) = &mut self.failover else {
            return;
        };
        let Some(follow) = &mut failover.follow else {
            // Said before it was stopped.
            return;
        };
        if matches!(self.end, EndState::Ended { .. }) {
            // Nothing may follow `end`.
            return;
        }
        self.writer.begin(Instant::now());
        match update {
            KubectlUpdate::Ready => {
                follow.ready_at = Some(Instant::now());
                self.shared.kubectl_health.set_up();
            }
            KubectlUpdate::Lines(lines) => {
                follow.ready_at.get_or_insert_with(Instant::now);
                failover.line_at = Instant::now();
                self.auto_problem(None);
                self.lines_came(lines);
            }
            KubectlUpdate::Problem(problem) => {
                self.shared.kubectl_health.note(&problem);
                self.pods_have_problem(problem);
            }
            KubectlUpdate::Resolved => {
                self.shared.kubectl_health.set_up();
                self.auto_problem(None);
            }
            KubectlUpdate::TooLarge { .. } => self.line_too_large(),
            KubectlUpdate::Failed(problem) => self.pods_failed(problem),
            KubectlUpdate::Ended { status, ts } => self.pods_ended(status, ts, ctx),
        }
        self.publish(ctx);
    }

    fn lines_came(&mut self, lines: Vec<KubectlLine>) {
        let Some(failover) = &mut self.failover else {
            return;
        };
        if failover.phase == Phase::Joining {
            return self.lines_before_join(lines);
        }
        if matches!(self.end, EndState::Ended { .. }) {
            return;
        }
        for line in lines {
            let key = line_of(&line);
            let Some(failover) = &mut self.failover else {
                return;
            };
            if failover.matcher.meets_shown(&key).is_some() {
                failover.met_at = Instant::now();
                self.shared.metrics.auto.matched.inc();
            } else {
                self.show_line(&line, &key);
            }
        }
    }

    /// Writes a line, and awaits it from Redis.
    pub(super) fn show_line(&mut self, line: &KubectlLine, key: &Line) {
        self.write_line(line.kind, &line.source, line.ts, &line.payload);
        self.shared.metrics.auto.shown.inc();
        if let Some(failover) = &mut self.failover {
            failover.matcher.await_line(key);
        }
    }

    fn write_line(&mut self, kind: EventKind, source: &str, ts: Timestamp, payload: &[u8]) {
        let had_plain = self.writer.has_plain;
        self.writer.source = BackendKind::Kubectl;
        // A status among the lines is shown, but only the pods' end ends the
        // run: what a container prints says nothing of the others.
        let _ = self.writer.event(&NewFrame {
            kind,
            source: match kind {
                EventKind::Status => "",
                EventKind::Output | EventKind::Log => source,
            },
            ts,
            payload,
            id: IdSource::Plain,
        });
        self.writer.source = BackendKind::Redis;
        // None of those that an outage of Redis loses.
        self.writer.has_plain = had_plain;
    }

    fn line_too_large(&mut self) {
        let Some(failover) = &mut self.failover else {
            return;
        };
        if failover.phase == Phase::Joining {
            return failover.backlog.note_lost();
        }
        let gap = Gap {
            missed: Some(1),
            ..Gap::unknown(GapReason::TooLarge)
        };
        self.gap(gap, FrameClass::CONTROL);
    }

    // ---- trouble and end ---------------------------------------------------

    /// Tells those who watch, and those who come, what is wrong with kubectl.
    pub(super) fn auto_problem(&mut self, problem: Option<Problem>) {
        let Some(failover) = &mut self.failover else {
            return;
        };
        if failover.problem.is_none() && problem.is_none() {
            return;
        }
        let frame = problem
            .as_ref()
            .map(|problem| Bytes::from(problem_frame(problem)));
        failover.problem = problem;
        self.tell_all(|| RunMessage::StandingNotice(frame.clone()));
    }

    fn pods_have_problem(&mut self, problem: Problem) {
        let Some(failover) = &mut self.failover else {
            return;
        };
        if failover.reason == Reason::NoPublisher && failover.phase == Phase::Joining {
            // Redis is well and the run is not there yet, or anywhere.
            let pause = self.shared.settings.kubectl.max_backoff;
            failover.leave_pods(pause);
            failover.enter(Phase::Redis);
            return;
        }
        self.auto_problem(Some(problem));
    }

    /// kubectl cannot be used at all: those who wait are told to come back, the
    /// others that they have to wait for Redis.
    fn pods_failed(&mut self, problem: Problem) {
        self.shared.kubectl_health.note(&problem);
        let pause = self.shared.settings.kubectl.max_backoff;
        let redis_is_down = !self.shared.redis.is_up();
        let Some(failover) = &mut self.failover else {
            return;
        };
        failover.leave_pods(pause);
        failover.enter(Phase::Redis);
        let holds = failover.hello_held_until.take().is_some();
        if std::mem::take(&mut failover.owes_gap) {
            self.gap(Gap::unknown(GapReason::Disconnected), FrameClass::CONTROL);
        }
        if !redis_is_down {
            return;
        }
        let waiting = self.attachments.iter().filter(|(_, known)| known.waits);
        let mut waiting: Vec<_> = waiting.map(|(attach_id, _)| *attach_id).collect();
        waiting.retain(|_| holds);
        for attach_id in waiting {
            if let Some(attachment) = self.attachments.get(&attach_id) {
                attachment.tell(attach_id, RunMessage::Failed(problem.clone()));
            }
        }
        self.auto_problem(Some(problem));
    }

    /// The pods are all over: while they are all there is, the run is.
    fn pods_ended(&mut self, status: &'static str, ts: Timestamp, ctx: &mut Context<Self>) {
        let redis_is_up = self.shared.redis.is_up();
        let Some(failover) = &self.failover else {
            return;
        };
        if failover.phase == Phase::Joining {
            if failover.reason == Reason::RedisDown && redis_is_up {
                return;
            }
            self.go_on_from_pods(ctx);
        }
        let is_open = matches!(self.end, EndState::Open);
        let is_plain = self.order.place().is_none();
        let Some(failover) = &mut self.failover else {
            return;
        };
        // A run without a history in Redis may have said its end while nobody
        // heard it.
        let pods_decide = match failover.phase {
            Phase::OnKubectl => failover.reason == Reason::NoPublisher || !redis_is_up || is_plain,
            Phase::Returning => is_plain,
            Phase::Redis | Phase::Joining | Phase::Draining => false,
        };
        failover.follow = None;
        if !pods_decide {
            // Redis is back and tells the end itself; all lines are known.
            failover.back_ts = Timestamp::now().as_micros();
            return failover.enter(Phase::Draining);
        }
        if is_open {
            failover.is_ended_by_pods = true;
            if failover.reason == Reason::RedisDown {
                // What Redis was told meanwhile, and no pod printed.
                self.gap(Gap::unknown(GapReason::Disconnected), FrameClass::CONTROL);
            }
            let payload = format!("\"{status}\"");
            self.write_line(EventKind::Status, "", ts, payload.as_bytes());
            self.begin_end(status.to_owned(), ctx);
        }
    }

    // ---- Redis -------------------------------------------------------------

    /// Whether a line stood for this durable event.
    pub(in crate::hub) fn was_shown_durable(&mut self, event: &Durable<'_>) -> bool {
        let ts = Timestamp::from_micros(event.id.us as i64);
        self.was_shown(event.kind, event.payload, ts, true)
    }

    /// Whether a line stood for this event. A status is one only if its line
    /// was.
    pub(in crate::hub) fn was_shown(
        &mut self,
        kind: EventKind,
        payload: &[u8],
        ts: Timestamp,
        is_durable: bool,
    ) -> bool {
        let Some(failover) = &mut self.failover else {
            return false;
        };
        if failover.phase == Phase::Redis && failover.told == BackendKind::Redis {
            return false;
        }
        let event = RedisEvent {
            content: Content::of(payload),
            ts: ts.as_micros(),
            is_durable,
        };
        failover.events += 1;
        failover.first_event_ts.get_or_insert(event.ts);
        if let Some(shown_as) = failover.matcher.meets_awaited(&event) {
            failover.met_at = Instant::now();
            self.shared.metrics.auto.matched.inc();
            return kind != EventKind::Status || shown_as == EventKind::Status;
        }
        failover.new_events += 1;
        if failover.follow.is_some() {
            failover.matcher.remember(Entry {
                content: event.content,
                ts: event.ts,
                origin: match is_durable {
                    true => Origin::Durable,
                    false => Origin::Plain,
                },
                kind,
                container: 0,
            });
        }
        false
    }

    /// The status that ends the run, of an event that is not written because a
    /// line stood for it.
    pub(in crate::hub) fn status_hidden(&self, kind: EventKind, payload: &[u8]) -> Option<String> {
        let is_status = kind == EventKind::Status;
        is_status.then(|| self.writer.terminal_status(payload))?
    }
}
