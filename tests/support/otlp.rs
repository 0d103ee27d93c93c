//! [`Receiver`]: an OTLP/HTTP receiver that keeps what it is sent, and fails as
//! a test wants it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, mpsc};

use actix_web::dev::ServerHandle;
use actix_web::http::StatusCode;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric::Data};
use opentelemetry_proto::tonic::trace::v1::{Span as SpanProto, span::SpanKind};
use prost::Message as _;

use super::broker::BrokerSettings;
use super::port::free_port;
use super::wait::{SOON, eventually};

/// A receiver; it ends when dropped.
pub(crate) struct Receiver {
    address: SocketAddr,
    shared: Arc<Mutex<Received>>,
    server: Option<ServerHandle>,
}

/// What came, and what is answered.
#[derive(Default)]
struct Received {
    spans: Vec<Span>,
    metrics: Vec<Metric>,
    /// Traces that exemplars of the delivery lag led to.
    exemplars: Vec<String>,
    /// The resource of the last batch.
    resource: Vec<(String, String)>,
    /// `Authorization` of the last batch.
    authorization: String,
    /// Statuses of the next answers; then 200.
    failures: Vec<u16>,
    hangs: bool,
}

/// A span, as tests look at it.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    /// `service.name` of who made it.
    pub(crate) service: String,
    pub(crate) name: String,
    pub(crate) kind: SpanKind,
    pub(crate) trace_id: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) state: String,
    pub(crate) begin: u64,
    pub(crate) end: u64,
    pub(crate) failed: bool,
    attributes: Vec<(String, String)>,
}

impl Span {
    fn of(service: &str, span: SpanProto) -> Self {
        Self {
            service: service.to_owned(),
            kind: span.kind(),
            failed: span.status.is_some_and(|status| status.code == 2),
            name: span.name,
            trace_id: hex(&span.trace_id),
            id: hex(&span.span_id),
            parent: hex(&span.parent_span_id),
            state: span.trace_state,
            begin: span.start_time_unix_nano,
            end: span.end_time_unix_nano,
            attributes: texts(&span.attributes),
        }
    }

    /// Returns an attribute's value; empty for none.
    pub(crate) fn attribute(&self, key: &str) -> &str {
        value_of(&self.attributes, key)
    }
}

impl Receiver {
    /// Starts one.
    pub(crate) fn start() -> Self {
        let mut receiver = Self::down();
        receiver.restart();
        receiver
    }

    /// Reserves a place for one that does not run yet.
    pub(crate) fn down() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], free_port())),
            shared: Arc::default(),
            server: None,
        }
    }

    /// Starts it where it was. On a thread of its own, for tests that block.
    pub(crate) fn restart(&mut self) {
        let (started, starting) = mpsc::sync_channel(1);
        let shared = web::Data::from(Arc::clone(&self.shared));
        let address = self.address;
        std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let app = move || {
                    App::new()
                        .app_data(shared.clone())
                        .default_service(web::to(answer))
                };
                let server = HttpServer::new(app).workers(1).disable_signals();
                let server = server.bind(address).expect("a free port").run();
                started.send(server.handle()).expect("awaited");
                server.await.expect("it serves until it is stopped");
            });
        });
        self.server = Some(starting.recv().expect("it starts"));
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Has a broker send here, quickly, what belongs to a trace of its clients.
    pub(crate) fn of(&self, settings: BrokerSettings, service: &str) -> BrokerSettings {
        settings
            .set("telemetry.otlp_endpoint", self.url())
            .set("telemetry.sample_ratio", "0")
            .set("telemetry.interval", "100ms")
            .variable("OTEL_BSP_SCHEDULE_DELAY", "20")
            .variable("OTEL_SERVICE_NAME", service)
    }

    fn lock(&self) -> MutexGuard<'_, Received> {
        self.shared.lock().expect("nobody panicked")
    }

    /// Has the next batches answered with these statuses, the last one first.
    pub(crate) fn fail(&self, statuses: &[u16]) {
        self.lock().failures = statuses.to_vec();
    }

    /// Has nothing answered from now on.
    pub(crate) fn hang(&self) {
        self.lock().hangs = true;
    }

    /// The spans that came, of a trace.
    pub(crate) fn spans(&self, trace_id: &str) -> Vec<Span> {
        let spans = &self.lock().spans;
        let spans = spans.iter().filter(|span| span.trace_id == trace_id);
        spans.cloned().collect()
    }

    /// All spans that came.
    pub(crate) fn all_spans(&self) -> Vec<Span> {
        self.lock().spans.clone()
    }

    /// Waits for a span; returns the first one.
    pub(crate) async fn span(&self, what: &str, is_it: impl Fn(&Span) -> bool) -> Span {
        let found = || self.lock().spans.iter().find(|span| is_it(span)).cloned();
        eventually(what, SOON, || {
            let has_come = found().is_some();
            async move { has_come }
        })
        .await;
        found().expect("just seen")
    }

    /// Waits until the delivery lag leads to a trace.
    pub(crate) async fn exemplar(&self, trace_id: &str) {
        eventually("the delivery lag has an exemplar", SOON, || {
            let has_come = self.lock().exemplars.iter().any(|known| known == trace_id);
            async move { has_come }
        })
        .await;
    }

    /// The metrics of the last batch.
    pub(crate) fn metrics(&self) -> Vec<Metric> {
        self.lock().metrics.clone()
    }

    /// A number of the last batch: the sum of what has these labels.
    pub(crate) fn number(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let metrics = self.metrics();
        let metric = metrics.into_iter().find(|metric| metric.name == name)?;
        let points = match metric.data? {
            Data::Sum(sum) => sum.data_points,
            Data::Gauge(gauge) => gauge.data_points,
            other => panic!("no number: {other:?}"),
        };
        let has = |attributes: &[KeyValue], label: &(&str, &str)| {
            value_of(&texts(attributes), label.0) == label.1
        };
        let points = points.iter();
        let points =
            points.filter(|point| labels.iter().all(|label| has(&point.attributes, label)));
        Some(points.map(|point| number_of(point.value)).sum())
    }

    /// What the last batch says of who sent it.
    pub(crate) fn resource(&self, key: &str) -> String {
        value_of(&self.lock().resource, key).to_owned()
    }

    pub(crate) fn authorization(&self) -> String {
        self.lock().authorization.clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            // Awaited by nobody: its thread ends by itself.
            drop(server.stop(false));
        }
    }
}

async fn answer(
    request: HttpRequest,
    body: web::Bytes,
    shared: web::Data<Mutex<Received>>,
) -> HttpResponse {
    let (hangs, failure) = {
        let mut received = shared.lock().expect("nobody panicked");
        (received.hangs, received.failures.pop())
    };
    if hangs {
        return std::future::pending().await;
    }
    if let Some(status) = failure {
        return HttpResponse::new(StatusCode::from_u16(status).expect("a status"));
    }
    let kind = request.headers().get("content-type");
    assert_eq!(kind.expect("a type"), "application/x-protobuf");
    let mut received = shared.lock().expect("nobody panicked");
    let authorization = request.headers().get("authorization");
    let authorization = authorization.and_then(|value| value.to_str().ok());
    received.authorization = authorization.unwrap_or_default().to_owned();
    match request.path() {
        "/v1/traces" => {
            let batch = ExportTraceServiceRequest::decode(body).expect("spans");
            for of_resource in batch.resource_spans {
                let resource = of_resource.resource.unwrap_or_default();
                let resource = texts(&resource.attributes);
                let service = value_of(&resource, "service.name").to_owned();
                received.resource = resource;
                let spans = of_resource.scope_spans.into_iter();
                let spans = spans.flat_map(|scope| scope.spans);
                received
                    .spans
                    .extend(spans.map(|span| Span::of(&service, span)));
            }
        }
        "/v1/metrics" => {
            let batch = ExportMetricsServiceRequest::decode(body).expect("metrics");
            let [of_resource] = &batch.resource_metrics[..] else {
                panic!("{batch:?}");
            };
            let resource = of_resource.resource.clone().unwrap_or_default();
            received.resource = texts(&resource.attributes);
            let metrics = &of_resource.scope_metrics[0].metrics;
            received.metrics.clone_from(metrics);
            let lag = metrics
                .iter()
                .find(|one| one.name == "runcast_delivery_lag_seconds");
            if let Some(Data::Histogram(lag)) = lag.and_then(|metric| metric.data.clone()) {
                let exemplars = lag.data_points.iter().flat_map(|point| &point.exemplars);
                received
                    .exemplars
                    .extend(exemplars.map(|one| hex(&one.trace_id)));
            }
        }
        path => panic!("asked for {path}"),
    }
    HttpResponse::Ok()
        .content_type("application/x-protobuf")
        .finish()
}

/// The value of a point.
pub(crate) fn number_of(
    value: Option<opentelemetry_proto::tonic::metrics::v1::number_data_point::Value>,
) -> f64 {
    use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
    match value.expect("a value") {
        Value::AsDouble(value) => value,
        Value::AsInt(value) => value as f64,
    }
}

/// Attributes as texts.
pub(crate) fn texts(attributes: &[KeyValue]) -> Vec<(String, String)> {
    let text = |attribute: &KeyValue| {
        let value = attribute.value.clone().and_then(|value| value.value);
        let value = match value.expect("a value") {
            Value::StringValue(text) => text,
            Value::IntValue(number) => number.to_string(),
            other => panic!("{other:?}"),
        };
        (attribute.key.clone(), value)
    };
    attributes.iter().map(text).collect()
}

fn value_of<'a>(attributes: &'a [(String, String)], key: &str) -> &'a str {
    let found = attributes.iter().find(|(known, _)| known == key);
    found.map_or("", |(_, value)| value)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
