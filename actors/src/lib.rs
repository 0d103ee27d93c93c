//! The actors, protocol and fan-out of Runcast.

pub mod broker;
pub mod heartbeat;
pub mod hub;
pub mod kubectl;
pub mod metrics;
pub mod protocol;
pub mod redis;
pub mod run_log;
pub mod session;
pub mod settings;
pub mod sse;
mod stream_filter;
pub mod worker;
