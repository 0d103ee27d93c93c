//! The actors, protocol and fan-out of Runcast.
//!
//! What a message passes on its way from Redis to a client's socket.
//! `docs/message-life.md` says more, and the same for posts and kubectl.
//!
//! | hop | type, in | bound | when full | metric `runcast_…` |
//! |---|---|---|---|---|
//! | read from Redis | `PushQueue`, [`redis`] | `redis.queue_messages`, `redis.queue_bytes` | dropped, all runs read the store or get `gap overflow` | `redis_queue_overflows_total` |
//! | sorted by run | a turn of [`RedisSubscriber`](crate::redis::RedisSubscriber) | 512 messages | the next turn | `redis_messages_total` |
//! | sent to its hub | [`hub::Arrived`], [`hub::Registry`] | `hub.mailbox`, `hub.max_hubs` | refused, as above for this run; the longest idle hub goes | `mailbox_refusals_total`, `hubs_evicted_total` |
//! | put in order | [`order::RunOrder`] of [`hub::RunHub`] | `hub.held_bytes` held while the store is read | dropped, and read from the store | `events_in_total` |
//! | encoded, once | `LogWriter`, [`sse::Segment`] | `limits.max_event_bytes`, 8 KiB a segment | `gap too_large`; the next segment | `events_in_total` |
//! | kept | [`run_log::RunLog`] of [`hub::RunHub`] | `hub.ring_bytes`, `hub.total_ring_bytes` | the oldest go, idle runs first | `ring_bytes` |
//! | to each worker attached | [`worker::Inbox`] | `hub.inbox_bytes` | refused, caught up from the log | `inbox_refusals_total` |
//! | to the worker's log | `WorkerRun`, [`worker`] | `hub.ring_bytes` | the oldest go; who stood there reads the store, plain events are told by `gap slow_client` | `gaps_total` |
//! | flushed | `WorkerRun`, [`worker`] | `hub.max_flush_delay`, half the log | flushed at once | `delivery_lag_seconds` |
//! | read by each client | [`session::StreamBody`] | a place in the log, or one page | not asked until the socket has room | `deliveries_total` |
//! | written | `StreamWriter` of the program, the socket | 64 KiB a write, or one piece; `limits.write_timeout` | the connection is closed | `sessions_closed_total` |
//!
//! Where the live order has a hole, or a client's place is no longer in the
//! log, durable events are read from the [`store`]:
//!
//! | reader | by | bound | when full, or no answer | metric `runcast_…` |
//! |---|---|---|---|---|
//! | [`hub::RunHub`] | [`order::RunOrder`] | a page of `history.page_bytes`, 512 events; `history.max_reads` | waits; every 200 ms again | `store_reads_total` |
//! | [`hub::PositionChecker`] | `redis.check_interval` | 1000 runs a call | the next check | `store_checks_total`, `redis_positions_off_total` |
//! | [`session::SseSession`] | [`order::Joiner`] | one such page a client | before `hello`: `problem`, `goodbye`; later again | `store_reads_total` |
//!
//! Control goes by mailbox, bytes go by log: no event passes a queue of a
//! client. Imports flow one way: everything may use [`protocol`], which uses
//! nothing of ours, and [`sse`], which uses only that.

pub mod access;
pub mod archive;
pub mod broker;
pub mod failover;
pub mod heartbeat;
pub mod history;
pub mod hub;
pub mod kubectl;
pub mod memory_store;
pub mod metrics;
pub mod order;
mod pace;
pub mod protocol;
pub mod reach;
pub mod redis;
pub mod run_log;
pub mod session;
pub mod settings;
pub mod spans;
pub mod sse;
pub mod store;
mod stream_filter;
pub mod worker;

#[cfg(feature = "bench")]
#[doc(hidden)]
pub use redis::bench;
