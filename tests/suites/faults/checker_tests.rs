//! The checker must be able to fail: a sound stream passes, and each way of
//! spoiling it is found.

use super::super::history::Known;
use super::*;

const EPOCH: u64 = 7;

fn durable(seq: u64, us: u64) -> Durable {
    Durable {
        epoch: EPOCH,
        seq,
        us,
    }
}

/// A run of which the checker knows all.
struct World {
    ledger: Ledger,
    known: Vec<Known>,
    is_lossless: bool,
    has_plain: bool,
}

impl World {
    fn new() -> Self {
        Self {
            ledger: Ledger::default(),
            known: Vec::new(),
            is_lossless: false,
            has_plain: false,
        }
    }

    /// `count` durable events, all kept, kinds in turn.
    fn durable(count: u64) -> Self {
        let mut world = Self::new();
        for seq in 1..=count {
            world.accept(durable(seq, seq * 10), true);
        }
        world
    }

    /// `count` plain events.
    fn plain(count: usize) -> Self {
        let mut world = Self::new();
        world.has_plain = true;
        for n in 0..count {
            let kind = [Kinds::OUTPUT, Kinds::STATUS, Kinds::LOG][n % 3];
            world.ledger.open(Way::Plain, kind);
            world.ledger.close(n, Outcome::Accepted(None));
        }
        world
    }

    fn accept(&mut self, id: Durable, is_kept: bool) -> usize {
        let kind = [Kinds::OUTPUT, Kinds::STATUS, Kinds::LOG][self.ledger.events.len() % 3];
        let n = self.ledger.open(Way::Post, kind);
        self.ledger.close(n, Outcome::Accepted(Some(id)));
        self.known.push(Known {
            id,
            n: Some(n),
            kind: Some(kind),
            is_kept,
        });
        n
    }

    fn check(&self, kinds: Kinds, seen: &[Seen]) -> Result<Tally, Violation> {
        let history = History::new(self.known.iter().copied());
        let truth = Truth {
            ledger: &self.ledger,
            history: &history,
            is_lossless: self.is_lossless,
            is_local: true,
            was_revived: false,
            has_plain: self.has_plain,
            has_durable: !self.known.is_empty(),
        };
        check(&truth, kinds, seen).map_err(|failure| failure.violation)
    }

    fn find(&self, seen: &[Seen]) -> Option<Violation> {
        self.check(Kinds::ALL, seen).err()
    }
}

fn joined(cursor: Option<Id>) -> Seen {
    Seen::Joined {
        cursor,
        from: From::Start,
        due_from: 0,
    }
}

fn event(n: usize) -> Seen {
    let seq = n as u64 + 1;
    let id = Id::Durable(durable(seq, seq * 10));
    Seen::Event { n, id }
}

fn sound(count: usize) -> Vec<Seen> {
    std::iter::once(joined(None))
        .chain((0..count).map(event))
        .collect()
}

fn gap(reason: &str, after: Option<u64>, before: Option<u64>, missed: Option<u64>) -> Seen {
    let id = |seq: u64| Id::Durable(durable(seq, seq * 10));
    Seen::Gap(Gap {
        reason: reason.to_owned(),
        after: after.map(id),
        before: before.map(id),
        missed,
    })
}

fn plain_id(n: usize) -> Id {
    Id::Plain {
        hub: 1,
        n: n as u64,
        durable: None,
    }
}

fn plain(n: usize) -> Seen {
    let id = plain_id(n);
    Seen::Event { n, id }
}

fn sound_plain(count: usize) -> Vec<Seen> {
    std::iter::once(joined(None))
        .chain((0..count).map(plain))
        .collect()
}

#[test]
fn a_sound_stream_passes() {
    let tally = World::durable(9).check(Kinds::ALL, &sound(9));
    assert_eq!(tally.expect("sound").deliveries, 9);
    let tally = World::plain(9).check(Kinds::ALL, &sound_plain(9));
    assert_eq!(tally.expect("sound").deliveries, 9);
}

#[test]
fn every_event_removed_is_found() {
    for n in 0..8 {
        let mut seen = sound(9);
        seen.remove(n + 1);
        let found = World::durable(9).find(&seen);
        let missing = vec![n as u64 + 1];
        let before = Id::Durable(durable(n as u64 + 2, n as u64 * 10 + 20));
        assert_eq!(found, Some(Violation::SilentLoss { missing, before }));
        let mut seen = sound_plain(9);
        seen.remove(n + 1);
        let found = World::plain(9).find(&seen);
        assert!(matches!(found, Some(Violation::PlainLoss { .. })), "{n}");
    }
}

#[test]
fn every_event_doubled_or_moved_is_found() {
    for n in 0..8 {
        for (world, mut seen) in [
            (World::durable(9), sound(9)),
            (World::plain(9), sound_plain(9)),
        ] {
            let again = seen[n + 1].clone();
            seen.push(again);
            let found = world.find(&seen);
            assert!(matches!(found, Some(Violation::Duplicate { .. })), "{n}");
            seen.pop();
            seen.swap(n + 1, n + 2);
            assert!(world.find(&seen).is_some(), "{n} after {}", n + 1);
        }
    }
}

/// A client hops from the broker that numbers a run's plain events to another
/// and back, with the durable id that the other one took it back to.
#[test]
fn plain_events_come_again_only_to_who_was_taken_back_before_them() {
    let mut world = World::durable(1);
    world.has_plain = true;
    for n in 1..3 {
        world.ledger.open(Way::Plain, Kinds::OUTPUT);
        world.ledger.close(n, Outcome::Accepted(None));
    }
    let first = Id::Durable(durable(1, 10));
    let plain = |n| Seen::Event {
        n,
        id: Id::Plain {
            hub: 1,
            n: n as u64,
            durable: Some(durable(1, 10)),
        },
    };
    let mut seen = vec![joined(None), event(0), plain(1), plain(2)];
    seen.extend([
        joined(Some(plain_id(2))),
        gap("restarted", None, None, None),
    ]);
    seen.extend([joined(Some(first)), plain(1), plain(2)]);
    assert_eq!(world.find(&seen), None);
    seen.remove(5);
    let found = world.find(&seen);
    assert!(matches!(found, Some(Violation::Duplicate { n: 1, .. })));
}

#[test]
fn an_event_that_nobody_has_an_answer_for_is_missed_all_the_same() {
    let mut world = World::durable(9);
    world.known.remove(4);
    world.ledger.close(4, Outcome::Unsure);
    let mut seen = sound(9);
    seen.remove(5);
    let found = world.find(&seen);
    assert!(matches!(found, Some(Violation::SilentLoss { .. })));
}

#[test]
fn a_gap_covers_its_own_range_only() {
    let mut seen = sound(9);
    seen[4] = gap("trimmed", Some(3), Some(5), Some(1));
    let tally = World::durable(9).check(Kinds::ALL, &seen).expect("told");
    assert_eq!((tally.told_missing, tally.counts_checked), (1, 1));
    seen[4] = gap("trimmed", Some(1), Some(3), Some(1));
    assert!(World::durable(9).find(&seen).is_some());
    seen[4] = gap("trimmed", Some(3), Some(5), Some(1));
    seen.swap(4, 5);
    assert!(World::durable(9).find(&seen).is_some());
}

#[test]
fn a_wrong_count_or_range_is_found() {
    for stated in [0, 2, 3] {
        let mut seen = sound(9);
        seen[4] = gap("slow_client", Some(3), Some(5), Some(stated));
        let found = World::durable(9).find(&seen);
        assert!(matches!(found, Some(Violation::WrongCount { .. })));
    }
    let mut seen = sound(9);
    seen[4] = gap("slow_client", Some(2), Some(5), Some(2));
    let found = World::durable(9).find(&seen);
    assert!(matches!(found, Some(Violation::WrongRange { .. })));
}

#[test]
fn a_gap_where_redis_lost_nothing_is_found() {
    let mut world = World::durable(9);
    world.is_lossless = true;
    let mut seen = sound(9);
    seen[4] = gap("disconnected", Some(3), Some(5), Some(1));
    let found = world.find(&seen);
    assert!(matches!(found, Some(Violation::NeedlessGap(_))));
}

#[test]
fn who_comes_back_before_a_gap_must_be_told_again() {
    let mut seen = sound(9);
    seen[4] = gap("trimmed", Some(3), Some(5), Some(1));
    seen.insert(5, joined(Some(Id::Durable(durable(3, 30)))));
    assert!(World::durable(9).find(&seen).is_some());
    seen.insert(6, gap("trimmed", Some(3), Some(5), Some(1)));
    assert_eq!(World::durable(9).find(&seen), None);
    let mut seen = sound_plain(9);
    seen[4] = gap("slow_client", None, None, Some(1));
    assert_eq!(World::plain(9).find(&seen), None);
    seen.insert(5, joined(Some(plain_id(2))));
    let found = World::plain(9).find(&seen);
    assert!(matches!(found, Some(Violation::PlainLoss { .. })));
}

#[test]
fn a_cursor_that_went_past_an_event_is_found() {
    let id = Id::Durable(durable(4, 40));
    let mut seen = sound(9);
    seen[4] = Seen::Position(id);
    seen.insert(5, joined(Some(id)));
    let found = World::durable(9).find(&seen);
    assert!(matches!(found, Some(Violation::SilentLoss { .. })));
    // Event 3 is an output, which this client hides by its filter.
    let hidden = World::durable(9).check(
        Kinds::OUTPUT_STATUS,
        &[
            event(0),
            event(1),
            Seen::Position(Id::Durable(durable(3, 30))),
        ],
    );
    assert!(hidden.is_ok());
}

#[test]
fn a_filter_hides_only_its_own() {
    let mut seen = sound(9);
    seen.retain(|seen| !matches!(seen, Seen::Event { n, .. } if n % 3 != 0));
    assert!(World::durable(9).check(Kinds::OUTPUT, &seen).is_ok());
    seen.remove(2);
    let found = World::durable(9).check(Kinds::OUTPUT, &seen).err();
    assert!(matches!(found, Some(Violation::SilentLoss { .. })));
}

/// Five events, of which a failover forgets the last two; three more follow.
fn forked() -> World {
    let mut world = World::new();
    for seq in 1..=3 {
        world.accept(durable(seq, seq * 10), true);
    }
    world.accept(durable(4, 40), false);
    world.accept(durable(5, 50), false);
    for seq in 4..=6 {
        world.accept(durable(seq, seq * 10 + 100), true);
    }
    world
}

fn forked_event(n: usize, seq: u64, us: u64) -> Seen {
    let id = Id::Durable(durable(seq, us));
    Seen::Event { n, id }
}

#[test]
fn a_turn_to_another_history_must_be_told() {
    let world = forked();
    let mut seen = sound(5);
    seen.push(forked_event(7, 6, 160));
    let found = world.find(&seen);
    assert!(matches!(found, Some(Violation::UntoldTurn { .. })));
    // Told, and nothing of the new history is missing.
    let mut seen = sound(5);
    seen.push(gap("rewound", Some(3), None, None));
    seen.extend(
        [(5, 4, 140), (6, 5, 150), (7, 6, 160)].map(|(n, seq, us)| forked_event(n, seq, us)),
    );
    assert_eq!(world.find(&seen), None);
    // Told for another place than the event that is missing.
    seen.remove(8);
    seen[6] = gap("rewound", Some(3), Some(4), None);
    let found = world.find(&seen);
    assert!(matches!(found, Some(Violation::SilentLoss { .. })));
}

#[test]
fn who_never_saw_what_a_failover_forgot_needs_no_word() {
    let mut seen = sound(3);
    seen.extend(
        [(5, 4, 140), (6, 5, 150), (7, 6, 160)].map(|(n, seq, us)| forked_event(n, seq, us)),
    );
    assert_eq!(forked().find(&seen), None);
}

#[test]
fn what_was_refused_or_has_another_id_is_found() {
    let mut world = World::durable(9);
    world.ledger.close(4, Outcome::Refused);
    assert_eq!(world.find(&sound(9)), Some(Violation::NeverAccepted(4)));
    let other = Outcome::Accepted(Some(durable(5, 51)));
    world.ledger.close(4, other);
    let found = world.find(&sound(9));
    assert!(matches!(found, Some(Violation::WrongId { n: 4, .. })));
}

#[test]
fn numbers_a_producer_lost_must_be_told() {
    let mut world = World::durable(9);
    for (n, event) in world.ledger.events.iter_mut().enumerate() {
        let lost = u64::from(n >= 4) * 2;
        event.way = Way::Function {
            number: n as u64 + 1 + lost,
        };
    }
    let found = world.find(&sound(9));
    assert!(matches!(found, Some(Violation::WrongProducerGap { .. })));
    for (stated, is_right) in [(1, false), (2, true)] {
        let mut seen = sound(9);
        seen.insert(5, gap("producer", Some(4), Some(5), Some(stated)));
        assert_eq!(world.find(&seen).is_none(), is_right);
    }
}

#[test]
fn an_end_with_a_wrong_count_is_found() {
    for (events, is_right) in [(9, true), (8, false)] {
        let mut seen = sound(9);
        seen.push(Seen::End {
            last: Some(Id::Durable(durable(9, 90))),
            events: Some(events),
        });
        assert_eq!(World::durable(9).find(&seen).is_none(), is_right);
    }
}

#[test]
fn a_wrong_count_of_plain_events_is_found() {
    for (stated, is_right) in [(0, false), (1, true), (2, false)] {
        let mut seen = sound_plain(9);
        seen[4] = gap("slow_client", None, None, Some(stated));
        assert_eq!(World::plain(9).find(&seen).is_none(), is_right);
    }
}

#[test]
fn a_turn_hidden_by_a_trim_is_counted_apart() {
    let world = forked();
    let mut seen = sound(5);
    let id = |seq, us| Some(Id::Durable(durable(seq, us)));
    for (missed, is_hidden) in [(0, true), (2, false)] {
        seen.truncate(6);
        seen.push(Seen::Gap(Gap {
            reason: "trimmed".to_owned(),
            after: id(5, 50),
            before: id(6, 160),
            missed: Some(missed),
        }));
        seen.push(forked_event(7, 6, 160));
        let tally = world.check(Kinds::ALL, &seen).expect("told");
        assert_eq!(tally.hidden_turns, u64::from(is_hidden));
    }
}
