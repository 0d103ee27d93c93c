//! The good: publishers, and clients that come and go and miss nothing.
//!
//! A slot is a place for one run after the other (`good-<slot>-<generation>`),
//! each of [`RUN_EVENTS`] events. A client stays at its slot.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::Value;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::World;
use crate::report;
use crate::support::http::Request;
use crate::support::redis::Publisher;
use crate::support::sse::Next;
use crate::support::token::{claims_but, now, token};
use crate::support::{Frame, Redis, SseClient};

const SLOTS: u64 = 20;
/// Events of a run before the status that ends it.
const RUN_EVENTS: u64 = 150;
/// One slot's turn comes with each.
const TURN: Duration = Duration::from_millis(40);
/// So long may anything that is due take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Good clients of one address.
const PER_ADDRESS: u64 = 100;

/// All good publishers and clients.
pub(super) struct Crowd {
    shared: Arc<Shared>,
    world: Arc<World>,
    publisher: JoinHandle<()>,
    clients: Vec<JoinHandle<()>>,
}

struct Shared {
    /// The generation that is each slot's last; 0 while it is not known.
    last: Vec<AtomicU64>,
    published: AtomicU64,
    streams: AtomicU64,
    deliveries: AtomicU64,
    ends: AtomicU64,
    /// The longest time that a stream took to open, in ms.
    slowest_open: AtomicU64,
}

impl Crowd {
    pub(super) async fn start(
        world: &Arc<World>,
        redis: &Redis,
        clients: u64,
        mut rng: fastrand::Rng,
    ) -> Self {
        let shared = Arc::new(Shared {
            last: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            published: AtomicU64::new(0),
            streams: AtomicU64::new(0),
            deliveries: AtomicU64::new(0),
            ends: AtomicU64::new(0),
            slowest_open: AtomicU64::new(0),
        });
        let publishing = publish(
            Arc::clone(world),
            Arc::clone(&shared),
            redis.publisher().await,
            rng.fork(),
        );
        let client = |number: u64| {
            let client = Client::new(world, &shared, number, rng.fork());
            tokio::spawn(client.live())
        };
        Self {
            clients: (0..clients).map(client).collect(),
            publisher: tokio::spawn(publishing),
            shared,
            world: Arc::clone(world),
        }
    }

    /// Ends every run; every client must reach the end of its last one.
    pub(super) async fn check_and_stop(self) {
        self.world.is_over.store(true, Ordering::Relaxed);
        self.publisher.await.expect("the publisher does not panic");
        for client in self.clients {
            client.await.expect("no good client panics");
        }
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let shared = &self.shared;
        report(&format!("published            {}", of(&shared.published)));
        report(&format!("good streams         {}", of(&shared.streams)));
        report(&format!("good deliveries      {}", of(&shared.deliveries)));
        report(&format!("ends reached         {}", of(&shared.ends)));
        report(&format!(
            "slowest to open      {} ms",
            of(&shared.slowest_open)
        ));
        assert!(of(&shared.deliveries) > of(&shared.published), "no load");
    }
}

fn run_id(slot: u64, generation: u64) -> String {
    format!("good-{slot}-{generation}")
}

/// Returns the payload of an event, as it is published and must come.
fn payload(run_id: &str, seq: u64) -> String {
    let letter = char::from(b'a' + (seq % 26) as u8).to_string();
    let text = letter.repeat(20 + (seq * 37 % 300) as usize);
    json!({"run": run_id, "n": seq, "text": text}).to_string()
}

async fn publish(
    world: Arc<World>,
    shared: Arc<Shared>,
    mut publisher: Publisher,
    mut rng: fastrand::Rng,
) {
    let mut slots = vec![(1, 0); SLOTS as usize];
    for turn in 0.. {
        if !world.goes_on() {
            break;
        }
        let slot = turn % SLOTS;
        let (generation, seq) = &mut slots[slot as usize];
        let burst = if rng.u8(..20) == 0 { 10 } else { 1 };
        for _ in 0..burst {
            let run = run_id(slot, *generation);
            *seq += 1;
            publish_one(&mut publisher, &shared, &run, *seq).await;
            if *seq > RUN_EVENTS {
                (*generation, *seq) = (*generation + 1, 0);
            }
        }
        sleep(TURN).await;
    }
    for (slot, (generation, seq)) in slots.into_iter().enumerate() {
        let run = run_id(slot as u64, generation);
        for seq in seq + 1..=RUN_EVENTS + 1 {
            publish_one(&mut publisher, &shared, &run, seq).await;
        }
        shared.last[slot].store(generation, Ordering::Relaxed);
    }
}

/// Publishes the event of this number; the one past [`RUN_EVENTS`] is the end.
async fn publish_one(publisher: &mut Publisher, shared: &Shared, run: &str, seq: u64) {
    let (stream, meta) = (
        format!("run:{{{run}}}:stream"),
        format!("run:{{{run}}}:meta"),
    );
    let (kind, source, payload) = match seq > RUN_EVENTS {
        true => ("status", "", "\"completed\"".to_owned()),
        false => ("output", "stdout", payload(run, seq)),
    };
    let call = ["FCALL", "runcast_publish", "2", &stream, &meta];
    let answer: Value = publisher
        .command(&[&call[..], &[run, kind, source, &payload]].concat())
        .await;
    let words: Vec<String> = redis::from_redis_value(answer).expect("a list of words");
    let id = words.get(1).map(String::as_str);
    let is_next = words[0] == "OK" && id.and_then(seq_of) == Some(seq);
    assert!(is_next, "event {seq} of {run}: {words:?}");
    shared.published.fetch_add(1, Ordering::Relaxed);
}

/// Returns the number of an event in its run: `<epoch>-<seq>-<us>`.
fn seq_of(id: &str) -> Option<u64> {
    id.split('-').nth(1)?.parse().ok()
}

struct Client {
    world: Arc<World>,
    shared: Arc<Shared>,
    slot: u64,
    generation: u64,
    from: Ipv4Addr,
    token: String,
    /// Id and number of the last event seen of this run.
    last: Option<(String, u64)>,
    rng: fastrand::Rng,
}

/// Why a client does not go on with a stream.
enum Turn {
    /// It left by itself.
    Left,
    /// The run has ended.
    Ended,
}

impl Client {
    fn new(world: &Arc<World>, shared: &Arc<Shared>, number: u64, rng: fastrand::Rng) -> Self {
        let rights = json!({"subscribe": ["good-*"]});
        let who = json!({"sub": format!("good-{}", number % 50), "exp": now() + 80_000});
        Self {
            world: Arc::clone(world),
            shared: Arc::clone(shared),
            slot: number % SLOTS,
            generation: 1,
            from: Ipv4Addr::new(127, 0, 1, (1 + number / PER_ADDRESS) as u8),
            token: token(&claims_but(rights, who)),
            last: None,
            rng,
        }
    }

    /// Follows one run after the other, until the last one has ended.
    async fn live(mut self) {
        loop {
            // Not all at once, and not at once again.
            sleep(Duration::from_millis(self.rng.u64(..2000))).await;
            match self.follow().await {
                Ok(Turn::Left) => {}
                Ok(Turn::Ended) => {
                    let last = self.shared.last[self.slot as usize].load(Ordering::Relaxed);
                    if self.generation == last {
                        return;
                    }
                    self.generation += 1;
                    self.last = None;
                }
                Err(what) => {
                    let run = run_id(self.slot, self.generation);
                    let failure = format!("{run} after {:?}: {what}", self.last);
                    return self.world.fail(failure);
                }
            }
        }
    }

    async fn follow(&mut self) -> Result<Turn, String> {
        let stay = Duration::from_millis(self.rng.u64(1000..60_000));
        let leave = Instant::now() + stay;
        let mut stream = self.open().await?;
        loop {
            let time = leave.min(Instant::now() + PATIENCE) - Instant::now();
            match stream.next_within(time).await {
                Next::Frame(frame) => {
                    if self.take(&frame)? {
                        return Ok(Turn::Ended);
                    }
                }
                // Half of the time without a word.
                Next::Silence if Instant::now() >= leave => {
                    if self.rng.bool() {
                        stream.reset();
                    }
                    return Ok(Turn::Left);
                }
                other => return Err(format!("{other:?}")),
            }
            // A busy stream is never silent.
            if Instant::now() >= leave {
                return Ok(Turn::Left);
            }
        }
    }

    async fn open(&mut self) -> Result<SseClient, String> {
        let path = format!("/api/v1/runs/{}/stream", run_id(self.slot, self.generation));
        let mut request = Request::get(path)
            .from(self.from)
            .header("Accept", "text/event-stream")
            .header("Authorization", format!("Bearer {}", self.token));
        if let Some((id, _)) = &self.last {
            request = request.header("Last-Event-ID", id);
        }
        let begin = Instant::now();
        let answer = timeout(PATIENCE, request.open(self.world.addr)).await;
        let answer = answer.map_err(|_| "no answer".to_owned())?;
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.head.status != 200 {
            return Err(format!("status {}", answer.head.status));
        }
        let took = begin.elapsed().as_millis() as u64;
        self.shared.slowest_open.fetch_max(took, Ordering::Relaxed);
        self.shared.streams.fetch_add(1, Ordering::Relaxed);
        Ok(SseClient::of(answer))
    }

    /// Checks a frame; returns whether the run has ended.
    fn take(&mut self, frame: &Frame) -> Result<bool, String> {
        let seen = self.last.as_ref().map_or(0, |(_, seq)| *seq);
        match frame.event.as_str() {
            "" | "hello" | "heartbeat" => return Ok(false),
            // After `hello`: where the stream begins.
            "cursor" if self.last.is_none() || seq_of(frame.id()) == Some(seen) => {
                return Ok(false);
            }
            "end" if seen == RUN_EVENTS + 1 => {
                if frame.json()["events"] != seen {
                    return Err(format!("{frame:?}"));
                }
                self.shared.ends.fetch_add(1, Ordering::Relaxed);
                return Ok(true);
            }
            "output" | "status" => {}
            _ => return Err(format!("{frame:?}")),
        }
        let seq = seen + 1;
        let run = run_id(self.slot, self.generation);
        let expected = match seq > RUN_EVENTS {
            true => "\"completed\"".to_owned(),
            false => payload(&run, seq),
        };
        let envelope = frame.envelope();
        let is_right = seq_of(frame.id()) == Some(seq)
            && envelope.run_id == run
            && envelope
                .data
                .as_ref()
                .is_some_and(|data| data.get() == expected);
        if !is_right {
            return Err(format!("event {seq} was due: {frame:?}"));
        }
        self.shared.deliveries.fetch_add(1, Ordering::Relaxed);
        self.last = Some((frame.id().to_owned(), seq));
        Ok(false)
    }
}
