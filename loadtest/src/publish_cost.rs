//! [`PublishCost`]: what an event costs Redis, durable beside plain.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use serde::Serialize;

use crate::arguments;
use crate::durable::{DurableRun, check_accepted};
use crate::servers::{Redis, Server};

/// Connections that publish at once: with one, Redis would wait for it between
/// two pipelines.
const CONNECTIONS: u64 = 2;

/// Publishes to a Redis of its own as fast as that takes it, with nobody
/// subscribed, in each form in turn.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PublishCost {
    /// The broker's program, which loads the function
    #[arg(long, default_value = "target/release/runcast")]
    pub(crate) broker: PathBuf,
    /// How long each form is measured in each round
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,
    /// Times each form is measured, in turn; the least cost is shown
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) rounds: u16,
    /// Bytes of a payload
    #[arg(long, default_value_t = 200)]
    pub(crate) payload_bytes: usize,
    /// Events sent in one pipeline
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) pipeline: u64,
}

/// How an event is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Form {
    /// `PUBLISH`: live only.
    Plain,
    /// `runcast_publish`.
    Durable,
    /// The same with `PRODUCER`.
    Numbered,
}

impl Form {
    const ALL: [Self; 3] = [Self::Plain, Self::Durable, Self::Numbered];

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "`PUBLISH`",
            Self::Durable => "`runcast_publish`",
            Self::Numbered => "`runcast_publish … PRODUCER`",
        }
    }
}

/// What one form costs.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Cost {
    /// How it was published.
    pub(crate) form: Form,
    /// CPU time of redis-server for each event, reading the command and
    /// answering it included.
    pub(crate) redis_us: f64,
    /// Events a second that were accepted, by the clock.
    pub(crate) per_second: f64,
}

/// What each form costs, in the order of [`Form::ALL`].
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Costs(pub(crate) Vec<Cost>);

impl Default for PublishCost {
    fn default() -> Self {
        arguments::defaults()
    }
}

impl PublishCost {
    /// Measures every form.
    ///
    /// # Errors
    /// Also when Redis refuses an event.
    pub(crate) fn run(&self) -> Result<Costs> {
        let redis = Redis::start()?;
        // It leaves the function behind, and no subscription.
        Server::broker(&self.broker, &redis, &[])?.wait_ready()?;
        let load = Load::new(self, &redis);
        // So that what follows trims, as the history of a long run does.
        load.publish(Form::Durable, self.duration)?;
        let mut rounds = Vec::new();
        for _ in 0..self.rounds {
            for form in Form::ALL {
                rounds.push(load.publish(form, self.duration)?);
            }
        }
        Ok(Costs(
            Form::ALL
                .into_iter()
                .filter_map(|form| least(&rounds, form))
                .collect(),
        ))
    }
}

/// Returns the round in which `form` cost least: what else ran made the others
/// dearer.
fn least(rounds: &[Cost], form: Form) -> Option<Cost> {
    let same = rounds.iter().filter(|cost| cost.form == form);
    same.min_by(|a, b| a.redis_us.total_cmp(&b.redis_us))
        .copied()
}

struct Load<'a> {
    redis: &'a Redis,
    payload: Vec<u8>,
    pipeline: u64,
    /// Numbers given to each producer so far.
    numbered: Vec<AtomicU64>,
}

impl<'a> Load<'a> {
    fn new(plan: &PublishCost, redis: &'a Redis) -> Self {
        Self {
            redis,
            payload: vec![b'x'; plan.payload_bytes],
            pipeline: plan.pipeline,
            numbered: (0..CONNECTIONS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Publishes in one form for a while.
    fn publish(&self, form: Form, duration: Duration) -> Result<Cost> {
        let server = self.redis.process()?;
        let stop = &AtomicBool::new(false);
        let (begin, cpu_before) = (Instant::now(), server.cpu_time()?);
        let events = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..CONNECTIONS)
                .map(|index| scope.spawn(move || self.until(stop, form, index)))
                .collect();
            std::thread::sleep(duration);
            stop.store(true, Relaxed);
            let mut events = 0;
            for thread in threads {
                events += thread.join().map_err(|_| anyhow!("a thread panicked"))??;
            }
            anyhow::Ok(events)
        })?;
        let (elapsed, cpu) = (begin.elapsed(), server.cpu_time()? - cpu_before);
        Ok(Cost {
            form,
            redis_us: cpu.as_secs_f64() * 1e6 / events as f64,
            per_second: events as f64 / elapsed.as_secs_f64(),
        })
    }

    fn until(&self, stop: &AtomicBool, form: Form, index: u64) -> Result<u64> {
        let mut connection = self.redis.connect()?;
        let mut events = 0;
        while events == 0 || !stop.load(Relaxed) {
            let answers: Vec<redis::Value> = self.pipe(form, index).query(&mut connection)?;
            if form != Form::Plain {
                check_accepted(&answers)?;
            }
            events += self.pipeline;
        }
        Ok(events)
    }

    fn pipe(&self, form: Form, index: u64) -> redis::Pipeline {
        let mut pipe = redis::pipe();
        let run_id = format!("cost-{index}");
        let (run, channel) = (
            DurableRun::new(&run_id),
            format!("run:{run_id}:output:loadtest"),
        );
        for _ in 0..self.pipeline {
            match form {
                Form::Plain => {
                    pipe.cmd("PUBLISH").arg(&channel).arg(&self.payload);
                }
                Form::Durable => {
                    run.publish(&mut pipe, &self.payload);
                }
                Form::Numbered => {
                    let before = self.numbered[index as usize].fetch_add(1, Relaxed);
                    run.publish_numbered(&mut pipe, &self.payload, before + 1);
                }
            }
        }
        pipe
    }
}

impl Costs {
    /// Returns how many times a plain event's cost each form has.
    pub(crate) fn ratio(&self, cost: &Cost) -> Option<f64> {
        let plain = self.0.iter().find(|cost| cost.form == Form::Plain)?;
        Some(cost.redis_us / plain.redis_us)
    }
}

impl fmt::Display for Costs {
    /// A table in Markdown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| published by | CPU of Redis per event | events/s of one core | came to | to `PUBLISH` |\n\
             |---|--:|--:|--:|--:|"
        )?;
        for cost in &self.0 {
            writeln!(
                f,
                "| {} | {:.2} µs | {:.0} | {:.0}/s | {:.1} |",
                cost.form.name(),
                cost.redis_us,
                1e6 / cost.redis_us,
                cost.per_second,
                self.ratio(cost).unwrap_or(f64::NAN),
            )?;
        }
        Ok(())
    }
}
