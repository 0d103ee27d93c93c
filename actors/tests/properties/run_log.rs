//! A client that comes back gets exactly what it has not seen, or is told how
//! much is missing, wherever it left and whatever was dropped meanwhile.

use std::time::Instant;

use proptest::collection::vec;
use proptest::prelude::*;
use runcast_actors::broker::StreamStart;
use runcast_actors::order::{JoinFrom, JoinInput, JoinOutput, Joiner, LogIndex, Safeguards};
use runcast_actors::protocol::{
    BackendKind, Cursor, DurableId, EventId, EventKind, Gap, GapReason, HubId, LogLevel, Payload,
    Place, PlainId, RunId, Timestamp,
};
use runcast_actors::run_log::{HubIdentity, Joining, LogPosition, RunLog};
use runcast_actors::sse::{EventFrame, FrameClass, SegmentBuilder, end_frame, gap_frame};
use runcast_actors::store::{Head, Page, PageFrom, StoredEvent};

/// One thing that happens to a run.
#[derive(Debug, Clone, Copy)]
enum Step {
    Plain {
        bytes: usize,
    },
    Durable {
        bytes: usize,
    },
    Gap,
    /// The end of a batch.
    Flush,
}

fn steps(mixed: bool) -> impl Strategy<Value = Vec<Step>> {
    let bytes = prop_oneof![6 => 0..300_usize, 1 => 4_000..9_000_usize];
    let event = (bytes, any::<bool>()).prop_map(move |(bytes, durable)| match durable && mixed {
        true => Step::Durable { bytes },
        false => Step::Plain { bytes },
    });
    let step = prop_oneof![6 => event, 1 => Just(Step::Gap), 2 => Just(Step::Flush)];
    vec(step, 1..60)
}

/// An event as it was appended.
#[derive(Debug, Clone)]
struct Appended {
    id: EventId,
    /// Where its frame ends in the whole stream.
    end: usize,
}

impl Appended {
    fn is_durable(&self) -> bool {
        matches!(self.id, EventId::Durable(_))
    }
}

/// What a client is told first, then sent.
#[derive(Default)]
struct Joined {
    gap: Option<(GapReason, Option<u64>)>,
    read: Vec<u8>,
}

/// A log, and all that was ever appended to it.
struct Model {
    log: RunLog,
    hub: HubIdentity,
    stream: Vec<u8>,
    events: Vec<Appended>,
}

impl Model {
    fn build(steps: &[Step], bytes_max: usize, events_max: u64, ended: bool) -> Self {
        let hub = HubIdentity {
            former: None,
            id: HubId::random(),
            backend: BackendKind::Redis,
        };
        let mut model = Self {
            log: RunLog::new(bytes_max, events_max),
            hub,
            stream: Vec::new(),
            events: Vec::new(),
        };
        let (mut builder, now) = (SegmentBuilder::default(), Instant::now());
        for step in steps {
            match step {
                Step::Plain { bytes } => model.event(&mut builder, *bytes, false),
                Step::Durable { bytes } => model.event(&mut builder, *bytes, true),
                Step::Gap => {
                    let gap = gap_frame(&Gap::unknown(GapReason::Disconnected));
                    builder.push_control(&gap, FrameClass::CONTROL, "", now);
                }
                Step::Flush => model.flush(&mut builder),
            }
        }
        model.flush(&mut builder);
        if ended && let Some(last) = model.events.last() {
            let last_id = last.id.to_string();
            let end = end_frame("completed", None, &last_id);
            builder.push_control(&end, FrameClass::END, &format!("{last_id}-end"), now);
            model.flush(&mut builder);
        }
        model.find_ends();
        model
    }

    fn event(&mut self, builder: &mut SegmentBuilder, bytes: usize, durable: bool) {
        let last_durable = self.events.iter().rev().find_map(|event| match event.id {
            EventId::Durable(id) => Some(id),
            _ => None,
        });
        let n = self.events.len() as u64 + 1;
        let id = match durable {
            true => EventId::Durable(DurableId {
                epoch: 1,
                seq: last_durable.map_or(1, |last| last.seq + 1),
                us: n,
            }),
            false => EventId::Plain(PlainId {
                hub: self.hub.id,
                n,
                durable: last_durable,
            }),
        };
        let text = "x".repeat(bytes);
        let frame = EventFrame {
            run_id: &RunId::parse("42").expect("valid"),
            kind: EventKind::Output,
            source: "",
            ts: "2026-11-23T20:00:00.123Z",
            backend: self.hub.backend,
            payload: Payload::Text(&text),
        };
        let class = FrameClass::of(EventKind::Output, LogLevel::Info);
        let durable_id = match id {
            EventId::Durable(id) => Some(id),
            _ => None,
        };
        let (ts, now) = (Timestamp::now(), Instant::now());
        builder.push_event(&frame, &id, class, durable_id, ts, now);
        self.events.push(Appended { id, end: 0 });
    }

    fn flush(&mut self, builder: &mut SegmentBuilder) {
        for segment in builder.take(Instant::now()) {
            self.stream.extend_from_slice(segment.bytes());
            self.log.push(segment);
        }
    }

    fn find_ends(&mut self) {
        let mut from = 0;
        for event in &mut self.events {
            let line = format!("\nid: {}\n\n", event.id);
            let at = memchr::memmem::find(&self.stream[from..], line.as_bytes());
            from += at.expect("every event is in the stream") + line.len();
            event.end = from;
        }
    }

    /// What a client that begins at `start` is told and sent; the store has
    /// every durable event.
    fn join(&self, start: &StreamStart) -> Joined {
        let safeguards = Safeguards::default();
        let filter = Default::default();
        match self.log.join(start, &filter, self.hub, safeguards) {
            Joining::Seated(join) => Joined {
                gap: join.gap.map(|gap| (gap.reason, gap.missed)),
                read: self.read(join.position),
            },
            Joining::Reading(joiner) => self.drive(joiner),
            Joining::Counting(count) => {
                let base = self.log.base();
                let below = base.map_or(0, |base| base.seq) as usize;
                let from = match below.saturating_sub(count as usize) {
                    0 => JoinFrom::Start,
                    seen => JoinFrom::Seen(self.durables()[seen - 1].1.into()),
                };
                self.drive(Joiner::new(from, &self.log, safeguards))
            }
        }
    }

    fn drive(&self, mut joiner: Joiner) -> Joined {
        let mut joined = Joined::default();
        let mut page: Option<Page> = None;
        loop {
            let mut out = Vec::new();
            let input = page.as_ref().map_or(JoinInput::GoOn, JoinInput::Page);
            joiner.step(input, &self.log, &mut out);
            let mut next = None;
            for output in out {
                match output {
                    JoinOutput::Gap { reason, missed, .. } => {
                        assert_eq!(joined.gap, None, "one gap at most");
                        joined.gap = Some((reason, missed));
                    }
                    JoinOutput::Send(range) => {
                        for event in &page.as_ref().expect("one was read").events[range] {
                            joined.read.extend_from_slice(self.frame_of(event.id));
                        }
                    }
                    JoinOutput::Read(PageFrom::After(seq)) => next = Some(self.page_after(seq)),
                    JoinOutput::Seat(position) => {
                        joined.read.extend(self.read(position));
                        return joined;
                    }
                    other => panic!("{other:?} of a store that lost nothing"),
                }
            }
            page = next;
        }
    }

    /// Every durable event's place among all, and its id.
    fn durables(&self) -> Vec<(usize, DurableId)> {
        let durable = |(index, event): (usize, &Appended)| match event.id {
            EventId::Durable(id) => Some((index, id)),
            _ => None,
        };
        self.events.iter().enumerate().filter_map(durable).collect()
    }

    fn page_after(&self, seq: u64) -> Page {
        let all: Vec<DurableId> = self.durables().into_iter().map(|(_, id)| id).collect();
        let Some(last) = all.last() else {
            return Page::default();
        };
        let stored = |id: &DurableId| StoredEvent {
            id: *id,
            lost: 0,
            kind: EventKind::Output,
            source: String::new(),
            payload: Default::default(),
            trace: None,
        };
        let after = all.iter().filter(|id| id.seq > seq);
        Page {
            head: Some(Head {
                last: *last,
                counts: [0; 3],
                status: None,
                closed: None,
                now_us: 0,
            }),
            first: all.first().copied(),
            anchor: all.iter().find(|id| id.seq == seq).copied(),
            events: after.clone().take(7).map(stored).collect(),
            more: after.count() > 7,
        }
    }

    fn frame_of(&self, id: DurableId) -> &[u8] {
        let durables = self.durables();
        let (index, _) = durables
            .iter()
            .find(|(_, known)| *known == id)
            .expect("known");
        let frames = &self.stream[..self.events[*index].end];
        let start = memchr::memmem::rfind(frames, b"event: output\n").expect("a frame");
        &frames[start..]
    }

    /// What a client at `position` is sent.
    fn read(&self, position: LogPosition) -> Vec<u8> {
        let mut read = Vec::new();
        for no in position.segment_no..self.log.end_no() {
            let segment = self.log.segment(no).expect("a log has no holes");
            let first = match no == position.segment_no {
                true => position.frame as usize,
                false => 0,
            };
            read.extend_from_slice(&segment.slice(first..segment.frames().len()));
        }
        read
    }

    /// What who has seen the events up to `index` is to be sent: durable ones
    /// that are not in the log any more, then the log from there on.
    fn unseen(&self, index: usize) -> Vec<u8> {
        let kept_from = self.kept_from();
        let mut unseen = Vec::new();
        for (at, id) in self.durables() {
            if at > index && self.events[at].end <= kept_from {
                unseen.extend_from_slice(self.frame_of(id));
            }
        }
        let from = self.events[index].end.max(kept_from);
        unseen.extend_from_slice(&self.stream[from..]);
        unseen
    }

    fn is_ended(&self) -> bool {
        let last = self.log.segments().next_back();
        last.is_some_and(|segment| segment.classes().meets(FrameClass::END))
    }

    /// Where what the log keeps begins in the whole stream.
    fn kept_from(&self) -> usize {
        let kept: usize = self
            .log
            .segments()
            .map(|segment| segment.bytes().len())
            .sum();
        self.stream.len() - kept
    }

    /// How many plain events after `index` were dropped from the log.
    fn dropped_after(&self, index: usize) -> u64 {
        let after = self.events[index + 1..].iter();
        let kept_from = self.kept_from();
        after
            .filter(|event| !event.is_durable() && event.end <= kept_from)
            .count() as u64
    }

    /// Whether a gap after event `index` was dropped from the log.
    fn gap_dropped_after(&self, index: usize) -> bool {
        let dropped = self.stream.get(self.events[index].end..self.kept_from());
        dropped.is_some_and(|frames| memchr::memmem::find(frames, b"event: gap\n").is_some())
    }
}

fn after(id: &EventId) -> StreamStart {
    StreamStart::After(Cursor {
        id: id.clone(),
        end: false,
    })
}

proptest! {
    #[test]
    fn a_log_keeps_the_newest_within_its_bounds(
        steps in steps(true), bytes_max in 1_000..40_000_usize, events_max in 1..40_u64,
        ended in any::<bool>(),
    ) {
        let model = Model::build(&steps, bytes_max, events_max, ended);
        let segments = model.log.segments().count();
        prop_assert!(segments == 1 || model.log.bytes() <= bytes_max || segments == 0);
        prop_assert_eq!(model.log.events_through(), model.events.len() as u64);
        let all = model.join(&StreamStart::Start);
        let mut expected = Vec::new();
        for (at, id) in model.durables() {
            if model.events[at].end <= model.kept_from() {
                expected.extend_from_slice(model.frame_of(id));
            }
        }
        expected.extend_from_slice(&model.stream[model.kept_from()..]);
        prop_assert_eq!(all.gap, None);
        prop_assert_eq!(all.read, expected);
        // Who starts at now waits for what comes; of a run that is over, only
        // its end does.
        let now = String::from_utf8(model.join(&StreamStart::Now).read).expect("UTF-8");
        prop_assert_eq!(now.matches("event: ").count(), usize::from(model.is_ended()));
        prop_assert_eq!(now.starts_with("event: end\n"), model.is_ended());
        // More than the event bound goes only where the byte bound asks for it.
        if bytes_max >= model.stream.len() * 4 {
            let kept = model.events.len() as u64 - model.log.events_before(model.log.front());
            prop_assert!(kept >= events_max.min(model.events.len() as u64));
        }
    }

    #[test]
    fn a_client_misses_nothing_in_silence(
        steps in prop_oneof![steps(true), steps(false)], bytes_max in 1_000..40_000_usize,
        ended in any::<bool>(),
    ) {
        let model = Model::build(&steps, bytes_max, u64::MAX, ended);
        for (index, event) in model.events.iter().enumerate() {
            let join = model.join(&after(&event.id));
            let dropped = model.dropped_after(index);
            let is_known = !model.gap_dropped_after(index);
            match join.gap {
                None => {
                    prop_assert_eq!(dropped, 0, "{} in silence", event.id);
                    prop_assert!(is_known, "a gap after {} in silence", event.id);
                }
                Some((reason, missed)) => {
                    prop_assert!(dropped > 0 || !is_known, "{} for nothing", event.id);
                    prop_assert_eq!(reason, GapReason::Trimmed);
                    prop_assert!(missed.is_none_or(|n| is_known && n == dropped), "{}", event.id);
                }
            }
            let unseen = String::from_utf8(model.unseen(index)).expect("UTF-8");
            let read = String::from_utf8(join.read).expect("UTF-8");
            prop_assert_eq!(read, unseen, "{}", event.id);
        }
    }

    #[test]
    fn a_plain_run_knows_what_it_dropped(
        steps in steps(false), bytes_max in 1_000..40_000_usize,
    ) {
        let model = Model::build(&steps, bytes_max, u64::MAX, false);
        for (index, event) in model.events.iter().enumerate() {
            if let Some((_, missed)) = model.join(&after(&event.id)).gap {
                let is_known = !model.gap_dropped_after(index);
                prop_assert_eq!(missed, is_known.then(|| model.dropped_after(index)));
            }
        }
    }

    #[test]
    fn a_client_that_comes_back_after_the_end_is_told_nothing_else(
        steps in steps(true),
    ) {
        let model = Model::build(&steps, usize::MAX, u64::MAX, true);
        let Some(last) = model.events.last() else { return Ok(()) };
        let join = model.join(&StreamStart::After(Cursor { id: last.id.clone(), end: true }));
        // It was to get a 204; should it come in all the same, it must not
        // wait for ever.
        let read = String::from_utf8(join.read).expect("UTF-8");
        prop_assert_eq!(read.matches("event: end\n").count(), 1, "{}", read);
        prop_assert_eq!(read.matches("event: output\n").count(), 0, "{}", read);
    }

    #[test]
    fn the_last_events_are_the_last_events(
        steps in steps(true), bytes_max in 1_000..40_000_usize, count in 0..80_u64,
    ) {
        let model = Model::build(&steps, bytes_max, u64::MAX, false);
        let read = model.join(&StreamStart::Last(count)).read;
        let text = String::from_utf8(read).expect("UTF-8");
        let events = text.matches("event: output\n").count() as u64;
        let front = model.log.front();
        let kept = model.events.len() as u64 - model.log.events_before(front);
        let is_dropped = |at: usize| model.events[at].end <= model.kept_from();
        let stored = model.durables().into_iter().filter(|(at, _)| is_dropped(*at));
        prop_assert_eq!(events, count.min(kept + stored.count() as u64));
    }

    #[test]
    fn a_foreign_plain_cursor_brings_no_durable_event_twice(
        steps in steps(true), bytes_max in 1_000..40_000_usize,
    ) {
        let model = Model::build(&steps, bytes_max, u64::MAX, false);
        let elsewhere = HubId::random();
        for (index, event) in model.events.iter().enumerate() {
            let EventId::Plain(id) = event.id else { continue };
            let join = model.join(&after(&EventId::Plain(PlainId { hub: elsewhere, ..id })));
            let reason = join.gap.map(|(reason, _)| reason);
            prop_assert_eq!(reason, Some(GapReason::Restarted));
            let text = String::from_utf8(join.read).expect("UTF-8");
            for seen in model.events[..index].iter().filter(|event| event.is_durable()) {
                prop_assert!(!text.contains(&format!("\nid: {}\n", seen.id)), "{}", seen.id);
            }
        }
    }
}

#[test]
fn a_base_found_late_holds_after_the_plain_events_before_it_were_dropped() {
    let mut builder = SegmentBuilder::default();
    let mut model = Model::build(&[], 1_000, u64::MAX, false);
    for _ in 0..20 {
        model.event(&mut builder, 200, false);
        model.flush(&mut builder);
    }
    assert!(model.log.front_no() > 0, "something was dropped");
    let first = DurableId {
        epoch: 1,
        seq: 6,
        us: 60,
    };
    model.log.set_base(Some(Place::before(first)));
    builder.set_base(Some(Place::before(first)));
    let base = LogIndex::base(&model.log).expect("it is known");
    assert_eq!(base.seq, 5, "those below it are read from the store");
}

#[test]
fn a_gap_of_the_store_is_never_cut_off_from_its_event() {
    let mut builder = SegmentBuilder::default();
    let mut model = Model::build(&[], usize::MAX, u64::MAX, false);
    let gap = gap_frame(&Gap::unknown(GapReason::Producer));
    for n in 0..2_000 {
        builder.push_control(&gap, FrameClass::STORE_GAP, "", Instant::now());
        model.event(&mut builder, n % 700, true);
    }
    model.flush(&mut builder);
    model.find_ends();
    let gaps = String::from_utf8_lossy(&model.stream)
        .matches("event: gap")
        .count();
    assert_eq!(gaps, 2_000);
    assert!(model.log.end_no() > 50, "many segments");
    for segment in model.log.segments() {
        let last = segment.frames().last().expect("no segment is empty");
        assert!(last.class() != FrameClass::STORE_GAP, "{}", segment.no());
        assert!(segment.bytes().len() < 9_000, "{}", segment.bytes().len());
    }
}

#[test]
fn a_loose_gap_on_the_way_makes_the_number_missed_unknown() {
    let plain = Step::Plain { bytes: 10 };
    let missed = |steps: &[Step], seen| {
        let log = Model::build(steps, usize::MAX, u64::MAX, false).log;
        log.loose_missed(seen, log.end())
    };
    assert_eq!(missed(&[plain, plain], 0), Some(2));
    assert_eq!(missed(&[plain, Step::Gap, plain], 0), None);
    assert_eq!(missed(&[plain, Step::Flush, Step::Gap, plain], 1), None);
    // The client has seen that one.
    assert_eq!(missed(&[plain, Step::Gap, plain], 2), Some(1));
}
