//! [`Follower`]: keeps following a run over as many connections as it takes.

use std::io;
use std::time::Duration;

use runcast_actors::protocol::{Timestamp, json_field, json_string_or_field};
use sse_stream::Sse;

use super::args::{Since, TailArgs, Until};
use super::client::{Client, Connection, OpenError, Opened};
use super::pace::Pace;
use super::render::{self, Envelope};
use super::screen::Screen;
use super::seen::Seen;
use super::verdict::Verdict;

/// Taken for the heartbeat until `hello` names it.
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(30);
/// How long the broker may take to say how a run ended.
const VERDICT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often to look whether a run that is over has begun anew.
const ANEW_INTERVAL: Duration = Duration::from_secs(5);

/// Why following stopped without the run's end.
#[derive(Debug, thiserror::Error)]
pub(super) enum FollowError {
    /// Stdout cannot be written; mostly its reader left.
    #[error("stdout: {0}")]
    Screen(#[from] io::Error),
    /// The broker will not serve this.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The broker closed the stream for something that will not pass.
    #[error("{0}")]
    Hopeless(String),
    /// No stream began in so many attempts.
    #[error("gave up (attempts: {attempts}): {last}")]
    Unreachable {
        /// Failures in a row.
        attempts: u32,
        /// The last of them.
        last: String,
    },
    /// The run is over, but the broker does not say how it ended.
    #[error("the run is over, but the broker does not say how it ended")]
    NoVerdict,
}

/// How a connection ended.
enum Ended {
    /// With the run, whose `end` said this; `None` if it had been seen before.
    Run(Option<String>),
    /// The server asked to come back.
    Goodbye,
    /// In some other way.
    Lost(String),
}

/// Follows one run.
pub(super) struct Follower {
    args: TailArgs,
    client: Client,
    screen: Screen,
    pace: Pace,
    seen: Seen,
    /// The data of the last status event of the run.
    last_status: Option<String>,
    /// Events older than this are not shown.
    oldest: Option<Timestamp>,
    heartbeat: Duration,
    /// What went wrong in a way that coming back does not mend.
    hopeless: Option<String>,
}

impl Follower {
    /// Makes a follower of what the command line names.
    pub(super) fn new(args: &TailArgs) -> anyhow::Result<Self> {
        Ok(Self {
            client: Client::new(args)?,
            screen: Screen::new(args),
            pace: Pace::new(args.attempts),
            seen: Seen::default(),
            last_status: None,
            oldest: None,
            heartbeat: DEFAULT_HEARTBEAT,
            hopeless: None,
            args: args.clone(),
        })
    }

    /// Follows the run to its end and returns the exit code that says how it
    /// ended.
    pub(super) async fn run(&mut self) -> Result<u8, FollowError> {
        loop {
            let wait = match self.connect().await? {
                Ended::Run(end) if self.args.until == Until::End => {
                    return self.verdict(end).await;
                }
                Ended::Run(end) => {
                    if end.is_some() {
                        self.screen
                            .note("the run is over; waiting for it to begin anew")
                            .await?;
                    }
                    ANEW_INTERVAL
                }
                Ended::Goodbye => self.pace.wait(fastrand::f64()),
                Ended::Lost(_) if self.hopeless.is_some() => {
                    let detail = self.hopeless.take().unwrap_or_default();
                    return Err(FollowError::Hopeless(detail));
                }
                Ended::Lost(reason) => {
                    if self.pace.is_exhausted() {
                        return Err(FollowError::Unreachable {
                            attempts: self.args.attempts,
                            last: reason,
                        });
                    }
                    let wait = self.pace.wait(fastrand::f64());
                    let seconds = wait.as_secs_f64();
                    self.screen
                        .note(format_args!("{reason}; trying again in {seconds:.1} s"))
                        .await?;
                    wait
                }
            };
            self.screen.flush().await?;
            tokio::time::sleep(wait).await;
        }
    }

    /// Makes one connection and shows what comes over it.
    async fn connect(&mut self) -> Result<Ended, FollowError> {
        // Until its `hello` came, an attempt counts as failed.
        self.pace.failed();
        let mut connection = match self.client.open(self.seen.cursor()).await {
            Ok(Opened::Stream(connection)) => connection,
            Ok(Opened::Over) => return Ok(Ended::Run(None)),
            Err(OpenError::Failed(reason)) => return Ok(Ended::Lost(reason)),
            Err(refused) => return Err(refused.into()),
        };
        self.set_oldest(&connection);
        loop {
            let event = match connection.ready() {
                Some(event) if !self.screen.is_full() => event,
                event => {
                    self.screen.flush().await?;
                    match event {
                        Some(event) => event,
                        // Two heartbeats and a half without one: it is dead.
                        None => connection.next(self.heartbeat.mul_f64(2.5)).await,
                    }
                }
            };
            match event {
                Err(reason) => return Ok(Ended::Lost(reason)),
                Ok(event) => {
                    if let Some(ended) = self.take(&event).await? {
                        return Ok(ended);
                    }
                }
            }
        }
    }

    /// Turns `--since 10m` into a time of the broker's clock, once.
    fn set_oldest(&mut self, connection: &Connection) {
        if let (Since::Ago(age), None) = (self.args.since, self.oldest) {
            let now = connection.date.unwrap_or_else(Timestamp::now);
            let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
            self.oldest = Some(Timestamp::from_micros(now.as_micros().saturating_sub(age)));
        }
    }

    /// Takes one event; returns how the connection ended if it was the last.
    async fn take(&mut self, event: &Sse) -> io::Result<Option<Ended>> {
        if let Some(millis) = event.retry {
            self.pace.heed(millis);
        }
        let (Some(name), Some(data)) = (&event.event, &event.data) else {
            return Ok(None);
        };
        let id = event.id.as_deref();
        match name.as_str() {
            "output" | "status" | "log" => self.show(name, id, data).await?,
            "hello" => self.greet(data),
            "cursor" => id.into_iter().for_each(|id| self.seen.move_to(id)),
            "gap" => self.screen.gap(data),
            "problem" => self.trouble(data).await?,
            "source" => {
                let (from, to) = (told(data, "from"), told(data, "to"));
                let reason = told(data, "reason");
                self.screen
                    .note(format_args!(
                        "events now come from {to}, not {from}: {reason}"
                    ))
                    .await?;
            }
            "goodbye" => {
                let reason = told(data, "reason");
                let text = format!("the broker closed the stream ({reason})");
                return Ok(Some(if self.pace.is_well() {
                    self.screen.note(text).await?;
                    Ended::Goodbye
                } else {
                    Ended::Lost(text)
                }));
            }
            "end" => {
                id.into_iter().for_each(|id| self.seen.move_to(id));
                self.screen.end(id, data);
                return Ok(Some(Ended::Run(Some(data.clone()))));
            }
            // Heartbeats, and what a newer broker may add.
            _ => {}
        }
        Ok(None)
    }

    /// Takes a `problem`.
    async fn trouble(&mut self, data: &str) -> io::Result<()> {
        let detail = told(data, "detail");
        let retryable = json_field(data, "retryable");
        self.hopeless = retryable
            .is_some_and(|raw| raw.get() == "false")
            .then(|| detail.clone());
        self.screen.note(detail).await
    }

    /// Takes `hello`: the stream has begun.
    fn greet(&mut self, data: &str) {
        self.pace.succeeded();
        self.hopeless = None;
        let seconds = json_field(data, "heartbeat_seconds").and_then(|raw| raw.get().parse().ok());
        if let Some(seconds) = seconds.filter(|seconds| (1..=86_400).contains(seconds)) {
            self.heartbeat = Duration::from_secs(seconds);
        }
    }

    /// Shows an event of the run, unless it was shown before or is too old.
    async fn show(&mut self, kind: &str, id: Option<&str>, data: &str) -> io::Result<()> {
        if id.is_some_and(|id| !self.seen.show(id)) {
            return Ok(());
        }
        let envelope: Envelope<'_> = match serde_json::from_str(data) {
            Ok(envelope) => envelope,
            Err(error) => {
                let text = format!(
                    "an event cannot be read: {error}: {}",
                    render::printable(data)
                );
                return self.screen.note(text).await;
            }
        };
        if kind == "status" {
            self.last_status = Some(envelope.json().to_owned());
        }
        let is_old = |oldest| envelope.time().is_some_and(|time| time < oldest);
        if !self.oldest.is_some_and(is_old) {
            self.screen.event(kind, id, data, &envelope);
        }
        Ok(())
    }

    /// Returns the exit code for a run that is over.
    async fn verdict(&mut self, end: Option<String>) -> Result<u8, FollowError> {
        self.screen.flush().await?;
        let mut verdict = end
            .as_ref()
            .and_then(|end| Verdict::read(end, self.last_status.as_deref()));
        let is_sure = |verdict: &Verdict| !verdict.needs_status() || self.last_status.is_some();
        if !verdict.as_ref().is_some_and(is_sure) {
            // A filter may have hidden the terminal status: ask for it alone.
            let asked = tokio::time::timeout(VERDICT_TIMEOUT, self.ask_verdict()).await;
            verdict = asked.ok().flatten().or(verdict);
        }
        let verdict = verdict.ok_or(FollowError::NoVerdict)?;
        Ok(verdict.exit_code())
    }

    /// Asks the broker for the last status and the end of the run.
    async fn ask_verdict(&self) -> Option<Verdict> {
        let Ok(Opened::Stream(mut connection)) = self.client.open_last_status().await else {
            return None;
        };
        let mut last_status = None;
        loop {
            let event = connection.next(VERDICT_TIMEOUT).await.ok()?;
            let data = event.data.unwrap_or_default();
            match event.event.as_deref() {
                Some("status") => {
                    let envelope: Envelope<'_> = serde_json::from_str(&data).ok()?;
                    last_status = Some(envelope.json().to_owned());
                }
                Some("end") => return Verdict::read(&data, last_status.as_deref()),
                Some("goodbye") => return None,
                _ => {}
            }
        }
    }
}

/// Returns a text of an event's data, fit for a terminal.
fn told(data: &str, field: &str) -> String {
    let text = json_string_or_field(data, field).unwrap_or_else(|| data.to_owned());
    render::printable(&text).into_owned()
}
