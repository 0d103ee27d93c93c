//! Ids, counts and epochs.

use futures_util::future::join_all;

use super::*;

pub(crate) async fn ids_follow_on_without_holes(backend: &impl Backend) {
    let store = backend.open(BrokerSettings::default());
    let mut ids = append_ok(&store, "42", outputs(10)).await;
    ids.extend(append_ok(&store, "42", outputs(7)).await);
    let seqs: Vec<u64> = ids.iter().map(|id| id.seq).collect();
    assert_eq!(seqs, (1..=17).collect::<Vec<_>>());
    assert!(ids.iter().all(|id| id.epoch == ids[0].epoch));
    assert!(ids.windows(2).all(|pair| pair[0].us <= pair[1].us));
    assert_eq!(head(&store, "42").await.last, ids[16]);
    assert!(
        append(&store, "42", AppendBatch::default())
            .await
            .is_empty()
    );
}

pub(crate) async fn a_run_begins_with_its_first_event(backend: &impl Backend) {
    let store = backend.open(BrokerSettings::default());
    for from in [
        PageFrom::After(0),
        PageFrom::After(7),
        PageFrom::Before(u64::MAX),
    ] {
        assert_eq!(read(&store, "42", from, 10).await, Page::default());
    }
    let id = append_ok(&store, "42", outputs(1)).await[0];
    let page = read(&store, "42", PageFrom::After(0), 10).await;
    let head = page.head.as_ref().expect("known now");
    assert_eq!((head.last, page.first, page.more), (id, Some(id), false));
    assert_eq!((&head.status, &head.closed), (&None, &None));
    assert!(head.now_us >= id.us && id.us / 1000 >= id.epoch);
    assert!(!head.is_sealed());
}

/// Whoever appends, each number is taken once.
pub(crate) async fn two_clients_share_one_numbering(backend: &impl Backend) {
    let stores = [(); 2].map(|()| backend.open(BrokerSettings::default()));
    let appended = stores
        .iter()
        .flat_map(|store| (0..25).map(move |_| append_ok(store, "42", outputs(4))));
    let ids: Vec<DurableId> = join_all(appended).await.concat();
    assert!(ids.iter().all(|id| id.epoch == ids[0].epoch));
    let mut seqs: Vec<u64> = ids.iter().map(|id| id.seq).collect();
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=200).collect::<Vec<_>>());
    let page = read(&stores[0], "42", PageFrom::After(0), 1000).await;
    assert_eq!(page, read_same(&stores[1], &page).await);
    for id in ids {
        assert!(page.events.iter().any(|event| event.id == id));
    }
}

/// Reads all, with the clock of `page`.
async fn read_same(store: &Arc<dyn RunStore>, page: &Page) -> Page {
    let mut again = read(store, "42", PageFrom::After(0), 1000).await;
    let head = again.head.as_mut().expect("known");
    head.now_us = page.head.as_ref().expect("known").now_us;
    again
}

pub(crate) async fn an_event_too_large_takes_no_number(backend: &impl Backend) {
    let settings = BrokerSettings::default();
    settings
        .live
        .change(|live| live.limits.max_event_bytes = bytesize::ByteSize::b(100));
    let store = backend.open(settings);
    let events = vec![
        output("a"),
        output("x".repeat(101)),
        output("x".repeat(100)),
    ];
    let batch = AppendBatch {
        events,
        ..AppendBatch::default()
    };
    let results = append(&store, "42", batch).await;
    assert_eq!(new_id(&results[0]).seq, 1);
    assert_eq!(results[1], Err(PublishError::TooLarge { limit: 100 }));
    assert_eq!(new_id(&results[2]).seq, 2);
    assert_eq!(head(&store, "42").await.counts, [2, 0, 0]);
}

pub(crate) async fn a_restart_begins_a_later_epoch(backend: &impl Backend) {
    let store = backend.open(BrokerSettings::default());
    let mut last = append_ok(&store, "42", vec![output("old"), status("running")]).await[1];
    // Quicker than the clock's milliseconds, epochs still grow.
    for _ in 0..20 {
        let next = restart(&store, "42").await;
        assert!(
            next.epoch > last.epoch && next.us > last.us,
            "{last} {next}"
        );
        assert_eq!(next.seq, 1);
        last = next;
    }
    let page = read(&store, "42", PageFrom::After(0), 10).await;
    assert_eq!(texts(&page), ["anew"]);
    let head = page.head.expect("known");
    assert_eq!((head.last, head.counts), (last, [1, 0, 0]));
    assert_eq!((head.status, page.first), (None, Some(last)));
}

/// What is refused for its size begins nothing: the next event does.
pub(crate) async fn a_restart_goes_with_the_first_event_that_fits(backend: &impl Backend) {
    let settings = BrokerSettings::default();
    settings
        .live
        .change(|live| live.limits.max_event_bytes = bytesize::ByteSize::b(4));
    let store = backend.open(settings);
    let old = append_ok(&store, "42", outputs(3)).await[2];
    let batch = AppendBatch {
        events: vec![output("large"), output("fits"), output("too")],
        restart: true,
        ..AppendBatch::default()
    };
    let results = append(&store, "42", batch).await;
    assert_eq!(results[0], Err(PublishError::TooLarge { limit: 4 }));
    let (first, second) = (new_id(&results[1]), new_id(&results[2]));
    assert!(first.epoch > old.epoch);
    assert_eq!((first.seq, second.seq), (1, 2));
    assert_eq!(second.epoch, first.epoch);
}

pub(crate) async fn positions_are_those_of_each_run(backend: &impl Backend) {
    let store = backend.open(BrokerSettings::default());
    let names: Vec<String> = (0..2500).map(|n| format!("r{n}")).collect();
    let ids = append_ok(&store, "r7", outputs(3)).await;
    let other = append_ok(&store, "r2400", outputs(1)).await;
    let run_ids: Vec<RunId> = names.iter().map(|name| run(name)).collect();
    let positions = store.positions(&run_ids).await.expect("it answers");
    assert_eq!(positions.len(), 2500);
    for (n, position) in positions.into_iter().enumerate() {
        let expected = match n {
            7 => Some(ids[2]),
            2400 => Some(other[0]),
            _ => None,
        };
        assert_eq!(position, expected, "r{n}");
    }
    assert!(store.positions(&[]).await.expect("it answers").is_empty());
}

pub(crate) async fn the_head_counts_by_kind(backend: &impl Backend) {
    let store = backend.open(BrokerSettings::default());
    let log = |text: &str| NewEvent {
        kind: EventKind::Log,
        ..output(text)
    };
    let events = vec![
        output("a"),
        log("b"),
        log("c"),
        status("running"),
        output("d"),
    ];
    append_ok(&store, "42", events).await;
    let known = head(&store, "42").await;
    assert_eq!(known.counts, [2, 1, 2]);
    assert_eq!(known.status.as_deref(), Some("running"));
    let long = "ä".repeat(70);
    for (payload, word) in [
        (r#""paused""#, "paused"),
        (r#"{"status":"loading","step":3}"#, "loading"),
        (long.as_str(), &long[..128]),
    ] {
        append_ok(&store, "42", vec![status(payload)]).await;
        assert_eq!(head(&store, "42").await.status.as_deref(), Some(word));
    }
}

pub(crate) async fn what_is_kept_is_what_was_published(backend: &impl Backend) {
    let store = backend.open(BrokerSettings::default());
    let events: Vec<NewEvent> = [
        (EventKind::Output, "stdout", &b"plain"[..]),
        (EventKind::Log, "a:b {c} d\n\u{1F980}", b"\0\xff\r\n\0"),
        (EventKind::Output, "", b""),
        (EventKind::Status, "", b"running"),
    ]
    .map(|(kind, source, payload)| NewEvent {
        kind,
        source: source.to_owned(),
        payload: bytes::Bytes::from_static(payload),
    })
    .to_vec();
    let ids = append_ok(&store, "42", events.clone()).await;
    let page = read(&store, "42", PageFrom::After(0), 10).await;
    assert_eq!(page.events.len(), events.len());
    for ((kept, event), id) in page.events.into_iter().zip(events).zip(ids) {
        assert_eq!((kept.id, kept.lost), (id, 0));
        assert_eq!((kept.kind, kept.source), (event.kind, event.source));
        assert_eq!(kept.payload, event.payload);
    }
}

pub(crate) async fn a_trace_is_kept_with_its_events(backend: &impl Backend) {
    let store = backend.open(BrokerSettings::default());
    append_ok(&store, "42", outputs(1)).await;
    let batch = AppendBatch {
        producer: producer("p", 1, 1),
        ..traced(outputs(2))
    };
    append(&store, "42", batch).await;
    let page = read(&store, "42", PageFrom::After(0), 10).await;
    let traces = page.events.iter().map(|event| event.trace.as_ref());
    let traces: Vec<_> = traces.map(|trace| trace.map(ToString::to_string)).collect();
    let trace = Some(TRACE.to_owned());
    assert_eq!(traces, [None, trace.clone(), trace]);
}
