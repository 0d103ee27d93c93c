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
    pub(super) redis: Redis,
    pub(super) url: String,
    pub(super) metrics: Arc<Metrics>,
}

impl RedisBackend {
    pub(super) fn of(redis: Redis) -> Self {
        Self {
            url: redis.url(),
            redis,
            metrics: Arc::default(),
        }
    }

    /// Lets one user who may do what `rules` say be who asks.
    pub(super) async fn only(mut self, rules: &[&str]) -> Self {
        let user = ["ACL", "SETUSER", "agent", "on", ">secret"];
        self.command::<String>(&[&user[..], rules].concat()).await;
        self.url = format!("redis://agent:secret@127.0.0.1:{}", self.redis.port());
        self
    }

    /// Runs a command as someone who may do all.
    pub(super) async fn command<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        self.redis.publisher().await.command(words).await
    }
}

impl Backend for RedisBackend {
    fn open(&self, mut settings: BrokerSettings) -> Arc<dyn RunStore> {
        settings.redis.url = self.url.parse().expect("a URL");
        let store = RedisStore::new(Arc::new(settings), Arc::clone(&self.metrics));
        Arc::new(store)
    }
}

pub(super) async fn by_functions() -> RedisBackend {
    RedisBackend::of(Redis::start().await)
}

/// Functions are forbidden.
pub(super) async fn by_scripts() -> RedisBackend {
    let rules = ["~*", "&*", "+@all", "-function", "-fcall", "-fcall_ro"];
    by_functions().await.only(&rules).await
}

/// Functions are unknown.
pub(super) async fn before_functions() -> RedisBackend {
    RedisBackend::of(Redis::start_6_2().await)
}

/// Another server of the same kind.
async fn on_valkey() -> RedisBackend {
    RedisBackend::of(Redis::start_valkey(&[]).await)
}

contract_tests!(functions, super::by_functions);
contract_tests!(scripts, super::by_scripts);
contract_tests!(redis_6_2, super::before_functions);
contract_tests!(valkey, super::on_valkey);
