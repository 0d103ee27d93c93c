//! How long a broker with the settings as shipped takes to notice what went
//! wrong, and to be live again.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::task::LocalSet;
use tokio::time::sleep;

use super::faults::proxy::Proxy;
use super::faults::silent::{SILENT, silent_library};
use super::report;
use crate::support::redis::Publisher;
use crate::support::sse::Next;
use crate::support::{Broker, Redis, SseClient};

const LOST_FRAME_TOLD: Duration = Duration::from_secs(6);
const HALF_OPEN_NOTICED: Duration = Duration::from_secs(10);
const LIVE_AGAIN: Duration = Duration::from_secs(1);

/// How much longer than promised is waited, to tell by how much it is missed.
const PATIENCE: Duration = Duration::from_secs(30);

async fn broker_on(redis_url: &str) -> Broker {
    Broker::embedded()
        .set("streaming.default_backend", "redis")
        .set("redis.url", redis_url)
        .start_ready()
        .await
}

/// Publishes one durable event of run 42 through `function`.
async fn publish(publisher: &mut Publisher, function: &str, data: &str) {
    let words = [
        "FCALL",
        function,
        "2",
        "run:{42}:stream",
        "run:{42}:meta",
        "42",
        "output",
        "stdout",
        data,
    ];
    let _: Vec<String> = publisher.command(&words).await;
}

/// Waits for the event that has `data`; returns how long that took.
async fn arrives(client: &mut SseClient, begin: Instant, data: &str) -> Duration {
    while begin.elapsed() < PATIENCE {
        match client.next_within(Duration::from_secs(1)).await {
            Next::Frame(frame) if frame.is_run_event() => {
                assert_eq!(frame.json()["data"], data);
                return begin.elapsed();
            }
            Next::Frame(frame) => assert_ne!(frame.event, "gap", "{frame:?}"),
            Next::Silence => {}
            other => panic!("{other:?} in place of an event"),
        }
    }
    panic!("{data:?} never came");
}

fn check(what: &str, took: Duration, promised: Duration) {
    report(&format!("{what}: {took:.2?}, at most {promised:?}"));
    assert!(took <= promised, "{what}: {took:?}, over {promised:?}");
}

#[tokio::test]
async fn a_last_frame_that_got_lost_comes_within_six_seconds() {
    let redis = Redis::start().await;
    let broker = broker_on(&redis.url()).await;
    let mut publisher = redis.publisher().await;
    let _: String = publisher
        .command(&["FUNCTION", "LOAD", &silent_library()])
        .await;
    publish(&mut publisher, "runcast_publish", "first").await;
    let mut client = broker.follow("42/stream").await;
    arrives(&mut client, Instant::now(), "first").await;
    let begin = Instant::now();
    publish(&mut publisher, SILENT, "last").await;
    let took = arrives(&mut client, begin, "last").await;
    check("a lost last frame", took, LOST_FRAME_TOLD);
}

#[tokio::test]
async fn a_half_open_redis_is_noticed_within_ten_seconds() {
    let local = LocalSet::new();
    local
        .run_until(async {
            let redis = Redis::start().await;
            let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, redis.port()));
            let proxy = Proxy::start(addr).await;
            let broker = broker_on(&proxy.url()).await;
            let mut publisher = redis.publisher().await;
            publish(&mut publisher, "runcast_publish", "first").await;
            let mut client = broker.follow("42/stream").await;
            arrives(&mut client, Instant::now(), "first").await;
            proxy.hold();
            let begin = Instant::now();
            publish(&mut publisher, "runcast_publish", "unheard").await;
            let took = arrives(&mut client, begin, "unheard").await;
            check("a half-open Redis", took, HALF_OPEN_NOTICED);
        })
        .await;
}

#[tokio::test]
async fn live_again_within_a_second_of_redis_coming_back() {
    let mut redis = Redis::start().await;
    let broker = broker_on(&redis.url()).await;
    let mut client = broker.follow("plain/stream").await;
    for _ in 0..3 {
        redis.kill();
        // Long enough for the pauses between attempts to be as long as they get.
        sleep(Duration::from_secs(4)).await;
        redis.restart().await;
        let begin = Instant::now();
        let mut publisher = redis.publisher().await;
        let heard = loop {
            let heard = publisher.publish("run:plain:output:stdout", "1").await;
            if heard > 0 || begin.elapsed() > PATIENCE {
                break heard;
            }
            sleep(Duration::from_millis(5)).await;
        };
        assert!(heard > 0, "nobody subscribes");
        while !client.frame().await.is_run_event() {}
        check("live after Redis is back", begin.elapsed(), LIVE_AGAIN);
    }
}
