//! The Redis backend: one subscription that everything arrives on, and
//! connections for publishes and reads. No other part knows Redis, nor of
//! which kind it is.

mod cluster;
mod connection;
mod library;
mod link;
mod node;
mod page;
mod push_queue;
mod store;
mod subscriber;
mod subscription;

pub use link::RedisLink;
pub use store::RedisStore;
pub use subscriber::{RedisSubscriber, Resubscribe};

use std::time::{Duration, Instant};

use redis::RedisResult;

use crate::settings::RedisSettings;

/// Logs in to every server that takes writes, sends `PING` and returns how
/// long that took.
///
/// # Errors
/// What the client says when one cannot be found or reached within
/// `redis.connect_timeout`, is refused, or has no answer within
/// `redis.command_timeout`.
pub(crate) async fn ping(settings: &RedisSettings) -> RedisResult<Duration> {
    let begin = Instant::now();
    let connection = connection::Connection::new(settings);
    for master in connection.masters(connection.deadline()).await? {
        let _: String = master.query(redis::cmd("PING")).await?;
    }
    Ok(begin.elapsed())
}
