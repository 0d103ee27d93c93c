//! [`RedisUrl`]: where Redis is, with a password that never reaches a log.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize, Serializer};

use super::RedisPlace;

/// Where Redis is:
///
/// ```text
/// redis[s]://[user:password@]host[:port][/db]
/// unix:///path
/// redis[s]+sentinel://[user:password@]host[:port],…/<master name>[/db][?sentinel_password=…]
/// redis[s]+cluster://[user:password@]host[:port],…
/// ```
///
/// `Debug`, `Display` and `Serialize` hide the credentials; only
/// [`as_str`](Self::as_str) and [`place`](Self::place) know them.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct RedisUrl(String);

/// A text that is no usable [`RedisUrl`]; does not repeat it, since it may hold
/// a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be redis[s]://[user:password@]host[:port][/db], unix:///path, \
     redis[s]+sentinel://host,…/<master name> or redis[s]+cluster://host,… ({0})"
)]
pub struct BadRedisUrl(String);

impl RedisUrl {
    /// Returns the whole URL, password and all: for a client, never for a log.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns `text` with everything hidden that may be a credential: what
    /// stands before the last `@` and after the first `?`. Made for any text,
    /// so that a mistyped URL does not leak either.
    pub fn redact(text: &str) -> String {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.bytes().all(is_scheme_byte) => {
                (format!("{scheme}://"), rest)
            }
            _ => (String::new(), text),
        };
        let (user, place) = match rest.rsplit_once('@') {
            Some((_, place)) => ("***@", place),
            None => ("", rest),
        };
        match place.split_once('?') {
            Some((place, _)) => format!("{scheme}{user}{place}?***"),
            None => format!("{scheme}{user}{place}"),
        }
    }

    /// Returns the servers it names.
    pub fn place(&self) -> RedisPlace {
        RedisPlace::parse(&self.0).expect("checked when it was made")
    }
}

impl FromStr for RedisUrl {
    type Err = BadRedisUrl;

    fn from_str(text: &str) -> Result<Self, BadRedisUrl> {
        RedisPlace::parse(text).map_err(BadRedisUrl)?;
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for RedisUrl {
    type Error = BadRedisUrl;

    fn try_from(text: String) -> Result<Self, BadRedisUrl> {
        text.parse()
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Self::redact(&self.0))
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", Self::redact(&self.0))
    }
}

impl Serialize for RedisUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn is_scheme_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'+'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_hidden_wherever_the_url_is_shown() {
        for (url, shown) in [
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            ("redis://user:s3cret@h:1/2", "redis://***@h:1/2"),
            ("redis://:s3cret@h", "redis://***@h"),
            ("rediss://u:s3cret@h:1", "rediss://***@h:1"),
            ("redis://h:1/?protocol=resp3", "redis://h:1/?***"),
            ("unix:///tmp/r.sock?pass=s3cret", "unix:///tmp/r.sock?***"),
            (
                "redis+sentinel://u:s3cret@a:1,b/m/2?sentinel_password=s3cret",
                "redis+sentinel://***@a:1,b/m/2?***",
            ),
            (
                "redis+cluster://:s3cret@a:1,b:2",
                "redis+cluster://***@a:1,b:2",
            ),
        ] {
            let parsed: RedisUrl = url.parse().expect("a good URL");
            assert_eq!(parsed.to_string(), shown);
            assert_eq!(format!("{parsed:?}"), format!("{shown:?}"));
            assert_eq!(
                serde_json::to_value(&parsed).expect("serializes"),
                serde_json::json!(shown)
            );
            assert_eq!(parsed.as_str(), url);
        }
    }

    #[test]
    fn credentials_of_a_mistyped_url_are_hidden_too() {
        for text in [
            "redis://:s3cr@et@h",
            "redis:/:s3cret@h",
            "user:s3cret@h:6379",
            "http://:s3cret@h",
            "redis://user:s3cret@h:99999",
            "redis://user:s3cret@h/notanumber",
            "user:s3cret://x@h",
            "redis://h?pass=s3cret",
            "redis+sentinel://:s3cret@h",
            "redis+sentinel://:s3cr/et@h/m",
            "redis+sentinel://u:s3cret@h,/m",
            "redis+sentinel://h/m?password=s3cret",
            "redis+cluster://:s3cret@a:1,:s3cret@b:2",
            "redis+cluster://:s3cret@a/7",
        ] {
            assert!(!RedisUrl::redact(text).contains("s3cr"), "{text}");
            if let Err(error) = text.parse::<RedisUrl>() {
                assert!(!error.to_string().contains("s3cr"), "{error}");
            }
        }
    }

    #[test]
    fn a_text_that_the_client_cannot_open_is_refused() {
        for text in [
            "",
            "127.0.0.1:6379",
            "http://127.0.0.1",
            "rediss://",
            "rediss://h/x",
            "rediss+sentinel://h",
            "redis://0.0.0.0:6379",
            "redis://h/x",
            "redis+sentinel://h",
            "redis+sentinel://h/",
            "redis+sentinel:///m",
            "redis+sentinel://h/m/x",
            "redis+sentinel://h:x/m",
            "redis+sentinel://h/m?user=u",
            "redis+cluster://",
            "redis+cluster://a,,b",
            "redis+cluster://a/1",
            "redis+cluster://a?x=y",
            "rediss+cluster://a/1",
        ] {
            assert!(text.parse::<RedisUrl>().is_err(), "{text:?}");
        }
    }
}
