//! The contract of a store, held by every store there is.

mod contract;
mod memory;
mod redis;
