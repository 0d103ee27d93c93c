//! Asking Sentinels where the master is.

use std::collections::HashMap;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use redis::{ConnectionInfo, ErrorKind, RedisError, RedisResult, Value};
use tokio::time::timeout;

use super::node::{config, long_lived, no_answer, open};
use crate::settings::{RedisSettings, SentinelPlace, tcp_address};

/// Why a Sentinel led to no master.
enum Failure {
    /// It does not answer, or knows none.
    OfSentinel(RedisError),
    /// The one that it names does not answer, or says that it is none.
    OfMaster(RedisError),
}

/// Asks the Sentinels for the master, all at once, and makes sure of it by the
/// server's own `ROLE`. The first in order who knows one is believed; one that
/// is silent is waited for no longer than half of `redis.connect_timeout`.
///
/// # Errors
/// When no Sentinel answers, or none knows a master that says it is one.
pub(super) async fn master(
    place: &SentinelPlace,
    settings: &RedisSettings,
) -> RedisResult<ConnectionInfo> {
    let patience = settings.connect_timeout / 2;
    let asking = place.sentinels.iter().map(|sentinel| {
        let asking = Box::pin(ask(sentinel, place, settings));
        timeout(patience, asking)
    });
    let mut asking: FuturesOrdered<_> = asking.collect();
    let (mut of_master, mut of_sentinel) = (None, None);
    while let Some(found) = asking.next().await {
        match found.unwrap_or_else(|_| Err(Failure::OfSentinel(no_answer()))) {
            Ok(info) => return Ok(info),
            Err(Failure::OfMaster(error)) => of_master = Some(error),
            Err(Failure::OfSentinel(error)) => of_sentinel = Some(error),
        }
    }
    Err(of_master.or(of_sentinel).unwrap_or_else(no_answer))
}

async fn ask(
    sentinel: &ConnectionInfo,
    place: &SentinelPlace,
    settings: &RedisSettings,
) -> Result<ConnectionInfo, Failure> {
    let named = named_by(sentinel, place, settings).await;
    let info = named.map_err(Failure::OfSentinel)?;
    match is_master(&info, settings).await {
        Ok(true) => Ok(info),
        Ok(false) => Err(Failure::OfMaster(error("the server named is no master"))),
        Err(error) => Err(Failure::OfMaster(error)),
    }
}

/// Returns the master that a Sentinel names.
async fn named_by(
    sentinel: &ConnectionInfo,
    place: &SentinelPlace,
    settings: &RedisSettings,
) -> RedisResult<ConnectionInfo> {
    let mut connection = open(sentinel, settings, &config(settings)).await?;
    let mut masters = redis::cmd("SENTINEL");
    masters.arg("MASTERS");
    let masters: Vec<HashMap<String, String>> = masters.query_async(&mut connection).await?;
    let mut addresses = masters
        .iter()
        .filter_map(|master| address_of(master, &place.master_name));
    let (host, port) = addresses
        .next()
        .ok_or_else(|| error("Sentinel knows no master of this name that is up"))?;
    let address = tcp_address(host, port, place.is_tls);
    let info = sentinel.clone().set_addr(address);
    Ok(long_lived(info.set_redis_settings(place.master.clone())))
}

/// Returns where a master is, if it has this name and is up.
fn address_of(master: &HashMap<String, String>, name: &str) -> Option<(String, u16)> {
    let flags = master.get("flags")?.split(',');
    let mut flags = flags.filter(|flag| matches!(*flag, "master" | "s_down" | "o_down"));
    let is_up = flags.next() == Some("master") && flags.next().is_none();
    let is_it = is_up && master.get("name")? == name;
    let port = master.get("port")?.parse().ok()?;
    is_it.then(|| Some((master.get("ip")?.clone(), port)))?
}

async fn is_master(info: &ConnectionInfo, settings: &RedisSettings) -> RedisResult<bool> {
    let mut connection = open(info, settings, &config(settings)).await?;
    let role: Vec<Value> = redis::cmd("ROLE").query_async(&mut connection).await?;
    Ok(is_word(role.first(), "master"))
}

/// Whether a part of an answer is this word.
pub(super) fn is_word(value: Option<&Value>, word: &str) -> bool {
    match value {
        Some(Value::BulkString(bytes)) => bytes == word.as_bytes(),
        Some(Value::SimpleString(text)) => text == word,
        _ => false,
    }
}

fn error(what: &'static str) -> RedisError {
    (ErrorKind::Client, what).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_master_counts_by_its_name_and_while_it_is_up() {
        for (name, flags, port, found) in [
            ("runs", "master", "6379", true),
            ("runs", "master,disconnected", "6379", true),
            ("runs", "s_down,master", "6379", false),
            ("runs", "s_down,o_down,master", "6379", false),
            ("runs", "slave", "6379", false),
            ("walks", "master", "6379", false),
            ("runs", "master", "x", false),
        ] {
            let pairs = [
                ("name", name),
                ("flags", flags),
                ("ip", "a"),
                ("port", port),
            ];
            let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
            let address = address_of(&HashMap::from(pairs), "runs");
            let expected = found.then(|| ("a".to_owned(), 6379));
            assert_eq!(address, expected, "{name} {flags} {port}");
        }
    }
}
