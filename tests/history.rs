//! `GET …/events`: pages of a run's history, over a real Redis and in memory.

use std::time::{Duration, Instant};

use futures_util::future::join;
use redis::Pipeline;
use serde_json::{Value, json};

use crate::support::http::{Request, slug};
use crate::support::wait::SOON;
use crate::support::{Broker, Redis, eventually};

const EVENTS: &str = "/api/v1/runs/42/events";

/// Posts `count` outputs whose data are their numbers from `first` on; returns
/// their ids.
async fn publish(broker: &Broker, first: usize, count: usize) -> Vec<String> {
    let lines: Vec<String> = (first..first + count)
        .map(|n| json!({"kind": "output", "data": n}).to_string())
        .collect();
    let request = Request::post(EVENTS, "application/x-ndjson", lines.join("\n"));
    crate::support::broker::accepted_ids(&request.send(broker.addr).await)
}

fn ids(page: &Value) -> Vec<&str> {
    let events = page["events"].as_array().expect("events");
    events
        .iter()
        .filter_map(|event| event["id"].as_str())
        .collect()
}

fn numbers(page: &Value) -> Vec<u64> {
    let events = page["events"].as_array().expect("events");
    let data = events.iter().map(|event| &event["data"]["data"]);
    data.map(|data| data.as_u64().expect("a number")).collect()
}

async fn page(broker: &Broker, query: &str) -> Value {
    broker.json(&format!("{EVENTS}?{query}")).await
}

#[tokio::test]
async fn pages_follow_one_another_in_both_directions_on_every_broker() {
    let redis = Redis::start().await;
    let settings = Broker::redis(&redis);
    let (one, two) = (settings.start_ready().await, settings.start_ready().await);
    let all = publish(&one, 1, 10).await;

    let mut cursor = String::new();
    let mut seen = Vec::new();
    loop {
        let page = page(&two, &format!("limit=4&after={cursor}")).await;
        assert_eq!(page["gap"], Value::Null);
        seen.extend(ids(&page).into_iter().map(str::to_owned));
        match page["next"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, all);

    let mut before = format!("{}-end", all[9]);
    let mut pages = Vec::new();
    loop {
        let page = page(&two, &format!("limit=4&before={before}")).await;
        assert_eq!(page["gap"], Value::Null);
        pages.push(numbers(&page));
        match page["previous"].as_str() {
            Some(previous) => before = previous.to_owned(),
            None => break,
        }
    }
    assert_eq!(pages, [vec![7, 8, 9, 10], vec![3, 4, 5, 6], vec![1, 2]]);

    // From a page in the middle on, both ways.
    let middle = page(&two, &format!("limit=2&after={}", all[4])).await;
    assert_eq!(numbers(&middle), [6, 7]);
    let (previous, next) = (&middle["previous"], &middle["next"]);
    let older = page(
        &two,
        &format!("before={}", previous.as_str().expect("more")),
    )
    .await;
    assert_eq!(numbers(&older), [1, 2, 3, 4, 5]);
    assert_eq!(older["next"], json!(all[4]));
    let newer = page(&two, &format!("after={}", next.as_str().expect("more"))).await;
    assert_eq!(numbers(&newer), [8, 9, 10]);

    let nothing = page(&two, &format!("after={}", all[9])).await;
    let expected = json!({"events": [], "next": null, "previous": null, "gap": null});
    assert_eq!(nothing, expected);
    let never = two.json("/api/v1/runs/never/events").await;
    assert_eq!(never, expected);
}

/// The data of an event are those of its frame, to the letter.
#[tokio::test]
async fn an_event_is_told_as_its_stream_tells_it() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let mut client = broker.follow("42/stream").await;
    let body = [
        r#"{"kind":"output","source":"a\"b","data":{"n": 12345678901234567890.10e+4}}"#,
        r#"{"kind":"log","source":"app","data":{"level":"warn"}}"#,
        r#"{"kind":"output","data_base64":"/w=="}"#,
        r#"{"kind":"status","data":"running"}"#,
    ]
    .join("\n");
    let request = Request::post(EVENTS, "application/x-ndjson", body);
    assert_eq!(request.send(broker.addr).await.status(), 202);
    let response = broker.get(EVENTS).await;
    let text = response.text();
    for (index, frame) in client.run_events(4).await.iter().enumerate() {
        let event = &response.json()["events"][index];
        assert_eq!(event["event"], json!(frame.event));
        assert_eq!(event["id"], json!(frame.id()));
        assert!(
            text.contains(&format!("\"data\":{}}}", frame.data)),
            "{text}"
        );
    }
    let head = Request::new("HEAD", EVENTS).send(broker.addr).await;
    assert_eq!((head.status(), head.body.len()), (200, 0));
}

#[tokio::test]
async fn filters_count_and_a_scan_has_an_end() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("history.max_events", 100_000)
        .start_ready()
        .await;
    let lines: Vec<String> = (0..9000)
        .map(|_| json!({"kind": "output", "source": "noise", "data": 0}).to_string())
        .collect();
    let noise = Request::post(EVENTS, "application/x-ndjson", lines.join("\n"));
    broker
        .post(
            "42",
            &json!({"kind": "log", "source": "app", "data": {"level": "debug"}}),
        )
        .await;
    let first = broker.publish("42", json!(1)).await;
    for _ in 0..2 {
        assert_eq!(noise.send(broker.addr).await.status(), 202);
    }
    let last = broker.publish("42", json!(2)).await;

    let filter = "sources=stdout&limit=2";
    let page_1 = page(&broker, filter).await;
    assert_eq!(ids(&page_1), [first.as_str()]);
    let next = page_1["next"]
        .as_str()
        .expect("the scan ended before")
        .to_owned();
    let page_2 = page(&broker, &format!("{filter}&after={next}")).await;
    assert_eq!(ids(&page_2), [last.as_str()]);
    assert_eq!(
        (&page_2["next"], &page_2["gap"]),
        (&Value::Null, &Value::Null)
    );
    let back = page(&broker, &format!("{filter}&before={last}")).await;
    assert!(ids(&back).is_empty() && back["previous"].is_string());

    // As a stream hides it by default.
    let logs = page(&broker, "kinds=log").await;
    assert!(ids(&logs).is_empty());
    let logs = page(&broker, "kinds=log&log_level=debug&limit=1").await;
    assert_eq!(ids(&logs).len(), 1);
}

#[tokio::test]
async fn what_is_missing_beside_a_cursor_is_told_with_its_count() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let all = publish(&broker, 1, 10).await;
    let mut publisher = redis.publisher().await;
    let trimmed: i64 = publisher
        .command(&["XTRIM", "run:{42}:stream", "MAXLEN", "=", "6"])
        .await;
    assert_eq!(trimmed, 4);

    // A new reader starts at the oldest, and that is no gap.
    let oldest = page(&broker, "").await;
    assert_eq!(
        (ids(&oldest)[0], &oldest["gap"]),
        (all[4].as_str(), &Value::Null)
    );
    let after = page(&broker, &format!("after={}", all[1])).await;
    assert_eq!(numbers(&after), [5, 6, 7, 8, 9, 10]);
    assert_eq!(
        after["gap"],
        json!({"after": all[1], "before": all[4], "missed": 2, "reason": "trimmed"})
    );
    let before = page(&broker, &format!("before={}", all[4])).await;
    assert_eq!(
        before["gap"],
        json!({"after": null, "before": all[4], "missed": 4, "reason": "trimmed"})
    );
    // The last one trimmed: nothing is missing after it.
    let known = page(&broker, &format!("after={}", all[3])).await;
    assert_eq!((numbers(&known).len(), &known["gap"]), (6, &Value::Null));
    // Taken out by hand, in the middle.
    let entry = |id: &str| {
        let mut parts = id.split('-').skip(1);
        [parts.next(), parts.next()]
            .map(|part| part.expect("an id"))
            .join("-")
    };
    let deleted: i64 = publisher
        .command(&["XDEL", "run:{42}:stream", &entry(&all[6])])
        .await;
    assert_eq!(deleted, 1);
    let hole = json!({"event": "gap", "id": null, "data":
        {"after": all[5], "before": all[7], "missed": 1, "reason": "trimmed"}});
    let forwards = page(&broker, &format!("after={}", all[4])).await;
    assert_eq!(
        (&forwards["events"][1], &forwards["gap"]),
        (&hole, &Value::Null)
    );
    let backwards = page(&broker, &format!("before={}", all[8])).await;
    assert_eq!(backwards["events"][2], hole);
    // All of the stream is gone, what it was is still known.
    let _: i64 = publisher.command(&["DEL", "run:{42}:stream"]).await;
    let gone = page(&broker, &format!("after={}", all[7])).await;
    assert_eq!(gone["gap"]["missed"], 2);
    assert_eq!(gone["events"], json!([]));
}

#[tokio::test]
async fn a_cursor_of_another_life_is_told_as_such() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let old = publish(&broker, 1, 3).await;
    let restart = Request::post(
        format!("{EVENTS}?restart=true"),
        "application/json",
        json!({"kind": "output", "data": 4}).to_string(),
    );
    let new = crate::support::broker::accepted_ids(&restart.send(broker.addr).await).remove(0);
    let reason = |page: &Value| page["gap"]["reason"].as_str().map(str::to_owned);

    let expired = page(&broker, &format!("after={}", old[1])).await;
    assert_eq!(numbers(&expired), [4]);
    assert_eq!(
        expired["gap"],
        json!({"after": old[1], "before": new, "missed": null, "reason": "expired"})
    );
    // Nothing of this life lies before that one.
    let before = page(&broker, &format!("before={}", old[1])).await;
    assert_eq!(
        (ids(&before).len(), reason(&before)),
        (0, Some("expired".to_owned()))
    );

    let plain = page(&broker, &format!("after=~00c0ffee0042-7~{new}")).await;
    assert_eq!(
        (ids(&plain).len(), reason(&plain)),
        (0, Some("restarted".to_owned()))
    );
    let plain = page(&broker, "after=~00c0ffee0042-7").await;
    assert_eq!(
        (numbers(&plain), reason(&plain)),
        (vec![4], Some("restarted".to_owned()))
    );
    let line = page(&broker, "after=k0:00000000000000ff-1-0").await;
    assert_eq!(
        (numbers(&line), reason(&line)),
        (vec![4], Some("bad_cursor".to_owned()))
    );
}

/// A failover forgot the newest events, others took their numbers: what both
/// lives have in common is not sent again.
#[tokio::test]
async fn a_rewound_run_goes_on_where_its_lives_part() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    publish(&broker, 1, 5).await;
    let mut publisher = redis.publisher().await;
    let stream: Vec<u8> = publisher.dump("run:{42}:stream").await;
    let meta: Vec<u8> = publisher.dump("run:{42}:meta").await;
    let forgotten = publish(&broker, 6, 3).await;
    let mut restore = Pipeline::new();
    for (key, dump) in [("run:{42}:stream", stream), ("run:{42}:meta", meta)] {
        restore
            .cmd("RESTORE")
            .arg(key)
            .arg(0)
            .arg(dump)
            .arg("REPLACE");
    }
    publisher.pipeline(&restore).await;
    let ahead = page(&broker, &format!("after={}", forgotten[2])).await;
    assert_eq!(
        (numbers(&ahead), ahead["gap"]["reason"].as_str()),
        (vec![], Some("rewound"))
    );
    let taken = publish(&broker, 60, 4).await;
    for seen in &forgotten {
        let page = page(&broker, &format!("after={seen}")).await;
        assert_eq!(numbers(&page), [60, 61, 62, 63], "{seen}");
        assert_eq!(
            page["gap"],
            json!({"after": seen, "before": taken[0], "missed": null, "reason": "rewound"})
        );
    }
}

/// What a producer numbered and never got through is told where it is missing.
#[tokio::test]
async fn what_a_producer_lost_stands_in_its_place() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let mut publisher = redis.publisher().await;
    let mut ids = Vec::new();
    for seq in ["1", "4"] {
        let keys = ["run:{42}:stream", "run:{42}:meta", "42", "output", "s", seq];
        let call = [
            &["FCALL", "runcast_publish", "2"],
            &keys[..],
            &["PRODUCER", "p", "1", seq],
        ];
        let (_, id): (String, String) = publisher.command(&call.concat()).await;
        ids.push(id);
    }
    let gap = json!({"event": "gap", "id": null, "data":
        {"after": ids[0], "before": ids[1], "missed": 2, "reason": "producer"}});
    for query in ["", "limit=2", &format!("before={}-end", ids[1])] {
        assert_eq!(page(&broker, query).await["events"][1], gap, "{query}");
    }
}

#[tokio::test]
async fn a_bad_question_is_refused_and_a_store_away_is_told() {
    let mut redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("redis.command_timeout", "200ms")
        .start_ready()
        .await;
    let id = broker.publish("42", json!(1)).await;
    for (query, status, expected) in [
        ("after=x".to_owned(), 400, "bad-query"),
        (format!("after={id}&before={id}"), 400, "bad-query"),
        ("limit=0".to_owned(), 400, "bad-query"),
        ("kinds=x".to_owned(), 400, "bad-query"),
        ("backend=kubectl".to_owned(), 404, "no-history"),
    ] {
        let problem = broker
            .get(&format!("{EVENTS}?{query}"))
            .await
            .problem(status);
        assert_eq!(slug(&problem), expected, "{query}");
    }
    redis.kill();
    let answer = broker.get(EVENTS).await;
    assert_eq!(answer.header("retry-after").as_deref(), Some("1"));
    assert_eq!(slug(&answer.problem(503)), "store-unavailable");
    redis.restart().await;
    eventually("history is read again", SOON, async || {
        broker.get(EVENTS).await.status() == 200
    })
    .await;
}

/// A page ends by its bytes, too; whoever reads on misses nothing.
#[tokio::test]
async fn large_events_make_short_pages() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let large = "x".repeat(200_000);
    for _ in 0..8 {
        broker.publish("42", json!(large)).await;
    }
    let mut sizes = Vec::new();
    let mut after = String::new();
    loop {
        let answer = broker.get(&format!("{EVENTS}?after={after}")).await;
        assert!(answer.body.len() < 1_500_000);
        let page = answer.json();
        sizes.push(ids(&page).len());
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(sizes.iter().sum::<usize>(), 8);
    assert!(sizes.len() > 1, "{sizes:?}");
    broker
        .wait_metric("runcast_http_history_reads", &[], 0.0)
        .await;
}

/// Pages and streams share `history.read_rate`; live events need none of it.
#[tokio::test]
async fn who_reads_much_waits_and_misses_nothing() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("history.read_rate", "512KiB")
        .set("limits.max_event_bytes", "64KiB")
        .set("hub.ring_bytes", "128KiB")
        .start_ready()
        .await;
    let mut last = String::new();
    for n in 0..60 {
        last = broker.publish("42", json!([n, "x".repeat(32_000)])).await;
    }
    let begin = Instant::now();
    let mut reader = broker.follow("42/stream?from=start").await;
    let mut live = broker.follow("43/stream").await;
    let read = async {
        for n in 0..60 {
            let frame = reader.run_event().await;
            assert_eq!(frame.json()["data"][0], n);
            if n == 59 {
                assert_eq!(frame.id(), last);
            }
        }
        begin.elapsed()
    };
    let watch = async {
        let id = broker.publish("43", json!("live")).await;
        assert_eq!(live.run_event().await.id(), id);
        begin.elapsed()
    };
    let (read, watched) = join(read, watch).await;
    // 1.9 MB of which the first MiB comes at once.
    assert!(read > Duration::from_secs(1), "{read:?}");
    assert!(watched < read, "{watched:?}, {read:?}");
    let page = page(&broker, "limit=60").await;
    assert!(!ids(&page).is_empty());
    let paced = broker.metric("runcast_store_reads_paced_total", &[]).await;
    assert!(paced > 0.0);
}

#[tokio::test]
async fn an_embedded_broker_has_history_too() {
    let broker = Broker::embedded()
        .set("history.max_events", 5)
        .start_ready()
        .await;
    let all = publish(&broker, 1, 8).await;
    let oldest = page(&broker, "limit=2").await;
    assert_eq!(numbers(&oldest), [4, 5]);
    assert_eq!(oldest["events"][0]["data"]["backend"], "embedded");
    let after = page(&broker, &format!("after={}", all[0])).await;
    assert_eq!(after["gap"]["missed"], 2);
    let before = page(&broker, &format!("limit=2&before={}", all[7])).await;
    assert_eq!(numbers(&before), [6, 7]);
}
