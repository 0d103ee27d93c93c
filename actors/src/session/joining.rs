//! How a session comes into its run's log: through pages of the store, if the
//! log does not reach back far enough.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use tracing::{debug, info};

use super::page::{CLIENT_PAGE_EVENTS, PageWriter};
use super::{CloseReason, Seat, SeatState, SseSession};
use crate::broker::{BrokerShared, StreamStart};
use crate::order::{JoinFrom, JoinInput, JoinOutput, Joiner, LogIndex as _};
use crate::protocol::{BackendKind, DurableId, Gap, GapReason, Place, Problem, RunId};
use crate::run_log::{HubIdentity, Joining, LogPosition, RunLog};
use crate::sse::{Segment, problem_frame};
use crate::store::{Page, PageFrom, PageQuery, StoreError, StoredEvent};

/// How long `hello` may wait: a second for the hub to know where the stream
/// stands, and one for the client's own page.
const HELLO_PATIENCE: Duration = Duration::from_secs(2);

/// The same while the reads of others are in the way.
const HERD_PATIENCE: Duration = Duration::from_secs(10);

/// Pause before a failed read is tried again.
const READ_RETRY_DELAY: Duration = Duration::from_millis(200);

/// How long a client waits for its log to grow before it asks the store anew.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Least time between two pages read for a client that waits for its log.
const WAIT_STEP: Duration = Duration::from_millis(25);

/// How a client comes to the log.
#[derive(Debug, Clone)]
pub(crate) enum Way {
    /// For the first time.
    Start(StreamStart),
    /// Again: its place is not in the log any more.
    Back {
        /// What it has seen.
        from: JoinFrom,
        /// What it has missed that no store can tell.
        gap: Option<(GapReason, Option<u64>)>,
        /// Of its log's loose frames so many are not missing to it.
        loose_seen: Option<u64>,
    },
}

/// A client on its way.
#[derive(Debug)]
pub(super) struct OnTheWay {
    joiner: Joiner,
    /// The session's, when it was taken last.
    step: u64,
}

impl SseSession {
    /// Has a client come back that has had no `hello` in time: its hub, or the
    /// store, does not answer. (kubectl tells its own troubles.)
    pub(super) fn bound_hello(&self, ctx: &mut Context<Self>) {
        if self.run.backend() == BackendKind::Kubectl {
            return;
        }
        ctx.run_later(HELLO_PATIENCE, |session, ctx| {
            if session.seat.state.get() != SeatState::Waiting {
                return;
            }
            let waited = session.opened_at.elapsed();
            if waited < HERD_PATIENCE && session.run.shared().reads_are_queued() {
                // The store answers, but many came at once.
                session.bound_hello(ctx);
            } else {
                session.on_the_way = None;
                session.fail(&StoreError("no answer in time".to_owned()));
            }
        });
    }

    /// Goes the way it is to go, now that the log is here.
    pub(super) fn join(&mut self, ctx: &mut Context<Self>) {
        let run = Rc::clone(&self.run);
        let Some(hub) = run.identity() else {
            // The hub was lost meanwhile: wait for the next one.
            return run.wait(&self.seat, &ctx.address());
        };
        let Some(way) = self.way.take() else { return };
        match *way {
            Way::Start(start) => self.begin(start, hub, ctx),
            Way::Back {
                from,
                gap,
                loose_seen,
            } => {
                let joiner = self.joiner_back(from, gap, loose_seen);
                self.set_out(joiner, ctx);
            }
        }
    }

    fn begin(&mut self, start: StreamStart, hub: HubIdentity, ctx: &mut Context<Self>) {
        let run = Rc::clone(&self.run);
        let safeguards = run.shared().settings.safeguards;
        let joining = {
            let filter = self.seat.filter.borrow();
            run.log().join(&start, &filter, hub, safeguards)
        };
        let joining = self.with_lines_missed(&start, joining);
        // A client may have seen on another worker what is still on its way here.
        let may_be_ahead = is_told_gap(&joining) || is_elsewhere(&joining, &run.log());
        if may_be_ahead && !run.has_what_hub_had(&self.seat) {
            self.way = Some(Box::new(Way::Start(start)));
            return run.wait(&self.seat, &ctx.address());
        }
        self.cursor = match start {
            StreamStart::After(cursor) => Some(cursor.to_string()),
            _ => None,
        };
        match joining {
            Joining::Seated(join) => {
                self.start = None;
                run.seat_joins(&self.seat, join);
            }
            Joining::Reading(joiner) => self.set_out(joiner, ctx),
            Joining::Counting(_) if run.goes_on_without_store() => {
                let joiner = Joiner::new(JoinFrom::Start, &*run.log(), safeguards);
                self.set_out(joiner, ctx);
            }
            Joining::Counting(count) => self.count_back(count, ctx),
        }
    }

    /// Tells a newcomer if lines of pods, which stand for what Redis brings later,
    /// are not in the log any more.
    fn with_lines_missed(&self, start: &StreamStart, joining: Joining) -> Joining {
        let run = &self.run;
        let is_new = matches!(start, StreamStart::Start | StreamStart::Last(_));
        let is_between = run.backend() == BackendKind::Auto
            && run.live_backend() == BackendKind::Kubectl
            && run.log().loose_dropped() > 0;
        match joining {
            Joining::Reading(joiner) if is_new && is_between => {
                Joining::Reading(joiner.with_gap(GapReason::Trimmed, None))
            }
            joining => joining,
        }
    }

    fn joiner_back(
        &self,
        from: JoinFrom,
        gap: Option<(GapReason, Option<u64>)>,
        loose_seen: Option<u64>,
    ) -> Joiner {
        let safeguards = self.run.shared().settings.safeguards;
        let log = self.run.log();
        let mut joiner = match from {
            JoinFrom::Seen(place) => Joiner::fallen_behind(place, &*log, safeguards),
            JoinFrom::Start => Joiner::new(JoinFrom::Start, &*log, safeguards),
        };
        if let Some((reason, missed)) = gap {
            joiner = joiner.with_gap(reason, missed);
        }
        match loose_seen {
            Some(loose) => joiner.with_loose_seen(loose),
            None => joiner,
        }
    }

    fn set_out(&mut self, joiner: Joiner, ctx: &mut Context<Self>) {
        self.on_the_way = Some(Box::new(OnTheWay {
            joiner,
            step: self.step,
        }));
        self.drive(JoinInput::GoOn, ctx);
    }

    /// Takes the client one step on.
    pub(super) fn drive(&mut self, input: JoinInput<'_, Page>, ctx: &mut Context<Self>) {
        let page = match input {
            JoinInput::Page(page) => Some(page),
            JoinInput::GoOn => None,
        };
        let Some(way) = &mut self.on_the_way else {
            return;
        };
        if self.run.identity().is_none() {
            // The hub was lost: a `Rejoin` is on its way.
            return;
        }
        self.step += 1;
        way.step = self.step;
        let run = Rc::clone(&self.run);
        let mut out = Vec::new();
        way.joiner.step(input, &*run.log(), &mut out);
        let reads = |output: &JoinOutput<_>| matches!(output, JoinOutput::Read(_));
        if out.iter().any(reads) && run.goes_on_without_store() {
            out.retain(|output| !reads(output));
            way.joiner.give_up(&*run.log(), &mut out);
        }
        let begins_after = way.joiner.begins_after();
        let seen = way.joiner.place();
        if self.seat.state.get() == SeatState::Waiting
            && out
                .iter()
                .any(|output| !matches!(output, JoinOutput::Read(_)))
        {
            self.say_hello(&out, begins_after.map(|id| id.to_string()));
            self.start = None;
        }
        let segments = self.write(&out, page);
        let position = out.iter().find_map(seat_of);
        if position.is_some() {
            self.on_the_way = None;
            let stands = seen.map_or(JoinFrom::Start, JoinFrom::Seen);
            self.seat.stands_at(stands);
        }
        for output in &out {
            match output {
                JoinOutput::Read(from) => self.read(*from, ctx),
                JoinOutput::Wait => self.wait_for_log(ctx),
                JoinOutput::Gap { .. } | JoinOutput::Send(_) | JoinOutput::Seat(_) => {}
            }
        }
        let sends = out
            .iter()
            .any(|output| matches!(output, JoinOutput::Send(_)));
        run.hand_page(&self.seat, segments, position, sends && position.is_none());
    }

    /// Says `hello`: where the client is, now that it is known.
    fn say_hello(&self, out: &[JoinOutput<LogPosition>], begins_after: Option<String>) {
        let is_gap = |output: &JoinOutput<_>| matches!(output, JoinOutput::Gap { .. });
        let end = self.run.log().end();
        let is_replay = |output: &JoinOutput<LogPosition>| match output {
            JoinOutput::Send(_) | JoinOutput::Wait => true,
            JoinOutput::Seat(position) => *position < end,
            JoinOutput::Gap { .. } | JoinOutput::Read(_) => false,
        };
        let (resume, cursor) = match out.iter().any(is_gap) {
            true => ("gap", begins_after),
            false => {
                let resume = match out.iter().any(is_replay) {
                    true => "replay",
                    false => "live",
                };
                (resume, self.cursor.clone().or(begins_after))
            }
        };
        self.run.say_hello(&self.seat, resume, cursor.as_deref());
    }

    /// Writes what is to be sent before the log.
    fn write(&self, out: &[JoinOutput<LogPosition>], page: Option<&Page>) -> Vec<Segment> {
        let run = &self.run;
        let shared = run.shared();
        let after = self.seat.last_id().or_else(|| self.cursor.clone());
        let limits = &shared.settings.live.now().limits;
        let stored = match run.backend() {
            BackendKind::Auto => BackendKind::Redis,
            other => other,
        };
        let mut writer = PageWriter::new(run.run_id(), stored, limits, &shared.metrics, after);
        for output in out {
            match output {
                JoinOutput::Gap {
                    reason,
                    before,
                    missed,
                } => {
                    let before = before.map(|id| id.to_string());
                    let in_log = || {
                        let position = out.iter().find_map(seat_of)?;
                        run.log().id_after(position).map(str::to_owned)
                    };
                    writer.gap(Gap {
                        after: None,
                        before: before.or_else(in_log),
                        missed: *missed,
                        reason: *reason,
                    });
                    info!(run_id = %run.run_id(), session_id = %self.seat.id, reason = reason.as_str(), dropped = missed, "client resumes with a gap");
                }
                JoinOutput::Send(range) => {
                    let events = page.and_then(|page| page.events.get(range.clone()));
                    for event in events.unwrap_or_default() {
                        writer.event(event);
                    }
                }
                JoinOutput::Read(_) | JoinOutput::Wait | JoinOutput::Seat(_) => {}
            }
        }
        writer.finish()
    }

    /// Goes on when the log has grown since the page was asked for, or after a
    /// while.
    fn wait_for_log(&mut self, ctx: &mut Context<Self>) {
        self.run.wait(&self.seat, &ctx.address());
        let has_grown = self.log_end_asked != self.run.log().end();
        self.go_on_after(if has_grown { WAIT_STEP } else { WAIT_MAX }, ctx);
    }

    /// The log has grown while it waits: goes on, but not with each event.
    pub(super) fn go_on_soon(&mut self, ctx: &mut Context<Self>) {
        self.go_on_after(WAIT_STEP, ctx);
    }

    fn go_on_after(&mut self, delay: Duration, ctx: &mut Context<Self>) {
        let step = self.step;
        ctx.run_later(delay, move |session, ctx| {
            if session.is_at(step) {
                session.drive(JoinInput::GoOn, ctx);
            }
        });
    }

    /// Whether nothing has happened since that step.
    fn is_at(&self, step: u64) -> bool {
        self.on_the_way
            .as_deref()
            .is_some_and(|way| way.step == step)
    }

    // ---- reading -----------------------------------------------------------

    fn read(&mut self, from: PageFrom, ctx: &mut Context<Self>) {
        let shared = self.run.shared();
        let limit = shared.settings.history.total_page_bytes.as_u64();
        if shared.metrics.paged_bytes.get() > limit {
            // Others' pages must be sent, or their clients be closed, first.
            return self.go_on_after(READ_RETRY_DELAY, ctx);
        }
        self.log_end_asked = self.run.log().end();
        let run_id = self.run.run_id().clone();
        let step = self.step;
        let reading = async move { shared.read_page(&run_id, query(&shared, from)).await };
        let reading = reading.into_actor(self);
        ctx.spawn(reading.map(move |page, session, ctx| {
            if session.is_at(step) {
                session.was_read(page, ctx);
            }
        }));
    }

    fn was_read(&mut self, page: Result<Page, StoreError>, ctx: &mut Context<Self>) {
        match page {
            Ok(page) => self.drive(JoinInput::Page(&page), ctx),
            Err(error) if self.seat.state.get() == SeatState::Waiting => self.fail(&error),
            Err(error) => {
                debug!(session_id = %self.seat.id, %error, "history not read, trying again");
                self.go_on_after(READ_RETRY_DELAY, ctx);
            }
        }
    }

    /// The history cannot be read: the client comes back.
    fn fail(&self, error: &StoreError) {
        let problem = Problem::new(
            503,
            "history-unavailable",
            "History unavailable",
            format!("{error}; the stream begins when it does"),
        )
        .retryable(true);
        self.seat.send(Bytes::from(problem_frame(&problem)));
        self.seat
            .say_goodbye(CloseReason::Unavailable, self.run.retry());
    }

    /// Looks in the store for the place before the last `count` events that
    /// pass the filter.
    fn count_back(&mut self, count: u64, ctx: &mut Context<Self>) {
        let shared = self.run.shared();
        let run_id = self.run.run_id().clone();
        let seat = Rc::clone(&self.seat);
        let base = self.run.log().base();
        let counting = async move {
            let counter = Counter {
                shared,
                run_id,
                seat,
            };
            counter.place_before(count, base).await
        };
        let counting = counting.into_actor(self);
        let step = self.step;
        ctx.spawn(counting.map(move |from, session, ctx| match from {
            // Its hub was lost meanwhile: it begins again.
            _ if session.step != step || session.seat.is_closing() => {}
            Ok(from) => {
                let safeguards = session.run.shared().settings.safeguards;
                let joiner = Joiner::new(from, &*session.run.log(), safeguards);
                session.set_out(joiner, ctx);
            }
            Err(error) => session.fail(&error),
        }));
    }
}

/// Counts events backwards.
struct Counter {
    shared: Arc<BrokerShared>,
    run_id: RunId,
    seat: Rc<Seat>,
}

impl Counter {
    async fn place_before(
        &self,
        mut count: u64,
        base: Option<Place>,
    ) -> Result<JoinFrom, StoreError> {
        let mut below = base.map_or(u64::MAX, |base| base.seq.saturating_add(1));
        loop {
            let from = PageFrom::Before(below);
            let page = self
                .shared
                .read_page(&self.run_id, query(&self.shared, from))
                .await?;
            for (index, event) in page.events.iter().enumerate().rev() {
                count -= u64::from(self.passes(event));
                if count > 0 {
                    continue;
                }
                let before = index.checked_sub(1);
                return match before.and_then(|before| page.events.get(before)) {
                    Some(before) => Ok(JoinFrom::Seen(before.id.into())),
                    None => self.before(event.id).await,
                };
            }
            match page.events.first() {
                Some(first) if page.more => below = first.id.seq,
                _ => return Ok(JoinFrom::Start),
            }
        }
    }

    /// Whether the client wants an event.
    fn passes(&self, event: &StoredEvent) -> bool {
        self.seat.filter.borrow().passes_stored(event)
    }

    /// The place before an event.
    async fn before(&self, id: DurableId) -> Result<JoinFrom, StoreError> {
        let query = PageQuery {
            events_max: 1,
            ..query(&self.shared, PageFrom::Before(id.seq))
        };
        let page = self.shared.read_page(&self.run_id, query).await?;
        let before = page.events.last().map(|event| Place::from(event.id));
        let place = before.unwrap_or(Place::before(id));
        Ok(match place.seq {
            0 => JoinFrom::Start,
            _ => JoinFrom::Seen(place),
        })
    }
}

fn query(shared: &BrokerShared, from: PageFrom) -> PageQuery {
    PageQuery {
        from,
        events_max: CLIENT_PAGE_EVENTS,
        bytes_max: shared.settings.history.page_bytes.as_u64() as usize,
    }
}

/// Whether the client's last event is not in the log.
fn is_elsewhere(joining: &Joining, log: &RunLog) -> bool {
    match joining {
        Joining::Reading(joiner) => joiner.seen().is_some_and(|id| log.after(id).is_none()),
        Joining::Seated(_) | Joining::Counting(_) => false,
    }
}

fn is_told_gap(joining: &Joining) -> bool {
    match joining {
        Joining::Seated(join) => join.gap.is_some(),
        Joining::Reading(joiner) => joiner.is_told_gap(),
        Joining::Counting(_) => false,
    }
}

fn seat_of(output: &JoinOutput<LogPosition>) -> Option<LogPosition> {
    match output {
        JoinOutput::Seat(position) => Some(*position),
        _ => None,
    }
}
