//! [`check`]: whether Redis lets a broker do all that it does.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use futures_util::{Stream, StreamExt};
use redis::RedisResult;
use redis::aio::MultiplexedConnection;
use tokio::time::timeout;

use super::RedisStore;
use super::connection::Connection;
use super::push_queue::{Push, PushQueue, Turn};
use super::subscriber::PROBE_PREFIX;
use super::subscription::{Finder, Subscription};
use crate::access::AccessSettings;
use crate::broker::{BrokerSettings, NewEvent, PublishError};
use crate::metrics::Metrics;
use crate::protocol::{EventKind, RunId};
use crate::reach::{OutputBuffer, RedisLook};
use crate::settings::RedisSettings;
use crate::store::{AppendBatch, PageFrom, PageQuery, RunStore};

/// `PING`s sent to tell how long one takes.
const PINGS: usize = 5;

/// Places tried for the subscription: a node of a Cluster may be down.
const PLACES_MAX: usize = 3;

/// Does all that a broker does, once: logs in to every server that takes
/// writes, subscribes to all runs by RESP3, publishes there and has it come
/// back, loads the function library, appends and reads; with `access`, what
/// tickets and revocations need, too. Leaves nothing in Redis but the library.
/// Returns how long the log-in and a `PING` took.
///
/// # Errors
/// A sentence that begins with what could not be done.
pub(crate) async fn check(
    settings: &RedisSettings,
    access: &AccessSettings,
) -> Result<Duration, String> {
    let time = ping(settings).await.map_err(|error| error.to_string())?;
    let queue = PushQueue::new(
        settings.queue_messages,
        settings.queue_bytes.as_u64() as usize,
    );
    let pattern = format!("{}*", settings.channel_prefix);
    let subscription = subscribe(settings, &queue)
        .await
        .map_err(|error| format!("cannot subscribe to {pattern}: {error}"))?;
    let Subscription {
        connection,
        driver: _driver,
        ..
    } = subscription;
    let echo = echo(settings, connection, queue.turns());
    timeout(settings.command_timeout, echo)
        .await
        .unwrap_or_else(|_| Err("no answer in time".to_owned()))
        .map_err(|error| format!("cannot publish to the own subscription: {error}"))?;
    let broker = BrokerSettings {
        redis: settings.clone(),
        access: access.clone(),
        ..BrokerSettings::default()
    };
    // Nothing fits: the function runs and refuses, and so writes nothing.
    broker
        .live
        .change(|live| live.limits.max_event_bytes = ByteSize::b(1));
    let store = RedisStore::new(Arc::new(broker), Arc::new(Metrics::default()));
    call_functions(&store).await?;
    if access.enabled {
        store.try_access().await?;
    }
    Ok(time)
}

/// Logs in to every server that takes writes and sends `PING`; returns how
/// long that took.
async fn ping(settings: &RedisSettings) -> RedisResult<Duration> {
    let begin = Instant::now();
    let connection = Connection::new(settings);
    for master in connection.masters(connection.deadline()).await? {
        let _: String = master.query(redis::cmd("PING")).await?;
    }
    Ok(begin.elapsed())
}

/// Looks how fast Redis answers, and what it lets a slow subscriber have.
///
/// # Errors
/// When a `PING` is not answered.
pub(crate) async fn look(settings: &RedisSettings) -> Result<RedisLook, String> {
    let connection = Connection::new(settings);
    let told = |error: redis::RedisError| error.to_string();
    let masters = connection.masters(connection.deadline()).await;
    let mut latency = Duration::ZERO;
    let mut output_buffer = Ok(None);
    for master in masters.map_err(told)? {
        let mut times = Vec::new();
        for _ in 0..PINGS {
            let begin = Instant::now();
            let _: String = master.query(redis::cmd("PING")).await.map_err(told)?;
            times.push(begin.elapsed());
        }
        times.sort_unstable();
        latency = latency.max(times[PINGS / 2]);
        let mut ask = redis::cmd("CONFIG");
        ask.arg("GET").arg("client-output-buffer-limit");
        let answer: RedisResult<HashMap<String, String>> = master.query(ask).await;
        match answer {
            Err(error) => output_buffer = Err(error.to_string()),
            Ok(limits) => {
                let limit = limits.values().find_map(|text| pubsub_limit(text));
                if let (Some(limit), Ok(known)) = (limit, &mut output_buffer) {
                    let worst = known.filter(|known: &OutputBuffer| known.hard <= limit.hard);
                    *known = Some(worst.unwrap_or(limit));
                }
            }
        }
    }
    Ok(RedisLook {
        latency,
        output_buffer,
    })
}

/// Reads `… pubsub 33554432 8388608 60`.
fn pubsub_limit(text: &str) -> Option<OutputBuffer> {
    let mut words = text.split_whitespace().skip_while(|word| *word != "pubsub");
    words.next()?;
    let mut number = || words.next()?.parse().ok();
    Some(OutputBuffer {
        hard: number()?,
        soft: number()?,
        soft_seconds: number()?,
    })
}

async fn subscribe(
    settings: &RedisSettings,
    queue: &Arc<PushQueue>,
) -> Result<Subscription, String> {
    let mut finder = Finder::new(settings.url.place());
    let mut outcome = Err(String::new());
    for failures in 0..PLACES_MAX {
        let candidate = finder.next(failures);
        outcome = candidate.subscribe(settings, Arc::clone(queue)).await;
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// Publishes as a probe does, and waits until that has come back.
async fn echo(
    settings: &RedisSettings,
    mut connection: MultiplexedConnection,
    turns: impl Stream<Item = Turn>,
) -> Result<(), String> {
    let prefix = &settings.channel_prefix;
    let probe = format!("{prefix}{PROBE_PREFIX}{:016x}", fastrand::u64(..));
    let mut publish = redis::cmd("PUBLISH");
    publish.arg(&probe).arg("");
    let sent: RedisResult<()> = publish.query_async(&mut connection).await;
    sent.map_err(|error| error.to_string())?;
    let is_echo = |push: &Push| matches!(push, Push::Message { channel, .. } if channel == &probe);
    let mut turns = pin!(turns);
    while let Some(turn) = turns.next().await {
        if turn.pushes.iter().any(is_echo) {
            return Ok(());
        }
    }
    Err("the connection was closed".to_owned())
}

/// Calls both functions, on a run that nobody uses.
async fn call_functions(store: &RedisStore) -> Result<(), String> {
    let run_id = RunId::parse("runcast-check").expect("it is a run id");
    let event = NewEvent {
        kind: EventKind::Output,
        source: String::new(),
        payload: "too large".into(),
    };
    let batch = AppendBatch {
        events: vec![event],
        ..AppendBatch::default()
    };
    let results = store.append(&run_id, batch).await;
    match results.map_err(|error| error.to_string())?.as_slice() {
        [Err(PublishError::TooLarge { .. })] => {}
        [Err(error)] => return Err(format!("cannot call runcast_publish: {error}")),
        other => return Err(format!("unexpected answer of runcast_publish: {other:?}")),
    }
    let query = PageQuery {
        from: PageFrom::After(0),
        events_max: 1,
        bytes_max: 1,
    };
    let page = store.read(&run_id, query).await;
    page.map_err(|error| format!("cannot call runcast_read: {error}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_subscribers_is_found_among_others() {
        let limit = OutputBuffer {
            hard: 33_554_432,
            soft: 8_388_608,
            soft_seconds: 60,
        };
        let text = "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60";
        assert_eq!(pubsub_limit(text), Some(limit));
        assert_eq!(pubsub_limit("normal 0 0 0"), None);
        assert_eq!(pubsub_limit("pubsub 1 x"), None);
    }
}
