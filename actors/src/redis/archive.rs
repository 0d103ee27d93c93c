//! What Redis knows of the archive: which runs it is owed, and who writes one.
//!
//! ```text
//! run:{42}:meta        fields ad, aw, au: see archive.lua
//! run:_archive:<name>  string, with PX: a broker has its turn
//! ```

use std::sync::LazyLock;
use std::time::Duration;

use redis::{RedisError, RedisResult, Script, Value};
use tracing::warn;

use super::RedisStore;
use super::connection::Repeat;
use super::library::Refusal;
use super::store::failed;
use crate::archive::{ArchiveDuty, Claim, Owed, OwedFrom};
use crate::protocol::RunId;
use crate::store::StoreFuture;

const SOURCE: &str = include_str!("archive.lua");

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(SOURCE));

/// Keys that Redis looks at in one step of a look through all.
const KEYS_AT_ONCE: usize = 500;

impl RedisStore {
    async fn claim_for_archive(
        &self,
        run_id: &RunId,
        writer: &str,
        lease: Duration,
    ) -> RedisResult<Claim> {
        let lease = lease.as_millis().to_string();
        // A second time finds the same writer.
        let (word, detail) = self
            .archive_script(run_id, ["claim", writer, &lease])
            .await?;
        let number = || detail.parse::<u64>().map_err(|_| unexpected());
        Ok(match word.as_str() {
            "MINE" => Claim::Mine(number()?),
            "LATER" => Claim::Later(Duration::from_millis(number()?)),
            "NOTHING" => Claim::Nothing,
            "GONE" => Claim::Gone,
            _ => return Err(unexpected()),
        })
    }

    async fn archive_script(
        &self,
        run_id: &RunId,
        arguments: [&str; 3],
    ) -> RedisResult<(String, String)> {
        let connection = self.appends();
        let [_, meta] = self.keys(run_id);
        let command = |name: &str, script: &str| {
            let mut command = redis::cmd(name);
            command.arg(script).arg(1).arg(&meta).arg(&arguments);
            command
        };
        let deadline = connection.deadline();
        let run = |command| connection.query(run_id, command, Repeat::Allowed, deadline);
        let answer = match run(command("EVALSHA", SCRIPT.get_hash())).await {
            Err(error) if Refusal::of(&error) == Some(Refusal::ScriptMissing) => {
                run(command("EVAL", SOURCE)).await
            }
            answer => answer,
        };
        Ok(redis::from_redis_value(answer?)?)
    }

    /// Looks at some keys of one server.
    async fn look_for_owed(&self, from: OwedFrom) -> RedisResult<Owed> {
        let connection = self.reads();
        let deadline = connection.deadline();
        let servers = connection.masters(deadline).await?;
        let Some(server) = servers.get(from.server) else {
            return Ok(Owed::default());
        };
        let prefix = &self.settings().redis.channel_prefix;
        let mut scan = redis::cmd("SCAN");
        scan.arg(from.cursor);
        scan.arg("MATCH")
            .arg(format!("{}{{*}}:meta", glob_escaped(prefix)));
        scan.arg("COUNT").arg(KEYS_AT_ONCE);
        let next_server =
            |server| (server < servers.len()).then_some(OwedFrom { server, cursor: 0 });
        let (cursor, keys): (u64, Vec<Value>) = match server.query(scan).await {
            Ok(scanned) => scanned,
            // Those of the other masters are looked at all the same.
            Err(error) if servers.len() > 1 => {
                warn!(%error, "the runs of a master are not looked through for the archive");
                return Ok(Owed {
                    run_ids: Vec::new(),
                    next: next_server(from.server + 1),
                });
            }
            Err(error) => return Err(error),
        };
        let run_ids: Vec<RunId> = keys
            .into_iter()
            .filter_map(|key| run_of(&redis::from_redis_value::<String>(key).ok()?, prefix))
            .collect();
        let next = match cursor {
            0 => next_server(from.server + 1),
            cursor => Some(OwedFrom { cursor, ..from }),
        };
        let calls = run_ids.iter().map(|run_id| {
            let [_, meta] = self.keys(run_id);
            let mut call = redis::cmd("HMGET");
            call.arg(meta).arg("e").arg("c").arg("ad");
            (run_id, call)
        });
        let answers = connection.read_each(calls, deadline).await;
        let mut owed = Vec::new();
        for (run_id, answer) in run_ids.iter().zip(answers) {
            let answer = match answer {
                // Somebody else's key, by a name like ours.
                Err(error) if error.code() == Some("WRONGTYPE") => continue,
                answer => answer?,
            };
            type State = (Option<u64>, Option<u64>, Option<u64>);
            let Ok((epoch, closed, archived)) = redis::from_redis_value::<State>(answer) else {
                continue;
            };
            if closed.is_some() && archived != epoch {
                owed.push(run_id.clone());
            }
        }
        Ok(Owed {
            run_ids: owed,
            next,
        })
    }

    async fn take_turn(&self, name: &str, time: Duration) -> RedisResult<bool> {
        let key = self.key(&format!("_archive:{name}"));
        let mut set = redis::cmd("SET");
        set.arg(&key).arg("1").arg("NX");
        set.arg("PX").arg(time.as_millis().max(1) as u64);
        // Sent twice, it would find its own.
        let answer: Option<String> = self.ask(&key, set, Repeat::Refused).await?;
        Ok(answer.is_some())
    }
}

impl ArchiveDuty for RedisStore {
    fn claim<'a>(
        &'a self,
        run_id: &'a RunId,
        writer: &'a str,
        lease: Duration,
    ) -> StoreFuture<'a, Claim> {
        Box::pin(async move {
            let claimed = self.claim_for_archive(run_id, writer, lease).await;
            claimed.map_err(|error| failed("run not claimed for the archive", &error))
        })
    }

    fn settle<'a>(
        &'a self,
        run_id: &'a RunId,
        writer: &'a str,
        archived: Option<u64>,
    ) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let epoch = archived.map_or(String::new(), |epoch| epoch.to_string());
            let settled = self
                .archive_script(run_id, ["settle", writer, &epoch])
                .await;
            settled
                .map(drop)
                .map_err(|error| failed("archived run not noted", &error))
        })
    }

    fn owed(&self, from: OwedFrom) -> StoreFuture<'_, Owed> {
        Box::pin(async move {
            let owed = self.look_for_owed(from).await;
            owed.map_err(|error| failed("runs not looked through for the archive", &error))
        })
    }

    fn turn(&self, name: &'static str, time: Duration) -> StoreFuture<'_, bool> {
        Box::pin(async move {
            let turn = self.take_turn(name, time).await;
            turn.map_err(|error| failed("no turn at the archive", &error))
        })
    }
}

/// Returns the run whose meta this key is.
fn run_of(key: &str, prefix: &str) -> Option<RunId> {
    let rest = key.strip_prefix(prefix)?.strip_prefix('{')?;
    RunId::parse(rest.strip_suffix("}:meta")?).ok()
}

/// A text that `MATCH` takes as it is.
fn glob_escaped(text: &str) -> String {
    let escaped = text.chars().flat_map(|c| {
        let is_special = matches!(c, '*' | '?' | '[' | ']' | '^' | '\\');
        is_special.then_some('\\').into_iter().chain([c])
    });
    escaped.collect()
}

fn unexpected() -> RedisError {
    let kind = redis::ErrorKind::UnexpectedReturnType;
    (kind, "unexpected answer to the archive").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meta_key_names_its_run() {
        let run = |key| run_of(key, "run:").map(|run_id| run_id.to_string());
        assert_eq!(run("run:{42}:meta").as_deref(), Some("42"));
        for key in [
            "run:{42}:stream",
            "run:{a}b}:meta",
            "run:{_plain}:meta",
            "x:{42}:meta",
        ] {
            assert_eq!(run(key), None, "{key}");
        }
        assert_eq!(glob_escaped("a*[b]?\\^:"), "a\\*\\[b\\]\\?\\\\\\^:");
    }
}
