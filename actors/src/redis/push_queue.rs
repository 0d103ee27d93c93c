//! [`PushQueue`]: what Redis pushed and is not routed yet, bounded by us.
//!
//! Filled by the connection's task, which never waits; past the bound messages
//! are dropped, and the reader is told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use futures_util::task::AtomicWaker;

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
    /// A shard's node has subscribed us to a channel.
    Subscribed(Bytes),
    /// It has ended that, on its own or as we asked.
    Unsubscribed(Bytes),
    /// It refuses something, and says why.
    Refused(Bytes),
    /// It answers a probe.
    Pong,
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

impl Inner {
    fn push(&mut self, push: Push, messages_max: usize, bytes_max: usize) {
        if self.closed {
            return;
        }
        if let Push::Message { channel, payload } = &push {
            let bytes = channel.len() + payload.len();
            let is_full = self.pushes.len() >= messages_max
                || (self.bytes > 0 && self.bytes + bytes > bytes_max);
            if is_full {
                // Told at the very place where they are missing.
                return match self.pushes.back_mut() {
                    Some(Push::Overflow(count)) => *count += 1,
                    _ => self.pushes.push_back(Push::Overflow(1)),
                };
            }
            self.bytes += bytes;
        }
        self.pushes.push_back(push);
    }
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

    /// Takes what the connection has read; never waits.
    pub(super) fn extend(&self, pushes: impl Iterator<Item = Push>) {
        let mut inner = self.lock();
        let was_empty = inner.pushes.is_empty();
        for push in pushes {
            inner.push(push, self.messages_max, self.bytes_max);
        }
        let wakes = was_empty && !inner.pushes.is_empty();
        drop(inner);
        if wakes {
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
                _ => 0,
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

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, StreamExt as _};

    use super::*;

    fn push(queue: &PushQueue, payload: &str) {
        let message = Push::Message {
            channel: Bytes::from_static(b"run:1:status"),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
        };
        queue.extend(std::iter::once(message));
    }

    /// What the next turn brings: payloads, and `!n` where n were dropped.
    fn turn(turns: &mut (impl Stream<Item = Turn> + Unpin)) -> Option<Vec<String>> {
        let turn = turns.next().now_or_never()??;
        let shown = turn.pushes.into_iter().map(|push| match push {
            Push::Message { payload, .. } => String::from_utf8_lossy(&payload).into_owned(),
            Push::Disconnected => "disconnected".to_owned(),
            Push::Overflow(count) => format!("!{count}"),
            other => format!("{other:?}"),
        });
        Some(shown.collect())
    }

    #[test]
    fn past_its_bound_messages_are_dropped_and_counted() {
        let queue = PushQueue::new(2, 1000);
        let mut turns = Box::pin(Arc::clone(&queue).turns());
        for payload in ["a", "b", "c", "d"] {
            push(&queue, payload);
        }
        assert_eq!(
            turn(&mut turns),
            Some(vec!["a".into(), "b".into(), "!2".into()])
        );
        push(&queue, "e");
        assert_eq!(turn(&mut turns), Some(vec!["e".into()]));
        assert_eq!(turn(&mut turns), None, "nothing waits");
    }

    #[test]
    fn bytes_are_bounded_but_one_message_always_fits() {
        let queue = PushQueue::new(100, 50);
        let mut turns = Box::pin(Arc::clone(&queue).turns());
        let large = "x".repeat(500);
        push(&queue, &large);
        push(&queue, "b");
        assert_eq!(turn(&mut turns), Some(vec![large, "!1".into()]));
    }

    #[test]
    fn the_end_of_a_connection_is_told_whatever_waits_and_a_closed_queue_ends() {
        let queue = PushQueue::new(1, 50);
        let mut turns = Box::pin(Arc::clone(&queue).turns());
        push(&queue, "a");
        queue.extend(std::iter::once(Push::Disconnected));
        assert_eq!(
            turn(&mut turns),
            Some(vec!["a".into(), "disconnected".into()])
        );
        queue.close();
        push(&queue, "late");
        assert!(turns.next().now_or_never().expect("ready").is_none());
    }
}
