//! The protocol, pure: names, ids, payload rules. No I/O, no actors.
//!
//! Everything that arrives from outside passes through a type here exactly
//! once, where it enters; what leaves again is built in [`crate::sse`].

mod channel;
mod event_id;
mod framed;
mod gap;
mod json_field;
mod kind;
mod payload;
mod place;
mod problem;
mod run_id;
mod timestamp;
mod trace_context;

pub use channel::{Channel, ChannelError, EVENTS_SUFFIX};
pub use event_id::{Cursor, CursorError, DurableId, EventId, HubId, KubectlPosition, PlainId};
pub use framed::{FRAME_VERSION, FramedEvent, FramedEventError};
pub use gap::{Gap, GapReason};
pub use json_field::{json_field, json_string_or_field};
pub use kind::{BackendKind, EventKind, LogLevel, UnknownKind, UnknownLevel};
pub(crate) use payload::write_json_string;
pub use payload::{Payload, log_level_of, status_word, terminal_status};
pub use place::Place;
pub use problem::Problem;
pub use run_id::{KUBECTL_RUN_ID_BYTES_MAX, RUN_ID_BYTES_MAX, RunId, RunIdError};
pub use timestamp::{Timestamp, TimestampText};
pub use trace_context::{SpanName, TraceContext, TracedEvent};
