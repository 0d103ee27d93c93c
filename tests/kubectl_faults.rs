//! Faults of the API server, of kubectl and of what is around it. Only where
//! kubectl itself is the fault, a script stands in for it.

use std::sync::Arc;
use std::time::Duration;

use runcast_actors::kubectl::{FollowPermits, KubectlUpdate, Stop};
use runcast_actors::settings::KubectlEngine;

use crate::support::engines::for_both_engines;
use crate::support::followed::{Setup, is_gone, kill, text, until};
use crate::support::kube_api::{Ask, Fault, KubeApi, kubectl, processes};

/// Short to wait for, long for a kubectl that works on a busy machine.
const SHORT_TIMEOUT: Duration = Duration::from_secs(3);

for_both_engines!(
    actix::test:
    a_deleted_pod_is_told_and_its_successor_followed,
    forbidden_is_told,
    unauthorized_is_told,
    a_server_error_is_told,
    an_unavailable_api_is_told,
    too_many_requests_are_told,
    a_silent_api_is_told,
    an_api_that_refuses_connections_is_told_and_followed_on,
    a_log_that_is_forbidden_is_told,
    a_log_not_found_for_a_while_is_followed_on,
    a_log_that_was_removed_is_a_problem_and_no_output,
    a_log_request_that_hangs_is_noticed_and_repeated,
    a_quiet_log_is_left_alone,
    the_actor_goes_with_its_hub,
    a_slow_hub_slows_the_pipe_and_loses_nothing,
    a_line_over_the_limit_is_dropped_and_told,
    too_many_follows_are_told_and_wait_for_a_place,
);

async fn a_deleted_pod_is_told_and_its_successor_followed(engine: KubectlEngine) {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    api.log("pod-1", "main", 1, "one");
    let mut run = Setup::of(&api, engine).follow("42");
    run.ready().await;
    run.texts(&["one"]).await;
    api.delete_pod("pod-1");
    let problem = run.problem_called("pod-deleted").await;
    assert!(problem.detail.contains("pod-1"), "{}", problem.detail);
    api.add_running_pod("42", "pod-2", &["main"]);
    api.log("pod-2", "main", 2, "two");
    run.texts(&["two"]).await;
    api.finish("pod-2", 0);
    assert_eq!(run.ended().await, "succeeded");
}

/// A failure at the start ends the stream; the same failure later is told and
/// tried again until it passes.
async fn check_api_failure(engine: KubectlEngine, fault: Fault, slug: &str) {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    api.fail(Ask::Pods, fault, usize::MAX);
    let setup = || match fault {
        Fault::Hang => Setup::of(&api, engine).with_timeout(SHORT_TIMEOUT),
        _ => Setup::of(&api, engine),
    };
    let mut run = setup().follow("42");
    let problem = run.failed().await;
    assert_eq!((problem.slug, problem.retryable), (slug, Some(true)));
    run.gone().await;

    api.heal();
    let mut run = setup().follow("42");
    run.ready().await;
    api.log("pod-1", "main", 1, "one");
    run.texts(&["one"]).await;
    api.fail(Ask::Pods, fault, usize::MAX);
    assert_eq!(run.problem().await.slug, slug);
    // What is being followed goes on meanwhile.
    api.log("pod-1", "main", 2, "two");
    run.texts(&["two"]).await;
    api.heal();
    let update = run.next().await;
    assert!(matches!(update, KubectlUpdate::Resolved), "{update:?}");
}

async fn forbidden_is_told(engine: KubectlEngine) {
    check_api_failure(
        engine,
        Fault::Status(403, "Forbidden"),
        "kubernetes-forbidden",
    )
    .await;
}

async fn unauthorized_is_told(engine: KubectlEngine) {
    check_api_failure(
        engine,
        Fault::Status(401, "Unauthorized"),
        "kubernetes-unauthorized",
    )
    .await;
}

async fn a_server_error_is_told(engine: KubectlEngine) {
    check_api_failure(
        engine,
        Fault::Status(500, "InternalError"),
        "kubernetes-error",
    )
    .await;
}

async fn an_unavailable_api_is_told(engine: KubectlEngine) {
    check_api_failure(
        engine,
        Fault::Status(503, "ServiceUnavailable"),
        "kubernetes-error",
    )
    .await;
}

async fn too_many_requests_are_told(engine: KubectlEngine) {
    check_api_failure(
        engine,
        Fault::Status(429, "TooManyRequests"),
        "kubernetes-overloaded",
    )
    .await;
}

async fn a_silent_api_is_told(engine: KubectlEngine) {
    check_api_failure(engine, Fault::Hang, "kubernetes-timeout").await;
}

async fn an_api_that_refuses_connections_is_told_and_followed_on(engine: KubectlEngine) {
    let mut api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    api.log("pod-1", "main", 1, "one");
    let mut run = Setup::of(&api, engine).follow("42");
    run.ready().await;
    run.texts(&["one"]).await;
    api.refuse().await;
    run.problem_called("kubernetes-unreachable").await;
    let mut late = Setup::of(&api, engine).follow("42");
    assert_eq!(late.failed().await.slug, "kubernetes-unreachable");
    api.log("pod-1", "main", 2, "two");
    api.accept();
    run.texts(&["two"]).await;
}

async fn a_log_that_is_forbidden_is_told(engine: KubectlEngine) {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    api.log("pod-1", "main", 1, "one");
    api.fail(Ask::Log, Fault::Status(403, "Forbidden"), usize::MAX);
    let mut run = Setup::of(&api, engine).follow("42");
    run.ready().await;
    let problem = run.problem().await;
    assert_eq!(problem.slug, "kubernetes-forbidden");
    assert!(problem.detail.contains("pod-1/main"), "{}", problem.detail);
    api.heal();
    run.texts(&["one"]).await;
}

async fn a_log_not_found_for_a_while_is_followed_on(engine: KubectlEngine) {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    api.log("pod-1", "main", 1, "one");
    api.fail(Ask::Log, Fault::Status(404, "NotFound"), 2);
    let mut run = Setup::of(&api, engine).follow("42");
    run.ready().await;
    let update = run.next().await;
    assert!(matches!(update, KubectlUpdate::Lines(_)), "{update:?}");
}

async fn a_log_that_was_removed_is_a_problem_and_no_output(engine: KubectlEngine) {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    api.finish("pod-1", 0);
    let text = "unable to retrieve container logs for containerd://1";
    api.fail(Ask::Log, Fault::LogText(text), usize::MAX);
    let mut run = Setup::of(&api, engine).follow("42");
    run.ready().await;
    assert_eq!(run.problem().await.slug, "log-unavailable");
    // The pod is over and nothing more can be had: so is the run.
    assert_eq!(run.ended().await, "succeeded");
    assert_eq!(run.counters.lines(), 0);
}

async fn a_log_request_that_hangs_is_noticed_and_repeated(engine: KubectlEngine) {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    api.log("pod-1", "main", 1, "one");
    api.fail(Ask::Log, Fault::Hang, 1);
    let setup = Setup::of(&api, engine).with_timeout(SHORT_TIMEOUT);
    let mut run = setup.follow("42");
    run.ready().await;
    run.texts(&["one"]).await;
    let asked = api.log_requests();
    assert!(
        asked.iter().any(|it| it.contains("tailLines=1&")),
        "{asked:?}"
    );
}

async fn a_quiet_log_is_left_alone(engine: KubectlEngine) {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    api.log("pod-1", "main", 1, "one");
    let setup = Setup::of(&api, engine).with_timeout(SHORT_TIMEOUT);
    let mut run = setup.follow("42");
    run.ready().await;
    run.texts(&["one"]).await;
    until("the silence was looked into", || {
        api.log_requests()
            .iter()
            .any(|it| it.contains("tailLines=1&"))
    })
    .await;
    api.log("pod-1", "main", 2, "two");
    run.texts(&["two"]).await;
    let follows = api.log_requests();
    let follows = follows.iter().filter(|it| it.contains("follow=true"));
    assert_eq!(follows.count(), 1);
}

#[actix::test]
async fn a_killed_child_is_replaced_without_loss() {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    api.log("pod-1", "main", 1, "one");
    let mut run = Setup::of(&api, KubectlEngine::Command).follow("42");
    run.ready().await;
    run.texts(&["one"]).await;
    let followers = || {
        let mut pids = api.kubectl_processes();
        pids.retain(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains("\0logs\0")
        });
        pids
    };
    for (n, text) in ["two", "three"].into_iter().enumerate() {
        let pids = followers();
        assert_eq!(pids.len(), 1, "{pids:?}");
        kill(pids[0]);
        api.log("pod-1", "main", 2 + n as u64, text);
        run.texts(&[text]).await;
        assert!(is_gone(pids[0]), "it was reaped");
    }
}

#[actix::test]
async fn stop_kills_and_reaps_every_child() {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main", "side"]);
    api.log("pod-1", "main", 1, "one");
    api.log("pod-1", "side", 1, "one");
    let mut run = Setup::of(&api, KubectlEngine::Command).follow("42");
    run.ready().await;
    run.texts(&["one", "one"]).await;
    let children = api.kubectl_processes();
    assert!(children.len() >= 2, "{children:?}");
    run.actor.send(Stop).await.expect("answered");
    for pid in children {
        assert!(is_gone(pid), "{pid}");
    }
    assert_eq!(run.counters.follows(), 0);
    assert!(run.counters.killed() >= 2);
    run.gone().await;
}

#[actix::test]
async fn an_arbiter_that_stops_leaves_no_child() {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    api.log("pod-1", "main", 1, "one");
    let arbiter = actix::Arbiter::new();
    let mut run = Setup::of(&api, KubectlEngine::Command).follow_on("42", &arbiter.handle());
    run.ready().await;
    run.texts(&["one"]).await;
    let children = api.kubectl_processes();
    assert!(!children.is_empty());
    arbiter.stop();
    arbiter.join().expect("it ends");
    until("no child runs", || api.kubectl_processes().is_empty()).await;
}

async fn the_actor_goes_with_its_hub(engine: KubectlEngine) {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    api.log("pod-1", "main", 1, "one");
    let mut run = Setup::of(&api, engine).follow("42");
    run.ready().await;
    run.texts(&["one"]).await;
    run.end_hub();
    run.gone().await;
    until("no child runs", || api.kubectl_processes().is_empty()).await;
}

async fn a_slow_hub_slows_the_pipe_and_loses_nothing(engine: KubectlEngine) {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    let filler = "x".repeat(1000);
    for n in 0..5000_u64 {
        api.log("pod-1", "main", n * 1000, format!("{n} {filler}"));
    }
    let mut setup = Setup::of(&api, engine);
    // `Ready` and one batch are taken, then nothing for a while.
    setup.turns = 2;
    let mut run = setup.follow("42");
    run.ready().await;
    let KubectlUpdate::Lines(first) = run.next().await else {
        panic!("no lines");
    };
    assert!(first.len() <= 256);
    until("the follow waits", || {
        run.counters.lines() > first.len() as u64
    })
    .await;
    // One batch is on its way; none of the others is even counted.
    assert!(run.counters.lines() <= first.len() as u64 + 256);
    run.lines.extend(first);
    run.turns.add_permits(100_000);
    for n in 0..5000 {
        let line = text(&run.line().await);
        assert_eq!(line.split(' ').next(), Some(&*n.to_string()));
    }
}

async fn a_line_over_the_limit_is_dropped_and_told(engine: KubectlEngine) {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    api.log("pod-1", "main", 1, "before");
    api.log("pod-1", "main", 2, "x".repeat(300_000));
    api.log("pod-1", "main", 3, "after");
    let mut run = Setup::of(&api, engine).follow("42");
    run.ready().await;
    run.texts(&["before"]).await;
    let update = run.next().await;
    assert!(
        matches!(
            update,
            KubectlUpdate::TooLarge {
                bytes: Some(300_000)
            }
        ),
        "{update:?}"
    );
    run.texts(&["after"]).await;
    // Read again from the same second, it is not told again.
    api.cut_logs();
    api.log("pod-1", "main", 4, "again");
    run.texts(&["again"]).await;
}

async fn too_many_follows_are_told_and_wait_for_a_place(engine: KubectlEngine) {
    let api = KubeApi::start();
    for pod in ["a", "b"] {
        api.add_running_pod(pod, pod, &["main"]);
        api.log(pod, "main", 1, pod);
    }
    let permits = Arc::new(FollowPermits::new(1));
    let setup = || Setup {
        permits: Arc::clone(&permits),
        ..Setup::of(&api, engine)
    };
    let mut first = setup().follow("a");
    first.ready().await;
    first.texts(&["a"]).await;
    // Nothing of this run can be followed: it is refused for now.
    let mut second = setup().follow("b");
    let problem = second.failed().await;
    assert_eq!(
        (problem.slug, problem.retryable),
        ("too-many-follows", Some(true))
    );
    // One of this run's containers is followed already: it goes on.
    api.add_running_pod("a", "a2", &["main"]);
    api.log("a2", "main", 2, "a2");
    assert_eq!(first.problem().await.slug, "too-many-follows");
    api.finish("a", 0);
    first.texts(&["a2"]).await;
}

#[actix::test]
async fn a_missing_kubectl_is_told() {
    let api = KubeApi::start();
    let mut setup = Setup::of(&api, KubectlEngine::Command);
    setup.settings.command = "/nonexistent/kubectl".to_owned();
    let problem = setup.follow("42").failed().await;
    assert_eq!(
        (problem.slug, problem.retryable),
        ("kubectl-missing", Some(false))
    );
}

#[actix::test]
async fn a_kubectl_that_cannot_be_executed_is_told() {
    let api = KubeApi::start();
    let mut setup = Setup::of(&api, KubectlEngine::Command);
    let path = api.directory().join("kubectl");
    std::fs::write(&path, "no program").expect("written");
    setup.settings.command = path.display().to_string();
    let problem = setup.follow("42").failed().await;
    assert_eq!(
        (problem.slug, problem.retryable),
        ("kubectl-not-executable", Some(false))
    );
}

#[actix::test]
async fn a_kubectl_that_exits_at_once_is_told() {
    for script in ["exit 0", "exit 3", "echo nonsense"] {
        let api = KubeApi::start();
        let mut run = Setup::of(&api, KubectlEngine::Command)
            .with_script(&api, script)
            .follow("42");
        assert_eq!(run.failed().await.slug, "kubectl-failed", "{script}");
    }
}

#[actix::test]
async fn a_kubectl_that_hangs_is_killed_with_its_children() {
    let api = KubeApi::start();
    let marker = api.directory().join("sleeper").display().to_string();
    let script = format!("sh -c 'sleep 1000; : {marker}' & wait");
    let setup = Setup::of(&api, KubectlEngine::Command).with_script(&api, &script);
    let mut run = setup.with_timeout(Duration::from_millis(500)).follow("42");
    until("it runs", || !processes(&marker).is_empty()).await;
    assert_eq!(run.failed().await.slug, "kubernetes-timeout");
    until("its children are gone", || processes(&marker).is_empty()).await;
    assert_eq!(run.counters.killed(), 1);
}

/// Returns a kubectl that does everything but `logs -f`, for which `instead`
/// runs.
fn broken_logs(instead: &str) -> String {
    let kubectl = kubectl();
    format!("case \" $* \" in *' logs '*) {instead};; esac\nexec {kubectl} \"$@\"")
}

#[actix::test]
async fn a_line_of_5_mb_without_an_end_is_told_in_bounded_memory() {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    let flood =
        "printf '2026-11-23T20:00:00.5Z '; head -c 5000000 /dev/zero | tr '\\0' x; exec sleep 1000";
    let mut run = Setup::of(&api, KubectlEngine::Command)
        .with_script(&api, &broken_logs(flood))
        .follow("42");
    run.ready().await;
    let update = run.next().await;
    assert!(
        matches!(update, KubectlUpdate::TooLarge { bytes: None }),
        "{update:?}"
    );
}

#[actix::test]
async fn binary_from_kubectl_is_a_problem_and_no_output() {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    let noise = "head -c 100000 /dev/urandom; exit 0";
    let mut run = Setup::of(&api, KubectlEngine::Command)
        .with_script(&api, &broken_logs(noise))
        .follow("42");
    run.ready().await;
    assert_eq!(run.problem().await.slug, "log-unavailable");
    assert_eq!(run.counters.lines(), 0);
}

#[actix::test]
async fn kubectl_sees_only_the_environment_it_needs() {
    let api = KubeApi::start();
    let seen = api.directory().join("environment");
    let script = format!("env > {0}.part; mv {0}.part {0}; exit 1", seen.display());
    let mut setup = Setup::of(&api, KubectlEngine::Command).with_script(&api, &script);
    let mut known = ["PATH", "HOME", "KUBE", "PWD", "_", "SHLVL", "OLDPWD"]
        .map(str::to_owned)
        .to_vec();
    let kept = std::env::vars()
        .map(|(name, _)| name)
        .find(|name| !known.iter().any(|known| name.starts_with(known)))
        .expect("a test has more in its environment than kubectl needs");
    known.push(kept.clone());
    setup.settings.env_keep = vec![kept.clone()];
    let mut run = setup.follow("42");
    run.failed().await;
    let environment = std::fs::read_to_string(seen).expect("written");
    assert!(environment.contains(&format!("{kept}=")), "{environment}");
    for line in environment.lines() {
        assert!(known.iter().any(|name| line.starts_with(name)), "{line}");
    }
}
