//! [`Wheel`]: who beats at which tick. No timer per client.

use std::rc::{Rc, Weak};

use super::WorkerRun;
use crate::session::Seat;

/// A ring of slots, one for each tick of the heartbeat interval; a client
/// stays in the slot of the tick it came in, so beats spread as arrivals did.
pub(crate) struct Wheel {
    slots: Vec<Vec<(Weak<Seat>, Weak<WorkerRun>)>>,
}

impl Wheel {
    pub(crate) fn new(ticks: u64) -> Self {
        Self {
            slots: (0..ticks.max(1)).map(|_| Vec::new()).collect(),
        }
    }

    /// Adds a client that came after `tick`: its first beat comes one interval
    /// later and at most one tick after that.
    pub(crate) fn add(&mut self, tick: u64, seat: &Rc<Seat>, run: &Rc<WorkerRun>) {
        let slot = self.slot(tick + 1);
        // The next turn of that slot is a whole round away but for this tick:
        // the slot of `tick + 1` turns at `tick + 1`, too early by a round.
        seat.first_beat.set(tick + 1 + self.slots.len() as u64);
        self.slots[slot].push((Rc::downgrade(seat), Rc::downgrade(run)));
    }

    fn slot(&self, tick: u64) -> usize {
        (tick % self.slots.len() as u64) as usize
    }

    /// Calls `beat` for every living client of `tick`'s slot.
    pub(crate) fn turn(&mut self, tick: u64, mut beat: impl FnMut(&Rc<Seat>, &Rc<WorkerRun>)) {
        let slot = self.slot(tick);
        self.slots[slot].retain(|(seat, run)| {
            let (Some(seat), Some(run)) = (seat.upgrade(), run.upgrade()) else {
                return false;
            };
            if seat.first_beat.get() <= tick {
                beat(&seat, &run);
            }
            true
        });
    }
}
