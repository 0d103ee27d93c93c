//! [`Place`]: between two durable events of a run.

use super::DurableId;

/// A place in a run's stream: right after the event with this seq.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The run's epoch.
    pub epoch: u64,
    /// Seq of the event before the place; 0 before the first.
    pub seq: u64,
    /// That event's `us`; `None` if only its number is known.
    pub us: Option<u64>,
}

impl Place {
    /// The place before `id`.
    pub fn before(id: DurableId) -> Self {
        Self {
            epoch: id.epoch,
            seq: id.seq.saturating_sub(1),
            us: None,
        }
    }

    /// The event before the place, if it is known exactly.
    pub fn id(self) -> Option<DurableId> {
        let us = self.us.filter(|_| self.seq > 0)?;
        Some(DurableId {
            epoch: self.epoch,
            seq: self.seq,
            us,
        })
    }
}

impl From<DurableId> for Place {
    fn from(id: DurableId) -> Self {
        Self {
            epoch: id.epoch,
            seq: id.seq,
            us: Some(id.us),
        }
    }
}
