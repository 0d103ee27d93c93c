//! [`KubectlChild`]: kubectl as a child process: how it is started, read and
//! surely ended.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::time::timeout;

use crate::kubectl::KubectlCounters;
use crate::kubectl::failure::{Failure, FailureReason, classify};
use crate::settings::KubectlSettings;

/// Most bytes of stderr kept: its end, where kubectl names the error.
const STDERR_BYTES_MAX: usize = 8 * 1024;

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

/// Starts kubectl as `settings` say with `args`, a vector that never passes a
/// shell.
///
/// # Errors
/// The program is missing or cannot be executed.
pub(super) fn spawn(
    settings: &KubectlSettings,
    counters: &Arc<KubectlCounters>,
    args: &[String],
) -> Result<KubectlChild, Failure> {
    let mut command = Command::new(&settings.command);
    command
        .args(&settings.extra_args)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .env_clear()
        .process_group(0)
        .kill_on_drop(true);
    let kept = settings.env_keep.iter().map(String::as_str);
    for name in ENVIRONMENT.into_iter().chain(kept) {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    let mut child = command.spawn().map_err(|error| {
        tracing::error!(command = %settings.command, %error, "kubectl cannot be started");
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
        counters: Arc::clone(counters),
        child,
    })
}

/// A running kubectl in a process group of its own. Dropping it kills the
/// group; [`KubectlChild::kill`] and [`KubectlChild::ended`] also reap it.
#[derive(Debug)]
pub(crate) struct KubectlChild {
    stdout: ChildStdout,
    stderr: actix_rt::task::JoinHandle<String>,
    /// Its id while it is not reaped; afterwards the number may be another's.
    group: Option<Pid>,
    counters: Arc<KubectlCounters>,
    child: Child,
}

impl KubectlChild {
    /// Appends what kubectl writes next, at most 64 KiB, to `buffer`; 0 at the
    /// end of its stdout.
    pub(crate) async fn read(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        read_some(&mut self.stdout, buffer).await
    }

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
async fn read_some(from: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> io::Result<usize> {
    buffer.reserve(8 * 1024);
    from.take(64 * 1024).read_buf(buffer).await
}
