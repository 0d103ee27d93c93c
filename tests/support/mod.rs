//! What the tests stand on: real processes, real sockets, real conditions.

pub(crate) mod agent;
pub(crate) mod authority;
pub(crate) mod broker;
pub(crate) mod cli;
pub(crate) mod cluster;
pub(crate) mod engines;
pub(crate) mod failover;
pub(crate) mod followed;
pub(crate) mod frame;
pub(crate) mod guide;
pub(crate) mod history;
pub(crate) mod http;
pub(crate) mod kept;
pub(crate) mod kube_api;
pub(crate) mod otlp;
pub(crate) mod port;
pub(crate) mod process;
pub(crate) mod redis;
pub(crate) mod s3;
pub(crate) mod sentinel;
pub(crate) mod sse;
pub(crate) mod token;
pub(crate) mod wait;
pub(crate) mod watcher;

pub(crate) use broker::Broker;
pub(crate) use cli::Cli;
pub(crate) use frame::Frame;
pub(crate) use redis::Redis;
pub(crate) use sse::SseClient;
pub(crate) use wait::eventually;
