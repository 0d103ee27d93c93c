//! [`RunningCommand`]: the command, started, and its [`Ending`].

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use runcast_actors::protocol::RunId;
use rustix::process::{Pid, WaitOptions, WaitStatus, wait};
use serde::Serialize;

use super::RUN_ID_VARIABLE;
use super::signals::{Signals, asks_to_end, pass_on};

/// Exit code for a command that is not there, as a shell's.
const NOT_FOUND: u8 = 127;
/// Exit code for a command that is there and cannot be run, as a shell's.
const NOT_EXECUTABLE: u8 = 126;
/// What a shell adds to a signal's number for its exit code.
const SIGNAL_BASE: i32 = 128;

/// A command that runs.
pub(super) struct RunningCommand {
    pid: Pid,
}

/// The read ends of a command's pipes.
pub(super) struct Outputs {
    pub(super) stdout: File,
    pub(super) stderr: File,
}

impl RunningCommand {
    /// Starts `words` with our stdin, our environment and the run's id in it.
    ///
    /// # Errors
    /// It cannot be started: how that ended.
    pub(super) fn start(
        words: &[OsString],
        run_id: &RunId,
    ) -> Result<(Self, Outputs), (Ending, io::Error)> {
        let (program, arguments) = words.split_first().expect("the command line requires one");
        let fault = |error: io::Error| {
            let code = match error.kind() {
                io::ErrorKind::NotFound => NOT_FOUND,
                _ => NOT_EXECUTABLE,
            };
            (Ending::Exited(code.into()), error)
        };
        let mut child = Command::new(program)
            .args(arguments)
            .env(RUN_ID_VARIABLE, run_id.as_str())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(fault)?;
        let pid = Pid::from_child(&child);
        let outputs = Outputs {
            stdout: OwnedFd::from(child.stdout.take().expect("piped")).into(),
            stderr: OwnedFd::from(child.stderr.take().expect("piped")).into(),
        };
        Ok((Self { pid }, outputs))
    }

    /// Waits for its end, giving it our signals. Reaps every other child on
    /// the way: as a container's first process we inherit its orphans. Returns
    /// also whether it was asked to end.
    ///
    /// # Errors
    /// The system does not know the child any more.
    pub(super) async fn ending(&self, signals: &mut Signals) -> io::Result<(Ending, bool)> {
        let mut was_asked = false;
        loop {
            while let Some((pid, status)) = wait(WaitOptions::NOHANG)? {
                if let Some(ending) = Ending::of(status).filter(|_| pid == self.pid) {
                    return Ok((ending, was_asked | signals.asked_to_end_by_now().await));
                }
            }
            let signal = signals.next().await;
            if signal != rustix::process::Signal::CHILD {
                was_asked |= asks_to_end(signal);
                pass_on(signal, self.pid);
            }
        }
    }
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// By itself, with this code.
    Exited(i32),
    /// By a signal of this number.
    Killed(i32),
}

/// The data of the run's last status.
#[derive(Serialize)]
struct LastStatus<'a> {
    status: &'a str,
    exit_code: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Ending {
    fn of(status: WaitStatus) -> Option<Self> {
        let code = status.exit_status().map(Self::Exited);
        code.or_else(|| status.terminating_signal().map(Self::Killed))
    }

    /// The exit code a shell would give it, and we give ourselves.
    pub(super) fn exit_code(self) -> u8 {
        let code = match self {
            Self::Exited(code) => code,
            Self::Killed(signal) => SIGNAL_BASE + signal,
        };
        u8::try_from(code).unwrap_or(u8::MAX)
    }

    /// Returns the run's last status as JSON: `completed` for code 0; else
    /// `cancelled` if it was asked to end, and `failed` if not. `error` is why
    /// it could not be started.
    pub(super) fn status(self, was_asked: bool, error: Option<&io::Error>) -> Vec<u8> {
        let status = LastStatus {
            status: match self {
                Self::Exited(0) => "completed",
                _ if was_asked => "cancelled",
                _ => "failed",
            },
            exit_code: self.exit_code(),
            signal: match self {
                Self::Exited(_) => None,
                Self::Killed(signal) => Some(signal_name(signal)),
            },
            error: error.map(ToString::to_string),
        };
        serde_json::to_vec(&status).expect("texts and numbers are JSON")
    }
}

/// `SIGTERM` for 15; the number of one without a name.
fn signal_name(signal: i32) -> String {
    const NAMES: [(&str, rustix::process::Signal); 15] = {
        use rustix::process::Signal;
        [
            ("SIGHUP", Signal::HUP),
            ("SIGINT", Signal::INT),
            ("SIGQUIT", Signal::QUIT),
            ("SIGILL", Signal::ILL),
            ("SIGTRAP", Signal::TRAP),
            ("SIGABRT", Signal::ABORT),
            ("SIGBUS", Signal::BUS),
            ("SIGFPE", Signal::FPE),
            ("SIGKILL", Signal::KILL),
            ("SIGUSR1", Signal::USR1),
            ("SIGSEGV", Signal::SEGV),
            ("SIGUSR2", Signal::USR2),
            ("SIGPIPE", Signal::PIPE),
            ("SIGALRM", Signal::ALARM),
            ("SIGTERM", Signal::TERM),
        ]
    };
    let named = NAMES.iter().find(|(_, named)| named.as_raw() == signal);
    named.map_or_else(|| signal.to_string(), |(name, _)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_tells_how_it_ended() {
        for (ending, was_asked, code, status) in [
            (
                Ending::Exited(0),
                false,
                0,
                r#"{"status":"completed","exit_code":0}"#,
            ),
            (
                Ending::Exited(0),
                true,
                0,
                r#"{"status":"completed","exit_code":0}"#,
            ),
            (
                Ending::Exited(3),
                false,
                3,
                r#"{"status":"failed","exit_code":3}"#,
            ),
            (
                Ending::Exited(3),
                true,
                3,
                r#"{"status":"cancelled","exit_code":3}"#,
            ),
            (
                Ending::Killed(9),
                false,
                137,
                r#"{"status":"failed","exit_code":137,"signal":"SIGKILL"}"#,
            ),
            (
                Ending::Killed(15),
                true,
                143,
                r#"{"status":"cancelled","exit_code":143,"signal":"SIGTERM"}"#,
            ),
            (
                Ending::Killed(34),
                false,
                162,
                r#"{"status":"failed","exit_code":162,"signal":"34"}"#,
            ),
        ] {
            assert_eq!(ending.exit_code(), code);
            let told = ending.status(was_asked, None);
            assert_eq!(String::from_utf8_lossy(&told), status);
        }
    }
}
