//! [`RunState`]: one run as the store keeps it. Pure: no clock, no lock.

use std::collections::{HashMap, VecDeque};

use super::producers::{PRODUCER_BYTES, ProducerSeq, Producers, Standing};
use crate::broker::{BrokerSettings, NewEvent, PublishError, PublishResult, Published};
use crate::protocol::{DurableId, EventKind, Payload, TraceContext, status_word, terminal_status};
use crate::settings::Live;
use crate::store::{AppendBatch, Closed, Head, Page, PageFrom, PageQuery, StoredEvent};

/// What a run costs beside its events: its state, its name, its places in the
/// maps. Rounded up.
const RUN_BYTES: u64 = 1024;

/// What an event costs beside its payload and source: its place in the deque,
/// which grows by doubling, and two allocations.
const EVENT_BYTES: u64 = size_of::<Kept>() as u64 * 3 / 2 + 64;

/// The settings that bound a run and end it.
#[derive(Debug)]
pub(super) struct Rules {
    /// Where `limits.max_event_bytes` is.
    live: Live,
    events_max: usize,
    bytes_max: u64,
    end_grace_us: u64,
    terminal_statuses: Vec<String>,
}

impl Rules {
    pub(super) fn new(settings: &BrokerSettings) -> Self {
        Self {
            live: settings.live.clone(),
            events_max: usize::try_from(settings.history.max_events).unwrap_or(usize::MAX),
            bytes_max: settings.history.max_bytes_per_run.as_u64(),
            end_grace_us: settings.runs.end_grace.as_micros() as u64,
            terminal_statuses: settings.runs.terminal_statuses.clone(),
        }
    }
}

/// When a batch is appended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// The store's clock, in µs.
    pub(super) now_us: u64,
    /// Least number of a new epoch: every epoch forgotten was below it.
    pub(super) epoch_min: u64,
}

/// What came of a batch.
#[derive(Debug, Default)]
pub(super) struct Appended {
    /// One for each event of the batch.
    pub(super) results: Vec<PublishResult>,
    /// Those accepted, in order.
    pub(super) events: Vec<StoredEvent>,
}

/// An event kept, and whose it is.
#[derive(Debug)]
struct Kept {
    event: StoredEvent,
    by: Option<ProducerSeq>,
}

impl Kept {
    fn bytes(&self) -> u64 {
        (self.event.payload.len() + self.event.source.len()) as u64
    }
}

/// One run: its history, and what outlives that.
#[derive(Debug, Default)]
pub(super) struct RunState {
    /// The last event accepted; `None` before the first.
    last: Option<DurableId>,
    kept: VecDeque<Kept>,
    /// Of the payloads and sources kept.
    bytes: u64,
    counts: [u64; EventKind::ALL.len()],
    status: Option<String>,
    closed: Option<Closed>,
    producers: Producers,
}

impl RunState {
    // ---- appending ---------------------------------------------------------

    /// Appends a batch, event by event, as `runcast_publish` does in Redis.
    pub(super) fn append(&mut self, rules: &Rules, batch: AppendBatch, at: Moment) -> Appended {
        let first = batch.producer.as_ref().map(ProducerSeq::first_of);
        let mut walk = Walk {
            rules,
            at,
            restart: batch.restart,
            trace: batch.trace,
            retried: None,
            events: Vec::new(),
        };
        let results = batch.events.into_iter().enumerate().map(|(index, event)| {
            let by = first.as_ref().map(|first| first.later(index));
            self.append_one(event, by, &mut walk)
        });
        Appended {
            results: results.collect(),
            events: walk.events,
        }
    }

    fn append_one(
        &mut self,
        event: NewEvent,
        by: Option<ProducerSeq>,
        walk: &mut Walk<'_>,
    ) -> PublishResult {
        // Before all else: a retry is none the less one because its run is
        // over by now, and it does not begin the run anew once more.
        let standing = by.as_ref().map(|by| self.producers.standing(by));
        let lost = match standing {
            Some(Standing::Fenced) => return Err(PublishError::Fenced),
            Some(Standing::Retry(id)) => {
                walk.restart = false;
                let id = id.or_else(|| walk.retried_id(&self.kept, by.as_ref()?));
                let is_duplicate = true;
                return Ok(Published { id, is_duplicate });
            }
            Some(Standing::New { lost }) => lost,
            None => 0,
        };
        let limit = walk.rules.live.now().limits.max_event_bytes.as_u64();
        if event.payload.len() as u64 > limit {
            return Err(PublishError::TooLarge { limit });
        }
        if std::mem::take(&mut walk.restart) {
            self.begin_epoch();
        }
        if self.is_sealed(walk.at.now_us) {
            return Err(PublishError::Closed);
        }
        let id = self.next_id(walk.at);
        let event = StoredEvent {
            id,
            lost,
            kind: event.kind,
            source: event.source,
            payload: event.payload,
            trace: walk.trace.clone(),
        };
        walk.events.push(event.clone());
        self.push(walk.rules, Kept { event, by });
        Ok(Published::new(id))
    }

    /// Forgets the run but for its epoch, which the next one is above, and its
    /// producers, which keep their numbers.
    fn begin_epoch(&mut self) {
        let last = self.last.map(|last| DurableId {
            seq: 0,
            us: 0,
            ..last
        });
        *self = Self {
            last,
            producers: std::mem::take(&mut self.producers),
            ..Self::default()
        };
    }

    fn next_id(&self, at: Moment) -> DurableId {
        let us = at.now_us;
        match self.last {
            // A clock set back does not turn ids back.
            Some(last) if last.seq > 0 => DurableId {
                epoch: last.epoch,
                seq: last.seq + 1,
                us: us.max(last.us),
            },
            old => {
                let later = old.map_or(0, |old| old.epoch + 1);
                let epoch = (us / 1000).max(at.epoch_min).max(later);
                DurableId {
                    epoch,
                    seq: 1,
                    us: us.max(epoch * 1000),
                }
            }
        }
    }

    fn push(&mut self, rules: &Rules, kept: Kept) {
        let (id, kind) = (kept.event.id, kept.event.kind);
        self.last = Some(id);
        self.counts[kind as usize] += 1;
        if let Some(by) = &kept.by {
            self.producers.note(by, id);
        }
        if kind == EventKind::Status {
            self.note_status(rules, &kept.event);
        }
        self.bytes += kept.bytes();
        self.kept.push_back(kept);
        while self.kept.len() > rules.events_max || self.bytes > rules.bytes_max {
            if !self.drop_oldest() {
                break;
            }
        }
    }

    fn note_status(&mut self, rules: &Rules, event: &StoredEvent) {
        let payload = Payload::classify(&event.payload);
        if let Some(word) = status_word(payload) {
            self.status = Some(word);
        }
        // The first terminal status counts.
        if self.closed.is_none() {
            let status = terminal_status(payload, &rules.terminal_statuses);
            self.closed = status.map(|status| Closed {
                status,
                at_us: event.id.us,
                sealed_us: event.id.us.saturating_add(rules.end_grace_us),
            });
        }
    }

    // ---- forgetting --------------------------------------------------------

    /// Drops the oldest event, but never the only one; says whether it did.
    pub(super) fn drop_oldest(&mut self) -> bool {
        if self.kept.len() < 2 {
            return false;
        }
        if let Some(kept) = self.kept.pop_front() {
            self.bytes -= kept.bytes();
        }
        true
    }

    /// Drops all events; the run's state stays.
    pub(super) fn drop_history(&mut self) {
        self.kept = VecDeque::new();
        self.bytes = 0;
    }

    // ---- reading -----------------------------------------------------------

    /// The last event accepted; `None` before the first.
    pub(super) fn last(&self) -> Option<DurableId> {
        self.last
    }

    /// Set once a terminal status was accepted.
    pub(super) fn closed(&self) -> Option<&Closed> {
        self.closed.as_ref()
    }

    /// What the run costs in memory, in bytes.
    pub(super) fn cost(&self) -> u64 {
        RUN_BYTES
            + self.bytes
            + self.kept.len() as u64 * EVENT_BYTES
            + self.producers.len() as u64 * PRODUCER_BYTES
    }

    fn is_sealed(&self, now_us: u64) -> bool {
        let closed = self.closed.as_ref();
        closed.is_some_and(|closed| now_us > closed.sealed_us)
    }

    /// Reads a page of the history and the run's state.
    pub(super) fn page(&self, query: PageQuery, now_us: u64) -> Page {
        let Some(last) = self.last else {
            return Page::default();
        };
        let (anchor, events, more) = match query.from {
            PageFrom::After(seq) => {
                let from = self.index_of(seq.saturating_add(1));
                let taken = taken(self.kept.range(from..), query);
                let events = self.kept.range(from..from + taken);
                let more = from + taken < self.kept.len();
                (seq, events, more)
            }
            PageFrom::Before(seq) => {
                let to = self.index_of(seq);
                let taken = taken(self.kept.range(..to).rev(), query);
                (seq, self.kept.range(to - taken..to), taken < to)
            }
        };
        Page {
            head: Some(Head {
                last,
                counts: self.counts,
                status: self.status.clone(),
                closed: self.closed.clone(),
                now_us,
            }),
            first: self.kept.front().map(|kept| kept.event.id),
            anchor: self.at(anchor),
            events: events.map(|kept| kept.event.clone()).collect(),
            more,
        }
    }

    /// Index of the first event kept at or after `seq`: seqs have no holes.
    fn index_of(&self, seq: u64) -> usize {
        let first = self.kept.front().map_or(0, |kept| kept.event.id.seq);
        let index = usize::try_from(seq.saturating_sub(first)).unwrap_or(usize::MAX);
        index.min(self.kept.len())
    }

    fn at(&self, seq: u64) -> Option<DurableId> {
        let kept = self.kept.get(self.index_of(seq))?;
        (kept.event.id.seq == seq).then_some(kept.event.id)
    }
}

/// How many of `events` fit on the page.
fn taken<'a>(events: impl Iterator<Item = &'a Kept>, query: PageQuery) -> usize {
    let mut bytes: Option<usize> = None;
    let fits = |kept: &&Kept| {
        // One event always does.
        let is_open = bytes.is_none_or(|bytes| bytes < query.bytes_max);
        let before = bytes.unwrap_or(0);
        bytes = Some(before.saturating_add(kept.event.payload.len()));
        is_open
    };
    events
        .take(query.events_max.max(1))
        .take_while(fits)
        .count()
}

/// A batch on its way through.
struct Walk<'a> {
    rules: &'a Rules,
    at: Moment,
    /// Begin the run anew with the next event.
    restart: bool,
    /// What deliveries belong to.
    trace: Option<TraceContext>,
    /// Ids of the producer's events by their number; searched for once.
    retried: Option<HashMap<u64, DurableId>>,
    /// Accepted so far.
    events: Vec<StoredEvent>,
}

impl Walk<'_> {
    /// The id under which an event was accepted before, if it is still kept.
    fn retried_id(&mut self, kept: &VecDeque<Kept>, by: &ProducerSeq) -> Option<DurableId> {
        let search = || {
            let of_producer = kept.iter().filter_map(|kept| {
                let seq = kept.by.as_ref().filter(|other| other.is_of(by))?.seq;
                Some((seq, kept.event.id))
            });
            of_producer.collect()
        };
        self.retried
            .get_or_insert_with(search)
            .get(&by.seq)
            .copied()
    }
}
