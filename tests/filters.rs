//! `kinds`, `sources`, `log_level`, `from=-N` with them, and the `cursor` that
//! moves a client past what its filter hides.

use crate::support::redis::Publisher;
use crate::support::{Broker, Redis};

/// One event of every kind and several sources and levels; returns how many.
async fn publish_mixture(publisher: &mut Publisher) -> usize {
    let events = [
        ("run:42:output:stdout", r#""out""#),
        ("run:42:output:stderr", r#""err""#),
        ("run:42:output:stdout:2", r#""out2""#),
        ("run:42:status", r#""running""#),
        ("run:42:logs:app", r#"{"level":"TRACE"}"#),
        ("run:42:logs:app", r#"{"level":"Debug"}"#),
        ("run:42:logs:app", r#"{"level":"info"}"#),
        ("run:42:logs:app", r#"{"level":"Warning"}"#),
        ("run:42:logs:db", r#"{"level":50}"#),
        ("run:42:logs:db", r#"{"level":"critical"}"#),
        ("run:42:logs:db", "no level at all"),
    ];
    for (channel, payload) in events {
        publisher.publish(channel, payload).await;
    }
    events.len()
}

async fn check(query: &str, expected: &[&str]) {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let path = format!("42/stream?{query}");
    let mut live = broker.follow(&path).await;
    let mut publisher = redis.publisher().await;
    publish_mixture(&mut publisher).await;
    let mut replayed = broker.follow(&path).await;
    for client in [&mut live, &mut replayed] {
        for payload in expected {
            assert_eq!(client.run_event().await.payload(), *payload, "{query}");
        }
    }
}

#[tokio::test]
async fn kinds_choose_what_is_sent() {
    check("kinds=status", &[r#""running""#]).await;
    check(
        "kinds=status,log",
        &[
            r#""running""#,
            r#"{"level":"info"}"#,
            r#"{"level":"Warning"}"#,
        ],
    )
    .await;
    check("kinds=output", &[r#""out""#, r#""err""#, r#""out2""#]).await;
}

#[tokio::test]
async fn sources_choose_what_is_sent() {
    check("sources=stderr", &[r#""err""#]).await;
    check("sources=stdout:2,stderr", &[r#""err""#, r#""out2""#]).await;
    check(
        "kinds=log&sources=db",
        &[
            r#"{"level":50}"#,
            r#"{"level":"critical"}"#,
            r#""no level at all""#,
        ],
    )
    .await;
}

#[tokio::test]
async fn log_level_is_the_least_level_of_logs_only() {
    check(
        "kinds=log&log_level=trace",
        &[r#"{"level":"TRACE"}"#, r#"{"level":"Debug"}"#],
    )
    .await;
    check(
        "log_level=error&kinds=status,log",
        &[r#""running""#, r#"{"level":50}"#, r#"{"level":"critical"}"#],
    )
    .await;
    check("kinds=log&log_level=fatal", &[r#"{"level":"critical"}"#]).await;
}

#[tokio::test]
async fn the_log_level_of_the_settings_holds_until_a_query_overrides_it() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("streaming.log_level", "error")
        .start_ready()
        .await;
    let mut strict = broker.follow("42/stream?kinds=log").await;
    let mut open = broker.follow("42/stream?kinds=log&log_level=debug").await;
    publish_mixture(&mut redis.publisher().await).await;
    assert_eq!(strict.run_event().await.payload(), r#"{"level":50}"#);
    assert_eq!(open.run_event().await.payload(), r#"{"level":"Debug"}"#);
}

/// The default: info and above.
#[tokio::test]
async fn without_a_level_debug_logs_are_hidden() {
    check(
        "kinds=log",
        &[
            r#"{"level":"info"}"#,
            r#"{"level":"Warning"}"#,
            r#"{"level":50}"#,
        ],
    )
    .await;
}

/// Hidden events move the client's cursor once per heartbeat, and only when
/// something was hidden; coming back with it, nothing visible is missed.
#[tokio::test]
async fn hidden_events_move_the_cursor_with_the_heartbeat() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("heartbeat.interval", "1s")
        .start_ready()
        .await;
    let mut all = broker.follow("42/stream").await;
    let mut client = broker.follow("42/stream?kinds=status").await;
    let mut publisher = redis.publisher().await;
    for n in 0..5 {
        publisher
            .publish("run:42:output:stdout", n.to_string())
            .await;
    }
    let last_hidden = all.run_events(5).await.remove(4);
    let mut cursors = Vec::new();
    let mut beats = 0;
    while beats < 3 || cursors.is_empty() {
        let frame = client.frame().await;
        match frame.event.as_str() {
            "heartbeat" => beats += 1,
            "cursor" => cursors.push(frame),
            _ => panic!("neither heartbeat nor cursor: {frame:?}"),
        }
        assert!(beats < 5, "no cursor in {beats} heartbeats");
    }
    assert_eq!(cursors.len(), 1, "only if something was hidden");
    assert_eq!(cursors[0].data, "{}");
    assert_eq!(cursors[0].id(), last_hidden.id());

    publisher.publish("run:42:output:stdout", "5").await;
    publisher.publish("run:42:status", "\"seen\"").await;
    let mut back = broker
        .resume("42/stream?kinds=status", cursors[0].id())
        .await;
    back.preamble().await;
    assert_eq!(back.run_event().await.payload(), "\"seen\"");
}

#[tokio::test]
async fn from_minus_n_counts_after_the_filters() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let mut publisher = redis.publisher().await;
    let mut all = broker.follow("42/stream?log_level=trace").await;
    let published = publish_mixture(&mut publisher).await;
    all.run_events(published).await;
    for (query, expected) in [
        (
            "from=-2",
            vec![r#"{"level":"critical"}"#, r#""no level at all""#],
        ),
        ("from=-2&kinds=output", vec![r#""err""#, r#""out2""#]),
        ("from=-1&kinds=status", vec![r#""running""#]),
        (
            "from=-100&kinds=output",
            vec![r#""out""#, r#""err""#, r#""out2""#],
        ),
        (
            "from=-2&kinds=log&log_level=error",
            vec![r#"{"level":50}"#, r#"{"level":"critical"}"#],
        ),
    ] {
        let mut client = broker.follow(&format!("42/stream?{query}")).await;
        for payload in expected {
            assert_eq!(client.run_event().await.payload(), payload, "{query}");
        }
    }
}
