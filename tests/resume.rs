//! Coming back: cursors, where they may stand, and what is told when they
//! lead nowhere.

use futures_util::future::{join, join_all};
use serde_json::Value;

use crate::support::http::Request;
use crate::support::redis::Publisher;
use crate::support::{Broker, Frame, Redis, SseClient};

const RUN: &str = "/api/v1/runs/42/stream";

struct Scene {
    _redis: Redis,
    broker: Broker,
    publisher: Publisher,
    /// What a client that saw everything got.
    events: Vec<Frame>,
}

impl Scene {
    /// A run of which `n` plain events, 0 to n - 1, were seen.
    async fn with_events(n: usize) -> Self {
        let redis = Redis::start().await;
        let broker = Broker::redis(&redis).start_ready().await;
        let mut publisher = redis.publisher().await;
        let mut client = broker.follow("42/stream").await;
        for n in 0..n {
            publisher
                .publish("run:42:output:stdout", n.to_string())
                .await;
        }
        let events = client.run_events(n).await;
        Self {
            _redis: redis,
            broker,
            publisher,
            events,
        }
    }

    fn id(&self, n: usize) -> &str {
        self.events[n].id()
    }

    async fn request(&self, request: Request) -> SseClient {
        SseClient::request(self.broker.addr, &request).await
    }

    /// Expects exactly the events from `first` on, then a live one.
    async fn expect_from(&mut self, client: &mut SseClient, first: usize) {
        for frame in &self.events[first..] {
            assert_eq!(&client.run_event().await, frame);
        }
        self.publisher
            .publish("run:42:output:stdout", "\"live\"")
            .await;
        let live = client.run_event().await;
        assert_eq!(live.payload(), "\"live\"");
        self.events.push(live);
    }
}

/// From every single position: no event twice, none missing, frames unchanged.
#[tokio::test]
async fn resume_from_the_ring_is_exact_at_every_position() {
    let mut scene = Scene::with_events(30).await;
    for n in 0..30 {
        let request = Request::get(RUN).header("Last-Event-ID", scene.id(n));
        let mut client = scene.request(request).await;
        let preamble = client.preamble().await;
        assert_eq!(preamble.cursor.as_deref(), Some(scene.id(n)));
        assert_eq!(preamble.hello["resume"], "replay");
        scene.expect_from(&mut client, n + 1).await;
    }
}

#[tokio::test]
async fn a_cursor_is_taken_from_wherever_clients_put_it() {
    let mut scene = Scene::with_events(10).await;
    for name in ["last_event_id", "lastEventId", "from"] {
        let path = format!("{RUN}?{name}={}", scene.id(6));
        let mut client = scene.request(Request::get(path)).await;
        client.preamble().await;
        scene.expect_from(&mut client, 7).await;
    }
}

#[tokio::test]
async fn the_last_event_id_header_wins() {
    let mut scene = Scene::with_events(10).await;
    for name in ["last_event_id", "lastEventId", "from"] {
        let path = format!("{RUN}?{name}={}", scene.id(1));
        let request = Request::get(path).header("Last-Event-ID", scene.id(7));
        let mut client = scene.request(request).await;
        client.preamble().await;
        scene.expect_from(&mut client, 8).await;
    }
    // An EventSource keeps its URL, `from=now` too, and adds the header.
    let request = Request::get(format!("{RUN}?from=now")).header("Last-Event-ID", scene.id(7));
    let mut client = scene.request(request).await;
    client.preamble().await;
    scene.expect_from(&mut client, 8).await;
}

#[tokio::test]
async fn an_empty_cursor_is_none() {
    let mut scene = Scene::with_events(4).await;
    for request in [
        Request::get(RUN).header("Last-Event-ID", ""),
        Request::get(format!("{RUN}?last_event_id=")),
        Request::get(format!("{RUN}?lastEventId=")),
        Request::get(format!("{RUN}?from=")),
    ] {
        let mut client = scene.request(request).await;
        let preamble = client.preamble().await;
        assert_eq!(preamble.hello["resume"], "replay");
        scene.expect_from(&mut client, 0).await;
    }
}

#[tokio::test]
async fn from_chooses_where_a_stream_begins() {
    let mut scene = Scene::with_events(10).await;
    for (from, first) in [("start", 0), ("-3", 7), ("-1000", 0)] {
        let skipped = scene.events.len() - 10;
        let first = if from == "-3" { first + skipped } else { first };
        let mut client = scene
            .request(Request::get(format!("{RUN}?from={from}")))
            .await;
        client.preamble().await;
        scene.expect_from(&mut client, first).await;
    }
    let mut client = scene.request(Request::get(format!("{RUN}?from=now"))).await;
    let preamble = client.preamble().await;
    assert_eq!(preamble.hello["resume"], "live");
    let last = scene.events.len() - 1;
    assert_eq!(preamble.cursor.as_deref(), Some(scene.id(last)));
    scene.expect_from(&mut client, last + 1).await;
}

/// The position told before the first event is good to come back with.
#[tokio::test]
async fn a_client_that_drops_before_its_first_event_misses_nothing() {
    let mut scene = Scene::with_events(3).await;
    let mut client = scene.request(Request::get(format!("{RUN}?from=now"))).await;
    let cursor = client.preamble().await.cursor.expect("a known position");
    drop(client);
    let mut witness = scene.request(Request::get(format!("{RUN}?from=now"))).await;
    witness.preamble().await;
    scene
        .publisher
        .publish("run:42:output:stdout", "\"meanwhile\"")
        .await;
    witness.run_event().await;
    let mut back = scene
        .request(Request::get(format!("{RUN}?from=now")).header("Last-Event-ID", &*cursor))
        .await;
    back.preamble().await;
    assert_eq!(back.run_event().await.payload(), "\"meanwhile\"");
}

#[tokio::test]
async fn a_malformed_cursor_is_a_gap_then_everything_kept() {
    let mut scene = Scene::with_events(3).await;
    let long = "9".repeat(5000);
    for (n, request) in [
        Request::get(RUN).header("Last-Event-ID", "garbage"),
        Request::get(RUN).header("Last-Event-ID", "1-2"),
        Request::get(RUN).header("Last-Event-ID", "<script>"),
        Request::get(RUN).header("Last-Event-ID", "~zz-1"),
        Request::get(RUN).header("Last-Event-ID", long),
        // A cursor of the kubectl backend means nothing here.
        Request::get(RUN).header("Last-Event-ID", "k00000000000000ff-1795464000123456789-0"),
        Request::get(format!("{RUN}?last_event_id=garbage")),
        Request::get(format!("{RUN}?lastEventId=%0d%0aid:%20x")),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = scene.request(request).await;
        let preamble = client.preamble().await;
        assert_eq!(preamble.hello["resume"], "gap", "case {n}");
        let (reason, gap) = client.gap().await;
        assert_eq!(reason, "bad_cursor", "case {n}");
        assert_eq!(gap["missed"], Value::Null);
        scene.expect_from(&mut client, 0).await;
    }
}

#[tokio::test]
async fn only_a_malformed_from_is_an_error() {
    let scene = Scene::with_events(1).await;
    for from in ["garbage", "-", "-x", "--1", "1.5", "NOW"] {
        let response = scene.broker.get(&format!("{RUN}?from={from}")).await;
        let problem = response.problem(400);
        let detail = problem["detail"].as_str().expect("text");
        assert!(detail.contains("from"), "names the key: {detail}");
    }
}

/// A plain id of another broker's hub: told as `restarted`, then all there is.
#[tokio::test]
async fn a_plain_cursor_of_another_broker_is_told_as_restarted() {
    let redis = Redis::start().await;
    let settings = Broker::redis(&redis);
    let (one, two) = (settings.start_ready().await, settings.start_ready().await);
    let mut publisher = redis.publisher().await;
    let mut client = one.follow("42/stream").await;
    for n in 0..3 {
        publisher
            .publish("run:42:output:stdout", n.to_string())
            .await;
    }
    let events = client.run_events(3).await;
    let mut moved = two.resume("42/stream", events[1].id()).await;
    assert_eq!(moved.preamble().await.hello["resume"], "gap");
    assert_eq!(moved.gap().await.0, "restarted");
    for n in 0..3 {
        assert_eq!(moved.run_event().await.payload(), n.to_string());
    }
    publisher.publish("run:42:output:stdout", "3").await;
    assert_eq!(moved.run_event().await.payload(), "3");
}

/// A hub goes some time after its last client and event; its ids go with it.
#[tokio::test]
async fn a_plain_cursor_of_a_hub_that_is_gone_is_told_as_restarted() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("hub.idle_ttl", "1s")
        .start_ready()
        .await;
    let mut publisher = redis.publisher().await;
    let mut client = broker.follow("42/stream").await;
    publisher.publish("run:42:output:stdout", "1").await;
    let event = client.run_event().await;
    drop(client);
    broker.wait_metric("runcast_hubs", &[], 0.0).await;
    let mut back = broker.resume("42/stream", event.id()).await;
    assert_eq!(back.preamble().await.hello["resume"], "gap");
    assert_eq!(back.gap().await.0, "restarted");
    publisher.publish("run:42:output:stdout", "2").await;
    assert_eq!(back.run_event().await.payload(), "2");
}

/// No hub gave such an id; that something is wrong must be told.
#[tokio::test]
async fn a_plain_cursor_ahead_of_its_hub_is_a_gap() {
    let mut scene = Scene::with_events(3).await;
    let (hub, _) = scene.id(0).split_once('-').expect("~<hub>-<n>");
    let request = Request::get(RUN).header("Last-Event-ID", format!("{hub}-77"));
    let mut client = scene.request(request).await;
    assert_eq!(client.preamble().await.hello["resume"], "gap");
    let (reason, _) = client.gap().await;
    assert!(matches!(&*reason, "rewound" | "restarted"), "{reason}");
    scene
        .publisher
        .publish("run:42:output:stdout", "\"after\"")
        .await;
    loop {
        if client.run_event().await.payload() == "\"after\"" {
            break;
        }
    }
}

/// A ring smaller than the run: a new client starts at the oldest without a
/// gap, one that comes back from before it is told how many are missing.
#[tokio::test]
async fn what_fell_off_the_ring_is_counted() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("limits.max_event_bytes", "16KiB")
        .set("hub.ring_bytes", "64KiB")
        .start_ready()
        .await;
    let mut publisher = redis.publisher().await;
    let mut client = broker.follow("42/stream").await;
    let text = "x".repeat(1000);
    let mut events = Vec::new();
    for n in 0..300 {
        publisher
            .publish("run:42:output:stdout", format!("[{n},\"{text}\"]"))
            .await;
        events.push(client.run_event().await);
    }

    let mut new = broker.stream("42/stream").await;
    assert_eq!(new.preamble().await.hello["resume"], "replay");
    let oldest = new.run_event().await;
    let position = events.iter().position(|frame| *frame == oldest);
    let position = position.expect("the oldest kept is one of those sent");
    assert!(
        (200..295).contains(&position),
        "64 KiB keep {position}..300"
    );
    for frame in &events[position + 1..] {
        assert_eq!(&new.run_event().await, frame);
    }

    // Another worker may keep a segment more or less.
    let mut back = broker.resume("42/stream", events[10].id()).await;
    assert_eq!(back.preamble().await.hello["resume"], "gap");
    let (reason, gap) = back.gap().await;
    assert_eq!(reason, "trimmed");
    assert_eq!(gap["after"], events[10].id());
    let position = events.iter().position(|frame| gap["before"] == frame.id());
    let position = position.expect("one of those sent");
    assert_eq!(gap["missed"], position - 11);
    for frame in &events[position..] {
        assert_eq!(&back.run_event().await, frame);
    }
}

/// Clients that drop and come back all the time while events flow.
#[tokio::test]
async fn coming_and_going_under_load_loses_and_doubles_nothing() {
    const COUNT: u64 = 5000;
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("hub.ring_bytes", "16MiB")
        .start_ready()
        .await;
    let mut publisher = redis.publisher().await;
    let publishing = async {
        for n in 0..COUNT {
            publisher
                .publish("run:42:output:stdout", n.to_string())
                .await;
        }
    };
    let clients = (0..8).map(|seed| {
        let broker = &broker;
        async move {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut client = broker.follow("42/stream").await;
            for due in 0..COUNT {
                let frame = client.run_event().await;
                assert_eq!(frame.payload(), due.to_string(), "seed {seed}");
                if random.u32(..50) == 0 {
                    client = broker.resume("42/stream", frame.id()).await;
                    client.preamble().await;
                }
            }
        }
    });
    join(publishing, join_all(clients)).await;
}

/// Each client comes back the moment it has the newest event, most likely on
/// another worker, to which that event may still be on its way.
#[tokio::test]
async fn coming_back_at_once_finds_each_worker_up_to_date() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("server.workers", 4)
        .start_ready()
        .await;
    let mut publisher = redis.publisher().await;
    let mut clients = Vec::new();
    for _ in 0..12 {
        clients.push(broker.follow("42/stream").await);
    }
    for n in 0..200 {
        publisher
            .publish("run:42:output:stdout", n.to_string())
            .await;
        let hops = clients.iter_mut().map(async |client| {
            let frame = client.run_event().await;
            assert_eq!(frame.payload(), n.to_string());
            *client = broker.resume("42/stream", frame.id()).await;
            let preamble = client.preamble().await;
            assert_eq!(preamble.hello["resume"], "live", "after {n}");
        });
        join_all(hops).await;
    }
}
