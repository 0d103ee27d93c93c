//! [`Pool`]: what was shown and not met on the other side yet.

use std::collections::{HashMap, VecDeque};

use super::{Content, Origin};
use crate::protocol::EventKind;

/// Something that was shown to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its data.
    pub content: Content,
    /// Its time, in microseconds: Redis', ours or the kubelet's.
    pub ts: i64,
    /// Where it came from.
    pub origin: Origin,
    /// The kind it was shown as.
    pub kind: EventKind,
    /// The container it came from; 0 for an event of Redis.
    pub container: u64,
}

/// Entries in the order they were shown, found by content. Bounded: the oldest
/// are forgotten.
#[derive(Debug)]
pub struct Pool {
    /// `None`: it was taken.
    entries: VecDeque<Option<Entry>>,
    /// Number of the first of `entries`.
    first_no: u64,
    by_content: HashMap<Content, VecDeque<u64>>,
    len: usize,
    entries_max: usize,
}

impl Pool {
    /// Makes an empty pool for at most `entries_max` entries.
    pub fn new(entries_max: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            first_no: 0,
            by_content: HashMap::new(),
            len: 0,
            entries_max: entries_max.max(1),
        }
    }

    /// How many are in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of the entry that is added next; they are numbered from 0.
    pub fn next_no(&self) -> u64 {
        self.first_no + self.entries.len() as u64
    }

    /// The entries, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().flatten()
    }

    /// Adds an entry; returns whether one had to be forgotten for it.
    pub fn push(&mut self, entry: Entry) -> bool {
        let numbers = self.by_content.entry(entry.content).or_default();
        numbers.push_back(self.first_no + self.entries.len() as u64);
        self.entries.push_back(Some(entry));
        self.len += 1;
        let is_over = self.len > self.entries_max;
        if is_over {
            let oldest = (self.first_no..).zip(&self.entries);
            let oldest = oldest.into_iter().find(|(_, entry)| entry.is_some());
            if let Some((no, _)) = oldest {
                self.remove(no);
            }
        }
        is_over
    }

    /// Takes the entry with this content that has the least rank; none without
    /// a rank. Also returns its number.
    pub fn take(
        &mut self,
        content: Content,
        rank: impl Fn(u64, &Entry) -> Option<u64>,
    ) -> Option<(u64, Entry)> {
        let numbers = self.by_content.get(&content)?.iter();
        let ranked = numbers.filter_map(|no| Some((rank(*no, self.get(*no)?)?, *no)));
        let (_, no) = ranked.min()?;
        let entry = self.remove(no)?;
        Some((no, entry))
    }

    /// Takes the first entry with this content that fits. Also returns its number.
    pub fn take_first(
        &mut self,
        content: Content,
        fits: impl Fn(&Entry) -> bool,
    ) -> Option<(u64, Entry)> {
        let mut numbers = self.by_content.get(&content)?.iter();
        let no = *numbers.find(|no| self.get(**no).is_some_and(&fits))?;
        let entry = self.remove(no)?;
        Some((no, entry))
    }

    /// Forgets the entries that `keep` does not keep.
    pub fn retain(&mut self, keep: impl Fn(&Entry) -> bool) {
        let out: Vec<u64> = (self.first_no..)
            .zip(&self.entries)
            .filter(|(_, entry)| entry.is_some_and(|entry| !keep(&entry)))
            .map(|(no, _)| no)
            .collect();
        for no in out {
            self.remove(no);
        }
    }

    /// Forgets all; numbering goes on.
    pub fn clear(&mut self) {
        self.first_no = self.next_no();
        // Their room, too: it is not needed again for long.
        self.entries = VecDeque::new();
        self.by_content = HashMap::new();
        self.len = 0;
    }

    fn get(&self, no: u64) -> Option<&Entry> {
        let at = usize::try_from(no.checked_sub(self.first_no)?).ok()?;
        self.entries.get(at)?.as_ref()
    }

    fn remove(&mut self, no: u64) -> Option<Entry> {
        let at = usize::try_from(no.checked_sub(self.first_no)?).ok()?;
        let entry = self.entries.get_mut(at)?.take()?;
        self.len -= 1;
        if let Some(numbers) = self.by_content.get_mut(&entry.content) {
            if let Ok(at) = numbers.binary_search(&no) {
                numbers.remove(at);
            }
            if numbers.is_empty() {
                self.by_content.remove(&entry.content);
            }
        }
        while self.entries.front().is_some_and(Option::is_none) {
            self.entries.pop_front();
            self.first_no += 1;
        }
        // What was taken out of the middle must not grow without bound.
        if self.entries.len() > 2 * self.entries_max {
            self.renumber();
        }
        Some(entry)
    }

    fn renumber(&mut self) {
        let next_no = self.next_no();
        let kept: Vec<Entry> = self.entries.drain(..).flatten().collect();
        self.first_no = next_no - kept.len() as u64;
        self.by_content.clear();
        for (no, entry) in (self.first_no..).zip(&kept) {
            let numbers = self.by_content.entry(entry.content).or_default();
            numbers.push_back(no);
        }
        self.entries = kept.into_iter().map(Some).collect();
    }
}
