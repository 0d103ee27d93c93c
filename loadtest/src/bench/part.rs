//! [`Part`]: the loads of the bench, and who is put under each.

use std::time::Duration;

use serde::Serialize;

use super::system::System;
use crate::load::{LoadPlan, Rate};

/// A load, in the order of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Part {
    /// One run with many clients: the main load.
    FanOut,
    /// The same with fewer clients.
    Sizes,
    /// The same as fast as it can.
    FlatOut,
    /// Many runs with few clients and few messages.
    ManyRuns,
    /// Many runs with few clients and many small messages.
    Tokens,
    /// The main load with clients that read nothing.
    Stalled,
    /// All clients drop and come back at once.
    DropAll,
    /// Nothing is published.
    Idle,
    /// Nothing is published, and each client has a run of its own.
    IdleRuns,
}

/// By how much a load is smaller and shorter than it should be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// Subscribers and runs are divided by this.
    pub(crate) fewer: usize,
    /// How long each load is measured.
    pub(crate) duration: Duration,
}

/// The main load's clients.
const FAN_OUT: usize = 1_000;

/// Clients of [`Part::Sizes`].
const SIZES: [usize; 3] = [1, 10, 100];

impl Part {
    /// Returns what the figures are of.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::FanOut => "1,000 clients of one run, 100 messages a second of 200 bytes",
            Self::Sizes => "the same with fewer clients",
            Self::FlatOut => "1,000 clients of one run, messages of 200 bytes as fast as it can",
            Self::ManyRuns => "5,000 clients on 500 runs, 2 messages a second to each run",
            Self::Tokens => {
                "1,000 clients on 100 runs, 50 messages a second of 60 bytes to each run"
            }
            Self::Stalled => "the first load, with 50 of the clients stalled",
            Self::DropAll => "5,000 clients on 50 runs drop and come back at once",
            Self::Idle => "10,000 streams on one run, nothing sent",
            Self::IdleRuns => "10,000 streams on 10,000 runs, nothing sent",
        }
    }

    /// Returns the loads it consists of; slow systems get smaller ones.
    pub(crate) fn loads(self, system: System, scale: &Scale) -> Vec<LoadPlan> {
        let sizes = match self {
            Self::Sizes => &SIZES[..],
            Self::FanOut | Self::FlatOut | Self::Tokens | Self::Stalled => &[FAN_OUT],
            Self::ManyRuns | Self::DropAll => &[5_000],
            Self::Idle | Self::IdleRuns if system.is_slow() => &[2_000],
            Self::Idle | Self::IdleRuns => &[10_000],
        };
        sizes
            .iter()
            .map(|size| self.load((*size / scale.fewer).max(1), system, scale))
            .collect()
    }

    fn load(self, subscribers: usize, system: System, scale: &Scale) -> LoadPlan {
        let base = LoadPlan {
            subscribers,
            warmup: scale.duration.mul_f64(0.25),
            duration: scale.duration,
            patience: Duration::from_secs(5),
            ..LoadPlan::default()
        };
        let runs = |runs: usize| (runs / scale.fewer).max(1);
        let slower = |rate| Rate::PerSecond(if system.is_slow() { rate / 10.0 } else { rate });
        match self {
            Self::FanOut | Self::Sizes => LoadPlan {
                rate: slower(100.0),
                ..base
            },
            Self::FlatOut => LoadPlan {
                rate: Rate::Max,
                in_flight: system.in_flight(),
                ..base
            },
            Self::ManyRuns => LoadPlan {
                runs: runs(500),
                rate: slower(2.0),
                ..base
            },
            Self::Tokens => LoadPlan {
                runs: runs(100),
                rate: slower(50.0),
                payload_bytes: 60,
                ..base
            },
            Self::Stalled => LoadPlan {
                rate: slower(100.0),
                stalled: (50 / scale.fewer).max(1),
                ..base
            },
            Self::DropAll => LoadPlan {
                runs: runs(50),
                rate: slower(2.0),
                drop_all_at: Some(scale.duration / 3),
                connects_in_flight: 5_000,
                ..base
            },
            Self::Idle => LoadPlan {
                rate: Rate::PerSecond(0.0),
                ..base
            },
            Self::IdleRuns => LoadPlan {
                runs: subscribers,
                rate: Rate::PerSecond(0.0),
                ..base
            },
        }
    }

    /// Returns how often a system is measured of at most so many times: what a
    /// target compares gets all of them. 0: it has no place here.
    pub(crate) fn rounds(self, system: System, rounds: u16) -> u16 {
        use System::{
            BareLoop, Bounded, Coalescing, Durable, Nchan, Nchan2, NchanRedis2, Runcast, Unpaced,
        };
        match self {
            Self::FlatOut if system == Bounded => rounds,
            // Only there do sockets fill.
            _ if system == Bounded => 0,
            Self::Sizes => match system {
                BareLoop | Coalescing | Nchan | Runcast | Unpaced | Durable => 1,
                _ => 0,
            },
            Self::IdleRuns if system == Runcast => 1,
            Self::IdleRuns => 0,
            Self::FanOut | Self::FlatOut => match system {
                BareLoop | Coalescing | Nchan | Runcast | Unpaced => rounds,
                Durable if self == Self::FanOut => rounds,
                _ => 1,
            },
            // Where two workers are no other matter.
            _ if matches!(system, Nchan2 | NchanRedis2) => 0,
            Self::ManyRuns | Self::DropAll if matches!(system, Nchan | Runcast) => rounds,
            Self::Tokens if matches!(system, BareLoop | Runcast) => rounds,
            Self::Stalled if matches!(system, Runcast | Unpaced) => rounds,
            Self::Idle if system == Durable => 0,
            _ => 1,
        }
    }
}
