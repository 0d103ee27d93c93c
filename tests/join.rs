//! Where a stream of durable events begins, on a broker that holds none of
//! them: every sort of `from` and cursor, and what `hello` and `gap` say.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::broker::BrokerSettings;
use crate::support::http::Request;
use crate::support::kept::{BOTH, Kept, Store, expect_gap, expect_hello, parts, publish_numbers};
use crate::support::wait::SOON;
use crate::support::{Broker, SseClient};

/// Fifty events in the store; pages of a few of them.
async fn fifty(store: Store) -> Kept {
    let mut kept = Kept::empty(store, small_pages).await;
    kept.publish_apart(50).await;
    kept.forget().await;
    kept
}

/// A page ends at so many payload bytes.
fn small_pages(settings: BrokerSettings) -> BrokerSettings {
    settings.set("history.page_bytes", "64B")
}

#[tokio::test]
async fn a_new_client_gets_all_that_is_kept_then_live() {
    for store in BOTH {
        for from in ["", "?from=start"] {
            let mut kept = fifty(store).await;
            let mut client = kept.broker.stream(&format!("42/stream{from}")).await;
            expect_hello(&mut client, "replay", None).await;
            kept.expect_on(&mut client, 1).await;
        }
    }
}

#[tokio::test]
async fn from_now_begins_after_the_last_event_kept() {
    for store in BOTH {
        let mut kept = fifty(store).await;
        let mut client = kept.broker.stream("42/stream?from=now").await;
        expect_hello(&mut client, "live", Some(kept.id(50))).await;
        kept.expect_on(&mut client, 51).await;
    }
}

#[tokio::test]
async fn the_last_n_are_counted_in_the_store() {
    for store in BOTH {
        for count in [1, 2, 33, 49, 50, 51, 5000] {
            let mut kept = fifty(store).await;
            let mut client = kept
                .broker
                .stream(&format!("42/stream?from=-{count}"))
                .await;
            let first = 51_usize.saturating_sub(count).max(1);
            let cursor = (first > 1).then(|| kept.id(first - 1).to_owned());
            expect_hello(&mut client, "replay", cursor.as_deref()).await;
            kept.expect_on(&mut client, first).await;
        }
    }
}

/// Some in the hub's ring, more in the store.
#[tokio::test]
async fn the_last_n_may_lie_in_the_ring_and_in_the_store() {
    for store in BOTH {
        let mut kept = fifty(store).await;
        let mut witness = kept.broker.stream("42/stream?from=now").await;
        expect_hello(&mut witness, "live", Some(kept.id(50))).await;
        for _ in 0..10 {
            kept.publish(1).await;
        }
        kept.expect(&mut witness, 51..61).await;
        for count in [5, 10, 11, 35, 59, 60, 61] {
            let first = (kept.ids.len() + 1).saturating_sub(count).max(1);
            let mut client = kept
                .broker
                .stream(&format!("42/stream?from=-{count}"))
                .await;
            let cursor = (first > 1).then(|| kept.id(first - 1).to_owned());
            expect_hello(&mut client, "replay", cursor.as_deref()).await;
            kept.expect_on(&mut client, first).await;
        }
    }
}

/// `-N` counts after filters, over as many pages as that takes.
#[tokio::test]
async fn the_last_n_that_pass_a_filter_are_found_far_back() {
    for store in BOTH {
        let mut kept = Kept::empty(store, small_pages).await;
        let mut statuses = Vec::new();
        for n in 0..4 {
            statuses.push(kept.broker.publish_status("42", json!(n)).await);
            let post = publish_numbers(&kept.broker, "42", 0..700).await;
            kept.ids.extend(post);
        }
        kept.forget().await;
        for count in [1, 2, 4, 9] {
            let query = format!("42/stream?kinds=status&from=-{count}");
            let mut client = kept.broker.stream(&query).await;
            client.preamble().await;
            let due = statuses.len().saturating_sub(count);
            statuses.push(kept.broker.publish_status("42", json!("live")).await);
            for status in &statuses[due..] {
                assert_eq!(client.run_event().await.id(), status, "-{count}");
            }
        }
    }
}

#[tokio::test]
async fn a_cursor_is_exact_at_every_position() {
    for store in BOTH {
        let mut kept = fifty(store).await;
        for n in [1, 2, 17, 49, 50] {
            kept.forget().await;
            let mut client = kept.broker.resume("42/stream", kept.id(n)).await;
            let resume = if n == kept.ids.len() {
                "live"
            } else {
                "replay"
            };
            expect_hello(&mut client, resume, Some(kept.id(n))).await;
            kept.expect_on(&mut client, n + 1).await;
            drop(client);
        }
    }
}

/// The last event: nothing is to be replayed.
#[tokio::test]
async fn a_cursor_at_the_end_is_live_at_once() {
    for store in BOTH {
        let mut kept = fifty(store).await;
        let mut client = kept.broker.resume("42/stream", kept.id(50)).await;
        expect_hello(&mut client, "live", Some(kept.id(50))).await;
        kept.expect_on(&mut client, 51).await;
    }
}

/// Another event stands where the client's stood: it is sent that one, and
/// whatever is younger than what the client has.
#[tokio::test]
async fn another_event_at_the_cursors_number_is_a_rewind() {
    for store in BOTH {
        let mut kept = fifty(store).await;
        let (epoch, seq, us) = parts(kept.id(20));
        let (_, _, before) = parts(kept.id(19));
        assert!(before < us, "published apart");
        let cursor = format!("{epoch}-{seq}-{}", us - 1);
        let mut client = kept.broker.resume("42/stream", &cursor).await;
        expect_hello(&mut client, "gap", Some(kept.id(19))).await;
        let told = ("rewound", Some(&*cursor), Some(kept.id(20)), None);
        expect_gap(&mut client, told).await;
        kept.expect_on(&mut client, 20).await;
    }
}

#[tokio::test]
async fn a_cursor_ahead_of_the_stream_is_a_rewind() {
    for store in BOTH {
        let mut kept = fifty(store).await;
        let (epoch, seq, us) = parts(kept.id(50));
        let (_, _, known) = parts(kept.id(47));
        // Seen at the time of event 47, so that all after it are news.
        for (us, first) in [(us + 1_000_000, 51), (known, 48)] {
            kept.forget().await;
            let cursor = format!("{epoch}-{}-{us}", seq + 7);
            let mut client = kept.broker.resume("42/stream", &cursor).await;
            let common = kept.id(first - 1).to_owned();
            expect_hello(&mut client, "gap", Some(&common)).await;
            let before = (first <= 50).then(|| kept.id(first).to_owned());
            let told = ("rewound", Some(&*cursor), before.as_deref(), None);
            expect_gap(&mut client, told).await;
            // The live events of one round are no part of the next.
            if first <= 50 {
                kept.expect(&mut client, first..51).await;
            } else {
                let frame = client.next_within(Duration::from_millis(300)).await;
                assert_eq!(frame, crate::support::sse::Next::Silence);
            }
        }
        let mut client = kept.broker.stream("42/stream?from=now").await;
        expect_hello(&mut client, "live", Some(kept.id(50))).await;
        kept.expect_on(&mut client, 51).await;
    }
}

#[tokio::test]
async fn a_cursor_of_an_earlier_life_is_told_as_expired() {
    for store in BOTH {
        let mut kept = fifty(store).await;
        let (epoch, seq, us) = parts(kept.id(20));
        let cursor = format!("{}-{seq}-{us}", epoch - 1);
        let mut client = kept.broker.resume("42/stream", &cursor).await;
        expect_hello(&mut client, "gap", None).await;
        let told = ("expired", Some(&*cursor), Some(kept.id(1)), None);
        expect_gap(&mut client, told).await;
        kept.expect_on(&mut client, 1).await;
    }
}

/// A failover forgot that the run began anew.
#[tokio::test]
async fn a_cursor_of_a_later_life_is_told_as_rewound() {
    for store in BOTH {
        let mut kept = fifty(store).await;
        let (epoch, _, us) = parts(kept.id(40));
        let cursor = format!("{}-3-{us}", epoch + 1);
        let mut client = kept.broker.resume("42/stream", &cursor).await;
        expect_hello(&mut client, "gap", Some(kept.id(40))).await;
        let told = ("rewound", Some(&*cursor), Some(kept.id(41)), None);
        expect_gap(&mut client, told).await;
        kept.expect_on(&mut client, 41).await;
    }
}

#[tokio::test]
async fn what_was_trimmed_is_counted_for_who_comes_back_only() {
    for store in BOTH {
        let mut kept =
            Kept::with(store, 50, |settings| settings.set("history.max_events", 20)).await;
        kept.trim(20).await;
        // 31 to 50 are kept.
        for (n, missed) in [(1, 29), (10, 20), (29, 1)] {
            let mut client = kept.broker.resume("42/stream", kept.id(n)).await;
            expect_hello(&mut client, "gap", None).await;
            let told = ("trimmed", Some(kept.id(n)), Some(kept.id(31)), Some(missed));
            expect_gap(&mut client, told).await;
            kept.expect(&mut client, 31..51).await;
        }
        let mut client = kept.broker.resume("42/stream", kept.id(31)).await;
        expect_hello(&mut client, "replay", Some(kept.id(31))).await;
        kept.expect(&mut client, 32..51).await;
        let mut client = kept.broker.stream("42/stream").await;
        expect_hello(&mut client, "replay", None).await;
        kept.expect(&mut client, 31..51).await;
        let mut client = kept.broker.stream("42/stream?from=-1000").await;
        client.preamble().await;
        kept.expect_on(&mut client, 31).await;
    }
}

#[tokio::test]
async fn a_run_that_the_store_does_not_know_is_expired() {
    for store in BOTH {
        let mut kept = Kept::empty(store, |settings| settings).await;
        let cursor = "1795464000123-7-1795464000123456";
        let mut client = kept.broker.resume("42/stream", cursor).await;
        expect_hello(&mut client, "gap", None).await;
        expect_gap(&mut client, ("expired", Some(cursor), None, None)).await;
        kept.expect_on(&mut client, 1).await;
        // A new client of a run that was never published to misses nothing.
        let mut client = kept.broker.stream("43/stream").await;
        expect_hello(&mut client, "live", None).await;
    }
}

#[tokio::test]
async fn a_cursor_of_nonsense_is_told_then_all_is_sent() {
    for store in BOTH {
        let mut kept = fifty(store).await;
        let mut client = kept.broker.resume("42/stream", "nonsense").await;
        expect_hello(&mut client, "gap", None).await;
        let (reason, gap) = client.gap().await;
        assert_eq!(reason, "bad_cursor");
        assert_eq!(gap["before"], kept.id(1));
        kept.expect_on(&mut client, 1).await;
    }
}

/// A plain cursor of another hub: on from its durable part, nothing twice.
#[tokio::test]
async fn a_foreign_plain_cursor_goes_on_from_its_durable_part() {
    for store in BOTH {
        let mut kept = fifty(store).await;
        let durable = kept.id(20).to_owned();
        let cursor = format!("~00c0ffee0042-17~{durable}");
        let mut client = kept.broker.resume("42/stream", &cursor).await;
        expect_hello(&mut client, "gap", Some(&durable)).await;
        let told = ("restarted", Some(&*cursor), Some(kept.id(21)), None);
        expect_gap(&mut client, told).await;
        kept.expect_on(&mut client, 21).await;

        // Without one: everything.
        let cursor = "~00c0ffee0042-17";
        let mut client = kept.broker.resume("42/stream", cursor).await;
        expect_hello(&mut client, "gap", None).await;
        let (reason, gap) = client.gap().await;
        assert_eq!(
            (reason.as_str(), &gap["after"]),
            ("restarted", &json!(cursor))
        );
        kept.expect_on(&mut client, 1).await;
    }
}

/// `hello` waits for a store that does not answer for about a second.
#[tokio::test]
async fn a_frozen_store_is_told_within_about_a_second() {
    let kept = fifty(Store::Redis).await;
    // The subscription counts as up until two probes are lost.
    let broker = kept.settings.clone().set("redis.probe_interval", "30s");
    let broker = broker.start_ready().await;
    let redis = kept.redis.as_ref().expect("over Redis");
    redis.freeze();
    for query in ["", "?from=-5", "?from=now"] {
        let begin = Instant::now();
        let mut client = broker.stream(&format!("42/stream{query}")).await;
        check_unavailable(&mut client).await;
        let elapsed = begin.elapsed();
        assert!(elapsed < Duration::from_secs(4), "{query}: {elapsed:?}");
    }
    let cursor = Request::get("/api/v1/runs/42/stream").header("Last-Event-ID", kept.id(20));
    let begin = Instant::now();
    let mut client = SseClient::request(broker.addr, &cursor).await;
    check_unavailable(&mut client).await;
    let elapsed = begin.elapsed();
    assert!(elapsed < Duration::from_secs(4), "{elapsed:?}");
    redis.thaw();
    check_served(&broker, &kept).await;
}

async fn check_unavailable(client: &mut SseClient) {
    let frames = client.rest(SOON).await;
    let names: Vec<&str> = frames.iter().map(|frame| frame.event.as_str()).collect();
    assert_eq!(names, ["", "problem", "goodbye"], "{frames:?}");
    assert_eq!(frames[2].json(), json!({"reason": "unavailable"}));
}

/// Once the store answers again so do streams.
async fn check_served(broker: &Broker, kept: &Kept) {
    let mut client = broker.resume("42/stream", kept.id(20)).await;
    expect_hello(&mut client, "replay", Some(kept.id(20))).await;
    kept.expect(&mut client, 21..51).await;
}
