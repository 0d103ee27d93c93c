//! Server-Sent Events, encoded once: frames, and segments of frames.
//!
//! Pure like [`crate::protocol`]: bytes in, bytes out.

mod frame;
mod segment;

pub use frame::{
    EventFrame, FrameSpans, cursor_frame, end_frame, gap_data, gap_frame, goodbye_frame,
    heartbeat_frame, hello_frame, problem_frame, retry_block, source_frame, write_event,
};
pub use segment::{
    Branch, EventParts, FrameClass, FrameMeta, LogEnd, Piece, SEGMENT_BYTES_MAX, Segment,
    SegmentBuilder,
};
