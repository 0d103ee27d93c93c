//! `runcast health`: asks the broker of these settings whether it lives, for a
//! container without a shell or curl to do it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use crate::settings::ServerSettings;

/// A broker that takes longer is not well.
const TIMEOUT: Duration = Duration::from_secs(3);

/// What `runcast health` is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
pub(crate) struct HealthArgs {
    /// Ask whether new clients should be sent there (/health/ready): not while it drains
    #[arg(long)]
    ready: bool,
}

impl HealthArgs {
    fn path(self) -> &'static str {
        match self.ready {
            true => "/health/ready",
            false => "/health/live",
        }
    }
}

/// Asks the broker that listens on `server.bind` of this machine; the exit code
/// is 0 if it answers that it is well.
///
/// # Errors
///
/// When it does not answer within three seconds, or answers anything but 200.
pub(crate) async fn run(server: &ServerSettings, args: HealthArgs) -> anyhow::Result<ExitCode> {
    // Another crate may have chosen one before us; any will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(TIMEOUT)
        // It is asked by its address, which its certificate does not name.
        .tls_danger_accept_invalid_certs(true)
        .build()?;
    let url = url(server, args);
    let answer = client
        .get(&url)
        .send()
        .await
        .with_context(|| format!("no answer from {url}"))?;
    anyhow::ensure!(
        answer.status() == reqwest::StatusCode::OK,
        "{url} answers {}",
        answer.status()
    );
    Ok(ExitCode::SUCCESS)
}

fn url(server: &ServerSettings, args: HealthArgs) -> String {
    let scheme = match server.tls_files() {
        Some(_) => "https",
        None => "http",
    };
    format!("{scheme}://{}{}", reachable(server.bind), args.path())
}

/// Returns where a socket bound to `bind` is reached from this machine.
fn reachable(bind: SocketAddr) -> SocketAddr {
    let ip = match bind.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, bind.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_of_all_addresses_is_asked_on_loopback() {
        let check = |bind: &str, expected: &str| {
            let bind: SocketAddr = bind.parse().expect("an address");
            assert_eq!(reachable(bind).to_string(), expected);
        };
        check("0.0.0.0:8000", "127.0.0.1:8000");
        check("[::]:8000", "[::1]:8000");
        check("10.1.2.3:8000", "10.1.2.3:8000");
        check("[fd00::1]:8000", "[fd00::1]:8000");
    }
}
