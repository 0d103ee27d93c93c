//! [`Spans`]: the spans of an event's way, from its publish to the sockets.
//!
//! Made by OpenTelemetry's interface; where they go is known to who gives the
//! tracer. One for a post and what it asks of Redis, one for each hub that
//! delivers the event, one for each worker: never one for a client.

use std::fmt;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use opentelemetry::global::{BoxedSpan, BoxedTracer};
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _,
    TraceFlags, TraceId, Tracer as _,
};
use opentelemetry::{Context, KeyValue};

use crate::broker::{PublishError, PublishResult};
use crate::protocol::{BackendKind, DurableId, EventKind, RunId, SpanName, TraceContext};
use crate::worker::TracedSegment;

/// Attribute of all spans of a run.
pub const RUN_ID: &str = "runcast.run_id";

/// Makes spans, if `telemetry.traces` says so; else nothing. Cheap to clone.
#[derive(Clone, Default)]
pub struct Spans(Option<Arc<BoxedTracer>>);

impl fmt::Debug for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Spans").field(&self.0.is_some()).finish()
    }
}

impl Spans {
    /// Makes all spans by `tracer`.
    pub fn new(tracer: BoxedTracer) -> Self {
        Self(Some(Arc::new(tracer)))
    }

    /// Whether any are made.
    pub fn are_made(&self) -> bool {
        self.0.is_some()
    }

    /// Starts a span below `parent`, or one that begins a trace; `None` if it
    /// would not be recorded.
    pub fn start(&self, parent: Option<&SpanName>, builder: SpanBuilder) -> Option<OpenSpan> {
        let tracer = self.0.as_ref()?;
        let context = Context::new();
        let parent = match parent {
            Some(parent) => context.with_remote_span_context(context_of(parent)),
            None => context,
        };
        let span = tracer.build_with_context(builder, &parent);
        span.is_recording().then_some(OpenSpan(span))
    }

    /// Starts the span of a publish that belongs to `trace`.
    pub(crate) fn publish(
        &self,
        trace: Option<&TraceContext>,
        run_id: &RunId,
        events: usize,
    ) -> Option<OpenSpan> {
        let span = SpanBuilder::from_name("publish run:{run_id}")
            .with_kind(SpanKind::Producer)
            .with_attributes(messaging(run_id, "publish", "send"));
        let mut span = self.start(Some(trace?.span()), span)?;
        if events > 1 {
            span.set("messaging.batch.message_count", events as i64);
        }
        Some(span)
    }

    /// Starts the span of a call of `runcast_publish`, once for each event.
    pub(crate) fn call(&self, trace: Option<&TraceContext>, events: usize) -> Option<OpenSpan> {
        let span = SpanBuilder::from_name("FCALL runcast_publish")
            .with_kind(SpanKind::Client)
            .with_attributes([
                KeyValue::new("db.system.name", "redis"),
                KeyValue::new("db.operation.name", "FCALL"),
                KeyValue::new("db.stored_procedure.name", "runcast_publish"),
            ]);
        let mut span = self.start(Some(trace?.span()), span)?;
        if events > 1 {
            span.set("db.operation.batch.size", events as i64);
        }
        Some(span)
    }

    /// Starts the span of an event's delivery by a hub, at the time when it was
    /// read.
    pub(crate) fn delivery(&self, run_id: &RunId, event: &TracedDelivery) -> Option<OpenSpan> {
        let mut attributes = messaging(run_id, "deliver", "process");
        attributes.extend([
            KeyValue::new("messaging.message.id", event.id.to_string()),
            KeyValue::new("runcast.kind", event.kind.as_str()),
            KeyValue::new("runcast.backend", event.backend.as_str()),
            KeyValue::new("runcast.clients", count(event.clients)),
        ]);
        let span = SpanBuilder::from_name("deliver run:{run_id}")
            .with_kind(SpanKind::Consumer)
            .with_start_time(time_of(event.received_at))
            .with_attributes(attributes);
        self.start(Some(event.trace.span()), span)
    }

    /// Makes the span of an event's way through a worker, which hands it to the
    /// first socket now, of so many clients.
    pub(crate) fn flushed(&self, run_id: &RunId, event: &TracedSegment, clients: usize) {
        let span = SpanBuilder::from_name("flush run:{run_id}")
            .with_start_time(time_of(event.queued_at))
            .with_attributes([
                KeyValue::new(RUN_ID, run_id.to_string()),
                KeyValue::new("runcast.clients", count(clients as u64)),
            ]);
        // It ends when it is dropped.
        drop(self.start(Some(event.trace.span()), span));
    }
}

/// A traced event that a hub has written to its workers.
#[derive(Debug)]
pub(crate) struct TracedDelivery {
    /// What it belongs to.
    pub(crate) trace: TraceContext,
    pub(crate) id: DurableId,
    pub(crate) kind: EventKind,
    pub(crate) backend: BackendKind,
    /// When it was read.
    pub(crate) received_at: Instant,
    /// Of this broker, in all.
    pub(crate) clients: u64,
}

/// A span that is recorded, until it is dropped.
#[derive(Debug)]
pub struct OpenSpan(BoxedSpan);

impl OpenSpan {
    /// What is done in it belongs to this.
    pub fn trace(&self) -> Option<TraceContext> {
        let context = self.0.span_context();
        TraceContext::recorded(SpanName {
            trace_id: u128::from_be_bytes(context.trace_id().to_bytes()),
            span_id: u64::from_be_bytes(context.span_id().to_bytes()),
            is_recorded: context.is_sampled(),
            is_remote: context.is_remote(),
            state: context.trace_state().header(),
        })
    }

    /// Sets an attribute.
    pub fn set(&mut self, key: &'static str, value: impl Into<opentelemetry::Value>) {
        self.0.set_attribute(KeyValue::new(key, value));
    }

    /// Names it anew: more is known than when it began.
    pub fn rename(&mut self, name: String) {
        self.0.update_name(name);
    }

    /// Notes that it failed; `kind` is one of few words.
    pub fn fail(&mut self, kind: impl Into<opentelemetry::Value>) {
        self.set("error.type", kind);
        self.0.set_status(Status::error(""));
    }

    /// Notes what became of events: the id of a single one, or why one was not
    /// accepted.
    pub(crate) fn note_results(&mut self, results: &[PublishResult]) {
        if let [Ok(published)] = results
            && let Some(id) = published.id
        {
            self.set("messaging.message.id", id.to_string());
        }
        let error = results.iter().find_map(|result| result.as_ref().err());
        if let Some(error) = error {
            self.fail(match error {
                PublishError::Closed => "closed",
                PublishError::Fenced => "fenced",
                PublishError::TooLarge { .. } => "too_large",
                PublishError::Unavailable(_) => "unavailable",
            });
        }
    }
}

fn context_of(span: &SpanName) -> SpanContext {
    SpanContext::new(
        TraceId::from(span.trace_id),
        SpanId::from(span.span_id),
        TraceFlags::default().with_sampled(span.is_recorded),
        span.is_remote,
        span.state.parse().unwrap_or_default(),
    )
}

/// What every span of a publish or a delivery says.
fn messaging(run_id: &RunId, operation: &'static str, kind: &'static str) -> Vec<KeyValue> {
    vec![
        KeyValue::new("messaging.system", "runcast"),
        KeyValue::new("messaging.operation.name", operation),
        KeyValue::new("messaging.operation.type", kind),
        KeyValue::new("messaging.destination.template", "run:{run_id}"),
        KeyValue::new("messaging.destination.name", format!("run:{run_id}")),
        KeyValue::new(RUN_ID, run_id.to_string()),
    ]
}

fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn time_of(instant: Instant) -> SystemTime {
    let now = SystemTime::now();
    now.checked_sub(instant.elapsed()).unwrap_or(now)
}
