//! [`Client`]: one viewer, which comes, goes, stalls and hops between hubs
//! with its cursor, and keeps what it was sent.

use std::collections::VecDeque;

use runcast_actors::order::{
    JoinFrom, JoinInput, JoinOutput, Joiner, LogIndex, PageIds, Safeguards,
};
use runcast_actors::protocol::{DurableId, GapReason, Place};
use runcast_actors::store::PageFrom;

use crate::hub::{Call, Hub};
use crate::log::{Entry, Gap, Log};
use crate::store::{Page, Store};

/// What a client was sent, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It connected to this hub.
    Connected(usize),
    /// It began to join a log that had seen so many plain events.
    Joins(u64),
    /// Plain event number `n` of the hub.
    Plain(u64),
    /// An event.
    Event(DurableId),
    /// A gap.
    Gap(Gap),
}

/// Where a client is.
#[expect(clippy::large_enum_variant, reason = "a few clients, moved in place")]
#[derive(Debug)]
enum State {
    /// Not connected.
    Away,
    /// Connected; the worker's log is not there yet.
    Parked,
    /// On its way into the log.
    Joining(Joining),
    /// In the log.
    Seated(u64),
}

#[derive(Debug)]
struct Joining {
    joiner: Joiner,
    /// What is to be sent first.
    outbox: VecDeque<Seen>,
    then: Then,
    /// The log's end when the last page was asked for.
    asked_at: u64,
}

#[expect(clippy::large_enum_variant, reason = "a few clients, moved in place")]
#[derive(Debug)]
enum Then {
    GoOn,
    Read(Call<PageFrom, Page>),
    Wait,
    /// With the place before the log, which moves on.
    Seat(u64, Option<Place>),
}

/// One client.
#[derive(Debug)]
pub(crate) struct Client {
    /// All it was ever sent.
    pub(crate) seen: Vec<Seen>,
    /// The hub it is connected to.
    pub(crate) hub: usize,
    /// The last event it has.
    cursor: Option<DurableId>,
    /// Its place in the stream on this connection.
    place: Option<Place>,
    state: State,
    out: Vec<JoinOutput<u64>>,
    safeguards: Safeguards,
}

impl Client {
    /// A client that has never connected.
    pub(crate) fn new(safeguards: Safeguards) -> Self {
        Self {
            seen: Vec::new(),
            hub: 0,
            cursor: None,
            place: None,
            state: State::Away,
            out: Vec::new(),
            safeguards,
        }
    }

    /// Whether it is not connected.
    pub(crate) fn is_away(&self) -> bool {
        matches!(self.state, State::Away)
    }

    /// Where it is, in a word.
    pub(crate) fn state(&self) -> String {
        match &self.state {
            State::Joining(Joining { joiner, then, .. }) => format!("joining {then:?} {joiner:?}"),
            state => format!("{state:?}"),
        }
    }

    /// Whether it stands at the end of this log.
    pub(crate) fn is_at_end(&self, log: Option<&Log>) -> bool {
        matches!((&self.state, log), (State::Seated(at), Some(log)) if *at == log.end())
    }

    /// Connects to a hub.
    pub(crate) fn connect(&mut self, hub: usize) {
        self.hub = hub;
        self.place = None;
        self.seen.push(Seen::Connected(hub));
        self.state = State::Parked;
    }

    /// Disconnects.
    pub(crate) fn disconnect(&mut self) {
        self.state = State::Away;
    }

    /// Does what it can, sending at most so many frames; returns whether it
    /// did anything.
    pub(crate) fn go_on(&mut self, log: Option<&Log>, frames_max: usize) -> bool {
        let Some(log) = log else { return false };
        match std::mem::replace(&mut self.state, State::Away) {
            State::Away => false,
            State::Parked => {
                let from = match self.cursor {
                    Some(id) => JoinFrom::Seen(id.into()),
                    None => JoinFrom::Start,
                };
                self.seen.push(Seen::Joins(log.loose()));
                self.join(Joiner::new(from, log, self.safeguards), log);
                true
            }
            State::Joining(joining) => self.go_on_joining(joining, log, frames_max),
            State::Seated(at) if log.is_dropped(at) => {
                self.fall_behind(at, log);
                true
            }
            State::Seated(at) => self.read_log(at, log, frames_max),
        }
    }

    fn read_log(&mut self, mut at: u64, log: &Log, frames_max: usize) -> bool {
        let from = at;
        while at < from + frames_max as u64 {
            let Some(entry) = log.get(at) else { break };
            match entry {
                Entry::Event(id) => self.send(Seen::Event(id)),
                Entry::Gap(gap) => self.send(Seen::Gap(gap)),
                Entry::Loose(number) => self.send(Seen::Plain(number)),
                Entry::Base(_) => {}
            }
            at += 1;
        }
        self.state = State::Seated(at);
        at > from
    }

    fn fall_behind(&mut self, at: u64, log: &Log) {
        let from = self.place.or_else(|| {
            // It came when the stream was empty.
            log.base_place().map(|base| Place {
                seq: 0,
                us: None,
                ..base
            })
        });
        let mut joiner = match from {
            Some(from) => Joiner::fallen_behind(from, log, self.safeguards),
            None => Joiner::new(JoinFrom::Start, log, self.safeguards),
        };
        if log.dropped_loose_from(at) {
            joiner = joiner.with_gap(GapReason::SlowClient, None);
        }
        self.join(joiner, log);
    }

    fn join(&mut self, joiner: Joiner, log: &Log) {
        let mut joining = Joining {
            joiner,
            outbox: VecDeque::new(),
            then: Then::GoOn,
            asked_at: 0,
        };
        self.input(&mut joining, JoinInput::GoOn, None, log);
        self.state = State::Joining(joining);
    }

    fn input(
        &mut self,
        joining: &mut Joining,
        input: JoinInput<'_, Page>,
        page: Option<&Page>,
        log: &Log,
    ) {
        joining.joiner.step(input, log, &mut self.out);
        joining.then = Then::GoOn;
        assert!(!self.out.is_empty(), "a joiner that waits for nothing");
        for output in self.out.drain(..) {
            match output {
                JoinOutput::Gap {
                    reason,
                    before,
                    missed,
                } => joining.outbox.push_back(Seen::Gap(Gap {
                    reason,
                    before,
                    missed,
                    base: None,
                })),
                JoinOutput::Read(from) => {
                    joining.then = Then::Read(Call::Asked(from));
                    joining.asked_at = log.end();
                }
                JoinOutput::Send(range) => {
                    let page = page.expect("a page");
                    let ids = range.map(|index| Seen::Event(page.id(index)));
                    joining.outbox.extend(ids);
                }
                JoinOutput::Wait => joining.then = Then::Wait,
                JoinOutput::Seat(at) => joining.then = Then::Seat(at, log.base()),
            }
        }
    }

    fn go_on_joining(&mut self, mut joining: Joining, log: &Log, frames_max: usize) -> bool {
        if !joining.outbox.is_empty() {
            let count = joining.outbox.len().min(frames_max);
            for seen in joining.outbox.drain(..count) {
                self.send(seen);
            }
            self.state = State::Joining(joining);
            return true;
        }
        match joining.then {
            Then::GoOn => self.input(&mut joining, JoinInput::GoOn, None, log),
            Then::Wait if joining.asked_at != log.end() => {
                self.input(&mut joining, JoinInput::GoOn, None, log);
            }
            Then::Read(Call::Answered(from, page)) => match page {
                Some(page) => self.input(&mut joining, JoinInput::Page(&page), Some(&page), log),
                None => joining.then = Then::Read(Call::Asked(from)),
            },
            Then::Seat(at, base) => {
                self.place = joining.joiner.place().or(base);
                self.state = State::Seated(at);
                return true;
            }
            Then::Read(Call::Asked(_)) | Then::Wait => {
                self.state = State::Joining(joining);
                return false;
            }
        }
        self.state = State::Joining(joining);
        true
    }

    /// The store executes its read.
    pub(crate) fn execute_read(&mut self, store: &Store, fails: bool) -> bool {
        if let State::Joining(Joining {
            then: Then::Read(call @ Call::Asked(_)),
            ..
        }) = &mut self.state
            && let Call::Asked(from) = *call
        {
            *call = Call::Answered(from, (!fails).then(|| store.read(from)));
            return true;
        }
        false
    }

    fn send(&mut self, seen: Seen) {
        match seen {
            Seen::Event(id) => {
                self.cursor = Some(id);
                self.place = Some(id.into());
            }
            Seen::Gap(Gap { base, .. }) => self.place = base.or(self.place),
            Seen::Connected(_) | Seen::Joins(_) | Seen::Plain(_) => {}
        }
        self.seen.push(seen);
    }

    /// The log it reads from, if there is one.
    pub(crate) fn log_of(hub: &Hub) -> Option<&Log> {
        hub.worker.as_ref().and_then(|worker| worker.log.as_ref())
    }
}
