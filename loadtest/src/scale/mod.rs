//! [`Scale`]: how the broker's costs grow, where one machine ends, and whether
//! one run can disturb another: the figures of `docs/scale.md`.

mod curves;
mod fleet;
mod head_of_line;
mod sizes;

use std::fmt::Display;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::ValueEnum as _;
use serde::Serialize;

use self::curves::Curves;
use self::fleet::Fleet;
use self::head_of_line::{Disturbance, HeadOfLine};
use self::sizes::Sizes;
use crate::report::LoadReport;
use crate::section;
use crate::servers::{Redis, Server};

/// The command that writes the document.
const COMMAND: &str = "make scale";

/// Measures what grows with the number of streams, runs and messages.
#[derive(Debug, clap::Args)]
pub(crate) struct Scale {
    /// The broker's program, a release build
    #[arg(long, default_value = "target/release/runcast")]
    broker: PathBuf,
    /// Only these parts; all by default
    #[arg(long, value_delimiter = ',', value_enum)]
    parts: Vec<Part>,
    /// Document in which the sections of the parts are replaced
    #[arg(long)]
    document: Option<PathBuf>,
    /// Also write each part there, as `PART.json`
    #[arg(long, value_name = "DIR")]
    json: Option<PathBuf>,
    /// Times each load of the curves and of the disturbances is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// How long each of these is measured
    #[arg(long, default_value = "4s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// How long streams are held at rest: over a heartbeat's interval
    #[arg(long, default_value = "32s", value_parser = humantime::parse_duration)]
    hold: Duration,
    /// Numbers of streams of one broker
    #[arg(long, value_delimiter = ',', default_value = "1000,5000,10000,18000")]
    sizes: Vec<usize>,
    /// Brokers on one Redis, each with a load test process of its own
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    brokers: u8,
    /// Streams of each of these brokers
    #[arg(long, default_value_t = 18_000)]
    streams_each: usize,
    /// Divide the clients and runs of the curves by this
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    fewer: u16,
    /// Only these disturbances; all by default
    #[arg(long, value_delimiter = ',', value_enum)]
    disturbances: Vec<Disturbance>,
    /// Another setting for every broker, like hub.max_flush_delay=0s
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_setting)]
    set: Vec<(String, String)>,
    /// The kubectl whose flood disturbs
    #[arg(long, default_value = "kubectl")]
    kubectl: String,
}

/// What is measured, each a section of the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// One broker with ever more streams.
    Sizes,
    /// Several brokers on one Redis.
    Fleet,
    /// Cost against clients, runs and messages.
    Curves,
    /// What one run does to the latency of others.
    HeadOfLine,
}

impl Part {
    /// Its section's name.
    fn name(self) -> &'static str {
        match self {
            Self::Sizes => "sizes",
            Self::Fleet => "fleet",
            Self::Curves => "curves",
            Self::HeadOfLine => "head-of-line",
        }
    }
}

impl Scale {
    /// Measures, prints and writes, part after part.
    ///
    /// # Errors
    /// Also when an event or a stream was lost: no figure counts then.
    pub(crate) fn run(&self) -> Result<()> {
        let parts = if self.parts.is_empty() {
            Part::value_variants()
        } else {
            &self.parts
        };
        for part in parts {
            eprintln!("# {}", part.name());
            match part {
                Part::Sizes => self.write(*part, &Sizes::measure(self)?)?,
                Part::Fleet => self.write(*part, &Fleet::measure(self)?)?,
                Part::Curves => self.write(*part, &Curves::measure(self)?)?,
                Part::HeadOfLine => self.write(*part, &HeadOfLine::measure(self)?)?,
            }
        }
        Ok(())
    }

    /// Puts a part where it was asked for.
    fn write<R: Display + Serialize>(&self, part: Part, result: &R) -> Result<()> {
        let (today, commit) = (section::today(), section::commit());
        let machine = section::machine();
        let text = format!("Measured {today} at commit {commit} on {machine}.\n\n{result}");
        println!("{text}");
        if let Some(dir) = &self.json {
            let path = dir.join(part.name()).with_extension("json");
            fs::write(&path, serde_json::to_string_pretty(result)? + "\n")
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        if let Some(path) = &self.document {
            let document = fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            fs::write(
                path,
                section::replace(&document, part.name(), COMMAND, &text)?,
            )?;
        }
        Ok(())
    }

    /// Starts a broker with its default settings, but for `extra` environment
    /// variables.
    fn start_broker(&self, redis: &Redis, extra: &[(&str, &str)]) -> Result<Server> {
        let set = self
            .set
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()));
        let settings: Vec<(&str, &str)> = extra.iter().copied().chain(set).collect();
        let broker = Server::broker(&self.broker, redis, &settings)?;
        broker.wait_ready()?;
        Ok(broker)
    }
}

/// Reads `section.key=value` as the environment variable of that setting.
fn parse_setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("not KEY=VALUE")?;
    let name = key.to_uppercase().replace('.', "__");
    Ok((format!("RUNCAST__{name}"), value.to_owned()))
}

/// Makes sure that nothing went wrong with a load.
fn check(what: &str, report: &LoadReport) -> Result<()> {
    report
        .fault()
        .map_or(Ok(()), |fault| anyhow::bail!("{what}: {fault}"))
}

/// Returns the median; of two in the middle, the greater.
fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Writes a figure that may not have been measured.
fn shown(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_given_by_its_environment_variable() {
        let setting = parse_setting("hub.max_flush_delay=0s").expect("a setting");
        let expected = ("RUNCAST__HUB__MAX_FLUSH_DELAY".to_owned(), "0s".to_owned());
        assert_eq!(setting, expected);
        assert!(parse_setting("hub.max_flush_delay").is_err());
    }

    #[test]
    fn the_median_is_the_value_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([1.0, 2.0]), Some(2.0));
        assert_eq!(median([]), None);
        assert_eq!(
            (shown(Some(1.25), 1), shown(None, 1)),
            ("1.2".to_owned(), "–".to_owned())
        );
    }
}
