//! [`RedisStore`]: a stream per run, appended to and read by our Lua.

use std::ops::Range;
use std::sync::Arc;

use redis::{Cmd, RedisError, RedisResult, Value};
use tracing::warn;

use super::RedisLink;
use super::claims::Claims;
use super::connection::{Connection, Repeat};
use super::library::{Entry, Form, Library, Refusal};
use super::page::{read_page, read_position};
use super::recorder::RecorderLease;
use crate::broker::{BrokerSettings, NewEvent, PublishError, PublishResult, Published};
use crate::metrics::Metrics;
use crate::protocol::{DurableId, RunId};
use crate::store::{
    AppendBatch, AppendResults, Claimed, Lease, Page, PageFrom, PageQuery, PostClaim, RunStore,
    StoreError, StoreFuture,
};

/// Positions asked for at once; more wait for the answers of these.
const POSITIONS_AT_ONCE: usize = 1024;

/// Seqs stay below it: in Lua, numbers are exact up to here.
const SEQ_MAX: u64 = (1 << 53) - 1;

/// Attempts at a call: a function that is gone, then a script that is.
const ATTEMPTS_MAX: usize = 4;

/// Appends over connections of its own and reads over others, so that a long
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
    pub fn new(settings: Arc<BrokerSettings>, metrics: Arc<Metrics>) -> Self {
        Self {
            appends: Connection::new(&settings.redis),
            reads: Connection::new(&settings.redis),
            append_library: Arc::default(),
            read_library: Arc::default(),
            link: None,
            settings,
            metrics,
        }
    }

    /// Makes it a broker's: publishes are refused at once while `link` is down,
    /// and the library announces events as the settings say.
    pub fn with_link(self, link: Arc<RedisLink>) -> Self {
        let sharded = self.settings.redis.announces_to_shards();
        Self {
            link: Some(link),
            append_library: Arc::new(Library::sharded(sharded)),
            read_library: Arc::new(Library::sharded(sharded)),
            ..self
        }
    }

    pub(super) fn settings(&self) -> &BrokerSettings {
        &self.settings
    }

    /// The connections that write.
    pub(super) fn appends(&self) -> &Connection {
        &self.appends
    }

    /// The connections that read.
    pub(super) fn reads(&self) -> &Connection {
        &self.reads
    }

    /// Has the server looked for anew before the next call: it may be another.
    pub(super) fn reconnect(&self) {
        self.appends.reconnect();
        self.reads.reconnect();
    }

    /// Makes the lease of a recorder, asked for where events are appended.
    pub(super) fn recorder_lease(&self) -> RecorderLease {
        let settings = &self.settings;
        RecorderLease::new(self.appends.clone(), &settings.redis, settings.history.ttl)
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
    pub(super) fn keys(&self, run_id: &RunId) -> [String; 2] {
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
        let mut span = self.settings.spans.call(batch.trace.as_ref(), count);
        let results = self.call_publish(run_id, batch).await;
        let answers: AppendResults = results
            .into_iter()
            .map(|result| result.unwrap_or_else(|error| Err(unavailable(&error))))
            .collect();
        if let Some(span) = &mut span {
            span.note_results(&answers);
        }
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
        let (library, deadline) = (&self.append_library, self.appends.deadline());
        let count = batch.events.len();
        // A producer's number tells a second time from another event; to begin
        // a run anew a second time is another thing again.
        let repeat = match batch.producer.is_some() && !batch.restart {
            true => Repeat::Allowed,
            false => Repeat::Refused,
        };
        let mut results = Vec::with_capacity(count);
        let mut form = match library.form(&self.appends, deadline).await {
            Ok(form) => form,
            Err(error) => return vec![error; count].into_iter().map(Err).collect(),
        };
        let mut attempts = 0;
        while results.len() < count {
            let begin = results.len();
            let end = begin.saturating_add(library.calls_together()).min(count);
            let calls = self.publish_calls(run_id, batch, begin..end, form);
            let answering = self.appends.pipeline(run_id, calls, repeat, deadline);
            results.extend(answering.await.into_iter().map(read_published));
            library.note_answered(results[begin..].iter().all(Result::is_ok));
            let refused = refused_tail(&results[begin..]);
            attempts += usize::from(refused.is_some());
            if let Some((begun, refusal)) = refused
                && attempts < ATTEMPTS_MAX
                && let Ok(Some(next)) = library
                    .next_form(Entry::Publish, form, refusal, &self.appends, deadline)
                    .await
            {
                form = next;
                results.truncate(begin + begun);
            } else if let Some(Err(error)) = results.last() {
                // What follows an event that failed is not tried before it.
                let error = error.clone();
                results.resize_with(count, || Err(error.clone()));
            }
        }
        results
    }

    /// The calls for some events of `batch`.
    fn publish_calls(
        &self,
        run_id: &RunId,
        batch: &AppendBatch,
        part: Range<usize>,
        form: Form,
    ) -> Vec<Cmd> {
        let keys = self.keys(run_id);
        let options = PublishOptions::new(&self.settings);
        let trace = batch.trace.as_ref().map(ToString::to_string);
        // One that is refused for its size begins nothing.
        let bytes_max = self.settings.live.now().limits.max_event_bytes.as_u64();
        let fits = |event: &NewEvent| event.payload.len() as u64 <= bytes_max;
        let restart_at = batch.events.iter().position(fits).filter(|_| batch.restart);
        let mut calls = Vec::with_capacity(part.len());
        for index in part.clone() {
            let event = &batch.events[index];
            // One that brings the source along serves for all after it.
            let form = match form {
                Form::Source if index > part.start => Form::Hash,
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
            if let Some(trace) = &trace {
                call.arg("TRACE").arg(trace);
            }
            calls.push(call);
        }
        calls
    }

    fn claims(&self) -> Claims<'_> {
        Claims {
            connection: &self.appends,
            settings: &self.settings.redis,
        }
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
            let answering = self.reads.query(run_id, call, Repeat::Allowed, deadline);
            let error = match answering.await {
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

    async fn read_positions(&self, run_ids: &[RunId]) -> RedisResult<Vec<Option<DurableId>>> {
        let mut positions = Vec::with_capacity(run_ids.len());
        for chunk in run_ids.chunks(POSITIONS_AT_ONCE) {
            let deadline = self.reads.deadline();
            let calls = chunk
                .iter()
                .map(|run_id| (run_id, self.position_call(run_id)));
            for answer in self.reads.read_each(calls, deadline).await {
                positions.push(read_position(answer?)?);
            }
        }
        Ok(positions)
    }

    fn position_call(&self, run_id: &RunId) -> Cmd {
        let [_, meta] = self.keys(run_id);
        let mut call = redis::cmd("HMGET");
        call.arg(meta).arg("e").arg("s").arg("u");
        call
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

    fn claim<'a>(&'a self, run_id: &'a RunId, claim: &'a PostClaim) -> StoreFuture<'a, Claimed> {
        Box::pin(async move {
            let claimed = self.claims().claim(run_id, claim).await;
            claimed.map_err(|error| failed("post not claimed", &error))
        })
    }

    fn settle<'a>(
        &'a self,
        run_id: &'a RunId,
        claim: &'a PostClaim,
        lease: Lease,
        answer: Option<String>,
    ) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let settled = self.claims().settle(run_id, claim, lease, answer).await;
            settled.map_err(|error| failed("post not settled", &error))
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
                (
                    "MAXEVENT",
                    settings.live.now().limits.max_event_bytes.as_u64(),
                ),
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

/// Finds the events at the end of a pipeline that Redis did not even begin.
/// One that it refused before others it accepted stays refused: order is worth
/// more.
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

pub(super) fn failed(what: &str, error: &RedisError) -> StoreError {
    warn!(%error, "{what}");
    StoreError(in_short(error))
}

/// What others are told of a failure: no address, no credentials.
fn in_short(error: &RedisError) -> String {
    let what = error.code().unwrap_or_else(|| error.category());
    match error.detail() {
        Some(detail) => format!("{what}: {detail}"),
        None => what.to_owned(),
    }
}
