//! `make failover`: Redis is killed for `RUNCAST_FAILOVER_SECONDS` in the middle of
//! runs under load. Clients of `auto` are shown every line once, in the order
//! it was printed; clients of Redis beside them what Redis has, and nothing of
//! pods.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::{number_from_env, report};
use crate::support::agent::Agent;
use crate::support::kube_api::{KubeApi, T0, kubectl};
use crate::support::watcher::{Watcher, numbered};
use crate::support::{Broker, Cli, Redis};

/// Runs of agents, beside that of `runcast exec`.
const RUNS: usize = 6;

/// How long there is load before Redis goes, and after it is back.
const BEFORE: Duration = Duration::from_secs(3);
const AFTER: Duration = Duration::from_secs(6);

/// Time between two lines of a run.
const PAUSE: Duration = Duration::from_millis(20);

#[tokio::test]
async fn failover() {
    let seconds: u64 = number_from_env("RUNCAST_FAILOVER_SECONDS", 30);
    report(&format!("failover: Redis away for {seconds} s under load"));
    let lasts = ["--appendonly", "yes", "--appendfsync", "always"];
    let mut redis = Redis::start_with(&lasts).await;
    let api = Arc::new(KubeApi::start());
    let broker = broker(&api, &redis).await;
    let mut agents = Vec::new();
    let mut watchers = Vec::new();
    let mut pure = Vec::new();
    for n in 0..RUNS {
        let run = format!("run-{n}");
        agents.push(Agent::start(&api, &run, &redis.url()));
        watchers.push(Watcher::open(&broker, &format!("{run}/stream")).await);
        pure.push(Watcher::open(&broker, &format!("{run}/stream/redis")).await);
    }
    let mut of_exec = Watcher::open(&broker, "42/stream").await;
    let exec = Exec::start(&api, &redis);

    let mut said = say(&mut agents, 0, BEFORE).await;
    redis.kill();
    let outage = Duration::from_secs(seconds);
    said = say(&mut agents, said, outage).await;
    redis.restart().await;
    said = say(&mut agents, said, AFTER).await;
    for agent in &mut agents {
        agent.say("the last").await;
        assert!(agent.has_shipped(), "Redis is there");
    }
    let printed = exec.end().await;

    let mut expected = numbered("line", 0..said);
    expected.push("the last".to_owned());
    for (watcher, pure) in watchers.iter_mut().zip(&mut pure) {
        watcher.until_source("redis", 1).await;
        watcher.until_text("the last").await;
        check_lines(watcher, &expected);
        pure.until_text("the last").await;
        assert_eq!(pure.texts(), expected, "what Redis has");
        assert_eq!(pure.by_backend().1, 0);
        assert!(pure.sources().is_empty() && pure.gaps().is_empty());
    }
    of_exec.until_text("the last").await;
    let mut texts = of_exec.texts();
    // What `runcast exec` says itself is in the pod's log, too.
    texts.retain(|text| !text.starts_with("runcast"));
    check_once(&texts, &printed);
    report(&format!(
        "runcast exec: {} lines once each, {:?} by redis and kubectl, gaps {:?}",
        texts.len(),
        of_exec.by_backend(),
        of_exec.gaps()
    ));
    let matched = broker.metric("runcast_auto_matched_total", &[]).await;
    let shown = broker.metric("runcast_auto_lines_total", &[]).await;
    report(&format!(
        "{matched} lines and events matched, {shown} lines of pods shown"
    ));
}

/// A broker with the settings as shipped.
async fn broker(api: &KubeApi, redis: &Redis) -> Broker {
    let argument = format!("--kubeconfig={}", api.kubeconfig().display());
    Broker::embedded()
        .set("streaming.default_backend", "auto")
        .set("redis.url", redis.url())
        .set("kubectl.enabled", "true")
        .set("kubectl.command", kubectl())
        .file(&format!("[kubectl]\nextra_args = [{argument:?}]\n"))
        .start_ready()
        .await
}

/// Has every agent say a line after the other for a while; returns how many
/// they have said in all.
async fn say(agents: &mut [Agent], mut said: usize, time: Duration) -> usize {
    let begun = Instant::now();
    while begun.elapsed() < time {
        for agent in &mut *agents {
            agent.say(&format!("line {said}")).await;
        }
        said += 1;
        sleep(PAUSE).await;
    }
    said
}

fn check_lines(watcher: &Watcher, expected: &[String]) {
    let gaps = watcher.gaps();
    assert!(gaps.is_empty(), "{gaps:?}");
    check_once(&watcher.texts(), expected);
    let (from_redis, from_kubectl) = watcher.by_backend();
    report(&format!(
        "{} lines once and in order, {from_redis} by redis and {from_kubectl} by kubectl, {} switches",
        expected.len(),
        watcher.sources().len()
    ));
}

/// Checks that each line is there once, and in order.
fn check_once(texts: &[String], expected: &[String]) {
    let places: HashMap<&String, usize> = expected.iter().zip(0..).collect();
    let mut seen = vec![0; expected.len()];
    let (mut newest, mut late) = (0, 0);
    for text in texts {
        let place = places.get(text);
        let place = *place.unwrap_or_else(|| panic!("who said {text:?}?"));
        seen[place] += 1;
        late += usize::from(place < newest);
        newest = newest.max(place);
    }
    let missing = seen.iter().filter(|count| **count == 0).count();
    let doubled = seen.iter().filter(|count| **count > 1).count();
    let wrong = (missing, doubled, late);
    assert_eq!(wrong, (0, 0, 0), "lines missing, doubled, after later ones");
}

/// `runcast exec` in a pod: what it writes is the pod's log.
struct Exec {
    stop: Arc<AtomicBool>,
    life: JoinHandle<Vec<String>>,
}

impl Exec {
    /// Starts it for run 42, with a command that says a line after the other.
    fn start(api: &Arc<KubeApi>, redis: &Redis) -> Self {
        api.add_running_pod("42", "pod-42", &["main"]);
        let script = "while read -r line; do echo \"$line\"; done";
        let words = ["exec", "--run", "42", "--", "sh", "-c", script];
        let mut cli = Cli::with(redis).arguments(&words).start();
        let stop = Arc::new(AtomicBool::new(false));
        let (api, stopped) = (Arc::clone(api), Arc::clone(&stop));
        let life = tokio::spawn(async move {
            let mut kubelet = Kubelet::new(api);
            let mut said = Vec::new();
            while !stopped.load(Relaxed) {
                let line = format!("line {}", said.len());
                cli.feed(format!("{line}\n"));
                said.push(line);
                kubelet.take(&cli.stdout(), cli.stderr().as_bytes());
                sleep(PAUSE).await;
            }
            cli.feed("the last\n");
            said.push("the last".to_owned());
            let output = cli.end().await;
            kubelet.take(&output.stdout, &output.stderr);
            assert_eq!(output.code, 0, "{}", output.stderr());
            said
        });
        Self { stop, life }
    }

    /// Ends it; returns what it said.
    async fn end(self) -> Vec<String> {
        self.stop.store(true, Relaxed);
        self.life.await.expect("no assertion failed")
    }
}

/// Writes what a container has written to its log.
struct Kubelet {
    api: Arc<KubeApi>,
    taken: [usize; 2],
}

impl Kubelet {
    fn new(api: Arc<KubeApi>) -> Self {
        Self { api, taken: [0; 2] }
    }

    /// Takes the whole lines that are new.
    fn take(&mut self, stdout: &[u8], stderr: &[u8]) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = u64::try_from(now.expect("after 1970").as_nanos()).expect("now");
        for (taken, written) in self.taken.iter_mut().zip([stdout, stderr]) {
            while let Some(at) = memchr::memchr(b'\n', &written[*taken..]) {
                let line = &written[*taken..*taken + at];
                self.api.log("pod-42", "main", now - T0, line);
                *taken += at + 1;
            }
        }
    }
}
