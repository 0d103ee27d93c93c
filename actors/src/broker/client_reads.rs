//! [`ClientReads`]: how many pages are read for clients at once, and how fast.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Mutex as Turns, Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until};

use super::shared::lock;
use crate::metrics::Counter;
use crate::pace::Pace;
use crate::settings::{HistorySettings, Live};
use crate::store::Page;

/// Longest rest before the rate is looked at again.
const REST_MAX: Duration = Duration::from_secs(1);

/// What an event of a page costs beside its payload.
const EVENT_OVERHEAD_BYTES: usize = 128;

/// Bounds what clients that read history take of the store and of the cores,
/// which live events need, too.
pub(crate) struct ClientReads {
    /// Where `history.read_rate` is.
    live: Live,
    permits: Semaphore,
    pace: Mutex<Pace>,
    /// Of those that the pace has wait the first goes first.
    turns: Turns<()>,
}

impl ClientReads {
    pub(crate) fn new(settings: &HistorySettings, live: Live) -> Self {
        Self {
            permits: Semaphore::new(settings.max_reads.max(1)),
            pace: Mutex::new(Pace::new(0, Instant::now())),
            turns: Turns::new(()),
            live,
        }
    }

    /// Waits until one more page may be read; `paced` counts those that had to
    /// wait for the rate.
    pub(crate) async fn turn(&self, paced: &Counter) -> SemaphorePermit<'_> {
        let permit = self.permits.acquire().await.expect("nobody closes it");
        if self.rests_until().is_some() {
            paced.inc();
            let _turn = self.turns.lock().await;
            while let Some(until) = self.rests_until() {
                // Not longer than that: the rate may change meanwhile.
                sleep_until(until.min(Instant::now() + REST_MAX)).await;
            }
        }
        permit
    }

    /// Notes a page that was read.
    pub(crate) fn took(&self, page: &Page) {
        let bytes = page.events.iter().map(|event| event.payload.len());
        let bytes = bytes
            .map(|bytes| bytes + EVENT_OVERHEAD_BYTES)
            .sum::<usize>();
        self.pace().took(bytes as u64, Instant::now());
    }

    /// Whether readers wait for their turn.
    pub(crate) fn are_queued(&self) -> bool {
        self.permits.available_permits() == 0 || self.rests_until().is_some()
    }

    fn rests_until(&self) -> Option<Instant> {
        self.pace().rests_until(Instant::now())
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        let mut pace = lock(&self.pace);
        pace.set_rate(self.live.now().read_rate.as_u64(), Instant::now());
        pace
    }
}
