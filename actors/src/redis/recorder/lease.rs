//! [`RecorderLease`]: which broker records, and its fence around a run, in Redis.

use std::sync::LazyLock;
use std::time::Duration;

use redis::{RedisError, RedisResult, Script, Value};

use crate::protocol::RunId;
use crate::redis::connection::{Connection, Repeat};
use crate::redis::library::Refusal;
use crate::settings::RedisSettings;

/// How long a broker stays the recorder without renewing it.
pub(super) const LEASE: Duration = Duration::from_secs(3);

/// How long a free lease waits for a broker that missed nothing.
const PATIENCE: Duration = Duration::from_millis(1500);

/// What follows the channel prefix in the names of the recorders' channels.
pub(crate) const RECORDER_PREFIX: &str = "_recorder:";

/// Hash tag of the lease's key; no run id begins so.
const TAG: &str = "_recorder";

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("recorder.lua")));

/// Asks Redis over the connection of a store's appends.
#[derive(Clone)]
pub(crate) struct RecorderLease {
    pub(crate) connection: Connection,
    pub(crate) prefix: String,
    /// Names this recorder.
    pub(crate) broker: String,
    /// How long a run's meta is kept at least, in seconds.
    pub(crate) meta_ttl: u64,
}

/// What a broker says of itself when it asks for the lease.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask {
    /// It believes that the lease is its own.
    pub(super) is_held: bool,
    /// All it has was received just now: it keeps up.
    pub(super) is_fresh: bool,
    /// It has all that the holder before may not have recorded.
    pub(super) is_continuous: bool,
    /// It lost something.
    pub(super) has_lost: bool,
}

/// What Redis knows of the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LeaseState {
    /// Whose it is.
    pub(super) holder: Holder,
    /// Of the holder.
    pub(super) number: u64,
    /// How often a holder that keeps up renewed it.
    pub(super) renewals: u64,
    /// When all brokers may have missed something, last.
    pub(super) breaks: u64,
}

/// Whose the lease is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    Us,
    Other,
    Nobody,
}

/// What became of a fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fence {
    /// It stands; the last number given under this lease.
    Stands(u64),
    /// A newer recorder has one.
    Fenced,
}

impl RecorderLease {
    /// Makes the lease of a new recorder.
    pub(crate) fn new(connection: Connection, settings: &RedisSettings, ttl: Duration) -> Self {
        Self {
            connection,
            prefix: settings.channel_prefix.clone(),
            broker: format!("{:016x}", fastrand::u64(..)),
            // As long as the function keeps it.
            meta_ttl: ttl.as_secs() + 24 * 3600,
        }
    }

    /// Takes the lease if it is free, renews it if it is ours.
    pub(super) async fn hold(&self, ask: Ask) -> RedisResult<LeaseState> {
        let flag = |is: bool| u8::from(is).to_string();
        let arguments = [
            "hold".to_owned(),
            self.broker.clone(),
            self.channels(),
            LEASE.as_millis().to_string(),
            PATIENCE.as_millis().to_string(),
            flag(ask.is_held),
            flag(ask.is_fresh),
            flag(ask.is_continuous),
            flag(ask.has_lost),
        ];
        let answer = self.run(TAG, self.key(), &arguments).await?;
        let (whose, number, renewals, breaks): (String, u64, u64, u64) =
            redis::from_redis_value(answer)?;
        Ok(LeaseState {
            holder: match whose.as_str() {
                "mine" => Holder::Us,
                "other" => Holder::Other,
                "nobody" => Holder::Nobody,
                _ => return Err(unexpected()),
            },
            number,
            renewals,
            breaks,
        })
    }

    /// Gives the lease up, if it is ours, and lets others know.
    pub(super) async fn release(&self) -> RedisResult<()> {
        let arguments = ["release".to_owned(), self.broker.clone(), self.channels()];
        self.run(TAG, self.key(), &arguments).await.map(drop)
    }

    /// Fences a run off from older recorders. A notice follows behind all that
    /// they wrote, see [`notice`](Self::notice).
    pub(super) async fn fence(&self, run_id: &RunId, number: u64) -> RedisResult<Fence> {
        let key = format!("{}{{{run_id}}}:meta", self.prefix);
        let arguments = [
            "fence".to_owned(),
            number.to_string(),
            self.meta_ttl.to_string(),
            format!("{}fence:{}", self.channels(), self.broker),
            format!("{number} {run_id}"),
        ];
        let answer = self.run(run_id.as_str(), key, &arguments).await?;
        let (word, detail): (String, String) = redis::from_redis_value(answer)?;
        Ok(match word.as_str() {
            "OK" => Fence::Stands(detail.parse().map_err(|_| unexpected())?),
            "FENCED" => Fence::Fenced,
            _ => return Err(unexpected()),
        })
    }

    fn key(&self) -> String {
        format!("{}{{{TAG}}}", self.prefix)
    }

    fn channels(&self) -> String {
        format!("{}{RECORDER_PREFIX}", self.prefix)
    }

    /// Each call may be repeated: a second time changes nothing more.
    async fn run(&self, tag: &str, key: String, arguments: &[String]) -> RedisResult<Value> {
        let command = |name: &str, script: &str| {
            let mut command = redis::cmd(name);
            command.arg(script).arg(1).arg(&key).arg(arguments);
            command
        };
        let deadline = self.connection.deadline();
        let run = |command| {
            self.connection
                .query_at(tag, command, Repeat::Allowed, deadline)
        };
        match run(command("EVALSHA", SCRIPT.get_hash())).await {
            Err(error) if Refusal::of(&error) == Some(Refusal::ScriptMissing) => {
                run(command("EVAL", include_str!("recorder.lua"))).await
            }
            answer => answer,
        }
    }
}

/// What recorders say to each other, on channels that are no run's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Notice {
    /// The lease is free.
    Free,
    /// All brokers may have missed something.
    Break,
    /// A fence: whose, and `<number> <run id>`.
    Fence { broker: String, text: String },
}

impl Notice {
    /// Reads a message whose channel went on with `rest` after the recorders'
    /// prefix.
    pub(crate) fn read(rest: &[u8], payload: &[u8]) -> Option<Self> {
        let rest = std::str::from_utf8(rest).ok()?;
        match rest {
            "free" => Some(Self::Free),
            "break" => Some(Self::Break),
            rest => Some(Self::Fence {
                broker: rest.strip_prefix("fence:")?.to_owned(),
                text: std::str::from_utf8(payload).ok()?.to_owned(),
            }),
        }
    }
}

fn unexpected() -> RedisError {
    let kind = redis::ErrorKind::UnexpectedReturnType;
    (kind, "unexpected answer to a recorder").into()
}
