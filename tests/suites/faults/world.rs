//! [`World`]: three brokers on one Redis with a replica, behind proxies, and
//! how each [`Fault`] is done to them.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use rustix::process::Signal;
use tokio::time::sleep;

use super::fault::{Class, Fault};
use super::proxy::Proxy;
use super::publisher::EVENT_BYTES_MAX;
use super::redis_pair::{Data, RedisPair};
use super::run::Run;
use crate::support::Broker;
use crate::support::broker::BrokerSettings;
use crate::support::port::free_port;

const BROKERS: usize = 3;

/// What one trial runs in.
pub(crate) struct World {
    pub(crate) redis: RedisPair,
    /// Between each broker and Redis.
    proxies: Vec<Proxy>,
    /// Between the publishers and Redis.
    pub(crate) publishers: Proxy,
    settings: Vec<BrokerSettings>,
    brokers: Vec<Option<Broker>>,
    pub(crate) addrs: Rc<Vec<SocketAddr>>,
    rng: fastrand::Rng,
}

impl World {
    /// Starts all of it. `history_max`: most events kept of a run;
    /// `switched_off`: safeguards of the brokers that shall be missing.
    pub(crate) async fn start(
        mut rng: fastrand::Rng,
        history_max: usize,
        switched_off: Option<&str>,
    ) -> Self {
        let redis = RedisPair::start(rng.bool()).await;
        let publishers = Proxy::start(redis.addr()).await;
        let mut proxies = Vec::new();
        let mut settings = Vec::new();
        let mut addrs = Vec::new();
        for _ in 0..BROKERS {
            let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
            let proxy = Proxy::start(redis.addr()).await;
            let mut one = broker_settings(&mut rng, addr, &proxy.url(), history_max);
            if let Some(safeguards) = switched_off {
                one = one.variable("RUNCAST_FAULT_OFF", safeguards);
            }
            addrs.push(addr);
            proxies.push(proxy);
            settings.push(one);
        }
        let brokers = join_all(settings.iter().map(BrokerSettings::start_ready)).await;
        Self {
            redis,
            proxies,
            publishers,
            settings,
            brokers: brokers.into_iter().map(Some).collect(),
            addrs: Rc::new(addrs),
            rng,
        }
    }

    pub(crate) async fn wait_ready(&self) {
        for broker in self.brokers.iter().flatten() {
            broker.wait_ready().await;
        }
    }

    /// Returns the newest lines of each broker's log.
    pub(crate) fn logs(&self, lines: usize) -> Vec<String> {
        let logs = self.brokers.iter().flatten().map(|one| one.process.log());
        logs.enumerate()
            .flat_map(|(index, log)| {
                let tail = log.len().saturating_sub(lines);
                let tail = log[tail..].to_vec();
                tail.into_iter()
                    .map(move |line| format!("broker {index}: {line}"))
            })
            .collect()
    }

    async fn a_while(&mut self, ms: std::ops::Range<u64>) {
        sleep(Duration::from_millis(self.rng.u64(ms))).await;
    }

    /// Does the fault; whatever it took away is there again when it returns.
    pub(crate) async fn suffer(&mut self, fault: Fault, runs: &[Rc<Run>]) {
        let broker = self.rng.usize(..BROKERS);
        let run = &runs[self.rng.usize(..runs.len())];
        match fault {
            Fault::Burst => run.burst.set(self.rng.usize(200..1200)),
            Fault::KillSubscriptions => self.redis.say(&["CLIENT", "KILL", "TYPE", "pubsub"]).await,
            Fault::KillConnections => self.redis.say(&["CLIENT", "KILL", "TYPE", "normal"]).await,
            Fault::Pause => self.pause().await,
            Fault::Freeze => {
                self.redis.freeze();
                self.a_while(50..1500).await;
                self.redis.thaw();
            }
            Fault::TinyOutputBuffer => self.tiny_output_buffer(run).await,
            Fault::CutBroker => self.proxies[broker].cut(),
            Fault::HalfOpen => self.proxies[broker].hold(),
            Fault::RefuseBroker => {
                self.proxies[broker].refuse(true);
                self.proxies[broker].cut();
                self.a_while(50..1200).await;
                self.proxies[broker].refuse(false);
            }
            Fault::RestartKept => self.restart_redis(Data::Kept).await,
            Fault::RestartEmpty => self.restart_redis(Data::Gone).await,
            Fault::CrashToDump => self.crash_to_dump().await,
            Fault::HandOver => {
                self.redis.hand_over().await;
                self.follow_master().await;
            }
            Fault::FailOver => self.fail_over().await,
            Fault::KillBroker | Fault::RestartBroker => self.restart_broker(broker, fault).await,
            Fault::RollBrokers => {
                for broker in 0..BROKERS {
                    self.restart_broker(broker, Fault::RestartBroker).await;
                    self.a_while(0..200).await;
                }
            }
            Fault::FreezeBroker => self.freeze_broker(broker).await,
            Fault::RestartRun => run.restart.set(true),
            Fault::FlushAll => self.redis.say(&["FLUSHALL"]).await,
            Fault::DeleteStream => self.redis.say(&["DEL", &run.stream_key()]).await,
            Fault::DeleteMeta => self.redis.say(&["DEL", &run.meta_key()]).await,
            Fault::DeleteRun => {
                let keys = [run.stream_key(), run.meta_key()];
                self.redis.say(&["DEL", &keys[0], &keys[1]]).await;
            }
            Fault::Expire => self.expire(run).await,
            Fault::Trim => {
                let keep = self.rng.usize(..30).to_string();
                let key = run.stream_key();
                self.redis.say(&["XTRIM", &key, "MAXLEN", &keep]).await;
            }
        }
    }

    async fn pause(&mut self) {
        let ms = self.rng.u32(50..1500).to_string();
        let what = if self.rng.bool() { "ALL" } else { "WRITE" };
        self.redis.say(&["CLIENT", "PAUSE", &ms, what]).await;
    }

    async fn tiny_output_buffer(&mut self, run: &Rc<Run>) {
        self.limit_output_buffer("1024 512 1").await;
        run.burst.set(self.rng.usize(200..1200));
        self.a_while(200..600).await;
        self.limit_output_buffer("33554432 8388608 60").await;
    }

    async fn limit_output_buffer(&self, limits: &str) {
        let value = format!("pubsub {limits}");
        let words = ["CONFIG", "SET", "client-output-buffer-limit", &value];
        self.redis.say(&words).await;
    }

    async fn restart_redis(&mut self, data: Data) {
        self.redis.stop(data).await;
        self.a_while(0..1000).await;
        self.redis.go_on().await;
    }

    async fn crash_to_dump(&mut self) {
        self.redis.dump().await;
        self.a_while(20..800).await;
        self.redis.crash();
        self.a_while(0..500).await;
        self.redis.go_on().await;
    }

    async fn fail_over(&mut self) {
        self.redis.detach_replica().await;
        self.a_while(20..800).await;
        self.redis.fail_over();
        self.a_while(0..500).await;
        self.follow_master().await;
        self.redis.heal().await;
    }

    /// Publishers and brokers find the new master, not all at once: what is
    /// published meanwhile takes the numbers of what was lost.
    async fn follow_master(&mut self) {
        self.publishers.point_to(self.redis.addr());
        for broker in 0..BROKERS {
            self.a_while(0..300).await;
            self.proxies[broker].point_to(self.redis.addr());
        }
    }

    async fn expire(&mut self, run: &Rc<Run>) {
        let ms = self.rng.u32(1..50).to_string();
        self.redis.say(&["PEXPIRE", &run.stream_key(), &ms]).await;
        if self.rng.bool() {
            self.redis.say(&["PEXPIRE", &run.meta_key(), &ms]).await;
        }
    }

    async fn freeze_broker(&mut self, index: usize) {
        self.signal_broker(index, Signal::STOP);
        self.a_while(50..1500).await;
        self.signal_broker(index, Signal::CONT);
    }

    fn signal_broker(&self, index: usize, signal: Signal) {
        let broker = self.brokers[index].as_ref().expect("it runs");
        broker.process.signal(signal);
    }

    async fn restart_broker(&mut self, index: usize, fault: Fault) {
        let mut broker = self.brokers[index].take().expect("it runs");
        if fault == Fault::RestartBroker {
            broker.terminate();
            let code = broker.exit_code(Duration::from_secs(20)).await;
            assert_eq!(code, Some(0), "{:#?}", broker.process.log());
        }
        drop(broker);
        if fault == Fault::KillBroker {
            self.a_while(0..500).await;
        }
        self.brokers[index] = Some(self.settings[index].start().await);
    }

    /// Ends the brokers as they should end.
    pub(crate) async fn stop(mut self) {
        for broker in self.brokers.iter_mut().flatten() {
            broker.terminate();
        }
        for broker in self.brokers.iter_mut().flatten() {
            let code = broker.exit_code(Duration::from_secs(20)).await;
            assert_eq!(code, Some(0), "{:#?}", broker.process.log());
        }
    }
}

/// Bounds so small that all are reached, and times so short that a trial is.
fn broker_settings(
    rng: &mut fastrand::Rng,
    addr: SocketAddr,
    redis_url: &str,
    history_max: usize,
) -> BrokerSettings {
    let ring = ["8KiB", "32KiB", "256KiB"][rng.usize(..3)];
    BrokerSettings::default()
        .set("streaming.default_backend", "redis")
        .set("kubectl.enabled", "false")
        .set("redis.url", redis_url)
        .set("server.bind", addr)
        .set("server.workers", rng.u8(1..=2))
        .set("server.shutdown_grace", "2s")
        .set("hub.ring_bytes", ring)
        .set("hub.idle_ttl", "1s")
        .set("heartbeat.interval", "1s")
        .set("retry.min", "100ms")
        .set("retry.max", "300ms")
        .set("redis.probe_interval", "200ms")
        .set("redis.check_interval", "300ms")
        .set("redis.command_timeout", "2s")
        .set("redis.reconnect_max_delay", "200ms")
        .set("history.max_events", history_max)
        .set("runs.end_grace", "200ms")
        .set("limits.max_event_bytes", format!("{EVENT_BYTES_MAX}B"))
        .set("limits.write_timeout", "2s")
        .set("log.level", "info")
}

/// Returns how many events of a run are kept in a trial of `class`.
pub(crate) fn history_max(class: Class, rng: &mut fastrand::Rng) -> usize {
    match class {
        Class::Lossy if rng.bool() => rng.usize(20..400),
        _ => 1_000_000,
    }
}
