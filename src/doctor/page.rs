//! What a page needs before it streams: leave to read, and enough connections.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use reqwest::header::HeaderMap;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::client::{Answer, Client};
use super::report::Report;

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// What a page that follows runs sends.
const HEADERS: &str = "authorization,last-event-id";

const WHY_CORS: &str = "the browser reads the answer and then keeps it from the page: fetch and \
                        EventSource fail, with nothing in the broker's log";
const WHY_HTTP_1: &str = "a browser opens six connections to a host: the seventh stream of all \
                          its tabs hangs, and so does every other request";

/// Looks at CORS and at the version of HTTP.
pub(super) async fn examine(client: &Client, config: &Answer, report: &mut Report) {
    if let Some(origin) = &client.args().origin {
        cors(client, origin, config, report).await;
    }
    http_version(&client.args().url, report).await;
}

async fn cors(client: &Client, origin: &str, config: &Answer, report: &mut Report) {
    let allowed = allowed_origins(&config.headers);
    let line = format!("settings.toml: [cors] allowed_origins = [\"{origin}\"]");
    match allowed.as_slice() {
        [one] if one == origin || one == "*" => {}
        [] => {
            let seen = format!("pages of {origin} may not read this broker");
            return report.find("cors-refused", seen, WHY_CORS, &[&line]);
        }
        [other] => {
            let seen = format!("pages of {other} may read this broker, those of {origin} may not");
            return report.find("cors-refused", seen, WHY_CORS, &[&line]);
        }
        several => {
            let seen = format!(
                "Access-Control-Allow-Origin stands {} times in an answer",
                several.len()
            );
            let mend = [
                "nginx: remove add_header Access-Control-…; the broker sends them",
                &line,
            ];
            return report.find("cors-doubled", seen, WHY_CORS, &mend);
        }
    }
    let preflight = client
        .request(Method::OPTIONS, "/api/v1/runs/doctor/stream")
        .header("Access-Control-Request-Method", "GET")
        .header("Access-Control-Request-Headers", HEADERS);
    let (is_good, seen) = match client.answer(preflight).await {
        Err(error) => (false, error),
        Ok(answer) => {
            let headers = list(&answer.headers, "access-control-allow-headers");
            let admits = |name| headers.iter().any(|it| it == name || it == "*");
            let is_good = answer.status.is_success()
                && !allowed_origins(&answer.headers).is_empty()
                && HEADERS.split(',').all(admits);
            (is_good, answer.told())
        }
    };
    match is_good {
        true => report.fine(format!("pages of {origin} may read (CORS)")),
        false => report.find(
            "cors-preflight",
            format!("a browser's question before a request (OPTIONS) is not answered by the broker: {seen}"),
            "a page that sends Authorization or Last-Event-ID is stopped by its browser",
            &["proxy: pass OPTIONS on to the broker, with Origin and Access-Control-Request-…"],
        ),
    }
}

fn allowed_origins(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all("access-control-allow-origin").iter();
    values
        .filter_map(|value| Some(value.to_str().ok()?.to_owned()))
        .collect()
}

fn list(headers: &HeaderMap, name: &str) -> Vec<String> {
    let values = headers.get_all(name).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts
        .flat_map(|text| text.split(','))
        .map(|word| word.trim().to_ascii_lowercase())
        .collect()
}

async fn http_version(url: &Url, report: &mut Report) {
    if url.scheme() == "http" {
        report.note(
            "plain HTTP is HTTP/1.1 to browsers: six streams for all tabs of one; docs/proxy.md \
             has HTTP/2",
        );
        return;
    }
    match speaks_http_2(url).await {
        Ok(true) => report.fine("HTTP/2 is offered"),
        Ok(false) => report.find(
            "http1-only",
            "HTTP/2 is not offered (ALPN)",
            WHY_HTTP_1,
            &[
                "nginx: listen 443 ssl http2;",
                "HAProxy: bind :443 ssl crt … alpn h2,http/1.1",
            ],
        ),
        Err(error) => report.note(format!("whether HTTP/2 is offered cannot be seen: {error}")),
    }
}

/// Asks what a browser asks in its handshake.
async fn speaks_http_2(url: &Url) -> Result<bool, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let host = url.host().ok_or("the URL has no host")?.to_owned();
    let name = match &host {
        Host::Domain(name) => ServerName::try_from(name.clone()).map_err(|it| it.to_string())?,
        Host::Ipv4(ip) => ServerName::from(std::net::IpAddr::from(*ip)),
        Host::Ipv6(ip) => ServerName::from(std::net::IpAddr::from(*ip)),
    };
    let port = url.port_or_known_default().unwrap_or(443);
    let handshake = async {
        let address = url.socket_addrs(|| Some(port))?;
        let socket = TcpStream::connect(address.as_slice()).await?;
        TlsConnector::from(Arc::new(config))
            .connect(name, socket)
            .await
    };
    let stream = timeout(HANDSHAKE_TIMEOUT, handshake)
        .await
        .map_err(|_| "no answer in time".to_owned())?
        .map_err(|error| error.to_string())?;
    Ok(stream.get_ref().1.alpn_protocol() == Some(b"h2"))
}
