//! The sending half of `runcast publish` and `runcast exec`: numbered events
//! go to a run's store in order, and each until its fate is known.

mod lines;
mod sender;

use runcast_actors::broker::NewEvent;

pub(crate) use lines::LineSplitter;
pub(crate) use sender::{Sender, Settled, Trouble};

/// An event and its producer's number of it, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Numbered {
    /// A jump to the next one means events that never got here.
    pub(crate) seq: u64,
    /// What is published.
    pub(crate) event: NewEvent,
}

/// Most events sent to the store in one pipeline.
pub(crate) const BATCH_EVENTS_MAX: usize = 512;

/// Most payload bytes sent in one pipeline; one event always fits.
pub(crate) const BATCH_BYTES_MAX: usize = 1024 * 1024;
