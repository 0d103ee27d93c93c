//! [`redis`]: one look at whether Redis answers, for `runcast check`.

use std::time::{Duration, Instant};

use redis::{AsyncConnectionConfig, Client, RedisError};

use crate::settings::RedisSettings;

/// Connects as the broker would, logs in, sends `PING` and returns how long
/// that took.
///
/// # Errors
///
/// What the client says when it cannot connect within
/// `redis.connect_timeout`, is refused, or has no answer within
/// `redis.command_timeout`.
pub async fn redis(settings: &RedisSettings) -> Result<Duration, RedisError> {
    let begin = Instant::now();
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(settings.connect_timeout))
        .set_response_timeout(Some(settings.command_timeout));
    let mut connection = Client::open(&settings.url)?
        .get_multiplexed_async_connection_with_config(&config)
        .await?;
    redis::cmd("PING").exec_async(&mut connection).await?;
    Ok(begin.elapsed())
}
