//! The Python peers of `peers/sse_peer.py`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{Redis, Server};

/// The program itself, so that the tool needs no file beside it.
const PROGRAM: &str = include_str!("../../peers/sse_peer.py");

impl Server {
    /// Starts the peer with an interpreter that has its requirements; with
    /// `shared`, all clients share one subscription.
    pub(crate) fn python(interpreter: &Path, redis: &Redis, shared: bool) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("runcast-peer-").tempdir()?;
        let program = dir.path().join("sse_peer.py");
        fs::write(&program, PROGRAM)?;
        let mut command = Command::new(interpreter);
        command.arg(&program).args(["--redis", &redis.url]);
        if shared {
            command.arg("--shared");
        }
        // It has read its program by the time it listens.
        Self::start(command)
    }
}
