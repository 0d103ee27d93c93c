//! OpenTelemetry: spans and metrics go to an OTLP receiver, if
//! `telemetry.otlp_endpoint` names one.
//!
//! Spans are made where their subjects live (`http::request_trace`, the actors'
//! `spans`), metrics are those of `/metrics`; here is only how they leave.

mod collector;
mod headers;
mod metrics;
mod settings;
mod spans;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{
    EnvResourceDetector, ResourceDetector as _, TelemetryResourceDetector,
};
use runcast_actors::metrics::DELIVERY_LAG;
use runcast_actors::spans::Spans;
use tokio::task::JoinHandle;
use tokio::time::{interval_at, timeout};

use crate::http::MetricsSource;
use collector::Signal;
use spans::SpanPipe;

pub(crate) use collector::Collector;
pub(crate) use settings::TelemetrySettings;

/// How long the end waits until what there is was sent.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// What sends a broker's spans and metrics.
pub(crate) struct Telemetry {
    collector: Arc<Collector>,
    /// None with `telemetry.traces = false`.
    spans: Option<SpanPipe>,
    /// None with `telemetry.metrics = false`.
    interval: Option<Duration>,
    resource: Resource,
    started: SystemTime,
}

/// The same of a broker that listens.
pub(crate) struct Running {
    telemetry: Telemetry,
    source: MetricsSource,
    reporting: Option<JoinHandle<()>>,
}

impl Telemetry {
    /// Prepares what the settings ask for; `None` if they name no receiver.
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// Variables of OpenTelemetry that cannot be used, or a machine without root
    /// certificates.
    pub(crate) fn of(settings: &TelemetrySettings) -> anyhow::Result<Option<Self>> {
        if settings.otlp_endpoint.is_empty() {
            return Ok(None);
        }
        let collector = Arc::new(Collector::of(settings)?);
        let resource = resource();
        let spans = settings
            .traces
            .then(|| SpanPipe::new(settings, &collector, resource.clone()));
        Ok(Some(Self {
            spans: spans.transpose()?,
            collector,
            interval: settings.metrics.then_some(settings.interval),
            resource,
            started: SystemTime::now(),
        }))
    }

    /// What makes the spans that are sent.
    pub(crate) fn spans(&self) -> Spans {
        self.spans
            .as_ref()
            .map(SpanPipe::tracer)
            .unwrap_or_default()
    }

    /// Begins to send the metrics of `source`, and counts there what is sent.
    ///
    /// # Errors
    /// [`prometheus::Error`] if two metrics have one name.
    pub(crate) fn report(self, source: MetricsSource) -> Result<Running, prometheus::Error> {
        self.collector.register(source.registry())?;
        if let Some(spans) = &self.spans {
            spans.register(source.registry())?;
        }
        let reporting = self.interval.map(|interval| {
            let report = self.report_of(source.clone());
            actix_rt::spawn(async move {
                // The first one after an interval: by then there is something.
                let mut ticks = interval_at(tokio::time::Instant::now() + interval, interval);
                loop {
                    ticks.tick().await;
                    report.send().await;
                }
            })
        });
        Ok(Running {
            telemetry: self,
            source,
            reporting,
        })
    }

    fn report_of(&self, source: MetricsSource) -> Report {
        Report {
            collector: Arc::clone(&self.collector),
            resource: self.resource.clone(),
            started: self.started,
            source,
        }
    }
}

impl Running {
    /// Sends what there is, once, and ends. Takes no longer than
    /// [`FLUSH_TIMEOUT`] and some.
    pub(crate) async fn stop(self) {
        let Self {
            telemetry,
            source,
            reporting,
        } = self;
        telemetry.collector.stop_repeating();
        let last_report = async {
            if let Some(reporting) = reporting {
                reporting.abort();
                telemetry.report_of(source).send().await;
            }
        };
        let last_spans = async {
            if let Some(spans) = telemetry.spans.as_ref() {
                spans.shut_down(FLUSH_TIMEOUT).await;
            }
        };
        // What was not sent by then is counted nowhere: nobody asks any more.
        let _ = timeout(FLUSH_TIMEOUT, async {
            tokio::join!(last_report, last_spans)
        })
        .await;
    }
}

/// The metrics of a broker, on their way.
struct Report {
    collector: Arc<Collector>,
    resource: Resource,
    started: SystemTime,
    source: MetricsSource,
}

impl Report {
    async fn send(&self) {
        let families = self.source.gather().await;
        let mut request = metrics::request(&families, &self.resource, self.started);
        metrics::add_exemplars(&mut request, DELIVERY_LAG, self.source.take_lag_exemplars());
        // Told and counted there.
        let _ = self.collector.send(Signal::Metrics, request).await;
    }
}

/// Who we are: `runcast`, of this version, one of many; all of it can be
/// overridden by `OTEL_RESOURCE_ATTRIBUTES`, the name by `OTEL_SERVICE_NAME`.
fn resource() -> Resource {
    let instance = format!("{:032x}", fastrand::u128(..));
    let resource = Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attributes([
            KeyValue::new("service.name", "runcast"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance),
        ]);
    let named = EnvResourceDetector::new().detect();
    let named = named
        .iter()
        .map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    let resource = resource.with_attributes(named);
    match std::env::var("OTEL_SERVICE_NAME") {
        Ok(name) if !name.is_empty() => resource.with_service_name(name).build(),
        _ => resource.build(),
    }
}
