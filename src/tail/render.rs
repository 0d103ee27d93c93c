//! How an event looks, as bytes for a terminal or a pipe. No input or output
//! here.

use std::borrow::Cow;

use anstyle::{AnsiColor, Style};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use runcast_actors::protocol::{LogLevel, Payload, Timestamp, json_string_or_field, log_level_of};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// The data of an `output`, `status` or `log` event.
#[derive(Debug, Deserialize)]
pub(super) struct Envelope<'a> {
    /// Who said it.
    #[serde(borrow, default)]
    pub(super) source: Cow<'a, str>,
    #[serde(borrow, default)]
    ts: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "raw")]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    data_base64: Option<Cow<'a, str>>,
}

/// The data of a `gap` event.
#[derive(Debug, Deserialize)]
struct Gap<'a> {
    missed: Option<u64>,
    #[serde(borrow)]
    reason: Cow<'a, str>,
}

/// Reads `null` as the JSON it is; an `Option` would make it `None`.
fn raw<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl Envelope<'_> {
    /// Returns when it happened, by the broker's clock.
    pub(super) fn time(&self) -> Option<Timestamp> {
        let time: jiff::Timestamp = self.ts.parse().ok()?;
        Some(Timestamp::from_micros(time.as_microsecond()))
    }

    /// Returns what was published as JSON; empty if it was no text.
    pub(super) fn json(&self) -> &str {
        self.data.map(RawValue::get).unwrap_or_default()
    }

    /// Returns what was published: a text as it is, other JSON to the letter,
    /// bytes as they were.
    fn bytes(&self) -> Cow<'_, [u8]> {
        if let Some(base64) = &self.data_base64 {
            // What is no base64 is shown as it came.
            let decoded = STANDARD.decode(base64.as_bytes());
            return decoded.map_or(Cow::Borrowed(base64.as_bytes()), Cow::Owned);
        }
        match serde_json::from_str::<String>(self.json()) {
            Ok(text) => Cow::Owned(text.into_bytes()),
            Err(_) => Cow::Borrowed(self.json().as_bytes()),
        }
    }
}

/// Writes output: what was published and nothing else, one line at least.
pub(super) fn output(envelope: &Envelope<'_>, out: &mut Vec<u8>) {
    line(&envelope.bytes(), out);
}

/// Writes a status, in the colour of how the run does.
pub(super) fn status(envelope: &Envelope<'_>, coloured: bool, out: &mut Vec<u8>) {
    let word = json_string_or_field(envelope.json(), "status").unwrap_or_default();
    let colour = match word.to_lowercase().as_str() {
        "completed" | "succeeded" => AnsiColor::Green,
        "failed" | "error" | "timeout" => AnsiColor::Red,
        "cancelled" | "canceled" => AnsiColor::Yellow,
        _ => AnsiColor::Cyan,
    };
    label("status", colour.on_default().bold(), coloured, out);
    out.push(b' ');
    line(&envelope.bytes(), out);
}

/// Writes a log event with its level and source.
pub(super) fn log(envelope: &Envelope<'_>, coloured: bool, out: &mut Vec<u8>) {
    let (name, style) = match log_level_of(Payload::Json(envelope.json())) {
        LogLevel::Trace => ("TRACE", Style::new().dimmed()),
        LogLevel::Debug => ("DEBUG", AnsiColor::Blue.on_default()),
        LogLevel::Info => ("INFO", AnsiColor::Green.on_default()),
        LogLevel::Warn => ("WARN", AnsiColor::Yellow.on_default()),
        LogLevel::Error => ("ERROR", AnsiColor::Red.on_default()),
        LogLevel::Fatal => ("FATAL", AnsiColor::Red.on_default().bold()),
    };
    label(&format!("{name:<5}"), style, coloured, out);
    out.push(b' ');
    label(
        &printable(&envelope.source),
        Style::new().dimmed(),
        coloured,
        out,
    );
    out.extend_from_slice(b": ");
    line(&envelope.bytes(), out);
}

/// Writes that events are missing here, how many and why; `data` is that of
/// the `gap` event.
pub(super) fn gap(data: &str, coloured: bool, out: &mut Vec<u8>) {
    let text = match serde_json::from_str::<Gap<'_>>(data) {
        Ok(gap) => {
            let missing = match gap.missed {
                Some(1) => "1 event is missing".to_owned(),
                Some(count) => format!("{count} events are missing"),
                None => "events may be missing".to_owned(),
            };
            format!("--- gap: {missing} here ({}) ---", why(&gap.reason))
        }
        Err(_) => format!("--- gap: {} ---", printable(data)),
    };
    label(&text, AnsiColor::Yellow.on_default(), coloured, out);
    out.push(b'\n');
}

/// Writes `{"event":"output","id":"…","data":{…}}`; `data` is to the letter
/// what came, which is one line of JSON.
pub(super) fn json(event: &str, id: Option<&str>, data: &RawValue, out: &mut Vec<u8>) {
    let id = id.map_or("null".to_owned(), quoted);
    let (event, data) = (quoted(event), data.get());
    let text = format!("{{\"event\":{event},\"id\":{id},\"data\":{data}}}\n");
    out.extend_from_slice(text.as_bytes());
}

/// Returns `text` without what could move a terminal's cursor.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    if text.contains(char::is_control) {
        let shown = text
            .chars()
            .map(|c| if c.is_control() { '\u{fffd}' } else { c });
        Cow::Owned(shown.collect())
    } else {
        Cow::Borrowed(text)
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn label(text: &str, style: Style, coloured: bool, out: &mut Vec<u8>) {
    let styled = if coloured {
        // A colour that the run's output left on ends here.
        let reset = anstyle::Reset;
        format!("{reset}{style}{text}{style:#}")
    } else {
        text.to_owned()
    };
    out.extend_from_slice(styled.as_bytes());
}

fn line(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(bytes);
    if !bytes.ends_with(b"\n") {
        out.push(b'\n');
    }
}

/// Puts the reason of a gap in words.
fn why(reason: &str) -> Cow<'_, str> {
    Cow::Borrowed(match reason {
        "trimmed" => "trimmed: older than what is kept",
        "expired" => "expired: of an earlier life of the run",
        "disconnected" => "disconnected: the broker lost Redis for a while",
        "restarted" => "restarted: the broker knows nothing of what was before",
        "slow_client" => "slow_client: read slower than what is kept",
        "too_large" => "too_large: over the broker's limit",
        "rewound" => "rewound: Redis lost its newest entries",
        "producer" => "producer: the publisher's own numbers jumped",
        "bad_cursor" => "bad_cursor: the place cannot be found again",
        "overflow" => "overflow: a queue of the broker was full",
        other => return printable(other),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Render = fn(&Envelope<'_>, bool, &mut Vec<u8>);

    fn check(render: Render, coloured: bool, envelope: &str, expected: &str) {
        let mut out = Vec::new();
        let envelope = serde_json::from_str(envelope).expect("an envelope");
        render(&envelope, coloured, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    fn plain_output(envelope: &Envelope<'_>, _: bool, out: &mut Vec<u8>) {
        output(envelope, out);
    }

    #[test]
    fn output_is_what_was_published() {
        let cases = [
            (
                r#"{"data":"\u001b[31mred\u001b[0m"}"#,
                "\x1b[31mred\x1b[0m\n",
            ),
            (r#"{"data":"a\nb\n"}"#, "a\nb\n"),
            (r#"{"data":""}"#, "\n"),
            (
                r#"{"data":{"n": 1.0000000000000000001}}"#,
                "{\"n\": 1.0000000000000000001}\n",
            ),
            (r#"{"data":null}"#, "null\n"),
            (r#"{"data_base64":"AP9h"}"#, "\0\u{fffd}a\n"),
        ];
        for (envelope, expected) in cases {
            check(plain_output, true, envelope, expected);
        }
    }

    #[test]
    fn statuses_and_logs_are_labelled() {
        check(status, false, r#"{"data":"running"}"#, "status running\n");
        let failed = r#"{"data":{"status":"failed","exit_code":3}}"#;
        check(
            status,
            false,
            failed,
            "status {\"status\":\"failed\",\"exit_code\":3}\n",
        );
        check(
            log,
            false,
            r#"{"source":"app","data":"hello"}"#,
            "INFO  app: hello\n",
        );
        let warned = r#"{"source":"a\u001b[2Jb","data":{"level":40,"msg":"x"}}"#;
        check(
            log,
            false,
            warned,
            "WARN  a\u{fffd}[2Jb: {\"level\":40,\"msg\":\"x\"}\n",
        );
    }

    #[test]
    fn colours_end_what_the_run_left_on() {
        let expected = "\x1b[0m\x1b[1m\x1b[32mstatus\x1b[0m completed\n";
        check(status, true, r#"{"data":"completed"}"#, expected);
    }

    #[test]
    fn a_gap_says_how_many_and_why() {
        let cases = [
            (
                r#"{"missed":11,"reason":"trimmed"}"#,
                "--- gap: 11 events are missing here (trimmed: older than what is kept) ---\n",
            ),
            (
                r#"{"missed":1,"reason":"producer"}"#,
                "--- gap: 1 event is missing here (producer: the publisher's own numbers jumped) ---\n",
            ),
            (
                r#"{"missed":null,"reason":"new\u0007"}"#,
                "--- gap: events may be missing here (new\u{fffd}) ---\n",
            ),
            ("odd\u{1b}", "--- gap: odd\u{fffd} ---\n"),
        ];
        for (data, expected) in cases {
            let mut out = Vec::new();
            gap(data, false, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), expected);
        }
    }

    #[test]
    fn a_line_of_json_keeps_the_data_to_the_letter() {
        let mut out = Vec::new();
        let data: &RawValue = serde_json::from_str(r#"{"n":1e400}"#).expect("JSON");
        json("output", Some("1-1-1"), data, &mut out);
        json("gap", None, data, &mut out);
        let expected = "{\"event\":\"output\",\"id\":\"1-1-1\",\"data\":{\"n\":1e400}}\n\
                        {\"event\":\"gap\",\"id\":null,\"data\":{\"n\":1e400}}\n";
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }
}
