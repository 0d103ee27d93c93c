//! [`Followed`]: a `KubectlLogActor` under test, with a recorder in place of
//! its hub.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, Addr, Context, Handler};
use runcast_actors::kubectl::{
    Engine, FollowPermits, KubectlCounters, KubectlFollow, KubectlLine, KubectlLogActor,
    KubectlUpdate,
};
use runcast_actors::protocol::{Problem, RunId};
use runcast_actors::settings::{KubectlEngine, KubectlSettings};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::kube_api::{KubeApi, kubectl};

/// Longest wait for anything that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

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
pub(crate) struct Followed {
    pub(crate) actor: Addr<KubectlLogActor>,
    hub: Addr<Recorder>,
    pub(crate) updates: mpsc::Receiver<KubectlUpdate>,
    pub(crate) turns: Arc<Semaphore>,
    pub(crate) counters: Arc<KubectlCounters>,
    /// Lines received but not asked for yet.
    pub(crate) lines: VecDeque<KubectlLine>,
}

/// How the actor under test is set up.
pub(crate) struct Setup {
    pub(crate) settings: KubectlSettings,
    pub(crate) max_event_bytes: usize,
    pub(crate) end_grace: Duration,
    pub(crate) permits: Arc<FollowPermits>,
    pub(crate) turns: usize,
}

impl Setup {
    pub(crate) fn of(api: &KubeApi, engine: KubectlEngine) -> Self {
        Self {
            settings: KubectlSettings {
                engine,
                command: kubectl(),
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
    pub(crate) fn with_script(mut self, api: &KubeApi, text: &str) -> Self {
        let path = api.directory().join("kubectl");
        std::fs::write(&path, text).expect("written");
        self.settings.command = "sh".to_owned();
        let path = path.display().to_string();
        self.settings.extra_args.insert(0, path);
        self
    }

    pub(crate) fn with_timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = timeout;
        self
    }

    pub(crate) fn follow(self, run: &str) -> Followed {
        self.follow_on(run, &actix::Arbiter::current())
    }

    pub(crate) fn follow_on(self, run: &str, arbiter: &actix::ArbiterHandle) -> Followed {
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
            engine: Engine::new(self.settings),
            since_ns: None,
            max_event_bytes: self.max_event_bytes,
            end_grace: self.end_grace,
            permits: self.permits,
            counters: Arc::clone(&counters),
            hub: hub.clone().recipient(),
        };
        Followed {
            actor: KubectlLogActor::start(follow, arbiter),
            hub,
            updates,
            turns,
            counters,
            lines: VecDeque::new(),
        }
    }
}

impl Followed {
    pub(crate) async fn next(&mut self) -> KubectlUpdate {
        let next = timeout(PATIENCE, self.updates.recv()).await;
        next.expect("an update in time").expect("the hub lives")
    }

    pub(crate) async fn ready(&mut self) {
        let update = self.next().await;
        assert!(matches!(update, KubectlUpdate::Ready), "{update:?}");
    }

    pub(crate) async fn problem(&mut self) -> Problem {
        match self.next().await {
            KubectlUpdate::Problem(problem) => problem,
            other => panic!("not a problem: {other:?}"),
        }
    }

    /// Waits for the problem `slug`, past others.
    pub(crate) async fn problem_called(&mut self, slug: &str) -> Problem {
        loop {
            match self.next().await {
                KubectlUpdate::Problem(problem) if problem.slug == slug => return problem,
                KubectlUpdate::Problem(_) | KubectlUpdate::Resolved => {}
                other => panic!("not the problem {slug}: {other:?}"),
            }
        }
    }

    pub(crate) async fn failed(&mut self) -> Problem {
        match self.next().await {
            KubectlUpdate::Failed(problem) => problem,
            other => panic!("not a failure: {other:?}"),
        }
    }

    /// Waits for the next line, past problems that come and go.
    pub(crate) async fn line(&mut self) -> KubectlLine {
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
    pub(crate) async fn texts(&mut self, expected: &[&str]) {
        for expected in expected {
            let line = self.line().await;
            assert_eq!(text(&line), *expected);
        }
    }

    /// Waits for the end, past problems that come and go; nothing else may
    /// come before it.
    pub(crate) async fn ended(&mut self) -> &'static str {
        assert_eq!(self.lines, []);
        loop {
            match self.next().await {
                KubectlUpdate::Ended { status, .. } => return status,
                KubectlUpdate::Problem(_) | KubectlUpdate::Resolved => {}
                other => panic!("not the end: {other:?}"),
            }
        }
    }

    /// Ends the hub.
    pub(crate) fn end_hub(&self) {
        self.hub.try_send(Leave).expect("it has room");
    }

    /// Waits until the actor is gone.
    pub(crate) async fn gone(&self) {
        until("the actor is gone", || !self.actor.connected()).await;
    }
}

pub(crate) fn text(line: &KubectlLine) -> String {
    String::from_utf8_lossy(&line.payload).into_owned()
}

/// Polls until `condition` holds.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Whether the process is gone: not even a zombie is left.
pub(crate) fn is_gone(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

/// Kills a process as the kernel does when memory runs out.
pub(crate) fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
}
