//! [`DiskRing`]: records in a private file, first in, first out.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;

use bytes::Bytes;

/// Number, tag and length before each record's bytes.
const HEADER_BYTES: usize = 8 + 1 + 4;

/// One record of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// Its producer's number.
    pub(super) seq: u64,
    /// What kind of record it is, for the caller.
    pub(super) tag: u8,
    /// At most 4 GiB.
    pub(super) payload: Bytes,
}

/// A queue of records in a file of fixed size, written round and round. The
/// file has no name, so that nobody else opens it and nothing is left of it,
/// however the process ends.
#[derive(Debug)]
pub(super) struct DiskRing {
    file: File,
    capacity: u64,
    /// Offset of the oldest record.
    start: u64,
    bytes: u64,
    records: u64,
    /// Appended and not yet written.
    uncommitted: Vec<u8>,
    uncommitted_records: u64,
}

impl DiskRing {
    /// Makes an empty one of at most `capacity` bytes in directory `dir`.
    ///
    /// # Errors
    /// No file can be made there.
    pub(super) fn create(dir: &Path, capacity: u64) -> io::Result<Self> {
        let file = tempfile::tempfile_in(dir)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        Ok(Self::of(file, capacity))
    }

    fn of(file: File, capacity: u64) -> Self {
        Self {
            file,
            capacity,
            start: 0,
            bytes: 0,
            records: 0,
            uncommitted: Vec::new(),
            uncommitted_records: 0,
        }
    }

    /// One on a disk that is full.
    #[cfg(test)]
    pub(super) fn on_full_disk() -> Self {
        let file = File::options().read(true).write(true).open("/dev/full");
        Self::of(file.expect("Linux has it"), 1000)
    }

    /// How many records it holds.
    pub(super) fn len(&self) -> u64 {
        self.records + self.uncommitted_records
    }

    /// Appends a record, which is in the file after the next
    /// [`commit`](Self::commit); `false` if there is no room for it.
    pub(super) fn push(&mut self, record: &Record) -> bool {
        let size = (HEADER_BYTES + record.payload.len()) as u64;
        let Ok(length) = u32::try_from(record.payload.len()) else {
            return false;
        };
        if self.bytes + self.uncommitted.len() as u64 + size > self.capacity {
            return false;
        }
        self.uncommitted
            .extend_from_slice(&record.seq.to_le_bytes());
        self.uncommitted.push(record.tag);
        self.uncommitted.extend_from_slice(&length.to_le_bytes());
        self.uncommitted.extend_from_slice(&record.payload);
        self.uncommitted_records += 1;
        true
    }

    /// Writes what was appended, all of it at once: a call of the system for
    /// each line would hold the command up.
    ///
    /// # Errors
    /// The file cannot be written, for instance because the disk is full: how
    /// many records are not in it, and why. Those before are.
    pub(super) fn commit(&mut self) -> Result<(), (u64, io::Error)> {
        if self.uncommitted_records == 0 {
            return Ok(());
        }
        let records = std::mem::take(&mut self.uncommitted_records);
        let buffer = std::mem::take(&mut self.uncommitted);
        let (first, second) = buffer.split_at(self.until_wrap(self.bytes, buffer.len()));
        self.file
            .write_all_at(first, self.offset(self.bytes))
            .and_then(|()| self.file.write_all_at(second, 0))
            .map_err(|error| (records, error))?;
        self.bytes += buffer.len() as u64;
        self.records += records;
        Ok(())
    }

    /// Takes the oldest record that is in the file.
    ///
    /// # Errors
    /// The file cannot be read; use [`clear`](Self::clear) then.
    pub(super) fn pop(&mut self) -> io::Result<Option<Record>> {
        if self.records == 0 {
            return Ok(None);
        }
        let mut header = [0; HEADER_BYTES];
        self.read(0, &mut header)?;
        let (seq, rest) = header.split_first_chunk().expect("8 of 13 bytes");
        let (tag, length) = rest.split_first_chunk::<1>().expect("1 of 5 bytes");
        let length = u32::from_le_bytes(length.try_into().expect("4 bytes are left"));
        let mut payload = vec![0; length as usize];
        self.read(HEADER_BYTES as u64, &mut payload)?;
        let size = HEADER_BYTES as u64 + u64::from(length);
        self.start = self.offset(size);
        self.bytes -= size;
        self.records -= 1;
        if self.records == 0 {
            self.clear()?;
        }
        Ok(Some(Record {
            seq: u64::from_le_bytes(*seq),
            tag: tag[0],
            payload: payload.into(),
        }))
    }

    /// Forgets every record and gives the disk its room back.
    ///
    /// # Errors
    /// The file cannot be cut; the records are forgotten all the same.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        (self.start, self.bytes, self.records) = (0, 0, 0);
        self.file.set_len(0)
    }

    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let (first, second) = into.split_at_mut(self.until_wrap(at, into.len()));
        self.file.read_exact_at(first, self.offset(at))?;
        self.file.read_exact_at(second, 0)
    }

    /// Offset in the file of the byte `at` bytes after the oldest.
    fn offset(&self, at: u64) -> u64 {
        (self.start + at) % self.capacity
    }

    /// How many of `length` bytes at `at` stand before the end of the file.
    fn until_wrap(&self, at: u64, length: usize) -> usize {
        let room = self.capacity - self.offset(at);
        usize::try_from(room).map_or(length, |room| room.min(length))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn record(seq: u64, length: usize) -> Record {
        Record {
            seq,
            tag: (seq % 3) as u8,
            payload: vec![seq as u8; length].into(),
        }
    }

    fn ring(capacity: u64) -> DiskRing {
        DiskRing::create(&std::env::temp_dir(), capacity).expect("the directory is writable")
    }

    /// Against a queue in memory, with sizes and turns drawn at random: every
    /// place of the wrap comes up.
    #[test]
    fn records_come_out_as_they_went_in() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut ring = ring(257);
        let mut model = VecDeque::new();
        let mut refused = 0;
        for seq in 0..20_000 {
            if random.bool() {
                for _ in 0..random.usize(0..4) {
                    let record = record(seq, random.usize(0..60));
                    if ring.push(&record) {
                        model.push_back(record);
                    } else {
                        refused += 1;
                    }
                }
                ring.commit().expect("written");
            } else {
                assert_eq!(ring.pop().expect("read"), model.pop_front());
            }
            assert_eq!(ring.len(), model.len() as u64);
            assert!(ring.file.metadata().expect("open").len() <= 257);
        }
        assert!(refused > 100, "the file was never full");
    }

    #[test]
    fn the_file_is_private_nameless_and_gives_its_room_back() {
        let mut ring = ring(10_000);
        assert!(ring.push(&record(1, 5000)));
        assert!(!ring.push(&record(2, 5000)));
        ring.commit().expect("written");
        let metadata = ring.file.metadata().expect("open");
        assert_eq!(metadata.mode() & 0o777, 0o600);
        assert_eq!(metadata.nlink(), 0);
        assert_eq!(ring.pop().expect("read"), Some(record(1, 5000)));
        assert_eq!(ring.file.metadata().expect("open").len(), 0);
        assert_eq!(ring.pop().expect("read"), None);
    }
}
