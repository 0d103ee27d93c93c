//! [`ReloadMetrics`]: what became of settings that were read again.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::core::Collector;
use prometheus::{IntCounterVec, IntGauge, Opts};

/// What became of settings that were read again.
#[derive(Debug, Clone)]
pub(super) struct ReloadMetrics {
    reloads: IntCounterVec,
    is_last_good: IntGauge,
    last_good_at: IntGauge,
    waiting: IntGauge,
}

impl ReloadMetrics {
    /// Makes them as they are after a good start.
    ///
    /// # Errors
    /// [`prometheus::Error`] if a metric's name is none; they are fixed.
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let metrics = Self {
            reloads: IntCounterVec::new(
                Opts::new(
                    "runcast_settings_reloads_total",
                    "Settings read again while serving, by what became of them.",
                ),
                &["result"],
            )?,
            is_last_good: IntGauge::new(
                "runcast_settings_last_reload_successful",
                "1 if the settings read last could be used, 0 if they were refused.",
            )?,
            last_good_at: IntGauge::new(
                "runcast_settings_last_reload_success_timestamp_seconds",
                "When settings were last read that could be used.",
            )?,
            waiting: IntGauge::new(
                "runcast_settings_restart_keys",
                "Settings that have changed and hold only after a restart.",
            )?,
        };
        for result in ["taken", "refused"] {
            metrics.reloads.with_label_values(&[result]);
        }
        metrics.good_now();
        Ok(metrics)
    }

    /// Returns each, to be shown.
    pub(super) fn all(&self) -> [Box<dyn Collector>; 4] {
        [
            Box::new(self.reloads.clone()),
            Box::new(self.is_last_good.clone()),
            Box::new(self.last_good_at.clone()),
            Box::new(self.waiting.clone()),
        ]
    }

    /// Notes settings that hold now, but for `waiting` keys.
    pub(super) fn taken(&self, waiting: usize) {
        self.reloads.with_label_values(&["taken"]).inc();
        self.waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        self.good_now();
    }

    /// Notes settings that cannot be used.
    pub(super) fn refused(&self) {
        self.reloads.with_label_values(&["refused"]).inc();
        self.is_last_good.set(0);
    }

    fn good_now(&self) {
        self.is_last_good.set(1);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let seconds = now.unwrap_or_default().as_secs();
        self.last_good_at
            .set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }
}
