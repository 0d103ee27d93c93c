//! The embedded backend: `POST …/events`, ids, history, resume.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::Broker;
use crate::support::broker::accepted_ids;
use crate::support::http::Request;

const EVENTS: &str = "/api/v1/runs/42/events";

/// `<epoch>-<seq>-<us>`.
fn parts(id: &str) -> [u64; 3] {
    let numbers: Vec<u64> = id
        .split('-')
        .map(|part| part.parse().expect("a number"))
        .collect();
    numbers.try_into().expect("three parts")
}

#[tokio::test]
async fn posted_events_are_streamed_with_contiguous_ids() {
    let broker = Broker::embedded().start_ready().await;
    let mut client = broker.stream("42/stream").await;
    let header = client.head().header("x-streaming-backend");
    assert_eq!(header.as_deref(), Some("embedded"));
    let hello = client.preamble().await.hello;
    assert_eq!(
        (&hello["backend"], &hello["resume"]),
        (&json!("embedded"), &json!("live"))
    );
    let mut ids = Vec::new();
    for n in 0..10 {
        ids.push(broker.publish("42", json!({"step": n})).await);
    }
    let now_ms = jiff::Timestamp::now().as_millisecond() as u64;
    let [epoch, _, _] = parts(&ids[0]);
    assert!(now_ms.abs_diff(epoch) < 60_000, "epoch {epoch} at {now_ms}");
    for (n, id) in ids.iter().enumerate() {
        let frame = client.run_event().await;
        assert_eq!(frame.id(), id);
        let [its_epoch, seq, us] = parts(id);
        assert_eq!((its_epoch, seq), (epoch, n as u64 + 1));
        let envelope = frame.envelope();
        assert_eq!(envelope.backend, "embedded");
        assert_eq!(envelope.source, "stdout");
        let ts: jiff::Timestamp = envelope.ts.parse().expect("RFC 3339");
        assert_eq!(ts.as_millisecond() as u64, us / 1000, "ts is the append's");
    }
}

#[tokio::test]
async fn json_is_kept_to_the_letter() {
    let broker = Broker::embedded().start_ready().await;
    let mut client = broker.follow("42/stream").await;
    let data = r#"{"n":123456789012345678901234567890.10e+400, "a":[1,2]}"#;
    let body = format!(r#"{{"kind":"output","source":"stdout","data":{data}}}"#);
    for kind in ["application/json", "application/json; charset=utf-8"] {
        let request = Request::post(EVENTS, kind, body.clone());
        assert_eq!(request.send(broker.addr).await.status(), 202);
        assert_eq!(client.run_event().await.payload(), data);
    }
    let pretty = "{\"kind\":\"log\",\"source\":\"app\",\"data\":{\r\n  \"a\": 1\n}}";
    let request = Request::post(EVENTS, "application/json", pretty);
    assert_eq!(request.send(broker.addr).await.status(), 202);
    let frame = client.run_event().await;
    assert_eq!(
        (frame.event.as_str(), frame.payload().as_str()),
        ("log", "{  \"a\": 1}")
    );
}

#[tokio::test]
async fn ndjson_posts_many_in_order() {
    let broker = Broker::embedded().start_ready().await;
    let mut client = broker.follow("42/stream").await;
    let body: String = (0..50)
        .map(|n| format!("{}\n", json!({"kind": "output", "source": "s", "data": n})))
        .collect();
    let response = Request::post(EVENTS, "application/x-ndjson", body)
        .send(broker.addr)
        .await;
    assert_eq!(response.status(), 202);
    let ids = accepted_ids(&response);
    assert_eq!(ids.len(), 50);
    for (n, id) in ids.iter().enumerate() {
        let frame = client.run_event().await;
        assert_eq!((frame.id(), frame.payload()), (id.as_str(), n.to_string()));
    }
}

#[tokio::test]
async fn every_line_of_a_text_post_is_a_string() {
    let broker = Broker::embedded().start_ready().await;
    let mut client = broker.follow("42/stream").await;
    let path = format!("{EVENTS}?kind=log&source=app");
    let lines = "plain\n123\n{\"a\":1}\n\u{2028}ü";
    let response = Request::post(path, "text/plain", lines)
        .send(broker.addr)
        .await;
    assert_eq!(response.status(), 202, "{}", response.text());
    assert_eq!(accepted_ids(&response).len(), 4);
    for line in lines.split('\n') {
        let frame = client.run_event().await;
        assert_eq!(frame.event, "log");
        assert_eq!(frame.envelope().source, "app");
        let text: String = serde_json::from_str(&frame.payload()).expect("a string");
        assert_eq!(text, line);
    }
    let response = Request::post(EVENTS, "text/plain; charset=utf-8", "one\ntwo\n")
        .send(broker.addr)
        .await;
    assert_eq!(response.status(), 202, "{}", response.text());
    assert_eq!(
        accepted_ids(&response).len(),
        2,
        "no event after the last line"
    );
    let frame = client.run_event().await;
    assert_eq!(
        (frame.event.as_str(), frame.payload().as_str()),
        ("output", "\"one\"")
    );
}

#[tokio::test]
async fn one_bad_event_of_many_is_named_and_the_others_stand() {
    let broker = Broker::embedded()
        .set("limits.max_event_bytes", "1KiB")
        .start_ready()
        .await;
    let mut client = broker.follow("42/stream").await;
    let big = "x".repeat(2000);
    let body = [json!("a"), json!(big), json!("c")]
        .map(|data| json!({"kind": "output", "source": "s", "data": data}).to_string())
        .join("\n");
    let response = Request::post(EVENTS, "application/x-ndjson", body)
        .send(broker.addr)
        .await;
    assert_eq!(response.status(), 202, "{}", response.text());
    let answer = response.json();
    let ids = answer["ids"].as_array().expect("ids");
    assert!(
        ids[0].is_string() && ids[1].is_null() && ids[2].is_string(),
        "{answer}"
    );
    let errors = answer["errors"].as_array().expect("errors");
    assert_eq!(
        (errors.len(), &errors[0]["index"]),
        (1, &json!(1)),
        "{answer}"
    );
    for member in ["type", "detail"] {
        assert!(errors[0][member].is_string(), "{answer}");
    }
    assert_eq!(client.run_event().await.payload(), "\"a\"");
    assert_eq!(client.run_event().await.payload(), "\"c\"");
}

#[tokio::test]
async fn resume_is_exact_at_every_position() {
    let broker = Broker::embedded().start_ready().await;
    let mut client = broker.follow("42/stream").await;
    for n in 0..20 {
        broker.publish("42", json!(n)).await;
    }
    let events = client.run_events(20).await;
    for n in 0..20 {
        let mut back = broker.resume("42/stream", events[n].id()).await;
        assert_eq!(
            back.preamble().await.cursor.as_deref(),
            Some(events[n].id())
        );
        for frame in &events[n + 1..] {
            assert_eq!(&back.run_event().await, frame);
        }
    }
}

/// The history goes further back than the ring.
#[tokio::test]
async fn history_behind_the_ring_is_replayed_whole() {
    let broker = Broker::embedded()
        .set("limits.max_event_bytes", "4KiB")
        .set("hub.ring_bytes", "16KiB")
        .start_ready()
        .await;
    let text = "x".repeat(500);
    let body: String = (0..500)
        .map(|n| {
            format!(
                "{}\n",
                json!({"kind": "output", "source": "s", "data": [n, text]})
            )
        })
        .collect();
    let response = Request::post(EVENTS, "application/x-ndjson", body)
        .send(broker.addr)
        .await;
    let ids = accepted_ids(&response);
    let mut client = broker.follow("42/stream").await;
    for id in &ids {
        assert_eq!(client.run_event().await.id(), id);
    }
    let mut back = broker.resume("42/stream", &ids[100]).await;
    back.preamble().await;
    for id in &ids[101..] {
        assert_eq!(back.run_event().await.id(), id);
    }
    let mut last = broker.follow("42/stream?from=-300").await;
    for id in &ids[200..] {
        assert_eq!(last.run_event().await.id(), id);
    }
}

/// Where the hub is the only history, it outlives the idle time of hubs.
#[tokio::test]
async fn history_stays_when_nobody_watches() {
    let broker = Broker::embedded()
        .set("hub.idle_ttl", "1s")
        .start_ready()
        .await;
    let ids = [
        broker.publish("42", json!(1)).await,
        broker.publish("42", json!(2)).await,
    ];
    drop(broker.follow("42/stream").await);
    // That nothing happens cannot be awaited.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let mut back = broker.resume("42/stream", &ids[0]).await;
    back.preamble().await;
    assert_eq!(back.run_event().await.id(), ids[1]);
}

#[tokio::test]
async fn trimmed_history_is_counted_exactly() {
    let broker = Broker::embedded()
        .set("history.max_events", 50)
        .set("limits.max_event_bytes", "4KiB")
        .set("hub.ring_bytes", "4KiB")
        .start_ready()
        .await;
    let mut ids = Vec::new();
    for n in 0..200 {
        ids.push(broker.publish("42", json!([n, "x".repeat(200)])).await);
    }
    let mut new = broker.stream("42/stream").await;
    assert_eq!(new.preamble().await.hello["resume"], "replay");
    let oldest = new.run_event().await;
    let position = ids.iter().position(|id| id == oldest.id()).expect("known");
    assert_eq!(position, 150, "fifty are kept");

    let mut back = broker.resume("42/stream", &ids[5]).await;
    assert_eq!(back.preamble().await.hello["resume"], "gap");
    let (reason, gap) = back.gap().await;
    assert_eq!(reason, "trimmed");
    assert_eq!(gap["after"], ids[5].as_str());
    assert_eq!(gap["before"], ids[position].as_str());
    assert_eq!(gap["missed"], position - 6);
    for id in &ids[position..] {
        assert_eq!(back.run_event().await.id(), id);
    }
}

#[tokio::test]
async fn cursors_of_other_histories_are_told_apart() {
    let broker = Broker::embedded().start_ready().await;
    for n in 0..3 {
        broker.publish("42", json!(n)).await;
    }
    let mut client = broker.follow("42/stream").await;
    let ids: Vec<String> = client
        .run_events(3)
        .await
        .iter()
        .map(|frame| frame.id().to_owned())
        .collect();
    let [epoch, seq, us] = parts(&ids[1]);
    for (cursor, reason) in [
        (format!("{}-{seq}-{us}", epoch - 1000), "expired"),
        (format!("{epoch}-{seq}-{}", us - 1), "rewound"),
        (format!("{epoch}-99-{us}"), "rewound"),
        ("~00c0ffee0042-17".to_owned(), "restarted"),
        ("garbage".to_owned(), "bad_cursor"),
    ] {
        let mut back = broker.resume("42/stream", &cursor).await;
        assert_eq!(back.preamble().await.hello["resume"], "gap", "{cursor}");
        let (told, gap) = back.gap().await;
        assert_eq!(told, reason, "{cursor}: {gap}");
    }
    // A plain id of a foreign hub goes on from its durable part.
    let cursor = format!("~00c0ffee0042-17~{}", ids[0]);
    let mut back = broker.resume("42/stream", &cursor).await;
    back.preamble().await;
    assert_eq!(back.gap().await.0, "restarted");
    assert_eq!(back.run_event().await.id(), ids[1]);
    assert_eq!(back.run_event().await.id(), ids[2]);
}

#[tokio::test]
async fn the_redis_stream_of_an_embedded_broker_is_the_embedded_one() {
    let broker = Broker::embedded().start_ready().await;
    let mut client = broker.stream("42/stream/redis").await;
    let header = client.head().header("x-streaming-backend");
    assert_eq!(header.as_deref(), Some("embedded"));
    client.preamble().await;
    broker.publish("42", json!(1)).await;
    assert_eq!(client.run_event().await.envelope().backend, "embedded");
}

#[tokio::test]
async fn many_clients_on_many_workers_read_the_same_bytes() {
    let broker = Broker::embedded()
        .set("server.workers", 4)
        .start_ready()
        .await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(broker.follow("42/stream").await);
    }
    let skip: Vec<usize> = clients.iter().map(|client| client.bytes().len()).collect();
    let body: String = (0..300)
        .map(|n| format!("{}\n", json!({"kind": "output", "source": "s", "data": n})))
        .collect();
    Request::post(EVENTS, "application/x-ndjson", body)
        .send(broker.addr)
        .await;
    let mut first: Option<Vec<u8>> = None;
    for (client, skip) in clients.iter_mut().zip(skip) {
        client.run_events(300).await;
        let bytes = &client.bytes()[skip..];
        assert_eq!(first.get_or_insert_with(|| bytes.to_vec()), bytes);
    }
}

/// Publishers that race, each with a connection of its own: one order for all.
#[tokio::test]
async fn racing_publishers_share_one_sequence() {
    let broker = Broker::embedded().start_ready().await;
    let mut client = broker.follow("42/stream").await;
    let addr = broker.addr;
    let mut tasks = Vec::new();
    for publisher in 0..8 {
        tasks.push(tokio::spawn(async move {
            let mut ids = Vec::new();
            for n in 0..25 {
                let event = json!({"kind": "output", "source": "s", "data": [publisher, n]});
                let request = Request::post(EVENTS, "application/json", event.to_string());
                ids.extend(accepted_ids(&request.send(addr).await));
            }
            ids
        }));
    }
    let mut accepted = Vec::new();
    for task in tasks {
        accepted.extend(task.await.expect("publishing goes through"));
    }
    accepted.sort_by_key(|id| parts(id)[1]);
    let mut next_of = [0; 8];
    for (n, frame) in client.run_events(200).await.iter().enumerate() {
        assert_eq!(frame.id(), accepted[n]);
        assert_eq!(parts(frame.id())[1], n as u64 + 1);
        let data: Value = serde_json::from_str(&frame.payload()).expect("JSON");
        let publisher = data[0].as_u64().expect("a number") as usize;
        assert_eq!(data[1], next_of[publisher], "a publisher's own order");
        next_of[publisher] += 1;
    }
}

/// As they do on Redis: each client comes back the moment it has the newest
/// event, most likely on another worker.
#[tokio::test]
async fn coming_back_at_once_finds_each_worker_up_to_date() {
    let broker = Broker::embedded()
        .set("server.workers", 4)
        .start_ready()
        .await;
    let mut clients = Vec::new();
    for _ in 0..12 {
        clients.push(broker.follow("42/stream").await);
    }
    for n in 0..100 {
        let id = broker.publish("42", json!(n)).await;
        let hops = clients.iter_mut().map(async |client| {
            assert_eq!(client.run_event().await.id(), id);
            *client = broker.resume("42/stream", &id).await;
            assert_eq!(client.preamble().await.hello["resume"], "live", "{n}");
        });
        join_all(hops).await;
    }
}
