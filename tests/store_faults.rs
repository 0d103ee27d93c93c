//! Redis that cuts, forgets or goes back: what is durable arrives, or is told.

use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use serde_json::json;

use crate::support::kept::{Kept, Store, append, expect_gap, expect_hello, parts};
use crate::support::redis::Publisher;
use crate::support::sse::Next;
use crate::support::{Broker, SseClient, eventually};

const STREAM: &str = "run:{42}:stream";
const META: &str = "run:{42}:meta";

async fn kept() -> Kept {
    Kept::empty(Store::Redis, |settings| settings).await
}

/// Run `42` on three brokers, each with a client that is told nothing yet.
async fn three(kept: &Kept) -> (Vec<Broker>, Vec<SseClient>) {
    let (mut brokers, mut clients) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let broker = kept.settings.start_ready().await;
        clients.push(broker.follow("42/stream").await);
        brokers.push(broker);
    }
    (brokers, clients)
}

async fn expect_silence(client: &mut SseClient, millis: u64) {
    let next = client.next_within(Duration::from_millis(millis)).await;
    assert_eq!(next, Next::Silence);
}

async fn cut(publisher: &mut Publisher) -> i64 {
    let kill = ["CLIENT", "KILL", "TYPE", "pubsub"];
    publisher.command(&kill).await
}

/// Events are published between the cuts, and while brokers come back.
#[tokio::test]
async fn a_durable_run_comes_whole_through_cut_subscriptions() {
    const COUNT: usize = 3000;
    let kept = kept().await;
    let mut publisher = kept.publisher().await;
    append(&mut publisher, "42", "0").await;
    let (_brokers, mut clients) = three(&kept).await;
    let publishing = async {
        let mut cuts = 0;
        for n in 1..COUNT {
            append(&mut publisher, "42", &n.to_string()).await;
            if n % 300 == 0 {
                cuts += cut(&mut publisher).await;
            }
        }
        assert!(cuts >= 9, "{cuts} cuts");
    };
    let reading = join_all(clients.iter_mut().map(async |client| {
        for due in 0..COUNT {
            assert_eq!(client.run_event().await.payload(), due.to_string());
        }
    }));
    join(publishing, reading).await;
    for client in &mut clients {
        expect_silence(client, 300).await;
    }
}

/// What was only published while nobody listened is lost, and told; what is
/// durable is not.
#[tokio::test]
async fn a_mixed_run_is_told_the_cut_and_misses_nothing_durable() {
    let kept = kept().await;
    let mut publisher = kept.publisher().await;
    let (_brokers, mut clients) = three(&kept).await;
    publisher.publish("run:42:output:plain", "\"plain\"").await;
    for client in &mut clients {
        assert_eq!(client.run_event().await.payload(), "\"plain\"");
    }
    let mut pipe = redis::pipe();
    pipe.cmd("CLIENT").arg(&["KILL", "TYPE", "pubsub"]).ignore();
    for n in 0..5 {
        pipe.cmd("FCALL").arg("runcast_publish").arg(2);
        pipe.arg(STREAM).arg(META).arg(&["42", "output", "stdout"]);
        pipe.arg(n).ignore();
    }
    publisher.pipeline(&pipe).await;
    for client in &mut clients {
        let (mut due, mut gaps) = (0, 0);
        while due < 5 || gaps == 0 {
            let frame = client.event().await;
            if frame.event == "gap" {
                assert_eq!(frame.json()["reason"], "disconnected");
                gaps += 1;
                continue;
            }
            assert_eq!(frame.payload(), due.to_string());
            due += 1;
        }
    }
}

/// Nobody knows how such a run is published to.
#[tokio::test]
async fn a_run_never_published_to_is_told_the_cut() {
    let kept = kept().await;
    let mut publisher = kept.publisher().await;
    let (_brokers, mut clients) = three(&kept).await;
    assert_eq!(cut(&mut publisher).await, 4);
    for client in &mut clients {
        expect_gap(client, ("disconnected", None, None, None)).await;
    }
    let id = append(&mut publisher, "42", "1").await;
    for client in &mut clients {
        assert_eq!(client.run_event().await.id(), id);
    }
}

/// Only the comparison of positions can show it.
#[tokio::test]
async fn a_lost_last_frame_is_delivered_within_six_seconds_on_every_broker() {
    let mut kept = kept().await;
    kept.publish(3).await;
    let (_brokers, mut clients) = three(&kept).await;
    for client in &mut clients {
        kept.expect(client, 1..4).await;
    }
    let (epoch, seq, us) = parts(kept.id(3));
    let (seq, us) = (seq + 1, us + 5);
    let mut pipe = redis::pipe();
    pipe.atomic()
        .cmd("XADD")
        .arg(STREAM)
        .arg(format!("{seq}-{us}"));
    pipe.arg(&["k", "output", "s", "stdout", "d", "4"]).ignore();
    pipe.cmd("HSET")
        .arg(META)
        .arg("s")
        .arg(seq)
        .arg("u")
        .arg(us)
        .ignore();
    kept.publisher().await.pipeline(&pipe).await;
    let begin = Instant::now();
    for client in &mut clients {
        let frame = client.run_event().await;
        assert_eq!(frame.id(), format!("{epoch}-{seq}-{us}"));
        assert!(
            begin.elapsed() < Duration::from_secs(6),
            "{:?}",
            begin.elapsed()
        );
    }
}

/// A Redis that comes back empty, or is emptied: those who watch and those who
/// come back are told that the old life is over, and get the new one whole.
#[tokio::test]
async fn a_redis_that_lost_its_data_begins_a_new_life() {
    for is_restart in [true, false] {
        let mut kept = kept().await;
        kept.publish(5).await;
        let (brokers, mut clients) = three(&kept).await;
        for client in &mut clients {
            kept.expect(client, 1..6).await;
        }
        if is_restart {
            let redis = kept.redis.as_mut().expect("over Redis");
            redis.kill();
            redis.restart().await;
            for broker in brokers.iter().chain([&kept.broker]) {
                broker.wait_ready().await;
            }
        } else {
            let _: String = kept.publisher().await.command(&["FLUSHALL"]).await;
        }
        // Nothing is missing yet.
        for client in &mut clients {
            expect_silence(client, 200).await;
        }
        let last = kept.id(5).to_owned();
        let new = kept.broker.publish("42", json!("new")).await;
        let next = kept.broker.publish("42", json!("next")).await;
        assert!(parts(&new).0 > parts(&last).0, "a new epoch");
        for client in &mut clients {
            expect_gap(client, ("expired", Some(&last), Some(&new), None)).await;
            assert_eq!(client.run_event().await.id(), new);
            assert_eq!(client.run_event().await.id(), next);
        }
        for broker in brokers.iter().chain([&kept.settings.start_ready().await]) {
            let mut back = broker.resume("42/stream", kept.id(3)).await;
            expect_hello(&mut back, "gap", None).await;
            let (reason, gap) = back.gap().await;
            assert_eq!((&*reason, &gap["before"]), ("expired", &json!(new)));
            assert_eq!(back.run_event().await.id(), new);
            assert_eq!(back.run_event().await.id(), next);
        }
    }
}

/// Evicted, say: its end is known by the meta.
#[tokio::test]
async fn a_stream_deleted_alone_is_a_counted_hole() {
    let mut kept = kept().await;
    kept.publish(10).await;
    let mut watching = kept.broker.follow("42/stream").await;
    kept.expect(&mut watching, 1..11).await;
    let deleted: i64 = kept.publisher().await.command(&["DEL", STREAM]).await;
    assert_eq!(deleted, 1);
    let fresh = kept.settings.start_ready().await;
    let mut back = fresh.resume("42/stream", kept.id(4)).await;
    expect_hello(&mut back, "gap", None).await;
    let told = ("trimmed", Some(kept.id(4)), None, Some(6));
    expect_gap(&mut back, told).await;
    let mut at_end = fresh.resume("42/stream", kept.id(10)).await;
    expect_hello(&mut at_end, "live", Some(kept.id(10))).await;
    let mut new = fresh.stream("42/stream").await;
    assert_eq!(new.preamble().await.hello["resume"], "live");
    kept.publish(2).await;
    for client in [&mut watching, &mut back, &mut at_end, &mut new] {
        kept.expect(client, 11..13).await;
    }
}

/// Without its meta a run begins anew, and its ids never come again.
#[tokio::test]
async fn a_meta_deleted_alone_is_a_new_life() {
    let mut kept = kept().await;
    kept.publish(10).await;
    let mut watching = kept.broker.follow("42/stream").await;
    kept.expect(&mut watching, 1..11).await;
    let deleted: i64 = kept.publisher().await.command(&["DEL", META]).await;
    assert_eq!(deleted, 1);
    let fresh = kept.settings.start_ready().await;
    let mut back = fresh.resume("42/stream", kept.id(4)).await;
    expect_hello(&mut back, "gap", None).await;
    expect_gap(&mut back, ("expired", Some(kept.id(4)), None, None)).await;
    let old = kept.id(10).to_owned();
    kept.ids.clear();
    kept.publish(2).await;
    assert!(parts(kept.id(1)).0 > parts(&old).0, "a new epoch");
    let told = ("expired", Some(&*old), Some(kept.id(1)), None);
    expect_gap(&mut watching, told).await;
    for client in [&mut watching, &mut back] {
        kept.expect(client, 1..3).await;
    }
}

/// A Redis that came back with an older dump: the last events are forgotten,
/// others take their numbers.
struct Rewound {
    kept: Kept,
    /// Events 6 to 10, of the history that was given up.
    forgotten: Vec<String>,
}

impl Rewound {
    /// Publishes ten events, then goes back to the first five; `seen` is called
    /// before that.
    async fn new(mut kept: Kept, seen: impl AsyncFnOnce(&Kept)) -> Self {
        kept.publish_apart(5).await;
        let mut publisher = kept.publisher().await;
        let (stream, meta) = (publisher.dump(STREAM).await, publisher.dump(META).await);
        kept.publish_apart(5).await;
        seen(&kept).await;
        let mut pipe = redis::pipe();
        pipe.atomic();
        for (key, value) in [(STREAM, stream), (META, meta)] {
            pipe.cmd("RESTORE")
                .arg(key)
                .arg(0)
                .arg(value)
                .arg("REPLACE");
            pipe.ignore();
        }
        publisher.pipeline(&pipe).await;
        let forgotten = kept.ids.split_off(5);
        Self { kept, forgotten }
    }
}

#[tokio::test]
async fn an_older_dump_is_told_to_who_watches() {
    // With and without an event that shows it.
    for publishes in [true, false] {
        let kept = kept().await;
        let (_brokers, mut clients) = three(&kept).await;
        let watched = &mut clients;
        let mut scene = Rewound::new(kept, async move |kept| {
            for client in watched {
                kept.expect(client, 1..11).await;
            }
        })
        .await;
        if publishes {
            scene.kept.publish(3).await;
        }
        for client in &mut clients {
            let (reason, gap) = client.gap().await;
            assert_eq!(reason, "rewound");
            assert_eq!(gap["after"], json!(scene.forgotten[4]));
            assert_eq!(gap["missed"], json!(null));
        }
        if !publishes {
            scene.kept.publish(3).await;
        }
        for client in &mut clients {
            scene.kept.expect(client, 6..9).await;
        }
    }
}

#[tokio::test]
async fn an_older_dump_is_told_to_who_comes_back() {
    // On a broker that saw the old history, and on one that did not; before
    // and after others took the numbers.
    for (has_hub, publishes) in [(true, true), (true, false), (false, true), (false, false)] {
        let kept = kept().await;
        let mut watching = kept.broker.follow("42/stream").await;
        let watched = &mut watching;
        let seen = async move |kept: &Kept| kept.expect(watched, 1..11).await;
        let mut scene = Rewound::new(kept, seen).await;
        drop(watching);
        if publishes {
            scene.kept.publish(7).await;
        }
        let fresh = scene.kept.settings.start_ready().await;
        let mut clients = Vec::new();
        for cursor in [&scene.forgotten[1], &scene.forgotten[4]] {
            let broker = if has_hub { &scene.kept.broker } else { &fresh };
            let mut client = broker.resume("42/stream", cursor).await;
            client.preamble().await;
            clients.push((client, cursor.clone()));
        }
        if !publishes {
            scene.kept.publish(7).await;
        }
        for (client, cursor) in &mut clients {
            let what = format!("hub {has_hub}, published {publishes}, after {cursor}");
            // A hub that still has the old history may send the rest of it.
            let mut frame = client.event().await;
            while scene
                .forgotten
                .contains(&frame.id.clone().unwrap_or_default())
            {
                assert!(has_hub, "{what}: {frame:?}");
                frame = client.event().await;
            }
            assert_eq!(frame.event, "gap", "{what}: {frame:?}");
            assert_eq!(frame.json()["reason"], "rewound", "{what}");
            scene.kept.expect(client, 6..13).await;
        }
    }
}

/// Brokers die one after the other, and start again; the client goes on
/// elsewhere with the last id it has.
#[tokio::test]
async fn a_client_hops_over_brokers_that_are_killed() {
    const COUNT: usize = 2000;
    let kept = kept().await;
    let mut publisher = kept.publisher().await;
    let mut last = append(&mut publisher, "42", "0").await;
    let mut brokers = Vec::new();
    for _ in 0..3 {
        brokers.push(kept.settings.start_ready().await);
    }
    let mut client = brokers[0].follow("42/stream").await;
    assert_eq!(client.run_event().await.id(), last);
    let publishing = async {
        for n in 1..COUNT {
            append(&mut publisher, "42", &n.to_string()).await;
        }
    };
    let hopping = async {
        let mut due = 1;
        let mut at = 0;
        let mut kills = 0;
        while due < COUNT {
            match client.next_within(Duration::from_secs(10)).await {
                Next::Frame(frame) => {
                    assert_eq!(frame.payload(), due.to_string(), "{frame:?}");
                    last = frame.id().to_owned();
                    due += 1;
                    if due % 250 == 0 {
                        brokers[at].process.kill();
                    }
                }
                Next::Broken => {
                    kills += 1;
                    brokers[at] = kept.settings.start_ready().await;
                    at = (at + 1) % brokers.len();
                    client = brokers[at].resume("42/stream", &last).await;
                    let preamble = client.preamble().await;
                    assert_eq!(preamble.cursor.as_deref(), Some(&*last));
                    assert_ne!(preamble.hello["resume"], "gap");
                }
                other => panic!("{other:?} where {due} was due"),
            }
        }
        assert!(kills >= 3, "{kills} brokers were killed");
    };
    join(publishing, hopping).await;
}

/// A broker learns of what it missed also where nobody watches: who comes then
/// gets all.
#[tokio::test]
async fn a_hub_that_nobody_watched_through_a_cut_is_whole_again() {
    let mut kept = kept().await;
    let mut client = kept.broker.follow("42/stream").await;
    kept.publish(3).await;
    kept.expect(&mut client, 1..4).await;
    drop(client);
    crate::metrics::wait_sessions(&kept.broker, 0).await;
    let mut publisher = kept.publisher().await;
    let mut pipe = redis::pipe();
    pipe.cmd("CLIENT").arg(&["KILL", "TYPE", "pubsub"]).ignore();
    for n in 4..7 {
        pipe.cmd("FCALL").arg("runcast_publish").arg(2);
        pipe.arg(STREAM).arg(META).arg(&["42", "output", "stdout"]);
        pipe.arg(n).ignore();
    }
    publisher.pipeline(&pipe).await;
    let subscribed = "runcast_redis_subscribes_total";
    eventually("it subscribes anew", Duration::from_secs(10), async || {
        kept.broker.metric(subscribed, &[]).await >= 2.0
    })
    .await;
    let stored: Vec<(String, Vec<String>)> = publisher.command(&["XRANGE", STREAM, "4", "+"]).await;
    let epoch = parts(kept.id(1)).0;
    kept.ids
        .extend(stored.iter().map(|(entry, _)| format!("{epoch}-{entry}")));
    let mut back = kept.broker.resume("42/stream", kept.id(2)).await;
    assert_ne!(back.preamble().await.hello["resume"], "gap");
    kept.expect_on(&mut back, 3).await;
    let mut new = kept.broker.follow("42/stream").await;
    kept.expect(&mut new, 1..8).await;
}
