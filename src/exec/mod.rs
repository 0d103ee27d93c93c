//! `runcast exec`: runs a command unchanged, and its output is published.
//!
//! ```text
//! command ─pipe─▶ Relay (a thread each) ─▶ our stdout, stderr
//!                   └─lines─▶ Spool (memory, disk) ─▶ ship ─▶ RunStore
//! ```
//!
//! The relay waits for the command and for our own output, never for Redis.

mod args;
mod command;
mod disk_ring;
mod relay;
mod settings;
mod shipper;
mod signals;
mod spool;

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use runcast_actors::store::RunStore;
use tokio::sync::oneshot;

pub(crate) use args::ExecArgs;
pub(crate) use settings::ExecSettings;

use self::command::{Ending, RunningCommand};
use self::relay::{Relay, RelayEnd};
use self::shipper::{Shipped, Sources, ship};
use self::signals::Signals;
use self::spool::{Origin, Spool};
use crate::producer::Sender;
use crate::settings::Settings;
use crate::{EXIT_USAGE, say};

/// Names the run: for `--run`, and for the command and what it starts.
pub(crate) const RUN_ID_VARIABLE: &str = "RUNCAST_RUN_ID";

/// A burst of dropped lines is over when none is dropped for as long.
const BURST_PAUSE: Duration = Duration::from_secs(10);

/// Runs the command to its end and returns its exit code, or that of a shell
/// if it cannot be started.
///
/// # Errors
/// Something of ours fails before the command is started.
pub(crate) async fn run(
    settings: &Settings,
    store: Rc<dyn RunStore>,
    args: &ExecArgs,
) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let sources = Sources::new(&args.source_prefix);
    if sources.longest() > settings.limits.max_source_bytes {
        let limit = settings.limits.max_source_bytes;
        say(&format_args!(
            "--source-prefix is too long: a source has at most {limit} bytes"
        ));
        return Ok(ExitCode::from(EXIT_USAGE));
    }
    let (spool, fault) = Spool::new(&settings.exec);
    if let Some(error) = fault {
        say(&format_args!(
            "no lines will be kept on disk (exec.spool_dir): {error}"
        ));
    }
    let spool = Arc::new(spool);
    let shipped = Rc::default();
    let mut shipping = actix_rt::spawn(ship(
        Arc::clone(&spool),
        Sender::new(store, args.run.clone(), args.restart),
        sources,
        settings.redis.reconnect_max_delay,
        Rc::clone(&shipped),
    ));
    actix_rt::spawn(tell_dropped(Arc::clone(&spool)));

    let (ending, ended) = run_command(settings, args, &spool, &mut signals).await?;
    let flushed = async {
        // An error would be a panic there; what it left is counted.
        let _ = tokio::time::timeout(settings.exec.flush_timeout, &mut shipping).await;
    };
    tokio::select! {
        () = flushed => {}
        () = signals.until_interrupted(ended) => {}
    }
    tell_unpublished(&spool, &shipped);
    Ok(ExitCode::from(ending.exit_code()))
}

/// Runs the command, with its output in the spool between its two statuses.
/// Returns how it ended, and when.
async fn run_command(
    settings: &Settings,
    args: &ExecArgs,
    spool: &Arc<Spool>,
    signals: &mut Signals,
) -> anyhow::Result<(Ending, Instant)> {
    // All that may fail comes before the command: it is started as a whole
    // or not at all.
    let (ended, end_of_command) = io::pipe().context("cannot make a pipe")?;
    let relay = |to: BorrowedFd<'_>, origin| -> anyhow::Result<_> {
        let relay = Relay {
            to: to.try_clone_to_owned()?,
            origin,
            spool: Arc::clone(spool),
            ended: ended.try_clone()?,
            payload_bytes_max: settings.limits.max_event_bytes.as_u64() as usize,
            partial_line_after: settings.exec.partial_line_after,
            orphan_timeout: settings.exec.orphan_timeout,
        };
        relay.start().context("cannot start a thread")
    };
    let stdout = relay(io::stdout().as_fd(), Origin::Stdout)?;
    let stderr = relay(io::stderr().as_fd(), Origin::Stderr)?;
    let (command, outputs) = match RunningCommand::start(&args.command, &args.run) {
        Ok(started) => started,
        Err((ending, error)) => {
            let name = args.command[0].to_string_lossy();
            say(&format_args!("cannot run {name}: {error}"));
            spool.close(ending.status(false, Some(&error)).into());
            return Ok((ending, Instant::now()));
        }
    };
    let running = Bytes::from_static(br#"{"status":"running"}"#);
    spool.push(Origin::Status, [running]);
    let relayed = relayed(stdout.copy(outputs.stdout), stderr.copy(outputs.stderr));
    let (ending, was_asked) = command.ending(signals).await?;
    let ended = Instant::now();
    drop(end_of_command);
    tokio::select! {
        () = relayed => {}
        () = signals.until_interrupted(ended) => {}
    }
    spool.close(ending.status(was_asked, None).into());
    Ok((ending, ended))
}

/// Waits until all output is on its way.
async fn relayed(stdout: oneshot::Receiver<RelayEnd>, stderr: oneshot::Receiver<RelayEnd>) {
    for (name, end) in [("stdout", stdout.await), ("stderr", stderr.await)] {
        if end == Ok(RelayEnd::LeftOpen) {
            notice(format!(
                "something that the command started keeps its {name} open; not waiting for it"
            ));
        }
    }
}

/// Says a line from a thread of its own: stderr may make it wait, and signals
/// must reach the command meanwhile.
fn notice(line: String) {
    tokio::task::spawn_blocking(move || say(&line));
}

/// Says once for each burst that lines are dropped, and how many they were.
async fn tell_dropped(spool: Arc<Spool>) {
    let mut told = 0;
    loop {
        spool.has_dropped().await;
        let (mut dropped, fault) = spool.dropped();
        let why = fault.unwrap_or_else(|| "it is full".to_owned());
        notice(format!(
            "the newest lines are dropped, the spool takes no more: {why}"
        ));
        loop {
            actix_rt::time::sleep(BURST_PAUSE).await;
            let (now, _) = spool.dropped();
            if now == dropped {
                break;
            }
            dropped = now;
        }
        notice(format!("{} lines were dropped", dropped - told));
        told = dropped;
    }
}

/// Says how much of the run's output nobody will see, if any.
fn tell_unpublished(spool: &Spool, shipped: &RefCell<Shipped>) {
    let shipped = shipped.borrow();
    let unsent = spool.len() + shipped.waiting;
    let dropped = spool.dropped().0;
    if unsent + dropped + shipped.refused > 0 {
        say(&format_args!(
            "not published: {unsent} lines that Redis did not take, {dropped} dropped from a full \
             spool, {} refused",
            shipped.refused
        ));
    }
}
