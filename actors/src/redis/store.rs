//! [`RedisStore`]: a stream per run, appended to through `runcast_publish`.

use std::sync::Arc;

use redis::{RedisError, RedisResult, Value};
use tracing::{info, warn};

use super::RedisLink;
use super::connection::{Connection, Master, Repeat};
use crate::broker::{BrokerSettings, NewEvent, PublishError, PublishResult, Published};
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
    link: Option<Arc<RedisLink>>,
    metrics: Arc<Metrics>,
    connection: Connection,
}

impl RedisStore {
    /// Makes a store that connects when it is first used.
    pub fn new(settings: Arc<BrokerSettings>, metrics: Arc<Metrics>) -> Self {
        Self {
            connection: Connection::new(&settings.redis),
            link: None,
            settings,
            metrics,
        }
    }

    /// Lets publishes be refused at once while `link` is down.
    pub fn with_link(self, link: Arc<RedisLink>) -> Self {
        let link = Some(link);
        Self { link, ..self }
    }

    /// Loads the library, unless Redis has it or a newer one. In the
    /// background: a publish that finds none loads it, too.
    pub(super) fn load_function(&self) {
        let store = self.clone();
        actix_rt::spawn(async move {
            if let Err(error) = store.ensure_function().await {
                warn!(%error, "runcast_publish not loaded; durable publishes will fail");
            }
        });
    }

    async fn ensure_function(&self) -> RedisResult<()> {
        let deadline = self.connection.deadline();
        for master in self.connection.masters(deadline).await? {
            ensure_function_on(&master).await?;
        }
        Ok(())
    }

    /// Appends `events` in order, in one pipeline; answers for each.
    async fn append_all(
        &self,
        run_id: &RunId,
        events: &[NewEvent],
        restart: bool,
    ) -> Vec<PublishResult> {
        if let Some(link) = self.link.as_ref().filter(|link| !link.is_up()) {
            let since = link.health().since;
            let down = PublishError::Unavailable(format!("Redis is down since {since}"));
            return events.iter().map(|_| Err(down.clone())).collect();
        }
        let mut results = self.call(run_id, events, restart).await;
        // After a restart without its data Redis has no functions; nothing of
        // the batch was accepted then.
        if results
            .iter()
            .all(|result| matches!(result, Err(error) if is_missing_function(error)))
            && self.ensure_function().await.is_ok()
        {
            results = self.call(run_id, events, restart).await;
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
        &self,
        run_id: &RunId,
        events: &[NewEvent],
        restart: bool,
    ) -> Vec<RedisResult<PublishResult>> {
        let settings = &self.settings;
        let prefix = &settings.redis.channel_prefix;
        let mut commands = Vec::with_capacity(events.len());
        for (index, event) in events.iter().enumerate() {
            let mut command = redis::cmd("FCALL");
            command
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
                command.arg("RESTART");
            }
            commands.push(command);
        }
        let deadline = self.connection.deadline();
        let answers = self
            .connection
            .pipeline(run_id, commands, Repeat::Refused, deadline)
            .await;
        answers
            .into_iter()
            .map(|answer| answer.and_then(|value| read_answer(&value)))
            .collect()
    }
}

/// Loads the library into one server, unless it has it or a newer one.
async fn ensure_function_on(master: &Master) -> RedisResult<()> {
    let mut ask = redis::cmd("FCALL_RO");
    ask.arg("runcast_version").arg(0);
    let known: RedisResult<i64> = master.query(ask).await;
    if matches!(known, Ok(version) if version >= LIBRARY_VERSION) {
        return Ok(());
    }
    let mut load = redis::cmd("FUNCTION");
    load.arg("LOAD").arg("REPLACE").arg(LIBRARY);
    master.query::<Value>(load).await?;
    info!(version = LIBRARY_VERSION, "runcast_publish loaded");
    Ok(())
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
