//! From `PUBLISH` to the bytes of a stream.

use serde_json::json;

use crate::support::frame::Restored;
use crate::support::http::Request;
use crate::support::{Broker, Redis, SseClient};

/// The whole of a short stream, compared byte by byte: only the times and ids,
/// which nobody can foretell, are taken from what arrived.
#[tokio::test]
async fn a_stream_is_exactly_the_bytes_of_the_contract() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let mut client = broker.stream("42/stream/redis").await;
    let preamble = client.preamble().await;
    let mut publisher = redis.publisher().await;
    publisher
        .publish("run:42:output:stdout", r#"{"step": 3,"x":1.50}"#)
        .await;
    publisher.publish("run:42:status", r#""running""#).await;
    publisher
        .publish("run:42:logs:app:db", r#"{"level":"warn","msg":"slow"}"#)
        .await;
    publisher
        .publish("run:42:output:stderr", "plain text")
        .await;
    publisher.publish("run:42:output:raw", b"\xff\x00").await;
    let events = client.run_events(5).await;

    let mut expected = format!(
        "retry: {}\n\nevent: hello\ndata: {{\"v\":1,\"run_id\":\"42\",\"backend\":\"redis\",\"resume\":\"live\",\"cursor\":{},\"heartbeat_seconds\":30}}\n\n",
        preamble.retry, preamble.hello["cursor"]
    );
    if let Some(cursor) = &preamble.cursor {
        expected += &format!("event: cursor\ndata: {{}}\nid: {cursor}\n\n");
    }
    let wanted = [
        ("output", "stdout", r#""data":{"step": 3,"x":1.50}"#),
        ("status", "", r#""data":"running""#),
        ("log", "app:db", r#""data":{"level":"warn","msg":"slow"}"#),
        ("output", "stderr", r#""data":"plain text""#),
        ("output", "raw", r#""data_base64":"/wA=""#),
    ];
    for ((kind, source, data), frame) in wanted.into_iter().zip(&events) {
        let (ts, id) = (frame.envelope().ts, frame.id());
        expected += &format!(
            "event: {kind}\ndata: {{\"run_id\":\"42\",\"kind\":\"{kind}\",\"source\":\"{source}\",\"ts\":\"{ts}\",\"backend\":\"redis\",{data}}}\nid: {id}\n\n"
        );
    }
    assert_eq!(String::from_utf8_lossy(client.bytes()), expected);
}

#[tokio::test]
async fn headers_are_to_the_letter() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    for path in [
        "/api/v1/runs/42/stream",
        "/api/v1/runs/42/stream/redis",
        "/api/v1/runs/42/stream?backend=redis",
    ] {
        for accept in [None, Some("*/*"), Some("text/event-stream")] {
            let mut request = Request::get(path).header("Accept-Encoding", "gzip, br");
            if let Some(accept) = accept {
                request = request.header("Accept", accept);
            }
            let client = SseClient::raw(broker.addr, &request).await;
            let header = |name| client.head().header(name);
            assert_eq!(header("content-type").as_deref(), Some("text/event-stream"));
            assert_eq!(
                header("cache-control").as_deref(),
                Some("no-cache, no-store, no-transform")
            );
            assert_eq!(header("x-accel-buffering").as_deref(), Some("no"));
            assert_eq!(header("x-streaming-backend").as_deref(), Some("redis"));
            assert_eq!(header("content-encoding"), None, "never compressed");
            assert_eq!(header("content-length"), None);
        }
    }
}

#[tokio::test]
async fn the_retry_of_each_connection_is_drawn_from_the_range() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("retry.min", "1500ms")
        .set("retry.max", "2s")
        .start_ready()
        .await;
    let mut seen = Vec::new();
    for _ in 0..8 {
        let retry = broker.stream("42/stream").await.preamble().await.retry;
        assert!((1500..=2000).contains(&retry), "{retry}");
        seen.push(retry);
    }
    seen.dedup();
    assert!(seen.len() > 1, "the same for all: {seen:?}");
}

#[tokio::test]
async fn ids_are_those_of_plain_events_of_one_hub() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let mut client = broker.follow("42/stream").await;
    let mut publisher = redis.publisher().await;
    for n in 0..20 {
        publisher
            .publish("run:42:output:stdout", n.to_string())
            .await;
    }
    let events = client.run_events(20).await;
    let (hub, _) = events[0].id().split_once('-').expect("~<hub>-<n>");
    assert!(hub.starts_with('~'), "{hub}");
    for (n, frame) in events.iter().enumerate() {
        assert_eq!(frame.id(), format!("{hub}-{}", n + 1));
        assert_eq!(frame.payload(), n.to_string());
        assert_eq!(frame.envelope().backend, "redis");
    }
}

/// Clients of one run, spread over all workers, read the same bytes.
#[tokio::test]
async fn every_client_of_a_run_reads_the_same_events() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("server.workers", 4)
        .start_ready()
        .await;
    let mut clients = Vec::new();
    for _ in 0..24 {
        clients.push(broker.follow("42/stream").await);
    }
    let skip: Vec<usize> = clients.iter().map(|client| client.bytes().len()).collect();
    let payloads: Vec<Vec<u8>> = (0..500)
        .map(|n| {
            json!({"step": n, "text": "x".repeat(n % 97)})
                .to_string()
                .into()
        })
        .collect();
    let mut publisher = redis.publisher().await;
    publisher
        .publish_all("run:42:output:stdout", &payloads)
        .await;
    let mut first: Option<Vec<u8>> = None;
    for (client, skip) in clients.iter_mut().zip(skip) {
        let events = client.run_events(payloads.len()).await;
        for (frame, payload) in events.iter().zip(&payloads) {
            frame.envelope().restored().assert_same(payload);
        }
        let bytes = &client.bytes()[skip..];
        assert_eq!(first.get_or_insert_with(|| bytes.to_vec()), bytes);
    }
}

#[tokio::test]
async fn a_client_reads_its_own_run_only() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let runs: Vec<String> = (0..10).map(|n| format!("run-{n}")).collect();
    let mut clients = Vec::new();
    for run in &runs {
        clients.push(broker.follow(&format!("{run}/stream")).await);
    }
    let mut publisher = redis.publisher().await;
    for round in 0..20 {
        for run in &runs {
            let channel = format!("run:{run}:output:stdout");
            publisher
                .publish(channel, json!([run, round]).to_string())
                .await;
        }
    }
    for (run, client) in runs.iter().zip(&mut clients) {
        for round in 0..20 {
            let frame = client.run_event().await;
            assert_eq!(frame.envelope().run_id, *run);
            assert_eq!(frame.payload(), json!([run, round]).to_string());
        }
    }
}

/// Kinds of one run come in the order they were published, across channels.
#[tokio::test]
async fn order_holds_across_the_channels_of_a_run() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let mut client = broker.follow("42/stream").await;
    let mut publisher = redis.publisher().await;
    let channels = ["run:42:output:a", "run:42:status", "run:42:logs:b"];
    for n in 0..60 {
        publisher.publish(channels[n % 3], n.to_string()).await;
    }
    for (n, frame) in client.run_events(60).await.iter().enumerate() {
        assert_eq!(frame.payload(), n.to_string());
        assert_eq!(frame.event, ["output", "status", "log"][n % 3]);
    }
}

/// A viewer who comes late sees what a plain run published before.
#[tokio::test]
async fn a_run_nobody_watches_is_kept_for_a_late_viewer() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let mut publisher = redis.publisher().await;
    for n in 0..10 {
        publisher
            .publish("run:42:output:stdout", n.to_string())
            .await;
    }
    let accepted = [("kind", "output"), ("result", "accepted")];
    broker
        .wait_metric("runcast_events_in_total", &accepted, 10.0)
        .await;
    let mut client = broker.stream("42/stream").await;
    let preamble = client.preamble().await;
    assert_eq!(preamble.hello["resume"], "replay");
    for n in 0..10 {
        assert_eq!(client.run_event().await.payload(), n.to_string());
    }
    publisher.publish("run:42:output:stdout", "10").await;
    assert_eq!(client.run_event().await.payload(), "10");
}

#[tokio::test]
async fn unwatched_runs_are_not_kept_when_told_so() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("hub.retain_unwatched", "false")
        .start_ready()
        .await;
    let mut publisher = redis.publisher().await;
    publisher
        .publish("run:42:output:stdout", "\"before\"")
        .await;
    let unwatched = [("result", "unwatched")];
    broker
        .wait_metric("runcast_events_in_total", &unwatched, 1.0)
        .await;
    let mut client = broker.stream("42/stream").await;
    assert_eq!(client.preamble().await.hello["resume"], "live");
    publisher.publish("run:42:output:stdout", "\"after\"").await;
    assert_eq!(client.run_event().await.payload(), "\"after\"");
}

#[tokio::test]
async fn two_brokers_of_one_redis_both_deliver() {
    let redis = Redis::start().await;
    let settings = Broker::redis(&redis);
    let (one, two) = (settings.start_ready().await, settings.start_ready().await);
    let mut clients = [one.follow("42/stream").await, two.follow("42/stream").await];
    let mut publisher = redis.publisher().await;
    publisher.publish("run:42:output:stdout", "\"both\"").await;
    for client in &mut clients {
        assert_eq!(client.run_event().await.payload(), "\"both\"");
    }
}

#[tokio::test]
async fn a_channel_prefix_of_ones_own_is_kept_to() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("redis.channel_prefix", "prod:run:")
        .start_ready()
        .await;
    let mut client = broker.follow("42/stream").await;
    let mut publisher = redis.publisher().await;
    publisher
        .publish("run:42:output:stdout", "\"foreign\"")
        .await;
    publisher
        .publish("prod:run:42:output:stdout", "\"ours\"")
        .await;
    assert_eq!(client.run_event().await.payload(), "\"ours\"");
}

#[tokio::test]
async fn heartbeats_come_each_interval_idle_or_not() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("heartbeat.interval", "1s")
        .start_ready()
        .await;
    // From before the request: a busy machine can only make it longer.
    let begin = tokio::time::Instant::now();
    let mut client = broker.stream("42/stream").await;
    assert_eq!(client.preamble().await.hello["heartbeat_seconds"], 1);
    let beat = client.frame().await;
    assert_eq!(beat.event, "heartbeat");
    let waited = begin.elapsed().as_secs_f64();
    assert!((0.5..=6.0).contains(&waited), "first beat after {waited} s");
    assert!(beat.json()["last_event_ms"].is_null(), "{beat:?}");
    assert!(
        beat.json()["ts"]
            .as_str()
            .is_some_and(|ts| ts.ends_with('Z'))
    );

    let mut publisher = redis.publisher().await;
    publisher.publish("run:42:output:stdout", "1").await;
    assert_eq!(client.frame().await.event, "output");
    // By the broker's own clock: how late they are read says nothing.
    let mut beats = Vec::new();
    for _ in 0..4 {
        let beat = client.frame().await;
        assert_eq!(beat.event, "heartbeat");
        let told = beat.json();
        let ts: jiff::Timestamp = told["ts"]
            .as_str()
            .expect("a time")
            .parse()
            .expect("RFC 3339");
        let age = told["last_event_ms"].as_i64().expect("a number");
        beats.push((ts.as_millisecond(), age));
    }
    let (first, last) = (beats[0], beats[3]);
    assert!(first.1 <= 6000, "{beats:?}");
    let span = last.0 - first.0;
    assert!((2500..=8000).contains(&span), "three intervals: {beats:?}");
    let aged = last.1 - first.1;
    assert!(
        (aged - span).abs() <= 100,
        "ages are of that clock: {beats:?}"
    );
}

/// What redis-cli and agents that know nothing of JSON publish.
#[tokio::test]
async fn payload_rules_hold_to_the_letter() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let mut client = broker.follow("42/stream").await;
    let mut publisher = redis.publisher().await;
    let cases: [(&[u8], &str); 8] = [
        (
            b"123456789012345678901234567890.10e+400",
            "123456789012345678901234567890.10e+400",
        ),
        (b"{\r\n  \"a\": [1,\n2]\n}", "{  \"a\": [1,2]}"),
        (b"{\"b\":1,\"a\":2,\"b\":3}", "{\"b\":1,\"a\":2,\"b\":3}"),
        (b"\"\\u0041\"", "\"\\u0041\""),
        (b"", "\"\""),
        (b"{\"a\":1", "\"{\\\"a\\\":1\""),
        (b"a\r\nb\rc", "\"a\\r\\nb\\rc\""),
        (b"data: x\n\nevent: end", "\"data: x\\n\\nevent: end\""),
    ];
    for (published, expected) in cases {
        publisher.publish("run:42:output:stdout", published).await;
        assert_eq!(client.run_event().await.payload(), expected);
    }
    publisher
        .publish("run:42:output:stdout", b"\xc3\x28\x00")
        .await;
    assert_eq!(
        client.run_event().await.envelope().restored(),
        Restored::Bytes(b"\xc3\x28\x00".to_vec())
    );
}

/// The log shows what publishers sent only to whoever asked for all of it.
#[tokio::test]
async fn payloads_are_logged_at_trace_only() {
    let redis = Redis::start().await;
    for (level, is_logged) in [("debug", false), ("info,runcast_actors=trace", true)] {
        let broker = Broker::redis(&redis)
            .set("log.level", level)
            .start_ready()
            .await;
        let mut client = broker.follow("42/stream").await;
        let mut publisher = redis.publisher().await;
        publisher
            .publish("run:42:output:stdout", "\"s3cret\"")
            .await;
        let event = client.run_event().await;
        let lines = broker.process.log();
        let line = lines.iter().find(|line| line.contains("s3cret"));
        assert_eq!(line.is_some(), is_logged, "{level}: {line:?}");
        let Some(line) = line else { continue };
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(line["level"], "TRACE");
        assert_eq!(line["run_id"], "42");
        assert_eq!(line["event_id"], event.id());
        assert_eq!(line["kind"], "output");
        assert_eq!(line["source"], "stdout");
        assert_eq!(line["payload"], "\"s3cret\"");
    }
}
