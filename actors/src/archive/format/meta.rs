//! [`Meta`]: what is known of an archived run.

use serde::{Deserialize, Serialize};

use crate::protocol::{DurableId, RunId};
use crate::store::{Closed, Head};

/// Version of the format; one that is not known is not read.
const VERSION: u64 = 1;

/// The first line of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::archive) struct Meta {
    runcast_archive: u64,
    /// The run.
    pub(in crate::archive) run_id: String,
    epoch: u64,
    /// The last status, as a word.
    status: Option<String>,
    ended: Ended,
    /// Events accepted in this epoch, kept or not.
    events: Counts,
    /// The oldest event of the object.
    first_id: String,
    last_id: String,
    /// Events that were trimmed before the run was archived.
    trimmed: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Ended {
    status: String,
    at_us: u64,
    sealed_us: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Counts {
    output: u64,
    status: u64,
    log: u64,
}

impl Meta {
    /// Describes a run that is over, whose oldest event kept is `first`.
    pub(in crate::archive) fn new(
        run_id: &RunId,
        head: &Head,
        closed: &Closed,
        first: DurableId,
    ) -> Self {
        let [output, status, log] = head.counts;
        Self {
            runcast_archive: VERSION,
            run_id: run_id.to_string(),
            epoch: head.last.epoch,
            status: head.status.clone(),
            ended: Ended {
                status: closed.status.clone(),
                at_us: closed.at_us,
                sealed_us: closed.sealed_us,
            },
            events: Counts {
                output,
                status,
                log,
            },
            first_id: first.to_string(),
            last_id: head.last.to_string(),
            trimmed: first.seq.saturating_sub(1),
        }
    }

    /// Whether it is of this run, in a version that we read, and makes sense.
    pub(in crate::archive) fn is_of(&self, run_id: &RunId) -> bool {
        let ids = self.first().zip(self.last());
        self.runcast_archive == VERSION
            && self.run_id == run_id.as_str()
            && ids.is_some_and(|(first, last)| first <= last && last.epoch == self.epoch)
    }

    /// The oldest event of the object.
    pub(in crate::archive) fn first(&self) -> Option<DurableId> {
        self.first_id.parse().ok()
    }

    /// The last event of the run.
    pub(in crate::archive) fn last(&self) -> Option<DurableId> {
        self.last_id.parse().ok()
    }

    /// The run's state, as its store would tell it at `now_us`.
    pub(in crate::archive) fn head(&self, now_us: u64) -> Option<Head> {
        let ended = &self.ended;
        Some(Head {
            last: self.last()?,
            counts: [self.events.output, self.events.status, self.events.log],
            status: self.status.clone(),
            closed: Some(Closed {
                status: ended.status.clone(),
                at_us: ended.at_us,
                sealed_us: ended.sealed_us,
            }),
            // It was over when it was archived, whatever our clock says.
            now_us: now_us.max(ended.sealed_us.saturating_add(1)),
        })
    }

    /// As a line.
    pub(in crate::archive) fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).expect("writing to memory cannot fail");
        line.push(b'\n');
        line
    }
}
