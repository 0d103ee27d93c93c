//! [`Objects`]: objects as they are read, with what was read lately.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use moka::Expiry;
use moka::future::Cache;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::warn;

use super::error::{ArchiveError, causes};
use super::format::{BlockPlace, INDEX_BYTES_GUESSED, Index, IndexTail, unpack_block};
use super::place::Place;
use crate::metrics::Metrics;
use crate::protocol::{DurableId, RunId};
use crate::settings::ArchiveSettings;
use crate::store::StoredEvent;

/// How long it is believed that an object is, or is not, there. A broker that
/// writes one knows at once.
const FOUND_TTL: Duration = Duration::from_secs(60);
const MISSING_TTL: Duration = Duration::from_secs(10);

/// Bytes of indexes kept, and of names of runs that are not there.
const INDEXES_BYTES: u64 = 8 * 1024 * 1024;

/// What the name of a run that is not there costs.
const MISSING_COST: u32 = 256;

/// An archived run.
#[derive(Debug)]
pub(super) struct Archived {
    /// Where it lies.
    pub(super) path: Path,
    /// What is in it.
    pub(super) index: Index,
}

impl Archived {
    fn block_key(&self, place: &BlockPlace) -> BlockKey {
        (self.path.clone(), self.index.meta.last(), place.offset)
    }
}

type Found = Option<Arc<Archived>>;
type Block = Arc<Vec<StoredEvent>>;
type BlockKey = (Path, Option<DurableId>, u64);

/// Reads objects: what is asked for together is read once. All futures run on
/// the archive's own thread.
#[derive(Debug)]
pub(super) struct Objects {
    place: Arc<Place>,
    metrics: Arc<Metrics>,
    timeout: Duration,
    /// Reads under way, and those with them that wait for them.
    readers: Semaphore,
    reads: Semaphore,
    found: Cache<RunId, Found>,
    /// By object, where it ends, and offset: a run that was set back can be
    /// written again under its path.
    blocks: Cache<BlockKey, Block>,
}

/// How long an entry of `found` is believed.
struct Lasting;

impl Expiry<RunId, Found> for Lasting {
    fn expire_after_create(&self, _: &RunId, found: &Found, _: Instant) -> Option<Duration> {
        Some(if found.is_some() {
            FOUND_TTL
        } else {
            MISSING_TTL
        })
    }
}

impl Objects {
    pub(super) fn new(
        place: Arc<Place>,
        settings: &ArchiveSettings,
        metrics: Arc<Metrics>,
    ) -> Self {
        let cost = |_: &RunId, found: &Found| match found {
            Some(archived) => u32::try_from(archived.index.cost()).unwrap_or(u32::MAX),
            None => MISSING_COST,
        };
        let block_cost = |_: &BlockKey, events: &Block| {
            let bytes = events
                .iter()
                .map(|event| size_of::<StoredEvent>() + event.payload.len() + event.source.len());
            u32::try_from(bytes.sum::<usize>()).unwrap_or(u32::MAX)
        };
        Self {
            place,
            metrics,
            timeout: settings.timeout,
            readers: Semaphore::new(settings.max_reads.max(1) * 2),
            reads: Semaphore::new(settings.max_reads.max(1)),
            found: Cache::builder()
                .max_capacity(INDEXES_BYTES)
                .weigher(cost)
                .expire_after(Lasting)
                .build(),
            blocks: Cache::builder()
                .max_capacity(settings.cache_bytes.as_u64())
                .weigher(block_cost)
                .time_to_live(FOUND_TTL)
                .build(),
        }
    }

    /// Finds the newest epoch of a run.
    pub(super) async fn find(&self, run_id: &RunId) -> Result<Found, ArchiveError> {
        let found = self.found.try_get_with_by_ref(run_id, self.look_up(run_id));
        found.await.map_err(|error| (*error).clone())
    }

    /// Reads an object's end anew, whatever is kept of it.
    pub(super) async fn look_at(
        &self,
        path: Path,
        run_id: &RunId,
    ) -> Result<Archived, ArchiveError> {
        self.reading(self.read_index(path, run_id)).await
    }

    /// Forgets what is kept of a run: there is another object of it, or none.
    pub(super) async fn forget(&self, run_id: &RunId) {
        self.found.invalidate(run_id).await;
    }

    /// Reads a block.
    pub(super) async fn block(
        &self,
        archived: &Archived,
        place: &BlockPlace,
    ) -> Result<Block, ArchiveError> {
        let key = archived.block_key(place);
        let read = self.blocks.try_get_with(key, async {
            let range = GetRange::Bounded(place.offset..place.offset + place.bytes);
            let frame = self.reading(self.read_range(&archived.path, range)).await?;
            let place = place.clone();
            let events = unpack(move || unpack_block(&frame, &place)).await?;
            Ok(Arc::new(events))
        });
        read.await
            .map_err(|error: Arc<ArchiveError>| (*error).clone())
    }

    /// Forgets a block.
    pub(super) async fn forget_block(&self, archived: &Archived, place: &BlockPlace) {
        let key = archived.block_key(place);
        self.blocks.invalidate(&key).await;
    }

    async fn look_up(&self, run_id: &RunId) -> Result<Found, ArchiveError> {
        self.reading(async {
            let store = self.place.store()?;
            let directory = self.place.run(run_id);
            let mut list = store.list(Some(&directory));
            let mut newest = None;
            while let Some(object) = list.next().await {
                match object {
                    Ok(object) => newest = newest.max(Place::epoch_of(&object)),
                    Err(object_store::Error::NotFound { .. }) => {}
                    Err(error) => return Err(self.told("listed", run_id.as_str(), &error)),
                }
            }
            let Some(epoch) = newest else {
                self.metrics.archive.missing.inc();
                return Ok(None);
            };
            let path = self.place.object(run_id, epoch);
            match self.read_index(path, run_id).await {
                Ok(archived) => Ok(Some(Arc::new(archived))),
                // It was removed since it was listed.
                Err(ArchiveError::Missing) => Ok(None),
                Err(error) => Err(error),
            }
        })
        .await
    }

    async fn read_index(&self, path: Path, run_id: &RunId) -> Result<Archived, ArchiveError> {
        let mut bytes = INDEX_BYTES_GUESSED;
        for _ in 0..2 {
            let end = self.read_range(&path, GetRange::Suffix(bytes)).await?;
            let run_id = run_id.clone();
            match unpack(move || IndexTail::read(&end, &run_id)).await? {
                IndexTail::Whole(index) => {
                    return Ok(Archived {
                        path,
                        index: *index,
                    });
                }
                IndexTail::Longer(needed) => bytes = needed,
            }
        }
        Err(ArchiveError::Damaged("it is shorter than its index says"))
    }

    /// Waits for its turn, and for the answer. Few may wait: an archive that is
    /// slow would gather all others.
    async fn reading<T>(
        &self,
        read: impl Future<Output = Result<T, ArchiveError>>,
    ) -> Result<T, ArchiveError> {
        let _reader = self.readers.try_acquire().map_err(|_| ArchiveError::Busy)?;
        let answer = timeout(self.timeout, async {
            let _turn = self.reads.acquire().await.expect("nobody closes it");
            read.await
        });
        let answer = answer.await;
        answer.unwrap_or(Err(ArchiveError::Unavailable("no answer in time")))
    }

    async fn read_range(&self, path: &Path, range: GetRange) -> Result<Bytes, ArchiveError> {
        let options = GetOptions {
            range: Some(range),
            ..GetOptions::default()
        };
        let store = self.place.store()?;
        let read = async { store.get_opts(path, options).await?.bytes().await };
        let bytes = read
            .await
            .map_err(|error| self.told("read", path.as_ref(), &error))?;
        self.metrics.archive.reads.inc();
        self.metrics.archive.read_bytes.add(bytes.len() as u64);
        Ok(bytes)
    }

    /// Notes an error of the place, and sorts it.
    fn told(&self, what: &str, object: &str, error: &object_store::Error) -> ArchiveError {
        let sorted = ArchiveError::of(error);
        if sorted != ArchiveError::Missing {
            warn!(object, error = causes(error), "archive not {what}");
        }
        sorted
    }
}

/// Unpacks on a thread where that may take a while.
async fn unpack<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArchiveError> + Send + 'static,
) -> Result<T, ArchiveError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or(Err(ArchiveError::Unavailable("the program ends")))
}
