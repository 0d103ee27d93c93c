//! [`Process`]: a child of the test, its log and its end.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::wait::eventually;

/// A running program, killed and reaped when dropped.
pub(crate) struct Process {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts `command`, collecting the lines of its stdout and stderr.
    pub(crate) fn spawn(mut command: Command) -> Self {
        let program = command.get_program().to_owned();
        require(&program);
        let mut child = command
            .env("PATH", path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{program:?} does not start: {error}"));
        let log = Arc::default();
        let readers = vec![
            collect(child.stdout.take().expect("piped"), &log),
            collect(child.stderr.take().expect("piped"), &log),
        ];
        Self {
            child,
            log,
            readers,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the lines written so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().expect("no writer panics").clone()
    }

    /// Returns all lines of a program that has ended and left no child.
    pub(crate) fn whole_log(&mut self) -> Vec<String> {
        for reader in self.readers.drain(..) {
            reader.join().expect("a reader does not panic");
        }
        self.log()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid())
            .ok()
            .and_then(Pid::from_raw)
            .expect("a child has a pid");
        rustix::process::kill_process(pid, signal).expect("the child is ours and not yet reaped");
    }

    /// Waits for the program's own end.
    pub(crate) async fn exit(&mut self, deadline: Duration) -> ExitStatus {
        let mut status = None;
        eventually("the process ends", deadline, || {
            status = self.ended();
            let ended = status.is_some();
            async move { ended }
        })
        .await;
        status.expect("just seen")
    }

    /// Returns the exit status if the program has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child is ours")
    }

    /// Ends it at once, as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself; there is nothing left to do then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Returns the resident memory in bytes.
    pub(crate) fn rss_bytes(&self) -> u64 {
        let kib = self.status("VmRSS");
        let kib = kib
            .strip_suffix(" kB")
            .and_then(|kib| kib.parse::<u64>().ok());
        kib.expect("Linux tells VmRSS in kB") * 1024
    }

    /// Returns the number of threads.
    #[allow(dead_code, reason = "only the suites count them")]
    pub(crate) fn thread_count(&self) -> u64 {
        let count = self.status("Threads").parse();
        count.expect("Linux tells a number")
    }

    /// Returns what `/proc` says under a name.
    fn status(&self, name: &str) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .expect("the process runs");
        let mut pairs = status.lines().filter_map(|line| line.split_once(':'));
        let pair = pairs.find(|(known, _)| *known == name);
        pair.expect("Linux tells it").1.trim().to_owned()
    }

    /// Returns the time that processors have spent on it.
    pub(crate) fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))
            .expect("the process runs");
        // What comes after the name, which stands in brackets.
        let (_, rest) = stat.rsplit_once(')').expect("it has a name");
        let ticks = rest.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.map(|n| n.parse::<u64>().expect("a number")).sum();
        Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Returns the number of open file descriptors.
    pub(crate) fn fd_count(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .expect("the process runs")
            .count()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let tail = &log[log.len().saturating_sub(40)..];
            // Captured by the test harness, shown for a failed test only.
            #[allow(clippy::print_stderr)]
            {
                eprintln!("--- last lines of process {}:", self.pid());
                tail.iter().for_each(|line| eprintln!("{line}"));
            }
        }
    }
}

/// Reads `pipe` to its end, so that the child never blocks on a full one.
fn collect(pipe: impl Read + Send + 'static, log: &Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    let log = Arc::clone(log);
    std::thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            log.lock().expect("no reader panics").push(text);
            line.clear();
        }
    })
}

/// Fails with what to do when `program` is not installed. A missing tool is
/// never a reason to skip a test.
pub(crate) fn require(program: impl AsRef<OsStr>) {
    let program = std::path::Path::new(program.as_ref());
    let found = if program.components().count() > 1 {
        program.exists()
    } else {
        std::env::split_paths(&path()).any(|dir| dir.join(program).exists())
    };
    assert!(
        found,
        "{} is missing; scripts/install-test-deps installs it",
        program.display()
    );
}

/// Where programs are looked for: Debian keeps nginx and HAProxy in places
/// that are not on a user's `PATH`.
fn path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/local/sbin:/usr/sbin:/sbin");
    path
}
