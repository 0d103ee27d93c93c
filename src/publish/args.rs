//! [`PublishArgs`]: the command line of `runcast publish`.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;
use humantime_serde::re::humantime;
use runcast_actors::protocol::{EventKind, RunId};

/// What `runcast publish` is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct PublishArgs {
    /// The run that the events belong to
    #[arg(value_name = "RUN", value_parser = RunId::parse)]
    pub(super) run: RunId,
    /// An event each; without any, the lines of stdin are the events
    #[arg(value_name = "DATA")]
    pub(super) data: Vec<OsString>,
    /// Kind of the events: output, status or log
    #[arg(long, default_value_t = EventKind::Output)]
    pub(super) kind: EventKind,
    /// Source of the events [default: stdout; a status has none]
    #[arg(long, value_name = "NAME")]
    pub(super) source: Option<String>,
    /// Each line or DATA is a whole event: {"kind":…,"source":…,"data":…}
    #[arg(long, conflicts_with_all = ["kind", "source"])]
    pub(super) json: bool,
    /// Begin the run anew if there was one of this id
    #[arg(long)]
    pub(super) restart: bool,
    /// Print the id of each event, or - for one that has none
    #[arg(long)]
    pub(super) ids: bool,
    /// How long to try while Redis takes nothing
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub(super) timeout: Duration,
}
