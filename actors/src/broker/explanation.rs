//! [`RunExplanation`]: all that this broker knows of one run, for whoever asks
//! why it is as it is.

use tokio::time::timeout;

use super::{Broker, DETAIL_PATIENCE, DependencyHealth, RunDetail};
use crate::hub::Describe;
use crate::protocol::{BackendKind, DurableId, KUBECTL_RUN_ID_BYTES_MAX, RunId, Timestamp};
use crate::store::{Closed, Page, PageFrom, PageQuery, StoreError};

/// All that this broker knows of one run.
#[derive(Debug, Clone)]
pub struct RunExplanation {
    /// As `GET /api/v1/runs/{run_id}` tells it.
    pub run: RunDetail,
    /// Redis, unless the broker is embedded.
    pub redis: Option<DependencyHealth>,
    /// What the store holds, or why it does not say.
    pub store: Result<Option<StoredRun>, String>,
    /// Its hubs on this broker, one for a backend.
    pub hubs: Vec<HubState>,
    /// Whether plain messages are recorded.
    pub records_plain: bool,
    /// How its pods are, in plain words; `None` without kubectl.
    pub pods: Option<String>,
}

/// A run as its store holds it.
#[derive(Debug, Clone)]
pub struct StoredRun {
    /// The oldest event kept.
    pub first: Option<DurableId>,
    /// The last event accepted.
    pub last: DurableId,
    /// Events accepted in this epoch.
    pub accepted: u64,
    /// Those of them that are kept.
    pub kept: u64,
    /// How and since when it is over.
    pub closed: Option<(String, Timestamp)>,
}

/// A run's hub on one backend.
#[derive(Debug, Clone)]
pub struct HubState {
    /// Its backend.
    pub backend: BackendKind,
    /// Streams open on this broker.
    pub clients: u64,
    /// Bytes of its ring.
    pub ring_bytes: u64,
    /// Id of its last event.
    pub last_id: Option<String>,
    /// Events that the store has and the hub has not; `None` if that cannot be
    /// told.
    pub behind: Option<u64>,
    /// Why nothing comes, as the hub sees it.
    pub quiet_because: String,
}

impl Broker {
    /// Returns all that is known of a run here, in its store and of its pods.
    pub async fn explain(&self, run_id: &RunId) -> RunExplanation {
        let settings = &self.shared.settings;
        let asked = PageQuery {
            from: PageFrom::Before(u64::MAX),
            events_max: 1,
            bytes_max: 1,
        };
        let (run, page) = tokio::join!(
            self.run(run_id),
            timeout(DETAIL_PATIENCE, self.store().read(run_id, asked)),
        );
        let page = page.unwrap_or_else(|_| Err(StoreError("no answer in time".to_owned())));
        let store = match page {
            Ok(page) => Ok(stored(&page)),
            Err(error) => Err(error.to_string()),
        };
        let last = store
            .as_ref()
            .ok()
            .and_then(Option::as_ref)
            .map(|run| run.last);
        let mut hubs = Vec::new();
        for backend in BackendKind::ALL {
            hubs.extend(self.hub_state(backend, run_id, last).await);
        }
        let is_on_redis = settings.backend() == BackendKind::Redis;
        let may_have_pods =
            settings.kubectl.enabled && run_id.as_str().len() <= KUBECTL_RUN_ID_BYTES_MAX;
        let pods = match may_have_pods {
            true => Some(self.shared.pod_looks.words(run_id).await.to_string()),
            false => None,
        };
        RunExplanation {
            run,
            redis: is_on_redis.then(|| self.shared.redis.health()),
            store,
            hubs,
            records_plain: settings.history.record_plain,
            pods,
        }
    }

    async fn hub_state(
        &self,
        backend: BackendKind,
        run_id: &RunId,
        last: Option<DurableId>,
    ) -> Option<HubState> {
        let (asked, clients, ring_bytes) =
            self.shared
                .registry
                .peek(backend, run_id.as_str(), |entry| {
                    let stats = &entry.stats;
                    (
                        entry.hub.send(Describe),
                        stats.clients(),
                        stats.ring_bytes(),
                    )
                })?;
        let told = asked.await.ok()?;
        let seen = told.last_durable;
        let behind = last.zip(seen).and_then(|(last, seen)| {
            (last.epoch == seen.epoch).then(|| last.seq.saturating_sub(seen.seq))
        });
        Some(HubState {
            backend,
            clients,
            ring_bytes,
            last_id: told.summary.last_id,
            behind: behind.filter(|_| backend != BackendKind::Kubectl),
            quiet_because: told.quiet_because,
        })
    }
}

fn stored(page: &Page) -> Option<StoredRun> {
    let head = page.head.as_ref()?;
    let kept = page
        .first
        .map_or(0, |first| (head.last.seq + 1).saturating_sub(first.seq));
    let closed = |closed: &Closed| {
        let at = Timestamp::from_micros(closed.at_us as i64);
        (closed.status.clone(), at)
    };
    Some(StoredRun {
        first: page.first,
        last: head.last,
        accepted: head.counts.iter().sum(),
        kept,
        closed: head.closed.as_ref().map(closed),
    })
}
