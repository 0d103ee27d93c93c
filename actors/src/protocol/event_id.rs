//! [`EventId`] and [`Cursor`]: where in a run an event, or a client, stands.

use std::fmt::{self, Write as _};
use std::str::FromStr;

/// Most bytes of a cursor; longer ones are not even looked at.
const CURSOR_BYTES_MAX: usize = 8 * 1024;

/// Room for the id of a plain event after a durable one, unless their numbers
/// are absurd.
const PLAIN_ID_BYTES: usize = 64;

/// The id of an event in a run's stream: `<epoch>-<seq>-<us>`.
///
/// The same on every broker. Ordered by epoch, then by sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DurableId {
    /// Server time in milliseconds at which the run began under this id.
    pub epoch: u64,
    /// 1 for the first event of the epoch, then without holes.
    pub seq: u64,
    /// Server time of the append in microseconds: tells this entry from one
    /// that took the same `seq` after a failover forgot the first.
    pub us: u64,
}

impl DurableId {
    fn append_to(&self, out: &mut Vec<u8>) {
        append_number(self.epoch, out);
        out.push(b'-');
        append_number(self.seq, out);
        out.push(b'-');
        append_number(self.us, out);
    }
}

impl fmt::Display for DurableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        EventId::Durable(*self).fmt(f)
    }
}

impl FromStr for DurableId {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let mut parts = text.split('-').map(number);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Some(epoch)), Some(Some(seq)), Some(Some(us)), None) => {
                Ok(Self { epoch, seq, us })
            }
            _ => Err(CursorError),
        }
    }
}

/// Parses decimal digits only: no sign, no blank, no leading zero, so that an
/// id has one spelling.
fn number(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || text.is_empty() || (text.len() > 1 && text.starts_with('0')) {
        return None;
    }
    text.parse().ok()
}

fn append_number(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Names one hub of one process: ids of plain events hold only while it lives.
/// Kept as its text, twelve hexadecimal digits, which each of them begins with.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct HubId([u8; 12]);

impl HubId {
    /// Draws a new hub id; 48 random bits.
    pub fn random() -> Self {
        Self(std::array::from_fn(|_| {
            b"0123456789abcdef"[fastrand::usize(..16)]
        }))
    }
}

impl fmt::Display for HubId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for HubId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for HubId {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let digits = text.as_bytes().try_into().map_err(|_| CursorError)?;
        is_hex(text).then_some(Self(digits)).ok_or(CursorError)
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The id of a plain event: `~<hub>-<n>`, and `~<durable id>` of the last
/// durable event before it if the run has any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlainId {
    /// The hub that counted it.
    pub hub: HubId,
    /// Number of the event among all events of the hub, from 1.
    pub n: u64,
    /// Where to go on from when the hub is gone.
    pub durable: Option<DurableId>,
}

impl PlainId {
    fn append_to(&self, out: &mut Vec<u8>) {
        out.push(b'~');
        out.extend_from_slice(&self.hub.0);
        out.push(b'-');
        append_number(self.n, out);
        if let Some(durable) = &self.durable {
            out.push(b'~');
            durable.append_to(out);
        }
    }
}

impl fmt::Display for PlainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        EventId::Plain(*self).fmt(f)
    }
}

impl FromStr for PlainId {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let rest = text.strip_prefix('~').ok_or(CursorError)?;
        let (plain, durable) = match rest.split_once('~') {
            Some((plain, durable)) => (plain, Some(durable.parse()?)),
            None => (rest, None),
        };
        let (hub, n) = plain.split_once('-').ok_or(CursorError)?;
        Ok(Self {
            hub: hub.parse()?,
            n: number(n).ok_or(CursorError)?,
            durable,
        })
    }
}

/// A position in every container followed:
/// `k<own>:<key>-<ns>-<n>.<key>-<ns>-<n>…`.
///
/// Two containers' clocks interleave, so one timestamp would not do. Entries
/// are sorted by container key, so that a position has one spelling; `own` is
/// the index of the entry that moved last: the line's own container.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct KubectlPosition {
    entries: Vec<ContainerPosition>,
    own: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct ContainerPosition {
    key: u64,
    ns: u64,
    n: u32,
}

impl KubectlPosition {
    /// Returns the key of a container: a hash (FNV-1a) that is the same on
    /// every broker and version.
    pub fn container_key(pod: &str, container: &str) -> u64 {
        let bytes = pod.bytes().chain([b'/']).chain(container.bytes());
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }

    /// Returns the position in container `key`: the line's timestamp in
    /// nanoseconds since the epoch, and its number among the lines of that
    /// timestamp, from 0.
    pub fn get(&self, key: u64) -> Option<(u64, u32)> {
        let at = self.find(key).ok()?;
        Some((self.entries[at].ns, self.entries[at].n))
    }

    fn find(&self, key: u64) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&key, |entry| entry.key)
    }

    /// Moves the position in container `key`.
    pub fn set(&mut self, key: u64, ns: u64, n: u32) {
        let entry = ContainerPosition { key, ns, n };
        self.own = match self.find(key) {
            Ok(at) => {
                self.entries[at] = entry;
                at
            }
            Err(at) => {
                self.entries.insert(at, entry);
                at
            }
        };
    }

    /// Whether the line at `(ns, n)` of container `key` lies at or before this
    /// position, so that a client at this position has seen it.
    pub fn covers(&self, key: u64, ns: u64, n: u32) -> bool {
        self.get(key).is_some_and(|position| (ns, n) <= position)
    }

    /// Whether the line that has `id` lies at or before this position.
    pub fn covers_line(&self, id: &Self) -> bool {
        let own = id.entries.get(id.own);
        own.is_some_and(|own| self.covers(own.key, own.ns, own.n))
    }

    /// Whether every line at or before `other` lies at or before this position.
    pub fn covers_all(&self, other: &Self) -> bool {
        let mut entries = other.entries.iter();
        entries.all(|entry| self.covers(entry.key, entry.ns, entry.n))
    }

    /// Returns the position of a client at this one that was then sent the
    /// line that has `id`: the farther of both in every container.
    pub fn after_line(&self, id: &Self) -> Self {
        let mut merged = self.clone();
        for entry in &id.entries {
            if !merged.covers(entry.key, entry.ns, entry.n) {
                merged.set(entry.key, entry.ns, entry.n);
            }
        }
        if let Some(Ok(own)) = id.entries.get(id.own).map(|own| merged.find(own.key)) {
            merged.own = own;
        }
        merged
    }

    /// Returns whether no container has a position yet.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl fmt::Display for KubectlPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('k')?;
        for (index, ContainerPosition { key, ns, n }) in self.entries.iter().enumerate() {
            match index {
                0 => write!(f, "{}:", self.own)?,
                _ => f.write_char('.')?,
            }
            write!(f, "{key:016x}-{ns}-{n}")?;
        }
        Ok(())
    }
}

impl FromStr for KubectlPosition {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let rest = text.strip_prefix('k').ok_or(CursorError)?;
        if rest.is_empty() {
            return Ok(Self::default());
        }
        let (own, rest) = rest.split_once(':').ok_or(CursorError)?;
        let entries: Vec<_> = rest
            .split('.')
            .map(container_position)
            .collect::<Option<_>>()
            .ok_or(CursorError)?;
        let sorted = entries.windows(2).all(|pair| pair[0].key < pair[1].key);
        let own = number(own).and_then(|own| usize::try_from(own).ok());
        match own {
            Some(own) if sorted && own < entries.len() => Ok(Self { entries, own }),
            _ => Err(CursorError),
        }
    }
}

fn container_position(text: &str) -> Option<ContainerPosition> {
    let mut parts = text.split('-');
    let position = ContainerPosition {
        key: container_key(parts.next()?)?,
        ns: number(parts.next()?)?,
        n: u32::try_from(number(parts.next()?)?).ok()?,
    };
    parts.next().is_none().then_some(position)
}

fn container_key(text: &str) -> Option<u64> {
    let well_formed = text.len() == 16 && is_hex(text);
    well_formed.then(|| u64::from_str_radix(text, 16).ok())?
}

/// The SSE `id` of an event. Clients treat it as opaque.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EventId {
    /// An event of a run's stream.
    Durable(DurableId),
    /// An event that was only published.
    Plain(PlainId),
    /// A line of a container's log.
    Kubectl(KubectlPosition),
}

impl EventId {
    /// The last durable event at or before it, if the id tells.
    pub fn durable(&self) -> Option<DurableId> {
        match self {
            Self::Durable(id) => Some(*id),
            Self::Plain(id) => id.durable,
            Self::Kubectl(_) => None,
        }
    }

    /// Appends its text to `out`. Every event has one: by way of a formatter
    /// it would take a third of the time in which its frame is written.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        match self {
            Self::Durable(id) => id.append_to(out),
            Self::Plain(id) => id.append_to(out),
            Self::Kubectl(id) => out.extend_from_slice(id.to_string().as_bytes()),
        }
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::with_capacity(PLAIN_ID_BYTES);
        self.append_to(&mut text);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

impl FromStr for EventId {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        if text.len() > CURSOR_BYTES_MAX {
            return Err(CursorError);
        }
        match text.as_bytes().first() {
            Some(b'~') => text.parse().map(Self::Plain),
            Some(b'k') => text.parse().map(Self::Kubectl),
            _ => text.parse().map(Self::Durable),
        }
    }
}

/// Where a client stands: the id of the last event it has seen, or that of a
/// run's `end` (`<id of the last event>-end`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The last event seen.
    pub id: EventId,
    /// Whether the client has seen `end` too.
    pub end: bool,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id.fmt(f)?;
        f.write_str(if self.end { "-end" } else { "" })
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let (id, end) = match text.strip_suffix("-end") {
            Some(id) => (id, true),
            None => (text, false),
        };
        Ok(Self {
            id: id.parse()?,
            end,
        })
    }
}

/// A text that is no cursor of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor; it is the id of an event, as the stream sent it")]
pub struct CursorError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_read_as_they_are_written() {
        for text in [
            "1795464000123-7-1795464000123456",
            "1795464000123-7-1795464000123456-end",
            "~00c0ffee0042-17",
            "~00c0ffee0042-17~1795464000123-7-1795464000123456",
            "~00c0ffee0042-17-end",
            "k",
            "k0:00000000000000ff-1795464000123456789-0",
            "k1:00000000000000ff-1-0.0000000000000fff-2-10-end",
        ] {
            let cursor: Cursor = text.parse().expect(text);
            assert_eq!(cursor.to_string(), text);
        }
    }

    #[test]
    fn anything_else_is_no_cursor() {
        let long = format!("k{}", "0".repeat(100_000));
        for text in [
            "",
            "-",
            "-end",
            "1",
            "1-2",
            "1-2-3-4",
            "1-2-+3",
            "01-2-3",
            "1-2-99999999999999999999",
            "~",
            "~1-2",
            "~00c0ffee0042",
            "~00C0FFEE0042-1",
            "~00c0ffee0042-1~",
            "~00c0ffee0042-1~x",
            "kx",
            "k1-2-3",
            "k0:1-2-3",
            "k2:00000000000000ff-1-0",
            "k00000000000000ff-1-0",
            "k0:00000000000000ff-1-0.00000000000000ff-1-1",
            "k0:00000000000000ff-1-0.",
            "1-2-3\n",
            " 1-2-3",
            "١-2-3",
            &long,
        ] {
            assert_eq!(text.parse::<Cursor>(), Err(CursorError), "{text:?}");
        }
    }

    #[test]
    fn a_kubectl_position_covers_each_container_apart() {
        let (a, b) = (
            KubectlPosition::container_key("pod-1", "main"),
            KubectlPosition::container_key("pod-1", "sidecar"),
        );
        let mut position = KubectlPosition::default();
        position.set(a, 100, 1);
        position.set(b, 50, 0);
        assert!(position.covers(a, 100, 1) && position.covers(a, 99, 7));
        assert!(!position.covers(a, 100, 2) && !position.covers(b, 51, 0));
        assert!(!position.covers(7, 1, 0));
    }

    #[test]
    fn a_resumed_position_never_steps_back() {
        let position = |entries: &[(u64, u64)]| {
            let mut position = KubectlPosition::default();
            for (key, ns) in entries {
                position.set(*key, *ns, 0);
            }
            position
        };
        // The client has read container 1 to 90; the logs are read again, and
        // container 2 happens to come first.
        let cursor = position(&[(1, 90), (3, 5)]);
        let line = position(&[(1, 10), (2, 20)]);
        assert!(!cursor.covers_line(&line) && !line.covers_all(&cursor));
        let merged = cursor.after_line(&line);
        assert_eq!(merged, position(&[(1, 90), (3, 5), (2, 20)]));
        assert!(merged.covers_all(&cursor) && merged.covers_all(&line));
        assert!(merged.covers_line(&line));
    }
}
