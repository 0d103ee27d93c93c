//! What is asked of a run's history, and what is answered.

use crate::broker::StreamFilter;
use crate::protocol::{Cursor, DurableId, RunId};

/// A wish for a page of a run's history.
#[derive(Debug, Clone)]
pub struct HistoryQuery {
    /// The run.
    pub run_id: RunId,
    /// Where the page lies.
    pub from: HistoryFrom,
    /// Most events of the page that pass the filter, at least 1.
    pub limit: usize,
    /// Which events.
    pub filter: StreamFilter,
}

/// Where a page of history lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HistoryFrom {
    /// The oldest events kept.
    Oldest,
    /// The oldest events after a cursor.
    After(Cursor),
    /// The newest events before a cursor.
    Before(Cursor),
}

/// A page of a run's history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistoryPage {
    /// The events that pass the filter, oldest first, and a `gap` in each
    /// place where some are missing between them.
    pub events: Vec<HistoryEvent>,
    /// The cursor after which the next page begins; `None` if nothing more is
    /// kept there now.
    pub next: Option<String>,
    /// The cursor before which the previous page ends; `None` if nothing older
    /// is kept.
    pub previous: Option<String>,
    /// What is missing between the cursor asked for and the page, as the data
    /// of a `gap` event.
    pub gap: Option<String>,
}

impl HistoryPage {
    /// Returns the bytes of its events' data.
    pub fn bytes(&self) -> usize {
        self.events.iter().map(|event| event.data.len()).sum()
    }
}

/// What a stream would send as one frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEvent {
    /// The SSE `event`.
    pub event: &'static str,
    /// Its id; a gap has none.
    pub id: Option<DurableId>,
    /// One line of JSON, to the letter that of the stream's frame.
    pub data: String,
}
