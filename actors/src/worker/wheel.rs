//! [`Wheel`]: who beats at which tick. No timer per client.

use std::ops::Range;

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

    /// Returns the places of `tick`'s slot in at most `parts_max` ranges, in
    /// the order that clients came: one range unless the slot has more than
    /// `part_clients` of them.
    pub(crate) fn parts(
        &self,
        tick: u64,
        part_clients: usize,
        parts_max: usize,
    ) -> impl ExactSizeIterator<Item = Range<usize>> + use<C> {
        let slot = &self.slots[self.slot(tick)];
        let parts = slot.len().div_ceil(part_clients).clamp(1, parts_max);
        let end = slot.iter().next_back().map_or(0, |(place, _)| place + 1);
        let places = end.div_ceil(parts);
        (0..parts).map(move |part| part * places..(part + 1) * places)
    }

    /// Calls `beat` for every client of `part` of `tick`'s slot.
    pub(crate) fn turn(&self, tick: u64, part: Range<usize>, mut beat: impl FnMut(&C)) {
        let slot = &self.slots[self.slot(tick)];
        for entry in part.filter_map(|place| slot.get(place)) {
            if entry.first_beat <= tick {
                beat(&entry.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Wheel;

    /// Turns the wheel of `tick` and returns who beats, part by part.
    fn turn<C: Copy>(wheel: &Wheel<C>, tick: u64, parts_max: usize) -> Vec<Vec<C>> {
        let parts = wheel.parts(tick, 2, parts_max).map(|part| {
            let mut beating = Vec::new();
            wheel.turn(tick, part, |client| beating.push(*client));
            beating
        });
        parts.collect()
    }

    /// The beats of a client that came after `tick`, on a wheel of `ticks`.
    fn beats(ticks: u64, tick: u64) -> Vec<u64> {
        let mut wheel = Wheel::<&str>::new(ticks);
        wheel.add(tick, "client");
        let nows = tick + 1..tick + 4 * ticks;
        let beating = nows.filter(|now| turn(&wheel, *now, 1) == [["client"]]);
        beating.map(|now| now - tick).collect()
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
        assert_eq!(turn(&wheel, 2, 1), [["stays"]]);
        wheel.remove(stays);
        assert_eq!(turn(&wheel, 3, 1), [[""; 0]]);
    }

    #[test]
    fn the_many_of_one_tick_beat_in_parts() {
        let mut wheel = Wheel::new(1);
        let keys: Vec<_> = (0..20).map(|client| wheel.add(0, client)).collect();
        for parts_max in [1, 3, 5, 100] {
            let parts = turn(&wheel, 2, parts_max);
            assert_eq!(parts.len(), parts_max.min(10));
            assert!(parts.concat().into_iter().eq(0..20), "{parts:?}");
            let most = parts.iter().map(Vec::len).max();
            assert_eq!(most, Some(20_usize.div_ceil(parts.len())));
        }
        for key in &keys[1..] {
            wheel.remove(*key);
        }
        assert_eq!(turn(&wheel, 2, 100), [[0]], "few need no parts");
    }
}
