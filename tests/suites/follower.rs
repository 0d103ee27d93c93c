//! [`Follower`]: a client that comes, goes, stalls and comes back, and writes
//! down what it saw.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::checker::{Book, Seen};
use crate::support::Frame;
use crate::support::http::{Answer, Request};
use crate::support::sse::gap_of;

/// Ten heartbeats without a byte: the stream hangs.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// What the clients of one run share.
pub(crate) struct RunShared {
    pub(crate) run_id: String,
    pub(crate) book: Mutex<Book>,
    /// Whoever has seen this event or a later one is done.
    pub(crate) last: AtomicUsize,
    /// Events all have seen once they have this one: the end of the calm.
    pub(crate) calm_until: AtomicUsize,
}

impl RunShared {
    pub(crate) fn new(run_id: String) -> Arc<Self> {
        Arc::new(Self {
            run_id,
            book: Mutex::default(),
            last: AtomicUsize::new(usize::MAX),
            calm_until: AtomicUsize::new(usize::MAX),
        })
    }

    pub(crate) fn published(&self) -> usize {
        self.book.lock().expect("no holder panics").events.len()
    }
}

/// What all clients of a trial share.
pub(crate) struct TrialShared {
    pub(crate) addr: SocketAddr,
    /// Counts starts of the broker.
    pub(crate) life: AtomicU32,
    /// Clients may stall.
    pub(crate) is_rough: AtomicBool,
}

/// One client of one run.
pub(crate) struct Follower {
    trial: Arc<TrialShared>,
    run: Arc<RunShared>,
    kinds: &'static [&'static str],
    rng: fastrand::Rng,
    cursor: Option<String>,
    seen: Vec<Seen>,
    /// How much it had seen when it passed the end of the calm.
    calm_seen: Arc<AtomicUsize>,
    is_done: bool,
}

/// What one client saw.
pub(crate) struct Witness {
    pub(crate) run: Arc<RunShared>,
    pub(crate) kinds: &'static [&'static str],
    pub(crate) seen: Vec<Seen>,
    /// How many of `seen` belong to the calm before the faults.
    pub(crate) calm_seen: usize,
}

impl Follower {
    pub(crate) fn new(
        trial: &Arc<TrialShared>,
        run: &Arc<RunShared>,
        kinds: &'static [&'static str],
        rng: fastrand::Rng,
        calm_seen: &Arc<AtomicUsize>,
    ) -> Self {
        Self {
            trial: Arc::clone(trial),
            run: Arc::clone(run),
            kinds,
            rng,
            cursor: None,
            seen: Vec::new(),
            calm_seen: Arc::clone(calm_seen),
            is_done: false,
        }
    }

    /// Follows the run, with all the client's ways, up to its last event.
    pub(crate) async fn run(mut self) -> Witness {
        while !self.is_done {
            if let Some(answer) = self.connect().await {
                self.follow(answer).await;
            }
            if !self.is_done {
                sleep(Duration::from_millis(self.rng.u64(10..400))).await;
            }
        }
        Witness {
            run: self.run,
            kinds: self.kinds,
            seen: self.seen,
            calm_seen: self.calm_seen.load(Ordering::Relaxed),
        }
    }

    async fn connect(&mut self) -> Option<Answer> {
        let mut path = format!("/api/v1/runs/{}/stream", self.run.run_id);
        if self.kinds.len() < 3 {
            path.push_str(&format!("?kinds={}", self.kinds.join(",")));
        }
        let mut request = Request::get(path).header("Accept", "text/event-stream");
        if let Some(cursor) = &self.cursor {
            request = request.header("Last-Event-ID", cursor);
        }
        if self.rng.u8(..4) == 0 {
            request = request.receive_buffer(8 * 1024);
        }
        let opening = timeout(SILENCE_MAX, request.open(self.trial.addr));
        match opening.await {
            Ok(Ok(answer)) => {
                assert_eq!(answer.head.status, 200, "to {request:?}");
                Some(answer)
            }
            // The broker is away.
            Ok(Err(_)) => None,
            Err(_) => {
                self.seen.push(Seen::Silent);
                None
            }
        }
    }

    /// Reads a stream until it ends, or the client has had enough of it.
    async fn follow(&mut self, mut answer: Answer) {
        let life = self.trial.life.load(Ordering::Relaxed);
        let leave_at = Instant::now() + Duration::from_millis(self.rng.u64(50..3000));
        let mut bytes = Vec::new();
        let mut heard_at = Instant::now();
        while !self.is_done {
            match timeout_at(leave_at, answer.next()).await {
                Ok(Ok(Some(piece))) => {
                    heard_at = Instant::now();
                    bytes.extend_from_slice(&piece);
                    self.take_frames(&mut bytes, life);
                }
                // Ended or broken, the cursor says where.
                Ok(_) => return,
                Err(_) if self.stays(heard_at) => {
                    let silent_at = heard_at + SILENCE_MAX;
                    let Ok(Ok(Some(piece))) = timeout_at(silent_at, answer.next()).await else {
                        if heard_at.elapsed() >= SILENCE_MAX {
                            self.seen.push(Seen::Silent);
                        }
                        return;
                    };
                    bytes.extend_from_slice(&piece);
                    self.take_frames(&mut bytes, life);
                    break;
                }
                Err(_) => break,
            }
            if self.trial.is_rough.load(Ordering::Relaxed) && self.rng.u16(..400) == 0 {
                sleep(Duration::from_millis(self.rng.u64(100..3000))).await;
            }
        }
        if self.rng.bool() {
            answer.reset();
        }
    }

    /// Whether a client that would leave waits for one more byte: nothing was
    /// heard lately, and leaving would hide a stream that hangs.
    fn stays(&self, heard_at: Instant) -> bool {
        heard_at.elapsed() > Duration::from_millis(1500)
    }

    fn take_frames(&mut self, bytes: &mut Vec<u8>, life: u32) {
        let mut begin = 0;
        while let Some(length) = memchr::memmem::find(&bytes[begin..], b"\n\n") {
            let frame = Frame::parse(&bytes[begin..begin + length]);
            begin += length + 2;
            self.note(&frame, life);
        }
        bytes.drain(..begin);
    }

    fn note(&mut self, frame: &Frame, life: u32) {
        match frame.event.as_str() {
            "hello" => self.seen.push(Seen::Joined {
                cursor: self.cursor.clone(),
                due_from: self.run.published(),
                life,
            }),
            "gap" => {
                let (reason, gap) = gap_of(frame);
                let missed = gap["missed"].as_u64();
                self.seen.push(Seen::Gap { reason, missed });
            }
            "output" | "status" | "log" => self.note_event(frame),
            _ => {}
        }
        if let Some(id) = &frame.id {
            self.cursor = Some(id.clone());
        }
    }

    fn note_event(&mut self, frame: &Frame) {
        let n = frame.json()["data"]["n"].as_u64().expect("ours") as usize;
        let id = frame.id().to_owned();
        self.seen.push(Seen::Event { n, id });
        let is_calm = self.calm_seen.load(Ordering::Relaxed) == 0;
        if is_calm && n >= self.run.calm_until.load(Ordering::Relaxed) {
            self.calm_seen.store(self.seen.len(), Ordering::Relaxed);
        }
        self.is_done |= n >= self.run.last.load(Ordering::Relaxed);
    }
}
