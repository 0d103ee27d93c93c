//! The same numbers, whichever way they leave.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::metrics::v1::metric::Data;

use super::post;
use crate::support::otlp::{Receiver, number_of, texts};
use crate::support::wait::SOON;
use crate::support::{Broker, Redis, eventually};

/// A sample's name and labels, as Prometheus writes them, and its value.
type Samples = BTreeMap<String, f64>;

/// All samples of `/metrics`, and the names of its families.
async fn scraped(broker: &Broker) -> (Samples, Vec<String>) {
    let text = broker.get("/metrics").await.text();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let samples = samples.map(|line| {
        let (name, value) = line.rsplit_once(' ').expect("a sample has a value");
        (name.to_owned(), value.parse().expect("a number"))
    });
    let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names = names.filter_map(|line| line.split(' ').next());
    (samples.collect(), names.map(str::to_owned).collect())
}

/// The same of what was sent.
fn sent(receiver: &Receiver) -> (Samples, Vec<String>) {
    let mut samples = Samples::new();
    let metrics = receiver.metrics();
    for metric in &metrics {
        let name = &metric.name;
        match metric.data.clone().expect("data") {
            Data::Sum(sum) => {
                assert!(
                    sum.is_monotonic && sum.aggregation_temporality == 2,
                    "{name}"
                );
                for point in sum.data_points {
                    samples.insert(
                        sample(name, &texts(&point.attributes)),
                        number_of(point.value),
                    );
                }
            }
            Data::Gauge(gauge) => {
                for point in gauge.data_points {
                    samples.insert(
                        sample(name, &texts(&point.attributes)),
                        number_of(point.value),
                    );
                }
            }
            Data::Histogram(histogram) => {
                for point in histogram.data_points {
                    let labels = texts(&point.attributes);
                    let bounds = point.explicit_bounds.iter().map(f64::to_string);
                    let bounds = bounds.chain(["+Inf".to_owned()]);
                    let mut below = 0;
                    for (bound, count) in bounds.zip(point.bucket_counts) {
                        below += count;
                        let mut labels = labels.clone();
                        labels.push(("le".to_owned(), bound));
                        samples.insert(sample(&format!("{name}_bucket"), &labels), below as f64);
                    }
                    samples.insert(
                        sample(&format!("{name}_count"), &labels),
                        point.count as f64,
                    );
                    let sum = point.sum.expect("a sum");
                    samples.insert(sample(&format!("{name}_sum"), &labels), sum);
                }
            }
            other => panic!("{other:?}"),
        }
    }
    (
        samples,
        metrics.into_iter().map(|metric| metric.name).collect(),
    )
}

fn sample(name: &str, labels: &[(String, String)]) -> String {
    let labels: Vec<_> = labels
        .iter()
        .map(|(key, value)| format!("{key}=\"{value}\""))
        .collect();
    match labels.is_empty() {
        true => name.to_owned(),
        false => format!("{name}{{{}}}", labels.join(",")),
    }
}

/// What goes on changing while nobody does anything, or because it is sent or
/// scraped.
fn changes(name: &str) -> bool {
    name.starts_with("process_")
        || name.starts_with("runcast_telemetry_")
        || name.starts_with("runcast_http_request")
        || name.starts_with("runcast_redis_")
        || name.starts_with("runcast_store_checks")
}

#[tokio::test]
async fn all_of_a_scrape_is_sent_under_the_same_names() {
    let receiver = Receiver::start();
    let redis = Redis::start().await;
    let settings = receiver.of(Broker::redis(&redis), "ignored");
    let settings = settings.variable("OTEL_SERVICE_NAME", "tests");
    let settings = settings.variable("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=ci");
    let broker = settings.start_ready().await;
    let mut client = broker.follow("42/stream").await;
    for _ in 0..20 {
        post(&broker, "42", &[]).await;
        client.run_event().await;
    }
    let steady = |samples: Samples| -> Samples {
        samples
            .into_iter()
            .filter(|(name, _)| !changes(name))
            .collect()
    };
    eventually("what was sent is what is scraped", SOON, || async {
        let (sent, mut sent_names) = sent(&receiver);
        let (scraped, mut scraped_names) = scraped(&broker).await;
        sent_names.sort();
        scraped_names.sort();
        sent_names == scraped_names && steady(sent) == steady(scraped)
    })
    .await;
    let (sent, _) = sent(&receiver);
    for (name, least) in [
        ("runcast_deliveries_total", 20.0),
        ("runcast_chunk_bytes_count", 20.0),
        ("runcast_delivery_lag_seconds_count", 1.0),
        (
            "runcast_events_in_total{kind=\"output\",result=\"accepted\"}",
            20.0,
        ),
        ("runcast_sessions{backend=\"redis\"}", 1.0),
        ("process_resident_memory_bytes", 1.0),
    ] {
        assert!(sent[name] >= least, "{name}: {}", sent[name]);
    }
    assert_eq!(receiver.resource("service.name"), "tests");
    assert_eq!(
        receiver.resource("service.version"),
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(receiver.resource("deployment.environment.name"), "ci");
    assert_eq!(receiver.resource("service.instance.id").len(), 32);
}

/// Each kind can be had without the other, and without `/metrics`.
#[tokio::test]
async fn each_of_both_can_be_switched_off() {
    let receiver = Receiver::start();
    let settings = receiver
        .of(Broker::embedded(), "e")
        .set("metrics.enabled", "false");
    let settings = settings.set("telemetry.traces", "false");
    let broker = settings
        .set("telemetry.sample_ratio", "1")
        .start_ready()
        .await;
    post(&broker, "42", &[]).await;
    eventually("the post is counted", SOON, || {
        let posts = receiver.number("runcast_http_requests_total", &[("method", "POST")]);
        async move { posts == Some(1.0) }
    })
    .await;
    assert!(receiver.all_spans().is_empty());

    let receiver = Receiver::start();
    let settings = receiver
        .of(Broker::embedded(), "e")
        .set("telemetry.metrics", "false");
    let broker = settings
        .set("telemetry.sample_ratio", "1")
        .start_ready()
        .await;
    post(&broker, "42", &[]).await;
    receiver
        .span("the request", |span| span.name.starts_with("POST"))
        .await;
    assert!(receiver.metrics().is_empty());
}
