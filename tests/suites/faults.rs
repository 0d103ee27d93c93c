//! `make faults`: random faults against a real redis-server and the built
//! broker, and every client's stream held against what was published.
//!
//! `RUNCAST_FAULTS_SECONDS` says for how long, `RUNCAST_SEED` repeats a run
//! (as far as a run of real processes can be repeated). Each trial is a new
//! set of runs and clients: first a calm, in which nothing may be missing, then
//! faults, then a last event which all clients must reach. docs/reliability.md
//! says what is promised.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::checker::{Outcome, Seen, Tally, check};
use super::follower::{Follower, RunShared, Witness};
use super::injector::{Fault, World};
use super::publisher::{Mix, RunPublisher};
use super::{number_from_env, report};
use crate::support::eventually;

const MIXES: [Mix; 4] = [Mix::Plain, Mix::Durable, Mix::Both, Mix::Both];
const CLIENTS: usize = 16;
const ALL: &[&str] = &["output", "status", "log"];
const FILTERED: [&[&str]; 3] = [&["output"], &["output", "log"], &["output", "status"]];

/// How long all clients may take to reach an event.
const REACHED_WITHIN: Duration = Duration::from_secs(30);

#[tokio::test]
async fn faults() {
    let seconds = number_from_env("RUNCAST_FAULTS_SECONDS", 35);
    let seed: u64 = number_from_env("RUNCAST_SEED", 1);
    report(&format!("faults: {seconds} s, seed {seed}"));
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut world = World::start().await;
    // A trial that failed comes first, to be looked at alone.
    let mut next = number_from_env("RUNCAST_FAULTS_TRIAL", 0);
    let mut sum = Sum::default();
    while Instant::now() < until {
        let trial = Trial {
            number: next,
            rng: fastrand::Rng::with_seed(seed.wrapping_mul(1_000_003).wrapping_add(next)),
            until,
        };
        next += 1;
        trial.run(&mut world, &mut sum).await;
    }
    world.stop().await;
    sum.report();
    assert!(sum.failures.is_empty(), "{:#?}", sum.failures);
}

/// What all trials came to.
#[derive(Default)]
struct Sum {
    trials: u64,
    faults: BTreeMap<Fault, u64>,
    published: u64,
    unsure: u64,
    calm: Tally,
    all: Tally,
    failures: Vec<String>,
}

impl Sum {
    fn report(&self) {
        let faults: u64 = self.faults.values().sum();
        report(&format!("trials              {}", self.trials));
        report(&format!("faults              {faults} {:?}", self.faults));
        report(&format!("events published    {}", self.published));
        report(&format!("… without an answer {}", self.unsure));
        report(&format!("streams             {}", self.all.streams));
        report(&format!("deliveries          {}", self.all.deliveries));
        report(&format!("… in the calm       {}", self.calm.deliveries));
        report(&format!(
            "gaps                {} {:?}",
            self.all.gap_count(),
            self.all.gaps
        ));
        report(&format!("missing, told       {}", self.all.told_missing));
        report(&format!("counts compared     {}", self.all.counts_checked));
        report(&format!("beyond the promise  {}", self.all.beyond_promise));
        report(&format!("violations          {}", self.failures.len()));
    }
}

struct Trial {
    number: u64,
    rng: fastrand::Rng,
    until: Instant,
}

impl Trial {
    async fn run(mut self, world: &mut World, sum: &mut Sum) {
        sum.trials += 1;
        world.trial.is_rough.store(false, Ordering::Relaxed);
        let runs: Vec<Arc<RunShared>> = (0..MIXES.len())
            .map(|n| RunShared::new(format!("trial-{}-{n}", self.number)))
            .collect();
        let publishers = self.publishers(world, &runs);
        let (calm, clients) = self.clients(world, &runs);
        let (publishing, stop) = publish_until_stopped(&publishers);

        tokio::time::sleep(Duration::from_millis(self.rng.u64(500..1500))).await;
        self.await_calm(&publishers, &runs, &calm).await;
        world.trial.is_rough.store(true, Ordering::Relaxed);
        // One trial in three spares Redis and the broker: then all counts must
        // be right.
        let is_local = self.number % 3 == 2;
        for run in &runs {
            run.book.lock().expect("no holder panics").had_outage = !is_local;
        }
        for _ in 0..self.rng.usize(2..7) {
            let fault = match is_local {
                true => Fault::LOCAL[self.rng.usize(..Fault::LOCAL.len())],
                false => Fault::ALL[self.rng.usize(..Fault::ALL.len())],
            };
            world.suffer(fault, &publishers, &mut self.rng).await;
            *sum.faults.entry(fault).or_default() += 1;
            tokio::time::sleep(Duration::from_millis(self.rng.u64(0..800))).await;
            if Instant::now() > self.until {
                break;
            }
        }

        stop.store(true, Ordering::Relaxed);
        publishing.await.expect("a publisher does not panic");
        let witnesses = self.finish(world, &publishers, &runs, clients).await;
        for run in &runs {
            let book = run.book.lock().expect("no holder panics");
            sum.published += book.events.len() as u64;
            let unsure = book.events.iter().filter(|e| e.outcome == Outcome::Unsure);
            sum.unsure += unsure.count() as u64;
        }
        for (index, witness) in witnesses.iter().enumerate() {
            self.judge(index, witness, sum);
        }
    }

    fn publishers(
        &mut self,
        world: &World,
        runs: &[Arc<RunShared>],
    ) -> Arc<Mutex<Vec<RunPublisher>>> {
        let one = |(run, mix)| {
            let (url, addr) = (world.redis.url(), world.trial.addr);
            RunPublisher::new(run, mix, url, addr, self.rng.fork())
        };
        Arc::new(Mutex::new(runs.iter().zip(MIXES).map(one).collect()))
    }

    /// Starts the clients; one in four has a filter.
    fn clients(
        &mut self,
        world: &World,
        runs: &[Arc<RunShared>],
    ) -> (Vec<Arc<AtomicUsize>>, Vec<JoinHandle<Witness>>) {
        let mut calm = Vec::new();
        let mut clients = Vec::new();
        for n in 0..CLIENTS {
            let kinds = match n / runs.len() % 4 {
                3 => FILTERED[self.rng.usize(..FILTERED.len())],
                _ => ALL,
            };
            let run = &runs[n % runs.len()];
            let calm_seen = Arc::default();
            let follower = Follower::new(&world.trial, run, kinds, self.rng.fork(), &calm_seen);
            calm.push(calm_seen);
            clients.push(tokio::spawn(follower.run()));
        }
        (calm, clients)
    }

    /// Waits until every client has all that was published in the calm.
    async fn await_calm(
        &self,
        publishers: &Mutex<Vec<RunPublisher>>,
        runs: &[Arc<RunShared>],
        calm: &[Arc<AtomicUsize>],
    ) {
        let mut publishers = publishers.lock().await;
        for (run, publisher) in runs.iter().zip(publishers.iter_mut()) {
            let n = publisher.publish_marker().await;
            run.calm_until.store(n, Ordering::Relaxed);
        }
        // Those who were quicker than the number pass with the next event.
        for publisher in publishers.iter_mut() {
            publisher.publish_marker().await;
        }
        drop(publishers);
        eventually("all clients have the calm", REACHED_WITHIN, async || {
            calm.iter().all(|seen| seen.load(Ordering::Relaxed) > 0)
        })
        .await;
    }

    /// Publishes the last event until all clients have it or a later one.
    async fn finish(
        &self,
        world: &World,
        publishers: &Mutex<Vec<RunPublisher>>,
        runs: &[Arc<RunShared>],
        clients: Vec<JoinHandle<Witness>>,
    ) -> Vec<Witness> {
        world.trial.is_rough.store(false, Ordering::Relaxed);
        world.wait_ready().await;
        let mut publishers = publishers.lock().await;
        for run in runs {
            run.last.store(run.published(), Ordering::Relaxed);
        }
        let begin = Instant::now();
        while !clients.iter().all(JoinHandle::is_finished) {
            assert!(
                begin.elapsed() < REACHED_WITHIN,
                "{} clients never got the last event: trial {}",
                clients.iter().filter(|one| !one.is_finished()).count(),
                self.number
            );
            for publisher in publishers.iter_mut() {
                publisher.publish_marker().await;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let mut witnesses = Vec::new();
        for client in clients {
            witnesses.push(client.await.expect("a client does not panic"));
        }
        witnesses
    }

    fn judge(&self, index: usize, witness: &Witness, sum: &mut Sum) {
        let book = witness.run.book.lock().expect("no holder panics");
        let whole = check(&book, witness.kinds, &witness.seen);
        let calm = check(&book, witness.kinds, &witness.seen[..witness.calm_seen]);
        match (whole, calm) {
            (Ok(whole), Ok(calm)) => {
                if calm.gap_count() > 0 {
                    self.fail(
                        index,
                        witness,
                        &format!("gaps in the calm: {:?}", calm.gaps),
                        sum,
                    );
                }
                sum.all.add(&whole);
                sum.calm.add(&calm);
            }
            (Err(why), _) | (_, Err(why)) => self.fail(index, witness, &why.to_string(), sum),
        }
    }

    fn fail(&self, index: usize, witness: &Witness, why: &str, sum: &mut Sum) {
        let seen = &witness.seen;
        let near = |n: &usize| {
            let last = (n + 30).min(seen.len());
            !seen[n.saturating_sub(30)..last]
                .iter()
                .all(|one| matches!(one, Seen::Event { .. }))
        };
        // Events far from anything else say nothing.
        let told: Vec<&Seen> = (0..seen.len()).filter(near).map(|n| &seen[n]).collect();
        sum.failures.push(format!(
            "trial {}, run {}, client {index} of {:?}: {why}; it saw {told:?}",
            self.number, witness.run.run_id, witness.kinds
        ));
    }
}

/// Publishes in all runs in turn, until the flag is set.
fn publish_until_stopped(
    publishers: &Arc<Mutex<Vec<RunPublisher>>>,
) -> (JoinHandle<()>, Arc<AtomicBool>) {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let publishers = Arc::clone(publishers);
    let task = tokio::spawn(async move {
        while !stopped.load(Ordering::Relaxed) {
            for publisher in publishers.lock().await.iter_mut() {
                publisher.turn().await;
            }
            tokio::task::yield_now().await;
        }
    });
    (task, stop)
}
