//! [`RunId`]: the validated name of a run.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Most bytes of a run id.
pub const RUN_ID_BYTES_MAX: usize = 128;

/// Most bytes of a run id the kubectl backend takes: a Kubernetes label value.
pub const KUBECTL_RUN_ID_BYTES_MAX: usize = 63;

/// The name of one run: 1–128 of `A-Z a-z 0-9 . _ -`, first and last
/// alphanumeric. Cheap to clone.
///
/// The alphabet is that of a Kubernetes label value, so a valid id can neither
/// widen a label selector nor be taken for a command-line flag, and needs no
/// escaping in a channel, a URL path or JSON.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(Arc<str>);

impl RunId {
    /// Parses `text` as a run id.
    ///
    /// # Errors
    /// [`RunIdError`] names the first rule that `text` breaks.
    pub fn parse(text: &str) -> Result<Self, RunIdError> {
        Self::check(text)?;
        Ok(Self(Arc::from(text)))
    }

    /// Checks `text` without allocating, as the hot path does.
    ///
    /// # Errors
    /// [`RunIdError`] names the first rule that `text` breaks.
    pub fn check(text: &str) -> Result<(), RunIdError> {
        let bytes = text.as_bytes();
        let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
            return Err(RunIdError::Empty);
        };
        if bytes.len() > RUN_ID_BYTES_MAX {
            return Err(RunIdError::TooLong(bytes.len()));
        }
        if !bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
        {
            return Err(RunIdError::BadCharacter);
        }
        if !first.is_ascii_alphanumeric() || !last.is_ascii_alphanumeric() {
            return Err(RunIdError::BadEdge);
        }
        Ok(())
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Borrow<str> for RunId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for RunId {
    type Err = RunIdError;

    fn from_str(text: &str) -> Result<Self, RunIdError> {
        Self::parse(text)
    }
}

/// Why a text is no run id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RunIdError {
    /// No character at all.
    #[error("a run id cannot be empty")]
    Empty,
    /// More than [`RUN_ID_BYTES_MAX`] bytes.
    #[error("a run id has at most {RUN_ID_BYTES_MAX} characters, not {0}")]
    TooLong(usize),
    /// A character outside the alphabet.
    #[error("a run id holds only letters, digits, '.', '_' and '-'")]
    BadCharacter,
    /// The first or last character is not alphanumeric.
    #[error("a run id begins and ends with a letter or digit")]
    BadEdge,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_label_values_up_to_128_bytes() {
        for text in ["4", "42", "a.b_c-D9", &"x".repeat(128)] {
            assert_eq!(RunId::parse(text).expect(text).as_str(), text);
        }
    }

    #[test]
    fn refuses_everything_else() {
        let long = "x".repeat(129);
        for (text, error) in [
            ("", RunIdError::Empty),
            (long.as_str(), RunIdError::TooLong(129)),
            ("../etc", RunIdError::BadCharacter),
            ("a b", RunIdError::BadCharacter),
            ("a\0", RunIdError::BadCharacter),
            ("a*", RunIdError::BadCharacter),
            ("é", RunIdError::BadCharacter),
            ("{42}", RunIdError::BadCharacter),
            ("a,b notin (c)", RunIdError::BadCharacter),
            ("-oyaml", RunIdError::BadEdge),
            ("--server", RunIdError::BadEdge),
            ("_probe", RunIdError::BadEdge),
            ("42.", RunIdError::BadEdge),
            ("..", RunIdError::BadEdge),
        ] {
            assert_eq!(RunId::parse(text), Err(error), "{text:?}");
        }
    }
}
