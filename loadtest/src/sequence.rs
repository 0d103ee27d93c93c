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

/// The numbers one subscriber has seen of its run: 24 bytes each.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Sequence {
    newest: u64,
    /// Bit `i` is set when `newest - i` was seen.
    seen: u64,
    /// Distinct numbers seen.
    count: u64,
}

impl Sequence {
    /// Takes note of number `seq`, counted from 1.
    pub(crate) fn saw(&mut self, seq: u64) -> Arrival {
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
        self.count += 1;
        Arrival::OutOfOrder
    }

    /// Returns how many of the `sent` messages never came.
    pub(crate) fn lost(&self, sent: u64) -> u64 {
        sent.saturating_sub(self.count)
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
}
