//! [`LineSplitter`]: a stream of bytes becomes payloads, one a line.

use bytes::Bytes;

/// Cuts a stream into payloads, a line each.
///
/// A line loses its line break (`\n` or `\r\n`) and nothing else. What stands
/// without one for a while is flushed as it is, and a line over the limit is
/// cut into pieces; the rest of such a line is a payload of its own. Neither
/// cut goes through a UTF-8 character, if there are any.
#[derive(Debug)]
pub(crate) struct LineSplitter {
    /// Of the line under way, not yet a payload; below `payload_bytes_max`.
    pending: Vec<u8>,
    payload_bytes_max: usize,
    /// The line under way has given a payload already.
    is_continued: bool,
}

impl LineSplitter {
    /// Makes one whose payloads hold at most `payload_bytes_max`, at least 1.
    pub(crate) fn new(payload_bytes_max: usize) -> Self {
        Self {
            pending: Vec::new(),
            payload_bytes_max,
            is_continued: false,
        }
    }

    /// Whether bytes wait for the end of their line.
    pub(crate) fn has_partial(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Takes the next bytes and appends the payloads they complete to `out`.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<Bytes>) {
        while let Some(at) = memchr::memchr(b'\n', bytes) {
            self.take(&bytes[..at], out);
            self.end_line(out);
            bytes = &bytes[at + 1..];
        }
        self.take(bytes, out);
    }

    /// Makes what waits a payload, whether its line has ended or not.
    pub(crate) fn flush(&mut self, out: &mut Vec<Bytes>) {
        let whole = whole_characters(&self.pending);
        // Nothing but the beginning of a character: it will not get better.
        let end = if whole == 0 {
            self.pending.len()
        } else {
            whole
        };
        self.cut(end, out);
    }

    /// As `flush`, when no more bytes will come.
    pub(crate) fn finish(&mut self, out: &mut Vec<Bytes>) {
        self.cut(self.pending.len(), out);
    }

    fn take(&mut self, bytes: &[u8], out: &mut Vec<Bytes>) {
        self.pending.extend_from_slice(bytes);
        // One byte more may be the `\r` of the line's end.
        while self.pending.len() > self.payload_bytes_max + 1 {
            self.cut_longest(out);
        }
    }

    fn end_line(&mut self, out: &mut Vec<Bytes>) {
        if self.pending.last() == Some(&b'\r') {
            self.pending.pop();
        }
        while self.pending.len() > self.payload_bytes_max {
            self.cut_longest(out);
        }
        if self.has_partial() {
            self.cut(self.pending.len(), out);
        } else if !self.is_continued {
            out.push(Bytes::new());
        }
        self.is_continued = false;
    }

    fn cut_longest(&mut self, out: &mut Vec<Bytes>) {
        let longest = &self.pending[..self.payload_bytes_max];
        let whole = whole_characters(longest);
        let end = if whole == 0 { longest.len() } else { whole };
        self.cut(end, out);
    }

    fn cut(&mut self, end: usize, out: &mut Vec<Bytes>) {
        if end > 0 {
            out.push(Bytes::copy_from_slice(&self.pending[..end]));
            self.pending.drain(..end);
            self.is_continued = true;
        }
    }
}

/// Returns the length of `bytes` without a UTF-8 character cut off at their
/// end; of bytes that are no UTF-8 there, their whole length.
fn whole_characters(bytes: &[u8]) -> usize {
    let tail_start = bytes.len().saturating_sub(3);
    let tail = &bytes[tail_start..];
    let Some(lead) = tail
        .iter()
        .rposition(|byte| byte & 0b1100_0000 == 0b1100_0000)
    else {
        return bytes.len();
    };
    match std::str::from_utf8(&tail[lead..]) {
        // `None`: the end came unexpectedly.
        Err(error) if error.error_len().is_none() => tail_start + lead,
        _ => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `chunks`, flushing after each `None`, and compares the payloads.
    fn check(payload_bytes_max: usize, chunks: &[Option<&[u8]>], expected: &[&[u8]]) {
        let mut splitter = LineSplitter::new(payload_bytes_max);
        let mut out = Vec::new();
        for chunk in chunks {
            match chunk {
                Some(bytes) => splitter.feed(bytes, &mut out),
                None => splitter.flush(&mut out),
            }
        }
        splitter.finish(&mut out);
        assert_eq!(out, expected, "{chunks:?}");
    }

    #[test]
    fn lines_lose_their_break_and_nothing_else() {
        check(
            99,
            &[Some(b"a\n\n b \r\n\x1b[1mc\x00\xff\n"), Some(b"\rd\r")],
            &[b"a", b"", b" b ", b"\x1b[1mc\x00\xff", b"\rd\r"],
        );
        check(
            99,
            &[Some(b"a"), Some(b"b"), Some(b"\nc\n")],
            &[b"ab", b"c"],
        );
        check(99, &[], &[]);
    }

    #[test]
    fn a_flushed_line_goes_on_and_its_break_is_no_line_of_its_own() {
        let chunks = [Some(&b"10%\r"[..]), None, None, Some(b"20%"), None];
        check(99, &chunks, &[b"10%\r", b"20%"]);
        let chunks = [Some(&b"name? "[..]), None, Some(b"\n\nx\n")];
        check(99, &chunks, &[b"name? ", b"", b"x"]);
    }

    #[test]
    fn a_long_line_is_cut_into_pieces() {
        check(3, &[Some(b"abcdefgh\ni\n")], &[b"abc", b"def", b"gh", b"i"]);
        check(3, &[Some(b"abc\r\nabcdef\n")], &[b"abc", b"abc", b"def"]);
        check(1, &[Some(b"ab\r"), Some(b"\n")], &[b"a", b"b"]);
    }

    #[test]
    fn no_cut_goes_through_a_character() {
        check(
            4,
            &[Some("aéé€\n".as_bytes())],
            &["aé".as_bytes(), "é".as_bytes(), "€".as_bytes()],
        );
        check(
            9,
            &[Some(b"a\xe2\x82"), None, Some(b"\xac\n")],
            &[b"a", "€".as_bytes()],
        );
        // Bytes that never become one are passed on all the same.
        check(
            2,
            &[Some(b"\x80\x80\x80\xff\n")],
            &[b"\x80\x80", b"\x80\xff"],
        );
        check(
            9,
            &[Some(b"\xe2\x82"), None, Some(b"x\n")],
            &[b"\xe2\x82", b"x"],
        );
        check(1, &[Some("é\n".as_bytes())], &[b"\xc3", b"\xa9"]);
    }
}
