//! `/metrics`: accepted by promtool, complete, and telling the truth.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::process::require;
use crate::support::wait::SOON;
use crate::support::{Broker, Redis};

/// Messages that belong to no run.
pub(crate) async fn rejected_messages(broker: &Broker) -> f64 {
    broker.metric("runcast_redis_rejected_total", &[]).await
}

/// Gaps told for `reason`.
pub(crate) async fn gaps(broker: &Broker, reason: &str) -> f64 {
    broker
        .metric("runcast_gaps_total", &[("reason", reason)])
        .await
}

/// Waits until `count` streams are open.
pub(crate) async fn wait_sessions(broker: &Broker, count: usize) {
    broker
        .wait_metric("runcast_sessions", &[], count as f64)
        .await;
}

fn promtool_check(text: &str) {
    require("promtool");
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    let mut stdin = promtool.stdin.take().expect("piped");
    stdin.write_all(text.as_bytes()).expect("promtool reads");
    drop(stdin);
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success() && said.is_empty(),
        "{}",
        String::from_utf8_lossy(&said)
    );
}

#[tokio::test]
async fn promtool_accepts_the_metrics_without_a_word() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let response = broker.get("/metrics").await;
    let kind = response.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("text/plain"), "{kind}");
    promtool_check(&response.text());

    let mut client = broker.follow("42/stream").await;
    let mut publisher = redis.publisher().await;
    publisher.publish("run:42:output:stdout", "1").await;
    publisher.publish("run:42", "odd").await;
    client.run_event().await;
    promtool_check(&broker.get("/metrics").await.text());

    let embedded = Broker::embedded().start_ready().await;
    promtool_check(&embedded.get("/metrics").await.text());
}

#[tokio::test]
async fn what_operators_need_is_there() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("kubectl.enabled", "true")
        .start_ready()
        .await;
    let text = broker.get("/metrics").await.text();
    for family in [
        "runcast_sessions",
        "runcast_sessions_opened_total",
        "runcast_sessions_closed_total",
        "runcast_hubs",
        "runcast_past_runs",
        "runcast_events_in_total",
        "runcast_deliveries_total",
        "runcast_delivered_bytes_total",
        "runcast_chunk_bytes",
        "runcast_delivery_lag_seconds",
        "runcast_ring_bytes",
        "runcast_paged_bytes",
        "runcast_held_overflows_total",
        "runcast_gaps_total",
        "runcast_mailbox_refusals_total",
        "runcast_redis_up",
        "runcast_redis_subscribes_total",
        "runcast_redis_disconnects_total",
        "runcast_redis_probes_total",
        "runcast_redis_probe_misses_total",
        "runcast_redis_rejected_total",
        "runcast_build_info",
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "process_open_fds",
    ] {
        let line = format!("# TYPE {family} ");
        assert!(text.contains(&line), "{family} is missing");
    }
    let of_kubectl = text
        .lines()
        .any(|line| line.starts_with("# TYPE runcast_kubectl_"));
    assert!(of_kubectl, "follows and failures of kubectl are missing");
    assert!(text.contains(env!("CARGO_PKG_VERSION")), "build info");
}

#[tokio::test]
async fn the_numbers_are_those_of_what_happened() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("server.workers", 1)
        .start_ready()
        .await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(broker.follow("42/stream").await);
    }
    wait_sessions(&broker, 3).await;
    let mut publisher = redis.publisher().await;
    for n in 0..10 {
        publisher
            .publish("run:42:output:stdout", n.to_string())
            .await;
        publisher.publish("run:42:status", n.to_string()).await;
    }
    for client in &mut clients {
        client.run_events(20).await;
    }
    let of_kind = |kind| [("kind", kind), ("result", "accepted")];
    for kind in ["output", "status"] {
        broker
            .wait_metric("runcast_events_in_total", &of_kind(kind), 10.0)
            .await;
    }
    broker
        .wait_metric("runcast_deliveries_total", &[], 60.0)
        .await;
    let bytes = broker.metric("runcast_delivered_bytes_total", &[]).await;
    let read: usize = clients.iter().map(|client| client.bytes().len()).sum();
    assert!(
        (bytes - read as f64).abs() < 2000.0,
        "{bytes} told, {read} read"
    );
    // One worker: of its chunks the first and every eighth after it is timed.
    let chunks = broker.metric("runcast_chunk_bytes_count", &[]).await;
    assert!((3.0..=60.0).contains(&chunks), "{chunks}");
    let all = [("le", "+Inf")];
    let below = broker.metric("runcast_chunk_bytes_bucket", &all).await;
    assert_eq!(below, chunks);
    let of_events = broker.metric("runcast_chunk_bytes_sum", &[]).await;
    assert!(
        of_events > 0.0 && of_events < bytes,
        "{of_events} of {bytes}"
    );
    let timed = broker
        .metric("runcast_delivery_lag_seconds_count", &[])
        .await;
    assert_eq!(timed, (chunks / 8.0).ceil());
    let lag = broker.metric("runcast_delivery_lag_seconds_sum", &[]).await;
    assert!(lag > 0.0 && lag < 10.0 * timed, "{lag} s");
    assert_eq!(broker.metric("runcast_redis_up", &[]).await, 1.0);
    assert_eq!(
        broker.metric("runcast_hubs", &[("backend", "redis")]).await,
        1.0
    );
    clients.clear();
    wait_sessions(&broker, 0).await;
    let opened = [("backend", "redis")];
    broker
        .wait_metric("runcast_sessions_opened_total", &opened, 3.0)
        .await;
    let gone = [("backend", "redis"), ("reason", "client_gone")];
    for labels in [&gone[..], &[]] {
        broker
            .wait_metric("runcast_sessions_closed_total", labels, 3.0)
            .await;
    }
}

#[tokio::test]
async fn embedded_sessions_are_counted_as_embedded() {
    let broker = Broker::embedded().start_ready().await;
    let mut client = broker.follow("42/stream").await;
    broker
        .wait_metric("runcast_sessions", &[("backend", "embedded")], 1.0)
        .await;
    broker.publish("42", json!(1)).await;
    let accepted = [("kind", "output"), ("result", "accepted")];
    broker
        .wait_metric("runcast_events_in_total", &accepted, 1.0)
        .await;
    broker.publish_status("42", json!("completed")).await;
    client.rest(SOON).await;
    let ended = [("backend", "embedded"), ("reason", "end")];
    for labels in [&ended[..], &[]] {
        broker
            .wait_metric("runcast_sessions_closed_total", labels, 1.0)
            .await;
    }
    broker
        .wait_metric("runcast_deliveries_total", &[], 2.0)
        .await;
}
