//! [`Kubectl`]: kubectl as a child process: how it is called, asked, read and
//! surely ended.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::sync::watch;
use tokio::time::timeout;

use super::counters::{FollowPermits, KubectlCounters};
use super::failure::{Failure, FailureReason, classify};
use crate::settings::KubectlSettings;

/// Most bytes of stderr kept: its end, where kubectl names the error.
const STDERR_BYTES_MAX: usize = 8 * 1024;

/// Most bytes of the answer to a short call; a thousand pods have about 10 MB.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;

/// How long a child may take to exit once its stdout has ended, and its stderr
/// to end once it has exited.
const EXIT_WAIT: Duration = Duration::from_secs(5);

/// What kubectl needs to find its configuration, also inside a cluster.
const ENVIRONMENT: [&str; 5] = [
    "PATH",
    "HOME",
    "KUBECONFIG",
    "KUBERNETES_SERVICE_HOST",
    "KUBERNETES_SERVICE_PORT",
];

/// Calls kubectl as the settings say.
#[derive(Debug, Clone)]
pub(crate) struct Kubectl {
    pub(crate) settings: Arc<KubectlSettings>,
    pub(crate) counters: Arc<KubectlCounters>,
    pub(crate) permits: Arc<FollowPermits>,
    pub(crate) stop: watch::Receiver<bool>,
}

impl Kubectl {
    /// Starts kubectl with `args`, a vector that never passes a shell.
    ///
    /// # Errors
    /// The program is missing or cannot be executed.
    pub(crate) fn spawn<S: AsRef<str>>(&self, args: &[S]) -> Result<KubectlChild, Failure> {
        let mut command = Command::new(&self.settings.command);
        command
            .args(&self.settings.extra_args)
            .args(args.iter().map(AsRef::as_ref))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env_clear()
            .process_group(0)
            .kill_on_drop(true);
        let kept = self.settings.env_keep.iter().map(String::as_str);
        for name in ENVIRONMENT.into_iter().chain(kept) {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        let mut child = command.spawn().map_err(|error| {
            tracing::error!(command = %self.settings.command, %error, "kubectl cannot be started");
            match error.kind() {
                io::ErrorKind::NotFound => FailureReason::Missing.into(),
                io::ErrorKind::WouldBlock
                | io::ErrorKind::OutOfMemory
                | io::ErrorKind::ExecutableFileBusy => {
                    Failure::about(FailureReason::Failed, "no process could be started")
                }
                _ => FailureReason::NotExecutable.into(),
            }
        })?;
        let stderr = child.stderr.take().expect("stderr is piped");
        Ok(KubectlChild {
            stdout: child.stdout.take().expect("stdout is piped"),
            stderr: actix_rt::spawn(stderr_tail(stderr)),
            group: child.id().and_then(|id| Pid::from_raw(id.cast_signed())),
            counters: Arc::clone(&self.counters),
            child,
        })
    }

    /// Runs kubectl with `args` to its end and returns what it wrote, waiting
    /// for a turn first.
    ///
    /// # Errors
    /// Whatever kubectl says on stderr; [`FailureReason::Timeout`] after
    /// `kubectl.timeout`, and [`FailureReason::Killed`] when the actor is told
    /// to stop; the child is killed and reaped by then.
    pub(crate) async fn query<S: AsRef<str>>(&self, args: &[S]) -> Result<Vec<u8>, Failure> {
        let mut stop = self.stop.clone();
        let Ok(_turn) = timeout(self.settings.timeout, self.permits.query()).await else {
            return Err(FailureReason::Timeout.into());
        };
        let mut child = self.spawn(args)?;
        let answer = async {
            let mut answer = Vec::new();
            let mut limited = (&mut child.stdout).take(ANSWER_BYTES_MAX as u64 + 1);
            let read = limited.read_to_end(&mut answer).await;
            match read {
                Ok(bytes) if bytes <= ANSWER_BYTES_MAX => Ok(answer),
                _ => Err(FailureReason::Failed),
            }
        };
        let answer = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => Err(FailureReason::Killed),
            answer = timeout(self.settings.timeout, answer) => {
                answer.unwrap_or(Err(FailureReason::Timeout))
            }
        };
        match answer {
            Ok(answer) => child.ended().await.map(|()| answer),
            Err(reason) => {
                child.kill().await;
                Err(reason.into())
            }
        }
    }
}

/// A running kubectl in a process group of its own. Dropping it kills the
/// group; [`KubectlChild::kill`] and [`KubectlChild::ended`] also reap it.
#[derive(Debug)]
pub(crate) struct KubectlChild {
    pub(crate) stdout: ChildStdout,
    stderr: actix_rt::task::JoinHandle<String>,
    /// Its id while it is not reaped; afterwards the number may be another's.
    group: Option<Pid>,
    counters: Arc<KubectlCounters>,
    child: Child,
}

impl KubectlChild {
    /// Waits for the exit of a child whose stdout has ended.
    ///
    /// # Errors
    /// It ended with an error, or was killed.
    pub(crate) async fn ended(mut self) -> Result<(), Failure> {
        let Ok(exit) = timeout(EXIT_WAIT, self.child.wait()).await else {
            self.kill().await;
            return Err(FailureReason::Failed.into());
        };
        self.group = None;
        let stderr = timeout(EXIT_WAIT, &mut self.stderr).await;
        let stderr = stderr.ok().and_then(Result::ok).unwrap_or_default();
        judge(exit, &stderr)
    }

    /// Kills the whole group and reaps the child.
    pub(crate) async fn kill(&mut self) {
        self.kill_group();
        if let Err(error) = self.child.wait().await {
            tracing::warn!(%error, "a killed kubectl could not be waited for");
        }
        self.stderr.abort();
    }

    fn kill_group(&mut self) {
        if let Some(group) = self.group.take() {
            self.counters.add_killed();
            // ESRCH: it is gone already, which is what we want.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for KubectlChild {
    fn drop(&mut self) {
        self.kill_group();
        self.stderr.abort();
    }
}

fn judge(exit: io::Result<ExitStatus>, stderr: &str) -> Result<(), Failure> {
    use std::os::unix::process::ExitStatusExt as _;

    let failure = match exit {
        Ok(status) if status.success() => return Ok(()),
        Ok(status) if status.signal().is_some() => FailureReason::Killed,
        Ok(_) => classify(stderr),
        Err(_) => FailureReason::Failed,
    };
    tracing::debug!(reason = failure.slug(), stderr, "kubectl failed");
    Err(failure.into())
}

/// Reads `stderr` to its end, so that kubectl never waits for us, and returns
/// the last [`STDERR_BYTES_MAX`].
async fn stderr_tail(mut stderr: ChildStderr) -> String {
    let mut tail = Vec::new();
    while let Ok(read) = read_some(&mut stderr, &mut tail).await
        && read > 0
    {
        let excess = tail.len().saturating_sub(STDERR_BYTES_MAX);
        tail.drain(..excess);
    }
    String::from_utf8_lossy(&tail).into_owned()
}

/// Appends the next bytes, at most 64 KiB, to `buffer`.
pub(crate) async fn read_some(
    from: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> io::Result<usize> {
    buffer.reserve(8 * 1024);
    from.take(64 * 1024).read_buf(buffer).await
}
