//! Lines of `kubectl logs --timestamps`: split in bounded memory, parsed,
//! counted. Pure.

use bytes::Bytes;

use crate::protocol::{EventKind, json_field};

/// Most bytes of a timestamp: `2026-11-23T20:00:00.123456789+02:00`.
const STAMP_BYTES_MAX: usize = 35;

/// A line so many times the limit is told of before its end comes: something
/// that never ends its line must not be silent for ever.
const TOLD_EARLY_FACTOR: u64 = 8;

/// A piece of a log as [`LineSplitter`] yields it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// A whole line without its line feed.
    Line(Bytes),
    /// A line over the limit. Only its beginning was kept.
    TooLong {
        /// The first bytes, enough for a timestamp.
        head: Bytes,
        /// Bytes of the whole line; `None` while its end has not come.
        bytes: Option<u64>,
    },
}

/// Splits a log into lines, holding at most one line of the limit's size.
///
/// Only the final `\n` is cut: a `\r` belongs to the line, progress bars draw
/// with it.
#[derive(Debug)]
pub(crate) struct LineSplitter {
    /// Beginning of the line whose end has not come yet.
    partial: Vec<u8>,
    /// Bytes of that line so far, kept or not.
    seen: u64,
    /// Most bytes of a line, its timestamp included.
    line_bytes_max: usize,
    /// Whether this line was yielded as too long before its end.
    told: bool,
}

impl LineSplitter {
    /// Returns a splitter for payloads of at most `max_event_bytes`.
    pub(crate) fn new(max_event_bytes: usize) -> Self {
        Self {
            partial: Vec::new(),
            seen: 0,
            line_bytes_max: max_event_bytes + STAMP_BYTES_MAX + 1,
            told: false,
        }
    }

    /// Takes the next bytes and calls `each` with every piece they complete.
    pub(crate) fn feed(&mut self, mut chunk: &[u8], mut each: impl FnMut(Piece)) {
        while let Some(end) = memchr::memchr(b'\n', chunk) {
            self.append(&chunk[..end]);
            chunk = &chunk[end + 1..];
            if let Some(piece) = self.take_line() {
                each(piece);
            }
        }
        self.append(chunk);
        let early = self.line_bytes_max as u64 * TOLD_EARLY_FACTOR;
        if self.seen > early && !self.told {
            self.told = true;
            each(Piece::TooLong {
                head: self.head(),
                bytes: None,
            });
        }
    }

    /// Returns what stands after the last line feed, if anything.
    pub(crate) fn finish(mut self) -> Option<Piece> {
        if self.seen == 0 {
            return None;
        }
        match self.take_line()? {
            Piece::TooLong { head, .. } => Some(Piece::TooLong { head, bytes: None }),
            line => Some(line),
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        self.seen += bytes.len() as u64;
        if self.seen <= self.line_bytes_max as u64 {
            self.partial.extend_from_slice(bytes);
            return;
        }
        // Too long: what is kept from now on is only room for a timestamp.
        let missing = (STAMP_BYTES_MAX + 1).saturating_sub(self.partial.len());
        self.partial
            .extend_from_slice(&bytes[..missing.min(bytes.len())]);
        self.partial.truncate(STAMP_BYTES_MAX + 1);
    }

    fn head(&self) -> Bytes {
        let kept = self.partial.len().min(STAMP_BYTES_MAX + 1);
        Bytes::copy_from_slice(&self.partial[..kept])
    }

    /// Ends the current line; `None` if it was told of already.
    fn take_line(&mut self) -> Option<Piece> {
        let piece = if self.seen > self.line_bytes_max as u64 {
            (!self.told).then(|| Piece::TooLong {
                head: self.head(),
                bytes: Some(self.seen),
            })
        } else {
            Some(Piece::Line(Bytes::copy_from_slice(&self.partial)))
        };
        self.partial.clear();
        // One long line must not hold its memory for the rest of the follow.
        self.partial.shrink_to(4096);
        self.seen = 0;
        self.told = false;
        piece
    }
}

/// Parses the beginning of `line` as `RFC3339Nano` and a blank: nanoseconds
/// since the epoch and the text after the blank.
///
/// `None` means that kubectl or the kubelet speaks, not the container.
pub(crate) fn split_stamp(line: &Bytes) -> Option<(u64, Bytes)> {
    let head = &line[..line.len().min(STAMP_BYTES_MAX + 1)];
    let (stamp, text) = match memchr::memchr(b' ', head) {
        Some(at) => (&head[..at], line.slice(at + 1..)),
        // An empty line may have lost its blank on the way.
        None => (head, Bytes::new()),
    };
    if stamp.len() < 20 || stamp[4] != b'-' || stamp[7] != b'-' || stamp[10] != b'T' {
        return None;
    }
    let time: jiff::Timestamp = std::str::from_utf8(stamp).ok()?.parse().ok()?;
    let ns = u64::try_from(time.as_nanosecond()).ok()?;
    Some((ns, text))
}

/// Returns the kind a line names itself: field `type`, else `kind`, of a JSON
/// object, if that is one of ours; else `output`.
pub(crate) fn kind_of(text: &[u8]) -> EventKind {
    named_kind(text).unwrap_or(EventKind::Output)
}

fn named_kind(text: &[u8]) -> Option<EventKind> {
    if text.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    let json = std::str::from_utf8(text).ok()?;
    ["type", "kind"].into_iter().find_map(|name| {
        let word: std::borrow::Cow<'_, str> =
            serde_json::from_str(json_field(json, name)?.get()).ok()?;
        word.parse().ok()
    })
}

/// Numbers the lines of one reading of a container's log.
///
/// A position is `(ns, n)`, `n` counting the lines of one time from 0. The
/// runtime writes stdout and stderr from two threads, so a log's times can
/// step back by some microseconds; such a line takes the time of the one
/// before it, and positions only ever grow. The same log read again from its
/// start gets the same positions on every broker.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    last: Option<(u64, u32)>,
}

impl Walk {
    /// Returns the position of the next line, whose timestamp is `ns`.
    pub(crate) fn step(&mut self, ns: u64) -> (u64, u32) {
        let next = match self.last {
            Some((last, n)) if ns <= last => (last, n.saturating_add(1)),
            _ => (ns, 0),
        };
        self.last = Some(next);
        next
    }

    /// Goes on after `position`, which is no line of the log.
    pub(crate) fn skip_to(&mut self, position: (u64, u32)) {
        self.last = self.last.max(Some(position));
    }
}

/// Returns `ns`, floored to the second as the API takes it.
pub(crate) fn since_time(ns: u64) -> jiff::Timestamp {
    let seconds = i64::try_from(ns / 1_000_000_000).unwrap_or(0);
    jiff::Timestamp::from_second(seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(limit: usize, chunks: &[&[u8]]) -> (Vec<Piece>, Option<Piece>) {
        let mut splitter = LineSplitter::new(limit);
        let mut pieces = Vec::new();
        for chunk in chunks {
            splitter.feed(chunk, |piece| pieces.push(piece));
        }
        (pieces, splitter.finish())
    }

    fn line(text: &'static str) -> Piece {
        Piece::Line(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn lines_are_whole_however_they_are_cut() {
        let text = b"one\n\ntwo\r\nthr\ree\nrest";
        let expected = vec![line("one"), line(""), line("two\r"), line("thr\ree")];
        for size in 1..text.len() {
            let chunks: Vec<&[u8]> = text.chunks(size).collect();
            let (pieces, rest) = split(100, &chunks);
            assert_eq!(pieces, expected, "chunks of {size}");
            assert_eq!(rest, Some(line("rest")), "chunks of {size}");
        }
        assert_eq!(split(100, &[b"one\n"]).1, None);
    }

    #[test]
    fn a_line_over_the_limit_leaves_only_its_head() {
        let stamp = "2026-11-23T20:00:00.123456789Z ";
        let long = format!("{stamp}{}\nshort\n", "x".repeat(100));
        for size in [1, 7, 36, 1000] {
            let chunks: Vec<&[u8]> = long.as_bytes().chunks(size).collect();
            let (pieces, _) = split(50, &chunks);
            let [Piece::TooLong { head, bytes }, last] = &pieces[..] else {
                panic!("{pieces:?}");
            };
            assert!(head.starts_with(stamp.as_bytes()) && head.len() == STAMP_BYTES_MAX + 1);
            assert_eq!(*bytes, Some(131));
            assert_eq!(*last, line("short"));
        }
    }

    #[test]
    fn a_line_that_never_ends_is_told_once_in_bounded_memory() {
        let mut splitter = LineSplitter::new(64);
        let mut pieces = Vec::new();
        for _ in 0..10_000 {
            splitter.feed(&[b'x'; 100], |piece| pieces.push(piece));
            assert!(splitter.partial.capacity() < 4096);
        }
        assert!(matches!(pieces[..], [Piece::TooLong { bytes: None, .. }]));
        splitter.feed(b"\nnext\n", |piece| pieces.push(piece));
        assert_eq!(pieces[1..], [line("next")]);
    }

    #[test]
    fn timestamps_are_exact_to_the_nanosecond() {
        for (text, expected) in [
            (
                "2026-11-23T20:00:00.123456789Z a b",
                Some((1_795_464_000_123_456_789, "a b")),
            ),
            (
                "2026-11-23T22:00:00.000000001+02:00 ",
                Some((1_795_464_000_000_000_001, "")),
            ),
            (
                "2026-11-23T20:00:00Z  x",
                Some((1_795_464_000_000_000_000, " x")),
            ),
            (
                "2026-11-23T20:00:00.5Z",
                Some((1_795_464_000_500_000_000, "")),
            ),
            ("unable to retrieve container logs for containerd://1", None),
            ("2026-11-23 20:00:00 x", None),
            ("2026-13-23T20:00:00Z x", None),
            ("1026-11-23T20:00:00Z x", None),
            ("", None),
        ] {
            let parsed = split_stamp(&Bytes::from_static(text.as_bytes()));
            let expected = expected.map(|(ns, rest)| (ns, Bytes::from_static(rest.as_bytes())));
            assert_eq!(parsed, expected, "{text:?}");
        }
        assert_eq!(split_stamp(&Bytes::from_static(&[0xff; 40])), None);
    }

    #[test]
    fn a_line_may_name_its_kind() {
        for (text, kind) in [
            (r#"{"type":"status","status":"running"}"#, EventKind::Status),
            (r#" {"kind":"log","level":"warn"}"#, EventKind::Log),
            (r#"{"type":"token","kind":"log"}"#, EventKind::Log),
            (r#"{"type":"output"}"#, EventKind::Output),
            (r#"{"type":7}"#, EventKind::Output),
            (r#"{"type":"status""#, EventKind::Output),
            (r#"["type","status"]"#, EventKind::Output),
            ("plain", EventKind::Output),
            ("", EventKind::Output),
        ] {
            assert_eq!(kind_of(text.as_bytes()), kind, "{text}");
        }
        assert_eq!(
            kind_of(b"{\"type\":\"log\",\"x\":\"\xff\"}"),
            EventKind::Output
        );
    }

    #[test]
    fn positions_count_equal_times_and_never_step_back() {
        let mut walk = Walk::default();
        let positions: Vec<_> = [5, 5, 7, 6, 7, 8].map(|ns| walk.step(ns)).into();
        assert_eq!(positions, [(5, 0), (5, 1), (7, 0), (7, 1), (7, 2), (8, 0)]);
        walk.skip_to((8, 3));
        assert_eq!(walk.step(8), (8, 4));
    }

    #[test]
    fn since_time_is_floored_to_the_second() {
        assert_eq!(
            since_time(1_795_464_000_999_999_999).to_string(),
            "2026-11-23T20:00:00Z"
        );
        assert_eq!(since_time(0).to_string(), "1970-01-01T00:00:00Z");
    }
}
