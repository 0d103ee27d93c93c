//! [`Cli`]: the built `runcast` as a command, with its stdin and its outputs
//! in the test's hands.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};

use super::redis::Redis;
use super::wait::{SOON, eventually};

/// A command line that is not started yet.
pub(crate) struct CliSettings(Command);

impl CliSettings {
    /// Adds words to the command line.
    pub(crate) fn arguments(mut self, arguments: &[&str]) -> Self {
        self.0.args(arguments);
        self
    }

    /// Sets `key` (`section.name`), as `RUNCAST__SECTION__NAME`.
    pub(crate) fn set(self, key: &str, value: &str) -> Self {
        let name = format!("RUNCAST__{}", key.to_uppercase().replace('.', "__"));
        self.variable(&name, value)
    }

    /// Sets any environment variable.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.0.env(name, value);
        self
    }

    /// Lets it inherit the orphans of what it starts, as a container's first
    /// process does.
    pub(crate) fn inheriting_orphans(self) -> Self {
        const PR_SET_CHILD_SUBREAPER: &str = "36";
        let program = format!(
            "import ctypes, os, sys; ctypes.CDLL(None).prctl({PR_SET_CHILD_SUBREAPER}, 1, 0, 0, 0); \
             os.execv(sys.argv[1], sys.argv[1:])"
        );
        self.below("python3", |words| {
            let python = ["-c", &program].map(OsString::from);
            python.into_iter().chain(words).collect()
        })
    }

    /// Has it started by `program`, with the arguments made of its words.
    fn below(self, program: &str, arguments: impl Fn(Vec<OsString>) -> Vec<OsString>) -> Self {
        let words = [self.0.get_program()].into_iter().chain(self.0.get_args());
        let mut command = Command::new(program);
        command.args(arguments(words.map(ToOwned::to_owned).collect()));
        for (name, value) in self.0.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        Self(command)
    }

    /// Starts it.
    pub(crate) fn start(self) -> Cli {
        Cli::of(self.spawn())
    }

    /// Starts it in a process group of its own: the kernel stops none whose
    /// group is orphaned, as that of the tests may be.
    pub(crate) fn start_in_own_group(mut self) -> Cli {
        std::os::unix::process::CommandExt::process_group(&mut self.0, 0);
        self.start()
    }

    /// Starts it with a stdout that nobody reads any more.
    pub(crate) fn start_without_reader(self) -> Cli {
        let mut child = self.spawn();
        drop(child.stdout.take());
        Cli::of(child)
    }

    /// Starts it in a terminal of its own: keys come from its stdin, and what
    /// it writes to either output stands in stdout, beside the echo of the keys.
    pub(crate) fn start_in_terminal(self) -> Cli {
        let (ours, its) = terminal().expect("the system has a terminal left");
        let mut settings = self.below("setsid", |words| {
            [OsString::from("--ctty")]
                .into_iter()
                .chain(words)
                .collect()
        });
        let end = || its.try_clone().expect("a descriptor is left");
        settings.0.stdin(end()).stdout(end()).stderr(end());
        let child = settings.0.spawn().expect("it starts");
        let keys = ours.try_clone().expect("a descriptor is left");
        Cli::new(child, Some(keys)).capturing(Some(ours), None)
    }

    fn spawn(mut self) -> Child {
        let command = self.0.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(Stdio::piped()).spawn().expect("it starts")
    }
    /// Starts it without input and waits for its end.
    pub(crate) async fn run(self) -> Output {
        self.start().end().await
    }
}

/// Returns both ends of a new terminal: ours, and that of who runs in it.
fn terminal() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = openpt(flags)?;
    unlockpt(&ours)?;
    let its = ioctl_tiocgptpeer(&ours, flags)?;
    Ok((ours, its))
}

/// What a command has written in all, and how it ended.
#[derive(Debug)]
pub(crate) struct Output {
    /// The exit code; of one killed by a signal, its negative number.
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Output {
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// A running command; killed when dropped.
pub(crate) struct Cli {
    child: Child,
    stdin: Option<File>,
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Cli {
    /// `runcast` with no settings but where `redis` is.
    pub(crate) fn with(redis: &Redis) -> CliSettings {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runcast"));
        // Settings of whoever runs the tests are none of theirs.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("RUNCAST_") || text.starts_with("TRACE") {
                command.env_remove(name);
            }
        }
        CliSettings(command)
            .set("redis.url", &redis.url())
            .set("history.max_events", "1000000")
            .set("history.max_bytes_per_run", "256MiB")
    }

    fn of(mut child: Child) -> Self {
        let stdin = child.stdin.take().map(OwnedFd::from);
        let stdout = child.stdout.take().map(OwnedFd::from);
        let stderr = child.stderr.take().map(OwnedFd::from);
        Self::new(child, stdin).capturing(stdout, stderr)
    }

    fn new(child: Child, stdin: Option<OwnedFd>) -> Self {
        Self {
            stdin: stdin.map(File::from),
            stdout: Arc::default(),
            stderr: Arc::default(),
            readers: Vec::new(),
            child,
        }
    }

    fn capturing(mut self, stdout: Option<OwnedFd>, stderr: Option<OwnedFd>) -> Self {
        let outputs = [(stdout, &self.stdout), (stderr, &self.stderr)];
        let outputs = outputs.into_iter();
        self.readers = outputs
            .filter_map(|(pipe, into)| Some(capture(pipe?.into(), into)))
            .collect();
        self
    }

    /// Writes to its stdin. As little as fits in a pipe, or it must read.
    pub(crate) fn feed(&mut self, bytes: impl AsRef<[u8]>) {
        let stdin = self.stdin.as_mut().expect("not yet closed");
        stdin.write_all(bytes.as_ref()).expect("it reads its stdin");
    }

    /// Ends its stdin.
    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it is ours and not yet reaped");
    }

    /// Returns what it has written to stdout so far.
    pub(crate) fn stdout(&self) -> Vec<u8> {
        self.stdout.lock().expect("no reader panics").clone()
    }

    /// Returns what it has written to stderr so far.
    pub(crate) fn stderr(&self) -> String {
        let bytes = self.stderr.lock().expect("no reader panics").clone();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until it has written `expected` to stdout, and nothing else.
    pub(crate) async fn wait_stdout(&self, expected: &[u8]) {
        eventually("all output is ours", SOON, async || {
            let length = self.stdout.lock().expect("no reader panics").len();
            length >= expected.len()
        })
        .await;
        assert!(self.stdout() == expected, "other bytes came out");
    }

    /// Waits until `text` stands in its stderr.
    pub(crate) async fn wait_stderr(&self, text: &str) {
        eventually(text, SOON, async || self.stderr().contains(text)).await;
    }

    /// Closes its stdin and waits for its end and that of its outputs.
    pub(crate) async fn end(mut self) -> Output {
        self.close_stdin();
        let mut status = None;
        eventually("the command ends", 6 * SOON, || {
            status = self.child.try_wait().expect("the child is ours");
            let has_ended = status.is_some();
            async move { has_ended }
        })
        .await;
        let readers = std::mem::take(&mut self.readers);
        eventually("its outputs end", SOON, async || {
            readers.iter().all(JoinHandle::is_finished)
        })
        .await;
        let status = status.expect("just seen");
        Output {
            code: status
                .code()
                .or(status.signal().map(|signal| -signal))
                .expect("it has ended"),
            stdout: self.stdout(),
            stderr: self.stderr.lock().expect("no reader panics").clone(),
        }
    }
}

impl Drop for Cli {
    fn drop(&mut self) {
        // It may have ended; there is nothing left to do then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads `pipe` to its end, so that the command never waits for the test.
fn capture(mut pipe: File, into: &Arc<Mutex<Vec<u8>>>) -> JoinHandle<()> {
    let into = Arc::clone(into);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = pipe.read(&mut buffer) {
            let mut bytes = into.lock().expect("no reader panics");
            bytes.extend_from_slice(&buffer[..length]);
        }
    })
}
