//! What every [`RunStore`] must do. Each check is a function of a
//! [`Backend`]; [`contract_tests!`] makes tests of all of them.

use std::sync::Arc;

use runcast_actors::broker::{BrokerSettings, NewEvent, PublishError, PublishResult, Published};
use runcast_actors::protocol::{DurableId, EventKind, RunId, TraceContext};
use runcast_actors::store::{AppendBatch, Head, Page, PageFrom, PageQuery, Producer, RunStore};

pub(crate) mod appends;
pub(crate) mod endings;
pub(crate) mod pages;
pub(crate) mod producers;

/// A trace that is recorded.
pub(crate) const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 a=1,b=2";

/// Where a store's data live.
pub(crate) trait Backend {
    /// Opens the data as another broker with these settings would.
    fn open(&self, settings: BrokerSettings) -> Arc<dyn RunStore>;
}

/// Makes a test of each check, in a module; `$backend` is an async function
/// that makes an empty backend.
macro_rules! contract_tests {
    ($module:ident, $backend:path) => {
        mod $module {
            $crate::store::contract::contract_tests! { @all $backend,
                appends::ids_follow_on_without_holes,
                appends::a_run_begins_with_its_first_event,
                appends::two_clients_share_one_numbering,
                appends::an_event_too_large_takes_no_number,
                appends::a_restart_begins_a_later_epoch,
                appends::a_restart_goes_with_the_first_event_that_fits,
                appends::positions_are_those_of_each_run,
                appends::the_head_counts_by_kind,
                appends::what_is_kept_is_what_was_published,
                appends::a_trace_is_kept_with_its_events,
                endings::a_terminal_status_closes_the_run,
                endings::late_output_is_taken_until_the_grace_is_over,
                endings::the_first_terminal_status_counts,
                endings::a_restart_opens_a_closed_run,
                pages::forwards_to_the_end,
                pages::backwards_to_the_beginning,
                pages::an_anchor_is_the_event_at_that_seq,
                pages::a_page_ends_once_it_holds_enough_bytes,
                pages::a_trimmed_run_begins_at_its_oldest_kept,
                pages::there_is_no_page_beyond_either_end,
                producers::a_retry_is_no_second_event,
                producers::an_older_retry_is_found,
                producers::a_jump_is_counted,
                producers::an_older_process_is_fenced,
                producers::a_new_process_numbers_from_one,
                producers::a_retry_after_the_close_stays_one,
                producers::a_retry_of_a_restart_stays_one,
                producers::others_go_on_after_a_restart,
                producers::the_one_silent_longest_is_forgotten,
            }
        }
    };
    (@all $backend:path, $($area:ident::$check:ident,)+) => {$(
        #[tokio::test]
        async fn $check() {
            $crate::store::contract::$area::$check(&$backend().await).await;
        }
    )+};
}
pub(crate) use contract_tests;

// ---- what the checks are written with --------------------------------------

pub(crate) fn run(id: &str) -> RunId {
    RunId::parse(id).expect("a run id")
}

pub(crate) fn output(text: impl Into<String>) -> NewEvent {
    NewEvent {
        kind: EventKind::Output,
        source: "stdout".to_owned(),
        payload: text.into().into(),
    }
}

pub(crate) fn status(word: &str) -> NewEvent {
    NewEvent {
        kind: EventKind::Status,
        source: String::new(),
        payload: word.to_owned().into(),
    }
}

/// `count` outputs: `0`, `1`, …
pub(crate) fn outputs(count: usize) -> Vec<NewEvent> {
    (0..count).map(|n| output(n.to_string())).collect()
}

pub(crate) fn producer(id: &str, epoch: u64, first_seq: u64) -> Option<Producer> {
    let id = id.to_owned();
    Some(Producer {
        id,
        epoch,
        first_seq,
    })
}

pub(crate) async fn append(
    store: &Arc<dyn RunStore>,
    run_id: &str,
    batch: AppendBatch,
) -> Vec<PublishResult> {
    let count = batch.events.len();
    let results = store.append(&run(run_id), batch).await.expect("it answers");
    assert_eq!(results.len(), count, "one result for each event");
    results
}

/// Appends events that must be accepted.
pub(crate) async fn append_ok(
    store: &Arc<dyn RunStore>,
    run_id: &str,
    events: Vec<NewEvent>,
) -> Vec<DurableId> {
    let batch = AppendBatch {
        events,
        ..AppendBatch::default()
    };
    let results = append(store, run_id, batch).await;
    results.into_iter().map(|result| new_id(&result)).collect()
}

/// Appends one event of a numbered producer.
pub(crate) async fn append_by(
    store: &Arc<dyn RunStore>,
    run_id: &str,
    (id, epoch, seq): (&str, u64, u64),
    event: NewEvent,
) -> PublishResult {
    let batch = AppendBatch {
        events: vec![event],
        producer: producer(id, epoch, seq),
        ..AppendBatch::default()
    };
    append(store, run_id, batch).await.remove(0)
}

/// Begins the run anew with one event.
pub(crate) async fn restart(store: &Arc<dyn RunStore>, run_id: &str) -> DurableId {
    let batch = AppendBatch {
        events: vec![output("anew")],
        restart: true,
        ..AppendBatch::default()
    };
    new_id(&append(store, run_id, batch).await[0])
}

/// What belongs to a trace that is recorded.
pub(crate) fn traced(events: Vec<NewEvent>) -> AppendBatch {
    AppendBatch {
        events,
        trace: TraceContext::parse(TRACE),
        ..AppendBatch::default()
    }
}

/// The id of an event that was accepted just now.
pub(crate) fn new_id(result: &PublishResult) -> DurableId {
    match result {
        Ok(Published {
            id: Some(id),
            is_duplicate: false,
        }) => *id,
        other => panic!("not accepted as new: {other:?}"),
    }
}

pub(crate) fn duplicate_of(id: Option<DurableId>) -> PublishResult {
    Ok(Published {
        id,
        is_duplicate: true,
    })
}

pub(crate) async fn read(
    store: &Arc<dyn RunStore>,
    run_id: &str,
    from: PageFrom,
    events_max: usize,
) -> Page {
    let query = PageQuery {
        from,
        events_max,
        bytes_max: 1 << 20,
    };
    store.read(&run(run_id), query).await.expect("it answers")
}

pub(crate) async fn head(store: &Arc<dyn RunStore>, run_id: &str) -> Head {
    let page = read(store, run_id, PageFrom::After(0), 1).await;
    page.head.expect("a run it knows")
}

pub(crate) fn texts(page: &Page) -> Vec<&str> {
    let text = |payload| std::str::from_utf8(payload).expect("UTF-8");
    page.events
        .iter()
        .map(|event| text(&event.payload))
        .collect()
}

pub(crate) fn is_closed(result: &PublishResult) -> bool {
    matches!(result, Err(PublishError::Closed))
}
