//! What the order reads of logs and pages: ids.

use crate::protocol::{DurableId, Place};
use crate::store::{Head, Page};

/// What ids a log holds, newest branch only.
pub trait KnownIds {
    /// The `us` of the durable event number `seq` of `epoch`, if it is held.
    fn us_of(&self, epoch: u64, seq: u64) -> Option<u64>;

    /// The seq of the oldest durable event held, if there is one.
    fn oldest_seq(&self) -> Option<u64>;
}

/// The ids of a page of the store: all that the order looks at.
pub trait PageIds {
    /// The last event accepted; `None` if the store does not know the run.
    fn last(&self) -> Option<DurableId>;

    /// The oldest event kept.
    fn first(&self) -> Option<DurableId>;

    /// The event at the very seq asked for, if it is kept.
    fn anchor(&self) -> Option<DurableId>;

    /// Number of events in the page.
    fn len(&self) -> usize;

    /// Whether the page holds no event.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Id of event `index`, oldest first.
    fn id(&self, index: usize) -> DurableId;

    /// Whether more events lie beyond.
    fn more(&self) -> bool;
}

impl PageIds for Page {
    fn last(&self) -> Option<DurableId> {
        self.head.as_ref().map(|head: &Head| head.last)
    }

    fn first(&self) -> Option<DurableId> {
        self.first
    }

    fn anchor(&self) -> Option<DurableId> {
        self.anchor
    }

    fn len(&self) -> usize {
        self.events.len()
    }

    fn id(&self, index: usize) -> DurableId {
        self.events[index].id
    }

    fn more(&self) -> bool {
        self.more
    }
}

/// Whether a page read after `place` shows that the stream ends before it, or
/// holds another event at its seq.
pub(super) fn is_rewound(place: Place, page: &impl PageIds, last: DurableId) -> bool {
    if place.seq > last.seq {
        return true;
    }
    let Some(us) = place.us else { return false };
    let is_end = place.seq == last.seq && us != last.us;
    let is_other = page.anchor().is_some_and(|id| id.us != us);
    // Where the very event is trimmed, the next one may not be older.
    let is_older = page.anchor().is_none() && !page.is_empty() && page.id(0).us < us;
    is_end || is_other || is_older
}

/// Whether the event before `place`, of which only the number is known since it
/// was trimmed, is there again: the store came back with an older dump.
pub(super) fn is_back(place: Place, page: &impl PageIds) -> bool {
    place.us.is_none() && place.seq > 0 && page.anchor().is_some()
}

/// Whether a page read after `place` begins right after it, but its own event
/// is trimmed: another one may have stood there, and before it.
pub(super) fn is_unproven(place: Place, page: &impl PageIds) -> bool {
    place.id().is_some()
        && page.anchor().is_none()
        && !page.is_empty()
        && page.id(0).seq == place.seq + 1
}
