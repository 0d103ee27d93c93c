//! [`RunPublisher`]: publishes in one run, plainly and durably, one event
//! after the other, and writes down what came of each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::checker::{Outcome, Published, Way};
use super::follower::RunShared;
use crate::support::http::Request;

/// What the broker under test takes at most.
pub(crate) const EVENT_BYTES_MAX: usize = 64 * 1024;

/// How a run is published.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mix {
    Plain,
    Durable,
    Both,
}

/// The one publisher of a run: it waits for each answer, so that the order of
/// what was accepted is known.
pub(crate) struct RunPublisher {
    run: Arc<RunShared>,
    mix: Mix,
    redis_url: String,
    broker: SocketAddr,
    connection: Option<MultiplexedConnection>,
    rng: fastrand::Rng,
}

impl RunPublisher {
    pub(crate) fn new(
        run: &Arc<RunShared>,
        mix: Mix,
        redis_url: String,
        broker: SocketAddr,
        rng: fastrand::Rng,
    ) -> Self {
        Self {
            run: Arc::clone(run),
            mix,
            redis_url,
            broker,
            connection: None,
            rng,
        }
    }

    /// Publishes a little, then pauses a little.
    pub(crate) async fn turn(&mut self) {
        let count = self.rng.usize(1..6);
        let bytes = self.rng.usize(0..400);
        self.publish(count, bytes).await;
        sleep(Duration::from_millis(self.rng.u64(1..15))).await;
    }

    /// Publishes one event all clients must see; returns its number.
    pub(crate) async fn publish_marker(&mut self) -> usize {
        let n = self.run.published();
        let way = match self.mix {
            Mix::Durable => Way::Durable,
            Mix::Plain | Mix::Both => Way::Plain,
        };
        let event = self.next(way, "output", 0);
        self.send(way, &[event]).await;
        n
    }

    /// Publishes one event of `bytes` and some, plainly if the run may have
    /// plain events.
    pub(crate) async fn publish_large(&mut self, bytes: usize) {
        let way = match self.mix {
            Mix::Durable => Way::Durable,
            Mix::Plain | Mix::Both => Way::Plain,
        };
        let bytes = match way {
            // More than this the HTTP body may not have.
            Way::Durable => bytes.min(2 * EVENT_BYTES_MAX),
            Way::Plain => bytes,
        };
        let event = self.next(way, "output", bytes);
        self.send(way, &[event]).await;
    }

    /// Publishes `count` events of `bytes` and some.
    pub(crate) async fn publish(&mut self, count: usize, bytes: usize) {
        let way = match self.mix {
            Mix::Plain => Way::Plain,
            Mix::Durable => Way::Durable,
            Mix::Both if self.rng.bool() => Way::Plain,
            Mix::Both => Way::Durable,
        };
        let events: Vec<NewEvent> = (0..count)
            .map(|_| {
                let kind = ["output", "output", "output", "log", "status"][self.rng.usize(..5)];
                self.next(way, kind, bytes)
            })
            .collect();
        self.send(way, &events).await;
    }

    /// Writes an event into the book, so that it is known before it can come.
    fn next(&self, way: Way, kind: &'static str, bytes: usize) -> NewEvent {
        let mut book = self.run.book.lock().expect("no holder panics");
        let n = book.events.len();
        book.events.push(Published {
            way,
            kind,
            outcome: Outcome::Unsure,
        });
        NewEvent {
            n,
            kind,
            data: json!({"n": n, "text": "x".repeat(bytes)}),
        }
    }

    fn note(&self, n: usize, outcome: Outcome) {
        let mut book = self.run.book.lock().expect("no holder panics");
        book.events[n].outcome = outcome;
    }

    async fn send(&mut self, way: Way, events: &[NewEvent]) {
        match way {
            Way::Plain => self.send_plain(events).await,
            Way::Durable => self.send_durable(events).await,
        }
    }

    async fn send_plain(&mut self, events: &[NewEvent]) {
        let mut pipe = ::redis::pipe();
        for event in events {
            let run_id = &self.run.run_id;
            let channel = match event.kind {
                "status" => format!("run:{run_id}:status"),
                "log" => format!("run:{run_id}:logs:suite"),
                _ => format!("run:{run_id}:output:suite"),
            };
            let payload = event.data.to_string();
            pipe.cmd("PUBLISH").arg(channel).arg(payload).ignore();
        }
        let Some(connection) = self.connection().await else {
            // Never sent.
            return events.iter().for_each(|e| self.note(e.n, Outcome::Refused));
        };
        match pipe.exec_async(connection).await {
            Ok(()) => events
                .iter()
                .for_each(|event| self.note(event.n, Outcome::Accepted(None))),
            // It may have come through or not.
            Err(_) => self.connection = None,
        }
    }

    async fn connection(&mut self) -> Option<&mut MultiplexedConnection> {
        if self.connection.is_none() {
            let config = ::redis::AsyncConnectionConfig::new()
                .set_connection_timeout(Some(Duration::from_secs(2)))
                .set_response_timeout(Some(Duration::from_secs(3)));
            let client = ::redis::Client::open(self.redis_url.as_str()).expect("a URL");
            self.connection = client
                .get_multiplexed_async_connection_with_config(&config)
                .await
                .ok();
        }
        self.connection.as_mut()
    }

    async fn send_durable(&mut self, events: &[NewEvent]) {
        let mut body = String::new();
        for event in events {
            let source = (event.kind != "status").then_some("suite");
            let line = json!({"kind": event.kind, "source": source, "data": event.data});
            let mut line = line;
            if source.is_none() {
                line.as_object_mut().expect("one").remove("source");
            }
            body.push_str(&format!("{line}\n"));
        }
        let path = format!("/api/v1/runs/{}/events", self.run.run_id);
        let request = Request::post(path, "application/x-ndjson", body);
        // The broker is away, and perhaps went after it had published.
        let Ok(response) = request.try_send(self.broker).await else {
            return;
        };
        self.note_answer(events, &response.json());
    }

    /// Reads `ids` and `errors`; what is in neither stays unsure.
    fn note_answer(&self, events: &[NewEvent], answer: &Value) {
        let ids = answer["ids"].as_array().map_or(&[][..], Vec::as_slice);
        for (event, id) in events.iter().zip(ids) {
            if let Some(id) = id.as_str() {
                self.note(event.n, Outcome::Accepted(Some(id.to_owned())));
            }
        }
        for error in answer["errors"].as_array().into_iter().flatten() {
            let index = error["index"].as_u64().expect("an index") as usize;
            let kind = error["type"].as_str().expect("a type");
            if !kind.ends_with("store-unavailable") {
                self.note(events[index].n, Outcome::Refused);
            }
        }
    }
}

struct NewEvent {
    n: usize,
    kind: &'static str,
    data: Value,
}
