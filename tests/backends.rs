//! Which backend a stream begins with on a running broker: `auto` is Redis while
//! it is up and kubectl while it is not.

use crate::kubectl_stream::kubectl_settings;
use crate::support::kube_api::KubeApi;
use crate::support::wait::SOON;
use crate::support::{Broker, Redis, SseClient, eventually};

/// What was shown before has to come back from the pod, or be given up.
const LATER: std::time::Duration = std::time::Duration::from_secs(30);

/// Opens the stream and checks that header and `hello` name the backend, and
/// that it begins with an event of Redis; returns the client.
async fn check(broker: &Broker, run_and_rest: &str, backend: &str) -> SseClient {
    let mut client = broker.stream(run_and_rest).await;
    let header = client.head().header("x-streaming-backend");
    assert_eq!(header.as_deref(), Some(backend), "{run_and_rest}");
    assert_eq!(client.preamble().await.hello["backend"], backend);
    assert_eq!(client.run_event().await.envelope().backend, "redis");
    client
}

/// Checks a broker whose settings or query say `auto`.
async fn check_auto(default: &str, run_and_rest: &str) {
    let mut redis = Redis::start().await;
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    api.log("pod-1", "main", 1, "from the pod");
    let broker = kubectl_settings(&api)
        .set("streaming.default_backend", default)
        .set("redis.url", redis.url())
        .set("auto.window", "500ms")
        .set("auto.settle", "1s")
        .start_ready()
        .await;
    let mut publisher = redis.publisher().await;
    publisher.publish("run:42:output:stdout", "1").await;
    let accepted = [("result", "accepted")];
    broker
        .wait_metric("runcast_events_in_total", &accepted, 1.0)
        .await;
    check(&broker, run_and_rest, "redis").await;

    redis.kill();
    broker.wait_metric("runcast_redis_up", &[], 0.0).await;
    // On a busy machine a look at the pods takes longer than who comes waits.
    eventually("streams begin with the pods", LATER, async || {
        let client = broker.stream(run_and_rest).await;
        let header = client.head().header("x-streaming-backend");
        header.as_deref() == Some("kubectl")
    })
    .await;
    let mut client = check(&broker, run_and_rest, "kubectl").await;
    loop {
        let frame = client.event().await;
        if frame.is_run_event() {
            break assert_eq!(frame.envelope().backend, "kubectl");
        }
    }

    redis.restart().await;
    broker.wait_metric("runcast_redis_up", &[], 1.0).await;
    eventually("streams begin with Redis again", LATER, async || {
        let client = broker.stream(run_and_rest).await;
        let header = client.head().header("x-streaming-backend");
        header.as_deref() == Some("redis")
    })
    .await;
}

#[tokio::test]
async fn auto_as_the_default_is_redis_or_else_kubectl() {
    check_auto("auto", "42/stream").await;
}

#[tokio::test]
async fn auto_in_the_query_is_redis_or_else_kubectl() {
    check_auto("redis", "42/stream?backend=auto").await;
}

#[tokio::test]
async fn without_kubectl_auto_waits_for_redis() {
    let redis = Redis::down();
    let broker = Broker::redis(&redis)
        .set("streaming.default_backend", "auto")
        .start()
        .await;
    eventually("Redis is known to be down", SOON, async || {
        broker.metric("runcast_redis_up", &[]).await == 0.0
    })
    .await;
    let mut client = broker.stream("42/stream").await;
    let header = client.head().header("x-streaming-backend");
    assert_eq!(header.as_deref(), Some("redis"));
    let frames = client.rest(SOON).await;
    let names: Vec<&str> = frames.iter().map(|frame| frame.event.as_str()).collect();
    assert_eq!(names, ["", "problem", "goodbye"]);
}
