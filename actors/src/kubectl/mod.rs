//! The kubectl backend: a run's pods found and followed, one log per
//! container, with the real `kubectl` or by the Kubernetes API itself.
//!
//! ```text
//! pod_view ─pods─▶ controller ─plan─▶ follow ─open_log─▶ engine: command, a child
//!                      ▲                │                 process (kubectl logs -f),
//!                      │                │                 or api, a connection
//!                      └───── end ──────┤ lines: split, parsed, counted,
//!                                       ▼        skipped if known
//!                                    outlet ─send().await─▶ hub
//! ```
//! [`line`], [`pods`], [`failure`] and [`container`] are pure.

mod actor;
#[cfg(feature = "kubernetes-api")]
mod api;
#[cfg(not(feature = "kubernetes-api"))]
#[path = "no_api.rs"]
mod api;
mod command;
mod container;
mod controller;
mod counters;
mod engine;
mod failure;
mod families;
mod follow;
mod health;
mod line;
mod look;
mod outlet;
mod pod_view;
mod pods;
mod update;

pub(crate) use engine::Cluster;
pub(crate) use pod_view::PodView;

pub use actor::{KubectlFollow, KubectlLogActor, Stop};
pub use counters::{FollowPermits, KubectlCounters};
pub use engine::Engine;
pub use failure::FailureReason;
pub use health::KubectlHealth;
pub(crate) use health::watch as watch_health;
pub(crate) use look::PodLooks;
pub use update::{KubectlLine, KubectlUpdate};
