//! The clients, as `EventSource` is one, and who publishes to them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::Size;
use crate::support::http::Request;
use crate::support::redis::Publisher;
use crate::support::sse::{Next, SseClient};
use crate::support::{Redis, eventually};

/// All runs are published to once in it.
const ROUND: Duration = Duration::from_secs(1);
/// So long may anything that is due take.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Crowd {
    shared: Arc<Shared>,
    publisher: JoinHandle<()>,
    clients: Mutex<Vec<JoinHandle<()>>>,
    size: Size,
}

struct Shared {
    proxy: SocketAddr,
    is_over: AtomicBool,
    /// The publisher has published its last.
    is_finished: AtomicBool,
    /// Rounds published; the number of each run's last event.
    rounds: AtomicU64,
    /// Clients that have had a first `hello`.
    following: AtomicUsize,
    deliveries: AtomicU64,
    /// When a client that had been away was let in.
    returns: Mutex<Vec<Instant>>,
    /// Answers that said `goodbye` before anything else.
    sent_on: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Crowd {
    pub(super) async fn start(redis: &Redis, proxy: SocketAddr, size: Size) -> Self {
        let shared = Arc::new(Shared {
            proxy,
            is_over: AtomicBool::new(false),
            is_finished: AtomicBool::new(false),
            rounds: AtomicU64::new(0),
            following: AtomicUsize::new(0),
            deliveries: AtomicU64::new(0),
            returns: Mutex::default(),
            sent_on: AtomicUsize::new(0),
            failures: Mutex::default(),
        });
        let publishing = publish(Arc::clone(&shared), redis.publisher().await, size.runs);
        let client = |number: usize| {
            let client = Client {
                shared: Arc::clone(&shared),
                run_id: format!("rolling-{}", number % size.runs),
                seen: 0,
                last_id: None,
                retry: Duration::from_secs(1),
            };
            // Not all at one instant: opening is no part of this.
            let start = Duration::from_secs(2) * number as u32 / size.clients as u32;
            tokio::spawn(async move {
                sleep(start).await;
                client.live().await;
            })
        };
        let clients = (0..size.clients).map(client).collect();
        Self {
            clients: Mutex::new(clients),
            publisher: tokio::spawn(publishing),
            shared,
            size,
        }
    }

    pub(super) async fn until_all_follow(&self) {
        eventually("all clients follow", PATIENCE, async || {
            self.check();
            self.shared.following.load(Relaxed) == self.size.clients
        })
        .await;
    }

    /// Publishes no more, and waits until every client has the last event.
    pub(super) async fn finish(&self) {
        self.shared.is_over.store(true, Relaxed);
        let clients = std::mem::take(&mut *self.clients.lock().expect("no holder panics"));
        for client in clients {
            client.await.expect("no client panics");
        }
        assert!(self.publisher.is_finished());
    }

    /// Fails if anything went wrong.
    pub(super) fn check(&self) {
        let failures = self.shared.failures.lock().expect("no holder panics");
        assert!(failures.is_empty(), "{failures:#?}");
    }

    pub(super) fn came_back(&self) -> usize {
        self.shared.returns.lock().expect("no holder panics").len()
    }

    pub(super) fn sent_on(&self) -> usize {
        self.shared.sent_on.load(Relaxed)
    }

    /// Returns how many events were published and read.
    pub(super) fn counts(&self) -> (u64, u64) {
        let events = self.shared.rounds.load(Relaxed) * self.size.runs as u64;
        (events, self.shared.deliveries.load(Relaxed))
    }

    /// Returns the most that came back within any second since `begin`.
    pub(super) fn most_in_a_second(&self, begin: Instant) -> usize {
        let returns = self.shared.returns.lock().expect("no holder panics");
        let times: Vec<_> = returns.iter().filter(|at| **at >= begin).collect();
        let second = Duration::from_secs(1);
        let within = |(index, first): (usize, &&Instant)| {
            times[index..].partition_point(|at| at.duration_since(**first) < second)
        };
        times.iter().enumerate().map(within).max().unwrap_or(0)
    }
}

/// Publishes durably to each run in turn, evenly, until it is over.
async fn publish(shared: Arc<Shared>, mut publisher: Publisher, runs: usize) {
    let begin = Instant::now();
    for round in 1.. {
        for run in 0..runs {
            let due = ROUND * (round - 1) + ROUND * run as u32 / runs as u32;
            sleep(due.saturating_sub(begin.elapsed())).await;
            let keys = ["stream", "meta"].map(|key| format!("run:{{rolling-{run}}}:{key}"));
            let call = ["FCALL", "runcast_publish", "2", &keys[0], &keys[1]];
            let event = [&format!("rolling-{run}"), "output", "s", &round.to_string()];
            let answer: Vec<String> = publisher.command(&[&call[..], &event[..]].concat()).await;
            assert_eq!(answer[0], "OK");
        }
        shared.rounds.store(u64::from(round), Relaxed);
        if shared.is_over.load(Relaxed) {
            return shared.is_finished.store(true, Relaxed);
        }
    }
}

struct Client {
    shared: Arc<Shared>,
    run_id: String,
    /// The number of the last event seen.
    seen: u64,
    last_id: Option<String>,
    retry: Duration,
}

impl Client {
    /// Follows its run, and comes back, until it has its last event.
    async fn live(mut self) {
        let mut is_first = true;
        loop {
            let ended = self.follow(is_first).await;
            is_first = false;
            match ended {
                Ok(true) => return,
                Ok(false) => sleep(self.retry).await,
                Err(what) => {
                    let mut failures = self.shared.failures.lock().expect("no holder panics");
                    return failures.push(format!("{}: {what}", self.run_id));
                }
            }
        }
    }

    /// Follows over one stream; says whether it is done.
    async fn follow(&mut self, is_first: bool) -> Result<bool, String> {
        let path = format!("/api/v1/runs/{}/stream", self.run_id);
        let mut request = Request::get(path).header("Accept", "text/event-stream");
        if let Some(id) = &self.last_id {
            request = request.header("Last-Event-ID", id);
        }
        let opening = timeout(PATIENCE, request.open(self.shared.proxy)).await;
        let answer = opening.map_err(|_| "no answer".to_owned())?;
        let answer = answer.map_err(|error| format!("no answer: {error}"))?;
        if answer.head.status != 200 {
            return Err(format!("answered {}", answer.head.status));
        }
        let mut client = SseClient::of(answer);
        let mut was_let_in = false;
        loop {
            if self.is_done() {
                return Ok(true);
            }
            let next = client.next_within(Duration::from_secs(1)).await;
            let frame = match next {
                Next::Frame(frame) => frame,
                Next::Silence => continue,
                Next::End => return Ok(false),
                Next::Broken => return Err("the stream was cut".to_owned()),
            };
            if let Some(retry) = frame.retry {
                self.retry = Duration::from_millis(retry);
            }
            match frame.event.as_str() {
                "hello" => {
                    was_let_in = true;
                    self.let_in(is_first);
                }
                "gap" => return Err(format!("{frame:?}")),
                "goodbye" if !was_let_in => {
                    self.shared.sent_on.fetch_add(1, Relaxed);
                }
                "output" => {
                    let number = frame.payload().parse().ok();
                    if number != Some(self.seen + 1) {
                        return Err(format!("after {}: {frame:?}", self.seen));
                    }
                    self.seen += 1;
                    self.shared.deliveries.fetch_add(1, Relaxed);
                }
                _ => {}
            }
            if frame.id.is_some() {
                self.last_id = frame.id;
            }
        }
    }

    fn let_in(&self, is_first: bool) {
        if is_first {
            self.shared.following.fetch_add(1, Relaxed);
        } else {
            let mut returns = self.shared.returns.lock().expect("no holder panics");
            returns.push(Instant::now());
        }
    }

    fn is_done(&self) -> bool {
        self.shared.is_finished.load(Relaxed) && self.seen == self.shared.rounds.load(Relaxed)
    }
}
