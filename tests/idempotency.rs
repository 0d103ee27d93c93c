//! `Idempotency-Key` on `POST …/events`, on both backends.

use futures_util::future::join_all;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::broker::accepted_ids;
use crate::support::http::{Request, Response, slug};
use crate::support::wait::SOON;
use crate::support::{Broker, Redis, eventually};

fn post(path: &str, key: &str, data: &str) -> Request {
    let body = json!({"kind": "output", "source": "s", "data": data}).to_string();
    Request::post(path, "application/json", body).header("Idempotency-Key", key)
}

fn is_same(a: &Response, b: &Response) -> bool {
    let kind = |response: &Response| response.header("content-type");
    (a.status(), &a.body, kind(a)) == (b.status(), &b.body, kind(b))
}

#[tokio::test]
async fn a_post_sent_again_has_the_first_answer_on_redis_too() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let mut client = broker.follow("42/stream").await;
    let events = "/api/v1/runs/42/events";
    let first = post(events, "k", "once").send(broker.addr).await;
    assert_eq!(first.status(), 202, "{}", first.text());
    for _ in 0..3 {
        let again = post(events, "k", "once").send(broker.addr).await;
        assert!(is_same(&first, &again), "{}", again.text());
    }
    // The key belongs to its run, and to what was posted.
    let other_run = post("/api/v1/runs/43/events", "k", "other");
    assert_eq!(other_run.send(broker.addr).await.status(), 202);
    for request in [
        post(events, "k", "another"),
        post(&format!("{events}?restart=true"), "k", "once"),
    ] {
        let problem = request.send(broker.addr).await.problem(422);
        assert_eq!(slug(&problem), "idempotency-key-reused");
    }
    let ids = [
        accepted_ids(&first),
        accepted_ids(&post(events, "k2", "next").send(broker.addr).await),
    ];
    for (ids, data) in ids.iter().zip(["\"once\"", "\"next\""]) {
        let frame = client.run_event().await;
        assert_eq!(
            (frame.id(), frame.payload().as_str()),
            (ids[0].as_str(), data)
        );
    }
    let replays = broker
        .metric("runcast_http_idempotent_replays_total", &[])
        .await;
    let keys = broker.metric("runcast_http_idempotency_keys", &[]).await;
    assert_eq!((replays, keys), (3.0, 3.0));
}

#[tokio::test]
async fn posts_with_one_key_at_one_time_are_one_post() {
    let broker = Broker::embedded()
        .set("server.workers", 4)
        .start_ready()
        .await;
    let request = post("/api/v1/runs/42/events", "k", "once");
    let posts = (0..50).map(|_| request.send(broker.addr));
    let answers = join_all(posts).await;
    assert_eq!(answers[0].status(), 202);
    assert!(answers.iter().all(|answer| is_same(answer, &answers[0])));
    let run = broker.json("/api/v1/runs/42").await;
    assert_eq!(run["events"]["output"], 1);
}

/// The refusal of a run that is over stands as well.
#[tokio::test]
async fn a_refusal_is_an_answer_like_others() {
    let broker = Broker::embedded()
        .set("runs.end_grace", "0s")
        .start_ready()
        .await;
    let mut client = broker.follow("42/stream").await;
    broker.publish_status("42", json!("completed")).await;
    while client.frame().await.event != "end" {}
    let events = "/api/v1/runs/42/events";
    let first = post(events, "k", "late").send(broker.addr).await;
    assert_eq!(slug(&first.problem(409)), "run-closed");
    let restart = format!("{events}?restart=true");
    let restarted = post(&restart, "k2", "new").send(broker.addr).await;
    assert_eq!(restarted.status(), 202);
    let again = post(events, "k", "late").send(broker.addr).await;
    assert!(is_same(&first, &again), "{}", again.text());
}

/// A store that does not answer leaves it open; the key may be tried again.
#[tokio::test]
async fn a_post_that_failed_is_not_remembered() {
    let mut redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("redis.command_timeout", "200ms")
        .start_ready()
        .await;
    let request = post("/api/v1/runs/42/events", "k", "x");
    redis.kill();
    request.send(broker.addr).await.problem(503);
    redis.restart().await;
    broker.wait_ready().await;
    let answer = request.send(broker.addr).await;
    assert_eq!(answer.status(), 202, "{}", answer.text());
}

/// The answer is lost with its client; the post is not done again.
#[tokio::test]
async fn a_client_that_vanished_in_the_middle_publishes_once() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let events = "/api/v1/runs/42/events";
    let body = json!({"kind": "output", "data": "once"}).to_string();
    let head = format!(
        "POST {events} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nIdempotency-Key: k\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    redis.freeze();
    let mut stream = TcpStream::connect(broker.addr).await.expect("it listens");
    let request = [head.as_bytes(), body.as_bytes()].concat();
    stream.write_all(&request).await.expect("connected");
    broker
        .wait_metric("runcast_http_body_bytes", &[], body.len() as f64)
        .await;
    stream.set_zero_linger().expect("connected");
    drop(stream);
    redis.thaw();
    let request = Request::post(events, "application/json", body).header("Idempotency-Key", "k");
    let answer = request.send(broker.addr).await;
    assert_eq!(answer.status(), 202, "{}", answer.text());
    broker.publish("42", json!("next")).await;
    let mut client = broker.follow("42/stream").await;
    assert_eq!(client.run_event().await.payload(), "\"once\"");
    assert_eq!(client.run_event().await.payload(), "\"next\"");
}

#[tokio::test]
async fn a_key_holds_on_every_broker() {
    let redis = Redis::start().await;
    let settings = Broker::redis(&redis);
    let (one, two) = (settings.start_ready().await, settings.start_ready().await);
    let events = "/api/v1/runs/42/events";
    let first = post(events, "k", "once").send(one.addr).await;
    assert_eq!(first.status(), 202, "{}", first.text());
    let again = post(events, "k", "once").send(two.addr).await;
    assert!(is_same(&first, &again), "{}", again.text());
    let other = post(events, "k", "another").send(two.addr).await;
    assert_eq!(slug(&other.problem(422)), "idempotency-key-reused");
    // The wrong post is not what the key stands for there now.
    let again = post(events, "k", "once").send(two.addr).await;
    assert!(is_same(&first, &again), "{}", again.text());

    let request = post(events, "k2", "at once");
    let posts = (0..20).map(|n| request.send([one.addr, two.addr][n % 2]));
    let answers = join_all(posts).await;
    assert_eq!(answers[0].status(), 202, "{}", answers[0].text());
    assert!(answers.iter().all(|answer| is_same(answer, &answers[0])));

    let mut publisher = redis.publisher().await;
    let kept: i64 = publisher.command(&["XLEN", "run:{42}:stream"]).await;
    assert_eq!(kept, 2);
    // What was answered needs no producer's numbers any more.
    let fields: Vec<String> = publisher.command(&["HKEYS", "run:{42}:meta"]).await;
    assert!(
        !fields.iter().any(|name| name.starts_with("p:")),
        "{fields:?}"
    );
    let replays = two
        .metric("runcast_http_idempotent_replays_total", &[])
        .await;
    assert!(replays >= 2.0);
}

/// A broker dies in the middle of a post: sent again to another, each event
/// stands once, in order, and has its id.
#[tokio::test]
async fn a_post_whose_broker_was_killed_is_published_once() {
    const EVENTS: usize = 5000;
    let redis = Redis::start().await;
    let settings = Broker::redis(&redis).set("redis.command_timeout", "1s");
    let (one, two) = (settings.start_ready().await, settings.start_ready().await);
    let lines: Vec<String> = (0..EVENTS)
        .map(|n| json!({"kind": "output", "data": n}).to_string())
        .collect();
    let path = "/api/v1/runs/42/events";
    let request = Request::post(path, "application/x-ndjson", lines.join("\n"))
        .header("Idempotency-Key", "k");
    let mut publisher = redis.publisher().await;
    let begun = eventually("Redis takes the first of them", SOON, async || {
        let mut publisher = publisher.clone();
        let kept: usize = publisher.command(&["XLEN", "run:{42}:stream"]).await;
        kept > 0
    });
    tokio::select! {
        answer = request.try_send(one.addr) => panic!("answered too early: {answer:?}"),
        () = begun => one.process.signal(rustix::process::Signal::KILL),
    }
    let answer = request.send(two.addr).await;
    let ids = accepted_ids(&answer);
    assert_eq!(ids.len(), EVENTS);
    let kept: usize = publisher.command(&["XLEN", "run:{42}:stream"]).await;
    assert_eq!(kept, EVENTS);
    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let page = two.json(&format!("{path}?limit=1000&after={after}")).await;
        let events = page["events"].as_array().expect("events");
        seen.extend(events.iter().map(|event| {
            let data = event["data"]["data"].as_u64().expect("a number");
            let id = event["id"].as_str().expect("an id");
            (data, id.to_owned())
        }));
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    let expected: Vec<_> = (0..EVENTS as u64).zip(ids).collect();
    assert_eq!(seen, expected);
    let again = request.send(two.addr).await;
    assert!(is_same(&answer, &again));
}

/// Redis took it or not, nobody was told: sent again it stands once.
#[tokio::test]
async fn a_post_that_redis_did_not_answer_is_published_once() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("redis.command_timeout", "300ms")
        .set("redis.probe_interval", "10s")
        .start_ready()
        .await;
    broker.publish("42", json!("before")).await;
    redis.freeze();
    let request = post("/api/v1/runs/42/events", "k", "once");
    let refused = request.send(broker.addr).await;
    assert_eq!(slug(&refused.problem(503)), "store-unavailable");
    redis.thaw();
    eventually("it is accepted", SOON, async || {
        request.send(broker.addr).await.status() == 202
    })
    .await;
    let mut publisher = redis.publisher().await;
    let kept: i64 = publisher.command(&["XLEN", "run:{42}:stream"]).await;
    assert_eq!(kept, 2);
}
