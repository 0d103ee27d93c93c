//! Appending what waits, run by run.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use actix::prelude::*;
use tracing::{info, warn};

use super::Recorder;
use super::buffer::{Batch, Outcome, Step};
use super::lease::Fence;
use crate::broker::PublishError;
use crate::metrics::EventResult;
use crate::protocol::RunId;
use crate::store::{AppendBatch, AppendResults, Producer, RunStore as _, StoreError};

/// Name of the producer in every run; the function knows it.
const PRODUCER: &str = "_plain";

/// Runs that are written to at a time; more wait for these.
const BUSY_MAX: usize = 64;

/// Pause before a call that failed is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Runs that may have something to do, each once.
#[derive(Debug, Default)]
pub(super) struct Queue {
    order: VecDeque<RunId>,
    known: HashSet<RunId>,
}

impl Queue {
    pub(super) fn add(&mut self, run_id: RunId) {
        if !self.known.contains(&run_id) {
            self.known.insert(run_id.clone());
            self.order.push_back(run_id);
        }
    }

    fn take(&mut self) -> Option<RunId> {
        let run_id = self.order.pop_front()?;
        self.known.remove(&run_id);
        Some(run_id)
    }

    fn clear(&mut self) {
        self.order.clear();
        self.known.clear();
    }
}

impl Recorder {
    /// Takes the next step of runs that have one, as far as is allowed.
    pub(super) fn pump(&mut self, ctx: &mut Context<Self>) {
        let Some((number, until)) = self.held else {
            // When the lease is ours, all that waits is found anew.
            return self.queue.clear();
        };
        // Not renewed in time: it may be another's. When it is renewed, on.
        if Instant::now() >= until {
            return;
        }
        while self.busy < BUSY_MAX
            && let Some(run_id) = self.queue.take()
        {
            match self.buffer.next_step(&run_id) {
                Step::Nothing => {}
                Step::Fence => self.fence(run_id, number, ctx),
                Step::Append(batch) => self.append(run_id, number, batch, ctx),
            }
        }
    }

    fn is_current(&self, number: u64) -> bool {
        self.held.is_some_and(|(held, _)| held == number)
    }

    /// The run's call is over; on with it, at once or a while later.
    fn finish(&mut self, run_id: RunId, is_good: bool, number: u64, ctx: &mut Context<Self>) {
        if is_good {
            self.busy -= 1;
            self.buffer.free(&run_id);
            self.queue.add(run_id);
            return self.pump(ctx);
        }
        ctx.run_later(RETRY_DELAY, move |recorder, ctx| {
            if recorder.is_current(number) {
                recorder.finish(run_id, true, number, ctx);
            }
        });
    }

    fn fence(&mut self, run_id: RunId, number: u64, ctx: &mut Context<Self>) {
        self.busy += 1;
        let (lease, asked) = (self.lease.clone(), run_id.clone());
        let fencing = async move { lease.fence(&asked, number).await };
        ctx.spawn(
            fencing
                .into_actor(self)
                .map(move |answer, recorder, ctx| match answer {
                    _ if !recorder.is_current(number) => {}
                    Ok(Fence::Stands(seq)) => {
                        recorder.buffer.fence_answered(&run_id, seq);
                        recorder.finish(run_id, true, number, ctx);
                    }
                    Ok(Fence::Fenced) => recorder.fenced(ctx),
                    Err(error) => {
                        warn!(%run_id, %error, "run not fenced for recording, trying again");
                        recorder.buffer.fence_failed(&run_id);
                        recorder.finish(run_id, false, number, ctx);
                    }
                }),
        );
    }

    fn append(&mut self, run_id: RunId, number: u64, batch: Batch, ctx: &mut Context<Self>) {
        self.busy += 1;
        let Batch {
            first_seq,
            serials,
            events,
        } = batch;
        let batch = AppendBatch {
            events,
            restart: false,
            producer: Some(Producer {
                id: PRODUCER.to_owned(),
                epoch: number,
                first_seq,
            }),
            trace: None,
        };
        let (store, target) = (self.store.clone(), run_id.clone());
        let appending = async move { store.append(&target, batch).await };
        ctx.spawn(
            appending
                .into_actor(self)
                .map(move |results, recorder, ctx| {
                    if recorder.is_current(number) {
                        recorder.appended(run_id, number, first_seq, &serials, results, ctx);
                    }
                }),
        );
    }

    fn appended(
        &mut self,
        run_id: RunId,
        number: u64,
        first_seq: u64,
        serials: &[u64],
        results: Result<AppendResults, StoreError>,
        ctx: &mut Context<Self>,
    ) {
        let results = results.unwrap_or_default();
        if results.contains(&Err(PublishError::Fenced)) {
            return self.fenced(ctx);
        }
        let outcome = |at: usize| match results.get(at) {
            Some(Ok(_)) => Outcome::Recorded,
            Some(Err(PublishError::Closed | PublishError::TooLarge { .. })) => Outcome::Refused,
            Some(Err(_)) | None => Outcome::Unknown,
        };
        let outcomes: Vec<_> = (0..serials.len()).map(outcome).collect();
        let is_good = outcomes.last() != Some(&Outcome::Unknown);
        self.count(&outcomes, &results);
        let outcomes = serials.iter().copied().zip(outcomes);
        let lost = self.buffer.appended(&run_id, first_seq, outcomes);
        // The jump in our numbers tells of these.
        self.shared.metrics.recorder.dropped.add(lost);
        self.finish(run_id, is_good, number, ctx);
    }

    fn count(&self, outcomes: &[Outcome], results: &AppendResults) {
        let recorded = outcomes
            .iter()
            .filter(|outcome| **outcome == Outcome::Recorded);
        let metrics = &self.shared.metrics;
        metrics.recorder.recorded.add(recorded.count() as u64);
        let closed = results
            .iter()
            .filter(|result| **result == Err(PublishError::Closed));
        for _ in closed {
            // Which kind is of no interest any more.
            metrics.event_in(crate::protocol::EventKind::Output, EventResult::Closed);
        }
    }

    /// A newer recorder has written to a run: the lease is not ours.
    fn fenced(&mut self, ctx: &mut Context<Self>) {
        info!("a newer recorder of plain messages is at work");
        self.interrupted();
        self.ask(ctx);
    }
}
