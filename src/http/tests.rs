//! Every route on an embedded broker, without a socket.

use actix_http::Request;
use actix_web::body::MessageBody;
use actix_web::dev::{Service, ServiceResponse};
use actix_web::http::header;
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::from_fn;
use actix_web::test::{self, TestRequest};
use actix_web::web::Data;
use actix_web::{App, Error};
use runcast_actors::broker::BrokerSettings;
use runcast_actors::settings::DefaultBackend;
use serde_json::{Value, json};

use super::problem::{PROBLEM_JSON, rewrite_errors};
use super::request_log::log_request;
use super::*;

/// A page of this origin may read us.
const ORIGIN: &str = "http://a.example";

fn state(change: impl FnOnce(&mut BrokerSettings)) -> Data<HttpState> {
    let mut settings = BrokerSettings::default();
    settings
        .live
        .change(|live| live.streaming.default_backend = DefaultBackend::Embedded);
    settings.kubectl.enabled = false;
    settings
        .live
        .change(|live| live.limits.max_body_bytes = bytesize::ByteSize::b(300));
    settings
        .live
        .change(|live| live.limits.max_event_bytes = bytesize::ByteSize::b(100));
    change(&mut settings);
    let broker = Broker::start(settings);
    let http = HttpSettings {
        allowed_origins: AllowedOrigins::new(&[ORIGIN.to_owned()]),
        metrics_enabled: true,
        ..HttpSettings::default()
    };
    Data::new(HttpState::new(broker, http).expect("the metrics have names of their own"))
}

async fn app(
    state: Data<HttpState>,
) -> impl Service<Request, Response = ServiceResponse<impl MessageBody>, Error = Error> {
    let cors = cors::cors(&state.settings.allowed_origins);
    test::init_service(
        App::new()
            .app_data(state)
            .configure(configure)
            .wrap(cors)
            .wrap(from_fn(rewrite_errors))
            .wrap(from_fn(log_request)),
    )
    .await
}

/// Asks one thing of a fresh broker.
async fn ask(request: TestRequest) -> ServiceResponse<impl MessageBody> {
    test::call_service(&app(state(|_| ())).await, request.to_request()).await
}

fn header_of<'a, B>(response: &'a ServiceResponse<B>, name: &str) -> &'a str {
    let value = response.headers().get(name).map(|value| value.to_str());
    value.map_or("", |value| value.expect("ASCII"))
}

/// Asserts that `response` is a problem of this status and type.
async fn assert_problem(
    response: ServiceResponse<impl MessageBody>,
    status: u16,
    slug: &str,
) -> Value {
    assert_eq!(response.status().as_u16(), status, "{slug}");
    assert_eq!(header_of(&response, "content-type"), PROBLEM_JSON);
    let body: Value = test::read_body_json(response).await;
    assert_eq!(body["type"], format!("urn:runcast:problem:{slug}"));
    assert_eq!(body["status"], status);
    body
}

fn get_(path: &str) -> TestRequest {
    TestRequest::get().uri(path)
}

fn post_(path: &str, content_type: &str, body: &str) -> TestRequest {
    TestRequest::post()
        .uri(path)
        .insert_header((header::CONTENT_TYPE, content_type))
        .set_payload(body.to_owned())
}

#[actix_web::test]
async fn a_bad_run_id_is_refused_on_every_route() {
    let app = app(state(|_| ())).await;
    let long = "x".repeat(129);
    for run_id in [
        "",
        "-oyaml",
        "a%20b",
        "%00",
        "..%2Fetc",
        "%2e%2e%2fetc",
        "../etc",
        "%ff",
        "42.",
        &long,
    ] {
        for tail in [
            "/stream",
            "/stream/redis",
            "/stream/kubectl",
            "/stream?kinds=bogus",
        ] {
            let request = get_(&format!("/api/v1/runs/{run_id}{tail}")).to_request();
            let response = test::call_service(&app, request).await;
            assert_problem(response, 400, "bad-run-id").await;
        }
        let path = format!("/api/v1/runs/{run_id}/events");
        let request = post_(&path, "text/html", "x").to_request();
        assert_problem(test::call_service(&app, request).await, 400, "bad-run-id").await;
    }
}

#[actix_web::test]
async fn a_stream_has_exactly_these_headers() {
    for method in [Method::GET, Method::HEAD] {
        let request = get_("/api/v1/runs/42/stream/redis")
            .method(method)
            .insert_header((header::ACCEPT_ENCODING, "gzip, br"))
            .insert_header((header::ORIGIN, ORIGIN));
        let response = ask(request).await;
        assert_eq!(response.status(), StatusCode::OK);
        for (name, value) in [
            ("content-type", "text/event-stream"),
            ("cache-control", "no-cache, no-store, no-transform"),
            ("x-accel-buffering", "no"),
            ("x-streaming-backend", "embedded"),
            ("content-encoding", ""),
            ("access-control-allow-origin", ORIGIN),
            ("access-control-expose-headers", "x-streaming-backend"),
        ] {
            assert_eq!(header_of(&response, name), value, "{name}");
        }
    }
}

#[actix_web::test]
async fn a_backend_that_is_off_is_not_found() {
    for path in ["/stream/kubectl", "/stream?backend=kubectl"] {
        let response = ask(get_(&format!("/api/v1/runs/42{path}"))).await;
        assert_problem(response, 404, "backend-disabled").await;
    }
}

#[actix_web::test]
async fn a_run_id_too_long_for_a_label_is_refused_by_kubectl_only() {
    let state = state(|settings| settings.kubectl.enabled = true);
    let app = app(state).await;
    let path = format!("/api/v1/runs/{}/stream", "x".repeat(64));
    let request = get_(&format!("{path}/kubectl")).to_request();
    assert_problem(test::call_service(&app, request).await, 400, "bad-run-id").await;
    let request = get_(&path).to_request();
    assert_eq!(
        test::call_service(&app, request).await.status(),
        StatusCode::OK
    );
}

#[actix_web::test]
async fn errors_are_problems_that_a_page_of_another_origin_can_read() {
    let stream = "/api/v1/runs/42/stream";
    for (request, status, slug) in [
        (get_("/nowhere"), 404, "not-found"),
        (get_("/api/v1/runs/42/nowhere"), 404, "not-found"),
        (
            TestRequest::delete().uri("/api/v1/runs/42/events"),
            405,
            "method-not-allowed",
        ),
        (get_("/api/v1/runs/42/events?after=x"), 400, "bad-query"),
        (TestRequest::delete().uri(stream), 405, "method-not-allowed"),
        (get_("/api/v1/runs/42/stream?from=x"), 400, "bad-query"),
        (get_("/api/v1/runs?limit=0"), 400, "bad-query"),
        (get_("/health/ready?strict=maybe"), 400, "bad-query"),
        (
            post_("/api/v1/runs/42/events", "text/html", "x"),
            415,
            "unsupported-media-type",
        ),
        (
            post_("/api/v1/runs/42/events", "text/plain", &"x".repeat(301)),
            413,
            "body-too-large",
        ),
        (
            post_("/api/v1/runs/42/events", "text/plain", &"x".repeat(101)),
            413,
            "event-too-large",
        ),
        (
            post_("/api/v1/runs/42/events", "application/json", "{"),
            400,
            "bad-json",
        ),
        (
            post_("/api/v1/runs/42/events?restart=x", "text/plain", "x"),
            400,
            "bad-query",
        ),
        (
            post_("/api/v1/runs/42/events?kind=x", "text/plain", "x"),
            422,
            "unknown-kind",
        ),
    ] {
        let response = ask(request.insert_header((header::ORIGIN, ORIGIN))).await;
        assert_eq!(
            header_of(&response, "access-control-allow-origin"),
            ORIGIN,
            "{slug}"
        );
        if status == 405 {
            assert!(["GET, HEAD", "GET, HEAD, POST"].contains(&header_of(&response, "allow")));
        }
        assert_problem(response, status, slug).await;
    }
}

#[actix_web::test]
async fn a_preflight_allows_what_clients_send() {
    let preflight = |origin| {
        get_("/api/v1/runs/42/events")
            .method(Method::OPTIONS)
            .insert_header((header::ORIGIN, origin))
            .insert_header((header::ACCESS_CONTROL_REQUEST_METHOD, "POST"))
            .insert_header((
                header::ACCESS_CONTROL_REQUEST_HEADERS,
                "last-event-id, content-type, idempotency-key, authorization",
            ))
    };
    let response = ask(preflight(ORIGIN)).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(header_of(&response, "access-control-allow-origin"), ORIGIN);
    assert_problem(ask(preflight("http://b.example")).await, 400, "bad-request").await;
}

#[actix_web::test]
async fn published_events_get_ids_and_show_in_the_run() {
    let state = state(|_| ());
    let app = app(Data::clone(&state)).await;
    let lines =
        "{\"kind\":\"output\",\"data\":{\"step\":1}}\n{\"kind\":\"status\",\"data\":\"running\"}\n";
    let large = format!(
        "{lines}{{\"kind\":\"output\",\"data\":\"{}\"}}",
        "x".repeat(100)
    );
    let request = post_("/api/v1/runs/42/events", "application/x-ndjson", &large).to_request();
    let response = test::call_service(&app, request).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let body: Value = test::read_body_json(response).await;
    assert!(
        body["ids"][0].is_string() && body["ids"][1].is_string(),
        "{body}"
    );
    assert_eq!(body["ids"][2], Value::Null);
    assert_eq!(body["errors"][0]["index"], 2);
    assert_eq!(
        body["errors"][0]["type"],
        "urn:runcast:problem:event-too-large"
    );

    let request = get_("/api/v1/runs/42").to_request();
    let run: Value = test::call_and_read_body_json(&app, request).await;
    assert_eq!(run["events"], json!({"output": 1, "status": 1, "log": 0}));
    assert_eq!(
        (&run["status"], &run["last_id"]),
        (&json!("running"), &body["ids"][1])
    );

    let request = get_("/api/v1/runs?limit=1").to_request();
    let runs: Value = test::call_and_read_body_json(&app, request).await;
    assert_eq!(
        (&runs["runs"][0]["run_id"], &runs["next"]),
        (&json!("42"), &Value::Null)
    );
}

#[actix_web::test]
async fn a_run_never_seen_is_told_as_such() {
    let response = ask(get_("/api/v1/runs/never")).await;
    assert_eq!(response.status(), StatusCode::OK);
    let run: Value = test::read_body_json(response).await;
    assert_eq!(
        (&run["run_id"], &run["status"]),
        (&json!("never"), &Value::Null)
    );
    assert!(
        run["quiet_because"]
            .as_str()
            .is_some_and(|why| !why.is_empty())
    );
}

#[actix_web::test]
async fn a_draining_broker_is_alive_but_not_ready() {
    let state = state(|_| ());
    let app = app(Data::clone(&state)).await;
    let request = || get_("/health/ready?strict=true").to_request();
    assert_eq!(
        test::call_service(&app, request()).await.status(),
        StatusCode::OK
    );
    state.broker.drain(std::time::Duration::ZERO, 0).await;
    let response = test::call_service(&app, request()).await;
    assert_eq!(header_of(&response, "retry-after"), "1");
    assert_problem(response, 503, "draining").await;
    let health: Value = test::call_and_read_body_json(&app, get_("/health").to_request()).await;
    assert_eq!(
        (&health["status"], &health["draining"]),
        (&json!("ok"), &json!(true))
    );
    let live = test::call_service(&app, get_("/health/live").to_request()).await;
    assert_eq!(live.status(), StatusCode::OK);
}

#[actix_web::test]
async fn the_config_has_what_a_frontend_needs() {
    let config: Value = test::read_body_json(ask(get_("/api/v1/config")).await).await;
    assert_eq!(
        config,
        json!({
            "version": VERSION,
            "default_backend": "embedded",
            "backends": ["embedded"],
            "heartbeat_seconds": 30,
            "reconnect": {"redis": 10, "kubectl": 3},
        })
    );
}

#[actix_web::test]
async fn metrics_hold_the_process_the_requests_and_the_actors() {
    let app = app(state(|_| ())).await;
    test::call_service(&app, get_("/api/v1/runs/..%2f/stream").to_request()).await;
    let response = test::call_service(&app, get_("/metrics").to_request()).await;
    assert_eq!(
        header_of(&response, "content-type"),
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let text = String::from_utf8(test::read_body(response).await.to_vec()).expect("UTF-8");
    for line in [
        "runcast_build_info{version=\"0.1.0\"} 1",
        "runcast_http_requests_total{method=\"GET\",route=\"/api/v1/runs/{run_id}/stream\",status=\"400\"} 1",
        "runcast_sessions{backend=\"embedded\"} 0",
        "process_resident_memory_bytes ",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
}

#[actix_web::test]
async fn metrics_can_be_switched_off() {
    let state = state(|_| ());
    let http = HttpSettings {
        metrics_enabled: false,
        ..state.settings.clone()
    };
    let state = HttpState::new(state.broker.clone(), http).expect("the metrics have names");
    let app = app(Data::new(state)).await;
    let response = test::call_service(&app, get_("/metrics").to_request()).await;
    assert_problem(response, 404, "not-found").await;
}
