//! Random faults on the way of a run's logs: whatever happens, every line is
//! delivered once, in its container's order. A failure says its
//! seed; `RUNCAST_TEST_SEED` repeats it.

use std::collections::BTreeMap;

use runcast_actors::kubectl::{KubectlLine, KubectlUpdate};
use runcast_actors::protocol::{EventKind, KubectlPosition};
use runcast_actors::settings::KubectlEngine;

use crate::kubectl_stream::settings_of;
use crate::support::engines::for_both_engines;
use crate::support::followed::{Followed, PATIENCE, Setup, kill, text};
use crate::support::kube_api::{Ask, Fault, KubeApi};
use crate::support::sse::Next;
use crate::support::{Frame, SseClient};

const CONTAINERS: [(&str, &str); 3] = [("a", "main"), ("a", "side"), ("b", "main")];

const ROUNDS: usize = 40;

const HOPS: usize = 20;

/// A container as the test writes it.
#[derive(Default)]
struct Written {
    lines: Vec<String>,
    ns: u64,
    restarted: bool,
}

impl Written {
    /// Writes some lines: often several of one time, sometimes a pause of more
    /// than the second that `--since-time` is floored to.
    fn write(&mut self, api: &KubeApi, (pod, container): (&str, &str), random: &mut fastrand::Rng) {
        for _ in 0..random.usize(0..30) {
            self.ns += match random.u8(0..10) {
                0..5 => 0,
                5..9 => random.u64(1..50_000_000),
                _ => random.u64(1..1_500_000_000),
            };
            let line = format!("{pod}/{container} {}", self.lines.len());
            api.log(pod, container, self.ns, &line);
            self.lines.push(line);
        }
    }
}

/// Says the seed of a test that fails.
struct Seed(u64);

impl Seed {
    fn draw() -> Self {
        let given = std::env::var("RUNCAST_TEST_SEED").ok();
        let given = given.map(|seed| seed.parse().expect("a number"));
        Self(given.unwrap_or_else(|| fastrand::u64(..)))
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Captured by the test harness, shown for a failed test only.
            #[allow(clippy::print_stderr)]
            {
                eprintln!("RUNCAST_TEST_SEED={}", self.0);
            }
        }
    }
}

fn strike(api: &KubeApi, written: &mut [Written], random: &mut fastrand::Rng) {
    match random.u8(0..10) {
        0 | 1 => api.cut_logs(),
        2 => api.end_logs(),
        3 | 4 => api.fail(Ask::Log, Fault::CutAfter(random.usize(0..3000)), 1),
        5 => api.fail(Ask::Log, Fault::Status(500, "InternalError"), 1),
        6 => api.fail(Ask::Pods, Fault::Status(503, "ServiceUnavailable"), 1),
        7 => {
            let children = api.kubectl_processes();
            if let Some(pid) = random.choice(children) {
                kill(pid);
            }
        }
        8 => {
            let which = random.usize(0..CONTAINERS.len());
            // What a container wrote before its last restart but one is gone
            // for any reader that was away so long.
            if !written[which].restarted && !written[which].lines.is_empty() {
                written[which].restarted = true;
                written[which].ns += 1;
                api.restart(CONTAINERS[which].0, CONTAINERS[which].1, 1);
            }
        }
        _ if random.bool() => api.end_watches(),
        _ => api.forget_versions(),
    }
}

/// Reads to the end of the run.
async fn read_all(run: &mut Followed) -> Vec<KubectlLine> {
    let mut lines = Vec::new();
    loop {
        match run.next().await {
            KubectlUpdate::Lines(more) => lines.extend(more),
            KubectlUpdate::Ended { .. } => return lines,
            KubectlUpdate::TooLarge { .. } | KubectlUpdate::Failed(_) => panic!("{lines:?}"),
            KubectlUpdate::Ready | KubectlUpdate::Problem(_) | KubectlUpdate::Resolved => {}
        }
    }
}

/// Checks that every line stands once and in order, and that no position
/// steps back; returns the lines by container.
fn check(lines: &[KubectlLine], written: &[Written]) -> BTreeMap<usize, Vec<(String, u64, u32)>> {
    let mut by_container = BTreeMap::new();
    for (index, (pod, container)) in CONTAINERS.into_iter().enumerate() {
        let key = KubectlPosition::container_key(pod, container);
        let of_this = |line: &&KubectlLine| *line.source == *format!("{pod}/{container}");
        let own: Vec<_> = lines.iter().filter(of_this).collect();
        let output = own.iter().filter(|line| line.kind == EventKind::Output);
        let texts: Vec<_> = output.map(|line| text(line)).collect();
        for (got, expected) in texts.iter().zip(&written[index].lines) {
            assert_eq!(got, expected, "{pod}/{container}");
        }
        assert_eq!(texts.len(), written[index].lines.len(), "{pod}/{container}");
        let restarts = own.iter().filter(|line| line.kind == EventKind::Log);
        assert_eq!(restarts.count(), usize::from(written[index].restarted));
        let positions: Vec<_> = own
            .iter()
            .map(|line| {
                let (ns, n) = line.position.get(key).expect("its own position");
                (text(line), ns, n)
            })
            .collect();
        assert!(positions.is_sorted_by(|a, b| (a.1, a.2) < (b.1, b.2)));
        by_container.insert(index, positions);
    }
    by_container
}

for_both_engines!(actix::test: random_faults_lose_and_double_nothing);

async fn random_faults_lose_and_double_nothing(engine: KubectlEngine) {
    let seed = Seed::draw();
    let mut random = fastrand::Rng::with_seed(seed.0);
    let api = KubeApi::start();
    api.add_running_pod("42", "a", &["main", "side"]);
    api.add_running_pod("42", "b", &["main"]);
    let mut run = Setup::of(&api, engine).follow("42");
    run.ready().await;
    let mut written: Vec<Written> = Vec::new();
    written.resize_with(CONTAINERS.len(), Written::default);
    for _ in 0..ROUNDS {
        for (container, written) in CONTAINERS.into_iter().zip(&mut written) {
            written.write(&api, container, &mut random);
        }
        strike(&api, &mut written, &mut random);
        // Faults strike at any point of what is being read, idle or not.
        tokio::time::sleep(std::time::Duration::from_millis(random.u64(0..150))).await;
    }
    api.heal();
    api.finish("a", 0);
    api.finish("b", 0);
    let first = check(&read_all(&mut run).await, &written);

    // One who reads it all later, undisturbed, finds every line in its place,
    // whichever engine gave it first.
    let mut late = Setup::of(&api, KubectlEngine::Command).follow("42");
    let second = check(&read_all(&mut late).await, &written);
    assert_eq!(first, second);
}

/// Waits for the next event of the run, past problems that pass.
async fn next_line(client: &mut SseClient) -> Frame {
    loop {
        match client.next_within(PATIENCE).await {
            Next::Frame(frame) if frame.is_run_event() => return frame,
            Next::Frame(frame) => assert!(
                matches!(frame.event.as_str(), "problem" | "heartbeat" | "cursor"),
                "{frame:?}"
            ),
            other => panic!("{other:?} where a line was due"),
        }
    }
}

/// The engines of three brokers.
const ENGINES: [KubectlEngine; 3] = [
    KubectlEngine::Command,
    if KubectlEngine::Api.is_built() {
        KubectlEngine::Api
    } else {
        KubectlEngine::Command
    },
    KubectlEngine::Command,
];

/// Three brokers read the same logs, each in an order of its own, by whichever
/// engine; a client goes from one to another with nothing but its last id.
#[tokio::test]
async fn a_client_that_hops_between_brokers_sees_every_line_once() {
    let seed = Seed::draw();
    let mut random = fastrand::Rng::with_seed(seed.0);
    let api = KubeApi::start();
    api.add_running_pod("42", "a", &["main", "side"]);
    api.add_running_pod("42", "b", &["main"]);
    let mut brokers = Vec::new();
    for engine in ENGINES {
        brokers.push(settings_of(&api, engine).start().await);
    }
    let mut written: Vec<Written> = Vec::new();
    written.resize_with(CONTAINERS.len(), Written::default);
    let mut seen = vec![0; CONTAINERS.len()];
    let mut cursor: Option<String> = None;
    for hop in 0..HOPS {
        for (container, written) in CONTAINERS.into_iter().zip(&mut written) {
            written.write(&api, container, &mut random);
        }
        if random.bool() {
            api.cut_logs();
        }
        let broker = random.choice(&brokers).expect("there are three");
        let mut client = match &cursor {
            None => broker.stream("42/stream/kubectl").await,
            Some(id) => broker.resume("42/stream/kubectl", id).await,
        };
        client.preamble().await;
        let total: usize = written.iter().map(|it| it.lines.len()).sum();
        let left = total - seen.iter().sum::<usize>();
        let last = hop == HOPS - 1;
        let wanted = if last { left } else { random.usize(0..=left) };
        for _ in 0..wanted {
            let frame = next_line(&mut client).await;
            let line: String = serde_json::from_str(&frame.payload()).expect("text");
            let (source, number) = line.split_once(' ').expect("source and number");
            let of_this = |(pod, container): &(&str, &str)| format!("{pod}/{container}") == source;
            let index = CONTAINERS.iter().position(of_this).expect("ours");
            assert_eq!(number, seen[index].to_string(), "{source}, hop {hop}");
            seen[index] += 1;
            cursor = Some(frame.id().to_owned());
        }
    }
    let lengths: Vec<_> = written.iter().map(|it| it.lines.len()).collect();
    assert_eq!(seen, lengths);
}
