//! The archive: histories of runs that ended, as compressed NDJSON in a
//! directory or an S3-compatible bucket, served from there when their store
//! has forgotten them. `docs/archive.md` says what is promised.
//!
//! `format` is pure: events as lines, lines as blocks, the index behind them.
//! [`ArchivedStore`] stands before a store and reads the archive where that
//! knows nothing; `archivist` writes, `retention` removes. A hub notes that its
//! run ends, and knows no more of it; sessions and HTTP know nothing.

mod archived_store;
mod archivist;
mod duty;
mod error;
mod format;
mod objects;
mod place;
mod queue;
mod reader;
mod retention;
mod s3_client;
mod writer;

pub(crate) use archived_store::{ArchivedStore, archived_for};
pub(crate) use archivist::{Archivist, keep_archive};
pub(crate) use duty::{ArchiveDuty, Claim, Owed, OwedFrom};
pub(crate) use place::reach;
pub use place::{BadArchive, check};
