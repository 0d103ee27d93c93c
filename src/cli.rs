//! [`Cli`]: the command line. It only says what was asked for; the settings it
//! carries are read and checked with all others in [`crate::settings`].

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use runcast_actors::settings::RedisUrl;

use crate::doctor::DoctorArgs;
use crate::exec::ExecArgs;
use crate::health::HealthArgs;
use crate::install::InstallArgs;
use crate::publish::PublishArgs;
use crate::settings::{Flag, SettingsError};
use crate::tail::TailArgs;

/// A live-run streaming broker: Redis Pub/Sub and kubectl logs to Server-Sent
/// Events.
#[derive(Debug, Parser)]
#[command(name = "runcast", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// What to do; `serve` if nothing is said.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// Settings that win over the file and the environment.
    #[command(flatten, next_help_heading = "Settings")]
    pub(crate) overrides: Overrides,
}

/// The subcommands.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub(crate) enum Command {
    /// Serve runs over HTTP (what `runcast` alone does)
    Serve,
    /// Serve on 127.0.0.1:8000 from memory, with a demo run: needs no Redis and no cluster
    Dev,
    /// Publish lines of stdin as durable events of a run
    Publish(PublishArgs),
    /// Run a command unchanged and publish its output, durably
    Exec(ExecArgs),
    /// Validate the settings and reach every dependency, then exit
    Check,
    /// Ask the broker on this machine whether it lives: exit code 0 if so
    Health(HealthArgs),
    /// Copy this program to a place where another container can run it
    Install(InstallArgs),
    /// Follow a run in the terminal and exit as it does
    Tail(Box<TailArgs>),
    /// Find what stands between a browser and live events, and how to mend it
    Doctor(Box<DoctorArgs>),
}

/// Flags that set a setting. Values stay texts here: the settings tell all
/// errors at once, in one form.
#[derive(Debug, Default, Args)]
pub(crate) struct Overrides {
    /// Settings file; without it, settings.toml of the working directory if there is one
    #[arg(long, global = true, value_name = "PATH", env = "RUNCAST_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Address and port to listen on (server.bind)
    #[arg(long, global = true, value_name = "IP:PORT")]
    bind: Option<String>,
    /// Backend of bare /stream: redis, kubectl, embedded or auto (streaming.default_backend)
    #[arg(long, global = true, value_name = "BACKEND")]
    backend: Option<String>,
    /// Redis to read from (redis.url); with a password, rather use RUNCAST__REDIS__URL:
    /// everyone on the machine can see a command line
    #[arg(long, global = true, value_name = "URL")]
    redis_url: Option<String>,
    /// How a log line looks: json or pretty (log.format)
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<String>,
    /// What is logged: info, debug, info,runcast_actors=trace … (log.level)
    #[arg(long, global = true, value_name = "FILTER")]
    log_level: Option<String>,
    /// Any other setting, as often as needed: --set heartbeat.interval=15s
    #[arg(long, global = true, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

impl Overrides {
    /// Returns the settings these flags set; `--set` comes first, so that a
    /// named flag wins over it.
    ///
    /// # Errors
    ///
    /// A `--set` without `=`, one error each.
    pub(crate) fn flags(&self) -> Result<Vec<Flag>, Vec<SettingsError>> {
        let mut flags = Vec::new();
        let mut errors = Vec::new();
        for text in &self.set {
            match text.split_once('=') {
                Some((key, value)) => flags.push(flag("--set", key.trim(), value)),
                None => errors.push(SettingsError::BadSet { text: shown(text) }),
            }
        }
        for (name, key, value) in [
            ("--bind", "server.bind", &self.bind),
            ("--backend", "streaming.default_backend", &self.backend),
            ("--redis-url", "redis.url", &self.redis_url),
            ("--log-format", "log.format", &self.log_format),
            ("--log-level", "log.level", &self.log_level),
        ] {
            flags.extend(value.as_deref().map(|value| flag(name, key, value)));
        }
        if errors.is_empty() {
            Ok(flags)
        } else {
            Err(errors)
        }
    }
}

/// What stands after a `--set`, without what may be a secret.
fn shown(text: &str) -> String {
    match text.trim_start().starts_with("auth.") {
        true => "auth.…".to_owned(),
        false => RedisUrl::redact(text),
    }
}

fn flag(name: &'static str, key: &str, value: &str) -> Flag {
    Flag {
        name,
        key: key.to_owned(),
        value: value.to_owned(),
    }
}
