//! [`Client`]: one subscriber of a thread.

use mio::net::TcpStream;

use crate::sequence::Sequence;
use crate::sse::Response;

/// What a subscriber is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Reads until the end.
    Steady,
    /// Reads nothing after the head until it is woken.
    Stalled,
    /// Comes and goes.
    Passing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// `connect` has begun at this time.
    Connecting { since_ns: u64 },
    /// The request is sent.
    AwaitingHead { since_ns: u64 },
    /// Events come.
    Open,
    /// Gone by its own will, to come back.
    Away,
    /// Gone for good.
    Closed,
}

/// A return that is not complete.
#[derive(Debug, Clone, Copy)]
pub(super) struct Return {
    /// When it went.
    pub(super) left_ns: u64,
    /// The last message that was sent before it came back.
    pub(super) until_seq: u64,
    /// Whether all went with it.
    pub(super) with_all: bool,
}

#[derive(Debug)]
pub(super) struct Client {
    /// None while it is away or closed.
    pub(super) socket: Option<TcpStream>,
    pub(super) response: Response,
    pub(super) sequence: Sequence,
    pub(super) index: usize,
    pub(super) run: u32,
    pub(super) kind: Kind,
    pub(super) state: State,
    pub(super) returning: Option<Return>,
    pub(super) told: Told,
    /// When its first head came.
    pub(super) joined_ns: u64,
    /// Whether a stalled one has been counted as done.
    pub(super) is_done: bool,
}

/// The losses that a subscriber was told.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Told {
    /// By number.
    pub(super) count: u64,
    /// Whether one was told without a number.
    pub(super) uncounted: bool,
}

impl Told {
    /// Takes note of a `gap`.
    pub(super) fn gap(&mut self, lost: Option<u64>) {
        match lost {
            Some(lost) => self.count += lost,
            None => self.uncounted = true,
        }
    }

    /// Returns how many of `lost` messages the subscriber does not know to be.
    pub(super) fn untold(self, lost: u64) -> u64 {
        if self.uncounted {
            0
        } else {
            lost.saturating_sub(self.count)
        }
    }
}

impl Client {
    /// Whether it waits for its connection or its head.
    pub(super) fn is_opening(&self) -> bool {
        matches!(
            self.state,
            State::Connecting { .. } | State::AwaitingHead { .. }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_gap_counts_is_told_and_one_without_a_number_tells_all() {
        let mut told = Told::default();
        assert_eq!(told.untold(3), 3);
        told.gap(Some(2));
        assert_eq!(told.untold(3), 1);
        told.gap(None);
        assert_eq!(told.untold(3), 0);
    }
}
