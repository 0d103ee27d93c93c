//! Writes one run: pages of its store become blocks of an object.

use std::time::{Duration, Instant};

use bytes::Bytes;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use tokio::io::AsyncWriteExt as _;
use tracing::{info, warn};

use super::archivist::Archivist;
use super::duty::{ArchiveDuty, Claim};
use super::error::{ArchiveError, causes};
use super::format::{BlockMaker, Index, Meta, pack};
use crate::broker::BrokerShared;
use crate::order::PAGE_EVENTS;
use crate::protocol::{DurableId, RunId};
use crate::store::{Page, PageFrom, PageQuery, StoreError};

/// Bytes of an object gathered before they are sent: the least that S3 takes as
/// a part. An object that is smaller is sent at once.
const PART_BYTES: usize = 5 * 1024 * 1024;

/// What became of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// There is nothing more to be done.
    Done,
    /// Not yet.
    Later(Duration),
}

/// Why a run was not written; it is tried again.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// It began anew, or its history went, while it was read; or another wrote
    /// it, since we took too long.
    #[error("the run changed while it was written")]
    Changed,
}

/// Writes runs.
pub(super) struct Writer<'a> {
    pub(super) shared: &'a BrokerShared,
    pub(super) archivist: &'a Archivist,
    pub(super) duty: &'a dyn ArchiveDuty,
    /// Names this attempt.
    pub(super) name: String,
}

impl Writer<'_> {
    /// Writes a run, if it is over and nobody has; `ended` is its life that was
    /// seen to end. What breaks off leaves no object, and the run is still owed.
    pub(super) async fn write(
        &self,
        run_id: &RunId,
        ended: Option<u64>,
    ) -> Result<Written, WriteError> {
        let epoch = match self.claim(run_id).await? {
            Claim::Mine(epoch) => epoch,
            Claim::Later(time) => return Ok(Written::Later(time)),
            Claim::Nothing => return Ok(Written::Done),
            Claim::Gone => {
                // Another may have written it before it went, or an earlier life.
                let found = self.archivist.objects.find(run_id).await?;
                let last = found.and_then(|archived| archived.index.meta.last());
                if last.map(|last| last.epoch) < ended || last.is_none() {
                    self.lost(run_id);
                }
                return Ok(Written::Done);
            }
        };
        let written = self.write_epoch(run_id, epoch).await;
        let archived = written.is_ok().then_some(epoch);
        // Without an answer the claim ends by itself, and what is there is seen.
        let settled = self.duty.settle(run_id, &self.name, archived).await;
        written?;
        settled?;
        Ok(Written::Done)
    }

    /// How long a claim holds; renewed while pages are read. Who writes longer
    /// than that at one part may find that another wrote the same.
    fn lease(&self) -> Duration {
        self.archivist.settings.timeout * 2
    }

    async fn claim(&self, run_id: &RunId) -> Result<Claim, StoreError> {
        self.duty.claim(run_id, &self.name, self.lease()).await
    }

    async fn write_epoch(&self, run_id: &RunId, epoch: u64) -> Result<(), WriteError> {
        let page = self.read(run_id, 0).await?;
        let head = page.head.as_ref().filter(|head| head.last.epoch == epoch);
        let head = head.ok_or(WriteError::Changed)?;
        let closed = head.closed.as_ref().ok_or(WriteError::Changed)?;
        let objects = &self.archivist.objects;
        let path = self.archivist.place.object(run_id, epoch);
        let there = objects.look_at(path.clone(), run_id).await;
        let last_there = match &there {
            Ok(archived) => archived.index.meta.last(),
            Err(ArchiveError::Missing | ArchiveError::Damaged(_)) => None,
            Err(error) => return Err(error.clone().into()),
        };
        if last_there == Some(head.last) {
            return Ok(());
        }
        let Some(first) = page.first else {
            self.lost(run_id);
            return Ok(());
        };
        let meta = Meta::new(run_id, head, closed, first);
        let object = Object::begin(self.archivist, path)?;
        let bytes = self
            .write_pages(run_id, head.last, page, meta, object)
            .await?;
        objects.forget(run_id).await;
        let counters = &self.shared.metrics.archive;
        counters.written.inc();
        counters.written_bytes.add(bytes);
        info!(%run_id, epoch, bytes, "run archived");
        Ok(())
    }

    async fn write_pages(
        &self,
        run_id: &RunId,
        last: DurableId,
        page: Page,
        meta: Meta,
        mut object: Object,
    ) -> Result<u64, WriteError> {
        match self.fill(run_id, last, page, meta, &mut object).await {
            Ok(()) => object.end().await.map_err(WriteError::from),
            Err(error) => {
                object.abandon().await;
                Err(error)
            }
        }
    }

    async fn fill(
        &self,
        run_id: &RunId,
        last: DurableId,
        mut page: Page,
        meta: Meta,
        object: &mut Object,
    ) -> Result<(), WriteError> {
        object.write_frame(pack(&meta.line())).await?;
        let mut index = Index {
            meta,
            blocks: Vec::new(),
        };
        let mut maker = BlockMaker::default();
        let mut renewed_at = Instant::now();
        loop {
            for event in &page.events {
                maker.push(event);
                if maker.is_full() {
                    object.write_block(&mut maker, &mut index).await?;
                }
            }
            let Some(seen) = page.events.last().map(|event| event.id) else {
                break;
            };
            if !page.more {
                break;
            }
            if renewed_at.elapsed() > self.lease() / 3 {
                self.renew(run_id, last.epoch).await?;
                renewed_at = Instant::now();
            }
            page = self.read(run_id, seen.seq).await?;
            let same = page.head.as_ref().is_some_and(|head| head.last == last);
            if !same || page.first.is_none() {
                return Err(WriteError::Changed);
            }
        }
        object.write_block(&mut maker, &mut index).await?;
        // Whoever was stopped for long may have lost the run to another.
        self.renew(run_id, last.epoch).await?;
        object.write_frame(index.frame()).await?;
        Ok(())
    }

    async fn renew(&self, run_id: &RunId, epoch: u64) -> Result<(), WriteError> {
        match self.claim(run_id).await? {
            Claim::Mine(ours) if ours == epoch => Ok(()),
            _ => Err(WriteError::Changed),
        }
    }

    async fn read(&self, run_id: &RunId, after: u64) -> Result<Page, StoreError> {
        let query = PageQuery {
            from: PageFrom::After(after),
            events_max: PAGE_EVENTS,
            bytes_max: self.shared.settings.history.page_bytes.as_u64() as usize,
        };
        self.shared.read_kept_page(run_id, query).await
    }

    fn lost(&self, run_id: &RunId) {
        self.shared.metrics.archive.lost.inc();
        warn!(%run_id, "run not archived: its history went before it could be");
    }
}

/// An object on its way: there as a whole, or not at all.
struct Object {
    writer: BufWriter,
    bytes: u64,
    timeout: Duration,
}

impl Object {
    fn begin(archivist: &Archivist, path: Path) -> Result<Self, ArchiveError> {
        let store = archivist.place.store()?;
        Ok(Self {
            writer: BufWriter::with_capacity(store, path, PART_BYTES).with_max_concurrency(1),
            bytes: 0,
            timeout: archivist.settings.timeout,
        })
    }

    async fn write_block(
        &mut self,
        maker: &mut BlockMaker,
        index: &mut Index,
    ) -> Result<(), ArchiveError> {
        let Some(block) = maker.take() else {
            return Ok(());
        };
        let packed = tokio::task::spawn_blocking(move || block.pack()).await;
        let (frame, mut place) =
            packed.map_err(|_| ArchiveError::Unavailable("the program ends"))?;
        place.offset = self.bytes;
        index.blocks.push(place);
        self.write_frame(frame).await
    }

    async fn write_frame(&mut self, frame: Vec<u8>) -> Result<(), ArchiveError> {
        self.bytes += frame.len() as u64;
        let writing = self.writer.put(Bytes::from(frame));
        // A part has its own retries; this is for a place that hangs.
        match tokio::time::timeout(self.timeout * 3, writing).await {
            Ok(done) => done.map_err(|error| not_written(&error)),
            Err(_) => Err(ArchiveError::Unavailable("no answer in time")),
        }
    }

    async fn end(mut self) -> Result<u64, ArchiveError> {
        match tokio::time::timeout(self.timeout * 3, self.writer.shutdown()).await {
            Ok(Ok(())) => Ok(self.bytes),
            Ok(Err(error)) => Err(not_written(&error)),
            Err(_) => Err(ArchiveError::Unavailable("no answer in time")),
        }
    }

    async fn abandon(mut self) {
        // Nothing is kept of it here; what S3 keeps, its own rules remove.
        let aborted = tokio::time::timeout(self.timeout, self.writer.abort()).await;
        if !matches!(aborted, Ok(Ok(()))) {
            warn!("the parts of an object are not taken back");
        }
    }
}

fn not_written(error: &(dyn std::error::Error + 'static)) -> ArchiveError {
    warn!(error = causes(error), "archive not written");
    let place = error.downcast_ref::<object_store::Error>();
    let inner = error.source().and_then(|cause| cause.downcast_ref());
    match place.or(inner).map(ArchiveError::of) {
        Some(ArchiveError::Missing) | None => ArchiveError::Unavailable("the request failed"),
        Some(sorted) => sorted,
    }
}
