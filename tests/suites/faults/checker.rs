//! [`check`]: holds what one client saw of a run against what was published
//! and what Redis accepted. Pure, so that it can be shown to fail.

use std::collections::HashSet;

use super::history::{Entry, History};
use super::id::{Durable, Id};
use super::ledger::{Kinds, Ledger, Outcome, Way};
use super::seen::{From, Gap, Seen, Tally, Violation};

/// All there is to know of a run when a trial is over.
pub(crate) struct Truth<'a> {
    pub(crate) ledger: &'a Ledger,
    pub(crate) history: &'a History,
    /// Nothing was lost in Redis: a durable run has no gaps at all.
    pub(crate) is_lossless: bool,
    /// The broker saw every plain event: each count must be right.
    pub(crate) is_local: bool,
    /// Redis went back to an older state, which may hold what was trimmed or
    /// deleted when a client began: what is kept now says nothing of then.
    pub(crate) was_revived: bool,
    /// The run has plain events.
    pub(crate) has_plain: bool,
    /// The run has durable events.
    pub(crate) has_durable: bool,
}

/// Checks what one client that follows `kinds` saw of a run.
///
/// - Each id and each event comes once.
/// - Between one durable event and the next one this client was sent, every
///   event on the history of the second that its filter lets pass lies in the
///   range of a gap told between the two. Ids have no holes, so this needs no
///   word of the publishers.
/// - A turn to another history or epoch is told.
/// - A stated count is what lies between the bounds, and none of it was sent.
/// - Plain events come in the order published, and a gap stands where some
///   are missing. Their ids hold for one hub: who comes to another one is told
///   a gap, and may be sent all of them again.
pub(crate) fn check(truth: &Truth<'_>, kinds: Kinds, seen: &[Seen]) -> Result<Tally, Box<Failure>> {
    let mut walk = Walk {
        truth,
        kinds,
        place: Place::Fresh(From::Start),
        is_new: true,
        gaps: Vec::new(),
        sent: HashSet::new(),
        numbers: HashSet::new(),
        plain_numbers: HashSet::new(),
        plain: PlainWalk::default(),
        tally: Tally::default(),
    };
    for (at, one) in seen.iter().enumerate() {
        if let Err(violation) = walk.step(one) {
            return Err(Box::new(Failure { at, violation }));
        }
    }
    Ok(walk.tally)
}

/// The first thing that is wrong.
#[derive(Debug, PartialEq)]
pub(crate) struct Failure {
    /// Its place in what the client saw.
    pub(crate) at: usize,
    pub(crate) violation: Violation,
}

/// The last durable event up to which a client was told all.
#[derive(Debug, Clone, Copy)]
enum Place {
    Fresh(From),
    At(Durable),
}

struct Walk<'a> {
    truth: &'a Truth<'a>,
    kinds: Kinds,
    place: Place,
    /// It has had no durable event since it began without a cursor.
    is_new: bool,
    /// Told since `place`, on this stream.
    gaps: Vec<Gap>,
    sent: HashSet<Durable>,
    numbers: HashSet<usize>,
    /// Those of the hub that numbered the last plain event.
    plain_numbers: HashSet<usize>,
    plain: PlainWalk,
    tally: Tally,
}

#[derive(Default)]
struct PlainWalk {
    /// The first plain event that is due and has not come.
    next: usize,
    /// Counts of the gaps since the last plain event.
    told: Vec<Option<u64>>,
    /// The hub that numbered the last one.
    hub: Option<u64>,
    /// Had none of this hub: those published before may come or not.
    is_fresh: bool,
    /// Came back with a durable id since the last one.
    is_excused: bool,
}

impl Walk<'_> {
    fn step(&mut self, seen: &Seen) -> Result<(), Violation> {
        match seen {
            Seen::Joined {
                cursor,
                from,
                due_from,
            } => self.joined(*cursor, *from, *due_from),
            Seen::Position(id) => {
                if let (Place::Fresh(From::Now | From::Newest), Some(id)) =
                    (self.place, id.durable())
                {
                    self.place = Place::At(id);
                }
                Ok(())
            }
            Seen::Event { n, id } => self.event(*n, *id),
            Seen::Gap(gap) => self.gap(gap),
            Seen::End { last, events } => self.end(*last, *events),
            Seen::Silent => Err(Violation::SilentStream),
        }
    }

    fn joined(&mut self, cursor: Option<Id>, from: From, due_from: usize) -> Result<(), Violation> {
        self.tally.streams += 1;
        let Some(id) = cursor else {
            self.place = Place::Fresh(from);
            self.is_new = true;
            self.gaps.clear();
            self.plain = PlainWalk {
                next: due_from,
                is_fresh: true,
                ..PlainWalk::default()
            };
            return Ok(());
        };
        // `cursor` frames may have moved it on; what they went past must have
        // been hidden, or told before the stream broke.
        let moved = id.durable().filter(|id| !self.lies_behind(*id));
        if let Some(moved) = moved {
            self.settle(moved, true)?;
            self.place = Place::At(moved);
        } else {
            // Who comes back to the place before a gap must be told again.
            self.plain.told.clear();
        }
        self.gaps.clear();
        self.plain.is_excused |= matches!(id, Id::Durable(_));
        Ok(())
    }

    /// Whether a durable id lies at or before the place, on the same history.
    fn lies_behind(&self, id: Durable) -> bool {
        match self.place {
            Place::Fresh(_) => false,
            Place::At(place) => id == place || self.truth.history.fork(place, id) == Some(id),
        }
    }

    fn gap(&mut self, gap: &Gap) -> Result<(), Violation> {
        *self.tally.gaps.entry(gap.reason.clone()).or_default() += 1;
        let is_due = gap.reason == "producer" || self.truth.has_plain;
        if self.truth.is_lossless && !is_due {
            return Err(Violation::NeedlessGap(Box::new(gap.clone())));
        }
        self.gaps.push(gap.clone());
        self.plain.told.push(gap.missed);
        if gap.reason == "restarted" {
            // It stands at a durable event again: of the plain ones after that
            // the next broker sends what it has, as a hub with other ids does,
            // and one that it had them from, under the same.
            self.plain.hub = None;
        }
        Ok(())
    }

    fn event(&mut self, n: usize, id: Id) -> Result<(), Violation> {
        self.tally.deliveries += 1;
        let Some(published) = self.truth.ledger.events.get(n).copied() else {
            return Err(Violation::NeverAccepted(n));
        };
        // A producer that Redis forgot sends again what it was sure of.
        let may_come_again =
            matches!(published.way, Way::Function { .. }) && !self.truth.is_lossless;
        if let Id::Plain { hub, .. } = id
            && self.plain.hub != Some(hub)
        {
            self.plain.hub = Some(hub);
            self.plain.is_fresh = true;
            self.plain_numbers.clear();
        }
        let is_twin = match id {
            Id::Durable(durable) => {
                let is_known = !self.numbers.insert(n);
                !self.sent.insert(durable) || (is_known && !may_come_again)
            }
            Id::Plain { .. } => !self.plain_numbers.insert(n),
        };
        if is_twin {
            return Err(Violation::Duplicate { n, id });
        }
        if published.outcome == Outcome::Refused {
            return Err(Violation::NeverAccepted(n));
        }
        match (id, published.way) {
            (Id::Durable(id), Way::Post | Way::Function { .. }) => {
                self.durable(n, id, published.outcome, may_come_again)?;
            }
            (Id::Plain { durable, .. }, Way::Plain) => {
                self.plain_event(n, published.outcome)?;
                if let Some(durable) = durable.filter(|id| !self.lies_behind(*id)) {
                    self.settle(durable, true)?;
                    self.place = Place::At(durable);
                    self.gaps.clear();
                }
            }
            _ => return Err(Violation::WrongId { n, id }),
        }
        Ok(())
    }

    fn durable(
        &mut self,
        n: usize,
        id: Durable,
        outcome: Outcome,
        may_come_again: bool,
    ) -> Result<(), Violation> {
        if let Outcome::Accepted(Some(known)) = outcome
            && known != id
            && !may_come_again
        {
            let id = Id::Durable(id);
            return Err(Violation::WrongId { n, id });
        }
        self.settle(id, false)?;
        self.producer_gap(n, id)?;
        self.place = Place::At(id);
        self.is_new = false;
        self.gaps.clear();
        Ok(())
    }

    fn end(&mut self, last: Option<Id>, events: Option<u64>) -> Result<(), Violation> {
        let Some(durable) = last.and_then(Id::durable) else {
            return Ok(());
        };
        if !self.lies_behind(durable) {
            self.settle(durable, true)?;
        }
        match events {
            Some(events) if !self.truth.has_plain && events != durable.seq => {
                let accepted = durable.seq;
                Err(Violation::WrongEnd { events, accepted })
            }
            _ => Ok(()),
        }
    }

    /// Checks that whatever lies between the place and `to` is hidden by the
    /// filter or covered by a gap.
    fn settle(&mut self, to: Durable, inclusive: bool) -> Result<(), Violation> {
        let history = self.truth.history;
        let place = match self.place {
            Place::At(place) if place == to => return Ok(()),
            Place::At(place) => {
                if self.gaps.is_empty() && !inclusive && history.follows(place, to) {
                    return Ok(());
                }
                Some(place)
            }
            Place::Fresh(From::Start) if !self.truth.was_revived => None,
            Place::Fresh(_) => return Ok(()),
        };
        let fork = place.and_then(|place| history.fork(place, to));
        if let Some(place) = place
            && fork != Some(place)
            && self.gaps.is_empty()
        {
            let (from, to) = (Id::Durable(place), Id::Durable(to));
            return Err(Violation::UntoldTurn { from, to });
        }
        self.ranges(to)?;
        let floor = fork.map_or(0, |fork| fork.seq);
        let missing = self.missing(floor, to, inclusive, place.is_none());
        let silent: Vec<u64> = missing
            .iter()
            .copied()
            .filter(|seq| !self.gaps.iter().any(|gap| self.covers(gap, *seq, to)))
            .collect();
        if !silent.is_empty() {
            return Err(Violation::SilentLoss {
                missing: silent,
                before: Id::Durable(to),
            });
        }
        self.tally.told_missing += missing.len() as u64;
        Ok(())
    }

    /// Returns the sequences between `floor` and `to` that should have come.
    fn missing(&self, floor: u64, to: Durable, inclusive: bool, is_fresh: bool) -> Vec<u64> {
        let history = self.truth.history;
        let Some(node) = history.find(to) else {
            return Vec::new();
        };
        let mut missing = Vec::new();
        let mut above = to.seq + 1;
        for entry in history.branch(node) {
            let seq = entry.id.seq.max(floor);
            // Nobody knows of these, but the sequence has no holes.
            if !is_fresh && self.kinds == Kinds::ALL {
                missing.extend(seq + 1..above);
            }
            above = seq;
            if entry.id.seq <= floor {
                break;
            }
            let is_due = (inclusive || entry.id != to) && (!is_fresh || entry.is_kept);
            if is_due && self.is_visible(entry) && !self.sent.contains(&entry.id) {
                missing.push(entry.id.seq);
            }
        }
        if !is_fresh && self.kinds == Kinds::ALL && above > floor + 1 {
            missing.extend(floor + 1..above);
        }
        missing.sort_unstable();
        missing
    }

    fn is_visible(&self, entry: &Entry) -> bool {
        match entry.kind {
            Some(kind) => self.kinds.contains(kind),
            None => self.kinds == Kinds::ALL,
        }
    }

    /// Returns the bounds of a gap as sequences on the history of `to`.
    fn bounds(&self, gap: &Gap, to: Durable) -> (u64, u64) {
        let history = self.truth.history;
        let after = match gap.after.and_then(Id::durable) {
            Some(after) if after.epoch != to.epoch => 0,
            Some(after) if history.find(after).is_none() => after.seq,
            Some(after) => history.fork(after, to).map_or(0, |fork| fork.seq),
            None => 0,
        };
        let before = match gap.before {
            Some(Id::Durable(before)) if before.epoch == to.epoch => before.seq,
            Some(Id::Durable(before)) if before.epoch < to.epoch => 0,
            Some(Id::Plain {
                durable: Some(durable),
                ..
            }) if durable.epoch == to.epoch => durable.seq + 1,
            _ => u64::MAX,
        };
        (after, before)
    }

    fn covers(&self, gap: &Gap, seq: u64, to: Durable) -> bool {
        let (after, before) = self.bounds(gap, to);
        after < seq && seq < before
    }

    /// Checks ranges and counts of the gaps told on the way to `to`.
    fn ranges(&mut self, to: Durable) -> Result<(), Violation> {
        for (index, gap) in self.gaps.iter().enumerate() {
            let (Some(Id::Durable(after)), Some(Id::Durable(before))) = (gap.after, gap.before)
            else {
                continue;
            };
            if gap.reason == "producer" || after.epoch != before.epoch || before.epoch != to.epoch {
                continue;
            }
            let (low, high) = self.bounds(gap, to);
            let node = self.truth.history.find(to);
            let between = node
                .into_iter()
                .flat_map(|node| self.truth.history.branch(node))
                .map(|entry| entry.id);
            let mut between = between.filter(|id| low < id.seq && id.seq < high);
            if let Some(holds) = between.find(|id| self.sent.contains(id)) {
                return Err(Violation::WrongRange {
                    gap: Box::new(gap.clone()),
                    holds: Id::Durable(holds),
                });
            }
            let Some(missed) = self.stated(index) else {
                continue;
            };
            let missing = high.saturating_sub(low + 1);
            // Plain events in between are counted, too.
            let is_right = missed == missing || (self.truth.has_plain && missed > missing);
            // The place is on a history that Redis forgot, and of the one after
            // it all up to that number is trimmed: nothing shows the turn.
            let is_hidden = after.seq > low && missed + after.seq + 1 == before.seq;
            if !is_right && is_hidden {
                self.tally.hidden_turns += 1;
                continue;
            }
            if !is_right {
                let gap = Box::new(gap.clone());
                return Err(Violation::WrongCount { gap, missing });
            }
            self.tally.counts_checked += 1;
        }
        Ok(())
    }

    /// Returns the count of a gap, and of those told right before it from the
    /// same event on: together they are what lies before its bound.
    fn stated(&self, index: usize) -> Option<u64> {
        let after = self.gaps[index].after;
        let told = self.gaps[..=index].iter();
        told.filter(|gap| gap.after == after && gap.reason != "producer")
            .map(|gap| gap.missed)
            .sum()
    }

    /// Checks that events its producer numbered and Redis never took are told.
    fn producer_gap(&mut self, n: usize, id: Durable) -> Result<(), Violation> {
        let told: Vec<u64> = self
            .gaps
            .iter()
            .filter(|gap| gap.reason == "producer" && gap.before == Some(Id::Durable(id)))
            .map(|gap| gap.missed.unwrap_or(0))
            .collect();
        let Some(lost) = self.lost_by_producer(n, id) else {
            return Ok(());
        };
        let is_due = lost > 0 && self.kinds == Kinds::ALL && !self.is_new;
        let told = told.first().copied();
        if told.is_some_and(|told| told != lost) || (is_due && told.is_none()) {
            return Err(Violation::WrongProducerGap { n, lost, told });
        }
        self.tally.counts_checked += u64::from(told.is_some());
        Ok(())
    }

    /// Returns how many numbers its producer skipped before event `n`, `None`
    /// where nobody can know.
    fn lost_by_producer(&self, n: usize, id: Durable) -> Option<u64> {
        let history = self.truth.history;
        let number = |n: usize| match self.truth.ledger.events.get(n)?.way {
            Way::Function { number } => Some(number),
            _ => None,
        };
        let own = number(n)?;
        let mut above = id.seq + 1;
        for entry in history.branch(history.find(id)?) {
            if entry.id.seq + 1 != above {
                return None;
            }
            above = entry.id.seq;
            if entry.id != id
                && let Some(before) = number(entry.n?)
            {
                return own.checked_sub(before + 1);
            }
        }
        None
    }

    fn plain_event(&mut self, n: usize, outcome: Outcome) -> Result<(), Violation> {
        // Without an answer it stands at no certain place.
        if outcome == Outcome::Unsure {
            return Ok(());
        }
        let plain = std::mem::take(&mut self.plain);
        if n < plain.next && !plain.is_fresh {
            let due = plain.next;
            return Err(Violation::OutOfOrder { n, due });
        }
        let events = &self.truth.ledger.events;
        let missing: Vec<usize> = (plain.next.min(n)..n)
            .filter(|n| {
                let event = &events[*n];
                event.way == Way::Plain
                    && self.kinds.contains(event.kind)
                    && matches!(event.outcome, Outcome::Accepted(_))
            })
            .collect();
        self.plain.next = n + 1;
        self.plain.hub = plain.hub;
        if plain.told.is_empty() {
            if missing.is_empty() {
                return Ok(());
            }
            if plain.is_excused {
                self.tally.beyond_promise += missing.len() as u64;
                return Ok(());
            }
            return Err(Violation::PlainLoss { missing, before: n });
        }
        self.tally.told_missing += missing.len() as u64;
        self.plain_count(&plain, missing.len() as u64)
    }

    /// Compares the counts of a run that has plain events only with what is
    /// missing, where the broker had all of them and the client hides none.
    fn plain_count(&mut self, plain: &PlainWalk, missing: u64) -> Result<(), Violation> {
        let is_exact = self.truth.is_local
            && !self.truth.has_durable
            && self.kinds == Kinds::ALL
            && !plain.is_fresh
            && plain.told.iter().all(Option::is_some);
        let stated: u64 = plain.told.iter().flatten().sum();
        if is_exact && stated != missing {
            let gap = Box::new(Gap {
                reason: "plain".to_owned(),
                after: None,
                before: None,
                missed: Some(stated),
            });
            return Err(Violation::WrongCount { gap, missing });
        }
        self.tally.counts_checked += u64::from(is_exact);
        Ok(())
    }
}

#[cfg(test)]
#[path = "checker_tests.rs"]
mod tests;
