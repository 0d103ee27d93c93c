//! [`Claims`]: who publishes a post with a key, and what came of it, in Redis.

use std::sync::LazyLock;

use redis::{RedisError, RedisResult, Script};

use super::connection::{Connection, Repeat};
use super::library::Refusal;
use crate::protocol::RunId;
use crate::settings::RedisSettings;
use crate::store::{Claimed, Lease, PostClaim};

const SOURCE: &str = include_str!("claims.lua");

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(SOURCE));

/// Largest answer kept, in bytes, about 1,500 ids. A post with a larger one is
/// published again under its producer, which finds each event's id.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Claims posts of runs over the connection of a store's appends.
pub(super) struct Claims<'a> {
    pub(super) connection: &'a Connection,
    pub(super) settings: &'a RedisSettings,
}

impl Claims<'_> {
    /// Claims a post for us, unless it is another's or was published.
    pub(super) async fn claim(&self, run_id: &RunId, claim: &PostClaim) -> RedisResult<Claimed> {
        // Claiming, publishing and settling each end within the timeout.
        let lease = self.settings.command_timeout * 3;
        let arguments = [
            "claim".to_owned(),
            claim.fingerprint.clone(),
            lease.as_millis().to_string(),
            claim.ttl.as_millis().to_string(),
        ];
        // Sent twice, it would find its own claim and wait for itself.
        let (word, detail) = self.run(run_id, claim, &arguments, Repeat::Refused).await?;
        Ok(match word.as_str() {
            "MINE" => Claimed::Mine(Some(Lease {
                turn: detail.parse().map_err(|_| unexpected())?,
            })),
            "BUSY" => Claimed::Busy,
            "SETTLED" => Claimed::Settled(detail),
            "OTHER" => Claimed::Other,
            _ => return Err(unexpected()),
        })
    }

    /// Keeps the answer of a post that we claimed. `None`: it is not final, and
    /// the post may be claimed again.
    pub(super) async fn settle(
        &self,
        run_id: &RunId,
        claim: &PostClaim,
        lease: Lease,
        answer: Option<String>,
    ) -> RedisResult<()> {
        let turn = lease.turn.to_string();
        let ttl = claim.ttl.as_millis().to_string();
        let arguments = match answer.filter(|answer| answer.len() <= ANSWER_BYTES_MAX) {
            Some(answer) => vec![
                "settle".to_owned(),
                turn,
                ttl,
                answer,
                claim.producer.clone(),
            ],
            None => vec!["release".to_owned(), turn],
        };
        self.run(run_id, claim, &arguments, Repeat::Allowed)
            .await
            .map(drop)
    }

    async fn run(
        &self,
        run_id: &RunId,
        claim: &PostClaim,
        arguments: &[String],
        repeat: Repeat,
    ) -> RedisResult<(String, String)> {
        let prefix = &self.settings.channel_prefix;
        let command = |name: &str, script: &str| {
            let mut command = redis::cmd(name);
            command
                .arg(script)
                .arg(2)
                .arg(format!("{prefix}{{{run_id}}}:once:{}", claim.key))
                .arg(format!("{prefix}{{{run_id}}}:meta"))
                .arg(arguments);
            command
        };
        let deadline = self.connection.deadline();
        let run = |command| self.connection.query(run_id, command, repeat, deadline);
        let answer = match run(command("EVALSHA", SCRIPT.get_hash())).await {
            Err(error) if Refusal::of(&error) == Some(Refusal::ScriptMissing) => {
                run(command("EVAL", SOURCE)).await
            }
            answer => answer,
        };
        Ok(redis::from_redis_value(answer?)?)
    }
}

fn unexpected() -> RedisError {
    let kind = redis::ErrorKind::UnexpectedReturnType;
    (kind, "unexpected answer to a claim").into()
}
