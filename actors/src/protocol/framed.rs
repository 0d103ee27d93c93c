//! [`FramedEvent`]: a durable event as `runcast_publish` announces it.

use super::{DurableId, EventKind, Timestamp};

/// Version of the header; a message of another version is refused.
pub const FRAME_VERSION: &str = "1";

/// How far Redis' clock may be ahead of ours: a forged id of a farther future
/// would make every true one after it look old.
const AHEAD_MAX_MS: u64 = 24 * 3600 * 1000;

/// A durable event borrowed from a message on `run:{<run_id>}:events`.
///
/// The function writes a one-line header before the payload; the source is
/// preceded by its length in bytes, because it may hold any character.
///
/// ```text
/// 1 <epoch> <seq> <us> <lost> <kind> <flags> <source bytes> <source>\n<payload>
/// ```
///
/// Flags: 1 it ends the run, 2 it was only published and a broker recorded it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FramedEvent<'a> {
    /// Its id in the run's stream.
    pub id: DurableId,
    /// How many events its producer numbered but never got through before it.
    pub lost: u64,
    /// Its kind.
    pub kind: EventKind,
    /// Whether it ends the run.
    pub terminal: bool,
    /// Whether it was only published, and a broker recorded it.
    pub recorded: bool,
    /// Its source.
    pub source: &'a str,
    /// What was published.
    pub payload: &'a [u8],
}

impl<'a> FramedEvent<'a> {
    /// Parses a message.
    ///
    /// # Errors
    /// [`FramedEventError`] when it was not written by the function: any
    /// client of the same Redis can publish on the channel.
    pub fn parse(message: &'a [u8]) -> Result<Self, FramedEventError> {
        let mut header = Header(message);
        if header.word()? != FRAME_VERSION.as_bytes() {
            return Err(FramedEventError);
        }
        let id = DurableId {
            epoch: header.number()?,
            seq: header.number()?,
            us: header.number()?,
        };
        let lost = header.number()?;
        let kind = header.word()?;
        let kind = EventKind::ALL
            .into_iter()
            .find(|known| known.as_str().as_bytes() == kind)
            .ok_or(FramedEventError)?;
        let (terminal, recorded) = match header.word()? {
            b"0" => (false, false),
            b"1" => (true, false),
            b"2" => (false, true),
            b"3" => (true, true),
            _ => return Err(FramedEventError),
        };
        let source_bytes = usize::try_from(header.number()?).map_err(|_| FramedEventError)?;
        let (source, rest) = header
            .0
            .split_at_checked(source_bytes)
            .ok_or(FramedEventError)?;
        Ok(Self {
            id,
            lost,
            kind,
            terminal,
            recorded,
            source: std::str::from_utf8(source).map_err(|_| FramedEventError)?,
            payload: rest.strip_prefix(b"\n").ok_or(FramedEventError)?,
        })
    }

    /// Returns the event, unless its id cannot be of our time, `now`.
    ///
    /// # Errors
    /// [`FramedEventError`] when the id lies more than a day in the future.
    pub fn checked_at(self, now: Timestamp) -> Result<Self, FramedEventError> {
        let latest_ms = (now.as_millis() as u64).saturating_add(AHEAD_MAX_MS);
        match self.id.epoch <= latest_ms && self.id.us / 1000 <= latest_ms {
            true => Ok(self),
            false => Err(FramedEventError),
        }
    }
}

/// What is left of a header: words, each with a space behind it. They are few
/// bytes each, which a loop has read before a search for the space begins.
struct Header<'a>(&'a [u8]);

impl<'a> Header<'a> {
    fn word(&mut self) -> Result<&'a [u8], FramedEventError> {
        let space = self.0.iter().position(|byte| *byte == b' ');
        let space = space.ok_or(FramedEventError)?;
        let word = &self.0[..space];
        self.0 = &self.0[space + 1..];
        Ok(word)
    }

    /// Takes a word as `u64::from_str` does.
    fn number(&mut self) -> Result<u64, FramedEventError> {
        let digits = self.0.strip_prefix(b"+").unwrap_or(self.0);
        let mut number = 0_u64;
        for (at, byte) in digits.iter().enumerate() {
            match byte {
                b'0'..=b'9' => {
                    number = number
                        .checked_mul(10)
                        .and_then(|number| number.checked_add(u64::from(byte - b'0')))
                        .ok_or(FramedEventError)?;
                }
                b' ' if at > 0 => {
                    self.0 = &digits[at + 1..];
                    return Ok(number);
                }
                _ => break,
            }
        }
        Err(FramedEventError)
    }
}

/// A message on a framed channel that the function did not write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a framed event of version {FRAME_VERSION}")]
pub struct FramedEventError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_function_writes() {
        let event =
            FramedEvent::parse(b"1 1795464000123 7 1795464000123456 0 output 0 4 a \nb\nx\ny")
                .expect("well-formed");
        assert_eq!(event.source, "a \nb");
        assert_eq!(event.payload, b"x\ny");
        assert_eq!(event.id.to_string(), "1795464000123-7-1795464000123456");
        assert_eq!(
            (event.kind, event.terminal, event.lost),
            (EventKind::Output, false, 0)
        );
    }

    #[test]
    fn an_id_of_a_far_future_is_forged() {
        let now = Timestamp::now();
        let now_ms = now.as_millis() as u64;
        for (epoch, us, is_good) in [
            (now_ms, now_ms * 1000, true),
            (0, 0, true),
            (u64::MAX, now_ms * 1000, false),
            (now_ms, u64::MAX, false),
            (now_ms + 2 * AHEAD_MAX_MS, now_ms * 1000, false),
        ] {
            let message = format!("1 {epoch} 1 {us} 0 output 0 0 \nx");
            let event = FramedEvent::parse(message.as_bytes()).expect("well-formed");
            assert_eq!(event.checked_at(now).is_ok(), is_good, "{message}");
        }
    }

    #[test]
    fn refuses_forged_frames() {
        for message in [
            &b""[..],
            b"{\"step\":1}",
            b"2 1 1 1 0 output 0 0 \nx",
            b"1 1 1 1 0 output 0 9 abc\nx",
            b"1 1 1 1 0 output 0 18446744073709551615 abc\nx",
            b"1 1 1 1 0 output 4 0 \nx",
            b"1 1 1 1 0 other 0 0 \nx",
            b"1 1 -1 1 0 output 0 0 \nx",
            b"1 1 1 1 0 output 0 1 \xff\nx",
            b"1 1 1 1 0 output 0 0 x",
        ] {
            assert_eq!(FramedEvent::parse(message), Err(FramedEventError));
        }
    }
}
