//! A receiver that is away, slow or choosy, and what is told of it.

use std::time::{Duration, Instant};

use super::{Remote, post};
use crate::support::otlp::Receiver;
use crate::support::wait::SOON;
use crate::support::{Broker, eventually};

const SPANS: &str = "runcast_telemetry_spans_total";
const EXPORTS: &str = "runcast_telemetry_exports_total";

fn lines_with(broker: &Broker, text: &str) -> usize {
    let log = broker.process.log();
    log.iter().filter(|line| line.contains(text)).count()
}

#[tokio::test]
async fn a_receiver_that_is_away_is_told_once_and_found_when_it_comes() {
    let mut receiver = Receiver::down();
    let settings = receiver
        .of(Broker::embedded(), "e")
        .set("telemetry.timeout", "100ms");
    let broker = settings.start_ready().await;
    let (lost, found) = (Remote::new(), Remote::new());
    post(&broker, "42", &[("traceparent", &lost.traceparent())]).await;
    eventually("batches fail", SOON, async || {
        broker.metric(SPANS, &[("result", "failed")]).await >= 1.0
            && broker.metric(EXPORTS, &[("result", "failed")]).await >= 3.0
    })
    .await;
    broker
        .wait_metric("runcast_telemetry_queue_spans", &[], 0.0)
        .await;
    assert_eq!(lines_with(&broker, "telemetry not taken"), 1);

    receiver.restart();
    eventually("it is found", SOON, || {
        let has_found = lines_with(&broker, "telemetry is taken again") == 1;
        async move { has_found }
    })
    .await;
    post(&broker, "42", &[("traceparent", &found.traceparent())]).await;
    receiver
        .span("the next post", |span| span.trace_id == found.trace_id)
        .await;
    assert!(receiver.spans(&lost.trace_id).is_empty());
    assert!(broker.metric(SPANS, &[("result", "sent")]).await >= 1.0);
}

#[tokio::test]
async fn a_batch_is_sent_again_if_that_may_help() {
    let receiver = Receiver::start();
    let settings = receiver
        .of(Broker::embedded(), "e")
        .set("telemetry.metrics", "false");
    let broker = settings.start_ready().await;
    receiver.fail(&[503, 429]);
    let remote = Remote::new();
    post(&broker, "42", &[("traceparent", &remote.traceparent())]).await;
    receiver
        .span("the post", |span| span.trace_id == remote.trace_id)
        .await;
    assert_eq!(broker.metric(SPANS, &[("result", "failed")]).await, 0.0);

    // This one says no for good.
    receiver.fail(&[400]);
    post(
        &broker,
        "42",
        &[("traceparent", &Remote::new().traceparent())],
    )
    .await;
    eventually("it is not repeated", SOON, async || {
        broker.metric(SPANS, &[("result", "failed")]).await >= 1.0
    })
    .await;
}

#[tokio::test]
async fn spans_past_the_queue_are_dropped_and_counted() {
    let receiver = Receiver::start();
    receiver.hang();
    let settings = receiver
        .of(Broker::embedded(), "e")
        .set("telemetry.timeout", "60s");
    let broker = settings.set("telemetry.queue_spans", 5).start_ready().await;
    let remote = Remote::new();
    for _ in 0..10 {
        post(&broker, "42", &[("traceparent", &remote.traceparent())]).await;
    }
    // Of each post three: the request, the publish, the delivery.
    broker
        .wait_metric(SPANS, &[("result", "dropped")], 25.0)
        .await;
    assert_eq!(
        broker.metric("runcast_telemetry_queue_spans", &[]).await,
        5.0
    );
}

#[tokio::test]
async fn the_end_sends_what_there_is() {
    let receiver = Receiver::start();
    let settings = receiver
        .of(Broker::embedded(), "e")
        .set("telemetry.interval", "1h");
    let settings = settings.variable("OTEL_BSP_SCHEDULE_DELAY", "3600000");
    let mut broker = settings.start_ready().await;
    let remote = Remote::new();
    post(&broker, "42", &[("traceparent", &remote.traceparent())]).await;
    assert!(receiver.all_spans().is_empty() && receiver.metrics().is_empty());
    broker.terminate();
    assert_eq!(broker.exit_code(SOON).await, Some(0));
    assert_eq!(receiver.spans(&remote.trace_id).len(), 3);
    let posts = receiver.number("runcast_http_requests_total", &[("method", "POST")]);
    assert_eq!(posts, Some(1.0));
}

#[tokio::test]
async fn the_end_does_not_wait_for_one_that_hangs() {
    let receiver = Receiver::start();
    receiver.hang();
    let settings = receiver
        .of(Broker::embedded(), "e")
        .set("telemetry.timeout", "1h");
    let mut broker = settings.start_ready().await;
    post(
        &broker,
        "42",
        &[("traceparent", &Remote::new().traceparent())],
    )
    .await;
    broker
        .wait_metric("runcast_telemetry_queue_spans", &[], 3.0)
        .await;
    broker.terminate();
    let begin = Instant::now();
    assert_eq!(broker.exit_code(SOON).await, Some(0));
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test]
async fn headers_are_sent_and_no_secret_is_logged() {
    let receiver = Receiver::start();
    let settings = receiver
        .of(Broker::embedded(), "e")
        .set("log.level", "trace");
    let with_password = receiver.url().replace("//", "//user:s3cret@");
    let settings = settings.set("telemetry.otlp_endpoint", with_password);
    let broker = settings.start_ready().await;
    post(
        &broker,
        "42",
        &[("traceparent", &Remote::new().traceparent())],
    )
    .await;
    receiver.span("the post", |_| true).await;
    let basic = "Basic dXNlcjpzM2NyZXQ=";
    assert_eq!(receiver.authorization(), basic);

    let receiver = Receiver::start();
    let settings = receiver
        .of(Broker::embedded(), "e")
        .set("log.level", "trace");
    let settings = settings.variable(
        "OTEL_EXPORTER_OTLP_HEADERS",
        "authorization=Bearer%20s3cret",
    );
    let other = settings.start_ready().await;
    eventually("metrics are sent", SOON, || {
        let has_come = receiver.authorization() == "Bearer s3cret";
        async move { has_come }
    })
    .await;
    for broker in [broker, other] {
        assert_eq!(
            lines_with(&broker, "s3cret") + lines_with(&broker, basic),
            0
        );
    }
}

#[test]
fn check_says_whether_it_answers() {
    let settings = Broker::embedded().arguments(&["check"]);
    let checked = |settings: &crate::support::broker::BrokerSettings| {
        let output = settings.output();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), text)
    };
    let mut receiver = Receiver::down();
    let settings = receiver.of(settings, "e").set("telemetry.timeout", "5s");
    let (code, text) = checked(&settings);
    let told = format!("otlp: not usable ({}): no answer: ", receiver.url());
    assert!(code == Some(0) && text.contains(&told), "{code:?} {text}");
    receiver.restart();
    let (code, text) = checked(&settings);
    let told = format!("otlp: ok ({}, ", receiver.url());
    assert!(code == Some(0) && text.contains(&told), "{code:?} {text}");
    receiver.fail(&[401]);
    let (_, text) = checked(&settings);
    assert!(text.contains("answered 401"), "{text}");
    let bad = settings.variable("OTEL_EXPORTER_OTLP_HEADERS", "s3cret");
    let (code, text) = checked(&bad);
    let told = "otlp: FAILED (): OTEL_EXPORTER_OTLP_HEADERS: must be";
    assert!(
        code == Some(1) && text.contains(told) && !text.contains("s3cret"),
        "{text}"
    );
}
