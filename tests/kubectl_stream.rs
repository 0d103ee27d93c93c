//! Streams of the kubectl backend as a client sees them: the built broker, the
//! real kubectl or none, the stand-in API server.

use std::time::{Duration, Instant};

use runcast_actors::settings::KubectlEngine;
use serde_json::json;

use crate::support::broker::BrokerSettings;
use crate::support::engines::for_both_engines;
use crate::support::http::{Request, slug};
use crate::support::kube_api::{Ask, Fault, KubeApi, kubectl};
use crate::support::wait::SOON;
use crate::support::{Broker, Frame, SseClient, eventually};

/// kubectl is started several times on the way to an end, on a busy machine.
const LATER: Duration = Duration::from_secs(30);

/// Settings of a broker whose kubectl asks `api`.
pub(crate) fn kubectl_settings(api: &KubeApi) -> BrokerSettings {
    let argument = format!("--kubeconfig={}", api.kubeconfig().display());
    Broker::embedded()
        .set("kubectl.enabled", "true")
        .set("kubectl.command", kubectl())
        .set("kubectl.max_backoff", "500ms")
        .set("runs.end_grace", "200ms")
        .file(&format!("[kubectl]\nextra_args = [{argument:?}]\n"))
}

/// The same for a broker with this engine.
pub(crate) fn settings_of(api: &KubeApi, engine: KubectlEngine) -> BrokerSettings {
    kubectl_settings(api).set("kubectl.engine", engine.name())
}

for_both_engines!(
    tokio::test:
    a_runs_pod_is_streamed_from_its_start_to_its_end,
    two_clients_share_one_follow_and_a_late_one_sees_all,
    a_client_resumes_on_another_broker_without_loss_or_double,
    a_client_resumes_after_its_follow_ended_and_began_anew,
    a_stream_waits_for_its_pod,
    an_unusable_api_is_a_problem_and_goodbye_and_heals,
    an_api_that_fails_in_mid_stream_is_told_and_the_stream_goes_on,
    a_line_over_the_limit_is_a_gap,
    a_flood_of_lines_comes_whole_and_in_order,
    a_flood_is_taken_no_faster_than_it_may,
    a_client_that_comes_back_after_what_is_kept_is_told,
    a_run_id_that_is_no_label_value_never_reaches_kubectl,
);

/// Reads frames until one of the run comes, past problems that pass.
async fn run_event(client: &mut SseClient) -> Frame {
    loop {
        let frame = client.event().await;
        if frame.event != "problem" {
            assert!(frame.is_run_event(), "{frame:?}");
            return frame;
        }
    }
}

/// Reads `n` events of the run; returns their payloads as text and ids.
async fn lines(client: &mut SseClient, n: usize) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    while lines.len() < n {
        let frame = run_event(client).await;
        let text: String = serde_json::from_str(&frame.payload()).expect("a string");
        lines.push((text, frame.id().to_owned()));
    }
    lines
}

fn texts(lines: &[(String, String)]) -> Vec<&str> {
    lines.iter().map(|(text, _)| text.as_str()).collect()
}

async fn a_runs_pod_is_streamed_from_its_start_to_its_end(engine: KubectlEngine) {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    api.log("pod-1", "main", 123_000_000, "first");
    api.log(
        "pod-1",
        "main",
        124_000_000,
        r#"{"type":"log","level":"warn","message":"hot"}"#,
    );
    let broker = settings_of(&api, engine).start().await;
    let mut client = broker.stream("42/stream/kubectl").await;
    let backend = client.head().header("x-streaming-backend");
    assert_eq!(backend.as_deref(), Some("kubectl"));
    let preamble = client.preamble().await;
    assert_eq!(preamble.hello["backend"], "kubectl");

    let output = run_event(&mut client).await;
    assert_eq!(
        output.data,
        r#"{"run_id":"42","kind":"output","source":"pod-1/main","ts":"2026-11-23T20:00:00.123Z","backend":"kubectl","data":"first"}"#
    );
    assert!(output.id().starts_with('k'), "{output:?}");
    let log = run_event(&mut client).await;
    assert_eq!(log.event, "log");
    assert_eq!(
        log.payload(),
        r#"{"type":"log","level":"warn","message":"hot"}"#
    );

    api.log("pod-1", "main", 125_000_000, "live");
    let live = run_event(&mut client).await;
    assert_eq!(live.payload(), "\"live\"");
    api.finish("pod-1", 0);
    let status = run_event(&mut client).await;
    assert_eq!(
        (status.event.as_str(), status.payload().as_str()),
        ("status", "\"succeeded\"")
    );
    let rest = client.rest(LATER).await;
    let [end] = &rest[..] else {
        panic!("more than the end: {rest:?}");
    };
    assert_eq!(end.event, "end");
    assert_eq!(end.json()["status"], "succeeded");
    assert_eq!(end.id(), format!("{}-end", status.id()));

    // Who has seen the end is not served again; who has not is.
    let again = Request::get("/api/v1/runs/42/stream/kubectl")
        .header("Accept", "text/event-stream")
        .header("Last-Event-ID", end.id());
    assert_eq!(again.send(broker.addr).await.status(), 204);
    let mut late = broker.resume("42/stream/kubectl", live.id()).await;
    late.preamble().await;
    let rest = late.rest(LATER).await;
    let events: Vec<_> = rest.iter().map(|frame| frame.event.as_str()).collect();
    assert_eq!(events, ["status", "end"]);
}

async fn two_clients_share_one_follow_and_a_late_one_sees_all(engine: KubectlEngine) {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    api.log("pod-1", "main", 1, "one");
    let broker = settings_of(&api, engine).start().await;
    let mut first = broker.follow("42/stream/kubectl").await;
    lines(&mut first, 1).await;
    let mut second = broker.follow("42/stream/kubectl").await;
    api.log("pod-1", "main", 2, "two");
    assert_eq!(texts(&lines(&mut second, 2).await), ["one", "two"]);
    assert_eq!(texts(&lines(&mut first, 1).await), ["two"]);
    assert_eq!(broker.metric("runcast_kubectl_follows", &[]).await, 1.0);
    assert_eq!(api.log_requests().len(), 1);
}

async fn a_client_resumes_on_another_broker_without_loss_or_double(engine: KubectlEngine) {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main", "side"]);
    for n in 0..40 {
        // Equal times within a container, interleaved times between the two.
        api.log("pod-1", "main", n / 4 * 300_000_000, format!("main {n}"));
        api.log("pod-1", "side", n / 3 * 200_000_000, format!("side {n}"));
    }
    let mut seen = Vec::new();
    let mut cursor: Option<String> = None;
    for _ in 0..4 {
        let broker = settings_of(&api, engine).start().await;
        let mut client = match &cursor {
            None => broker.stream("42/stream/kubectl").await,
            Some(id) => broker.resume("42/stream/kubectl", id).await,
        };
        client.preamble().await;
        for (text, id) in lines(&mut client, 20).await {
            seen.push(text);
            cursor = Some(id);
        }
    }
    for container in ["main", "side"] {
        let of_one: Vec<_> = seen
            .iter()
            .filter(|text| text.starts_with(container))
            .collect();
        let expected: Vec<_> = (0..40).map(|n| format!("{container} {n}")).collect();
        assert_eq!(of_one, expected.iter().collect::<Vec<_>>());
    }
}

async fn a_client_resumes_after_its_follow_ended_and_began_anew(engine: KubectlEngine) {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    api.log("pod-1", "main", 1, "one");
    api.log("pod-1", "main", 1, "two");
    let broker = settings_of(&api, engine)
        .set("kubectl.linger", "0s")
        .set("hub.idle_ttl", "1s")
        .start()
        .await;
    let mut client = broker.follow("42/stream/kubectl").await;
    let seen = lines(&mut client, 2).await;
    drop(client);
    broker
        .wait_metric("runcast_kubectl_follows", &[], 0.0)
        .await;
    api.log("pod-1", "main", 1, "three");
    let mut client = broker.resume("42/stream/kubectl", &seen[0].1).await;
    client.preamble().await;
    assert_eq!(texts(&lines(&mut client, 2).await), ["two", "three"]);
    assert_eq!(api.log_requests().len(), 2);
}

async fn a_stream_waits_for_its_pod(engine: KubectlEngine) {
    let api = KubeApi::start();
    let broker = settings_of(&api, engine).start().await;
    let mut client = broker.follow("42/stream/kubectl").await;
    let problem = client.event().await;
    assert_eq!(problem.event, "problem");
    assert_eq!(slug(&problem.json()), "pod-not-found");
    assert_eq!(problem.json()["retryable"], true);
    // One who comes later is told as well.
    let mut late = broker.follow("42/stream/kubectl").await;
    assert_eq!(slug(&late.event().await.json()), "pod-not-found");
    api.add_running_pod("42", "pod-1", &["main"]);
    api.log("pod-1", "main", 1, "here");
    assert_eq!(texts(&lines(&mut client, 1).await), ["here"]);
    assert_eq!(texts(&lines(&mut late, 1).await), ["here"]);
}

/// A stream that cannot begin: `retry`, perhaps `hello`, `problem`, `goodbye`.
async fn check_failed_start(broker: &Broker, expected: &str, retryable: bool) {
    let mut client = broker.stream("42/stream/kubectl").await;
    let frames = client.rest(LATER).await;
    let [retry, .., problem, goodbye] = &frames[..] else {
        panic!("{frames:?}");
    };
    assert!(retry.retry.is_some(), "{frames:?}");
    assert_eq!(problem.event, "problem");
    assert_eq!(slug(&problem.json()), expected);
    assert_eq!(problem.json()["retryable"], retryable);
    assert_eq!(goodbye.event, "goodbye");
    assert_eq!(goodbye.json(), json!({"reason": "unavailable"}));
}

async fn an_unusable_api_is_a_problem_and_goodbye_and_heals(engine: KubectlEngine) {
    let mut api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    api.log("pod-1", "main", 1, "one");
    let broker = settings_of(&api, engine).start().await;
    for (fault, slug) in [
        (
            Fault::Status(401, "Unauthorized"),
            "kubernetes-unauthorized",
        ),
        (Fault::Status(403, "Forbidden"), "kubernetes-forbidden"),
        (Fault::Status(500, "InternalError"), "kubernetes-error"),
    ] {
        api.fail(Ask::Pods, fault, usize::MAX);
        check_failed_start(&broker, slug, true).await;
        api.heal();
    }
    api.refuse().await;
    check_failed_start(&broker, "kubernetes-unreachable", true).await;
    let health = broker.json("/health").await;
    assert_eq!(
        health["dependencies"]["kubectl"]["status"], "down",
        "{health}"
    );
    api.accept();
    let mut client = broker.follow("42/stream/kubectl").await;
    assert_eq!(texts(&lines(&mut client, 1).await), ["one"]);
    let health = broker.json("/health").await;
    assert_eq!(
        health["dependencies"]["kubectl"]["status"], "up",
        "{health}"
    );
}

#[tokio::test]
async fn a_missing_kubectl_is_a_problem_and_goodbye() {
    let api = KubeApi::start();
    let broker = kubectl_settings(&api)
        .set("kubectl.command", "/nonexistent/kubectl")
        .start()
        .await;
    check_failed_start(&broker, "kubectl-missing", false).await;
}

async fn an_api_that_fails_in_mid_stream_is_told_and_the_stream_goes_on(engine: KubectlEngine) {
    let mut api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    api.log("pod-1", "main", 1, "one");
    let broker = settings_of(&api, engine).start().await;
    let mut client = broker.follow("42/stream/kubectl").await;
    lines(&mut client, 1).await;
    api.refuse().await;
    // What a request of our own was reading breaks first.
    let mut told = "log-interrupted".to_owned();
    while told == "log-interrupted" {
        let problem = client.event().await;
        assert_eq!(problem.event, "problem");
        told = slug(&problem.json()).to_owned();
    }
    assert_eq!(told, "kubernetes-unreachable");
    api.log("pod-1", "main", 2, "two");
    api.accept();
    assert_eq!(texts(&lines(&mut client, 1).await), ["two"]);
}

async fn a_line_over_the_limit_is_a_gap(engine: KubectlEngine) {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    api.log("pod-1", "main", 1, "before");
    api.log("pod-1", "main", 2, "x".repeat(300_000));
    api.log("pod-1", "main", 3, "after");
    let broker = settings_of(&api, engine).start().await;
    let mut client = broker.follow("42/stream/kubectl").await;
    lines(&mut client, 1).await;
    let (reason, gap) = client.gap().await;
    assert_eq!((reason.as_str(), &gap["missed"]), ("too_large", &json!(1)));
    assert_eq!(texts(&lines(&mut client, 1).await), ["after"]);
}

async fn a_flood_of_lines_comes_whole_and_in_order(engine: KubectlEngine) {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    let filler = "x".repeat(200);
    for n in 0..20_000 {
        api.log("pod-1", "main", n * 1000, format!("{n} {filler}"));
    }
    let broker = settings_of(&api, engine).start().await;
    let mut client = broker.follow("42/stream/kubectl").await;
    for (n, (text, _)) in lines(&mut client, 20_000).await.iter().enumerate() {
        assert_eq!(text.split(' ').next(), Some(&*n.to_string()));
    }
}

/// What is not taken waits in kubectl: nothing is lost.
async fn a_flood_is_taken_no_faster_than_it_may(engine: KubectlEngine) {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    let filler = "x".repeat(200);
    for n in 0..8_000 {
        api.log("pod-1", "main", n * 1000, format!("{n} {filler}"));
    }
    let broker = settings_of(&api, engine)
        .set("kubectl.follow_rate", "512KiB")
        .start()
        .await;
    let begin = Instant::now();
    let mut client = broker.follow("42/stream/kubectl").await;
    for (n, (text, _)) in lines(&mut client, 8_000).await.iter().enumerate() {
        assert_eq!(text.split(' ').next(), Some(&*n.to_string()));
    }
    // 1.8 MB of which the first MiB comes at once.
    assert!(
        begin.elapsed() > Duration::from_secs(1),
        "{:?}",
        begin.elapsed()
    );
    let paced = broker
        .metric("runcast_kubectl_reads_paced_total", &[])
        .await;
    assert!(paced > 0.0);
}

async fn a_client_that_comes_back_after_what_is_kept_is_told(engine: KubectlEngine) {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    let broker = settings_of(&api, engine)
        .set("limits.max_event_bytes", "16KiB")
        .set("history.max_bytes_per_run", "64KiB")
        .start()
        .await;
    let mut client = broker.follow("42/stream/kubectl").await;
    let mut seen = Vec::new();
    for n in 0..500 {
        let line = format!("{n} {}", "x".repeat(1000));
        api.log("pod-1", "main", n * 1000, line);
        // One at a time, so that this client never falls behind.
        seen.extend(lines(&mut client, 1).await);
    }
    // What is kept begins somewhere in the last 64 KiB.
    let mut late = broker.resume("42/stream/kubectl", &seen[10].1).await;
    let preamble = late.preamble().await;
    assert_eq!(preamble.hello["resume"], "gap");
    let (reason, gap) = late.gap().await;
    assert_eq!(reason, "trimmed");
    assert_eq!(gap["after"], seen[10].1.as_str());
    let first = &lines(&mut late, 1).await[0];
    assert_eq!(gap["before"], first.1.as_str());
    let mut known = broker.resume("42/stream/kubectl", &seen[498].1).await;
    assert_eq!(known.preamble().await.hello["resume"], "replay");
    assert_eq!(lines(&mut known, 1).await[0], seen[499]);
}

async fn a_run_id_that_is_no_label_value_never_reaches_kubectl(engine: KubectlEngine) {
    let api = KubeApi::start();
    let broker = settings_of(&api, engine).start().await;
    for run_id in [
        "-oyaml",
        "..%2Fetc",
        "a%20b",
        "a,b%20notin%20(c)",
        "%00",
        &"x".repeat(64),
    ] {
        let path = format!("/api/v1/runs/{run_id}/stream/kubectl");
        let answer = Request::get(&path).send(broker.addr).await;
        assert_eq!(answer.status(), 400, "{run_id}: {}", answer.text());
    }
    assert_eq!(api.requests(), Vec::<String>::new());
    assert_eq!(
        broker
            .metric("runcast_kubectl_follows_started_total", &[])
            .await,
        0.0
    );
}

#[tokio::test]
async fn no_kubectl_is_left_when_the_broker_ends() {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main", "side"]);
    api.log("pod-1", "main", 1, "one");
    api.log("pod-1", "side", 1, "one");
    let mut broker = kubectl_settings(&api).start().await;
    let mut client = broker.follow("42/stream/kubectl").await;
    lines(&mut client, 2).await;
    let children = api.kubectl_processes();
    assert!(children.len() >= 2, "{children:?}");
    broker.terminate();
    assert_eq!(
        client
            .rest(SOON)
            .await
            .last()
            .map(|it| it.event.clone())
            .as_deref(),
        Some("goodbye")
    );
    assert_eq!(broker.exit_code(SOON).await, Some(0));
    eventually("no kubectl is left", SOON, async || {
        api.kubectl_processes().is_empty()
    })
    .await;
}
