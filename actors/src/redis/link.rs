//! [`RedisLink`]: the state of the link to Redis, as others may read it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::broker::DependencyHealth;
use crate::protocol::{Problem, Timestamp};

/// Written by the subscriber; read by health checks and new streams.
#[derive(Debug)]
pub struct RedisLink {
    up: watch::Sender<bool>,
    health: Mutex<DependencyHealth>,
}

impl Default for RedisLink {
    fn default() -> Self {
        Self {
            up: watch::Sender::new(false),
            health: Mutex::new(DependencyHealth {
                up: false,
                since: Timestamp::now(),
                error: Some("not connected yet".to_owned()),
                latency_ms: None,
            }),
        }
    }
}

impl RedisLink {
    fn lock(&self) -> MutexGuard<'_, DependencyHealth> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the state in full.
    pub fn health(&self) -> DependencyHealth {
        self.lock().clone()
    }

    /// What clients are told while it is down.
    pub fn problem(&self) -> Problem {
        let since = self.lock().since;
        Problem::new(
            503,
            "redis-unavailable",
            "Redis unavailable",
            format!("Redis is down since {since}; the stream goes on when it is back"),
        )
        .retryable(true)
    }

    /// Whether the subscription is confirmed.
    pub fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// Whether it has been down for so long.
    pub fn is_down_for(&self, time: Duration) -> bool {
        let health = self.lock();
        let down_for = Timestamp::now().as_micros() - health.since.as_micros();
        !health.up && u128::from(down_for.max(0).unsigned_abs()) >= time.as_micros()
    }

    /// Waits until the subscription is confirmed.
    pub async fn until_up(&self) {
        // The sender lives as long as `self`.
        let _ = self.up.subscribe().wait_for(|up| *up).await;
    }

    pub(super) fn set_up(&self) {
        let mut health = self.lock();
        *health = DependencyHealth::up_now();
        drop(health);
        self.up.send_replace(true);
    }

    /// Notes that the link is down; `since` stays that of its first failure.
    pub(crate) fn set_down(&self, error: String) {
        let mut health = self.lock();
        if health.up {
            health.since = Timestamp::now();
        }
        health.up = false;
        health.error = Some(error);
        health.latency_ms = None;
        drop(health);
        self.up.send_replace(false);
    }

    pub(super) fn set_latency(&self, latency_ms: f64) {
        self.lock().latency_ms = Some(latency_ms);
    }
}
