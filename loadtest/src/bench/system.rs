//! [`System`]: the servers that are measured side by side.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Serialize;

use crate::load::LoadPlan;
use crate::publisher::PostBody;
use crate::servers::nchan::{self, Nchan};
use crate::servers::{Redis, Server};

/// Who is measured, in the order of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum System {
    /// [`crate::bare_loop`].
    BareLoop,
    /// The same, coalescing.
    Coalescing,
    /// The same with the broker's small send buffers.
    Bounded,
    /// nchan with memory storage and one worker.
    Nchan,
    /// The same with two workers.
    Nchan2,
    /// nchan with Redis storage and one worker.
    NchanRedis,
    /// The same with two workers.
    NchanRedis2,
    /// The broker as it comes.
    Runcast,
    /// The broker with `hub.max_flush_delay = 0`.
    Unpaced,
    /// The broker as it comes, with durable events.
    Durable,
    /// Python with a subscription for each client.
    Python,
    /// Python with one for all.
    PythonShared,
}

/// The programs of the servers.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    /// The broker.
    pub(crate) broker: PathBuf,
    /// A Python interpreter with what `peers/requirements.txt` names.
    pub(crate) python: PathBuf,
}

impl System {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::BareLoop => "bare loop",
            Self::Coalescing => "bare loop, coalescing",
            Self::Bounded => "bare loop, coalescing, with our send buffers",
            Self::Nchan => "nchan (memory)",
            Self::Nchan2 => "nchan (memory), 2 workers",
            Self::NchanRedis => "nchan (Redis)",
            Self::NchanRedis2 => "nchan (Redis), 2 workers",
            Self::Runcast => "Runcast",
            Self::Unpaced => "Runcast, unpaced",
            Self::Durable => "Runcast, durable events",
            Self::Python => "Python",
            Self::PythonShared => "Python, shared subscription",
        }
    }

    /// Whether it is the broker.
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::Runcast | Self::Unpaced | Self::Durable)
    }

    /// Whether it takes a fraction of what the others do.
    pub(crate) fn is_slow(self) -> bool {
        matches!(self, Self::Python | Self::PythonShared)
    }

    /// Messages that may be under way flat out: enough to keep it busy, and
    /// little enough that they are read in a few seconds. Who merges messages
    /// needs more.
    pub(crate) fn in_flight(self) -> u32 {
        match self {
            Self::Python | Self::PythonShared => 10,
            Self::Coalescing | Self::Bounded | Self::Runcast | Self::Unpaced | Self::Durable => {
                1_000
            }
            _ => 100,
        }
    }

    fn nchan(self) -> Option<Nchan> {
        let (workers, in_redis) = match self {
            Self::Nchan => (1, false),
            Self::Nchan2 => (2, false),
            Self::NchanRedis => (1, true),
            Self::NchanRedis2 => (2, true),
            _ => return None,
        };
        Some(Nchan { workers, in_redis })
    }

    /// Starts it, and waits until it is ready.
    pub(crate) fn start(self, programs: &Programs, redis: &Redis) -> Result<Server> {
        let broker = |settings: &[(&str, &str)]| {
            let server = Server::broker(&programs.broker, redis, settings)?;
            server.wait_ready()?;
            Ok(server)
        };
        let python = |shared| Server::python(Path::new(&programs.python), redis, shared);
        match self {
            Self::BareLoop => Server::bare_loop(redis, &[]),
            Self::Coalescing => Server::bare_loop(redis, &["--coalesce"]),
            Self::Bounded => Server::bare_loop(redis, &["--coalesce", "--bounded"]),
            Self::Runcast | Self::Durable => broker(&[]),
            Self::Unpaced => broker(&[("RUNCAST__HUB__MAX_FLUSH_DELAY", "0s")]),
            Self::Python => python(false),
            Self::PythonShared => python(true),
            Self::Nchan | Self::Nchan2 | Self::NchanRedis | Self::NchanRedis2 => {
                let nchan = self.nchan().expect("these are nchan's");
                Server::nchan(nchan, redis)
            }
        }
    }

    /// Directs a load at a server of this kind.
    pub(crate) fn aim(self, load: LoadPlan, server: &Server, redis: &Redis) -> LoadPlan {
        let plan = LoadPlan {
            url: server.url(),
            redis: redis.url.clone(),
            durable: self == Self::Durable,
            pid: vec![server.pid()],
            ..load
        };
        if self.nchan().is_none() {
            return plan;
        }
        LoadPlan {
            path: nchan::STREAM_PATH.to_owned(),
            post: Some(nchan::POST_PATH.to_owned()),
            post_body: PostBody::Raw,
            ..plan
        }
    }
}
