//! [`Seat`]: what a client's body, its actor and its worker share.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Waker};

use bytes::Bytes;

use super::CloseReason;
use crate::run_log::LogPosition;
use crate::settings::RetrySettings;
use crate::sse::{Segment, goodbye_frame};
use crate::stream_filter::FrameFilter;

/// Names one session in logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(u64);

impl SessionId {
    /// Returns an id not given before in this process.
    pub fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl std::fmt::Display for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a session is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SeatState {
    /// `retry:` is sent; the run's log is not here yet.
    Waiting,
    /// Reads the log from its position on.
    Live,
    /// Sends what is in `control`, then ends.
    Closing(CloseReason),
}

/// One client on its worker. Lives on that worker's thread only.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) id: SessionId,
    pub(crate) state: Cell<SeatState>,
    pub(crate) position: Cell<LogPosition>,
    /// Where the worker's log must end before a gap at the start is believed.
    pub(crate) wanted_no: Cell<Option<u64>>,
    /// Events of the run that lie before `position`.
    pub(crate) events_seen: Cell<u64>,
    pub(crate) filter: RefCell<FrameFilter>,
    /// Frames outside the log, sent before anything of it. Bounded: the
    /// preamble, one heartbeat, a notice for each of its kinds, one goodbye.
    control: RefCell<VecDeque<Bytes>>,
    /// A heartbeat waits in `control`: a client that takes none gets no more.
    beating: Cell<bool>,
    /// The newest event the filter hid after the last one sent.
    hidden: RefCell<Option<Hidden>>,
    /// The segment and frame sent last; pins at most one segment.
    last_sent: RefCell<Option<(Segment, usize)>>,
    waker: RefCell<Option<Waker>>,
    /// The worker's tick at which the body last asked for more.
    pub(crate) polled_tick: Cell<u64>,
    /// Has all there is: the next flush wakes it.
    pub(crate) parked: Cell<bool>,
}

/// An event that the filter hid.
#[derive(Debug)]
struct Hidden {
    id: Bytes,
    /// A `cursor` frame has told its id.
    is_told: bool,
}

/// Most control frames that wait; further notices are dropped, which a client
/// that has not read that many does not miss.
const CONTROL_FRAMES_MAX: usize = 16;

impl Seat {
    pub(crate) fn new(filter: FrameFilter) -> Rc<Self> {
        Rc::new(Self {
            id: SessionId::next(),
            state: Cell::new(SeatState::Waiting),
            position: Cell::new(LogPosition::at_segment(0)),
            wanted_no: Cell::new(None),
            events_seen: Cell::new(0),
            filter: RefCell::new(filter),
            control: RefCell::default(),
            beating: Cell::new(false),
            hidden: RefCell::default(),
            last_sent: RefCell::default(),
            waker: RefCell::default(),
            polled_tick: Cell::new(0),
            parked: Cell::new(false),
        })
    }

    /// Queues a frame outside the log and wakes the body.
    pub(crate) fn send(&self, frame: Bytes) {
        let mut control = self.control.borrow_mut();
        if control.len() < CONTROL_FRAMES_MAX {
            control.push_back(frame);
        }
        drop(control);
        self.wake();
    }

    /// Queues a heartbeat, and the cursor past hidden events if there are any,
    /// unless the last heartbeat still waits.
    pub(crate) fn beat(&self, frame: &Bytes) {
        if self.state.get() != SeatState::Live || self.beating.replace(true) {
            return;
        }
        if let Some(hidden) = &mut *self.hidden.borrow_mut()
            && !std::mem::replace(&mut hidden.is_told, true)
        {
            let mut cursor = String::new();
            let id = std::str::from_utf8(&hidden.id).unwrap_or_default();
            crate::sse::cursor_frame(&mut cursor, id);
            self.control.borrow_mut().push_back(Bytes::from(cursor));
        }
        self.send(frame.clone());
    }

    /// Takes the next frame outside the log.
    pub(crate) fn next_control(&self) -> Option<Bytes> {
        let mut control = self.control.borrow_mut();
        let frame = control.pop_front();
        if control.is_empty() {
            // An idle client keeps no queue.
            control.shrink_to_fit();
            self.beating.set(false);
        }
        frame
    }

    /// Notes what the filter did to the frames just passed.
    pub(crate) fn note_hidden(&self, id: Option<Bytes>) {
        if id.is_some() || self.hidden.borrow().is_some() {
            *self.hidden.borrow_mut() = id.map(|id| Hidden { id, is_told: false });
        }
    }

    /// Notes that the frames of `segment` up to `frame` were sent.
    pub(crate) fn note_sent(&self, segment: &Segment, frame: usize) {
        self.note_hidden(None);
        *self.last_sent.borrow_mut() = Some((segment.clone(), frame));
    }

    /// Returns the id of the last event sent, or hidden after it, if any.
    pub(crate) fn last_id(&self) -> Option<String> {
        if let Some(hidden) = &*self.hidden.borrow() {
            return String::from_utf8(hidden.id.to_vec()).ok();
        }
        let last_sent = self.last_sent.borrow();
        let (segment, last) = last_sent.as_ref()?;
        let id = (0..=*last).rev().find_map(|frame| segment.id_of(frame));
        id.map(str::to_owned)
    }

    /// Ends the session after what waits in `control` and a `goodbye`.
    pub(crate) fn say_goodbye(&self, reason: CloseReason, retry: RetrySettings) {
        if matches!(self.state.get(), SeatState::Closing(_)) {
            return;
        }
        let frame = goodbye_frame(reason.as_str(), retry.draw_ms());
        // Past the bound: a goodbye is always said.
        self.control.borrow_mut().push_back(Bytes::from(frame));
        self.state.set(SeatState::Closing(reason));
        self.wake();
    }

    /// Remembers whom to wake when there is more.
    pub(crate) fn park(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        match &mut *waker {
            Some(known) if known.will_wake(cx.waker()) => {}
            other => *other = Some(cx.waker().clone()),
        }
    }

    /// Has the body polled again.
    pub(crate) fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}
