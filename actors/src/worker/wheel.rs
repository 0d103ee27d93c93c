//! [`Wheel`]: who beats at which tick. No timer per client.

use std::rc::Rc;

use slab::Slab;

use super::WorkerRun;
use crate::session::Seat;

/// A ring of slots, one for each tick of the heartbeat interval; a client
/// stays in the slot of the tick it came in, so beats spread as arrivals did.
pub(crate) struct Wheel {
    slots: Vec<Slab<(Rc<Seat>, Rc<WorkerRun>)>>,
}

/// A client's place on the wheel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WheelKey {
    slot: usize,
    key: usize,
}

impl Wheel {
    pub(crate) fn new(ticks: u64) -> Self {
        Self {
            slots: (0..ticks.max(1)).map(|_| Slab::new()).collect(),
        }
    }

    /// Adds a client that came after `tick`: its first beat comes one interval
    /// later and at most one tick after that.
    pub(crate) fn add(&mut self, tick: u64, seat: &Rc<Seat>, run: &Rc<WorkerRun>) -> WheelKey {
        let slot = self.slot(tick + 1);
        // The next turn of that slot is a whole round away but for this tick:
        // the slot of `tick + 1` turns at `tick + 1`, too early by a round.
        seat.first_beat.set(tick + 1 + self.slots.len() as u64);
        let key = self.slots[slot].insert((Rc::clone(seat), Rc::clone(run)));
        WheelKey { slot, key }
    }

    /// Takes a client off.
    pub(crate) fn remove(&mut self, WheelKey { slot, key }: WheelKey) {
        let slot = &mut self.slots[slot];
        slot.try_remove(key);
        if slot.is_empty() {
            slot.shrink_to_fit();
        }
    }

    fn slot(&self, tick: u64) -> usize {
        (tick % self.slots.len() as u64) as usize
    }

    /// Calls `beat` for every client of `tick`'s slot.
    pub(crate) fn turn(&self, tick: u64, mut beat: impl FnMut(&Seat, &WorkerRun)) {
        for (_, (seat, run)) in &self.slots[self.slot(tick)] {
            if seat.first_beat.get() <= tick {
                beat(seat, run);
            }
        }
    }
}
