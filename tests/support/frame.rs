//! [`Frame`]: one SSE frame, read with no tolerance at all.

use serde_json::Value;
use serde_json::value::RawValue;

/// One frame as the wire contract allows it: `retry:` alone, or `event`,
/// `data`, `id` in this order; a `goodbye` has `retry` in place of `id`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Frame {
    /// Empty for the `retry:` block that opens a stream.
    pub(crate) event: String,
    /// One line of JSON; empty only for the `retry:` block.
    pub(crate) data: String,
    pub(crate) id: Option<String>,
    pub(crate) retry: Option<u64>,
}

/// The events of the contract; a run's own kinds first.
const EVENTS: [&str; 10] = [
    "output",
    "status",
    "log",
    "hello",
    "heartbeat",
    "cursor",
    "gap",
    "source",
    "problem",
    "goodbye",
];

impl Frame {
    /// Parses the bytes of one frame, without the blank line that ends it.
    ///
    /// Fails the test on anything the contract does not allow.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        Self::try_parse(bytes).unwrap_or_else(|why| {
            panic!("broken frame, {why}:\n{:?}", String::from_utf8_lossy(bytes))
        })
    }

    fn try_parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let text = std::str::from_utf8(bytes).map_err(|_| "not UTF-8")?;
        if text.contains('\r') {
            return Err("a carriage return");
        }
        let mut frame = Self {
            event: String::new(),
            data: String::new(),
            id: None,
            retry: None,
        };
        let mut names = Vec::new();
        for line in text.split('\n') {
            let (name, value) = line.split_once(": ").ok_or("a line that is no field")?;
            names.push(name);
            match name {
                "event" => frame.event = value.to_owned(),
                "data" => frame.data = value.to_owned(),
                "id" => frame.id = Some(value.to_owned()),
                "retry" => {
                    frame.retry = Some(value.parse().map_err(|_| "a retry that is no number")?);
                }
                _ => return Err("an unknown field"),
            }
        }
        let with_id = match (frame.event.as_str(), names.as_slice()) {
            ("", ["retry"]) => return Ok(frame),
            ("goodbye", ["event", "data", "retry"]) => false,
            (_, ["event", "data"]) => false,
            (_, ["event", "data", "id"]) => true,
            _ => return Err("fields missing, doubled or out of order"),
        };
        frame.check_event(with_id)?;
        if frame.encode().as_bytes() != [bytes, b"\n\n"].concat() {
            return Err("not written as the contract writes it");
        }
        Ok(frame)
    }

    fn check_event(&self, with_id: bool) -> Result<(), &'static str> {
        if self.event != "end" && !EVENTS.contains(&self.event.as_str()) {
            return Err("an event that is not in the contract");
        }
        let wants_id = matches!(
            self.event.as_str(),
            "output" | "status" | "log" | "cursor" | "end"
        );
        if wants_id != with_id {
            return Err("an id missing, or one too many");
        }
        if self.event == "goodbye" && self.retry.is_none() {
            return Err("a goodbye without retry");
        }
        serde_json::from_str::<serde::de::IgnoredAny>(&self.data)
            .map_err(|_| "data that is not JSON")?;
        Ok(())
    }

    /// Returns `data` as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.data).expect("checked when parsed")
    }

    /// Whether this is an event of the run itself.
    pub(crate) fn is_run_event(&self) -> bool {
        matches!(self.event.as_str(), "output" | "status" | "log")
    }

    /// Returns the id of a frame that must have one.
    pub(crate) fn id(&self) -> &str {
        self.id
            .as_deref()
            .unwrap_or_else(|| panic!("no id in {self:?}"))
    }

    /// Returns the envelope of an event of the run.
    pub(crate) fn envelope(&self) -> Envelope {
        assert!(self.is_run_event(), "not an event of a run: {self:?}");
        let envelope: Envelope = serde_json::from_str(&self.data)
            .unwrap_or_else(|error| panic!("{error} in the envelope {}", self.data));
        assert_eq!(envelope.kind, self.event, "kind and event differ");
        envelope
    }

    /// Returns the event's payload as the publisher's JSON text, to the letter.
    pub(crate) fn payload(&self) -> String {
        let data = self.envelope().data;
        data.unwrap_or_else(|| panic!("no data in {self:?}"))
            .get()
            .to_owned()
    }

    /// Returns the frame as the contract writes it.
    fn encode(&self) -> String {
        let mut text = String::new();
        for (name, value) in [("event", &self.event), ("data", &self.data)] {
            if !self.event.is_empty() {
                text.push_str(&format!("{name}: {value}\n"));
            }
        }
        if let Some(id) = &self.id {
            text.push_str(&format!("id: {id}\n"));
        }
        if let Some(retry) = self.retry {
            text.push_str(&format!("retry: {retry}\n"));
        }
        text.push('\n');
        text
    }
}

/// `data` of an `output`, `status` or `log` frame.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Envelope {
    pub(crate) run_id: String,
    pub(crate) kind: String,
    pub(crate) source: String,
    pub(crate) ts: String,
    pub(crate) backend: String,
    #[serde(default, deserialize_with = "present")]
    pub(crate) data: Option<Box<RawValue>>,
    pub(crate) data_base64: Option<String>,
}

/// `null` is a payload, not the lack of one.
fn present<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<Box<RawValue>>, D::Error> {
    serde::Deserialize::deserialize(value).map(Some)
}

impl Envelope {
    /// Returns the payload's bytes as the contract lets a client restore them:
    /// JSON text, or the bytes behind base64.
    pub(crate) fn restored(&self) -> Restored {
        match (&self.data, &self.data_base64) {
            (Some(data), None) => Restored::Json(data.get().to_owned()),
            (None, Some(text)) => {
                use base64::Engine as _;
                let bytes = base64::engine::general_purpose::STANDARD.decode(text);
                Restored::Bytes(bytes.expect("data_base64 is base64"))
            }
            _ => panic!("exactly one of data and data_base64: {self:?}"),
        }
    }
}

/// A payload as a client sees it.
#[derive(Debug, PartialEq)]
pub(crate) enum Restored {
    /// From `data`.
    Json(String),
    /// From `data_base64`.
    Bytes(Vec<u8>),
}

impl Restored {
    /// What the contract makes of a publisher's bytes, written here a second
    /// time and independently: JSON loses only line breaks between tokens,
    /// other text becomes a JSON string, anything else base64.
    pub(crate) fn expected(published: &[u8]) -> Self {
        let Ok(text) = std::str::from_utf8(published) else {
            return Self::Bytes(published.to_vec());
        };
        if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() {
            return Self::Json(text.trim().replace(['\r', '\n'], ""));
        }
        Self::Json(Value::String(text.to_owned()).to_string())
    }

    /// Compares by value where the spelling may differ: an escape in a string
    /// made from text may be written in more than one way.
    pub(crate) fn assert_same(&self, published: &[u8]) {
        let expected = Self::expected(published);
        let is_text = std::str::from_utf8(published)
            .is_ok_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_err());
        match (self, &expected) {
            (Self::Json(got), Self::Json(wanted)) if is_text => {
                let text = |json: &str| serde_json::from_str::<String>(json).ok();
                assert_eq!(text(got), text(wanted), "of {published:?}");
            }
            _ => assert_eq!(self, &expected, "of {published:?}"),
        }
    }
}
