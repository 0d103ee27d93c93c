//! Pages of archived runs, to the letter those that their store gave.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::error::ArchiveError;
use super::format::{BlockPlace, Index};
use super::objects::{Archived, Objects};
use crate::protocol::{DurableId, RunId};
use crate::store::{Page, PageFrom, PageQuery, StoredEvent};

/// Reads a page; `None` if the run is not archived. With `last`: if the newest
/// epoch archived does not end there, it is another run's life.
pub(super) async fn read_page(
    objects: &Objects,
    run_id: &RunId,
    query: PageQuery,
    last: Option<DurableId>,
) -> Result<Option<Page>, ArchiveError> {
    for is_again in [false, true] {
        let Some(archived) = objects.find(run_id).await? else {
            return Ok(None);
        };
        if last.is_some_and(|last| archived.index.meta.last() != Some(last)) {
            return Ok(None);
        }
        match page(objects, &archived, query).await {
            // It was removed, or written anew, since its index was read.
            Err(ArchiveError::Missing | ArchiveError::Damaged(_)) if !is_again => {
                objects.forget(run_id).await;
            }
            Err(ArchiveError::Missing) => return Ok(None),
            page => return page.map(Some),
        }
    }
    Ok(None)
}

async fn page(
    objects: &Objects,
    archived: &Archived,
    query: PageQuery,
) -> Result<Page, ArchiveError> {
    let index = &archived.index;
    let mut page = Page {
        head: index.meta.head(now_us()),
        first: index.meta.first(),
        ..Page::default()
    };
    let (asked, is_after) = match query.from {
        PageFrom::After(seq) => (seq, true),
        PageFrom::Before(seq) => (seq, false),
    };
    page.anchor = anchor_at_edge(index, asked);
    let mut blocks = beyond(index, asked, is_after);
    let mut payload_bytes = 0;
    while let Some(place) = blocks.next() {
        let events = read_block(objects, archived, place).await?;
        let at_seq = |event: &&StoredEvent| event.id.seq == asked;
        if let Some(event) = events.iter().find(at_seq) {
            page.anchor = Some(event.id);
        }
        let mut wanted: Box<dyn Iterator<Item = &StoredEvent>> = match is_after {
            true => Box::new(events.iter().filter(|event| event.id.seq > asked)),
            false => Box::new(events.iter().rev().filter(|event| event.id.seq < asked)),
        };
        while let Some(event) = wanted.next() {
            page.events.push(event.clone());
            payload_bytes += event.payload.len();
            if page.events.len() >= query.events_max.max(1) || payload_bytes >= query.bytes_max {
                page.more = wanted.next().is_some() || blocks.next().is_some();
                return Ok(in_order(page, is_after));
            }
        }
    }
    Ok(in_order(page, is_after))
}

/// The blocks that hold events after, or before, a seq, in that direction.
fn beyond<'a>(
    index: &'a Index,
    asked: u64,
    is_after: bool,
) -> Box<dyn Iterator<Item = &'a BlockPlace> + Send + 'a> {
    let blocks = &index.blocks;
    match is_after {
        true => {
            let from = blocks.partition_point(|block| block.last.seq <= asked);
            Box::new(blocks[from..].iter())
        }
        false => {
            let to = blocks.partition_point(|block| block.first.seq < asked);
            Box::new(blocks[..to].iter().rev())
        }
    }
}

/// The event at a seq, if the index knows it without a look into a block.
fn anchor_at_edge(index: &Index, asked: u64) -> Option<DurableId> {
    let edges = index
        .blocks
        .iter()
        .flat_map(|block| [block.first, block.last]);
    edges.into_iter().find(|id| id.seq == asked)
}

async fn read_block(
    objects: &Objects,
    archived: &Archived,
    place: &BlockPlace,
) -> Result<Arc<Vec<StoredEvent>>, ArchiveError> {
    let read = objects.block(archived, place).await;
    if matches!(read, Err(ArchiveError::Damaged(_))) {
        objects.forget_block(archived, place).await;
    }
    read
}

fn in_order(mut page: Page, is_after: bool) -> Page {
    if !is_after {
        page.events.reverse();
    }
    page
}

fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_micros() as u64)
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStore;
    use object_store::ObjectStoreExt as _;
    use object_store::memory::InMemory;

    use super::*;
    use crate::archive::format::{BlockMaker, Meta, pack};
    use crate::archive::place::Place;
    use crate::broker::{BrokerSettings, NewEvent};
    use crate::memory_store::MemoryStore;
    use crate::metrics::Metrics;
    use crate::protocol::EventKind;
    use crate::settings::ArchiveSettings;
    use crate::store::{AppendBatch, RunStore as _};

    fn query(from: PageFrom, events_max: usize, bytes_max: usize) -> PageQuery {
        PageQuery {
            from,
            events_max,
            bytes_max,
        }
    }

    /// A run of some blocks, whose first events were trimmed, in a store.
    async fn run(run_id: &RunId) -> MemoryStore {
        let mut settings = BrokerSettings::default();
        settings.history.max_events = 40;
        settings.runs.end_grace = std::time::Duration::ZERO;
        let store = MemoryStore::new(&settings, Arc::default(), Box::new(|_, _| {}));
        let event = |n: usize| NewEvent {
            kind: if n == 49 {
                EventKind::Status
            } else {
                EventKind::Output
            },
            source: format!("source {}", n % 3),
            payload: match n {
                49 => "failed".into(),
                // Some blocks of four events, some of many.
                n if n % 16 < 8 => format!("\"{}\"", "x".repeat(70_000)).into(),
                n => format!("{{\"n\":{n}}}").into(),
            },
        };
        let batch = AppendBatch {
            events: (0..50).map(event).collect(),
            ..AppendBatch::default()
        };
        let appended = store.append(run_id, batch).await.expect("it takes all");
        assert!(appended.iter().all(Result::is_ok));
        store
    }

    async fn object(store: &MemoryStore, run_id: &RunId) -> Vec<u8> {
        let all = query(PageFrom::After(0), 1000, usize::MAX);
        let page = store.read(run_id, all).await.expect("a page");
        let head = page.head.expect("a head");
        let closed = head.closed.as_ref().expect("it is over");
        let meta = Meta::new(run_id, &head, closed, page.first.expect("an event"));
        let mut object = pack(&meta.line());
        let mut blocks = Vec::new();
        let mut maker = BlockMaker::default();
        let mut take = |maker: &mut BlockMaker| {
            if let Some(block) = maker.take() {
                let (frame, mut place) = block.pack();
                place.offset = object.len() as u64;
                object.extend_from_slice(&frame);
                blocks.push(place);
            }
        };
        for event in &page.events {
            maker.push(event);
            if maker.is_full() {
                take(&mut maker);
            }
        }
        take(&mut maker);
        assert!(blocks.len() > 4, "{}", blocks.len());
        object.extend_from_slice(&Index { meta, blocks }.frame());
        object
    }

    /// Whatever page is asked for: the archive's is that of the store.
    #[tokio::test]
    async fn every_page_is_that_of_the_store() {
        let run_id = RunId::parse("42").expect("a run id");
        let store = run(&run_id).await;
        let bucket: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let settings = ArchiveSettings {
            url: "s3://bucket".to_owned(),
            ..ArchiveSettings::default()
        };
        let place = Arc::new(Place::with_store(&settings, Arc::clone(&bucket)));
        let bytes = object(&store, &run_id).await;
        let epoch = store
            .positions(std::slice::from_ref(&run_id))
            .await
            .expect("known")[0];
        let path = place.object(&run_id, epoch.expect("an epoch").epoch);
        bucket
            .put(&path, bytes.into())
            .await
            .expect("memory takes all");
        let objects = Objects::new(place, &settings, Arc::<Metrics>::default());
        let seqs = (0..53).chain([u64::MAX]);
        let froms = seqs.flat_map(|seq| [PageFrom::After(seq), PageFrom::Before(seq)]);
        for from in froms {
            for (events_max, bytes_max) in [(1, 1), (3, 100_000), (512, 65_536), (1000, usize::MAX)]
            {
                let asked = query(from, events_max, bytes_max);
                let mut expected = store.read(&run_id, asked).await.expect("a page");
                let found = read_page(&objects, &run_id, asked, None).await;
                let mut found = found.expect("a page").expect("it is archived");
                for page in [&mut expected, &mut found] {
                    let head = page.head.as_mut().expect("a head");
                    assert!(head.is_sealed());
                    head.now_us = 0;
                }
                assert!(found == expected, "{asked:?}");
            }
        }
    }
}
