//! What is the engine `api`'s alone: its watch, its connections, its
//! credentials. What it has in common with the command is tested with that.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use runcast_actors::kubectl::{FollowPermits, Stop};
use runcast_actors::settings::KubectlEngine::{self, Api, Command};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::kubectl_stream::settings_of;
use crate::support::Frame;
use crate::support::authority::Authority;
use crate::support::followed::{PATIENCE, Setup, until};
use crate::support::kube_api::{KubeApi, processes};

fn asked(api: &KubeApi, what: &str) -> usize {
    let requests = api.requests();
    requests.iter().filter(|it| it.contains(what)).count()
}

#[actix::test]
async fn a_quiet_run_asks_for_nothing_and_is_told_at_once() {
    let api = KubeApi::start();
    let mut run = Setup::of(&api, Api).follow("42");
    run.ready().await;
    assert_eq!(run.problem().await.slug, "pod-not-found");
    assert_eq!(run.counters.watches(), 1);
    // For longer than several looks of the command.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!((asked(&api, "/pods?"), asked(&api, "watch=true")), (2, 1));
    let watch = api.requests().pop().expect("a watch");
    for part in [
        "labelSelector=run-id%3D42",
        "allowWatchBookmarks=true",
        "timeoutSeconds=",
    ] {
        assert!(watch.contains(part), "{watch}");
    }
    api.add_running_pod("42", "pod-1", &["main"]);
    api.log("pod-1", "main", 1, "one");
    run.texts(&["one"]).await;
    assert_eq!(asked(&api, "/pods?"), 2);
}

#[actix::test]
async fn a_watch_that_ends_goes_on_or_begins_anew() {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    api.log("pod-1", "main", 1, "one");
    let mut run = Setup::of(&api, Api).follow("42");
    run.ready().await;
    run.texts(&["one"]).await;
    let lists = || asked(&api, "/pods?") - asked(&api, "watch=true");
    assert_eq!(lists(), 1);
    // The API ends a watch after a while: it goes on where it was.
    api.end_watches();
    until("the watch goes on", || asked(&api, "watch=true") == 2).await;
    api.add_running_pod("42", "pod-2", &["main"]);
    api.log("pod-2", "main", 2, "two");
    run.texts(&["two"]).await;
    assert_eq!(lists(), 1);
    // It may have forgotten where that was: 410, in the stream or as its answer.
    api.forget_versions();
    until("the pods are listed anew", || lists() == 2).await;
    api.delete_pod("pod-2");
    api.add_running_pod("42", "pod-3", &["main"]);
    api.log("pod-3", "main", 3, "three");
    run.texts(&["three"]).await;
    api.finish("pod-1", 0);
    api.finish("pod-3", 0);
    assert_eq!(run.ended().await, "succeeded");
}

#[actix::test]
async fn stop_closes_every_connection_and_starts_no_process() {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main", "side"]);
    api.log("pod-1", "main", 1, "one");
    api.log("pod-1", "side", 1, "one");
    let mut run = Setup::of(&api, Api).follow("42");
    run.ready().await;
    run.texts(&["one", "one"]).await;
    until("two logs and a watch are open", || api.open_answers() == 3).await;
    assert_eq!(
        processes(&api.kubeconfig().display().to_string()),
        Vec::<u32>::new()
    );
    run.actor.send(Stop).await.expect("answered");
    until("nothing is open", || api.open_answers() == 0).await;
    assert_eq!((run.counters.follows(), run.counters.watches()), (0, 0));
    assert_eq!(run.counters.killed(), 0);
    run.gone().await;
}

/// Writes a kubeconfig of two contexts, of which the present one leads nowhere.
fn write_config(api: &KubeApi, server: &str, more: Value, user: Value) -> PathBuf {
    let mut cluster = json!({"server": server});
    cluster
        .as_object_mut()
        .expect("an object")
        .extend(more.as_object().expect("one").clone());
    let context = |cluster: &str| json!({"cluster": cluster, "user": "u"});
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "nowhere",
        "clusters": [
            {"name": "c", "cluster": cluster},
            {"name": "nowhere", "cluster": {"server": "http://127.0.0.1:1"}},
        ],
        "users": [{"name": "u", "user": user}],
        "contexts": [
            {"name": "c", "context": context("c")},
            {"name": "nowhere", "context": context("nowhere")},
        ],
    });
    let path = api.directory().join("other");
    std::fs::write(&path, config.to_string()).expect("written");
    path
}

/// Returns a setup that uses context `c` of the kubeconfig at `path`.
fn setup_with(api: &KubeApi, path: &Path) -> Setup {
    let mut setup = Setup::of(api, Api);
    let path = path.display().to_string();
    setup.settings.extra_args = vec!["--kubeconfig".to_owned(), path, "--context=c".to_owned()];
    setup
}

#[actix::test]
async fn a_token_that_was_renewed_is_used() {
    let api = KubeApi::start();
    api.require_token("old");
    api.add_running_pod("42", "pod-1", &["main"]);
    api.log("pod-1", "main", 1, "one");
    let token = api.directory().join("token");
    std::fs::write(&token, "old").expect("written");
    let server = format!("http://{}", api.address());
    let path = write_config(&api, &server, json!({}), json!({"tokenFile": token}));
    let mut run = setup_with(&api, &path).follow("42");
    run.ready().await;
    run.texts(&["one"]).await;
    // The kubelet puts a new one in its place, and the old one ends.
    std::fs::write(&token, "new").expect("written");
    api.require_token("new");
    api.cut_logs();
    api.log("pod-1", "main", 2, "two");
    run.texts(&["two"]).await;
    api.finish("pod-1", 0);
    assert_eq!(run.ended().await, "succeeded");
}

/// The cluster has moved: the next request asks where it is now.
#[actix::test]
async fn a_kubeconfig_is_read_anew_when_nobody_answers() {
    let (mut before, after) = (KubeApi::start(), KubeApi::start());
    for api in [&before, &after] {
        api.add_running_pod("42", "pod-1", &["main"]);
        api.log("pod-1", "main", 1, "one");
    }
    let address = |api: &KubeApi| format!("http://{}", api.address());
    let server = address(&before);
    let path = write_config(&before, &server, json!({}), json!({}));
    let mut run = setup_with(&before, &path).follow("42");
    run.ready().await;
    run.texts(&["one"]).await;
    write_config(&before, &address(&after), json!({}), json!({}));
    after.log("pod-1", "main", 2, "two");
    before.refuse().await;
    run.texts(&["two"]).await;
}

#[actix::test]
async fn what_only_kubectl_can_do_is_refused() {
    let api = KubeApi::start();
    let server = format!("http://{}", api.address());
    let marker = api.directory().join("ran");
    let exec = json!({"apiVersion": "client.authentication.k8s.io/v1",
        "command": "touch", "args": [marker], "interactiveMode": "Never"});
    let path = write_config(&api, &server, json!({}), json!({"exec": exec}));
    let problem = setup_with(&api, &path).follow("42").failed().await;
    assert_eq!(problem.slug, "kubernetes-unauthorized");
    assert!(
        problem.detail.contains("credential plugin"),
        "{}",
        problem.detail
    );
    assert!(!marker.exists());

    let proxy = json!({"proxy-url": "http://127.0.0.1:1"});
    let path = write_config(&api, &server, proxy, json!({}));
    let problem = setup_with(&api, &path).follow("42").failed().await;
    assert_eq!(problem.slug, "kubernetes-unreachable");
    assert!(problem.detail.contains("proxy"), "{}", problem.detail);

    std::fs::write(&path, "no: kubeconfig").expect("written");
    let problem = setup_with(&api, &path).follow("42").failed().await;
    assert_eq!(problem.slug, "kubectl-failed");
    assert!(problem.detail.contains("kubeconfig"), "{}", problem.detail);
    assert_eq!(api.requests(), Vec::<String>::new());
}

/// Puts TLS in front of `target`; lives as long as the test's runtime.
async fn tls_in_front_of(target: SocketAddr, authority: &Authority) -> SocketAddr {
    authority.issue("127.0.0.1");
    let cert = CertificateDer::from_pem_file(authority.file("127.0.0.1.pem")).expect("PEM");
    let key = PrivateKeyDer::from_pem_file(authority.file("127.0.0.1.key")).expect("PEM");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_no_client_auth()
        .with_single_cert(vec![cert], key)
        .expect("a pair");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    actix::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            actix::spawn(async move {
                // One who does not trust us hangs up.
                let Ok(mut tls) = acceptor.accept(tcp).await else {
                    return;
                };
                let mut plain = TcpStream::connect(target).await.expect("it listens");
                let _ = tokio::io::copy_bidirectional(&mut tls, &mut plain).await;
            });
        }
    });
    address
}

#[actix::test]
async fn the_api_is_trusted_by_the_authority_of_the_kubeconfig_only() {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    api.log("pod-1", "main", 1, "one");
    let authority = Authority::new();
    let server = format!(
        "https://{}",
        tls_in_front_of(api.address(), &authority).await
    );
    let stranger = Authority::new();
    let trusting = |path: String| json!({"certificate-authority": path});
    let path = write_config(&api, &server, trusting(stranger.path("ca.pem")), json!({}));
    let problem = setup_with(&api, &path).follow("42").failed().await;
    assert_eq!(problem.slug, "kubernetes-unreachable");
    let path = write_config(&api, &server, trusting(authority.path("ca.pem")), json!({}));
    let mut run = setup_with(&api, &path).follow("42");
    run.ready().await;
    run.texts(&["one"]).await;
}

#[actix::test]
async fn a_watch_that_is_forbidden_is_told() {
    let api = KubeApi::start();
    api.forbid_watches();
    let problem = Setup::of(&api, Api).follow("42").failed().await;
    assert_eq!(problem.slug, "kubernetes-forbidden");
    assert!(
        problem.detail.contains("the watch of the run's pods"),
        "{}",
        problem.detail
    );
    assert!(
        problem.detail.contains("list and watch"),
        "{}",
        problem.detail
    );
}

#[actix::test]
async fn past_the_watches_there_may_be_pods_are_listed() {
    let api = KubeApi::start();
    let permits = Arc::new(FollowPermits::new(1));
    let setup = || Setup {
        permits: Arc::clone(&permits),
        ..Setup::of(&api, Api)
    };
    let mut first = setup().follow("a");
    first.ready().await;
    let mut second = setup().follow("b");
    second.ready().await;
    assert_eq!(second.problem().await.slug, "pod-not-found");
    api.add_pod("b", "b", &["main"]);
    assert_eq!(second.problem().await.slug, "pod-not-started");
    assert_eq!(asked(&api, "watch=true"), 1);
}

/// Reads a run that is over, from its first to its last byte; what is each
/// connection's own is left out.
async fn whole(api: &KubeApi, engine: KubectlEngine) -> Vec<Frame> {
    let broker = settings_of(api, engine).start().await;
    let mut client = broker.stream("42/stream/kubectl").await;
    client.preamble().await;
    let mut frames = client.rest(PATIENCE).await;
    frames.retain(|frame| frame.event != "problem");
    frames
}

#[tokio::test]
async fn both_engines_give_the_same_frames_and_ids() {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    for n in 0..50 {
        api.log("pod-1", "main", n / 3 * 400_000_000, format!("line {n}"));
    }
    api.log(
        "pod-1",
        "main",
        9_000_000_000,
        r#"{"type":"log","level":"warn"}"#,
    );
    api.log("pod-1", "main", 9_000_000_000, b"\xff\x00\x1b[31m\r");
    api.restart("pod-1", "main", 3);
    api.log("pod-1", "main", 10_000_000_000, "x".repeat(300_000));
    api.log_part("pod-1", "main", 11_000_000_000, "no line feed");
    api.finish("pod-1", 1);
    let by_command = whole(&api, Command).await;
    assert!(by_command.len() > 50, "{by_command:?}");
    assert_eq!(
        by_command.last().map(|frame| frame.event.as_str()),
        Some("end")
    );
    assert_eq!(whole(&api, Api).await, by_command);
}

#[tokio::test]
async fn check_and_health_name_the_engine() {
    let api = KubeApi::start();
    let settings = settings_of(&api, Api);
    let health = settings.start().await.json("/health").await;
    assert_eq!(
        health["dependencies"]["kubectl"]["engine"], "api",
        "{health}"
    );
    let output = settings.arguments(&["check"]).output();
    let found = String::from_utf8(output.stdout).expect("findings are UTF-8");
    assert!(
        found.contains("kubectl: ok (engine api, namespace default, "),
        "{found}"
    );
}
