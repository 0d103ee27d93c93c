//! `make soak`: steady load with clients and runs that come and go, for
//! `RUNCAST_SOAK_SECONDS`; then nothing of it may have stayed.
//!
//! The bounds of the broker are set so small that all of them are reached.
//! After a warm-up of a third of the time, the memory of the broker and of
//! Redis, and the broker's file descriptors, must not grow: by [`growth`] over
//! the rest of the time, no more than a twentieth of their median and what an
//! allocator does by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::{sleep, timeout};

use super::trend::{growth, median};
use super::{number_from_env, report};
use crate::support::broker::sum_samples;
use crate::support::http::Request;
use crate::support::redis::Publisher;
use crate::support::{Broker, Redis, eventually};

const HUBS_MAX: f64 = 64.0;
const RING_BYTES_MAX: f64 = (512 * 1024) as f64;
/// Runs that are published at a time; more than there may be hubs.
const RUNS: u64 = 100;
const CLIENTS: u64 = 40;
const STALLED_CLIENTS: u64 = 4;
const SAMPLE_EVERY: Duration = Duration::from_millis(250);
const MIB: f64 = (1024 * 1024) as f64;
/// What an allocator and a poll of `/metrics` may add.
const RSS_SLACK: f64 = 2.0 * MIB;
/// A run's hash, about 250 bytes, outlives its history by a day, so that ids
/// never come again: five runs a second are 0.7 MiB in ten minutes.
const REDIS_SLACK: f64 = MIB;
const FDS_SLACK: f64 = 4.0;

#[tokio::test]
async fn soak() {
    let seconds: u64 = number_from_env("RUNCAST_SOAK_SECONDS", 35);
    let seed: u64 = number_from_env("RUNCAST_SEED", 1);
    report(&format!("soak: {seconds} s, seed {seed}"));
    let redis = Redis::start().await;
    let broker = small_broker(&redis).await;
    let mut keeper = redis.publisher().await;
    let base = Sample::take(&broker, &mut keeper).await;

    let load = Load::start(&redis, &broker, seed).await;
    let begin = Instant::now();
    let mut samples = Vec::new();
    while begin.elapsed() < Duration::from_secs(seconds) {
        sleep(SAMPLE_EVERY).await;
        let sample = Sample::take(&broker, &mut keeper).await;
        sample.check_bounds();
        samples.push(sample);
    }
    load.check_and_stop(&broker).await;
    check_trend(&samples[samples.len() / 3..]);
    check_back_at_base(&broker, &keeper, &base).await;
}

async fn small_broker(redis: &Redis) -> Broker {
    Broker::redis(redis)
        .set("server.workers", 2)
        .set("hub.ring_bytes", "32KiB")
        .set("hub.total_ring_bytes", format!("{RING_BYTES_MAX}B"))
        .set("hub.max_hubs", HUBS_MAX)
        .set("hub.idle_ttl", "1s")
        .set("history.max_events", 200)
        .set("history.ttl", "5s")
        .set("heartbeat.interval", "1s")
        .set("limits.write_timeout", "2s")
        .start_ready()
        .await
}

/// What the broker holds at a moment.
struct Sample {
    rss: f64,
    /// What Redis has allocated, by its own count.
    redis: f64,
    fds: f64,
    hubs: f64,
    sessions: f64,
    ring_bytes: f64,
}

/// Returns the bytes that Redis has allocated.
async fn used_memory(redis: &mut Publisher) -> f64 {
    let info: String = redis.command(&["INFO", "memory"]).await;
    let mut lines = info.lines();
    let bytes = lines.find_map(|line| line.strip_prefix("used_memory:"));
    bytes
        .and_then(|bytes| bytes.parse().ok())
        .expect("INFO tells used_memory")
}

impl Sample {
    async fn take(broker: &Broker, redis: &mut Publisher) -> Self {
        let text = broker.get("/metrics").await.text();
        let sum = |family| sum_samples(&text, family, &[]);
        Self {
            rss: broker.process.rss_bytes() as f64,
            redis: used_memory(redis).await,
            fds: broker.process.fd_count() as f64,
            hubs: sum("runcast_hubs"),
            sessions: sum("runcast_sessions"),
            ring_bytes: sum("runcast_ring_bytes"),
        }
    }

    fn check_bounds(&self) {
        let Self {
            hubs, ring_bytes, ..
        } = *self;
        // Evicted hubs count until they have ended, and each thread may make one
        // over the bound.
        assert!(hubs <= HUBS_MAX + 8.0, "{hubs} hubs");
        // Each ring keeps its last segment, whatever the total: here of up to
        // 4 KiB, the most that waits for a client.
        let most = RING_BYTES_MAX + HUBS_MAX * 4096.0;
        assert!(ring_bytes <= most, "{ring_bytes} bytes of rings");
    }
}

fn check_trend(samples: &[Sample]) {
    let of = |value: fn(&Sample) -> f64| samples.iter().map(value).collect::<Vec<f64>>();
    let all = [
        ("rss bytes", of(|one| one.rss), Some(RSS_SLACK)),
        ("redis bytes", of(|one| one.redis), Some(REDIS_SLACK)),
        ("fds", of(|one| one.fds), Some(FDS_SLACK)),
        ("hubs", of(|one| one.hubs), None),
        ("sessions", of(|one| one.sessions), None),
        ("ring bytes", of(|one| one.ring_bytes), None),
    ];
    for (name, mut values, slack) in all {
        let grown = growth(&values);
        let middle = median(&mut values);
        let most = values.last().copied().unwrap_or(0.0);
        report(&format!(
            "{name:<20} median {middle:.0}, most {most:.0}, grown {grown:.0}"
        ));
        if let Some(slack) = slack {
            let allowed = middle / 20.0 + slack;
            assert!(grown <= allowed, "{name} grew by {grown}, over {allowed}");
        }
    }
}

async fn check_back_at_base(broker: &Broker, redis: &Publisher, base: &Sample) {
    let deadline = Duration::from_secs(20);
    eventually("all is back at base", deadline, async || {
        let now = Sample::take(broker, &mut redis.clone()).await;
        now.sessions == 0.0
            && now.hubs == 0.0
            && now.ring_bytes == 0.0
            && now.fds <= base.fds + FDS_SLACK
    })
    .await;
    let rss = broker.process.rss_bytes() as f64;
    report(&format!(
        "rss MiB             {:.1} before, {:.1} after",
        base.rss / MIB,
        rss / MIB
    ));
}

/// Publishers and clients, until told to stop.
struct Load {
    shared: Arc<LoadShared>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

struct LoadShared {
    is_over: AtomicBool,
    /// The oldest run that is still published; they come and go.
    first_run: AtomicU64,
    published: AtomicU64,
    streams: AtomicU64,
    bytes: AtomicU64,
}

impl LoadShared {
    fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
    }

    fn any_run(&self, rng: &mut fastrand::Rng) -> String {
        let first = self.first_run.load(Ordering::Relaxed);
        format!("soak-{}", first + rng.u64(..RUNS))
    }
}

impl Load {
    async fn start(redis: &Redis, broker: &Broker, seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let shared = Arc::new(LoadShared {
            is_over: AtomicBool::new(false),
            first_run: AtomicU64::new(0),
            published: AtomicU64::new(0),
            streams: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        });
        let publisher = redis.publisher().await;
        let addr = broker.addr;
        let mut tasks = vec![
            tokio::spawn(publish_plain(Arc::clone(&shared), publisher, rng.fork())),
            tokio::spawn(publish_durable(Arc::clone(&shared), addr, rng.fork())),
        ];
        for _ in 0..CLIENTS {
            tasks.push(tokio::spawn(come_and_go(
                Arc::clone(&shared),
                addr,
                rng.fork(),
            )));
        }
        for _ in 0..STALLED_CLIENTS {
            tasks.push(tokio::spawn(stall(Arc::clone(&shared), addr)));
        }
        Self { shared, tasks }
    }

    /// The load must have been one, and every bound reached.
    async fn check_and_stop(self, broker: &Broker) {
        let evicted = broker.metric("runcast_hubs_evicted_total", &[]).await;
        let retired = broker.metric("runcast_hubs_retired_total", &[]).await;
        let timeout = [("reason", "write_timeout")];
        let cut = broker.metric("runcast_sessions_closed_total", &timeout);
        let cut = cut.await;
        let slow = [("reason", "slow_client")];
        let fallen = broker.metric("runcast_gaps_total", &slow).await;
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let streams = of(&self.shared.streams);
        report(&format!(
            "published            {}",
            of(&self.shared.published)
        ));
        report(&format!("streams              {streams}"));
        report(&format!("bytes read           {}", of(&self.shared.bytes)));
        report(&format!(
            "hubs                 {evicted} evicted, {retired} retired"
        ));
        report(&format!("slow clients         {fallen} gaps, {cut} closed"));
        assert!(
            streams > 0 && evicted > 0.0 && fallen > 0.0 && cut > 0.0,
            "no load"
        );
        self.shared.is_over.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("no part of the load panics");
        }
    }
}

async fn publish_plain(shared: Arc<LoadShared>, mut publisher: Publisher, mut rng: fastrand::Rng) {
    let large = vec![b'x'; 20_000];
    for turn in 0u64.. {
        if !shared.goes_on() {
            return;
        }
        for _ in 0..4 {
            let run = shared.any_run(&mut rng);
            // Small ones reach the bound of hubs, large ones that of bytes.
            let bytes_max = if turn / 300 % 2 == 0 { 1000 } else { 20_000 };
            let payload = vec![b'y'; rng.usize(10..bytes_max)];
            let channel = format!("run:{run}:output:stdout");
            publisher.publish_all(&channel, &[payload]).await;
        }
        publisher
            .publish("run:soak-hot:output:stdout", &large)
            .await;
        if turn % 20 == 0 {
            // The oldest run ends, and a new one takes its place.
            let oldest = shared.first_run.fetch_add(1, Ordering::Relaxed);
            let channel = format!("run:soak-{oldest}:status");
            publisher.publish(channel, "\"completed\"").await;
        }
        shared.published.fetch_add(5, Ordering::Relaxed);
        sleep(Duration::from_millis(10)).await;
    }
}

async fn publish_durable(
    shared: Arc<LoadShared>,
    addr: std::net::SocketAddr,
    mut rng: fastrand::Rng,
) {
    while shared.goes_on() {
        let path = format!("/api/v1/runs/{}/events", shared.any_run(&mut rng));
        let event = json!({"kind": "output", "data": {"text": "z".repeat(rng.usize(10..500))}});
        let request = Request::post(path, "application/json", event.to_string());
        // 409 of a run that is over is an answer, too.
        let status = request.send(addr).await.status();
        assert!(matches!(status, 202 | 409), "{status}");
        shared.published.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(20)).await;
    }
}

/// Follows one run after the other, each for a moment.
async fn come_and_go(shared: Arc<LoadShared>, addr: std::net::SocketAddr, mut rng: fastrand::Rng) {
    while shared.goes_on() {
        let run = match rng.u8(..8) {
            0 => "soak-hot".to_owned(),
            _ => shared.any_run(&mut rng),
        };
        let request = Request::get(format!("/api/v1/runs/{run}/stream"));
        let mut answer = request.open(addr).await.expect("the broker serves");
        assert_eq!(answer.head.status, 200);
        shared.streams.fetch_add(1, Ordering::Relaxed);
        let stay = Duration::from_millis(rng.u64(10..1500));
        let reading = async {
            while let Ok(Some(piece)) = answer.next().await {
                let bytes = piece.len() as u64;
                shared.bytes.fetch_add(bytes, Ordering::Relaxed);
            }
        };
        // Time over: it leaves in the middle, half of the time without a word.
        let _ = timeout(stay, reading).await;
        if rng.bool() {
            answer.reset();
        }
    }
}

/// Opens a busy stream and reads nothing: in turn so long that it falls behind
/// and is told so, and until the broker has closed it.
async fn stall(shared: Arc<LoadShared>, addr: std::net::SocketAddr) {
    for turn in 0u64.. {
        let request = Request::get("/api/v1/runs/soak-hot/stream").receive_buffer(8 * 1024);
        let mut answer = request.open(addr).await.expect("the broker serves");
        shared.streams.fetch_add(1, Ordering::Relaxed);
        for _ in 0..if turn % 2 == 0 { 3 } else { 10 } {
            sleep(Duration::from_millis(400)).await;
            if !shared.goes_on() {
                return;
            }
        }
        // What the kernel took meanwhile, and then what follows or its end.
        let reading = async { while let Ok(Some(_)) = answer.next().await {} };
        // Time over: it was not closed, and goes by itself.
        let _ = timeout(Duration::from_secs(1), reading).await;
    }
}
