//! Reading the body of a `POST …/events`, pure: bytes in, events out.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use runcast_actors::broker::NewEvent;
use runcast_actors::protocol::{EventKind, Problem};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::body_form::BodyForm;
use super::problem::ApiError;
use super::query::Pairs;

/// Source of an event that names none.
const DEFAULT_SOURCE: &str = "stdout";

/// What one body may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyLimits {
    /// `limits.max_batch_events`.
    pub(super) events: usize,
    /// `limits.max_source_bytes`.
    pub(super) source_bytes: usize,
}

/// Reads a body; `query` gives kind and source of the lines of a text.
///
/// All or nothing: one malformed line refuses the whole body.
///
/// # Errors
/// 400 for what is no JSON, with line and column; 422 for JSON that is no
/// event; 413 for too many events.
pub(super) fn read_events(
    form: BodyForm,
    body: &[u8],
    query: &Pairs,
    limits: BodyLimits,
) -> Result<Vec<NewEvent>, ApiError> {
    let events = match form {
        BodyForm::Json => vec![json_event(body, limits).map_err(|fault| fault.at(None))?],
        BodyForm::JsonLines => json_lines(body, limits)?,
        BodyForm::Text => text_lines(body, query, limits)?,
    };
    if events.is_empty() {
        return Err(unprocessable(
            "no-events",
            "No events",
            "the body holds no event",
        ));
    }
    Ok(events)
}

fn unprocessable(slug: &'static str, title: &'static str, detail: impl Into<String>) -> ApiError {
    Problem::new(422, slug, title, detail).into()
}

/// What is wrong with one event, before it is known on which line it stands.
#[derive(Debug)]
enum Fault {
    /// Not JSON; line and column are those of the error.
    NotJson(serde_json::Error),
    /// JSON, but no event.
    Invalid {
        slug: &'static str,
        title: &'static str,
        detail: String,
    },
}

impl Fault {
    /// Says it, for who has only one line.
    fn sentence(self) -> String {
        match self {
            Self::NotJson(error) => {
                format!("column {}: {}", error.column(), without_place(&error))
            }
            Self::Invalid { detail, .. } => detail,
        }
    }

    /// Makes it an error; `line` is the line of an NDJSON body.
    fn at(self, line: Option<usize>) -> ApiError {
        match self {
            Self::NotJson(error) => {
                let line = line.unwrap_or(error.line());
                let what = without_place(&error);
                let detail = format!("line {line}, column {}: {what}", error.column());
                Problem::new(400, "bad-json", "Bad JSON", detail).into()
            }
            Self::Invalid {
                slug,
                title,
                detail,
            } => match line {
                Some(line) => unprocessable(slug, title, format!("line {line}: {detail}")),
                None => unprocessable(slug, title, detail),
            },
        }
    }
}

/// serde_json's message without its own ` at line 1 column 2`.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// One event as a publisher writes it. Fields we do not know are ignored.
#[derive(Deserialize)]
struct EventJson<'a> {
    #[serde(borrow)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    source: Option<Cow<'a, str>>,
    /// As it stands in the body: a number's text is the publisher's.
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    data_base64: Option<Cow<'a, str>>,
}

/// Tells `null`, which is data, from an absent field.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

fn json_event(text: &[u8], limits: BodyLimits) -> Result<NewEvent, Fault> {
    // serde would take an array for a struct, its fields in order.
    if text.trim_ascii_start().starts_with(b"[") {
        serde_json::from_slice::<IgnoredAny>(text).map_err(Fault::NotJson)?;
        return Err(invalid(
            "bad-event",
            "Bad event",
            "the event is an array; send {\"kind\":…,\"source\":…,\"data\":…}, many as application/x-ndjson",
        ));
    }
    let event: EventJson<'_> =
        serde_json::from_slice(text).map_err(|error| match error.classify() {
            Category::Data => Fault::Invalid {
                slug: "bad-event",
                title: "Bad event",
                detail: format!(
                    "{}; send {{\"kind\":…,\"source\":…,\"data\":…}}",
                    without_place(&error)
                ),
            },
            _ => Fault::NotJson(error),
        })?;
    let kind = parse_kind(event.kind.as_deref())?;
    let source = parse_source(kind, event.source, limits)?;
    let payload = match (event.data, event.data_base64) {
        (Some(data), None) => Bytes::copy_from_slice(data.get().as_bytes()),
        (None, Some(text)) => STANDARD
            .decode(text.as_ref())
            .map(Bytes::from)
            .map_err(|error| {
                invalid(
                    "bad-event",
                    "Bad event",
                    format!("data_base64 is not base64: {error}"),
                )
            })?,
        (None, None) => {
            return Err(invalid(
                "missing-data",
                "Missing data",
                "the event has no data; add \"data\" (any JSON) or \"data_base64\"",
            ));
        }
        (Some(_), Some(_)) => {
            return Err(invalid(
                "bad-event",
                "Bad event",
                "the event has both data and data_base64; send one",
            ));
        }
    };
    Ok(NewEvent {
        kind,
        source,
        payload,
    })
}

fn invalid(slug: &'static str, title: &'static str, detail: impl Into<String>) -> Fault {
    Fault::Invalid {
        slug,
        title,
        detail: detail.into(),
    }
}

fn parse_kind(kind: Option<&str>) -> Result<EventKind, Fault> {
    match kind {
        Some(word) => word.parse().map_err(|_| {
            let shown: String = word.chars().take(100).collect();
            invalid(
                "unknown-kind",
                "Unknown kind",
                format!("unknown kind {shown:?}; it is output, status or log"),
            )
        }),
        None => Err(invalid(
            "missing-kind",
            "Missing kind",
            "the event has no kind; it is output, status or log",
        )),
    }
}

fn parse_source(
    kind: EventKind,
    source: Option<Cow<'_, str>>,
    limits: BodyLimits,
) -> Result<String, Fault> {
    if kind == EventKind::Status {
        return match source {
            None => Ok(String::new()),
            Some(source) if source.is_empty() => Ok(String::new()),
            Some(_) => Err(invalid(
                "bad-source",
                "Bad source",
                "a status has no source; leave it out",
            )),
        };
    }
    let source = source.map_or_else(|| DEFAULT_SOURCE.to_owned(), Cow::into_owned);
    if source.len() > limits.source_bytes {
        return Err(invalid(
            "bad-source",
            "Bad source",
            format!(
                "the source has {} bytes; at most {} are taken",
                source.len(),
                limits.source_bytes
            ),
        ));
    }
    Ok(source)
}

fn json_lines(body: &[u8], limits: BodyLimits) -> Result<Vec<NewEvent>, ApiError> {
    let mut events = Vec::new();
    for (index, line) in body.split(|byte| *byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        check_count(events.len(), limits)?;
        events.push(json_event(line, limits).map_err(|fault| fault.at(Some(index + 1)))?);
    }
    Ok(events)
}

/// Every line is a string; a line that is not UTF-8 is passed on as its bytes.
fn text_lines(body: &[u8], query: &Pairs, limits: BodyLimits) -> Result<Vec<NewEvent>, ApiError> {
    let kind = query.get("kind").unwrap_or(EventKind::Output.as_str());
    let kind = parse_kind(Some(kind)).map_err(|fault| fault.at(None))?;
    let source = parse_source(kind, query.get("source").map(Cow::from), limits)
        .map_err(|fault| fault.at(None))?;
    let mut events = Vec::new();
    let mut lines = body.split(|byte| *byte == b'\n').peekable();
    while let Some(line) = lines.next() {
        if line.is_empty() && lines.peek().is_none() {
            break;
        }
        check_count(events.len(), limits)?;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let payload = match std::str::from_utf8(line) {
            Ok(text) => serde_json::to_vec(text)
                .expect("a string is always JSON")
                .into(),
            Err(_) => Bytes::copy_from_slice(line),
        };
        events.push(NewEvent {
            kind,
            source: source.clone(),
            payload,
        });
    }
    Ok(events)
}

fn check_count(so_far: usize, limits: BodyLimits) -> Result<(), ApiError> {
    if so_far < limits.events {
        return Ok(());
    }
    let detail = format!(
        "one body holds at most {} events; send them in parts",
        limits.events
    );
    Err(Problem::new(413, "too-many-events", "Too many events", detail).into())
}

/// Reads one event as a line of NDJSON has it; `source_bytes` is
/// `limits.max_source_bytes`.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub(crate) fn read_event(line: &[u8], source_bytes: usize) -> Result<NewEvent, String> {
    let limits = BodyLimits {
        events: 1,
        source_bytes,
    };
    json_event(line, limits).map_err(Fault::sentence)
}

/// Returns the source of events of `kind` for which `source` was asked;
/// `source_bytes` is `limits.max_source_bytes`.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub(crate) fn read_source(
    kind: EventKind,
    source: Option<&str>,
    source_bytes: usize,
) -> Result<String, String> {
    let limits = BodyLimits {
        events: 1,
        source_bytes,
    };
    parse_source(kind, source.map(Cow::from), limits).map_err(Fault::sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BodyLimits = BodyLimits {
        events: 3,
        source_bytes: 8,
    };

    fn read(
        form: BodyForm,
        body: &[u8],
        query: &str,
    ) -> Result<Vec<(String, String, String)>, String> {
        let events = read_events(form, body, &Pairs::parse(query), LIMITS);
        let shown = |event: NewEvent| {
            let payload = String::from_utf8_lossy(&event.payload).into_owned();
            (event.kind.to_string(), event.source, payload)
        };
        events
            .map(|events| events.into_iter().map(shown).collect())
            .map_err(|error| error.to_string())
    }

    fn check(form: BodyForm, body: &[u8], query: &str, expected: &[(&str, &str, &str)]) {
        let events = read(form, body, query).expect("accepted");
        let events: Vec<_> = events
            .iter()
            .map(|(kind, source, payload)| (kind.as_str(), source.as_str(), payload.as_str()))
            .collect();
        assert_eq!(events, expected);
    }

    #[test]
    fn data_is_kept_to_the_letter() {
        use BodyForm::Json;
        for (body, expected) in [
            (
                r#"{"kind":"output","source":"agent","data":{"a": 1.10}}"#,
                ("output", "agent", r#"{"a": 1.10}"#),
            ),
            (
                r#"{"kind":"log","data":12345678901234567890.10e+400,"x":1}"#,
                ("log", "stdout", "12345678901234567890.10e+400"),
            ),
            (
                r#"{"kind":"status","data":"completed"}"#,
                ("status", "", "\"completed\""),
            ),
            (
                r#"{"kind":"status","source":"","data":null}"#,
                ("status", "", "null"),
            ),
            (
                r#"{"kind":"output","source":"","data":[1, 2]}"#,
                ("output", "", "[1, 2]"),
            ),
            (
                r#"{"kind":"output","source":"\u0061","data_base64":"aGk="}"#,
                ("output", "a", "hi"),
            ),
        ] {
            check(Json, body.as_bytes(), "kind=bogus", &[expected]);
        }
    }

    #[test]
    fn lines_are_read_one_by_one() {
        let body =
            b"{\"kind\":\"output\",\"data\":1}\r\n\n  \n{\"kind\":\"output\",\"data\":\"x\"}";
        let expected = [("output", "stdout", "1"), ("output", "stdout", "\"x\"")];
        check(BodyForm::JsonLines, body, "", &expected);
    }

    #[test]
    fn every_line_of_a_text_is_a_string() {
        for (body, query, expected) in [
            (
                &b"one\r\n\n{\"a\":1}\n"[..],
                "",
                &[
                    ("output", "stdout", "\"one\""),
                    ("output", "stdout", "\"\""),
                    ("output", "stdout", r#""{\"a\":1}""#),
                ][..],
            ),
            (b"42", "kind=log&source=app", &[("log", "app", "\"42\"")]),
            (
                b"completed\n",
                "kind=status",
                &[("status", "", "\"completed\"")],
            ),
            (b"\xff", "", &[("output", "stdout", "\u{fffd}")]),
            (b"\n", "", &[("output", "stdout", "\"\"")]),
        ] {
            check(BodyForm::Text, body, query, expected);
        }
    }

    #[test]
    fn a_bad_body_is_refused_with_its_place() {
        use BodyForm::{Json, JsonLines, Text};
        for (form, body, query, slug, part) in [
            (Json, "", "", "bad-json", "line 1, column 0"),
            (
                Json,
                "{\"kind\":\n  oops}",
                "",
                "bad-json",
                "line 2, column 3",
            ),
            (
                Json,
                "{\"kind\":\"output\",\"data\":{}",
                "",
                "bad-json",
                "line 1, column 26",
            ),
            (
                Json,
                "{\"kind\":\"output\",\"data\":1} 2",
                "",
                "bad-json",
                "line 1, column 28",
            ),
            (Json, "[1]", "", "bad-event", "send {"),
            (Json, "{\"kind\":7,\"data\":1}", "", "bad-event", "send {"),
            (
                Json,
                "{\"data\":1}",
                "",
                "missing-kind",
                "output, status or log",
            ),
            (
                Json,
                "{\"kind\":\"metric\",\"data\":1}",
                "",
                "unknown-kind",
                "metric",
            ),
            (Json, "{\"kind\":\"output\"}", "", "missing-data", "data"),
            (
                Json,
                "{\"kind\":\"output\",\"data\":1,\"data_base64\":\"\"}",
                "",
                "bad-event",
                "both",
            ),
            (
                Json,
                "{\"kind\":\"output\",\"data_base64\":\"*\"}",
                "",
                "bad-event",
                "base64",
            ),
            (
                Json,
                "{\"kind\":\"status\",\"source\":\"x\",\"data\":1}",
                "",
                "bad-source",
                "status",
            ),
            (
                Json,
                "{\"kind\":\"log\",\"source\":\"123456789\",\"data\":1}",
                "",
                "bad-source",
                "9 bytes",
            ),
            (
                JsonLines,
                "{\"kind\":\"output\",\"data\":1}\n{",
                "",
                "bad-json",
                "line 2, column 1",
            ),
            (
                JsonLines,
                "{\"kind\":\"output\",\"data\":1}\n\n{\"kind\":\"x\",\"data\":1}",
                "",
                "unknown-kind",
                "line 3",
            ),
            (JsonLines, "\n\n", "", "no-events", "no event"),
            (Text, "", "", "no-events", "no event"),
            (Text, "a\nb\nc\nd", "", "too-many-events", "at most 3"),
            (Text, "a", "kind=bogus", "unknown-kind", "bogus"),
            (Text, "a", "kind=status&source=x", "bad-source", "status"),
        ] {
            let error = read(form, body.as_bytes(), query).expect_err(body);
            assert!(
                error.starts_with(slug) && error.contains(part),
                "{body}: {error}"
            );
        }
        let error =
            read(Json, b"{\"kind\":\"output\",\"data\":\"\xff\"}", "").expect_err("not UTF-8");
        assert!(error.starts_with("bad-json"), "{error}");
    }
}
