//! [`StreamBody`]: the response body of a stream; reads the worker's log.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix::Addr;
use actix_http::body::{BodySize, MessageBody};
use bytes::Bytes;

use super::seat::{Seat, SeatState};
use super::{BodyDropped, CloseReason, PagesSent, Rejoin, SseSession};
use crate::broker::Shed;
use crate::protocol::Problem;
use crate::settings::RetrySettings;
use crate::sse::{Piece, problem_frame, retry_block};
use crate::stream_filter::FrameFilter;
use crate::worker::{LogChunk, PageChunk, WorkerRun, tell};

/// The body of a stream's response. Ends when the session ends; dropping it
/// (the client is gone) ends the session.
pub struct StreamBody {
    seat: Rc<Seat>,
    live: Option<Live>,
}

/// What a stream that began well has beside its seat.
struct Live {
    run: Rc<WorkerRun>,
    session: Addr<SseSession>,
}

impl Live {
    /// Leaves log events out from now on if memory is short: what this client
    /// has to catch up with, others pay for.
    fn shed_logs(&self, seat: &Seat) {
        let shared = self.run.shared();
        if shared.pressure.shed() < Shed::SlowLogs || !seat.filter.borrow_mut().hide_logs() {
            return;
        }
        shared.metrics.logs_shed.inc();
        let problem = Problem::new(
            503,
            "logs-left-out",
            "Log events left out",
            "memory is short and this client behind: its stream goes on without log events; \
             connect again for them",
        );
        seat.send(Bytes::from(problem_frame(&problem.retryable(true))));
    }

    /// Returns the next frames of pages or the log.
    fn next_piece(&self, seat: &Seat) -> Option<Piece> {
        if seat.state.get() == SeatState::Paging {
            match self.run.next_page_chunk(seat) {
                PageChunk::Piece(piece) => return Some(piece),
                PageChunk::Sent => tell(&self.session, PagesSent),
                PageChunk::None => {}
            }
            if seat.state.get() == SeatState::Paging {
                return None;
            }
        }
        match self.run.next_chunk(seat)? {
            LogChunk::Piece(piece) => Some(piece),
            LogChunk::Behind(way) => {
                seat.state.set(SeatState::Paging);
                self.shed_logs(seat);
                tell(&self.session, Rejoin(way));
                None
            }
        }
    }
}

impl StreamBody {
    pub(crate) fn new(seat: Rc<Seat>, run: Rc<WorkerRun>, session: Addr<SseSession>) -> Self {
        Self {
            seat,
            live: Some(Live { run, session }),
        }
    }

    /// The body of a stream that cannot begin for now: `retry`, `problem`,
    /// `goodbye`, so that an EventSource comes back.
    pub fn failed(problem: &Problem, reason: CloseReason, retry: RetrySettings) -> Self {
        let seat = Seat::new(FrameFilter::default(), None);
        seat.send(retry_block(retry.draw_ms()));
        seat.send(Bytes::from(problem_frame(problem)));
        seat.say_goodbye(reason, retry);
        Self { seat, live: None }
    }

    /// Returns the next frames to send; `None` at the end of the stream.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Piece>> {
        self.seat.parked.set(false);
        if let Some(frame) = self.seat.next_control() {
            if let Some(live) = &self.live {
                live.run.counters().sent_control(frame.len());
            }
            return Poll::Ready(Some(Piece::Part(frame)));
        }
        match (self.seat.state.get(), &self.live) {
            (SeatState::Closing(_), _) | (_, None) => return Poll::Ready(None),
            (SeatState::Waiting, Some(_)) => {}
            (SeatState::Paging | SeatState::Live, Some(live)) => {
                if let Some(piece) = live.next_piece(&self.seat) {
                    return Poll::Ready(Some(piece));
                }
                let is_live = self.seat.state.get() == SeatState::Live;
                self.seat.parked.set(is_live);
            }
        }
        self.seat.park(cx);
        Poll::Pending
    }

    /// What it gave last has found no room: until it is asked again, news of
    /// the run does not wake the client.
    pub fn is_stalled(&self) {
        self.seat.parked.set(false);
    }
}

impl std::fmt::Debug for StreamBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamBody")
            .field("seat", &self.seat)
            .finish_non_exhaustive()
    }
}

impl MessageBody for StreamBody {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Infallible>>> {
        let piece = self.get_mut().poll_piece(cx);
        piece.map(|piece| Some(Ok(piece?.bytes().clone())))
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        if let Some(live) = &self.live {
            tell(&live.session, BodyDropped);
        }
    }
}
