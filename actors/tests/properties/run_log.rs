//! A client that comes back gets exactly what it has not seen, or is told how
//! much is missing, wherever it left and whatever was dropped meanwhile.

use std::time::Instant;

use proptest::collection::vec;
use proptest::prelude::*;
use runcast_actors::broker::StreamStart;
use runcast_actors::protocol::{
    BackendKind, Cursor, DurableId, EventId, EventKind, Gap, GapReason, HubId, LogLevel, Payload,
    PlainId, RunId, Timestamp,
};
use runcast_actors::run_log::{HubIdentity, Join, RunLog};
use runcast_actors::sse::{EventFrame, FrameClass, SegmentBuilder, end_frame, gap_frame};

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

    fn join(&self, start: &StreamStart) -> Join {
        self.log.join(start, &Default::default(), self.hub)
    }

    /// What a client that joins as `join` says is sent.
    fn read(&self, join: &Join) -> Vec<u8> {
        let mut read = Vec::new();
        for no in join.position.segment_no..self.log.end_no() {
            let segment = self.log.segment(no).expect("a log has no holes");
            let first = match no == join.position.segment_no {
                true => join.position.frame as usize,
                false => 0,
            };
            read.extend_from_slice(&segment.slice(first..segment.frames().len()));
        }
        read
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

    /// How many events after `index` were dropped from the log.
    fn dropped_after(&self, index: usize) -> u64 {
        let after = self.events[index + 1..].iter();
        let kept_from = self.kept_from();
        after.filter(|event| event.end <= kept_from).count() as u64
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
        prop_assert_eq!(model.read(&all), &model.stream[model.kept_from()..]);
        // Who starts at now waits for what comes; of a run that is over, only
        // its end does.
        let now = String::from_utf8(model.read(&model.join(&StreamStart::Now))).expect("UTF-8");
        prop_assert_eq!(now.matches("event: ").count(), usize::from(model.is_ended()));
        prop_assert_eq!(now.starts_with("event: end\n"), model.is_ended());
        // More than the event bound goes only where the byte bound asks for it.
        if bytes_max >= model.stream.len() * 4 {
            let kept = model.events.len() as u64 - model.log.events_before(model.log.front());
            prop_assert!(kept >= events_max.min(model.events.len() as u64));
        }
    }

    #[test]
    fn a_client_of_a_plain_run_goes_on_where_it_left(
        steps in steps(false), bytes_max in 1_000..40_000_usize, ended in any::<bool>(),
    ) {
        let model = Model::build(&steps, bytes_max, u64::MAX, ended);
        for (index, event) in model.events.iter().enumerate() {
            let join = model.join(&after(&event.id));
            let dropped = model.dropped_after(index);
            let is_known = !model.gap_dropped_after(index);
            match &join.gap {
                None => {
                    prop_assert_eq!(dropped, 0);
                    prop_assert!(is_known, "a gap after {} in silence", event.id);
                    let unseen = event.end.max(model.kept_from());
                    prop_assert_eq!(model.read(&join), &model.stream[unseen..], "{}", event.id);
                }
                Some(gap) => {
                    prop_assert_eq!(gap.reason, GapReason::Trimmed);
                    prop_assert_eq!(gap.missed, is_known.then_some(dropped), "{}", event.id);
                    prop_assert_eq!(model.read(&join), &model.stream[model.kept_from()..]);
                }
            }
        }
    }

    #[test]
    fn a_client_of_a_mixed_run_misses_nothing_in_silence(
        steps in steps(true), bytes_max in 1_000..40_000_usize, ended in any::<bool>(),
    ) {
        let model = Model::build(&steps, bytes_max, u64::MAX, ended);
        for (index, event) in model.events.iter().enumerate() {
            let join = model.join(&after(&event.id));
            let dropped = model.dropped_after(index);
            let is_known = !model.gap_dropped_after(index);
            let read = model.read(&join);
            match &join.gap {
                None => {
                    prop_assert_eq!(dropped, 0, "{} in silence", event.id);
                    prop_assert!(is_known, "a gap after {} in silence", event.id);
                    let unseen = event.end.max(model.kept_from());
                    prop_assert_eq!(read, &model.stream[unseen..], "{}", event.id);
                }
                Some(gap) => {
                    prop_assert_eq!(gap.reason, GapReason::Trimmed, "{}", event.id);
                    let missed = gap.missed;
                    prop_assert!(missed.is_none_or(|n| is_known && n == dropped), "{}", event.id);
                    prop_assert_eq!(read, &model.stream[model.kept_from()..], "{}", event.id);
                }
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
        let read = String::from_utf8(model.read(&join)).expect("UTF-8");
        prop_assert_eq!(read.matches("event: end\n").count(), 1, "{}", read);
        prop_assert_eq!(read.matches("event: output\n").count(), 0, "{}", read);
    }

    #[test]
    fn the_last_events_are_the_last_events(
        steps in steps(true), bytes_max in 1_000..40_000_usize, count in 0..80_u64,
    ) {
        let model = Model::build(&steps, bytes_max, u64::MAX, false);
        let read = model.read(&model.join(&StreamStart::Last(count)));
        let text = String::from_utf8(read).expect("UTF-8");
        let events = text.matches("event: output\n").count() as u64;
        let kept = model.events.len() as u64 - model.log.events_before(model.log.front());
        prop_assert_eq!(events, count.min(kept));
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
            let reason = join.gap.as_ref().map(|gap| gap.reason);
            prop_assert_eq!(reason, Some(GapReason::Restarted));
            let text = String::from_utf8(model.read(&join)).expect("UTF-8");
            for seen in model.events[..index].iter().filter(|event| event.is_durable()) {
                prop_assert!(!text.contains(&format!("\nid: {}\n", seen.id)), "{}", seen.id);
            }
        }
    }
}
