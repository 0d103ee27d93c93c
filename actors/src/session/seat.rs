//! [`Seat`]: what a client's body, its actor and its worker share.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Waker};

use bytes::Bytes;

use super::CloseReason;
use crate::access::Bearer;
use crate::metrics::Metrics;
use crate::order::JoinFrom;
use crate::protocol::Cursor;
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
    /// Sends the pages it is given; its place in the log comes after them.
    Paging,
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
    /// Loose frames of the log that lie before `position`.
    pub(crate) loose_seen: Cell<u64>,
    /// Where it stood when it took its place in the log, or passed a gap that
    /// begins a branch; and whether it was sent no event since.
    stood: Cell<(JoinFrom, bool)>,
    pages: RefCell<Option<Box<Pages>>>,
    pub(crate) filter: RefCell<FrameFilter>,
    /// Whose token the stream was opened with, if with one.
    pub(crate) bearer: Option<Box<Bearer>>,
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
    /// Has all there is of the log: the next flush wakes it.
    pub(crate) parked: Cell<bool>,
    /// Its session is told when more of the log has arrived.
    pub(crate) waits: Cell<bool>,
}

/// Pages on their way to a client.
#[derive(Debug)]
struct Pages {
    segments: VecDeque<Segment>,
    /// Its place in the log after them.
    then: Option<LogPlace>,
    /// Its session waits until they are sent.
    is_awaited: bool,
    /// What they are counted under, and how much of it.
    metrics: Arc<Metrics>,
    bytes: u64,
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.metrics.paged_bytes.sub(self.bytes);
    }
}

/// A place in a log, and how much of the run lies before it. Counted when the
/// place is chosen: the log may drop it before the client comes there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogPlace {
    pub(crate) position: LogPosition,
    pub(crate) events: u64,
    pub(crate) loose: u64,
}

/// What a body finds when it asks for pages.
#[derive(Debug)]
pub(crate) enum NextPage {
    /// This segment, to be read from the seat's position on.
    Segment(Segment),
    /// None is left; the place in the log is known.
    Log(LogPlace),
    /// None is left; the session is to be told.
    Sent,
    /// None is left for now.
    None,
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
    pub(crate) fn new(filter: FrameFilter, bearer: Option<Bearer>) -> Rc<Self> {
        Rc::new(Self {
            id: SessionId::next(),
            state: Cell::new(SeatState::Waiting),
            position: Cell::new(LogPosition::at_segment(0)),
            wanted_no: Cell::new(None),
            events_seen: Cell::new(0),
            loose_seen: Cell::new(0),
            stood: Cell::new((JoinFrom::Start, true)),
            pages: RefCell::default(),
            filter: RefCell::new(filter),
            bearer: bearer.map(Box::new),
            control: RefCell::default(),
            beating: Cell::new(false),
            hidden: RefCell::default(),
            last_sent: RefCell::default(),
            waker: RefCell::default(),
            polled_tick: Cell::new(0),
            parked: Cell::new(false),
            waits: Cell::new(false),
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

    /// Whether the session ends.
    pub(crate) fn is_closing(&self) -> bool {
        matches!(self.state.get(), SeatState::Closing(_))
    }

    /// Gives it pages to send, and its place after them or a session that
    /// waits until they are sent.
    pub(crate) fn hand_pages(
        &self,
        segments: Vec<Segment>,
        then: Option<LogPlace>,
        is_awaited: bool,
        metrics: &Arc<Metrics>,
    ) {
        let mut pages = self.pages.borrow_mut();
        let pages = pages.get_or_insert_with(|| {
            Box::new(Pages {
                segments: VecDeque::new(),
                then: None,
                is_awaited: false,
                metrics: Arc::clone(metrics),
                bytes: 0,
            })
        });
        let bytes: usize = segments.iter().map(Segment::weight).sum();
        pages.bytes += bytes as u64;
        metrics.paged_bytes.add(bytes as u64);
        if pages.segments.is_empty() {
            self.position.set(LogPosition::at_segment(0));
            self.events_seen.set(0);
        }
        pages.segments.extend(segments);
        pages.then = then;
        pages.is_awaited = is_awaited;
    }

    /// Whether its session is to be told when its pages were sent.
    pub(crate) fn awaits_pages(&self) -> bool {
        let pages = self.pages.borrow();
        pages.as_ref().is_some_and(|pages| pages.is_awaited)
    }

    /// Forgets its pages.
    pub(crate) fn drop_pages(&self) {
        *self.pages.borrow_mut() = None;
    }

    /// Returns what there is to read before the log.
    pub(crate) fn next_page(&self) -> NextPage {
        let mut slot = self.pages.borrow_mut();
        let Some(pages) = &mut *slot else {
            return NextPage::None;
        };
        while let Some(segment) = pages.segments.front() {
            if segment.no() >= self.position.get().segment_no {
                return NextPage::Segment(segment.clone());
            }
            pages.segments.pop_front();
            if pages.segments.front().is_some_and(|next| next.no() == 0) {
                self.position.set(LogPosition::at_segment(0));
                self.events_seen.set(0);
            }
        }
        if let Some(then) = pages.then {
            *slot = None;
            return NextPage::Log(then);
        }
        let is_awaited = pages.is_awaited;
        *slot = None;
        match is_awaited {
            true => NextPage::Sent,
            false => NextPage::None,
        }
    }

    /// Queues a heartbeat, and the cursor past hidden events if there are any,
    /// unless the last heartbeat still waits.
    pub(crate) fn beat(&self, frame: &Bytes) {
        let is_open = matches!(self.state.get(), SeatState::Live | SeatState::Paging);
        if !is_open || self.beating.replace(true) {
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
        if id.is_some() {
            self.moves_on();
        }
        if id.is_some() || self.hidden.borrow().is_some() {
            *self.hidden.borrow_mut() = id.map(|id| Hidden { id, is_told: false });
        }
    }

    /// Notes that the frames of `segment` up to `frame` were sent. Gaps alone
    /// leave the client where it was, but for one that begins a branch: what
    /// it counts is not missed again.
    pub(crate) fn note_sent(&self, segment: &Segment, frame: usize) {
        if (0..=frame).rev().all(|frame| !segment.has_id(frame)) {
            if let Some(base) = segment.branch().and_then(|branch| branch.base) {
                self.stands_at(JoinFrom::Seen(base));
            }
            return;
        }
        self.moves_on();
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

    /// Notes where it stands: what comes next is what follows this.
    pub(crate) fn stands_at(&self, place: JoinFrom) {
        self.stood.set((place, true));
    }

    /// It was sent an event, or one was hidden from it.
    fn moves_on(&self) {
        let (stood, _) = self.stood.get();
        self.stood.set((stood, false));
    }

    /// What of the run's durable events it has seen.
    pub(crate) fn seen(&self) -> JoinFrom {
        let (stood, still) = self.stood.get();
        if still {
            return stood;
        }
        let last = self.last_id().and_then(|id| id.parse::<Cursor>().ok());
        let durable = last.and_then(|cursor| cursor.id.durable());
        durable.map_or(stood, |id| JoinFrom::Seen(id.into()))
    }

    /// Ends the session after what waits in `control` and a `goodbye`.
    pub(crate) fn say_goodbye(&self, reason: CloseReason, retry: RetrySettings) {
        if matches!(self.state.get(), SeatState::Closing(_)) {
            return;
        }
        let frame = goodbye_frame(reason.told(), retry.draw_ms());
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
