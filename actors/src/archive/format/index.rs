//! [`Index`]: where the blocks of an object lie; the last thing in it.

use serde::{Deserialize, Serialize};

use super::{Meta, pack, unpack};
use crate::archive::error::ArchiveError;
use crate::protocol::{DurableId, RunId};

/// Begins a frame that zstd skips.
const SKIPPABLE: u32 = 0x184D_2A5A;

/// Ends an object.
const MAGIC: &[u8; 8] = b"RCARCHV1";

/// Bytes of the index' length and of the magic.
const TAIL_BYTES: usize = 4 + MAGIC.len();

/// Bytes read from the end of an object at first: most indexes are smaller.
pub(in crate::archive) const INDEX_BYTES_GUESSED: u64 = 16 * 1024;

/// No index is longer, nor has more to unpack: a block takes about 40 bytes.
const INDEX_BYTES_MAX: usize = 64 * 1024 * 1024;

/// No block has more lines to unpack: the largest event there may be, each byte
/// of it escaped, and what came before it.
const LINES_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// Where a block lies in its object, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::archive) struct BlockPlace {
    /// Its first byte.
    pub(in crate::archive) offset: u64,
    /// Its bytes.
    pub(in crate::archive) bytes: u64,
    /// Those of its lines, once unpacked.
    pub(in crate::archive) lines_bytes: u64,
    /// How many events.
    pub(in crate::archive) events: u64,
    /// The first of them.
    pub(in crate::archive) first: DurableId,
    /// The last.
    pub(in crate::archive) last: DurableId,
}

impl BlockPlace {
    /// A block that begins with this event.
    pub(in crate::archive) fn at(first: DurableId) -> Self {
        Self {
            offset: 0,
            bytes: 0,
            lines_bytes: 0,
            events: 0,
            first,
            last: first,
        }
    }
}

/// What is known of the run, and where its blocks are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::archive) struct Index {
    /// The first line once more.
    pub(in crate::archive) meta: Meta,
    /// In order.
    pub(in crate::archive) blocks: Vec<BlockPlace>,
}

/// A block as it is written: offset, bytes, bytes of its lines, events, seq and
/// µs of the first, seq and µs of the last.
type Row = [u64; 8];

#[derive(Serialize, Deserialize)]
struct Written {
    meta: Meta,
    blocks: Vec<Row>,
}

impl Index {
    /// As the frame that ends an object.
    pub(in crate::archive) fn frame(&self) -> Vec<u8> {
        let row = |block: &BlockPlace| {
            let (first, last) = (block.first, block.last);
            let sizes = [block.offset, block.bytes, block.lines_bytes, block.events];
            let [a, b, c, d] = sizes;
            [a, b, c, d, first.seq, first.us, last.seq, last.us]
        };
        let written = Written {
            meta: self.meta.clone(),
            blocks: self.blocks.iter().map(row).collect(),
        };
        let json = serde_json::to_vec(&written).expect("writing to memory cannot fail");
        let packed = pack(&json);
        let bytes = |count: usize| (count as u32).to_le_bytes();
        let mut frame = Vec::with_capacity(8 + packed.len() + TAIL_BYTES);
        frame.extend_from_slice(&SKIPPABLE.to_le_bytes());
        frame.extend_from_slice(&bytes(packed.len() + TAIL_BYTES));
        frame.extend_from_slice(&packed);
        frame.extend_from_slice(&bytes(packed.len()));
        frame.extend_from_slice(MAGIC);
        frame
    }

    /// Bytes it takes in memory, about.
    pub(in crate::archive) fn cost(&self) -> usize {
        512 + self.blocks.len() * size_of::<BlockPlace>()
    }
}

/// The end of an object.
#[derive(Debug)]
pub(in crate::archive) enum IndexTail {
    /// The index.
    Whole(Box<Index>),
    /// It needs so many bytes of the end.
    Longer(u64),
}

impl IndexTail {
    /// Reads the end of an object of `run_id`.
    pub(in crate::archive) fn read(end: &[u8], run_id: &RunId) -> Result<Self, ArchiveError> {
        let damaged = ArchiveError::Damaged;
        let rest = end.strip_suffix(MAGIC).ok_or(damaged("it has no end"))?;
        let (rest, length) = rest
            .split_last_chunk::<4>()
            .ok_or(damaged("it has no end"))?;
        let length = u32::from_le_bytes(*length) as usize;
        if length > INDEX_BYTES_MAX {
            return Err(damaged("its index is too long"));
        }
        let Some(start) = rest.len().checked_sub(length) else {
            return Ok(Self::Longer((length + TAIL_BYTES) as u64));
        };
        let json = unpack(&rest[start..], INDEX_BYTES_MAX)?;
        let written: Written =
            serde_json::from_slice(&json).map_err(|_| damaged("its index cannot be read"))?;
        let index = Index::of(written).filter(|index| index.is_good(run_id));
        let index = index.ok_or(damaged("its index makes no sense"))?;
        Ok(Self::Whole(Box::new(index)))
    }
}

impl Index {
    fn of(written: Written) -> Option<Self> {
        let epoch = written.meta.last()?.epoch;
        let block = |row: &Row| {
            let [
                offset,
                bytes,
                lines_bytes,
                events,
                first,
                first_us,
                last,
                last_us,
            ] = *row;
            let id = |seq, us| DurableId { epoch, seq, us };
            BlockPlace {
                offset,
                bytes,
                lines_bytes,
                events,
                first: id(first, first_us),
                last: id(last, last_us),
            }
        };
        Some(Self {
            blocks: written.blocks.iter().map(block).collect(),
            meta: written.meta,
        })
    }

    fn is_good(&self, run_id: &RunId) -> bool {
        let blocks = &self.blocks;
        let in_order = blocks.is_sorted_by(|one, two| one.last.seq < two.first.seq);
        let sound = |block: &BlockPlace| {
            block.first.seq <= block.last.seq
                && (1..=LINES_BYTES_MAX).contains(&block.lines_bytes)
                && (1..=LINES_BYTES_MAX).contains(&block.bytes)
                && block.offset.checked_add(block.bytes).is_some()
        };
        self.meta.is_of(run_id) && in_order && blocks.iter().all(sound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Closed, Head};

    fn id(seq: u64) -> DurableId {
        DurableId {
            epoch: 7,
            seq,
            us: 7000 + seq,
        }
    }

    fn run_id() -> RunId {
        RunId::parse("42").expect("a run id")
    }

    fn index(blocks: u64) -> Index {
        let closed = Closed {
            status: "failed".to_owned(),
            at_us: 1,
            sealed_us: 2,
        };
        let head = Head {
            last: id(blocks * 10),
            counts: [1, 2, 3],
            status: Some("Failed".to_owned()),
            closed: Some(closed.clone()),
            now_us: 3,
        };
        let block = |n: u64| BlockPlace {
            offset: n * 100,
            bytes: 100,
            lines_bytes: 1000,
            events: 10,
            first: id(n * 10 + 1),
            last: id(n * 10 + 10),
        };
        Index {
            meta: Meta::new(&run_id(), &head, &closed, id(1)),
            blocks: (0..blocks).map(block).collect(),
        }
    }

    #[test]
    fn an_index_comes_back_whatever_stands_before_it() {
        let index = index(500);
        let frame = index.frame();
        let mut end = b"before".to_vec();
        end.extend_from_slice(&frame);
        let Ok(IndexTail::Whole(read)) = IndexTail::read(&end, &run_id()) else {
            panic!("it is whole");
        };
        assert_eq!(*read, index);
        let head = read.meta.head(0).expect("a head");
        assert!(head.is_sealed());
        let part = &frame[frame.len() - 20..];
        let Ok(IndexTail::Longer(bytes)) = IndexTail::read(part, &run_id()) else {
            panic!("more is needed");
        };
        assert_eq!(bytes as usize, frame.len() - 8);
    }

    /// Whatever byte is another: an error, or none that matters.
    #[test]
    fn a_damaged_index_is_refused() {
        let index = index(3);
        let frame = index.frame();
        for at in 0..frame.len() {
            let mut end = frame.clone();
            end[at] ^= 0x41;
            match IndexTail::read(&end, &run_id()) {
                Ok(IndexTail::Whole(read)) => assert!(at < 8 && *read == index, "at {at}"),
                Ok(IndexTail::Longer(_)) | Err(_) => {}
            }
            assert!(IndexTail::read(&frame[..at], &run_id()).is_err());
        }
        let other = RunId::parse("43").expect("a run id");
        assert!(IndexTail::read(&frame, &other).is_err());
    }
}
