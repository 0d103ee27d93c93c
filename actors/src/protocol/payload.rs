//! [`Payload`]: how publishers' bytes become one line of JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::IgnoredAny;

use super::{LogLevel, json_field, json_string_or_field};

/// What a publisher's bytes are, decided once per event.
///
/// Valid UTF-8 JSON is passed on to the letter (only line breaks between its
/// tokens go, so that it stands on one line); other UTF-8 text becomes a JSON
/// string; anything else is carried as base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload<'a> {
    /// A JSON document.
    Json(&'a str),
    /// Text that is no JSON, the empty payload included.
    Text(&'a str),
    /// Bytes that are not UTF-8.
    Binary(&'a [u8]),
}

impl<'a> Payload<'a> {
    /// Classifies `bytes`; never fails.
    pub fn classify(bytes: &'a [u8]) -> Self {
        match std::str::from_utf8(bytes) {
            // `IgnoredAny` checks the grammar without building values or
            // recursing, so neither depth nor size of numbers matters.
            Ok(text) if serde_json::from_str::<IgnoredAny>(text).is_ok() => Self::Json(text),
            Ok(text) => Self::Text(text),
            Err(_) => Self::Binary(bytes),
        }
    }

    /// Returns the JSON text, if it is one.
    pub fn json(&self) -> Option<&'a str> {
        match self {
            Self::Json(text) => Some(text),
            Self::Text(_) | Self::Binary(_) => None,
        }
    }

    /// Appends `"data":…` or `"data_base64":"…"` to `out`, without line breaks.
    pub fn write_field(&self, out: &mut Vec<u8>) {
        match self {
            Self::Json(text) => {
                out.extend_from_slice(b"\"data\":");
                write_one_line(text.as_bytes(), out);
            }
            Self::Text(text) => {
                out.extend_from_slice(b"\"data\":");
                write_json_string(text, out);
            }
            Self::Binary(bytes) => {
                out.extend_from_slice(b"\"data_base64\":\"");
                let start = out.len();
                out.resize(start + bytes.len().div_ceil(3) * 4, 0);
                let written = STANDARD
                    .encode_slice(bytes, &mut out[start..])
                    .expect("the buffer was sized for it");
                out.truncate(start + written);
                out.push(b'"');
            }
        }
    }
}

/// Appends `json` without CR and LF. In valid JSON both stand only between
/// tokens, where white space never joins or parts anything.
fn write_one_line(json: &[u8], out: &mut Vec<u8>) {
    let mut rest = json;
    while let Some(at) = memchr::memchr2(b'\r', b'\n', rest) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// Appends `text` as a JSON string.
pub(crate) fn write_json_string(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(&mut *out, text).expect("writing a string to memory cannot fail");
}

/// Returns the level of a `log` event: field `level` of a JSON object, a word
/// in any case or pino's number; none of these means `info`.
pub fn log_level_of(payload: Payload<'_>) -> LogLevel {
    let Some(raw) = payload.json().and_then(|json| json_field(json, "level")) else {
        return LogLevel::Info;
    };
    if let Ok(word) = serde_json::from_str::<std::borrow::Cow<'_, str>>(raw.get()) {
        let word = word.trim();
        let number = || word.parse().ok().filter(|number: &f64| number.is_finite());
        return word
            .parse()
            .ok()
            .or_else(|| number().map(LogLevel::from_number))
            .unwrap_or_default();
    }
    serde_json::from_str(raw.get()).map_or(LogLevel::Info, LogLevel::from_number)
}

/// Returns the status in lower case if `payload`, the data of a `status`
/// event, is one of `terminal`: as a JSON string, as field `status` of an
/// object, or as plain text (which becomes a JSON string).
pub fn terminal_status(payload: Payload<'_>, terminal: &[String]) -> Option<String> {
    let status = match payload {
        Payload::Json(json) => json_string_or_field(json, "status")?,
        Payload::Text(text) => text.to_owned(),
        Payload::Binary(_) => return None,
    };
    terminal
        .iter()
        .find(|word| word.eq_ignore_ascii_case(&status))
        .map(|word| word.to_ascii_lowercase())
}

/// Returns the status of `payload`, the data of a `status` event, in short: a
/// JSON string, field `status` of an object, or plain text; at most 64
/// characters.
pub fn status_word(payload: Payload<'_>) -> Option<String> {
    const CHARS_MAX: usize = 64;
    let word = match payload {
        Payload::Json(json) => json_string_or_field(json, "status"),
        Payload::Text(text) => Some(text.to_owned()),
        Payload::Binary(_) => None,
    };
    word.map(|word| word.chars().take(CHARS_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: &str) {
        let mut out = Vec::new();
        Payload::classify(bytes).write_field(&mut out);
        assert_eq!(String::from_utf8(out).expect("UTF-8"), expected);
    }

    #[test]
    fn json_is_kept_to_the_letter_on_one_line() {
        check(br#"{"step":1}"#, r#""data":{"step":1}"#);
        check(
            b"123456789012345678901234567890.10e+400",
            "\"data\":123456789012345678901234567890.10e+400",
        );
        check(b"{\r\n  \"a\": [1,\n2]\n}\n", "\"data\":{  \"a\": [1,2]}");
        check("\"\u{2028}\"".as_bytes(), "\"data\":\"\u{2028}\"");
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        check(deep.as_bytes(), &format!("\"data\":{deep}"));
    }

    #[test]
    fn other_text_becomes_a_string() {
        check(b"", r#""data":"""#);
        check(b"hello", r#""data":"hello""#);
        check(b"a\r\nb\rc\0", r#""data":"a\r\nb\rc\u0000""#);
        check(b"{\"a\":1", r#""data":"{\"a\":1""#);
        check(b"\xef\xbb\xbf1", "\"data\":\"\u{feff}1\"");
        check(b"\"raw\nbreak\"", r#""data":"\"raw\nbreak\"""#);
        check(
            b"data: x\n\nevent: end",
            r#""data":"data: x\n\nevent: end""#,
        );
    }

    #[test]
    fn bytes_that_are_not_utf8_become_base64() {
        check(b"\xff\x00", r#""data_base64":"/wA=""#);
        check(b"\xff\x00\x01", r#""data_base64":"/wAB""#);
    }

    #[test]
    fn levels_are_words_or_numbers_and_info_by_default() {
        for (json, level) in [
            (r#"{"level":"DEBUG"}"#, LogLevel::Debug),
            (r#"{"level":"Warning"}"#, LogLevel::Warn),
            (r#"{"level":"critical"}"#, LogLevel::Fatal),
            (r#"{"level":20}"#, LogLevel::Debug),
            (r#"{"level":"50"}"#, LogLevel::Error),
            (r#"{"level":null}"#, LogLevel::Info),
            (r#"{"level":"loud"}"#, LogLevel::Info),
            (r#"{"level":"nan"}"#, LogLevel::Info),
            (r#"{"msg":"x"}"#, LogLevel::Info),
            ("plain", LogLevel::Info),
        ] {
            assert_eq!(
                log_level_of(Payload::classify(json.as_bytes())),
                level,
                "{json}"
            );
        }
    }

    #[test]
    fn terminal_statuses_are_found_in_any_form() {
        let terminal = ["completed".to_owned(), "failed".to_owned()];
        for (bytes, expected) in [
            ("\"Completed\"", Some("completed")),
            ("{\"status\":\"FAILED\",\"code\":1}", Some("failed")),
            ("completed", Some("completed")),
            ("running", None),
            ("{\"state\":\"failed\"}", None),
            ("[\"failed\"]", None),
        ] {
            let payload = Payload::classify(bytes.as_bytes());
            assert_eq!(
                terminal_status(payload, &terminal).as_deref(),
                expected,
                "{bytes}"
            );
        }
    }
}
