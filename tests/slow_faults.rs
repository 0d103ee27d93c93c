//! What happens to a run while a client of it pages, or does not read: its end,
//! a new life, a store that is away or empty.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::broker::{BrokerSettings, accepted_ids};
use crate::support::http::Request;
use crate::support::kept::{BOTH, Kept, Store, expect_hello, parts};
use crate::support::sse::gap_of;
use crate::support::wait::SOON;
use crate::support::{Broker, Frame, SseClient};

fn small_ring(settings: BrokerSettings) -> BrokerSettings {
    settings
        .set("limits.max_event_bytes", "32KiB")
        .set("hub.ring_bytes", "128KiB")
        .set("history.max_bytes_per_run", "64MiB")
        .set("runs.end_grace", "300ms")
}

async fn slow_client(broker: &Broker) -> SseClient {
    let request = Request::get("/api/v1/runs/42/stream").receive_buffer(8 * 1024);
    let mut client = SseClient::request(broker.addr, &request).await;
    client.preamble().await;
    client
}

/// Publishes `count` events of 20 kB; returns their ids.
async fn publish_large(broker: &Broker, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for n in 0..count {
        ids.push(broker.publish("42", json!([n, "x".repeat(20_000)])).await);
    }
    ids
}

async fn expect_ids(client: &mut SseClient, ids: &[String]) {
    for id in ids {
        assert_eq!(client.run_event().await.id(), id);
    }
}

/// Reads on to the first gap; returns how many of `ids` came before it, in
/// order, and the gap.
async fn until_gap(client: &mut SseClient, ids: &[String]) -> (usize, String, Value) {
    for (n, id) in ids.iter().enumerate() {
        let frame: Frame = client.event().await;
        if frame.event == "gap" {
            let (reason, gap) = gap_of(&frame);
            return (n, reason, gap);
        }
        assert_eq!(frame.id(), id);
    }
    let (reason, gap) = client.gap().await;
    (ids.len(), reason, gap)
}

#[tokio::test]
async fn a_run_that_ends_while_a_client_is_behind_is_sent_whole() {
    for store in BOTH {
        let kept = Kept::empty(store, small_ring).await;
        let mut slow = slow_client(&kept.broker).await;
        let mut witness = kept.broker.follow("42/stream").await;
        let mut ids = publish_large(&kept.broker, 300).await;
        ids.push(kept.broker.publish_status("42", json!("completed")).await);
        expect_ids(&mut witness, &ids).await;
        assert_eq!(witness.event().await.event, "end");
        expect_ids(&mut slow, &ids).await;
        let rest = slow.rest(SOON).await;
        assert_eq!(rest.len(), 1, "{rest:?}");
        assert_eq!(rest[0].id(), format!("{}-end", ids[300]));
        assert_eq!(
            rest[0].json(),
            json!({"status": "completed", "events": 301})
        );
    }
}

/// What a client had not read of the old life is gone with it.
#[tokio::test]
async fn a_run_that_begins_anew_while_a_client_is_behind_is_told() {
    for store in BOTH {
        let kept = Kept::empty(store, small_ring).await;
        let mut slow = slow_client(&kept.broker).await;
        let old = publish_large(&kept.broker, 300).await;
        let event = json!({"kind": "output", "source": "stdout", "data": "new"});
        let path = "/api/v1/runs/42/events?restart=true";
        let request = Request::post(path, "application/json", event.to_string());
        let mut new = accepted_ids(&request.send(kept.broker.addr).await);
        new.extend(publish_large(&kept.broker, 60).await);
        let (seen, reason, gap) = until_gap(&mut slow, &old).await;
        assert!(seen > 0 && seen < 300, "{store:?}: {seen} of the old life");
        assert_eq!(gap["after"], json!(old[seen - 1]));
        assert_eq!((&*reason, &gap["before"]), ("expired", &json!(new[0])));
        expect_ids(&mut slow, &new).await;
        let live = kept.broker.publish("42", json!("live")).await;
        expect_ids(&mut slow, &[live]).await;
    }
}

/// Its pages cannot be read for a while: it waits, and goes on where it was.
#[tokio::test]
async fn a_client_that_pages_waits_for_a_frozen_store() {
    let kept = Kept::empty(Store::Redis, |settings| {
        small_ring(settings).set("redis.probe_interval", "300ms")
    })
    .await;
    let mut slow = slow_client(&kept.broker).await;
    let ids = publish_large(&kept.broker, 300).await;
    let redis = kept.redis.as_ref().expect("over Redis");
    redis.freeze();
    let mut seen = 0;
    while let crate::support::sse::Next::Frame(frame) =
        slow.next_within(Duration::from_secs(1)).await
    {
        assert_eq!(frame.id(), ids[seen]);
        seen += 1;
    }
    assert!(seen < 300, "the rest is in the store only");
    kept.broker.wait_metric("runcast_redis_up", &[], 0.0).await;
    redis.thaw();
    expect_ids(&mut slow, &ids[seen..]).await;
    kept.broker.wait_ready().await;
    let live = kept.broker.publish("42", json!("live")).await;
    expect_ids(&mut slow, &[live]).await;
}

/// The store is emptied under a client that is behind: a gap says so, and the
/// new life comes whole.
#[tokio::test]
async fn a_store_emptied_under_a_client_that_is_behind_is_told() {
    let kept = Kept::empty(Store::Redis, small_ring).await;
    let mut slow = slow_client(&kept.broker).await;
    let old = publish_large(&kept.broker, 300).await;
    let _: String = kept.publisher().await.command(&["FLUSHALL"]).await;
    let new = publish_large(&kept.broker, 30).await;
    assert!(parts(&new[0]).0 > parts(&old[0]).0, "a new epoch");
    let (seen, reason, gap) = until_gap(&mut slow, &old).await;
    assert!(seen > 0 && seen < 300, "{seen} of the old life");
    assert_eq!(gap["after"], json!(old[seen - 1]));
    assert_eq!((&*reason, &gap["before"]), ("expired", &json!(new[0])));
    expect_ids(&mut slow, &new).await;
}

/// Events that a filter hides move the cursor also if they come in pages.
#[tokio::test]
async fn pages_of_hidden_events_move_the_cursor() {
    for store in BOTH {
        let mut kept = Kept::with(store, 500, |settings| {
            settings
                .set("history.page_bytes", "1KiB")
                .set("heartbeat.interval", "1s")
        })
        .await;
        let mut client = kept
            .broker
            .resume("42/stream?kinds=status", kept.id(20))
            .await;
        assert_eq!(client.preamble().await.cursor.as_deref(), Some(kept.id(20)));
        let mut cursor = String::new();
        while cursor != kept.id(500) {
            let frame = client.event().await;
            assert_eq!(frame.event, "cursor", "{frame:?}");
            cursor = frame.id().to_owned();
            assert!(kept.ids.contains(&cursor), "{cursor}");
        }
        let mut back = kept.broker.resume("42/stream", &cursor).await;
        expect_hello(&mut back, "live", Some(&cursor)).await;
        kept.expect_on(&mut back, 501).await;
    }
}

/// With plain events in it the store cannot say how many events it had.
#[tokio::test]
async fn the_end_of_a_mixed_run_has_no_count_and_an_id_of_both_parts() {
    let kept = Kept::empty(Store::Redis, small_ring).await;
    let mut client = kept.broker.follow("42/stream").await;
    let mut publisher = kept.publisher().await;
    publisher.publish("run:42:output:plain", "1").await;
    let plain = client.run_event().await;
    let durable = kept.broker.publish("42", json!(2)).await;
    assert_eq!(client.run_event().await.id(), durable);
    publisher.publish("run:42:output:plain", "3").await;
    let second = client.run_event().await;
    assert!(second.id().ends_with(&format!("~{durable}")), "{second:?}");
    publisher.publish("run:42:status", "\"failed\"").await;
    let frames = client.rest(SOON).await;
    assert_eq!(frames.len(), 2, "{frames:?}");
    assert_eq!(frames[1].id(), format!("{}-end", frames[0].id()));
    assert_eq!(
        frames[1].json(),
        json!({"status": "failed", "events": null})
    );
    // This broker remembers that end for as long as its hub lives.
    let request = Request::get("/api/v1/runs/42/stream").header("Last-Event-ID", frames[1].id());
    assert_eq!(request.send(kept.broker.addr).await.status(), 204);
    let mut back = kept.broker.resume("42/stream", plain.id()).await;
    back.preamble().await;
    let rest = back.rest(SOON).await;
    assert_eq!(rest.len(), 4, "{rest:?}");
    assert_eq!((&rest[1], &rest[2..]), (&second, &frames[..]));
}
