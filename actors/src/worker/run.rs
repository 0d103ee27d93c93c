//! [`WorkerRun`]: one run on one worker, shared by its clients there.

mod reading;
mod traces;

pub(crate) use reading::{LogChunk, PageChunk};
use traces::Traces;

use std::cell::{Cell, Ref, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use actix::{Addr, Handler, Message};
use bytes::Bytes;
use slab::Slab;
use tracing::{info, warn};

use super::{AttachId, RunMessage, WheelKey, Worker};
use crate::broker::BrokerShared;
use crate::hub::{HubStats, RunHub};
use crate::metrics::WorkerCounters;
use crate::order::JoinFrom;
use crate::protocol::{BackendKind, Cursor, GapReason, Problem, RunId, Timestamp};
use crate::run_log::{HubIdentity, Join, LogPosition, LogStart, RunLog};
use crate::session::{CloseReason, LogPlace, Rejoin, RunReady, Seat, SeatState, SseSession, Way};
use crate::settings::RetrySettings;
use crate::sse::{Segment, cursor_frame, gap_frame, heartbeat_frame, hello_frame, problem_frame};

/// A wait shorter than this is none: a timer's step is a millisecond. It adds
/// to the next one, so that few clients of a run of many events wait, too.
const FLUSH_WAIT_MIN: Duration = Duration::from_millis(1);

/// One run on one worker: a log of its newest segments, and the clients.
///
/// Lives from the first client's coming to the last one's leaving.
pub(crate) struct WorkerRun {
    worker: Weak<Worker>,
    counters: Arc<WorkerCounters>,
    run_id: RunId,
    backend: BackendKind,
    attach_id: Cell<AttachId>,
    hub: RefCell<Addr<RunHub>>,
    stats: RefCell<Arc<HubStats>>,
    /// Known once the hub has answered.
    identity: Cell<Option<HubIdentity>>,
    log: RefCell<RunLog>,
    /// Segments before this one may be sent; later ones wait for a flush.
    flushed_no: Cell<u64>,
    /// Segments before this one were lost because the inbox overflowed.
    overflowed_no: Cell<u64>,
    next_flush: Cell<Instant>,
    flush_timer: Cell<bool>,
    members: RefCell<Slab<Member>>,
    /// The pump's turn in which the log was trimmed last.
    trimmed_pass: Cell<u64>,
    /// The pump's turn that last brought something to flush.
    touched_pass: Cell<u64>,
    waiting: RefCell<Vec<(Rc<Seat>, Addr<SseSession>)>>,
    standing_notice: RefCell<Option<Bytes>>,
    last_event_ts: Cell<Option<Timestamp>>,
    heartbeat: RefCell<(Option<Timestamp>, Bytes)>,
    traces: Traces,
}

/// One client, as its run knows it.
struct Member {
    seat: Rc<Seat>,
    session: Addr<SseSession>,
    beats: WheelKey,
}

impl WorkerRun {
    /// Attaches `worker` to the hub of a run; its log follows by the inbox.
    pub(super) fn attach(
        worker: &Rc<Worker>,
        backend: BackendKind,
        run_id: &RunId,
    ) -> Result<Rc<Self>, Problem> {
        let attach_id = AttachId::next();
        let (hub, stats) =
            worker
                .shared
                .attach_hub(backend, run_id, attach_id, Arc::clone(worker.inbox()))?;
        Ok(Rc::new(Self {
            worker: Rc::downgrade(worker),
            counters: Arc::clone(&worker.counters),
            run_id: run_id.clone(),
            backend,
            attach_id: Cell::new(attach_id),
            hub: RefCell::new(hub),
            stats: RefCell::new(stats),
            identity: Cell::new(None),
            log: RefCell::new(worker.shared.settings.new_log(backend)),
            flushed_no: Cell::new(0),
            overflowed_no: Cell::new(0),
            next_flush: Cell::new(Instant::now()),
            flush_timer: Cell::new(false),
            members: RefCell::default(),
            trimmed_pass: Cell::new(0),
            touched_pass: Cell::new(0),
            waiting: RefCell::default(),
            standing_notice: RefCell::default(),
            last_event_ts: Cell::new(None),
            heartbeat: RefCell::default(),
            traces: Traces::default(),
        }))
    }

    pub(crate) fn run_id(&self) -> &RunId {
        &self.run_id
    }

    pub(crate) fn backend(&self) -> BackendKind {
        self.backend
    }

    /// Where its events come from now.
    pub(crate) fn live_backend(&self) -> BackendKind {
        self.stats.borrow().live_backend(self.backend)
    }

    /// Whether its clients go on without what only the store could tell them:
    /// they stream from kubectl while Redis cannot be read.
    pub(crate) fn goes_on_without_store(&self) -> bool {
        self.backend == BackendKind::Auto
            && self.live_backend() == BackendKind::Kubectl
            && !self.worker().shared.redis.is_up()
    }

    pub(crate) fn attach_id(&self) -> AttachId {
        self.attach_id.get()
    }

    pub(crate) fn counters(&self) -> &WorkerCounters {
        &self.counters
    }

    fn worker(&self) -> Rc<Worker> {
        self.worker
            .upgrade()
            .expect("a worker lives as long as its thread, and so its runs")
    }

    pub(crate) fn retry(&self) -> RetrySettings {
        self.worker().shared.settings.live.now().retry
    }

    // ---- what the hub says -------------------------------------------------

    /// Applies a message; `true` if there may be something to flush.
    pub(super) fn apply(self: &Rc<Self>, message: RunMessage) -> bool {
        match message {
            RunMessage::Attached {
                hub,
                segments,
                from,
            } => self.attached(hub, segments, *from),
            RunMessage::Segments(segments, traced) => {
                self.append(segments);
                self.note_traced(traced);
                self.wake_waiting();
                return true;
            }
            RunMessage::StandingNotice(frame) => {
                if let Some(frame) = &frame {
                    self.notify(frame);
                }
                *self.standing_notice.borrow_mut() = frame;
            }
            RunMessage::Failed(problem) => self.failed(&problem),
            RunMessage::Lost => self.lost(),
            #[cfg(test)]
            RunMessage::Panic => panic!("as asked"),
        }
        false
    }

    /// Sends a frame to all who have had their `hello`.
    fn notify(&self, frame: &Bytes) {
        self.each_member(|seat| {
            if matches!(seat.state.get(), SeatState::Live | SeatState::Paging) {
                seat.send(frame.clone());
            }
        });
    }

    /// Appends segments. What the log holds past its bound goes at the first
    /// append of a later turn of the pump: bodies have had a turn at it by
    /// then, so that a burst larger than the ring loses nobody who keeps up.
    fn append(&self, segments: Vec<Segment>) {
        let mut log = self.log.borrow_mut();
        let pass = self.worker().pass();
        if self.trimmed_pass.replace(pass) != pass {
            log.trim_before(self.flushed_no.get());
        }
        for segment in segments {
            if segment.no() != log.end_no() {
                self.overflowed_no.set(segment.no());
            }
            self.last_event_ts
                .set(segment.last_event_ts().or(self.last_event_ts.get()));
            log.push_untrimmed(segment);
        }
    }

    fn attached(&self, hub: HubIdentity, segments: Vec<Segment>, from: LogStart) {
        self.log.borrow_mut().reset(from);
        self.append(segments);
        self.identity.set(Some(hub));
        self.wake_waiting();
        self.flush();
    }

    /// Has those join who came before the log, or before what they have seen.
    fn wake_waiting(&self) {
        if self.identity.get().is_none() {
            return;
        }
        for (seat, session) in self.waiting.take() {
            seat.waits.set(false);
            tell(&session, RunReady);
        }
    }

    fn failed(&self, problem: &Problem) {
        let frame = Bytes::from(problem_frame(problem));
        self.each_member(|seat| seat.send(frame.clone()));
        self.say_goodbye(CloseReason::Unavailable);
        // The next client attaches anew.
        self.worker().forget(self);
    }

    /// The hub died: a new one begins with an empty log and other ids.
    fn lost(self: &Rc<Self>) {
        let worker = self.worker();
        if worker.shared.draining.load(Relaxed) {
            // Hubs end with the process; there is none to attach to.
            return self.say_goodbye(CloseReason::Drain);
        }
        worker.shared.metrics.actor_restarts.inc();
        // The next hub numbers its segments anew.
        self.traces.forget();
        let old = self.attach_id.replace(AttachId::next());
        let attached = worker.shared.attach_hub(
            self.backend,
            &self.run_id,
            self.attach_id.get(),
            Arc::clone(worker.inbox()),
        );
        worker.reattached(old, self);
        warn!(run_id = %self.run_id, backend = %self.backend, "hub lost, clients attach to a new one");
        match attached {
            Ok((hub, stats)) => {
                let stats_before = self.stats.replace(Arc::clone(&stats));
                // It may live: then it is this worker that panicked.
                crate::hub::detach(&self.hub.replace(hub), old);
                if !Arc::ptr_eq(&stats_before, &stats) {
                    stats.add_clients(self.members.borrow().len() as u64);
                }
            }
            Err(problem) => return self.failed(&problem),
        }
        let had_loose = self.log.borrow().loose_through() > 0;
        let gap = had_loose.then_some((GapReason::Restarted, None));
        for (_, member) in self.members.borrow().iter() {
            member.seat.wanted_no.set(None);
            if !member.seat.is_closing() {
                let from = member.seat.seen();
                let loose_seen = None;
                let way = Way::Back {
                    from,
                    gap,
                    loose_seen,
                };
                self.rejoin(member, way);
            }
        }
        self.log.borrow_mut().reset(LogStart::default());
        self.flushed_no.set(0);
        self.overflowed_no.set(0);
        self.identity.set(None);
    }

    /// Has a client come back another way.
    fn rejoin(&self, member: &Member, way: Way) {
        member.seat.drop_pages();
        if member.seat.state.get() == SeatState::Live {
            member.seat.state.set(SeatState::Paging);
        }
        tell(&member.session, Rejoin(way));
    }

    /// Whether this is the first time in the pump's turn `pass`.
    pub(super) fn first_touch(&self, pass: u64) -> bool {
        self.touched_pass.replace(pass) != pass
    }

    // ---- pacing ------------------------------------------------------------

    /// Flushes now, or when the pause after the last flush is over.
    ///
    /// The first event after a pause leaves at once; then the next flush waits
    /// a while that grows with the run's clients, and takes all that came.
    pub(super) fn pace(self: &Rc<Self>) {
        if self.flush_timer.get() {
            return;
        }
        let now = Instant::now();
        let wait = self.next_flush.get().saturating_duration_since(now);
        let unflushed = self.log.borrow().bytes_from(self.flushed_no.get());
        if wait < FLUSH_WAIT_MIN || unflushed > self.burst_bytes() {
            self.flush();
            let due = self.next_flush.get().clamp(now, now + FLUSH_WAIT_MIN);
            self.next_flush.set(due + self.flush_delay());
            return;
        }
        self.flush_timer.set(true);
        let run = Rc::clone(self);
        actix_rt::spawn(async move {
            tokio::time::sleep(wait).await;
            run.flush_timer.set(false);
            run.flush();
            run.next_flush.set(Instant::now() + run.flush_delay());
        });
    }

    /// What may wait for a flush: what cannot be trimmed meanwhile is bounded.
    fn burst_bytes(&self) -> usize {
        self.log.borrow().bytes_max() / 2
    }

    fn flush_delay(&self) -> Duration {
        let Some(worker) = self.worker.upgrade() else {
            return Duration::ZERO;
        };
        let hub = &worker.shared.settings.hub;
        // Those of other workers, too: what a flush costs them is paid by the
        // same machine.
        let clients = u32::try_from(self.stats.borrow().clients()).unwrap_or(u32::MAX);
        let delay = hub.flush_delay_per_client.saturating_mul(clients);
        delay.min(hub.max_flush_delay)
    }

    /// Has all that is in the log sent.
    pub(super) fn flush(&self) {
        self.flushed_no.set(self.log.borrow().end_no());
        self.each_member(|seat| {
            if seat.parked.replace(false) {
                seat.wake();
            }
        });
    }

    // ---- clients -----------------------------------------------------------

    /// Seats a client; its `retry:` block leaves at once.
    pub(crate) fn add_member(self: &Rc<Self>, seat: Rc<Seat>, session: Addr<SseSession>) -> usize {
        self.stats.borrow().add_clients(1);
        let beats = self.worker().schedule_beats(&seat, self);
        self.members.borrow_mut().insert(Member {
            seat,
            session,
            beats,
        })
    }

    /// Tells `session` when the log is here, now or later.
    pub(crate) fn when_ready(&self, seat: &Rc<Seat>, session: &Addr<SseSession>) {
        match self.identity.get() {
            Some(_) => tell(session, RunReady),
            None => self.wait(seat, session),
        }
    }

    /// Tells `session` when more of the log has arrived, once.
    pub(crate) fn wait(&self, seat: &Rc<Seat>, session: &Addr<SseSession>) {
        if !seat.waits.replace(true) {
            let waiting = (Rc::clone(seat), session.clone());
            self.waiting.borrow_mut().push(waiting);
        }
    }

    /// Whose log it is, once it is here.
    pub(crate) fn identity(&self) -> Option<HubIdentity> {
        self.identity.get()
    }

    /// The log.
    pub(crate) fn log(&self) -> Ref<'_, RunLog> {
        self.log.borrow()
    }

    pub(crate) fn shared(&self) -> Arc<BrokerShared> {
        Arc::clone(&self.worker().shared)
    }

    /// Whether all is here that the hub had when this was first asked for
    /// `seat`: a client may have seen on another worker what is still on its
    /// way to this one, and before it is told of a gap it must be here.
    pub(crate) fn has_what_hub_had(&self, seat: &Seat) -> bool {
        let hub_end_no = || self.stats.borrow().log_end_no();
        let wanted_no = seat.wanted_no.get().unwrap_or_else(hub_end_no);
        seat.wanted_no.set(Some(wanted_no));
        self.log.borrow().end_no() >= wanted_no
    }

    /// Gives a client its place in the log and says `hello`.
    pub(crate) fn seat_joins(&self, seat: &Rc<Seat>, join: Join) {
        let resume = match &join.gap {
            Some(_) => "gap",
            None if join.position < self.log.borrow().end() => "replay",
            None => "live",
        };
        self.say_hello(seat, resume, join.cursor.as_deref());
        if let Some(gap) = &join.gap {
            self.worker().shared.metrics.gaps.of(gap.reason).inc();
            info!(run_id = %self.run_id, session_id = %seat.id, reason = gap.reason.as_str(), dropped = gap.missed, "client resumes with a gap");
            seat.send(Bytes::from(gap_frame(gap)));
        }
        seat.filter.borrow_mut().set_covered(join.covered);
        seat.stands_at(joined_after(join.cursor.as_deref()));
        self.take_place(seat, self.place_at(join.position));
    }

    /// Says `hello`, the cursor if it is known, and what stands.
    pub(crate) fn say_hello(&self, seat: &Seat, resume: &str, cursor: Option<&str>) {
        let worker = self.worker();
        let heartbeat_seconds = worker.shared.settings.heartbeat.interval.as_secs();
        let mut hello = String::new();
        hello_frame(
            &mut hello,
            &self.run_id,
            self.live_backend(),
            resume,
            cursor,
            heartbeat_seconds,
        );
        if let Some(cursor) = cursor {
            cursor_frame(&mut hello, cursor);
        }
        seat.state.set(SeatState::Paging);
        seat.send(Bytes::from(hello));
        if let Some(notice) = &*self.standing_notice.borrow() {
            seat.send(notice.clone());
        }
    }

    /// Gives a client pages to send, and its place in the log after them.
    pub(crate) fn hand_page(
        &self,
        seat: &Seat,
        segments: Vec<Segment>,
        position: Option<LogPosition>,
        is_awaited: bool,
    ) {
        if seat.state.get() != SeatState::Paging {
            return;
        }
        if segments.is_empty() && position.is_none() {
            return;
        }
        let then = position.map(|position| self.place_at(position));
        let metrics = &self.worker().shared.metrics;
        seat.hand_pages(segments, then, is_awaited, metrics);
        seat.wake();
    }

    fn place_at(&self, position: LogPosition) -> LogPlace {
        let log = self.log.borrow();
        LogPlace {
            position,
            events: log.events_before(position),
            loose: log.loose_before(position),
        }
    }

    /// Seats a client in the log.
    fn take_place(&self, seat: &Seat, place: LogPlace) {
        seat.events_seen.set(place.events);
        seat.loose_seen.set(place.loose);
        seat.position.set(place.position);
        seat.state.set(SeatState::Live);
        seat.wake();
    }

    /// Whether the body of `seat` has not asked for more for about
    /// `limits.write_timeout`.
    pub(crate) fn is_overdue(&self, seat: &Seat) -> bool {
        let worker = self.worker();
        let settings = &worker.shared.settings;
        let ticks = worker.tick().saturating_sub(seat.polled_tick.get());
        // Ticks are coarse, and the kernel counts from the first byte unread.
        settings.tick() * (ticks as u32 + 2) >= settings.live.now().limits.write_timeout
    }

    /// Lets a client go; the last one takes the run with it.
    pub(crate) fn remove_member(&self, member: usize, reason: CloseReason) {
        let worker = self.worker();
        let member = self.members.borrow_mut().remove(member);
        worker.stop_beats(member.beats);
        self.stats.borrow().remove_client();
        worker.shared.session_closed(self.backend, reason);
        if self.members.borrow().is_empty() {
            worker.forget(self);
            crate::hub::detach(&self.hub.borrow(), self.attach_id.get());
        }
    }

    /// Ends every client's stream with a `goodbye`.
    pub(super) fn say_goodbye(&self, reason: CloseReason) {
        let retry = self.retry();
        self.each_member(|seat| seat.say_goodbye(reason, retry));
    }

    /// Ends so many clients' streams likewise, if there are as many; returns how
    /// many it were.
    pub(super) fn say_goodbye_to(&self, count: usize, reason: CloseReason) -> usize {
        let retry = self.retry();
        let mut left = count;
        self.each_member(|seat| {
            if left > 0 && !seat.is_closing() {
                seat.say_goodbye(reason, retry);
                left -= 1;
            }
        });
        count - left
    }

    /// Returns how many clients' streams are to go on.
    pub(super) fn open_streams(&self) -> usize {
        let mut streams = 0;
        self.each_member(|seat| streams += usize::from(!seat.is_closing()));
        streams
    }

    /// Ends the streams whose token counts no more.
    pub(super) fn end_revoked(&self) {
        let worker = self.worker();
        let known = worker.shared.revocations.read();
        let retry = worker.shared.settings.live.now().retry;
        self.each_member(|seat| {
            if seat.bearer.as_deref().is_some_and(|it| known.has(it)) {
                seat.say_goodbye(CloseReason::TokenRevoked, retry);
            }
        });
    }

    fn each_member(&self, mut call: impl FnMut(&Rc<Seat>)) {
        for (_, member) in self.members.borrow().iter() {
            call(&member.seat);
        }
    }

    /// Returns the run's heartbeat of `now`, encoded once for all clients that
    /// beat together.
    pub(super) fn heartbeat(&self, now: Timestamp) -> Bytes {
        let mut cached = self.heartbeat.borrow_mut();
        if cached.0 != Some(now) {
            let since = self.last_event_ts.get().map(|last| {
                let micros = now.as_micros().saturating_sub(last.as_micros());
                u64::try_from(micros / 1000).unwrap_or(0)
            });
            *cached = (Some(now), heartbeat_frame(now, since));
        }
        cached.1.clone()
    }
}

/// What a client has seen that joined after `cursor`.
fn joined_after(cursor: Option<&str>) -> JoinFrom {
    let durable = cursor.and_then(|cursor| cursor.parse::<Cursor>().ok()?.id.durable());
    durable.map_or(JoinFrom::Start, |id| JoinFrom::Seen(id.into()))
}

/// Tells a session on this thread; what it is told is of use once, so there is
/// never more of it than of sessions.
pub(crate) fn tell<M>(session: &Addr<SseSession>, message: M)
where
    M: Message<Result = ()> + Send + 'static,
    SseSession: Handler<M>,
{
    #[expect(
        clippy::disallowed_methods,
        reason = "a control message on the session's own thread, a few at most"
    )]
    session.do_send(message);
}
