//! [`TraceContext`]: whose child the delivery of an event is (W3C Trace
//! Context), as it travels from publisher to brokers.

use std::fmt;
use std::sync::Arc;

use super::DurableId;

/// Longest `tracestate` kept; the standard asks for at least as much.
const STATE_BYTES_MAX: usize = 512;

/// First word of a [`TracedEvent`]; an event's header begins with its version.
const TRACED: &str = "trace";

/// A span by its name, for those below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanName {
    /// Its trace; not 0.
    pub trace_id: u128,
    /// Itself in it; not 0.
    pub span_id: u64,
    /// Whether it is recorded: so are those below it.
    pub is_recorded: bool,
    /// Whether another process made it.
    pub is_remote: bool,
    /// `tracestate`, as it came.
    pub state: String,
}

impl SpanName {
    /// Reads the headers `traceparent` and `tracestate` as the standard says: of
    /// a later version what this one has; a `tracestate` that is none, or too
    /// long, is left out. `None` for what is no `traceparent`.
    pub fn read(parent: &str, state: &str) -> Option<Self> {
        let mut fields = trimmed(parent).split('-');
        let (version, trace_id, span_id, flags) = (
            hex(fields.next()?, 2)?,
            hex(fields.next()?, 32)?,
            hex(fields.next()?, 16)?,
            hex(fields.next()?, 2)?,
        );
        let is_known = version == 0 && fields.next().is_none();
        let is_later = (1..0xff).contains(&version);
        if trace_id == 0 || span_id == 0 || !(is_known || is_later) {
            return None;
        }
        let state = Some(trimmed(state)).filter(|state| is_state(state));
        Some(Self {
            trace_id,
            span_id: span_id as u64,
            is_recorded: flags & 1 == 1,
            is_remote: true,
            state: state.unwrap_or_default().to_owned(),
        })
    }
}

fn trimmed(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// Whether a text can be a `tracestate`; of its members only the form counts.
fn is_state(text: &str) -> bool {
    text.len() <= STATE_BYTES_MAX
        && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        && text.split(',').all(|member| member.contains('='))
}

/// The span that a publish belongs to, if it is recorded. One that is not is
/// none: nothing follows from it.
///
/// ```text
/// 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01
/// 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 vendor=value
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext(Arc<SpanName>);

impl TraceContext {
    /// Takes a span, if it is recorded.
    pub fn recorded(span: SpanName) -> Option<Self> {
        span.is_recorded.then(|| Self(Arc::new(span)))
    }

    /// Reads `traceparent`, and after a space `tracestate`, of a span that is
    /// recorded; all else is none.
    pub fn parse(text: &str) -> Option<Self> {
        let (parent, state) = text.split_once(' ').unwrap_or((text, ""));
        Self::recorded(SpanName::read(parent, state)?)
    }

    /// The span.
    pub fn span(&self) -> &SpanName {
        &self.0
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = self.span();
        write!(f, "00-{:032x}-{:016x}-01", span.trace_id, span.span_id)?;
        match span.state.as_str() {
            "" => Ok(()),
            state => write!(f, " {state}"),
        }
    }
}

/// Reads a number of so many hexadecimal digits, in lower case.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_hex = text.len() == digits
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_hex
        .then(|| u128::from_str_radix(text, 16).ok())
        .flatten()
}

/// What `runcast_publish` announces right before an event that is traced, on the
/// same channel. The event itself is announced as ever, so that whoever does not
/// know this message loses only the trace.
///
/// ```text
/// trace <epoch>-<seq>-<us> <traceparent>[ <tracestate>]
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracedEvent {
    /// The event.
    pub id: DurableId,
    /// What its delivery belongs to.
    pub trace: TraceContext,
}

impl fmt::Display for TracedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{TRACED} {} {}", self.id, self.trace)
    }
}

impl TracedEvent {
    /// Whether a message is such a one, well formed or not: that of an event begins
    /// with a digit.
    pub fn is_begun_by(message: &[u8]) -> bool {
        message.starts_with(TRACED.as_bytes())
    }

    /// Parses a message; `None` if it is another.
    pub fn parse(message: &[u8]) -> Option<Self> {
        let rest = message.strip_prefix(TRACED.as_bytes())?;
        let rest = std::str::from_utf8(rest).ok()?.strip_prefix(' ')?;
        let (id, trace) = rest.split_once(' ')?;
        Some(Self {
            id: id.parse().ok()?,
            trace: TraceContext::parse(trace)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn recorded(parent: &str) -> Option<bool> {
        SpanName::read(parent, "").map(|span| span.is_recorded)
    }

    #[test]
    fn reads_a_traceparent_as_the_standard_says() {
        let later = PARENT.replacen("00-", "cc-", 1);
        for (text, expected) in [
            (PARENT, Some(true)),
            (&PARENT.replace("-01", "-00"), Some(false)),
            // Other flags are not ours.
            (&PARENT.replace("-01", "-fe"), Some(false)),
            (&PARENT.replace("-01", "-03"), Some(true)),
            (&format!(" {PARENT}\t"), Some(true)),
            (&later, Some(true)),
            (&format!("{later}-what-comes-then"), Some(true)),
            (&format!("{PARENT}-more"), None),
            (&PARENT.replacen("00-", "ff-", 1), None),
            (&PARENT.to_uppercase(), None),
            (
                &PARENT.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
                None,
            ),
            (&PARENT.replace("b7ad6b7169203331", &"0".repeat(16)), None),
            (&PARENT.replace("0af", "+af"), None),
            (&PARENT[..54], None),
            (&PARENT.replace('-', ""), None),
            ("", None),
        ] {
            assert_eq!(recorded(text), expected, "{text}");
        }
    }

    #[test]
    fn a_state_is_carried_unless_it_is_none() {
        let long = format!("a={}", "x".repeat(STATE_BYTES_MAX));
        for (state, kept) in [
            ("a=1,b=2 3", "a=1,b=2 3"),
            (" a=1 , b=2 ", "a=1 , b=2"),
            ("", ""),
            ("a", ""),
            ("a=\n", ""),
            (&long, ""),
        ] {
            let span = SpanName::read(PARENT, state).expect("a good parent");
            assert_eq!(span.state, kept, "{state}");
            let carried = TraceContext::recorded(span).expect("recorded");
            assert_eq!(TraceContext::parse(&carried.to_string()), Some(carried));
        }
    }

    #[test]
    fn only_what_is_recorded_is_carried() {
        assert_eq!(TraceContext::parse(&PARENT.replace("-01", "-00")), None);
        assert_eq!(TraceContext::parse("x"), None);
    }

    #[test]
    fn reads_what_the_function_announces() {
        let message = format!("trace 1795464000123-7-1795464000123456 {PARENT} a=1");
        let traced = TracedEvent::parse(message.as_bytes()).expect("well-formed");
        assert_eq!(traced.id.to_string(), "1795464000123-7-1795464000123456");
        assert_eq!(traced.trace.to_string(), format!("{PARENT} a=1"));
        assert_eq!(traced.to_string(), message);
        for other in [
            "",
            "trace",
            "trace 7 00",
            "1 1 1 1 0 output 0 0 \nx",
            &message.replace("trace ", "traces "),
            &message.replace("-01", "-00"),
        ] {
            assert_eq!(TracedEvent::parse(other.as_bytes()), None, "{other}");
        }
    }
}
