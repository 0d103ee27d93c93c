//! [`Relay`]: one output of the command, on to ours and into the spool.

use std::fs::File;
use std::io::{self, PipeReader, Read as _};
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tokio::sync::oneshot;

use super::spool::{Origin, Spool};
use crate::producer::LineSplitter;

/// Bytes read at once: what a pipe holds by default.
const READ_BYTES: usize = 64 * 1024;

/// What a relay needs to know.
pub(super) struct Relay {
    /// Our own output.
    pub(super) to: OwnedFd,
    /// What its lines are.
    pub(super) origin: Origin,
    /// Where they go.
    pub(super) spool: Arc<Spool>,
    /// Readable (closed) once the command has ended.
    pub(super) ended: PipeReader,
    /// `limits.max_event_bytes`.
    pub(super) payload_bytes_max: usize,
    /// `exec.partial_line_after`.
    pub(super) partial_line_after: Duration,
    /// `exec.orphan_timeout`.
    pub(super) orphan_timeout: Duration,
}

/// A relay that waits for its output.
pub(super) struct RelayThread {
    give: mpsc::SyncSender<File>,
    end: oneshot::Receiver<RelayEnd>,
}

impl RelayThread {
    /// Gives it the read end of an output to copy; returns how that ends.
    pub(super) fn copy(self, from: File) -> oneshot::Receiver<RelayEnd> {
        // The thread waits for it and can hold one.
        let _ = self.give.send(from);
        self.end
    }
}

/// How the output of a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RelayEnd {
    /// All who could write to it have closed it.
    Closed,
    /// The command has ended, but something that it started keeps it open.
    LeftOpen,
    /// Our own output takes no more: it was closed, so the command learns it
    /// as if it wrote there itself.
    Refused,
}

/// What a relay waits for.
enum Next {
    /// There is something to read, or the end.
    Readable,
    /// The command has ended.
    Ended,
    /// The time is over.
    TimedOut,
}

impl Relay {
    /// Starts a thread that waits for an output to copy. A thread, because
    /// both ends may make it wait, and nothing else may wait with it.
    ///
    /// # Errors
    /// The system gives no further thread.
    pub(super) fn start(self) -> io::Result<RelayThread> {
        let (give, given) = mpsc::sync_channel(1);
        let (tell, end) = oneshot::channel();
        let name = format!("{:?}", self.origin).to_lowercase();
        thread::Builder::new().name(name).spawn(move || {
            // Fails if there is no command after all.
            if let Ok(from) = given.recv() {
                // Fails if nobody waits any more.
                let _ = tell.send(self.run(&from));
            }
        })?;
        Ok(RelayThread { give, end })
    }

    fn run(&self, from: &File) -> RelayEnd {
        let mut lines = LineSplitter::new(self.payload_bytes_max);
        let end = self.copy(from, &mut lines);
        let mut payloads = Vec::new();
        lines.finish(&mut payloads);
        self.spool_all(payloads);
        end
    }

    /// Copies until the end; what is left of a line stays in `lines`.
    fn copy(&self, from: &File, lines: &mut LineSplitter) -> RelayEnd {
        let mut buffer = vec![0; READ_BYTES];
        let mut partial_since = None;
        let mut give_up_at = None;
        loop {
            let flush_at = partial_since.map(|since| since + self.partial_line_after);
            let wake_at = [flush_at, give_up_at].into_iter().flatten().min();
            match self.next(from, give_up_at.is_none(), wake_at) {
                Next::Readable => match self.pass_on(from, &mut buffer) {
                    Ok([]) => return RelayEnd::Closed,
                    Ok(bytes) => {
                        let has_ended_line = self.spool_lines(lines, bytes);
                        if has_ended_line || partial_since.is_none() {
                            partial_since = lines.has_partial().then(Instant::now);
                        }
                    }
                    Err(_) => return RelayEnd::Refused,
                },
                Next::Ended => give_up_at = Some(Instant::now() + self.orphan_timeout),
                Next::TimedOut => {}
            }
            if is_past(partial_since.map(|since| since + self.partial_line_after)) {
                self.flush(lines);
                partial_since = lines.has_partial().then(Instant::now);
            }
            if is_past(give_up_at) {
                return self.copy_rest(from, lines, &mut buffer);
            }
        }
    }

    /// Copies what the pipe holds at this moment. Time spent on our own slow
    /// output must not cost what the command wrote before its end.
    fn copy_rest(&self, from: &File, lines: &mut LineSplitter, buffer: &mut [u8]) -> RelayEnd {
        let mut left = rustix::io::ioctl_fionread(from).unwrap_or(0);
        while left > 0 {
            match self.pass_on(from, buffer) {
                Ok([]) => return RelayEnd::Closed,
                Ok(bytes) => {
                    left = left.saturating_sub(bytes.len() as u64);
                    self.spool_lines(lines, bytes);
                }
                Err(_) => return RelayEnd::Refused,
            }
        }
        RelayEnd::LeftOpen
    }

    /// Reads once and writes it to our output at once; returns what it was,
    /// nothing at the end.
    fn pass_on<'a>(&self, mut from: &File, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let length = loop {
            match from.read(buffer) {
                Ok(length) => break length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A pipe gives no other error; there is nothing more to read.
                Err(_) => break 0,
            }
        };
        let bytes = &buffer[..length];
        write_all(&self.to, bytes)?;
        Ok(bytes)
    }

    /// Spools the lines that `bytes` complete; returns whether there were any.
    fn spool_lines(&self, lines: &mut LineSplitter, bytes: &[u8]) -> bool {
        let mut payloads = Vec::new();
        lines.feed(bytes, &mut payloads);
        let is_any = !payloads.is_empty();
        self.spool_all(payloads);
        is_any
    }

    fn flush(&self, lines: &mut LineSplitter) {
        let mut payloads = Vec::new();
        lines.flush(&mut payloads);
        self.spool_all(payloads);
    }

    fn spool_all(&self, payloads: Vec<Bytes>) {
        if !payloads.is_empty() {
            self.spool.push(self.origin, payloads);
        }
    }

    /// Waits for what comes first; for the command's end only if `for_end`.
    fn next(&self, from: &File, for_end: bool, wake_at: Option<Instant>) -> Next {
        let mut fds = [
            PollFd::new(from, PollFlags::IN),
            PollFd::new(&self.ended, PollFlags::IN),
        ];
        let watched = if for_end { 2 } else { 1 };
        let timeout = wake_at.map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            Timespec::try_from(left).expect("settings allow ten years at most")
        });
        match poll(&mut fds[..watched], timeout.as_ref()) {
            Ok(0) | Err(Errno::INTR) => Next::TimedOut,
            // What was written before the end goes first.
            Ok(_) if fds[0].revents().is_empty() => Next::Ended,
            // If it cannot be waited for, reading tells why.
            _ => Next::Readable,
        }
    }
}

fn is_past(time: Option<Instant>) -> bool {
    time.is_some_and(|time| Instant::now() >= time)
}

/// Writes to a descriptor that others may have made non-blocking: a terminal
/// or a pipe is shared with whoever else has it.
fn write_all(to: &OwnedFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                // Whatever it says, the next write tells more.
                let _ = poll(&mut [PollFd::new(to, PollFlags::OUT)], None);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
