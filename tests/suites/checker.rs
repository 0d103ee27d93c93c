//! [`check`]: holds what one client saw of a run against what was published.
//! Pure, so that it can be shown to fail.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

/// How an event was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Plain,
    Durable,
}

/// What its publisher knows of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Not answered: it may come, once, at any place.
    Unsure,
    /// Redis or the broker took it; the id if it has one already.
    Accepted(Option<String>),
    /// The broker refused it: it must not come.
    Refused,
}

/// One event of a run, at its number in [`Book::events`].
#[derive(Debug, Clone)]
pub(crate) struct Published {
    pub(crate) way: Way,
    pub(crate) kind: &'static str,
    pub(crate) outcome: Outcome,
}

/// Everything published in a run, in order.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) events: Vec<Published>,
    /// Events may have been lost before the broker had them, so that it cannot
    /// count them all.
    pub(crate) had_outage: bool,
}

/// One thing a client saw, in order.
#[derive(Debug, Clone)]
pub(crate) enum Seen {
    /// A stream began. What is published from number `due_from` on is due to a
    /// client without a cursor; `life` counts starts of the broker.
    Joined {
        cursor: Option<String>,
        due_from: usize,
        life: u32,
    },
    /// Event number `n` came with this id.
    Event { n: usize, id: String },
    /// A gap was told.
    Gap { reason: String, missed: Option<u64> },
    /// Nothing at all came for far longer than a heartbeat.
    Silent,
}

/// What is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Violation {
    /// Missing, and no gap at that place.
    SilentLoss(Vec<usize>),
    Duplicate(usize),
    OutOfOrder {
        n: usize,
        due: usize,
    },
    NeverAccepted(usize),
    WrongId {
        n: usize,
        id: String,
    },
    /// A stated count that is not what is missing.
    WrongCount {
        before: usize,
        stated: u64,
        missing: u64,
        unsure: u64,
    },
    SilentStream,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SilentLoss(numbers) => write!(
                f,
                "{} events lost in silence, from {:?} to {:?}",
                numbers.len(),
                numbers.first(),
                numbers.last()
            ),
            other => write!(f, "{other:?}"),
        }
    }
}

/// What clients saw, added up.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    pub(crate) deliveries: u64,
    pub(crate) streams: u64,
    pub(crate) gaps: BTreeMap<String, u64>,
    /// Missing, and told.
    pub(crate) told_missing: u64,
    /// Holes whose stated count was compared to the letter.
    pub(crate) counts_checked: u64,
    /// Plain events lost while the broker was away, before a client that came
    /// back with the id of a durable one: that id holds nothing of them.
    pub(crate) beyond_promise: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.deliveries += other.deliveries;
        self.streams += other.streams;
        self.told_missing += other.told_missing;
        self.counts_checked += other.counts_checked;
        self.beyond_promise += other.beyond_promise;
        for (reason, count) in &other.gaps {
            *self.gaps.entry(reason.clone()).or_default() += count;
        }
    }

    pub(crate) fn gap_count(&self) -> u64 {
        self.gaps.values().sum()
    }
}

/// Checks what one client that follows `kinds` saw of a run.
///
/// Accepted events come in the order published, each once; whatever is missing
/// between two of them is told by a gap between the two; a count, if every gap
/// there has one, is right. Ids are never given twice.
pub(crate) fn check(book: &Book, kinds: &[&str], seen: &[Seen]) -> Result<Tally, Violation> {
    let mut walk = Walk {
        book,
        kinds,
        next: 0,
        is_told: false,
        counts: Vec::new(),
        uncounted: 0,
        last_id: None,
        is_fresh: true,
        life: None,
        came_back: false,
        ids: HashSet::new(),
        numbers: HashSet::new(),
        tally: Tally::default(),
    };
    for one in seen {
        walk.step(one)?;
    }
    Ok(walk.tally)
}

struct Walk<'a> {
    book: &'a Book,
    kinds: &'a [&'a str],
    /// The first event that is due and has not come.
    next: usize,
    /// A gap was told since the last accepted event.
    is_told: bool,
    /// Counts stated since then on one stream.
    counts: Vec<Option<u64>>,
    /// Missing, told, and not yet counted. In a run that mixes both, a plain
    /// event may come before the next durable one shows how many are missing.
    uncounted: u64,
    last_id: Option<String>,
    /// Has had nothing since it began without a cursor: events published
    /// before may come or not.
    is_fresh: bool,
    life: Option<u32>,
    /// Came back with a durable id to a broker started anew since then.
    came_back: bool,
    ids: HashSet<String>,
    numbers: HashSet<usize>,
    tally: Tally,
}

impl Walk<'_> {
    fn step(&mut self, seen: &Seen) -> Result<(), Violation> {
        match seen {
            Seen::Joined {
                cursor,
                due_from,
                life,
            } => {
                self.joined(cursor.as_deref(), *due_from, *life);
                Ok(())
            }
            Seen::Event { n, id } => self.event(*n, id),
            Seen::Gap { reason, missed } => {
                *self.tally.gaps.entry(reason.clone()).or_default() += 1;
                self.is_told = true;
                self.counts.push(*missed);
                Ok(())
            }
            Seen::Silent => Err(Violation::SilentStream),
        }
    }

    fn joined(&mut self, cursor: Option<&str>, due_from: usize, life: u32) {
        self.tally.streams += 1;
        let restarted = self.life.replace(life).is_some_and(|before| before != life);
        // Who comes back to the place before a gap must be told again; a gap may
        // also have moved the cursor behind itself.
        self.is_told &= cursor != self.last_id.as_deref();
        self.counts.clear();
        match cursor {
            None => (self.next, self.is_fresh) = (due_from, true),
            Some(cursor) => self.came_back |= restarted && !cursor.starts_with('~'),
        }
    }

    fn event(&mut self, n: usize, id: &str) -> Result<(), Violation> {
        self.tally.deliveries += 1;
        let Some(published) = self.book.events.get(n) else {
            return Err(Violation::NeverAccepted(n));
        };
        if !self.ids.insert(id.to_owned()) || !self.numbers.insert(n) {
            return Err(Violation::Duplicate(n));
        }
        self.last_id = Some(id.to_owned());
        match &published.outcome {
            Outcome::Refused => return Err(Violation::NeverAccepted(n)),
            // It stands at no certain place.
            Outcome::Unsure => return Ok(()),
            Outcome::Accepted(Some(known)) if known != id => {
                let id = id.to_owned();
                return Err(Violation::WrongId { n, id });
            }
            Outcome::Accepted(_) => {}
        }
        if n < self.next && !self.is_fresh {
            let due = self.next;
            return Err(Violation::OutOfOrder { n, due });
        }
        self.hole(self.next.min(n)..n)?;
        (self.next, self.is_fresh) = (n + 1, false);
        self.is_told = false;
        self.counts.clear();
        self.came_back = false;
        Ok(())
    }

    /// Checks what did not come before an event that did.
    fn hole(&mut self, range: std::ops::Range<usize>) -> Result<(), Violation> {
        let events = &self.book.events;
        let missing = |n: &usize| matches!(events[*n].outcome, Outcome::Accepted(_));
        let due: Vec<usize> = range
            .clone()
            .filter(|n| missing(n) && self.kinds.contains(&events[*n].kind))
            .collect();
        if !self.is_told {
            if due.is_empty() {
                return Ok(());
            }
            if self.came_back && due.iter().all(|n| events[*n].way == Way::Plain) {
                self.tally.beyond_promise += due.len() as u64;
                return Ok(());
            }
            return Err(Violation::SilentLoss(due));
        }
        self.tally.told_missing += due.len() as u64;
        // Redis may have taken them long after they were sent.
        let unsure = (0..range.end)
            .filter(|n| events[*n].outcome == Outcome::Unsure && !self.numbers.contains(n));
        self.count(range.end, due.len() as u64, unsure.count() as u64)
    }

    /// Compares stated counts with what is missing. Hidden events have no
    /// certain place, so this needs a client that hides none.
    fn count(&mut self, before: usize, missing: u64, unsure: u64) -> Result<(), Violation> {
        if !["output", "status", "log"]
            .iter()
            .all(|kind| self.kinds.contains(kind))
        {
            return Ok(());
        }
        let stated: u64 = self.counts.iter().flatten().sum();
        let all_stated = self.counts.iter().all(Option::is_some);
        let exact = all_stated && !self.counts.is_empty() && !self.book.had_outage;
        self.tally.counts_checked += u64::from(exact);
        let most = missing + unsure + self.uncounted;
        if stated > most || (exact && stated < missing) {
            return Err(Violation::WrongCount {
                before,
                stated,
                missing,
                unsure,
            });
        }
        if !all_stated {
            self.uncounted += missing;
        }
        self.uncounted = self.uncounted.saturating_sub(stated);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    //! The checker must be able to fail: a sound stream passes, and each way
    //! of spoiling it is found.

    use super::*;

    const ALL: [&str; 3] = ["output", "status", "log"];

    fn book(count: usize) -> Book {
        let event = |n: usize| Published {
            way: Way::Plain,
            kind: ALL[n % 3],
            outcome: Outcome::Accepted(None),
        };
        Book {
            events: (0..count).map(event).collect(),
            had_outage: false,
        }
    }

    fn event(n: usize) -> Seen {
        let id = format!("~hub-{n}");
        Seen::Event { n, id }
    }

    fn sound(count: usize) -> Vec<Seen> {
        let joined = Seen::Joined {
            cursor: None,
            due_from: 0,
            life: 0,
        };
        std::iter::once(joined)
            .chain((0..count).map(event))
            .collect()
    }

    fn gap(missed: Option<u64>) -> Seen {
        let reason = "slow_client".to_owned();
        Seen::Gap { reason, missed }
    }

    #[test]
    fn a_sound_stream_passes() {
        let tally = check(&book(9), &ALL, &sound(9)).expect("sound");
        assert_eq!((tally.deliveries, tally.gap_count()), (9, 0));
    }

    #[test]
    fn every_event_removed_is_found() {
        for n in 0..8 {
            let mut seen = sound(9);
            seen.remove(n + 1);
            let found = check(&book(9), &ALL, &seen).err();
            assert_eq!(found, Some(Violation::SilentLoss(vec![n])));
        }
    }

    #[test]
    fn every_event_doubled_or_moved_is_found() {
        for n in 0..8 {
            let mut seen = sound(9);
            seen.push(event(n));
            let found = check(&book(9), &ALL, &seen).err();
            assert_eq!(found, Some(Violation::Duplicate(n)));
            let mut seen = sound(9);
            seen.swap(n + 1, n + 2);
            assert!(check(&book(9), &ALL, &seen).is_err(), "{n} after {}", n + 1);
        }
    }

    #[test]
    fn a_gap_excuses_its_own_place_only() {
        let mut seen = sound(9);
        seen[4] = gap(Some(1));
        let tally = check(&book(9), &ALL, &seen).expect("told");
        assert_eq!((tally.told_missing, tally.counts_checked), (1, 1));
        seen.swap(4, 5);
        let found = check(&book(9), &ALL, &seen).err();
        assert_eq!(found, Some(Violation::SilentLoss(vec![3])));
    }

    #[test]
    fn a_wrong_count_is_found() {
        for stated in [0, 1, 3] {
            let mut seen = sound(9);
            seen[4] = gap(Some(stated));
            seen.remove(5);
            let found = check(&book(9), &ALL, &seen).err();
            assert!(
                matches!(found, Some(Violation::WrongCount { .. })),
                "{stated}"
            );
        }
    }

    #[test]
    fn who_comes_back_before_a_gap_must_be_told_again() {
        let back = Seen::Joined {
            cursor: Some("~hub-2".to_owned()),
            due_from: 9,
            life: 0,
        };
        let mut seen = sound(9);
        seen[4] = gap(Some(1));
        seen.insert(5, back);
        let found = check(&book(9), &ALL, &seen).err();
        assert_eq!(found, Some(Violation::SilentLoss(vec![3])));
        seen.insert(6, gap(Some(1)));
        assert!(check(&book(9), &ALL, &seen).is_ok());
    }

    #[test]
    fn what_an_outage_hid_may_be_counted_later_but_once() {
        let mut outage = book(9);
        outage.had_outage = true;
        let mut seen = sound(9);
        seen.splice(3..5, [gap(None)]);
        seen.insert(5, gap(Some(2)));
        assert!(check(&outage, &ALL, &seen).is_ok());
        seen.insert(7, gap(Some(1)));
        let found = check(&outage, &ALL, &seen).err();
        assert!(matches!(found, Some(Violation::WrongCount { .. })));
    }

    #[test]
    fn a_filter_hides_only_its_own() {
        let is_output = |seen: &Seen| !matches!(seen, Seen::Event { n, .. } if n % 3 != 0);
        let mut seen = sound(9);
        seen.retain(is_output);
        assert!(check(&book(9), &["output"], &seen).is_ok());
        seen.remove(2);
        let found = check(&book(9), &["output"], &seen).err();
        assert_eq!(found, Some(Violation::SilentLoss(vec![3])));
    }

    #[test]
    fn what_was_refused_or_has_another_id_is_found() {
        let mut refused = book(9);
        refused.events[4].outcome = Outcome::Refused;
        let found = check(&refused, &ALL, &sound(9)).err();
        assert_eq!(found, Some(Violation::NeverAccepted(4)));
        let mut renamed = book(9);
        renamed.events[4].outcome = Outcome::Accepted(Some("1-5-7".to_owned()));
        let found = check(&renamed, &ALL, &sound(9)).err();
        assert!(matches!(found, Some(Violation::WrongId { n: 4, .. })));
    }

    #[test]
    fn an_event_without_an_answer_may_come_late_but_once() {
        let mut unsure = book(9);
        unsure.events[4].outcome = Outcome::Unsure;
        let mut seen = sound(9);
        let late = seen.remove(5);
        assert!(check(&unsure, &ALL, &seen).is_ok());
        seen.push(late.clone());
        assert!(check(&unsure, &ALL, &seen).is_ok());
        seen.push(late);
        let found = check(&unsure, &ALL, &seen).err();
        assert_eq!(found, Some(Violation::Duplicate(4)));
    }
}
