//! `history.record_plain`: agents that only `PUBLISH` get a history as well.

use std::collections::HashSet;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::support::broker::BrokerSettings;
use crate::support::history::{Entry, assert_lines, entries, wait_entries};
use crate::support::redis::Publisher;
use crate::support::sse::gap_of;
use crate::support::wait::SOON;
use crate::support::{Broker, Frame, Redis, SseClient, eventually};

/// Time between two batches of a flood.
const PACE: Duration = Duration::from_millis(10);

/// Messages of a batch.
const BATCH: usize = 20;

fn recording(redis: &Redis) -> BrokerSettings {
    Broker::redis(redis).set("history.record_plain", "true")
}

async fn is_active(broker: &Broker) -> bool {
    broker.metric("runcast_recorder_active", &[]).await == 1.0
}

async fn wait_active(broker: &Broker) {
    eventually("the broker records", SOON, async || is_active(broker).await).await;
}

/// Starts brokers of which the first records and the others can take over.
async fn brokers(redis: &Redis, count: usize) -> Vec<Broker> {
    let mut brokers = vec![recording(redis).start_ready().await];
    wait_active(&brokers[0]).await;
    for _ in 1..count {
        brokers.push(recording(redis).start_ready().await);
    }
    for broker in &brokers[1..] {
        broker
            .wait_metric("runcast_recorder_standby", &[], 1.0)
            .await;
    }
    brokers
}

/// Messages of a run, every fifth of them the same.
fn messages(count: usize) -> Vec<Vec<u8>> {
    let text = |n: usize| match n % 5 {
        0 => r#""tick""#.to_owned(),
        _ => n.to_string(),
    };
    (0..count).map(|n| text(n).into_bytes()).collect()
}

/// Publishes messages of some runs, some at a time.
fn flood(publisher: &Publisher, runs: &[&str], count: usize) -> JoinHandle<()> {
    let mut publisher = publisher.clone();
    let channels: Vec<_> = runs
        .iter()
        .map(|run| format!("run:{run}:output:stdout"))
        .collect();
    tokio::spawn(async move {
        for batch in messages(count).chunks(BATCH) {
            for channel in &channels {
                publisher.publish_all(channel, batch).await;
            }
            tokio::time::sleep(PACE).await;
        }
    })
}

fn data(entries: &[Entry]) -> Vec<Vec<u8>> {
    entries.iter().map(|entry| entry.data.clone()).collect()
}

/// Waits until a run's history has settled at `count` events: each of its
/// messages once, in order, none lost.
async fn assert_recorded(redis: &mut Publisher, run_id: &str, count: usize) -> Vec<Entry> {
    let found = wait_entries(redis, run_id, count as i64).await;
    assert_lines(&data(&found), &messages(count));
    assert!(found.iter().all(|entry| entry.lost == 0), "{run_id}");
    found
}

/// Reads `count` events of a run, between which there is nothing else.
async fn assert_followed(client: &mut SseClient, count: usize) -> Vec<Frame> {
    let frames = client.run_events(count).await;
    let ids: HashSet<_> = frames.iter().map(Frame::id).collect();
    assert_eq!(ids.len(), count, "an id came twice");
    for (frame, message) in frames.iter().zip(messages(count)) {
        assert_eq!(frame.payload().into_bytes(), message);
    }
    frames
}

#[tokio::test]
async fn a_plain_run_has_a_history_on_every_broker() {
    let redis = Redis::start().await;
    let brokers = [
        recording(&redis).start_ready().await,
        recording(&redis).start_ready().await,
    ];
    let mut agent = redis.publisher().await;
    let mut live = brokers[1].follow("42/stream").await;
    agent.publish("run:42:output:stdout", "one").await;
    agent
        .publish("run:42:logs:app", r#"{"level":"info","message":"two"}"#)
        .await;
    agent
        .publish("run:42:status", r#"{"status":"completed","code":0}"#)
        .await;
    let frames = live.run_events(3).await;
    assert_eq!(live.event().await.event, "end");
    for broker in &brokers {
        let page = broker.json("/api/v1/runs/42/events").await;
        let events = page["events"].as_array().expect("a list");
        let ids: Vec<_> = events.iter().map(|event| event["id"].clone()).collect();
        assert_eq!(
            ids,
            frames
                .iter()
                .map(|frame| json!(frame.id()))
                .collect::<Vec<_>>()
        );
        let mut late = broker.follow("42/stream?from=start").await;
        let again = late.run_events(3).await;
        assert_eq!(again, frames, "who comes late sees the same");
        assert_eq!(late.event().await.event, "end");
    }
    // The status closed the run in the store, for all publishers.
    let mut redis = agent;
    let state: Vec<Option<String>> = redis.command(&["HMGET", "run:{42}:meta", "t", "s"]).await;
    assert_eq!(state, [Some("completed".to_owned()), Some("3".to_owned())]);
}

#[tokio::test]
async fn what_comes_after_the_end_is_dropped_and_counted() {
    let redis = Redis::start().await;
    let broker = recording(&redis)
        .set("runs.end_grace", "100ms")
        .start_ready()
        .await;
    let mut agent = redis.publisher().await;
    let mut client = broker.follow("42/stream").await;
    agent.publish("run:42:output:stdout", "in time").await;
    agent.publish("run:42:status", "failed").await;
    client.run_events(2).await;
    assert_eq!(client.event().await.event, "end");
    agent.publish("run:42:output:stdout", "late").await;
    broker
        .wait_metric("runcast_events_in_total", &[("result", "closed")], 1.0)
        .await;
    assert_eq!(entries(&mut agent, "42").await.len(), 2);
    assert_eq!(
        broker.metric("runcast_recorder_dropped_total", &[]).await,
        0.0
    );
}

#[tokio::test]
async fn three_brokers_record_each_message_once() {
    const COUNT: usize = 3000;
    let runs = ["a", "b", "c", "d"];
    let redis = Redis::start().await;
    let brokers = brokers(&redis, 3).await;
    let mut clients = Vec::new();
    for broker in &brokers {
        for run in runs {
            clients.push(broker.follow(&format!("{run}/stream")).await);
        }
    }
    let mut agent = redis.publisher().await;
    let floods = runs.map(|run| flood(&agent, &[run], COUNT));
    for flood in floods {
        flood.await.expect("published");
    }
    for run in runs {
        assert_recorded(&mut agent, run, COUNT).await;
    }
    let mut seen: Vec<Vec<Frame>> = Vec::new();
    for client in &mut clients {
        seen.push(assert_followed(client, COUNT).await);
    }
    let (first, others) = seen.split_at(runs.len());
    for (at, frames) in others.iter().enumerate() {
        assert_eq!(*frames, first[at % runs.len()], "the same on every broker");
    }
    let all = (runs.len() * COUNT) as f64;
    let recorded =
        async |broker: &Broker| broker.metric("runcast_recorder_recorded_total", &[]).await;
    assert_eq!(recorded(&brokers[0]).await, all);
    for broker in &brokers {
        broker
            .wait_metric("runcast_recorder_matched_total", &[], all)
            .await;
        broker
            .wait_metric("runcast_recorder_messages", &[], 0.0)
            .await;
    }
}

/// Kills or stops the recorder in the middle of a flood; another broker takes
/// over what was not recorded.
#[tokio::test]
async fn a_recorder_that_is_killed_loses_nothing() {
    const COUNT: usize = 6000;
    let redis = Redis::start().await;
    let mut brokers = brokers(&redis, 3).await;
    let mut client = brokers[1].follow("a/stream").await;
    let mut other = brokers[2].follow("b/stream").await;
    let mut agent = redis.publisher().await;
    let flood = flood(&agent, &["a", "b"], COUNT);
    wait_length(&mut agent, "a", COUNT as i64 / 3).await;
    brokers[0].process.kill();
    flood.await.expect("published");
    for run in ["a", "b"] {
        assert_recorded(&mut agent, run, COUNT).await;
    }
    assert_followed(&mut client, COUNT).await;
    assert_followed(&mut other, COUNT).await;
}

#[tokio::test]
async fn a_recorder_that_was_stopped_records_nothing_twice() {
    const COUNT: usize = 6000;
    let redis = Redis::start().await;
    let brokers = brokers(&redis, 2).await;
    let mut client = brokers[1].follow("a/stream").await;
    let mut agent = redis.publisher().await;
    let flood = flood(&agent, &["a", "b"], COUNT);
    wait_length(&mut agent, "a", COUNT as i64 / 4).await;
    brokers[0].process.signal(Signal::STOP);
    // Longer than the lease.
    wait_active(&brokers[1]).await;
    wait_length(&mut agent, "a", COUNT as i64 / 2).await;
    brokers[0].process.signal(Signal::CONT);
    flood.await.expect("published");
    for run in ["a", "b"] {
        assert_recorded(&mut agent, run, COUNT).await;
    }
    assert_followed(&mut client, COUNT).await;
    eventually("it knows that it records no more", SOON, async || {
        !is_active(&brokers[0]).await
    })
    .await;
    brokers[0]
        .wait_metric("runcast_recorder_standby", &[], 1.0)
        .await;
    for run in ["a", "b"] {
        assert_eq!(entries(&mut agent, run).await.len(), COUNT);
    }
}

/// The appends of a recorder that lost the lease may still be on their way when
/// the next one is at work: each is either refused, or found in time.
#[tokio::test]
async fn late_appends_of_an_old_recorder_are_no_second_events() {
    const RUNS: usize = 2000;
    let redis = Redis::start().await;
    let brokers = brokers(&redis, 2).await;
    let mut agent = redis.publisher().await;
    let old = lease_number(&mut agent).await;
    brokers[0].process.signal(Signal::STOP);
    let runs: Vec<_> = (0..RUNS).map(|n| format!("r{n}")).collect();
    let mut publishes = ::redis::pipe();
    for run in &runs {
        let channel = format!("run:{run}:output:s");
        publishes.cmd("PUBLISH").arg(channel).arg("1").ignore();
    }
    agent.pipeline(&publishes).await;
    eventually("another has the lease", SOON, async || {
        lease_number(&mut agent.clone()).await != old
    })
    .await;
    // Now we are the old one, in no order that the new one knows.
    let mut fenced = 0;
    for run in shuffled(&runs) {
        let (word, _): (String, String) = {
            let call = late_append(&run, &old);
            let words: Vec<_> = call.iter().map(String::as_str).collect();
            agent.command(&words).await
        };
        match word.as_str() {
            "FENCED" => fenced += 1,
            word => assert_eq!(word, "OK"),
        }
    }
    assert!(fenced > 0 && fenced < RUNS, "{fenced}: no race");
    for run in &runs {
        wait_length(&mut agent, run, 1).await;
    }
    brokers[1]
        .wait_metric("runcast_recorder_messages", &[], 0.0)
        .await;
    for run in &runs {
        assert_eq!(length(&mut agent, run).await, 1, "{run}");
    }
    brokers[0].process.signal(Signal::CONT);
}

async fn lease_number(redis: &mut Publisher) -> String {
    redis.command(&["HGET", "run:{_recorder}", "n"]).await
}

fn shuffled(runs: &[String]) -> Vec<String> {
    let mut runs = runs.to_vec();
    fastrand::shuffle(&mut runs);
    runs
}

/// The call of a recorder for the only message of a run.
fn late_append(run: &str, epoch: &str) -> Vec<String> {
    let keys = ["stream", "meta"].map(|key| format!("run:{{{run}}}:{key}"));
    let call = ["FCALL", "runcast_publish", "2"].map(str::to_owned);
    let event = [run, "output", "s", "1", "PRODUCER", "_plain", epoch, "1"].map(str::to_owned);
    call.into_iter().chain(keys).chain(event).collect()
}

#[tokio::test]
async fn a_recorder_that_is_cut_off_leaves_it_to_others() {
    const COUNT: usize = 4000;
    let redis = Redis::start().await;
    let first = recording(&redis).start_ready().await;
    wait_active(&first).await;
    let mut agent = redis.publisher().await;
    let ids = clients_of(&mut agent, "pubsub").await;
    assert_eq!(ids.len(), 1, "{ids:?}");
    let second = recording(&redis).start_ready().await;
    second
        .wait_metric("runcast_recorder_standby", &[], 1.0)
        .await;
    let mut clients = [
        first.follow("a/stream").await,
        second.follow("a/stream").await,
    ];
    let flood = flood(&agent, &["a"], COUNT);
    wait_length(&mut agent, "a", COUNT as i64 / 4).await;
    let killed: i64 = agent.command(&["CLIENT", "KILL", "ID", &ids[0]]).await;
    assert_eq!(killed, 1);
    flood.await.expect("published");
    assert_recorded(&mut agent, "a", COUNT).await;
    for client in &mut clients {
        assert_followed(client, COUNT).await;
    }
    wait_active(&second).await;
}

/// Appends whose fate is unknown are repeated under their numbers.
#[tokio::test]
async fn appends_that_are_cut_off_are_no_second_events() {
    const COUNT: usize = 4000;
    let redis = Redis::start().await;
    let brokers = brokers(&redis, 2).await;
    let mut client = brokers[1].follow("a/stream").await;
    let mut agent = redis.publisher().await;

    let own: i64 = agent.command(&["CLIENT", "ID"]).await;
    let own = own.to_string();
    let flood = flood(&agent, &["a"], COUNT);
    let mut kills = 0;
    while !flood.is_finished() {
        for id in clients_of(&mut agent, "normal").await {
            if id != own {
                kills += agent.command::<i64>(&["CLIENT", "KILL", "ID", &id]).await;
            }
        }
        let length = length(&mut agent, "a").await;
        wait_length(&mut agent, "a", (length + 300).min(COUNT as i64)).await;
    }
    assert!(kills >= 5, "{kills}");
    flood.await.expect("published");
    assert_recorded(&mut agent, "a", COUNT).await;
    assert_followed(&mut client, COUNT).await;
}

/// With one broker alone an outage is a gap, as it is without recording.
#[tokio::test]
async fn what_nobody_heard_is_told() {
    let redis = Redis::start().await;
    let broker = recording(&redis).start_ready().await;
    wait_active(&broker).await;
    let mut client = broker.follow("42/stream").await;
    let mut agent = redis.publisher().await;
    agent.publish("run:42:output:stdout", r#""before""#).await;
    assert_eq!(client.run_event().await.payload(), r#""before""#);
    let _: i64 = agent.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    let frame = client.event().await;
    assert_eq!(gap_of(&frame).0, "disconnected");
    wait_active(&broker).await;
    agent.publish("run:42:output:stdout", r#""after""#).await;
    assert_eq!(client.run_event().await.payload(), r#""after""#);
}

#[tokio::test]
async fn a_broker_that_ends_hands_over_at_once() {
    let redis = Redis::start().await;
    let mut brokers = brokers(&redis, 2).await;
    let mut client = brokers[1].follow("42/stream").await;
    let mut agent = redis.publisher().await;
    agent.publish("run:42:output:stdout", r#""before""#).await;
    client.run_event().await;
    brokers[0].terminate();
    assert_eq!(brokers[0].exit_code(SOON).await, Some(0));
    let lease: Option<String> = agent.command(&["HGET", "run:{_recorder}", "h"]).await;
    assert_ne!(lease.as_deref(), None);
    wait_active(&brokers[1]).await;
    agent.publish("run:42:output:stdout", r#""after""#).await;
    assert_eq!(
        client.run_event().await.payload(),
        r#""after""#,
        "and no gap"
    );
}

/// A broker that is off shows both, and says so.
#[tokio::test]
async fn brokers_that_disagree_say_so() {
    let redis = Redis::start().await;
    let on = recording(&redis).start_ready().await;
    wait_active(&on).await;
    let off = Broker::redis(&redis).start_ready().await;
    let mut client = off.follow("42/stream").await;
    let mut agent = redis.publisher().await;
    agent.publish("run:42:output:stdout", "1").await;
    let frames = client.run_events(2).await;
    assert!(frames.iter().all(|frame| frame.payload() == "1"));
    let says_so = |line: &String| line.contains("history.record_plain is on at another broker");
    eventually("it is logged", SOON, async || {
        off.process.log().iter().any(says_so)
    })
    .await;
    let rejected = off.metric("runcast_redis_rejected_total", &[]).await;
    assert_eq!(
        rejected, 0.0,
        "what recorders say to each other is no bad channel"
    );
}

async fn length(redis: &mut Publisher, run_id: &str) -> i64 {
    let stream = format!("run:{{{run_id}}}:stream");
    redis.command(&["XLEN", &stream]).await
}

async fn wait_length(redis: &mut Publisher, run_id: &str, least: i64) {
    eventually(&format!("{run_id} has {least} entries"), SOON, async || {
        length(&mut redis.clone(), run_id).await >= least
    })
    .await;
}

/// Returns the ids of all connections of a type.
async fn clients_of(redis: &mut Publisher, kind: &str) -> Vec<String> {
    let list: String = redis.command(&["CLIENT", "LIST", "TYPE", kind]).await;
    let id = |line: &str| {
        let id = line.strip_prefix("id=")?.split(' ').next()?;
        Some(id.to_owned())
    };
    list.lines().filter_map(id).collect()
}
