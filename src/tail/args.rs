//! [`TailArgs`]: what `runcast tail` was asked for.

use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum, builder::PossibleValuesParser};
use humantime_serde::re::humantime;
use runcast_actors::protocol::RunId;
use url::Url;

use crate::settings::Secret;

/// The command line of `runcast tail`. What the broker itself checks (kinds,
/// levels, sources) is handed on as it is, so that there is one set of rules.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct TailArgs {
    /// The run to follow
    #[arg(value_name = "RUN")]
    pub(crate) run_id: RunId,
    /// Where the broker is; a path before /api/v1 is kept
    #[arg(
        long,
        value_name = "URL",
        env = "RUNCAST_URL",
        default_value = "http://127.0.0.1:8000",
        value_parser = broker_url
    )]
    pub(crate) url: Url,
    /// Token for a broker that asks for one; rather RUNCAST_TOKEN: everyone on the machine can
    /// see a command line
    #[arg(
        long,
        value_name = "TOKEN",
        env = "RUNCAST_TOKEN",
        hide_env_values = true
    )]
    pub(crate) token: Option<Secret>,
    // The same id and type as the flag of all commands, which it stands in for.
    /// Where the events come from: redis, kubectl or auto; without it the broker's default
    #[arg(long, value_name = "BACKEND", value_parser = PossibleValuesParser::new(["redis", "kubectl", "auto"]))]
    pub(crate) backend: Option<String>,
    /// Where to begin: a time ago (10m, 2h), the last N events (-N), start or now
    #[arg(
        long,
        value_name = "WHEN",
        default_value = "start",
        allow_hyphen_values = true
    )]
    pub(crate) since: Since,
    /// Only these kinds: output, status, log
    #[arg(long, value_name = "KIND,…")]
    pub(crate) kinds: Option<String>,
    /// Only these sources
    #[arg(long, value_name = "SOURCE,…")]
    pub(crate) sources: Option<String>,
    /// Least level of log events; without it the broker's setting
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
    /// Print each event as a line of JSON: {"event","id","data"}
    #[arg(long)]
    pub(crate) json: bool,
    /// When to stop following
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    pub(crate) until: Until,
    /// Failed connections in a row after which to give up; 0 never does
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) attempts: u32,
    /// When to use colours
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    pub(crate) color: Color,
    /// The same as --color never
    #[arg(long, conflicts_with = "color")]
    pub(crate) no_color: bool,
}

/// Where the stream is to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// The oldest event kept.
    Start,
    /// What comes from now on.
    Now,
    /// So many events back, of those that pass the filters.
    Last(u32),
    /// Events no older than this. The broker sends all it keeps, and those
    /// whose `ts` is older are not shown.
    Ago(Duration),
}

impl Since {
    /// Returns the value of the stream's query key `from`.
    pub(super) fn begin(self) -> String {
        match self {
            Self::Start | Self::Ago(_) => "start".to_owned(),
            Self::Now => "now".to_owned(),
            Self::Last(count) => format!("-{count}"),
        }
    }
}

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "start" => return Ok(Self::Start),
            "now" => return Ok(Self::Now),
            _ => {}
        }
        let parsed = match text.strip_prefix('-') {
            Some(count) => count.parse().ok().filter(|n| *n > 0).map(Self::Last),
            None => humantime::parse_duration(text).ok().map(Self::Ago),
        };
        parsed.ok_or_else(|| "it is start, now, -N (events), or a time such as 90s, 10m, 2h".into())
    }
}

/// When to stop following.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Until {
    /// When the run is over; the exit code is the run's
    #[default]
    End,
    /// On Ctrl-C only: a run that begins anew is followed on
    Never,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Also into a file or a pipe
    Always,
    /// Never; what the run printed itself stays as it is
    Never,
}

/// Reads the address of a broker.
pub(crate) fn broker_url(text: &str) -> Result<Url, String> {
    let url =
        Url::parse(text).map_err(|error| format!("{error}; it looks like http://host:8000"))?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(url),
        _ => Err("it begins with http:// or https://".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_word_a_count_or_a_time() {
        let cases = [
            ("start", Since::Start),
            ("now", Since::Now),
            ("-100", Since::Last(100)),
            ("10m", Since::Ago(Duration::from_secs(600))),
            ("1h 30m", Since::Ago(Duration::from_secs(5400))),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in [
            "",
            "-",
            "-0",
            "-1x",
            "100",
            "yesterday",
            "-10m",
            "10 parsecs",
        ] {
            assert!(text.parse::<Since>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_broker_is_reached_over_http() {
        assert!(broker_url("https://runcast.example/base/").is_ok());
        for text in ["", "localhost:8000", "redis://localhost", "http://"] {
            assert!(broker_url(text).is_err(), "{text}");
        }
    }
}
