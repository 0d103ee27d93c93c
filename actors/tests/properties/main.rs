//! Properties of the protocol, its encoding and the run log that hold for every
//! input, not only for the examples of the unit tests. A failing case is
//! shrunk, printed with its seed and kept in `proptest-regressions`.

mod encoding;
mod failover;
mod fixtures;
mod inputs;
mod memory_store;
mod oracle;
mod protocol;
mod run_log;
