//! Failover inside one stream: the built broker, a real redis-server that is
//! killed and started again, the real kubectl on the stand-in API server.

use std::sync::Arc;
use std::time::Duration;

use runcast_actors::settings::KubectlEngine;

use crate::kubectl_stream::kubectl_settings;
use crate::support::agent::Agent;
use crate::support::broker::BrokerSettings;
use crate::support::engines::for_both_engines;
use crate::support::kube_api::KubeApi;
use crate::support::wait::SOON;
use crate::support::watcher::{Watcher, numbered};
use crate::support::{Broker, Redis, eventually};

/// kubectl is started again and again, on a busy machine.
const LATER: Duration = Duration::from_secs(60);

/// A Redis that keeps what it has when it is killed.
async fn lasting_redis() -> Redis {
    Redis::start_with(&["--appendonly", "yes", "--appendfsync", "always"]).await
}

fn settings(api: &KubeApi, redis: &Redis) -> BrokerSettings {
    kubectl_settings(api)
        .set("streaming.default_backend", "auto")
        .set("redis.url", redis.url())
        .set("redis.probe_interval", "300ms")
        .set("redis.check_interval", "500ms")
        .set("auto.after", "400ms")
        .set("auto.window", "1s")
        .set("auto.settle", "4s")
}

/// The same with this engine of the kubectl backend.
fn settings_by(engine: KubectlEngine, api: &KubeApi, redis: &Redis) -> BrokerSettings {
    settings(api, redis).set("kubectl.engine", engine.name())
}

for_both_engines!(
    tokio::test:
    every_line_is_shown_once_however_often_redis_goes,
    a_run_that_only_has_a_pod_is_shown_from_it,
    a_run_may_end_while_redis_is_down,
);

/// Says what was checked.
#[allow(clippy::print_stdout, reason = "the counts are what a reader wants")]
fn report(line: &str) {
    println!("{line}");
}

async fn wait_down(broker: &Broker) {
    broker.wait_metric("runcast_redis_up", &[], 0.0).await;
}

async fn wait_up(broker: &Broker) {
    broker.wait_metric("runcast_redis_up", &[], 1.0).await;
}

/// Several runs under load, Redis killed in their middle, twice: every client of
/// `auto` is shown every line once and in order; one of Redis alone is shown
/// what Redis has, and no word of pods.
async fn every_line_is_shown_once_however_often_redis_goes(engine: KubectlEngine) {
    let mut redis = lasting_redis().await;
    let api = Arc::new(KubeApi::start());
    let broker = settings_by(engine, &api, &redis).start_ready().await;
    let runs = ["a", "b", "c"];
    let mut agents: Vec<Agent> = runs
        .iter()
        .map(|run| Agent::start(&api, run, &redis.url()))
        .collect();
    let mut watchers = Vec::new();
    let mut pure = Vec::new();
    for run in runs {
        watchers.push(Watcher::open(&broker, &format!("{run}/stream")).await);
        pure.push(Watcher::open(&broker, &format!("{run}/stream/redis")).await);
    }
    let mut said = 0;
    for (round, rounds) in [("up", 1), ("down", 1), ("up", 2), ("down", 2), ("up", 3)] {
        match (round, rounds) {
            ("down", _) => {
                redis.kill();
                wait_down(&broker).await;
            }
            ("up", 2..) => {
                redis.restart().await;
                wait_up(&broker).await;
            }
            _ => {}
        }
        let begun = std::time::Instant::now();
        let seconds = if rounds == 3 { 4 } else { 2 };
        // They go on until every run is back, on a busy machine too.
        let is_back = async || broker.metric("runcast_auto_failed_over", &[]).await == 0.0;
        while begun.elapsed() < Duration::from_secs(seconds) || round == "up" && !is_back().await {
            assert!(begun.elapsed() < LATER, "the runs are not back");
            for agent in &mut agents {
                agent.say(&format!("line {said}")).await;
            }
            said += 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if round == "down" {
            for watcher in &mut watchers {
                watcher.until_source("kubectl", rounds).await;
            }
        }
    }
    for agent in &mut agents {
        agent.ship().await;
        assert!(agent.has_shipped(), "Redis is there");
        agent.say("the last").await;
    }
    let mut expected = numbered("line", 0..said);
    expected.push("the last".to_owned());
    for (watcher, pure) in watchers.iter_mut().zip(&mut pure) {
        watcher.until_text("the last").await;
        watcher.until_source("redis", 2).await;
        assert_eq!(watcher.texts(), expected, "each line once, in order");
        assert_eq!(
            watcher.gaps(),
            Vec::<String>::new(),
            "{:#?}",
            watcher.sources()
        );
        let (from_redis, from_kubectl) = watcher.by_backend();
        assert!(
            from_redis > 100 && from_kubectl > 100,
            "{from_redis}, {from_kubectl}"
        );
        pure.until_text("the last").await;
        assert_eq!(pure.texts(), expected);
        assert_eq!(pure.by_backend().1, 0);
        assert!(pure.sources().is_empty() && pure.gaps().is_empty());
        report(&format!(
            "{} lines shown once and in order, {from_redis} by Redis and {from_kubectl} by kubectl, {} switches",
            expected.len(),
            watcher.sources().len()
        ));
    }
    assert_eq!(broker.metric("runcast_auto_failed_over", &[]).await, 0.0);
}

/// Lines that are all alike come out in their number, of a run that was seen
/// from its beginning.
#[tokio::test]
async fn equal_lines_come_out_in_their_number() {
    let mut redis = lasting_redis().await;
    let api = Arc::new(KubeApi::start());
    let broker = settings(&api, &redis).start_ready().await;
    let mut agent = Agent::start(&api, "42", &redis.url());
    let mut watcher = Watcher::open(&broker, "42/stream").await;
    let mut said = 0;
    let mut tick = async |agent: &mut Agent, times: usize| {
        for _ in 0..times {
            agent.say("tick").await;
            said += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tick(&mut agent, 50).await;
    redis.kill();
    tick(&mut agent, 100).await;
    watcher.until_source("kubectl", 1).await;
    tick(&mut agent, 50).await;
    redis.restart().await;
    wait_up(&broker).await;
    tick(&mut agent, 100).await;
    agent.ship().await;
    agent.say("the last").await;
    watcher.until_text("the last").await;
    watcher.until_source("redis", 1).await;
    let texts = watcher.texts();
    let ticks = texts.iter().filter(|text| *text == "tick").count();
    assert_eq!(ticks, 300, "{:?}", watcher.gaps());
    report(&format!("{ticks} equal lines, {:?}", watcher.by_backend()));
}

/// Who comes while Redis is down is shown the run from its pod; who comes back,
/// with a cursor of either backend, goes on exactly there.
#[tokio::test]
async fn clients_come_and_come_back_while_redis_is_down() {
    let mut redis = lasting_redis().await;
    let api = Arc::new(KubeApi::start());
    let broker = settings(&api, &redis).start_ready().await;
    let mut agent = Agent::start(&api, "42", &redis.url());
    let mut first = Watcher::open(&broker, "42/stream").await;
    for line in numbered("line", 0..20) {
        agent.say(&line).await;
    }
    first.until_text("line 19").await;
    let durable = first.last_id();
    redis.kill();
    wait_down(&broker).await;
    for line in numbered("line", 20..40) {
        agent.say(&line).await;
    }
    first.until_text("line 39").await;
    let of_a_line = first.last_id();
    assert!(of_a_line.starts_with('~'), "{of_a_line}");

    let mut late = Watcher::open(&broker, "42/stream").await;
    let header = late.client.head().header("x-streaming-backend");
    assert_eq!(header.as_deref(), Some("kubectl"));
    late.until_text("line 39").await;
    let hello = late.frames.iter().find(|it| it.event == "hello");
    assert_eq!(hello.expect("a hello").json()["backend"], "kubectl");
    assert_eq!(late.texts(), numbered("line", 0..40));
    let mut back = Watcher::resume(&broker, "42/stream", &durable).await;
    back.until_text("line 39").await;
    assert_eq!(back.texts(), numbered("line", 20..40));
    let detail = broker.json("/api/v1/runs/42").await;
    let why = detail["quiet_because"].as_str().unwrap_or_default();
    assert!(why.contains("the logs of its pods"), "{why}");

    redis.restart().await;
    wait_up(&broker).await;
    for line in numbered("line", 40..60) {
        agent.say(&line).await;
    }
    first.until_source("redis", 1).await;
    first.until_text("line 59").await;
    let mut again = Watcher::resume(&broker, "42/stream", &of_a_line).await;
    again.until_text("line 59").await;
    assert_eq!(again.texts(), numbered("line", 40..60));
    let mut newcomer = Watcher::open(&broker, "42/stream").await;
    newcomer.until_text("line 59").await;
    assert_eq!(newcomer.texts(), numbered("line", 0..60));
    late.until_text("line 59").await;
    for watcher in [&first, &late] {
        assert_eq!(watcher.texts(), numbered("line", 0..60));
    }
    for watcher in [&first, &late, &back, &again, &newcomer] {
        assert!(watcher.gaps().is_empty(), "{:?}", watcher.gaps());
    }
    report(
        "60 lines once each for 5 clients: from the start, late, and by cursors of both backends",
    );
}

/// A broker that never knew the run reads it from its pod while Redis is down,
/// and shows of Redis then only what the pod did not print.
#[tokio::test]
async fn a_broker_that_knows_nothing_begins_with_the_pod() {
    let mut redis = lasting_redis().await;
    let api = Arc::new(KubeApi::start());
    let mut agent = Agent::start(&api, "42", &redis.url());
    let loader = settings(&api, &redis).start_ready().await;
    for line in numbered("line", 0..10) {
        agent.say(&line).await;
    }
    agent.publish("only published").await;
    drop(loader);
    redis.kill();
    let broker = settings(&api, &redis).start().await;
    let mut watcher = Watcher::open(&broker, "42/stream").await;
    watcher.until_text("line 9").await;
    redis.restart().await;
    wait_up(&broker).await;
    agent.say("the last").await;
    watcher.until_text("the last").await;
    watcher.until_source("redis", 1).await;
    let mut texts = watcher.texts();
    let at = texts.iter().position(|text| text == "only published");
    texts.remove(at.expect("it is shown when Redis is back"));
    let mut expected = numbered("line", 0..10);
    expected.push("the last".to_owned());
    assert_eq!(texts, expected);
    assert!(watcher.gaps().is_empty(), "{:?}", watcher.gaps());
}

/// A hub whose clients came late has nothing of what they read of the store, and
/// finds the join all the same.
#[tokio::test]
async fn clients_that_came_late_go_on_as_well() {
    let mut redis = lasting_redis().await;
    let api = Arc::new(KubeApi::start());
    let settings = settings(&api, &redis).set("hub.retain_unwatched", "false");
    let broker = settings.start_ready().await;
    let mut agent = Agent::start(&api, "42", &redis.url());
    for line in numbered("line", 0..20) {
        agent.say(&line).await;
    }
    let mut watcher = Watcher::open(&broker, "42/stream").await;
    watcher.until_text("line 19").await;
    agent.say("line 20").await;
    watcher.until_text("line 20").await;
    redis.kill();
    wait_down(&broker).await;
    agent.say("line 21").await;
    watcher.until_text("line 21").await;
    redis.restart().await;
    wait_up(&broker).await;
    agent.say("line 22").await;
    watcher.until_text("line 22").await;
    watcher.until_source("redis", 1).await;
    assert_eq!(watcher.texts(), numbered("line", 0..23));
    assert!(watcher.gaps().is_empty(), "{:?}", watcher.gaps());
}

/// A run that is in no Redis, only in a pod: its lines are shown, and its end.
/// One that begins to publish is followed there from then on.
async fn a_run_that_only_has_a_pod_is_shown_from_it(engine: KubectlEngine) {
    let redis = lasting_redis().await;
    let api = Arc::new(KubeApi::start());
    let broker = settings_by(engine, &api, &redis).start_ready().await;
    let agent = Agent::start(&api, "silent", &redis.url());
    let mut later = Agent::start(&api, "later", &redis.url());
    let mut silent = Watcher::open(&broker, "silent/stream").await;
    let mut watcher = Watcher::open(&broker, "later/stream").await;
    for line in numbered("line", 0..5) {
        agent.print(&line);
        later.print(&line);
    }
    silent.until_text("line 4").await;
    assert_eq!(silent.sources()[0]["reason"], "no-publisher");
    watcher.until_text("line 4").await;
    api.finish("pod-silent", 0);
    let frames = silent.client.rest(LATER).await;
    silent.frames.extend(frames);
    assert_eq!(silent.texts(), numbered("line", 0..5));
    let end = silent.frames.last().expect("an end");
    assert_eq!(
        (end.event.as_str(), &end.json()["status"]),
        ("end", &"succeeded".into())
    );

    for line in numbered("line", 5..20) {
        later.say(&line).await;
    }
    watcher.until_source("redis", 1).await;
    later.say("the last").await;
    watcher.until_text("the last").await;
    let mut expected = numbered("line", 0..20);
    expected.push("the last".to_owned());
    assert_eq!(watcher.texts(), expected);
    assert!(watcher.gaps().is_empty() && silent.gaps().is_empty());
}

/// The pod ends while Redis is down: clients of `auto` are told the end; those of
/// Redis alone when Redis has it.
async fn a_run_may_end_while_redis_is_down(engine: KubectlEngine) {
    let mut redis = lasting_redis().await;
    let api = Arc::new(KubeApi::start());
    let broker = settings_by(engine, &api, &redis).start_ready().await;
    let mut agent = Agent::start(&api, "42", &redis.url());
    let mut watcher = Watcher::open(&broker, "42/stream").await;
    let mut pure = Watcher::open(&broker, "42/stream/redis").await;
    agent.status("running").await;
    agent.say("line 0").await;
    watcher.until_text("line 0").await;
    redis.kill();
    wait_down(&broker).await;
    agent.say("line 1").await;
    agent.status("completed").await;
    api.finish("pod-42", 0);
    let frames = watcher.client.rest(LATER).await;
    watcher.frames.extend(frames);
    let ends = watcher.frames.iter().filter(|it| it.event == "end");
    assert_eq!(ends.count(), 1);
    assert_eq!(
        watcher.texts(),
        numbered("line", 0..2),
        "{:#?}",
        watcher.frames
    );
    // What Redis may have been told last, and no pod printed; on a busy machine
    // the pod ends before the join is found, which is told, too.
    let gaps = watcher.gaps();
    assert!(matches!(gaps.len(), 1..=2), "{gaps:?}");
    assert!(gaps.iter().all(|reason| reason == "disconnected"));
    let end = watcher.frames.last().expect("an end").id().to_owned();
    let path = "/api/v1/runs/42/stream";
    let again = crate::support::http::Request::get(path).header("Last-Event-ID", &end);
    assert_eq!(again.send(broker.addr).await.status(), 204);

    redis.restart().await;
    wait_up(&broker).await;
    agent.ship().await;
    let frames = pure.client.rest(LATER).await;
    pure.frames.extend(frames);
    assert_eq!(pure.texts(), numbered("line", 0..2));
    assert_eq!(
        pure.frames.last().expect("an end").json()["status"],
        "completed"
    );
    assert!(pure.sources().is_empty());
    let mut newcomer = Watcher::open(&broker, "42/stream").await;
    let frames = newcomer.client.rest(LATER).await;
    newcomer.frames.extend(frames);
    assert_eq!(newcomer.texts(), numbered("line", 0..2));
}

/// An agent that prints other lines than it publishes: nothing matches, and a
/// gap stands before both joins.
#[tokio::test]
async fn a_join_that_cannot_be_found_is_told_by_a_gap() {
    let mut redis = lasting_redis().await;
    let api = Arc::new(KubeApi::start());
    let broker = settings(&api, &redis).start_ready().await;
    let mut agent = Agent::start(&api, "42", &redis.url());
    let mut watcher = Watcher::open(&broker, "42/stream").await;
    for n in 0..5 {
        agent.print(&format!("printed {n}"));
        agent.publish(&format!("published {n}")).await;
    }
    watcher.until_text("published 4").await;
    redis.kill();
    wait_down(&broker).await;
    agent.print("printed 5");
    agent.publish("published 5").await;
    watcher.until_text("printed 5").await;
    let order: Vec<&str> = watcher
        .frames
        .iter()
        .map(|frame| frame.event.as_str())
        .filter(|event| matches!(*event, "source" | "gap"))
        .collect();
    assert_eq!(order, ["source", "gap"]);
    redis.restart().await;
    wait_up(&broker).await;
    agent.ship().await;
    watcher.until_text("published 5").await;
    watcher.until_source("redis", 1).await;
    assert_eq!(watcher.gaps(), ["disconnected", "disconnected"]);
    let texts = watcher.texts();
    let published = texts.iter().filter(|text| text.starts_with("published"));
    assert_eq!(published.count(), 6);
}

/// Agents that only `PUBLISH` and print: what was lost to Redis is in the pod. What
/// they may have published and not printed is told by a gap.
#[tokio::test]
async fn plain_agents_lose_nothing_of_what_they_print() {
    let mut redis = Redis::start().await;
    let api = Arc::new(KubeApi::start());
    let broker = settings(&api, &redis).start_ready().await;
    let agent = Agent::start(&api, "42", &redis.url());
    let mut watcher = Watcher::open(&broker, "42/stream").await;
    let mut publisher = redis.publisher().await;
    let mut expected = Vec::new();
    for line in numbered("line", 0..30) {
        agent.print(&line);
        publisher.publish("run:42:output:stdout", &line).await;
        expected.push(line);
    }
    watcher.until_text("line 29").await;
    redis.kill();
    wait_down(&broker).await;
    for line in numbered("line", 30..60) {
        agent.print(&line);
        expected.push(line);
    }
    watcher.until_text("line 59").await;
    redis.restart().await;
    wait_up(&broker).await;
    let mut publisher = redis.publisher().await;
    for line in numbered("line", 60..90) {
        agent.print(&line);
        publisher.publish("run:42:output:stdout", &line).await;
        expected.push(line);
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    watcher.until_source("redis", 1).await;
    agent.print("the last");
    publisher.publish("run:42:output:stdout", "the last").await;
    expected.push("the last".to_owned());
    watcher.until_text("the last").await;
    assert_eq!(watcher.texts(), expected);
    assert_eq!(watcher.gaps(), ["disconnected"]);
    let matched = broker.metric("runcast_auto_matched_total", &[]).await;
    assert!(matched >= 30.0, "{matched}");
    eventually("the way back is counted", SOON, async || {
        let labels = [("to", "redis"), ("reason", "redis-up")];
        broker.metric("runcast_auto_switches_total", &labels).await == 1.0
    })
    .await;
}

/// A run followed by `auto` alone is known as it is, also after an outage.
#[tokio::test]
async fn a_run_followed_by_auto_alone_is_described_as_it_is() {
    let redis = lasting_redis().await;
    let api = Arc::new(KubeApi::start());
    let broker = settings(&api, &redis).start_ready().await;
    let mut agent = Agent::start(&api, "42", &redis.url());
    let mut watcher = Watcher::open(&broker, "42/stream").await;
    agent.say("line 0").await;
    watcher.until_text("line 0").await;
    let mut publisher = redis.publisher().await;
    let _: i64 = publisher
        .command(&["CLIENT", "KILL", "TYPE", "pubsub"])
        .await;
    agent.say("line 1").await;
    watcher.until_text("line 1").await;
    let last = watcher.last_id();
    eventually("the list has it", SOON, async || {
        let runs = broker.json("/api/v1/runs").await;
        runs["runs"][0]["last_id"] == last.as_str()
    })
    .await;
}

/// Without room for a hub a client of `auto` is told so, as any other is.
#[tokio::test]
async fn without_room_for_its_hubs_a_client_of_auto_is_told_so() {
    let redis = lasting_redis().await;
    let api = Arc::new(KubeApi::start());
    let settings = settings(&api, &redis).set("hub.max_hubs", "2");
    let broker = settings.start_ready().await;
    let _first = broker.follow("1/stream/redis").await;
    let mut client = broker.stream("2/stream").await;
    let frames = client.rest(SOON).await;
    let problem = frames.iter().find(|frame| frame.event == "problem");
    let problem = problem.expect("it is told").json();
    assert_eq!(problem["type"], "urn:runcast:problem:too-many-runs");
    let restarts = broker.metric("runcast_actor_restarts_total", &[]).await;
    assert_eq!(restarts, 0.0, "nobody tried again and again");
}
