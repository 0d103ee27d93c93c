//! Frames: one SSE event each, whole, fields in the order `event`, `data`,
//! `id`.
//!
//! `id` comes last because a widely used client stores an id when it parses
//! that line; were it earlier, a frame cut behind it would skip its event.
//! `data` is exactly one line of JSON, and no text from a publisher reaches
//! `event` or `id`. See the [event stream format].
//!
//! [event stream format]: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream

use std::fmt::{Display, Write as _};
use std::ops::Range;

use bytes::Bytes;

use crate::protocol::{BackendKind, EventId, EventKind, Gap, Payload, Problem, RunId, Timestamp};

/// One event of a run, ready to be written.
#[derive(Debug, Clone, Copy)]
pub struct EventFrame<'a> {
    /// The run.
    pub run_id: &'a RunId,
    /// Its kind, also the SSE `event`.
    pub kind: EventKind,
    /// Its source.
    pub source: &'a str,
    /// Its time as [`Timestamp`] writes it.
    pub ts: &'a str,
    /// Where it came from.
    pub backend: BackendKind,
    /// What was published.
    pub payload: Payload<'a>,
}

/// Where parts of a written frame lie in the buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameSpans {
    /// The data: one line of JSON.
    pub data: Range<usize>,
    /// The source as a JSON string without its quotes.
    pub source: Range<usize>,
    /// The id.
    pub id: Range<usize>,
}

/// Appends `frame` with `id` to `out`.
///
/// ```text
/// event: output
/// data: {"run_id":"42","kind":"output","source":"stdout","ts":"…","backend":"redis","data":{"step":3}}
/// id: 1795464000123-7-1795464000123456
///
/// ```
pub fn write_event(out: &mut Vec<u8>, frame: &EventFrame<'_>, id: &EventId) -> FrameSpans {
    let kind = frame.kind.as_str().as_bytes();
    for part in [b"event: ", kind, b"\ndata: "] {
        out.extend_from_slice(part);
    }
    let data_start = out.len();
    for part in [
        b"{\"run_id\":\"",
        frame.run_id.as_str().as_bytes(),
        b"\",\"kind\":\"",
        kind,
        b"\",\"source\":",
    ] {
        out.extend_from_slice(part);
    }
    let source_start = out.len() + 1;
    crate::protocol::write_json_string(frame.source, out);
    let source = source_start..out.len() - 1;
    for part in [
        b",\"ts\":\"",
        frame.ts.as_bytes(),
        b"\",\"backend\":\"",
        frame.backend.as_str().as_bytes(),
        b"\",",
    ] {
        out.extend_from_slice(part);
    }
    frame.payload.write_field(out);
    out.push(b'}');
    let data = data_start..out.len();
    out.extend_from_slice(b"\nid: ");
    let id_start = out.len();
    id.append_to(out);
    let id = id_start..out.len();
    out.extend_from_slice(b"\n\n");
    FrameSpans { data, source, id }
}

/// Returns the block that opens every stream.
pub fn retry_block(retry_ms: u64) -> Bytes {
    Bytes::from(format!("retry: {retry_ms}\n\n"))
}

/// Appends the first event of a stream; `resume` is `live`, `replay` or `gap`.
pub fn hello_frame(
    out: &mut String,
    run_id: &RunId,
    backend: BackendKind,
    resume: &str,
    cursor: Option<&str>,
    heartbeat_seconds: u64,
) {
    write!(
        out,
        "event: hello\ndata: {{\"v\":1,\"run_id\":\"{run_id}\",\"backend\":\"{backend}\",\
         \"resume\":\"{resume}\",\"cursor\":{},\"heartbeat_seconds\":{heartbeat_seconds}}}\n\n",
        OrNull(cursor),
    )
    .expect("writing to a string cannot fail");
}

/// Appends a frame that only sets a client's cursor.
pub fn cursor_frame(out: &mut String, id: &str) {
    write!(out, "event: cursor\ndata: {{}}\nid: {id}\n\n")
        .expect("writing to a string cannot fail");
}

/// Returns the data of a `gap` event.
pub fn gap_data(gap: &Gap) -> String {
    let Gap {
        after,
        before,
        missed,
        reason,
    } = gap;
    let missed = missed.map_or_else(|| "null".to_owned(), |missed| missed.to_string());
    format!(
        "{{\"after\":{},\"before\":{},\"missed\":{missed},\"reason\":\"{reason}\"}}",
        OrNull(after.as_deref()),
        OrNull(before.as_deref()),
    )
}

/// Returns a `gap` event.
pub fn gap_frame(gap: &Gap) -> String {
    format!("event: gap\ndata: {}\n\n", gap_data(gap))
}

/// Returns a `source` event: the stream goes on from another backend.
pub fn source_frame(from: BackendKind, to: BackendKind, reason: &str) -> String {
    format!(
        "event: source\ndata: {{\"from\":\"{from}\",\"to\":\"{to}\",\"reason\":\"{reason}\"}}\n\n"
    )
}

/// Returns a `heartbeat` event; `last_event_ms` is the time since the run's
/// last event.
pub fn heartbeat_frame(now: Timestamp, last_event_ms: Option<u64>) -> Bytes {
    let last = last_event_ms.map_or_else(|| "null".to_owned(), |ms| ms.to_string());
    Bytes::from(format!(
        "event: heartbeat\ndata: {{\"ts\":\"{now}\",\"last_event_ms\":{last}}}\n\n"
    ))
}

/// Returns a `problem` event.
pub fn problem_frame(problem: &Problem) -> String {
    let data = serde_json::to_string(problem).expect("a problem is plain JSON");
    format!("event: problem\ndata: {data}\n\n")
}

/// Returns a `goodbye` event: the server closes, the client should come back
/// after `retry_ms`.
pub fn goodbye_frame(reason: &str, retry_ms: u64) -> String {
    format!("event: goodbye\ndata: {{\"reason\":\"{reason}\"}}\nretry: {retry_ms}\n\n")
}

/// Returns the `end` event of a run; `last_id` is the id of its last event,
/// `events` the number of events in its epoch.
pub fn end_frame(status: &str, events: Option<u64>, last_id: &str) -> String {
    let events = events.map_or_else(|| "null".to_owned(), |events| events.to_string());
    format!(
        "event: end\ndata: {{\"status\":\"{status}\",\"events\":{events}}}\nid: {last_id}-end\n\n"
    )
}

/// An id in JSON: ids hold nothing that needs escaping.
struct OrNull<'a>(Option<&'a str>);

impl Display for OrNull<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(id) => write!(f, "\"{id}\""),
            None => f.write_str("null"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::GapReason;

    #[test]
    fn an_event_is_event_data_id() {
        let mut out = Vec::new();
        let spans = write_event(
            &mut out,
            &EventFrame {
                run_id: &RunId::parse("42").expect("valid"),
                kind: EventKind::Output,
                source: "a\"\n",
                ts: "2026-11-23T20:00:00.123Z",
                backend: BackendKind::Redis,
                payload: Payload::Json("{\"step\":3}"),
            },
            &"1-2-3".parse().expect("an id"),
        );
        assert_eq!(&out[spans.source], br#"a\"\n"#);
        assert_eq!(&out[spans.id], b"1-2-3");
        assert!(out[spans.data.clone()].starts_with(b"{\"run_id\""));
        assert!(out[spans.data].ends_with(b"{\"step\":3}}"));
        assert_eq!(
            String::from_utf8(out).expect("UTF-8"),
            "event: output\ndata: {\"run_id\":\"42\",\"kind\":\"output\",\"source\":\"a\\\"\\n\",\
             \"ts\":\"2026-11-23T20:00:00.123Z\",\"backend\":\"redis\",\"data\":{\"step\":3}}\n\
             id: 1-2-3\n\n"
        );
    }

    #[test]
    fn frames_outside_the_log_are_as_documented() {
        let run_id = RunId::parse("42").expect("valid");
        let mut out = String::new();
        hello_frame(&mut out, &run_id, BackendKind::Redis, "live", None, 30);
        cursor_frame(&mut out, "1-2-3");
        assert_eq!(
            out,
            "event: hello\ndata: {\"v\":1,\"run_id\":\"42\",\"backend\":\"redis\",\
             \"resume\":\"live\",\"cursor\":null,\"heartbeat_seconds\":30}\n\n\
             event: cursor\ndata: {}\nid: 1-2-3\n\n"
        );
        let gap = Gap {
            after: Some("1-2-3".to_owned()),
            before: None,
            missed: Some(4),
            reason: GapReason::SlowClient,
        };
        assert_eq!(
            gap_frame(&gap),
            "event: gap\ndata: {\"after\":\"1-2-3\",\"before\":null,\"missed\":4,\
             \"reason\":\"slow_client\"}\n\n"
        );
        assert_eq!(
            &heartbeat_frame(Timestamp::from_micros(1_795_464_030_000_000), Some(29877))[..],
            b"event: heartbeat\ndata: {\"ts\":\"2026-11-23T20:00:30.000Z\",\"last_event_ms\":29877}\n\n"
        );
        assert_eq!(
            goodbye_frame("drain", 1380),
            "event: goodbye\ndata: {\"reason\":\"drain\"}\nretry: 1380\n\n"
        );
        assert_eq!(
            end_frame("completed", None, "1-2-3"),
            "event: end\ndata: {\"status\":\"completed\",\"events\":null}\nid: 1-2-3-end\n\n"
        );
        assert_eq!(
            source_frame(BackendKind::Redis, BackendKind::Kubectl, "redis-down"),
            "event: source\ndata: {\"from\":\"redis\",\"to\":\"kubectl\",\"reason\":\"redis-down\"}\n\n"
        );
        let problem =
            Problem::new(503, "redis-unavailable", "Redis unavailable", "try").retryable(true);
        assert_eq!(
            problem_frame(&problem),
            "event: problem\ndata: {\"type\":\"urn:runcast:problem:redis-unavailable\",\
             \"title\":\"Redis unavailable\",\"status\":503,\"detail\":\"try\",\"retryable\":true}\n\n"
        );
    }
}
