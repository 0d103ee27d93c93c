//! [`History`]: the durable events of one run as Redis accepted them, with the
//! branches that failovers cut off.
//!
//! The µs of an id is the server's clock, which never goes back along one
//! history. So all ids ever known, sorted by it, are the order in which Redis
//! took them; where the sequence goes back, Redis had forgotten the newest
//! entries and went on from an older one.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::id::Durable;
use super::ledger::Kinds;

/// The number of an entry in a [`History`].
pub(crate) type Node = usize;

/// One durable event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) id: Durable,
    /// Its number in the ledger, if anybody knows.
    pub(crate) n: Option<usize>,
    /// `None` where nobody has seen more of it than its id.
    pub(crate) kind: Option<Kinds>,
    /// The entry before it on its branch. Entries nobody knows of may lie
    /// between: the sequence tells.
    pub(crate) parent: Option<Node>,
    /// Still in the stream when the trial was over.
    pub(crate) is_kept: bool,
}

/// The durable events of a run, each with the one before it.
#[derive(Debug, Default)]
pub(crate) struct History {
    entries: Vec<Entry>,
    by_id: HashMap<Durable, Node>,
}

/// One id to build a history from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    pub(crate) id: Durable,
    pub(crate) n: Option<usize>,
    pub(crate) kind: Option<Kinds>,
    pub(crate) is_kept: bool,
}

impl History {
    /// Builds it from all that is known, in any order, with doubles.
    pub(crate) fn new(known: impl IntoIterator<Item = Known>) -> Self {
        let mut epochs: BTreeMap<u64, BTreeMap<(u64, u64), Known>> = BTreeMap::new();
        for one in known {
            let place = epochs.entry(one.id.epoch).or_default();
            place
                .entry((one.id.us, one.id.seq))
                .and_modify(|old| {
                    old.n = old.n.or(one.n);
                    old.kind = old.kind.or(one.kind);
                    old.is_kept |= one.is_kept;
                })
                .or_insert(one);
        }
        let mut history = Self::default();
        for entries in epochs.values() {
            let mut branch: Vec<Node> = Vec::new();
            for one in entries.values() {
                while branch
                    .last()
                    .is_some_and(|last| history.entries[*last].id.seq >= one.id.seq)
                {
                    branch.pop();
                }
                let node = history.push(one, branch.last().copied());
                branch.push(node);
            }
        }
        history
    }

    fn push(&mut self, known: &Known, parent: Option<Node>) -> Node {
        let node = self.entries.len();
        self.entries.push(Entry {
            id: known.id,
            n: known.n,
            kind: known.kind,
            parent,
            is_kept: known.is_kept,
        });
        self.by_id.insert(known.id, node);
        node
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(crate) fn find(&self, id: Durable) -> Option<Node> {
        self.by_id.get(&id).copied()
    }

    /// Walks from `node` to the first entry of its epoch, `node` included.
    pub(crate) fn branch(&self, node: Node) -> impl Iterator<Item = &Entry> {
        std::iter::successors(Some(node), |node| self.entries[*node].parent)
            .map(|node| &self.entries[node])
    }

    /// Returns the last event that lies at or before both; `None` if they
    /// have nothing in common.
    pub(crate) fn fork(&self, one: Durable, other: Durable) -> Option<Durable> {
        if one.epoch != other.epoch {
            return None;
        }
        let (one, other) = (self.find(one)?, self.find(other)?);
        let before: HashSet<Durable> = self.branch(one).map(|entry| entry.id).collect();
        self.branch(other)
            .map(|entry| entry.id)
            .find(|id| before.contains(id))
    }

    /// Whether `next` directly follows `last` in one history.
    pub(crate) fn follows(&self, last: Durable, next: Durable) -> bool {
        last.epoch == next.epoch
            && last.seq + 1 == next.seq
            && self.find(next).is_some_and(|node| {
                let parent = self.entries[node].parent;
                parent.is_some_and(|parent| self.entries[parent].id == last)
            })
    }
}
