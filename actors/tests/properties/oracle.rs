//! What the property tests and the fuzz targets both hold the protocol to.
//! Each check panics on a violation and so stops whichever of them found it.

use std::collections::BTreeMap;
use std::convert::Infallible;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use eventsource_stream::EventStream;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use runcast_actors::protocol::{BackendKind, DurableId, EventKind, FramedEvent, Payload};
use serde_json::value::RawValue;
use sse_stream::SseByteStream;

/// An event as a client is given it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decoded {
    /// Its name.
    pub(crate) event: String,
    /// Its data.
    pub(crate) data: String,
    /// The last id the client was given, by this event or one before it.
    pub(crate) last_id: String,
}

/// Decodes a stream that arrives in `pieces`, with two decoders that know
/// nothing of each other, and checks that they agree.
pub(crate) fn decode(pieces: &[&[u8]]) -> Vec<Decoded> {
    let first = decode_with_eventsource_stream(pieces);
    let second = decode_with_sse_stream(pieces);
    assert_eq!(first, second, "the decoders disagree");
    first
}

fn arriving(pieces: &[&[u8]]) -> impl futures_util::Stream<Item = Result<Bytes, Infallible>> {
    let pieces: Vec<_> = pieces
        .iter()
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    stream::iter(pieces)
}

fn decode_with_eventsource_stream(pieces: &[&[u8]]) -> Vec<Decoded> {
    EventStream::new(arriving(pieces))
        .map(|event| event.expect("an event stream"))
        .map(|event| Decoded {
            event: event.event,
            data: event.data,
            last_id: event.id,
        })
        .collect::<Vec<_>>()
        .now_or_never()
        .expect("all pieces are there")
}

fn decode_with_sse_stream(pieces: &[&[u8]]) -> Vec<Decoded> {
    let mut last_id = String::new();
    SseByteStream::new(arriving(pieces))
        .map(|block| block.expect("an event stream"))
        .filter_map(|block| {
            if let Some(id) = block.id {
                last_id = id;
            }
            let event = block.data.map(|data| Decoded {
                event: block.event.unwrap_or_else(|| "message".to_owned()),
                data,
                last_id: last_id.clone(),
            });
            std::future::ready(event)
        })
        .collect::<Vec<_>>()
        .now_or_never()
        .expect("all pieces are there")
}

/// What an event was published as.
#[derive(Debug)]
pub(crate) struct Event<'a> {
    /// Its run.
    pub(crate) run_id: &'a str,
    /// Its kind.
    pub(crate) kind: EventKind,
    /// Its source.
    pub(crate) source: &'a str,
    /// Its time, as it is written.
    pub(crate) ts: &'a str,
    /// Where it came from.
    pub(crate) backend: BackendKind,
    /// What was published.
    pub(crate) payload: &'a [u8],
    /// The id it was given.
    pub(crate) id: &'a str,
}

/// Checks that a client was given exactly the event that was published.
pub(crate) fn check_event(decoded: &Decoded, event: &Event<'_>) {
    assert_eq!(decoded.event, event.kind.as_str());
    assert_eq!(decoded.last_id, event.id);
    let members: BTreeMap<String, Box<RawValue>> =
        serde_json::from_str(&decoded.data).expect("a JSON object");
    for (name, expected) in [
        ("run_id", event.run_id),
        ("kind", event.kind.as_str()),
        ("source", event.source),
        ("ts", event.ts),
        ("backend", event.backend.as_str()),
    ] {
        let read: String = serde_json::from_str(members[name].get()).expect("a JSON string");
        assert_eq!(read, expected, "{name}");
    }
    check_payload(event.payload, &members);
    assert_eq!(members.len(), 6, "{members:?}");
}

/// Checks that the members of a JSON object give back exactly what was
/// published: JSON to the letter but for line breaks, text and bytes as they
/// were.
fn check_payload(published: &[u8], members: &BTreeMap<String, Box<RawValue>>) {
    let string = |name: &str| -> String {
        serde_json::from_str(members[name].get()).expect("a JSON string")
    };
    let payload = Payload::classify(published);
    match payload {
        Payload::Json(json) => {
            let sent: &RawValue = serde_json::from_str(json).expect("JSON");
            let one_line = sent.get().replace(['\r', '\n'], "");
            assert_eq!(members["data"].get(), one_line);
        }
        Payload::Text(text) => assert_eq!(string("data"), text),
        Payload::Binary(bytes) => {
            let decoded = STANDARD.decode(string("data_base64")).expect("base64");
            assert_eq!(decoded, bytes);
        }
    }
    let binary = matches!(payload, Payload::Binary(_));
    assert_eq!(members.contains_key("data_base64"), binary);
    assert_eq!(members.contains_key("data"), !binary);
}

/// Checks that a payload becomes one member of a JSON object, on one line.
pub(crate) fn check_payload_field(published: &[u8]) {
    let mut object = b"{".to_vec();
    Payload::classify(published).write_field(&mut object);
    object.push(b'}');
    let breaks = |byte: &u8| matches!(byte, b'\r' | b'\n');
    assert!(!object.iter().any(breaks), "a line break in {object:?}");
    let members = serde_json::from_slice(&object).expect("a JSON object");
    check_payload(published, &members);
    assert_eq!(members.len(), 1, "{members:?}");
}

/// What a message on a framed channel says, read word by word as it is
/// documented.
pub(crate) fn framed_event(message: &[u8]) -> Option<FramedEvent<'_>> {
    let mut words = message.splitn(9, |byte| *byte == b' ');
    let mut word = || std::str::from_utf8(words.next()?).ok();
    let version = word()?;
    let id = DurableId {
        epoch: word()?.parse().ok()?,
        seq: word()?.parse().ok()?,
        us: word()?.parse().ok()?,
    };
    let lost = word()?.parse().ok()?;
    let kind = word()?.parse().ok()?;
    let flags = word()?;
    let source_bytes: usize = word()?.parse().ok()?;
    let (source, rest) = words.next()?.split_at_checked(source_bytes)?;
    (version == "1" && ["0", "1", "2", "3"].contains(&flags)).then_some(FramedEvent {
        id,
        lost,
        kind,
        terminal: ["1", "3"].contains(&flags),
        recorded: ["2", "3"].contains(&flags),
        source: std::str::from_utf8(source).ok()?,
        payload: rest.strip_prefix(b"\n")?,
    })
}
