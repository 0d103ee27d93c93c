//! [`Store`]: a run's stream and meta in Redis, ids only, and all that can
//! befall them.

use std::collections::VecDeque;

use runcast_actors::order::PageIds;
use runcast_actors::protocol::DurableId;
use runcast_actors::store::PageFrom;

/// Events of a page: few, so that every run pages.
const PAGE_EVENTS: usize = 6;
/// The low bits of every `us` number the append in its run of the simulation:
/// ids are looked up by it, and no two are the same.
const NUMBER_BITS: u32 = 12;
/// Most appends of one run of the simulation.
pub(crate) const APPENDS_MAX: usize = 1 << NUMBER_BITS;

/// The number of an append.
pub(crate) fn number_of(id: DurableId) -> usize {
    (id.us & (APPENDS_MAX as u64 - 1)) as usize
}

/// One event that was ever accepted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Append {
    /// Its id.
    pub(crate) id: DurableId,
    /// The event before it in its epoch.
    pub(crate) parent: Option<DurableId>,
    /// A failover or an older dump forgot it, or it was forged.
    pub(crate) is_lost: bool,
    /// It was trimmed, or expired, at some time.
    pub(crate) is_trimmed: bool,
}

/// What the keys of a run hold.
#[derive(Debug, Clone, Default)]
struct Keys {
    last: Option<DurableId>,
    stream: VecDeque<DurableId>,
}

/// The store of one run.
#[derive(Debug, Default)]
pub(crate) struct Store {
    keys: Keys,
    dump: Option<(Keys, usize)>,
    clock: u64,
    /// All that was ever accepted, in order.
    pub(crate) appends: Vec<Append>,
    /// Entries kept; 0: all.
    pub(crate) kept_max: usize,
}

impl Store {
    /// The last event accepted, if the store knows the run.
    pub(crate) fn last(&self) -> Option<DurableId> {
        self.keys.last
    }

    /// Lets time pass.
    pub(crate) fn tick(&mut self, by: u64) {
        self.clock += by;
    }

    /// Takes the next event.
    pub(crate) fn append(&mut self) -> DurableId {
        let parent = self.keys.last;
        let (epoch, seq) = match parent {
            Some(last) => (last.epoch, last.seq + 1),
            None => (self.next_epoch(), 1),
        };
        if parent.is_none() {
            self.wipe_stream();
        }
        self.push(epoch, seq, parent)
    }

    /// Begins the run anew.
    pub(crate) fn restart(&mut self) -> DurableId {
        let epoch = self.next_epoch();
        self.wipe_stream();
        self.push(epoch, 1, None)
    }

    fn push(&mut self, epoch: u64, seq: u64, parent: Option<DurableId>) -> DurableId {
        // A clock set back does not turn ids back.
        let before = parent.map_or(0, |last| last.us >> NUMBER_BITS);
        let id = self.number(epoch, seq, self.clock.max(before), parent, false);
        self.keys.stream.push_back(id);
        self.keys.last = Some(id);
        let kept_max = self.kept_max;
        // `MAXLEN ~` trims by the node.
        if kept_max > 0 && self.keys.stream.len() > kept_max + kept_max / 4 {
            self.trim(kept_max);
        }
        id
    }

    fn number(
        &mut self,
        epoch: u64,
        seq: u64,
        clock: u64,
        parent: Option<DurableId>,
        is_lost: bool,
    ) -> DurableId {
        let us = clock << NUMBER_BITS | self.appends.len() as u64;
        let id = DurableId { epoch, seq, us };
        self.appends.push(Append {
            id,
            parent,
            is_lost,
            is_trimmed: false,
        });
        id
    }

    /// An id that somebody else published on the run's channel.
    pub(crate) fn forge(&mut self, epoch: u64, seq: u64) -> DurableId {
        self.number(epoch, seq, self.clock, None, true)
    }

    fn next_epoch(&self) -> u64 {
        let newest = self.keys.last.or(self.keys.stream.back().copied());
        newest.map_or(self.clock, |id| self.clock.max(id.epoch + 1))
    }

    // ---- faults ------------------------------------------------------------

    /// Keeps the newest `kept` entries.
    pub(crate) fn trim(&mut self, kept: usize) {
        while self.keys.stream.len() > kept {
            let gone = self.keys.stream.pop_front();
            if let Some(id) = gone {
                self.appends[number_of(id)].is_trimmed = true;
            }
        }
    }

    fn wipe_stream(&mut self) {
        self.trim(0);
    }

    /// The stream expires, meta stays.
    pub(crate) fn expire_stream(&mut self) {
        self.wipe_stream();
    }

    /// Meta expires, the stream stays.
    pub(crate) fn expire_meta(&mut self) {
        self.keys.last = None;
    }

    /// `FLUSHALL`.
    pub(crate) fn flush(&mut self) {
        self.wipe_stream();
        self.keys.last = None;
    }

    /// A failover to a replica that lacks the last `count` writes, and whose
    /// clock is behind.
    pub(crate) fn rewind(&mut self, count: usize, clock_behind: u64) {
        for _ in 0..count {
            let Some(last) = self.keys.last else { break };
            if self.keys.stream.back() == Some(&last) {
                self.keys.stream.pop_back();
            }
            self.keys.last = self.appends[number_of(last)].parent;
            self.lose_from(number_of(last));
        }
        self.clock = self.clock.saturating_sub(clock_behind).max(1);
    }

    /// Keeps a dump of now.
    pub(crate) fn save(&mut self) {
        self.dump = Some((self.keys.clone(), self.appends.len()));
    }

    /// Comes back with the last dump.
    pub(crate) fn restore(&mut self) {
        if let Some((keys, appends)) = &self.dump {
            let appends = *appends;
            self.keys = keys.clone();
            self.lose_from(appends);
        }
    }

    /// All that was accepted from append `number` on is forgotten.
    fn lose_from(&mut self, number: usize) {
        for append in &mut self.appends[number..] {
            append.is_lost = true;
        }
        // A dump of a history that was given up would bring it back.
        if self
            .dump
            .as_ref()
            .is_some_and(|(_, appends)| *appends > number)
        {
            self.dump = None;
        }
    }

    // ---- reads -------------------------------------------------------------

    /// Reads a page, of this moment.
    pub(crate) fn read(&self, from: PageFrom) -> Page {
        let Some(last) = self.keys.last else {
            return Page::default();
        };
        let stream = &self.keys.stream;
        let mut page = Page {
            last: Some(last),
            first: stream.front().copied(),
            ..Page::default()
        };
        let index_of = |seq: u64| stream.partition_point(|id| id.seq < seq);
        let range = match from {
            PageFrom::After(seq) => {
                let start = index_of(seq.saturating_add(1));
                let end = stream.len().min(start + PAGE_EVENTS);
                page.more = end < stream.len();
                start..end
            }
            PageFrom::Before(seq) => {
                let end = index_of(seq);
                let start = end.saturating_sub(PAGE_EVENTS);
                page.more = start > 0;
                start..end
            }
        };
        let (PageFrom::After(seq) | PageFrom::Before(seq)) = from;
        page.anchor = stream
            .get(index_of(seq))
            .copied()
            .filter(|id| id.seq == seq);
        for index in range {
            page.ids[page.len] = stream[index];
            page.len += 1;
        }
        page
    }
}

/// A page of the store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Page {
    last: Option<DurableId>,
    first: Option<DurableId>,
    anchor: Option<DurableId>,
    ids: [DurableId; PAGE_EVENTS],
    len: usize,
    more: bool,
}

impl Default for Page {
    fn default() -> Self {
        let none = DurableId {
            epoch: 0,
            seq: 0,
            us: 0,
        };
        Self {
            last: None,
            first: None,
            anchor: None,
            ids: [none; PAGE_EVENTS],
            len: 0,
            more: false,
        }
    }
}

impl PageIds for Page {
    fn last(&self) -> Option<DurableId> {
        self.last
    }

    fn first(&self) -> Option<DurableId> {
        self.first
    }

    fn anchor(&self) -> Option<DurableId> {
        self.anchor
    }

    fn len(&self) -> usize {
        self.len
    }

    fn id(&self, index: usize) -> DurableId {
        self.ids[..self.len][index]
    }

    fn more(&self) -> bool {
        self.more
    }
}
