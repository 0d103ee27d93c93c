//! Where what Redis showed ends in the logs of pods.

use std::collections::VecDeque;
use std::time::Duration;

use actix::prelude::*;

use super::super::RunHub;
use super::{Failover, Follow, Phase, Reason};
use crate::broker::BrokerSettings;
use crate::failover::{Content, Entry, Line, Origin};
use crate::kubectl::KubectlLine;
use crate::order::LogIndex as _;
use crate::protocol::{BackendKind, EventKind, Gap, GapReason, Timestamp};
use crate::sse::{FrameClass, Segment};

/// The join is found if one of so many events that Redis showed last is in a
/// log: statuses, and whatever else an agent does not print, are not.
const JOIN_LOOK: u64 = 32;

/// A log is read up to the present when nothing more comes of it for so long.
const QUIET: Duration = Duration::from_millis(600);

/// How long the first line may take, once the pods are known.
const FIRST_LINE_PATIENCE: Duration = Duration::from_secs(3);

/// Lines read before the join is known. Bounded: the oldest go.
pub(super) struct Backlog {
    lines: VecDeque<(KubectlLine, Line)>,
    bytes: usize,
    lines_max: usize,
    bytes_max: usize,
    /// Lines before this time were shown, or never will be.
    horizon: Option<i64>,
    /// The matcher knows what was shown.
    is_prepared: bool,
    /// The newest events that Redis showed were found.
    is_joined: bool,
    /// Some lines are gone.
    has_lost: bool,
    /// The newest line's time.
    newest: Option<i64>,
    /// When it began, in microseconds since the epoch.
    began_ts: i64,
}

impl Backlog {
    pub(super) fn new(settings: &BrokerSettings) -> Self {
        Self {
            lines: VecDeque::new(),
            bytes: 0,
            lines_max: settings.auto.remembered_lines,
            bytes_max: settings.hub.ring_bytes.as_u64() as usize,
            horizon: None,
            is_prepared: false,
            is_joined: false,
            has_lost: false,
            newest: None,
            began_ts: 0,
        }
    }

    pub(super) fn clear(&mut self) {
        self.lines = VecDeque::new();
        (self.bytes, self.horizon, self.newest) = (0, None, None);
        (self.is_prepared, self.is_joined, self.has_lost) = (false, false, false);
    }

    /// Whether lines wait in it.
    pub(super) fn has_lines(&self) -> bool {
        !self.lines.is_empty()
    }

    /// Whether no line came.
    pub(super) fn is_silent(&self) -> bool {
        self.newest.is_none()
    }

    pub(super) fn note_lost(&mut self) {
        self.has_lost = true;
    }

    fn push(&mut self, line: KubectlLine, key: Line) {
        self.bytes += line.payload.len();
        self.lines.push_back((line, key));
        while self.lines.len() > self.lines_max
            || self.bytes > self.bytes_max && self.lines.len() > 1
        {
            let Some((line, _)) = self.lines.pop_front() else {
                return;
            };
            self.bytes -= line.payload.len();
            self.has_lost = true;
        }
    }
}

impl RunHub {
    /// Begins to read the pods' logs after what Redis showed.
    pub(super) fn begin_joining(&mut self, reason: Reason, ctx: &mut Context<Self>) {
        if reason == Reason::RedisDown {
            // What it holds is delivered when it is back, but for what lines
            // stood for by then.
            self.order.begin_unread();
        }
        let horizon = self.oldest_shown();
        let since_ns = horizon.map(|micros| micros.max(0).unsigned_abs() * 1000);
        let actor = self
            .shared
            .start_follow(&self.run_id, since_ns, ctx.address().recipient());
        let Some(failover) = &mut self.failover else {
            return;
        };
        failover.backlog.clear();
        failover.matcher.begin_join();
        failover.backlog.began_ts = Timestamp::now().as_micros();
        failover.follow = Some(Follow {
            actor,
            ready_at: None,
        });
        failover.reason = reason;
        failover.enter(Phase::Joining);
    }

    /// Whether the log has all that Redis showed of the run, but for what lies
    /// before it by `earlier`.
    fn is_log_whole(&self) -> bool {
        let base = self.log.base();
        self.log.front_no() == 0 && base.is_none_or(|base| base.seq == 0)
    }

    /// The time from which on lines are asked for; `None`: from their beginning.
    fn oldest_shown(&self) -> Option<i64> {
        if self.is_log_whole() {
            return None;
        }
        let failover = self.failover.as_ref();
        let earlier = failover.and_then(|failover| failover.earlier.as_ref());
        let (earlier, begins) = earlier
            .and_then(|earlier| earlier.before(self.log.base()))
            .unwrap_or_default();
        if begins && self.log.front_no() == 0 {
            return None;
        }
        let first = earlier.first().map(|entry| entry.ts);
        let in_log = || self.log.segments().find_map(first_time_of);
        let window = self.shared.settings.auto.window.as_micros() as i64;
        let recently = || Timestamp::now().as_micros() - window;
        Some(first.or_else(in_log).unwrap_or_else(recently))
    }

    /// Has the matcher know what clients were shown, when that is first of use:
    /// with many runs at once most wait for a place to follow theirs.
    fn prepare(&mut self) {
        let failover = self.failover.as_ref();
        if failover.is_none_or(|failover| failover.backlog.is_prepared) {
            return;
        }
        let horizon = self.remember_log();
        if let Some(failover) = &mut self.failover {
            failover.backlog.horizon = horizon;
            failover.backlog.is_prepared = true;
        }
    }

    /// Has the matcher know what clients were shown; returns the time before
    /// which lines are not looked at.
    fn remember_log(&mut self) -> Option<i64> {
        let settings = &self.shared.settings.auto;
        let base = self.log.base();
        let is_whole = self.is_log_whole();
        let segments_dropped = self.log.front_no();
        let events: u64 = self
            .log
            .segments()
            .map(|segment| segment.events_through() - segment.events_before())
            .sum();
        let Some(failover) = &mut self.failover else {
            return None;
        };
        let Failover {
            matcher, earlier, ..
        } = &mut **failover;
        matcher.begin_join();
        let earlier = earlier.as_ref().and_then(|earlier| earlier.before(base));
        let (earlier, begins) = earlier.unwrap_or_default();
        for entry in earlier {
            matcher.remember(*entry);
        }
        let is_whole = is_whole || begins && segments_dropped == 0;
        let mut skipped = events.saturating_sub(settings.remembered_lines as u64);
        if !is_whole || skipped > 0 {
            matcher.set_incomplete();
        }
        for segment in self.log.segments() {
            for index in 0..segment.frames().len() {
                let Some(entry) = entry_of(segment, index) else {
                    continue;
                };
                match skipped.checked_sub(1) {
                    Some(left) => skipped = left,
                    None => matcher.remember(entry),
                }
            }
        }
        if matcher.is_complete() {
            return None;
        }
        let window = settings.window.as_micros() as i64;
        let recently = || Timestamp::now().as_micros() - window;
        Some(matcher.oldest_shown().unwrap_or_else(recently))
    }

    /// Takes lines of the past: what was shown goes, what may be new waits.
    pub(super) fn lines_before_join(&mut self, lines: Vec<KubectlLine>) {
        self.prepare();
        let Some(failover) = &mut self.failover else {
            return;
        };
        let Failover {
            matcher, backlog, ..
        } = &mut **failover;
        for line in lines {
            let key = line_of(&line);
            backlog.newest = backlog.newest.max(Some(key.ts));
            if backlog.horizon.is_some_and(|horizon| key.ts < horizon) {
                continue;
            }
            match matcher.meets_shown(&key) {
                Some(met) => {
                    backlog.is_joined |= met.newer < JOIN_LOOK;
                    backlog.has_lost |= met.is_late && backlog.horizon.is_some();
                    self.shared.metrics.auto.matched.inc();
                }
                None => backlog.push(line, key),
            }
        }
    }

    /// Whether the logs were read up to the present.
    pub(super) fn is_join_over(&self) -> bool {
        let has_nothing = self.is_log_whole() && self.log.events_through() == 0;
        let Some(failover) = &self.failover else {
            return false;
        };
        let ready_at = failover.follow.as_ref().and_then(|follow| follow.ready_at);
        let Some(ready_at) = ready_at else {
            return false;
        };
        let backlog = &failover.backlog;
        let is_present = match backlog.newest {
            None => ready_at.elapsed() >= FIRST_LINE_PATIENCE,
            Some(newest) => newest >= backlog.began_ts || failover.line_at.elapsed() >= QUIET,
        };
        let patience = self.shared.settings.auto.window.max(FIRST_LINE_PATIENCE);
        is_present || has_nothing || ready_at.elapsed() >= 2 * patience
    }

    /// Goes on from kubectl: tells it, and what may be doubled or missing, and
    /// shows what is new.
    pub(super) fn go_on_from_pods(&mut self, ctx: &mut Context<Self>) {
        self.prepare();
        let Some(failover) = &mut self.failover else {
            return;
        };
        let switch = failover.reason.begins();
        let Failover {
            matcher, backlog, ..
        } = &mut **failover;
        let nothing_shown = matcher.is_complete() && matcher.has_shown_nothing();
        let is_sound = (nothing_shown || backlog.is_joined) && !backlog.has_lost;
        let lines = std::mem::take(&mut backlog.lines);
        // Printed, and then others that were published: Redis never had them.
        let new = lines
            .into_iter()
            .filter(|(_, key)| !matcher.is_passed(key.container, key.ts));
        let new: Vec<_> = new.collect();
        failover.backlog.clear();
        failover.owes_gap = false;
        failover.enter(Phase::OnKubectl);
        self.tell_source(BackendKind::Kubectl, switch, ctx);
        if !is_sound {
            self.gap(Gap::unknown(GapReason::Disconnected), FrameClass::CONTROL);
        }
        for (line, key) in new {
            self.show_line(&line, &key);
        }
        self.publish(ctx);
    }
}

/// A line as the matcher knows it.
pub(super) fn line_of(line: &KubectlLine) -> Line {
    Line {
        content: Content::of(&line.payload),
        ts: line.ts.as_micros(),
        kind: line.kind,
        container: container_of(&line.source),
    }
}

fn container_of(source: &str) -> u64 {
    crate::protocol::KubectlPosition::container_key(source, "")
}

/// The time of the first event of a segment.
fn first_time_of(segment: &Segment) -> Option<i64> {
    let mut parts = (0..segment.frames().len()).filter_map(|index| segment.event_parts_of(index));
    Some(Timestamp::parse(parts.next()?.time)?.as_micros())
}

/// A frame of the log as the matcher knows it.
fn entry_of(segment: &Segment, index: usize) -> Option<Entry> {
    let parts = segment.event_parts_of(index)?;
    let source = std::str::from_utf8(segment.source_of(index)).unwrap_or_default();
    let is_line = parts.backend == BackendKind::Kubectl.as_str();
    let (origin, container) = match is_line {
        true => (Origin::Line, container_of(source)),
        false if segment.is_loose(index) => (Origin::Plain, 0),
        false => (Origin::Durable, 0),
    };
    Some(Entry {
        content: Content::of_field(parts.field),
        ts: Timestamp::parse(parts.time)?.as_micros(),
        origin,
        kind: EventKind::Output,
        container,
    })
}
