//! The publishers of a run: through the function, over HTTP, and by `PUBLISH`.
//! Each writes down what came of every event.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Pipeline, RedisResult, Value};
use tokio::time::{sleep, timeout};

use super::id::Durable;
use super::ledger::{Kinds, Outcome, Way};
use super::run::{Mix, Run, payload};
use super::silent::{SILENT, silent_library};
use crate::support::http::Request;

/// What the brokers under test take at most.
pub(crate) const EVENT_BYTES_MAX: usize = 16 * 1024;

/// The pause before a publisher tries again.
const AGAIN: Duration = Duration::from_millis(30);

/// Publishes in one run until told to stop.
pub(crate) struct Publisher {
    run: Rc<Run>,
    route: Route,
    link: Link,
    rng: fastrand::Rng,
}

/// How it publishes.
pub(crate) enum Route {
    Plain,
    Post { brokers: Vec<SocketAddr> },
    Function { number: u64, history_max: usize },
}

impl Publisher {
    /// `redis_url` leads to whichever server is the master.
    pub(crate) fn new(run: &Rc<Run>, route: Route, redis_url: String, rng: fastrand::Rng) -> Self {
        Self {
            run: Rc::clone(run),
            route,
            link: Link {
                url: redis_url,
                connection: None,
            },
            rng,
        }
    }

    /// Publishes a little, pauses a little, until the run is not live any more.
    pub(crate) async fn run(mut self) -> Self {
        while self.run.is_live.get() {
            let burst = self.run.burst.take();
            let count = if burst > 0 {
                burst
            } else {
                self.rng.usize(1..8)
            };
            let bytes = match self.rng.u8(..100) {
                0 => EVENT_BYTES_MAX + 1,
                1..10 => self.rng.usize(..2000),
                _ => self.rng.usize(..200),
            };
            self.publish(count, bytes).await;
            sleep(Duration::from_millis(self.rng.u64(10..60))).await;
        }
        self
    }

    /// Whether nothing of its run is promised to arrive.
    pub(crate) fn is_plain_run(&self) -> bool {
        self.run.mix == Mix::Plain
    }

    /// Publishes what ends the run for its clients, if that is up to this one:
    /// an event that all of them must see, and perhaps the status after it.
    pub(crate) async fn publish_last(&mut self) {
        let is_own = match self.route {
            Route::Plain => self.is_plain_run(),
            Route::Post { .. } => false,
            Route::Function { .. } => true,
        };
        if !is_own {
            return;
        }
        let n = self.open(Kinds::OUTPUT);
        self.run.last.set(n);
        // Nothing comes after it that would show that it was missed.
        let is_silent = self.rng.bool();
        self.send(&[n], 0, is_silent).await;
        if !self.run.ends {
            return;
        }
        let n = self.open(Kinds::STATUS);
        let data = format!("{{\"n\":{n},\"status\":\"completed\"}}");
        self.send_all(&[(n, data)], is_silent).await;
    }

    async fn publish(&mut self, count: usize, bytes: usize) {
        if let Route::Function { number, .. } = &mut self.route
            && self.rng.u8(..40) == 0
        {
            // Numbered, and lost before they got through.
            *number += self.rng.u64(1..5);
        }
        let events: Vec<usize> = (0..count)
            .map(|_| {
                let kind = match self.rng.u8(..5) {
                    0 => Kinds::LOG,
                    1 => Kinds::STATUS,
                    _ => Kinds::OUTPUT,
                };
                self.open(kind)
            })
            .collect();
        let is_silent = self.rng.u8(..10) == 0;
        for part in events.chunks(200) {
            self.send(part, bytes, is_silent).await;
        }
    }

    fn open(&mut self, kind: Kinds) -> usize {
        let way = match &mut self.route {
            Route::Plain => Way::Plain,
            Route::Post { .. } => Way::Post,
            Route::Function { number, .. } => {
                *number += 1;
                Way::Function { number: *number }
            }
        };
        self.run.ledger.borrow_mut().open(way, kind)
    }

    fn close(&self, n: usize, outcome: Outcome) {
        self.run.ledger.borrow_mut().close(n, outcome);
    }

    fn kind(&self, n: usize) -> Kinds {
        self.run.ledger.borrow().events[n].kind
    }

    async fn send(&mut self, events: &[usize], bytes: usize, is_silent: bool) {
        let events: Vec<(usize, String)> =
            events.iter().map(|n| (*n, payload(*n, bytes))).collect();
        self.send_all(&events, is_silent).await;
    }

    async fn send_all(&mut self, events: &[(usize, String)], is_silent: bool) {
        match &self.route {
            Route::Plain => self.send_plain(events).await,
            Route::Post { brokers } => {
                let broker = brokers[self.rng.usize(..brokers.len())];
                self.send_post(events, broker).await;
            }
            Route::Function { .. } => self.send_function(events, is_silent).await,
        }
    }

    async fn send_plain(&mut self, events: &[(usize, String)]) {
        let mut pipe = ::redis::pipe();
        for (n, data) in events {
            let run_id = &self.run.id;
            let channel = match self.kind(*n) {
                Kinds::STATUS => format!("run:{run_id}:status"),
                Kinds::LOG => format!("run:{run_id}:logs:suite"),
                _ => format!("run:{run_id}:output:suite"),
            };
            pipe.cmd("PUBLISH").arg(channel).arg(data);
        }
        let answers = self.link.ask(&pipe).await;
        for (index, (n, _)) in events.iter().enumerate() {
            let outcome = match answers.get(index) {
                Some(Ok(_)) => Outcome::Accepted(None),
                // It may have come through or not.
                _ => Outcome::Unsure,
            };
            self.close(*n, outcome);
        }
    }

    async fn send_post(&mut self, events: &[(usize, String)], broker: SocketAddr) {
        let mut body = String::new();
        for (n, data) in events {
            let kind = self.kind(*n).word();
            body.push_str(&format!("{{\"kind\":\"{kind}\",\"data\":{data}}}\n"));
        }
        let path = format!("/api/v1/runs/{}/events", self.run.id);
        let request = Request::post(path, "application/x-ndjson", body);
        // The broker may be away, and may have published before it went.
        let answer = timeout(Duration::from_secs(8), request.try_send(broker)).await;
        let Ok(Ok(response)) = answer else {
            return;
        };
        let answer = response.json();
        let ids = answer["ids"].as_array().map_or(&[][..], Vec::as_slice);
        for ((n, _), id) in events.iter().zip(ids) {
            if let Some(id) = id.as_str() {
                self.close(*n, Outcome::Accepted(Durable::parse(id)));
            }
        }
        for error in answer["errors"].as_array().into_iter().flatten() {
            let index = error["index"].as_u64().expect("an index") as usize;
            let kind = error["type"].as_str().expect("a type");
            if !kind.ends_with("store-unavailable") {
                self.close(events[index].0, Outcome::Refused);
            }
        }
    }

    /// Sends what is not answered yet, in order, until all is.
    async fn send_function(&mut self, events: &[(usize, String)], is_silent: bool) {
        let mut open: Vec<&(usize, String)> = events.iter().collect();
        let restarts = self.run.restart.take();
        while !open.is_empty() {
            let is_first = open.len() == events.len();
            let pipe = self.calls(&open, is_silent, restarts && is_first);
            let answers = self.link.ask(&pipe).await;
            let mut left = Vec::new();
            for (index, event) in open.iter().enumerate() {
                match answers.get(index).map(read_answer) {
                    Some(Some(outcome)) => self.close(event.0, outcome),
                    _ => left.push(*event),
                }
            }
            open = left;
            if !open.is_empty() {
                sleep(AGAIN).await;
                self.link.load_silent().await;
            }
        }
    }

    fn calls(&self, events: &[&(usize, String)], is_silent: bool, restarts: bool) -> Pipeline {
        let Route::Function { history_max, .. } = self.route else {
            unreachable!("only called for this route");
        };
        let function = if is_silent { SILENT } else { "runcast_publish" };
        let ledger = self.run.ledger.borrow();
        let mut pipe = ::redis::pipe();
        for (index, (n, data)) in events.iter().enumerate() {
            let event = &ledger.events[*n];
            let Way::Function { number } = event.way else {
                unreachable!("opened by this publisher");
            };
            pipe.cmd("FCALL")
                .arg(function)
                .arg(2)
                .arg(self.run.stream_key())
                .arg(self.run.meta_key())
                .arg(&self.run.id)
                .arg(event.kind.word())
                .arg(if event.kind == Kinds::STATUS {
                    ""
                } else {
                    "suite"
                })
                .arg(data)
                .arg("MAXLEN")
                .arg(history_max)
                .arg("MAXEVENT")
                .arg(EVENT_BYTES_MAX)
                .arg("GRACE")
                .arg(200)
                .arg("PRODUCER")
                .arg("suite")
                .arg(1)
                .arg(number);
            if restarts && index == 0 {
                pipe.arg("RESTART");
            }
        }
        pipe
    }
}

/// Reads an answer of the function; `None` if it has to be asked again.
fn read_answer(answer: &RedisResult<Value>) -> Option<Outcome> {
    let words: Vec<String> = ::redis::from_redis_value_ref(answer.as_ref().ok()?).ok()?;
    let detail = words.get(1).map_or("", String::as_str);
    Some(match words.first()?.as_str() {
        "OK" | "DUP" => Outcome::Accepted(Durable::parse(detail)),
        _ => Outcome::Refused,
    })
}

/// A connection to Redis that is made anew when it broke.
struct Link {
    url: String,
    connection: Option<MultiplexedConnection>,
}

impl Link {
    /// Runs a pipeline; fewer answers than commands if the connection broke.
    async fn ask(&mut self, pipe: &Pipeline) -> Vec<RedisResult<Value>> {
        let Some(connection) = self.connection().await else {
            return Vec::new();
        };
        let mut pipe = pipe.clone();
        pipe.ignore_errors();
        match pipe.query_async(connection).await {
            Ok(answers) => {
                let answers: Vec<RedisResult<Value>> = answers;
                if answers.iter().any(Result::is_err) {
                    // Perhaps a replica by now.
                    self.connection = None;
                }
                answers
            }
            Err(_) => {
                self.connection = None;
                Vec::new()
            }
        }
    }

    async fn connection(&mut self) -> Option<&mut MultiplexedConnection> {
        if self.connection.is_none() {
            let config = ::redis::AsyncConnectionConfig::new()
                .set_connection_timeout(Some(Duration::from_secs(2)))
                .set_response_timeout(Some(Duration::from_secs(2)));
            let client = ::redis::Client::open(self.url.as_str()).expect("a URL");
            self.connection = client
                .get_multiplexed_async_connection_with_config(&config)
                .await
                .ok();
        }
        self.connection.as_mut()
    }

    /// Loads the silent twin of the function, unless it is there.
    async fn load_silent(&mut self) {
        let mut pipe = ::redis::pipe();
        pipe.cmd("FUNCTION").arg("LOAD").arg(silent_library());
        // It may be there already; if not, the next call finds out.
        let _ = self.ask(&pipe).await;
    }
}
