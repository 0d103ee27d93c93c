//! The servers a measurement starts: each on a free port, ended when dropped.

pub(crate) mod nchan;
mod python;

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::http;
use crate::process::Process;

/// How long a server may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait between two looks whether it does.
const POLL_INTERVAL: Duration = Duration::from_micros(200);

/// How long a server that is asked to end may take.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// A child process that does not outlive this value.
#[derive(Debug)]
pub(crate) struct Guard {
    child: Child,
    /// Whether it has children of its own, which it must end itself.
    is_master: bool,
}

impl Guard {
    pub(crate) fn new(child: Child) -> Self {
        Self {
            child,
            is_master: false,
        }
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait()?)
    }

    /// Asks the process to end and waits until it has, for a while.
    fn ask(&mut self) {
        // The system calls can only fail for a process that is gone.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let asked = Instant::now();
        while let Ok(None) = self.child.try_wait()
            && asked.elapsed() < END_TIMEOUT
        {
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.is_master {
            self.ask();
        }
        // It may have ended by itself; either way it is gone after the wait.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns a loopback address that nobody listens at.
fn free_addr() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// A Redis server without persistence.
#[derive(Debug)]
pub(crate) struct Redis {
    process: Guard,
    /// Its URL.
    pub(crate) url: String,
}

impl Redis {
    /// Starts `redis-server` from `PATH` and waits until it answers.
    pub(crate) fn start() -> Result<Self> {
        let port = free_addr()?.port();
        let process = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--save", "", "--appendonly", "no"])
            // A peer may have a connection a client.
            .args(["--maxclients", "15000"])
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start redis-server")?;
        let redis = Self {
            process: Guard::new(process),
            url: format!("redis://127.0.0.1:{port}"),
        };
        let started = Instant::now();
        while let Err(error) = redis.connect() {
            if started.elapsed() > START_TIMEOUT {
                return Err(error).context("redis-server does not answer");
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(redis)
    }

    /// Returns a new connection to it.
    pub(crate) fn connect(&self) -> Result<redis::Connection> {
        let client = redis::Client::open(self.url.as_str())?;
        Ok(client.get_connection()?)
    }

    /// Returns its process, to be measured.
    pub(crate) fn process(&self) -> Result<Process> {
        Process::new(self.process.child.id())
    }

    /// Returns the bytes that it has allocated, by its own count.
    pub(crate) fn used_memory(&self) -> Result<u64> {
        let info: redis::InfoDict = redis::cmd("INFO")
            .arg("memory")
            .query(&mut self.connect()?)?;
        info.get("used_memory").context("INFO tells no used_memory")
    }
}

/// An event-stream server under test.
#[derive(Debug)]
pub(crate) struct Server {
    process: Guard,
    /// What it needs as long as it runs.
    _files: Option<TempDir>,
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    /// From before the process was made to its first word that it listens.
    started: Instant,
}

impl Server {
    /// Starts the broker with its default settings, but for `extra`
    /// environment variables.
    pub(crate) fn broker(program: &Path, redis: &Redis, extra: &[(&str, &str)]) -> Result<Self> {
        let program = program
            .canonicalize()
            .with_context(|| format!("there is no {}", program.display()))?;
        let mut command = Command::new(program);
        let inherited = std::env::vars().map(|(key, _)| key);
        for key in inherited.filter(|key| key == "RUNCAST_CONFIG" || key.starts_with("RUNCAST__")) {
            command.env_remove(key);
        }
        command
            // Away from a settings.toml that lies here.
            .current_dir("/")
            .env("RUNCAST__SERVER__BIND", "127.0.0.1:0")
            .env("RUNCAST__REDIS__URL", &redis.url)
            .env("RUNCAST__LOG__FORMAT", "json")
            .envs(extra.iter().copied());
        Self::start(command)
    }

    /// Starts the bare loop of this very program, with these flags.
    pub(crate) fn bare_loop(redis: &Redis, flags: &[&str]) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["bare-loop", "--redis", &redis.url])
            .args(flags);
        Self::start(command)
    }

    fn start(mut command: Command) -> Result<Self> {
        let started = Instant::now();
        let mut process = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let log = process.stderr.take().context("no standard error")?;
        let process = Guard::new(process);
        let addr = listening_addr(log).with_context(|| format!("started {command:?}"))?;
        Ok(Self {
            process,
            _files: None,
            addr,
            started,
        })
    }

    /// Returns its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// Returns its process, to be measured.
    pub(crate) fn process(&self) -> Result<Process> {
        Process::new(self.pid())
    }

    /// Returns its URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Waits until its default backend is usable: it has subscribed, and Redis
    /// knows the function.
    pub(crate) fn wait_ready(&self) -> Result<()> {
        self.time_to_first_answer("/health/ready?strict=true")?;
        Ok(())
    }

    /// Returns the time from before its process was made to the first 200 on
    /// `path`.
    pub(crate) fn time_to_first_answer(&self, path: &str) -> Result<Duration> {
        while http::get(self.addr, path)?.status != 200 {
            if self.started.elapsed() > START_TIMEOUT {
                bail!("no 200 on {path} within {START_TIMEOUT:?}");
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(self.started.elapsed())
    }
}

/// Reads a JSON log until the line that says `listening`; goes on reading, so
/// that the server never waits for a full pipe.
fn listening_addr(log: ChildStderr) -> Result<SocketAddr> {
    // Full, it makes the reader wait for us; once we are gone it refuses at once.
    let (found, addr) = mpsc::sync_channel(64);
    std::thread::spawn(move || {
        for line in BufReader::new(log).lines().map_while(Result::ok) {
            // Nobody asks any more once the address is known.
            let _ = found.send(line);
        }
    });
    let deadline = Instant::now() + START_TIMEOUT;
    let mut seen = String::new();
    while let Ok(line) = addr.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        if let Some(addr) = parse_listening(&line) {
            return Ok(addr);
        }
        seen = seen + "\n" + &line;
    }
    bail!("it did not say where it listens, but:{seen}")
}

/// Reads `{"message":"listening","addr":"…"}`, at the top or under `fields`.
fn parse_listening(line: &str) -> Option<SocketAddr> {
    let line: Value = serde_json::from_str(line).ok()?;
    let fields = line.get("fields").unwrap_or(&line);
    (fields.get("message")?.as_str()? == "listening")
        .then(|| fields.get("addr")?.as_str()?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_from_either_shape_of_log() {
        let addr = Some("127.0.0.1:80".parse().expect("an address"));
        for (line, expected) in [
            (r#"{"message":"listening","addr":"127.0.0.1:80"}"#, addr),
            (
                r#"{"level":"INFO","fields":{"message":"listening","addr":"127.0.0.1:80"}}"#,
                addr,
            ),
            (r#"{"message":"starting","addr":"127.0.0.1:80"}"#, None),
            ("listening", None),
        ] {
            assert_eq!(parse_listening(line), expected, "{line}");
        }
    }
}
