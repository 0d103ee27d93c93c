//! [`EmbeddedStore`]: a run's history in its hub's own log.

use std::sync::Weak;

use futures_util::future::LocalBoxFuture;

use super::Append;
use crate::broker::{BrokerResult, BrokerShared, NewEvent, PublishResult, too_many_runs};
use crate::protocol::{BackendKind, Problem, RunId};
use crate::store::RunStore;

/// Appends by asking the run's hub, made if there is none.
#[derive(Debug)]
pub struct EmbeddedStore(pub(crate) Weak<BrokerShared>);

impl RunStore for EmbeddedStore {
    fn append<'a>(
        &'a self,
        run_id: &'a RunId,
        events: Vec<NewEvent>,
        restart: bool,
    ) -> LocalBoxFuture<'a, BrokerResult<Vec<PublishResult>>> {
        Box::pin(async move {
            let shared = self.0.upgrade().ok_or_else(|| not_answered("it is gone"))?;
            let asked = shared.with_hub(BackendKind::Embedded, run_id, |entry| {
                entry.hub.send(Append { events, restart })
            });
            let answer = asked.ok_or_else(too_many_runs)?.await;
            answer.map_err(|error| not_answered(&error.to_string()))
        })
    }
}

fn not_answered(error: &str) -> Problem {
    Problem::new(
        503,
        "publish-failed",
        "Publish failed",
        format!("the run's hub did not answer ({error}); publish again"),
    )
}
