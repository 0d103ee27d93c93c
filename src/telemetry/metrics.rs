//! The metrics of `/metrics` as OTLP: the same names, labels and values.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar as ExemplarProto, Gauge, Histogram, HistogramDataPoint,
    Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, exemplar, metric::Data,
    number_data_point::Value,
};
use opentelemetry_proto::tonic::resource::v1::Resource as ResourceProto;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_sdk::Resource;
use prometheus::proto::{LabelPair, Metric as Sample, MetricFamily, MetricType};
use runcast_actors::metrics::Exemplar;

/// Returns all of `families`, counted since `started`, as one request.
pub(super) fn request(
    families: &[MetricFamily],
    resource: &Resource,
    started: SystemTime,
) -> ExportMetricsServiceRequest {
    let times = Times {
        start: nanos(started),
        now: nanos(SystemTime::now()),
    };
    let resource = ResourceAttributesWithSchema::from(resource);
    let scope = InstrumentationScope {
        name: "runcast".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let metrics = families.iter().map(|family| metric(family, times));
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(ResourceProto {
                attributes: resource.attributes.0,
                ..ResourceProto::default()
            }),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(scope),
                metrics: metrics.collect(),
                schema_url: String::new(),
            }],
            schema_url: resource.schema_url.unwrap_or_default(),
        }],
    }
}

/// Adds exemplars to the one point of a histogram.
pub(super) fn add_exemplars(
    request: &mut ExportMetricsServiceRequest,
    name: &str,
    exemplars: Vec<Exemplar>,
) {
    let exemplar = |exemplar: Exemplar| {
        let span = exemplar.trace.span();
        ExemplarProto {
            time_unix_nano: nanos(exemplar.at),
            trace_id: span.trace_id.to_be_bytes().to_vec(),
            span_id: span.span_id.to_be_bytes().to_vec(),
            value: Some(exemplar::Value::AsDouble(exemplar.value)),
            ..ExemplarProto::default()
        }
    };
    let scopes = request.resource_metrics.iter_mut();
    let mut metrics = scopes
        .flat_map(|resource| &mut resource.scope_metrics)
        .flat_map(|scope| &mut scope.metrics);
    if let Some(metric) = metrics.find(|metric| metric.name == name)
        && let Some(Data::Histogram(histogram)) = &mut metric.data
        && let [point] = &mut histogram.data_points[..]
    {
        point.exemplars = exemplars.into_iter().map(exemplar).collect();
    }
}

/// From when to when was counted.
#[derive(Clone, Copy)]
struct Times {
    start: u64,
    now: u64,
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn metric(family: &MetricFamily, times: Times) -> Metric {
    const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;
    let samples = family.get_metric().iter();
    let data = match family.get_field_type() {
        MetricType::COUNTER => Data::Sum(Sum {
            data_points: samples
                .map(|sample| number(sample, sample.get_counter().get_value(), times))
                .collect(),
            aggregation_temporality: CUMULATIVE,
            is_monotonic: true,
        }),
        MetricType::HISTOGRAM => Data::Histogram(Histogram {
            data_points: samples.map(|sample| histogram(sample, times)).collect(),
            aggregation_temporality: CUMULATIVE,
        }),
        // We have no others.
        _ => Data::Gauge(Gauge {
            data_points: samples
                .map(|sample| number(sample, sample.get_gauge().get_value(), times))
                .collect(),
        }),
    };
    Metric {
        name: family.name().to_owned(),
        description: family.help().to_owned(),
        // It stands in the name, as Prometheus has it.
        unit: String::new(),
        metadata: Vec::new(),
        data: Some(data),
    }
}

fn number(sample: &Sample, value: f64, times: Times) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes(sample.get_label()),
        start_time_unix_nano: times.start,
        time_unix_nano: times.now,
        value: Some(Value::AsDouble(value)),
        ..NumberDataPoint::default()
    }
}

/// Buckets of Prometheus count all below their bound, those here only what lies
/// between two.
fn histogram(sample: &Sample, times: Times) -> HistogramDataPoint {
    let histogram = sample.get_histogram();
    let count = histogram.get_sample_count();
    let bounded = histogram.get_bucket().iter();
    let bounded = bounded.filter(|bucket| bucket.upper_bound().is_finite());
    let (mut bounds, mut counts, mut below) = (Vec::new(), Vec::new(), 0);
    for bucket in bounded {
        bounds.push(bucket.upper_bound());
        counts.push(bucket.cumulative_count().saturating_sub(below));
        below = bucket.cumulative_count();
    }
    counts.push(count.saturating_sub(below));
    HistogramDataPoint {
        attributes: attributes(sample.get_label()),
        start_time_unix_nano: times.start,
        time_unix_nano: times.now,
        count,
        sum: Some(histogram.get_sample_sum()),
        bucket_counts: counts,
        explicit_bounds: bounds,
        ..HistogramDataPoint::default()
    }
}

fn attributes(labels: &[LabelPair]) -> Vec<KeyValue> {
    let attribute = |label: &LabelPair| KeyValue {
        key: label.name().to_owned(),
        value: Some(AnyValue {
            value: Some(any_value::Value::StringValue(label.value().to_owned())),
        }),
        ..KeyValue::default()
    };
    labels.iter().map(attribute).collect()
}

#[cfg(test)]
mod tests {
    use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry};

    use super::*;

    #[test]
    fn every_kind_keeps_its_name_labels_and_values() {
        let registry = Registry::new();
        let counter = IntCounterVec::new(Opts::new("c_total", "A c."), &["kind"]).expect("good");
        counter.with_label_values(&["log"]).inc_by(2);
        let gauge = IntGauge::new("g", "A g.").expect("good");
        gauge.set(-3);
        let options = HistogramOpts::new("h", "An h.").buckets(vec![0.1, 1.0]);
        let histogram = HistogramVec::new(options, &["route"]).expect("good");
        for value in [0.05, 0.1, 0.5, 7.0] {
            histogram.with_label_values(&["/"]).observe(value);
        }
        registry.register(Box::new(counter)).expect("one");
        registry.register(Box::new(gauge)).expect("one");
        registry.register(Box::new(histogram)).expect("one");

        let resource = Resource::builder_empty().build();
        let request = request(&registry.gather(), &resource, UNIX_EPOCH);
        let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
        let names: Vec<_> = metrics.iter().map(|metric| &metric.name[..]).collect();
        assert_eq!(names, ["c_total", "g", "h"]);
        let [
            Some(Data::Sum(sum)),
            Some(Data::Gauge(gauge)),
            Some(Data::Histogram(histogram)),
        ] = [0, 1, 2].map(|index: usize| metrics[index].data.clone())
        else {
            panic!("{metrics:?}");
        };
        assert!(sum.is_monotonic);
        let point = &sum.data_points[0];
        assert_eq!(point.value, Some(Value::AsDouble(2.0)));
        assert_eq!(point.attributes[0].key, "kind");
        assert_eq!(gauge.data_points[0].value, Some(Value::AsDouble(-3.0)));
        let point = &histogram.data_points[0];
        assert_eq!((point.count, point.sum), (4, Some(7.65)));
        assert_eq!(point.explicit_bounds, [0.1, 1.0]);
        assert_eq!(point.bucket_counts, [2, 1, 1]);
    }
}
