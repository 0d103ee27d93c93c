//! [`LoadPlan`]: what to load a server with.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs as _};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Serialize, Serializer};

use crate::arguments;
use crate::clock::monotonic_ns;
use crate::durable::DurableRun;
use crate::publisher::{Outlets, PostBody, PostTarget, PublishPlan};
use crate::subscribers::{Behaviour, Target};

/// Length of a point of the latency over time, unless there were too many.
const POINT: Duration = Duration::from_millis(250);

/// Points of the latency over time at most.
const POINTS: u32 = 60;

/// What to load a server with.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct LoadPlan {
    /// The server
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    pub(crate) url: String,
    /// Path of a run's stream; {run} stands for the run id
    #[arg(long, default_value = "/api/v1/runs/{run}/stream/redis")]
    pub(crate) path: String,
    /// The Redis to publish to
    #[arg(long, default_value = "redis://127.0.0.1:6379")]
    pub(crate) redis: String,
    /// Channel of a run; {run} stands for the run id
    #[arg(long, default_value = "run:{run}:output:loadtest")]
    pub(crate) channel: String,
    /// Publish durably, through the function, which a broker has loaded
    #[arg(long, conflicts_with = "channel")]
    pub(crate) durable: bool,
    /// Publish by HTTP instead of Redis: POST to this path; {run} stands for
    /// the run id
    #[arg(
        long,
        value_name = "PATH",
        num_args = 0..=1,
        default_missing_value = "/api/v1/runs/{run}/events",
        conflicts_with_all = ["channel", "durable"]
    )]
    pub(crate) post: Option<String>,
    /// The server to post to, if it is not the one that is subscribed to
    #[arg(long, value_name = "URL", requires = "post")]
    pub(crate) post_url: Option<String>,
    /// What is posted: `event` is Runcast's JSON, `raw` the payload alone
    #[arg(long, value_enum, default_value_t = PostBody::Event, requires = "post")]
    pub(crate) post_body: PostBody,
    /// Streams to open
    #[arg(short = 'n', long, default_value_t = 100)]
    pub(crate) subscribers: usize,
    /// Runs to spread them over
    #[arg(long, default_value_t = 1)]
    pub(crate) runs: usize,
    /// What run ids begin with; a new one for each load unless given
    #[arg(long)]
    pub(crate) run_prefix: Option<String>,
    /// Messages a second to each run; 0 only holds the streams open, `max`
    /// publishes flat out
    #[arg(long, default_value = "100")]
    pub(crate) rate: Rate,
    /// Flat out, publish no further ahead of the subscribers than this many
    /// messages
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) in_flight: u32,
    /// Connections to publish over; each has runs of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) publishers: u16,
    /// Bytes of a payload
    #[arg(long, default_value_t = 200)]
    pub(crate) payload_bytes: usize,
    /// How long to publish before measuring
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    pub(crate) warmup: Duration,
    /// How long to measure
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,
    /// How long nothing may come before what is missing counts as lost
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) patience: Duration,
    /// Threads for the subscribers
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) threads: u16,
    /// Connect from this address, and from the next ones as it fills up; to a
    /// loopback address the default is 127.0.0.1
    #[arg(long, value_name = "IPV4")]
    pub(crate) first_address: Option<Ipv4Addr>,
    /// Streams that a thread opens at once
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) connects_in_flight: u32,
    /// Open the streams evenly over this time
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    pub(crate) ramp: Duration,
    /// Publish while the streams are opened, too
    #[arg(long)]
    pub(crate) ramp_under_load: bool,
    /// How long to hold all streams open before the first message, and to
    /// measure what that costs
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    pub(crate) hold: Duration,
    /// So many of the subscribers read nothing until the end; they are shown
    /// apart
    #[arg(long, default_value_t = 0)]
    pub(crate) stalled: usize,
    /// Every other subscriber goes and comes back that often, with the id of
    /// the last event it has
    #[arg(long, value_parser = humantime::parse_duration)]
    pub(crate) reconnect_every: Option<Duration>,
    /// So long into the measurement all of them go at once, and come back
    #[arg(long, value_parser = humantime::parse_duration)]
    pub(crate) drop_all_at: Option<Duration>,
    /// Further subscribers that come each second …
    #[arg(long, default_value_t = 0.0, value_name = "PER_SECOND", value_parser = parse_churn)]
    pub(crate) churn: f64,
    /// … and go after so long
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    pub(crate) churn_stay: Duration,
    /// Process id of the server, to measure its CPU time and memory together
    /// with its children's; may be given several times
    #[arg(long, value_delimiter = ',')]
    pub(crate) pid: Vec<u32>,
}

impl Default for LoadPlan {
    fn default() -> Self {
        arguments::defaults()
    }
}

/// How fast to publish.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Rate {
    /// So many messages a second to each run.
    PerSecond(f64),
    /// As fast as the server takes them.
    Max,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        match text.parse() {
            Ok(rate) if (0.0..f64::INFINITY).contains(&rate) => Ok(Self::PerSecond(rate)),
            _ => Err("neither `max` nor a number of messages a second".to_owned()),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PerSecond(rate) => write!(f, "{rate}"),
            Self::Max => f.write_str("max"),
        }
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::PerSecond(rate) => serializer.serialize_f64(*rate),
            Self::Max => serializer.serialize_str("max"),
        }
    }
}

impl LoadPlan {
    /// Refuses what contradicts itself.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(
            (1..=self.subscribers).contains(&self.runs),
            "--runs must lie between 1 and the number of subscribers"
        );
        // Two connections to one run: which message came first would be
        // nobody's to say.
        ensure!(
            usize::from(self.publishers) <= self.runs,
            "--publishers must be at most --runs: each has runs of its own"
        );
        ensure!(
            self.stalled < self.subscribers,
            "--stalled must leave a subscriber that reads"
        );
        ensure!(
            !self.ramp_under_load || self.rate != Rate::Max,
            "--ramp-under-load needs a rate: flat out, the publishers go at the subscribers' pace"
        );
        if let Some(at) = self.drop_all_at {
            ensure!(
                at < self.duration,
                "--drop-all-at must lie within --duration"
            );
        }
        Ok(())
    }

    /// Whether anything is published.
    pub(crate) fn publishes(&self) -> bool {
        self.rate != Rate::PerSecond(0.0)
    }

    /// Names the runs.
    pub(crate) fn run_ids(&self) -> Vec<String> {
        let unique = || format!("load-{}-{}", std::process::id(), monotonic_ns());
        let prefix = self.run_prefix.clone().unwrap_or_else(unique);
        (0..self.runs)
            .map(|run| format!("{prefix}-{run}"))
            .collect()
    }

    /// Returns where to subscribe.
    pub(crate) fn target(&self, run_ids: &[String]) -> Result<Target> {
        let (addr, host) = resolve(&self.url)?;
        Ok(Target {
            addr,
            host,
            paths: in_each(&self.path, run_ids),
            first_address: self.first_address,
            behaviour: self.behaviour(),
        })
    }

    fn behaviour(&self) -> Behaviour {
        Behaviour {
            ramp: self.ramp,
            connects_in_flight: self.connects_in_flight as usize,
            stalled: self.stalled,
            reconnect_every: self.reconnect_every,
            resumes: self.reconnect_every.is_some() || self.drop_all_at.is_some(),
            churn: self.churn,
            churn_stay: self.churn_stay,
            publisher_is_elsewhere: !self.publishes(),
            point_ns: self.point().as_nanos() as u64,
        }
    }

    /// Returns the length of a point of the latency over time.
    pub(crate) fn point(&self) -> Duration {
        POINT.max(self.duration / POINTS)
    }

    /// Returns what to publish where.
    pub(crate) fn publish_plan(&self, run_ids: &[String]) -> Result<PublishPlan> {
        // Of `count` subscribers, those of a run.
        let of_run = |count, run| (count + self.runs - 1 - run) / self.runs;
        let reading = |run| of_run(self.subscribers, run) - of_run(self.stalled, run);
        Ok(PublishPlan {
            outlets: self.outlets(run_ids)?,
            fan_out: (0..self.runs).map(|run| reading(run) as u64).collect(),
            rate: self.rate,
            in_flight: u64::from(self.in_flight),
            connections: usize::from(self.publishers),
            payload_bytes: self.payload_bytes,
        })
    }

    fn outlets(&self, run_ids: &[String]) -> Result<Outlets> {
        let redis_url = self.redis.clone();
        if let Some(path) = &self.post {
            let (addr, host) = resolve(self.post_url.as_ref().unwrap_or(&self.url))?;
            return Ok(Outlets::Post(PostTarget {
                addr,
                host,
                paths: in_each(path, run_ids),
                body: self.post_body,
            }));
        }
        Ok(if self.durable {
            let runs = run_ids.iter().map(|run_id| DurableRun::new(run_id));
            Outlets::Durable {
                redis_url,
                runs: runs.collect(),
            }
        } else {
            Outlets::Plain {
                redis_url,
                channels: in_each(&self.channel, run_ids),
            }
        })
    }
}

/// Reads `50` or `50/s`.
fn parse_churn(text: &str) -> Result<f64, String> {
    match text.strip_suffix("/s").unwrap_or(text).parse() {
        Ok(churn) if (0.0..f64::INFINITY).contains(&churn) => Ok(churn),
        _ => Err("not a number of subscribers a second".to_owned()),
    }
}

/// Returns the address of `http://HOST:PORT`, and what to call it.
fn resolve(url: &str) -> Result<(SocketAddr, String)> {
    let host = url.strip_prefix("http://").unwrap_or(url);
    let host = host.trim_end_matches('/');
    let mut addrs = host
        .to_socket_addrs()
        .with_context(|| format!("{url} is not http://HOST:PORT"))?;
    let Some(addr) = addrs.next() else {
        bail!("{host} has no address");
    };
    Ok((addr, host.to_owned()))
}

fn in_each(template: &str, run_ids: &[String]) -> Vec<String> {
    run_ids
        .iter()
        .map(|run_id| template.replace("{run}", run_id))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subscriber_is_counted_in_its_run() {
        let plan = LoadPlan {
            subscribers: 11,
            runs: 4,
            ..LoadPlan::default()
        };
        let publish = plan.publish_plan(&plan.run_ids()).expect("a plan");
        assert_eq!(publish.fan_out, [3, 3, 3, 2]);
        let plan = LoadPlan { stalled: 5, ..plan };
        let publish = plan.publish_plan(&plan.run_ids()).expect("a plan");
        assert_eq!(publish.fan_out, [1, 2, 2, 1]);
    }

    #[test]
    fn a_rate_is_a_number_or_max() {
        assert_eq!("max".parse(), Ok(Rate::Max));
        assert_eq!("0.5".parse(), Ok(Rate::PerSecond(0.5)));
        for wrong in ["-1", "inf", "NaN", "fast", ""] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
    }
}
