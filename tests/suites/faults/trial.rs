//! One trial: a world, runs with their publishers and clients, faults, and
//! what came of it.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::{JoinHandle, spawn_local};
use tokio::time::sleep;

use super::checker::{Failure, Truth, check};
use super::client::{Client, Witness};
use super::fault::{Class, Fault};
use super::history::{History, Known};
use super::id::{Durable, Id};
use super::ledger::{Ledger, Outcome};
use super::publisher::{Publisher, Route};
use super::run::{Mix, Run, number_in};
use super::seen::{Column, Seen, Tally, Violation};
use super::world::{World, history_max};
use crate::support::http::Request;

/// How long all clients may take to reach the last event of a run, in a world
/// that is whole again.
const REACHED_WITHIN: Duration = Duration::from_secs(12);

/// What a trial came to.
pub(crate) struct Outcomes {
    pub(crate) class: Class,
    pub(crate) faults: BTreeMap<Fault, u64>,
    pub(crate) published: u64,
    /// Accepted by Redis and forgotten by it, or trimmed.
    pub(crate) forgotten: u64,
    pub(crate) clients: u64,
    pub(crate) tally: Tally,
    /// Gaps of runs that are published durably only.
    pub(crate) durable_gaps: BTreeMap<String, u64>,
    pub(crate) violations: BTreeMap<Column, u64>,
    /// The same by the sort of run and the exact violation.
    pub(crate) sorts: BTreeMap<String, u64>,
    pub(crate) stories: Vec<String>,
}

struct Trial {
    number: u64,
    rng: fastrand::Rng,
    class: Class,
    history_max: usize,
    world: World,
    runs: Vec<Rc<Run>>,
    told: Vec<String>,
    outcomes: Outcomes,
}

/// Runs trial `number` of `seed`. Within a `LocalSet`.
pub(crate) async fn run(seed: u64, number: u64, switched_off: Option<&str>) -> Outcomes {
    let seed = seed.wrapping_mul(1_000_003).wrapping_add(number);
    let mut rng = fastrand::Rng::with_seed(seed);
    let class = match rng.u8(..10) {
        0 => Class::Local,
        1..5 => Class::Lossless,
        _ => Class::Lossy,
    };
    let history_max = history_max(class, &mut rng);
    let world = World::start(rng.fork(), history_max, switched_off).await;
    let mixes = [Mix::Durable, Mix::Durable, Mix::Both, Mix::Plain];
    let runs = mixes
        .into_iter()
        .enumerate()
        .map(|(index, mix)| Run::new(format!("t{number}-{index}"), mix, rng.bool()))
        .collect();
    let trial = Trial {
        number,
        class,
        history_max,
        world,
        runs,
        told: Vec::new(),
        outcomes: Outcomes {
            class,
            faults: BTreeMap::new(),
            published: 0,
            forgotten: 0,
            clients: 0,
            tally: Tally::default(),
            durable_gaps: BTreeMap::new(),
            violations: BTreeMap::new(),
            sorts: BTreeMap::new(),
            stories: Vec::new(),
        },
        rng,
    };
    trial.go().await
}

impl Trial {
    async fn go(mut self) -> Outcomes {
        let begin = Instant::now();
        let publishers = self.start_publishers();
        let clients = self.start_clients();
        self.faults(begin).await;

        for run in &self.runs {
            run.is_live.set(false);
        }
        let mut stopped = Vec::new();
        for publisher in publishers {
            stopped.push(publisher.await.expect("a publisher does not panic"));
        }
        self.world.wait_ready().await;
        for run in &self.runs {
            run.is_rough.set(false);
        }
        // Whoever is on its way in comes with its old wishes.
        sleep(Duration::from_millis(350)).await;
        let witnesses = self.finish(&mut stopped, clients).await;
        self.judge(&witnesses).await;
        if !self.outcomes.stories.is_empty() {
            let logs = self.world.logs(12);
            self.outcomes.stories.push(logs.join("\n"));
        }
        self.world.stop().await;
        self.outcomes
    }

    fn start_publishers(&mut self) -> Vec<JoinHandle<Publisher>> {
        let mut tasks = Vec::new();
        for run in &self.runs {
            let function = Route::Function {
                number: 0,
                history_max: self.history_max,
            };
            let post = Route::Post {
                brokers: self.world.addrs.to_vec(),
            };
            let routes = match run.mix {
                Mix::Plain => vec![Route::Plain],
                Mix::Durable => vec![function, post],
                Mix::Both => vec![function, Route::Plain],
            };
            for route in routes {
                let url = self.world.publishers.url();
                let publisher = Publisher::new(run, route, url, self.rng.fork());
                tasks.push(spawn_local(publisher.run()));
            }
        }
        tasks
    }

    fn start_clients(&mut self) -> Vec<JoinHandle<Witness>> {
        let mut tasks = Vec::new();
        for run in &self.runs {
            let count = match run.mix {
                Mix::Durable => self.rng.usize(6..16),
                Mix::Both => self.rng.usize(4..8),
                Mix::Plain => self.rng.usize(2..5),
            };
            for _ in 0..count {
                let client = Client::new(run, &self.world.addrs, self.rng.fork());
                tasks.push(spawn_local(client.run()));
            }
        }
        self.outcomes.clients = tasks.len() as u64;
        tasks
    }

    async fn faults(&mut self, begin: Instant) {
        sleep(Duration::from_millis(self.rng.u64(300..900))).await;
        for _ in 0..self.rng.usize(2..6) {
            let is_logged = self.world.redis.is_logged();
            let fault = Fault::draw(self.class, is_logged, &mut self.rng);
            self.told
                .push(format!("{:.2} s {fault:?}", begin.elapsed().as_secs_f32()));
            self.world.suffer(fault, &self.runs).await;
            *self.outcomes.faults.entry(fault).or_default() += 1;
            sleep(Duration::from_millis(self.rng.u64(0..700))).await;
        }
    }

    /// Publishes the last event of each run, until all clients have it.
    async fn finish(
        &self,
        publishers: &mut [Publisher],
        clients: Vec<JoinHandle<Witness>>,
    ) -> Vec<Witness> {
        for publisher in publishers.iter_mut() {
            publisher.publish_last().await;
        }
        let begin = Instant::now();
        let mut again_at = Duration::from_millis(500);
        while !clients.iter().all(JoinHandle::is_finished) && begin.elapsed() < REACHED_WITHIN {
            sleep(Duration::from_millis(20)).await;
            if begin.elapsed() > again_at {
                // Nobody promises that a plain event arrives.
                for publisher in publishers.iter_mut().filter(|one| one.is_plain_run()) {
                    publisher.publish_last().await;
                }
                again_at += Duration::from_millis(500);
            }
        }
        for run in &self.runs {
            run.is_over.set(true);
        }
        let mut witnesses = Vec::new();
        for client in clients {
            witnesses.push(client.await.expect("a client does not panic"));
        }
        witnesses
    }

    async fn judge(&mut self, witnesses: &[Witness]) {
        for run in self.runs.clone() {
            let own: Vec<(usize, &Witness)> = witnesses
                .iter()
                .enumerate()
                .filter(|(_, witness)| Rc::ptr_eq(&witness.run, &run))
                .collect();
            let kept = self.read_stream(&run).await;
            self.judge_run(&run, &own, &kept);
            if run.mix == Mix::Durable && run.ends {
                self.check_ended(&own).await;
            }
        }
    }

    fn judge_run(&mut self, run: &Run, own: &[(usize, &Witness)], kept: &[(u64, u64, usize)]) {
        let ledger = run.ledger.borrow();
        let history = history(&ledger, own, kept);
        self.count(run, &ledger, &history);
        let truth = Truth {
            ledger: &ledger,
            history: &history,
            is_lossless: self.class != Class::Lossy,
            is_local: self.class == Class::Local,
            was_revived: self.was_revived(),
            has_plain: run.mix != Mix::Durable,
            has_durable: run.mix != Mix::Plain,
        };
        for (index, witness) in own {
            match check(&truth, witness.kinds, &witness.seen) {
                Ok(tally) => self.passed(*index, witness, &tally),
                Err(failure) => {
                    let events = witness.seen.iter();
                    let events = events.filter(|one| matches!(one, Seen::Event { .. }));
                    self.outcomes.tally.deliveries += events.count() as u64;
                    self.fail(*index, witness, &failure);
                }
            }
        }
    }

    fn was_revived(&self) -> bool {
        let mut faults = self.outcomes.faults.keys();
        faults.any(|fault| matches!(fault, Fault::CrashToDump | Fault::FailOver))
    }

    fn passed(&mut self, index: usize, witness: &Witness, tally: &Tally) {
        self.outcomes.tally.add(tally);
        if witness.run.mix == Mix::Durable {
            for (reason, count) in &tally.gaps {
                let sum = self.outcomes.durable_gaps.entry(reason.clone());
                *sum.or_default() += count;
            }
        }
        if !witness.is_done {
            let at = witness.seen.len();
            let violation = Violation::NeverReached;
            self.fail(index, witness, &Failure { at, violation });
        }
    }

    /// Reads what Redis has of the run when all is over.
    async fn read_stream(&self, run: &Run) -> Vec<(u64, u64, usize)> {
        let mut connection = self.world.redis.connect().await;
        let entries: Vec<(String, Vec<String>)> = ::redis::cmd("XRANGE")
            .arg(run.stream_key())
            .arg("-")
            .arg("+")
            .query_async(&mut connection)
            .await
            .expect("the master answers");
        let entries = entries.iter().map(|(id, fields)| {
            let (seq, us) = id.split_once('-').expect("an id has two parts");
            let number = |text: &str| text.parse().expect("a number");
            let data = fields.chunks(2).find(|field| field[0] == "d");
            let n = data.and_then(|field| number_in(field[1].as_bytes()));
            (number(seq), number(us), n.expect("our payload"))
        });
        entries.collect()
    }

    fn count(&mut self, run: &Run, ledger: &Ledger, history: &History) {
        self.outcomes.published += ledger.events.len() as u64;
        for (n, event) in ledger.events.iter().enumerate() {
            let Outcome::Accepted(Some(id)) = event.outcome else {
                continue;
            };
            let entry = history.find(id).map(|node| &history.entries()[node]);
            if entry.is_some_and(|entry| entry.is_kept) {
                continue;
            }
            self.outcomes.forgotten += 1;
            if self.class != Class::Lossy {
                self.story(
                    &format!("{} {:?}: Redis lost event {n}, {id:?}", run.id, run.mix),
                    Column::Others,
                );
            }
        }
    }

    /// Whoever was at the end is told so by every broker.
    async fn check_ended(&mut self, own: &[(usize, &Witness)]) {
        for (index, witness) in own {
            let Some(cursor) = witness.cursor.as_ref().filter(|one| one.ends_with("-end")) else {
                continue;
            };
            let addr = self.world.addrs[self.rng.usize(..self.world.addrs.len())];
            let request = Request::get(format!("/api/v1/runs/{}/stream", witness.run.id))
                .header("Last-Event-ID", cursor);
            // A store that answers late makes it a stream, and the client comes
            // back.
            let mut status = 0;
            for _ in 0..5 {
                status = request.open(addr).await.map_or(0, |one| one.head.status);
                if status == 204 {
                    break;
                }
            }
            if status != 204 {
                let at = witness.seen.len();
                let violation = Violation::NotEnded(status);
                self.fail(*index, witness, &Failure { at, violation });
            }
        }
    }

    fn fail(&mut self, index: usize, witness: &Witness, failure: &Failure) {
        let seen = &witness.seen;
        let last = (failure.at + 3).min(seen.len());
        // Events far from anything else say nothing.
        let is_near = |n: &usize| {
            let near = &seen[n.saturating_sub(2)..(n + 3).min(seen.len())];
            *n + 8 > failure.at || !near.iter().all(|one| matches!(one, Seen::Event { .. }))
        };
        let told: Vec<String> = (failure.at.saturating_sub(400)..last)
            .filter(is_near)
            .map(|n| format!("      {n}: {:?}", seen[n]))
            .collect();
        let told = &told[told.len().saturating_sub(40)..];
        let run = &witness.run;
        let kinds = witness.kinds.query();
        // A loss may name thousands.
        let found = format!("{:.400}", format!("{:?}", failure.violation));
        let text = format!(
            "{} {:?}, client {index} of {kinds}: {found}\n{}",
            run.id,
            run.mix,
            told.join("\n")
        );
        let sort = format!("{:?} {}", run.mix, failure.violation.name());
        *self.outcomes.sorts.entry(sort).or_default() += 1;
        self.story(&text, failure.violation.column());
    }

    fn story(&mut self, text: &str, column: Column) {
        *self.outcomes.violations.entry(column).or_default() += 1;
        self.outcomes.stories.push(format!(
            "trial {} ({:?}, history {}; {}): {text}",
            self.number,
            self.class,
            self.history_max,
            self.told.join(", ")
        ));
    }
}

/// Puts together what publishers, clients and Redis know of a run.
fn history(
    ledger: &Ledger,
    witnesses: &[(usize, &Witness)],
    kept: &[(u64, u64, usize)],
) -> History {
    let kind = |n: usize| ledger.events.get(n).map(|event| event.kind);
    let mut known: Vec<Known> = Vec::new();
    for (n, event) in ledger.events.iter().enumerate() {
        if let Outcome::Accepted(Some(id)) = event.outcome {
            known.push(Known {
                id,
                n: Some(n),
                kind: Some(event.kind),
                is_kept: false,
            });
        }
    }
    let mut add = |id: Durable, n: Option<usize>| {
        known.push(Known {
            id,
            n,
            kind: n.and_then(kind),
            is_kept: false,
        });
    };
    for (_, witness) in witnesses {
        for seen in &witness.seen {
            match seen {
                Seen::Event {
                    n,
                    id: Id::Durable(id),
                } => add(*id, Some(*n)),
                Seen::Event { id, .. } | Seen::Position(id) | Seen::End { last: Some(id), .. } => {
                    if let Some(id) = id.durable() {
                        add(id, None);
                    }
                }
                _ => {}
            }
        }
    }
    // The stream does not name its epoch: it is that of whoever has the ids.
    let epochs: BTreeMap<(u64, u64), u64> = known
        .iter()
        .map(|one| ((one.id.seq, one.id.us), one.id.epoch))
        .collect();
    let epoch = kept
        .iter()
        .find_map(|(seq, us, _)| epochs.get(&(*seq, *us)).copied());
    let kept = kept.iter().filter_map(|(seq, us, n)| {
        Some(Known {
            id: Durable {
                epoch: epoch?,
                seq: *seq,
                us: *us,
            },
            n: Some(*n),
            kind: kind(*n),
            is_kept: true,
        })
    });
    History::new(known.iter().copied().chain(kept))
}
