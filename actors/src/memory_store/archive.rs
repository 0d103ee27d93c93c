//! What the store in memory knows of the archive. One process: nobody else
//! claims its runs.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::ready;

use super::{MemoryStore, Run, Slot};
use crate::archive::{ArchiveDuty, Claim, Owed, OwedFrom};
use crate::protocol::RunId;
use crate::store::StoreFuture;

/// Most runs of one look through all.
const OWED_MAX: usize = 1000;

impl MemoryStore {
    fn with_slot<T>(&self, run_id: &RunId, read: impl FnOnce(&mut Slot, u64) -> T) -> Option<T> {
        let run = self.runs.get(run_id).map(|run| Arc::clone(&run))?;
        let mut slot = run.lock();
        let now_us = (self.clock)();
        self.expire(&run, &mut slot, now_us);
        (!slot.is_gone && slot.state.last().is_some()).then(|| read(&mut slot, now_us))
    }
}

impl Slot {
    fn is_owed(&self) -> bool {
        let epoch = self.state.last().map(|last| last.epoch);
        self.state.closed().is_some() && self.archived != epoch
    }

    fn claim(&self, now_us: u64) -> Claim {
        let (Some(last), Some(closed)) = (self.state.last(), self.state.closed()) else {
            return Claim::Nothing;
        };
        if self.archived == Some(last.epoch) {
            return Claim::Nothing;
        }
        match closed.sealed_us.checked_sub(now_us) {
            Some(left_us) => Claim::Later(Duration::from_micros(left_us + 1)),
            None => Claim::Mine(last.epoch),
        }
    }
}

impl ArchiveDuty for MemoryStore {
    fn claim<'a>(&'a self, run_id: &'a RunId, _: &'a str, _: Duration) -> StoreFuture<'a, Claim> {
        let claim = self.with_slot(run_id, |slot, now_us| slot.claim(now_us));
        Box::pin(ready(Ok(claim.unwrap_or(Claim::Gone))))
    }

    fn settle<'a>(
        &'a self,
        run_id: &'a RunId,
        _: &'a str,
        archived: Option<u64>,
    ) -> StoreFuture<'a, ()> {
        if archived.is_some() {
            self.with_slot(run_id, |slot, _| slot.archived = archived);
        }
        Box::pin(ready(Ok(())))
    }

    fn owed(&self, _: OwedFrom) -> StoreFuture<'_, Owed> {
        let is_owed = |run: &Arc<Run>| run.lock().is_owed();
        // Not while the map is locked: an append locks a run, then the map.
        let runs: Vec<Arc<Run>> = self.runs.iter().map(|run| Arc::clone(&run)).collect();
        let owed = runs.iter().filter(|run| is_owed(run)).take(OWED_MAX);
        let run_ids = owed.map(|run| run.id.clone()).collect();
        Box::pin(ready(Ok(Owed {
            run_ids,
            next: None,
        })))
    }

    fn turn(&self, _: &'static str, _: Duration) -> StoreFuture<'_, bool> {
        Box::pin(ready(Ok(true)))
    }
}
