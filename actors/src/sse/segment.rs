//! [`Segment`]: encoded frames that travel, are kept and are sent together.

use std::cell::Cell;
use std::io::Write as _;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::{EventFrame, write_event};
use crate::protocol::{DurableId, EventId, EventKind, LogLevel, Place, Timestamp};

/// Most bytes of a segment, unless a single frame is larger.
pub const SEGMENT_BYTES_MAX: usize = 8 * 1024;

/// What a segment costs beside its bytes; counted, so that many small
/// segments cannot outgrow a ring's bound.
const SEGMENT_OVERHEAD_BYTES: usize = 256;

/// Room for what a chunk has around its bytes: a size below 4 GiB in
/// hexadecimal, and two line ends.
const CHUNK_OVERHEAD_BYTES: usize = 12;

/// Largest scratch buffer a thread keeps between batches.
const SCRATCH_BYTES_KEPT: usize = 64 * 1024;

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What a frame is, as a bit that filters test: one for output, one for
/// status, one for each log level. No bit: passes every filter (`gap`, `end`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameClass(u16);

impl FrameClass {
    /// A frame that is no event of the run and passes every filter.
    pub const CONTROL: Self = Self(0);
    /// A gap that whoever reads the store again is told again.
    pub const STORE_GAP: Self = Self(1 << 14);
    /// The frame that ends the run.
    pub const END: Self = Self(1 << 15);

    /// Returns the class of an event; `level` counts only for logs.
    pub fn of(kind: EventKind, level: LogLevel) -> Self {
        Self(match kind {
            EventKind::Output => 1,
            EventKind::Status => 1 << 1,
            EventKind::Log => 1 << (2 + level as u16),
        })
    }

    /// Returns the classes that a client hides: the kinds not in `kinds`
    /// (empty: none), and logs below `log_level`.
    pub fn hidden_by(kinds: &[EventKind], log_level: LogLevel) -> Self {
        let mut hidden = Self(0);
        for kind in EventKind::ALL {
            for level in LogLevel::ALL {
                let wanted = kinds.is_empty() || kinds.contains(&kind);
                if !wanted || (kind == EventKind::Log && level < log_level) {
                    hidden.0 |= Self::of(kind, level).0;
                }
            }
        }
        hidden
    }

    /// Returns the classes of both.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether any class is in both.
    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether this is an event of the run.
    pub fn is_event(self) -> bool {
        self.0 & !(Self::END.0 | Self::STORE_GAP.0) != 0
    }
}

/// Where one frame lies in its segment, and what it is. 16 bytes.
#[derive(Debug, Clone, Copy)]
pub struct FrameMeta {
    end: u32,
    source_len: u32,
    /// From the frame's start.
    source_start: u16,
    id_len: u16,
    class: FrameClass,
}

impl FrameMeta {
    /// What the frame is.
    pub fn class(&self) -> FrameClass {
        self.class
    }
}

/// Whole frames that follow one another in a run, encoded once and shared.
/// Cloning counts a reference.
#[derive(Debug, Clone)]
pub struct Segment(Arc<SegmentInner>);

#[derive(Debug)]
struct SegmentInner {
    /// `bytes` as a chunk of HTTP/1.1, which most clients are sent as it is.
    chunk: Bytes,
    bytes: Bytes,
    frames: Box<[FrameMeta]>,
    no: u64,
    events_before: u64,
    events: u64,
    classes: FrameClass,
    durable_before: Option<Place>,
    durable_through: Option<Place>,
    loose_before: u64,
    loose: u32,
    branch: Option<Box<Branch>>,
    received_at: Instant,
    last_event_ts: Option<Timestamp>,
}

/// Where a run's durable order begins anew: after a gap, what follows is not
/// the continuation of what came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Branch {
    /// Number of its first segment.
    pub segment_no: u64,
    /// That segment's frames that who did not know the old branch is not told.
    pub skipped_frames: u32,
    /// The stream's place before its first event; `None`: there was none.
    pub base: Option<Place>,
}

impl Segment {
    /// The frames' bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.0.bytes
    }

    /// The same bytes as a chunk (RFC 9112, section 7.1).
    pub fn chunk(&self) -> &Bytes {
        &self.0.chunk
    }

    /// The frames, in order.
    pub fn frames(&self) -> &[FrameMeta] {
        &self.0.frames
    }

    /// Number of the segment in its hub's log, from 0, without holes.
    pub fn no(&self) -> u64 {
        self.0.no
    }

    /// How many events of the run lie before this segment.
    pub fn events_before(&self) -> u64 {
        self.0.events_before
    }

    /// How many events of the run lie before the end of this segment.
    pub fn events_through(&self) -> u64 {
        self.0.events_before + self.0.events
    }

    /// The classes of all its frames together.
    pub fn classes(&self) -> FrameClass {
        self.0.classes
    }

    /// The stream's place before the segment.
    pub fn durable_before(&self) -> Option<Place> {
        self.0.durable_before
    }

    /// The stream's place at the segment's end.
    pub fn durable_through(&self) -> Option<Place> {
        self.0.durable_through
    }

    /// How many loose frames lie before this segment: those the store does not
    /// have, plain events and gaps that reading it would not tell.
    pub fn loose_before(&self) -> u64 {
        self.0.loose_before
    }

    /// How many loose frames lie before the end of this segment.
    pub fn loose_through(&self) -> u64 {
        self.0.loose_before + u64::from(self.0.loose)
    }

    /// Whether frame `index` is loose.
    pub fn is_loose(&self, index: usize) -> bool {
        let class = self.0.frames[index].class;
        let is_plain = || self.id_bytes_of(index).first() == Some(&b'~');
        class == FrameClass::CONTROL || class.is_event() && is_plain()
    }

    /// Returns how many loose frames lie before frame `index`.
    pub fn loose_before_frame(&self, index: usize) -> u64 {
        let loose = (0..index).filter(|index| self.is_loose(*index));
        match self.0.loose {
            0 => self.0.loose_before,
            _ => self.0.loose_before + loose.count() as u64,
        }
    }

    /// The branch that begins with this segment, if one does.
    pub fn branch(&self) -> Option<&Branch> {
        self.0.branch.as_deref()
    }

    /// When its batch was read from its source.
    pub fn received_at(&self) -> Instant {
        self.0.received_at
    }

    /// The `ts` of its last event, if it has one.
    pub fn last_event_ts(&self) -> Option<Timestamp> {
        self.0.last_event_ts
    }

    /// Bytes it takes in a ring.
    pub fn weight(&self) -> usize {
        self.0.bytes.len() + self.0.frames.len() * size_of::<FrameMeta>() + SEGMENT_OVERHEAD_BYTES
    }

    /// Where frame `index` begins; the segment's end for the index past the
    /// last one.
    pub fn offset_of(&self, index: usize) -> usize {
        match index {
            0 => 0,
            _ => self.0.frames[index - 1].end as usize,
        }
    }

    /// Returns the frames of `range` without copying them.
    pub fn slice(&self, range: Range<usize>) -> Bytes {
        self.0
            .bytes
            .slice(self.offset_of(range.start)..self.offset_of(range.end))
    }

    /// Returns the frames of `range` as what a client is sent next.
    pub fn piece(&self, range: Range<usize>) -> Piece {
        match range == (0..self.0.frames.len()) {
            true => Piece::Segment(self.clone()),
            false => Piece::Part(self.slice(range)),
        }
    }

    /// Whether frame `index` has an id.
    pub fn has_id(&self, index: usize) -> bool {
        self.0.frames[index].id_len > 0
    }

    /// Returns the id of frame `index`, if it has one.
    pub fn id_of(&self, index: usize) -> Option<&str> {
        match self.id_bytes_of(index) {
            [] => None,
            id => std::str::from_utf8(id).ok(),
        }
    }

    /// Returns the id of frame `index` as it stands there; empty if it has none.
    pub fn id_bytes_of(&self, index: usize) -> &[u8] {
        let frame = &self.0.frames[index];
        if frame.id_len == 0 {
            return &[];
        }
        let end = frame.end as usize - 2;
        &self.0.bytes[end - usize::from(frame.id_len)..end]
    }

    /// Returns the source of frame `index` as a JSON string without quotes;
    /// empty if it has none.
    pub fn source_of(&self, index: usize) -> &[u8] {
        let frame = &self.0.frames[index];
        let start = self.offset_of(index) + usize::from(frame.source_start);
        &self.0.bytes[start..start + frame.source_len as usize]
    }

    /// Returns parts of frame `index`, if it is an event of the run.
    pub fn event_parts_of(&self, index: usize) -> Option<EventParts<'_>> {
        let frame = &self.0.frames[index];
        if !frame.class.is_event() {
            return None;
        }
        // `…","ts":"<time>","backend":"<word>",<field>}`, then the id.
        let source_end =
            self.offset_of(index) + usize::from(frame.source_start) + frame.source_len as usize;
        let tail = b"\nid: ".len() + usize::from(frame.id_len) + b"\n\n".len();
        let data_end = (frame.end as usize).checked_sub(tail + 1)?;
        let rest = self.0.bytes.get(source_end..data_end)?;
        let rest = rest.strip_prefix(b"\",\"ts\":\"")?;
        let (time, rest) = rest.split_at_checked(memchr::memchr(b'"', rest)?)?;
        let rest = rest.strip_prefix(b"\",\"backend\":\"")?;
        let (backend, rest) = rest.split_at_checked(memchr::memchr(b'"', rest)?)?;
        Some(EventParts {
            time: std::str::from_utf8(time).ok()?,
            backend: std::str::from_utf8(backend).ok()?,
            field: rest.strip_prefix(b"\",")?,
        })
    }

    /// Returns how many events of the run lie before frame `index`.
    pub fn events_before_frame(&self, index: usize) -> u64 {
        let events = self.0.frames[..index]
            .iter()
            .filter(|frame| frame.class.is_event());
        self.0.events_before + events.count() as u64
    }
}

/// Parts of an event's frame, as they stand there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventParts<'a> {
    /// Its time.
    pub time: &'a str,
    /// Where it came from.
    pub backend: &'a str,
    /// The field that holds its data: `"data":…` or `"data_base64":…`.
    pub field: &'a [u8],
}

/// Frames that a client is sent next.
#[derive(Debug, Clone)]
pub enum Piece {
    /// A whole segment.
    Segment(Segment),
    /// Part of one, or frames outside the log.
    Part(Bytes),
}

impl Piece {
    /// The frames' bytes.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Self::Segment(segment) => segment.bytes(),
            Self::Part(bytes) => bytes,
        }
    }
}

/// Where a log ends, for segments that follow on it.
#[derive(Debug, Clone, Copy)]
pub struct LogEnd {
    /// Number of the next segment.
    pub segment_no: u64,
    /// Events of the run before it.
    pub events: u64,
    /// Loose frames before it.
    pub loose: u64,
    /// The stream's place before it.
    pub durable: Option<Place>,
}

/// Encodes a batch into segments.
#[derive(Debug)]
pub struct SegmentBuilder {
    bytes: Vec<u8>,
    frames: Vec<FrameMeta>,
    next_no: u64,
    events_before: u64,
    events: u64,
    classes: FrameClass,
    durable_before: Option<Place>,
    durable: Option<Place>,
    loose_before: u64,
    loose: u32,
    /// The last frames that are gaps of the store. They stand right before the
    /// event that comes next, and stay in its segment: who reads up to the
    /// start of a segment is told them there.
    open_gaps: usize,
    branch: Option<Box<Branch>>,
    last_event_ts: Option<Timestamp>,
    done: Vec<Segment>,
}

impl Default for SegmentBuilder {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            frames: Vec::new(),
            next_no: 0,
            events_before: 0,
            events: 0,
            classes: FrameClass::CONTROL,
            durable_before: None,
            durable: None,
            loose_before: 0,
            loose: 0,
            open_gaps: 0,
            branch: None,
            last_event_ts: None,
            done: Vec::new(),
        }
    }
}

impl SegmentBuilder {
    /// Makes one whose segments follow on those of a log.
    pub fn after(log: LogEnd) -> Self {
        Self {
            next_no: log.segment_no,
            events_before: log.events,
            durable_before: log.durable,
            durable: log.durable,
            loose_before: log.loose,
            ..Self::default()
        }
    }

    /// How many events of the run were pushed so far.
    pub fn events(&self) -> u64 {
        self.events_before + self.events
    }

    /// Number of the segment that holds the event pushed last.
    pub fn open_no(&self) -> u64 {
        self.next_no
    }

    /// Appends an event; `received_at` is that of its batch.
    pub fn push_event(
        &mut self,
        frame: &EventFrame<'_>,
        id: &EventId,
        class: FrameClass,
        durable: Option<DurableId>,
        ts: Timestamp,
        received_at: Instant,
    ) {
        let start = self.bytes.len();
        let spans = write_event(self.scratch(), frame, id);
        if self.bytes.len() > SEGMENT_BYTES_MAX {
            self.seal_before_open_gaps(received_at);
        }
        self.open_gaps = 0;
        let source_start = spans.source.start - start;
        self.note(source_start, spans.source.len(), spans.id.len(), class);
        self.events += 1;
        self.loose += u32::from(durable.is_none());
        self.durable = durable.map(Place::from).or(self.durable);
        self.last_event_ts = Some(ts);
    }

    /// Appends a frame that passes every filter and has an id only if it ends
    /// the run, which also makes it a segment of its own.
    pub fn push_control(&mut self, frame: &str, class: FrameClass, id: &str, received_at: Instant) {
        let ends = class == FrameClass::END;
        let is_store_gap = class == FrameClass::STORE_GAP;
        let overflows = self.bytes.len() + frame.len() > SEGMENT_BYTES_MAX;
        if ends || (overflows && !(is_store_gap && self.open_gaps > 0)) {
            self.seal(received_at);
        }
        self.open_gaps = if is_store_gap { self.open_gaps + 1 } else { 0 };
        self.scratch().extend_from_slice(frame.as_bytes());
        self.note(0, 0, id.len(), class);
        self.loose += u32::from(class == FrameClass::CONTROL);
        if ends {
            self.seal(received_at);
        }
    }

    /// Passes over a durable event that has no frame.
    pub fn pass(&mut self, id: DurableId) {
        self.durable = Some(id.into());
        self.open_gaps = 0;
    }

    /// Begins a segment, and with it a branch after `base`; who did not know
    /// the old one skips its first `skipped_frames`.
    pub fn begin_branch(&mut self, base: Place, skipped_frames: u32, received_at: Instant) {
        self.seal(received_at);
        self.durable = Some(base);
        self.durable_before = self.durable;
        self.branch = Some(Box::new(Branch {
            segment_no: self.next_no,
            skipped_frames,
            base: Some(base),
        }));
    }

    /// Begins a branch, if the run has durable events, with the `source` event
    /// of a stream that goes back to Redis: who comes later has it from the
    /// store what the lines of pods stood for.
    pub fn push_source(&mut self, frame: &str, begins_branch: bool, received_at: Instant) {
        if let Some(base) = self.durable.filter(|_| begins_branch) {
            self.begin_branch(base, 1, received_at);
        }
        self.push_control(frame, FrameClass::CONTROL, "", received_at);
    }

    /// Notes where the stream stands, before the first durable event.
    pub fn set_base(&mut self, base: Option<Place>) {
        self.durable = base;
        if self.frames.is_empty() {
            self.durable_before = base;
        }
    }

    /// Returns the segments of everything pushed since the last call.
    pub fn take(&mut self, received_at: Instant) -> Vec<Segment> {
        self.seal(received_at);
        let scratch = std::mem::take(&mut self.bytes);
        if scratch.capacity() <= SCRATCH_BYTES_KEPT {
            SCRATCH.set(scratch);
        }
        std::mem::take(&mut self.done)
    }

    /// Takes the thread's scratch buffer for a new batch: one serves all hubs
    /// of a thread, and an idle hub holds none.
    fn scratch(&mut self) -> &mut Vec<u8> {
        if self.bytes.capacity() == 0 {
            self.bytes = SCRATCH.take();
        }
        &mut self.bytes
    }

    fn note(&mut self, source_start: usize, source_len: usize, id_len: usize, class: FrameClass) {
        self.classes.0 |= class.0;
        self.frames.push(FrameMeta {
            end: self.bytes.len() as u32,
            source_len: source_len as u32,
            // What comes before is a run id and words of ours.
            source_start: source_start as u16,
            // Past 64 KiB only with a thousand containers; then no cursor.
            id_len: u16::try_from(id_len).unwrap_or(0),
            class,
        });
    }

    /// The frame just written, which would overflow, begins the next segment,
    /// with the gaps that stand right before it.
    fn seal_before_open_gaps(&mut self, received_at: Instant) {
        let kept = self.frames.len() - self.open_gaps;
        let Some(last) = kept.checked_sub(1).and_then(|last| self.frames.get(last)) else {
            return;
        };
        let cut = last.end;
        let gaps = self.frames.split_off(kept);
        self.seal_through(cut as usize, received_at);
        for gap in gaps {
            self.classes.0 |= gap.class.0;
            self.frames.push(FrameMeta {
                end: gap.end - cut,
                ..gap
            });
        }
    }

    fn seal(&mut self, received_at: Instant) {
        self.seal_through(self.bytes.len(), received_at);
    }

    /// Makes a segment of the frames noted, whose bytes end at `end`; those of
    /// the next one follow.
    fn seal_through(&mut self, end: usize, received_at: Instant) {
        self.open_gaps = 0;
        if self.frames.is_empty() {
            return;
        }
        // A copy: the scratch buffer keeps its capacity for the next batch,
        // and a kept segment holds no spare room.
        let (chunk, bytes) = chunked(&self.bytes[..end]);
        self.done.push(Segment(Arc::new(SegmentInner {
            chunk,
            bytes,
            frames: self.frames.as_slice().into(),
            no: self.next_no,
            events_before: self.events_before,
            events: self.events,
            classes: self.classes,
            durable_before: std::mem::replace(&mut self.durable_before, self.durable),
            durable_through: self.durable,
            loose_before: self.loose_before,
            loose: self.loose,
            branch: self.branch.take(),
            received_at,
            last_event_ts: self.last_event_ts.take(),
        })));
        self.next_no += 1;
        self.events_before += self.events;
        self.events = 0;
        self.loose_before += u64::from(std::mem::take(&mut self.loose));
        self.classes = FrameClass::CONTROL;
        self.frames.clear();
        self.bytes.drain(..end);
    }
}

/// Returns a copy of `bytes` as a chunk, and what lies in it.
fn chunked(bytes: &[u8]) -> (Bytes, Bytes) {
    let mut chunk = Vec::with_capacity(bytes.len() + CHUNK_OVERHEAD_BYTES);
    write!(chunk, "{:x}\r\n", bytes.len()).expect("writing to memory cannot fail");
    let start = chunk.len();
    chunk.extend_from_slice(bytes);
    chunk.extend_from_slice(b"\r\n");
    let chunk = Bytes::from(chunk);
    let bytes = chunk.slice(start..start + bytes.len());
    (chunk, bytes)
}
