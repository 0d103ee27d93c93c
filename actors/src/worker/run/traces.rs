//! The traces of events, on their way from a [`WorkerRun`] to the first socket.

use std::cell::{Cell, RefCell};
use std::time::SystemTime;

use super::WorkerRun;
use crate::metrics::Exemplar;
use crate::sse::Segment;
use crate::worker::TracedSegment;

/// Most traced events of a run that wait for their first socket; the oldest go.
const WAITING_MAX: usize = 1024;

/// Traced events that no socket was handed yet. Empty while none comes.
#[derive(Default)]
pub(super) struct Traces {
    wait: Cell<bool>,
    waiting: RefCell<Vec<TracedSegment>>,
}

impl Traces {
    /// Forgets all: their segments are handed to nobody any more.
    pub(super) fn forget(&self) {
        self.wait.set(false);
        self.waiting.take();
    }
}

impl WorkerRun {
    /// Notes which of the segments that were just appended are traced.
    pub(super) fn note_traced(&self, traced: Vec<TracedSegment>) {
        if traced.is_empty() {
            return;
        }
        let mut waiting = self.traces.waiting.borrow_mut();
        waiting.extend(traced);
        let over = waiting.len().saturating_sub(WAITING_MAX);
        waiting.drain(..over);
        self.traces.wait.set(true);
    }

    /// Makes the spans of a segment that a socket is handed, if it is the first;
    /// those before it went to nobody.
    pub(super) fn note_handed(&self, segment: &Segment) {
        // All that most chunks cost.
        if self.traces.wait.get() {
            self.hand_traced(segment.no());
        }
    }

    #[cold]
    fn hand_traced(&self, segment_no: u64) {
        let worker = self.worker();
        let spans = &worker.shared.settings.spans;
        let clients = self.members.borrow().len();
        let mut waiting = self.traces.waiting.borrow_mut();
        let handed = waiting
            .iter()
            .filter(|event| event.segment_no == segment_no);
        for event in handed {
            spans.flushed(&self.run_id, event, clients);
            self.counters.note_traced_lag(Exemplar {
                value: event.received_at.elapsed().as_secs_f64(),
                at: SystemTime::now(),
                trace: event.trace.clone(),
            });
        }
        waiting.retain(|event| event.segment_no > segment_no);
        self.traces.wait.set(!waiting.is_empty());
    }
}
