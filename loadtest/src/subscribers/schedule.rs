//! When subscribers come, go and come back.

use std::cmp::Reverse;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::Result;
use mio::{Interest, Token};
use socket2::SockRef;

use super::client::{Client, Kind, Return, State, Told};
use super::socket::connect;
use super::worker::Worker;
use crate::clock::monotonic_ns;
use crate::sequence::Sequence;
use crate::sse::Response;

/// What a woken one may have waiting in the kernel.
const WOKEN_RECEIVE_BYTES: usize = 256 * 1024;

impl Worker<'_> {
    /// Lets those come and go whose time it is; returns the time of the next.
    pub(super) fn act(&mut self, now_ns: u64) -> Result<u64> {
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
}
