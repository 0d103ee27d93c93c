//! The store in memory does what a list of all events ever would say.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytesize::ByteSize;
use futures_util::FutureExt;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use runcast_actors::broker::{BrokerSettings, NewEvent, PublishError, PublishResult, Published};
use runcast_actors::memory_store::MemoryStore;
use runcast_actors::metrics::Metrics;
use runcast_actors::protocol::{DurableId, EventKind, RunId};
use runcast_actors::store::{
    AppendBatch, Closed, Head, Page, PageFrom, PageQuery, Producer, RunStore, StoredEvent,
};

const EVENT_BYTES_MAX: usize = 60;
const EVENTS_MAX: usize = 8;
const BYTES_MAX: usize = 200;
const GRACE_US: u64 = 2_000_000;
const TTL_US: u64 = 10_000_000;
const STATE_TTL_US: u64 = TTL_US + 24 * 3600 * 1_000_000;
const START_US: u64 = 1_795_478_400_000_000;

fn settings() -> BrokerSettings {
    let mut settings = BrokerSettings::default();
    settings
        .live
        .change(|live| live.limits.max_event_bytes = ByteSize::b(EVENT_BYTES_MAX as u64));
    settings.history.max_events = EVENTS_MAX as u64;
    settings.history.max_bytes_per_run = ByteSize::b(BYTES_MAX as u64);
    settings.history.ttl = Duration::from_micros(TTL_US);
    settings.runs.end_grace = Duration::from_micros(GRACE_US);
    settings
}

// ---- what happens ----------------------------------------------------------

#[derive(Debug, Clone)]
enum Step {
    Append(RunId, AppendBatch),
    Read(RunId, PageQuery),
    Positions,
    /// The clock goes on, or back.
    Clock(i64),
    Sweep,
}

fn run_ids() -> Vec<RunId> {
    let parse = |id| RunId::parse(id).expect("it is a run id");
    ["a", "b", "c"].map(parse).to_vec()
}

fn run_id() -> impl Strategy<Value = RunId> {
    proptest::sample::select(run_ids())
}

fn event() -> impl Strategy<Value = NewEvent> {
    let status = prop_oneof![
        6 => Just("running"),
        1 => Just("Completed"),
        1 => Just(r#"{"status":"FAILED"}"#),
        1 => Just("7"),
    ];
    let status = status.prop_map(|word| (EventKind::Status, "", word.to_owned()));
    let kind = prop_oneof![Just(EventKind::Output), Just(EventKind::Log)];
    let sized = (kind, 0..=EVENT_BYTES_MAX + 3)
        .prop_map(|(kind, bytes)| (kind, "stdout", "x".repeat(bytes)));
    prop_oneof![1 => status, 4 => sized].prop_map(|(kind, source, payload)| NewEvent {
        kind,
        source: source.to_owned(),
        payload: payload.into(),
    })
}

fn batch() -> impl Strategy<Value = AppendBatch> {
    let name = prop_oneof![Just("p"), Just("q")];
    let producer = (name, 1..3_u64, 1..14_u64).prop_map(|(name, epoch, first_seq)| Producer {
        id: name.to_owned(),
        epoch,
        first_seq,
    });
    let restart = proptest::bool::weighted(0.08);
    (vec(event(), 0..5), restart, option::of(producer)).prop_map(|(events, restart, producer)| {
        AppendBatch {
            events,
            restart,
            producer,
            ..AppendBatch::default()
        }
    })
}

fn query() -> impl Strategy<Value = PageQuery> {
    let seq = prop_oneof![8 => 0..30_u64, 1 => Just(u64::MAX)];
    let from = prop_oneof![
        seq.clone().prop_map(PageFrom::After),
        seq.prop_map(PageFrom::Before),
    ];
    let bytes_max = prop_oneof![0..200_usize, Just(usize::MAX)];
    (from, 1..12_usize, bytes_max).prop_map(|(from, events_max, bytes_max)| PageQuery {
        from,
        events_max,
        bytes_max,
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (run_id(), batch()).prop_map(|(run_id, batch)| Step::Append(run_id, batch)),
        6 => (run_id(), query()).prop_map(|(run_id, query)| Step::Read(run_id, query)),
        1 => Just(Step::Positions),
        1 => (-3_000_000..3_000_000_i64).prop_map(Step::Clock),
        1 => prop_oneof![Just(GRACE_US), Just(TTL_US), Just(STATE_TTL_US)]
            .prop_map(|us| Step::Clock(us as i64)),
        1 => Just(Step::Sweep),
    ]
}

// ---- what should come of it ------------------------------------------------

/// An event accepted, and by whom: name, epoch and number.
type Accepted = (StoredEvent, Option<(String, u64, u64)>);

/// A run as a list of all its events.
#[derive(Debug, Clone)]
struct ModelRun {
    epoch: u64,
    all: Vec<Accepted>,
    /// How many of them have expired.
    expired: usize,
    touched_us: u64,
    closed: Option<Closed>,
    /// Epoch, number and id of each producer's last event.
    producers: BTreeMap<String, (u64, u64, DurableId)>,
}

impl ModelRun {
    /// The longest end of the list that the bounds allow; at least one event.
    fn kept(&self) -> &[Accepted] {
        let alive = &self.all[self.expired..];
        let fits = |kept: &&[Accepted]| {
            let bytes = |(event, _): &Accepted| event.payload.len() + event.source.len();
            kept.len() <= EVENTS_MAX && kept.iter().map(bytes).sum::<usize>() <= BYTES_MAX
        };
        let ends = (0..alive.len()).map(|from| &alive[from..]);
        let newest = &alive[alive.len().saturating_sub(1)..];
        ends.into_iter().find(fits).unwrap_or(newest)
    }

    fn last(&self) -> DurableId {
        self.all.last().expect("a run has an event").0.id
    }
}

#[derive(Debug, Default)]
struct Model {
    runs: BTreeMap<RunId, ModelRun>,
    forgotten_epoch: u64,
    now_us: u64,
}

impl Model {
    fn expire(&mut self, run_id: &RunId) {
        let Some(run) = self.runs.get_mut(run_id) else {
            return;
        };
        let idle_us = self.now_us.saturating_sub(run.touched_us);
        if idle_us >= TTL_US {
            run.expired = run.all.len();
        }
        if idle_us >= STATE_TTL_US {
            self.forgotten_epoch = self.forgotten_epoch.max(run.epoch);
            self.runs.remove(run_id);
        }
    }

    fn append(&mut self, run_id: &RunId, batch: &AppendBatch) -> Vec<PublishResult> {
        self.expire(run_id);
        let mut restart = batch.restart;
        let events = batch.events.iter().zip(0..);
        events
            .map(|(event, index)| {
                let by = batch.producer.as_ref();
                let by = by.map(|by| (by.id.clone(), by.epoch, by.first_seq + index));
                self.append_one(run_id, event, by, &mut restart)
            })
            .collect()
    }

    fn append_one(
        &mut self,
        run_id: &RunId,
        event: &NewEvent,
        by: Option<(String, u64, u64)>,
        restart: &mut bool,
    ) -> PublishResult {
        let run = self.runs.get(run_id);
        let known = by.as_ref().and_then(|by| run?.producers.get(&by.0));
        let mut lost = by.as_ref().map_or(0, |by| by.2 - 1);
        if let (Some(by), Some(&(epoch, seq, id))) = (&by, known) {
            if by.1 < epoch {
                return Err(PublishError::Fenced);
            }
            if by.1 == epoch && by.2 <= seq {
                *restart = false;
                let of_by = |kept: &&Accepted| kept.1.as_ref() == Some(by);
                let older = run.and_then(|run| run.kept().iter().find(of_by));
                let id = if by.2 == seq {
                    Some(id)
                } else {
                    older.map(|kept| kept.0.id)
                };
                let is_duplicate = true;
                return Ok(Published { id, is_duplicate });
            }
            if by.1 == epoch {
                lost = by.2 - seq - 1;
            }
        }
        if event.payload.len() > EVENT_BYTES_MAX {
            let limit = EVENT_BYTES_MAX as u64;
            return Err(PublishError::TooLarge { limit });
        }
        let is_new = std::mem::take(restart) || run.is_none();
        let closed = run.and_then(|run| run.closed.as_ref());
        if !is_new && closed.is_some_and(|closed| self.now_us > closed.sealed_us) {
            return Err(PublishError::Closed);
        }
        if is_new {
            self.begin(run_id);
        }
        let run = self.runs.get_mut(run_id).expect("just begun");
        let last_us = run.all.last().map_or(run.epoch * 1000, |last| last.0.id.us);
        let id = DurableId {
            epoch: run.epoch,
            seq: run.all.len() as u64 + 1,
            us: self.now_us.max(last_us),
        };
        let terminal = ["Completed", r#"{"status":"FAILED"}"#].map(str::as_bytes);
        let is_terminal = event.kind == EventKind::Status && terminal.contains(&&event.payload[..]);
        if is_terminal && run.closed.is_none() {
            let is_failed = event.payload.len() > 10;
            run.closed = Some(Closed {
                status: if is_failed { "failed" } else { "completed" }.to_owned(),
                at_us: id.us,
                sealed_us: id.us + GRACE_US,
            });
        }
        if let Some((name, epoch, seq)) = &by {
            run.producers.insert(name.clone(), (*epoch, *seq, id));
        }
        run.touched_us = self.now_us;
        let stored = StoredEvent {
            id,
            lost,
            kind: event.kind,
            source: event.source.clone(),
            payload: event.payload.clone(),
            trace: None,
        };
        run.all.push((stored, by));
        Ok(Published::new(id))
    }

    fn begin(&mut self, run_id: &RunId) {
        let old = self.runs.remove(run_id);
        let after = old.as_ref().map_or(self.forgotten_epoch, |run| run.epoch);
        let run = ModelRun {
            epoch: (self.now_us / 1000).max(after.max(self.forgotten_epoch) + 1),
            all: Vec::new(),
            expired: 0,
            touched_us: self.now_us,
            closed: None,
            producers: old.map(|run| run.producers).unwrap_or_default(),
        };
        self.runs.insert(run_id.clone(), run);
    }

    fn read(&mut self, run_id: &RunId, query: PageQuery) -> Page {
        self.expire(run_id);
        let Some(run) = self.runs.get(run_id) else {
            return Page::default();
        };
        let kept: Vec<StoredEvent> = run.kept().iter().map(|(event, _)| event.clone()).collect();
        let is_asked = |event: &&StoredEvent| match query.from {
            PageFrom::After(seq) => event.id.seq > seq,
            PageFrom::Before(seq) => event.id.seq < seq,
        };
        let mut asked: Vec<StoredEvent> = kept.iter().filter(is_asked).cloned().collect();
        let is_backward = matches!(query.from, PageFrom::Before(_));
        if is_backward {
            asked.reverse();
        }
        let count = asked.len();
        let mut events = Vec::new();
        let mut bytes = 0;
        for event in asked {
            bytes += event.payload.len();
            events.push(event);
            if events.len() == query.events_max || bytes >= query.bytes_max {
                break;
            }
        }
        let more = events.len() < count;
        if is_backward {
            events.reverse();
        }
        let (PageFrom::After(seq) | PageFrom::Before(seq)) = query.from;
        Page {
            head: Some(self.head(run)),
            first: kept.first().map(|event| event.id),
            anchor: kept.iter().map(|event| event.id).find(|id| id.seq == seq),
            events,
            more,
        }
    }

    fn head(&self, run: &ModelRun) -> Head {
        let count = |kind| {
            let of_kind = run.all.iter().filter(|(event, _)| event.kind == kind);
            of_kind.count() as u64
        };
        let words = run
            .all
            .iter()
            .rev()
            .filter_map(|(event, _)| match event.kind {
                EventKind::Status => match &event.payload[..] {
                    b"7" => None,
                    br#"{"status":"FAILED"}"# => Some("FAILED".to_owned()),
                    word => Some(String::from_utf8_lossy(word).into_owned()),
                },
                EventKind::Output | EventKind::Log => None,
            });
        Head {
            last: run.last(),
            counts: EventKind::ALL.map(count),
            status: words.into_iter().next(),
            closed: run.closed.clone(),
            now_us: self.now_us,
        }
    }

    fn position(&mut self, run_id: &RunId) -> Option<DurableId> {
        self.expire(run_id);
        self.runs.get(run_id).map(ModelRun::last)
    }
}

// ---- both side by side -----------------------------------------------------

/// A store by a clock of its own, and the ids it handed to its sink.
struct Fixture {
    store: MemoryStore,
    clock_us: Arc<AtomicU64>,
    stored: Arc<Mutex<Vec<(RunId, DurableId)>>>,
    metrics: Arc<Metrics>,
}

impl Fixture {
    fn new(settings: &BrokerSettings) -> Self {
        let clock_us = Arc::new(AtomicU64::new(START_US));
        let stored: Arc<Mutex<Vec<_>>> = Arc::default();
        let metrics: Arc<Metrics> = Arc::default();
        let (clock, sink) = (Arc::clone(&clock_us), Arc::clone(&stored));
        let store = MemoryStore::with_clock(
            settings,
            Arc::clone(&metrics),
            Box::new(move |run_id, events| {
                let ids = events.iter().map(|event| (run_id.clone(), event.id));
                sink.lock().expect("no panic").extend(ids);
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

    fn append(&self, run_id: &RunId, batch: AppendBatch) -> Vec<PublishResult> {
        let appended = self.store.append(run_id, batch).now_or_never();
        appended.expect("it is ready").expect("it answers")
    }

    fn positions(&self, run_ids: &[RunId]) -> Vec<Option<DurableId>> {
        let positions = self.store.positions(run_ids).now_or_never();
        positions.expect("it is ready").expect("it answers")
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn it_does_as_a_list_of_all_events_would(steps in vec(step(), 1..80)) {
        let at = Fixture::new(&settings());
        let mut model = Model { now_us: START_US, ..Model::default() };
        let mut accepted = Vec::new();
        for step in steps {
            match step {
                Step::Append(run_id, batch) => {
                    let expected = model.append(&run_id, &batch);
                    prop_assert_eq!(at.append(&run_id, batch), &expected[..]);
                    let new = expected.into_iter().flatten().filter(|new| !new.is_duplicate);
                    accepted.extend(new.filter_map(|new| Some((run_id.clone(), new.id?))));
                }
                Step::Read(run_id, query) => {
                    let page = at.store.read(&run_id, query).now_or_never();
                    let page = page.expect("it is ready").expect("it answers");
                    prop_assert_eq!(page, model.read(&run_id, query));
                }
                Step::Positions => {
                    let run_ids = run_ids();
                    let expected: Vec<_> = run_ids.iter().map(|id| model.position(id)).collect();
                    prop_assert_eq!(at.positions(&run_ids), expected);
                }
                Step::Clock(us) => {
                    model.now_us = model.now_us.saturating_add_signed(us);
                    at.clock_us.store(model.now_us, Relaxed);
                }
                Step::Sweep => {
                    at.store.sweep();
                    run_ids().iter().for_each(|run_id| model.expire(run_id));
                }
            }
        }
        prop_assert_eq!(&*at.stored.lock().expect("no panic"), &accepted);
    }

    #[test]
    fn those_known_are_those_touched_last(appends in vec((0..12_usize, 0..4000_usize), 1..60)) {
        const TOTAL: u64 = 12_000;
        let mut settings = BrokerSettings::default();
        settings.history.embedded_total_bytes = ByteSize::b(TOTAL);
        let at = Fixture::new(&settings);
        let run_ids: Vec<RunId> = (0..12)
            .map(|n| RunId::parse(&format!("run-{n}")).expect("it is a run id"))
            .collect();
        let mut by_idleness: Vec<usize> = Vec::new();
        let mut epochs = vec![0; run_ids.len()];
        for (index, bytes) in appends {
            let event = NewEvent {
                kind: EventKind::Output,
                source: String::new(),
                payload: vec![b'x'; bytes].into(),
            };
            let was_known = at.positions(&run_ids)[index].is_some();
            let batch = AppendBatch { events: vec![event], ..AppendBatch::default() };
            let published = at.append(&run_ids[index], batch).remove(0).expect("accepted");
            let id = published.id.expect("a new event has an id");
            prop_assert_eq!(id.epoch == epochs[index], was_known);
            prop_assert!(id.epoch >= epochs[index]);
            epochs[index] = id.epoch;
            by_idleness.retain(|other| *other != index);
            by_idleness.push(index);
            let positions = at.positions(&run_ids);
            let known = by_idleness.iter().map(|index| positions[*index].is_some());
            prop_assert!(known.is_sorted(), "one idle for longer is known");
            prop_assert!(at.metrics.store.bytes.get() <= TOTAL);
        }
    }
}
