//! [`Inbox`]: how hubs reach a worker. One wake per worker and batch.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::task::AtomicWaker;

use crate::protocol::{Problem, TraceContext};
use crate::run_log::{HubIdentity, LogStart};
use crate::sse::Segment;

/// Most messages that a drained queue keeps room for.
const ROOM_KEPT: usize = 1024;

/// Names one attachment of a worker to a hub. A message of an attachment that
/// is gone is dropped by its receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AttachId(u64);

impl AttachId {
    /// Returns an id not given before in this process.
    pub fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// What a worker is told.
#[derive(Debug)]
pub enum WorkerMessage {
    /// Something about one run.
    Run(AttachId, RunMessage),
    /// One step of the heartbeat wheel.
    Tick,
    /// The process is going: every session gets `goodbye`, one after the other
    /// over this time.
    Drain(Duration),
    /// Tokens were revoked: the sessions of those get `goodbye`.
    Revoked,
}

/// What a worker is told about a run it serves, in order.
#[derive(Debug)]
pub enum RunMessage {
    /// The hub's log, whole. Live segments follow.
    Attached {
        /// Whose ids these are.
        hub: HubIdentity,
        /// The log.
        segments: Vec<Segment>,
        /// Where the log begins.
        from: Box<LogStart>,
    },
    /// New segments, and what of them is traced.
    Segments(Vec<Segment>, Vec<TracedSegment>),
    /// A frame for all who watch now and, after `hello`, for those who come
    /// later, in one message, so that nobody who comes at this moment misses
    /// it; `None` takes it back.
    StandingNotice(Option<Bytes>),
    /// The run cannot be served: `problem` and `goodbye` to all.
    Failed(Problem),
    /// The hub is gone without a word (it panicked): attach to a new one.
    Lost,
    /// Panic, as a test asks.
    #[cfg(test)]
    Panic,
}

/// A segment with an event that is traced.
#[derive(Debug, Clone)]
pub struct TracedSegment {
    /// Its number.
    pub segment_no: u64,
    /// When its event was read.
    pub received_at: Instant,
    /// When it was put into the inboxes.
    pub queued_at: Instant,
    /// The hub's delivery.
    pub trace: TraceContext,
}

/// A bounded queue from many hubs to one worker.
///
/// Live segments are bounded by bytes: past the bound [`Inbox::push_segments`]
/// refuses, and the hub catches the worker up later from its own log. Control
/// messages are few (a handful per attachment) and always taken.
#[derive(Debug)]
pub struct Inbox {
    queue: Mutex<Queue>,
    waker: AtomicWaker,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<WorkerMessage>,
    /// Empty: takes the place of `messages` when they are taken.
    spare: VecDeque<WorkerMessage>,
    bytes: usize,
    ticking: bool,
}

impl Inbox {
    /// Makes an inbox that holds at most `bytes_max` bytes of live segments,
    /// or one batch.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            queue: Mutex::default(),
            waker: AtomicWaker::new(),
            bytes_max,
        }
    }

    // No user code runs under the lock, so a poisoned one is still whole.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a message that must not be refused.
    pub fn push(&self, message: WorkerMessage) {
        let mut queue = self.lock();
        let was_empty = queue.messages.is_empty();
        queue.messages.push_back(message);
        drop(queue);
        if was_empty {
            self.waker.wake();
        }
    }

    /// Queues a heartbeat step, unless one still waits.
    pub fn push_tick(&self) {
        let mut queue = self.lock();
        if std::mem::replace(&mut queue.ticking, true) {
            return;
        }
        drop(queue);
        self.push(WorkerMessage::Tick);
    }

    /// Queues live segments, with what of them is traced; `false` when the inbox
    /// is full.
    pub fn push_segments(
        &self,
        attach_id: AttachId,
        segments: Vec<Segment>,
        traced: Vec<TracedSegment>,
    ) -> bool {
        let bytes: usize = segments.iter().map(Segment::weight).sum();
        let mut queue = self.lock();
        if queue.bytes > 0 && queue.bytes + bytes > self.bytes_max {
            return false;
        }
        queue.bytes += bytes;
        let was_empty = queue.messages.is_empty();
        queue.messages.push_back(WorkerMessage::Run(
            attach_id,
            RunMessage::Segments(segments, traced),
        ));
        drop(queue);
        if was_empty {
            self.waker.wake();
        }
        true
    }

    /// Bytes of live segments that wait.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Takes all that waits; ready when there is anything.
    pub fn poll_drain(&self, cx: &mut Context<'_>) -> Poll<VecDeque<WorkerMessage>> {
        if let Some(messages) = self.take() {
            return Poll::Ready(messages);
        }
        self.waker.register(cx.waker());
        // Once more: a push may have come before the waker was known.
        self.take().map_or(Poll::Pending, Poll::Ready)
    }

    /// Takes back what was drained, for its room.
    pub fn reuse(&self, mut drained: VecDeque<WorkerMessage>) {
        drained.clear();
        if drained.capacity() <= ROOM_KEPT {
            self.lock().spare = drained;
        }
    }

    fn take(&self) -> Option<VecDeque<WorkerMessage>> {
        let mut queue = self.lock();
        if queue.messages.is_empty() {
            return None;
        }
        queue.bytes = 0;
        queue.ticking = false;
        let spare = std::mem::take(&mut queue.spare);
        Some(std::mem::replace(&mut queue.messages, spare))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::FutureExt as _;

    use super::*;
    use crate::sse::{FrameClass, SegmentBuilder};

    fn segments(bytes: usize) -> Vec<Segment> {
        let mut builder = SegmentBuilder::default();
        let now = std::time::Instant::now();
        builder.push_control(&"x".repeat(bytes), FrameClass::CONTROL, "", now);
        builder.take(now)
    }

    fn drain(inbox: &Inbox) -> Option<usize> {
        let messages = poll_fn(|cx| inbox.poll_drain(cx)).now_or_never();
        messages.map(|messages| messages.len())
    }

    #[test]
    fn a_full_inbox_refuses_segments_but_no_control_message() {
        let inbox = Inbox::new(10_000);
        let attach_id = AttachId::next();
        assert!(
            inbox.push_segments(attach_id, segments(50_000), Vec::new()),
            "one batch always fits"
        );
        assert!(!inbox.push_segments(attach_id, segments(1), Vec::new()));
        inbox.push(WorkerMessage::Drain(Duration::ZERO));
        assert_eq!(drain(&inbox), Some(2));
        assert_eq!(inbox.bytes(), 0);
        assert!(inbox.push_segments(attach_id, segments(1), Vec::new()));
        assert_eq!(drain(&inbox), Some(1));
        assert_eq!(drain(&inbox), None);
    }

    #[test]
    fn a_worker_that_is_behind_gets_one_tick_only() {
        let inbox = Inbox::new(1);
        for _ in 0..5 {
            inbox.push_tick();
        }
        assert_eq!(drain(&inbox), Some(1));
        inbox.push_tick();
        assert_eq!(drain(&inbox), Some(1));
    }
}
