//! The parts of `runcast-actors` that are fuzzed, under its name and from its
//! files, without what it needs to run: building all of that with coverage
//! instrumentation takes minutes.
#![allow(dead_code, unused_imports, reason = "the parts left out use it")]

#[path = "../../actors/src/protocol/mod.rs"]
pub mod protocol;
#[path = "../../actors/src/sse/mod.rs"]
pub mod sse;

pub mod kubectl_line;
#[path = "../../actors/src/kubectl/line.rs"]
mod line;
