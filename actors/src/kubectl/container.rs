//! [`Tracked`]: what is known of one container between two follows, and when
//! the next one is due. No I/O.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::engine::LogName;
use super::failure::Failure;
use super::follow::{FollowEnd, FollowPlan, source};
use super::outlet::{Restart, Source};
use super::pods::{Container, Log};

/// Shortest pause before something is tried again.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// Failures in a row after which clients are told of one that usually passes.
const PASSING_TOLD_AFTER: u32 = 3;

/// Failures in a row after which the log of a pod that is over is given up.
const GIVEN_UP_AFTER: u32 = 5;

/// Returns the pause before try number `tries` (from 0): doubling, at most
/// `max`, and drawn from its upper half, so that runs do not try in step.
pub(crate) fn pause(tries: u32, max: Duration) -> Duration {
    let full = FIRST_PAUSE.saturating_mul(1 << tries.min(16)).min(max);
    full.mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// A follow that is running.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) abort: AbortHandle,
    /// Lines it has delivered so far.
    pub(crate) new_lines: Rc<Cell<u64>>,
}

/// One container of the run.
#[derive(Debug)]
pub(crate) struct Tracked {
    uid: String,
    log: LogName,
    source: Source,
    /// Kept from the first follow until the log is read to its end, so that
    /// other runs cannot take the place between two follows.
    pub(crate) permit: Option<OwnedSemaphorePermit>,
    pub(crate) running: Option<Running>,
    restarts_told: u32,
    /// The instance whose log was surely read to its end.
    read_out: Option<u32>,
    partial: Option<Bytes>,
    failure: Option<Failure>,
    /// Follows in a row that failed without a new line.
    failures: u32,
    /// Follows in a row that ended well without a new line.
    idle_ends: u32,
    not_before: Instant,
    /// Since when its pod is not listed any more.
    pub(crate) gone_since: Option<Instant>,
}

impl Tracked {
    pub(crate) fn new(uid: &str, pod: &str, name: &str) -> Self {
        Self {
            uid: uid.to_owned(),
            log: LogName {
                pod: pod.to_owned(),
                container: name.to_owned(),
            },
            source: source(pod, name),
            permit: None,
            running: None,
            restarts_told: 0,
            read_out: None,
            partial: None,
            failure: None,
            failures: 0,
            idle_ends: 0,
            not_before: Instant::now(),
            gone_since: None,
        }
    }

    /// Returns what to follow, if `status` shows a log that was not read to
    /// its end, whether it is due already or not; `pod_over` if its pod is
    /// terminal.
    pub(crate) fn plan(&self, status: &Container, pod_over: bool) -> Option<FollowPlan> {
        let unread = status.log != Log::None && self.read_out != Some(status.restarts);
        if !unread || self.running.is_some() {
            return None;
        }
        Some(FollowPlan {
            uid: self.uid.clone(),
            log: self.log.clone(),
            source: self.source.clone(),
            restarts: status.restarts,
            ended: status.log == Log::Ended,
            pod_over,
            restart: (status.restarts > self.restarts_told).then(|| Restart {
                restarts: status.restarts,
                started_ns: status.started_ns,
                last_exit: status.last_exit.clone(),
            }),
            partial: self.partial.clone(),
        })
    }

    /// Returns when the next follow may begin.
    pub(crate) fn due(&self) -> Instant {
        self.not_before
    }

    /// Whether the log `status` speaks of was read to its end.
    pub(crate) fn is_read_out(&self, status: &Container) -> bool {
        status.log == Log::None || self.read_out == Some(status.restarts)
    }

    /// Returns what clients are to be told of this container.
    pub(crate) fn problem(&self) -> Option<&Failure> {
        let running_well = self
            .running
            .as_ref()
            .is_some_and(|run| run.new_lines.get() > 0);
        let failure = self.failure.as_ref().filter(|_| !running_well)?;
        let passing = failure.reason.is_passing() && self.failures < PASSING_TOLD_AFTER;
        (!passing).then_some(failure)
    }

    /// Takes note of the end of its follow.
    pub(crate) fn ended(&mut self, end: FollowEnd, max_pause: Duration) {
        self.running = None;
        if end.restart_told {
            self.restarts_told = end.plan.restarts;
        }
        if end.new_lines > 0 {
            (self.failures, self.idle_ends) = (0, 0);
        }
        match end.result {
            Ok(()) => {
                let all_known = end.new_lines == 0 && end.partial.is_none();
                self.partial = end.partial;
                (self.failure, self.failures) = (None, 0);
                if end.plan.ended && all_known {
                    self.read_out = Some(end.plan.restarts);
                    self.permit = None;
                }
                // The end of a log is known before the pod's status tells of
                // it; asking too soon only costs another request.
                self.wait(self.idle_ends, max_pause, end.plan.ended);
                self.idle_ends += 1;
            }
            Err(failure) => {
                let about_the_log = failure.reason.is_about_the_log();
                self.wait(self.failures, max_pause, failure.reason.is_passing());
                self.failures += 1;
                self.failure = Some(failure);
                if end.plan.pod_over && about_the_log && self.failures >= GIVEN_UP_AFTER {
                    tracing::warn!(source = %self.source.name, "the log of a finished pod was given up");
                    self.read_out = Some(end.plan.restarts);
                    self.permit = None;
                }
            }
        }
    }

    /// Sets when to try again; the first time at once if `at_once`.
    fn wait(&mut self, tries: u32, max_pause: Duration, at_once: bool) {
        self.not_before = match tries {
            0 if at_once => Instant::now(),
            _ => Instant::now() + pause(tries, max_pause),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubectl::failure::FailureReason;

    const MAX: Duration = Duration::from_secs(10);

    fn status(restarts: u32, log: Log) -> Container {
        Container {
            name: "c".to_owned(),
            restarts,
            log,
            waiting: None,
            started_ns: None,
            exit: None,
            last_exit: None,
        }
    }

    fn end(tracked: &mut Tracked, status: &Container, new_lines: u64, result: Result<(), Failure>) {
        let plan = tracked
            .plan(status, status.log == Log::Ended)
            .expect("to be followed");
        let end = FollowEnd {
            restart_told: plan.restart.is_some(),
            plan,
            new_lines,
            partial: None,
            result,
        };
        tracked.ended(end, MAX);
    }

    #[test]
    fn a_log_is_read_out_when_a_reading_after_its_end_finds_nothing_new() {
        let mut tracked = Tracked::new("u", "p", "c");
        assert!(tracked.plan(&status(0, Log::None), false).is_none());
        end(&mut tracked, &status(0, Log::Growing), 5, Ok(()));
        let ended = status(0, Log::Ended);
        assert!(!tracked.is_read_out(&ended));
        end(&mut tracked, &ended, 1, Ok(()));
        assert!(!tracked.is_read_out(&ended));
        end(&mut tracked, &ended, 0, Ok(()));
        assert!(tracked.is_read_out(&ended));
        assert!(tracked.plan(&ended, false).is_none());
    }

    #[test]
    fn a_restart_is_planned_once() {
        let mut tracked = Tracked::new("u", "p", "c");
        let first = tracked
            .plan(&status(0, Log::Growing), false)
            .expect("a plan");
        assert!(first.restart.is_none());
        end(&mut tracked, &status(0, Log::Ended), 0, Ok(()));
        let restarted = status(1, Log::Growing);
        let plan = tracked.plan(&restarted, false).expect("a plan");
        assert_eq!(plan.restart.expect("a restart").restarts, 1);
        end(&mut tracked, &restarted, 0, Ok(()));
        assert!(
            tracked
                .plan(&restarted, false)
                .expect("a plan")
                .restart
                .is_none()
        );
    }

    #[test]
    fn passing_failures_are_told_when_they_do_not_pass() {
        let mut tracked = Tracked::new("u", "p", "c");
        let growing = status(0, Log::Growing);
        for _ in 0..2 {
            end(
                &mut tracked,
                &growing,
                0,
                Err(FailureReason::Interrupted.into()),
            );
            assert_eq!(tracked.problem(), None);
        }
        end(
            &mut tracked,
            &growing,
            0,
            Err(FailureReason::Interrupted.into()),
        );
        assert!(tracked.problem().is_some());
        end(
            &mut tracked,
            &growing,
            3,
            Err(FailureReason::Interrupted.into()),
        );
        assert_eq!(tracked.problem(), None);
        end(
            &mut tracked,
            &growing,
            0,
            Err(FailureReason::Forbidden.into()),
        );
        assert!(tracked.problem().is_some());
    }

    #[test]
    fn the_log_of_a_finished_pod_is_given_up_but_not_for_lack_of_rights() {
        for (reason, given_up) in [
            (FailureReason::LogUnavailable, true),
            (FailureReason::Forbidden, false),
        ] {
            let mut tracked = Tracked::new("u", "p", "c");
            let ended = status(0, Log::Ended);
            for _ in 0..GIVEN_UP_AFTER {
                end(&mut tracked, &ended, 0, Err(reason.into()));
            }
            assert_eq!(tracked.is_read_out(&ended), given_up);
            assert!(tracked.problem().is_some());
        }
    }

    #[test]
    fn pauses_double_up_to_the_limit() {
        for tries in 0..40 {
            let full = FIRST_PAUSE.saturating_mul(1 << tries.min(16)).min(MAX);
            let pause = pause(tries, MAX);
            assert!(pause <= full && pause >= full / 2, "{tries}: {pause:?}");
        }
    }
}
