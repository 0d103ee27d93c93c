//! A hub whose events come from a [`KubectlLogActor`].

use std::time::{Duration, Instant};

use actix::prelude::*;
use bytes::Bytes;

use super::RunHub;
use super::ending::EndState;
use super::writer::{IdSource, NewFrame};
use crate::kubectl::{KubectlLine, KubectlLogActor, KubectlUpdate, Stop};
use crate::metrics::EventResult;
use crate::protocol::{EventId, EventKind, Gap, GapReason, KubectlPosition, Problem, Timestamp};
use crate::sse::FrameClass;
use crate::sse::problem_frame;
use crate::worker::{AttachId, RunMessage};

/// How long `hello` waits for the first answer of kubectl.
const START_PATIENCE: Duration = Duration::from_secs(1);

/// How often a hub looks whether its follow still lives.
const FOLLOW_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// The follow of a hub's pods.
pub(super) struct KubectlSource {
    follow: Addr<KubectlLogActor>,
    /// Streams may say `hello`.
    ready: bool,
    /// What is wrong now, told to those who come.
    problem: Option<Problem>,
}

impl KubectlSource {
    pub(super) fn problem(&self) -> Option<&Problem> {
        self.problem.as_ref()
    }
}

impl Drop for KubectlSource {
    /// The follow ends with its hub.
    fn drop(&mut self) {
        #[expect(
            clippy::disallowed_methods,
            reason = "one per follow, and it must not be refused"
        )]
        self.follow.do_send(Stop);
    }
}

impl RunHub {
    /// A worker attached: the first one starts the follow.
    pub(super) fn kubectl_attached(&mut self, attach_id: AttachId, ctx: &mut Context<Self>) {
        let shared = &self.shared;
        let run_id = &self.run_id;
        let source = self.kubectl.get_or_insert_with(|| {
            ctx.run_later(START_PATIENCE, |hub, _| hub.kubectl_ready());
            ctx.run_interval(FOLLOW_CHECK_INTERVAL, Self::check_follow);
            KubectlSource {
                follow: shared.start_follow(run_id, None, ctx.address().recipient()),
                ready: false,
                problem: None,
            }
        });
        if source.ready {
            self.send_log(attach_id);
            self.send_standing(attach_id);
        }
    }

    /// A follow that is gone before the run's end has panicked: nobody else
    /// would tell those who watch.
    fn check_follow(&mut self, ctx: &mut Context<Self>) {
        let gone = self
            .kubectl
            .as_ref()
            .is_some_and(|source| !source.follow.connected());
        if gone && matches!(self.end, EndState::Open) {
            self.shared.metrics.actor_restarts.inc();
            let problem = Problem::new(
                500,
                "internal",
                "Internal error",
                "the follow of the run's pods died; the next stream starts another",
            );
            self.kubectl_failed(&problem.retryable(true), ctx);
        }
    }

    /// Lets all who wait say `hello`.
    fn kubectl_ready(&mut self) {
        let Some(source) = &mut self.kubectl else {
            return;
        };
        source.ready = true;
        let waiting: Vec<_> = self
            .attachments
            .iter()
            .filter(|(_, attachment)| attachment.waits)
            .map(|(attach_id, _)| *attach_id)
            .collect();
        for attach_id in waiting {
            self.send_standing(attach_id);
            self.send_log(attach_id);
        }
    }

    fn send_standing(&self, attach_id: AttachId) {
        let problem = self.kubectl.as_ref().and_then(KubectlSource::problem);
        let frame = problem.map(|problem| Bytes::from(problem_frame(problem)));
        if let Some(attachment) = self.attachments.get(&attach_id) {
            attachment.tell(attach_id, RunMessage::StandingNotice(frame));
        }
    }

    fn kubectl_problem(&mut self, problem: Option<Problem>) {
        let Some(source) = &mut self.kubectl else {
            return;
        };
        let frame = problem
            .as_ref()
            .map(|problem| Bytes::from(problem_frame(problem)));
        source.problem = problem;
        self.tell_all(|| RunMessage::StandingNotice(frame.clone()));
    }

    fn kubectl_line(&mut self, line: KubectlLine) {
        // A status among the lines is shown, but only the pods' end ends the
        // run: what a container prints says nothing of the others.
        let _ = self.writer.event(&NewFrame {
            kind: line.kind,
            source: match line.kind {
                EventKind::Status => "",
                EventKind::Output | EventKind::Log => &line.source,
            },
            ts: line.ts,
            payload: &line.payload,
            id: IdSource::Given(EventId::Kubectl(line.position)),
        });
        self.shared
            .metrics
            .event_in(line.kind, EventResult::Accepted);
    }

    /// The pods are all terminal: a status of our own, then `end`.
    fn kubectl_ended(&mut self, status: &'static str, ts: Timestamp, ctx: &mut Context<Self>) {
        let mut position = match &self.writer.last_id {
            Some(EventId::Kubectl(position)) => position.clone(),
            _ => KubectlPosition::default(),
        };
        let key = KubectlPosition::container_key("", "status");
        position.set(key, ts.as_micros().unsigned_abs() * 1000, 0);
        self.kubectl_line(KubectlLine {
            kind: EventKind::Status,
            source: "".into(),
            ts,
            payload: Bytes::from(format!("\"{status}\"")),
            position,
        });
        self.begin_end(status.to_owned(), ctx);
    }

    /// It cannot go on: all are told, and the next client begins afresh.
    fn kubectl_failed(&mut self, problem: &Problem, ctx: &mut Context<Self>) {
        self.shared.kubectl_health.note(problem);
        self.shared
            .registry
            .remove(self.backend, &self.run_id, &self.stats);
        self.tell_all(|| RunMessage::Failed(problem.clone()));
        self.retired = true;
        ctx.stop();
    }
}

impl Handler<KubectlUpdate> for RunHub {
    type Result = ();

    fn handle(&mut self, update: KubectlUpdate, ctx: &mut Self::Context) {
        if self.failover.is_some() {
            return self.pods_say(update, ctx);
        }
        self.stats.touch();
        self.writer.begin(Instant::now());
        match update {
            KubectlUpdate::Ready => {
                self.shared.kubectl_health.set_up();
                self.kubectl_ready();
            }
            KubectlUpdate::Lines(lines) => {
                for line in lines {
                    self.kubectl_line(line);
                }
                self.kubectl_ready();
            }
            KubectlUpdate::Problem(problem) => {
                self.shared.kubectl_health.note(&problem);
                self.kubectl_problem(Some(problem));
            }
            KubectlUpdate::Resolved => {
                self.shared.kubectl_health.set_up();
                self.kubectl_problem(None);
            }
            KubectlUpdate::TooLarge { .. } => {
                self.shared
                    .metrics
                    .event_in(EventKind::Output, EventResult::TooLarge);
                let gap = Gap {
                    missed: Some(1),
                    ..Gap::unknown(GapReason::TooLarge)
                };
                self.gap(gap, FrameClass::CONTROL);
            }
            KubectlUpdate::Failed(problem) => return self.kubectl_failed(&problem, ctx),
            KubectlUpdate::Ended { status, ts } => self.kubectl_ended(status, ts, ctx),
        }
        self.publish(ctx);
    }
}
