//! [`Signals`]: what we are told, and whether the command was told as well.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getpgrp, kill_process};
use tokio::signal::unix;

/// The signals listened for, with their names.
const HEARD: [Signal; 10] = [
    Signal::TERM,
    Signal::INT,
    Signal::HUP,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
    Signal::WINCH,
    Signal::TSTP,
    Signal::CONT,
    Signal::CHILD,
];

/// How long after the command's end a signal is still taken for one that was
/// meant for it: the key that ended it came to us as well, maybe later. Nobody
/// presses it twice in that time.
const MEANT_FOR_COMMAND: Duration = Duration::from_millis(100);

/// A listener for every signal that concerns the command.
pub(super) struct Signals {
    streams: Vec<(Signal, unix::Signal)>,
}

impl Signals {
    /// Listens from now on; before the command is started, so that none of its
    /// signals meets no handler.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub(super) fn listen() -> io::Result<Self> {
        let listen = |signal: Signal| {
            let kind = unix::SignalKind::from_raw(signal.as_raw());
            unix::signal(kind).map(|stream| (signal, stream))
        };
        let streams = HEARD.into_iter().map(listen).collect::<io::Result<_>>()?;
        Ok(Self { streams })
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) -> Signal {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Signal> {
        for (signal, stream) in &mut self.streams {
            if stream.poll_recv(context) == Poll::Ready(Some(())) {
                return Poll::Ready(*signal);
            }
        }
        Poll::Pending
    }

    /// Takes what came so far, without waiting; returns whether any of it
    /// [asks to end](asks_to_end).
    pub(super) async fn asked_to_end_by_now(&mut self) -> bool {
        // The runtime looks for signals before it comes back here.
        tokio::task::yield_now().await;
        poll_fn(|context| {
            let mut asked = false;
            while let Poll::Ready(signal) = self.poll_next(context) {
                asked |= asks_to_end(signal);
            }
            Poll::Ready(asked)
        })
        .await
    }

    /// Waits until somebody wants us to stop at once, after a command that
    /// ended at `ended`.
    pub(super) async fn until_interrupted(&mut self, ended: Instant) {
        while !matches!(self.next().await, Signal::INT | Signal::QUIT)
            || ended.elapsed() < MEANT_FOR_COMMAND
        {}
    }
}

/// Whether `signal` asks the command to end.
pub(super) fn asks_to_end(signal: Signal) -> bool {
    matches!(
        signal,
        Signal::TERM | Signal::INT | Signal::HUP | Signal::QUIT
    )
}

/// Gives a signal that we got to the command, unless it got it as well.
///
/// The command is in our process group, as it would be without us. What a
/// terminal sends, it sends to the whole group; twice would not be the same: a
/// second SIGINT often means *at once*.
pub(super) fn pass_on(signal: Signal, to: Pid) {
    let is_key = matches!(
        signal,
        Signal::INT | Signal::QUIT | Signal::WINCH | Signal::TSTP
    );
    if !(is_key && is_in_foreground()) {
        // It may have ended just now, which its SIGCHLD tells.
        let _ = kill_process(to, signal);
    }
    if signal == Signal::TSTP && rustix::process::getpid() != Pid::INIT {
        // Whoever waits for the job sees us stop, too.
        let _ = kill_process(rustix::process::getpid(), Signal::STOP);
    }
}

/// Whether keys of a terminal of ours become signals of our group.
fn is_in_foreground() -> bool {
    let group = getpgrp();
    let stdin = io::stdin();
    let (stdout, stderr) = (io::stdout(), io::stderr());
    [
        rustix::termios::tcgetpgrp(&stdin),
        rustix::termios::tcgetpgrp(&stdout),
        rustix::termios::tcgetpgrp(&stderr),
    ]
    .contains(&Ok(group))
}
