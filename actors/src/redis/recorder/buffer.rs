//! [`Buffer`]: plain messages until their recorded copies come by.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::broker::NewEvent;
use crate::protocol::{EventKind, FramedEvent, RunId};

/// What an entry takes beside its channel and payload, in bytes, about.
const ENTRY_BYTES: usize = 128;

/// Most events appended by one call.
const BATCH_EVENTS_MAX: usize = 256;

/// Most bytes of these, or one event.
const BATCH_BYTES_MAX: usize = 256 * 1024;

/// How long a recorded copy waits for a plain message that it overtook, as it
/// can in a Cluster only.
const EARLY_MAX_AGE: Duration = Duration::from_secs(2);

/// Most such copies of one run.
const EARLY_MAX: usize = 1024;

/// A plain message as the subscriber read it.
#[derive(Debug, Clone)]
pub(crate) struct PlainMessage {
    pub(crate) run_id: RunId,
    pub(crate) kind: EventKind,
    /// The whole channel name.
    pub(crate) channel: Bytes,
    /// Where in it the source begins.
    pub(crate) source_start: usize,
    pub(crate) payload: Bytes,
}

impl PlainMessage {
    fn source(&self) -> &[u8] {
        &self.channel[self.source_start..]
    }

    fn bytes(&self) -> usize {
        self.channel.len() + self.payload.len() + ENTRY_BYTES
    }

    fn event(&self) -> NewEvent {
        NewEvent {
            kind: self.kind,
            source: String::from_utf8_lossy(self.source()).into_owned(),
            payload: self.payload.clone(),
        }
    }

    fn is(&self, copy: &FramedEvent<'_>) -> bool {
        self.kind == copy.kind
            && self.payload == copy.payload
            && self.source() == copy.source.as_bytes()
    }
}

#[derive(Debug)]
struct Entry {
    serial: u64,
    received_at: Instant,
    /// Redis accepted it; its copy is on the way.
    is_recorded: bool,
    message: PlainMessage,
}

/// Where the recorder stands with a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Standing {
    /// Older recorders may still write to it.
    #[default]
    Open,
    /// Fenced off from older recorders, as soon as both have come: the answer,
    /// and the notice behind everything they wrote.
    Fencing {
        last_seq: Option<u64>,
        noticed: bool,
    },
    /// Ours; the number of the next event.
    Fenced { next_seq: u64 },
}

#[derive(Debug, Default)]
struct RunEntries {
    entries: VecDeque<Entry>,
    standing: Standing,
    /// A call is under way, or waits for its repetition.
    is_busy: bool,
    used_at: Option<Instant>,
    /// Copies that came before their plain messages.
    early: VecDeque<(Instant, Bytes)>,
}

/// What to do next for a run.
#[derive(Debug)]
pub(super) enum Step {
    Nothing,
    Fence,
    Append(Batch),
}

/// Events to append, numbered from `first_seq` on.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) first_seq: u64,
    pub(super) serials: Vec<u64>,
    pub(super) events: Vec<NewEvent>,
}

/// What became of an event that was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is in the history.
    Recorded,
    /// It is not, and never will be.
    Refused,
    /// Nobody knows yet.
    Unknown,
}

/// Bounds of a [`Buffer`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) messages: usize,
    pub(super) bytes: usize,
    pub(super) age: Duration,
}

/// Plain messages by run, in the order of their arrival, from when they are
/// read until their recorded copies were read, too. Pure: no I/O, no clock.
#[derive(Debug)]
pub(super) struct Buffer {
    bounds: Bounds,
    /// A Cluster brings messages of different nodes in any order.
    is_cluster: bool,
    runs: HashMap<RunId, RunEntries>,
    next_serial: u64,
    messages: usize,
    bytes: usize,
}

impl Buffer {
    pub(super) fn new(bounds: Bounds, is_cluster: bool) -> Self {
        Self {
            bounds,
            is_cluster,
            runs: HashMap::new(),
            next_serial: 0,
            messages: 0,
            bytes: 0,
        }
    }

    pub(super) fn messages(&self) -> usize {
        self.messages
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    // ---- what arrives ------------------------------------------------------

    /// Takes a plain message; says `false`, and drops it, when there is no
    /// room.
    pub(super) fn push(&mut self, message: PlainMessage, now: Instant) -> bool {
        let bytes = message.bytes();
        if let Some(run) = self.runs.get_mut(&message.run_id)
            && self.is_cluster
            && run.take_early(&message, now)
        {
            return true;
        }
        if self.messages >= self.bounds.messages || self.bytes + bytes > self.bounds.bytes {
            return false;
        }
        if !self.runs.contains_key(&message.run_id) {
            self.make_room_for_run();
            self.runs
                .insert(message.run_id.clone(), RunEntries::default());
        }
        let Some(run) = self.runs.get_mut(&message.run_id) else {
            return false;
        };
        run.used_at = Some(now);
        run.entries.push_back(Entry {
            serial: self.next_serial,
            received_at: now,
            is_recorded: false,
            message,
        });
        self.next_serial += 1;
        self.messages += 1;
        self.bytes += bytes;
        true
    }

    /// Of so many runs those without messages are forgotten: they are fenced
    /// anew when they have some.
    fn make_room_for_run(&mut self) {
        if self.runs.len() >= self.bounds.messages {
            self.runs.retain(|_, run| !run.is_idle());
        }
    }

    /// Strikes out the oldest message that `copy` is the record of; says
    /// whether there was one.
    pub(super) fn strike(
        &mut self,
        run_id: &str,
        copy: &FramedEvent<'_>,
        whole: &Bytes,
        now: Instant,
    ) -> bool {
        let Some(run) = self.runs.get_mut(run_id) else {
            return false;
        };
        let at = run.entries.iter().position(|entry| entry.message.is(copy));
        let Some(at) = at else {
            if self.is_cluster && run.early.len() < EARLY_MAX {
                run.early.push_back((now, whole.clone()));
            }
            return false;
        };
        if self.is_cluster {
            self.remove_at(run_id, at);
        } else {
            // One server brings everybody the same order, and a recorder keeps
            // it: what stands before was refused, and is no longer wanted.
            for _ in 0..=at {
                self.remove_at(run_id, 0);
            }
        }
        true
    }

    fn remove_at(&mut self, run_id: &str, at: usize) -> Option<Entry> {
        let run = self.runs.get_mut(run_id)?;
        let entry = match at {
            0 => run.entries.pop_front(),
            at => run.entries.remove(at),
        }?;
        self.messages -= 1;
        self.bytes -= entry.message.bytes();
        Some(entry)
    }

    // ---- recording ---------------------------------------------------------

    /// Returns the runs that have messages to record.
    pub(super) fn waiting(&self) -> Vec<RunId> {
        let waits = |run: &RunEntries| run.entries.iter().any(|entry| !entry.is_recorded);
        let runs = self.runs.iter().filter(|(_, run)| waits(run));
        runs.map(|(run_id, _)| run_id.clone()).collect()
    }

    /// Returns when the oldest message that is not recorded was received.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let oldest = |run: &RunEntries| {
            let first = run.entries.iter().find(|entry| !entry.is_recorded);
            first.map(|entry| entry.received_at)
        };
        self.runs.values().filter_map(oldest).min()
    }

    /// Begins the next step of a run, which is busy with it then.
    pub(super) fn next_step(&mut self, run_id: &RunId) -> Step {
        let Some(run) = self.runs.get_mut(run_id) else {
            return Step::Nothing;
        };
        if run.is_busy {
            return Step::Nothing;
        }
        let entries = run.entries.iter().filter(|entry| !entry.is_recorded);
        let mut entries = entries.peekable();
        if entries.peek().is_none() {
            return Step::Nothing;
        }
        let first_seq = match run.standing {
            Standing::Open => {
                run.is_busy = true;
                run.standing = Standing::Fencing {
                    last_seq: None,
                    noticed: false,
                };
                return Step::Fence;
            }
            Standing::Fencing { .. } => return Step::Nothing,
            Standing::Fenced { next_seq } => next_seq,
        };
        let mut batch = Batch {
            first_seq,
            serials: Vec::new(),
            events: Vec::new(),
        };
        let mut bytes = 0;
        for entry in entries {
            bytes += entry.message.payload.len();
            let is_full = batch.events.len() >= BATCH_EVENTS_MAX || bytes > BATCH_BYTES_MAX;
            if is_full && !batch.events.is_empty() {
                break;
            }
            batch.serials.push(entry.serial);
            batch.events.push(entry.message.event());
        }
        run.is_busy = true;
        Step::Append(batch)
    }

    /// The run may take its next step.
    pub(super) fn free(&mut self, run_id: &RunId) {
        if let Some(run) = self.runs.get_mut(run_id) {
            run.is_busy = false;
        }
    }

    /// The fence of a run stands; the last number that we gave before.
    pub(super) fn fence_answered(&mut self, run_id: &RunId, seq: u64) {
        self.fence_progress(run_id, |last_seq, _| *last_seq = Some(seq));
    }

    /// The subscription brought all that older recorders wrote to a run.
    pub(super) fn fence_noticed(&mut self, run_id: &RunId) {
        self.fence_progress(run_id, |_, noticed| *noticed = true);
    }

    fn fence_progress(&mut self, run_id: &RunId, note: impl FnOnce(&mut Option<u64>, &mut bool)) {
        let Some(run) = self.runs.get_mut(run_id) else {
            return;
        };
        if let Standing::Fencing { last_seq, noticed } = &mut run.standing {
            note(last_seq, noticed);
            if let (Some(seq), true) = (*last_seq, *noticed) {
                run.standing = Standing::Fenced { next_seq: seq + 1 };
            }
        }
    }

    /// The fence of a run could not be set up; it is tried again.
    pub(super) fn fence_failed(&mut self, run_id: &RunId) {
        if let Some(run) = self.runs.get_mut(run_id) {
            run.standing = Standing::Open;
        }
    }

    /// Notes what became of a batch. Returns how many of its events are lost:
    /// one of unknown fate before one that was recorded is not tried again,
    /// for its number is too low now.
    pub(super) fn appended(
        &mut self,
        run_id: &RunId,
        first_seq: u64,
        results: impl Iterator<Item = (u64, Outcome)>,
    ) -> u64 {
        let results: Vec<_> = results.collect();
        let is_recorded = |(_, outcome): &(u64, Outcome)| *outcome == Outcome::Recorded;
        let tried = results.iter().rposition(is_recorded).map_or(0, |at| at + 1);
        let Some(run) = self.runs.get_mut(run_id) else {
            return 0;
        };
        if let Standing::Fenced { next_seq } = &mut run.standing {
            *next_seq = (*next_seq).max(first_seq + tried as u64);
        }
        let mut lost = 0;
        for (index, (serial, outcome)) in results.into_iter().enumerate() {
            let at = |run: &RunEntries| run.entries.binary_search_by_key(&serial, |e| e.serial);
            let Some(Ok(at)) = self.runs.get(run_id).map(at) else {
                continue;
            };
            match outcome {
                Outcome::Recorded => {
                    if let Some(run) = self.runs.get_mut(run_id) {
                        run.entries[at].is_recorded = true;
                    }
                }
                Outcome::Unknown if index >= tried => {}
                Outcome::Unknown => {
                    lost += 1;
                    self.remove_at(run_id.as_str(), at);
                }
                Outcome::Refused => {
                    self.remove_at(run_id.as_str(), at);
                }
            }
        }
        lost
    }

    /// We are not the recorder any more, or for the first time: runs have to
    /// be fenced anew.
    pub(super) fn open_all(&mut self) {
        for run in self.runs.values_mut() {
            run.standing = Standing::Open;
            run.is_busy = false;
        }
    }

    // ---- what leaves -------------------------------------------------------

    /// Copies are missed from now on: what was recorded is not waited for.
    pub(super) fn forget_recorded(&mut self) {
        for run in self.runs.values_mut() {
            run.early.clear();
            run.entries.retain(|entry| {
                if entry.is_recorded {
                    self.messages -= 1;
                    self.bytes -= entry.message.bytes();
                }
                !entry.is_recorded
            });
        }
    }

    /// Drops what is too old, and runs without use. Returns how many messages
    /// went that were not recorded.
    pub(super) fn expire(&mut self, now: Instant) -> u64 {
        let too_old = |at: Instant| now.saturating_duration_since(at) > self.bounds.age;
        let mut dropped = 0;
        self.runs.retain(|_, run| {
            while let Some(entry) = run.entries.front()
                && too_old(entry.received_at)
            {
                dropped += u64::from(!entry.is_recorded);
                self.messages -= 1;
                self.bytes -= entry.message.bytes();
                run.entries.pop_front();
            }
            run.forget_early(now);
            !(run.is_idle() && run.used_at.is_none_or(too_old))
        });
        dropped
    }
}

impl RunEntries {
    fn is_idle(&self) -> bool {
        self.entries.is_empty() && !self.is_busy && self.early.is_empty()
    }

    /// Whether a copy of the message came before it.
    fn take_early(&mut self, message: &PlainMessage, now: Instant) -> bool {
        self.forget_early(now);
        let is_copy = |copy: &Bytes| FramedEvent::parse(copy).is_ok_and(|copy| message.is(&copy));
        let at = self.early.iter().position(|(_, copy)| is_copy(copy));
        at.and_then(|at| self.early.remove(at)).is_some()
    }

    fn forget_early(&mut self, now: Instant) {
        while let Some((at, _)) = self.early.front()
            && now.saturating_duration_since(*at) > EARLY_MAX_AGE
        {
            self.early.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
