//! An event as a line of JSON, and back, exact to the byte.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::archive::error::ArchiveError;
use crate::protocol::{EventKind, Payload};
use crate::store::StoredEvent;

/// One line. Of `data`, `text` and `base64` there is one: JSON to the letter,
/// if it stands on one line; other text as a JSON string; any other bytes.
#[derive(Serialize, Deserialize)]
struct Line<'a> {
    id: String,
    kind: EventKind,
    source: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    lost: u64,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Appends an event as a line.
pub(super) fn write_line(event: &StoredEvent, out: &mut Vec<u8>) {
    let (mut data, mut text, mut base64) = (None, None, None);
    match Payload::classify(&event.payload) {
        Payload::Json(json) => match as_it_is(json) {
            Some(raw) => data = Some(raw),
            None => text = Some(json.to_owned()),
        },
        Payload::Text(words) => text = Some(words.to_owned()),
        Payload::Binary(bytes) => base64 = Some(STANDARD.encode(bytes)),
    }
    let line = Line {
        id: event.id.to_string(),
        kind: event.kind,
        source: event.source.clone(),
        lost: event.lost,
        data,
        text,
        base64,
    };
    serde_json::to_writer(&mut *out, &line).expect("writing to memory cannot fail");
    out.push(b'\n');
}

/// The JSON as a part of a line, if it comes back to the letter.
fn as_it_is(json: &str) -> Option<&RawValue> {
    let has_break = memchr::memchr2(b'\n', b'\r', json.as_bytes()).is_some();
    // Read as `null`, it would look like no data at all.
    if has_break || json == "null" {
        return None;
    }
    let raw: &RawValue = serde_json::from_str(json).ok()?;
    // White space around it would go.
    (raw.get().len() == json.len()).then_some(raw)
}

/// Reads a line.
pub(super) fn read_line(line: &[u8]) -> Result<StoredEvent, ArchiveError> {
    let damaged = || ArchiveError::Damaged("a line is no event");
    let line: Line<'_> = serde_json::from_slice(line).map_err(|_| damaged())?;
    let payload = match (line.data, line.text, line.base64) {
        (Some(raw), None, None) => Bytes::copy_from_slice(raw.get().as_bytes()),
        (None, Some(text), None) => Bytes::from(text),
        (None, None, Some(base64)) => Bytes::from(STANDARD.decode(base64).map_err(|_| damaged())?),
        _ => return Err(damaged()),
    };
    Ok(StoredEvent {
        id: line.id.parse().map_err(|_| damaged())?,
        lost: line.lost,
        kind: line.kind,
        source: line.source,
        payload,
        // Of no use later: it is delivered.
        trace: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::DurableId;

    fn event(payload: &[u8]) -> StoredEvent {
        StoredEvent {
            id: DurableId {
                epoch: 7,
                seq: 1,
                us: 7000,
            },
            lost: 3,
            kind: EventKind::Log,
            source: "a\"b\n\u{2028}ü".to_owned(),
            payload: Bytes::copy_from_slice(payload),
            trace: None,
        }
    }

    #[test]
    fn every_payload_comes_back_to_the_byte() {
        for payload in [
            &b""[..],
            b"null",
            b" null",
            b"{\"step\":3}",
            b"{\"n\":1.000000000000000000000000000001e+400, \"n\":-0}",
            b"{\"a\":\n1}",
            b"\t[1]",
            b"[1] ",
            b"\"\\ud800\"",
            b"\"\\u0000\x7f\"",
            b"plain",
            b"a\r\nb\0c",
            b"\xff\xfe\x00",
            "\u{feff}{}".as_bytes(),
        ] {
            let event = event(payload);
            let mut line = Vec::new();
            write_line(&event, &mut line);
            let (last, text) = line.split_last().expect("a line");
            assert_eq!(*last, b'\n');
            assert!(!text.contains(&b'\n'), "{payload:?}");
            assert_eq!(read_line(text), Ok(event), "{payload:?}");
        }
    }

    #[test]
    fn json_stands_in_its_line_to_the_letter() {
        let mut line = Vec::new();
        write_line(&event(b"{\"n\":1e400}"), &mut line);
        let text = String::from_utf8(line).expect("UTF-8");
        assert!(text.contains(r#""lost":3,"data":{"n":1e400}}"#), "{text}");
    }

    #[test]
    fn what_is_no_event_is_refused() {
        for line in [
            &b""[..],
            b"{}",
            b"{\"id\":\"1-1-1\",\"kind\":\"output\",\"source\":\"\"}",
            b"{\"id\":\"1-1\",\"kind\":\"output\",\"source\":\"\",\"data\":1}",
            b"{\"id\":\"1-1-1\",\"kind\":\"output\",\"source\":\"\",\"base64\":\"?\"}",
            b"{\"id\":\"1-1-1\",\"kind\":\"output\",\"source\":\"\",\"data\":1,\"text\":\"\"}",
        ] {
            assert!(read_line(line).is_err());
        }
    }
}
