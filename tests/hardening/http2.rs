//! HTTP/2 by the proxies of the documentation, and a page with many streams.

use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::browser::{close, printed};
use crate::clients::node;
use crate::proxies::documented;
use crate::support::authority::Authority;
use crate::support::port::free_port;
use crate::support::process::{Process, require};
use crate::support::wait::SOON;
use crate::support::{Broker, eventually};

/// With HTTP/1.1 a page has six connections, and then hangs.
const STREAMS: usize = 20;

/// nginx as documented, but for places; one process, which can be killed.
fn nginx(broker: &Broker, authority: &Authority, dir: &TempDir, port: u16) -> Process {
    let text = include_str!("../../docs/proxy.md");
    let (_, rest) = text.split_once("```nginx\n").expect("it is documented");
    let (server, _) = rest.split_once("```").expect("it ends");
    let mut server = server.to_owned();
    for (documented, ours) in [
        ("listen 443", format!("listen 127.0.0.1:{port}")),
        ("/etc/ssl/runcast.pem", authority.path("localhost.pem")),
        ("/etc/ssl/runcast.key", authority.path("localhost.key")),
        ("127.0.0.1:8000", broker.addr.to_string()),
    ] {
        assert!(server.contains(documented), "{documented}");
        server = server.replace(documented, &ours);
    }
    let place = dir.path().display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {place}/{name};\n"))
        .concat();
    let config = format!(
        "daemon off;\nmaster_process off;\nerror_log stderr;\npid {place}/pid;\nevents {{}}\n\
         http {{\naccess_log off;\n{temporary}{server}}}\n"
    );
    let file = dir.path().join("nginx.conf");
    std::fs::write(&file, config).expect("the directory is ours");
    let mut command = Command::new("nginx");
    command.arg("-p").arg(dir.path()).arg("-c").arg(file);
    Process::spawn(command)
}

/// HAProxy as documented, but for places.
fn haproxy(broker: &Broker, authority: &Authority, dir: &TempDir, port: u16) -> Process {
    let config = documented("haproxy", broker);
    let bind = "bind :443 ssl crt /etc/ssl/runcast.pem";
    assert!(config.contains(bind), "{config}");
    // It wants both in one file.
    let read = |name| std::fs::read_to_string(authority.file(name)).expect("it was issued");
    let pem = dir.path().join("runcast.pem");
    std::fs::write(&pem, read("localhost.pem") + &read("localhost.key"))
        .expect("the directory is ours");
    let ours = format!("bind 127.0.0.1:{port} ssl crt {}", pem.display());
    let file = dir.path().join("haproxy.cfg");
    std::fs::write(&file, config.replace(bind, &ours)).expect("the directory is ours");
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(file);
    Process::spawn(command)
}

/// Caddy as documented, but for places and a certificate of our own.
fn caddy(broker: &Broker, authority: &Authority, dir: &TempDir, port: u16) -> Process {
    let config = documented("caddyfile", broker);
    let site = "runcast.example {";
    assert!(config.contains(site), "{config}");
    let ours = format!(
        "https://localhost:{port} {{\n    bind 127.0.0.1\n    tls {} {}",
        authority.path("localhost.pem"),
        authority.path("localhost.key")
    );
    let global = "{\n    admin off\n    auto_https disable_redirects\n}\n";
    let file = dir.path().join("Caddyfile");
    std::fs::write(&file, global.to_owned() + &config.replace(site, &ours))
        .expect("the directory is ours");
    let mut command = Command::new("caddy");
    command
        .args(["run", "--adapter", "caddyfile", "--config"])
        .arg(file)
        .env("XDG_DATA_HOME", dir.path())
        .env("XDG_CONFIG_HOME", dir.path());
    Process::spawn(command)
}

#[tokio::test]
async fn a_page_has_twenty_streams_over_one_connection_of_nginx() {
    check(nginx).await;
}

#[tokio::test]
async fn a_page_has_twenty_streams_over_one_connection_of_haproxy() {
    check(haproxy).await;
}

#[tokio::test]
async fn a_page_has_twenty_streams_over_one_connection_of_caddy() {
    check(caddy).await;
}

async fn check(proxy: fn(&Broker, &Authority, &TempDir, u16) -> Process) {
    require("chromium");
    let authority = Authority::new();
    authority.issue("localhost");
    let broker = Broker::embedded()
        .set("server.trusted_proxies", "127.0.0.1")
        .start_ready()
        .await;
    let (dir, port) = (TempDir::new().expect("a directory"), free_port());
    let _proxy = proxy(&broker, &authority, &dir, port);
    eventually("the proxy listens", SOON, async || {
        TcpStream::connect(("127.0.0.1", port)).await.is_ok()
    })
    .await;
    let profile = TempDir::new().expect("a directory");
    let mut command = node("browser.mjs");
    command
        .arg("streams")
        .arg(format!("https://localhost:{port}/"))
        .arg(STREAMS.to_string())
        .arg(profile.path());
    let mut browser = Process::spawn(command);
    let long = Duration::from_secs(60);
    eventually("all streams are open", long, async || {
        broker.metric("runcast_sessions", &[]).await >= STREAMS as f64
    })
    .await;
    for run in 0..STREAMS {
        broker.publish(&format!("run-{run}"), json!(run)).await;
    }
    eventually("each stream has its event", long, async || {
        let lines = printed(&browser);
        (0..STREAMS).all(|run| lines.iter().any(|line| line["stream"] == run))
    })
    .await;
    // A request beside them is answered, over the same connection.
    eventually("a fetch is answered", long, async || {
        let lines = printed(&browser);
        lines
            .iter()
            .any(|line| line["fetched"] == 200 && line["protocol"] == "h2")
    })
    .await;
    close(&mut browser).await;
}
