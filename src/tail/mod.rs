//! `runcast tail`: follows a run in a terminal over a broker's HTTP API and
//! exits as the run did. A client like any other: it knows nothing of the
//! broker's inside.
//!
//! [`follow`] keeps the connections going ([`client`] makes one, [`pace`] says
//! when, [`seen`] where to go on), [`screen`] shows what [`render`] makes of
//! an event, [`verdict`] turns the end into an exit code.

mod args;
mod client;
mod follow;
mod pace;
mod render;
mod screen;
mod seen;
mod verdict;

use std::io;
use std::process::ExitCode;

use reqwest::StatusCode;

pub(crate) use self::args::{TailArgs, broker_url};
use self::client::OpenError;
use self::follow::{FollowError, Follower};
use self::verdict::EXIT_INTERRUPTED;

/// The run could not be followed to its end.
const EXIT_NOT_FOLLOWED: u8 = 2;
/// The broker calls what was asked for wrong: the command line is.
const EXIT_USAGE: u8 = 64;
/// The reader of stdout left: what a program has that dies of SIGPIPE.
const EXIT_PIPE: u8 = 141;

/// Follows a run; returns the exit code.
///
/// # Errors
///
/// When the runtime or the HTTP client cannot be made.
pub(crate) fn run(args: &TailArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let code = runtime.block_on(async {
        let mut follower = Follower::new(args)?;
        anyhow::Ok(tokio::select! {
            // First, so that Ctrl-C works under any flood of events.
            biased;
            interrupted = tokio::signal::ctrl_c() => interrupted.map(|()| EXIT_INTERRUPTED)?,
            followed = follower.run() => followed.unwrap_or_else(|error| failed(&error)),
        })
    });
    // A reader that stopped reading may hold a write to stdout for ever.
    runtime.shutdown_background();
    Ok(ExitCode::from(code?))
}

/// Says why following stopped; returns the exit code.
fn failed(error: &FollowError) -> u8 {
    match error {
        FollowError::Screen(error) if error.kind() == io::ErrorKind::BrokenPipe => EXIT_PIPE,
        FollowError::Open(OpenError::Refused { status, .. })
            if *status == StatusCode::BAD_REQUEST =>
        {
            crate::say(error);
            EXIT_USAGE
        }
        _ => {
            crate::say(error);
            EXIT_NOT_FOLLOWED
        }
    }
}
