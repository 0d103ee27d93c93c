//! Events as frames, and frames in segments.

use std::hint::black_box;
use std::time::Instant;

use runcast_actors::protocol::{
    BackendKind, DurableId, EventKind, LogLevel, Payload, RunId, Timestamp,
};
use runcast_actors::sse::{EventFrame, FrameClass, Segment, SegmentBuilder};

use super::input::{EPOCH, JSON, TEXT, TOKEN, run_id};
use super::{BATCH, Case};

/// Writes a run's durable events as its hub does.
pub(crate) struct Writer {
    run_id: RunId,
    payload: Payload<'static>,
    builder: SegmentBuilder,
    seq: u64,
    ts: String,
    received_at: Instant,
}

impl Writer {
    pub(crate) fn new(payload: &'static str) -> Self {
        Self {
            run_id: run_id(42),
            payload: Payload::classify(payload.as_bytes()),
            builder: SegmentBuilder::default(),
            seq: 0,
            ts: timestamp().to_string(),
            received_at: Instant::now(),
        }
    }

    /// Writes the next event.
    pub(crate) fn push(&mut self) {
        self.seq += 1;
        let id = Self::id(self.seq);
        let frame = EventFrame {
            run_id: &self.run_id,
            kind: EventKind::Output,
            source: black_box("stdout"),
            ts: &self.ts,
            backend: BackendKind::Redis,
            payload: black_box(self.payload),
        };
        let class = FrameClass::of(EventKind::Output, LogLevel::Info);
        let ts = timestamp();
        self.builder
            .push_event(&frame, &id, class, Some(id), ts, self.received_at);
    }

    /// Takes what was written.
    pub(crate) fn take(&mut self) -> Vec<Segment> {
        self.builder.take(self.received_at)
    }

    /// Writes `count` events, each as a segment.
    pub(crate) fn segments_of_one(&mut self, count: u64) -> Vec<Segment> {
        let one = |_| {
            self.push();
            self.take()
        };
        (0..count).flat_map(one).collect()
    }

    /// The id of event `seq`.
    pub(crate) fn id(seq: u64) -> DurableId {
        DurableId {
            epoch: EPOCH,
            seq,
            us: EPOCH * 1000 + seq,
        }
    }
}

fn timestamp() -> Timestamp {
    Timestamp::from_micros(EPOCH as i64 * 1000)
}

impl Case for Writer {
    fn run(&mut self) {
        for _ in 0..BATCH {
            self.push();
        }
        black_box(self.take());
    }
}

pub(crate) fn json() -> Box<dyn Case> {
    Box::new(Writer::new(JSON))
}

pub(crate) fn token() -> Box<dyn Case> {
    Box::new(Writer::new(TOKEN))
}

pub(crate) fn text() -> Box<dyn Case> {
    Box::new(Writer::new(TEXT))
}
