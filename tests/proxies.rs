//! nginx, HAProxy and Caddy in front: each event still arrives within 50 ms.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::guide::guide_block;
use crate::support::http::Request;
use crate::support::port::free_port;
use crate::support::process::Process;
use crate::support::wait::SOON;
use crate::support::{Broker, Redis, SseClient, eventually};

const WITHIN: Duration = Duration::from_millis(50);
/// Events of a round.
const EVENTS: usize = 50;

/// A proxy in front of a broker.
pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    _process: Process,
    _dir: TempDir,
}

impl Proxy {
    async fn start(write: impl FnOnce(&Path, u16) -> Command) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let port = free_port();
        let process = Process::spawn(write(dir.path(), port));
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        eventually("the proxy passes requests on", SOON, async || {
            let answer = Request::get("/health").try_send(addr).await;
            answer.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        Self {
            addr,
            _process: process,
            _dir: dir,
        }
    }

    /// nginx with nothing set but what a proxy must know; `extra` goes into
    /// its `http` block. One process: no worker is left when it is killed.
    pub(crate) async fn nginx(broker: &Broker, extra: &str) -> Self {
        let upstream = broker.addr;
        Self::start(|dir, port| {
            let dir_text = dir.display();
            let config = format!(
                "daemon off;\nmaster_process off;\nerror_log stderr;\npid {dir_text}/pid;\n\
                 events {{}}\nhttp {{\n  access_log off;\n\
                 client_body_temp_path {dir_text}/body;\n  proxy_temp_path {dir_text}/proxy;\n\
                 fastcgi_temp_path {dir_text}/f;\n  uwsgi_temp_path {dir_text}/u;\n\
                 scgi_temp_path {dir_text}/s;\n  {extra}\n\
                 server {{\n    listen 127.0.0.1:{port};\n\
                 location / {{ proxy_pass http://{upstream}; }}\n  }}\n}}\n"
            );
            let file = dir.join("nginx.conf");
            std::fs::write(&file, config).expect("the directory is ours");
            let mut command = Command::new("nginx");
            command.arg("-e").arg("stderr").arg("-c").arg(file);
            command
        })
        .await
    }

    /// HAProxy as `docs/operations.md` has it, but for an edit.
    pub(crate) async fn haproxy(broker: &Broker, edit: fn(String) -> String) -> Self {
        let config = edit(documented("haproxy", broker));
        let bind = "bind :443 ssl crt /etc/ssl/runcast.pem alpn h2,http/1.1";
        assert!(config.contains(bind), "{config}");
        Self::start(|dir, port| {
            let file = dir.join("haproxy.cfg");
            let config = config.replace(bind, &format!("bind 127.0.0.1:{port}"));
            std::fs::write(&file, config).expect("the directory is ours");
            let mut command = Command::new("haproxy");
            command.arg("-db").arg("-f").arg(file);
            command
        })
        .await
    }

    /// Caddy as `docs/operations.md` has it.
    async fn caddy(broker: &Broker) -> Self {
        let config = documented("caddyfile", broker);
        let site = "runcast.example {";
        assert!(config.contains(site), "{config}");
        Self::start(|dir, port| {
            let file = dir.join("Caddyfile");
            let here = format!("http://:{port} {{\n    bind 127.0.0.1");
            let config = format!("{{\n    admin off\n}}\n{}", config.replace(site, &here));
            std::fs::write(&file, config).expect("the directory is ours");
            let mut command = Command::new("caddy");
            command
                .args(["run", "--adapter", "caddyfile", "--config"])
                .arg(file)
                .env("XDG_DATA_HOME", dir)
                .env("XDG_CONFIG_HOME", dir);
            command
        })
        .await
    }
}

/// The block of the operations guide in `language`, with `broker` in the place of
/// its brokers.
pub(crate) fn documented(language: &str, broker: &Broker) -> String {
    let block = guide_block(language);
    let addr = broker.addr.to_string();
    let of_broker = block.replace("10.0.0.1:8000", &addr);
    let of_broker = of_broker.replace("10.0.0.2:8000", &addr);
    assert_ne!(of_broker, block);
    of_broker
}

/// Publishes one event after the other, each only when the one before has
/// arrived: a proxy that holds one back stops everything.
async fn check(redis: &Redis, proxy: &Proxy) {
    let request =
        Request::get("/api/v1/runs/42/stream").header("Accept-Encoding", "gzip, deflate, br");
    let mut client = SseClient::request(proxy.addr, &request).await;
    assert_eq!(client.head().header("content-encoding"), None);
    client.preamble().await;
    let mut publisher = redis.publisher().await;
    let mut rounds = Rounds::default();
    while rounds.goes_on() {
        for n in 0..EVENTS {
            let published = Instant::now();
            publisher
                .publish("run:42:output:stdout", n.to_string())
                .await;
            assert_eq!(client.run_event().await.payload(), n.to_string());
            rounds.times.push(published.elapsed());
        }
    }
}

/// The times of the events, in rounds: a proxy that delays does so in every
/// round, a busy machine does not.
#[derive(Default)]
struct Rounds {
    times: Vec<Duration>,
}

impl Rounds {
    /// Whether there is to be another round: none was good yet. Fails after
    /// the third.
    fn goes_on(&self) -> bool {
        let mut rounds: Vec<Vec<Duration>> = self.times.chunks(EVENTS).map(Vec::from).collect();
        let told: Vec<_> = rounds
            .iter_mut()
            .map(|times| {
                times.sort_unstable();
                (times[EVENTS / 2], times[EVENTS * 9 / 10])
            })
            .collect();
        let is_good = told.iter().any(|(_, ninth)| *ninth <= WITHIN);
        assert!(
            is_good || rounds.len() < 3,
            "median and nine in ten of each round: {told:?}"
        );
        !is_good
    }
}

#[tokio::test]
async fn nginx_as_it_comes_delays_nothing() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let proxy = Proxy::nginx(&broker, "").await;
    check(&redis, &proxy).await;
}

#[tokio::test]
async fn nginx_with_gzip_for_event_streams_delays_nothing() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let gzip = "gzip on; gzip_proxied any; gzip_min_length 0; gzip_http_version 1.0; \
                gzip_types text/event-stream application/json;";
    let proxy = Proxy::nginx(&broker, gzip).await;
    let request = Request::get("/api/v1/config").header("Accept-Encoding", "gzip");
    let zipped = request.send(proxy.addr).await.header("content-encoding");
    assert_eq!(zipped.as_deref(), Some("gzip"), "gzip is on");

    // nginx may compress; then it must still let each event pass at once.
    let mut client = SseClient::request(proxy.addr, &Request::get("/api/v1/runs/42/stream")).await;
    client.preamble().await;
    check_through_gzip(&redis, &proxy).await;
}

/// As `check`, for an answer the proxy may have compressed: what counts is
/// that bytes come out for each event before the next is published.
async fn check_through_gzip(redis: &Redis, proxy: &Proxy) {
    let mut answer = Request::get("/api/v1/runs/42/stream")
        .header("Accept", "text/event-stream")
        .header("Accept-Encoding", "gzip")
        .open(proxy.addr)
        .await
        .expect("nginx answers");
    assert_eq!(answer.head.status, 200);
    let mut publisher = redis.publisher().await;
    // The first piece holds the preamble; it may come in several.
    while tokio::time::timeout(Duration::from_millis(300), answer.next())
        .await
        .is_ok()
    {}
    let mut rounds = Rounds::default();
    while rounds.goes_on() {
        for n in 0..EVENTS {
            let published = Instant::now();
            publisher
                .publish("run:42:output:stdout", n.to_string())
                .await;
            let piece = tokio::time::timeout(SOON, answer.next()).await;
            let piece = piece.unwrap_or_else(|_| panic!("event {n} is held back"));
            assert!(piece.expect("the stream stays whole").is_some());
            rounds.times.push(published.elapsed());
        }
    }
}

#[tokio::test]
async fn haproxy_without_delay_delays_nothing() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let proxy = Proxy::haproxy(&broker, |config| config).await;
    check(&redis, &proxy).await;
}

#[tokio::test]
async fn caddy_as_it_comes_delays_nothing() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let proxy = Proxy::caddy(&broker).await;
    check(&redis, &proxy).await;
}
