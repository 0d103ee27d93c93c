//! What an archived run looks like. Pure.
//!
//! ```text
//! zstd frame: the first line, what is known of the run     {"runcast_archive":1,"run_id":"42",…}
//! zstd frame: a block of lines, one for each event         {"id":"…","kind":"output","source":"stdout","data":{"step":1}}
//! zstd frame: the next block
//! skippable frame: index of the blocks, compressed; its length; RCARCHV1
//! ```
//! So `zstd -dc` shows the whole as NDJSON, and a page is read with two ranges:
//! the end, and the block it lies in. Each frame has a checksum.

mod block;
mod index;
mod line;
mod meta;

pub(super) use block::{BlockMaker, unpack_block};
pub(super) use index::{BlockPlace, INDEX_BYTES_GUESSED, Index, IndexTail};
pub(super) use meta::Meta;

use crate::archive::error::ArchiveError;

/// Level of compression: higher ones take several times as long and gain a few
/// percent on such text.
const LEVEL: i32 = 3;

/// Compresses to one frame with a checksum.
pub(super) fn pack(bytes: &[u8]) -> Vec<u8> {
    let mut packer = zstd::bulk::Compressor::new(LEVEL).expect("a level there is");
    packer.include_checksum(true).expect("an option there is");
    packer.compress(bytes).expect("the output grows as it must")
}

/// Unpacks one frame that is to have so many bytes at most.
fn unpack(frame: &[u8], bytes_max: usize) -> Result<Vec<u8>, ArchiveError> {
    zstd::bulk::decompress(frame, bytes_max)
        .map_err(|_| ArchiveError::Damaged("a block cannot be unpacked"))
}
