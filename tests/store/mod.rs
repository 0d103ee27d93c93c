//! The contract of a store, held by every store there is, and what is Redis'
//! own.

mod contract;
mod library;
mod memory;
mod meta;
mod redis;
