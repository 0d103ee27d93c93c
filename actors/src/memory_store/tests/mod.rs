//! What the store promises, one by one; `tests/properties` has them together.

mod appending;
mod keeping;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use bytesize::ByteSize;
use futures_util::FutureExt;

use super::*;
use crate::broker::{NewEvent, Published};
use crate::store::{PageFrom, Producer};

/// 2026-11-24, in µs.
const START_US: u64 = 1_795_478_400_000_000;
const SECOND_US: u64 = 1_000_000;

/// A store by a clock of its own, and what it handed to its sink.
struct Fixture {
    store: MemoryStore,
    clock_us: Arc<AtomicU64>,
    stored: Arc<Mutex<Vec<(RunId, StoredEvent)>>>,
    metrics: Arc<Metrics>,
}

impl Fixture {
    fn new(change: impl FnOnce(&mut BrokerSettings)) -> Self {
        let mut settings = BrokerSettings::default();
        change(&mut settings);
        let clock_us = Arc::new(AtomicU64::new(START_US));
        let stored: Arc<Mutex<Vec<_>>> = Arc::default();
        let metrics: Arc<Metrics> = Arc::default();
        let sink = Arc::clone(&stored);
        let clock = Arc::clone(&clock_us);
        let store = MemoryStore::with_clock(
            &settings,
            Arc::clone(&metrics),
            Box::new(move |run_id, events| {
                let events = events.into_iter().map(|event| (run_id.clone(), event));
                sink.lock().expect("no panic").extend(events);
            }),
            Box::new(move || clock.load(Relaxed)),
        );
        Self {
            store,
            clock_us,
            stored,
            metrics,
        }
    }

    fn later(&self, us: u64) {
        self.clock_us.fetch_add(us, Relaxed);
    }

    fn append(&self, run: &str, batch: AppendBatch) -> AppendResults {
        let run_id = run_id(run);
        let appended = self.store.append(&run_id, batch).now_or_never();
        appended.expect("it is ready").expect("it answers")
    }

    fn publish(&self, run: &str, event: NewEvent) -> PublishResult {
        self.append(run, batch(vec![event])).remove(0)
    }

    fn id(&self, run: &str, event: NewEvent) -> DurableId {
        let published = self.publish(run, event).expect("accepted");
        published.id.expect("a new event has an id")
    }

    fn read(&self, run: &str, from: PageFrom) -> Page {
        let query = PageQuery {
            from,
            events_max: 1000,
            bytes_max: usize::MAX,
        };
        self.page(run, query)
    }

    fn page(&self, run: &str, query: PageQuery) -> Page {
        let run_id = run_id(run);
        let page = self.store.read(&run_id, query).now_or_never();
        page.expect("it is ready").expect("it answers")
    }

    fn all(&self, run: &str) -> Page {
        self.read(run, PageFrom::After(0))
    }

    fn position(&self, run: &str) -> Option<DurableId> {
        let run_ids = [run_id(run)];
        let positions = self.store.positions(&run_ids).now_or_never();
        positions.expect("it is ready").expect("it answers")[0]
    }
}

fn run_id(text: &str) -> RunId {
    RunId::parse(text).expect("it is a run id")
}

fn event(kind: EventKind, payload: &str) -> NewEvent {
    NewEvent {
        kind,
        source: match kind {
            EventKind::Status => String::new(),
            EventKind::Output | EventKind::Log => "stdout".to_owned(),
        },
        payload: Bytes::copy_from_slice(payload.as_bytes()),
    }
}

fn output(payload: &str) -> NewEvent {
    event(EventKind::Output, payload)
}

fn status(word: &str) -> NewEvent {
    event(EventKind::Status, word)
}

fn batch(events: Vec<NewEvent>) -> AppendBatch {
    AppendBatch {
        events,
        ..AppendBatch::default()
    }
}

fn produced(epoch: u64, first_seq: u64, events: Vec<NewEvent>) -> AppendBatch {
    AppendBatch {
        producer: Some(Producer {
            id: "agent-1".to_owned(),
            epoch,
            first_seq,
        }),
        ..batch(events)
    }
}

fn restart(events: Vec<NewEvent>) -> AppendBatch {
    AppendBatch {
        restart: true,
        ..batch(events)
    }
}

fn seqs(page: &Page) -> Vec<u64> {
    page.events.iter().map(|event| event.id.seq).collect()
}

fn duplicate(id: Option<DurableId>) -> PublishResult {
    Ok(Published {
        id,
        is_duplicate: true,
    })
}
