//! An event's way as spans, from its publish to the sockets.

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use super::{Remote, post};
use crate::support::cli::Cli;
use crate::support::http::Request;
use crate::support::otlp::{Receiver, Span};
use crate::support::{Broker, Redis};

fn is(span: &Span, service: &str, kind: SpanKind, trace: &Remote) -> bool {
    span.service == service && span.kind == kind && span.trace_id == trace.trace_id
}

/// The story: a post at one broker, a client at another.
#[tokio::test]
async fn a_post_is_followed_to_the_sockets_of_another_broker() {
    let receiver = Receiver::start();
    let redis = Redis::start().await;
    let a = receiver.of(Broker::redis(&redis), "a").start_ready().await;
    let b = receiver.of(Broker::redis(&redis), "b").start_ready().await;
    let mut client = b.follow("42/stream").await;
    let remote = Remote::new();
    let headers = [
        ("traceparent", &remote.traceparent()[..]),
        ("tracestate", "vendor=x"),
    ];
    let id = post(&a, "42", &headers).await;
    client.run_event().await;

    let span = async |what, service, kind| {
        let span = receiver
            .span(what, |span| is(span, service, kind, &remote))
            .await;
        assert_eq!(span.state, "vendor=x", "{span:?}");
        assert!(span.begin <= span.end && !span.failed, "{span:?}");
        span
    };
    let server = span("the request", "a", SpanKind::Server).await;
    assert_eq!(server.parent, remote.span_id);
    assert_eq!(server.name, "POST /api/v1/runs/{run_id}/events");
    assert_eq!(server.attribute("http.response.status_code"), "202");
    let publish = span("the publish", "a", SpanKind::Producer).await;
    assert_eq!(publish.parent, server.id);
    assert_eq!(publish.attribute("messaging.message.id"), id);
    let call = span("the call of Redis", "a", SpanKind::Client).await;
    assert_eq!(
        (call.parent, &call.name[..]),
        (publish.id.clone(), "FCALL runcast_publish")
    );

    let delivery = span("the delivery", "b", SpanKind::Consumer).await;
    assert_eq!(delivery.parent, publish.id);
    for (key, value) in [
        ("runcast.run_id", "42"),
        ("messaging.message.id", &id),
        ("runcast.kind", "output"),
        ("runcast.clients", "1"),
        ("runcast.backend", "redis"),
    ] {
        assert_eq!(delivery.attribute(key), value, "{key} of {delivery:?}");
    }
    let flush = span("the flush", "b", SpanKind::Internal).await;
    assert_eq!(flush.parent, delivery.id);
    assert_eq!(flush.attribute("runcast.clients"), "1");
    receiver.exemplar(&remote.trace_id).await;
    // One machine, one clock.
    assert!(server.begin <= publish.begin && publish.begin <= delivery.begin);
    assert!(flush.begin <= delivery.end && delivery.begin <= flush.begin);
}

/// Of ten clients' deliveries one span, of each hub.
#[tokio::test]
async fn there_is_one_delivery_for_a_hub_however_many_clients() {
    let receiver = Receiver::start();
    let broker = receiver
        .of(Broker::embedded(), "e")
        .set("server.workers", 1);
    let broker = broker.start_ready().await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(broker.follow("42/stream").await);
    }
    let (first, last) = (Remote::new(), Remote::new());
    for remote in [&first, &last] {
        post(&broker, "42", &[("traceparent", &remote.traceparent())]).await;
        for client in &mut clients {
            client.run_event().await;
        }
    }
    receiver
        .span("the last flush", |span| {
            is(span, "e", SpanKind::Internal, &last)
        })
        .await;
    let spans = receiver.spans(&first.trace_id);
    let kinds = spans.iter().map(|span| span.kind as i32);
    let mut kinds: Vec<_> = kinds.collect();
    kinds.sort_unstable();
    let expected = [
        SpanKind::Internal,
        SpanKind::Server,
        SpanKind::Producer,
        SpanKind::Consumer,
    ];
    assert_eq!(kinds, expected.map(|kind| kind as i32), "{spans:#?}");
    let delivery = spans.iter().find(|span| span.kind == SpanKind::Consumer);
    assert_eq!(
        delivery.expect("just counted").attribute("runcast.clients"),
        "10"
    );
}

/// What its sender does not record leaves nothing behind, nor does a header that
/// is none.
#[tokio::test]
async fn what_is_not_recorded_makes_no_span() {
    let receiver = Receiver::start();
    let redis = Redis::start().await;
    let broker = receiver.of(Broker::redis(&redis), "a").start_ready().await;
    let (remote, last) = (Remote::new(), Remote::new());
    let recorded = remote.traceparent();
    post(&broker, "42", &[("traceparent", &remote.unrecorded())]).await;
    post(&broker, "42", &[]).await;
    post(&broker, "42", &[("traceparent", &recorded.to_uppercase())]).await;
    post(&broker, "42", &[("traceparent", &recorded[..54])]).await;
    post(&broker, "42", &[("traceparent", &format!("{recorded}-x"))]).await;
    let twice = [
        ("traceparent", &recorded[..]),
        ("traceparent", &recorded[..]),
    ];
    post(&broker, "42", &twice).await;
    let entries = async || {
        let range = ["XRANGE", "run:{42}:stream", "-", "+"];
        let mut publisher = redis.publisher().await;
        publisher
            .command::<Vec<(String, Vec<String>)>>(&range)
            .await
    };
    for (id, fields) in entries().await {
        assert!(
            fields.iter().step_by(2).all(|name| name != "t"),
            "{id} {fields:?}"
        );
    }
    // They would have come before this one.
    post(&broker, "42", &[("traceparent", &last.traceparent())]).await;
    let span = |span: &Span| is(span, "a", SpanKind::Consumer, &last);
    receiver.span("the last delivery", span).await;
    let others: Vec<_> = receiver.all_spans();
    assert!(
        others.iter().all(|span| span.trace_id == last.trace_id),
        "{others:#?}"
    );
    let kept = entries().await;
    let (_, fields) = kept.last().expect("it is kept");
    let trace = fields
        .iter()
        .position(|field| field == "t")
        .map(|at| &fields[at + 1]);
    let publish = receiver
        .all_spans()
        .into_iter()
        .find(|span| span.kind == SpanKind::Producer);
    let publish = publish.expect("it came before the delivery").id;
    assert_eq!(
        trace.map(String::as_str),
        Some(&format!("00-{}-{publish}-01", last.trace_id)[..])
    );
}

#[tokio::test]
async fn requests_without_a_trace_begin_one() {
    let receiver = Receiver::start();
    let broker = receiver.of(Broker::embedded(), "e");
    let broker = broker
        .set("telemetry.sample_ratio", "1")
        .start_ready()
        .await;
    post(&broker, "42", &[("traceparent", "malformed")]).await;
    broker.json("/api/v1/runs/42/events").await;
    drop(broker.follow("42/stream").await);
    let bad = Request::get("/api/v1/runs/no%20id/stream")
        .send(broker.addr)
        .await;
    bad.problem(400);
    for (name, status) in [
        ("POST /api/v1/runs/{run_id}/events", "202"),
        ("GET /api/v1/runs/{run_id}/events", "200"),
        ("GET /api/v1/runs/{run_id}/stream", "200"),
        ("GET /api/v1/runs/{run_id}/stream", "400"),
    ] {
        let wanted = |span: &Span| {
            span.name == name && span.attribute("http.response.status_code") == status
        };
        let span = receiver.span(&format!("{name} {status}"), wanted).await;
        assert_eq!(span.parent, "", "{span:?}");
    }
    // Nothing else is asked for by clients of a run.
    let servers = receiver.all_spans();
    let mut servers = servers.iter().filter(|span| span.kind == SpanKind::Server);
    assert!(servers.all(|span| span.name.contains("{run_id}/")));
}

/// Who publishes by itself is found in the environment.
#[tokio::test]
async fn what_exec_and_publish_say_belongs_to_the_trace_they_are_in() {
    let receiver = Receiver::start();
    let redis = Redis::start().await;
    let _broker = receiver.of(Broker::redis(&redis), "b").start_ready().await;
    for words in [
        &["exec", "--run", "42", "--", "sh", "-c", "echo a"][..],
        &["publish", "43", "a"],
    ] {
        let remote = Remote::new();
        let cli = Cli::with(&redis)
            .variable("TRACEPARENT", &remote.traceparent())
            .variable("TRACESTATE", "vendor=y")
            .arguments(words);
        assert_eq!(cli.run().await.code, 0);
        let wanted = |span: &Span| {
            is(span, "b", SpanKind::Consumer, &remote) && span.attribute("runcast.kind") == "output"
        };
        let delivery = receiver.span("the delivery", wanted).await;
        assert_eq!(
            (delivery.parent, &delivery.state[..]),
            (remote.span_id, "vendor=y")
        );
    }
    let malformed = Cli::with(&redis).variable("TRACEPARENT", "00-malformed");
    assert_eq!(
        malformed
            .arguments(&["publish", "43", "b"])
            .run()
            .await
            .code,
        0
    );
}
