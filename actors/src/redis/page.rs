//! The answers of `runcast_read` and of looks at a run's position.

use bytes::Bytes;
use redis::{FromRedisValue, ParsingError, Value};

use crate::protocol::{DurableId, EventKind, TraceContext};
use crate::store::{Closed, Head, Page, StoredEvent};

type Parsed<T> = Result<T, ParsingError>;

/// Reads a page.
pub(super) fn read_page(answer: Value) -> Parsed<Page> {
    let mut parts = array(answer)?.into_iter();
    // A run without meta: an empty answer.
    let Some(head) = parts.next() else {
        return Ok(Page::default());
    };
    let mut next = || parts.next().ok_or_else(unexpected);
    let (now, first, anchor, entries, more) = (next()?, next()?, next()?, next()?, next()?);
    let head = read_head(head, u64::from_redis_value(now)?)?;
    let epoch = head.last.epoch;
    let events = array(entries)?.into_iter();
    Ok(Page {
        head: Some(head),
        first: read_id(epoch, &String::from_redis_value(first)?)?,
        anchor: read_id(epoch, &String::from_redis_value(anchor)?)?,
        events: events
            .map(|entry| read_entry(epoch, entry))
            .collect::<Parsed<_>>()?,
        more: more == Value::Int(1),
    })
}

/// Reads fields `e`, `s`, `u` of a run's meta; `None` for one without.
pub(super) fn read_position(answer: Value) -> Parsed<Option<DurableId>> {
    let (epoch, seq, us): (Option<u64>, Option<u64>, Option<u64>) =
        FromRedisValue::from_redis_value(answer)?;
    let known = |epoch| DurableId {
        epoch,
        seq: seq.unwrap_or(0),
        us: us.unwrap_or(0),
    };
    Ok(epoch.map(known))
}

fn read_head(head: Value, now_us: u64) -> Parsed<Head> {
    let mut fields = array(head)?.into_iter();
    let mut next = || fields.next().ok_or_else(unexpected);
    let mut number = || Option::<u64>::from_redis_value(next()?);
    let (epoch, seq, us) = (number()?, number()?, number()?);
    let (closed_us, sealed_us) = (number()?, number()?);
    let (terminal, status) = (text(next()?), text(next()?));
    let mut count = || Option::<u64>::from_redis_value(next()?);
    let counts = [count()?, count()?, count()?];
    Ok(Head {
        last: DurableId {
            epoch: epoch.ok_or_else(unexpected)?,
            seq: seq.unwrap_or(0),
            us: us.unwrap_or(0),
        },
        counts: counts.map(Option::unwrap_or_default),
        status,
        closed: closed_us.zip(sealed_us).map(|(at_us, sealed_us)| Closed {
            // Version 1 of the library did not note it.
            status: terminal.unwrap_or_default(),
            at_us,
            sealed_us,
        }),
        now_us,
    })
}

fn read_entry(epoch: u64, entry: Value) -> Parsed<StoredEvent> {
    let mut parts = array(entry)?.into_iter();
    let mut next = || parts.next().ok_or_else(unexpected);
    let id = read_id(epoch, &String::from_redis_value(next()?)?)?.ok_or_else(unexpected)?;
    let mut fields = array(next()?)?.into_iter();
    let (mut kind, mut source, mut payload, mut lost) = (None, String::new(), None, 0);
    let mut trace = None;
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        match &bytes(name)?[..] {
            b"k" => kind = String::from_redis_value(value)?.parse::<EventKind>().ok(),
            b"s" => source = String::from_utf8_lossy(&bytes(value)?).into_owned(),
            b"d" => payload = Some(Bytes::from(bytes(value)?)),
            b"l" => lost = u64::from_redis_value(value)?,
            b"t" => trace = text(value).and_then(|text| TraceContext::parse(&text)),
            // A newer version of the library may keep more.
            _ => {}
        }
    }
    Ok(StoredEvent {
        id,
        lost,
        kind: kind.ok_or_else(unexpected)?,
        source,
        payload: payload.ok_or_else(unexpected)?,
        trace,
    })
}

/// Reads an entry's id, `<seq>-<us>`; `None` for "".
fn read_id(epoch: u64, text: &str) -> Parsed<Option<DurableId>> {
    if text.is_empty() {
        return Ok(None);
    }
    let parts = text.split_once('-');
    let id = parts.and_then(|(seq, us)| {
        Some(DurableId {
            epoch,
            seq: seq.parse().ok()?,
            us: us.parse().ok()?,
        })
    });
    id.map(Some).ok_or_else(unexpected)
}

fn array(value: Value) -> Parsed<Vec<Value>> {
    match value {
        Value::Array(values) => Ok(values),
        _ => Err(unexpected()),
    }
}

/// Takes the bytes without a copy.
fn bytes(value: Value) -> Parsed<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        _ => Err(unexpected()),
    }
}

fn text(value: Value) -> Option<String> {
    bytes(value)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
}

fn unexpected() -> ParsingError {
    "unexpected answer of runcast_read".into()
}
