//! [`Shape`]: how a value is written, and the strict reading of one value.

use std::time::Duration;

use bytesize::ByteSize;
use config::{Value, ValueKind};
use humantime_serde::re::humantime;
use serde_json::Value as Json;

/// No time in the settings is longer: adding it to a clock cannot overflow.
const DURATION_MAX: Duration = Duration::from_secs(3650 * 24 * 3600);

/// How a key's value is written. Read off the key's default, so that a key is
/// declared in one place only, its struct.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// `true` or `false`.
    Switch,
    /// A whole number.
    Count,
    /// A text.
    Text,
    /// Several texts.
    List,
    /// A time with its unit.
    Duration,
    /// A number of bytes.
    Size,
}

impl Shape {
    /// Returns the shape of the key with this default.
    pub(super) fn of(default: &Json) -> Self {
        match default {
            Json::Bool(_) => Self::Switch,
            Json::Number(_) => Self::Count,
            Json::Array(_) => Self::List,
            Json::String(text) if humantime::parse_duration(text).is_ok() => Self::Duration,
            Json::String(text) if text.parse::<ByteSize>().is_ok() => Self::Size,
            _ => Self::Text,
        }
    }

    /// Returns `value` as JSON of this shape. `untyped` values are texts, as an
    /// environment variable or a flag has them, lists comma separated.
    ///
    /// # Errors
    ///
    /// A sentence that says how it is written.
    pub(super) fn read(self, value: &Value, untyped: bool) -> Result<Json, String> {
        match (self, &value.kind) {
            (Self::Switch, ValueKind::Boolean(on)) => Ok(Json::Bool(*on)),
            (Self::Count, kind) if count(kind).is_some() => Ok(Json::from(count(kind))),
            (Self::Size, kind) if count(kind).is_some() => Ok(Json::from(count(kind))),
            (Self::Text, ValueKind::String(text)) => Ok(Json::from(text.as_str())),
            (Self::Duration, ValueKind::String(text)) => self.duration(text),
            (Self::Size, ValueKind::String(text)) if text.parse::<ByteSize>().is_ok() => {
                Ok(Json::from(text.as_str()))
            }
            (Self::List, ValueKind::Array(items)) => self.list(items),
            (_, ValueKind::String(text)) if untyped => self.parse(text),
            _ => Err(self.rule()),
        }
    }

    fn duration(self, text: &str) -> Result<Json, String> {
        let number = text.trim();
        if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(self.rule());
        }
        match humantime::parse_duration(text) {
            Ok(duration) if duration <= DURATION_MAX => Ok(Json::from(text)),
            Ok(_) => Err("must be at most 3650d".to_owned()),
            Err(_) => Err(self.rule()),
        }
    }

    fn list(self, items: &[Value]) -> Result<Json, String> {
        let text = |item: &Value| match &item.kind {
            ValueKind::String(text) => Ok(Json::from(text.as_str())),
            _ => Err(self.rule()),
        };
        items.iter().map(text).collect::<Result<_, _>>()
    }

    fn parse(self, text: &str) -> Result<Json, String> {
        match self {
            Self::Switch => text.parse().map(Json::Bool).map_err(|_| self.rule()),
            Self::Count => text.parse::<u64>().map(Json::from).map_err(|_| self.rule()),
            Self::List => Ok(text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .collect()),
            Self::Text | Self::Duration | Self::Size => Err(self.rule()),
        }
    }

    fn rule(self) -> String {
        match self {
            Self::Switch => "must be true or false",
            Self::Count => "must be a whole number, 0 or more",
            Self::Text => "must be a text in quotes",
            Self::List => "must be a list of texts, like [\"a\", \"b\"] (a,b outside a file)",
            Self::Duration => {
                "must be a time with its unit, like \"30s\" (us, ms, s, m, h or d; in quotes in a file)"
            }
            Self::Size => {
                "must be a number of bytes, with or without a unit, like \"1MiB\" (KiB, MiB or GiB)"
            }
        }
        .to_owned()
    }
}

fn count(kind: &ValueKind) -> Option<u64> {
    match kind {
        ValueKind::I64(number) => u64::try_from(*number).ok(),
        ValueKind::U64(number) => Some(*number),
        _ => None,
    }
}
