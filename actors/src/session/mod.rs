//! [`SseSession`]: one connected client.
//!
//! The actor owns the client's life: its join, its greatest age, its end.
//! Frames do not pass its mailbox: [`StreamBody`] reads them from the worker's
//! log, both through the shared `Seat`.

mod body;
mod close_reason;
mod seat;

use std::rc::Rc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use tracing::debug;

pub use body::StreamBody;
pub use close_reason::CloseReason;
pub use seat::SessionId;
pub(crate) use seat::{Seat, SeatState};

use crate::broker::{AddressPlace, StreamStart};
use crate::worker::WorkerRun;

/// The actor of one client, on the worker that serves its socket.
///
/// Takes [`RunReady`] from its worker until it has joined, [`BodyDropped`] from
/// its body. Its mailbox holds at most these two; it sends to nobody.
pub struct SseSession {
    seat: Rc<Seat>,
    run: Rc<WorkerRun>,
    start: StreamStart,
    member: usize,
    max_age: Option<Duration>,
    opened_at: Instant,
    /// Given back when the session is gone.
    _place: AddressPlace,
}

impl SseSession {
    /// Starts the session on the calling worker and returns the body that its
    /// response carries.
    pub(crate) fn open(
        seat: Rc<Seat>,
        run: Rc<WorkerRun>,
        start: StreamStart,
        max_age: Option<Duration>,
        place: AddressPlace,
    ) -> StreamBody {
        let member = run.add_member(Rc::clone(&seat));
        let session = Self {
            seat: Rc::clone(&seat),
            run: Rc::clone(&run),
            start,
            member,
            max_age,
            opened_at: Instant::now(),
            _place: place,
        }
        .start();
        run.when_ready(&session);
        StreamBody::new(seat, run, session)
    }
}

impl Actor for SseSession {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if let Some(max_age) = self.max_age {
            // Up to a tenth earlier, so that clients that came together do
            // not go together.
            let jitter = max_age.mul_f64(fastrand::f64() * 0.1);
            ctx.run_later(max_age - jitter, |session, _| {
                session
                    .seat
                    .say_goodbye(CloseReason::MaxAge, session.run.retry());
            });
        }
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        let reason = match self.seat.state.get() {
            SeatState::Closing(reason) => reason,
            // The body was not waiting for more when it was dropped: what it
            // gave last found no room in the socket.
            SeatState::Live if !self.seat.parked.get() && self.run.is_overdue(&self.seat) => {
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
        if self.seat.state.get() == SeatState::Waiting {
            self.run.seat_joins(&self.seat, &self.start, &ctx.address());
        }
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
