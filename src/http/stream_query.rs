//! [`StreamQuery`]: what a stream request asks for, from query and header.

use runcast_actors::broker::{StreamFilter, StreamStart};
use runcast_actors::protocol::{EventKind, LogLevel};

use super::problem::ApiError;
use super::query::Pairs;

/// What `from` may be, for its error.
const FROM_ALLOWED: &str = "start, now, -N (the last N events) or the id of an event";

/// Most sources in one filter: each is compared with each event's.
const SOURCES_MAX: usize = 256;

/// Which backend a request names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BackendChoice {
    /// Redis, or the embedded store on a broker that runs embedded.
    Redis,
    /// `kubectl logs`.
    Kubectl,
    /// Redis if usable, else kubectl.
    Auto,
}

/// The checked query of a stream request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StreamQuery {
    /// Which events.
    pub(super) filter: StreamFilter,
    /// From where on.
    pub(super) start: StreamStart,
    /// From which backend, if the query says so.
    pub(super) backend: Option<BackendChoice>,
}

impl StreamQuery {
    /// Parses a query string and the `Last-Event-ID` header's value.
    ///
    /// # Errors
    /// 400 that names key, value and what is allowed. A cursor that cannot be
    /// read is an error in `from` only; elsewhere a client sends by itself what
    /// it once stored, and is told by a `gap` instead.
    pub(super) fn parse(
        query: &str,
        last_event_id: Option<&[u8]>,
        log_level: LogLevel,
    ) -> Result<Self, ApiError> {
        let pairs = Pairs::parse(query);
        Ok(Self {
            filter: filter(&pairs, log_level)?,
            start: start(&pairs, last_event_id)?,
            backend: pairs.get("backend").map(parse_backend).transpose()?,
        })
    }
}

/// Reads which events are wanted; `log_level` is the least one unless the
/// query says otherwise.
///
/// # Errors
/// 400 that names key, value and what is allowed.
pub(super) fn filter(pairs: &Pairs, log_level: LogLevel) -> Result<StreamFilter, ApiError> {
    Ok(StreamFilter {
        kinds: kinds(pairs)?,
        sources: sources(pairs)?,
        log_level: match pairs.get("log_level") {
            Some(word) => parse_log_level(word)?,
            None => log_level,
        },
    })
}

fn kinds(pairs: &Pairs) -> Result<Vec<EventKind>, ApiError> {
    let mut kinds = Vec::new();
    for word in pairs.list("kinds") {
        let kind = word
            .parse()
            .map_err(|_| ApiError::bad_query("kinds", word, "a list of output, status and log"))?;
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    Ok(kinds)
}

fn sources(pairs: &Pairs) -> Result<Vec<String>, ApiError> {
    let mut sources: Vec<&str> = pairs.list("sources").collect();
    sources.sort_unstable();
    sources.dedup();
    if sources.len() > SOURCES_MAX {
        let allowed = format!("a list of at most {SOURCES_MAX} sources");
        return Err(ApiError::bad_query("sources", &sources.join(","), &allowed));
    }
    Ok(sources.into_iter().map(str::to_owned).collect())
}

fn parse_log_level(word: &str) -> Result<LogLevel, ApiError> {
    word.parse().map_err(|_| {
        let allowed = "trace, debug, info, warn, warning, error, fatal or critical";
        ApiError::bad_query("log_level", word, allowed)
    })
}

pub(super) fn parse_backend(word: &str) -> Result<BackendChoice, ApiError> {
    match word {
        "redis" => Ok(BackendChoice::Redis),
        "kubectl" => Ok(BackendChoice::Kubectl),
        "auto" => Ok(BackendChoice::Auto),
        _ => Err(ApiError::bad_query(
            "backend",
            word,
            "redis, kubectl or auto",
        )),
    }
}

/// `from` is checked even if another cursor wins over it, so that a mistake in
/// a page shows on its first connection and not only then.
fn start(pairs: &Pairs, last_event_id: Option<&[u8]>) -> Result<StreamStart, ApiError> {
    let from = pairs.get("from").map(parse_from).transpose()?;
    let cursor = last_event_id
        .filter(|value| !value.is_empty())
        .or_else(|| pairs.get("last_event_id").map(str::as_bytes))
        .or_else(|| pairs.get("lastEventId").map(str::as_bytes));
    Ok(match cursor {
        Some(bytes) => parse_cursor(bytes),
        None => from.unwrap_or(StreamStart::Start),
    })
}

fn parse_cursor(bytes: &[u8]) -> StreamStart {
    std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| text.parse().ok())
        .map_or(StreamStart::BadCursor, StreamStart::After)
}

fn parse_from(word: &str) -> Result<StreamStart, ApiError> {
    match word {
        "start" => return Ok(StreamStart::Start),
        "now" => return Ok(StreamStart::Now),
        _ => {}
    }
    let start = match word.strip_prefix('-') {
        Some(digits) => last(digits),
        None => word.parse().ok().map(StreamStart::After),
    };
    start.ok_or_else(|| ApiError::bad_query("from", word, FROM_ALLOWED))
}

fn last(digits: &str) -> Option<StreamStart> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    match digits.parse() {
        Ok(0) => Some(StreamStart::Now),
        // More than fits is all there is.
        Err(_) => Some(StreamStart::Last(u64::MAX)),
        Ok(n) => Some(StreamStart::Last(n)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "1795464000123-7-1795464000123456";
    const OTHER: &str = "~00c0ffee0042-17";

    fn parse(query: &str, header: Option<&[u8]>) -> Result<StreamQuery, ApiError> {
        StreamQuery::parse(query, header, LogLevel::Warn)
    }

    fn after(id: &str) -> StreamStart {
        StreamStart::After(id.parse().expect("an id"))
    }

    #[test]
    fn an_empty_query_asks_for_all_from_the_start() {
        for query in [
            "",
            "kinds=&sources=&log_level=&from=&last_event_id=&backend=&x=1",
        ] {
            let parsed = parse(query, Some(b"")).expect("valid");
            assert_eq!(parsed.start, StreamStart::Start);
            assert_eq!(parsed.backend, None);
            assert!(parsed.filter.kinds.is_empty() && parsed.filter.sources.is_empty());
            assert_eq!(parsed.filter.log_level, LogLevel::Warn);
        }
    }

    #[test]
    fn filters_and_backend_are_read() {
        let parsed = parse(
            "kinds=log,output&kinds=log&sources=stdout,a%3Ab&log_level=WARNING&backend=auto",
            None,
        )
        .expect("valid");
        assert_eq!(parsed.filter.kinds, [EventKind::Log, EventKind::Output]);
        assert_eq!(parsed.filter.sources, ["a:b", "stdout"]);
        assert_eq!(parsed.filter.log_level, LogLevel::Warn);
        assert_eq!(parsed.backend, Some(BackendChoice::Auto));
    }

    #[test]
    fn the_cursor_comes_from_the_first_place_that_has_one() {
        let all = format!("last_event_id={ID}&lastEventId={OTHER}&from=now");
        for (query, header, start) in [
            ("", Some(ID.as_bytes()), after(ID)),
            (all.as_str(), Some(OTHER.as_bytes()), after(OTHER)),
            (all.as_str(), Some(b""), after(ID)),
            (all.as_str(), None, after(ID)),
            (&format!("lastEventId={OTHER}&from=now"), None, after(OTHER)),
            (
                &format!("last_event_id=&lastEventId={OTHER}"),
                None,
                after(OTHER),
            ),
            (&format!("from={ID}"), None, after(ID)),
            (&format!("from={ID}-end"), None, after(&format!("{ID}-end"))),
            ("from=start", None, StreamStart::Start),
            ("from=now", None, StreamStart::Now),
            ("from=-1", None, StreamStart::Last(1)),
            ("from=-500", None, StreamStart::Last(500)),
            ("from=-0", None, StreamStart::Now),
            (
                "from=-99999999999999999999",
                None,
                StreamStart::Last(u64::MAX),
            ),
        ] {
            assert_eq!(parse(query, header).expect("valid").start, start, "{query}");
        }
    }

    #[test]
    fn a_malformed_cursor_is_no_error_where_clients_send_it_by_themselves() {
        for (query, header) in [
            ("", Some(&b"garbage"[..])),
            ("", Some(b"\xff\xfe")),
            ("", Some(b" ")),
            ("last_event_id=garbage", None),
            ("lastEventId=1-2", None),
            ("last_event_id=%ff", None),
            ("last_event_id=x&from=now", None),
        ] {
            let start = parse(query, header).expect("valid").start;
            assert_eq!(start, StreamStart::BadCursor, "{query}");
        }
    }

    #[test]
    fn a_bad_value_is_named_with_its_key_and_what_is_allowed() {
        for (query, key, value, allowed) in [
            (
                "kinds=output,bogus",
                "kinds",
                "bogus",
                "output, status and log",
            ),
            ("kinds=Output", "kinds", "Output", "output, status and log"),
            ("log_level=loud", "log_level", "loud", "trace"),
            (
                "backend=files",
                "backend",
                "files",
                "redis, kubectl or auto",
            ),
            ("from=garbage", "from", "garbage", "start, now"),
            ("from=-", "from", "-", "start, now"),
            ("from=--5", "from", "--5", "start, now"),
            ("from=-5x", "from", "-5x", "start, now"),
            ("from=5", "from", "5", "start, now"),
        ] {
            let error = parse(query, Some(ID.as_bytes()))
                .expect_err(query)
                .to_string();
            for part in [key, value, allowed] {
                assert!(error.contains(part), "{error}");
            }
        }
    }
}
