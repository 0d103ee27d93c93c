//! `make soak-hostile`: thousands of good clients that come and go, beside
//! hostile ones, for `RUNCAST_SOAK_SECONDS`.
//!
//! Each good client checks every event to the letter, from the first of a run to
//! its `end`: one that is missing, doubled or altered, a `gap`, a goodbye or a
//! connection refused fails the suite. Hostile ones ([`foes`]) check that they
//! were served nothing. After a warm-up of a third of the time the broker's
//! memory may not grow by more than a twentieth; when all have gone, its
//! sessions, hubs, bodies, threads and file descriptors must be those of before.

mod attacks;
mod foes;
mod good;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::trend::{growth, median};
use super::{number_from_env, raise_open_files, report};
use crate::support::broker::sum_samples;
use crate::support::http::Request;
use crate::support::token::{admin, guarded};
use crate::support::{Broker, Redis, eventually};

const SAMPLE_EVERY: Duration = Duration::from_millis(500);
const MIB: f64 = (1024 * 1024) as f64;
/// What an allocator may do in a run too short for the twentieth to mean
/// something.
const SHORT_RUN_SLACK: f64 = 4.0 * MIB;
const SHORT_RUN: u64 = 300;
const FDS_SLACK: f64 = 4.0;

#[tokio::test]
async fn hostile() {
    let seconds: u64 = number_from_env("RUNCAST_SOAK_SECONDS", 20);
    let seed: u64 = number_from_env("RUNCAST_SEED", 1);
    let clients = number_from_env(
        "RUNCAST_GOOD_CLIENTS",
        if seconds < SHORT_RUN { 200 } else { 2000 },
    );
    report(&format!(
        "hostile: {seconds} s, seed {seed}, {clients} good clients"
    ));
    raise_open_files();
    let redis = Redis::start().await;
    let broker = broker(&redis).await;
    let base = Sample::take(&broker).await;

    let world = Arc::new(World::new(broker.addr));
    let mut rng = fastrand::Rng::with_seed(seed);
    let good = good::Crowd::start(&world, &redis, clients, rng.fork()).await;
    let foes = foes::Foes::start(&world, &redis, rng.fork()).await;
    let begin = Instant::now();
    let mut samples = Vec::new();
    while begin.elapsed() < Duration::from_secs(seconds) {
        sleep(SAMPLE_EVERY).await;
        world.check();
        samples.push(Sample::take(&broker).await);
    }
    foes.check_and_stop(&broker).await;
    good.check_and_stop().await;
    world.check();
    check_trend(&samples[samples.len() / 3..], seconds);
    check_back_at_base(&broker, &base).await;
    check_nothing_broke(broker).await;
}

/// What everybody shares.
struct World {
    addr: std::net::SocketAddr,
    is_over: AtomicBool,
    /// The first things that went wrong.
    failures: Mutex<Vec<String>>,
}

impl World {
    fn new(addr: std::net::SocketAddr) -> Self {
        Self {
            addr,
            is_over: AtomicBool::new(false),
            failures: Mutex::default(),
        }
    }

    fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
    }

    fn fail(&self, what: String) {
        let mut failures = self.failures.lock().expect("no holder panics");
        if failures.len() < 20 {
            failures.push(what);
        }
    }

    fn check(&self) {
        let failures = self.failures.lock().expect("no holder panics");
        assert!(failures.is_empty(), "{failures:#?}");
    }
}

/// Small bounds in bytes and time, so that all are reached, and what the broker
/// remembers is full before the warm-up is over.
async fn broker(redis: &Redis) -> Broker {
    let settings = guarded(Broker::redis(redis))
        .set("server.workers", 2)
        .set("hub.ring_bytes", "256KiB")
        .set("hub.max_hubs", 300)
        .set("hub.max_past_runs", 100)
        .set("hub.idle_ttl", "2s")
        .set("history.ttl", "5m")
        .set("heartbeat.interval", "5s")
        // A good client's head waits for this process's turn, too.
        .set("limits.header_timeout", "10s")
        .set("limits.body_timeout", "5s")
        .set("limits.write_timeout", "5s")
        .set("limits.total_body_bytes", "16MiB")
        .set("limits.max_streams_per_ip", foes::STREAMS_PER_IP)
        .set("limits.publish_rate_per_ip", 500)
        .set("limits.idempotency_keys", 100);
    let broker = settings.start().await;
    eventually("Redis is usable", Duration::from_secs(30), async || {
        broker.get("/health/ready?strict=true").await.status() == 200
    })
    .await;
    broker
}

/// What the broker holds at a moment.
struct Sample {
    rss: f64,
    fds: f64,
    threads: f64,
    sessions: f64,
    hubs: f64,
    bodies: f64,
}

impl Sample {
    async fn take(broker: &Broker) -> Self {
        let text = metrics(broker).await;
        let sum = |family| sum_samples(&text, family, &[]);
        Self {
            rss: broker.process.rss_bytes() as f64,
            fds: broker.process.fd_count() as f64,
            threads: broker.process.thread_count() as f64,
            sessions: sum("runcast_sessions"),
            hubs: sum("runcast_hubs"),
            bodies: sum("runcast_http_body_bytes"),
        }
    }
}

/// Returns the broker's metrics, which only admins read.
async fn metrics(broker: &Broker) -> String {
    let request = Request::get("/metrics").header("Authorization", format!("Bearer {}", admin()));
    request.send(broker.addr).await.text()
}

fn check_trend(samples: &[Sample], seconds: u64) {
    let of = |value: fn(&Sample) -> f64| samples.iter().map(value).collect::<Vec<f64>>();
    let all = [
        ("rss MiB", of(|one| one.rss / MIB)),
        ("fds", of(|one| one.fds)),
        ("threads", of(|one| one.threads)),
        ("sessions", of(|one| one.sessions)),
        ("hubs", of(|one| one.hubs)),
        ("body bytes", of(|one| one.bodies)),
    ];
    for (name, mut values) in all {
        let grown = growth(&values);
        let middle = median(&mut values);
        let most = values.last().copied().unwrap_or(0.0);
        report(&format!(
            "{name:<20} median {middle:.1}, most {most:.1}, grown {grown:.1}"
        ));
        if name == "rss MiB" {
            let slack = if seconds < SHORT_RUN {
                SHORT_RUN_SLACK / MIB
            } else {
                0.0
            };
            assert!(grown <= middle / 20.0 + slack, "it grew by {grown} MiB");
        }
    }
}

async fn check_back_at_base(broker: &Broker, base: &Sample) {
    let deadline = Duration::from_secs(60);
    eventually("all is back at base", deadline, async || {
        let now = Sample::take(broker).await;
        let left = now.sessions + now.hubs + now.bodies;
        left == 0.0 && now.fds <= base.fds + FDS_SLACK && now.threads <= base.threads
    })
    .await;
    let now = Sample::take(broker).await;
    for (name, before, after) in [
        ("rss MiB", base.rss / MIB, now.rss / MIB),
        ("fds", base.fds, now.fds),
        ("threads", base.threads, now.threads),
    ] {
        report(&format!("{name:<20} {before:.1} before, {after:.1} after"));
    }
}

async fn check_nothing_broke(broker: Broker) {
    let text = metrics(&broker).await;
    assert_eq!(sum_samples(&text, "runcast_panics_total", &[]), 0.0);
    assert_eq!(sum_samples(&text, "runcast_hub_panics_total", &[]), 0.0);
    let restarts = sum_samples(&text, "runcast_actor_restarts_total", &[]);
    assert_eq!(restarts, 0.0);
    let log = broker.process.log();
    let broken = |line: &&String| line.contains("\"ERROR\"") || line.contains("panic");
    let broken: Vec<_> = log.iter().filter(broken).collect();
    assert!(broken.is_empty(), "{broken:#?}");
}
