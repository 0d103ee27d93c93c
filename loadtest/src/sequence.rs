//! [`Sequence`]: whether one subscriber got each message once and in order.

/// How many sequence numbers behind the newest are remembered one by one.
const WINDOW: u64 = 64;

/// What a message's number says about the messages before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Newer than all before it.
    New,
    /// Came after a newer one.
    OutOfOrder,
    /// Came before.
    Duplicate,
}

/// The numbers one subscriber has seen of its run: 40 bytes each.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Sequence {
    has_joined: bool,
    /// The last number before those that it shall see.
    base: u64,
    /// 0 before the first.
    newest: u64,
    /// Bit `i` is set when `newest - i` was seen.
    seen: u64,
    /// Distinct numbers seen.
    count: u64,
}

impl Sequence {
    /// Takes note that the stream opened when `sent` messages were on their
    /// way: those after them shall come. Of those before, the first that comes
    /// begins it, if any does. A stream that opens again goes on as it was.
    pub(crate) fn join(&mut self, sent: u64) {
        if !self.has_joined {
            (self.has_joined, self.base) = (true, sent);
        }
    }

    /// The same of a server that says so itself, after the head, as long as
    /// nothing has come.
    pub(crate) fn join_anew(&mut self, sent: u64) {
        if self.newest == 0 {
            self.base = sent;
        }
    }

    /// Takes note of number `seq`, counted from 1.
    pub(crate) fn saw(&mut self, seq: u64) -> Arrival {
        if self.newest == 0 {
            self.base = self.base.min(seq.saturating_sub(1));
        }
        if seq > self.newest {
            let ahead = seq - self.newest;
            self.seen = if ahead < WINDOW {
                self.seen << ahead
            } else {
                0
            } | 1;
            self.newest = seq;
            self.count += 1;
            return Arrival::New;
        }
        let behind = self.newest - seq;
        // Older than the window: which of the two it is can no longer be
        // told, and in-order delivery cannot bring it.
        if behind >= WINDOW || self.seen & (1 << behind) != 0 {
            return Arrival::Duplicate;
        }
        self.seen |= 1 << behind;
        self.base = self.base.min(seq.saturating_sub(1));
        self.count += 1;
        Arrival::OutOfOrder
    }

    /// Returns the newest number seen, 0 before the first.
    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    /// Returns the number after which it began.
    pub(crate) fn joined_after(&self) -> u64 {
        self.base
    }

    /// Returns how many of the `sent` messages never came.
    pub(crate) fn lost(&self, sent: u64) -> u64 {
        sent.saturating_sub(self.base).saturating_sub(self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_late_from_twice_from_never() {
        let mut sequence = Sequence::default();
        for (seq, arrival) in [
            (1, Arrival::New),
            (2, Arrival::New),
            (2, Arrival::Duplicate),
            (5, Arrival::New),
            (4, Arrival::OutOfOrder),
            (4, Arrival::Duplicate),
            (200, Arrival::New),
            (5, Arrival::Duplicate),
            (199, Arrival::OutOfOrder),
        ] {
            assert_eq!(sequence.saw(seq), arrival, "{seq}");
        }
        assert_eq!(sequence.lost(200), 200 - 6);
    }

    #[test]
    fn who_comes_later_misses_nothing_that_was_sent_before() {
        let mut late = Sequence::default();
        late.join(10);
        assert_eq!(late.lost(10), 0);
        assert_eq!(late.saw(12), Arrival::New);
        // Number 11 was sent after it had come.
        assert_eq!((late.joined_after(), late.lost(12)), (10, 1));

        let mut early = Sequence::default();
        early.join(10);
        assert_eq!(early.saw(8), Arrival::New);
        assert_eq!(early.saw(10), Arrival::New);
        assert_eq!((early.joined_after(), early.lost(10)), (7, 1));
        // Coming back changes nothing.
        early.join(20);
        assert_eq!(early.lost(20), 11);
    }
}
