//! `runcast doctor`: each thing that stands in the way is found, and no other.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::proxies::Proxy;
use crate::support::authority::Authority;
use crate::support::broker::BrokerSettings;
use crate::support::kube_api::{Ask, Fault, KubeApi, kubectl};
use crate::support::token::{claims_but, guarded, token};
use crate::support::{Broker, Redis};

/// What nginx needs to be no finding itself.
const HTTP_1_1: &str = "proxy_http_version 1.1; proxy_set_header Connection \"\";";

/// Examines what answers at an address; returns the report.
fn examine(url: &str, more: &[&str], settings: BrokerSettings) -> Value {
    let arguments = [&["doctor", url, "--json"], more].concat();
    let output = settings.arguments(&arguments).output();
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let is_good = report["findings"].as_array().is_some_and(Vec::is_empty);
    let code = output.status.code();
    assert_eq!(code, Some(i32::from(!is_good)), "{report:#}");
    report
}

/// Checks that these are found, each with a way to mend it, and nothing else.
fn finds(addr: SocketAddr, more: &[&str], expected: &[&str]) -> Value {
    let report = examine(&format!("http://{addr}"), more, BrokerSettings::default());
    check(&report, expected);
    report
}

fn check(report: &Value, expected: &[&str]) {
    let findings = report["findings"].as_array().expect("a list");
    let codes: Vec<_> = findings.iter().map(|it| it["code"].as_str()).collect();
    let expected: Vec<_> = expected.iter().copied().map(Some).collect();
    assert_eq!(codes, expected, "{report:#}");
    for finding in findings {
        assert!(!finding["mend"].as_array().expect("a list").is_empty());
    }
}

fn has(report: &Value, list: &str, part: &str) -> bool {
    let texts = report[list].as_array().expect("a list").iter();
    texts
        .filter_map(Value::as_str)
        .any(|text| text.contains(part))
}

#[tokio::test]
async fn a_broker_that_is_asked_directly_is_well() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let report = finds(broker.addr, &["--idle", "100ms"], &[]);
    for part in ["at once", "Last-Event-ID", "Redis answers", "idle"] {
        assert!(has(&report, "fine", part), "{part}: {report:#}");
    }
    let url = format!("http://{}", broker.addr);
    let output = BrokerSettings::default()
        .arguments(&["doctor", &url])
        .output();
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(
        text.ends_with("nothing found\n") && !text.contains('\x1b'),
        "{text}"
    );
}

#[test]
fn what_does_not_answer_is_no_broker() {
    for url in ["http://127.0.0.1:1", "http://127.0.0.1:1/path"] {
        let output = BrokerSettings::default()
            .arguments(&["doctor", url])
            .output();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
}

/// nginx holds back what comes as HTTP/1.0, if it does not heed the broker.
#[tokio::test]
async fn a_proxy_that_buffers_is_found() {
    let broker = Broker::embedded().start_ready().await;
    let buffering =
        "proxy_http_version 1.0; proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;";
    let proxy = Proxy::nginx(&broker, buffering).await;
    let report = finds(proxy.addr, &[], &["buffered"]);
    let lines = report["findings"][0]["mend"].to_string();
    for line in ["proxy_buffering off;", "proxy_http_version 1.1;"] {
        assert!(lines.contains(line), "{lines}");
    }
}

#[tokio::test]
async fn a_proxy_that_compresses_is_found() {
    let broker = Broker::embedded().start_ready().await;
    let gzip = format!(
        "{HTTP_1_1} gzip on; gzip_proxied any; gzip_min_length 0; gzip_types text/event-stream;"
    );
    let proxy = Proxy::nginx(&broker, &gzip).await;
    finds(proxy.addr, &[], &["compressed"]);
}

#[tokio::test]
async fn a_proxy_that_speaks_http_1_0_is_found() {
    let broker = Broker::embedded().start_ready().await;
    let proxy = Proxy::nginx(&broker, "proxy_http_version 1.0;").await;
    finds(proxy.addr, &[], &["http-1.0-upstream"]);
}

#[tokio::test]
async fn a_proxy_that_waits_for_more_is_found() {
    let broker = Broker::embedded().start_ready().await;
    let proxy = Proxy::haproxy(&broker, |config| config.replace("option http-no-delay", "")).await;
    finds(proxy.addr, &[], &["delayed"]);
    let proxy = Proxy::haproxy(&broker, |config| config).await;
    finds(proxy.addr, &[], &[]);
}

#[tokio::test]
async fn a_proxy_that_keeps_the_cursor_is_found() {
    let broker = Broker::embedded().start_ready().await;
    let stripping = format!("{HTTP_1_1} proxy_set_header Last-Event-ID \"\";");
    let proxy = Proxy::nginx(&broker, &stripping).await;
    finds(proxy.addr, &[], &["last-event-id-stripped"]);
}

#[tokio::test]
async fn https_without_http_2_is_found() {
    let authority = Authority::new();
    authority.issue("localhost");
    let broker = Broker::embedded()
        .set("server.tls_cert", authority.path("localhost.pem"))
        .set("server.tls_key", authority.path("localhost.key"))
        .start()
        .await;
    let url = format!("https://localhost:{}", broker.addr.port());
    let trusting = BrokerSettings::default().variable("SSL_CERT_FILE", &authority.path("ca.pem"));
    check(&examine(&url, &[], trusting), &["http1-only"]);
}

#[tokio::test]
async fn a_page_that_may_not_read_is_found() {
    let broker = Broker::embedded()
        .set("cors.allowed_origins", "http://a.example")
        .start_ready()
        .await;
    let report = finds(
        broker.addr,
        &["--origin", "http://b.example"],
        &["cors-refused"],
    );
    let line = &report["findings"][0]["mend"][0];
    assert!(
        line.as_str()
            .is_some_and(|line| line.contains("[\"http://b.example\"]"))
    );
    let report = finds(broker.addr, &["--origin", "http://a.example"], &[]);
    assert!(has(&report, "fine", "CORS"), "{report:#}");
}

#[tokio::test]
async fn a_proxy_that_adds_or_stops_what_pages_need_is_found() {
    let broker = Broker::embedded().start_ready().await;
    let origin = ["--origin", "http://localhost:3000"];
    let doubling = format!("{HTTP_1_1} add_header Access-Control-Allow-Origin * always;");
    let proxy = Proxy::nginx(&broker, &doubling).await;
    finds(proxy.addr, &origin, &["cors-doubled"]);
    let proxy = Proxy::haproxy(&broker, |config| {
        let alpn = "alpn h2,http/1.1";
        let deny = "http-request deny deny_status 405 if METH_OPTIONS";
        config.replace(alpn, &format!("{alpn}\n    {deny}"))
    });
    finds(proxy.await.addr, &origin, &["cors-preflight"]);
}

#[tokio::test]
async fn a_proxy_that_changes_headers_is_found() {
    let broker = Broker::embedded().start_ready().await;
    for (header, value, expected) in [
        ("Cache-Control", "no-cache", "cache-control"),
        ("Content-Type", "text/plain", "not-a-stream"),
    ] {
        let changing =
            format!("{HTTP_1_1} proxy_hide_header {header}; add_header {header} {value};");
        let proxy = Proxy::nginx(&broker, &changing).await;
        finds(proxy.addr, &[], &[expected]);
    }
}

#[tokio::test]
async fn a_proxy_that_cuts_idle_streams_is_found() {
    let broker = Broker::embedded().start_ready().await;
    let proxy = Proxy::nginx(&broker, &format!("{HTTP_1_1} proxy_read_timeout 1s;")).await;
    finds(proxy.addr, &["--idle", "20s"], &["idle-cut"]);
}

/// Events are of the last century, as those of a broker whose clock is wrong.
#[tokio::test]
async fn a_clock_that_is_wrong_is_found() {
    let broker = Broker::embedded().start_ready().await;
    let other_time = format!(
        "{HTTP_1_1} sub_filter_types text/event-stream; sub_filter_once off; \
         sub_filter '\"ts\":\"20' '\"ts\":\"19';"
    );
    let proxy = Proxy::nginx(&broker, &other_time).await;
    finds(proxy.addr, &[], &["clock"]);
}

/// Passes on what comes for `port`, and what is answered, a while later. On threads:
/// the test's own waits for the program to end.
fn late(port: u16, delay: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        while let Ok((here, _)) = listener.accept() {
            let there = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
            for (from, to) in [(&here, &there), (&there, &here)] {
                // What is late is so by what is asked, not by Nagle's algorithm.
                from.set_nodelay(true).expect("it is open");
                let clone = |side: &TcpStream| side.try_clone().expect("it is open");
                let (from, to) = (clone(from), clone(to));
                thread::spawn(move || pass_on(from, to, delay));
            }
        }
    });
    addr
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        #[expect(
            clippy::disallowed_methods,
            reason = "it is the delay itself, on a thread of its own"
        )]
        thread::sleep(delay);
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    // The other side is told that this one is gone.
    let _ = to.shutdown(Shutdown::Write);
}

#[tokio::test]
async fn a_redis_that_is_far_away_is_found() {
    let redis = Redis::start().await;
    let relay = late(redis.port(), Duration::from_millis(15));
    let broker = Broker::redis(&redis)
        .set("redis.url", format!("redis://{relay}"))
        .start_ready()
        .await;
    finds(broker.addr, &[], &["redis-slow"]);
}

#[tokio::test]
async fn a_redis_that_cuts_subscribers_early_is_found() {
    let limit = [
        "--client-output-buffer-limit",
        "pubsub",
        "1mb",
        "512kb",
        "60",
    ];
    let redis = Redis::start_with(&limit).await;
    let broker = Broker::redis(&redis).start_ready().await;
    finds(broker.addr, &[], &["redis-output-buffer"]);
}

/// A broker whose user at Redis may do all but that.
async fn limited(redis: &Redis, rule: &str) -> Broker {
    let mut publisher = redis.publisher().await;
    let words = [
        "ACL", "SETUSER", "limited", "on", ">s3cret", "~*", "&*", "+@all", rule,
    ];
    let _: String = publisher.command(&words).await;
    let url = redis.url().replace("redis://", "redis://limited:s3cret@");
    Broker::redis(redis)
        .set("redis.url", url)
        .start_ready()
        .await
}

#[tokio::test]
async fn a_redis_that_allows_too_little_is_found() {
    let redis = Redis::start().await;
    let broker = limited(&redis, "-@scripting").await;
    finds(broker.addr, &[], &["redis-acl"]);
}

#[tokio::test]
async fn a_redis_that_does_not_tell_its_limits_is_no_finding() {
    let redis = Redis::start().await;
    let broker = limited(&redis, "-config").await;
    let report = finds(broker.addr, &[], &[]);
    assert!(
        has(
            &report,
            "notes",
            "client-output-buffer-limit cannot be read"
        ),
        "{report:#}"
    );
}

#[tokio::test]
async fn a_cluster_that_forbids_is_found() {
    let api = KubeApi::start();
    api.fail(Ask::Pods, Fault::Status(403, "Forbidden"), 1000);
    let broker = BrokerSettings::default()
        .set("streaming.default_backend", "kubectl")
        .set("redis.url", Redis::down().url())
        .set("kubectl.command", kubectl())
        .set(
            "kubectl.extra_args",
            format!("--kubeconfig={}", api.kubeconfig().display()),
        )
        .start()
        .await;
    let report = finds(broker.addr, &[], &["kubectl-forbidden"]);
    let lines = report["findings"][0]["mend"].to_string();
    assert!(
        lines.contains("kubectl -n default create role runcast"),
        "{lines}"
    );
}

#[tokio::test]
async fn a_broker_that_asks_for_tokens_says_more_to_an_admin() {
    let broker = guarded(Broker::embedded()).start_ready().await;
    finds(broker.addr, &[], &["token-refused"]);
    let of = |admin: bool| {
        let rights = serde_json::json!({"subscribe": ["*"], "publish": ["*"], "admin": admin});
        token(&claims_but(rights, serde_json::json!({})))
    };
    let report = finds(broker.addr, &["--token", &of(false)], &[]);
    assert!(has(&report, "notes", "admin"), "{report:#}");
    let report = finds(broker.addr, &["--token", &of(true)], &[]);
    assert!(!has(&report, "notes", "admin"), "{report:#}");
}
