//! [`Engine`]: what the backend asks of a cluster, and the choice of who asks
//! it: kubectl processes ([`command`](super::command)), or this process
//! itself ([`api`](super::api)). All else of the backend is the same for both:
//! whatever an engine answers or fails with is in the words of this file, of
//! [`pods`](super::pods) and of [`failure`](super::failure).

use std::io;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::timeout;

use super::api::{Api, ApiLog, Watch};
use super::command::{self, KubectlChild};
use super::counters::{FollowPermits, KubectlCounters};
use super::failure::{Failure, FailureReason};
use super::pods::{Job, Pod, PodList, parse_job, parse_pod, parse_pods};
use crate::protocol::RunId;
use crate::settings::{KubectlEngine, KubectlSettings};

/// Most bytes of an answer; a thousand pods have about 10 MB.
pub(crate) const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;

/// How a cluster is asked, as `kubectl.engine` says. Clones share their
/// connections.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(crate) settings: Arc<KubectlSettings>,
    /// Without it, kubectl is called.
    pub(crate) api: Option<Api>,
}

impl Engine {
    /// Returns the engine that `settings` name. One that this build does not
    /// have ([`KubectlEngine::is_built`]) is replaced by the command.
    pub fn new(settings: KubectlSettings) -> Self {
        let settings = Arc::new(settings);
        let api = match settings.engine {
            KubectlEngine::Command => None,
            KubectlEngine::Api => Api::new(&settings),
        };
        Self { settings, api }
    }
}

/// A cluster as one user of it asks it, until that one is told to stop.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    pub(crate) engine: Engine,
    pub(crate) counters: Arc<KubectlCounters>,
    pub(crate) permits: Arc<FollowPermits>,
    pub(crate) stop: watch::Receiver<bool>,
}

/// What is asked once, and answered as a whole.
#[derive(Debug)]
pub(crate) enum Ask<'a> {
    /// The pods of a label selector, as a JSON list.
    Pods { selector: &'a str },
    /// A pod, as JSON.
    Pod { name: &'a str },
    /// A Job, as JSON.
    Job { name: &'a str },
    /// The last line of a log, if it has any.
    LastLine(&'a LogName),
}

/// A container's log.
#[derive(Debug, Clone)]
pub(crate) struct LogName {
    pub(crate) pod: String,
    pub(crate) container: String,
}

/// What is to be read of a log, with timestamps.
#[derive(Debug)]
pub(crate) struct LogAsk<'a> {
    pub(crate) name: &'a LogName,
    /// That of the instance before, to its end, and not the present one as it
    /// grows.
    pub(crate) previous: bool,
    /// Lines from this second on; `None` from the first.
    pub(crate) since: Option<jiff::Timestamp>,
}

impl Cluster {
    pub(crate) fn settings(&self) -> &KubectlSettings {
        &self.engine.settings
    }

    /// Returns the pods of `run_id` as they are now.
    ///
    /// # Errors
    /// As [`Cluster::ask`].
    pub(crate) async fn pods(&self, run_id: &RunId) -> Result<PodList, Failure> {
        let selector = &self.settings().selector_of(run_id);
        let answer = self.ask(&Ask::Pods { selector }).await?;
        understood(parse_pods(&answer), "the list of pods")
    }

    /// Returns the pod `name`.
    ///
    /// # Errors
    /// As [`Cluster::ask`].
    pub(crate) async fn pod(&self, name: &str) -> Result<Pod, Failure> {
        let answer = self.ask(&Ask::Pod { name }).await?;
        understood(parse_pod(&answer), "a pod")
    }

    /// Returns how the Job `name` stands.
    ///
    /// # Errors
    /// As [`Cluster::ask`].
    pub(crate) async fn job(&self, name: &str) -> Result<Job, Failure> {
        let answer = self.ask(&Ask::Job { name }).await?;
        understood(parse_job(&answer), "a Job")
    }

    /// Asks once, waiting for a turn first.
    ///
    /// # Errors
    /// What went wrong; [`FailureReason::Timeout`] after `kubectl.timeout`, and
    /// [`FailureReason::Killed`] when its user is told to stop. No process and
    /// no request of it is left by then.
    pub(crate) async fn ask(&self, ask: &Ask<'_>) -> Result<Vec<u8>, Failure> {
        let patience = self.settings().timeout;
        let Ok(_turn) = timeout(patience, self.permits.query()).await else {
            return Err(FailureReason::Timeout.into());
        };
        let Some(api) = &self.engine.api else {
            return command::ask(self, ask).await;
        };
        self.in_time(api.ask(ask)).await
    }

    /// Waits for `answer` no longer than `kubectl.timeout`, and until the stop.
    ///
    /// # Errors
    /// Its own, [`FailureReason::Timeout`] or [`FailureReason::Killed`].
    pub(crate) async fn in_time<T>(
        &self,
        answer: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let mut stop = self.stop.clone();
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => Err(FailureReason::Killed.into()),
            answer = timeout(self.settings().timeout, answer) => {
                answer.unwrap_or_else(|_| Err(FailureReason::Timeout.into()))
            }
        }
    }

    /// Watches the pods of `run_id` from `version` on; `None` if there are as
    /// many watches as may be, or the engine has none.
    ///
    /// # Errors
    /// What the API says, or [`FailureReason::Timeout`].
    pub(crate) async fn watch(
        &self,
        run_id: &RunId,
        version: &str,
    ) -> Result<Option<Watch>, Failure> {
        let Some(api) = &self.engine.api else {
            return Ok(None);
        };
        let Some(place) = self.permits.try_watch(&self.counters) else {
            return Ok(None);
        };
        let selector = self.settings().selector_of(run_id);
        let watch = self.in_time(api.watch(&selector, version, place)).await;
        watch
            .map(Some)
            .map_err(|failure| Failure::about(failure.reason, "the watch of the run's pods"))
    }

    /// Begins to read a log. Whether it can be had shows in the reading.
    ///
    /// # Errors
    /// kubectl cannot be started.
    pub(crate) fn open_log(&self, ask: &LogAsk<'_>) -> Result<LogStream, Failure> {
        match &self.engine.api {
            None => command::open_log(self, ask).map(|child| LogStream::Command(child.into())),
            Some(api) => Ok(api.open_log(ask)),
        }
    }
}

/// Returns what was parsed of an answer.
fn understood<T>(parsed: Result<T, serde_json::Error>, what: &str) -> Result<T, Failure> {
    parsed.map_err(|error| {
        tracing::warn!(%error, "the answer about {what} could not be read");
        FailureReason::Failed.into()
    })
}

/// A log that is being read. Dropping it ends the reading.
#[derive(Debug)]
pub(crate) enum LogStream {
    /// By a process of kubectl.
    Command(Box<KubectlChild>),
    /// By a request of our own.
    #[cfg_attr(
        not(feature = "kubernetes-api"),
        expect(dead_code, reason = "only api makes it")
    )]
    Api(ApiLog),
}

impl LogStream {
    /// Appends what comes next to `buffer`, and returns how many bytes; 0 when
    /// it is over, well or not: [`LogStream::ended`] tells.
    ///
    /// It may be dropped while it waits, and called again.
    pub(crate) async fn read(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Self::Command(child) => child.read(buffer).await,
            Self::Api(log) => Ok(log.read(buffer).await),
        }
    }

    /// Says how a log ended that gave its last byte.
    ///
    /// # Errors
    /// It could not be had, or broke.
    pub(crate) async fn ended(self) -> Result<(), Failure> {
        match self {
            Self::Command(child) => child.ended().await,
            Self::Api(log) => log.ended(),
        }
    }

    /// Ends the reading before the log is over.
    pub(crate) async fn kill(&mut self) {
        match self {
            Self::Command(child) => child.kill().await,
            // It goes with this.
            Self::Api(_) => {}
        }
    }
}
