//! The order of a run's durable events: pure, as `step(state, input) → outputs`.
//!
//! [`RunOrder`] is the hub's part: whether what arrives live follows on, when
//! the store has to be read, and what is told where events are missing.
//! [`Joiner`] is a client's: from a cursor through pages of the store to the
//! exact place in the log. Neither does I/O, keeps a payload or knows a clock,
//! so a simulator can drive both through millions of steps.

mod hub;
mod ids;
mod join;

pub use hub::{OrderInput, OrderOutput, RunOrder};
pub use ids::{KnownIds, PageIds};
pub use join::{JoinFrom, JoinInput, JoinOutput, Joiner, LogIndex};

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

impl Safeguards {
    /// All of them; in a build with the feature `fault-switches`, but for those
    /// that `RUNCAST_FAULT_OFF` names, separated by commas.
    pub fn of_environment() -> Self {
        #[cfg(not(feature = "fault-switches"))]
        return Self::default();
        #[cfg(feature = "fault-switches")]
        {
            let off = std::env::var("RUNCAST_FAULT_OFF").unwrap_or_default();
            let is_on = |name: &str| !off.split(',').any(|word| word == name);
            Self {
                position_check: is_on("position_check"),
                us_check: is_on("us_check"),
                sync_on_hole: is_on("sync_on_hole"),
                attach_before_read: is_on("attach_before_read"),
            }
        }
    }
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
