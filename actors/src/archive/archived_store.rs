//! [`ArchivedStore`]: a store of runs, and behind it their archive.

use std::sync::Arc;

use super::archivist::Archivist;
use crate::protocol::{DurableId, RunId};
use crate::store::{
    AppendBatch, AppendResults, Claimed, Lease, Page, PageQuery, PostClaim, RunStore, StoreError,
    StoreFuture,
};

/// Asks the store first; where that has forgotten a run, or the history of one
/// that is over, the archive. What the store knows of a later epoch wins.
pub(crate) struct ArchivedStore {
    pub(crate) store: Arc<dyn RunStore>,
    pub(crate) archivist: Arc<Archivist>,
}

impl ArchivedStore {
    async fn read_either(&self, run_id: &RunId, query: PageQuery) -> Result<Page, StoreError> {
        let page = self.store.read(run_id, query).await?;
        let archived = archived_for(&self.archivist, run_id, query, &page).await?;
        Ok(archived.unwrap_or(page))
    }
}

/// Reads of the archive what `page` of the store has forgotten; `None` if it has
/// not, or if there is nothing.
///
/// # Errors
/// The archive does not answer: no reason to say that there is nothing.
pub(crate) async fn archived_for(
    archivist: &Archivist,
    run_id: &RunId,
    query: PageQuery,
    page: &Page,
) -> Result<Option<Page>, StoreError> {
    let Some(last) = forgotten(page) else {
        return Ok(None);
    };
    let archived = archivist.read(run_id, query, last).await;
    archived.map_err(|error| StoreError(error.to_string()))
}

/// Whether an archive may know more than this page of a store; then where the
/// run ended, if the store knows that still.
fn forgotten(page: &Page) -> Option<Option<DurableId>> {
    let Some(head) = &page.head else {
        return Some(None);
    };
    // A run's state outlives its history.
    let is_bare = page.first.is_none() && head.last.seq > 0 && head.is_sealed();
    is_bare.then_some(Some(head.last))
}

impl RunStore for ArchivedStore {
    fn append<'a>(
        &'a self,
        run_id: &'a RunId,
        batch: AppendBatch,
    ) -> StoreFuture<'a, AppendResults> {
        self.store.append(run_id, batch)
    }

    fn read<'a>(&'a self, run_id: &'a RunId, query: PageQuery) -> StoreFuture<'a, Page> {
        Box::pin(self.read_either(run_id, query))
    }

    fn claim<'a>(&'a self, run_id: &'a RunId, claim: &'a PostClaim) -> StoreFuture<'a, Claimed> {
        self.store.claim(run_id, claim)
    }

    fn settle<'a>(
        &'a self,
        run_id: &'a RunId,
        claim: &'a PostClaim,
        lease: Lease,
        answer: Option<String>,
    ) -> StoreFuture<'a, ()> {
        self.store.settle(run_id, claim, lease, answer)
    }

    /// The store's alone: whoever follows a run asks again and again, and what
    /// a store has lost is no event that was missed.
    fn positions<'a>(&'a self, run_ids: &'a [RunId]) -> StoreFuture<'a, Vec<Option<DurableId>>> {
        self.store.positions(run_ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Closed, Head};

    #[test]
    fn the_archive_is_asked_only_for_what_is_forgotten() {
        let id = |seq| DurableId {
            epoch: 7,
            seq,
            us: 7000,
        };
        let page = |sealed_us, first| Page {
            head: Some(Head {
                last: id(9),
                counts: [9, 0, 0],
                status: None,
                closed: Some(Closed {
                    status: "failed".to_owned(),
                    at_us: 0,
                    sealed_us,
                }),
                now_us: 100,
            }),
            first,
            ..Page::default()
        };
        assert_eq!(forgotten(&Page::default()), Some(None));
        assert_eq!(forgotten(&page(50, None)), Some(Some(id(9))));
        assert_eq!(forgotten(&page(50, Some(id(4)))), None);
        assert_eq!(forgotten(&page(200, None)), None, "not over");
    }
}
