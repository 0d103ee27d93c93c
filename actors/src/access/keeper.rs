//! Keeping up with what other brokers revoked.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::broker::BrokerShared;

/// How often revocations are read without word of a new one: a notice may have
/// been lost.
const CHECK_INTERVAL: Duration = Duration::from_secs(15);

/// Pause before a failed read is tried again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Least time between two reads, whoever asks for them how often.
const READ_PAUSE: Duration = Duration::from_millis(100);

/// Wakes who keeps up: something was revoked, or the notice of it may have
/// been missed.
#[derive(Debug, Default)]
pub(crate) struct RevocationNews(Notify);

impl RevocationNews {
    pub(crate) fn tell(&self) {
        self.0.notify_one();
    }
}

/// Reads what is revoked, at once and whenever there is news, for as long as
/// the process lives.
pub(crate) async fn keep_revocations(shared: Arc<BrokerShared>) {
    let mut is_told = false;
    loop {
        let wait = match shared.access().revocations().await {
            Ok(revocations) => {
                is_told = false;
                shared.learn_revocations(revocations);
                CHECK_INTERVAL
            }
            Err(error) => {
                shared.metrics.revocation_read_failures.inc();
                if !std::mem::replace(&mut is_told, true) {
                    warn!(%error, "revocations not read, those known go on counting");
                }
                RETRY_DELAY
            }
        };
        sleep(READ_PAUSE).await;
        // Out of time: read without news.
        let _ = timeout(wait, shared.revocation_news.0.notified()).await;
    }
}
