//! [`Kept`]: a run whose durable events lie in the store and in no broker's
//! memory.

use std::ops::Range;

use serde_json::{Value, json};

use super::broker::{BrokerSettings, accepted_ids};
use super::http::Request;
use super::redis::{Publisher, Redis};
use super::sse::gap_of;
use super::{Broker, SseClient};

/// Which store a test runs over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    Redis,
    Embedded,
}

/// Both, for tests that hold over each.
pub(crate) const BOTH: [Store; 2] = [Store::Redis, Store::Embedded];

/// Run `42`, with events whose data are their numbers, from 1 on.
pub(crate) struct Kept {
    /// Absent over the store in memory.
    pub(crate) redis: Option<Redis>,
    pub(crate) settings: BrokerSettings,
    /// A broker whose memory holds nothing of the run.
    pub(crate) broker: Broker,
    /// The id of event `n` is at `n - 1`.
    pub(crate) ids: Vec<String>,
}

impl Kept {
    /// Publishes `count` events, then starts a broker that has seen none of
    /// them; in memory, where brokers share nothing, it forgets the run's hub.
    pub(crate) async fn with(
        store: Store,
        count: usize,
        settings: impl FnOnce(BrokerSettings) -> BrokerSettings,
    ) -> Self {
        let mut kept = Self::empty(store, settings).await;
        kept.publish(count).await;
        kept.forget().await;
        kept
    }

    /// A run that was never published to.
    pub(crate) async fn empty(
        store: Store,
        settings: impl FnOnce(BrokerSettings) -> BrokerSettings,
    ) -> Self {
        let (redis, known) = match store {
            Store::Redis => {
                let redis = Redis::start().await;
                let settings = Broker::redis(&redis);
                (Some(redis), settings)
            }
            Store::Embedded => (None, Broker::embedded().set("hub.idle_ttl", "1s")),
        };
        let settings = settings(known);
        let broker = settings.start_ready().await;
        Self {
            redis,
            settings,
            broker,
            ids: Vec::new(),
        }
    }

    /// Publishes `count` more events one by one, so that no two are of one µs;
    /// returns their numbers.
    pub(crate) async fn publish_apart(&mut self, count: usize) -> Range<usize> {
        let first = self.ids.len() + 1;
        for _ in 0..count {
            self.publish(1).await;
        }
        first..first + count
    }

    /// Publishes `count` more events in one post; returns their numbers.
    pub(crate) async fn publish(&mut self, count: usize) -> Range<usize> {
        let first = self.ids.len() + 1;
        let numbers = first..first + count;
        let ids = publish_numbers(&self.broker, "42", numbers.clone()).await;
        self.ids.extend(ids);
        numbers
    }

    /// Has the broker's memory hold nothing of the run.
    pub(crate) async fn forget(&mut self) {
        match self.redis {
            Some(_) => self.broker = self.settings.start_ready().await,
            None => self.broker.wait_metric("runcast_hubs", &[], 0.0).await,
        }
    }

    /// Has the store keep the last `count` events only. The one in memory does
    /// by `history.max_events`, to which this must be equal; Redis trims in
    /// its own time, unless it is told to.
    pub(crate) async fn trim(&self, count: usize) {
        if self.redis.is_some() {
            let count = count.to_string();
            let trim = ["XTRIM", "run:{42}:stream", "MAXLEN", "=", &count];
            let _: i64 = self.publisher().await.command(&trim).await;
        }
    }

    pub(crate) async fn publisher(&self) -> Publisher {
        let redis = self.redis.as_ref().expect("over Redis only");
        redis.publisher().await
    }

    /// The id of event `n`.
    pub(crate) fn id(&self, n: usize) -> &str {
        &self.ids[n - 1]
    }

    /// Expects exactly these events, each under its id.
    pub(crate) async fn expect(&self, client: &mut SseClient, numbers: Range<usize>) {
        for n in numbers {
            let frame = client.run_event().await;
            assert_eq!(frame.payload(), n.to_string());
            assert_eq!(frame.id(), self.id(n));
        }
    }

    /// Expects the events from `first` on, then one that is published now.
    pub(crate) async fn expect_on(&mut self, client: &mut SseClient, first: usize) {
        self.publish(1).await;
        let end = self.ids.len() + 1;
        self.expect(client, first..end).await;
    }
}

/// Publishes outputs whose data are `numbers` in one post; returns their ids.
pub(crate) async fn publish_numbers(
    broker: &Broker,
    run_id: &str,
    numbers: Range<usize>,
) -> Vec<String> {
    let line = |n| json!({"kind": "output", "source": "stdout", "data": n}).to_string();
    let lines: Vec<String> = numbers.map(line).collect();
    let path = format!("/api/v1/runs/{run_id}/events");
    let request = Request::post(path, "application/x-ndjson", lines.join("\n"));
    let response = request.send(broker.addr).await;
    assert_eq!(response.status(), 202, "{}", response.text());
    accepted_ids(&response)
}

/// Publishes an output as an agent does that knows the function; returns its
/// id.
pub(crate) async fn append(publisher: &mut Publisher, run_id: &str, data: &str) -> String {
    let (stream, meta) = (
        format!("run:{{{run_id}}}:stream"),
        format!("run:{{{run_id}}}:meta"),
    );
    let call = ["FCALL", "runcast_publish", "2", &stream, &meta, run_id];
    let event = ["output", "stdout", data];
    let answer: Vec<String> = publisher.command(&[call.as_slice(), &event].concat()).await;
    assert_eq!(answer[0], "OK", "{answer:?}");
    answer[1].clone()
}

/// The parts of a durable id: epoch, seq, µs.
pub(crate) fn parts(id: &str) -> (u64, u64, u64) {
    let mut parts = id.split('-').map(|part| part.parse().expect("a number"));
    let mut part = || parts.next().expect("<epoch>-<seq>-<us>");
    (part(), part(), part())
}

/// What a gap must say: reason, `after`, `before`, `missed`.
pub(crate) type Told<'a> = (&'a str, Option<&'a str>, Option<&'a str>, Option<u64>);

/// Expects a gap that says exactly this next.
pub(crate) async fn expect_gap(client: &mut SseClient, told: Told<'_>) {
    let frame = client.event().await;
    let (_, gap) = gap_of(&frame);
    let (reason, after, before, missed) = told;
    let expected: Value =
        json!({"after": after, "before": before, "missed": missed, "reason": reason});
    assert_eq!(gap, expected);
}

/// Reads the preamble; `resume` and `cursor` of its `hello` must be these.
pub(crate) async fn expect_hello(client: &mut SseClient, resume: &str, cursor: Option<&str>) {
    let preamble = client.preamble().await;
    assert_eq!(preamble.hello["resume"], resume, "{}", preamble.hello);
    assert_eq!(preamble.cursor.as_deref(), cursor);
}
