//! What went wrong once, each by its name.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::support::kept::publish_numbers;
use crate::support::kube_api::KubeApi;
use crate::support::wait::SOON;
use crate::support::{Broker, Redis, eventually};

/// An HTTP/1.0 client knows no chunks; its stream ends with its connection.
#[tokio::test]
async fn an_http_1_0_stream_was_chunked() {
    let broker = Broker::embedded().start_ready().await;
    broker.publish("42", json!(1)).await;
    let addr = broker.addr;
    let read = tokio::task::spawn_blocking(move || {
        let mut socket = TcpStream::connect(addr)?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        socket.write_all(b"GET /api/v1/runs/42/stream HTTP/1.0\r\n\r\n")?;
        let mut text = Vec::new();
        while !String::from_utf8_lossy(&text).contains("\"data\":1}\nid: ") {
            let mut piece = [0; 4096];
            let n = socket.read(&mut piece)?;
            assert!(n > 0, "closed after {:?}", String::from_utf8_lossy(&text));
            text.extend_from_slice(&piece[..n]);
        }
        std::io::Result::Ok(String::from_utf8_lossy(&text).into_owned())
    });
    let text = read.await.expect("no panic").expect("a stream");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    assert!(
        !head.to_ascii_lowercase().contains("transfer-encoding"),
        "{head}"
    );
    assert!(body.starts_with("retry: "), "{body}");
}

/// A gap that was written behind the end hid it from who came for what is new.
#[tokio::test]
async fn an_oversized_message_after_the_end_hid_it() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("runs.end_grace", "100ms")
        .start_ready()
        .await;
    let mut client = broker.follow("42/stream").await;
    let mut publisher = redis.publisher().await;
    publisher.publish("run:42:status", "failed").await;
    let ended = client.rest(SOON).await;
    let end = ended.last().expect("an end").clone();
    publisher
        .publish("run:42:output:stdout", vec![b'x'; 300_000])
        .await;
    let too_large = [("result", "too_large")];
    broker
        .wait_metric("runcast_events_in_total", &too_large, 1.0)
        .await;
    let mut late = broker.follow("42/stream?from=now").await;
    assert_eq!(late.rest(SOON).await, [end]);
}

/// serde takes an array for a struct, its fields in order.
#[tokio::test]
async fn an_array_was_taken_for_an_event() {
    let broker = Broker::embedded().start_ready().await;
    let array = json!(["output", "s", 1, null]);
    broker.post("42", &array).await.problem(422);
}

/// A broker that nobody sends a stream, because it says that it cannot serve
/// one, must find out by itself when it can.
#[tokio::test]
async fn strict_readiness_of_kubectl_was_a_guess() {
    let mut api = KubeApi::start();
    api.refuse().await;
    let broker = Broker::embedded()
        .set("streaming.default_backend", "kubectl")
        .set("kubectl.enabled", true)
        .set(
            "kubectl.extra_args",
            format!("--kubeconfig={}", api.kubeconfig().display()),
        )
        .start()
        .await;
    let strict = async || broker.get("/health/ready?strict=true").await.status();
    let patience = Duration::from_secs(30);
    eventually("kubectl is found unusable", patience, async || {
        strict().await == 503
    })
    .await;
    assert_eq!(broker.get("/health/ready").await.status(), 200);
    let health = broker.json("/health").await;
    assert_eq!(health["status"], "degraded");
    assert_eq!(health["dependencies"]["kubectl"]["status"], "down");
    api.accept();
    eventually("kubectl is found usable", patience, async || {
        strict().await == 200
    })
    .await;
}

/// A connection whose client had sent more than is read ahead never came to
/// its stream, and kept a core busy for ever. Now it is closed: a client of a
/// stream has nothing to say.
#[tokio::test]
async fn a_stream_asked_for_among_much_else_never_ended() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    // The first request keeps the others waiting, so that they pile up.
    redis.freeze();
    let mut socket = tokio::net::TcpStream::connect(broker.addr)
        .await
        .expect("a connection");
    let asked = ["events", "stream"].map(|what| format!("GET /api/v1/runs/42/{what} HTTP/1.1"));
    let more = "GET /health/live HTTP/1.1".to_owned();
    let requests = asked.into_iter().chain(std::iter::repeat_n(more, 400_000));
    let requests = requests.map(|line| format!("{line}\r\nHost: localhost\r\n\r\n"));
    let requests = requests.collect::<String>();
    let full = timeout(
        Duration::from_secs(1),
        socket.write_all(requests.as_bytes()),
    );
    full.await.expect_err("no broker reads that much ahead");
    redis.thaw();
    let ended = async {
        let mut piece = [0; 4096];
        while socket.read(&mut piece).await.is_ok_and(|n| n > 0) {}
    };
    timeout(SOON, ended).await.expect("the connection ends");
    let of_redis = [("backend", "redis")];
    broker.wait_metric("runcast_sessions", &of_redis, 0.0).await;
}

/// A hub that was made while Redis was away told its first clients of a hole,
/// though nothing they were sent came before it.
#[tokio::test]
async fn a_hub_made_in_an_outage_told_a_needless_gap() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("hub.retain_unwatched", false)
        .set("redis.probe_interval", "100ms")
        .start_ready()
        .await;
    let mut has_met_outage = false;
    // On a busy machine a client may be told so before the outage is over.
    for round in 0..20 {
        if has_met_outage {
            break;
        }
        let run_id = format!("run-{round}");
        let ids = publish_numbers(&broker, &run_id, 1..4).await;
        redis.freeze();
        let mut client = broker.resume(&format!("{run_id}/stream"), &ids[0]).await;
        broker.wait_metric("runcast_redis_up", &[], 0.0).await;
        redis.thaw();
        assert_eq!(client.frame().await.event, "", "the retry block");
        let first = client.frame().await;
        has_met_outage = first.event == "hello";
        if has_met_outage {
            assert_eq!(first.json()["resume"], "replay", "{first:?}");
            assert_eq!(client.event().await.id(), ids[0], "the cursor");
            for id in &ids[1..] {
                assert_eq!(client.run_event().await.id(), id);
            }
        }
        broker.wait_ready().await;
    }
    assert!(has_met_outage);
}
