//! Middleware that makes a span of a request for a run's events.

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::HeaderMap;
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, HttpMessage as _, HttpRequest};
use opentelemetry::trace::{SpanBuilder, SpanKind};
use runcast_actors::protocol::{RunId, SpanName, TraceContext};
use runcast_actors::spans::{OpenSpan, RUN_ID};

use super::HttpState;
use super::request_log::route_of;

/// Makes a span from a request's head to its answer's head, if it is recorded:
/// of posts, pages of history, and the opening of streams. What they do belongs
/// to it, see [`trace_of`].
pub(super) async fn trace_request<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let Some(mut span) = open(&request) else {
        return next.call(request).await;
    };
    let trace = span.trace();
    request.extensions_mut().insert(RequestTrace(trace));
    let result = next.call(request).await;
    match &result {
        Ok(response) => close(&mut span, response.request(), response.status().as_u16()),
        Err(error) => span.fail(error.as_response_error().status_code().as_str().to_owned()),
    }
    result
}

/// What a request's doings belong to.
struct RequestTrace(Option<TraceContext>);

/// Returns what a handler's doings belong to, if that is recorded.
pub(super) fn trace_of(request: &HttpRequest) -> Option<TraceContext> {
    let extensions = request.extensions();
    extensions.get::<RequestTrace>()?.0.clone()
}

fn open(request: &ServiceRequest) -> Option<OpenSpan> {
    let state = request.app_data::<Data<HttpState>>()?;
    let spans = &state.broker.settings().spans;
    if !spans.are_made() || !is_traced(request) {
        return None;
    }
    let span = SpanBuilder::from_name(request.method().to_string()).with_kind(SpanKind::Server);
    let mut span = spans.start(parent_of(request.headers()).as_ref(), span)?;
    span.set("http.request.method", request.method().to_string());
    span.set("url.path", request.path().to_owned());
    Some(span)
}

/// Whether a request is for the events of a run.
fn is_traced(request: &ServiceRequest) -> bool {
    let is_known = matches!(*request.method(), Method::GET | Method::HEAD | Method::POST);
    let rest = request.path().strip_prefix("/api/v1/runs/");
    let rest = rest.and_then(|rest| rest.split_once('/'));
    is_known && rest.is_some_and(|(_, rest)| rest == "events" || rest.starts_with("stream"))
}

/// Returns the span that a request comes from; one with more than one
/// `traceparent` has none.
fn parent_of(headers: &HeaderMap) -> Option<SpanName> {
    let mut parents = headers.get_all("traceparent");
    let parent = match (parents.next(), parents.next()) {
        (Some(parent), None) => parent.to_str().unwrap_or_default(),
        _ => "",
    };
    let states = headers.get_all("tracestate");
    let states: Vec<_> = states.filter_map(|state| state.to_str().ok()).collect();
    SpanName::read(parent, &states.join(","))
}

fn close(span: &mut OpenSpan, request: &HttpRequest, status: u16) {
    let route = route_of(request.match_pattern());
    span.rename(format!("{} {route}", request.method()));
    span.set("http.route", route);
    span.set("http.response.status_code", i64::from(status));
    let run_id = request.match_info().get("run_id");
    if let Some(run_id) = run_id.and_then(|text| RunId::parse(text).ok()) {
        span.set(RUN_ID, run_id.to_string());
    }
    if status >= 500 {
        span.fail(status.to_string());
    }
}
