//! [`Sentinels`]: a master, a replica, and Sentinels that watch them.

use std::process::Command;

use ::redis::{RedisResult, Value, from_redis_value};
use rustix::process::Signal;
use tempfile::TempDir;

use super::authority::Authority;
use super::port::free_port;
use super::process::Process;
use super::redis::Publisher;
use super::wait::{SOON, eventually};
use super::{Broker, Redis, broker::BrokerSettings};

/// The name under which the master is watched.
const MASTER_NAME: &str = "runs";

/// A master that has a replica, watched by Sentinels of which one is enough
/// for a failover.
pub(crate) struct Sentinels {
    pub(crate) master: Redis,
    pub(crate) replica: Redis,
    sentinels: Vec<Process>,
    ports: Vec<u16>,
    /// Of each, if they speak TLS.
    tls_ports: Vec<u16>,
    _dir: TempDir,
}

impl Sentinels {
    /// Starts them and waits until a failover could succeed.
    pub(crate) async fn start(count: usize) -> Self {
        Self::start_with_tls(count, None).await
    }

    /// The same, all of them speaking TLS with each other and with brokers.
    pub(crate) async fn start_with_tls(count: usize, authority: Option<&Authority>) -> Self {
        let replication = ["--tls-replication", "yes"];
        let replication = if authority.is_some() {
            &replication[..]
        } else {
            &[]
        };
        let arguments = [&["--repl-diskless-sync-delay", "0"], replication].concat();
        let master = Redis::start_with_tls(&arguments, authority).await;
        let port = master.best_port().to_string();
        let arguments = [&["--replicaof", "127.0.0.1", &port], replication].concat();
        let replica = Redis::start_with_tls(&arguments, authority).await;
        replica
            .wait_info("replication", "master_link_status:up")
            .await;
        let dir = TempDir::new().expect("a temporary directory");
        let mut started = Self {
            master,
            replica,
            sentinels: Vec::new(),
            ports: Vec::new(),
            tls_ports: Vec::new(),
            _dir: dir,
        };
        for _ in 0..count {
            started.add_sentinel(authority);
        }
        for port in started.ports.clone() {
            let others = (count - 1).to_string();
            eventually("a Sentinel knows everybody", SOON, async || {
                let master = started.seen(port, "MASTER").await;
                let replica = started.seen(port, "REPLICAS").await;
                has(&master, "num-slaves", "1")
                    && has(&master, "num-other-sentinels", &others)
                    && has(&replica, "flags", "slave")
                    && has(&replica, "master-link-status", "ok")
            })
            .await;
        }
        started
    }

    fn add_sentinel(&mut self, authority: Option<&Authority>) {
        let port = free_port();
        let dir = self._dir.path();
        let file = dir.join(format!("{port}.conf"));
        let watched = format!("{MASTER_NAME} 127.0.0.1 {} 1", self.master.best_port());
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor {watched}\n\
             sentinel down-after-milliseconds {MASTER_NAME} 1000\n\
             sentinel failover-timeout {MASTER_NAME} 3000\n",
            dir.display(),
        );
        let mut tls = String::new();
        if let Some(authority) = authority {
            let port = free_port();
            self.tls_ports.push(port);
            for pair in authority.redis_arguments(port).chunks(2) {
                tls += &format!("{} {}\n", pair[0].trim_start_matches('-'), pair[1]);
            }
            tls += "tls-replication yes\n";
        }
        std::fs::write(&file, tls + &text).expect("the directory is ours");
        let mut command = Command::new("redis-server");
        command.arg(file).arg("--sentinel");
        self.sentinels.push(Process::spawn(command));
        self.ports.push(port);
    }

    /// Returns what a Sentinel says of `MASTER` or, of the one replica, of
    /// `REPLICAS`: key after value; empty while it is silent.
    async fn seen(&self, port: u16, whom: &str) -> Vec<String> {
        let client = ::redis::Client::open(format!("redis://127.0.0.1:{port}")).expect("a URL");
        let Ok(mut connection) = client.get_multiplexed_async_connection().await else {
            return Vec::new();
        };
        let mut command = ::redis::cmd("SENTINEL");
        command.arg(whom).arg(MASTER_NAME);
        let answer: RedisResult<Value> = command.query_async(&mut connection).await;
        let answer = answer.unwrap_or(Value::Nil);
        match whom {
            "MASTER" => from_redis_value(answer).unwrap_or_default(),
            _ => from_redis_value::<Vec<Vec<String>>>(answer)
                .unwrap_or_default()
                .concat(),
        }
    }

    /// Returns a connection to a Sentinel.
    pub(crate) async fn sentinel(&self, index: usize) -> Publisher {
        Publisher::at(self.ports[index]).await
    }

    /// Freezes a Sentinel: connects still succeed, nothing answers.
    pub(crate) fn freeze_sentinel(&self, index: usize) {
        self.sentinels[index].signal(Signal::STOP);
    }

    pub(crate) fn url(&self) -> String {
        let (scheme, ports) = match self.tls_ports.is_empty() {
            true => ("redis", &self.ports),
            false => ("rediss", &self.tls_ports),
        };
        let hosts = ports.iter().map(|port| format!("127.0.0.1:{port}"));
        let hosts: Vec<String> = hosts.collect();
        format!("{scheme}+sentinel://{}/{MASTER_NAME}", hosts.join(","))
    }

    /// Settings of a broker on the master, without kubectl.
    pub(crate) fn broker(&self) -> BrokerSettings {
        Broker::redis(&self.master).set("redis.url", self.url())
    }
}

fn has(pairs: &[String], key: &str, value: &str) -> bool {
    pairs
        .chunks(2)
        .any(|pair| pair[0] == key && pair[1] == value)
}
