//! Encode, then decode with two independent decoders: an event comes out as
//! it went in, and no input makes a second one.
//!
//! The input is up to eight events, parted by the byte 0xff 0xfe: a control
//! byte (kind, backend, where the stream is cut), the source up to 0xff, the
//! payload.
#![no_main]

#[path = "../../actors/tests/properties/oracle.rs"]
#[allow(dead_code, reason = "each target uses the checks it needs")]
mod oracle;

use std::time::Instant;

use libfuzzer_sys::fuzz_target;
use runcast_actors::protocol::{
    BackendKind, DurableId, EventId, EventKind, Payload, RunId, Timestamp, log_level_of,
};
use runcast_actors::sse::{EventFrame, FrameClass, SegmentBuilder};

const EVENTS_MAX: usize = 8;
const TS: &str = "2026-11-23T20:00:00.123Z";

struct Input<'a> {
    kind: EventKind,
    backend: BackendKind,
    source: &'a str,
    payload: &'a [u8],
}

impl<'a> Input<'a> {
    fn parse(input: &'a [u8]) -> Option<Self> {
        let (control, rest) = input.split_first()?;
        let mut parts = rest.splitn(2, |byte| *byte == 0xff);
        Some(Self {
            kind: EventKind::ALL[usize::from(control % 3)],
            backend: BackendKind::ALL[usize::from(control / 3 % 3)],
            source: std::str::from_utf8(parts.next()?).ok()?,
            payload: parts.next().unwrap_or_default(),
        })
    }
}

fuzz_target!(|input: &[u8]| {
    let inputs = split(input);
    let events: Vec<_> = inputs.into_iter().filter_map(Input::parse).collect();
    let run_id = RunId::parse("42").expect("valid");
    let (mut builder, now) = (SegmentBuilder::default(), Instant::now());
    for (index, event) in events.iter().enumerate() {
        let payload = Payload::classify(event.payload);
        let frame = EventFrame {
            run_id: &run_id,
            kind: event.kind,
            source: event.source,
            ts: TS,
            backend: event.backend,
            payload,
        };
        let class = FrameClass::of(event.kind, log_level_of(payload));
        builder.push_event(&frame, &id(index), class, None, Timestamp::now(), now);
    }
    let segments = builder.take(now);
    let stream: Vec<u8> = segments.iter().flat_map(|segment| segment.bytes().to_vec()).collect();
    let cut = stream.len() * usize::from(input.first().copied().unwrap_or_default()) / 256;
    let decoded = oracle::decode(&[&stream[..cut], &stream[cut..]]);
    assert_eq!(decoded.len(), events.len());
    for (index, (decoded, event)) in decoded.iter().zip(&events).enumerate() {
        let expected = oracle::Event {
            run_id: "42",
            kind: event.kind,
            source: event.source,
            ts: TS,
            backend: event.backend,
            payload: event.payload,
            id: &id(index).to_string(),
        };
        oracle::check_event(decoded, &expected);
    }
});

fn id(index: usize) -> EventId {
    EventId::Durable(DurableId {
        epoch: 1_795_464_000_123,
        seq: index as u64 + 1,
        us: 1_795_464_000_123_456,
    })
}

/// Parts the input at each 0xff 0xfe.
fn split(mut input: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while parts.len() + 1 < EVENTS_MAX
        && let Some(at) = input.windows(2).position(|pair| pair == [0xff, 0xfe])
    {
        parts.push(&input[..at]);
        input = &input[at + 2..];
    }
    parts.push(input);
    parts
}
