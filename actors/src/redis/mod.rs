//! The Redis backend: one subscription that everything arrives on, and
//! connections for publishes and reads. No other part knows Redis, nor of
//! which kind it is.

mod access;
mod archive;
mod batches;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
mod check;
mod claims;
mod cluster;
mod connection;
mod deliver;
mod library;
mod link;
mod node;
mod page;
mod push_queue;
mod push_tap;
mod recorder;
mod sentinel;
mod shards;
mod socket;
mod store;
mod subscriber;
mod subscription;
mod tls;

pub(crate) use check::{check, look};
pub use link::RedisLink;
pub(crate) use recorder::{Leave, Recorder};
pub use shards::ShardSubscriber;
pub(crate) use shards::{Look, Watch};
pub use store::RedisStore;
pub use subscriber::{RedisSubscriber, Resubscribe};
