//! [`Fleet`]: three brokers on one Redis, and HAProxy in front.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::Size;
use crate::support::broker::{BrokerSettings, sum_samples};
use crate::support::guide::guide_block;
use crate::support::http::Request;
use crate::support::port::free_port;
use crate::support::process::Process;
use crate::support::wait::SOON;
use crate::support::{Broker, Redis, eventually};

pub(super) const BROKERS: usize = 3;

pub(super) struct Fleet {
    pub(super) proxy: SocketAddr,
    /// One more than there are brokers at first.
    settings: Vec<BrokerSettings>,
    brokers: Vec<Broker>,
    /// Whether a broker has not been told to end.
    serving: Vec<bool>,
    _haproxy: Process,
    _dir: TempDir,
}

impl Fleet {
    pub(super) async fn start(redis: &Redis, size: Size) -> Self {
        let ports: Vec<u16> = (0..=BROKERS).map(|_| free_port()).collect();
        let settings: Vec<BrokerSettings> = ports
            .iter()
            .map(|port| {
                Broker::redis(redis)
                    .set("server.bind", format!("127.0.0.1:{port}"))
                    .set("server.workers", 2)
                    .set("server.drain_delay", in_ms(size.drain_delay))
                    .set("server.drain_rate", size.drain_rate)
                    .set("streaming.max_age", in_ms(size.max_age))
            })
            .collect();
        let mut brokers = Vec::new();
        for settings in &settings[..BROKERS] {
            brokers.push(settings.start_ready().await);
        }
        let dir = TempDir::new().expect("a temporary directory");
        let proxy = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let file = dir.path().join("haproxy.cfg");
        std::fs::write(&file, config(proxy, &ports)).expect("the directory is ours");
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(file);
        let haproxy = Process::spawn(command);
        eventually("the proxy passes requests on", SOON, async || {
            let answer = Request::get("/health").try_send(proxy).await;
            answer.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        Self {
            proxy,
            serving: vec![true; BROKERS],
            settings,
            brokers,
            _haproxy: haproxy,
            _dir: dir,
        }
    }

    pub(super) fn terminate(&mut self, index: usize) {
        self.serving[index] = false;
        self.brokers[index].terminate();
    }

    pub(super) fn has_ended(&mut self, index: usize) -> bool {
        let ended = self.brokers[index].process.ended();
        assert!(ended.is_none_or(|status| status.success()), "{ended:?}");
        ended.is_some()
    }

    /// Starts a broker at its port, anew or for the first time.
    pub(super) async fn restart(&mut self, index: usize) {
        let broker = self.settings[index].start_ready().await;
        if index == self.brokers.len() {
            self.brokers.push(broker);
            self.serving.push(true);
        } else {
            self.brokers[index] = broker;
            self.serving[index] = true;
        }
    }

    pub(super) fn serving(&self) -> &[bool] {
        &self.serving
    }

    /// Returns how many streams each has now.
    pub(super) async fn streams(&self) -> Vec<usize> {
        let mut streams = Vec::new();
        for broker in &self.brokers {
            let answer = Request::get("/metrics").try_send(broker.addr).await;
            let text = answer.map(|answer| answer.text()).unwrap_or_default();
            streams.push(sum_samples(&text, "runcast_sessions", &[]) as usize);
        }
        streams
    }
}

fn in_ms(time: Duration) -> String {
    format!("{}ms", time.as_millis())
}

/// HAProxy as the operations guide has it, with three brokers.
fn config(proxy: SocketAddr, ports: &[u16]) -> String {
    let block = guide_block("haproxy");
    let bind = "bind :443 ssl crt /etc/ssl/runcast.pem alpn h2,http/1.1";
    assert!(block.contains(bind), "{block}");
    let (head, _) = block
        .split_once("    server one 10.0.0.1:8000")
        .expect("it names brokers");
    let mut config = head.replace(bind, &format!("bind {proxy}"));
    for port in ports {
        config.push_str(&format!("    server s{port} 127.0.0.1:{port}\n"));
    }
    config
}
