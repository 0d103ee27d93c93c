//! [`Log`]: the frames of a run in a bounded ring, ids only.

use std::collections::VecDeque;

use runcast_actors::order::{KnownIds, LogIndex};
use runcast_actors::protocol::{DurableId, GapReason, Place};

/// A frame, or a mark, in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A durable event.
    Event(DurableId),
    /// A plain event: number `n` of its hub.
    Loose(u64),
    /// Events are missing here; a new branch begins.
    Gap(Gap),
    /// Where a log without durable events begins.
    Base(Option<Place>),
}

/// A gap as it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gap {
    /// Why.
    pub(crate) reason: GapReason,
    /// The first event after it.
    pub(crate) before: Option<DurableId>,
    /// How many are missing.
    pub(crate) missed: Option<u64>,
    /// Where the log goes on.
    pub(crate) base: Option<Place>,
}

/// A ring of a hub, or of a worker.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    entries: VecDeque<Entry>,
    /// Number of the first entry kept.
    front: u64,
    entries_max: usize,
    /// Where the newest branch begins, and what lies before it.
    start: u64,
    base: Option<Place>,
    /// Durable events of the newest branch.
    branch: VecDeque<DurableId>,
    loose: u64,
    loose_dropped: u64,
    /// Number of the newest entry without a durable id that was dropped, and
    /// the place in the stream it came after.
    last_loose: Option<(u64, Option<Place>)>,
    /// Place after the entry dropped last.
    dropped_place: Option<Place>,
}

impl Log {
    /// An empty log of at most so many entries.
    pub(crate) fn new(entries_max: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            front: 0,
            entries_max,
            start: 0,
            base: None,
            branch: VecDeque::new(),
            loose: 0,
            loose_dropped: 0,
            last_loose: None,
            dropped_place: None,
        }
    }

    /// Writes an entry, and drops the oldest if there are too many.
    pub(crate) fn push(&mut self, entry: Entry) {
        match entry {
            Entry::Event(id) => {
                self.branch.push_back(id);
            }
            Entry::Loose(number) => self.loose = number,
            Entry::Gap(gap) => {
                self.branch.clear();
                self.base = gap.base;
                self.start = self.end() + 1;
            }
            Entry::Base(base) => {
                self.base = base;
                self.start = self.end();
                return;
            }
        }
        self.entries.push_back(entry);
        while self.entries.len() > self.entries_max {
            self.drop_front();
        }
    }

    fn drop_front(&mut self) {
        let Some(entry) = self.entries.pop_front() else {
            return;
        };
        let number = self.front;
        self.front += 1;
        if self.front > self.start {
            self.start = self.front;
        }
        match entry {
            Entry::Event(id) => {
                self.dropped_place = Some(id.into());
                if self.branch.front() == Some(&id) {
                    self.branch.pop_front();
                    self.base = Some(id.into());
                }
            }
            Entry::Loose(_) | Entry::Gap(_) => {
                self.loose_dropped += 1;
                self.last_loose = Some((number, self.dropped_place.or(self.base)));
            }
            Entry::Base(_) => {}
        }
    }

    /// The entry at a position; `None` at the end.
    pub(crate) fn get(&self, position: u64) -> Option<Entry> {
        let index = position.checked_sub(self.front)?;
        self.entries.get(usize::try_from(index).ok()?).copied()
    }

    /// Whether what lay at this position is dropped.
    pub(crate) fn is_dropped(&self, position: u64) -> bool {
        position < self.front
    }

    /// Whether a frame without a durable id was dropped at or after a position.
    pub(crate) fn dropped_loose_from(&self, position: u64) -> bool {
        self.last_loose
            .is_some_and(|(number, _)| number >= position)
    }

    /// Number of the newest plain event ever written.
    pub(crate) fn loose(&self) -> u64 {
        self.loose
    }

    /// The place before the newest branch.
    pub(crate) fn base_place(&self) -> Option<Place> {
        self.base
    }
}

impl KnownIds for Log {
    fn us_of(&self, epoch: u64, seq: u64) -> Option<u64> {
        let first = self.branch.front()?;
        let index = usize::try_from(seq.checked_sub(first.seq)?).ok()?;
        let is_it = |id: &&DurableId| id.epoch == epoch && id.seq == seq;
        let direct = self.branch.get(index).filter(is_it);
        // With holes that a missing safeguard let in.
        let found = direct.or_else(|| self.branch.iter().find(is_it));
        found.map(|id| id.us)
    }

    fn oldest_seq(&self) -> Option<u64> {
        self.branch.front().map(|id| id.seq)
    }
}

impl LogIndex for Log {
    type Position = u64;

    fn base(&self) -> Option<Place> {
        self.base
    }

    fn start(&self) -> u64 {
        self.start
    }

    fn after(&self, id: DurableId) -> Option<u64> {
        let at = self
            .entries
            .iter()
            .rposition(|entry| *entry == Entry::Event(id))?;
        Some(self.front + at as u64 + 1)
    }

    fn end(&self) -> u64 {
        self.front + self.entries.len() as u64
    }

    fn loose_dropped(&self) -> u64 {
        self.loose_dropped
    }

    fn loose_before(&self, position: u64) -> u64 {
        let kept = position.saturating_sub(self.front) as usize;
        let is_loose = |entry: &&Entry| matches!(entry, Entry::Loose(_) | Entry::Gap(_));
        self.loose_dropped + self.entries.iter().take(kept).filter(is_loose).count() as u64
    }

    // The checker counts durable events.
    fn loose_missed(&self, _: u64, _: u64) -> Option<u64> {
        None
    }

    fn dropped_loose_after(&self, id: DurableId) -> bool {
        let Some((_, after)) = self.last_loose else {
            return false;
        };
        after.is_none_or(|place| (id.epoch, id.seq) <= (place.epoch, place.seq))
    }
}
