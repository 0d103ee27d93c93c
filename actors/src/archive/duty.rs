//! [`ArchiveDuty`]: what the archive asks of a store beside pages: which runs
//! it owes the archive, and who writes one.

use std::time::Duration;

use crate::protocol::RunId;
use crate::store::StoreFuture;

/// A store whose runs are archived. The state of a run says whether that was
/// done, so whoever has the store can tell what is owed.
pub(crate) trait ArchiveDuty: Send + Sync {
    /// Claims a run that is over, or goes on with a claim of ours, for `lease`.
    /// `writer` names whoever asks, and is another for each run written.
    fn claim<'a>(
        &'a self,
        run_id: &'a RunId,
        writer: &'a str,
        lease: Duration,
    ) -> StoreFuture<'a, Claim>;

    /// Ends a claim: the epoch is archived, or may be claimed again.
    fn settle<'a>(
        &'a self,
        run_id: &'a RunId,
        writer: &'a str,
        archived: Option<u64>,
    ) -> StoreFuture<'a, ()>;

    /// Looks through a part of all runs for those that are owed.
    fn owed(&self, from: OwedFrom) -> StoreFuture<'_, Owed>;

    /// Takes a turn that one broker of all on this store has in `time`; says
    /// whether it did.
    fn turn(&self, name: &'static str, time: Duration) -> StoreFuture<'_, bool>;
}

/// What became of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Write this epoch.
    Mine(u64),
    /// Not before so long: late output may still come, or another writes it.
    Later(Duration),
    /// It is archived, or it goes on.
    Nothing,
    /// The store does not know it.
    Gone,
}

/// Where a look through all runs goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct OwedFrom {
    /// Which server of several.
    pub(crate) server: usize,
    /// Where there.
    pub(crate) cursor: u64,
}

/// A part of all runs.
#[derive(Debug, Default)]
pub(crate) struct Owed {
    /// Those that are over and not archived.
    pub(crate) run_ids: Vec<RunId>,
    /// Where to go on; `None` when all were seen.
    pub(crate) next: Option<OwedFrom>,
}
