//! [`Fault`]: what can go wrong, and [`World`], to which it happens: a real
//! redis-server and the built broker.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use super::follower::TrialShared;
use super::publisher::{EVENT_BYTES_MAX, RunPublisher};
use crate::support::port::free_port;
use crate::support::{Broker, Redis};

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// Thousands of events at once, far more than a ring holds.
    Burst,
    /// An event over `limits.max_event_bytes`.
    Oversize,
    KillSubscription,
    KillConnections,
    PauseClients,
    FreezeRedis,
    KillRedis,
    TinyOutputBuffer,
    HugeMessage,
    RestartBroker,
    KillBroker,
}

impl Fault {
    /// Those between the broker and its clients: it has every event, so that
    /// each count it states must be right.
    pub(crate) const LOCAL: [Self; 2] = [Self::Burst, Self::Oversize];

    /// All others, too.
    pub(crate) const ALL: [Self; 11] = [
        Self::Burst,
        Self::Oversize,
        Self::KillSubscription,
        Self::KillConnections,
        Self::PauseClients,
        Self::FreezeRedis,
        Self::KillRedis,
        Self::TinyOutputBuffer,
        Self::HugeMessage,
        Self::RestartBroker,
        Self::KillBroker,
    ];
}

/// What the trials of a suite run in.
pub(crate) struct World {
    pub(crate) redis: Redis,
    broker: Option<Broker>,
    pub(crate) trial: Arc<TrialShared>,
}

impl World {
    pub(crate) async fn start() -> Self {
        let redis = Redis::start().await;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let trial = Arc::new(TrialShared {
            addr,
            life: AtomicU32::new(0),
            is_rough: AtomicBool::new(false),
        });
        let mut world = Self {
            redis,
            broker: None,
            trial,
        };
        world.start_broker().await;
        world
    }

    /// Starts the broker on its port, with bounds small enough to be reached.
    async fn start_broker(&mut self) {
        self.trial.life.fetch_add(1, Ordering::Relaxed);
        let broker = Broker::redis(&self.redis)
            .set("server.bind", self.trial.addr)
            .set("server.workers", 2)
            .set("server.shutdown_grace", "2s")
            .set("hub.ring_bytes", "96KiB")
            .set("hub.idle_ttl", "2s")
            .set("heartbeat.interval", "1s")
            .set("retry.min", "100ms")
            .set("retry.max", "300ms")
            .set("redis.probe_interval", "1s")
            .set("redis.command_timeout", "2s")
            .set("limits.max_event_bytes", format!("{EVENT_BYTES_MAX}B"))
            .set("limits.write_timeout", "2s");
        self.broker = Some(broker.start_ready().await);
    }

    pub(crate) async fn wait_ready(&self) {
        self.broker.as_ref().expect("it runs").wait_ready().await;
    }

    /// Does the fault and waits until what it broke works again.
    pub(crate) async fn suffer(
        &mut self,
        fault: Fault,
        publishers: &tokio::sync::Mutex<Vec<RunPublisher>>,
        rng: &mut fastrand::Rng,
    ) {
        match fault {
            Fault::Burst => burst(publishers, rng).await,
            Fault::Oversize => publish_in_one(publishers, rng, EVENT_BYTES_MAX + 1).await,
            Fault::HugeMessage => publish_in_one(publishers, rng, 33 * 1024 * 1024).await,
            Fault::KillSubscription => self.redis_says(&["CLIENT", "KILL", "TYPE", "pubsub"]).await,
            Fault::KillConnections => self.redis_says(&["CLIENT", "KILL", "TYPE", "normal"]).await,
            Fault::PauseClients => {
                let ms = rng.u32(200..3000).to_string();
                self.redis_says(&["CLIENT", "PAUSE", &ms, "ALL"]).await;
            }
            Fault::FreezeRedis => {
                self.redis.freeze();
                sleep(Duration::from_millis(rng.u64(200..6000))).await;
                self.redis.thaw();
            }
            Fault::KillRedis => {
                self.redis.kill();
                sleep(Duration::from_millis(rng.u64(0..5000))).await;
                self.redis.restart().await;
            }
            Fault::TinyOutputBuffer => {
                self.limit_output_buffer("1024 512 1").await;
                burst(publishers, rng).await;
                self.limit_output_buffer("33554432 8388608 60").await;
            }
            Fault::RestartBroker | Fault::KillBroker => self.restart_broker(fault).await,
        }
        self.wait_ready().await;
    }

    async fn redis_says(&self, words: &[&str]) {
        let mut connection = self.redis.publisher().await;
        let _: ::redis::Value = connection.command(words).await;
    }

    async fn limit_output_buffer(&self, limits: &str) {
        let value = format!("pubsub {limits}");
        self.redis_says(&["CONFIG", "SET", "client-output-buffer-limit", &value])
            .await;
    }

    async fn restart_broker(&mut self, fault: Fault) {
        let mut broker = self.broker.take().expect("it runs");
        if fault == Fault::RestartBroker {
            broker.terminate();
            let code = broker.exit_code(Duration::from_secs(10)).await;
            assert_eq!(code, Some(0), "{:#?}", broker.process.log());
        }
        drop(broker);
        self.start_broker().await;
    }

    /// Ends the broker as it should end, and says how much it had to say.
    pub(crate) async fn stop(mut self) {
        let mut broker = self.broker.take().expect("it runs");
        broker.terminate();
        let code = broker.exit_code(Duration::from_secs(10)).await;
        assert_eq!(code, Some(0), "{:#?}", broker.process.log());
    }
}

/// Far more than a ring holds, in one of the runs.
async fn burst(publishers: &tokio::sync::Mutex<Vec<RunPublisher>>, rng: &mut fastrand::Rng) {
    let mut publishers = publishers.lock().await;
    let index = rng.usize(..publishers.len());
    let (count, bytes) = (rng.usize(200..3000), rng.usize(100..600));
    publishers[index].publish(count, bytes).await;
}

async fn publish_in_one(
    publishers: &tokio::sync::Mutex<Vec<RunPublisher>>,
    rng: &mut fastrand::Rng,
    bytes: usize,
) {
    let mut publishers = publishers.lock().await;
    let index = rng.usize(..publishers.len());
    publishers[index].publish_large(bytes).await;
}
