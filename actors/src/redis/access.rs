//! Tickets and revocations in Redis, for all brokers that share it.
//!
//! ```text
//! run:_ticket:<name>   string, with EX: a ticket, looked at by GET, taken by GETDEL
//! run:_revoked         sorted set: sub:<subject> and jti:<token id> by the second of their revocation
//! run:_revoked         channel: something was revoked, read the set
//! ```
//! None of these is a run: no run id begins with `_`.

use redis::{Cmd, FromRedisValue, RedisResult};

use super::RedisStore;
use super::connection::Repeat;
use super::store::failed;
use crate::access::{AccessStore, Revocation, RevokedName, since_epoch};
use crate::store::{StoreError, StoreFuture};

/// What follows the channel prefix in the names of the set and the channel.
pub(super) const REVOKED: &str = "_revoked";

/// The same of a ticket's key.
const TICKET_PREFIX: &str = "_ticket:";

/// How much longer the set is kept than what stands in it.
const SET_TTL_EXTRA_SECONDS: u64 = 3600;

impl RedisStore {
    pub(super) fn key(&self, rest: &str) -> String {
        format!("{}{rest}", self.settings().redis.channel_prefix)
    }

    /// Runs a command on a key that holds no hash tag: it is its own.
    pub(super) async fn ask<T: FromRedisValue>(
        &self,
        key: &str,
        command: Cmd,
        repeat: Repeat,
    ) -> RedisResult<T> {
        let connection = self.appends();
        let deadline = connection.deadline();
        let answer = connection.query_at(key, command, repeat, deadline).await?;
        Ok(redis::from_redis_value(answer)?)
    }

    async fn keep_ticket(&self, name: &str, ticket: &str, seconds: u64) -> RedisResult<()> {
        let key = self.key(&format!("{TICKET_PREFIX}{name}"));
        let mut set = redis::cmd("SET");
        set.arg(&key).arg(ticket).arg("EX").arg(seconds);
        self.ask(&key, set, Repeat::Allowed).await
    }

    async fn ticket(&self, name: &str) -> RedisResult<Option<String>> {
        let key = self.key(&format!("{TICKET_PREFIX}{name}"));
        let mut get = redis::cmd("GET");
        get.arg(&key);
        self.ask(&key, get, Repeat::Allowed).await
    }

    async fn redeem(&self, name: &str) -> RedisResult<Option<String>> {
        let key = self.key(&format!("{TICKET_PREFIX}{name}"));
        let mut take = redis::cmd("GETDEL");
        take.arg(&key);
        // Sent twice, it would find that it has taken it itself.
        self.ask(&key, take, Repeat::Refused).await
    }

    /// Adds to the set at `key`, and says so to all brokers.
    async fn add_revocation(&self, key: &str, revocation: &Revocation) -> RedisResult<bool> {
        let access = &self.settings().access;
        let ttl = access.revocation_ttl.as_secs();
        let oldest = since_epoch().as_secs().saturating_sub(ttl);
        let command = |name: &str| {
            let mut command = redis::cmd(name);
            command.arg(key);
            command
        };
        let mut forget = command("ZREMRANGEBYSCORE");
        forget.arg("-inf").arg(format!("({oldest}"));
        let _: u64 = self.ask(key, forget, Repeat::Allowed).await?;
        let count: usize = self.ask(key, command("ZCARD"), Repeat::Allowed).await?;
        if count >= access.max_revocations && !self.is_kept(key, revocation).await? {
            return Ok(false);
        }
        let mut add = command("ZADD");
        add.arg("GT").arg(revocation.at).arg(revocation.member());
        let _: u64 = self.ask(key, add, Repeat::Allowed).await?;
        let mut expire = command("EXPIRE");
        expire.arg(ttl + SET_TTL_EXTRA_SECONDS);
        let _: u64 = self.ask(key, expire, Repeat::Allowed).await?;
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(self.key(REVOKED)).arg("");
        let _: u64 = self.ask(key, publish, Repeat::Allowed).await?;
        Ok(true)
    }

    /// Whether a name is revoked already: it takes no more room then. Asked at
    /// the limit only, and by what the least user may do anyway.
    async fn is_kept(&self, key: &str, revocation: &Revocation) -> RedisResult<bool> {
        let kept = self.read_revocations(key).await?;
        Ok(kept.iter().any(|kept| kept.name == revocation.name))
    }

    async fn read_revocations(&self, key: &str) -> RedisResult<Vec<Revocation>> {
        let access = &self.settings().access;
        let mut range = redis::cmd("ZREVRANGE");
        range.arg(key).arg(0);
        range.arg(access.max_revocations.saturating_sub(1));
        range.arg("WITHSCORES");
        let members: Vec<(String, f64)> = self.ask(key, range, Repeat::Allowed).await?;
        let read = |(member, at): (String, f64)| Revocation::of_member(&member, at as u64);
        Ok(members.into_iter().filter_map(read).collect())
    }

    /// Does once, under a name that nobody uses, all that tickets and
    /// revocations need of Redis. Leaves nothing there.
    ///
    /// # Errors
    /// A sentence that begins with what could not be done.
    pub(super) async fn try_access(&self) -> Result<(), String> {
        let told = |what: &'static str| move |error: redis::RedisError| format!("{what}: {error}");
        let name = format!("check-{:016x}", fastrand::u64(..));
        let kept = self.keep_ticket(&name, "a ticket", 60).await;
        kept.map_err(told("cannot keep a ticket"))?;
        let looked_at = self.ticket(&name).await;
        let looked_at = looked_at.map_err(told("cannot read a ticket"))?;
        let taken = self.redeem(&name).await;
        let taken = taken.map_err(told("cannot take a ticket"))?;
        if (looked_at.as_deref(), taken.as_deref()) != (Some("a ticket"), Some("a ticket")) {
            return Err("a ticket that was kept is not there".to_owned());
        }
        let key = self.key(&format!("{TICKET_PREFIX}{name}"));
        let revocation = Revocation::now(RevokedName::Token(name));
        let added = self.add_revocation(&key, &revocation).await;
        added.map_err(told("cannot keep a revocation"))?;
        let read = self.read_revocations(&key).await;
        let read = read.map_err(told("cannot read revocations"))?;
        let mut forget = redis::cmd("ZREMRANGEBYSCORE");
        forget.arg(&key).arg("-inf").arg("+inf");
        let forgotten: RedisResult<u64> = self.ask(&key, forget, Repeat::Allowed).await;
        forgotten.map_err(told("cannot forget a revocation"))?;
        match read.contains(&revocation) {
            true => Ok(()),
            false => Err("a revocation that was kept is not there".to_owned()),
        }
    }
}

fn told(what: &'static str) -> impl FnOnce(redis::RedisError) -> StoreError {
    move |error| failed(what, &error)
}

impl AccessStore for RedisStore {
    fn put_ticket<'a>(
        &'a self,
        name: &'a str,
        ticket: String,
        ttl: std::time::Duration,
    ) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let kept = self.keep_ticket(name, &ticket, ttl.as_secs().max(1)).await;
            kept.map_err(told("ticket not kept"))
        })
    }

    fn look_at_ticket<'a>(&'a self, name: &'a str) -> StoreFuture<'a, Option<String>> {
        Box::pin(async move { self.ticket(name).await.map_err(told("ticket not read")) })
    }

    fn take_ticket<'a>(&'a self, name: &'a str) -> StoreFuture<'a, Option<String>> {
        Box::pin(async move { self.redeem(name).await.map_err(told("ticket not taken")) })
    }

    fn revoke<'a>(&'a self, revocation: &'a Revocation) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            let added = self.add_revocation(&self.key(REVOKED), revocation).await;
            added.map_err(told("revocation not kept"))
        })
    }

    fn revocations(&self) -> StoreFuture<'_, Vec<Revocation>> {
        Box::pin(async move {
            let read = self.read_revocations(&self.key(REVOKED)).await;
            read.map_err(told("revocations not read"))
        })
    }
}
