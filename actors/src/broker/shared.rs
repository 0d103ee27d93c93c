//! [`BrokerShared`]: what the actors of one broker share.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use actix::prelude::*;
use actix_rt::{Arbiter, ArbiterHandle};
use futures_util::future::join_all;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;
use tracing::{debug, error, warn};

use super::client_reads::ClientReads;
use super::places::Places;
use super::{BrokerSettings, DependencyHealth, PastRuns, Pressure};
use crate::access::{
    AccessStore, MemoryAccess, Revocation, RevocationNews, Revocations, keep_revocations,
};
use crate::archive::{ArchiveDuty, ArchivedStore, Archivist, archived_for, keep_archive};
use crate::hub::{
    Arrived, Attach, CheckNow, HubEntry, HubStats, Incoming, PositionChecker, Quarantine, Refused,
    Registry, RunHub,
};
use crate::kubectl::{
    Engine, FollowPermits, KubectlCounters, KubectlFollow, KubectlHealth, KubectlLogActor,
    KubectlUpdate, PodLooks, Stop, watch_health,
};
use crate::memory_store::MemoryStore;
use crate::metrics::{EventResult, Family, Metrics};
use crate::protocol::{BackendKind, DurableId, Problem, RunId, Timestamp};
use crate::redis::{
    Leave, Look, Recorder, RedisLink, RedisStore, RedisSubscriber, Resubscribe, ShardSubscriber,
    Watch,
};
use crate::session::CloseReason;
use crate::settings::DefaultBackend;
use crate::store::{Page, PageQuery, RunStore, StoreError, StoredEvent};
use crate::worker::{AttachId, Inbox, WorkerMessage};

/// How often the embedded store looks for histories that have expired.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// Type of the problem of a run that is not served for a while.
pub(crate) const QUARANTINED: &str = "run-quarantined";

/// How long a run that has live events waits for the archive.
const ARCHIVE_PATIENCE: Duration = Duration::from_millis(500);

/// How long giving up the recorder's lease may delay the end.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// State that the actors of one broker share: immutable, atomic, or behind a
/// lock that is not on the path of an event.
pub struct BrokerShared {
    /// What the broker was started with.
    pub settings: Arc<BrokerSettings>,
    /// Everything counted.
    pub metrics: Arc<Metrics>,
    /// Which hubs there are.
    pub registry: Registry,
    /// What is left of those that were.
    pub(crate) past_runs: PastRuns,
    /// State of the link to Redis.
    pub redis: Arc<RedisLink>,
    /// Set once, when the broker starts.
    pub(crate) store: OnceLock<Arc<dyn RunStore>>,
    /// The same without what is archived; set with it.
    kept: OnceLock<Arc<dyn RunStore>>,
    /// Set with it, if there is an archive.
    archivist: OnceLock<Arc<Archivist>>,
    archive_arbiter: OnceLock<ArbiterHandle>,
    /// Bounds the pages that are read for clients, of streams and of pages.
    reads: ClientReads,
    /// Bounds those for hubs, which must not wait behind a herd of clients.
    hub_reads: Semaphore,
    checker: Mutex<Option<Addr<PositionChecker>>>,
    /// Thread of the subscriber, the hubs and the heartbeat.
    pub(crate) core: ArbiterHandle,
    /// Thread of the kubectl actors and their pipes or connections: a flood of
    /// lines there delays no other run.
    kubectl_arbiter: ArbiterHandle,
    kubectl_counters: Arc<KubectlCounters>,
    kubectl_permits: Arc<FollowPermits>,
    kubectl_engine: Engine,
    pub(crate) kubectl_health: KubectlHealth,
    pub(crate) pod_looks: PodLooks,
    follows: Mutex<Vec<Addr<KubectlLogActor>>>,
    subscriber: Mutex<Option<Addr<RedisSubscriber>>>,
    shards: Mutex<Option<Addr<ShardSubscriber>>>,
    recorder: Mutex<Option<Addr<Recorder>>>,
    is_told_twice: AtomicBool,
    inboxes: Mutex<Vec<Arc<Inbox>>>,
    pub(crate) draining: AtomicBool,
    /// The process is about to go.
    pub(crate) leaving: AtomicBool,
    pub(crate) streams_open: AtomicUsize,
    /// Set with `store`.
    access: OnceLock<Arc<dyn AccessStore>>,
    /// Whose tokens count no more.
    pub(crate) revocations: Revocations,
    pub(crate) revocation_news: RevocationNews,
    quarantine: Quarantine,
    pub(crate) pressure: Pressure,
    pub(crate) addresses: Arc<Places<IpAddr>>,
    pub(crate) subjects: Arc<Places<Arc<str>>>,
    pub(crate) streams_of_runs: Arc<Places<(BackendKind, RunId)>>,
}

impl BrokerShared {
    pub(crate) fn new(settings: BrokerSettings) -> Arc<Self> {
        Self::on_arbiters(settings, Arbiter::new().handle(), Arbiter::new().handle())
    }

    /// Makes it for actors on threads that there are already.
    pub(crate) fn on_arbiters(
        settings: BrokerSettings,
        core: ArbiterHandle,
        kubectl_arbiter: ArbiterHandle,
    ) -> Arc<Self> {
        let kubectl_counters: Arc<KubectlCounters> = Arc::default();
        Arc::new(Self {
            metrics: Arc::default(),
            registry: Registry::new(settings.hub.max_hubs),
            past_runs: PastRuns::new(settings.hub.max_past_runs, settings.history.ttl),
            redis: Arc::default(),
            store: OnceLock::new(),
            kept: OnceLock::new(),
            archivist: OnceLock::new(),
            archive_arbiter: OnceLock::new(),
            reads: ClientReads::new(&settings.history, settings.live.clone()),
            hub_reads: Semaphore::new(settings.history.max_reads.max(1)),
            checker: Mutex::default(),
            core,
            kubectl_arbiter,
            pod_looks: PodLooks::new(&settings.kubectl, Arc::clone(&kubectl_counters)),
            kubectl_counters,
            kubectl_permits: Arc::new(FollowPermits::new(settings.kubectl.max_follows)),
            kubectl_engine: Engine::new(settings.kubectl.clone()),
            kubectl_health: KubectlHealth::default(),
            follows: Mutex::default(),
            subscriber: Mutex::default(),
            shards: Mutex::default(),
            recorder: Mutex::default(),
            is_told_twice: AtomicBool::new(false),
            inboxes: Mutex::default(),
            draining: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            streams_open: AtomicUsize::new(0),
            access: OnceLock::new(),
            revocations: Revocations::new(settings.access.clone()),
            revocation_news: RevocationNews::default(),
            quarantine: Quarantine::new(settings.hub.max_panics, settings.hub.quarantine),
            pressure: Pressure::default(),
            addresses: Arc::default(),
            subjects: Arc::default(),
            streams_of_runs: Arc::default(),
            settings: Arc::new(settings),
        })
    }

    // ---- hubs --------------------------------------------------------------

    /// Calls `send` with the hub of a run, made if there is none; `None` when
    /// hubs are at their limit and all of them watched, or the run is in
    /// quarantine.
    pub(crate) fn with_hub<T>(
        self: &Arc<Self>,
        backend: BackendKind,
        run_id: &RunId,
        send: impl FnOnce(&HubEntry) -> T,
    ) -> Option<T> {
        let make = || {
            if self.quarantine.holds(backend, run_id, Instant::now()) {
                return None;
            }
            let stats = Arc::new(HubStats::default());
            let (shared, hub_run_id, hub_stats) =
                (Arc::clone(self), run_id.clone(), Arc::clone(&stats));
            let hub = RunHub::start_in_arbiter(&self.core, move |_| {
                RunHub::new(shared, hub_run_id, backend, hub_stats)
            });
            Some(HubEntry { hub, stats })
        };
        self.registry.with_or_make(backend, run_id, make, send)
    }

    /// Attaches a worker to the hub of a run.
    ///
    /// # Errors
    /// When there is no room for another hub.
    pub(crate) fn attach_hub(
        self: &Arc<Self>,
        backend: BackendKind,
        run_id: &RunId,
        attach_id: AttachId,
        inbox: Arc<Inbox>,
    ) -> Result<(Addr<RunHub>, Arc<HubStats>), Problem> {
        self.with_hub(backend, run_id, |entry| {
            #[expect(
                clippy::disallowed_methods,
                reason = "one per attachment, and it must not be refused"
            )]
            entry.hub.do_send(Attach {
                attach_id,
                inbox: Some(inbox),
            });
            entry.stats.add_attachment();
            (entry.hub.clone(), Arc::clone(&entry.stats))
        })
        .ok_or_else(|| self.no_hub(backend, run_id))
    }

    /// Why a run that has no hub gets none.
    pub(crate) fn no_hub(&self, backend: BackendKind, run_id: &RunId) -> Problem {
        match self.quarantine.holds(backend, run_id, Instant::now()) {
            true => quarantined(),
            false => too_many_runs(),
        }
    }

    /// Notes that a hub ended by a panic.
    pub(crate) fn hub_panicked(&self, backend: BackendKind, run_id: &RunId) {
        self.metrics.hub_panics.inc();
        if self.quarantine.note(backend, run_id, Instant::now()) {
            error!(%run_id, %backend, "its hub panicked again and again: the run is not served for a while");
        }
    }

    // ---- workers and sessions ----------------------------------------------

    pub(crate) fn add_inbox(&self, bytes_max: usize) -> Arc<Inbox> {
        let inbox = Arc::new(Inbox::new(bytes_max));
        lock(&self.inboxes).push(Arc::clone(&inbox));
        inbox
    }

    pub(crate) fn inboxes(&self) -> Vec<Arc<Inbox>> {
        lock(&self.inboxes).clone()
    }

    pub(crate) fn session_opened(&self, backend: BackendKind) {
        self.streams_open.fetch_add(1, Relaxed);
        self.metrics.sessions_open.of(backend).add(1);
        self.metrics.sessions_opened.of(backend).inc();
    }

    pub(crate) fn session_closed(&self, backend: BackendKind, reason: CloseReason) {
        self.streams_open.fetch_sub(1, Relaxed);
        self.metrics.sessions_open.of(backend).sub(1);
        self.metrics.sessions_closed.of(backend).of(reason).inc();
    }

    // ---- Redis -------------------------------------------------------------

    /// Opens the store, and the subscription if it is Redis.
    pub(crate) fn start_store(self: &Arc<Self>) {
        let (store, duty): (Arc<dyn RunStore>, Arc<dyn ArchiveDuty>) = match self.settings.backend()
        {
            BackendKind::Redis => {
                let store = self.redis_store();
                self.start_subscriber(store.clone());
                self.start_shards(store.clone());
                // Nobody else sets them.
                let _ = self.access.set(Arc::new(store.clone()));
                (Arc::new(store.clone()), Arc::new(store))
            }
            BackendKind::Embedded | BackendKind::Kubectl | BackendKind::Auto => {
                let access = MemoryAccess::new(&self.settings.access);
                let _ = self.access.set(Arc::new(access));
                let store = self.start_memory_store();
                (Arc::clone(&store) as _, store)
            }
        };
        let _ = self.kept.set(Arc::clone(&store));
        let store = match self.settings.archive.is_on() {
            true => Arc::new(self.start_archive(store, duty)),
            false => store,
        };
        let _ = self.store.set(store);
        if self.settings.access.enabled {
            let shared = Arc::clone(self);
            self.core.spawn_fn(move || {
                actix_rt::spawn(keep_revocations(shared));
            });
        }
        self.start_checker();
    }

    fn start_checker(self: &Arc<Self>) {
        let shared = Arc::clone(self);
        let checker =
            Supervisor::start_in_arbiter(&self.core, move |_| PositionChecker::new(shared));
        *lock(&self.checker) = Some(checker);
    }

    /// Replaces a checker that panicked.
    pub(crate) fn watch_checker(self: &Arc<Self>) {
        let died = lock(&self.checker)
            .as_ref()
            .is_some_and(|checker| !checker.connected());
        if died && !self.draining.load(Relaxed) {
            error!("the position checker died and is replaced");
            self.metrics.actor_restarts.inc();
            self.start_checker();
            // What it was about to do is not known.
            self.check_positions();
        }
    }

    /// Starts the archive on an arbiter of its own, and puts it behind `store`.
    fn start_archive(
        self: &Arc<Self>,
        store: Arc<dyn RunStore>,
        duty: Arc<dyn ArchiveDuty>,
    ) -> ArchivedStore {
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let arbiter = Arbiter::with_tokio_rt(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime like every arbiter's");
            // Whoever waits for it is below.
            let _ = tell.send(runtime.handle().clone());
            runtime
        });
        let runtime = told
            .recv()
            .expect("an arbiter has a runtime when it is made");
        let archivist = Arc::new(Archivist::new(
            &self.settings.archive,
            self.settings.runs.end_grace,
            Arc::clone(&self.metrics),
            runtime,
        ));
        let _ = self.archive_arbiter.set(arbiter.handle());
        let _ = self.archivist.set(Arc::clone(&archivist));
        let (shared, kept) = (Arc::clone(self), Arc::clone(&archivist));
        arbiter.spawn_fn(move || {
            actix_rt::spawn(keep_archive(shared, kept, duty));
        });
        ArchivedStore { store, archivist }
    }

    /// Notes that a run ends whose store may say so: it is to be archived.
    pub(crate) fn note_end(&self, run_id: &RunId, epoch: Option<u64>) {
        if let Some(archivist) = self.archivist.get() {
            archivist.ends(run_id, epoch);
        }
    }

    /// Starts a store in memory that hands what it accepts to hubs.
    fn start_memory_store(self: &Arc<Self>) -> Arc<MemoryStore> {
        let shared = Arc::downgrade(self);
        let sink = move |run_id: &RunId, events: Vec<StoredEvent>| {
            if let Some(shared) = shared.upgrade() {
                shared.hand_over(run_id, events);
            }
        };
        let metrics = Arc::clone(&self.metrics);
        let store = Arc::new(MemoryStore::new(&self.settings, metrics, Box::new(sink)));
        let swept = Arc::downgrade(&store);
        self.core.spawn(async move {
            while let Some(store) = swept.upgrade() {
                store.sweep();
                drop(store);
                tokio::time::sleep(SWEEP_INTERVAL).await;
            }
        });
        store
    }

    /// Sends what the store in memory accepted to the run's hub. A hub that
    /// takes it not, or none, reads it when it is wanted.
    fn hand_over(self: &Arc<Self>, run_id: &RunId, events: Vec<StoredEvent>) {
        let messages = events.into_iter().map(Incoming::Stored).collect();
        let sent = self.with_hub(BackendKind::Embedded, run_id, |entry| {
            let batch = Arrived {
                refused_before: entry.stats.take_refused(),
                messages,
                received_at: Instant::now(),
            };
            if let Err(refused) = entry.hub.try_send(batch) {
                self.metrics.mailbox_refusals.inc();
                let (SendError::Full(batch) | SendError::Closed(batch)) = refused;
                entry
                    .stats
                    .refuse(batch.refused_before.and(Refused::UNKNOWN));
                for message in &batch.messages {
                    self.metrics.event_in(message.kind(), EventResult::Refused);
                }
            }
        });
        if sent.is_none() {
            debug!(%run_id, "no room for another hub");
        }
    }

    // ---- history -----------------------------------------------------------

    fn store(&self) -> &dyn RunStore {
        let store = self.store.get();
        &**store.expect("a broker has its store from its start")
    }

    /// The store, without what is archived.
    fn kept(&self) -> &dyn RunStore {
        let kept = self.kept.get().or(self.store.get());
        &**kept.expect("a broker has its store from its start")
    }

    /// Reads a page of a run for a client, when `history.max_reads` and
    /// `history.read_rate` let it.
    ///
    /// # Errors
    /// When the store does not answer in time.
    pub(crate) async fn read_page(
        &self,
        run_id: &RunId,
        query: PageQuery,
    ) -> Result<Page, StoreError> {
        let page = self.read_kept_page(run_id, query).await?;
        // Its place is free again: who waits for an archive that is slow keeps
        // nobody from live runs.
        let Some(archived) = self.read_archived(run_id, query, &page).await? else {
            return Ok(page);
        };
        self.reads.took(&archived);
        Ok(archived)
    }

    async fn read_archived(
        &self,
        run_id: &RunId,
        query: PageQuery,
        page: &Page,
    ) -> Result<Option<Page>, StoreError> {
        let Some(archivist) = self.archivist.get() else {
            return Ok(None);
        };
        archived_for(archivist, run_id, query, page).await
    }

    /// The same, of what the store itself keeps.
    ///
    /// # Errors
    /// When the store does not answer in time.
    pub(crate) async fn read_kept_page(
        &self,
        run_id: &RunId,
        query: PageQuery,
    ) -> Result<Page, StoreError> {
        let _turn = self.reads.turn(&self.metrics.store.reads_paced).await;
        let page = self.kept().read(run_id, query).await?;
        self.reads.took(&page);
        Ok(page)
    }

    /// Reads a page for a run's hub. If the run `is_live` an archive that does
    /// not answer soon is left out, and the answer is not sure: `false`.
    ///
    /// # Errors
    /// When the store does not answer in time.
    pub(crate) async fn read_hub_page(
        &self,
        run_id: &RunId,
        query: PageQuery,
        is_live: bool,
    ) -> Result<(Page, bool), StoreError> {
        let permit = self.hub_reads.acquire().await;
        let permit = permit.expect("nobody closes it");
        let page = self.kept().read(run_id, query).await?;
        drop(permit);
        let reading = self.read_archived(run_id, query, &page);
        if !is_live {
            return Ok((reading.await?.unwrap_or(page), true));
        }
        match timeout(ARCHIVE_PATIENCE, reading).await {
            Ok(Ok(archived)) => Ok((archived.unwrap_or(page), true)),
            Ok(Err(_)) | Err(_) => Ok((page, false)),
        }
    }

    /// Whether as many pages are being read as may be, or as fast.
    pub(crate) fn reads_are_queued(&self) -> bool {
        self.reads.are_queued() || self.hub_reads.available_permits() == 0
    }

    /// Reads the last ids of many runs.
    ///
    /// # Errors
    /// When the store does not answer in time.
    pub(crate) async fn positions(
        &self,
        run_ids: &[RunId],
    ) -> Result<Vec<Option<DurableId>>, StoreError> {
        self.store().positions(run_ids).await
    }

    /// Whether asking the store makes sense now.
    pub(crate) fn store_is_reachable(&self) -> bool {
        self.settings.backend() != BackendKind::Redis || self.redis.is_up()
    }

    /// Has all watched runs compared with the store at once.
    pub(crate) fn check_positions(&self) {
        if let Some(checker) = lock(&self.checker).as_ref() {
            #[expect(
                clippy::disallowed_methods,
                reason = "one per subscription, and it must not be refused"
            )]
            checker.do_send(CheckNow);
        }
    }

    fn redis_store(&self) -> RedisStore {
        let (settings, metrics) = (Arc::clone(&self.settings), Arc::clone(&self.metrics));
        RedisStore::new(settings, metrics).with_link(Arc::clone(&self.redis))
    }

    fn start_subscriber(self: &Arc<Self>, store: RedisStore) {
        let shared = Arc::clone(self);
        let link = Arc::clone(&self.redis);
        let subscriber = Supervisor::start_in_arbiter(&self.core, move |_| {
            RedisSubscriber::new(shared, link, store)
        });
        *lock(&self.subscriber) = Some(subscriber);
    }

    /// Replaces a subscriber that panicked: a supervisor restarts an actor
    /// that stops, but a panic takes both.
    pub(crate) fn watch_subscriber(self: &Arc<Self>) {
        let died = lock(&self.subscriber)
            .as_ref()
            .is_some_and(|subscriber| !subscriber.connected());
        if died && !self.draining.load(Relaxed) {
            error!("the subscriber died and is replaced");
            self.metrics.actor_restarts.inc();
            self.redis.set_down("the subscriber died".to_owned());
            self.start_subscriber(self.redis_store());
        }
    }

    fn start_shards(self: &Arc<Self>, store: RedisStore) {
        if !self.settings.redis.listens_to_shards() {
            return;
        }
        let shared = Arc::clone(self);
        let shards =
            Supervisor::start_in_arbiter(&self.core, move |_| ShardSubscriber::new(shared, store));
        *lock(&self.shards) = Some(shards);
    }

    /// Replaces a subscriber to shards that panicked.
    pub(crate) fn watch_shards(self: &Arc<Self>) {
        let died = lock(&self.shards)
            .as_ref()
            .is_some_and(|shards| !shards.connected());
        if died && !self.draining.load(Relaxed) {
            error!("the subscriber to shards died and is replaced");
            self.metrics.actor_restarts.inc();
            self.start_shards(self.redis_store());
        }
    }

    /// Has a run subscribed to in its shard, if there are such.
    pub(crate) fn watch_in_shard(&self, run_id: &RunId) {
        if let Some(shards) = lock(&self.shards).as_ref() {
            #[expect(
                clippy::disallowed_methods,
                reason = "one per hub that is watched, and it must not be refused"
            )]
            shards.do_send(Watch(run_id.clone()));
        }
    }

    /// Has the subscription of a run ended, if nobody watches it now.
    pub(crate) fn look_in_shard(&self, run_id: &RunId) {
        if let Some(shards) = lock(&self.shards).as_ref() {
            #[expect(
                clippy::disallowed_methods,
                reason = "one per hub that was watched, and it must not be refused"
            )]
            shards.do_send(Look(run_id.clone()));
        }
    }

    /// Has the subscription made anew, at another place if there is one: it
    /// looks well, but does not bring what was published.
    pub(crate) fn resubscribe(&self) {
        if self.settings.redis.announces_to_shards() {
            // Those of shards look by themselves whether they are right.
            return;
        }
        if let Some(subscriber) = lock(&self.subscriber).as_ref() {
            // Refused: a mailbox as full as that has been asked already.
            let _ = subscriber.try_send(Resubscribe);
        }
    }

    /// Says once that other brokers record plain messages and we do not: our
    /// clients get them twice.
    pub(crate) fn told_twice(&self) {
        if !self.is_told_twice.swap(true, Relaxed) {
            warn!(
                "history.record_plain is on at another broker of this Redis, and off here: \
                clients of this one get plain events twice"
            );
        }
    }

    /// Notes who records plain messages, if anybody does.
    pub(crate) fn set_recorder(&self, recorder: Addr<Recorder>) {
        *lock(&self.recorder) = Some(recorder);
    }

    pub(crate) fn redis_down_since(&self) -> Option<Timestamp> {
        let health = self.redis.health();
        (!health.up).then_some(health.since)
    }

    // ---- access ------------------------------------------------------------

    pub(crate) fn access(&self) -> &dyn AccessStore {
        let access = self.access.get();
        &**access.expect("a broker has it from its start")
    }

    /// Notes what is revoked, and ends the streams that it concerns.
    pub(crate) fn learn_revocations(&self, revocations: Vec<Revocation>) {
        if self.revocations.learn(revocations) {
            for inbox in self.inboxes() {
                inbox.push(WorkerMessage::Revoked);
            }
        }
        self.metrics.revocations.set(self.revocations.len() as u64);
    }

    // ---- kubectl -----------------------------------------------------------

    /// Starts following a run's pods.
    pub(crate) fn start_follow(
        &self,
        run_id: &RunId,
        since_ns: Option<u64>,
        hub: Recipient<KubectlUpdate>,
    ) -> Addr<KubectlLogActor> {
        let settings = &self.settings;
        let follow = KubectlFollow {
            run_id: run_id.clone(),
            engine: self.kubectl_engine.clone(),
            since_ns,
            max_event_bytes: settings.live.now().limits.max_event_bytes.as_u64() as usize,
            end_grace: settings.runs.end_grace,
            permits: Arc::clone(&self.kubectl_permits),
            counters: Arc::clone(&self.kubectl_counters),
            hub,
        };
        let follow = KubectlLogActor::start(follow, &self.kubectl_arbiter);
        let mut follows = lock(&self.follows);
        follows.retain(Addr::connected);
        follows.push(follow.clone());
        follow
    }

    /// Keeps an eye on kubectl, if it is on offer.
    pub(crate) fn watch_kubectl(self: &Arc<Self>) {
        if !self.settings.kubectl.enabled {
            return;
        }
        let at_once = matches!(
            self.settings.live.now().streaming.default_backend,
            DefaultBackend::Kubectl | DefaultBackend::Auto
        );
        self.kubectl_arbiter
            .spawn(watch_health(Arc::clone(self), at_once));
    }

    // ---- health and metrics ------------------------------------------------

    pub(crate) fn dependencies(&self) -> Vec<(&'static str, DependencyHealth)> {
        let mut dependencies = Vec::new();
        if self.settings.backend() == BackendKind::Redis {
            dependencies.push(("redis", self.redis.health()));
        }
        if self.settings.kubectl.enabled {
            dependencies.push(("kubectl", self.kubectl_health.health()));
        }
        dependencies
    }

    pub(crate) fn default_backend_usable(&self) -> bool {
        match self.settings.live.now().streaming.default_backend {
            DefaultBackend::Embedded => true,
            DefaultBackend::Redis => self.redis.is_up(),
            DefaultBackend::Kubectl => self.kubectl_health.is_up(),
            DefaultBackend::Auto => {
                let kubectl = self.settings.kubectl.enabled && self.kubectl_health.is_up();
                self.redis.is_up() || kubectl
            }
        }
    }

    pub(crate) fn families(&self) -> Vec<Family> {
        let quarantined = self.quarantine.count(Instant::now());
        self.metrics.quarantined_runs.set(quarantined as u64);
        let mut families = self.metrics.families();
        families.extend(self.kubectl_counters.families());
        families
    }

    /// Waits until the hubs have handed on what was sent to them before.
    pub(crate) async fn until_hubs_had_a_turn(&self) {
        let (done, is_done) = oneshot::channel();
        self.core.spawn(async move {
            // Behind every actor that has been woken by now.
            tokio::task::yield_now().await;
            // Nobody waits any more: then nobody is told.
            let _ = done.send(());
        });
        // An arbiter that is gone has no hubs.
        let _ = is_done.await;
    }

    /// Waits, for a while, until runs that ended are in the archive which nobody
    /// else will write: those of a store in this process.
    pub(crate) async fn finish_archive(&self, patience: Duration) {
        let Some(archivist) = self.archivist.get() else {
            return;
        };
        if self.settings.backend() != BackendKind::Embedded {
            // Still owed: the next broker finds them in Redis.
            return;
        }
        let lost = archivist.finish(patience).await;
        if lost > 0 {
            self.metrics.archive.lost.add(lost);
            warn!(
                dropped = lost,
                "runs ended that are in no archive, and the program ends"
            );
        }
    }

    pub(crate) async fn stop(&self) {
        let recorder = lock(&self.recorder).take();
        if let Some(recorder) = recorder {
            // Another broker takes over at once, or else when the lease ends.
            let _ = timeout(LEAVE_TIMEOUT, recorder.send(Leave)).await;
        }
        let follows = std::mem::take(&mut *lock(&self.follows));
        // Answered when every child is killed and reaped; an actor that is
        // gone has none.
        join_all(follows.iter().map(|follow| follow.send(Stop))).await;
        self.core.stop();
        self.kubectl_arbiter.stop();
        if let Some(archive) = self.archive_arbiter.get() {
            // What is being written leaves no object, and is still owed.
            archive.stop();
        }
    }
}

pub(crate) fn too_many_runs() -> Problem {
    Problem::new(
        503,
        "too-many-runs",
        "Too many runs",
        "this broker holds its limit of runs (hub.max_hubs); try again later",
    )
}

fn quarantined() -> Problem {
    Problem::new(
        503,
        QUARANTINED,
        "Run in quarantine",
        "serving this run failed again and again, and is tried again in a while (hub.quarantine); \
         the causes are in the broker's log",
    )
}

/// No user code runs under these locks, so a poisoned one is still whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
