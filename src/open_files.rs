//! The limit of open files, and what of the settings fits below it.
//!
//! Each connection is an open file. A process at its limit can neither accept
//! nor answer, so it must not get there: what the limit has no room for is
//! refused as at any other limit, by `limits.max_streams`, or waits in the
//! backlog, by `server.max_connections`.

use anyhow::Context as _;
use runcast_actors::settings::KubectlEngine;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::http::OPERATOR_CONNECTIONS;
use crate::settings::Settings;

/// Files that are no connections of clients: the log, listening sockets,
/// Redis, what the runtime has.
const OWN_FILES: usize = 64;

/// The same of each worker.
const WORKER_FILES: usize = 8;

/// Pipes of one `kubectl`, while it starts.
const FOLLOW_FILES: usize = 6;

/// Connections of a follow over the Kubernetes API: its own, and that of its
/// run's watch.
const API_FOLLOW_FILES: usize = 2;

/// Connections below which there is no use in serving.
const CONNECTIONS_MIN: usize = 16;

/// Raises the limit as far as allowed, and lowers `server.max_connections` and
/// `limits.max_streams` to what fits below it, with a warning.
///
/// # Errors
/// The limit leaves no room for clients.
pub(crate) fn fit(settings: &mut Settings) -> anyhow::Result<()> {
    if let Some(files) = lower(settings)? {
        tracing::warn!(
            open_files = files,
            max_connections = settings.server.max_connections,
            max_streams = settings.limits.max_streams,
            "the limit of open files is lower than the settings need, and they are lowered to it; \
             raise it (ulimit -n)"
        );
    }
    Ok(())
}

/// Does that without a word; returns the limit if it was too low.
///
/// # Errors
/// The limit leaves no room for clients.
pub(crate) fn lower(settings: &mut Settings) -> anyhow::Result<Option<usize>> {
    let files = raise_limit()?;
    let room = files.saturating_sub(own_files(settings));
    anyhow::ensure!(
        room >= CONNECTIONS_MIN,
        "the limit of open files ({files}) leaves no room for clients; raise it (ulimit -n)"
    );
    if settings.server.max_connections <= room {
        return Ok(None);
    }
    let (server, limits) = (&mut settings.server, &mut settings.limits);
    server.max_connections = room;
    limits.max_streams = limits.max_streams.min(streams_beside_others(room));
    Ok(Some(files))
}

/// Streams that leave connections for health checks, publishers, and those
/// who are told that there are too many streams.
fn streams_beside_others(connections: usize) -> usize {
    connections - (connections / 16).max(6)
}

fn own_files(settings: &Settings) -> usize {
    let follow = match settings.kubectl.engine {
        KubectlEngine::Command => FOLLOW_FILES,
        KubectlEngine::Api => API_FOLLOW_FILES,
    };
    let kubectl = match settings.kubectl.enabled {
        true => settings.kubectl.max_follows * follow,
        false => 0,
    };
    let operator = match settings.metrics.bind {
        Some(_) => WORKER_FILES + OPERATOR_CONNECTIONS,
        None => 0,
    };
    OWN_FILES + settings.server.worker_count() * WORKER_FILES + kubectl + operator
}

/// Raises the limit to what the process is allowed; returns it.
fn raise_limit() -> anyhow::Result<usize> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        setrlimit(Resource::Nofile, raised).context("cannot raise the limit of open files")?;
    }
    let files = limit.maximum.unwrap_or(u64::MAX);
    Ok(usize::try_from(files).unwrap_or(usize::MAX))
}
