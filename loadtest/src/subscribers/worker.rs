//! [`Worker`]: the loop of one thread.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io::{ErrorKind, Read as _};
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Result, bail};
use mio::{Events, Interest, Poll, Token};
use socket2::SockRef;

use super::client::{Client, Kind, Return, State, Told};
use super::socket::{connect, send_request};
use super::{Progress, Target};
use crate::clock::monotonic_ns;
use crate::sequence::Sequence;
use crate::sse::{EventName, Item, Response};
use crate::totals::{Seen, Times};

/// How often a thread looks whether it shall stop.
const POLL_TIMEOUT: Duration = Duration::from_millis(20);

const READ_BUFFER_BYTES: usize = 256 * 1024;

/// What a woken one may have waiting in the kernel.
const WOKEN_RECEIVE_BYTES: usize = 256 * 1024;

pub(super) struct Worker<'a> {
    target: &'a Target,
    progress: &'a Progress,
    poll: Poll,
    clients: Vec<Client>,
    /// Places in `clients` of those that came and went.
    free: Vec<usize>,
    /// Those still to come, and how many there were at the beginning.
    range: Range<usize>,
    count: usize,
    start_ns: u64,
    opening: usize,
    /// Those that are away and shall come back.
    away: VecDeque<usize>,
    /// When who shall go.
    timers: BinaryHeap<Reverse<(u64, usize)>>,
    /// Of those that come and go: how many a second, how many so far, and the
    /// index of the next.
    churn: f64,
    churned: u64,
    has_dropped: bool,
    has_woken: bool,
    seen: Seen,
    delivered: u64,
    awaited: u64,
    stalled_delivered: u64,
    buffer: Box<[u8]>,
}

impl<'a> Worker<'a> {
    pub(super) fn new(
        target: &'a Target,
        progress: &'a Progress,
        range: Range<usize>,
        churn: f64,
    ) -> Result<Self> {
        Ok(Self {
            target,
            progress,
            poll: Poll::new()?,
            clients: Vec::with_capacity(range.len()),
            free: Vec::new(),
            count: range.len(),
            range,
            start_ns: monotonic_ns(),
            opening: 0,
            away: VecDeque::new(),
            timers: BinaryHeap::new(),
            churn,
            churned: 0,
            has_dropped: false,
            has_woken: false,
            seen: Seen::new(target.behaviour.point_ns),
            delivered: 0,
            awaited: 0,
            stalled_delivered: 0,
            buffer: vec![0; READ_BUFFER_BYTES].into_boxed_slice(),
        })
    }

    pub(super) fn run(mut self) -> Result<Seen> {
        let mut events = Events::with_capacity(4096);
        while !self.progress.stop.load(Relaxed) {
            let now_ns = monotonic_ns();
            let next_ns = self.act(now_ns)?;
            let timeout = Duration::from_nanos(next_ns.saturating_sub(now_ns)).min(POLL_TIMEOUT);
            match self.poll.poll(&mut events, Some(timeout)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => bail!(error),
                _ => {}
            }
            for event in &events {
                self.on_ready(event.token().0);
            }
            self.tell();
        }
        for slot in 0..self.clients.len() {
            if self.clients[slot].kind != Kind::Passing {
                self.account(slot);
            }
        }
        Ok(self.seen)
    }

    /// Adds what was read to the common counts, once a round.
    fn tell(&mut self) {
        for (counted, common) in [
            (&mut self.delivered, &self.progress.delivered),
            (&mut self.awaited, &self.progress.awaited),
            (
                &mut self.stalled_delivered,
                &self.progress.stalled_delivered,
            ),
        ] {
            if *counted > 0 {
                common.fetch_add(std::mem::take(counted), Relaxed);
            }
        }
    }

    /// Lets those come and go whose time it is; returns the time of the next.
    fn act(&mut self, now_ns: u64) -> Result<u64> {
        if !self.has_dropped && now_ns >= self.progress.drop_at_ns.load(Relaxed) {
            self.has_dropped = true;
            self.drop_all(now_ns);
        }
        if !self.has_woken && self.progress.wake_stalled.load(Relaxed) {
            self.has_woken = true;
            self.wake();
        }
        let settled = self.progress.settle.load(Relaxed);
        while let Some(Reverse((due_ns, slot))) = self.timers.peek().copied()
            && due_ns <= now_ns
        {
            self.timers.pop();
            self.on_timer(slot, due_ns, now_ns, settled);
        }
        let drop_ns = if self.has_dropped {
            u64::MAX
        } else {
            self.progress.drop_at_ns.load(Relaxed)
        };
        let timer_ns = self.timers.peek().map_or(u64::MAX, |next| next.0.0);
        let come_ns = self.come(now_ns, settled)?;
        Ok(come_ns.min(timer_ns).min(drop_ns))
    }

    /// Opens what is due, as many at once as may be; returns when the next is.
    fn come(&mut self, now_ns: u64, settled: bool) -> Result<u64> {
        let mut next_ns = u64::MAX;
        while self.opening < self.target.behaviour.connects_in_flight {
            if let Some(slot) = self.away.pop_front() {
                self.come_back(slot)?;
                continue;
            }
            let ramp_ns = self.ramp_due_ns();
            if ramp_ns <= now_ns
                && let Some(index) = self.range.next()
            {
                let stalled = index < self.target.behaviour.stalled;
                let kind = if stalled { Kind::Stalled } else { Kind::Steady };
                self.open(index, kind)?;
                continue;
            }
            let churn_ns = self.churn_due_ns(settled);
            if churn_ns <= now_ns {
                // Their runs and addresses are those of the steady ones.
                let index = self.churned as usize % self.count.max(1);
                self.churned += 1;
                self.open(index, Kind::Passing)?;
                continue;
            }
            next_ns = ramp_ns.min(churn_ns);
            break;
        }
        Ok(next_ns)
    }

    fn ramp_due_ns(&self) -> u64 {
        if self.range.is_empty() {
            return u64::MAX;
        }
        let opened = (self.count - self.range.len()) as f64;
        let share = opened / self.count as f64;
        self.start_ns + (self.target.behaviour.ramp.as_nanos() as f64 * share) as u64
    }

    fn churn_due_ns(&self, settled: bool) -> u64 {
        if self.churn <= 0.0 || settled || !self.range.is_empty() {
            return u64::MAX;
        }
        self.start_ns + (self.churned as f64 * 1e9 / self.churn) as u64
    }

    fn open(&mut self, index: usize, kind: Kind) -> Result<()> {
        let now_ns = monotonic_ns();
        let client = Client {
            socket: None,
            response: Response::new(self.target.behaviour.resumes),
            sequence: Sequence::default(),
            index,
            run: (index % self.target.paths.len()) as u32,
            kind,
            state: State::Away,
            returning: None,
            told: Told::default(),
            joined_ns: 0,
            is_done: false,
        };
        let slot = if let Some(slot) = self.free.pop() {
            self.clients[slot] = client;
            slot
        } else {
            self.clients.push(client);
            self.clients.len() - 1
        };
        let behaviour = &self.target.behaviour;
        match (kind, behaviour.reconnect_every) {
            (Kind::Steady, Some(every)) => {
                // Spread evenly, and without a pattern over the runs.
                let share = (index as f64 * 0.618_033_988_749_895).fract();
                let due_ns = now_ns + (every.as_nanos() as f64 * share) as u64;
                self.timers.push(Reverse((due_ns, slot)));
            }
            (Kind::Passing, _) => {
                let stay_ns = behaviour.churn_stay.as_nanos() as u64;
                self.timers.push(Reverse((now_ns + stay_ns, slot)));
            }
            _ => {}
        }
        self.connect(slot)
    }

    fn connect(&mut self, slot: usize) -> Result<()> {
        let since_ns = monotonic_ns();
        let client = &mut self.clients[slot];
        let mut socket = connect(self.target, client.index, client.kind == Kind::Stalled)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut socket, Token(slot), interest)?;
        client.socket = Some(socket);
        client.state = State::Connecting { since_ns };
        self.opening += 1;
        Ok(())
    }

    fn come_back(&mut self, slot: usize) -> Result<()> {
        let client = &mut self.clients[slot];
        client.response.begin_anew();
        if let Some(returning) = &mut client.returning {
            returning.until_seq = self.progress.sent[client.run as usize].load(Relaxed);
        }
        self.connect(slot)
    }

    /// Lets a client go that shall come back.
    fn go_away(&mut self, slot: usize, now_ns: u64, with_all: bool) {
        self.hang_up(slot);
        let client = &mut self.clients[slot];
        client.state = State::Away;
        client.returning = Some(Return {
            left_ns: now_ns,
            until_seq: 0,
            with_all,
        });
        self.away.push_back(slot);
    }

    /// Lets all go that read: first all go, then they come back.
    fn drop_all(&mut self, now_ns: u64) {
        for slot in 0..self.clients.len() {
            let client = &self.clients[slot];
            if client.kind == Kind::Steady && client.state == State::Open {
                self.go_away(slot, now_ns, true);
                self.seen.reading.dropped += 1;
            }
        }
    }

    fn on_timer(&mut self, slot: usize, due_ns: u64, now_ns: u64, settled: bool) {
        let client = &self.clients[slot];
        if client.kind == Kind::Passing {
            self.account(slot);
            self.hang_up(slot);
            self.clients[slot].state = State::Closed;
            self.free.push(slot);
            return;
        }
        let Some(every) = self.target.behaviour.reconnect_every else {
            return;
        };
        // Who has seen nothing has nothing to come back to.
        let may_go = client.state == State::Open
            && client.returning.is_none()
            && client.sequence.newest() > 0;
        if may_go && !settled {
            self.go_away(slot, now_ns, false);
        }
        let next_ns = due_ns + every.as_nanos() as u64;
        self.timers.push(Reverse((next_ns, slot)));
    }

    /// Lets the stalled read.
    fn wake(&mut self) {
        for slot in 0..self.clients.len() {
            if self.clients[slot].kind == Kind::Stalled {
                if let Some(socket) = &self.clients[slot].socket {
                    // Only to be quicker: the kernel may refuse.
                    let _ = SockRef::from(socket).set_recv_buffer_size(WOKEN_RECEIVE_BYTES);
                }
                self.on_ready(slot);
                self.check_stalled(slot);
            }
        }
    }

    /// Does what a socket is ready for.
    fn on_ready(&mut self, slot: usize) {
        let client = &mut self.clients[slot];
        let Some(socket) = &mut client.socket else {
            return;
        };
        if let State::Connecting { since_ns } = client.state {
            let last_id = client.response.last_id();
            match send_request(socket, self.target, client.run as usize, last_id) {
                Ok(true) => client.state = State::AwaitingHead { since_ns },
                Ok(false) => return,
                Err(error) => self.fail(slot, &error.to_string()),
            }
        }
        loop {
            let client = &mut self.clients[slot];
            if client.kind == Kind::Stalled && client.state == State::Open && !self.has_woken {
                return;
            }
            let Some(socket) = &mut client.socket else {
                return;
            };
            match socket.read(&mut self.buffer) {
                Ok(0) => self.fail(slot, "the server closed the connection"),
                Ok(length) => {
                    self.on_bytes(slot, length);
                    // Less than asked for: the socket is drained, and epoll
                    // tells of whatever comes after.
                    if length < self.buffer.len() {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => self.fail(slot, &error.to_string()),
            }
        }
    }

    fn on_bytes(&mut self, slot: usize, length: usize) {
        let client = &mut self.clients[slot];
        let totals = self.seen.of(client.kind == Kind::Stalled);
        let now_ns = monotonic_ns();
        let measured = self.progress.measure_from_ns.load(Relaxed)
            ..self.progress.measure_until_ns.load(Relaxed);
        let was_new = client.sequence.newest() == 0;
        let (mut delivered, mut head) = (0, None);
        let (sequence, told) = (&mut client.sequence, &mut client.told);
        let joined_ns = &mut client.joined_ns;
        let (progress, run) = (self.progress, client.run);
        let elsewhere = self.target.behaviour.publisher_is_elsewhere;
        let is_first = client.returning.is_none();
        let sent = || {
            let sent = progress.sent[run as usize].load(Relaxed);
            if elsewhere { u64::MAX } else { sent }
        };
        let bytes = &self.buffer[..length];
        let result = client.response.read(bytes, |item| match item {
            Item::Head { status } => {
                head = Some(status);
                if *joined_ns == 0 {
                    *joined_ns = now_ns;
                }
                sequence.join(sent());
            }
            Item::Event(event) if event.name == EventName::Hello => {
                if is_first {
                    sequence.join_anew(sent());
                }
            }
            Item::Event(event) => {
                if event.name == EventName::Gap {
                    told.gap(event.lost);
                }
                let times = Times {
                    joined_ns: *joined_ns,
                    now_ns,
                    measured: measured.clone(),
                };
                delivered += totals.on_event(&event, run, sequence, &times);
            }
        });
        totals.bytes += length as u64;
        let missed = if was_new && delivered > 0 {
            client.sequence.joined_after()
        } else {
            0
        };
        match client.kind {
            Kind::Steady => {
                self.delivered += delivered;
                self.awaited += delivered + missed;
            }
            Kind::Stalled => self.stalled_delivered += delivered,
            Kind::Passing => self.delivered += delivered,
        }
        if let Some(status) = head
            && !self.on_head(slot, status, now_ns)
        {
            return;
        }
        if let Err(error) = result {
            self.fail(slot, &format!("the stream cannot be read on: {error:?}"));
        }
        self.check_returned(slot, now_ns);
        self.check_stalled(slot);
    }

    /// Takes note of the head; returns whether the stream is open.
    fn on_head(&mut self, slot: usize, status: u16, now_ns: u64) -> bool {
        if status != 200 {
            self.fail(slot, &format!("the server answered with status {status}"));
            return false;
        }
        let client = &mut self.clients[slot];
        if let State::AwaitingHead { since_ns } = client.state {
            client.state = State::Open;
            self.opening -= 1;
            let reading = &mut self.seen.reading;
            if client.kind == Kind::Passing {
                reading.churned.saturating_record(now_ns - since_ns);
            } else if client.returning.is_none() {
                reading.connect_latency.saturating_record(now_ns - since_ns);
                self.progress.connected.fetch_add(1, Relaxed);
            }
        }
        true
    }

    /// Whether a client that came back has what was sent meanwhile.
    fn check_returned(&mut self, slot: usize, now_ns: u64) {
        let client = &mut self.clients[slot];
        if let Some(returning) = client.returning
            && client.state == State::Open
            && client.sequence.newest() >= returning.until_seq
        {
            client.returning = None;
            let latency_ns = now_ns.saturating_sub(returning.left_ns);
            let reading = &mut self.seen.reading;
            let histogram = if returning.with_all {
                &mut reading.drop_latency
            } else {
                &mut reading.reconnect_latency
            };
            histogram.saturating_record(latency_ns);
        }
    }

    /// Whether a stalled client has nothing more to read.
    fn check_stalled(&mut self, slot: usize) {
        let client = &mut self.clients[slot];
        if client.kind != Kind::Stalled || client.is_done || !self.has_woken {
            return;
        }
        let sent = self.progress.sent[client.run as usize].load(Relaxed);
        if client.state == State::Closed || client.sequence.newest() >= sent {
            client.is_done = true;
            self.progress.stalled_done.fetch_add(1, Relaxed);
        }
    }

    fn fail(&mut self, slot: usize, why: &str) {
        self.hang_up(slot);
        let client = &mut self.clients[slot];
        client.state = State::Closed;
        let kind = client.kind;
        self.seen.of(kind == Kind::Stalled).on_failure(why);
        if kind != Kind::Passing {
            self.progress.failed.fetch_add(1, Relaxed);
        }
        self.check_stalled(slot);
    }

    fn hang_up(&mut self, slot: usize) {
        let client = &mut self.clients[slot];
        if client.is_opening() {
            self.opening -= 1;
        }
        if let Some(mut socket) = client.socket.take() {
            // Deregistering an open socket of this poll cannot fail, and
            // closing it would do the same.
            let _ = self.poll.registry().deregister(&mut socket);
        }
    }

    /// Counts what a client never got.
    fn account(&mut self, slot: usize) {
        let client = &self.clients[slot];
        let sent = match client.kind {
            // What came after it left is not for it.
            Kind::Passing => 0,
            _ => self.progress.sent[client.run as usize].load(Relaxed),
        };
        let lost = client.sequence.lost(sent.max(client.sequence.newest()));
        // Who is cut knows that there may be more.
        let untold = match client.state {
            State::Closed => 0,
            _ => client.told.untold(lost),
        };
        let told = client.told.count;
        let totals = self.seen.of(client.kind == Kind::Stalled);
        totals.lost += lost;
        totals.untold += untold;
        totals.told += told;
    }
}
