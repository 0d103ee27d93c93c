//! [`Spool`]: what the command has written and Redis has not yet taken.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::disk_ring::{DiskRing, Record};
use super::settings::ExecSettings;
use crate::producer::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX};

/// What a line in memory costs beside its bytes.
const LINE_OVERHEAD: usize = 96;

/// What a line of the spool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A line of the command's stdout.
    Stdout,
    /// A line of its stderr.
    Stderr,
    /// A status of the run, from us.
    Status,
}

impl Origin {
    const ALL: [Self; 3] = [Self::Stdout, Self::Stderr, Self::Status];

    fn of_tag(tag: u8) -> Self {
        let known = Self::ALL.into_iter().find(|origin| *origin as u8 == tag);
        known.expect("we wrote the tag")
    }
}

/// A line and its number, given when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// From 1; counts lines that were dropped, too.
    pub(super) seq: u64,
    /// Where it is from.
    pub(super) origin: Origin,
    /// At most `limits.max_event_bytes`.
    pub(super) payload: Bytes,
}

/// A queue that never makes its writer wait for its reader: in memory first,
/// then on disk; when both are full the newest lines are dropped and counted.
/// Each line has a number, so that the dropped ones show as a jump.
///
/// A line goes to disk only when memory is full, and from then on all do until
/// the disk is empty again: memory always holds the older ones.
#[derive(Debug)]
pub(super) struct Spool {
    memory_bytes_max: usize,
    state: Mutex<State>,
    filled: Notify,
    dropped: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Number of the last line.
    seq: u64,
    memory: VecDeque<Line>,
    memory_bytes: usize,
    disk: Option<DiskRing>,
    dropped: u64,
    /// Why the disk could not be used, the last time it was to be.
    disk_fault: Option<String>,
    /// The run's last status: it has its place when nothing else has.
    last: Option<Line>,
    is_closed: bool,
    /// Lines that came after nobody wanted any more, if so.
    abandoned: Option<u64>,
}

impl Spool {
    /// Makes an empty one, and its file. Without a file (the fault says why)
    /// it holds what fits in memory.
    pub(super) fn new(settings: &ExecSettings) -> (Self, Option<io::Error>) {
        let capacity = settings.spool_disk_bytes.as_u64();
        let (disk, fault) = match capacity {
            0 => (None, None),
            _ => match DiskRing::create(&directory(settings), capacity) {
                Ok(disk) => (Some(disk), None),
                Err(error) => (None, Some(error)),
            },
        };
        let spool = Self {
            memory_bytes_max: settings.spool_memory_bytes.as_u64() as usize,
            state: Mutex::new(State {
                disk,
                ..State::default()
            }),
            filled: Notify::new(),
            dropped: Notify::new(),
        };
        (spool, fault)
    }

    /// Appends lines; never waits for Redis. What does not fit is dropped.
    pub(super) fn push(&self, origin: Origin, payloads: impl IntoIterator<Item = Bytes>) {
        let mut state = self.lock();
        let dropped = state.dropped;
        for payload in payloads {
            state.push(origin, payload, self.memory_bytes_max);
        }
        state.commit();
        if state.dropped > dropped {
            self.dropped.notify_one();
        }
        drop(state);
        self.filled.notify_one();
    }

    /// Appends the run's last status, which always fits, and closes the spool:
    /// nothing comes after it.
    pub(super) fn close(&self, status: Bytes) {
        let mut state = self.lock();
        if !state.is_closed {
            state.is_closed = true;
            let seq = state.next_seq();
            let line = Line {
                seq,
                origin: Origin::Status,
                payload: status,
            };
            match &mut state.abandoned {
                Some(lines) => *lines += 1,
                None => state.last = Some(line),
            }
        }
        drop(state);
        self.filled.notify_one();
    }

    /// Forgets all lines, these and those to come, but for their number.
    pub(super) fn abandon(&self) {
        let lines = self.len();
        let mut state = self.lock();
        state.abandoned = Some(lines);
        (state.memory, state.memory_bytes) = (VecDeque::new(), 0);
        (state.disk, state.last) = (None, None);
    }

    /// Takes the oldest lines, as many as are sent together; waits for the
    /// first. `None` when it is closed and empty. For one reader.
    pub(super) async fn take(&self) -> Option<Vec<Line>> {
        loop {
            {
                let mut state = self.lock();
                let lines = state.take();
                if !lines.is_empty() {
                    return Some(lines);
                }
                if state.is_closed {
                    return None;
                }
            }
            self.filled.notified().await;
        }
    }

    /// Waits until lines have been dropped since the last call. For one caller.
    pub(super) async fn has_dropped(&self) {
        self.dropped.notified().await;
    }

    /// How many lines were dropped so far, and why the disk took none, if that
    /// is not for want of room.
    pub(super) fn dropped(&self) -> (u64, Option<String>) {
        let state = self.lock();
        (state.dropped, state.disk_fault.clone())
    }

    /// How many lines wait, or were abandoned.
    pub(super) fn len(&self) -> u64 {
        let state = self.lock();
        if let Some(lines) = state.abandoned {
            return lines;
        }
        let on_disk = state.disk.as_ref().map_or(0, DiskRing::len);
        state.memory.len() as u64 + on_disk + u64::from(state.last.is_some())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    fn push(&mut self, origin: Origin, payload: Bytes, memory_bytes_max: usize) {
        let seq = self.next_seq();
        let size = payload.len() + LINE_OVERHEAD;
        let line = Line {
            seq,
            origin,
            payload,
        };
        if let Some(lines) = &mut self.abandoned {
            *lines += 1;
            return;
        }
        if self.is_closed {
            self.dropped += 1;
            return;
        }
        let is_disk_empty = self.disk.as_ref().is_none_or(|disk| disk.len() == 0);
        if is_disk_empty && self.memory_bytes + size <= memory_bytes_max {
            self.memory_bytes += size;
            self.memory.push_back(line);
        } else if !self.push_to_disk(line) {
            self.dropped += 1;
        }
    }

    fn push_to_disk(&mut self, line: Line) -> bool {
        let Some(disk) = &mut self.disk else {
            return false;
        };
        let record = Record {
            seq: line.seq,
            tag: line.origin as u8,
            payload: line.payload,
        };
        disk.push(&record)
    }

    /// Writes what was pushed to disk; drops it if that fails.
    fn commit(&mut self) {
        let committed = self.disk.as_mut().map(DiskRing::commit);
        if let Some(Err((lines, error))) = committed {
            self.disk_fault = Some(error.to_string());
            self.dropped += lines;
        }
    }

    fn take(&mut self) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut bytes = 0;
        while lines.len() < BATCH_EVENTS_MAX && bytes < BATCH_BYTES_MAX {
            let Some(line) = self.take_one() else {
                break;
            };
            bytes += line.payload.len();
            lines.push(line);
        }
        lines
    }

    fn take_one(&mut self) -> Option<Line> {
        if let Some(line) = self.memory.pop_front() {
            self.memory_bytes -= line.payload.len() + LINE_OVERHEAD;
            return Some(line);
        }
        self.take_from_disk().or_else(|| self.last.take())
    }

    /// A file that cannot be read back is emptied; its lines are dropped, and
    /// the jump in the numbers tells them.
    fn take_from_disk(&mut self) -> Option<Line> {
        let disk = self.disk.as_mut()?;
        let lines = disk.len();
        match disk.pop() {
            Ok(record) => record.map(|record| Line {
                seq: record.seq,
                origin: Origin::of_tag(record.tag),
                payload: record.payload,
            }),
            Err(error) => {
                self.disk_fault = Some(error.to_string());
                self.dropped += lines;
                // It is empty whether the file could be cut or not.
                let _ = disk.clear();
                None
            }
        }
    }
}

fn directory(settings: &ExecSettings) -> std::path::PathBuf {
    if settings.spool_dir.is_empty() {
        std::env::temp_dir()
    } else {
        Path::new(&settings.spool_dir).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use bytesize::ByteSize;

    use super::*;

    fn spool(memory_lines: usize, disk_bytes: u64) -> Spool {
        let line_bytes = (LINE_OVERHEAD + 1) as u64;
        let settings = ExecSettings {
            spool_memory_bytes: ByteSize(memory_lines as u64 * line_bytes),
            spool_disk_bytes: ByteSize(disk_bytes),
            ..ExecSettings::default()
        };
        let (spool, fault) = Spool::new(&settings);
        assert!(fault.is_none());
        spool
    }

    fn push(spool: &Spool, letters: &str) {
        let payload = |letter: char| Bytes::from(letter.to_string());
        spool.push(Origin::Stdout, letters.chars().map(payload));
    }

    fn taken(lines: Vec<Line>) -> Vec<(u64, String)> {
        let text = |line: Line| {
            let text = String::from_utf8(line.payload.to_vec()).expect("letters");
            (line.seq, text)
        };
        lines.into_iter().map(text).collect()
    }

    fn numbered(lines: &[(u64, &str)]) -> Vec<(u64, String)> {
        let owned = |(seq, text): &(u64, &str)| (*seq, (*text).to_owned());
        lines.iter().map(owned).collect()
    }

    #[tokio::test]
    async fn memory_then_disk_then_nothing_and_out_in_order() {
        // Two lines in memory, three of 14 bytes on disk.
        let spool = spool(2, 42);
        push(&spool, "abcdefg");
        assert_eq!((spool.len(), spool.dropped().0), (5, 2));
        spool.has_dropped().await;
        let first = taken(spool.take().await.expect("open"));
        let kept = [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "e")];
        assert_eq!(first, numbered(&kept));
        push(&spool, "h");
        let jump = taken(spool.take().await.expect("open"));
        assert_eq!(jump, numbered(&[(8, "h")]));
    }

    #[tokio::test]
    async fn while_lines_are_on_disk_new_ones_follow_them_there() {
        let spool = spool(2, 1000);
        push(&spool, "abc");
        assert_eq!(spool.lock().take_one().expect("a line").payload, "a");
        push(&spool, "d");
        let rest = taken(spool.take().await.expect("open"));
        assert_eq!(rest, numbered(&[(2, "b"), (3, "c"), (4, "d")]));
        push(&spool, "e");
        assert_eq!(spool.lock().memory.len(), 1, "memory is used again");
    }

    #[tokio::test]
    async fn the_last_status_fits_always_and_ends_it() {
        let spool = spool(1, 0);
        push(&spool, "ab");
        spool.close(Bytes::from_static(b"z"));
        push(&spool, "c");
        spool.close(Bytes::from_static(b"y"));
        assert_eq!(spool.len(), 2);
        let lines = taken(spool.take().await.expect("not empty"));
        assert_eq!(lines, numbered(&[(1, "a"), (3, "z")]));
        assert_eq!(spool.take().await, None);
        assert_eq!(spool.dropped().0, 2);
    }

    #[tokio::test]
    async fn what_nobody_wants_is_only_counted() {
        let spool = spool(1, 1000);
        push(&spool, "ab");
        spool.abandon();
        push(&spool, "cd");
        spool.close(Bytes::from_static(b"z"));
        assert_eq!((spool.len(), spool.dropped().0), (5, 0));
        assert_eq!(spool.take().await, None);
    }

    /// The record that could not be written is dropped, and told why.
    #[tokio::test]
    async fn a_full_disk_is_a_full_spool() {
        let spool = spool(1, 1000);
        spool.lock().disk = Some(DiskRing::on_full_disk());
        push(&spool, "abc");
        spool.has_dropped().await;
        let (dropped, fault) = spool.dropped();
        assert_eq!((spool.len(), dropped), (1, 2));
        assert!(fault.is_some_and(|fault| fault.contains("No space left")));
    }

    #[test]
    fn a_place_without_room_for_a_file_is_told() {
        let settings = ExecSettings {
            spool_dir: "/proc/no-such-place".to_owned(),
            ..ExecSettings::default()
        };
        let (spool, fault) = Spool::new(&settings);
        assert!(fault.is_some());
        push(&spool, "a");
        assert_eq!(spool.len(), 1);
    }
}
