//! [`Client`]: comes, goes, stalls, hops between brokers with its cursor, and
//! writes down what it saw.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::id::Id;
use super::ledger::Kinds;
use super::run::{Run, number_in};
use super::seen::{From, Gap, Seen};
use crate::support::http::{Answer, Request};

/// Ten heartbeats without a byte: the stream hangs.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// One client of one run.
pub(crate) struct Client {
    run: Rc<Run>,
    brokers: Rc<Vec<SocketAddr>>,
    kinds: Kinds,
    from: From,
    rng: fastrand::Rng,
    cursor: Option<String>,
    seen: Vec<Seen>,
    is_done: bool,
}

/// What one client saw.
pub(crate) struct Witness {
    pub(crate) run: Rc<Run>,
    pub(crate) kinds: Kinds,
    pub(crate) seen: Vec<Seen>,
    /// The id it would come back with.
    pub(crate) cursor: Option<String>,
    /// It has had the last event.
    pub(crate) is_done: bool,
}

impl Client {
    pub(crate) fn new(
        run: &Rc<Run>,
        brokers: &Rc<Vec<SocketAddr>>,
        mut rng: fastrand::Rng,
    ) -> Self {
        let kinds = match rng.u8(..12) {
            0 => Kinds::OUTPUT,
            1 => Kinds::OUTPUT_LOG,
            2 => Kinds::OUTPUT_STATUS,
            _ => Kinds::ALL,
        };
        let from = match rng.u8(..6) {
            0 => From::Now,
            1 => From::Newest,
            _ => From::Start,
        };
        Self {
            run: Rc::clone(run),
            brokers: Rc::clone(brokers),
            kinds,
            from,
            rng,
            cursor: None,
            seen: Vec::new(),
            is_done: false,
        }
    }

    /// Follows the run, with all the client's ways, up to its last event.
    pub(crate) async fn run(mut self) -> Witness {
        if self.rng.bool() {
            self.pause(1500).await;
        }
        while !self.is_done && !self.run.is_over.get() {
            if let Some(answer) = self.connect().await {
                self.follow(answer).await;
            }
            if !self.is_done {
                self.pause(300).await;
            }
        }
        Witness {
            run: self.run,
            kinds: self.kinds,
            seen: self.seen,
            cursor: self.cursor,
            is_done: self.is_done,
        }
    }

    async fn pause(&mut self, ms_max: u64) {
        sleep(Duration::from_millis(self.rng.u64(10..ms_max))).await;
    }

    fn request(&mut self) -> Request {
        if !self.run.is_rough.get() && self.cursor.is_none() {
            // It might come after the last event.
            self.from = From::Start;
        }
        let mut query = Vec::new();
        if self.kinds != Kinds::ALL {
            query.push(format!("kinds={}", self.kinds.query()));
        }
        // The header wins over `from`, which EventSource always sends again.
        match self.from {
            From::Start => {}
            From::Now => query.push("from=now".to_owned()),
            From::Newest => query.push(format!("from=-{}", self.rng.u32(1..50))),
        }
        let mut header = None;
        match (&self.cursor, self.rng.u8(..4)) {
            (Some(cursor), 0) => query.push(format!("last_event_id={cursor}")),
            (Some(cursor), _) => header = Some(cursor.clone()),
            (None, _) => {}
        }
        let path = format!("/api/v1/runs/{}/stream?{}", self.run.id, query.join("&"));
        let mut request = Request::get(path).header("Accept", "text/event-stream");
        if let Some(cursor) = header {
            request = request.header("Last-Event-ID", cursor);
        }
        if self.rng.u8(..4) == 0 {
            request = request.receive_buffer(8 * 1024);
        }
        request
    }

    async fn connect(&mut self) -> Option<Answer> {
        let request = self.request();
        let addr = self.brokers[self.rng.usize(..self.brokers.len())];
        match timeout(SILENCE_MAX, request.open(addr)).await {
            Ok(Ok(answer)) if answer.head.status == 204 && self.run.ends => {
                // Over: it was at the end.
                self.is_done = true;
                None
            }
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
        let mut leave_at = Instant::now() + Duration::from_millis(self.rng.u64(50..3000));
        let mut bytes = Vec::new();
        let mut heard_at = Instant::now();
        while !self.is_done && !self.run.is_over.get() {
            match timeout_at(leave_at, answer.next()).await {
                Ok(Ok(Some(piece))) => {
                    heard_at = Instant::now();
                    bytes.extend_from_slice(&piece);
                    self.take_frames(&mut bytes);
                }
                // Ended or broken, the cursor says where.
                Ok(_) => return,
                // Leaving would hide a stream that hangs, and at the end of a
                // trial all stay.
                Err(_) if self.stays(heard_at) => {
                    if heard_at.elapsed() >= SILENCE_MAX {
                        self.seen.push(Seen::Silent);
                        return;
                    }
                    leave_at = Instant::now() + Duration::from_millis(200);
                }
                Err(_) => break,
            }
            if self.run.is_rough.get() && self.rng.u16(..200) == 0 {
                self.pause(1500).await;
            }
        }
        if self.rng.bool() {
            answer.reset();
        }
    }

    fn stays(&self, heard_at: Instant) -> bool {
        !self.run.is_rough.get() || heard_at.elapsed() > Duration::from_millis(1500)
    }

    fn take_frames(&mut self, bytes: &mut Vec<u8>) {
        let mut begin = 0;
        while let Some(length) = memchr::memmem::find(&bytes[begin..], b"\n\n") {
            self.note(&bytes[begin..begin + length]);
            begin += length + 2;
        }
        bytes.drain(..begin);
    }

    /// Reads one frame; the tests of the wire contract look closer.
    fn note(&mut self, frame: &[u8]) {
        let text = std::str::from_utf8(frame).expect("frames are UTF-8");
        let Some(rest) = text.strip_prefix("event: ") else {
            return;
        };
        let (event, rest) = rest.split_once("\ndata: ").expect("event, then data");
        let (data, id) = match rest.split_once("\nid: ") {
            Some((data, id)) => (data, Some(id)),
            None => (rest, None),
        };
        match event {
            "output" | "status" | "log" => self.note_event(data, id.expect("events have ids")),
            "hello" => self.note_hello(),
            "gap" => self.seen.push(Seen::Gap(read_gap(data))),
            "cursor" => {
                let id = Id::parse(id.expect("its id is its use")).expect("an id");
                self.seen.push(Seen::Position(id));
            }
            "end" => self.note_end(data, id.expect("an end has an id")),
            _ => {}
        }
        if let Some(id) = id {
            self.cursor = Some(id.to_owned());
        }
    }

    fn note_hello(&mut self) {
        let cursor = self.cursor.as_deref().map(|cursor| {
            let cursor = cursor.trim_end_matches("-end");
            Id::parse(cursor).unwrap_or_else(|| panic!("no id: {cursor}"))
        });
        self.seen.push(Seen::Joined {
            cursor,
            from: self.from,
            due_from: self.run.published(),
        });
    }

    fn note_event(&mut self, data: &str, id: &str) {
        let n = number_in(data.as_bytes()).expect("our payload");
        let id = Id::parse(id).unwrap_or_else(|| panic!("no id: {id}"));
        self.seen.push(Seen::Event { n, id });
        self.is_done |= !self.run.ends && n >= self.run.last.get();
    }

    fn note_end(&mut self, data: &str, id: &str) {
        let data: Value = serde_json::from_str(data).expect("JSON");
        let last = id.strip_suffix("-end").expect("the id of an end");
        self.seen.push(Seen::End {
            last: Id::parse(last),
            events: data["events"].as_u64(),
        });
        self.is_done = true;
    }
}

fn read_gap(data: &str) -> Gap {
    let gap: Value = serde_json::from_str(data).expect("JSON");
    let id = |key: &str| {
        let text = gap[key].as_str()?;
        let id = Id::parse(text.trim_end_matches("-end"));
        Some(id.unwrap_or_else(|| panic!("no id: {text}")))
    };
    Gap {
        reason: gap["reason"].as_str().expect("a reason").to_owned(),
        after: id("after"),
        before: id("before"),
        missed: gap["missed"].as_u64(),
    }
}
