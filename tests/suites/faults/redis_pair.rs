//! [`RedisPair`]: a redis-server and its replica, which fail over, restart and
//! forget as told.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Client, FromRedisValue, RedisResult};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::eventually;
use crate::support::port::free_port;
use crate::support::process::Process;

/// Starting, syncing and answering, on a machine that is busy.
const SOON: Duration = Duration::from_secs(30);

/// How a server starts again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Data {
    /// With what it had on disk.
    Kept,
    /// Empty.
    Gone,
}

/// One redis-server.
struct Node {
    port: u16,
    dir: TempDir,
    process: Option<Process>,
}

/// A master and its replica, each with a log of its writes or without.
pub(crate) struct RedisPair {
    nodes: [Node; 2],
    master: usize,
    /// Writes are logged before they are answered: a killed server forgets
    /// nothing.
    is_logged: bool,
}

impl Node {
    fn new() -> Self {
        Self {
            port: free_port(),
            dir: TempDir::new().expect("a temporary directory"),
            process: None,
        }
    }

    fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    fn start(&mut self, is_logged: bool, master: Option<u16>) {
        assert!(self.process.is_none(), "stop it first");
        let mut command = Command::new("redis-server");
        let appendonly = if is_logged { "yes" } else { "no" };
        command
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", appendonly])
            // Written before each answer, left to the kernel: it outlives the
            // process, and costs no wait for the disk.
            .args(["--appendfsync", "no"])
            .args(["--repl-diskless-sync-delay", "0"])
            .args(["--repl-ping-replica-period", "1"])
            .arg("--dir")
            .arg(self.dir.path());
        if let Some(master) = master {
            command.args(["--replicaof", &format!("127.0.0.1 {master}")]);
        }
        self.process = Some(Process::spawn(command));
    }

    fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }

    fn forget(&mut self) {
        self.dir = TempDir::new().expect("a temporary directory");
    }

    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let config = ::redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(5)))
            .set_response_timeout(Some(SOON));
        Client::open(format!("redis://{}", self.addr()))?
            .get_multiplexed_async_connection_with_config(&config)
            .await
    }

    async fn try_say<T: FromRedisValue>(&self, words: &[&str]) -> RedisResult<T> {
        let mut connection = self.connect().await?;
        ::redis::cmd(words[0])
            .arg(&words[1..])
            .query_async(&mut connection)
            .await
    }

    async fn say(&self, words: &[&str]) {
        let _: ::redis::Value = self
            .try_say(words)
            .await
            .unwrap_or_else(|error| panic!("{words:?}: {error}"));
    }

    async fn answers(&self) {
        eventually("redis-server answers PING", SOON, async || {
            self.try_say::<String>(&["PING"]).await.is_ok()
        })
        .await;
    }

    async fn info_says(&self, section: &str, line: &str) {
        eventually(line, SOON, async || {
            let info: RedisResult<String> = self.try_say(&["INFO", section]).await;
            info.is_ok_and(|info| info.lines().any(|one| one.trim() == line))
        })
        .await;
    }
}

impl RedisPair {
    /// Starts both and waits until the replica has caught up.
    pub(crate) async fn start(is_logged: bool) -> Self {
        let mut pair = Self {
            nodes: [Node::new(), Node::new()],
            master: 0,
            is_logged,
        };
        pair.nodes[0].start(is_logged, None);
        pair.nodes[0].answers().await;
        pair.attach_replica().await;
        pair
    }

    pub(crate) fn is_logged(&self) -> bool {
        self.is_logged
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.master().addr()
    }

    fn master(&self) -> &Node {
        &self.nodes[self.master]
    }

    fn replica(&self) -> &Node {
        &self.nodes[1 - self.master]
    }

    /// Starts the other server, empty, as a replica of the master.
    async fn attach_replica(&mut self) {
        let port = self.master().port;
        let replica = &mut self.nodes[1 - self.master];
        replica.forget();
        replica.start(self.is_logged, Some(port));
        self.replica().answers().await;
        self.replica_follows().await;
    }

    async fn replica_follows(&self) {
        self.replica()
            .info_says("replication", "master_link_status:up")
            .await;
    }

    /// Runs a command on the master.
    pub(crate) async fn say(&self, words: &[&str]) {
        self.master().say(words).await;
    }

    /// Returns a connection to the master, past all proxies.
    pub(crate) async fn connect(&self) -> MultiplexedConnection {
        self.master()
            .connect()
            .await
            .expect("the master runs and accepts")
    }

    /// Freezes the master: connects still succeed, nothing answers.
    pub(crate) fn freeze(&self) {
        self.running().signal(Signal::STOP);
    }

    pub(crate) fn thaw(&self) {
        self.running().signal(Signal::CONT);
    }

    fn running(&self) -> &Process {
        self.master().process.as_ref().expect("it runs")
    }

    /// Kills the master; with `Data::Kept` and no log it saves before.
    pub(crate) async fn stop(&mut self, data: Data) {
        if data == Data::Kept && !self.is_logged {
            // The connection ends with the server: that is the answer.
            let _ = self
                .master()
                .try_say::<::redis::Value>(&["SHUTDOWN", "SAVE"])
                .await;
            let process = self.nodes[self.master].process.as_mut();
            process.expect("it runs").exit(SOON).await;
        }
        self.nodes[self.master].kill();
        if data == Data::Gone {
            self.nodes[self.master].forget();
        }
    }

    /// Starts the master again. The replica comes back by itself.
    pub(crate) async fn go_on(&mut self) {
        self.nodes[self.master].start(self.is_logged, None);
        self.master().answers().await;
    }

    /// Writes a dump, which is what a server that logs nothing finds when it
    /// starts after [`Self::crash`].
    pub(crate) async fn dump(&self) {
        self.replica_follows().await;
        self.say(&["SAVE"]).await;
    }

    /// Kills a master that logs nothing: it forgets all since its dump.
    pub(crate) fn crash(&mut self) {
        assert!(!self.is_logged, "a log would bring all back");
        self.nodes[self.master].kill();
    }

    /// Hands over to the replica without losing a write. The old master
    /// becomes the replica.
    pub(crate) async fn hand_over(&mut self) {
        self.replica_follows().await;
        self.say(&["FAILOVER", "TIMEOUT", "10000"]).await;
        self.replica().info_says("replication", "role:master").await;
        self.master = 1 - self.master;
    }

    /// Cuts the replica off, which is a master from now on, and hears of
    /// nothing that the old one still accepts.
    pub(crate) async fn detach_replica(&self) {
        self.replica_follows().await;
        self.replica().say(&["REPLICAOF", "NO", "ONE"]).await;
    }

    /// Kills the master; the one cut off takes its place. Nothing after
    /// [`Self::detach_replica`] is known any more.
    pub(crate) fn fail_over(&mut self) {
        self.nodes[self.master].kill();
        self.master = 1 - self.master;
    }

    /// Gives the new master a replica of its own.
    pub(crate) async fn heal(&mut self) {
        if self.replica().process.is_none() {
            self.attach_replica().await;
        }
        self.replica_follows().await;
    }
}
