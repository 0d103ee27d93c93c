//! [`RunHub`]: the one owner of a run's order, history and fan-out.

mod arrivals;
mod checker;
mod ending;
mod failover;
mod kubectl_source;
mod messages;
mod quarantine;
mod registry;
mod stats;
mod sync;
mod traces;
mod writer;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tracing::{debug, warn};

pub use checker::{CheckNow, PositionChecker};
#[cfg(test)]
pub(crate) use messages::Panic;
pub use messages::{
    Arrived, Attach, Describe, Detach, Disconnected, HasSeenEnd, Incoming, Overflowed,
    RecordingBroke, Retire, ShardSubscribed, StorePosition,
};
pub(crate) use quarantine::Quarantine;
pub use registry::{HubEntry, Registry};
pub use stats::{HubStats, Refused};

use crate::broker::{BrokerShared, RunDetail, RunSummary};
use crate::order::{OrderInput, OrderOutput, RunOrder};
use crate::protocol::{BackendKind, Gap, GapReason, Problem, RunId};
use crate::run_log::RunLog;
use crate::settings::LiveReader;
use crate::sse::FrameClass;
use crate::worker::{AttachId, Inbox, RunMessage, WorkerMessage};
use ending::EndState;
use failover::Failover;
use kubectl_source::KubectlSource;
use sync::Held;
use traces::Traces;
use writer::LogWriter;

/// How long a hub waits before it tries a full inbox again.
const CATCH_UP_DELAY: Duration = Duration::from_millis(20);

/// The hub of one run on one backend.
///
/// Owns the run's order, its ids, its log and the list of workers attached.
/// Takes [`Arrived`] from the subscriber or from the embedded store,
/// `KubectlUpdate` from a `KubectlLogActor`, [`Attach`]/[`Detach`] from
/// workers, [`StorePosition`] from the checker. Reads the store when live
/// events do not follow on. Writes to worker inboxes. Its mailbox holds
/// `hub.mailbox` messages of the event path; what a refused batch held is read
/// from the store, or told by `gap` reason `overflow`. Ends `hub.idle_ttl` after
/// its last client and event, or earlier to make room.
pub struct RunHub {
    shared: Arc<BrokerShared>,
    live: LiveReader,
    run_id: RunId,
    backend: BackendKind,
    stats: Arc<HubStats>,
    log: RunLog,
    /// Bytes of the log as last added to the broker's total.
    counted_bytes: u64,
    writer: LogWriter,
    order: RunOrder,
    /// Epoch of the newest branch.
    order_epoch: Option<u64>,
    /// Empty between two steps; kept for its room.
    outputs: Vec<OrderOutput>,
    held: Held,
    /// The subscription was lost and is back: Redis may have gone back to an
    /// older state, and the next event follow on another than ours.
    is_unproven: bool,
    has_told_bad_frame: bool,
    traces: Traces,
    attachments: HashMap<AttachId, Attachment>,
    catching_up: bool,
    end: EndState,
    kubectl: Option<KubectlSource>,
    /// The hub of the same run that serves `auto`, which is passed on all that
    /// arrives.
    mirror: Option<HubEntry>,
    /// Of a hub that serves `auto`.
    failover: Option<Box<Failover>>,
    /// It cannot serve: what those who attach are told.
    refusal: Option<Problem>,
    retired: bool,
    /// It has asked that its run be subscribed to in its shard.
    is_sharded: bool,
}

/// A worker that serves the run.
struct Attachment {
    inbox: Arc<Inbox>,
    /// The first segment it was not sent.
    next_no: u64,
    /// It was not sent the log yet.
    waits: bool,
}

impl Attachment {
    fn tell(&self, attach_id: AttachId, message: RunMessage) {
        self.inbox.push(WorkerMessage::Run(attach_id, message));
    }
}

impl RunHub {
    pub(crate) fn new(
        shared: Arc<BrokerShared>,
        run_id: RunId,
        backend: BackendKind,
        stats: Arc<HubStats>,
    ) -> Self {
        shared.metrics.hubs.of(backend).add(1);
        Self {
            log: shared.settings.new_log(backend),
            counted_bytes: 0,
            writer: LogWriter::new(
                run_id.clone(),
                backend,
                shared.settings.runs.terminal_statuses.clone(),
            ),
            order: RunOrder::with_safeguards(shared.settings.safeguards),
            order_epoch: None,
            outputs: Vec::new(),
            held: Held::default(),
            is_unproven: false,
            has_told_bad_frame: false,
            traces: Traces::default(),
            attachments: HashMap::new(),
            catching_up: false,
            end: EndState::Open,
            kubectl: None,
            mirror: None,
            failover: Failover::of(backend, &shared.settings),
            refusal: None,
            retired: false,
            live: shared.settings.live.reader(),
            is_sharded: false,
            shared,
            run_id,
            backend,
            stats,
        }
    }

    /// Writes a gap that all clients of the run are told.
    fn gap(&mut self, gap: Gap, class: FrameClass) {
        if matches!(self.end, EndState::Ended { .. }) {
            // Nothing may follow `end`.
            return;
        }
        self.note_gap(gap.reason, gap.missed);
        self.writer.gap(gap, class);
    }

    fn note_gap(&self, reason: GapReason, missed: Option<u64>) {
        self.shared.metrics.gaps.of(reason).inc();
        warn!(
            run_id = %self.run_id,
            backend = %self.backend,
            reason = reason.as_str(),
            dropped = missed,
            "events are missing"
        );
    }

    /// Appends what was written to the log and sends it to the workers.
    fn publish(&mut self, ctx: &mut Context<Self>) {
        let segments = self.writer.take();
        if segments.is_empty() {
            return;
        }
        for segment in &segments {
            self.log.push(segment.clone());
        }
        self.keep_total_bounded();
        let end_no = self.log.end_no();
        self.stats.set_log_end_no(end_no);
        let (spans, traced) = self.delivered();
        let mut behind = false;
        for (attach_id, attachment) in &mut self.attachments {
            if attachment.waits {
                continue;
            }
            let follows_on = attachment.next_no + segments.len() as u64 == end_no;
            let push = || {
                let inbox = &attachment.inbox;
                inbox.push_segments(*attach_id, segments.clone(), traced.clone())
            };
            if follows_on && push() {
                attachment.next_no = end_no;
            } else {
                self.shared.metrics.inbox_refusals.inc();
                behind = true;
            }
        }
        drop(spans);
        if behind {
            self.catch_up_later(ctx);
        }
    }

    /// Sends a worker whose inbox was full what it lacks, as far as the log
    /// still has it; the worker sees the hole if it does not.
    fn catch_up_later(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.catching_up, true) {
            return;
        }
        ctx.run_later(CATCH_UP_DELAY, |hub, ctx| {
            hub.catching_up = false;
            let end_no = hub.log.end_no();
            let mut behind = false;
            for (attach_id, attachment) in &mut hub.attachments {
                if attachment.waits || attachment.next_no == end_no {
                    continue;
                }
                let missing = hub.log.segments().rev();
                let mut missing: Vec<_> = missing
                    .take_while(|segment| segment.no() >= attachment.next_no)
                    .cloned()
                    .collect();
                missing.reverse();
                if attachment
                    .inbox
                    .push_segments(*attach_id, missing, Vec::new())
                {
                    attachment.next_no = end_no;
                } else {
                    behind = true;
                }
            }
            if behind {
                hub.catch_up_later(ctx);
            }
        });
    }

    /// Holds the bytes of all logs under their total: idle hubs go first, then
    /// this one's oldest segments.
    fn keep_total_bounded(&mut self) {
        let shared = Arc::clone(&self.shared);
        let limit = shared.settings.hub.total_ring_bytes.as_u64();
        let total = &shared.metrics.ring_bytes;
        self.count_bytes();
        let over = || {
            let going = shared.registry.evicting_bytes();
            total.get().saturating_sub(going).saturating_sub(limit)
        };
        if over() > 0 {
            shared.registry.evict_idle(over());
        }
        while over() > 0 && self.log.pop_front() {
            self.count_bytes();
        }
    }

    fn count_bytes(&mut self) {
        let bytes = self.log.bytes() as u64;
        let total = &self.shared.metrics.ring_bytes;
        total.add(bytes);
        total.sub(std::mem::replace(&mut self.counted_bytes, bytes));
        self.stats.set_ring_bytes(bytes);
    }

    fn tell_all(&self, message: impl Fn() -> RunMessage) {
        for (attach_id, attachment) in &self.attachments {
            attachment.tell(*attach_id, message());
        }
    }

    fn is_idle(&self) -> bool {
        self.attachments.is_empty() && self.stats.is_unwatched()
    }

    fn send_log(&mut self, attach_id: AttachId) {
        let from = Box::new(self.log.start_state());
        let Some(attachment) = self.attachments.get_mut(&attach_id) else {
            return;
        };
        attachment.next_no = self.log.end_no();
        attachment.waits = false;
        attachment.tell(
            attach_id,
            RunMessage::Attached {
                hub: self.writer.hub,
                segments: self.log.segments().cloned().collect(),
                from,
            },
        );
    }
}

impl Actor for RunHub {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(self.shared.settings.hub.mailbox);
        debug!(run_id = %self.run_id, backend = %self.backend, "hub started");
        if self.backend == BackendKind::Auto {
            self.ask_for_mirror(ctx);
        }
    }
}

impl Drop for RunHub {
    /// Runs on every end, a panic's unwinding included.
    fn drop(&mut self) {
        self.log.clear();
        self.count_bytes();
        self.shared.metrics.hubs.of(self.backend).sub(1);
        if std::thread::panicking() {
            self.shared.hub_panicked(self.backend, &self.run_id);
        }
        self.end_mirror();
        if !self.retired {
            self.shared
                .registry
                .remove(self.backend, &self.run_id, &self.stats);
            self.tell_all(|| RunMessage::Lost);
        }
        if self.is_sharded {
            self.shared.look_in_shard(&self.run_id);
        }
    }
}

impl Handler<Attach> for RunHub {
    type Result = ();

    fn handle(&mut self, mut attach: Attach, ctx: &mut Self::Context) {
        let Some(inbox) = attach.inbox.take() else {
            return;
        };
        if let Some(problem) = &self.refusal {
            let refused = RunMessage::Failed(problem.clone());
            return inbox.push(WorkerMessage::Run(attach.attach_id, refused));
        }
        let attachment = Attachment {
            inbox,
            next_no: self.log.end_no(),
            waits: true,
        };
        self.attachments.insert(attach.attach_id, attachment);
        match self.backend {
            BackendKind::Kubectl => return self.kubectl_attached(attach.attach_id, ctx),
            BackendKind::Auto => return self.auto_attached(ctx),
            BackendKind::Redis | BackendKind::Embedded => {}
        }
        self.watch_shard();
        self.watched(ctx);
    }
}

impl RunHub {
    /// Asks that the run be subscribed to in its shard, until the hub's end: who
    /// comes back soon finds all of it. When it is subscribed the store is read
    /// once more. Said again by each first worker, since whoever was told may
    /// have been replaced.
    fn watch_shard(&mut self) {
        if self.attachments.len() <= 1 {
            self.is_sharded = true;
            self.shared.watch_in_shard(&self.run_id);
        }
    }

    fn watched(&mut self, ctx: &mut Context<Self>) {
        // Answered at once, or when it is known where the stream stands.
        self.step(OrderInput::Watched, ctx);
        if matches!(self.end, EndState::Ending { timer: None, .. }) {
            self.step(OrderInput::Doubt, ctx);
        }
    }
}

#[cfg(test)]
impl Handler<Panic> for RunHub {
    type Result = ();

    fn handle(&mut self, _: Panic, _: &mut Self::Context) {
        panic!("as asked");
    }
}

impl Handler<Detach> for RunHub {
    type Result = ();

    fn handle(&mut self, detach: Detach, ctx: &mut Self::Context) {
        if self.attachments.remove(&detach.attach_id).is_some() {
            self.stats.remove_attachment();
        }
        if self.attachments.is_empty() {
            self.auto_unwatched();
            if self.mirror.is_none() {
                self.step(OrderInput::Unwatched, ctx);
            }
        }
    }
}

impl Handler<Retire> for RunHub {
    type Result = ();

    fn handle(&mut self, retire: Retire, ctx: &mut Self::Context) {
        self.stats.stop_retiring();
        // Senders touch the stats and send under the registry's lock, and the
        // entry goes under it: nothing can be on its way to a hub that ends.
        let idle_ttl = self.shared.settings.idle_ttl(self.backend);
        let evict = retire.evicted_bytes.is_some();
        if (evict || self.is_idle()) && self.backend != BackendKind::Auto {
            // Before it is out of the registry: a list of runs has it in either.
            let metrics = &self.shared.metrics;
            self.shared
                .past_runs
                .note(&self.describe(), &metrics.past_runs);
        }
        let gone = evict
            || self.is_idle()
                && self.shared.registry.remove_idle(
                    self.backend,
                    &self.run_id,
                    &self.stats,
                    idle_ttl,
                );
        if gone {
            self.retired = true;
            let metrics = &self.shared.metrics;
            match evict {
                true => metrics.hubs_evicted.inc(),
                false => metrics.hubs_retired.inc(),
            }
            debug!(run_id = %self.run_id, backend = %self.backend, reason = if evict { "evicted" } else { "idle" }, "hub ended");
            self.shared
                .registry
                .evicted(retire.evicted_bytes.unwrap_or(0));
            ctx.stop();
        }
    }
}

impl Handler<Describe> for RunHub {
    type Result = MessageResult<Describe>;

    fn handle(&mut self, _: Describe, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.describe())
    }
}

impl Handler<HasSeenEnd> for RunHub {
    type Result = bool;

    fn handle(&mut self, HasSeenEnd(cursor): HasSeenEnd, _: &mut Self::Context) -> bool {
        matches!(&self.end, EndState::Ended { id, .. } if *id == cursor.to_string())
    }
}

impl RunHub {
    fn describe(&self) -> RunDetail {
        let ended = matches!(
            self.end,
            EndState::Ended { .. } | EndState::Ending { timer: None, .. }
        );
        RunDetail {
            summary: RunSummary {
                run_id: self.run_id.clone(),
                backend: self.backend,
                status: self.writer.status.clone(),
                ended,
                clients: self.stats.clients() + self.mirror_clients(),
                last_event_ts: self.writer.last_ts,
                last_id: self.writer.last_id_text(),
            },
            first_id: self.log.id_after(self.log.front()).map(str::to_owned),
            epoch: self.writer.last_durable.map(|id| id.epoch),
            last_durable: self.writer.last_durable,
            events: self.writer.counts,
            plain_events: self.writer.plain_counts,
            gaps: self.writer.gaps.clone(),
            quiet_because: self.quiet_because(),
        }
    }

    /// Says in plain words why nothing comes, or that something does.
    fn quiet_because(&self) -> String {
        if let EndState::Ended { status, .. } = &self.end {
            return format!("the run ended: {status}");
        }
        let redis_down = match self.backend {
            BackendKind::Redis | BackendKind::Auto => self.shared.redis_down_since(),
            BackendKind::Kubectl | BackendKind::Embedded => None,
        };
        if let Some(since) = redis_down {
            return format!("Redis is down since {since}");
        }
        if let Some(problem) = self.kubectl.as_ref().and_then(KubectlSource::problem) {
            return problem.detail.clone();
        }
        match self.writer.last_ts {
            None => "nothing was published since this broker knows the run".to_owned(),
            Some(last) => {
                let now = crate::protocol::Timestamp::now();
                let seconds = (now.as_millis() - last.as_millis()).max(0) / 1000;
                match seconds {
                    0..10 => format!("it is not: the last event came {seconds} s ago"),
                    _ => format!("nothing was published for {seconds} s"),
                }
            }
        }
    }
}

/// Tells `hub` that a worker's last client left.
pub(crate) fn detach(hub: &Addr<RunHub>, attach_id: AttachId) {
    #[expect(
        clippy::disallowed_methods,
        reason = "one per attachment, and it must not be refused"
    )]
    hub.do_send(Detach { attach_id });
}
