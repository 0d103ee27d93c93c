//! Runcast: a live-run streaming broker.
//!
//! The process: command line → settings → log → server. Exit codes: 0 done,
//! 1 failed, 64 wrong usage or settings; `exec` ends with its command's.
#![cfg_attr(fuzzing, no_main)]
#![cfg_attr(fuzzing, allow(dead_code, reason = "the fuzzer has a main of its own"))]

mod auth;
mod check;
mod cli;
mod demo;
mod doctor;
mod exec;
#[cfg(fuzzing)]
mod fuzzing;
mod health;
mod http;
mod install;
mod logging;
mod open_files;
mod producer;
mod publish;
mod reload;
mod server;
mod settings;
mod tail;
mod telemetry;
mod web_client;

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;
use std::rc::Rc;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::server::Start;
use crate::settings::{Inputs, SettingsError};

/// `EX_USAGE` of sysexits: the command line or the settings are wrong, and
/// starting again will not help.
pub(crate) const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come here too, with exit code 0. If the
            // terminal is gone there is nobody to tell.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(EXIT_USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let command = cli.command.clone().unwrap_or(Command::Serve);
    // The broker's settings are none of these two's business.
    let done = match &command {
        Command::Tail(args) => Some(tail::run(args)),
        Command::Install(args) => Some(install::run(args)),
        Command::Doctor(args) => Some(actix_rt::System::new().block_on(doctor::run(args))),
        _ => None,
    };
    if let Some(done) = done {
        return done.unwrap_or_else(|error| failure(&error));
    }
    let start = match settings(&cli, &command) {
        Ok(start) => start,
        Err(errors) => {
            errors.iter().for_each(say);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    if matches!(command, Command::Serve | Command::Dev | Command::Check) {
        let errors = start.loaded.settings.check_serving();
        if !errors.is_empty() {
            errors.iter().for_each(say);
            return ExitCode::from(EXIT_USAGE);
        }
    }
    match run(&command, start) {
        Ok(code) => code,
        Err(error) => failure(&error),
    }
}

fn failure(error: &anyhow::Error) -> ExitCode {
    say(&format_args!("{error:#}"));
    ExitCode::FAILURE
}

fn settings(cli: &Cli, command: &Command) -> Result<Start, Vec<SettingsError>> {
    let inputs = Inputs {
        file: cli.overrides.config.clone(),
        dev: *command == Command::Dev,
        environment: std::env::vars_os().collect(),
        flags: cli.overrides.flags()?,
    };
    let loaded = settings::load(&inputs)?;
    Ok(Start { inputs, loaded })
}

fn run(command: &Command, start: Start) -> anyhow::Result<ExitCode> {
    let system = actix_rt::System::new();
    let settings = &start.loaded.settings;
    match command {
        Command::Check => Ok(system.block_on(check::run(settings))?),
        Command::Health(args) => system.block_on(health::run(&settings.server, *args)),
        // These two have no log: stderr is the caller's own.
        Command::Publish(args) => system.block_on(async {
            let store = Rc::new(server::redis_store(settings));
            publish::run(settings, store, args).await
        }),
        Command::Exec(args) => system.block_on(async {
            let store = Rc::new(server::redis_store(settings));
            exec::run(settings, store, args).await
        }),
        Command::Tail(args) => tail::run(args),
        Command::Install(args) => install::run(args),
        Command::Doctor(args) => system.block_on(doctor::run(args)),
        Command::Serve | Command::Dev => {
            let log = logging::init(&settings.log)?;
            system.block_on(server::serve(start, log))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Writes one plain line to stderr, for what ends the process before or beside
/// its log.
pub(crate) fn say(line: &impl Display) {
    // If stderr is closed, the exit code still tells.
    let _ = writeln!(std::io::stderr(), "runcast: {line}");
}
