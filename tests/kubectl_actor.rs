//! The kubectl backend alone: the real kubectl as a child of
//! `KubectlLogActor`, against the stand-in API server. Only where kubectl
//! itself is the fault, a script stands in for it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, Addr, Context, Handler};
use runcast_actors::kubectl::{
    FollowPermits, KubectlCounters, KubectlFollow, KubectlLine, KubectlLogActor, KubectlUpdate,
    Stop,
};
use runcast_actors::protocol::{EventKind, KubectlPosition, Problem, RunId};
use runcast_actors::settings::KubectlSettings;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use crate::support::kube_api::{Ask, Fault, KubeApi, processes};

/// Longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// Updates a test may leave unread; past that the recorder waits.
const UPDATES_MAX: usize = 10_000;

/// Stands where the hub would: passes every update on to the test. It takes
/// one only when the test lets it, if it was told to wait.
struct Recorder {
    updates: mpsc::Sender<KubectlUpdate>,
    turns: Arc<Semaphore>,
}

impl Actor for Recorder {
    type Context = Context<Self>;
}

impl Handler<KubectlUpdate> for Recorder {
    type Result = actix::ResponseFuture<()>;

    fn handle(&mut self, update: KubectlUpdate, _: &mut Self::Context) -> Self::Result {
        let (updates, turns) = (self.updates.clone(), Arc::clone(&self.turns));
        Box::pin(async move {
            turns.acquire().await.expect("never closed").forget();
            // A test that is over listens no more.
            let _ = updates.send(update).await;
        })
    }
}

/// Ends the recorder, as an idle hub ends itself.
#[derive(actix::Message)]
#[rtype(result = "()")]
struct Leave;

impl Handler<Leave> for Recorder {
    type Result = ();

    fn handle(&mut self, _: Leave, ctx: &mut Self::Context) {
        actix::ActorContext::stop(ctx);
    }
}

/// A followed run.
struct Followed {
    actor: Addr<KubectlLogActor>,
    hub: Addr<Recorder>,
    updates: mpsc::Receiver<KubectlUpdate>,
    turns: Arc<Semaphore>,
    counters: Arc<KubectlCounters>,
    /// Lines received but not asked for yet.
    lines: std::collections::VecDeque<KubectlLine>,
}

/// How the actor under test is set up.
struct Setup {
    settings: KubectlSettings,
    max_event_bytes: usize,
    end_grace: Duration,
    permits: Arc<FollowPermits>,
    turns: usize,
}

impl Setup {
    fn of(api: &KubeApi) -> Self {
        Self {
            settings: KubectlSettings {
                extra_args: vec![format!("--kubeconfig={}", api.kubeconfig().display())],
                max_backoff: Duration::from_millis(500),
                ..KubectlSettings::default()
            },
            max_event_bytes: 64 * 1024,
            end_grace: Duration::from_millis(100),
            permits: Arc::new(FollowPermits::new(8)),
            turns: Semaphore::MAX_PERMITS,
        }
    }

    /// Uses a script of this shell text as kubectl. The shell is given the
    /// file to read: executing one that was just written fails when another
    /// test forks at that moment.
    fn with_script(mut self, api: &KubeApi, text: &str) -> Self {
        let path = api.directory().join("kubectl");
        std::fs::write(&path, text).expect("written");
        self.settings.command = "sh".to_owned();
        let path = path.display().to_string();
        self.settings.extra_args.insert(0, path);
        self
    }

    fn with_timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = timeout;
        self
    }

    fn follow(self, run: &str) -> Followed {
        let (updates_in, updates) = mpsc::channel(UPDATES_MAX);
        let turns = Arc::new(Semaphore::new(self.turns));
        let counters = Arc::new(KubectlCounters::default());
        let hub = Recorder {
            updates: updates_in,
            turns: Arc::clone(&turns),
        }
        .start();
        let follow = KubectlFollow {
            run_id: RunId::parse(run).expect("a run id"),
            settings: Arc::new(self.settings),
            max_event_bytes: self.max_event_bytes,
            end_grace: self.end_grace,
            permits: self.permits,
            counters: Arc::clone(&counters),
            hub: hub.clone().recipient(),
        };
        Followed {
            actor: KubectlLogActor::start(follow, &actix::Arbiter::current()),
            hub,
            updates,
            turns,
            counters,
            lines: std::collections::VecDeque::new(),
        }
    }
}

impl Followed {
    async fn next(&mut self) -> KubectlUpdate {
        let next = timeout(PATIENCE, self.updates.recv()).await;
        next.expect("an update in time").expect("the hub lives")
    }

    async fn ready(&mut self) {
        let update = self.next().await;
        assert!(matches!(update, KubectlUpdate::Ready), "{update:?}");
    }

    async fn problem(&mut self) -> Problem {
        match self.next().await {
            KubectlUpdate::Problem(problem) => problem,
            other => panic!("not a problem: {other:?}"),
        }
    }

    /// Waits for the problem `slug`, past others.
    async fn problem_called(&mut self, slug: &str) -> Problem {
        loop {
            match self.next().await {
                KubectlUpdate::Problem(problem) if problem.slug == slug => return problem,
                KubectlUpdate::Problem(_) | KubectlUpdate::Resolved => {}
                other => panic!("not the problem {slug}: {other:?}"),
            }
        }
    }

    async fn failed(&mut self) -> Problem {
        match self.next().await {
            KubectlUpdate::Failed(problem) => problem,
            other => panic!("not a failure: {other:?}"),
        }
    }

    /// Waits for the next line, past problems that come and go.
    async fn line(&mut self) -> KubectlLine {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return line;
            }
            match self.next().await {
                KubectlUpdate::Lines(lines) => self.lines.extend(lines),
                KubectlUpdate::Problem(_) | KubectlUpdate::Resolved => {}
                other => panic!("not lines: {other:?}"),
            }
        }
    }

    /// Waits for a line with each of these texts, in this order.
    async fn texts(&mut self, expected: &[&str]) {
        for expected in expected {
            let line = self.line().await;
            assert_eq!(text(&line), *expected);
        }
    }

    /// Waits for the end, past problems that come and go; nothing else may
    /// come before it.
    async fn ended(&mut self) -> &'static str {
        assert_eq!(self.lines, []);
        loop {
            match self.next().await {
                KubectlUpdate::Ended { status, .. } => return status,
                KubectlUpdate::Problem(_) | KubectlUpdate::Resolved => {}
                other => panic!("not the end: {other:?}"),
            }
        }
    }

    /// Waits until the actor is gone.
    async fn gone(&self) {
        until("the actor is gone", || !self.actor.connected()).await;
    }
}

fn text(line: &KubectlLine) -> String {
    String::from_utf8_lossy(&line.payload).into_owned()
}

/// Polls until `condition` holds.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Whether the process is gone: not even a zombie is left.
fn is_gone(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

#[actix::test]
async fn a_running_pod_is_followed_from_its_start_to_its_end() {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    api.log("pod-1", "main", 1, "first");
    let mut run = Setup::of(&api).follow("42");
    run.ready().await;
    let line = run.line().await;
    assert_eq!(text(&line), "first");
    assert_eq!(&*line.source, "pod-1/main");
    assert_eq!(line.kind, EventKind::Output);
    assert_eq!(line.ts.to_string(), "2026-11-23T20:00:00.000Z");
    let key = KubectlPosition::container_key("pod-1", "main");
    assert_eq!(line.position.get(key), Some((1_795_464_000_000_000_001, 0)));

    api.log(
        "pod-1",
        "main",
        1,
        r#"{"type":"status","status":"running"}"#,
    );
    api.log(
        "pod-1",
        "main",
        2_000_000_000,
        r#"{"kind":"log","level":"warn"}"#,
    );
    api.log("pod-1", "main", 2_000_000_001, "\x1b[1mred\r");
    let (status, log, output) = (run.line().await, run.line().await, run.line().await);
    assert_eq!(status.kind, EventKind::Status);
    assert_eq!(
        status.position.get(key),
        Some((1_795_464_000_000_000_001, 1))
    );
    assert_eq!(log.kind, EventKind::Log);
    assert_eq!(text(&output), "\x1b[1mred\r");

    api.finish("pod-1", 0);
    assert_eq!(run.ended().await, "succeeded");
    run.gone().await;
    assert_eq!(run.counters.lines(), 4);
    assert_eq!(run.counters.follows(), 0);
    let asked = api.requests();
    let list = asked
        .iter()
        .find(|it| it.contains("/pods?"))
        .expect("a list");
    assert!(list.contains("labelSelector=run-id%3D42"), "{list}");
    assert!(list.contains("/namespaces/default/"), "{list}");
    let log = &api.log_requests()[0];
    for part in ["container=main", "follow=true", "timestamps=true"] {
        assert!(log.contains(part), "{log}");
    }
    assert!(
        !log.contains("tailLines=10") && !log.contains("sinceTime"),
        "{log}"
    );
}

#[actix::test]
async fn two_pods_and_init_containers_are_followed_apart() {
    let api = KubeApi::start();
    api.add_running_pod("7", "a", &["init-db", "main", "side"]);
    api.add_running_pod("7", "b", &["main"]);
    api.add_running_pod("70", "foreign", &["main"]);
    api.log("foreign", "main", 1, "not ours");
    api.log("a", "init-db", 1, "prepared");
    api.exit("a", "init-db", 0);
    api.log("a", "main", 5, "from a");
    api.log("a", "side", 3, "from side");
    api.log("b", "main", 4, "from b");
    let mut run = Setup::of(&api).follow("7");
    run.ready().await;
    let mut got = Vec::new();
    let mut last = KubectlPosition::default();
    for _ in 0..4 {
        let line = run.line().await;
        got.push(format!("{} {}", line.source, text(&line)));
        last = line.position;
    }
    got.sort();
    assert_eq!(
        got,
        [
            "a/init-db prepared",
            "a/main from a",
            "a/side from side",
            "b/main from b"
        ]
    );
    for (pod, container) in [
        ("a", "init-db"),
        ("a", "main"),
        ("a", "side"),
        ("b", "main"),
    ] {
        let key = KubectlPosition::container_key(pod, container);
        assert!(last.get(key).is_some(), "{pod}/{container}");
    }
    api.finish("a", 0);
    api.finish("b", 1);
    assert_eq!(run.ended().await, "failed");
}

#[actix::test]
async fn a_stream_waits_for_its_pod_and_says_what_for() {
    let api = KubeApi::start();
    let mut run = Setup::of(&api).follow("42");
    run.ready().await;
    let problem = run.problem().await;
    assert_eq!(
        (problem.slug, problem.retryable),
        ("pod-not-found", Some(true))
    );
    api.add_pod("42", "pod-1", &["main"]);
    let problem = run.problem().await;
    assert_eq!(problem.slug, "pod-not-started");
    assert!(
        problem.detail.contains("pod-1: ContainerCreating"),
        "{}",
        problem.detail
    );
    api.set_waiting("pod-1", "main", "ImagePullBackOff");
    let problem = run.problem().await;
    assert!(
        problem.detail.contains("ImagePullBackOff"),
        "{}",
        problem.detail
    );
    api.start_container("pod-1", "main");
    api.set_phase("pod-1", "Running");
    let update = run.next().await;
    assert!(matches!(update, KubectlUpdate::Resolved), "{update:?}");
    api.log("pod-1", "main", 1, "here");
    run.texts(&["here"]).await;
}

#[actix::test]
async fn a_log_cut_again_and_again_comes_whole_and_once() {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    // Three lines share each time, ten times a second: what is repeated after
    // `sinceTime` cannot be told apart by the time alone.
    for n in 0..60_u64 {
        api.log("pod-1", "main", n / 3 * 100_000_000, format!("line {n}"));
    }
    // Each cut is in the middle of a line or of a timestamp.
    for after in [10, 45, 400, 777] {
        api.fail(Ask::Log, Fault::CutAfter(after), 1);
    }
    let mut run = Setup::of(&api).follow("42");
    run.ready().await;
    for n in 0..60 {
        assert_eq!(text(&run.line().await), format!("line {n}"));
    }
    for n in 60..63 {
        api.cut_logs();
        api.log("pod-1", "main", 7_000_000_000, format!("line {n}"));
        assert_eq!(text(&run.line().await), format!("line {n}"));
    }
    // A dead kubelet ends the log well, which proves nothing.
    api.end_logs();
    api.log("pod-1", "main", 8_000_000_000, "line 63");
    run.texts(&["line 63"]).await;
    api.finish("pod-1", 0);
    assert_eq!(run.ended().await, "succeeded");
    assert!(
        api.log_requests()
            .iter()
            .any(|it| it.contains("sinceTime="))
    );
    let failures: u64 = run.counters.failures().map(|(_, times)| times).sum();
    assert!(failures >= 5, "{:?}", run.counters);
}

#[actix::test]
async fn half_a_line_is_delivered_only_when_it_is_the_last() {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    api.log("pod-1", "main", 1, "whole");
    api.log_part("pod-1", "main", 2, "half");
    let mut run = Setup::of(&api).follow("42");
    run.ready().await;
    run.texts(&["whole"]).await;
    api.end_logs();
    // The rest comes after the follow was ended in the middle of the line.
    until("the log is followed again", || {
        api.log_requests().len() >= 2
    })
    .await;
    api.log("pod-1", "main", 2, " and half");
    run.texts(&["half and half"]).await;
    api.log_part("pod-1", "main", 3, "no line feed");
    api.finish("pod-1", 0);
    run.texts(&["no line feed"]).await;
    assert_eq!(run.ended().await, "succeeded");
}

#[actix::test]
async fn a_restarted_container_is_followed_on_and_told() {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    api.log("pod-1", "main", 1, "one");
    let mut run = Setup::of(&api).follow("42");
    run.ready().await;
    run.texts(&["one"]).await;
    // The last line of the first instance is written while nobody reads.
    api.fail(Ask::Log, Fault::Status(500, "InternalError"), 2);
    api.cut_logs();
    api.log("pod-1", "main", 2, "two");
    api.restart("pod-1", "main", 3);
    api.log("pod-1", "main", 9_000_000_000, "three");
    run.texts(&["two"]).await;
    let told = run.line().await;
    assert_eq!(told.kind, EventKind::Log);
    let payload: serde_json::Value = serde_json::from_slice(&told.payload).expect("JSON");
    assert_eq!(payload["message"], "container restarted");
    assert_eq!(
        (&payload["level"], &payload["restarts"]),
        (&"info".into(), &1.into())
    );
    assert_eq!(
        (&payload["exit_code"], &payload["reason"]),
        (&3.into(), &"Error".into())
    );
    let key = KubectlPosition::container_key("pod-1", "main");
    assert_eq!(told.position.get(key), Some((1_795_464_000_000_000_002, 1)));
    run.texts(&["three"]).await;
    api.finish("pod-1", 1);
    assert_eq!(run.ended().await, "failed");
    assert_eq!(run.counters.restarts(), 1);
}

#[actix::test]
async fn another_reader_of_a_restarted_container_gives_the_same_positions() {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    api.log("pod-1", "main", 1, "one");
    let mut first = Setup::of(&api).follow("42");
    first.ready().await;
    let mut seen = vec![first.line().await];
    api.restart("pod-1", "main", 3);
    api.log("pod-1", "main", 9_000_000_000, "two");
    seen.extend([first.line().await, first.line().await]);
    let mut second = Setup::of(&api).follow("42");
    second.ready().await;
    for line in seen {
        assert_eq!(second.line().await, line);
    }
}

#[actix::test]
async fn a_job_that_tries_again_is_not_over() {
    let api = KubeApi::start();
    api.add_running_pod("42", "try-1", &["main"]);
    api.own("try-1", "job");
    api.log("try-1", "main", 1, "failing");
    let mut run = Setup::of(&api).follow("42");
    run.ready().await;
    run.texts(&["failing"]).await;
    api.finish("try-1", 1);
    until("the Job is asked", || {
        let asked = api.requests();
        asked.iter().filter(|it| it.contains("/jobs/job")).count() >= 2
    })
    .await;
    api.add_running_pod("42", "try-2", &["main"]);
    api.own("try-2", "job");
    api.log("try-2", "main", 5, "better");
    run.texts(&["better"]).await;
    api.finish("try-2", 0);
    api.end_job("job", "Complete");
    assert_eq!(run.ended().await, "succeeded");
}

#[actix::test]
async fn a_finished_run_is_read_and_ended() {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    for n in 0..1000_u64 {
        api.log("pod-1", "main", n, format!("{n}"));
    }
    api.finish("pod-1", 1);
    let mut run = Setup::of(&api).follow("42");
    run.ready().await;
    for n in 0..1000 {
        assert_eq!(text(&run.line().await), n.to_string());
    }
    assert_eq!(run.ended().await, "failed");
}

#[actix::test]
async fn a_deleted_pod_is_told_and_its_successor_followed() {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    api.log("pod-1", "main", 1, "one");
    let mut run = Setup::of(&api).follow("42");
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
async fn check_api_failure(fault: Fault, slug: &str) {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    api.fail(Ask::Pods, fault, usize::MAX);
    let setup = || Setup::of(&api).with_timeout(Duration::from_millis(1500));
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

#[actix::test]
async fn forbidden_is_told() {
    check_api_failure(Fault::Status(403, "Forbidden"), "kubernetes-forbidden").await;
}

#[actix::test]
async fn unauthorized_is_told() {
    check_api_failure(
        Fault::Status(401, "Unauthorized"),
        "kubernetes-unauthorized",
    )
    .await;
}

#[actix::test]
async fn a_server_error_is_told() {
    check_api_failure(Fault::Status(500, "InternalError"), "kubernetes-error").await;
}

#[actix::test]
async fn an_unavailable_api_is_told() {
    check_api_failure(Fault::Status(503, "ServiceUnavailable"), "kubernetes-error").await;
}

#[actix::test]
async fn too_many_requests_are_told() {
    check_api_failure(
        Fault::Status(429, "TooManyRequests"),
        "kubernetes-overloaded",
    )
    .await;
}

#[actix::test]
async fn a_silent_api_is_told() {
    check_api_failure(Fault::Hang, "kubernetes-timeout").await;
}

#[actix::test]
async fn an_api_that_refuses_connections_is_told_and_followed_on() {
    let mut api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    api.log("pod-1", "main", 1, "one");
    let mut run = Setup::of(&api).follow("42");
    run.ready().await;
    run.texts(&["one"]).await;
    api.refuse().await;
    run.problem_called("kubernetes-unreachable").await;
    let mut late = Setup::of(&api).follow("42");
    assert_eq!(late.failed().await.slug, "kubernetes-unreachable");
    api.log("pod-1", "main", 2, "two");
    api.accept();
    run.texts(&["two"]).await;
}

#[actix::test]
async fn a_log_that_is_forbidden_is_told() {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    api.log("pod-1", "main", 1, "one");
    api.fail(Ask::Log, Fault::Status(403, "Forbidden"), usize::MAX);
    let mut run = Setup::of(&api).follow("42");
    run.ready().await;
    let problem = run.problem().await;
    assert_eq!(problem.slug, "kubernetes-forbidden");
    assert!(problem.detail.contains("pod-1/main"), "{}", problem.detail);
    api.heal();
    run.texts(&["one"]).await;
}

#[actix::test]
async fn a_log_not_found_for_a_while_is_followed_on() {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    api.log("pod-1", "main", 1, "one");
    api.fail(Ask::Log, Fault::Status(404, "NotFound"), 2);
    let mut run = Setup::of(&api).follow("42");
    run.ready().await;
    let update = run.next().await;
    assert!(matches!(update, KubectlUpdate::Lines(_)), "{update:?}");
}

#[actix::test]
async fn a_log_that_was_removed_is_a_problem_and_no_output() {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    api.finish("pod-1", 0);
    let text = "unable to retrieve container logs for containerd://1";
    api.fail(Ask::Log, Fault::LogText(text), usize::MAX);
    let mut run = Setup::of(&api).follow("42");
    run.ready().await;
    assert_eq!(run.problem().await.slug, "log-unavailable");
    // The pod is over and nothing more can be had: so is the run.
    assert_eq!(run.ended().await, "succeeded");
    assert_eq!(run.counters.lines(), 0);
}

#[actix::test]
async fn a_log_request_that_hangs_is_noticed_and_repeated() {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    api.log("pod-1", "main", 1, "one");
    api.fail(Ask::Log, Fault::Hang, 1);
    let setup = Setup::of(&api).with_timeout(Duration::from_secs(1));
    let mut run = setup.follow("42");
    run.ready().await;
    run.texts(&["one"]).await;
    let asked = api.log_requests();
    assert!(
        asked.iter().any(|it| it.contains("tailLines=1&")),
        "{asked:?}"
    );
}

#[actix::test]
async fn a_quiet_log_is_left_alone() {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    api.log("pod-1", "main", 1, "one");
    let setup = Setup::of(&api).with_timeout(Duration::from_millis(700));
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
    let mut run = Setup::of(&api).follow("42");
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

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
}

#[actix::test]
async fn stop_kills_and_reaps_every_child() {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main", "side"]);
    api.log("pod-1", "main", 1, "one");
    api.log("pod-1", "side", 1, "one");
    let mut run = Setup::of(&api).follow("42");
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
    let setup = Setup::of(&api);
    let arbiter = actix::Arbiter::new();
    let (updates_in, mut updates) = mpsc::channel(UPDATES_MAX);
    let hub = Recorder {
        updates: updates_in,
        turns: Arc::new(Semaphore::new(100)),
    }
    .start();
    let follow = KubectlFollow {
        run_id: RunId::parse("42").expect("a run id"),
        settings: Arc::new(setup.settings),
        max_event_bytes: setup.max_event_bytes,
        end_grace: setup.end_grace,
        permits: setup.permits,
        counters: Arc::default(),
        hub: hub.recipient(),
    };
    KubectlLogActor::start(follow, &arbiter.handle());
    loop {
        let update = timeout(PATIENCE, updates.recv()).await.expect("in time");
        if matches!(update.expect("the hub lives"), KubectlUpdate::Lines(_)) {
            break;
        }
    }
    let children = api.kubectl_processes();
    assert!(!children.is_empty());
    arbiter.stop();
    arbiter.join().expect("it ends");
    until("no child runs", || api.kubectl_processes().is_empty()).await;
}

#[actix::test]
async fn the_actor_goes_with_its_hub() {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    api.log("pod-1", "main", 1, "one");
    let mut run = Setup::of(&api).follow("42");
    run.ready().await;
    run.texts(&["one"]).await;
    run.hub.try_send(Leave).expect("it has room");
    run.gone().await;
    until("no child runs", || api.kubectl_processes().is_empty()).await;
}

#[actix::test]
async fn a_slow_hub_slows_the_pipe_and_loses_nothing() {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    let filler = "x".repeat(1000);
    for n in 0..5000_u64 {
        api.log("pod-1", "main", n * 1000, format!("{n} {filler}"));
    }
    let mut setup = Setup::of(&api);
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

#[actix::test]
async fn a_line_over_the_limit_is_dropped_and_told() {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    api.log("pod-1", "main", 1, "before");
    api.log("pod-1", "main", 2, "x".repeat(300_000));
    api.log("pod-1", "main", 3, "after");
    let mut run = Setup::of(&api).follow("42");
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

#[actix::test]
async fn bytes_pass_as_they_are() {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    let bytes: Vec<u8> = (0..=255).filter(|byte| *byte != b'\n').collect();
    api.log("pod-1", "main", 1, &bytes);
    let mut run = Setup::of(&api).follow("42");
    run.ready().await;
    assert_eq!(run.line().await.payload, bytes);
}

#[actix::test]
async fn too_many_follows_are_told_and_wait_for_a_place() {
    let api = KubeApi::start();
    for pod in ["a", "b"] {
        api.add_running_pod(pod, pod, &["main"]);
        api.log(pod, "main", 1, pod);
    }
    let permits = Arc::new(FollowPermits::new(1));
    let setup = || Setup {
        permits: Arc::clone(&permits),
        ..Setup::of(&api)
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
    let mut setup = Setup::of(&api);
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
    let mut setup = Setup::of(&api);
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
        let mut run = Setup::of(&api).with_script(&api, script).follow("42");
        assert_eq!(run.failed().await.slug, "kubectl-failed", "{script}");
    }
}

#[actix::test]
async fn a_kubectl_that_hangs_is_killed_with_its_children() {
    let api = KubeApi::start();
    let marker = api.directory().join("sleeper").display().to_string();
    let script = format!("sh -c 'sleep 1000; : {marker}' & wait");
    let setup = Setup::of(&api).with_script(&api, &script);
    let mut run = setup.with_timeout(Duration::from_millis(500)).follow("42");
    until("it runs", || !processes(&marker).is_empty()).await;
    assert_eq!(run.failed().await.slug, "kubernetes-timeout");
    until("its children are gone", || processes(&marker).is_empty()).await;
    assert_eq!(run.counters.killed(), 1);
}

/// Returns a kubectl that does everything but `logs -f`, for which `instead`
/// runs.
fn broken_logs(instead: &str) -> String {
    let kubectl = std::env::var("PATH").expect("a PATH");
    let kubectl = std::env::split_paths(&kubectl)
        .map(|directory| directory.join("kubectl"))
        .find(|path| path.exists())
        .expect("kubectl is installed");
    format!(
        "case \" $* \" in *' logs '*) {instead};; esac\nexec {} \"$@\"",
        kubectl.display()
    )
}

#[actix::test]
async fn a_line_of_5_mb_without_an_end_is_told_in_bounded_memory() {
    let api = KubeApi::start();
    api.add_running_pod("42", "pod-1", &["main"]);
    let flood =
        "printf '2026-11-23T20:00:00.5Z '; head -c 5000000 /dev/zero | tr '\\0' x; exec sleep 1000";
    let mut run = Setup::of(&api)
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
    let mut run = Setup::of(&api)
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
    let mut setup = Setup::of(&api).with_script(&api, &script);
    // Cargo sets these for every test.
    setup.settings.env_keep = vec!["CARGO_PKG_NAME".to_owned()];
    let mut run = setup.follow("42");
    run.failed().await;
    let environment = std::fs::read_to_string(seen).expect("written");
    assert!(environment.contains("CARGO_PKG_NAME="), "{environment}");
    let known = [
        "PATH",
        "HOME",
        "KUBE",
        "CARGO_PKG_NAME",
        "PWD",
        "_",
        "SHLVL",
        "OLDPWD",
    ];
    for line in environment.lines() {
        assert!(known.iter().any(|name| line.starts_with(name)), "{line}");
    }
}
