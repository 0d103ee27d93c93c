//! [`Library`]: our Lua in Redis, as functions or, where those are missing or
//! forbidden, as scripts.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};

use futures_util::future::join_all;
use redis::{Cmd, RedisError, RedisResult, Script, ServerErrorKind, Value};
use tokio::time::Instant;
use tracing::info;

use super::connection::{Connection, Master};

/// The library; see the head of the file for its calls.
const SOURCE: &str = include_str!("runcast.lua");

/// Version inside [`SOURCE`]; an older one in Redis is replaced, a newer one
/// left alone.
const VERSION: i64 = 4;

/// The line of [`SOURCE`] that says how events are announced.
const UNSHARDED: &str = "\nlocal SHARDED = false\n";
const SHARDED: &str = "\nlocal SHARDED = true\n";

/// A call into the library. It takes the run's two keys, then its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// `runcast_publish`
    Publish,
    /// `runcast_read`
    Read,
}

/// The command that makes a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `FCALL`
    Function,
    /// `EVALSHA`
    Hash,
    /// `EVAL`: once, if Redis does not know the hash.
    Source,
}

/// Why Redis did not even begin a call that another form may get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The function is not loaded, or one older than ours, which lacks an option.
    FunctionMissing,
    /// The script is not loaded.
    ScriptMissing,
    /// The command is unknown or forbidden.
    CommandDenied,
}

impl Refusal {
    /// Reads it from an error, if it is one.
    pub(super) fn of(error: &RedisError) -> Option<Self> {
        let says = |text: &str| error.to_string().contains(text);
        if error.kind() == ServerErrorKind::NoScript.into() {
            Some(Self::ScriptMissing)
        } else if says("Function not found") || says("unknown option") {
            Some(Self::FunctionMissing)
        } else if error.kind() == ServerErrorKind::NoPerm.into() || says("unknown command") {
            Some(Self::CommandDenied)
        } else {
            None
        }
    }
}

/// How this Redis runs our source, as far as is known.
#[derive(Debug, Default)]
pub(super) struct Library {
    way: AtomicU8,
    /// A call was answered, and nothing spoke against it since.
    answered: AtomicBool,
    /// Redis has no `EVAL_RO` (before 7.0), or forbids it.
    without_read_only: AtomicBool,
    /// How events are to be announced; `None`: as others have it.
    sharded: Option<bool>,
}

const UNKNOWN: u8 = 0;
const FUNCTIONS: u8 = 1;
const SCRIPTS: u8 = 2;

impl Library {
    /// Sees to it that events are announced to shards, or not.
    pub(super) fn sharded(sharded: bool) -> Self {
        Self {
            sharded: Some(sharded),
            ..Self::default()
        }
    }

    /// Looks anew before the next call: it may be another Redis.
    pub(super) fn forget(&self) {
        self.way.store(UNKNOWN, Relaxed);
        self.answered.store(false, Relaxed);
        self.without_read_only.store(false, Relaxed);
    }

    /// Notes whether the last call was answered.
    pub(super) fn note_answered(&self, answered: bool) {
        self.answered.store(answered, Relaxed);
    }

    /// How many calls in order may be sent together. Where our Lua may not be
    /// loaded, only one: another client may load it between two of them, and
    /// the second would be accepted without the first.
    pub(super) fn calls_together(&self) -> usize {
        match self.answered.load(Relaxed) {
            true => usize::MAX,
            false => 1,
        }
    }

    /// Returns the form to call by. Looks which there is, and loads the
    /// functions, if that is not known yet.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub(super) async fn form(
        &self,
        connection: &Connection,
        deadline: Instant,
    ) -> RedisResult<Form> {
        if self.way.load(Relaxed) == UNKNOWN {
            let has_functions = ensure_functions(connection, self.sharded, deadline).await?;
            let way = if has_functions { FUNCTIONS } else { SCRIPTS };
            self.way.store(way, Relaxed);
        }
        Ok(match self.way.load(Relaxed) {
            SCRIPTS => Form::Hash,
            _ => Form::Function,
        })
    }

    /// Returns the form to try after `form` was refused, if there is one.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub(super) async fn next_form(
        &self,
        entry: Entry,
        form: Form,
        refusal: Refusal,
        connection: &Connection,
        deadline: Instant,
    ) -> RedisResult<Option<Form>> {
        match (refusal, form) {
            // After a restart without its data, or a failover.
            (Refusal::FunctionMissing, Form::Function) => {
                self.forget();
                self.form(connection, deadline).await.map(Some)
            }
            (Refusal::CommandDenied, Form::Function) => {
                self.way.store(SCRIPTS, Relaxed);
                Ok(Some(Form::Hash))
            }
            (Refusal::ScriptMissing, Form::Hash | Form::Source) => Ok(Some(Form::Source)),
            (Refusal::CommandDenied, form) if entry == Entry::Read => {
                let first = !self.without_read_only.swap(true, Relaxed);
                Ok(first.then_some(form))
            }
            _ => Ok(None),
        }
    }

    /// Begins the command of a call on a run's keys.
    pub(super) fn command(&self, entry: Entry, form: Form, keys: &[String; 2]) -> Cmd {
        let read_only = entry == Entry::Read
            && (form == Form::Function || !self.without_read_only.load(Relaxed));
        let name = match (form, read_only) {
            (Form::Function, false) => "FCALL",
            (Form::Function, true) => "FCALL_RO",
            (Form::Hash, false) => "EVALSHA",
            (Form::Hash, true) => "EVALSHA_RO",
            (Form::Source, false) => "EVAL",
            (Form::Source, true) => "EVAL_RO",
        };
        let (function, script) = match entry {
            Entry::Publish if self.sharded == Some(true) => ("runcast_publish", &*PUBLISH_SHARDED),
            Entry::Publish => ("runcast_publish", &*PUBLISH),
            Entry::Read => ("runcast_read", &*READ),
        };
        let mut command = redis::cmd(name);
        match form {
            Form::Function => command.arg(function),
            Form::Hash => command.arg(&script.hash),
            Form::Source => command.arg(&script.source),
        };
        command.arg(2).arg(keys);
        command
    }
}

/// [`SOURCE`] as a script that makes one call.
struct CallScript {
    source: String,
    hash: String,
}

static PUBLISH: LazyLock<CallScript> = LazyLock::new(|| CallScript::new("publish", SOURCE));
static PUBLISH_SHARDED: LazyLock<CallScript> =
    LazyLock::new(|| CallScript::new("publish", &source(true)));
static READ: LazyLock<CallScript> = LazyLock::new(|| CallScript::new("read", SOURCE));

/// Returns the library that announces events to shards, or not.
fn source(sharded: bool) -> String {
    match sharded {
        true => SOURCE.replacen(UNSHARDED, SHARDED, 1),
        false => SOURCE.to_owned(),
    }
}

impl CallScript {
    fn new(call: &str, source: &str) -> Self {
        // Before 7.0 a script has no first line of this kind.
        let (_, body) = source.split_once('\n').unwrap_or_default();
        let source = format!("local SCRIPT = '{call}'\n{body}");
        let hash = Script::new(&source).get_hash().to_owned();
        Self { source, hash }
    }
}

/// Loads the functions into every server that takes writes; says whether all of
/// them have them now. One that cannot be reached is left for later: a call to
/// it will miss the function.
async fn ensure_functions(
    connection: &Connection,
    sharded: Option<bool>,
    deadline: Instant,
) -> RedisResult<bool> {
    let masters = connection.masters(deadline).await?;
    let ensuring = masters
        .iter()
        .map(|master| ensure_functions_at(master, sharded));
    let outcomes = join_all(ensuring).await;
    let mut reached = false;
    let mut has_functions = true;
    let mut last_error = None;
    for outcome in outcomes {
        match outcome {
            Ok(has) => {
                reached = true;
                has_functions &= has;
            }
            Err(error) => last_error = Some(error),
        }
    }
    match last_error {
        Some(error) if !reached => Err(error),
        _ => Ok(has_functions),
    }
}

/// Loads the functions, unless the server has them or newer ones; says whether
/// it has them now. Those of our version that announce otherwise than `sharded`
/// wants are replaced, too.
async fn ensure_functions_at(master: &Master, sharded: Option<bool>) -> RedisResult<bool> {
    let ask = |function: &str| {
        let mut ask = redis::cmd("FCALL_RO");
        ask.arg(function).arg(0);
        ask
    };
    let known = match master.query(ask("runcast_version")).await {
        Ok(Value::Int(version)) if version > VERSION => return Ok(true),
        Ok(Value::Int(VERSION)) => {
            let Some(sharded) = sharded else {
                return Ok(true);
            };
            let announces: Value = master.query(ask("runcast_sharded")).await?;
            if announces == Value::Int(i64::from(sharded)) {
                return Ok(true);
            }
            true
        }
        Ok(_) => true,
        Err(error) if Refusal::of(&error).is_some() => false,
        Err(error) => return Err(error),
    };
    let mut load = redis::cmd("FUNCTION");
    load.arg("LOAD");
    if known {
        load.arg("REPLACE");
    }
    let sharded = sharded == Some(true);
    load.arg(source(sharded));
    match master.query::<Value>(load).await {
        Ok(_) => info!(version = VERSION, sharded, "runcast_publish loaded"),
        // Another broker was quicker.
        Err(error) if error.to_string().contains("already exists") => {}
        Err(error) if Refusal::of(&error).is_some() => {
            info!(%error, "Redis runs no functions for us; scripts serve instead");
            return Ok(false);
        }
        Err(error) => return Err(error),
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_source() {
        assert!(SOURCE.contains(&format!("\nlocal VERSION = {VERSION}\n")));
        assert!(SOURCE.starts_with("#!lua name=runcast\n"));
        assert_eq!(SOURCE.matches(UNSHARDED).count(), 1);
        assert!(source(true).contains(SHARDED));
    }
}
