//! Encode, cut anywhere, decode: the same events.

use std::time::Instant;

use proptest::collection::vec;
use proptest::prelude::*;
use runcast_actors::protocol::{
    BackendKind, EventId, EventKind, Gap, GapReason, Payload, Problem, RunId, Timestamp,
    log_level_of,
};
use runcast_actors::sse::{
    self, EventFrame, FrameClass, SEGMENT_BYTES_MAX, Segment, SegmentBuilder,
};

use crate::inputs::{backend, cursor, event_id, hostile_text, kind, payload, run_id};
use crate::oracle;

/// An event as a publisher sends it, and the id it is given.
#[derive(Debug, Clone)]
struct Published {
    kind: EventKind,
    source: String,
    payload: Vec<u8>,
    micros: i64,
    id: EventId,
}

fn published() -> impl Strategy<Value = Published> {
    let large = vec(any::<u8>(), 0..9_000);
    let payload = prop_oneof![8 => payload(), 1 => large];
    (kind(), hostile_text(), payload, any::<i64>(), event_id()).prop_map(
        |(kind, source, payload, micros, id)| Published {
            kind,
            source,
            payload,
            micros,
            id,
        },
    )
}

/// Cuts `bytes` at the places given.
fn cut<'a>(bytes: &'a [u8], places: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = places
        .iter()
        .map(|place| place.index(bytes.len() + 1))
        .collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

/// Places to cut a stream at.
fn cuts() -> impl Strategy<Value = Vec<prop::sample::Index>> {
    vec(any::<prop::sample::Index>(), 0..6)
}

/// Encodes `events` as a hub does.
fn segments(run_id: &RunId, backend: BackendKind, events: &[Published]) -> Vec<Segment> {
    let (mut builder, now) = (SegmentBuilder::default(), Instant::now());
    for event in events {
        let ts = Timestamp::from_micros(event.micros);
        let payload = Payload::classify(&event.payload);
        let text = ts.to_string();
        let frame = EventFrame {
            run_id,
            kind: event.kind,
            source: &event.source,
            ts: &text,
            backend,
            payload,
        };
        let class = FrameClass::of(event.kind, log_level_of(payload));
        builder.push_event(&frame, &event.id, class, None, ts, now);
    }
    builder.take(now)
}

proptest! {
    #[test]
    fn every_event_comes_out_as_it_went_in(
        run in run_id(), backend in backend(), events in vec(published(), 0..12), cuts in cuts(),
    ) {
        let run_id = RunId::parse(&run).expect("valid");
        let segments = segments(&run_id, backend, &events);
        let stream: Vec<u8> = segments.iter().flat_map(|segment| segment.bytes().to_vec()).collect();
        let decoded = oracle::decode(&cut(&stream, &cuts));
        prop_assert_eq!(decoded.len(), events.len());
        for (decoded, event) in decoded.iter().zip(&events) {
            let ts = Timestamp::from_micros(event.micros).to_string();
            let expected = oracle::Event {
                run_id: &run,
                kind: event.kind,
                source: &event.source,
                ts: &ts,
                backend,
                payload: &event.payload,
                id: &event.id.to_string(),
            };
            oracle::check_event(decoded, &expected);
        }
    }

    #[test]
    fn a_segment_knows_its_frames(
        run in run_id(), backend in backend(), events in vec(published(), 1..12),
    ) {
        let run_id = RunId::parse(&run).expect("valid");
        let mut expected = events.iter();
        for (no, segment) in segments(&run_id, backend, &events).iter().enumerate() {
            let frames = segment.frames().len();
            prop_assert_eq!(segment.no(), no as u64);
            prop_assert!(frames == 1 || segment.bytes().len() <= SEGMENT_BYTES_MAX);
            prop_assert_eq!(segment.events_through() - segment.events_before(), frames as u64);
            for index in 0..frames {
                let event = expected.next().expect("no more frames than events");
                let frame = segment.slice(index..index + 1);
                prop_assert_eq!(oracle::decode(&[&frame]).len(), 1);
                let id = event.id.to_string();
                prop_assert_eq!(segment.id_of(index), Some(id.as_str()));
                let source = [b"\"", segment.source_of(index), b"\""].concat();
                let source: String = serde_json::from_slice(&source).expect("a JSON string");
                prop_assert_eq!(&source, &event.source);
            }
        }
        prop_assert!(expected.next().is_none());
    }

    #[test]
    fn the_broker_s_own_events_are_one_event_each(
        run in run_id(), backend in backend(), cursor in cursor(), other in cursor(),
        number in any::<u64>(), micros in any::<i64>(), detail in hostile_text(), cuts in cuts(),
        reason in prop::sample::select(GapReason::ALL.to_vec()),
    ) {
        let run_id = RunId::parse(&run).expect("valid");
        let (cursor, other) = (cursor.to_string(), other.id.to_string());
        let mut stream = sse::retry_block(number).to_vec();
        let mut text = String::new();
        sse::hello_frame(&mut text, &run_id, backend, "replay", Some(&cursor), number);
        sse::cursor_frame(&mut text, &cursor);
        let gap = Gap { after: Some(cursor.clone()), before: None, missed: Some(number), reason };
        text += &sse::gap_frame(&gap);
        let problem = Problem::new(503, "slug", "Title", detail.clone()).retryable(true);
        text += &sse::problem_frame(&problem);
        stream.extend_from_slice(text.as_bytes());
        let now = Timestamp::from_micros(micros);
        stream.extend_from_slice(&sse::heartbeat_frame(now, Some(number)));
        stream.extend_from_slice(sse::end_frame("completed", None, &other).as_bytes());
        stream.extend_from_slice(sse::goodbye_frame("drain", number).as_bytes());

        let decoded = oracle::decode(&cut(&stream, &cuts));
        let end = format!("{other}-end");
        let expected = [
            ("hello", ""), ("cursor", cursor.as_str()), ("gap", &cursor), ("problem", &cursor),
            ("heartbeat", &cursor), ("end", &end), ("goodbye", &end),
        ];
        prop_assert_eq!(decoded.len(), expected.len());
        for (decoded, (event, last_id)) in decoded.iter().zip(expected) {
            prop_assert_eq!(&decoded.event, event);
            prop_assert_eq!(&decoded.last_id, last_id);
            let data: serde_json::Value = serde_json::from_str(&decoded.data).expect("JSON");
            if event == "problem" {
                prop_assert_eq!(&data["detail"], &detail);
            }
        }
    }
}
