//! Middleware that logs and counts every request.

use std::time::Instant;

use actix_web::Error;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::middleware::Next;
use actix_web::web::Data;
use runcast_actors::protocol::RunId;

use super::{HttpState, RUN_ID_PATTERN};

/// Logs a request at debug when its answer's head is known, and counts it. A
/// stream's life is logged by its session.
pub(super) async fn log_request<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let started = Instant::now();
    let method = known(request.method());
    let state = request.app_data::<Data<HttpState>>().cloned();
    let result = next.call(request).await;
    let elapsed = started.elapsed();
    let (status, route, run_id) = match &result {
        Ok(response) => {
            let request = response.request();
            let route = request.match_pattern();
            let run_id = request.match_info().get("run_id");
            let run_id = run_id.and_then(|text| RunId::parse(text).ok());
            (response.status().as_u16(), route, run_id)
        }
        Err(error) => (error.as_response_error().status_code().as_u16(), None, None),
    };
    let route = route_of(route);
    tracing::debug!(
        method,
        route,
        run_id = run_id.as_ref().map(RunId::as_str),
        status,
        elapsed_ms = elapsed.as_micros() as f64 / 1000.0,
        "request answered"
    );
    if let Some(state) = state {
        state.metrics.count(method, &route, status, elapsed);
    }
    result
}

/// Returns the route of a pattern as it is described; `none` for none.
pub(super) fn route_of(pattern: Option<String>) -> String {
    pattern.map_or_else(
        || "none".to_owned(),
        |pattern| pattern.replace(RUN_ID_PATTERN, "{run_id}"),
    )
}

/// Returns the method's name; any that we do not serve is `other`.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
