//! The Redis backend: one subscription that everything arrives on, and managed
//! connections for publishes and for reads. No other part knows Redis.

mod connection;
mod library;
mod link;
mod page;
mod push_queue;
mod store;
mod subscriber;

pub use link::RedisLink;
pub use store::RedisStore;
pub use subscriber::RedisSubscriber;

use redis::{Client, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisResult};
use std::time::Duration;

use crate::settings::RedisSettings;

/// Checks that `url` can be understood, without connecting.
///
/// # Errors
/// A sentence that does not hold the URL, which may hold a password.
pub fn check_url(url: &str) -> Result<(), String> {
    let info = url.into_connection_info();
    info.map(drop)
        .map_err(|error| format!("not a Redis URL: {}", error.category()))
}

/// Makes a client whose connections are made for a long life: RESP3, no
/// delay, and an end if the peer acknowledges nothing for a while.
fn client(settings: &RedisSettings) -> RedisResult<Client> {
    let info: ConnectionInfo = settings.url.as_str().into_connection_info()?;
    let tcp = redis::io::tcp::TcpSettings::default()
        .set_nodelay(true)
        .set_user_timeout(USER_TIMEOUT);
    let redis = info
        .redis_settings()
        .clone()
        .set_protocol(ProtocolVersion::RESP3);
    Client::open(info.set_tcp_settings(tcp).set_redis_settings(redis))
}

/// How long sent bytes may stay unacknowledged (`TCP_USER_TIMEOUT`).
const USER_TIMEOUT: Duration = Duration::from_secs(10);
