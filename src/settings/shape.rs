//! [`Shape`]: how a value is written, and the strict reading of one value.

use std::time::Duration;

use bytesize::ByteSize;
use config::{Value, ValueKind};
use humantime_serde::re::humantime;
use serde_json::Value as Json;

/// No number in the settings is larger: queues of that capacity can be made.
const COUNT_MAX: u64 = 1_000_000_000;
/// No size in the settings is larger: sums of them cannot overflow.
const SIZE_MAX: ByteSize = ByteSize::tib(16);
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
    /// A part of one.
    Ratio,
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
            Json::Number(number) if number.is_f64() => Self::Ratio,
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
            (Self::Count, ValueKind::I64(number)) => self.count(u64::try_from(*number).ok()),
            (Self::Ratio, ValueKind::Float(number)) => self.ratio(Some(*number)),
            (Self::Ratio, ValueKind::I64(number)) => self.ratio(Some(*number as f64)),
            (Self::Size, ValueKind::I64(number)) => {
                self.size(u64::try_from(*number).ok().map(ByteSize))
            }
            (Self::Size, ValueKind::String(text)) => self.size(text.parse().ok()),
            (Self::Text, ValueKind::String(text)) => Ok(Json::from(text.as_str())),
            (Self::Duration, ValueKind::String(text)) => self.duration(text),
            (Self::List, ValueKind::Array(items)) => self.list(items),
            (_, ValueKind::String(text)) if untyped => self.parse(text),
            _ => Err(self.rule()),
        }
    }

    fn count(self, number: Option<u64>) -> Result<Json, String> {
        match number {
            Some(number) if number <= COUNT_MAX => Ok(Json::from(number)),
            _ => Err(self.rule()),
        }
    }

    fn ratio(self, number: Option<f64>) -> Result<Json, String> {
        match number {
            Some(number) if (0.0..=1.0).contains(&number) => Ok(Json::from(number)),
            _ => Err(self.rule()),
        }
    }

    fn size(self, size: Option<ByteSize>) -> Result<Json, String> {
        match size {
            Some(size) if size <= SIZE_MAX => Ok(Json::from(size.as_u64())),
            Some(_) => Err("must be at most 16TiB".to_owned()),
            None => Err(self.rule()),
        }
    }

    fn duration(self, text: &str) -> Result<Json, String> {
        // `humantime` takes a lone 0; here no number goes without its unit.
        if text.trim().parse::<f64>().is_ok() {
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
            Self::Count => self.count(text.parse().ok()),
            Self::Ratio => self.ratio(text.parse().ok()),
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
            Self::Count => "must be a whole number, 0 to 1000000000",
            Self::Ratio => "must be a number from 0 to 1, like 0.05",
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
