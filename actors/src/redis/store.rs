//! [`RedisStore`]: a stream per run, appended to and read by our Lua.

use std::sync::Arc;

use futures_util::future::try_join_all;
use redis::{Cmd, Pipeline, RedisError, RedisResult, Value};
use tokio::time::Instant;
use tracing::warn;

use super::RedisLink;
use super::connection::Connection;
use super::library::{Entry, Form, Library, Refusal};
use super::page::{read_page, read_position};
use crate::broker::{BrokerSettings, NewEvent, PublishError, PublishResult, Published};
use crate::metrics::Metrics;
use crate::protocol::{DurableId, RunId};
use crate::store::{
    AppendBatch, AppendResults, Page, PageFrom, PageQuery, RunStore, StoreError, StoreFuture,
};

/// Positions asked for at once; more wait for the answers of these.
const POSITIONS_AT_ONCE: usize = 1024;

/// Seqs stay below it: in Lua, numbers are exact up to here.
const SEQ_MAX: u64 = (1 << 53) - 1;

/// Attempts at a call: a function that is gone, then a script that is.
const ATTEMPTS_MAX: usize = 4;

/// Appends over one managed connection and reads over another, so that a long
/// batch delays neither a reader nor what the subscription brings. Cheap to
/// clone.
#[derive(Clone)]
pub struct RedisStore {
    settings: Arc<BrokerSettings>,
    link: Option<Arc<RedisLink>>,
    metrics: Arc<Metrics>,
    appends: Connection,
    reads: Connection,
    /// Redis' access lists may tell appends from reads.
    append_library: Arc<Library>,
    read_library: Arc<Library>,
}

impl RedisStore {
    /// Makes a store that connects when it is first used.
    ///
    /// # Errors
    /// When the URL of `settings.redis` cannot be understood.
    pub fn new(settings: Arc<BrokerSettings>, metrics: Arc<Metrics>) -> RedisResult<Self> {
        Ok(Self {
            appends: Connection::new(&settings.redis)?,
            reads: Connection::new(&settings.redis)?,
            append_library: Arc::default(),
            read_library: Arc::default(),
            link: None,
            settings,
            metrics,
        })
    }

    /// Lets publishes be refused at once while `link` is down.
    pub fn with_link(self, link: Arc<RedisLink>) -> Self {
        let link = Some(link);
        Self { link, ..self }
    }

    /// Loads the library, unless Redis has it or a newer one. In the
    /// background: a call that finds none loads it, too.
    pub(super) fn load_library(&self) {
        let store = self.clone();
        store.append_library.forget();
        store.read_library.forget();
        actix_rt::spawn(async move {
            let deadline = store.appends.deadline();
            if let Err(error) = store.append_library.form(&store.appends, deadline).await {
                warn!(%error, "runcast_publish not loaded; the next call tries again");
            }
        });
    }

    /// Returns the run's stream and meta.
    fn keys(&self, run_id: &RunId) -> [String; 2] {
        let prefix = &self.settings.redis.channel_prefix;
        ["stream", "meta"].map(|key| format!("{prefix}{{{run_id}}}:{key}"))
    }

    // ---- appends -----------------------------------------------------------

    /// Appends in order, in one pipeline; answers for each.
    async fn append_all(&self, run_id: &RunId, batch: &AppendBatch) -> AppendResults {
        let count = batch.events.len();
        if let Some(link) = self.link.as_ref().filter(|link| !link.is_up()) {
            let since = link.health().since;
            let down = PublishError::Unavailable(format!("Redis is down since {since}"));
            return vec![Err(down); count];
        }
        let results = self.call_publish(run_id, batch).await;
        let answers: AppendResults = results
            .into_iter()
            .map(|result| result.unwrap_or_else(|error| Err(unavailable(&error))))
            .collect();
        let failed = |answer: &&PublishResult| matches!(answer, Err(PublishError::Unavailable(_)));
        let counters = &self.metrics.redis;
        counters.publishes.add(count as u64);
        let failures = answers.iter().filter(failed).count();
        counters.publish_failures.add(failures as u64);
        answers
    }

    async fn call_publish(
        &self,
        run_id: &RunId,
        batch: &AppendBatch,
    ) -> Vec<RedisResult<PublishResult>> {
        let deadline = self.appends.deadline();
        let mut results = Vec::new();
        let mut form = self.append_library.form(&self.appends, deadline).await;
        for _ in 0..ATTEMPTS_MAX {
            let answers = match form {
                Ok(form) => {
                    let calls = self.publish_calls(run_id, batch, results.len(), form);
                    self.appends.pipeline(calls, deadline).await
                }
                Err(ref error) => Err(error.clone()),
            };
            match answers {
                Ok(answers) => results.extend(answers.into_iter().map(read_published)),
                Err(error) => {
                    let failed = batch.events.len() - results.len();
                    results.extend(vec![error; failed].into_iter().map(Err));
                }
            }
            // What Redis did not even begin is tried again, unless it accepted
            // an event after it: order is worth more.
            let Some((begun, refusal)) = refused_tail(&results) else {
                break;
            };
            let Ok(refused) = form else { break };
            let next = self.append_library.next_form(
                Entry::Publish,
                refused,
                refusal,
                &self.appends,
                deadline,
            );
            form = match next.await {
                Ok(Some(form)) => Ok(form),
                Ok(None) => break,
                Err(error) => Err(error),
            };
            results.truncate(begun);
        }
        results
    }

    /// The calls for the events of `batch` from `begin` on.
    fn publish_calls(
        &self,
        run_id: &RunId,
        batch: &AppendBatch,
        begin: usize,
        form: Form,
    ) -> Pipeline {
        let keys = self.keys(run_id);
        let options = PublishOptions::new(&self.settings);
        // One that is refused for its size begins nothing.
        let bytes_max = self.settings.limits.max_event_bytes.as_u64();
        let fits = |event: &NewEvent| event.payload.len() as u64 <= bytes_max;
        let restart_at = batch.events.iter().position(fits).filter(|_| batch.restart);
        let mut pipe = Pipeline::with_capacity(batch.events.len() - begin);
        for (index, event) in batch.events.iter().enumerate().skip(begin) {
            // One that brings the source along serves for all after it.
            let form = match form {
                Form::Source if index > begin => Form::Hash,
                form => form,
            };
            let mut call = self.append_library.command(Entry::Publish, form, &keys);
            call.arg(run_id.as_str())
                .arg(event.kind.as_str())
                .arg(&event.source)
                .arg(&event.payload[..]);
            options.add_to(&mut call);
            if restart_at == Some(index) {
                call.arg("RESTART");
            }
            if let Some(producer) = &batch.producer {
                let seq = producer.first_seq.saturating_add(index as u64);
                call.arg("PRODUCER").arg(&producer.id);
                call.arg(producer.epoch).arg(seq);
            }
            pipe.add_command(call);
        }
        pipe
    }

    // ---- reads -------------------------------------------------------------

    async fn read_page(&self, run_id: &RunId, query: PageQuery) -> RedisResult<Page> {
        let keys = self.keys(run_id);
        let (direction, seq) = match query.from {
            PageFrom::After(seq) => ("after", seq),
            PageFrom::Before(seq) => ("before", seq),
        };
        let deadline = self.reads.deadline();
        let mut form = self.read_library.form(&self.reads, deadline).await?;
        let mut attempts = 0;
        loop {
            let mut call = self.read_library.command(Entry::Read, form, &keys);
            call.arg(direction)
                .arg(seq.min(SEQ_MAX))
                .arg(query.events_max.max(1))
                .arg(query.bytes_max);
            let error = match self.reads.query(&call, deadline).await {
                Ok(answer) => return Ok(read_page(answer)?),
                Err(error) => error,
            };
            attempts += 1;
            let Some(refusal) = Refusal::of(&error).filter(|_| attempts < ATTEMPTS_MAX) else {
                return Err(error);
            };
            let next =
                self.read_library
                    .next_form(Entry::Read, form, refusal, &self.reads, deadline);
            form = next.await?.ok_or(error)?;
        }
    }

    /// Each run's call is its own, since on a cluster their keys lie apart;
    /// the connection sends together what is asked together.
    async fn read_positions(&self, run_ids: &[RunId]) -> RedisResult<Vec<Option<DurableId>>> {
        let mut positions = Vec::with_capacity(run_ids.len());
        for chunk in run_ids.chunks(POSITIONS_AT_ONCE) {
            let deadline = self.reads.deadline();
            let asked = chunk
                .iter()
                .map(|run_id| self.read_position(run_id, deadline));
            positions.extend(try_join_all(asked).await?);
        }
        Ok(positions)
    }

    async fn read_position(
        &self,
        run_id: &RunId,
        deadline: Instant,
    ) -> RedisResult<Option<DurableId>> {
        let [_, meta] = self.keys(run_id);
        let mut call = redis::cmd("HMGET");
        call.arg(meta).arg("e").arg("s").arg("u");
        Ok(read_position(self.reads.query(&call, deadline).await?)?)
    }
}

impl RunStore for RedisStore {
    fn append<'a>(
        &'a self,
        run_id: &'a RunId,
        batch: AppendBatch,
    ) -> StoreFuture<'a, AppendResults> {
        Box::pin(async move { Ok(self.append_all(run_id, &batch).await) })
    }

    fn read<'a>(&'a self, run_id: &'a RunId, query: PageQuery) -> StoreFuture<'a, Page> {
        Box::pin(async move {
            let counters = &self.metrics.store;
            counters.reads.inc();
            let page = self.read_page(run_id, query).await;
            match &page {
                Ok(page) => counters.read_events.add(page.events.len() as u64),
                Err(_) => counters.read_failures.inc(),
            }
            page.map_err(|error| failed("history not read", &error))
        })
    }

    fn positions<'a>(&'a self, run_ids: &'a [RunId]) -> StoreFuture<'a, Vec<Option<DurableId>>> {
        Box::pin(async move {
            self.metrics.store.checks.inc();
            let positions = self.read_positions(run_ids).await;
            positions.map_err(|error| {
                self.metrics.store.read_failures.inc();
                failed("positions not read", &error)
            })
        })
    }
}

/// The options of every publish, from the settings.
struct PublishOptions {
    numbers: [(&'static str, u64); 5],
    terminal: String,
}

impl PublishOptions {
    fn new(settings: &BrokerSettings) -> Self {
        let (history, runs) = (&settings.history, &settings.runs);
        Self {
            numbers: [
                ("MAXLEN", history.max_events),
                ("MAXBYTES", history.max_bytes_per_run.as_u64()),
                ("TTL", history.ttl.as_secs()),
                ("GRACE", runs.end_grace.as_millis() as u64),
                ("MAXEVENT", settings.limits.max_event_bytes.as_u64()),
            ],
            terminal: runs.terminal_statuses.join(","),
        }
    }

    fn add_to(&self, call: &mut Cmd) {
        for (name, value) in self.numbers {
            call.arg(name).arg(value);
        }
        call.arg("TERMINAL").arg(&self.terminal);
    }
}

/// Finds the events at the end of a batch that Redis did not even begin.
fn refused_tail(results: &[RedisResult<PublishResult>]) -> Option<(usize, Refusal)> {
    let refusal = |result: &RedisResult<PublishResult>| Refusal::of(result.as_ref().err()?);
    let last = refusal(results.last()?)?;
    let refused = results.iter().rev().map(refusal);
    let count = refused.take_while(|refusal| *refusal == Some(last)).count();
    Some((results.len() - count, last))
}

/// Reads `["OK", id]` and its kin.
fn read_published(answer: RedisResult<Value>) -> RedisResult<PublishResult> {
    let (word, detail): (String, String) = redis::from_redis_value(answer?)?;
    let unexpected = || {
        RedisError::from((
            redis::ErrorKind::UnexpectedReturnType,
            "unexpected answer of runcast_publish",
        ))
    };
    let id = || detail.parse().map_err(|_| unexpected());
    Ok(match word.as_str() {
        "OK" => Ok(Published::new(id()?)),
        "DUP" => Ok(Published {
            id: if detail.is_empty() { None } else { Some(id()?) },
            is_duplicate: true,
        }),
        "CLOSED" => Err(PublishError::Closed),
        "FENCED" => Err(PublishError::Fenced),
        "TOO_LARGE" => Err(PublishError::TooLarge {
            limit: detail.parse().map_err(|_| unexpected())?,
        }),
        _ => return Err(unexpected()),
    })
}

fn unavailable(error: &RedisError) -> PublishError {
    warn!(%error, "durable publish failed");
    PublishError::Unavailable(in_short(error))
}

fn failed(what: &str, error: &RedisError) -> StoreError {
    warn!(%error, "{what}");
    StoreError(in_short(error))
}

/// What others are told of a failure: no address, no credentials.
fn in_short(error: &RedisError) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.category()),
        None => error.category().to_owned(),
    }
}
