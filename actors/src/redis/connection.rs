//! [`Connection`]: how a store's connections are made, and how they are asked.

use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Cmd, Pipeline, RedisError, RedisResult, Value};
use tokio::time::{Instant, timeout_at};

use super::client;
use crate::settings::RedisSettings;

/// A managed connection: made when it is first used, made anew when it breaks.
/// Clones share it; calls made together travel together.
#[derive(Clone)]
pub(super) struct Connection {
    manager: ConnectionManager,
    deadline: Duration,
}

impl Connection {
    /// Makes a connection that connects when it is first used.
    ///
    /// # Errors
    /// When the URL of `settings` cannot be understood.
    pub(super) fn new(settings: &RedisSettings) -> RedisResult<Self> {
        let config = ConnectionManagerConfig::new()
            // Unless told otherwise it gives up for ever after six attempts.
            .set_number_of_retries(usize::MAX)
            .set_max_delay(settings.reconnect_max_delay)
            .set_connection_timeout(Some(settings.connect_timeout))
            .set_response_timeout(Some(settings.command_timeout));
        Ok(Self {
            manager: ConnectionManager::new_lazy_with_config(client(settings)?, config)?,
            deadline: settings.command_timeout,
        })
    }

    /// When a call that begins now must have its answer
    /// (`redis.command_timeout`).
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.deadline
    }

    /// Runs one command.
    ///
    /// # Errors
    /// Redis' own, that of the connection, or no answer before `deadline`.
    pub(super) async fn query(&self, command: &Cmd, deadline: Instant) -> RedisResult<Value> {
        let mut manager = self.manager.clone();
        // The managed connection waits for Redis as long as it takes; we do not.
        timeout_at(deadline, command.query_async(&mut manager))
            .await
            .unwrap_or_else(|_| Err(no_answer()))
    }

    /// Runs commands on keys of one run, together; one answer for each.
    ///
    /// # Errors
    /// As [`query`](Self::query), when all of them failed.
    pub(super) async fn pipeline(
        &self,
        mut commands: Pipeline,
        deadline: Instant,
    ) -> RedisResult<Vec<RedisResult<Value>>> {
        let mut manager = self.manager.clone();
        // An error of one command is its own, not the pipeline's.
        commands.ignore_errors();
        timeout_at(deadline, commands.query_async(&mut manager))
            .await
            .unwrap_or_else(|_| Err(no_answer()))
    }
}

fn no_answer() -> RedisError {
    (redis::ErrorKind::Io, "no answer in time").into()
}
