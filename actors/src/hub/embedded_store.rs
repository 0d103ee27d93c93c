//! [`EmbeddedStore`]: a run's history in its hub's own log.

use std::sync::Weak;

use super::Append;
use crate::broker::BrokerShared;
use crate::protocol::{BackendKind, DurableId, RunId};
use crate::store::{
    AppendBatch, AppendResults, Page, PageQuery, RunStore, StoreError, StoreFuture,
};

/// Appends by asking the run's hub, made if there is none.
#[derive(Debug)]
pub struct EmbeddedStore(pub(crate) Weak<BrokerShared>);

impl RunStore for EmbeddedStore {
    fn append<'a>(
        &'a self,
        run_id: &'a RunId,
        batch: AppendBatch,
    ) -> StoreFuture<'a, AppendResults> {
        Box::pin(async move {
            let shared = self.0.upgrade().ok_or_else(|| not_answered("it is gone"))?;
            let asked = shared.with_hub(BackendKind::Embedded, run_id, |entry| {
                entry.hub.send(Append {
                    events: batch.events,
                    restart: batch.restart,
                })
            });
            let answer = asked.ok_or_else(|| not_answered("too many runs"))?.await;
            answer.map_err(|error| not_answered(&error.to_string()))
        })
    }

    fn read<'a>(&'a self, _: &'a RunId, _: PageQuery) -> StoreFuture<'a, Page> {
        Box::pin(async move { Err(not_answered("not read yet")) })
    }

    fn positions<'a>(&'a self, _: &'a [RunId]) -> StoreFuture<'a, Vec<Option<DurableId>>> {
        Box::pin(async move { Err(not_answered("not read yet")) })
    }
}

fn not_answered(error: &str) -> StoreError {
    StoreError(format!("the run's hub did not answer ({error})"))
}
