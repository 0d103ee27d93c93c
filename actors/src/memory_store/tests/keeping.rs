//! What is kept, how it is read, and what goes when.

use super::*;

#[test]
fn a_history_is_trimmed_to_its_events_and_bytes() {
    let at = Fixture::new(|settings| {
        settings.history.max_events = 5;
        settings.history.max_bytes_per_run = ByteSize::b(40);
    });
    for _ in 0..8 {
        at.id("r", status("x"));
    }
    assert_eq!(seqs(&at.all("r")), [4, 5, 6, 7, 8]);
    at.id("r", status(&"x".repeat(38)));
    let page = at.all("r");
    assert_eq!(seqs(&page), [7, 8, 9]);
    assert_eq!(page.first.map(|id| id.seq), Some(7));
    // The source counts, too; one event is kept however large.
    at.id("r", output(&"x".repeat(38)));
    assert_eq!(seqs(&at.all("r")), [10]);
}

#[test]
fn pages_go_both_ways() {
    let at = Fixture::new(|settings| settings.history.max_events = 6);
    let ids: Vec<_> = (0..10).map(|_| at.id("r", output("12345"))).collect();
    let page = |from, events_max, bytes_max| {
        let query = PageQuery {
            from,
            events_max,
            bytes_max,
        };
        let page = at.page("r", query);
        (seqs(&page), page.anchor.map(|id| id.seq), page.more)
    };
    use PageFrom::{After, Before};
    let many = usize::MAX;
    assert_eq!(
        page(After(0), many, many),
        (vec![5, 6, 7, 8, 9, 10], None, false)
    );
    assert_eq!(page(After(4), 2, many), (vec![5, 6], None, true));
    assert_eq!(page(After(6), 2, many), (vec![7, 8], Some(6), true));
    assert_eq!(page(After(8), 2, many), (vec![9, 10], Some(8), false));
    assert_eq!(page(After(10), 2, many), (vec![], Some(10), false));
    assert_eq!(page(After(u64::MAX), 2, many), (vec![], None, false));
    assert_eq!(page(Before(u64::MAX), 2, many), (vec![9, 10], None, true));
    assert_eq!(page(Before(9), 2, many), (vec![7, 8], Some(9), true));
    assert_eq!(page(Before(7), many, many), (vec![5, 6], Some(7), false));
    assert_eq!(page(Before(5), 2, many), (vec![], Some(5), false));
    assert_eq!(page(Before(0), 2, many), (vec![], None, false));
    // The event that reaches the bytes is the last; one always fits.
    assert_eq!(page(After(0), many, 10), (vec![5, 6], None, true));
    assert_eq!(page(After(0), many, 11), (vec![5, 6, 7], None, true));
    assert_eq!(page(Before(u64::MAX), many, 0), (vec![10], None, true));
    assert_eq!(at.all("r").first, Some(ids[4]));
}

#[test]
fn a_history_expires_before_its_run_does() {
    let at = Fixture::new(|settings| settings.history.ttl = Duration::from_secs(10));
    let first = at.id("r", output("1"));
    at.later(10 * SECOND_US - 1);
    assert_eq!(seqs(&at.all("r")), [1]);
    // What has expired is not read, swept or not.
    at.later(1);
    let page = at.all("r");
    assert_eq!((page.first, page.events.len()), (None, 0));
    assert_eq!(page.head.map(|head| head.last), Some(first));
    let second = at.id("r", output("2"));
    assert_eq!((second.epoch, second.seq), (first.epoch, 2));
    assert_eq!(seqs(&at.all("r")), [2]);

    at.later(10 * SECOND_US + STATE_TTL_EXTRA.as_micros() as u64);
    assert_eq!(at.all("r"), Page::default());
    let third = at.id("r", output("3"));
    assert!(third.epoch > first.epoch);
    assert_eq!(third.seq, 1);
}

#[test]
fn a_sweep_frees_what_has_expired_and_no_more() {
    let at = Fixture::new(|settings| settings.history.ttl = Duration::from_secs(10));
    at.id("old", output(&"x".repeat(100_000)));
    at.later(5 * SECOND_US);
    at.id("young", output(&"x".repeat(50_000)));
    at.store.sweep();
    assert!(at.metrics.store.bytes.get() > 150_000);
    at.later(5 * SECOND_US);
    at.store.sweep();
    let bytes = at.metrics.store.bytes.get();
    assert!((50_000..60_000).contains(&bytes), "{bytes} bytes");
    assert_eq!(at.metrics.store.runs.get(), 2);
    at.later(STATE_TTL_EXTRA.as_micros() as u64);
    at.store.sweep();
    assert_eq!(at.metrics.store.runs.get(), 1);
    at.later(5 * SECOND_US);
    at.store.sweep();
    assert_eq!(at.metrics.store.runs.get(), 0);
    assert_eq!(at.metrics.store.bytes.get(), 0);
    assert!(at.store.runs.is_empty());
}

#[test]
fn the_run_idle_longest_goes_first() {
    let at = Fixture::new(|settings| {
        settings.history.embedded_total_bytes = ByteSize::b(40_000);
    });
    let large = "x".repeat(10_000);
    let a = at.id("a", output(&large));
    at.id("b", output(&large));
    at.id("c", output(&large));
    at.id("a", output("again"));
    at.id("d", output(&large));
    let known = |run| at.position(run).is_some();
    assert_eq!(["a", "b", "c", "d"].map(known), [true, false, true, true]);
    assert_eq!(at.metrics.store.evicted_runs.get(), 1);
    assert!(at.metrics.store.bytes.get() <= 40_000);
    // Not a millisecond has passed, and yet its epoch is a new one.
    let b = at.id("b", output("back"));
    assert!(b.epoch > a.epoch);
    assert_eq!(b.seq, 1);
}

#[test]
fn the_only_run_loses_its_oldest_events() {
    let at = Fixture::new(|settings| {
        settings.history.embedded_total_bytes = ByteSize::b(30_000);
    });
    for _ in 0..5 {
        at.id("r", output(&"x".repeat(8_000)));
    }
    assert_eq!(seqs(&at.all("r")), [3, 4, 5]);
    assert!(at.metrics.store.bytes.get() <= 30_000);
    assert_eq!(at.metrics.store.evicted_runs.get(), 0);
}

#[test]
fn threads_at_once_keep_order_and_bounds() {
    const THREADS: usize = 4;
    const APPENDS: usize = 500;
    let at = Fixture::new(|settings| {
        settings.history.embedded_total_bytes = ByteSize::b(20_000);
        settings.history.ttl = Duration::from_secs(1);
    });
    std::thread::scope(|threads| {
        for thread in 0..THREADS {
            let at = &at;
            threads.spawn(move || {
                for n in 0..APPENDS {
                    at.append("shared", batch(vec![output("a"), output("b")]));
                    at.id(
                        &format!("own-{thread}-{}", n % 7),
                        output(&"x".repeat(2_000)),
                    );
                    at.all("shared");
                    at.later(10_000);
                    at.store.sweep();
                }
            });
        }
    });
    // Every run went to the sink in the order of its ids, without a hole.
    let mut last: std::collections::HashMap<RunId, DurableId> = Default::default();
    let stored = at.stored.lock().expect("no panic");
    assert_eq!(stored.len(), THREADS * APPENDS * 3);
    for (run_id, event) in stored.iter() {
        let (seq, epoch) = (event.id.seq, event.id.epoch);
        match last.insert(run_id.clone(), event.id) {
            Some(last) if last.epoch == epoch => assert_eq!(seq, last.seq + 1, "{run_id}"),
            Some(last) => assert!(epoch > last.epoch && seq == 1, "{run_id}"),
            None => assert_eq!(seq, 1, "{run_id}"),
        }
    }
    assert!(at.metrics.store.bytes.get() <= 20_000);
    assert!(at.metrics.store.evicted_runs.get() > 0);
    // The ledger agrees with the runs.
    let (mut runs, mut bytes) = (0, 0);
    for run in &at.store.runs {
        runs += 1;
        bytes += run.lock().state.cost();
    }
    assert_eq!(at.store.ledger().len(), runs);
    assert_eq!(at.store.ledger().bytes(), bytes);
}
