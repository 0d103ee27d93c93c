//! What the actors count, in the form the Prometheus encoder takes.

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};
use runcast_actors::metrics::{Family, Labels, Samples};

/// Returns a family in the encoder's form.
pub(super) fn metric_family(family: Family) -> MetricFamily {
    let mut out = MetricFamily::default();
    out.set_name(family.name.to_owned());
    out.set_help(family.help.to_owned());
    match family.samples {
        Samples::Counter(samples) => {
            out.set_field_type(MetricType::COUNTER);
            for (labels, value) in samples {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric(&mut out, labels).set_counter(counter);
            }
        }
        Samples::Gauge(samples) => {
            out.set_field_type(MetricType::GAUGE);
            for (labels, value) in samples {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric(&mut out, labels).set_gauge(gauge);
            }
        }
        Samples::Histogram {
            buckets,
            count,
            sum,
        } => {
            out.set_field_type(MetricType::HISTOGRAM);
            metric(&mut out, Labels::new()).set_histogram(histogram(&buckets, count, sum));
        }
    }
    out
}

/// Adds a metric with these labels.
fn metric(family: &mut MetricFamily, labels: Labels) -> &mut Metric {
    let labels = labels.into_iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.to_owned());
        pair
    });
    let mut metric = Metric::default();
    metric.set_label(labels.collect());
    family.mut_metric().push(metric);
    family.mut_metric().last_mut().expect("one was just added")
}

/// `buckets` are cumulative; the encoder adds the one without a bound.
fn histogram(buckets: &[(f64, u64)], count: u64, sum: f64) -> Histogram {
    let buckets = buckets.iter().map(|(bound, below)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(*below);
        bucket
    });
    let mut out = Histogram::default();
    out.set_bucket(buckets.collect());
    out.set_sample_count(count);
    out.set_sample_sum(sum);
    out
}

#[cfg(test)]
mod tests {
    use prometheus::{Encoder as _, TextEncoder};

    use super::*;

    fn check(samples: Samples, expected: &str) {
        let family = Family {
            name: "x_total",
            help: "An x.",
            samples,
        };
        let mut text = Vec::new();
        let families = [metric_family(family)];
        TextEncoder::new()
            .encode(&families, &mut text)
            .expect("well-formed");
        assert_eq!(String::from_utf8(text).expect("UTF-8"), expected);
    }

    #[test]
    fn families_are_written_as_text() {
        check(
            Samples::Counter(vec![
                (vec![("kind", "log")], 2.0),
                (vec![("kind", "output")], 0.0),
            ]),
            "# HELP x_total An x.\n# TYPE x_total counter\nx_total{kind=\"log\"} 2\nx_total{kind=\"output\"} 0\n",
        );
        check(
            Samples::Gauge(vec![(vec![], 1.5)]),
            "# HELP x_total An x.\n# TYPE x_total gauge\nx_total 1.5\n",
        );
        check(
            Samples::Histogram {
                buckets: vec![(0.1, 1), (1.0, 3)],
                count: 4,
                sum: 9.5,
            },
            "# HELP x_total An x.\n# TYPE x_total histogram\nx_total_bucket{le=\"0.1\"} 1\nx_total_bucket{le=\"1\"} 3\nx_total_bucket{le=\"+Inf\"} 4\nx_total_sum 9.5\nx_total_count 4\n",
        );
    }
}
