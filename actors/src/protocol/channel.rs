//! [`Channel`]: what a Redis channel name says, without allocating.

use super::{EventKind, RunId, RunIdError};

/// What follows `<prefix>{<run_id>}` in the name of a framed channel.
pub const EVENTS_SUFFIX: &str = ":events";

/// A channel of ours, borrowed from its name.
///
/// ```text
/// run:42:output:stdout   Plain { run_id: "42", kind: Output, source: "stdout" }
/// run:42:status          Plain { run_id: "42", kind: Status, source: "" }
/// run:42:logs:a:b        Plain { run_id: "42", kind: Log, source: "a:b" }
/// run:{42}:events        Framed { run_id: "42" }    (braces literal)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel<'a> {
    /// A payload as an agent published it.
    Plain {
        /// The run, already checked.
        run_id: &'a str,
        /// From the channel's third part.
        kind: EventKind,
        /// The rest of the channel; may hold `:`; empty for a status.
        source: &'a str,
    },
    /// A durable event's framed copy, see [`super::FramedEvent`].
    Framed {
        /// The run, already checked.
        run_id: &'a str,
    },
}

impl<'a> Channel<'a> {
    /// Parses a channel name that begins with `prefix` (`run:`).
    ///
    /// # Errors
    /// [`ChannelError`] when the name is not one of ours; such a message is
    /// counted and dropped, for it belongs to no run.
    pub fn parse(prefix: &str, name: &'a [u8]) -> Result<Self, ChannelError> {
        let rest = name
            .strip_prefix(prefix.as_bytes())
            .ok_or(ChannelError::Foreign)?;
        let rest = std::str::from_utf8(rest).map_err(|_| ChannelError::NotUtf8)?;
        if let Some(rest) = rest.strip_prefix('{') {
            let run_id = rest
                .strip_suffix(EVENTS_SUFFIX)
                .and_then(|rest| rest.strip_suffix('}'))
                .ok_or(ChannelError::UnknownKind)?;
            RunId::check(run_id)?;
            return Ok(Self::Framed { run_id });
        }
        let (run_id, rest) = rest.split_once(':').ok_or(ChannelError::UnknownKind)?;
        RunId::check(run_id)?;
        let (kind, source) = if let Some(source) = rest.strip_prefix("output:") {
            (EventKind::Output, source)
        } else if let Some(source) = rest.strip_prefix("logs:") {
            (EventKind::Log, source)
        } else if rest == "status" {
            (EventKind::Status, "")
        } else {
            return Err(ChannelError::UnknownKind);
        };
        Ok(Self::Plain {
            run_id,
            kind,
            source,
        })
    }
}

/// Why a channel is none of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// It does not begin with our prefix.
    #[error("the channel does not begin with the channel prefix")]
    Foreign,
    /// It is not UTF-8.
    #[error("the channel is not UTF-8")]
    NotUtf8,
    /// Its run id is none.
    #[error(transparent)]
    RunId(#[from] RunIdError),
    /// What follows the run id names no kind of ours.
    #[error("the channel names no kind; it is output:<source>, status or logs:<source>")]
    UnknownKind,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, expected: Result<Channel<'_>, ChannelError>) {
        assert_eq!(
            Channel::parse("run:", name.as_bytes()),
            expected,
            "{name:?}"
        );
    }

    fn plain<'a>(run_id: &'a str, kind: EventKind, source: &'a str) -> Channel<'a> {
        Channel::Plain {
            run_id,
            kind,
            source,
        }
    }

    #[test]
    fn reads_the_channels_agents_publish_on() {
        check(
            "run:42:output:stdout",
            Ok(plain("42", EventKind::Output, "stdout")),
        );
        check("run:42:status", Ok(plain("42", EventKind::Status, "")));
        check("run:42:logs:app", Ok(plain("42", EventKind::Log, "app")));
        check("run:{42}:events", Ok(Channel::Framed { run_id: "42" }));
    }

    #[test]
    fn the_source_is_the_rest_whatever_it_holds() {
        let long = format!("run:42:output:{}", "x".repeat(10_000));
        check(
            &long,
            Ok(plain("42", EventKind::Output, &"x".repeat(10_000))),
        );
        for source in ["", "a:b:c", ":", "*?[x]", "ünïcødé \u{2028}", "a\nb\0"] {
            let name = format!("run:42:output:{source}");
            check(&name, Ok(plain("42", EventKind::Output, source)));
        }
    }

    #[test]
    fn odd_names_belong_to_no_run() {
        use ChannelError::{Foreign, RunId as BadRun, UnknownKind};
        for (name, error) in [
            ("other:42:status", Foreign),
            ("run", Foreign),
            ("run:", UnknownKind),
            ("run:42", UnknownKind),
            ("run:42:", UnknownKind),
            ("run:42:output", UnknownKind),
            ("run:42:Output:x", UnknownKind),
            ("run:42:status:x", UnknownKind),
            ("run:a:b:output:x", UnknownKind),
            ("run::status", BadRun(RunIdError::Empty)),
            ("run:*:status", BadRun(RunIdError::BadCharacter)),
            ("run:_probe:x", BadRun(RunIdError::BadEdge)),
            ("run:{42:events", UnknownKind),
            ("run:{42}:other", UnknownKind),
            ("run:{}:events", BadRun(RunIdError::Empty)),
            ("run:{a b}:events", BadRun(RunIdError::BadCharacter)),
        ] {
            check(name, Err(error));
        }
        assert_eq!(
            Channel::parse("run:", b"run:\xff:status"),
            Err(ChannelError::NotUtf8)
        );
    }
}
