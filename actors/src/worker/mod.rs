//! The worker side of fan-out: per actix worker one inbox, one wheel, and per
//! run that it serves one log that its clients' bodies read.
//!
//! Everything here but the [`Inbox`] lives on one thread, without locks.

mod inbox;

mod run;
mod wheel;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tracing::error;

pub use inbox::{AttachId, Inbox, RunMessage, TracedSegment, WorkerMessage};
pub(crate) use run::{LogChunk, PageChunk, WorkerRun, tell};
use wheel::{Wheel, WheelKey};

use crate::broker::BrokerShared;
use crate::metrics::WorkerCounters;
use crate::protocol::{BackendKind, Problem, RunId, Timestamp};
use crate::session::{CloseReason, Seat};

/// Most heartbeats written in a row, about half a millisecond's work, as long
/// as a tick has time for the parts.
const BEATS_AT_ONCE: usize = 64;

/// Most parts that the beats of one tick are spread over.
const PARTS_MAX: usize = 50;

/// How far apart parts of the clients say `goodbye` when the process goes.
const DRAIN_STEP: Duration = Duration::from_millis(50);

thread_local! {
    /// The workers of this thread, one for each broker of the process (more
    /// than one only in tests).
    static WORKERS: RefCell<Vec<Rc<Worker>>> = const { RefCell::new(Vec::new()) };
}

/// One actix worker's part of a broker.
pub(crate) struct Worker {
    pub(crate) shared: Arc<BrokerShared>,
    pub(crate) counters: Arc<WorkerCounters>,
    inbox: Arc<Inbox>,
    by_run: RefCell<HashMap<(BackendKind, RunId), Rc<WorkerRun>>>,
    by_attach: RefCell<foldhash::HashMap<AttachId, Rc<WorkerRun>>>,
    wheel: RefCell<Wheel<(Rc<Seat>, Rc<WorkerRun>)>>,
    tick: Cell<u64>,
    /// Counts turns of the pump.
    pass: Cell<u64>,
}

impl Worker {
    /// Returns this thread's worker of `shared`, made on first use.
    pub(crate) fn current(shared: &Arc<BrokerShared>) -> Rc<Self> {
        WORKERS.with_borrow_mut(|workers| {
            let known = workers
                .iter()
                .find(|worker| Arc::ptr_eq(&worker.shared, shared));
            if let Some(worker) = known {
                return Rc::clone(worker);
            }
            let worker = Rc::new(Self::new(shared));
            actix_rt::spawn(Rc::clone(&worker).keep_pumping());
            workers.push(Rc::clone(&worker));
            worker
        })
    }

    fn new(shared: &Arc<BrokerShared>) -> Self {
        let settings = &shared.settings;
        Self {
            counters: shared.metrics.add_worker(),
            inbox: shared.add_inbox(settings.hub.inbox_bytes.as_u64() as usize),
            by_run: RefCell::default(),
            by_attach: RefCell::default(),
            wheel: RefCell::new(Wheel::new(settings.heartbeat_ticks())),
            tick: Cell::new(0),
            pass: Cell::new(0),
            shared: Arc::clone(shared),
        }
    }

    /// Pumps for as long as the thread lives. Should it panic, which messages
    /// were lost is not known: the runs here attach anew.
    async fn keep_pumping(self: Rc<Self>) {
        loop {
            let pump = AssertUnwindSafe(Rc::clone(&self).pump());
            if pump.catch_unwind().await.is_ok() {
                return;
            }
            error!("the pump of a worker panicked and goes on, its runs attach anew");
            self.shared.metrics.actor_restarts.inc();
            let runs: Vec<_> = self.by_run.borrow().values().cloned().collect();
            for run in runs {
                let lose = AssertUnwindSafe(|| run.apply(RunMessage::Lost));
                if catch_unwind(lose).is_err() {
                    // No way to serve it here; the next client begins anew.
                    self.forget(&run);
                }
            }
            // That tokens were revoked may be among what was lost.
            self.each_run(WorkerRun::end_revoked);
        }
    }

    /// Applies what hubs and the heartbeat say, for as long as the thread
    /// lives. Flushes come after all that waited was applied, so that segments
    /// that came together leave together.
    async fn pump(self: Rc<Self>) {
        let mut touched: Vec<Rc<WorkerRun>> = Vec::new();
        loop {
            let mut messages = poll_fn(|cx| self.inbox.poll_drain(cx)).await;
            let mut drains = None;
            self.pass.set(self.pass.get() + 1);
            for message in messages.drain(..) {
                match message {
                    WorkerMessage::Run(attach_id, message) => {
                        let run = self.by_attach.borrow().get(&attach_id).cloned();
                        // None: detached meanwhile.
                        if let Some(run) = run
                            && run.apply(message)
                            && run.first_touch(self.pass.get())
                        {
                            touched.push(run);
                        }
                    }
                    WorkerMessage::Tick => self.beat(),
                    WorkerMessage::Drain(over) => drains = Some(over),
                    WorkerMessage::Revoked => self.each_run(WorkerRun::end_revoked),
                }
            }
            self.inbox.reuse(messages);
            for run in touched.drain(..) {
                run.pace();
            }
            if let Some(over) = drains {
                actix_rt::spawn(Rc::clone(&self).drain(over));
            }
            // Bodies and handlers of this worker have their turn before the
            // next batch, however fast batches come.
            tokio::task::yield_now().await;
        }
    }

    /// Has every client say `goodbye`, evenly over `over`. Nobody comes meanwhile:
    /// the broker refuses them.
    async fn drain(self: Rc<Self>, over: Duration) {
        let steps = over.as_millis().div_ceil(DRAIN_STEP.as_millis()) as usize;
        let mut streams_before = None;
        for steps_left in (0..=steps).rev() {
            // Who takes what there is has it before the goodbye.
            self.each_run(WorkerRun::flush);
            tokio::task::yield_now().await;
            let runs: Vec<_> = self.by_run.borrow().values().cloned().collect();
            let streams: usize = runs.iter().map(|run| run.open_streams()).sum();
            let before = *streams_before.get_or_insert(streams);
            // Some may have gone by themselves.
            let mut some = streams.saturating_sub(before * steps_left / steps.max(1));
            for run in runs {
                some -= run.say_goodbye_to(some, CloseReason::Drain);
            }
            if steps_left > 0 {
                actix_rt::time::sleep(DRAIN_STEP).await;
            }
        }
    }

    /// Returns this worker's part of a run, attaching it to the run's hub if
    /// it is the first client here.
    ///
    /// # Errors
    /// When there is no room for another hub.
    pub(crate) fn run(
        self: &Rc<Self>,
        backend: BackendKind,
        run_id: &RunId,
    ) -> Result<Rc<WorkerRun>, Problem> {
        let key = (backend, run_id.clone());
        if let Some(run) = self.by_run.borrow().get(&key) {
            return Ok(Rc::clone(run));
        }
        let run = WorkerRun::attach(self, backend, run_id)?;
        self.by_attach
            .borrow_mut()
            .insert(run.attach_id(), Rc::clone(&run));
        self.by_run.borrow_mut().insert(key, Rc::clone(&run));
        Ok(run)
    }

    /// Forgets a run that takes no more clients here.
    fn forget(&self, run: &WorkerRun) {
        self.by_attach.borrow_mut().remove(&run.attach_id());
        let mut by_run = self.by_run.borrow_mut();
        let key = (run.backend(), run.run_id().clone());
        // A later one may stand there by now.
        if by_run
            .get(&key)
            .is_some_and(|known| known.attach_id() == run.attach_id())
        {
            by_run.remove(&key);
        }
    }

    /// Files a run under the id of its new attachment.
    fn reattached(&self, old: AttachId, run: &Rc<WorkerRun>) {
        let mut by_attach = self.by_attach.borrow_mut();
        by_attach.remove(&old);
        by_attach.insert(run.attach_id(), Rc::clone(run));
    }

    fn pass(&self) -> u64 {
        self.pass.get()
    }

    pub(crate) fn tick(&self) -> u64 {
        self.tick.get()
    }

    pub(crate) fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    /// Has `seat` beat once an interval from now on.
    fn schedule_beats(&self, seat: &Rc<Seat>, run: &Rc<WorkerRun>) -> WheelKey {
        self.wheel
            .borrow_mut()
            .add(self.tick.get(), (Rc::clone(seat), Rc::clone(run)))
    }

    fn stop_beats(&self, key: WheelKey) {
        self.wheel.borrow_mut().remove(key);
    }

    /// Has the clients of the next tick beat. The many that came within one
    /// tick do so in parts, spread over it: events wait for one part at most,
    /// not for thousands of writes.
    fn beat(self: &Rc<Self>) {
        let tick = self.tick.get() + 1;
        self.tick.set(tick);
        let parts = self.wheel.borrow().parts(tick, BEATS_AT_ONCE, PARTS_MAX);
        let pause = self.shared.settings.tick() / parts.len() as u32;
        let mut parts = parts.peekable();
        if let Some(first) = parts.next() {
            self.beat_part(tick, first);
        }
        if parts.peek().is_some() {
            let worker = Rc::clone(self);
            actix_rt::spawn(async move {
                for part in parts {
                    actix_rt::time::sleep(pause).await;
                    worker.beat_part(tick, part);
                }
            });
        }
    }

    fn beat_part(&self, tick: u64, part: Range<usize>) {
        let now = Timestamp::now();
        self.wheel.borrow().turn(tick, part, |(seat, run)| {
            seat.beat(&run.heartbeat(now));
            self.counters.heartbeats.add_local(1);
        });
    }

    fn each_run(&self, call: impl Fn(&WorkerRun)) {
        for run in self.by_run.borrow().values() {
            call(run);
        }
    }
}
