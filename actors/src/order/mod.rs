//! The order of a run's durable events: pure, as `step(state, input) → outputs`.
//!
//! [`RunOrder`] is the hub's part: whether what arrives live follows on, when
//! the store has to be read, and what is told where events are missing.
//! [`Joiner`] is a client's: from a cursor through pages of the store to the
//! exact place in the log. Neither does I/O, keeps a payload or knows a clock,
//! so a simulator can drive both through millions of steps.

mod hub;
mod join;
mod place;

pub use hub::{OrderInput, OrderOutput, RunOrder};
pub use join::{JoinFrom, JoinInput, JoinOutput, Joiner, LogIndex};
pub use place::{KnownIds, PageIds, Place};

/// Most events of a page that the order reads at once.
pub const PAGE_EVENTS: usize = 512;

/// What stands between a fault and a silent loss; switched off only to show
/// that a test finds it missing.
#[derive(Debug, Clone, Copy)]
pub struct Safeguards {
    /// Positions are compared with the store's.
    pub position_check: bool,
    /// An entry at our seq must have our `us`.
    pub us_check: bool,
    /// A hole in live numbers is read from the store.
    pub sync_on_hole: bool,
    /// A client attaches to the live log before it reads the store.
    pub attach_before_read: bool,
}

impl Default for Safeguards {
    fn default() -> Self {
        Self {
            position_check: true,
            us_check: true,
            sync_on_hole: true,
            attach_before_read: true,
        }
    }
}
