//! [`Ledger`]: what all runs cost together, and which is idle longest.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Run;

/// Where a run stands in the order of idleness: since when nothing was
/// appended, in µs of the store's clock; then, who came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    pub(super) since_us: u64,
    no: u64,
}

/// What the ledger holds of a run. It lies with the run, under its lock.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) turn: Turn,
    /// Its history has expired; its state has not.
    is_bare: bool,
    /// What it was last counted with.
    bytes: u64,
}

/// All runs of a store by the time of their last event. Locked after the run's
/// own lock, never before it.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    next_no: u64,
    bytes: u64,
    full: BTreeMap<Turn, Arc<Run>>,
    bare: BTreeMap<Turn, Arc<Run>>,
}

impl Ledger {
    /// What all runs cost together, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of runs.
    pub(super) fn len(&self) -> usize {
        self.full.len() + self.bare.len()
    }

    /// Notes that a run was appended to, and what it costs now.
    pub(super) fn touch(
        &mut self,
        run: &Arc<Run>,
        entry: &mut Option<Entry>,
        now_us: u64,
        bytes: u64,
    ) {
        self.remove(entry);
        let turn = Turn {
            since_us: now_us,
            no: self.next_no,
        };
        self.next_no += 1;
        self.bytes += bytes;
        self.full.insert(turn, Arc::clone(run));
        *entry = Some(Entry {
            turn,
            is_bare: false,
            bytes,
        });
    }

    /// Notes that a run costs less now, its turn unchanged.
    pub(super) fn shrink(&mut self, entry: &mut Entry, bytes: u64) {
        self.bytes = self.bytes - entry.bytes + bytes;
        entry.bytes = bytes;
    }

    /// Notes that a run has no history any more.
    pub(super) fn bare(&mut self, entry: &mut Entry, bytes: u64) {
        self.shrink(entry, bytes);
        if let Some(run) = self.full.remove(&entry.turn) {
            self.bare.insert(entry.turn, run);
            entry.is_bare = true;
        }
    }

    /// Strikes a run out.
    pub(super) fn remove(&mut self, entry: &mut Option<Entry>) {
        let Some(entry) = entry.take() else {
            return;
        };
        let of_its_kind = match entry.is_bare {
            true => &mut self.bare,
            false => &mut self.full,
        };
        of_its_kind.remove(&entry.turn);
        self.bytes -= entry.bytes;
    }

    /// The run idle longest. One without a history is, by its age.
    pub(super) fn oldest(&self) -> Option<(Turn, Arc<Run>)> {
        oldest(&self.bare).or_else(|| oldest(&self.full))
    }

    /// The run with a history idle longest, if at least since `us`.
    pub(super) fn full_since(&self, us: u64) -> Option<Arc<Run>> {
        since(&self.full, us)
    }

    /// The run without a history idle longest, if at least since `us`.
    pub(super) fn bare_since(&self, us: u64) -> Option<Arc<Run>> {
        since(&self.bare, us)
    }
}

fn oldest(runs: &BTreeMap<Turn, Arc<Run>>) -> Option<(Turn, Arc<Run>)> {
    let (turn, run) = runs.first_key_value()?;
    Some((*turn, Arc::clone(run)))
}

fn since(runs: &BTreeMap<Turn, Arc<Run>>, us: u64) -> Option<Arc<Run>> {
    let (turn, run) = oldest(runs)?;
    (turn.since_us <= us).then_some(run)
}
