//! What Redis may lose, and what other versions left there.

use runcast_actors::broker::{BrokerSettings, PublishError};
use runcast_actors::protocol::{DurableId, FramedEvent};
use runcast_actors::store::{AppendBatch, PageFrom};

use super::contract::{
    Backend, TRACE, append, append_by, append_ok, head, is_closed, new_id, output, outputs, read,
    status, texts,
};
use super::redis::by_functions;

const STREAM: &str = "run:{42}:stream";
const META: &str = "run:{42}:meta";

/// Without its meta a run's numbers are unknown: it begins anew, later than
/// before even if the clock was set back.
#[tokio::test]
async fn a_lost_meta_begins_a_new_epoch() {
    let backend = by_functions().await;
    let store = backend.open(BrokerSettings::default());
    let old = append_ok(&store, "42", outputs(3)).await[2];
    backend.command::<i64>(&["DEL", META]).await;
    assert_eq!(read(&store, "42", PageFrom::After(0), 10).await.head, None);
    let new = append_ok(&store, "42", vec![output("new")]).await[0];
    assert!(new.epoch > old.epoch && new.us > old.us);
    assert_eq!(
        texts(&read(&store, "42", PageFrom::After(0), 10).await),
        ["new"]
    );
    // An entry of a clock an hour ahead.
    let ahead_us = new.us + 3_600_000_000;
    let id = format!("2-{ahead_us}");
    let add = ["XADD", STREAM, &id, "k", "output", "s", "", "d", "x"];
    backend.command::<String>(&add).await;
    backend.command::<i64>(&["DEL", META]).await;
    let later = append_ok(&store, "42", outputs(2)).await;
    assert!(later[0].epoch > ahead_us / 1000 && later[0].us / 1000 >= later[0].epoch);
    assert_eq!((later[0].seq, later[1].seq), (1, 2));
}

#[tokio::test]
async fn a_lost_stream_goes_on() {
    let backend = by_functions().await;
    let store = backend.open(BrokerSettings::default());
    let old = append_ok(&store, "42", outputs(3)).await[2];
    backend.command::<i64>(&["DEL", STREAM]).await;
    let page = read(&store, "42", PageFrom::After(0), 10).await;
    assert_eq!(page.head.map(|head| head.last), Some(old));
    assert_eq!((page.first, page.events.len(), page.more), (None, 0, false));
    let new = append_ok(&store, "42", outputs(1)).await[0];
    assert_eq!((new.epoch, new.seq), (old.epoch, 4));
    let page = read(&store, "42", PageFrom::After(1), 10).await;
    assert_eq!((page.first, page.anchor), (Some(new), None));
}

/// A number is taken only by an event that was added.
#[tokio::test]
async fn a_failed_add_burns_no_number() {
    let backend = by_functions().await;
    let store = backend.open(BrokerSettings::default());
    new_id(&append_by(&store, "42", ("p", 1, 1), output("a")).await);
    backend.command::<String>(&["RENAME", STREAM, "kept"]).await;
    backend
        .command::<String>(&["SET", STREAM, "no stream"])
        .await;
    for _ in 0..2 {
        let failed = append_by(&store, "42", ("p", 1, 2), output("b")).await;
        assert!(
            matches!(failed, Err(PublishError::Unavailable(_))),
            "{failed:?}"
        );
    }
    backend.command::<String>(&["RENAME", "kept", STREAM]).await;
    let id = new_id(&append_by(&store, "42", ("p", 1, 2), output("b")).await);
    assert_eq!(id.seq, 2);
    let page = read(&store, "42", PageFrom::After(0), 10).await;
    assert!(page.events.iter().all(|event| event.lost == 0));
}

/// Version 1 kept no counts, no end of the grace and no statuses.
#[tokio::test]
async fn a_run_of_version_1_goes_on() {
    let backend = by_functions().await;
    let mut settings = BrokerSettings::default();
    settings.runs.end_grace = std::time::Duration::from_secs(3600);
    let store = backend.open(settings);
    let [seconds, _]: [u64; 2] = backend.command(&["TIME"]).await;
    let (epoch, us) = (seconds * 1000 - 60_000, (seconds - 60) * 1_000_000);
    let (epoch_text, us_text) = (epoch.to_string(), us.to_string());
    let add = [
        "XADD",
        STREAM,
        &format!("7-{us}"),
        "k",
        "status",
        "s",
        "",
        "d",
        "failed",
    ];
    backend.command::<String>(&add).await;
    let meta = [
        "HSET",
        META,
        "e",
        &epoch_text,
        "s",
        "7",
        "u",
        &us_text,
        "b",
        "70",
        "c",
        &us_text,
    ];
    backend.command::<i64>(&meta).await;
    let known = head(&store, "42").await;
    assert_eq!(known.last.to_string(), format!("{epoch}-7-{us}"));
    assert_eq!((known.counts, known.status), ([0, 0, 0], None));
    let closed = known.closed.expect("closed");
    assert_eq!((closed.at_us, closed.sealed_us), (us, us + 2_000_000));
    // Whoever publishes says what its grace is, as then.
    assert_eq!(append_ok(&store, "42", outputs(1)).await[0].seq, 8);
    let strict = backend.open(BrokerSettings::default());
    let batch = AppendBatch {
        events: outputs(1),
        ..AppendBatch::default()
    };
    assert!(is_closed(&append(&strict, "42", batch).await[0]));
}

/// What is announced is what is kept.
#[tokio::test]
async fn an_announcement_says_what_the_stream_says() {
    let backend = by_functions().await;
    let client = redis::Client::open(backend.redis.url()).expect("a URL");
    let mut pubsub = client.get_async_pubsub().await.expect("it accepts");
    pubsub
        .subscribe("run:{42}:events")
        .await
        .expect("subscribed");
    let store = backend.open(BrokerSettings::default());
    append_by(&store, "42", ("p", 1, 1), output("a"))
        .await
        .expect("accepted");
    append_by(&store, "42", ("p", 1, 4), output("b"))
        .await
        .expect("accepted");
    append_by(&store, "42", ("p", 1, 4), output("b"))
        .await
        .expect("accepted before");
    append_by(&store, "42", ("p", 1, 5), status("failed"))
        .await
        .expect("accepted");
    let page = read(&store, "42", PageFrom::After(0), 10).await;
    let mut messages = pubsub.into_on_message();
    for (event, (lost, terminal)) in page.events.iter().zip([(0, false), (2, false), (0, true)]) {
        let message = futures_util::StreamExt::next(&mut messages)
            .await
            .expect("a message");
        let framed = FramedEvent::parse(message.get_payload_bytes()).expect("well-formed");
        assert_eq!(
            (framed.id, framed.lost, framed.terminal),
            (event.id, lost, terminal)
        );
        assert_eq!(
            (framed.kind, framed.source),
            (event.kind, event.source.as_str())
        );
        assert_eq!((framed.payload, event.lost), (&event.payload[..], lost));
    }
    assert_eq!(page.events.len(), 3);
}

/// A trace is told right before its event, which is announced as ever: who knows
/// no traces reads it all the same. Of none that is recorded nothing is told.
#[tokio::test]
async fn a_trace_is_announced_before_its_event() {
    let backend = by_functions().await;
    let client = redis::Client::open(backend.redis.url()).expect("a URL");
    let mut pubsub = client.get_async_pubsub().await.expect("it accepts");
    let channel = "run:{42}:events";
    pubsub.subscribe(channel).await.expect("subscribed");
    let publish = async |trace: &str| {
        let call = [
            "FCALL",
            "runcast_publish",
            "2",
            STREAM,
            META,
            "42",
            "output",
            "s",
            "x",
        ];
        let answer: (String, DurableId) = {
            let words = [&call[..], &["TRACE", trace]].concat();
            let (word, id) = backend.command::<(String, String)>(&words).await;
            (word, id.parse().expect("an id"))
        };
        assert_eq!(answer.0, "OK");
        answer.1
    };
    append_ok(&backend.open(BrokerSettings::default()), "42", outputs(1)).await;
    let mut ids = Vec::new();
    let too_long = format!("{TRACE},c={}", "x".repeat(600));
    for other in [
        "",
        "x",
        &TRACE.replace("-01", "-00"),
        &TRACE[1..],
        &too_long,
    ] {
        ids.push(publish(other).await);
    }
    let traced = publish(TRACE).await;
    let mut messages = pubsub.into_on_message();
    let mut next = async || {
        let message = futures_util::StreamExt::next(&mut messages).await;
        message.expect("a message").get_payload_bytes().to_vec()
    };
    next().await;
    for id in ids {
        assert_eq!(FramedEvent::parse(&next().await).expect("an event").id, id);
    }
    assert_eq!(next().await, format!("trace {traced} {TRACE}").as_bytes());
    assert_eq!(
        FramedEvent::parse(&next().await).expect("an event").id,
        traced
    );
}

/// History goes with its time; what is known of the run stays a day longer.
#[tokio::test]
async fn keys_have_their_time() {
    let backend = by_functions().await;
    let mut settings = BrokerSettings::default();
    settings.history.ttl = std::time::Duration::from_secs(1000);
    append_ok(&backend.open(settings), "42", outputs(1)).await;
    for (key, ttl) in [(STREAM, 1000), (META, 1000 + 24 * 3600)] {
        let left: i64 = backend.command(&["TTL", key]).await;
        assert!((ttl - 10..=ttl).contains(&left), "{key}: {left}");
    }
}
