//! [`SseSession`]: one connected client.
//!
//! The actor owns the client's life: its join, its greatest age, its end.
//! Frames do not pass its mailbox: [`StreamBody`] reads them from the worker's
//! log, both through the shared `Seat`.

mod body;
mod close_reason;
mod joining;
mod page;
mod seat;

use std::rc::Rc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use tracing::debug;

pub use body::StreamBody;
pub use close_reason::CloseReason;
pub(crate) use joining::Way;
pub use seat::SessionId;
pub(crate) use seat::{LogPlace, NextPage, Seat, SeatState};

use crate::broker::{StreamPlaces, StreamStart};
use crate::order::JoinInput;
use crate::run_log::LogPosition;
use crate::worker::WorkerRun;
use joining::OnTheWay;

/// The actor of one client, on the worker that serves its socket.
///
/// Takes [`RunReady`] from its worker until it has joined, [`Rejoin`] when its
/// place is lost, [`PagesSent`] and [`BodyDropped`] from its body; few of them
/// wait in its mailbox at any time. Reads pages of the store for a client whose
/// place the log does not hold; it sends to nobody.
pub struct SseSession {
    seat: Rc<Seat>,
    run: Rc<WorkerRun>,
    /// Where it wants to begin; forgotten once it has.
    start: Option<Box<StreamStart>>,
    /// The way it is to go as soon as the log is here.
    way: Option<Box<Way>>,
    on_the_way: Option<Box<OnTheWay>>,
    /// Counts its steps: what an older one asked or waited for is dropped.
    step: u64,
    /// Where the log ended when a page was asked for last.
    log_end_asked: LogPosition,
    /// The cursor it came with.
    cursor: Option<String>,
    member: usize,
    /// When it ends at the latest, and why.
    ends: Option<(Duration, CloseReason)>,
    opened_at: Instant,
    /// Given back when the session is gone.
    _places: StreamPlaces,
}

impl SseSession {
    /// Starts the session on the calling worker and returns the body that its
    /// response carries.
    pub(crate) fn open(
        seat: Rc<Seat>,
        run: Rc<WorkerRun>,
        start: StreamStart,
        ends: Option<(Duration, CloseReason)>,
        places: StreamPlaces,
    ) -> StreamBody {
        let session = Self::create(|ctx| Self {
            member: run.add_member(Rc::clone(&seat), ctx.address()),
            seat: Rc::clone(&seat),
            run: Rc::clone(&run),
            way: Some(Box::new(Way::Start(start.clone()))),
            start: Some(Box::new(start)),
            on_the_way: None,
            step: 0,
            log_end_asked: LogPosition::at_segment(0),
            cursor: None,
            ends,
            opened_at: Instant::now(),
            _places: places,
        });
        run.when_ready(&seat, &session);
        StreamBody::new(seat, run, session)
    }
}

impl Actor for SseSession {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.bound_hello(ctx);
        if let Some((age, reason)) = self.ends {
            ctx.run_later(age, move |session, _| {
                session.seat.say_goodbye(reason, session.run.retry());
            });
        }
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        let reason = match self.seat.state.get() {
            SeatState::Closing(reason) => reason,
            // The body was not waiting for more when it was dropped: what it
            // gave last found no room in the socket.
            SeatState::Live | SeatState::Paging
                if !self.seat.parked.get() && self.run.is_overdue(&self.seat) =>
            {
                CloseReason::WriteTimeout
            }
            _ => CloseReason::ClientGone,
        };
        self.run.remove_member(self.member, reason);
        debug!(
            run_id = %self.run.run_id(),
            session_id = %self.seat.id,
            backend = %self.run.backend(),
            reason = reason.as_str(),
            elapsed_ms = self.opened_at.elapsed().as_millis() as u64,
            "session closed"
        );
    }
}

/// The run's log, or more of it, has arrived on this worker: the session may
/// join it.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct RunReady;

impl Handler<RunReady> for SseSession {
    type Result = ();

    fn handle(&mut self, _: RunReady, ctx: &mut Self::Context) {
        if self.seat.is_closing() {
            return;
        }
        match self.on_the_way {
            // It goes on when its pages are sent: until then it is not known
            // what it was sent last.
            Some(_) if self.seat.awaits_pages() => {}
            Some(_) => self.go_on_soon(ctx),
            None => self.join(ctx),
        }
    }
}

/// The client's place in the log is lost: it comes back another way.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Rejoin(pub(crate) Way);

impl Handler<Rejoin> for SseSession {
    type Result = ();

    fn handle(&mut self, Rejoin(way): Rejoin, ctx: &mut Self::Context) {
        self.on_the_way = None;
        self.step += 1;
        // One that did not begin yet begins as it wanted to.
        let start = self.start.as_deref().cloned().map(Way::Start);
        self.way = Some(Box::new(start.unwrap_or(way)));
        self.run.when_ready(&self.seat, &ctx.address());
    }
}

/// The body has sent all pages it was given.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct PagesSent;

impl Handler<PagesSent> for SseSession {
    type Result = ();

    fn handle(&mut self, _: PagesSent, ctx: &mut Self::Context) {
        self.drive(JoinInput::GoOn, ctx);
    }
}

/// The response body is gone: the stream ended or its client went.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct BodyDropped;

impl Handler<BodyDropped> for SseSession {
    type Result = ();

    fn handle(&mut self, _: BodyDropped, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
