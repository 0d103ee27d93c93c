//! [`Wheel`]: who beats at which tick. No timer per client.

use slab::Slab;

/// A ring of slots, one for each tick of the heartbeat interval; a client
/// stays in the slot of the tick it came in, so beats spread as arrivals did.
pub(crate) struct Wheel<C> {
    slots: Vec<Slab<Entry<C>>>,
}

struct Entry<C> {
    client: C,
    /// The slot turns once before: too early by a round.
    first_beat: u64,
}

/// A client's place on the wheel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WheelKey {
    slot: usize,
    key: usize,
}

impl<C> Wheel<C> {
    pub(crate) fn new(ticks: u64) -> Self {
        Self {
            slots: (0..ticks.max(1)).map(|_| Slab::new()).collect(),
        }
    }

    /// Adds a client that came after `tick`: its first beat comes one interval
    /// later and at most one tick after that.
    pub(crate) fn add(&mut self, tick: u64, client: C) -> WheelKey {
        let slot = self.slot(tick + 1);
        let first_beat = tick + 1 + self.slots.len() as u64;
        let key = self.slots[slot].insert(Entry { client, first_beat });
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
    pub(crate) fn turn(&self, tick: u64, mut beat: impl FnMut(&C)) {
        for (_, entry) in &self.slots[self.slot(tick)] {
            if entry.first_beat <= tick {
                beat(&entry.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Wheel;

    /// The beats of a client that came after `tick`, on a wheel of `ticks`.
    fn beats(ticks: u64, tick: u64) -> Vec<u64> {
        let mut wheel = Wheel::<&str>::new(ticks);
        for before in 0..tick {
            wheel.turn(before, |_| {});
        }
        wheel.add(tick, "client");
        let mut beats = Vec::new();
        for now in tick + 1..tick + 4 * ticks {
            wheel.turn(now, |_| beats.push(now - tick));
        }
        beats
    }

    #[test]
    fn the_first_beat_comes_one_interval_after_the_client_then_each_interval() {
        for tick in [0, 1, 7, 8, 29, 1000] {
            assert_eq!(beats(8, tick), [9, 17, 25], "after tick {tick}");
            assert_eq!(beats(30, tick), [31, 61, 91], "after tick {tick}");
        }
    }

    #[test]
    fn a_client_that_left_beats_no_more() {
        let mut wheel = Wheel::new(1);
        let (gone, stays) = (wheel.add(0, "gone"), wheel.add(0, "stays"));
        wheel.remove(gone);
        wheel.remove(gone);
        let mut beaten = Vec::new();
        wheel.turn(2, |client| beaten.push(*client));
        assert_eq!(beaten, ["stays"]);
        wheel.remove(stays);
        wheel.turn(3, |_| panic!("nobody is left"));
    }
}
