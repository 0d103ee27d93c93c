//! What the actors count, as Prometheus metric families.

use prometheus::proto;
use runcast_actors::metrics::{Family, Labels, Samples};

/// Turns the broker's families into those of the text encoder.
pub(super) fn families(families: Vec<Family>) -> impl Iterator<Item = proto::MetricFamily> {
    families.into_iter().map(family)
}

fn family(family: Family) -> proto::MetricFamily {
    let mut out = proto::MetricFamily::default();
    out.set_name(family.name.to_owned());
    out.set_help(family.help.to_owned());
    let (kind, metrics) = match family.samples {
        Samples::Counter(samples) => (proto::MetricType::COUNTER, all(samples, counter)),
        Samples::Gauge(samples) => (proto::MetricType::GAUGE, all(samples, gauge)),
        Samples::Histogram {
            buckets,
            count,
            sum,
        } => (
            proto::MetricType::HISTOGRAM,
            vec![histogram(buckets, count, sum)],
        ),
    };
    out.set_field_type(kind);
    out.set_metric(metrics);
    out
}

fn all(samples: Vec<(Labels, f64)>, metric: fn(f64) -> proto::Metric) -> Vec<proto::Metric> {
    let labelled = samples.into_iter().map(|(labels, value)| {
        let pairs = labels.into_iter().map(|(name, value)| {
            let mut pair = proto::LabelPair::default();
            pair.set_name(name.to_owned());
            pair.set_value(value.to_owned());
            pair
        });
        let mut metric = metric(value);
        metric.set_label(pairs.collect());
        metric
    });
    labelled.collect()
}

fn counter(value: f64) -> proto::Metric {
    let mut counter = proto::Counter::default();
    counter.set_value(value);
    let mut metric = proto::Metric::default();
    metric.set_counter(counter);
    metric
}

fn gauge(value: f64) -> proto::Metric {
    let mut gauge = proto::Gauge::default();
    gauge.set_value(value);
    let mut metric = proto::Metric::default();
    metric.set_gauge(gauge);
    metric
}

fn histogram(buckets: Vec<(f64, u64)>, count: u64, sum: f64) -> proto::Metric {
    let buckets = buckets.into_iter().map(|(bound, below)| {
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(below);
        bucket
    });
    let mut histogram = proto::Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(count);
    histogram.set_sample_sum(sum);
    let mut metric = proto::Metric::default();
    metric.set_histogram(histogram);
    metric
}
