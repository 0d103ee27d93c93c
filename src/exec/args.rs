//! [`ExecArgs`]: the command line of `runcast exec`.

use std::ffi::OsString;

use clap::Args;
use runcast_actors::protocol::RunId;

/// What `runcast exec` is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct ExecArgs {
    /// The run that the output belongs to
    #[arg(long, value_name = "RUN", env = "RUNCAST_RUN_ID", value_parser = RunId::parse)]
    pub(super) run: RunId,
    /// What the sources `stdout` and `stderr` begin with, like `worker-1/`
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(super) source_prefix: String,
    /// Begin the run anew if there was one of this id
    #[arg(long)]
    pub(super) restart: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(super) command: Vec<OsString>,
}
