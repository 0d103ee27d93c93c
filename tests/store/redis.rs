//! The contract on Redis, by functions and by scripts.

use std::sync::Arc;

use runcast_actors::broker::BrokerSettings;
use runcast_actors::metrics::Metrics;
use runcast_actors::redis::RedisStore;
use runcast_actors::store::RunStore;

use super::contract::{Backend, contract_tests};
use crate::support::Redis;

/// A redis-server of its own, and how to reach it.
pub(super) struct RedisBackend {
    _redis: Redis,
    url: String,
}

impl Backend for RedisBackend {
    fn open(&self, mut settings: BrokerSettings) -> Arc<dyn RunStore> {
        settings.redis.url = self.url.parse().expect("a URL");
        let store = RedisStore::new(Arc::new(settings), Arc::new(Metrics::default()));
        Arc::new(store.expect("a URL that is understood"))
    }
}

pub(super) async fn by_functions() -> RedisBackend {
    let redis = Redis::start().await;
    let url = redis.url();
    RedisBackend { _redis: redis, url }
}

/// Functions are forbidden.
pub(super) async fn by_scripts() -> RedisBackend {
    let redis = Redis::start().await;
    let user = [
        "ACL", "SETUSER", "agent", "on", ">secret", "~*", "&*", "+@all",
    ];
    let forbidden = ["-function", "-fcall", "-fcall_ro"];
    let words = [&user[..], &forbidden].concat();
    let _: String = redis.publisher().await.command(&words).await;
    let url = format!("redis://agent:secret@127.0.0.1:{}", redis.port());
    RedisBackend { _redis: redis, url }
}

contract_tests!(functions, super::by_functions);
contract_tests!(scripts, super::by_scripts);
