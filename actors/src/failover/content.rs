//! [`Content`]: whether two events carry the same data.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::LazyLock;

use crate::protocol::Payload;

/// Keyed anew in each process: nobody can publish lines that collide.
static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// The data of an event, as a hash of what clients are sent of it: the field
/// `data` or `data_base64`. Kind, source and time are no part of it, since a
/// line on stdout tells neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Content(u64);

impl Content {
    /// The content of a payload as it was published, or of a line as it was
    /// printed.
    pub fn of(payload: &[u8]) -> Self {
        let mut field = Vec::with_capacity(payload.len() + 16);
        Payload::classify(payload).write_field(&mut field);
        Self::of_field(&field)
    }

    /// The same, of the field as it stands in a frame.
    pub fn of_field(field: &[u8]) -> Self {
        Self(KEYS.hash_one(without_return(field)))
    }
}

/// Drops a carriage return at the end of a text: `runcast exec` publishes lines
/// without it, a container's log keeps it.
fn without_return(field: &[u8]) -> &[u8] {
    field.strip_suffix(b"\\r\"").unwrap_or_else(|| {
        // The quote that ends a text, so that both have lost theirs.
        field.strip_suffix(b"\"").unwrap_or(field)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_data_has_the_same_content_however_it_came() {
        for (published, printed) in [
            ("hello", "hello"),
            ("hello", "hello\r"),
            ("", ""),
            ("{\"a\": 1.0}", "{\"a\": 1.0}"),
            ("{\"a\":1}", "{\"a\":1}\r"),
            ("\"text\"", "\"text\""),
        ] {
            let published = Content::of(published.as_bytes());
            assert_eq!(published, Content::of(printed.as_bytes()), "{printed}");
        }
        assert_eq!(Content::of(b"\xff\x00"), Content::of(b"\xff\x00"));
    }

    #[test]
    fn other_data_has_another_content() {
        for (one, other) in [
            ("hello", "hello "),
            ("1", "1.0"),
            ("{\"a\":1}", "{\"a\": 1}"),
            ("", " "),
            ("/wA=", "\u{ff}"),
        ] {
            assert_ne!(Content::of(one.as_bytes()), Content::of(other.as_bytes()));
        }
        assert_ne!(Content::of(b"/wA="), Content::of(b"\xff\x00"));
    }

    #[test]
    fn a_frame_tells_the_content_of_its_payload() {
        let mut field = Vec::new();
        Payload::classify(b"a\"\r").write_field(&mut field);
        assert_eq!(Content::of_field(&field), Content::of(b"a\""));
    }
}
