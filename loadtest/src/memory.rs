//! [`Memory`]: what runs with a history take, in Redis and in the broker.

use std::fmt;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde::Serialize;
use socket2::{Domain, Socket, Type};

use crate::arguments;
use crate::durable::{DurableRun, check_accepted};
use crate::http;
use crate::load::settled_rss;
use crate::servers::{Redis, Server};
use crate::stamp::Stamp;
use crate::subscribers::{Behaviour, Progress, Subscribers, Target};

/// Events in one pipeline.
const PIPELINE: usize = 500;

/// Keys whose own size is asked for, of each kind.
const SAMPLES: usize = 100;

/// What an allocator adds by itself.
const ALLOCATOR_BYTES_MAX: f64 = 4.0 * 1024.0 * 1024.0;

/// The history that stalled clients ask for: more than all buffers on its way.
const LONG_EVENTS: usize = 8_000;
const LONG_PAYLOAD_BYTES: usize = 1_000;

/// Clients of watched runs opened at once, at least; and in how many parts at
/// most, since each part is a thread.
const WATCH_AT_ONCE: u32 = 100;
const WATCH_PARTS: u32 = 50;

/// Stalled clients opened at once.
const STALLED_AT_ONCE: usize = 20;

/// What a stalled client's socket takes.
const STALLED_RECEIVE_BYTES: usize = 4 * 1024;

/// A stalled client may cost a page, twice over: its events as frames, and the
/// answer of the store that they are made of.
const STALLED_BYTES_MAX: f64 = 2.0 * 1.25 * 256.0 * 1024.0;

/// How long is waited for what comes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Publishes a history to many runs, watches some of them, and measures what
/// each step took.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Memory {
    /// The broker's program
    #[arg(long, default_value = "target/release/runcast")]
    pub(crate) broker: PathBuf,
    /// Runs with a history
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) runs: u32,
    /// Runs that are watched, by a client each that reads the whole history
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) watched: u32,
    /// Events of each run
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) events: u32,
    /// Clients that ask for a long history and read none of it
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) stalled: u32,
}

/// Bytes of each thing measured.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Bytes {
    /// As asked for.
    pub(crate) runs: u32,
    /// As asked for.
    pub(crate) watched: u32,
    /// As asked for.
    pub(crate) events: u32,
    /// As asked for.
    pub(crate) stalled: u32,
    /// By how much Redis grew with the history.
    pub(crate) redis: f64,
    /// Of one run's stream.
    pub(crate) stream: f64,
    /// Of one run's hash.
    pub(crate) meta: f64,
    /// Resident, of a broker that has just started.
    pub(crate) at_rest: f64,
    /// By how much a broker grew that heard it all, watched by nobody.
    pub(crate) unwatched: f64,
    /// What the rings of that hold.
    pub(crate) unwatched_rings: f64,
    /// By how much a new broker grew with the watched runs.
    pub(crate) watching: f64,
    /// What the rings of that hold.
    pub(crate) watched_rings: f64,
    /// By how much each stalled client made it grow.
    pub(crate) per_stalled: f64,
}

impl Default for Memory {
    fn default() -> Self {
        arguments::defaults()
    }
}

impl Memory {
    /// Measures once.
    ///
    /// # Errors
    /// Also when a client did not get the whole history, or a stalled one
    /// costs more than a page.
    pub(crate) fn run(&self) -> Result<Bytes> {
        ensure!(self.watched <= self.runs, "--watched is more than --runs");
        let redis = Redis::start()?;
        let heard = Server::broker(&self.broker, &redis, &[])?;
        heard.wait_ready()?;
        let at_rest = settled_rss(heard.process()?)? as f64;
        let redis_before = redis.used_memory()? as f64;
        let runs: Vec<DurableRun> = (0..self.runs).map(run).collect();
        self.publish_history(&redis, &runs)?;
        await_hubs_heard(&heard, u64::from(self.runs) * u64::from(self.events))?;
        let unwatched = settled_rss(heard.process()?)? as f64 - at_rest;
        let unwatched_rings = metric(&heard, "runcast_ring_bytes")?;
        drop(heard);
        let redis_grown = redis.used_memory()? as f64 - redis_before;
        let (stream, meta) = key_sizes(&redis, &runs)?;

        let broker = Server::broker(&self.broker, &redis, &[])?;
        broker.wait_ready()?;
        let before = settled_rss(broker.process()?)? as f64;
        let subscribers = self.watch(&broker)?;
        let watching = settled_rss(broker.process()?)? as f64;
        let watched_rings = metric(&broker, "runcast_ring_bytes")?;
        let per_stalled = self.stall(&broker, &redis)?;
        let totals = subscribers.stop()?;
        ensure!(
            totals.gaps == 0 && totals.duplicated == 0 && totals.out_of_order == 0,
            "the history did not come as it was published"
        );
        Ok(Bytes {
            runs: self.runs,
            watched: self.watched,
            events: self.events,
            stalled: self.stalled,
            redis: redis_grown,
            stream,
            meta,
            at_rest,
            unwatched,
            unwatched_rings,
            watching: watching - before,
            watched_rings,
            per_stalled,
        })
    }

    fn publish_history(&self, redis: &Redis, runs: &[DurableRun]) -> Result<()> {
        let mut connection = redis.connect()?;
        let mut payload = Vec::new();
        for event in 1..=self.events {
            for (chunk_index, chunk) in runs.chunks(PIPELINE).enumerate() {
                let mut pipe = redis::pipe();
                for (index, run) in chunk.iter().enumerate() {
                    let stamp = Stamp {
                        sent_ns: 1_000_000_000,
                        run: (chunk_index * PIPELINE + index) as u32,
                        seq: u64::from(event),
                    };
                    stamp.write(200, &mut payload);
                    run.publish(&mut pipe, &payload);
                }
                let answers: Vec<redis::Value> = pipe.query(&mut connection)?;
                check_accepted(&answers)?;
            }
        }
        Ok(())
    }

    /// Opens a client of each watched run; returns once all have the whole
    /// history.
    fn watch(&self, broker: &Server) -> Result<Subscribers> {
        let progress = Arc::new(Progress::new(self.watched as usize));
        for sent in &progress.sent {
            sent.store(u64::from(self.events), Relaxed);
        }
        let target = Target {
            addr: broker.addr,
            host: broker.addr.to_string(),
            paths: (0..self.watched).map(stream_path).collect(),
            first_address: None,
            behaviour: Behaviour::default(),
        };
        let target = Arc::new(target);
        let mut subscribers = Subscribers::start(&target, &progress, 0, 0)?;
        // A part at a time: a client whose first page takes over a second is
        // sent away, to come back.
        let part = (self.watched / WATCH_PARTS).max(WATCH_AT_ONCE) as usize;
        for first in (0..self.watched as usize).step_by(part) {
            let after = (first + part).min(self.watched as usize);
            subscribers.add(&target, first..after)?;
            let expected = after as u64 * u64::from(self.events);
            await_true("the history at its clients", || {
                Ok(progress.delivered.load(Relaxed) >= expected)
            })?;
        }
        Ok(subscribers)
    }

    /// Opens clients that read nothing; returns by how much each of them made
    /// the broker grow.
    fn stall(&self, broker: &Server, redis: &Redis) -> Result<f64> {
        publish_long(redis)?;
        let before = settled_rss(broker.process()?)? as f64;
        let reads = metric(broker, "runcast_store_reads_total")?;
        let mut clients = Vec::new();
        // A few at a time: a first page that takes over a second is refused.
        while clients.len() < self.stalled as usize {
            let more = (self.stalled as usize - clients.len()).min(STALLED_AT_ONCE);
            for _ in 0..more {
                clients.push(stalled_client(broker.addr)?);
            }
            await_true("a page read for each stalled client", || {
                let now = metric(broker, "runcast_store_reads_total")?;
                Ok(now - reads >= clients.len() as f64)
            })?;
        }
        let grown = settled_rss(broker.process()?)? as f64 - before;
        let each = grown / f64::from(self.stalled);
        let most = STALLED_BYTES_MAX * f64::from(self.stalled) + ALLOCATOR_BYTES_MAX;
        ensure!(
            grown <= most,
            "stalled clients cost {grown:.0} bytes, over {most:.0}"
        );
        Ok(each)
    }
}

fn run(index: u32) -> DurableRun {
    DurableRun::new(&format!("memory-{index}"))
}

fn stream_path(index: u32) -> String {
    format!("/api/v1/runs/memory-{index}/stream/redis")
}

fn publish_long(redis: &Redis) -> Result<()> {
    let run = DurableRun::new("memory-long");
    let payload = vec![b'x'; LONG_PAYLOAD_BYTES];
    let mut connection = redis.connect()?;
    for _ in 0..LONG_EVENTS / PIPELINE {
        let mut pipe = redis::pipe();
        for _ in 0..PIPELINE {
            run.publish(&mut pipe, &payload);
        }
        let answers: Vec<redis::Value> = pipe.query(&mut connection)?;
        check_accepted(&answers)?;
    }
    Ok(())
}

fn stalled_client(addr: SocketAddr) -> Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_recv_buffer_size(STALLED_RECEIVE_BYTES)?;
    socket.connect(&addr.into())?;
    let mut socket = TcpStream::from(socket);
    let path = "/api/v1/runs/memory-long/stream/redis";
    write!(
        socket,
        "GET {path} HTTP/1.1\r\nHost: {addr}\r\nAccept: text/event-stream\r\n\r\n"
    )?;
    Ok(socket)
}

/// Returns the bytes of a stream and of a hash, the mean of some.
fn key_sizes(redis: &Redis, runs: &[DurableRun]) -> Result<(f64, f64)> {
    let mut connection = redis.connect()?;
    let mut size = |key: &str| -> Result<f64> {
        let mut usage = redis::cmd("MEMORY");
        usage.arg("USAGE").arg(key).arg("SAMPLES").arg(0);
        Ok(usage.query(&mut connection)?)
    };
    let (mut streams, mut metas, mut count) = (0.0, 0.0, 0.0);
    for run in runs.iter().take(SAMPLES) {
        streams += size(run.stream())?;
        metas += size(run.meta())?;
        count += 1.0;
    }
    Ok((streams / count, metas / count))
}

/// Waits until the broker's hubs have taken every event published.
fn await_hubs_heard(broker: &Server, events: u64) -> Result<()> {
    await_true("every event heard by the broker", || {
        Ok(metric(broker, "runcast_events_in_total")? >= events as f64)
    })
}

fn metric(broker: &Server, family: &str) -> Result<f64> {
    let metrics = http::get(broker.addr, "/metrics")?.body;
    Ok(http::sum_samples(&metrics, family))
}

fn await_true(what: &str, condition: impl Fn() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !condition()? {
        if begin.elapsed() > PATIENCE {
            bail!("not within {PATIENCE:?}: {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

impl fmt::Display for Bytes {
    /// A table in Markdown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            runs,
            watched,
            events,
            stalled,
            ..
        } = self;
        let (all, mb, kb) = (f64::from(*runs), 1e6, 1e3);
        let per_event = self.redis / all / f64::from(*events);
        writeln!(f, "| | in all | each |\n|---|--:|--:|")?;
        writeln!(
            f,
            "| Redis: {runs} runs of {events} events | {:.1} MB | {:.1} kB a run, {per_event:.0} bytes an event |",
            self.redis / mb,
            self.redis / all / kb
        )?;
        writeln!(
            f,
            "| its streams, by `MEMORY USAGE` | {:.1} MB | {:.1} kB |\n\
             | its hashes, by the same | {:.1} MB | {:.2} kB |",
            self.stream * all / mb,
            self.stream / kb,
            self.meta * all / mb,
            self.meta / kb
        )?;
        writeln!(f, "| broker at rest | {:.1} MB | |", self.at_rest / mb)?;
        writeln!(
            f,
            "| broker that heard it all, nobody watching: grown by | {:.1} MB | {:.1} kB a run, of it ring {:.1} kB |",
            self.unwatched / mb,
            self.unwatched / all / kb,
            self.unwatched_rings / all / kb
        )?;
        let watched = f64::from(*watched);
        writeln!(
            f,
            "| broker with {watched} of the runs watched: grown by | {:.1} MB | {:.1} kB a run and client, of it ring {:.1} kB |",
            self.watching / mb,
            self.watching / watched / kb,
            self.watched_rings / watched / kb
        )?;
        writeln!(
            f,
            "| {stalled} clients that read nothing of a history of {:.0} MB: grown by | {:.1} MB | {:.0} kB |",
            (LONG_EVENTS * LONG_PAYLOAD_BYTES) as f64 / mb,
            self.per_stalled * f64::from(*stalled) / mb,
            self.per_stalled / kb
        )
    }
}
