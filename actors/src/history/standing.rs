//! [`Standing`]: what a cursor is to what a store keeps of its run. Pure.

use crate::protocol::{DurableId, GapReason};
use crate::store::Page;

/// Where who has seen an event stands in the run's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// All that follows is kept.
    Known,
    /// So many events right beside the cursor are no longer kept.
    Missing(u64),
    /// The cursor's event is none of this history's.
    Foreign(GapReason),
}

impl Standing {
    /// Judges `seen` by the page that begins after its seq.
    pub(super) fn after(seen: DurableId, page: &Page) -> Self {
        let Some(head) = &page.head else {
            return Self::Foreign(GapReason::Expired);
        };
        if let Some(reason) = foreign(seen, page) {
            return Self::Foreign(reason);
        }
        let first = page.events.first().map(|event| event.id.seq);
        let next_seq = first.unwrap_or(head.last.seq + 1);
        Self::missing(next_seq.saturating_sub(seen.seq + 1))
    }

    /// Judges `seen` by the page that ends before `bound`, which is its seq or
    /// the one after it.
    pub(super) fn before(seen: DurableId, bound: u64, page: &Page) -> Self {
        if let Some(reason) = foreign(seen, page) {
            return Self::Foreign(reason);
        }
        let last_seq = page.events.last().map_or(0, |event| event.id.seq);
        Self::missing(bound.saturating_sub(last_seq + 1))
    }

    fn missing(count: u64) -> Self {
        match count {
            0 => Self::Known,
            count => Self::Missing(count),
        }
    }
}

/// Why `seen` is no event of the run as its store knows it, if it is none: the
/// µs tell it from another that took its seq after Redis forgot the first. An
/// epoch later than the store's was forgotten, too.
fn foreign(seen: DurableId, page: &Page) -> Option<GapReason> {
    let Some(head) = &page.head else {
        return Some(GapReason::Expired);
    };
    if head.last.epoch > seen.epoch {
        return Some(GapReason::Expired);
    }
    if head.last.epoch < seen.epoch || seen.seq > head.last.seq {
        return Some(GapReason::Rewound);
    }
    let kept = page.events.iter().map(|event| event.id);
    let mut at_seq = [page.anchor, Some(head.last)]
        .into_iter()
        .flatten()
        .chain(kept.clone())
        .filter(|id| id.seq == seen.seq);
    // Where the very event is gone, one that follows it may not be older.
    let is_older = |id: DurableId| id.seq > seen.seq && id.us < seen.us;
    let is_other = at_seq.any(|id| id.us != seen.us) || kept.clone().any(is_older);
    is_other.then_some(GapReason::Rewound)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::protocol::EventKind;
    use crate::store::{Head, StoredEvent};

    const EPOCH: u64 = 100;

    fn id(seq: u64) -> DurableId {
        DurableId {
            epoch: EPOCH,
            seq,
            us: 1000 + seq,
        }
    }

    /// A page of a run whose events 4..=9 are kept.
    fn page(anchor: Option<u64>, seqs: (u64, u64)) -> Page {
        let event = |seq| StoredEvent {
            id: id(seq),
            lost: 0,
            kind: EventKind::Output,
            source: String::new(),
            payload: Bytes::new(),
            trace: None,
        };
        Page {
            head: Some(Head {
                last: id(9),
                counts: [9, 0, 0],
                status: None,
                closed: None,
                now_us: 2000,
            }),
            first: Some(id(4)),
            anchor: anchor.map(id),
            events: (seqs.0..seqs.1).map(event).collect(),
            more: false,
        }
    }

    #[test]
    fn a_cursor_is_known_trimmed_or_foreign() {
        use Standing::{Foreign, Known, Missing};
        let other_us = DurableId { us: 1, ..id(6) };
        let other_epoch = DurableId { epoch: 99, ..id(6) };
        let later_epoch = DurableId {
            epoch: 101,
            ..id(6)
        };
        let later_us = DurableId { us: 9999, ..id(2) };
        let empty = (0, 0);
        for (seen, page, expected) in [
            (id(6), page(Some(6), (7, 10)), Known),
            (id(9), page(Some(9), empty), Known),
            (id(3), page(None, (4, 10)), Known),
            (id(1), page(None, (4, 10)), Missing(2)),
            // The stream is gone, the head is still there.
            (id(7), page(None, empty), Missing(2)),
            (id(9), page(None, empty), Known),
            // An entry was taken out by hand.
            (id(4), page(Some(4), (6, 10)), Missing(1)),
            (
                DurableId { us: 1, ..id(9) },
                page(None, empty),
                Foreign(GapReason::Rewound),
            ),
            (
                other_us,
                page(Some(6), (7, 10)),
                Foreign(GapReason::Rewound),
            ),
            (id(10), page(None, empty), Foreign(GapReason::Rewound)),
            (
                other_epoch,
                page(Some(6), (7, 10)),
                Foreign(GapReason::Expired),
            ),
            (
                later_epoch,
                page(Some(6), (7, 10)),
                Foreign(GapReason::Rewound),
            ),
            (later_us, page(None, (4, 10)), Foreign(GapReason::Rewound)),
            (id(6), Page::default(), Foreign(GapReason::Expired)),
        ] {
            assert_eq!(Standing::after(seen, &page), expected, "{seen} {page:?}");
        }
    }

    #[test]
    fn backwards_the_hole_lies_before_the_cursor() {
        use Standing::{Foreign, Known, Missing};
        let empty = (0, 0);
        for (seen, bound, page, expected) in [
            (id(7), 7, page(Some(7), (4, 7)), Known),
            (id(7), 8, page(Some(8), (4, 8)), Known),
            (id(4), 4, page(Some(4), empty), Missing(3)),
            (id(2), 2, page(None, empty), Missing(1)),
            (id(1), 1, page(None, empty), Known),
            (id(7), 7, page(Some(7), (4, 6)), Missing(1)),
            (
                DurableId { us: 1, ..id(7) },
                8,
                page(Some(8), (4, 8)),
                Foreign(GapReason::Rewound),
            ),
        ] {
            assert_eq!(
                Standing::before(seen, bound, &page),
                expected,
                "{seen} {page:?}"
            );
        }
    }
}
