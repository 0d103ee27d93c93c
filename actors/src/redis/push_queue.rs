//! [`PushQueue`]: what Redis pushed and is not routed yet, bounded by us.
//!
//! redis-rs hands pushes over without a bound of its own, so the bound is
//! here: past it messages are dropped, and the reader is told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use futures_util::task::AtomicWaker;
use redis::{PushInfo, PushKind, Value};

/// Most messages taken in one turn, so that the hubs have theirs.
const TURN_MESSAGES_MAX: usize = 512;

/// What the connection handed over.
#[derive(Debug)]
pub(super) enum Push {
    /// A message on a channel that matches our pattern.
    Message {
        /// The channel it was published on.
        channel: Bytes,
        /// What was published.
        payload: Bytes,
    },
    /// The connection ended.
    Disconnected,
    /// Messages were dropped here: this many.
    Overflow(u64),
}

/// A queue from a connection's task to the subscriber.
#[derive(Debug)]
pub(super) struct PushQueue {
    inner: Mutex<Inner>,
    waker: AtomicWaker,
    messages_max: usize,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Inner {
    pushes: VecDeque<Push>,
    bytes: usize,
    closed: bool,
}

impl PushQueue {
    pub(super) fn new(messages_max: usize, bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::default(),
            waker: AtomicWaker::new(),
            messages_max,
            bytes_max,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a push from the connection; never waits.
    pub(super) fn push(&self, info: PushInfo) {
        let push = match info.kind {
            PushKind::PMessage => match message(info.data) {
                Some(push) => push,
                None => return,
            },
            PushKind::Disconnection => Push::Disconnected,
            // Confirmations arrive as the answer to the command, too.
            _ => return,
        };
        let mut inner = self.lock();
        if inner.closed {
            return;
        }
        if let Push::Message { channel, payload } = &push {
            let bytes = channel.len() + payload.len();
            let is_full = inner.pushes.len() >= self.messages_max
                || (inner.bytes > 0 && inner.bytes + bytes > self.bytes_max);
            if is_full {
                // Told at the very place where they are missing.
                return match inner.pushes.back_mut() {
                    Some(Push::Overflow(count)) => *count += 1,
                    _ => inner.pushes.push_back(Push::Overflow(1)),
                };
            }
            inner.bytes += bytes;
        }
        let was_empty = inner.pushes.is_empty();
        inner.pushes.push_back(push);
        drop(inner);
        if was_empty {
            self.waker.wake();
        }
    }

    /// Ends the stream of turns; what waits is dropped.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.pushes.clear();
        drop(inner);
        self.waker.wake();
    }

    pub(super) fn take_turn(&self) -> Option<Turn> {
        let mut inner = self.lock();
        if inner.pushes.is_empty() {
            return None;
        }
        let count = inner.pushes.len().min(TURN_MESSAGES_MAX);
        let pushes: Vec<Push> = inner.pushes.drain(..count).collect();
        let taken: usize = pushes
            .iter()
            .map(|push| match push {
                Push::Message { channel, payload } => channel.len() + payload.len(),
                Push::Disconnected | Push::Overflow(_) => 0,
            })
            .sum();
        inner.bytes -= taken;
        Some(Turn {
            pushes,
            left: (inner.pushes.len() as u64, inner.bytes as u64),
        })
    }

    /// Returns what is pushed, in turns. One reader.
    pub(super) fn turns(self: Arc<Self>) -> impl Stream<Item = Turn> {
        futures_util::stream::poll_fn(move |cx: &mut Context<'_>| {
            if let Some(turn) = self.take_turn() {
                return Poll::Ready(Some(turn));
            }
            self.waker.register(cx.waker());
            // Once more: a push may have come before the waker was known.
            match self.take_turn() {
                Some(turn) => Poll::Ready(Some(turn)),
                None if self.lock().closed => Poll::Ready(None),
                None => Poll::Pending,
            }
        })
    }
}

/// What is routed at once.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) pushes: Vec<Push>,
    /// Messages and bytes that still wait.
    pub(super) left: (u64, u64),
}

/// Reads `[pattern, channel, payload]`.
fn message(mut data: Vec<Value>) -> Option<Push> {
    let payload = bytes(data.pop()?)?;
    let channel = bytes(data.pop()?)?;
    Some(Push::Message { channel, payload })
}

fn bytes(value: Value) -> Option<Bytes> {
    match value {
        Value::BulkString(bytes) => Some(Bytes::from(bytes)),
        Value::SimpleString(text) => Some(Bytes::from(text)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, StreamExt as _};

    use super::*;

    fn message(payload: &str) -> PushInfo {
        let bulk = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        PushInfo {
            kind: PushKind::PMessage,
            data: vec![bulk("run:*"), bulk("run:1:status"), bulk(payload)],
        }
    }

    /// What the next turn brings: payloads, and `!n` where n were dropped.
    fn turn(turns: &mut (impl Stream<Item = Turn> + Unpin)) -> Option<Vec<String>> {
        let turn = turns.next().now_or_never()??;
        let shown = turn.pushes.into_iter().map(|push| match push {
            Push::Message { payload, .. } => String::from_utf8_lossy(&payload).into_owned(),
            Push::Disconnected => "disconnected".to_owned(),
            Push::Overflow(count) => format!("!{count}"),
        });
        Some(shown.collect())
    }

    #[test]
    fn past_its_bound_messages_are_dropped_and_counted() {
        let queue = PushQueue::new(2, 1000);
        let mut turns = Box::pin(Arc::clone(&queue).turns());
        for payload in ["a", "b", "c", "d"] {
            queue.push(message(payload));
        }
        assert_eq!(
            turn(&mut turns),
            Some(vec!["a".into(), "b".into(), "!2".into()])
        );
        queue.push(message("e"));
        assert_eq!(turn(&mut turns), Some(vec!["e".into()]));
        assert_eq!(turn(&mut turns), None, "nothing waits");
    }

    #[test]
    fn bytes_are_bounded_but_one_message_always_fits() {
        let queue = PushQueue::new(100, 50);
        let mut turns = Box::pin(Arc::clone(&queue).turns());
        let large = "x".repeat(500);
        queue.push(message(&large));
        queue.push(message("b"));
        assert_eq!(turn(&mut turns), Some(vec![large, "!1".into()]));
    }

    #[test]
    fn the_end_of_a_connection_is_told_whatever_waits_and_a_closed_queue_ends() {
        let queue = PushQueue::new(1, 50);
        let mut turns = Box::pin(Arc::clone(&queue).turns());
        queue.push(message("a"));
        queue.push(PushInfo {
            kind: PushKind::Disconnection,
            data: Vec::new(),
        });
        assert_eq!(
            turn(&mut turns),
            Some(vec!["a".into(), "disconnected".into()])
        );
        queue.close();
        queue.push(message("late"));
        assert!(turns.next().now_or_never().expect("ready").is_none());
    }
}
