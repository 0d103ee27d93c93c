//! What a [`KubectlLogActor`](super) tells its hub.

use std::sync::Arc;

use actix::Message;
use bytes::Bytes;

use crate::protocol::{EventKind, KubectlPosition, Problem, Timestamp};

/// One line of a container's log, classified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubectlLine {
    /// From the line's `type`/`kind` if it is a JSON object that names one of
    /// ours, else `output`.
    pub kind: EventKind,
    /// `pod/container`.
    pub source: Arc<str>,
    /// The kubelet's time of the line.
    pub ts: Timestamp,
    /// The text without its timestamp and line break.
    pub payload: Bytes,
    /// Position of every container after this line; becomes the event's id.
    pub position: KubectlPosition,
}

/// What a follow of a run's pods tells the hub, in order. Sent with
/// `send().await`, so that a flood of lines waits for the hub and not the hub
/// for the flood.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub enum KubectlUpdate {
    /// Pods were listed for the first time: waiting streams may say `hello`.
    Ready,
    /// Lines, in the order they are to be delivered.
    Lines(Vec<KubectlLine>),
    /// Something is wrong that may pass; the streams stay open. Told to those
    /// who watch and to those who come until `Resolved` or the next lines.
    Problem(Problem),
    /// The last `Problem` holds no longer.
    Resolved,
    /// A line was longer than `limits.max_event_bytes` and was dropped.
    TooLarge {
        /// Bytes of the line, if it was read to its end.
        bytes: Option<u64>,
    },
    /// It cannot go on: every stream gets `problem` and `goodbye`
    /// (reason `unavailable`). The actor stops after this.
    Failed(Problem),
    /// All pods of the run are terminal: a terminal `status` event follows,
    /// then `end`. The actor stops after this.
    Ended {
        /// `succeeded` or `failed`.
        status: &'static str,
        /// Of the last container to finish.
        ts: Timestamp,
    },
}
