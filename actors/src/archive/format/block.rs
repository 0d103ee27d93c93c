//! [`BlockMaker`]: lines gathered to blocks of a bounded size.

use super::index::BlockPlace;
use super::line::{read_line, write_line};
use super::{pack, unpack};
use crate::archive::error::ArchiveError;
use crate::store::StoredEvent;

/// Bytes of lines after which a block is full. A page of a stream takes a
/// quarter of it; larger ones compress hardly better.
const BLOCK_BYTES: usize = 256 * 1024;

/// Gathers events, in order, to the next block.
#[derive(Debug, Default)]
pub(in crate::archive) struct BlockMaker {
    lines: Vec<u8>,
    place: Option<BlockPlace>,
}

impl BlockMaker {
    /// Adds an event.
    pub(in crate::archive) fn push(&mut self, event: &StoredEvent) {
        write_line(event, &mut self.lines);
        let place = self.place.get_or_insert_with(|| BlockPlace::at(event.id));
        place.last = event.id;
        place.events += 1;
    }

    /// Whether the block is to be taken.
    pub(in crate::archive) fn is_full(&self) -> bool {
        self.lines.len() >= BLOCK_BYTES
    }

    /// Takes the block packed, with its place, whose offset is still open.
    /// `None` if nothing was added.
    pub(in crate::archive) fn take(&mut self) -> Option<FullBlock> {
        let mut place = self.place.take()?;
        place.lines_bytes = self.lines.len() as u64;
        Some(FullBlock {
            lines: std::mem::take(&mut self.lines),
            place,
        })
    }
}

/// A block that is to be packed: that takes about a millisecond.
#[derive(Debug)]
pub(in crate::archive) struct FullBlock {
    lines: Vec<u8>,
    place: BlockPlace,
}

impl FullBlock {
    /// Packs it.
    pub(in crate::archive) fn pack(mut self) -> (Vec<u8>, BlockPlace) {
        let frame = pack(&self.lines);
        self.place.bytes = frame.len() as u64;
        (frame, self.place)
    }
}

/// Reads the events of a block.
pub(in crate::archive) fn unpack_block(
    frame: &[u8],
    place: &BlockPlace,
) -> Result<Vec<StoredEvent>, ArchiveError> {
    let lines = unpack(frame, place.lines_bytes as usize)?;
    let events: Result<Vec<_>, _> = lines
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(read_line)
        .collect();
    let events = events?;
    let follow_on = events.is_sorted_by(|one, two| one.id.seq < two.id.seq);
    let ends = events.first().zip(events.last());
    let is_whole =
        ends.is_some_and(|(first, last)| first.id == place.first && last.id == place.last);
    match follow_on && is_whole && events.len() as u64 == place.events {
        true => Ok(events),
        false => Err(ArchiveError::Damaged(
            "a block holds other events than its index says",
        )),
    }
}
