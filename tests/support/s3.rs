//! [`S3`]: an S3 server that a test starts (moto), with one bucket.

use std::net::SocketAddr;
use std::process::Command;

use rustix::process::Signal;

use super::broker::BrokerSettings;
use super::http::Request;
use super::port::free_port;
use super::process::Process;
use super::wait::eventually;

/// A process of Python that has to load much takes its time on a busy machine.
const STARTED: std::time::Duration = std::time::Duration::from_secs(30);

/// What nobody may find in a log.
pub(crate) const SECRET: &str = "s3cr3t-of-the-bucket";

/// A server of this test alone. It keeps objects in memory.
pub(crate) struct S3 {
    port: u16,
    process: Process,
}

impl S3 {
    /// Starts it, and makes the bucket `runs`.
    pub(crate) async fn start() -> Self {
        let python = concat!(env!("CARGO_MANIFEST_DIR"), "/target/venv/bin/python");
        let port = free_port();
        let mut command = Command::new(python);
        command.args([
            "-m",
            "moto.server",
            "-H",
            "127.0.0.1",
            "-p",
            &port.to_string(),
        ]);
        let s3 = Self {
            port,
            process: Process::spawn(command),
        };
        eventually("the S3 server listens", STARTED, async || {
            tokio::net::TcpStream::connect(s3.addr()).await.is_ok()
        })
        .await;
        let made = Request::new("PUT", "/runs").header("Content-Length", "0");
        assert_eq!(made.send(s3.addr()).await.status(), 200);
        s3
    }

    fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Has a broker archive here.
    pub(crate) fn of(&self, settings: BrokerSettings) -> BrokerSettings {
        settings
            .set("archive.url", "s3://runs/a/b")
            .set(
                "archive.endpoint",
                format!("http://127.0.0.1:{}", self.port),
            )
            .variable("NO_PROXY", "127.0.0.1")
            .variable("AWS_ACCESS_KEY_ID", "key")
            .variable("AWS_SECRET_ACCESS_KEY", SECRET)
    }

    /// It takes connections, and answers nothing.
    pub(crate) fn freeze(&self) {
        self.process.signal(Signal::STOP);
    }

    /// It answers again.
    pub(crate) fn thaw(&self) {
        self.process.signal(Signal::CONT);
    }

    /// How many requests with this method it has answered.
    pub(crate) fn requests(&self, method: &str) -> usize {
        let log = self.process.log();
        let wanted = format!("{method} /runs/");
        log.iter().filter(|line| line.contains(&wanted)).count()
    }
}
