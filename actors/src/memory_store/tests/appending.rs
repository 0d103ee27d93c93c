//! What is accepted, under which id, and what is not.

use super::*;

#[test]
fn ids_have_no_holes_and_a_clock_set_back_turns_none_back() {
    let at = Fixture::new(|_| ());
    let first = at.id("r", output("1"));
    assert_eq!((first.epoch, first.seq), (START_US / 1000, 1));
    assert_eq!(first.us, START_US);
    at.later(5);
    let second = at.id("r", output("2"));
    assert_eq!((second.seq, second.us), (2, START_US + 5));
    at.clock_us.fetch_sub(SECOND_US, Relaxed);
    let third = at.id("r", output("3"));
    assert_eq!((third.epoch, third.seq), (first.epoch, 3));
    assert_eq!(third.us, second.us);
    assert_eq!(at.position("r"), Some(third));
}

#[test]
fn a_sink_gets_what_was_accepted_and_no_more() {
    let at = Fixture::new(at_most_four_bytes);
    let results = at.append("r", batch(vec![output("a"), output("large"), output("b")]));
    assert_eq!(results[1], Err(PublishError::TooLarge { limit: 4 }));
    assert_eq!(
        results[2].as_ref().map(|new| new.id.map(|id| id.seq)),
        Ok(Some(2))
    );
    let stored = at.stored.lock().expect("no panic");
    let payloads: Vec<_> = stored.iter().map(|(_, event)| &event.payload[..]).collect();
    assert_eq!(payloads, [b"a", b"b"]);
    let too_large = at.metrics.events_in.of(EventKind::Output);
    assert_eq!(too_large.of(EventResult::TooLarge).get(), 1);
}

#[test]
fn a_run_of_refused_events_only_is_no_run() {
    let at = Fixture::new(at_most_four_bytes);
    let refused = at.publish("r", output("large"));
    assert_eq!(refused, Err(PublishError::TooLarge { limit: 4 }));
    assert_eq!(at.append("r", batch(Vec::new())), []);
    assert_eq!(at.all("r"), Page::default());
    assert_eq!(at.position("r"), None);
    assert!(at.store.runs.is_empty());
    assert_eq!(at.metrics.store.bytes.get(), 0);
}

#[test]
fn payloads_are_shared() {
    let at = Fixture::new(|_| ());
    let payload = Bytes::from(vec![b'x'; 1000]);
    let mut new = output("");
    new.payload = payload.clone();
    at.id("r", new);
    assert_eq!(at.all("r").events[0].payload.as_ptr(), payload.as_ptr());
    let stored = at.stored.lock().expect("no panic");
    assert_eq!(stored[0].1.payload.as_ptr(), payload.as_ptr());
}

#[test]
fn a_run_that_is_over_takes_late_output_then_nothing_until_a_restart() {
    let at = Fixture::new(|settings| settings.runs.end_grace = Duration::from_secs(2));
    let first = at.id("r", output("1"));
    let closing = at.id("r", status("Completed"));
    at.later(2 * SECOND_US);
    at.id("r", status("failed"));
    let head = at.all("r").head.expect("it is known");
    let closed = head.closed.clone().expect("it is closed");
    assert_eq!(closed.status, "completed");
    assert_eq!(closed.at_us, closing.us);
    assert_eq!(closed.sealed_us, closing.us + 2 * SECOND_US);
    assert!(!head.is_sealed());
    at.later(1);
    assert!(at.all("r").head.expect("it is known").is_sealed());
    assert_eq!(at.publish("r", output("late")), Err(PublishError::Closed));
    let closed = at.metrics.events_in.of(EventKind::Output);
    assert_eq!(closed.of(EventResult::Closed).get(), 1);

    let results = at.append("r", restart(vec![output("again"), output("more")]));
    let ids: Vec<_> = results
        .into_iter()
        .map(|new| new.expect("accepted").id)
        .collect();
    let again = ids[0].expect("a new event has an id");
    assert!(again.epoch > first.epoch);
    assert_eq!(again.seq, 1);
    let page = at.all("r");
    assert_eq!(seqs(&page), [1, 2]);
    let head = page.head.expect("it is known");
    assert_eq!(
        (head.closed, head.status, head.counts),
        (None, None, [2, 0, 0])
    );
}

#[test]
fn a_new_epoch_is_greater_even_within_a_millisecond() {
    let at = Fixture::new(|_| ());
    let first = at.id("r", output("1"));
    let again = at.append("r", restart(vec![output("2")])).remove(0);
    let again = again.expect("accepted").id.expect("it is new");
    assert_eq!(again.epoch, first.epoch + 1);
    at.clock_us.fetch_sub(SECOND_US, Relaxed);
    let again = at.append("r", restart(vec![output("3")])).remove(0);
    let again = again.expect("accepted").id.expect("it is new");
    assert_eq!(again.epoch, first.epoch + 2);
}

#[test]
fn a_restart_goes_with_the_first_event_that_fits() {
    let at = Fixture::new(at_most_four_bytes);
    let first = at.id("r", output("1"));
    let results = at.append("r", restart(vec![output("large"), output("2")]));
    assert_eq!(results[0], Err(PublishError::TooLarge { limit: 4 }));
    let second = results[1].clone().expect("accepted").id.expect("it is new");
    assert!(second.epoch > first.epoch);
    assert_eq!(second.seq, 1);
}

#[test]
fn a_head_tells_counts_and_the_last_status() {
    let at = Fixture::new(|_| ());
    at.id("r", output("1"));
    at.id("r", event(EventKind::Log, "2"));
    at.id("r", status(r#"{"status":"Running","step":1}"#));
    let last = at.id("r", output("4"));
    let head = at.all("r").head.expect("it is known");
    assert_eq!(head.counts, [2, 1, 1]);
    assert_eq!(head.status.as_deref(), Some("Running"));
    assert_eq!((head.last, head.now_us), (last, START_US));
    at.id("r", status(&"ü".repeat(100)));
    let head = at.all("r").head.expect("it is known");
    assert_eq!(head.status, Some("ü".repeat(64)));
}

#[test]
fn a_retry_is_the_same_event_even_when_its_run_is_over() {
    let at = Fixture::new(|_| ());
    let events = vec![output("1"), output("2"), status("completed")];
    let first = at.append("r", produced(1, 1, events.clone()));
    at.id("r", output("of another"));
    at.later(3600 * SECOND_US);
    let again = at.append("r", produced(1, 1, events));
    for (first, again) in first.into_iter().zip(again) {
        assert_eq!(again, duplicate(first.expect("accepted").id));
    }
    assert_eq!(seqs(&at.all("r")), [1, 2, 3, 4]);
    assert_eq!(at.stored.lock().expect("no panic").len(), 4);
    let duplicates = at.metrics.events_in.of(EventKind::Output);
    assert_eq!(duplicates.of(EventResult::Duplicate).get(), 2);
}

#[test]
fn a_retry_goes_on_where_the_first_attempt_ended() {
    let at = Fixture::new(|_| ());
    at.append("r", produced(1, 1, vec![output("1"), output("2")]));
    let results = at.append("r", produced(1, 2, vec![output("2"), output("3")]));
    let published: Vec<_> = results
        .into_iter()
        .map(|new| new.expect("accepted"))
        .collect();
    assert!(published[0].is_duplicate && !published[1].is_duplicate);
    let page = at.all("r");
    let lost: Vec<_> = page.events.iter().map(|event| event.lost).collect();
    assert_eq!((seqs(&page), lost), (vec![1, 2, 3], vec![0; 3]));
}

#[test]
fn a_retry_of_what_was_trimmed_has_no_id() {
    let at = Fixture::new(|settings| settings.history.max_events = 2);
    let first = at.append(
        "r",
        produced(1, 1, vec![output("1"), output("2"), output("3")]),
    );
    let again = at.append(
        "r",
        produced(1, 1, vec![output("1"), output("2"), output("3")]),
    );
    assert_eq!(again[0], duplicate(None));
    for at in [1, 2] {
        let id = first[at].clone().expect("accepted").id;
        assert_eq!(again[at], duplicate(id));
    }
}

#[test]
fn a_retried_restart_begins_no_third_run() {
    let at = Fixture::new(|_| ());
    at.id("r", output("old"));
    let begin = |events| AppendBatch {
        restart: true,
        ..produced(1, 1, events)
    };
    let first = at.append("r", begin(vec![output("1")]));
    let again = at.append("r", begin(vec![output("1"), output("2")]));
    assert_eq!(again[0], duplicate(first[0].clone().expect("accepted").id));
    assert_eq!(seqs(&at.all("r")), [1, 2]);
}

#[test]
fn an_older_process_is_fenced_and_restarts_nothing() {
    let at = Fixture::new(|_| ());
    at.append("r", produced(1, 1, vec![output("1")]));
    at.append("r", produced(2, 1, vec![output("2")]));
    let zombie = AppendBatch {
        restart: true,
        ..produced(1, 2, vec![output("3"), output("4")])
    };
    let results = at.append("r", zombie);
    assert_eq!(
        results,
        [Err(PublishError::Fenced), Err(PublishError::Fenced)]
    );
    assert_eq!(seqs(&at.all("r")), [1, 2]);
}

#[test]
fn a_producer_that_may_not_be_is_refused() {
    let at = Fixture::new(|_| ());
    for (id, epoch, first_seq) in [
        ("", 1, 1),
        ("a b", 1, 1),
        (&"x".repeat(65), 1, 1),
        ("p", 1 << 53, 1),
        ("p", 1, 0),
        ("p", 1, u64::MAX),
    ] {
        let producer = Some(Producer {
            id: id.to_owned(),
            epoch,
            first_seq,
        });
        let events = vec![output("1"), output("2")];
        let results = at.append(
            "r",
            AppendBatch {
                producer,
                ..batch(events)
            },
        );
        let is_refused = |result| matches!(result, &Err(PublishError::Unavailable(_)));
        assert_eq!(results.iter().filter(|one| is_refused(one)).count(), 2);
    }
    assert_eq!(at.position("r"), None);
}

#[test]
fn numbers_that_never_came_are_counted_as_lost() {
    let at = Fixture::new(at_most_four_bytes);
    at.append("r", produced(1, 3, vec![output("3")]));
    at.append(
        "r",
        produced(1, 4, vec![output("4"), output("large"), output("6")]),
    );
    at.append("r", produced(1, 10, vec![output("10")]));
    at.append("r", produced(7, 2, vec![output("2")]));
    let lost: Vec<_> = at.all("r").events.iter().map(|event| event.lost).collect();
    assert_eq!(lost, [2, 0, 1, 3, 1]);
}

#[test]
fn the_producer_silent_longest_is_forgotten() {
    let at = Fixture::new(|_| ());
    let one = |name: usize, seq| AppendBatch {
        producer: Some(Producer {
            id: format!("p{name}"),
            epoch: 1,
            first_seq: seq,
        }),
        ..batch(vec![output("1")])
    };
    for name in 0..producers::PRODUCERS_MAX {
        at.append("r", one(name, 1));
    }
    at.append("r", one(0, 2));
    at.append("r", one(producers::PRODUCERS_MAX, 1));
    let known = |name| at.append("r", one(name, 1))[0].clone().expect("answered");
    assert!(known(0).is_duplicate);
    assert!(known(2).is_duplicate);
    assert!(!known(1).is_duplicate);
}

fn at_most_four_bytes(settings: &mut BrokerSettings) {
    settings
        .live
        .change(|live| live.limits.max_event_bytes = ByteSize::b(4));
}
