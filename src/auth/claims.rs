//! [`Identity`]: what a token says, read strictly.
//!
//! ```text
//! {"sub":"alice","exp":1795464000,"iat":1795460400,"jti":"7f1c",
//!  "runcast":{"subscribe":["42","team-a-*"],"publish":[],"kinds":["output"],"admin":false}}
//! ```

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use runcast_actors::access::Bearer;
use runcast_actors::protocol::{EventKind, RUN_ID_BYTES_MAX, RunId};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// Longest `sub` and `jti`.
const NAME_BYTES_MAX: usize = 255;

/// Seconds since the Unix epoch are below this one in every token that is
/// meant seriously, and exact in a JSON number.
const DATE_MAX: f64 = 9_007_199_254_740_992.0;

/// Who asks, and what they may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Whose token it is.
    pub(crate) bearer: Bearer,
    /// What it admits.
    pub(crate) rights: Rights,
}

/// The claim `runcast`. A key that we do not know is an error: it may be one
/// that restricts the others, or one of them mistyped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Rights {
    /// Runs whose events may be read.
    pub(crate) subscribe: Vec<RunPattern>,
    /// Runs that may be published to.
    pub(crate) publish: Vec<RunPattern>,
    /// Kinds that may be read and published.
    pub(crate) kinds: Kinds,
    /// Whether it admits the admin routes.
    pub(crate) admin: bool,
}

/// A set of kinds; all of them unless it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(from = "Vec<EventKind>", into = "Vec<EventKind>")]
pub(crate) struct Kinds([bool; EventKind::ALL.len()]);

impl Default for Kinds {
    fn default() -> Self {
        Self([true; EventKind::ALL.len()])
    }
}

impl From<Vec<EventKind>> for Kinds {
    fn from(kinds: Vec<EventKind>) -> Self {
        Self(EventKind::ALL.map(|kind| kinds.contains(&kind)))
    }
}

impl From<Kinds> for Vec<EventKind> {
    fn from(kinds: Kinds) -> Self {
        let all = EventKind::ALL.into_iter();
        all.filter(|kind| kinds.has(*kind)).collect()
    }
}

impl Kinds {
    /// Whether `kind` is one of them.
    pub(crate) fn has(self, kind: EventKind) -> bool {
        let all = EventKind::ALL.into_iter().zip(self.0);
        all.into_iter().any(|(known, is)| is && known == kind)
    }

    /// Whether all are.
    pub(crate) fn is_all(self) -> bool {
        self.0.iter().all(|is| *is)
    }

    /// Whether none is.
    pub(crate) fn is_empty(self) -> bool {
        !self.0.iter().any(|is| *is)
    }
}

/// Which runs: one by its id, or all whose id begins so.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum RunPattern {
    /// `42`
    Exact(RunId),
    /// `team-a-*`; of `*` alone the prefix is empty.
    Prefix(Box<str>),
}

/// A text that is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a run pattern is a run id, or the beginning of one and a single * at the end")]
pub(crate) struct BadPattern;

impl RunPattern {
    /// Parses a pattern. No run id holds a `*`, so it stands for itself nowhere.
    ///
    /// # Errors
    /// [`BadPattern`] for anything that can match no run, or means more than it
    /// seems to.
    pub(crate) fn parse(text: &str) -> Result<Self, BadPattern> {
        let Some(prefix) = text.strip_suffix('*') else {
            return RunId::parse(text).map(Self::Exact).map_err(|_| BadPattern);
        };
        let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let begins_well = prefix
            .bytes()
            .next()
            .is_none_or(|first| first.is_ascii_alphanumeric());
        let is_good =
            begins_well && prefix.len() <= RUN_ID_BYTES_MAX && prefix.bytes().all(is_inner);
        is_good
            .then(|| Self::Prefix(prefix.into()))
            .ok_or(BadPattern)
    }

    /// Whether it means this run.
    pub(crate) fn matches(&self, run_id: &RunId) -> bool {
        match self {
            Self::Exact(id) => id == run_id,
            Self::Prefix(prefix) => run_id.as_str().starts_with(&**prefix),
        }
    }
}

impl fmt::Debug for RunPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(id) => write!(f, "{:?}", id.as_str()),
            Self::Prefix(prefix) => write!(f, "{:?}", format!("{prefix}*")),
        }
    }
}

impl<'de> Deserialize<'de> for RunPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// The claims that we read, of all that a token may have. `exp`, `nbf`, `iss`
/// and `aud` are checked by the library as well, which takes an `iss` that is
/// a list; here it is a text.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    sub: Name,
    exp: Date,
    iat: Option<Date>,
    jti: Option<Name>,
    #[serde(default)]
    #[allow(dead_code, reason = "only its form is checked here")]
    iss: Option<String>,
    #[serde(default)]
    runcast: Object<Rights>,
}

impl Claims {
    pub(super) fn into_identity(self) -> Identity {
        Identity {
            bearer: Bearer {
                subject: self.sub.0,
                token_id: self.jti.map(|id| id.0),
                issued_at: self.iat.map(|date| date.0),
                expires_at: self.exp.0,
            },
            rights: self.runcast.0,
        }
    }
}

/// A JSON object; serde alone would take a list of the values as well.
#[derive(Debug, Default)]
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: DeserializeOwned> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);
        impl<'de, T: DeserializeOwned> Visitor<'de> for ObjectVisitor<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

/// A `NumericDate` of RFC 7519, in whole seconds.
#[derive(Debug)]
struct Date(u64);

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = f64::deserialize(deserializer)?;
        match (0.0..DATE_MAX).contains(&number) {
            true => Ok(Self(number as u64)),
            false => Err(serde::de::Error::custom("no time")),
        }
    }
}

/// A subject's or a token's name.
#[derive(Debug)]
struct Name(Arc<str>);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let is_good =
            (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
        match is_good {
            true => Ok(Self(text.into())),
            false => Err(serde::de::Error::custom("no name")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(id: &str) -> RunId {
        RunId::parse(id).expect("a run id")
    }

    #[test]
    fn a_pattern_is_a_run_or_a_beginning() {
        for (pattern, run_id, matches) in [
            ("42", "42", true),
            ("42", "421", false),
            ("42", "4", false),
            ("team-a-*", "team-a-1", true),
            ("team-a-*", "team-a", false),
            ("team-a-*", "team-b-1", false),
            ("team-a*", "team-a", true),
            ("t*", "T1", false),
            ("*", "anything", true),
        ] {
            let parsed = RunPattern::parse(pattern).expect(pattern);
            assert_eq!(parsed.matches(&run(run_id)), matches, "{pattern} {run_id}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        let long = format!("{}*", "x".repeat(129));
        for text in [
            "",
            "**",
            "*a",
            "a*b",
            "a**",
            "-*",
            ".*",
            "_*",
            "a b*",
            "a/*",
            "a?",
            "[a-z]*",
            "т*",
            "team-a-＊",
            "42\n",
            "42\0*",
            "a\u{200b}*",
            "run:*",
            "{42}",
            &long,
        ] {
            assert_eq!(RunPattern::parse(text), Err(BadPattern), "{text:?}");
        }
    }

    #[test]
    fn claims_are_read_strictly() {
        let read = |json: &str| {
            let claims = serde_json::from_str::<Object<Claims>>(json);
            claims.map(|claims| claims.0.into_identity())
        };
        let identity = read(
            r#"{"sub":"a","exp":1795464000.9,"jti":"t","other":{},"runcast":{"subscribe":["42"],"kinds":["output","log"]}}"#,
        )
        .expect("claims");
        assert_eq!(identity.bearer.expires_at, 1_795_464_000);
        assert_eq!(identity.bearer.issued_at, None);
        assert_eq!(&*identity.bearer.subject, "a");
        assert!(identity.rights.kinds.has(EventKind::Log));
        assert!(!identity.rights.kinds.has(EventKind::Status));
        assert!(!identity.rights.admin);
        let bare = read(r#"{"sub":"a","exp":1}"#).expect("claims");
        assert_eq!(bare.rights, Rights::default());
        assert!(bare.rights.kinds.is_all());
        for json in [
            r#"["a",1]"#,
            r#"{"exp":1}"#,
            r#"{"sub":"","exp":1}"#,
            r#"{"sub":["a"],"exp":1}"#,
            r#"{"sub":"a\n","exp":1}"#,
            r#"{"sub":"a"}"#,
            r#"{"sub":"a","exp":"1"}"#,
            r#"{"sub":"a","exp":-1}"#,
            r#"{"sub":"a","exp":1e99}"#,
            r#"{"sub":"a","exp":1,"exp":2}"#,
            r#"{"sub":"a","exp":1,"jti":7}"#,
            r#"{"sub":"a","exp":1,"iat":"x"}"#,
            r#"{"sub":"a","exp":1,"iss":["x"]}"#,
            r#"{"sub":"a","exp":1,"runcast":null}"#,
            r#"{"sub":"a","exp":1,"runcast":[]}"#,
            r#"{"sub":"a","exp":1,"runcast":{"subscribe":"*"}}"#,
            r#"{"sub":"a","exp":1,"runcast":{"subscribe":["a*b"]}}"#,
            r#"{"sub":"a","exp":1,"runcast":{"subscribe":[null]}}"#,
            r#"{"sub":"a","exp":1,"runcast":{"kinds":null}}"#,
            r#"{"sub":"a","exp":1,"runcast":{"kinds":["Output"]}}"#,
            r#"{"sub":"a","exp":1,"runcast":{"admin":"true"}}"#,
            r#"{"sub":"a","exp":1,"runcast":{"admin":1}}"#,
            r#"{"sub":"a","exp":1,"runcast":{"Admin":true}}"#,
            r#"{"sub":"a","exp":1,"runcast":{},"runcast":{"admin":true}}"#,
        ] {
            assert!(read(json).is_err(), "{json}");
        }
    }
}
