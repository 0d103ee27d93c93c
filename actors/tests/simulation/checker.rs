//! What must hold for every client, whatever happened.

use runcast_actors::order::LogIndex;
use runcast_actors::protocol::{DurableId, GapReason, Place};

use crate::client::{Client, Seen};
use crate::driver::{Faults, World};
use crate::log::Gap;
use crate::store::{APPENDS_MAX, Append, number_of};

/// Checks that all have come to the end of the history.
pub(crate) fn check_rest(world: &World) -> Result<(), String> {
    let last = world.store.last();
    for (index, hub) in world.hubs.iter().enumerate() {
        if hub.worker.is_none() {
            continue;
        }
        let is_there = match (hub.place(), last) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(Place { epoch, seq, us }), Some(last)) => {
                (epoch, seq) == (last.epoch, last.seq) && us.is_none_or(|us| us == last.us)
            }
        };
        if !is_there || hub.is_busy() {
            return Err(format!(
                "hub {index} rests at {:?}, not {last:?}",
                hub.place()
            ));
        }
    }
    for (index, client) in world.clients.iter().enumerate() {
        let log = Client::log_of(&world.hubs[client.hub]);
        // Without a run in the store a hub cannot know that a client is ahead.
        if last.is_some() && !client.is_at_end(log) {
            let end = log.map(LogIndex::end);
            return Err(format!(
                "client {index} rests {}, log end {end:?}",
                client.state()
            ));
        }
    }
    Ok(())
}

/// Checks what every client was sent.
pub(crate) fn check(world: &World) -> Result<(), String> {
    for (index, client) in world.clients.iter().enumerate() {
        let mut check = ClientCheck {
            appends: &world.store.appends,
            faults: world.faults,
            seen: [0; APPENDS_MAX / 64],
            previous: None,
            previous_real: None,
            gaps: Gaps::default(),
            is_told: false,
            plain: 0,
            is_plain_told: false,
        };
        for (at, seen) in client.seen.iter().enumerate() {
            check
                .take(*seen)
                .map_err(|problem| format!("client {index}, frame {at}, {seen:?}: {problem}"))?;
        }
        check
            .end(world.store.last(), world.hubs[client.hub].plain())
            .map_err(|problem| format!("client {index}, at the end: {problem}"))?;
    }
    Ok(())
}

/// The gaps told on this connection since the last event.
#[derive(Debug, Default, Clone, Copy)]
struct Gaps {
    count: u32,
    /// How many events they say are missing in all; `None`: not all say it.
    missed: Option<u64>,
    last: Option<Gap>,
}

struct ClientCheck<'a> {
    appends: &'a [Append],
    faults: Faults,
    seen: [u64; APPENDS_MAX / 64],
    /// The last event.
    previous: Option<DurableId>,
    /// The last one that no failover forgot.
    previous_real: Option<DurableId>,
    gaps: Gaps,
    /// A gap was told since that one.
    is_told: bool,
    /// The last plain event that it has, or need not have.
    plain: u64,
    /// A gap was told since that one.
    is_plain_told: bool,
}

impl ClientCheck<'_> {
    fn take(&mut self, seen: Seen) -> Result<(), String> {
        match seen {
            Seen::Connected(_) => {
                self.gaps = Gaps::default();
                self.is_told = false;
                self.is_plain_told = false;
            }
            Seen::Joins(plain) => self.plain = plain,
            Seen::Plain(number) => self.plain(number)?,
            Seen::Gap(gap) => self.gap(gap)?,
            Seen::Event(id) => self.event(id)?,
        }
        Ok(())
    }

    fn gap(&mut self, gap: Gap) -> Result<(), String> {
        let faults = self.faults;
        let is_possible = match gap.reason {
            GapReason::Trimmed => faults.trims || faults.epochs,
            GapReason::SlowClient => faults.trims || faults.epochs || faults.plain,
            GapReason::Expired => faults.epochs || faults.rewinds || faults.restores,
            GapReason::Rewound => faults.rewinds || faults.restores || faults.forged,
            _ => false,
        };
        // A gap that nobody can see any more is told as one without a count.
        let is_possible = is_possible || gap.missed.is_none() || faults.forged;
        if faults.lose_nothing() || !is_possible {
            return Err("a gap, but nothing was lost".to_owned());
        }
        let before = match self.gaps.count {
            0 => Some(0),
            _ => self.gaps.missed,
        };
        self.gaps = Gaps {
            count: self.gaps.count + 1,
            missed: before
                .zip(gap.missed)
                .map(|(before, missed)| before + missed),
            last: Some(gap),
        };
        self.is_told = true;
        self.is_plain_told = true;
        Ok(())
    }

    fn plain(&mut self, number: u64) -> Result<(), String> {
        if number > self.plain + 1 && !self.is_plain_told {
            return Err(format!("not told of what is missing after {}", self.plain));
        }
        self.plain = self.plain.max(number);
        self.is_plain_told = false;
        Ok(())
    }

    fn event(&mut self, id: DurableId) -> Result<(), String> {
        let number = number_of(id);
        let (word, bit) = (number / 64, 1 << (number % 64));
        if self.seen[word] & bit != 0 {
            return Err("it came before".to_owned());
        }
        self.seen[word] |= bit;
        self.check_order(id)?;
        let append = self.appends[number];
        if !append.is_lost {
            self.check_parent(append)?;
            self.previous_real = Some(id);
            self.is_told = false;
        }
        self.previous = Some(id);
        self.gaps = Gaps::default();
        Ok(())
    }

    /// Events follow on, but where a gap is told; its bounds and count hold.
    fn check_order(&self, id: DurableId) -> Result<(), String> {
        if let Some(before) = self.gaps.last.and_then(|gap| gap.before)
            && before != id
            && !self.appends[number_of(before)].is_lost
        {
            return Err(format!("the gap said {before} is next"));
        }
        let Some(previous) = self.previous else {
            return Ok(());
        };
        let is_next = id.epoch == previous.epoch && id.seq == previous.seq + 1;
        if self.gaps.count == 0 && !is_next {
            return Err(format!("it does not follow {previous}"));
        }
        if let Some(missed) = self.gaps.missed
            && (id.epoch, id.seq) != (previous.epoch, previous.seq + missed + 1)
        {
            return Err(format!("{missed} said to be missing after {previous}"));
        }
        match self.gaps.missed {
            Some(_) if !self.can_come_back() => self.check_trimmed(previous, id),
            _ => Ok(()),
        }
    }

    /// Whether what was trimmed may be there again.
    fn can_come_back(&self) -> bool {
        self.faults.rewinds || self.faults.restores || self.faults.forged
    }

    /// What a counted gap leaves out is not kept any more.
    fn check_trimmed(&self, previous: DurableId, id: DurableId) -> Result<(), String> {
        let mut at = self.appends[number_of(id)].parent;
        while let Some(missing) = at.filter(|missing| *missing != previous) {
            let append = self.appends[number_of(missing)];
            if !append.is_trimmed {
                return Err(format!("{missing} is said to be missing, but kept"));
            }
            at = append.parent;
        }
        Ok(())
    }

    /// What came before it was received, or a gap was told since.
    fn check_parent(&self, append: Append) -> Result<(), String> {
        if self.is_told || append.parent == self.previous_real {
            return Ok(());
        }
        if self.previous_real.is_none() {
            // A new client begins at the oldest event kept.
            let parent = append.parent.map(|parent| self.appends[number_of(parent)]);
            return match parent {
                Some(parent) if !parent.is_trimmed => Err("it did not get what came before".into()),
                _ => Ok(()),
            };
        }
        Err(format!(
            "it was not told of what is missing after {:?}",
            self.previous_real
        ))
    }

    fn end(&self, last: Option<DurableId>, plain: u64) -> Result<(), String> {
        if self.plain < plain && !self.is_plain_told {
            return Err(format!("plain events after {} are missing", self.plain));
        }
        let Some(last) = last else { return Ok(()) };
        let number = number_of(last);
        let has_last = self.seen[number / 64] >> (number % 64) & 1 == 1;
        if has_last || self.gaps.count > 0 {
            return Ok(());
        }
        Err(format!("{last} is missing, and no gap told"))
    }
}
