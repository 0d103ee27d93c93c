//! [`RedisStore`]: a stream per run, appended to through `runcast_publish`.

use std::sync::Arc;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{RedisError, RedisResult, Value};
use tracing::{info, warn};

use super::{RedisLink, client};
use crate::broker::{
    BrokerSettings, BrokerShared, NewEvent, PublishError, PublishResult, Published,
};
use crate::metrics::Metrics;
use crate::protocol::{DurableId, RunId};
use crate::store::{
    AppendBatch, AppendResults, Page, PageQuery, RunStore, StoreError, StoreFuture,
};

/// The function library; see the head of the file for its call.
const LIBRARY: &str = include_str!("runcast.lua");

/// Version inside [`LIBRARY`]; an older one in Redis is replaced.
const LIBRARY_VERSION: i64 = 1;

/// Appends over a managed connection of its own, so that a long batch never
/// delays what the subscription brings. Cheap to clone.
#[derive(Clone)]
pub struct RedisStore {
    settings: Arc<BrokerSettings>,
    link: Arc<RedisLink>,
    metrics: Arc<Metrics>,
    connection: ConnectionManager,
}

impl RedisStore {
    /// Makes a store that connects when it is first used.
    ///
    /// # Errors
    /// When the URL of `settings.redis` cannot be understood.
    pub fn new(shared: &BrokerShared) -> RedisResult<Self> {
        let settings = &shared.settings.redis;
        let config = ConnectionManagerConfig::new()
            // Unless told otherwise it gives up for ever after six attempts.
            .set_number_of_retries(usize::MAX)
            .set_max_delay(settings.reconnect_max_delay)
            .set_connection_timeout(Some(settings.connect_timeout))
            .set_response_timeout(Some(settings.command_timeout));
        let connection = ConnectionManager::new_lazy_with_config(client(settings)?, config)?;
        Ok(Self {
            settings: Arc::clone(&shared.settings),
            link: Arc::clone(&shared.redis),
            metrics: Arc::clone(&shared.metrics),
            connection,
        })
    }

    /// Loads the library, unless Redis has it or a newer one. In the
    /// background: a publish that finds none loads it, too.
    pub(super) fn load_function(&self) {
        let mut store = self.clone();
        actix_rt::spawn(async move {
            if let Err(error) = store.ensure_function().await {
                warn!(%error, "runcast_publish not loaded; durable publishes will fail");
            }
        });
    }

    async fn ensure_function(&mut self) -> RedisResult<()> {
        let known: RedisResult<i64> = redis::cmd("FCALL_RO")
            .arg("runcast_version")
            .arg(0)
            .query_async(&mut self.connection)
            .await;
        if matches!(known, Ok(version) if version >= LIBRARY_VERSION) {
            return Ok(());
        }
        redis::cmd("FUNCTION")
            .arg("LOAD")
            .arg("REPLACE")
            .arg(LIBRARY)
            .query_async::<Value>(&mut self.connection)
            .await?;
        info!(version = LIBRARY_VERSION, "runcast_publish loaded");
        Ok(())
    }

    /// Appends `events` in order, in one pipeline; answers for each.
    async fn append_all(
        &self,
        run_id: &RunId,
        events: &[NewEvent],
        restart: bool,
    ) -> Vec<PublishResult> {
        let mut store = self.clone();
        if !self.link.is_up() {
            let since = self.link.health().since;
            let down = PublishError::Unavailable(format!("Redis is down since {since}"));
            return events.iter().map(|_| Err(down.clone())).collect();
        }
        let mut results = store.call(run_id, events, restart).await;
        // After a restart without its data Redis has no functions; nothing of
        // the batch was accepted then.
        if results
            .iter()
            .all(|result| matches!(result, Err(error) if is_missing_function(error)))
            && store.ensure_function().await.is_ok()
        {
            results = store.call(run_id, events, restart).await;
        }
        let counters = &self.metrics.redis;
        counters.publishes.add(events.len() as u64);
        let answers = results
            .into_iter()
            .map(|result| result.map_err(unavailable));
        answers
            .map(|answer| match answer {
                Ok(result) => result,
                Err(error) => {
                    counters.publish_failures.inc();
                    Err(error)
                }
            })
            .collect()
    }

    async fn call(
        &mut self,
        run_id: &RunId,
        events: &[NewEvent],
        restart: bool,
    ) -> Vec<RedisResult<PublishResult>> {
        let settings = &self.settings;
        let prefix = &settings.redis.channel_prefix;
        let mut pipe = redis::pipe();
        for (index, event) in events.iter().enumerate() {
            pipe.cmd("FCALL")
                .arg("runcast_publish")
                .arg(2)
                .arg(format!("{prefix}{{{run_id}}}:stream"))
                .arg(format!("{prefix}{{{run_id}}}:meta"))
                .arg(run_id.as_str())
                .arg(event.kind.as_str())
                .arg(&event.source)
                .arg(&event.payload[..])
                .arg("MAXLEN")
                .arg(settings.history.max_events)
                .arg("MAXBYTES")
                .arg(settings.history.max_bytes_per_run.as_u64())
                .arg("TTL")
                .arg(settings.history.ttl.as_secs())
                .arg("GRACE")
                .arg(settings.runs.end_grace.as_millis() as u64)
                .arg("MAXEVENT")
                .arg(settings.limits.max_event_bytes.as_u64())
                .arg("TERMINAL")
                .arg(settings.runs.terminal_statuses.join(","));
            if restart && index == 0 {
                pipe.arg("RESTART");
            }
        }
        // An error of one call is its own, not the pipeline's.
        pipe.ignore_errors();
        // The managed connection waits for Redis as long as it takes; we do not.
        let deadline = settings.redis.command_timeout;
        let answering = pipe.query_async(&mut self.connection);
        let answer: RedisResult<Vec<RedisResult<Value>>> =
            match tokio::time::timeout(deadline, answering).await {
                Ok(answer) => answer,
                Err(_) => Err((redis::ErrorKind::Io, "no answer in time").into()),
            };
        match answer {
            Ok(answers) => answers
                .into_iter()
                .map(|answer| answer.and_then(|value| read_answer(&value)))
                .collect(),
            Err(error) => events.iter().map(|_| Err(error.clone())).collect(),
        }
    }
}

impl RunStore for RedisStore {
    fn append<'a>(
        &'a self,
        run_id: &'a RunId,
        batch: AppendBatch,
    ) -> StoreFuture<'a, AppendResults> {
        Box::pin(async move { Ok(self.append_all(run_id, &batch.events, batch.restart).await) })
    }

    fn read<'a>(&'a self, _: &'a RunId, _: PageQuery) -> StoreFuture<'a, Page> {
        Box::pin(async move { Err(StoreError("not read yet".to_owned())) })
    }

    fn positions<'a>(&'a self, _: &'a [RunId]) -> StoreFuture<'a, Vec<Option<DurableId>>> {
        Box::pin(async move { Err(StoreError("not read yet".to_owned())) })
    }
}

/// Reads `["OK", id]` and its kin.
fn read_answer(value: &Value) -> RedisResult<PublishResult> {
    let (word, detail): (String, String) = redis::from_redis_value_ref(value)?;
    let unexpected = || {
        RedisError::from((
            redis::ErrorKind::UnexpectedReturnType,
            "unexpected answer of runcast_publish",
        ))
    };
    Ok(match word.as_str() {
        "OK" => Ok(Published::new(detail.parse().map_err(|_| unexpected())?)),
        "CLOSED" => Err(PublishError::Closed),
        "FENCED" => Err(PublishError::Fenced),
        "TOO_LARGE" => Err(PublishError::TooLarge {
            limit: detail.parse().map_err(|_| unexpected())?,
        }),
        _ => return Err(unexpected()),
    })
}

fn is_missing_function(error: &RedisError) -> bool {
    error
        .detail()
        .is_some_and(|detail| detail.contains("Function not found"))
        || error.to_string().contains("Function not found")
}

/// What a publisher is told of a failure: no address, no credentials.
fn unavailable(error: RedisError) -> PublishError {
    warn!(%error, "durable publish failed");
    PublishError::Unavailable(match error.detail() {
        Some(detail) => format!("{}: {detail}", error.category()),
        None => error.category().to_owned(),
    })
}
