//! [`KubectlHealth`]: whether the cluster can be asked, as far as we know.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{info, warn};

use crate::broker::{BrokerShared, DependencyHealth};
use crate::protocol::{Problem, Timestamp};
use crate::reach;

/// Pause between two looks while it cannot be asked.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// Written by hubs, from what their follows meet, and by [`watch`].
#[derive(Debug)]
pub struct KubectlHealth(Mutex<DependencyHealth>);

impl Default for KubectlHealth {
    fn default() -> Self {
        Self(Mutex::new(DependencyHealth::up_now()))
    }
}

impl KubectlHealth {
    fn lock(&self) -> MutexGuard<'_, DependencyHealth> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the state in full.
    pub fn health(&self) -> DependencyHealth {
        self.lock().clone()
    }

    /// Whether it can be used.
    pub fn is_up(&self) -> bool {
        self.lock().up
    }

    /// Notes that it answered.
    pub(crate) fn set_up(&self) {
        let mut health = self.lock();
        if !health.up {
            *health = DependencyHealth::up_now();
            info!("the kubectl backend can be used");
        }
    }

    /// Notes a failure, if it is one of kubectl or the cluster as a whole and
    /// not of one run's pods.
    pub(crate) fn note(&self, problem: &Problem) {
        let is_general = problem.slug.starts_with("kubernetes-")
            || matches!(problem.slug, "kubectl-missing" | "kubectl-not-executable");
        if !is_general {
            return;
        }
        let mut health = self.lock();
        if health.up {
            warn!(error = %problem.detail, "the kubectl backend cannot be used");
            health.since = Timestamp::now();
        }
        health.up = false;
        health.error = Some(problem.detail.clone());
    }
}

/// Looks at once whether it can be asked if streams depend on that by
/// default, and every ten seconds while it cannot: a broker that is not sent
/// any stream for that reason finds out by itself that it is well again. For
/// others, what may be a process of 50 MB would be dear for what nobody may ask.
pub(crate) async fn watch(shared: std::sync::Arc<BrokerShared>, at_once: bool) {
    let mut look = at_once;
    loop {
        if look || !shared.kubectl_health.is_up() {
            match reach::kubectl(&shared.settings.kubectl).await {
                Ok(_) => shared.kubectl_health.set_up(),
                Err(problem) => shared.kubectl_health.note(&problem),
            }
        }
        look = false;
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}
