//! [`DoctorArgs`]: what `runcast doctor` was asked for.

use std::time::Duration;

use clap::Args;
use humantime_serde::re::humantime::parse_duration;
use url::Url;

use crate::settings::Secret;
use crate::tail::broker_url;

/// The command line of `runcast doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct DoctorArgs {
    /// The broker as a browser reaches it, through whatever stands before it; a path before
    /// /api/v1 is kept
    #[arg(value_name = "URL", value_parser = broker_url)]
    pub(super) url: Url,
    /// Token for a broker that asks for one, best an admin's; rather RUNCAST_TOKEN: everyone on
    /// the machine can see a command line
    #[arg(
        long,
        value_name = "TOKEN",
        env = "RUNCAST_TOKEN",
        hide_env_values = true
    )]
    pub(super) token: Option<Secret>,
    /// The page that is to read streams, as its browser names it: https://app.example
    #[arg(long, value_name = "ORIGIN")]
    pub(super) origin: Option<String>,
    /// Watch an idle stream for so long, to see whether something cuts it: 90s
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(super) idle: Option<Duration>,
    /// Print what was found as JSON
    #[arg(long)]
    pub(super) json: bool,
}
