//! [`SpanPipe`]: spans on their way to the [`Collector`].
//!
//! The SDK gathers them into batches, on a thread of its own. What it does not
//! tell, how many it drops, is known here: never more than its queue takes are
//! given to it.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::global::BoxedTracer;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, Span, SpanData,
    SpanExporter, SpanProcessor,
};
use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use runcast_actors::spans::Spans;
use tokio::runtime::Handle;

use super::TelemetrySettings;
use super::collector::{Collector, SendError, Signal};

/// Most spans sent together, and kept until they are: the SDK's default.
const BATCH_SPANS: usize = 512;

/// Where spans go.
pub(super) struct SpanPipe {
    provider: SdkTracerProvider,
    queue: Arc<Queue>,
}

impl SpanPipe {
    /// Starts the thread that gathers spans. They are sent on the runtime of the
    /// caller.
    ///
    /// # Errors
    /// [`prometheus::Error`] for a name that is none.
    pub(super) fn new(
        settings: &TelemetrySettings,
        collector: &Arc<Collector>,
        resource: Resource,
    ) -> Result<Self, prometheus::Error> {
        let queue = Arc::new(Queue::new(settings.queue_spans)?);
        let exporter = Exporter {
            collector: Arc::clone(collector),
            runtime: Handle::current(),
            resource: ResourceAttributesWithSchema::default(),
            queue: Arc::clone(&queue),
        };
        // How long a batch waits is OTEL_BSP_SCHEDULE_DELAY.
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(settings.queue_spans)
            .with_max_export_batch_size(BATCH_SPANS.min(settings.queue_spans))
            .build();
        let batches = BatchSpanProcessor::builder(exporter)
            .with_batch_config(batches)
            .build();
        let processor = Bounded {
            batches,
            queue: Arc::clone(&queue),
        };
        // A request that comes with a trace is recorded if that is.
        let sampler =
            Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.sample_ratio)));
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_sampler(sampler)
            .with_resource(resource)
            .build();
        Ok(Self { provider, queue })
    }

    /// What makes spans that come here.
    pub(super) fn tracer(&self) -> Spans {
        let tracer = self.provider.tracer("runcast");
        Spans::new(BoxedTracer::new(Box::new(tracer)))
    }

    /// Adds what is counted.
    ///
    /// # Errors
    /// [`prometheus::Error`] if two metrics have one name.
    pub(super) fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.queue.waiting.clone()))?;
        registry.register(Box::new(self.queue.spans.clone()))
    }

    /// Sends what there is, for so long at most, and ends the thread.
    pub(super) async fn shut_down(&self, patience: Duration) {
        let provider = self.provider.clone();
        let ending = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(patience));
        // Whether all of it was sent was told and counted.
        let _ = ending.await;
    }
}

/// Bounds the spans that wait, those just being sent included.
#[derive(Debug)]
struct Queue {
    max: i64,
    waiting: IntGauge,
    spans: IntCounterVec,
}

impl Queue {
    fn new(max: usize) -> Result<Self, prometheus::Error> {
        let waiting = IntGauge::new(
            "runcast_telemetry_queue_spans",
            "Spans that wait to be sent, or are being sent.",
        )?;
        let spans = IntCounterVec::new(
            Opts::new(
                "runcast_telemetry_spans_total",
                "Spans by what became of them; dropped is for a full queue (telemetry.queue_spans).",
            ),
            &["result"],
        )?;
        for result in ["sent", "failed", "dropped"] {
            spans.with_label_values(&[result]);
        }
        Ok(Self {
            max: i64::try_from(max).unwrap_or(i64::MAX),
            waiting,
            spans,
        })
    }

    /// Takes a place, if one is free.
    fn enter(&self) -> bool {
        self.waiting.inc();
        let has_room = self.waiting.get() <= self.max;
        if !has_room {
            self.waiting.dec();
            self.spans.with_label_values(&["dropped"]).inc();
        }
        has_room
    }

    /// Gives places back.
    fn leave(&self, count: usize, sent: &Result<(), SendError>) {
        self.waiting.sub(count as i64);
        let refused = match sent {
            Ok(()) => 0,
            Err(SendError::Partly { count: refused, .. }) => {
                usize::try_from(*refused).map_or(0, |refused| refused.min(count))
            }
            Err(_) => count,
        };
        for (result, spans) in [("sent", count - refused), ("failed", refused)] {
            self.spans.with_label_values(&[result]).inc_by(spans as u64);
        }
    }
}

/// Gives the SDK's processor no more than it takes.
#[derive(Debug)]
struct Bounded {
    batches: BatchSpanProcessor,
    queue: Arc<Queue>,
}

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.batches.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.queue.enter() {
            self.batches.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}

/// Sends batches of the SDK's thread, which has no runtime, by ours.
struct Exporter {
    collector: Arc<Collector>,
    runtime: Handle,
    resource: ResourceAttributesWithSchema,
    queue: Arc<Queue>,
}

impl std::fmt::Debug for Exporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exporter").finish_non_exhaustive()
    }
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let request = ExportTraceServiceRequest {
            resource_spans: group_spans_by_resource_and_scope(batch, &self.resource),
        };
        let collector = Arc::clone(&self.collector);
        let sending = async move { collector.send(Signal::Traces, request).await };
        // It does not come to an end only if the process does.
        let sent = self.runtime.spawn(sending).await;
        let sent = sent.unwrap_or_else(|error| Err(SendError::NoAnswer(error.to_string())));
        self.queue.leave(count, &sent);
        sent.map_err(|error| OTelSdkError::InternalFailure(error.to_string()))
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = resource.into();
    }
}
