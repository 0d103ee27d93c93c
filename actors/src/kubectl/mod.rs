//! The kubectl backend: a run's pods found and followed with the real
//! `kubectl`, one child process per container.

mod update;

pub use update::{KubectlLine, KubectlUpdate};
