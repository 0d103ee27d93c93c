//! Producers that number their events.

use super::*;

pub(crate) async fn a_retry_is_no_second_event(backend: &impl Backend) {
    let store = backend.open(BrokerSettings::default());
    let id = new_id(&append_by(&store, "42", ("p", 1, 1), output("a")).await);
    let again = append_by(&store, "42", ("p", 1, 1), output("a")).await;
    assert_eq!(again, duplicate_of(Some(id)));
    let next = append_by(&store, "42", ("p", 1, 2), output("b")).await;
    assert_eq!(new_id(&next).seq, 2);
    // The same numbers of another producer, and of another run, are its own.
    assert_eq!(
        new_id(&append_by(&store, "42", ("q", 1, 1), output("c")).await).seq,
        3
    );
    assert_eq!(
        new_id(&append_by(&store, "43", ("p", 1, 1), output("d")).await).seq,
        1
    );
    let page = read(&store, "42", PageFrom::After(0), 10).await;
    assert_eq!(texts(&page), ["a", "b", "c"]);
    assert!(page.events.iter().all(|event| event.lost == 0));
}

pub(crate) async fn an_older_retry_is_found(backend: &impl Backend) {
    let store = backend.open(BrokerSettings::default());
    let batch = |first_seq, count| AppendBatch {
        events: outputs(count),
        producer: producer("p", 1, first_seq),
        ..AppendBatch::default()
    };
    let ids: Vec<DurableId> = append(&store, "42", batch(1, 20))
        .await
        .iter()
        .map(new_id)
        .collect();
    let again = append(&store, "42", batch(1, 20)).await;
    let expected: Vec<PublishResult> = ids.iter().map(|id| duplicate_of(Some(*id))).collect();
    assert_eq!(again, expected);
    // Half of a batch came through: the rest is new.
    let half = append(&store, "42", batch(11, 20)).await;
    assert_eq!(half[..10], expected[10..]);
    assert_eq!(new_id(&half[10]).seq, 21);
    // Others between, and numbers that were never accepted.
    append_ok(&store, "42", outputs(30)).await;
    let late = new_id(&append_by(&store, "42", ("p", 1, 100), output("late")).await);
    append_by(&store, "42", ("p", 1, 102), output("last"))
        .await
        .expect("accepted");
    for (seq, id) in [
        (5, Some(ids[4])),
        (100, Some(late)),
        (50, None),
        (101, None),
    ] {
        let retry = append_by(&store, "42", ("p", 1, seq), output("x")).await;
        assert_eq!(retry, duplicate_of(id), "number {seq}");
    }
    assert_eq!(head(&store, "42").await.last.seq, 62);
}

pub(crate) async fn a_jump_is_counted(backend: &impl Backend) {
    let store = backend.open(BrokerSettings::default());
    for seq in [1, 2, 5, 6, 106] {
        let appended = append_by(&store, "42", ("p", 1, seq), output("x")).await;
        new_id(&appended);
    }
    // The first number seen of a producer tells, too.
    new_id(&append_by(&store, "42", ("q", 7, 4), output("x")).await);
    let page = read(&store, "42", PageFrom::After(0), 10).await;
    let lost: Vec<u64> = page.events.iter().map(|event| event.lost).collect();
    assert_eq!(lost, [0, 0, 2, 0, 99, 3]);
}

pub(crate) async fn an_older_process_is_fenced(backend: &impl Backend) {
    let store = backend.open(BrokerSettings::default());
    new_id(&append_by(&store, "42", ("p", 5, 1), output("old")).await);
    new_id(&append_by(&store, "42", ("p", 6, 1), output("new")).await);
    for seq in [1, 2, 9] {
        let fenced = append_by(&store, "42", ("p", 5, seq), output("zombie")).await;
        assert_eq!(fenced, Err(PublishError::Fenced));
    }
    // It took no number.
    assert_eq!(
        new_id(&append_by(&store, "42", ("p", 6, 2), output("on")).await).seq,
        3
    );
    let page = read(&store, "42", PageFrom::After(0), 10).await;
    assert_eq!(texts(&page), ["old", "new", "on"]);
}

pub(crate) async fn a_new_process_numbers_from_one(backend: &impl Backend) {
    let store = backend.open(BrokerSettings::default());
    for (epoch, seq) in [(1, 1), (1, 2), (2, 1), (9, 3)] {
        new_id(&append_by(&store, "42", ("p", epoch, seq), output("x")).await);
    }
    let page = read(&store, "42", PageFrom::After(0), 10).await;
    let lost: Vec<u64> = page.events.iter().map(|event| event.lost).collect();
    assert_eq!(lost, [0, 0, 0, 2]);
}

pub(crate) async fn a_retry_after_the_close_stays_one(backend: &impl Backend) {
    let mut settings = BrokerSettings::default();
    settings.runs.end_grace = std::time::Duration::from_millis(1);
    let store = backend.open(settings);
    let id = new_id(&append_by(&store, "42", ("p", 1, 1), status("completed")).await);
    let sealed = async || head(&store, "42").await.is_sealed();
    crate::support::eventually("sealed", crate::support::wait::SOON, sealed).await;
    let again = append_by(&store, "42", ("p", 1, 1), status("completed")).await;
    assert_eq!(again, duplicate_of(Some(id)));
    let late = append_by(&store, "42", ("p", 1, 2), output("late")).await;
    assert!(is_closed(&late), "{late:?}");
}

pub(crate) async fn a_retry_of_a_restart_stays_one(backend: &impl Backend) {
    let store = backend.open(BrokerSettings::default());
    append_ok(&store, "42", outputs(3)).await;
    let batch = || AppendBatch {
        events: outputs(2),
        restart: true,
        producer: producer("p", 1, 1),
        ..AppendBatch::default()
    };
    let ids: Vec<DurableId> = append(&store, "42", batch())
        .await
        .iter()
        .map(new_id)
        .collect();
    let again = append(&store, "42", batch()).await;
    assert_eq!(
        again,
        [duplicate_of(Some(ids[0])), duplicate_of(Some(ids[1]))]
    );
    assert_eq!(head(&store, "42").await.last, ids[1]);
}

/// Who published before someone else began the run anew lost nothing by it.
pub(crate) async fn others_go_on_after_a_restart(backend: &impl Backend) {
    let store = backend.open(BrokerSettings::default());
    for seq in 1..=3 {
        new_id(&append_by(&store, "42", ("p", 1, seq), output("x")).await);
    }
    let old = head(&store, "42").await.last;
    restart(&store, "42").await;
    let again = append_by(&store, "42", ("p", 1, 3), output("x")).await;
    assert_eq!(again, duplicate_of(Some(old)));
    new_id(&append_by(&store, "42", ("p", 1, 4), output("on")).await);
    let page = read(&store, "42", PageFrom::After(1), 10).await;
    assert_eq!((texts(&page), page.events[0].lost), (vec!["on"], 0));
}

/// A run remembers the numbers of 64 producers.
pub(crate) async fn the_one_silent_longest_is_forgotten(backend: &impl Backend) {
    let store = backend.open(BrokerSettings::default());
    for n in 0..64 {
        new_id(&append_by(&store, "42", (&format!("p{n}"), 1, 1), output("x")).await);
    }
    // So the one silent longest is `p1`.
    new_id(&append_by(&store, "42", ("p0", 1, 2), output("x")).await);
    new_id(&append_by(&store, "42", ("p64", 1, 1), output("x")).await);
    for (name, seq) in [("p0", 2), ("p2", 1), ("p63", 1), ("p64", 1)] {
        let again = append_by(&store, "42", (name, 1, seq), output("x")).await;
        assert!(again.is_ok_and(|event| event.is_duplicate), "{name}");
    }
    let forgotten = append_by(&store, "42", ("p1", 1, 1), output("x")).await;
    assert_eq!(new_id(&forgotten).seq, 67);
}
