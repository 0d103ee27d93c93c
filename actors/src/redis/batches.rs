//! [`Batches`]: a turn's messages by run.

use bytes::Bytes;
use foldhash::HashMap;

use crate::hub::Incoming;
use crate::protocol::EventKind;

/// A turn's messages by run, in order within each.
///
/// Kept from turn to turn for its room, which a turn's bound bounds; empty
/// between them, so that no read buffer stays for it.
#[derive(Debug, Default)]
pub(super) struct Batches {
    runs: Vec<(Bytes, Vec<Incoming>)>,
    /// Its hash is fast and not proof against chosen ids, which here could at
    /// worst make each of a turn's few hundred look-ups a walk over as many.
    index: HashMap<Bytes, usize>,
    last: Option<Last>,
}

/// The channel read last, and where in `runs` its run is.
#[derive(Debug)]
struct Last {
    channel: Bytes,
    read: ChannelRead,
    at: usize,
}

/// What a channel says of its messages.
#[derive(Debug, Clone, Copy)]
pub(super) enum ChannelRead {
    /// They are plain, and their source is the channel's rest.
    Plain {
        kind: EventKind,
        source_start: usize,
    },
    /// They are framed copies of durable events.
    Framed,
}

impl ChannelRead {
    fn message(self, channel: Bytes, payload: Bytes) -> Incoming {
        match self {
            Self::Plain { kind, source_start } => Incoming::Plain {
                kind,
                channel,
                source_start,
                payload,
            },
            Self::Framed => Incoming::Framed(payload),
        }
    }
}

impl Batches {
    /// Adds a message on the channel of the one before it, as most of a burst
    /// are, so that it is read once; gives it back if it is on another.
    pub(super) fn repeat(&mut self, channel: Bytes, payload: Bytes) -> Result<(), (Bytes, Bytes)> {
        match &self.last {
            Some(last) if last.channel == channel => {
                let message = last.read.message(channel, payload);
                self.runs[last.at].1.push(message);
                Ok(())
            }
            _ => Err((channel, payload)),
        }
    }

    /// Adds a message to those of its run.
    pub(super) fn add(&mut self, run_id: &str, channel: &Bytes, read: ChannelRead, payload: Bytes) {
        let message = read.message(channel.clone(), payload);
        let at = self.add_message(channel.slice_ref(run_id.as_bytes()), message);
        self.last = Some(Last {
            channel: channel.clone(),
            read,
            at,
        });
    }

    /// Adds that a message of a run was too large.
    pub(super) fn add_too_large(&mut self, run_id: &str, channel: &Bytes, kind: EventKind) {
        let run_id = channel.slice_ref(run_id.as_bytes());
        self.add_message(run_id, Incoming::TooLarge(kind));
    }

    fn add_message(&mut self, run_id: Bytes, message: Incoming) -> usize {
        match self.index.get(&run_id) {
            Some(at) => {
                self.runs[*at].1.push(message);
                *at
            }
            None => {
                let at = self.runs.len();
                self.index.insert(run_id.clone(), at);
                self.runs.push((run_id, vec![message]));
                at
            }
        }
    }

    /// Takes what was added, run by run.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = (Bytes, Vec<Incoming>)> {
        self.index.clear();
        self.last = None;
        self.runs.drain(..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Channel;

    /// Adds a message as the subscriber does.
    fn push(batches: &mut Batches, channel: &str, payload: &str) {
        let (channel, payload) = (Bytes::from(channel.to_owned()), payload.to_owned().into());
        let Err((channel, payload)) = batches.repeat(channel, payload) else {
            return;
        };
        match Channel::parse("run:", &channel).expect("a channel of ours") {
            Channel::Framed { run_id } => {
                batches.add(run_id, &channel, ChannelRead::Framed, payload);
            }
            Channel::Plain {
                run_id,
                kind,
                source,
            } => {
                let source_start = channel.len() - source.len();
                let read = ChannelRead::Plain { kind, source_start };
                batches.add(run_id, &channel, read, payload);
            }
        }
    }

    /// What was added: each run, and its messages as `kind source payload`.
    fn drain(batches: &mut Batches) -> Vec<(String, Vec<String>)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let message = |message: &Incoming| match message {
            Incoming::Plain {
                kind,
                channel,
                source_start,
                payload,
            } => format!(
                "{kind} {} {}",
                text(&channel[*source_start..]),
                text(payload)
            ),
            Incoming::Framed(payload) => format!("framed {}", text(payload)),
            Incoming::TooLarge(kind) => format!("large {kind}"),
            Incoming::Stored(_) => unreachable!("not from Redis"),
        };
        let runs = batches.drain();
        runs.map(|(run_id, messages)| (text(&run_id), messages.iter().map(message).collect()))
            .collect()
    }

    #[test]
    fn each_run_has_its_messages_in_order_whatever_channels_they_came_on() {
        let mut batches = Batches::default();
        for turn in ["first", "second"] {
            for (channel, payload) in [
                ("run:1:output:a", "1"),
                ("run:1:output:a", "2"),
                ("run:2:output:a", "3"),
                ("run:1:output:b", "4"),
                ("run:1:output:b", "5"),
                ("run:{1}:events", "6"),
                ("run:{1}:events", "7"),
                ("run:1:status", "8"),
            ] {
                push(&mut batches, channel, payload);
            }
            let name = "run:2:logs:x";
            let channel = Bytes::from_static(name.as_bytes());
            batches.add_too_large(&name[4..5], &channel, EventKind::Log);
            push(&mut batches, "run:1:status", "9");
            push(&mut batches, "run:2:logs:x", "10");
            let of = |run_id: &str, messages: &[&str]| {
                let messages = messages.iter().map(|message| (*message).to_owned());
                (run_id.to_owned(), messages.collect())
            };
            let expected = [
                of(
                    "1",
                    &[
                        "output a 1",
                        "output a 2",
                        "output b 4",
                        "output b 5",
                        "framed 6",
                        "framed 7",
                        "status  8",
                        "status  9",
                    ],
                ),
                of("2", &["output a 3", "large log", "log x 10"]),
            ];
            assert_eq!(drain(&mut batches), expected, "{turn} turn");
        }
        assert!(drain(&mut batches).is_empty());
    }
}
