//! [`Sender`]: one producer of a run.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use jiff::Timestamp;
use runcast_actors::broker::{PublishError, PublishResult};
use runcast_actors::protocol::{RunId, SpanName, TraceContext};
use runcast_actors::store::{AppendBatch, Producer, RunStore};

use super::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX, Numbered};

/// First pause after a failed attempt; doubled up to the caller's bound.
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// Sends numbered events to one run in order, each as often as it takes to
/// know its fate. The number makes a repetition no second event.
pub(crate) struct Sender {
    store: Rc<dyn RunStore>,
    run_id: RunId,
    producer: Producer,
    /// Begin the run anew; until an event was accepted.
    restart: bool,
    /// What their deliveries belong to.
    trace: Option<TraceContext>,
    /// Sent, perhaps, and not settled. Its bound is that of one `push`.
    waiting: VecDeque<Numbered>,
    /// Failures since the last answer.
    failures: u32,
}

/// An event whose fate is known, in order.
#[derive(Debug)]
pub(crate) struct Settled {
    /// Its number.
    pub(crate) seq: u64,
    /// Accepted or refused. `Unavailable` here means lost for good: the store
    /// took a later event without it.
    pub(crate) result: PublishResult,
}

/// Why sending stopped before the last event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The store does not answer; trying again may help. Events may have been
    /// accepted all the same.
    Unavailable(String),
    /// The run takes no further event of this producer, now or later.
    Refused(PublishError),
}

impl Sender {
    /// Makes a producer of its own name; with `restart` its first event begins
    /// the run anew.
    pub(crate) fn new(store: Rc<dyn RunStore>, run_id: RunId, restart: bool) -> Self {
        let started = Timestamp::now().as_millisecond();
        Self {
            store,
            run_id,
            producer: Producer {
                id: format!("{:016x}", fastrand::u64(..)),
                epoch: u64::try_from(started).unwrap_or(1).max(1),
                first_seq: 1,
            },
            restart,
            trace: trace_of_environment(),
            waiting: VecDeque::new(),
            failures: 0,
        }
    }

    /// Adds events to send, their numbers above all before.
    pub(crate) fn push(&mut self, events: impl IntoIterator<Item = Numbered>) {
        self.waiting.extend(events);
    }

    /// How many events wait for their fate.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Sends the next events that wait, once. Returns those settled, and what
    /// kept the others from it.
    pub(crate) async fn send(&mut self) -> (Vec<Settled>, Option<Trouble>) {
        let count = self.next_batch();
        let batch = AppendBatch {
            events: self
                .waiting
                .range(..count)
                .map(|numbered| numbered.event.clone())
                .collect(),
            restart: self.restart,
            producer: Some(Producer {
                first_seq: self.waiting.front().map_or(1, |first| first.seq),
                ..self.producer.clone()
            }),
            trace: self.trace.clone(),
        };
        let results = match self.store.append(&self.run_id, batch).await {
            Ok(results) if results.len() == count => results,
            Ok(_) => return (Vec::new(), self.unavailable("an answer is missing")),
            Err(error) => return (Vec::new(), self.unavailable(error.to_string())),
        };
        if results.iter().any(Result::is_ok) {
            self.restart = false;
        }
        let known = settled_count(&results);
        let refusal = results.iter().find_map(|result| match result {
            Err(error @ (PublishError::Closed | PublishError::Fenced)) => Some(error.clone()),
            _ => None,
        });
        let trouble = match (refusal, results.get(known)) {
            (Some(refusal), _) => Some(Trouble::Refused(refusal)),
            (None, Some(Err(error))) => self.unavailable(error.to_string()),
            _ => {
                self.failures = 0;
                None
            }
        };
        let settled = self.waiting.drain(..known).zip(results);
        let settled = settled.map(|(Numbered { seq, .. }, result)| Settled { seq, result });
        (settled.collect(), trouble)
    }

    /// Waits before the next attempt: longer with each failure, at most
    /// `longest`, varied so that many producers do not come at once.
    pub(crate) async fn pause(&self, longest: Duration) {
        let doubled = PAUSE_MIN.saturating_mul(1 << self.failures.min(16));
        actix_rt::time::sleep(doubled.min(longest).mul_f64(0.5 + fastrand::f64() / 2.0)).await;
    }

    fn unavailable(&mut self, reason: impl Into<String>) -> Option<Trouble> {
        self.failures = self.failures.saturating_add(1);
        Some(Trouble::Unavailable(reason.into()))
    }

    /// Returns how many events go together: without a jump in their numbers,
    /// and after a failure only one, since each attempt at a store that hangs
    /// leaves its bytes in a connection.
    fn next_batch(&self) -> usize {
        let events_max = if self.failures > 0 {
            1
        } else {
            BATCH_EVENTS_MAX
        };
        let first = self.waiting.front().map_or(0, |first| first.seq);
        let mut bytes = 0;
        let fits = self.waiting.iter().zip(first..).take(events_max);
        fits.take_while(|(numbered, seq)| {
            let is_first = bytes == 0;
            bytes += numbered.event.payload.len() + 1;
            numbered.seq == *seq && (is_first || bytes <= BATCH_BYTES_MAX)
        })
        .count()
    }
}

/// Returns the trace that whoever started us is in, if it is recorded. One that
/// is none is left out: it keeps no event from being published.
fn trace_of_environment() -> Option<TraceContext> {
    let variable = |name| std::env::var(name).unwrap_or_default();
    let span = SpanName::read(&variable("TRACEPARENT"), &variable("TRACESTATE"));
    TraceContext::recorded(span?)
}

/// Returns how many results, from the first, are final. One without an answer
/// may be tried again, unless a later event was taken: its number is past.
fn settled_count(results: &[PublishResult]) -> usize {
    let is_final = |result: &PublishResult| !matches!(result, Err(PublishError::Unavailable(_)));
    results.iter().rposition(is_final).map_or(0, |at| at + 1)
}

#[cfg(test)]
mod tests {
    use runcast_actors::broker::Published;

    use super::*;

    fn accepted() -> PublishResult {
        Ok(Published {
            id: None,
            is_duplicate: false,
        })
    }

    fn unanswered() -> PublishResult {
        Err(PublishError::Unavailable("no answer".to_owned()))
    }

    #[test]
    fn what_has_no_answer_is_tried_again_unless_a_later_event_was_taken() {
        for (results, settled) in [
            (vec![], 0),
            (vec![accepted(), accepted()], 2),
            (vec![unanswered(), unanswered()], 0),
            (vec![accepted(), unanswered()], 1),
            (vec![unanswered(), accepted(), unanswered()], 2),
            (vec![Err(PublishError::Closed), unanswered()], 1),
        ] {
            assert_eq!(settled_count(&results), settled, "{results:?}");
        }
    }
}
