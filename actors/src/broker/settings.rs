//! [`BrokerSettings`]: the sections the actors read, together.

use std::time::Duration;

use crate::access::AccessSettings;
use crate::order::Safeguards;
use crate::protocol::BackendKind;
use crate::run_log::RunLog;
use crate::settings::{
    ArchiveSettings, AutoSettings, DefaultBackend, HeartbeatSettings, HistorySettings, HubSettings,
    KubectlSettings, Live, RedisSettings, RunSettings,
};
use crate::spans::Spans;

/// What a broker is started with; checked by whoever made it.
#[derive(Debug, Clone, Default)]
pub struct BrokerSettings {
    /// `[redis]`
    pub redis: RedisSettings,
    /// `[history]`
    pub history: HistorySettings,
    /// `[archive]`
    pub archive: ArchiveSettings,
    /// `[hub]`
    pub hub: HubSettings,
    /// `[heartbeat]`
    pub heartbeat: HeartbeatSettings,
    /// `[runs]`
    pub runs: RunSettings,
    /// `[kubectl]`
    pub kubectl: KubectlSettings,
    /// `[auto]`
    pub auto: AutoSettings,
    /// What may change while it runs.
    pub live: Live,
    /// What the actors need of `[auth]`.
    pub access: AccessSettings,
    /// What is switched off to show that a test finds it missing; no setting.
    pub safeguards: Safeguards,
    /// What makes spans; no setting.
    pub spans: Spans,
}

impl BrokerSettings {
    /// Returns the backend that publishes go to and `/stream/redis` serves.
    pub fn backend(&self) -> BackendKind {
        match self.live.now().streaming.default_backend {
            DefaultBackend::Embedded => BackendKind::Embedded,
            DefaultBackend::Redis | DefaultBackend::Kubectl | DefaultBackend::Auto => {
                BackendKind::Redis
            }
        }
    }

    /// Makes the log of a hub, and of a worker that mirrors it. Where the hub
    /// is the only history (kubectl, which must hold a whole log while its
    /// readers catch up) it is as long as histories are.
    pub(crate) fn new_log(&self, backend: BackendKind) -> RunLog {
        match backend {
            BackendKind::Redis | BackendKind::Embedded | BackendKind::Auto => {
                RunLog::new(self.hub.ring_bytes.as_u64() as usize, u64::MAX)
            }
            BackendKind::Kubectl => {
                RunLog::new(self.history.max_bytes_per_run.as_u64() as usize, u64::MAX)
            }
        }
    }

    /// How long a hub outlives its last client and event.
    pub(crate) fn idle_ttl(&self, backend: BackendKind) -> Duration {
        match backend {
            BackendKind::Redis | BackendKind::Embedded | BackendKind::Auto => self.hub.idle_ttl,
            BackendKind::Kubectl => self.kubectl.linger,
        }
    }

    /// Steps of the heartbeat wheel in one interval: one a second, but at
    /// least eight, so that short intervals are kept closely.
    pub(crate) fn heartbeat_ticks(&self) -> u64 {
        self.heartbeat.interval.as_secs().max(8)
    }

    /// Time between two steps of the heartbeat wheel.
    pub(crate) fn tick(&self) -> Duration {
        self.heartbeat.interval / self.heartbeat_ticks() as u32
    }
}
