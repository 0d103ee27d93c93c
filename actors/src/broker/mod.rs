//! [`Broker`]: the actors as a whole, and what HTTP may ask of them.

mod access;
mod client_reads;
mod explanation;
mod memory;
mod past_runs;
mod places;
mod run_list;
mod run_view;
mod settings;
mod shared;
#[cfg(test)]
mod tests;
mod types;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use arc_swap::Guard;
use memory::watch_memory;
use run_view::Quiet;
use tokio::time::timeout;

pub use explanation::{HubState, RunExplanation, StoredRun};
pub(crate) use memory::{Pressure, Shed};
pub(crate) use past_runs::PastRuns;
pub(crate) use places::StreamPlaces;
pub use places::client_network;
pub use settings::BrokerSettings;
pub use shared::BrokerShared;
use shared::QUARANTINED;
pub(crate) use shared::lock;
pub use types::*;

use crate::heartbeat::keep_clock;
use crate::history::{History, HistoryPage, HistoryQuery};
use crate::hub::{Describe, HasSeenEnd, HubEntry, HubStats};
use crate::metrics::{Exemplar, Family, Limit};
use crate::protocol::{BackendKind, Cursor, KUBECTL_RUN_ID_BYTES_MAX, Problem, RunId};
use crate::session::{CloseReason, Seat, SseSession, StreamBody};
use crate::settings::{DefaultBackend, KubectlEngine, LiveSettings};
use crate::sse::retry_block;
use crate::store::{
    AppendBatch, AppendResults, Claimed, Lease, Page, PageFrom, PageQuery, PostClaim, RunStore,
    StoreError,
};
use crate::stream_filter::FrameFilter;
use crate::worker::{Worker, WorkerMessage};

/// How long a new stream waits for Redis before it is told to come back.
const BACKEND_PATIENCE: Duration = Duration::from_secs(1);

/// How often a post asks whether another broker has published it.
const CLAIM_POLL: Duration = Duration::from_millis(50);

/// How long what is known of a run waits for its store.
const DETAIL_PATIENCE: Duration = Duration::from_secs(1);

/// How often [`Broker::drain`] looks whether all streams are closed.
const DRAIN_POLL: Duration = Duration::from_millis(20);

/// Part of the grace in which all goodbyes are said; in the rest the last
/// streams close.
const GOODBYE_SHARE: f64 = 0.8;

/// A running broker. Cheap to clone.
#[derive(Clone)]
pub struct Broker {
    shared: Arc<BrokerShared>,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").finish_non_exhaustive()
    }
}

impl Broker {
    /// Starts the actors: the core arbiter's thread with the subscriber, the
    /// hubs and the heartbeat, and one for kubectl.
    pub fn start(settings: BrokerSettings) -> Self {
        let shared = BrokerShared::new(settings);
        shared.start_store();
        shared.watch_kubectl();
        shared.core.spawn(keep_clock(Arc::clone(&shared)));
        shared.core.spawn(watch_memory(Arc::clone(&shared)));
        Self { shared }
    }

    /// A broker of these actors, which somebody else has started.
    #[cfg(feature = "bench")]
    pub(crate) fn of(shared: Arc<BrokerShared>) -> Self {
        Self { shared }
    }

    /// The settings it was started with, and where those are that may change.
    pub fn settings(&self) -> &BrokerSettings {
        &self.shared.settings
    }

    /// Those that may change, as they are now; not to be kept.
    pub fn live(&self) -> Guard<Arc<LiveSettings>> {
        self.shared.settings.live.now()
    }

    /// Counts somebody who was refused at a limit.
    pub fn refused(&self, limit: Limit) {
        self.shared.metrics.refusals.of(limit).inc();
    }

    // ---- streams -----------------------------------------------------------

    /// Opens a stream on the calling actix worker.
    ///
    /// Temporary trouble is a body, too: `retry`, `problem`, `goodbye`.
    pub async fn open_stream(&self, request: StreamRequest) -> StreamAnswer<StreamBody> {
        match self.try_open(request).await {
            Ok(answer) => answer,
            Err((problem, reason)) => {
                self.shared.metrics.sessions_refused.of(reason).inc();
                let problem = problem.retryable(true);
                let retry = self.shared.settings.live.now().retry;
                StreamAnswer::Refused {
                    body: StreamBody::failed(&problem, reason, retry),
                    problem,
                }
            }
        }
    }

    async fn try_open(
        &self,
        request: StreamRequest,
    ) -> Result<StreamAnswer<StreamBody>, (Problem, CloseReason)> {
        let shared = &self.shared;
        self.check_room()?;
        let places = self.places(&request)?;
        if request.backend == BackendKind::Redis {
            self.until_redis_is_up().await?;
        }
        if self.has_seen_end(&request).await {
            return Ok(StreamAnswer::Ended);
        }
        if !self.use_ticket(&request).await? {
            return Ok(StreamAnswer::TicketUsed);
        }
        let worker = Worker::current(shared);
        // Once more: both may have changed while we waited. From here on nothing
        // waits, so this stream is seen by a drain that comes now.
        self.check_room()?;
        // If it is revoked after this, its seat is found.
        self.check_bearer(request.bearer.as_ref())?;
        let run = worker.run(request.backend, &request.run_id);
        let run = run.map_err(|problem| self.no_hub(problem))?;
        let ends = self.ends_at(request.bearer.as_ref());
        let seat = Seat::new(FrameFilter::new(&request.filter), request.bearer);
        seat.send(retry_block(shared.settings.live.now().retry.draw_ms()));
        shared.session_opened(request.backend);
        let body = SseSession::open(seat, run, request.start, ends, places);
        Ok(StreamAnswer::Stream(body))
    }

    /// Says how a stream ends whose run gets no hub.
    fn no_hub(&self, problem: Problem) -> (Problem, CloseReason) {
        match problem.slug {
            QUARANTINED => (problem, CloseReason::Internal),
            _ => {
                self.refused(Limit::Hubs);
                (problem, CloseReason::Overload)
            }
        }
    }

    fn check_room(&self) -> Result<(), (Problem, CloseReason)> {
        if self.is_draining() {
            let problem = Problem::new(
                503,
                "draining",
                "Shutting down",
                "this broker is shutting down; connect again to reach another",
            );
            return Err((problem, CloseReason::Drain));
        }
        if self.shared.pressure.shed() >= Shed::NewStreams {
            self.refused(Limit::Memory);
            let problem = Problem::new(
                503,
                "memory-short",
                "Memory short",
                "this broker has no memory for another stream (limits.max_memory); try again later",
            );
            return Err((problem, CloseReason::Overload));
        }
        let limit = self.shared.settings.live.now().limits.max_streams;
        if self.shared.streams_open.load(Relaxed) >= limit {
            self.refused(Limit::Streams);
            let problem = Problem::new(
                503,
                "too-many-streams",
                "Too many streams",
                format!("this broker serves its limit of {limit} streams; try again later"),
            );
            return Err((problem, CloseReason::Overload));
        }
        Ok(())
    }

    fn places(&self, request: &StreamRequest) -> Result<StreamPlaces, (Problem, CloseReason)> {
        let shared = &self.shared;
        let limits = &shared.settings.live.now().limits;
        let too_many = |limit, status, detail| {
            self.refused(limit);
            let problem = Problem::new(status, "too-many-streams", "Too many streams", detail);
            (problem, CloseReason::Overload)
        };
        let address = shared.addresses.take(limits.max_streams_per_ip, || {
            request.peer.map(client_network)
        });
        let address = address.ok_or_else(|| {
            let limit = limits.max_streams_per_ip;
            let detail =
                format!("this address has its limit of {limit} streams open; close one first");
            too_many(Limit::StreamsPerIp, 429, detail)
        })?;
        let bearer = request.bearer.as_ref();
        let subject = || bearer.map(|bearer| Arc::clone(&bearer.subject));
        let subject = shared
            .subjects
            .take(limits.max_streams_per_subject, subject);
        let subject = subject.ok_or_else(|| {
            let limit = limits.max_streams_per_subject;
            let detail = format!(
                "this token's subject has its limit of {limit} streams open on this broker; close one first"
            );
            too_many(Limit::StreamsPerSubject, 429, detail)
        })?;
        let run = || Some((request.backend, request.run_id.clone()));
        let run = shared
            .streams_of_runs
            .take(limits.max_streams_per_run, run)
            .ok_or_else(|| {
                let limit = limits.max_streams_per_run;
                let detail = format!(
                    "this run has its limit of {limit} streams on this broker; try again later"
                );
                too_many(Limit::StreamsPerRun, 503, detail)
            })?;
        Ok(StreamPlaces {
            _address: address,
            _subject: subject,
            _run: run,
        })
    }

    async fn until_redis_is_up(&self) -> Result<(), (Problem, CloseReason)> {
        let link = &self.shared.redis;
        let up = tokio::time::timeout(BACKEND_PATIENCE, link.until_up()).await;
        up.map_err(|_| (link.problem(), CloseReason::Unavailable))
    }

    /// Where the events of a stream on `backend` come from at this moment.
    pub fn live_backend(&self, backend: BackendKind, run_id: &RunId) -> BackendKind {
        if backend == BackendKind::Auto && !self.redis_is_up() {
            return BackendKind::Kubectl;
        }
        let registry = &self.shared.registry;
        let live = |entry: &HubEntry| entry.stats.live_backend(backend);
        let known = registry.peek(backend, run_id.as_str(), live);
        known.unwrap_or_else(|| HubStats::default().live_backend(backend))
    }

    async fn has_seen_end(&self, request: &StreamRequest) -> bool {
        let StreamStart::After(cursor) = &request.start else {
            return false;
        };
        if !cursor.end {
            return false;
        }
        // The store knows of a restart that a hub nobody watches does not.
        if let Some(is_over) = self.is_over_at(request, cursor).await {
            return is_over;
        }
        let run_id = request.run_id.as_str();
        let asked = self.shared.registry.with(request.backend, run_id, |entry| {
            entry.hub.send(HasSeenEnd(cursor.clone()))
        });
        match asked {
            Some(answer) => answer.await.unwrap_or(false),
            None => false,
        }
    }

    /// Whether the store has closed the run for good at this cursor; `None` if
    /// it cannot tell: a status that was only published ends a run for its hub
    /// alone.
    async fn is_over_at(&self, request: &StreamRequest, cursor: &Cursor) -> Option<bool> {
        let last = cursor.id.durable()?;
        let query = PageQuery {
            from: PageFrom::After(u64::MAX),
            events_max: 1,
            bytes_max: 1,
        };
        let reading = self.shared.read_page(&request.run_id, query);
        let page = timeout(BACKEND_PATIENCE, reading).await;
        let head = page.ok().and_then(Result::ok)?.head?;
        match head.last == last {
            true => head.is_sealed().then_some(true),
            false => Some(false),
        }
    }

    // ---- publishing --------------------------------------------------------

    /// Publishes events of a run durably, in order. One result for each event.
    ///
    /// # Errors
    /// When none of them could be handed over.
    pub async fn publish(
        &self,
        run_id: RunId,
        mut batch: AppendBatch,
    ) -> BrokerResult<AppendResults> {
        let spans = &self.shared.settings.spans;
        let mut span = spans.publish(batch.trace.as_ref(), &run_id, batch.events.len());
        if let Some(span) = &span {
            // Each delivery is the child of this span.
            batch.trace = span.trace();
        }
        let appended = self.store().append(&run_id, batch).await;
        if let (Some(span), Ok(results)) = (&mut span, &appended) {
            span.note_results(results);
        }
        appended.map_err(|error| {
            Problem::new(
                503,
                "publish-failed",
                "Publish failed",
                format!("{error}; publish again"),
            )
        })
    }

    /// Claims a post with a key; waits while another broker is about to
    /// publish it, at most for as long as that may take.
    ///
    /// # Errors
    /// When the store does not answer; then nothing was published.
    pub async fn claim(&self, run_id: &RunId, claim: &PostClaim) -> BrokerResult<Claimed> {
        let patience = self.shared.settings.redis.command_timeout * 4;
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let claimed = self.store().claim(run_id, claim).await;
            let claimed = claimed
                .map_err(|error| unavailable(&error, "nothing was published, send it again"))?;
            if claimed != Claimed::Busy || tokio::time::Instant::now() >= deadline {
                return Ok(claimed);
            }
            tokio::time::sleep(CLAIM_POLL).await;
        }
    }

    /// Keeps the answer of a post claimed; `None` if it is not final. A store
    /// that does not answer keeps none: then whoever repeats the post asks its
    /// producer's numbers.
    pub async fn settle(
        &self,
        run_id: &RunId,
        claim: &PostClaim,
        lease: Lease,
        answer: Option<String>,
    ) {
        if let Err(error) = self.store().settle(run_id, claim, lease, answer).await {
            tracing::warn!(%run_id, %error, "the answer of a post with a key is not kept");
        }
    }

    // ---- history -----------------------------------------------------------

    /// Reads a page of a run's durable events, as its store keeps them.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn history(&self, query: &HistoryQuery) -> BrokerResult<HistoryPage> {
        let history = History {
            shared: &self.shared,
        };
        let page = history.page(query).await;
        page.map_err(|error| unavailable(&error, "ask again"))
    }

    fn store(&self) -> &dyn RunStore {
        let store = self.shared.store.get();
        &**store.expect("a broker has its store from its start")
    }

    // ---- what is known -----------------------------------------------------

    /// Returns what is known of a run, here and in its store; of one never seen
    /// that nothing is.
    pub async fn run(&self, run_id: &RunId) -> RunDetail {
        let settings = &self.shared.settings;
        let asked = PageQuery {
            from: PageFrom::Before(u64::MAX),
            events_max: 1,
            bytes_max: 1,
        };
        let (hub, read) = tokio::join!(
            self.describe(settings.backend(), run_id),
            timeout(DETAIL_PATIENCE, self.store().read(run_id, asked)),
        );
        let read = read.unwrap_or_else(|_| Err(StoreError("no answer in time".to_owned())));
        let (page, trouble) = match read {
            Ok(page) => (page, None),
            Err(error) => (Page::default(), Some(error.to_string())),
        };
        let is_known = hub.is_some() || page.head.is_some();
        if !is_known && let Some(run) = self.describe(BackendKind::Kubectl, run_id).await {
            return run;
        }
        let bare = match settings.live.now().streaming.default_backend {
            DefaultBackend::Kubectl => BackendKind::Kubectl,
            _ => settings.backend(),
        };
        let blank_backend = if is_known { settings.backend() } else { bare };
        let mut run = run_view::merge(hub, &page, run_view::never_seen(run_id, blank_backend));
        let trouble = self.redis_trouble().or(trouble);
        let trouble = self.with_failover(run_id, trouble);
        run.quiet_because = match run_view::why(&run, page.head.as_ref(), trouble) {
            Quiet::Settled(words) => words,
            Quiet::Publisher(words) => self.with_pods(run_id, words).await,
        };
        run
    }

    async fn describe(&self, backend: BackendKind, run_id: &RunId) -> Option<RunDetail> {
        let registry = &self.shared.registry;
        let asked = registry.peek(backend, run_id.as_str(), |entry| entry.hub.send(Describe));
        asked?.await.ok()
    }

    /// Adds that streams of `auto` go on from kubectl, if they do.
    fn with_failover(&self, run_id: &RunId, trouble: Option<String>) -> Option<String> {
        let auto = BackendKind::Auto;
        let registry = &self.shared.registry;
        let live = |entry: &HubEntry| entry.stats.live_backend(auto);
        if registry.peek(auto, run_id.as_str(), live) != Some(BackendKind::Kubectl) {
            return trouble;
        }
        let words = "streams of backend=auto go on from the logs of its pods";
        Some(match trouble {
            Some(trouble) => format!("{trouble}; {words}"),
            None => format!("Redis does not bring its events; {words}"),
        })
    }

    fn redis_trouble(&self) -> Option<String> {
        if self.shared.settings.backend() != BackendKind::Redis {
            return None;
        }
        let since = self.shared.redis_down_since()?;
        Some(format!("Redis is down since {since}"))
    }

    /// Returns who asks the cluster (`kubectl.engine`).
    pub fn kubectl_engine(&self) -> KubectlEngine {
        self.shared.settings.kubectl.engine
    }

    /// Adds how the run's pods are, if there may be any.
    async fn with_pods(&self, run_id: &RunId, words: String) -> String {
        let may_have_pods = self.shared.settings.kubectl.enabled
            && run_id.as_str().len() <= KUBECTL_RUN_ID_BYTES_MAX;
        if !may_have_pods {
            return words;
        }
        format!("{words}; {}", self.shared.pod_looks.words(run_id).await)
    }

    /// Returns how many streams of a run are open here, on any backend.
    pub fn clients(&self, run_id: &RunId) -> u64 {
        let registry = &self.shared.registry;
        let clients = |backend| registry.peek(backend, run_id.as_str(), |it| it.stats.clients());
        BackendKind::ALL.into_iter().filter_map(clients).sum()
    }

    /// State of each dependency in use, by name.
    pub fn dependencies(&self) -> Vec<(&'static str, DependencyHealth)> {
        self.shared.dependencies()
    }

    /// Whether the default backend can serve streams now.
    pub fn default_backend_usable(&self) -> bool {
        self.shared.default_backend_usable()
    }

    /// Whether Redis can serve streams now.
    pub fn redis_is_up(&self) -> bool {
        self.shared.redis.is_up()
    }

    /// Whether the process is going and takes no new streams.
    pub fn is_draining(&self) -> bool {
        self.shared.draining.load(Relaxed)
    }

    /// Whether the process is about to go, too: it serves all who come, but
    /// they had better go elsewhere.
    pub fn is_leaving(&self) -> bool {
        self.shared.leaving.load(Relaxed) || self.is_draining()
    }

    /// Takes what leads from [`DELIVERY_LAG`](crate::metrics::DELIVERY_LAG) to
    /// traces: the newest of each worker.
    pub fn take_lag_exemplars(&self) -> Vec<Exemplar> {
        self.shared.metrics.take_lag_exemplars()
    }

    /// Everything counted, for a scrape.
    pub fn families(&self) -> Vec<Family> {
        self.shared.families()
    }

    // ---- shutdown ----------------------------------------------------------

    /// Says from now on that the process is about to go.
    pub fn leave(&self) {
        self.shared.leaving.store(true, Relaxed);
    }

    /// Refuses new streams, has the open ones say `goodbye`, at most `rate` a
    /// second (0: all at once) unless `grace` is too short for that, and waits
    /// until all are closed or `grace` is over; says how many were left.
    pub async fn drain(&self, grace: Duration, rate: usize) -> usize {
        self.shared.draining.store(true, Relaxed);
        self.shared.until_hubs_had_a_turn().await;
        let streams = self.shared.streams_open.load(Relaxed);
        let over = match rate {
            0 => Duration::ZERO,
            rate => Duration::from_secs_f64(streams as f64 / rate as f64),
        };
        let over = over.min(grace.mul_f64(GOODBYE_SHARE));
        for inbox in self.shared.inboxes() {
            inbox.push(WorkerMessage::Drain(over));
        }
        let deadline = tokio::time::Instant::now() + grace;
        loop {
            let left = self.shared.streams_open.load(Relaxed);
            if left == 0 || tokio::time::Instant::now() >= deadline {
                return left;
            }
            tokio::time::sleep(DRAIN_POLL).await;
        }
    }

    /// Waits at most that long until what only this process knows is archived.
    pub async fn finish_archive(&self, patience: Duration) {
        self.shared.finish_archive(patience).await;
    }

    /// Stops the actors and ends every child process.
    pub async fn stop(&self) {
        self.shared.stop().await;
    }
}

/// The store's failure as a client is told, with what to do.
fn unavailable(error: &StoreError, advice: &str) -> Problem {
    let detail = format!("{error}; {advice}");
    Problem::new(503, "store-unavailable", "Store unavailable", detail)
}
