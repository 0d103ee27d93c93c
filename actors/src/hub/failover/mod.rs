//! A hub that serves `auto`: Redis, and kubectl while Redis is of no use.
//!
//! It is a hub of its own beside the run's Redis hub, which passes it on all
//! that arrives ([`mirror`]). So its log can hold lines of pods, and leave out
//! events that they stood for, and who streams from Redis alone is never
//! touched by either. When Redis fails the run ([`phases`]) it follows the pods,
//! finds in their logs where what it showed ends ([`join`]), and goes on there.
//! When Redis is back both are followed for a while ([`lines`]): whatever comes
//! first is shown, and its like from the other side is not.

mod earlier;
mod join;
mod lines;
mod mirror;
mod phases;

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::Addr;
use tracing::{debug, info};

pub(super) use mirror::{Parent, Seed};

use super::RunHub;
use super::ending::EndState;
use crate::broker::BrokerSettings;
use crate::failover::Matcher;
use crate::kubectl::{KubectlLogActor, Stop};
use crate::metrics::Switch;
use crate::protocol::{BackendKind, Problem};
use earlier::Earlier;
use join::Backlog;

/// Why a stream goes on from kubectl.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// Redis cannot be used.
    RedisDown,
    /// Redis knows nothing of the run.
    NoPublisher,
}

impl Reason {
    /// How it is told when it begins.
    fn begins(self) -> Switch {
        match self {
            Self::RedisDown => Switch::RedisDown,
            Self::NoPublisher => Switch::NoPublisher,
        }
    }

    /// How it is told when it is over.
    fn ends(self) -> Switch {
        match self {
            Self::RedisDown => Switch::RedisUp,
            Self::NoPublisher => Switch::Publisher,
        }
    }
}

/// Which of the two is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Redis alone.
    Redis,
    /// The logs are read up to where Redis left off; nothing of them is shown.
    Joining,
    /// Lines of pods are shown.
    OnKubectl,
    /// Redis is back, and lines are shown until its publisher is, too.
    Returning,
    /// Redis alone; what lines stood for is still awaited from it.
    Draining,
}

/// What a hub that serves `auto` knows beside other hubs.
pub(super) struct Failover {
    /// The Redis hub that passes on what arrives.
    parent: Option<Parent>,
    /// Its log was taken over.
    is_seeded: bool,
    phase: Phase,
    /// When that began.
    phase_began: Instant,
    reason: Reason,
    /// What clients were told last.
    told: BackendKind,
    matcher: Matcher,
    backlog: Backlog,
    /// What was shown before the log begins.
    earlier: Option<Earlier>,
    follow: Option<Follow>,
    /// The one before: what it still says is not to count as the next one's.
    left: Option<Addr<KubectlLogActor>>,
    /// What is wrong with kubectl, told to those who come.
    problem: Option<Problem>,
    /// The pods are not looked at before.
    next_try: Instant,
    /// Since when somebody watches.
    watched_since: Option<Instant>,
    /// Who comes waits until this time to be told where the stream begins.
    hello_held_until: Option<Instant>,
    /// Plain events may be missing, and lines may stand for them.
    owes_gap: bool,
    /// Time at which Redis was back, in microseconds since the epoch.
    back_ts: i64,
    /// When lines and events met last, and a line came last.
    met_at: Instant,
    line_at: Instant,
    /// Events of Redis that came since this phase began, and those of them that
    /// no line stood for.
    events: u64,
    new_events: u64,
    /// Time of the first of them.
    first_event_ts: Option<i64>,
    is_ended_by_pods: bool,
}

impl Failover {
    /// Makes it for a hub on `backend`, if that is `auto`.
    pub(super) fn of(backend: BackendKind, settings: &BrokerSettings) -> Option<Box<Self>> {
        (backend == BackendKind::Auto).then(|| Box::new(Self::new(settings)))
    }

    fn new(settings: &BrokerSettings) -> Self {
        let now = Instant::now();
        let window = settings.auto.window.as_micros() as i64;
        Self {
            parent: None,
            is_seeded: false,
            phase: Phase::Redis,
            phase_began: now,
            reason: Reason::RedisDown,
            told: BackendKind::Redis,
            matcher: Matcher::new(window, settings.auto.remembered_lines),
            backlog: Backlog::new(settings),
            earlier: None,
            follow: None,
            left: None,
            problem: None,
            next_try: now,
            watched_since: None,
            hello_held_until: None,
            owes_gap: false,
            back_ts: 0,
            met_at: now,
            line_at: now,
            events: 0,
            new_events: 0,
            first_event_ts: None,
            is_ended_by_pods: false,
        }
    }

    fn enter(&mut self, phase: Phase) {
        let now = Instant::now();
        debug!(
            from = ?self.phase,
            to = ?phase,
            awaited = self.matcher.awaited(),
            events = self.events,
            "failover goes on"
        );
        self.phase = phase;
        self.phase_began = now;
        (self.met_at, self.line_at) = (now, now);
        (self.events, self.new_events) = (0, 0);
        self.first_event_ts = None;
    }

    /// Stops to follow pods; what they still say is not heard.
    fn leave_pods(&mut self, pause: Duration) {
        if let Some(follow) = self.follow.take() {
            self.left = Some(follow.actor.clone());
        }
        self.backlog.clear();
        self.next_try = Instant::now() + pause;
    }
}

/// The follow of a run's pods.
struct Follow {
    actor: Addr<KubectlLogActor>,
    /// Since when the pods are known.
    ready_at: Option<Instant>,
}

impl Drop for Follow {
    fn drop(&mut self) {
        #[expect(
            clippy::disallowed_methods,
            reason = "one per follow, and it must not be refused"
        )]
        self.actor.do_send(Stop);
    }
}

impl RunHub {
    /// Whether clients are told that the stream comes from kubectl.
    pub(super) fn is_on_kubectl(&self) -> bool {
        let failover = self.failover.as_ref();
        failover.is_some_and(|failover| failover.told == BackendKind::Kubectl)
    }

    /// Whether the pods' end ends the run.
    pub(super) fn is_ended_by_pods(&self) -> bool {
        let failover = self.failover.as_ref();
        failover.is_some_and(|failover| failover.is_ended_by_pods)
    }

    /// Whether those who come must wait to be told where the stream begins.
    pub(super) fn is_hello_held(&self) -> bool {
        let failover = self.failover.as_ref();
        failover.is_some_and(|failover| failover.hello_held_until.is_some())
    }

    /// Whether a gap for what Redis does not bring need not be told now: lines
    /// stand for it, or it is told as soon as it is known that none do.
    pub(super) fn is_made_up_for(&mut self, is_back: bool) -> bool {
        let has_lost = !self.is_durable_only() && !self.is_unseen();
        let Some(failover) = &mut self.failover else {
            return false;
        };
        match failover.phase {
            Phase::OnKubectl | Phase::Returning => true,
            Phase::Redis | Phase::Joining | Phase::Draining if is_back => {
                failover.owes_gap = false;
                false
            }
            Phase::Redis | Phase::Joining | Phase::Draining => {
                failover.owes_gap |= has_lost;
                true
            }
        }
    }

    /// Tells all clients that the stream goes on from another backend.
    fn tell_source(&mut self, to: BackendKind, switch: Switch, ctx: &mut actix::Context<Self>) {
        let Some(failover) = &mut self.failover else {
            return;
        };
        failover.hello_held_until = None;
        if matches!(self.end, EndState::Ended { .. }) {
            return self.release_hello();
        }
        let from = std::mem::replace(&mut failover.told, to);
        if from != to {
            self.stats.set_live_backend(to);
            self.writer.source(from, to, switch.as_str());
            let metrics = &self.shared.metrics.auto;
            metrics.switches.of(switch).inc();
            match to {
                BackendKind::Kubectl => metrics.failed_over.add(1),
                _ => metrics.failed_over.sub(1),
            }
            info!(run_id = %self.run_id, from = %from, to = %to, reason = switch.as_str(), "stream goes on from another backend");
        }
        self.publish(ctx);
        self.release_hello();
    }

    /// Has those who waited begin.
    fn release_hello(&mut self) {
        if let Some(failover) = &mut self.failover {
            failover.hello_held_until = None;
        }
        // Where Redis cannot be read, what there is has to do.
        let goes_without = self.is_on_kubectl() && !self.shared.redis.is_up();
        if goes_without || self.order.is_ready() {
            self.send_log_to_waiting();
        }
    }

    /// Counts it out when its hub ends.
    fn forget_failover(&mut self) {
        let metrics = Arc::clone(&self.shared.metrics);
        if let Some(failover) = self.failover.take()
            && failover.told == BackendKind::Kubectl
        {
            metrics.auto.failed_over.sub(1);
        }
    }
}
