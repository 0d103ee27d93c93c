//! The kubectl backend: a run's pods found and followed with the real
//! `kubectl`, one child process per container.
//!
//! ```text
//! controller ─plan─▶ follow ─spawn─▶ child (kubectl logs -f)
//!     ▲                │ lines: split, parsed, counted, skipped if known
//!     └──── end ───────┤
//!                      ▼
//!                   outlet ─send().await─▶ hub
//! ```
//! [`line`], [`pods`], [`failure`] and [`container`] are pure.

mod actor;
mod child;
mod container;
mod controller;
mod counters;
mod failure;
mod families;
mod follow;
mod health;
mod line;
mod look;
mod outlet;
mod pods;
mod update;

pub(crate) use child::Kubectl;

pub use actor::{KubectlFollow, KubectlLogActor, Stop};
pub use counters::{FollowPermits, KubectlCounters};
pub use failure::FailureReason;
pub use health::KubectlHealth;
pub(crate) use health::watch as watch_health;
pub(crate) use look::PodLooks;
pub use update::{KubectlLine, KubectlUpdate};
