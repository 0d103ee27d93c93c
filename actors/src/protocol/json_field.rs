//! Reading one field of a JSON object without building the object.

use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Returns the raw JSON of `name` in the object `json`, the last one if it
/// stands more than once (as `JSON.parse` has it).
///
/// `None` when `json` is no object, is malformed, or has no such field.
pub fn json_field<'a>(json: &'a str, name: &str) -> Option<&'a RawValue> {
    // A text that does not begin with a brace is no object: the common case
    // of plain lines costs one byte.
    if !json.trim_start().starts_with('{') {
        return None;
    }
    let mut deserializer = serde_json::Deserializer::from_str(json);
    deserializer.deserialize_map(FieldVisitor(name)).ok()?
}

/// Returns the text of `json` if it is a JSON string, or of its string field
/// `name` if it is an object.
pub fn json_string_or_field(json: &str, name: &str) -> Option<String> {
    if json.trim_start().starts_with('"') {
        return serde_json::from_str(json).ok();
    }
    serde_json::from_str(json_field(json, name)?.get()).ok()
}

struct FieldVisitor<'n>(&'n str);

impl<'de> Visitor<'de> for FieldVisitor<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<&RawValue>()? {
            if is_key(key, self.0) {
                found = Some(map.next_value::<&RawValue>()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Returns whether `key`, a JSON string, says `name`. A key that no Rust string
/// holds (a lone surrogate is valid JSON) is just another key.
fn is_key(key: &RawValue, name: &str) -> bool {
    let text = key.get().trim_matches('"');
    let escaped = || serde_json::from_str::<String>(key.get()).is_ok_and(|key| key == name);
    text == name || (text.contains('\\') && escaped())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_last_of_a_field_and_leaves_the_rest() {
        let json = r#" {"a":{"level":1},"level":"warn","\u006cevel":50,"z":[1,2]}"#;
        assert_eq!(json_field(json, "level").expect("found").get(), "50");
        let lone_surrogate = r#"{"\ud800":1,"level":"warn"}"#;
        assert!(json_field(lone_surrogate, "level").is_some());
        assert!(json_field(json, "b").is_none());
        assert!(json_field("[1]", "a").is_none());
        assert!(json_field("{\"a\":", "a").is_none());
    }

    #[test]
    fn reads_a_status_given_either_way() {
        assert_eq!(
            json_string_or_field("\"Failed\"", "status").as_deref(),
            Some("Failed")
        );
        assert_eq!(
            json_string_or_field("{\"status\":\"ok\"}", "status").as_deref(),
            Some("ok")
        );
        assert_eq!(json_string_or_field("{\"status\":7}", "status"), None);
        assert_eq!(json_string_or_field("7", "status"), None);
    }
}
