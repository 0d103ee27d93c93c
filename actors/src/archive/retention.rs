//! Removes what is too old, or too much: oldest first.

use std::collections::BinaryHeap;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt as _};
use tracing::{info, warn};

use super::archivist::Archivist;
use super::error::{ArchiveError, causes};
use super::place::Place;

/// Most objects that one look notes to be removed for their size; if that is
/// not enough, it looks again.
const OLDEST_MAX: usize = 10_000;

/// Most looks in one turn.
const LOOKS_MAX: usize = 100;

/// A file that a writer left when it died is removed after this.
const LEFTOVER_AGE: Duration = Duration::from_secs(24 * 3600);

/// What is there, and what is to go.
#[derive(Debug, Default)]
struct Look {
    objects: u64,
    bytes: u64,
    too_old: Vec<(Path, u64)>,
    /// The oldest of the others, the newest of them first.
    oldest: BinaryHeap<Oldest>,
}

/// By time, then path.
type Oldest = (i64, Path, u64);

/// Counts all objects, and removes those that are to go.
pub(super) async fn keep(archivist: &Archivist) -> Result<(), ArchiveError> {
    let settings = &archivist.settings;
    let limit = settings.max_bytes.as_u64();
    for _ in 0..LOOKS_MAX {
        let look = look(archivist).await?;
        let (mut objects, mut bytes) = (look.objects, look.bytes);
        let many = look.too_old.len() >= OLDEST_MAX;
        let counters = &archivist.metrics.archive;
        for (path, size) in look.too_old {
            remove(archivist, path, "age").await?;
            counters.removed_for_age.inc();
            (objects, bytes) = (objects - 1, bytes - size);
        }
        let is_over = |bytes: u64| limit > 0 && bytes > limit;
        if is_over(bytes) {
            let mut oldest: Vec<Oldest> = look.oldest.into_vec();
            oldest.sort_unstable();
            for (_, path, size) in oldest {
                if !is_over(bytes) {
                    break;
                }
                remove(archivist, path, "size").await?;
                counters.removed_for_size.inc();
                (objects, bytes) = (objects - 1, bytes - size);
            }
        }
        counters.objects.set(objects);
        counters.bytes.set(bytes);
        if !many && !is_over(bytes) {
            break;
        }
    }
    remove_leftovers(archivist).await;
    Ok(())
}

async fn look(archivist: &Archivist) -> Result<Look, ArchiveError> {
    let settings = &archivist.settings;
    let store = archivist.place.store()?;
    let now = SystemTime::now();
    let mut look = Look::default();
    let mut list = store.list(Some(&archivist.place.runs()));
    loop {
        let next = tokio::time::timeout(settings.timeout, list.next()).await;
        let next = next.map_err(|_| ArchiveError::Unavailable("no answer in time"))?;
        let object = match next {
            None => return Ok(look),
            Some(Ok(object)) => object,
            Some(Err(object_store::Error::NotFound { .. })) => continue,
            Some(Err(error)) => {
                warn!(error = causes(&error), "archive not listed");
                return Err(ArchiveError::of(&error));
            }
        };
        if Place::epoch_of(&object).is_some() {
            look.add(object, now, settings.max_age);
        }
    }
}

impl Look {
    fn add(&mut self, object: ObjectMeta, now: SystemTime, max_age: Duration) {
        self.objects += 1;
        self.bytes += object.size;
        let written = SystemTime::from(object.last_modified);
        let age = now.duration_since(written).unwrap_or_default();
        if !max_age.is_zero() && age > max_age {
            if self.too_old.len() < OLDEST_MAX {
                self.too_old.push((object.location, object.size));
            }
            return;
        }
        let at = object.last_modified.timestamp_micros();
        self.oldest.push((at, object.location, object.size));
        if self.oldest.len() > OLDEST_MAX {
            self.oldest.pop();
        }
    }
}

async fn remove(archivist: &Archivist, path: Path, reason: &str) -> Result<(), ArchiveError> {
    let store = archivist.place.store()?;
    match store.delete(&path).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => {
            info!(object = path.as_ref(), reason, "archived run removed");
            Ok(())
        }
        Err(error) => {
            warn!(error = causes(&error), "archive not removed");
            Err(ArchiveError::of(&error))
        }
    }
}

/// Removes files of writers that died; a bucket does that by its own rules.
async fn remove_leftovers(archivist: &Archivist) {
    let Some(directory) = archivist.place.directory() else {
        return;
    };
    let runs = std::path::Path::new(directory).join("runs");
    let removed = tokio::task::spawn_blocking(move || leftovers(&runs)).await;
    if let Ok(Ok(count @ 1..)) = removed {
        info!(count, "files that writers left behind removed");
    }
}

fn leftovers(runs: &std::path::Path) -> std::io::Result<usize> {
    let mut count = 0;
    for run in std::fs::read_dir(runs)?.flatten() {
        // A run may be removed while we look.
        for file in std::fs::read_dir(run.path())
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = file.file_name();
            let is_leftover = name.to_string_lossy().contains(".zst#");
            let modified = file.metadata().and_then(|file| file.modified());
            let age = modified.ok().and_then(|at| at.elapsed().ok());
            if is_leftover && age.is_some_and(|age| age > LEFTOVER_AGE) {
                std::fs::remove_file(file.path())?;
                count += 1;
            }
        }
    }
    Ok(count)
}
