//! `GET /api/v1/runs/{run_id}`: what is known of a run, and why it is quiet.

use serde_json::{Value, json};

use crate::kubectl_stream::kubectl_settings;
use crate::support::kube_api::{Ask, Fault, KubeApi};
use crate::support::wait::SOON;
use crate::support::{Broker, Redis, eventually};

async fn quiet_because(broker: &Broker, run_id: &str) -> String {
    let run = broker.json(&format!("/api/v1/runs/{run_id}")).await;
    run["quiet_because"]
        .as_str()
        .expect("a sentence")
        .to_owned()
}

/// A broker that began later, and has no hub of the run, tells what is kept.
#[tokio::test]
async fn a_run_is_known_to_a_broker_that_never_saw_it() {
    let redis = Redis::start().await;
    let settings = Broker::redis(&redis).set("runs.end_grace", "100ms");
    let one = settings.start_ready().await;
    let first = one.publish("42", json!(1)).await;
    one.publish("42", json!(2)).await;
    one.publish_status("42", json!("running")).await;
    let two = settings.start_ready().await;
    let run = two.json("/api/v1/runs/42").await;
    assert_eq!(run["events"], json!({"output": 2, "status": 1, "log": 0}));
    assert_eq!(
        (&run["first_id"], &run["status"]),
        (&json!(first), &json!("running"))
    );
    assert_eq!((&run["ended"], &run["clients"]), (&json!(false), &json!(0)));
    assert_eq!(
        run["epoch"].to_string(),
        first.split('-').next().expect("an epoch")
    );
    assert!(run["last_event_ts"].is_string());
    assert!(quiet_because(&two, "42").await.starts_with("it is not"));

    let last = one.publish_status("42", json!("completed")).await;
    eventually("the run is over", SOON, async || {
        let run = two.json("/api/v1/runs/42").await;
        run["ended"] == true && run["last_id"] == json!(last)
    })
    .await;
    assert_eq!(quiet_because(&two, "42").await, "the run ended: completed");
}

/// The hub began late: durable events before it are the store's to tell, plain
/// ones its own.
#[tokio::test]
async fn a_hub_that_began_late_and_the_store_are_told_as_one() {
    let redis = Redis::start().await;
    let settings = Broker::redis(&redis);
    let one = settings.start_ready().await;
    let first = one.publish("42", json!(1)).await;
    one.publish_status("42", json!("running")).await;
    let two = settings.start_ready().await;
    let mut client = two.follow("42/stream?from=now").await;
    let mut publisher = redis.publisher().await;
    publisher.publish("run:42:output:s", "plain").await;
    assert_eq!(client.run_event().await.payload(), "\"plain\"");
    one.publish("42", json!(2)).await;
    client.run_event().await;
    let run = two.json("/api/v1/runs/42").await;
    assert_eq!(run["events"], json!({"output": 3, "status": 1, "log": 0}));
    assert_eq!(
        (&run["first_id"], &run["clients"]),
        (&json!(first), &json!(1))
    );
    assert_eq!(run["status"], "running");
}

#[tokio::test]
async fn a_run_never_started_and_a_redis_that_is_down_are_told() {
    let mut redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let why = quiet_because(&broker, "42").await;
    assert_eq!(why, "nothing was ever published to this run");
    broker.publish("42", json!(1)).await;
    redis.kill();
    eventually("it is told", SOON, async || {
        quiet_because(&broker, "42")
            .await
            .starts_with("Redis is down since 20")
    })
    .await;
    let run = broker.json("/api/v1/runs/never").await;
    assert_eq!(run["status"], Value::Null);
}

#[tokio::test]
async fn a_quiet_run_tells_how_its_pods_are() {
    let api = KubeApi::start();
    let redis = Redis::start().await;
    let broker = kubectl_settings(&api)
        .set("streaming.default_backend", "redis")
        .set("redis.url", redis.url())
        .start_ready()
        .await;
    let why = quiet_because(&broker, "1").await;
    let started = "nothing was ever published to this run; ";
    assert_eq!(why, format!("{started}no pod has the label run-id=1"));
    for (run, waiting) in [("2", "ImagePullBackOff"), ("3", "CrashLoopBackOff")] {
        let pod = format!("pod-{run}");
        api.add_pod(run, &pod, &["main"]);
        api.set_waiting(&pod, "main", waiting);
        let why = quiet_because(&broker, run).await;
        assert_eq!(
            why,
            format!("{started}pod {pod} is Pending: main {waiting}")
        );
    }
    // Many who ask at one time share a look, and one counts for a while.
    let looks = |api: &KubeApi| {
        let asked = api.requests();
        asked.iter().filter(|it| it.contains("run-id%3D2")).count()
    };
    let before = looks(&api);
    let asked = (0..20).map(|_| quiet_because(&broker, "2"));
    for why in futures_util::future::join_all(asked).await {
        assert!(why.ends_with("ImagePullBackOff"), "{why}");
    }
    assert!(looks(&api) <= before + 1);
    api.fail(Ask::Pods, Fault::Status(403, "Forbidden"), 1);
    let why = quiet_because(&broker, "4").await;
    assert!(
        why.starts_with(&format!("{started}its pods cannot be seen: ")),
        "{why}"
    );
    // An event shows that it is not quiet: nobody looks.
    broker.publish("5", json!(1)).await;
    assert!(quiet_because(&broker, "5").await.starts_with("it is not"));
    assert!(!api.requests().iter().any(|it| it.contains("run-id%3D5")));
}
