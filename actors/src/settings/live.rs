//! [`Live`]: the settings that may change while the broker runs.

use std::fmt;
use std::sync::Arc;

use arc_swap::{ArcSwap, Cache, Guard};
use bytesize::ByteSize;

use super::{HistorySettings, LimitSettings, RetrySettings, StreamingSettings};

/// What may change while the broker runs. Which of its keys do is said in
/// `src/settings/live.rs`; the others keep what they were started with.
#[derive(Debug, Clone)]
pub struct LiveSettings {
    /// `[streaming]`
    pub streaming: StreamingSettings,
    /// `[retry]`
    pub retry: RetrySettings,
    /// `[limits]`
    pub limits: LimitSettings,
    /// `history.read_rate`
    pub read_rate: ByteSize,
}

impl Default for LiveSettings {
    fn default() -> Self {
        Self {
            streaming: StreamingSettings::default(),
            retry: RetrySettings::default(),
            limits: LimitSettings::default(),
            read_rate: HistorySettings::default().read_rate,
        }
    }
}

/// Where they are read, by all threads and without a lock: always all of one
/// version. Clones read the same.
#[derive(Clone, Default)]
pub struct Live(Arc<ArcSwap<LiveSettings>>);

impl Live {
    /// Makes the first version.
    pub fn new(settings: LiveSettings) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(settings)))
    }

    /// Returns what holds now. Not to be kept: whoever reads later is to see
    /// what holds then.
    pub fn now(&self) -> Guard<Arc<LiveSettings>> {
        self.0.load()
    }

    /// Puts another version in its place, for whoever reads from now on.
    pub fn change(&self, change: impl FnOnce(&mut LiveSettings)) {
        let mut settings = LiveSettings::clone(&self.now());
        change(&mut settings);
        self.0.store(Arc::new(settings));
    }

    /// Returns a reader for the path of events: looking costs it one load and
    /// a comparison.
    pub(crate) fn reader(&self) -> LiveReader {
        LiveReader(Cache::new(Arc::clone(&self.0)))
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.now().fmt(f)
    }
}

/// One reader's copy of [`Live`], renewed when there is another version.
pub(crate) struct LiveReader(Cache<Arc<ArcSwap<LiveSettings>>, Arc<LiveSettings>>);

impl LiveReader {
    pub(crate) fn now(&mut self) -> &LiveSettings {
        self.0.load()
    }
}

impl fmt::Debug for LiveReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveReader").finish_non_exhaustive()
    }
}
