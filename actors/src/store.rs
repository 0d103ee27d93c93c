//! [`RunStore`]: the boundary to where a run's durable events are kept.
//!
//! Two implementations: [`RedisStore`](crate::redis::RedisStore), a stream per
//! run, and [`EmbeddedStore`](crate::hub::EmbeddedStore), the hub's own log.
//! Hubs and HTTP know only this. It appends; reading history back joins it
//! when hubs sync from their store.

use futures_util::future::LocalBoxFuture;

use crate::broker::{BrokerResult, NewEvent, PublishResult};
use crate::protocol::RunId;

/// Where a run's durable events are kept.
pub trait RunStore: Send + Sync {
    /// Appends `events` to a run in order, under ids without holes; with
    /// `restart` the run begins anew first. One result for each event.
    ///
    /// # Errors
    /// When none of them could be handed over.
    fn append<'a>(
        &'a self,
        run_id: &'a RunId,
        events: Vec<NewEvent>,
        restart: bool,
    ) -> LocalBoxFuture<'a, BrokerResult<Vec<PublishResult>>>;
}
