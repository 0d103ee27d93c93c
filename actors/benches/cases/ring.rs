//! The ring of a run's newest segments: what a hub and each worker do with it
//! for every message, and once for a client that comes back.

use std::hint::black_box;

use runcast_actors::order::LogIndex as _;
use runcast_actors::run_log::RunLog;
use runcast_actors::sse::Segment;

use super::encode::Writer;
use super::input::{JSON, settings};
use super::{BATCH, Case, repeat};

/// A full ring, so that each append drops a segment.
struct Ring {
    log: RunLog,
    writer: Writer,
    next: Vec<Segment>,
}

impl Ring {
    fn full() -> Self {
        let bytes_max = settings().hub.ring_bytes.as_u64() as usize;
        let mut ring = Self {
            log: RunLog::new(bytes_max, u64::MAX),
            writer: Writer::new(JSON),
            next: Vec::new(),
        };
        while ring.log.front_no() == 0 {
            ring.prepare();
            ring.run();
        }
        ring
    }
}

impl Case for Ring {
    fn prepare(&mut self) {
        self.next = self.writer.segments_of_one(BATCH);
    }

    fn run(&mut self) {
        for segment in self.next.drain(..) {
            self.log.push(segment);
        }
    }
}

pub(crate) fn append() -> Box<dyn Case> {
    Box::new(Ring::full())
}

/// A client's next bytes: the segment at its place, and a reference to it.
pub(crate) fn read() -> Box<dyn Case> {
    let Ring { log, .. } = Ring::full();
    let mut no = log.front_no();
    repeat(move || {
        let segment = log.segment(black_box(no)).expect("kept");
        black_box(segment.slice(0..segment.frames().len()));
        no = if no + 1 == log.end_no() {
            log.front_no()
        } else {
            no + 1
        };
    })
}

/// The place of a client that comes back with the id of its last event.
pub(crate) fn find_id() -> Box<dyn Case> {
    let Ring { log, .. } = Ring::full();
    let (first, last) = (log.front_no() + 1, log.end_no());
    let mut seq = first;
    repeat(move || {
        let place = log.after(black_box(Writer::id(seq)));
        black_box(place).expect("kept");
        // Near and far ones in turn.
        seq = first + (seq * 7919) % (last - first);
    })
}
