//! [`Worker`]: the loop of one thread, and what it reads.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io::{ErrorKind, Read as _};
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Result, bail};
use mio::{Events, Poll};

use super::client::{Client, Kind, State};
use super::socket::send_request;
use super::{Progress, Target};
use crate::clock::monotonic_ns;
use crate::sse::{EventName, Item};
use crate::totals::{Seen, Times};

/// How often a thread looks whether it shall stop.
const POLL_TIMEOUT: Duration = Duration::from_millis(20);

const READ_BUFFER_BYTES: usize = 256 * 1024;

/// One thread's subscribers.
pub(super) struct Worker<'a> {
    pub(super) target: &'a Target,
    pub(super) progress: &'a Progress,
    pub(super) poll: Poll,
    pub(super) clients: Vec<Client>,
    /// Places in `clients` of those that came and went.
    pub(super) free: Vec<usize>,
    /// Those still to come, and how many there were at the beginning.
    pub(super) range: Range<usize>,
    pub(super) count: usize,
    pub(super) start_ns: u64,
    pub(super) opening: usize,
    /// Those that are away and shall come back.
    pub(super) away: VecDeque<usize>,
    /// When who shall go.
    pub(super) timers: BinaryHeap<Reverse<(u64, usize)>>,
    /// Of those that come and go: how many a second, how many so far, and the
    /// index of the next.
    pub(super) churn: f64,
    pub(super) churned: u64,
    pub(super) has_dropped: bool,
    pub(super) has_woken: bool,
    pub(super) seen: Seen,
    pub(super) delivered: u64,
    pub(super) awaited: u64,
    pub(super) stalled_delivered: u64,
    /// Heartbeats that the common count knows of.
    pub(super) heartbeats_told: u64,
    pub(super) buffer: Box<[u8]>,
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
            heartbeats_told: 0,
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
        let heartbeats = self.seen.reading.heartbeats;
        if heartbeats > self.heartbeats_told {
            let more = heartbeats - self.heartbeats_told;
            self.progress.heartbeats.fetch_add(more, Relaxed);
            self.heartbeats_told = heartbeats;
        }
    }

    /// Does what a socket is ready for.
    pub(super) fn on_ready(&mut self, slot: usize) {
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
    pub(super) fn check_stalled(&mut self, slot: usize) {
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

    pub(super) fn hang_up(&mut self, slot: usize) {
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
    pub(super) fn account(&mut self, slot: usize) {
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
