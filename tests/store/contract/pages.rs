//! Reading a run's history in pages.

use super::*;

pub(crate) async fn forwards_to_the_end(backend: &impl Backend) {
    let store = backend.open(BrokerSettings::default());
    let ids = append_ok(&store, "42", outputs(300)).await;
    for size in [1, 7, 99, 300, 301] {
        let (mut at, mut seen) = (0, Vec::new());
        loop {
            let page = read(&store, "42", PageFrom::After(at), size).await;
            assert!(page.events.len() <= size && !page.events.is_empty());
            seen.extend(page.events.iter().map(|event| event.id));
            at = seen[seen.len() - 1].seq;
            assert_eq!(page.more, at < 300, "page of {size} to {at}");
            if !page.more {
                break;
            }
        }
        assert_eq!(seen, ids, "in pages of {size}");
    }
}

pub(crate) async fn backwards_to_the_beginning(backend: &impl Backend) {
    let store = backend.open(BrokerSettings::default());
    let ids = append_ok(&store, "42", outputs(300)).await;
    for size in [1, 7, 99, 300, 301] {
        let (mut at, mut seen) = (u64::MAX, Vec::new());
        loop {
            let page = read(&store, "42", PageFrom::Before(at), size).await;
            assert!(page.events.len() <= size);
            // Each page is oldest first.
            let mut page_ids: Vec<DurableId> = page.events.iter().map(|event| event.id).collect();
            page_ids.extend(seen);
            seen = page_ids;
            at = seen[0].seq;
            assert_eq!(page.more, at > 1, "page of {size} to {at}");
            if !page.more {
                break;
            }
        }
        assert_eq!(seen, ids, "in pages of {size}");
    }
}

pub(crate) async fn an_anchor_is_the_event_at_that_seq(backend: &impl Backend) {
    let store = backend.open(BrokerSettings::default());
    let ids = append_ok(&store, "42", outputs(10)).await;
    for seq in 1..=10 {
        for from in [PageFrom::After(seq), PageFrom::Before(seq)] {
            let page = read(&store, "42", from, 3).await;
            assert_eq!(page.anchor, Some(ids[seq as usize - 1]), "{from:?}");
            assert_eq!(page.first, Some(ids[0]));
            assert!(page.events.iter().all(|event| event.id.seq != seq));
        }
    }
    for seq in [0, 11, u64::MAX] {
        for from in [PageFrom::After(seq), PageFrom::Before(seq)] {
            assert_eq!(read(&store, "42", from, 3).await.anchor, None, "{from:?}");
        }
    }
}

pub(crate) async fn there_is_no_page_beyond_either_end(backend: &impl Backend) {
    let store = backend.open(BrokerSettings::default());
    let ids = append_ok(&store, "42", outputs(3)).await;
    for from in [
        PageFrom::After(3),
        PageFrom::After(4),
        PageFrom::After(u64::MAX),
        PageFrom::Before(1),
        PageFrom::Before(0),
    ] {
        let page = read(&store, "42", from, 10).await;
        assert_eq!((texts(&page).len(), page.more), (0, false), "{from:?}");
        assert_eq!(page.head.map(|head| head.last), Some(ids[2]));
        assert_eq!(page.first, Some(ids[0]));
    }
    let page = read(&store, "42", PageFrom::Before(u64::MAX), 2).await;
    assert_eq!((texts(&page), page.more), (vec!["1", "2"], true));
}

/// An event is the last of its page once the bytes are reached; one always
/// fits.
pub(crate) async fn a_page_ends_once_it_holds_enough_bytes(backend: &impl Backend) {
    let store = backend.open(BrokerSettings::default());
    let sizes = [10, 200_000, 30, 40, 250_000, 1, 1, 70_000, 100, 5];
    let events: Vec<NewEvent> = sizes.iter().map(|size| output("x".repeat(*size))).collect();
    append_ok(&store, "42", events).await;
    for bytes_max in [0, 1, 11, 1000, 200_010, 260_000, 1_000_000] {
        for backward in [false, true] {
            let (mut at, mut seen) = (if backward { u64::MAX } else { 0 }, Vec::new());
            loop {
                let from = if backward {
                    PageFrom::Before(at)
                } else {
                    PageFrom::After(at)
                };
                let query = PageQuery {
                    from,
                    events_max: 1000,
                    bytes_max,
                };
                let page = store.read(&run("42"), query).await.expect("it answers");
                let mut page_sizes: Vec<usize> = page
                    .events
                    .iter()
                    .map(|event| event.payload.len())
                    .collect();
                let edge = if backward {
                    page.events.first()
                } else {
                    page.events.last()
                };
                at = edge.expect("one always fits").id.seq;
                if backward {
                    page_sizes.reverse();
                }
                let (_, before_last) = page_sizes.split_last().expect("one");
                assert!(before_last.iter().sum::<usize>() < bytes_max.max(1));
                let is_full = page_sizes.iter().sum::<usize>() >= bytes_max;
                assert!(is_full || !page.more, "{bytes_max}: {page_sizes:?}");
                seen.extend(page_sizes);
                if !page.more {
                    break;
                }
            }
            if backward {
                seen.reverse();
            }
            assert_eq!(seen, sizes, "{bytes_max} bytes");
        }
    }
}

/// A store may keep some more than it must, and says from where on.
pub(crate) async fn a_trimmed_run_begins_at_its_oldest_kept(backend: &impl Backend) {
    let mut settings = BrokerSettings::default();
    settings.history.max_events = 200;
    let store = backend.open(settings);
    let ids = append_ok(&store, "42", outputs(1000)).await;
    let page = read(&store, "42", PageFrom::After(0), 1000).await;
    let first = page.first.expect("some are kept");
    let kept = page.events.len();
    assert!(
        (200..=500).contains(&kept),
        "{kept} kept of at most about 200"
    );
    assert_eq!(first.seq, 1001 - kept as u64);
    let read_ids: Vec<DurableId> = page.events.iter().map(|event| event.id).collect();
    assert_eq!(read_ids, ids[1000 - kept..]);
    assert_eq!(page.head.map(|head| head.counts), Some([1000, 0, 0]));
    let trimmed = read(&store, "42", PageFrom::After(3), 10).await;
    assert_eq!((trimmed.anchor, trimmed.first), (None, Some(first)));
    assert_eq!(trimmed.events[0].id, first);
    let back = read(&store, "42", PageFrom::Before(first.seq + 5), 100).await;
    assert_eq!((back.events.len(), back.more), (5, false));
}
