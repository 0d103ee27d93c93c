//! History: pages of a run's durable events, read from its store.
//!
//! [`standing`] judges a cursor against what is kept and [`collector`] turns
//! stored events into what a page shows; both are pure. [`History`] reads.

mod collector;
mod query;
mod reader;
mod standing;

pub use query::{HistoryEvent, HistoryFrom, HistoryPage, HistoryQuery};
pub(crate) use reader::History;
