//! [`Joiner`]: the way of one client from its cursor to its place in the log.

use std::ops::Range;

use super::ids::{is_back, is_rewound, is_unproven};
use super::{KnownIds, PageIds, Safeguards};
use crate::protocol::{DurableId, GapReason, Place};
use crate::store::PageFrom;

/// A log that a client joins, as far as durable ids go.
pub trait LogIndex: KnownIds {
    /// A place in it.
    type Position: Copy;

    /// The stream's place before [`LogIndex::start`]: all that comes after it
    /// is in the log. `None`: the stream was empty when the log began, and the
    /// log holds no durable event.
    fn base(&self) -> Option<Place>;

    /// Where who has seen all up to the base goes on.
    fn start(&self) -> Self::Position;

    /// The place after a durable event, if the log holds that very one.
    fn after(&self, id: DurableId) -> Option<Self::Position>;

    /// The place after all it holds.
    fn end(&self) -> Self::Position;

    /// How many frames without a durable id it has dropped.
    fn loose_dropped(&self) -> u64;

    /// How many frames without a durable id were written before a position,
    /// kept or not.
    fn loose_before(&self, position: Self::Position) -> u64;

    /// How many events without a durable id a client misses that goes on at a
    /// position and does not miss the first `seen` frames without one; `None`
    /// if a gap may be among them, which counts others.
    fn loose_missed(&self, seen: u64, position: Self::Position) -> Option<u64>;

    /// Whether a frame without a durable id was dropped that came after `id`.
    fn dropped_loose_after(&self, id: DurableId) -> bool;
}

/// Where a client begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinFrom {
    /// At the oldest event kept; that older ones are gone is no gap to it.
    Start,
    /// After what it has seen.
    Seen(Place),
}

/// What happens to a joining client.
#[derive(Debug, Clone, Copy)]
pub enum JoinInput<'a, P> {
    /// All that was to be sent is sent, or the log has changed.
    GoOn,
    /// The page asked for.
    Page(&'a P),
}

/// What is to be done for it, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JoinOutput<L> {
    /// Tell a gap.
    Gap {
        /// Why.
        reason: GapReason,
        /// The first event after it; `None`: what follows, if anything does.
        before: Option<DurableId>,
        /// How many are missing, if known.
        missed: Option<u64>,
    },
    /// Read the store; answer with [`JoinInput::Page`].
    Read(PageFrom),
    /// Send these events of the page, then [`JoinInput::GoOn`].
    Send(Range<usize>),
    /// The client is ahead of the log, or the log's history is not the store's
    /// any more: [`JoinInput::GoOn`] when the log has changed since the page was
    /// asked for; at once, if it has by now.
    Wait,
    /// Go on from here in the log. The joiner is done.
    Seat(L),
}

/// A client on its way into a log. It is attached to the live log before it
/// reads anything, reads pages after what it has seen up to the log's base,
/// and goes on in the log at exactly that place: no hole, no twin.
#[derive(Debug, Clone)]
pub struct Joiner {
    /// Where it began, and where it is.
    from: JoinFrom,
    at: JoinFrom,
    /// Why events that the store has trimmed are missing to this client.
    trim_reason: GapReason,
    /// A gap that is told whatever the store says.
    told: Option<Told>,
    /// So many frames without a durable id are not missing to it.
    loose_seen: u64,
    /// Where what it is sent begins, if that is known exactly.
    begins_after: Option<DurableId>,
    /// The history was rewound, and nothing of the new one was sent yet: a log
    /// may still go on with the old one.
    is_rewound: bool,
    state: State,
    safeguards: Safeguards,
}

#[derive(Debug, Clone, Copy)]
struct Told {
    reason: GapReason,
    missed: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The next page lies after what was seen.
    Forward,
    /// The history is another than the one seen up to this `us`: pages go
    /// backwards until one holds an event no younger.
    Back(u64),
}

impl Joiner {
    /// A client that comes with `from`.
    pub fn new(from: JoinFrom, log: &impl LogIndex, safeguards: Safeguards) -> Self {
        let told = match from {
            JoinFrom::Seen(place) if place.id().is_some_and(|id| log.dropped_loose_after(id)) => {
                Some(Told {
                    reason: GapReason::Trimmed,
                    missed: None,
                })
            }
            JoinFrom::Start | JoinFrom::Seen(_) => None,
        };
        Self {
            from,
            at: from,
            trim_reason: GapReason::Trimmed,
            told,
            loose_seen: loose_seen(from, log),
            begins_after: match from {
                JoinFrom::Start => None,
                JoinFrom::Seen(place) => place.id(),
            },
            is_rewound: false,
            state: State::Forward,
            safeguards,
        }
    }

    /// A client that is told a gap first, whatever the store says.
    #[must_use]
    pub fn with_gap(mut self, reason: GapReason, missed: Option<u64>) -> Self {
        self.told = Some(Told { reason, missed });
        self
    }

    /// A client of whom it is known that it missed nothing but what the store
    /// can tell.
    #[must_use]
    pub fn without_gap(mut self) -> Self {
        self.told = None;
        self
    }

    /// A client to which only loose frames after the first `loose` of the log
    /// are missing.
    #[must_use]
    pub fn with_loose_seen(self, loose: u64) -> Self {
        Self {
            loose_seen: loose,
            ..self
        }
    }

    /// A client that fell out of the log after `from`; what durable events it
    /// finds trimmed it missed by being slow.
    pub fn fallen_behind(from: Place, log: &impl LogIndex, safeguards: Safeguards) -> Self {
        Self {
            trim_reason: GapReason::SlowClient,
            told: None,
            ..Self::new(JoinFrom::Seen(from), log, safeguards)
        }
    }

    /// The event that all it is sent comes after, if that is known exactly.
    pub fn begins_after(&self) -> Option<DurableId> {
        self.begins_after
    }

    /// Whether it is told a gap whatever the store says.
    pub fn is_told_gap(&self) -> bool {
        self.told.is_some()
    }

    /// What the client has seen, if it is known exactly.
    pub fn seen(&self) -> Option<DurableId> {
        self.place().and_then(Place::id)
    }

    /// Where the client is; `None` before the beginning.
    pub fn place(&self) -> Option<Place> {
        match self.at {
            JoinFrom::Start => None,
            JoinFrom::Seen(place) => Some(place),
        }
    }

    /// Takes one input; what is to be done goes to `out`, in order.
    pub fn step<P: PageIds, L: LogIndex>(
        &mut self,
        input: JoinInput<'_, P>,
        log: &L,
        out: &mut Vec<JoinOutput<L::Position>>,
    ) {
        match input {
            JoinInput::GoOn => {
                self.state = State::Forward;
                self.go_on(log, out);
            }
            JoinInput::Page(page) => match self.state {
                State::Forward => self.forward(page, log, out),
                State::Back(us) => self.back(page, us, log, out),
            },
        }
    }

    /// The client's place in the log, if it has reached it. `agrees`: the store
    /// has just shown that what it has seen is in the stream, and whether the
    /// log goes on from there as the stream does.
    fn place_in<L: LogIndex>(&self, log: &L, agrees: Option<bool>) -> Option<L::Position> {
        let base = log.base();
        let place = match self.at {
            JoinFrom::Start => {
                return base.is_none_or(|base| base.seq == 0).then(|| log.start());
            }
            JoinFrom::Seen(place) => place,
        };
        if agrees.is_some() && !self.safeguards.attach_before_read {
            return Some(log.end());
        }
        if (self.is_rewound || place.us.is_none()) && agrees != Some(true) {
            return None;
        }
        if self.is_rewound {
            return in_newest_branch(log, place);
        }
        // Of the event before the oldest kept only the number is known.
        let us = place.us.or_else(|| log.us_of(place.epoch, place.seq));
        let id = Place { us, ..place }.id();
        if let Some(found) = id.and_then(|id| log.after(id)) {
            return Some(found);
        }
        let base = base.filter(|base| base.epoch == place.epoch && base.seq == place.seq)?;
        let is_same = match (base.us, place.us) {
            (Some(us), Some(seen)) => us == seen,
            // Only its number is known there: another may have stood at it.
            (None, Some(_)) => agrees == Some(true),
            (_, None) => true,
        };
        is_same.then(|| log.start())
    }

    fn seat<L: LogIndex>(
        &mut self,
        position: L::Position,
        log: &L,
        out: &mut Vec<JoinOutput<L::Position>>,
    ) {
        self.tell(None, out);
        if log.loose_before(position) > self.loose_seen {
            // Plain events, or gaps, came and went while it read pages.
            out.push(JoinOutput::Gap {
                reason: GapReason::SlowClient,
                before: None,
                missed: log.loose_missed(self.loose_seen, position),
            });
        }
        out.push(JoinOutput::Seat(position));
    }

    /// Tells the gap that was told to be, once.
    fn tell<L>(&mut self, before: Option<DurableId>, out: &mut Vec<JoinOutput<L>>) {
        if let Some(Told { reason, missed }) = self.told.take() {
            out.push(JoinOutput::Gap {
                reason,
                before,
                missed,
            });
        }
    }

    /// Tells a gap that the store showed; one told anyway stands for it.
    fn gap<L>(
        &mut self,
        reason: GapReason,
        before: Option<DurableId>,
        missed: Option<u64>,
        out: &mut Vec<JoinOutput<L>>,
    ) {
        self.begins_after = None;
        if let Some(told) = &mut self.told {
            told.missed = None;
            return self.tell(before, out);
        }
        out.push(JoinOutput::Gap {
            reason,
            before,
            missed,
        });
    }

    fn read<L>(&self, out: &mut Vec<JoinOutput<L>>) {
        let seq = match self.at {
            JoinFrom::Start => 0,
            JoinFrom::Seen(place) => place.seq,
        };
        out.push(JoinOutput::Read(PageFrom::After(seq)));
    }

    /// The store cannot be read for now, and the client is not to wait for it:
    /// it is told what it may miss, and goes on in the log.
    pub fn give_up<L: LogIndex>(&mut self, log: &L, out: &mut Vec<JoinOutput<L::Position>>) {
        self.gap(GapReason::Disconnected, None, None, out);
        self.loose_seen = self.loose_seen.max(log.loose_before(log.start()));
        self.at = log.base().map_or(JoinFrom::Start, JoinFrom::Seen);
        self.seat(log.start(), log, out);
    }

    // ---- pages -------------------------------------------------------------

    fn forward<P: PageIds, L: LogIndex>(
        &mut self,
        page: &P,
        log: &L,
        out: &mut Vec<JoinOutput<L::Position>>,
    ) {
        let Some(last) = page.last() else {
            return self.no_history(log, out);
        };
        let at = match self.at {
            JoinFrom::Seen(place) => place,
            JoinFrom::Start => self.start_of(page, last, log),
        };
        if at.epoch < last.epoch {
            self.at = JoinFrom::Seen(page.first().map_or(last.into(), Place::before));
            self.gap(GapReason::Expired, page.first(), None, out);
            return self.go_on(log, out);
        }
        // A place it came with may be known by number alone.
        let is_back = self.at != self.from && is_back(at, page);
        if at.epoch > last.epoch || is_back || is_rewound(at, page, last) {
            let seq = match at.epoch == last.epoch {
                true => at.seq.min(last.seq),
                false => last.seq,
            };
            self.state = State::Back(at.us.unwrap_or(u64::MAX));
            return out.push(JoinOutput::Read(PageFrom::Before(seq + 1)));
        }
        self.send(at, page, last, log, out);
    }

    /// Where a new client starts: what is gone already was never there for it.
    fn start_of<P: PageIds>(&mut self, page: &P, last: DurableId, log: &impl LogIndex) -> Place {
        let oldest = page.first().map_or(last.into(), Place::before);
        // The log may still hold what the store has trimmed.
        let base = log.base();
        let start = base
            .filter(|base| base.epoch == oldest.epoch && base.seq < oldest.seq)
            .unwrap_or(oldest);
        self.at = JoinFrom::Seen(start);
        start
    }

    /// The store knows nothing of the run: whatever the client has seen is of
    /// a time that is gone.
    fn no_history<L: LogIndex>(&mut self, log: &L, out: &mut Vec<JoinOutput<L::Position>>) {
        if let (JoinFrom::Seen(place), base) = (self.at, log.base()) {
            if base.is_some_and(|base| (base.epoch, base.seq) <= (place.epoch, place.seq)) {
                // The log is of that time too, and may be behind the client.
                return out.push(JoinOutput::Wait);
            }
            self.gap(GapReason::Expired, None, None, out);
        }
        self.seat(log.start(), log, out);
    }

    /// Sends what of the page lies before the log.
    fn send<P: PageIds, L: LogIndex>(
        &mut self,
        at: Place,
        page: &P,
        last: DurableId,
        log: &L,
        out: &mut Vec<JoinOutput<L::Position>>,
    ) {
        let through = match log.base() {
            Some(base) if base.epoch == at.epoch => base.seq,
            // A log of another epoch, or without one: it has to catch up.
            _ => at.seq,
        };
        // What the store holds next tells a log of this history from a stale one.
        let through = if self.is_rewound { u64::MAX } else { through };
        let mut at = at;
        if page.is_empty() && at.seq < last.seq {
            // The stream is gone, its end is known.
            self.gap(self.trim_reason, None, Some(last.seq - at.seq), out);
            self.at = JoinFrom::Seen(last.into());
            return self.settle(None, log, out);
        }
        let end = (0..page.len())
            .find(|index| page.id(*index).seq > through)
            .unwrap_or(page.len());
        if end == 0 && at.seq < through && !page.is_empty() {
            // All before the log's base is gone.
            self.gap(self.trim_reason, None, Some(through - at.seq), out);
            at = Place {
                epoch: at.epoch,
                seq: through,
                us: None,
            };
        }
        let is_shown = page.anchor().is_some() || page.is_empty() || at.us.is_none();
        if end == 0 && at.seq == through && !is_shown {
            // Only its number is known to the log, and not even that is kept:
            // another event may have stood there.
            let next = page.id(0);
            let before = (next.seq == at.seq + 1).then_some(next);
            self.gap(self.trim_reason, before, None, out);
            at.us = None;
        }
        let mut from = 0;
        for index in 0..end {
            let id = page.id(index);
            if id.seq != at.seq + 1 {
                push_range(from..index, out);
                from = index;
                self.gap(self.trim_reason, Some(id), Some(id.seq - at.seq - 1), out);
            } else if index == 0 && is_unproven(at, page) {
                self.gap(self.trim_reason, Some(id), None, out);
            }
            self.tell(Some(id), out);
            at = id.into();
        }
        push_range(from..end, out);
        self.at = JoinFrom::Seen(at);
        if end == 0 {
            self.settle((!page.is_empty()).then(|| page.id(0)), log, out);
        } else {
            self.is_rewound = false;
        }
    }

    /// Nothing is left to send for now: on in the log, or wait for it. `next`:
    /// what the store holds next.
    fn settle<L: LogIndex>(
        &mut self,
        next: Option<DurableId>,
        log: &L,
        out: &mut Vec<JoinOutput<L::Position>>,
    ) {
        let goes_on = |place: Place| log.us_of(place.epoch, place.seq + 1).is_some();
        let agrees = match next {
            Some(next) => log.us_of(next.epoch, next.seq) == Some(next.us),
            None => !self.place().is_some_and(goes_on),
        };
        if let Some(place) = self.place()
            && agrees
            && next.is_some()
            && is_other_in(log, place)
        {
            // The event it has seen is not of this history, and trimmed.
            self.gap(GapReason::Rewound, None, None, out);
            self.at = JoinFrom::Seen(Place { us: None, ..place });
        }
        match self.place_in(log, Some(agrees)) {
            Some(position) => self.seat(position, log, out),
            None if self.lies_before(log) => self.read(out),
            None => out.push(JoinOutput::Wait),
        }
    }

    /// Whether there is something between the client and the log's base.
    fn lies_before(&self, log: &impl LogIndex) -> bool {
        match (self.at, log.base()) {
            (JoinFrom::Seen(place), Some(base)) => {
                place.epoch == base.epoch && place.seq < base.seq
            }
            _ => false,
        }
    }

    fn go_on<L: LogIndex>(&mut self, log: &L, out: &mut Vec<JoinOutput<L::Position>>) {
        match self.place_in(log, None) {
            Some(position) => self.seat(position, log, out),
            None => self.read(out),
        }
    }

    /// Looks for the newest event no younger than what the client has seen.
    fn back<P: PageIds, L: LogIndex>(
        &mut self,
        page: &P,
        us: u64,
        log: &L,
        out: &mut Vec<JoinOutput<L::Position>>,
    ) {
        let Some(last) = page.last() else {
            self.state = State::Forward;
            return self.no_history(log, out);
        };
        let seen = (0..page.len()).rev().find(|index| page.id(*index).us <= us);
        if seen.is_none() && page.more() && !page.is_empty() {
            return out.push(JoinOutput::Read(PageFrom::Before(page.id(0).seq)));
        }
        let (at, before) = match seen {
            Some(index) => {
                let next = (index + 1 < page.len()).then(|| page.id(index + 1));
                (page.id(index).into(), next)
            }
            None if page.is_empty() => (last.into(), None),
            None => (Place::before(page.id(0)), Some(page.id(0))),
        };
        self.state = State::Forward;
        self.is_rewound = true;
        self.at = JoinFrom::Seen(at);
        self.gap(GapReason::Rewound, before, None, out);
        self.begins_after = at.id();
        self.go_on(log, out);
    }
}

/// How many frames without a durable id are not missing to who joins: all up
/// to its place, or, for one that has seen nothing, all that there are.
fn loose_seen(from: JoinFrom, log: &impl LogIndex) -> u64 {
    let position = match from {
        JoinFrom::Start => Some(log.end()),
        JoinFrom::Seen(place) => place.id().and_then(|id| log.after(id)),
    };
    position.map_or(log.loose_dropped(), |position| log.loose_before(position))
}

/// This place in the log's newest branch: an older one may hold its event too.
fn in_newest_branch<L: LogIndex>(log: &L, place: Place) -> Option<L::Position> {
    let is_base = |base: Place| {
        let is_other = base.us.zip(place.us).is_some_and(|(base, us)| base != us);
        (base.epoch, base.seq) == (place.epoch, place.seq) && !is_other
    };
    if log.base().is_some_and(is_base) {
        return Some(log.start());
    }
    let us = log.us_of(place.epoch, place.seq)?;
    log.after(place.id().filter(|id| id.us == us)?)
}

/// Whether the log's newest branch has another event at this place.
fn is_other_in(log: &impl LogIndex, place: Place) -> bool {
    let base = log
        .base()
        .filter(|base| (base.epoch, base.seq) == (place.epoch, place.seq));
    let us = log.us_of(place.epoch, place.seq);
    let us = us.or(base.and_then(|base| base.us));
    us.zip(place.us).is_some_and(|(us, seen)| us != seen)
}

fn push_range<L>(range: Range<usize>, out: &mut Vec<JoinOutput<L>>) {
    if !range.is_empty() {
        out.push(JoinOutput::Send(range));
    }
}
