//! [`FrameFilter`]: a client's wishes, compiled to tests on encoded frames.

use crate::broker::StreamFilter;
use crate::protocol::{
    Cursor, EventId, EventKind, KubectlPosition, LogLevel, Payload, log_level_of, write_json_string,
};
use crate::sse::{FrameClass, Segment};
use crate::store::StoredEvent;

/// Which frames a client wants; tested without decoding any of them.
#[derive(Debug, Clone, Default)]
pub struct FrameFilter {
    hidden: FrameClass,
    /// As JSON strings without quotes, as frames hold them. Empty: all.
    sources: Box<[Box<[u8]>]>,
    /// Lines at or before this position were sent on an earlier connection.
    covered: Option<KubectlPosition>,
}

impl FrameFilter {
    /// Compiles `filter`.
    pub fn new(filter: &StreamFilter) -> Self {
        let sources = filter.sources.iter().map(|source| {
            let mut json = Vec::new();
            write_json_string(source, &mut json);
            Box::from(&json[1..json.len() - 1])
        });
        Self {
            hidden: FrameClass::hidden_by(&filter.kinds, filter.log_level),
            sources: sources.collect(),
            covered: None,
        }
    }

    /// Hides all `log` events, too; says whether that hides more than before.
    pub fn hide_logs(&mut self) -> bool {
        let others = [EventKind::Output, EventKind::Status];
        let hidden = self
            .hidden
            .and(FrameClass::hidden_by(&others, LogLevel::Info));
        std::mem::replace(&mut self.hidden, hidden) != hidden
    }

    /// Hides the lines that `position` covers, too.
    pub fn set_covered(&mut self, position: Option<KubectlPosition>) {
        self.covered = position;
    }

    /// Whether lines are hidden because the client has seen them: then ids
    /// have to be those of [`Self::resumed_id`].
    pub fn is_resuming(&self) -> bool {
        self.covered.is_some()
    }

    /// Returns the id that frame `index` has for this client, and whether the
    /// client has caught up with it. The logs are read again in an order of
    /// their own; with the frame's id as its cursor, a client would come back
    /// behind what it has seen of other containers.
    pub fn resumed_id(&self, segment: &Segment, index: usize) -> Option<(String, bool)> {
        let covered = self.covered.as_ref()?;
        let cursor: Cursor = segment.id_of(index)?.parse().ok()?;
        let EventId::Kubectl(position) = cursor.id else {
            return None;
        };
        let caught_up = position.covers_all(covered);
        let resumed = Cursor {
            id: EventId::Kubectl(covered.after_line(&position)),
            ..cursor
        };
        Some((resumed.to_string(), caught_up))
    }

    /// Whether every frame of `segment` passes: the common case, one test.
    pub fn passes_all(&self, segment: &Segment) -> bool {
        !self.hidden.meets(segment.classes()) && self.sources.is_empty() && self.covered.is_none()
    }

    /// Whether an event that has no frame yet passes.
    pub fn passes_stored(&self, event: &StoredEvent) -> bool {
        let class = FrameClass::of(event.kind, level_of(event));
        let mut source = Vec::new();
        if !self.sources.is_empty() {
            write_json_string(&event.source, &mut source);
        }
        let source = source.get(1..source.len().saturating_sub(1));
        !self.hidden.meets(class)
            && (self.sources.is_empty() || self.wants_source(source.unwrap_or_default()))
    }

    /// Whether frame `index` of `segment` passes.
    pub fn passes(&self, segment: &Segment, index: usize) -> bool {
        let class = segment.frames()[index].class();
        if !class.is_event() {
            return true;
        }
        !self.hidden.meets(class)
            && (self.sources.is_empty() || self.wants_source(segment.source_of(index)))
            && !self.is_covered(segment, index)
    }

    fn wants_source(&self, source: &[u8]) -> bool {
        self.sources.iter().any(|wanted| **wanted == *source)
    }

    /// Whether the client has seen this line on an earlier connection.
    fn is_covered(&self, segment: &Segment, index: usize) -> bool {
        let Some(covered) = &self.covered else {
            return false;
        };
        let id = segment.id_of(index).and_then(|id| id.parse().ok());
        id.is_some_and(|id: KubectlPosition| covered.covers_line(&id))
    }
}

fn level_of(event: &StoredEvent) -> LogLevel {
    match event.kind {
        EventKind::Log => log_level_of(Payload::classify(&event.payload)),
        EventKind::Output | EventKind::Status => LogLevel::Info,
    }
}
