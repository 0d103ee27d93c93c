//! One follow of one container's log, from its start to its end.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::engine::{Ask, Cluster, LogAsk, LogName, LogStream};
use super::failure::{Failure, FailureReason};
use super::line::{LineSplitter, Piece, Walk, kind_of, since_time, split_stamp};
use super::outlet::{Closed, NewLine, Outlet, Restart, Source};
use crate::pace::Pace;

/// Most lines, and about the most bytes, of one message to the hub.
const BATCH_LINES_MAX: usize = 256;
const BATCH_BYTES_MAX: usize = 64 * 1024;

/// A silent follow is checked after `kubectl.timeout`, then after twice that,
/// and so on up to this many times.
const SILENCE_FACTOR_MAX: u32 = 16;

/// How long a line that is known to exist may take to come out of a follow
/// before it counts as stalled.
const STALL_GRACE: Duration = Duration::from_secs(2);

/// What all follows of a run share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) cluster: Cluster,
    pub(crate) outlet: Outlet,
    pub(crate) stop: watch::Receiver<bool>,
    /// Lines before it are not asked for.
    pub(crate) since_ns: Option<u64>,
    pub(crate) max_event_bytes: usize,
}

/// What is to be followed, as the pod's status was when it was decided.
#[derive(Debug, Clone)]
pub(crate) struct FollowPlan {
    /// Of the pod.
    pub(crate) uid: String,
    pub(crate) log: LogName,
    pub(crate) source: Source,
    /// Number of the instance.
    pub(crate) restarts: u32,
    /// Whether that instance had ended already.
    pub(crate) ended: bool,
    /// Whether the pod is over, so that no other instance can come.
    pub(crate) pod_over: bool,
    /// The restart to tell, and to read the instance before it for.
    pub(crate) restart: Option<Restart>,
    /// The unfinished last line of the follow before.
    pub(crate) partial: Option<Bytes>,
}

/// How a follow ended.
#[derive(Debug)]
pub(crate) struct FollowEnd {
    pub(crate) plan: FollowPlan,
    /// Lines that were new.
    pub(crate) new_lines: u64,
    /// Whether the plan's restart was told.
    pub(crate) restart_told: bool,
    /// A last line without its line feed that was not delivered: it may be
    /// half a line, cut by whatever ended the log.
    pub(crate) partial: Option<Bytes>,
    /// Ok means only that the engine said so.
    pub(crate) result: Result<(), Failure>,
}

/// Follows a container until its log ends, delivering what is new in it.
///
/// # Errors
/// [`Closed`] when there is nobody to deliver to; the log is closed by then.
pub(crate) async fn follow(
    shared: Rc<Shared>,
    plan: FollowPlan,
    new_lines: Rc<Cell<u64>>,
) -> Result<FollowEnd, Closed> {
    let mut reading = Reading {
        delivered: shared.outlet.delivered(plan.source.key).await,
        shared: &shared,
        plan: &plan,
        walk: Walk::default(),
        new_lines: &new_lines,
        stray: false,
        verified: plan.pod_over,
        partial: None,
    };
    let mut restart_told = false;
    let result = reading.run(&mut restart_told).await;
    let partial = reading.partial.take();
    let result = match result {
        Ok(()) => Ok(()),
        Err(ReadError::Failed(failure)) => Err(failure),
        Err(ReadError::Closed) => return Err(Closed),
    };
    Ok(FollowEnd {
        new_lines: new_lines.get(),
        restart_told,
        partial,
        result,
        plan,
    })
}

enum ReadError {
    Closed,
    Failed(Failure),
}

impl From<Closed> for ReadError {
    fn from(_: Closed) -> Self {
        Self::Closed
    }
}

impl From<Failure> for ReadError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Which log of a container is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    /// That of the instance before, to its end.
    Previous,
    /// The present one, as it grows.
    Present,
}

struct Reading<'a> {
    shared: &'a Shared,
    plan: &'a FollowPlan,
    /// Up to here the hub has everything.
    delivered: Option<(u64, u32)>,
    walk: Walk,
    new_lines: &'a Cell<u64>,
    /// Whether a line came that is not the container's.
    stray: bool,
    /// Whether the log is surely that of the plan's instance.
    verified: bool,
    partial: Option<Bytes>,
}

impl Reading<'_> {
    async fn run(&mut self, restart_told: &mut bool) -> Result<(), ReadError> {
        if let Some(restart) = &self.plan.restart {
            // The follow before may have missed the end of that instance.
            match self.read(Which::Previous).await {
                Err(ReadError::Failed(failure)) if !is_gone(failure.reason) => {
                    return Err(failure.into());
                }
                Err(ReadError::Closed) => return Err(ReadError::Closed),
                _ => (self.stray, self.partial) = (false, None),
            }
            let outlet = &self.shared.outlet;
            let position = outlet.restarted(&self.plan.source, restart).await?;
            self.walk.skip_to(position);
            self.delivered = self.delivered.max(Some(position));
            *restart_told = true;
        }
        self.read(Which::Present).await?;
        if self.stray {
            return Err(self.failure(FailureReason::LogUnavailable).into());
        }
        Ok(())
    }

    /// Reads one log and delivers what comes.
    async fn read(&mut self, which: Which) -> Result<(), ReadError> {
        let delivered = self.delivered.map(|(ns, _)| ns);
        let since = delivered.max(self.shared.since_ns).map(since_time);
        let mut log = self.shared.cluster.open_log(&LogAsk {
            name: &self.plan.log,
            previous: which == Which::Previous,
            since,
        })?;
        let mut splitter = LineSplitter::new(self.shared.max_event_bytes);
        match self.pump(&mut log, &mut splitter, which).await {
            Ok(()) => {}
            Err(error) => {
                log.kill().await;
                return Err(error);
            }
        }
        log.ended().await.map_err(|mut failure| {
            failure.subject.clone_from(&self.subject());
            failure
        })?;
        if let Some(piece) = splitter.finish() {
            self.last_piece(piece, which).await?;
        }
        Ok(())
    }

    async fn pump(
        &mut self,
        log: &mut LogStream,
        splitter: &mut LineSplitter,
        which: Which,
    ) -> Result<(), ReadError> {
        let mut stop = self.shared.stop.clone();
        let mut silence = Silence::new(self.shared.cluster.settings().timeout);
        let rate = self.shared.cluster.settings().follow_rate.as_u64();
        let mut pace = Pace::new(rate, Instant::now());
        let mut buffer = Vec::new();
        loop {
            // Meanwhile the other end waits for us, and the node keeps the log.
            if let Some(until) = pace.rests_until(Instant::now()) {
                self.shared.cluster.counters.add_paced();
                tokio::select! {
                    _ = stop.wait_for(|stop| *stop) => return Err(ReadError::Closed),
                    () = sleep_until(until) => {}
                }
            }
            let read = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return Err(ReadError::Closed),
                read = log.read(&mut buffer) => read,
                () = sleep_until(silence.deadline) => {
                    silence.lengthen();
                    if !self.has_news(which).await? {
                        continue;
                    }
                    match timeout(STALL_GRACE, log.read(&mut buffer)).await {
                        Ok(read) => read,
                        Err(_) => return Err(self.failure(FailureReason::Stalled).into()),
                    }
                }
            };
            match read {
                // A broken pipe shows in the end of the log as well.
                Ok(0) | Err(_) => return Ok(()),
                Ok(bytes) => {
                    pace.took(bytes as u64, Instant::now());
                    silence.reset();
                }
            }
            let mut pieces = Vec::new();
            splitter.feed(&buffer, |piece| pieces.push(piece));
            buffer.clear();
            self.deliver(pieces, which).await?;
        }
    }

    /// Asks, while the follow is silent, for the last line of the log: is
    /// there one that the follow should have given?
    async fn has_news(&self, which: Which) -> Result<bool, ReadError> {
        if which == Which::Previous {
            return Err(self.failure(FailureReason::Timeout).into());
        }
        let answer = self
            .shared
            .cluster
            .ask(&Ask::LastLine(&self.plan.log))
            .await;
        match answer {
            Ok(line) => {
                let newest = split_stamp(&Bytes::from(line)).map(|(ns, _)| ns);
                let delivered = self.shared.outlet.delivered(self.plan.source.key).await;
                Ok(newest > delivered.map(|(ns, _)| ns))
            }
            Err(failure) if failure.reason == FailureReason::Timeout => {
                Err(self.failure(FailureReason::Timeout).into())
            }
            // It will show by itself; a follow that works is left alone.
            Err(_) => Ok(false),
        }
    }

    /// Delivers what of `pieces` the hub does not have yet.
    async fn deliver(&mut self, pieces: Vec<Piece>, which: Which) -> Result<(), ReadError> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        for piece in pieces {
            let (head, size) = match &piece {
                Piece::Line(line) => (line, None),
                Piece::TooLong { head, bytes } => (head, Some(*bytes)),
            };
            let Some((ns, payload)) = split_stamp(head) else {
                self.note_stray(head);
                continue;
            };
            let at = self.walk.step(ns);
            if self.delivered.is_some_and(|delivered| at <= delivered) {
                continue;
            }
            if !self.verified && which == Which::Present {
                self.verify().await?;
                self.verified = true;
            }
            self.new_lines.set(self.new_lines.get() + 1);
            let too_large = match size {
                Some(line) => Some(line.map(|line| line - (head.len() - payload.len()) as u64)),
                None if payload.len() > self.shared.max_event_bytes => {
                    Some(Some(payload.len() as u64))
                }
                None => None,
            };
            if let Some(size) = too_large {
                self.flush(&mut batch).await?;
                let outlet = &self.shared.outlet;
                outlet.too_large(&self.plan.source, at, size).await?;
                continue;
            }
            bytes += payload.len();
            batch.push(NewLine {
                ns: at.0,
                n: at.1,
                kind: kind_of(&payload),
                payload,
            });
            if batch.len() >= BATCH_LINES_MAX || bytes >= BATCH_BYTES_MAX {
                self.flush(&mut batch).await?;
                bytes = 0;
            }
        }
        Ok(self.flush(&mut batch).await?)
    }

    /// Checks that the log that has begun to come is that of the instance the
    /// plan was made for. Between the look at the pod and the connection the
    /// container may have been restarted: were its new lines taken now, the
    /// last ones of the instance before would lie behind the position.
    async fn verify(&self) -> Result<(), ReadError> {
        let plan = self.plan;
        let pod = self.shared.cluster.pod(&plan.log.pod).await?;
        let mut containers = pod.containers.iter();
        let same = pod.uid == plan.uid
            && containers.any(|it| it.name == plan.log.container && it.restarts == plan.restarts);
        match same {
            true => Ok(()),
            false => Err(self.failure(FailureReason::Interrupted).into()),
        }
    }

    async fn flush(&self, batch: &mut Vec<NewLine>) -> Result<(), Closed> {
        let lines = std::mem::take(batch);
        self.shared.outlet.lines(&self.plan.source, lines).await
    }

    /// Takes what stood after the last line feed of a log that ended well. A
    /// kubelet that dies ends a log well, too, so it counts as a line only
    /// when a second reading, of an instance that had ended, finds the same.
    async fn last_piece(&mut self, piece: Piece, which: Which) -> Result<(), ReadError> {
        let text = match &piece {
            Piece::Line(text) | Piece::TooLong { head: text, .. } => text.clone(),
        };
        let confirmed = self.plan.ended && self.plan.partial.as_ref() == Some(&text);
        if which == Which::Previous || confirmed {
            return self.deliver(vec![piece], which).await;
        }
        if let Some((ns, _)) = split_stamp(&text) {
            let at = self.walk.step(ns);
            if self.delivered.is_none_or(|delivered| at > delivered) {
                self.partial = Some(text);
            }
        } else {
            self.note_stray(&text);
        }
        Ok(())
    }

    fn note_stray(&mut self, line: &Bytes) {
        if !self.stray {
            let text = String::from_utf8_lossy(&line[..line.len().min(200)]);
            tracing::warn!(source = %self.plan.source.name, %text, "a line without a timestamp");
        }
        self.stray = true;
    }

    fn subject(&self) -> String {
        format!("container {}", self.plan.source.name)
    }

    fn failure(&self, reason: FailureReason) -> Failure {
        Failure::about(reason, self.subject())
    }
}

/// Whether the log of the instance before cannot be had any more, in which
/// case there is nothing to repeat.
fn is_gone(reason: FailureReason) -> bool {
    matches!(
        reason,
        FailureReason::NotStarted | FailureReason::NotFound | FailureReason::LogUnavailable
    )
}

/// When to ask whether a silent follow is only quiet.
struct Silence {
    first: Duration,
    factor: u32,
    deadline: Instant,
}

impl Silence {
    fn new(first: Duration) -> Self {
        Self {
            first,
            factor: 1,
            deadline: Instant::now() + first,
        }
    }

    fn reset(&mut self) {
        *self = Self::new(self.first);
    }

    fn lengthen(&mut self) {
        self.factor = (self.factor * 2).min(SILENCE_FACTOR_MAX);
        self.deadline = Instant::now() + self.first * self.factor;
    }
}

/// Returns the source of container `container` of pod `pod`.
pub(crate) fn source(pod: &str, container: &str) -> Source {
    Source {
        name: Arc::from(format!("{pod}/{container}")),
        key: crate::protocol::KubectlPosition::container_key(pod, container),
    }
}
