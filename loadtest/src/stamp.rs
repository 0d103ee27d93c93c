//! [`Stamp`]: what the publisher writes into a payload and subscribers read.

use std::io::Write as _;
use std::sync::LazyLock;

use memchr::memmem::Finder;

/// When and as which of its run's messages a payload was sent.
///
/// ```text
/// {"t":81234567890123,"r":0,"n":17,"x":"xxxxxxxx…"}
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// `CLOCK_MONOTONIC` nanoseconds at the send.
    pub(crate) sent_ns: u64,
    /// Index of the run it was sent to.
    pub(crate) run: u32,
    /// Its number among the messages of that run, from 1.
    pub(crate) seq: u64,
}

impl Stamp {
    /// Writes the stamp as a JSON payload of `bytes` bytes into `out`, or a
    /// few more when that is less than the stamp itself needs.
    pub(crate) fn write(&self, bytes: usize, out: &mut Vec<u8>) {
        out.clear();
        let Self { sent_ns, run, seq } = self;
        write!(out, "{{\"t\":{sent_ns},\"r\":{run},\"n\":{seq},\"x\":\"")
            .expect("writing to memory cannot fail");
        out.resize(out.len().max(bytes.saturating_sub(2)), b'x');
        out.extend_from_slice(b"\"}");
    }

    /// Finds a stamp anywhere in a `data` line, whatever envelope the server
    /// put around the payload. Reads only its first bytes, not the padding.
    pub(crate) fn find(line: &[u8]) -> Option<Self> {
        // Prepared once: that costs more than most searches.
        static FINDER: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(MARK));
        const MARK: &[u8] = b"{\"t\":";
        let at = FINDER.find(line)?;
        let (sent_ns, rest) = number(&line[at + MARK.len()..])?;
        let (run, rest) = number(rest.strip_prefix(b",\"r\":")?)?;
        let (seq, _) = number(rest.strip_prefix(b",\"n\":")?)?;
        let run = u32::try_from(run).ok()?;
        Some(Self { sent_ns, run, seq })
    }
}

/// Reads the number that `text` begins with; returns it and what follows.
pub(crate) fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    // So many digits always fit.
    const DIGITS_MAX: usize = 19;
    let (mut number, mut digits) = (0u64, 0);
    while let Some(byte) = text.get(digits)
        && byte.is_ascii_digit()
    {
        if digits == DIGITS_MAX {
            return None;
        }
        number = number * 10 + u64::from(byte - b'0');
        digits += 1;
    }
    (digits > 0).then_some((number, &text[digits..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp {
        sent_ns: 81_234_567_890_123,
        run: 3,
        seq: 17,
    };

    #[test]
    fn is_read_as_written_in_any_envelope() {
        let mut payload = Vec::new();
        STAMP.write(200, &mut payload);
        assert_eq!(payload.len(), 200);
        let line = [b"{\"kind\":\"output\",\"data\":", &payload[..], b"}"].concat();
        assert_eq!(Stamp::find(&line), Some(STAMP));
    }

    #[test]
    fn numbers_are_read_as_far_as_they_fit() {
        let nines = "9999999999999999999";
        let number_of = |text: &str| number(text.as_bytes()).map(|(number, _)| number);
        assert_eq!(number_of(nines), nines.parse().ok());
        assert_eq!(number_of(&format!("{nines}0")), None);
        assert_eq!(number(b"17,x"), Some((17, &b",x"[..])));
        assert_eq!(number_of("x"), None);
    }

    #[test]
    fn a_small_size_gives_the_bare_stamp() {
        let mut payload = Vec::new();
        STAMP.write(1, &mut payload);
        assert_eq!(Stamp::find(&payload), Some(STAMP));
    }

    #[test]
    fn other_data_holds_no_stamp() {
        for line in [
            "",
            "{\"t\":",
            "{\"t\":1,\"r\":x",
            "{\"v\":1,\"run_id\":\"42\"}",
        ] {
            assert_eq!(Stamp::find(line.as_bytes()), None, "{line}");
        }
    }
}
