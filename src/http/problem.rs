//! [`ApiError`]: every error of the HTTP API as RFC 9457 problem details.
//!
//! The one place where a failure becomes a status, a `type` and a sentence;
//! errors that actix answers by itself are rewritten here too.

use std::fmt;
use std::time::Duration;

use actix_web::body::{BoxBody, EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{self, ContentType, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use runcast_actors::protocol::{Problem, RunId, RunIdError};
use serde::Serialize;
use tokio::task::JoinError;
use utoipa::ToSchema;

use super::publish::EventErrorJson;

/// Media type of every error body.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// Seconds after which a 503 may be tried again, or a 429 that does not know.
const RETRY_AFTER_SECONDS: u64 = 1;

/// An error answer: a problem and, for a refused `POST`, its events' fates.
#[derive(Debug, Clone)]
pub(super) struct ApiError {
    problem: Problem,
    allow: Option<&'static str>,
    retry_after_seconds: Option<u64>,
    errors: Option<Vec<EventErrorJson>>,
}

/// Body of an error answer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemJson<'a> {
    /// `urn:runcast:problem:` and a stable suffix; compare this one.
    #[serde(rename = "type")]
    #[schema(example = "urn:runcast:problem:bad-run-id")]
    kind: String,
    /// The type in words, the same for every occurrence.
    title: &'a str,
    /// The HTTP status.
    status: u16,
    /// One sentence about this occurrence that says what to do.
    detail: &'a str,
    /// Only of a refused `POST`: `null` for each of its events.
    #[serde(skip_serializing_if = "Option::is_none")]
    ids: Option<Vec<Option<String>>>,
    /// Only of a refused `POST`: why each event was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<&'a [EventErrorJson]>,
}

impl ApiError {
    /// 400 for a path segment that is no run id.
    pub(super) fn bad_run_id(error: RunIdError) -> Self {
        Self::bad_run_id_because(format!(
            "{error}; a run id is 1 to 128 of A-Z a-z 0-9 . _ -, its first and last character a letter or digit"
        ))
    }

    /// 400 for a run id that breaks a rule told in `detail`.
    pub(super) fn bad_run_id_because(detail: impl Into<String>) -> Self {
        Problem::new(400, "bad-run-id", "Bad run id", detail).into()
    }

    /// 400 for a query value; names the key, the value and what is allowed.
    pub(super) fn bad_query(key: &str, value: &str, allowed: &str) -> Self {
        let value = shortened(value);
        let detail = format!("query key {key:?} cannot be {value:?}; it is {allowed}");
        Problem::new(400, "bad-query", "Bad query value", detail).into()
    }

    /// 404 for a backend that is switched off.
    pub(super) fn backend_disabled(detail: impl Into<String>) -> Self {
        Problem::new(404, "backend-disabled", "Backend disabled", detail).into()
    }

    /// 404 for what only tokens are good for, where there are none.
    pub(super) fn auth_disabled() -> Self {
        let detail = "this broker asks for no token (auth.mode = \"none\"): what this route gives is not needed";
        Problem::new(404, "auth-disabled", "Authentication disabled", detail).into()
    }

    /// 405, with the methods the resource has.
    pub(super) fn method_not_allowed(method: &str, allow: &'static str) -> Self {
        let detail = format!("{} is not allowed here; use {allow}", shortened(method));
        let problem = Problem::new(405, "method-not-allowed", "Method not allowed", detail);
        Self {
            allow: Some(allow),
            ..problem.into()
        }
    }

    /// 431 for a request whose line and headers take more than `limit` bytes.
    pub(super) fn head_too_large(limit: u64) -> Self {
        let detail = format!(
            "the request's line and headers take more than {limit} bytes (limits.max_header_bytes)"
        );
        Problem::new(431, "head-too-large", "Request head too large", detail).into()
    }

    /// 404 for a path that leads nowhere.
    pub(super) fn not_found() -> Self {
        Self::of_status(StatusCode::NOT_FOUND, None)
    }

    /// 500; the cause is for our log and was written there.
    pub(super) fn internal() -> Self {
        Self::of_status(StatusCode::INTERNAL_SERVER_ERROR, None)
    }

    /// Whether the failure is on our side, so that the same request may pass
    /// later.
    pub(super) fn is_ours(&self) -> bool {
        self.problem.status >= 500
    }

    /// Returns what a stream is told of it.
    pub(super) fn into_problem(self) -> Problem {
        self.problem
    }

    /// Says what to show instead (RFC 6750), of answers about tokens.
    fn challenge(&self) -> Option<&'static str> {
        Some(match self.problem.slug {
            "token-required" => r#"Bearer realm="runcast""#,
            "token-in-query" => r#"Bearer realm="runcast", error="invalid_request""#,
            "invalid-token" => r#"Bearer realm="runcast", error="invalid_token""#,
            "not-allowed" | "run-forbidden" => {
                r#"Bearer realm="runcast", error="insufficient_scope""#
            }
            _ => return None,
        })
    }

    /// The whole answer as it goes onto the wire, for a request that nobody
    /// has read; the connection ends with it.
    pub(super) fn to_wire(&self) -> Vec<u8> {
        let status = self.status_code();
        let body = self.to_json();
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: {PROBLEM_JSON}\r\ncache-control: no-store\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }

    fn to_json(&self) -> String {
        let body = ProblemJson {
            kind: format!("urn:runcast:problem:{}", self.problem.slug),
            title: self.problem.title,
            status: self.problem.status,
            detail: &self.problem.detail,
            ids: self.errors.as_ref().map(|errors| vec![None; errors.len()]),
            errors: self.errors.as_deref(),
        };
        serde_json::to_string(&body).expect("a problem has only text keys")
    }

    /// Adds when the same request may be sent again.
    pub(super) fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after_seconds = Some(wait.as_secs() + 1);
        self
    }

    /// Adds why each event of a `POST` was refused.
    pub(super) fn with_event_errors(mut self, errors: Vec<EventErrorJson>) -> Self {
        self.errors = Some(errors);
        self
    }

    /// The problem that stands for a bare status, as actix answers some
    /// errors without asking us.
    fn of_status(status: StatusCode, cause: Option<String>) -> Self {
        let (slug, title, fallback) = match status.as_u16() {
            403 => ("forbidden", "Forbidden", "this is not allowed"),
            404 => (
                "not-found",
                "Not found",
                "there is nothing at this path; see /api/v1/openapi.json",
            ),
            405 => (
                "method-not-allowed",
                "Method not allowed",
                "this method is not allowed here",
            ),
            408 => (
                "request-timeout",
                "Request timeout",
                "the request did not arrive in time; send it again",
            ),
            413 => (
                "body-too-large",
                "Body too large",
                "the request body is too large; send it in parts",
            ),
            431 => (
                "head-too-large",
                "Request head too large",
                "the request's line and headers are too large",
            ),
            415 => (
                "unsupported-media-type",
                "Unsupported media type",
                "the request body's type is not supported",
            ),
            503 => (
                "unavailable",
                "Unavailable",
                "the broker cannot serve this now; try again",
            ),
            status if status < 500 => (
                "bad-request",
                "Bad request",
                "the request is malformed or was refused",
            ),
            _ => (
                "internal",
                "Internal error",
                "the broker failed; the cause is in its log",
            ),
        };
        // What went wrong inside is for our log, not for the client.
        let detail = cause
            .filter(|text| status.is_client_error() && !text.is_empty())
            .map_or_else(|| fallback.to_owned(), |text| shortened(&text));
        Problem::new(status.as_u16(), slug, title, detail).into()
    }
}

/// Returns at most 200 characters of a text that a client sent.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        Self {
            problem,
            allow: None,
            retry_after_seconds: None,
            errors: None,
        }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.problem.slug, self.problem.detail)
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        let status = self.status_code();
        let mut answer = HttpResponse::build(status);
        answer.insert_header((header::CONTENT_TYPE, PROBLEM_JSON));
        answer.insert_header((header::CACHE_CONTROL, "no-store"));
        if let Some(allow) = self.allow {
            answer.insert_header((header::ALLOW, allow));
        }
        if let Some(challenge) = self.challenge() {
            answer.insert_header((header::WWW_AUTHENTICATE, challenge));
        }
        let is_for_now = matches!(
            status,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
        );
        let retry_after = is_for_now.then_some(RETRY_AFTER_SECONDS);
        if let Some(seconds) = self.retry_after_seconds.or(retry_after) {
            answer.insert_header((header::RETRY_AFTER, seconds));
        }
        answer.body(self.to_json())
    }
}

/// 500 for a task that panicked.
pub(super) fn task_failed(error: JoinError) -> ApiError {
    tracing::error!(%error, "the task of a request failed");
    ApiError::internal()
}

/// Answers a path that no route matches: 400 if what stands where a run id
/// belongs is none (a slash in it, say), else 404.
pub(super) async fn unknown_route(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let bad_run_id = bad_run_id_in(request.uri().path()).map(ApiError::bad_run_id);
    Err(bad_run_id.unwrap_or_else(ApiError::not_found))
}

/// Finds the broken run id in a path like `/api/v1/runs/../etc/stream`, which
/// no route matches because the id holds a slash.
fn bad_run_id_in(path: &str) -> Option<RunIdError> {
    let rest = path.strip_prefix("/api/v1/runs/")?;
    let first = rest.split('/').next().unwrap_or_default();
    if matches!(first, "" | "." | "..") {
        return RunId::check(first).err();
    }
    ["/stream", "/stream/redis", "/stream/kubectl", "/events"]
        .into_iter()
        .find_map(|suffix| rest.strip_suffix(suffix))
        .and_then(|run_id| RunId::check(run_id).err())
}

/// Middleware, outermost: rewrites error answers that are no problem yet, such
/// as a refused preflight.
pub(super) async fn rewrite_errors<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, actix_web::Error> {
    let response = next.call(request).await?;
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) || is_problem(&response) {
        return Ok(response.map_into_left_body());
    }
    let cause = response.response().error().map(ToString::to_string);
    let problem = ApiError::of_status(status, cause).error_response();
    let (request, old) = response.into_parts();
    let mut new = problem.map_into_right_body();
    for (name, value) in old.headers() {
        if !new.headers().contains_key(name) && name != header::CONTENT_LENGTH {
            new.headers_mut().append(name.clone(), value.clone());
        }
    }
    Ok(ServiceResponse::new(request, new))
}

/// Middleware around `CatchPanic`, inside CORS: makes its bare 500, and
/// whatever else fails on the way, a problem.
pub(super) async fn convert_failures<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, actix_web::Error> {
    next.call(request).await.map_err(|error| {
        if error.as_error::<ApiError>().is_some() {
            return error;
        }
        let status = error.as_response_error().status_code();
        if status.is_server_error() {
            tracing::error!(%status, %error, "request failed");
        }
        ApiError::of_status(status, Some(error.to_string())).into()
    })
}

fn is_problem<B>(response: &ServiceResponse<B>) -> bool {
    response.headers().get(header::CONTENT_TYPE) == Some(&HeaderValue::from_static(PROBLEM_JSON))
}

/// Returns a 200 JSON answer that no cache keeps.
pub(super) fn json_answer(body: &impl Serialize) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header(ContentType::json())
        .body(serde_json::to_string(body).expect("our answers have only text keys"))
}

#[cfg(test)]
mod tests {
    use actix_web::test::{self, TestRequest};
    use actix_web::{App, middleware::from_fn, web};
    use actix_web_lab::middleware::CatchPanic;

    use super::*;

    async fn body_of(request: TestRequest) -> (u16, String, serde_json::Value) {
        let app = test::init_service(
            App::new()
                .wrap(from_fn(convert_failures))
                .wrap(actix_cors::Cors::default().allowed_origin("http://a.example"))
                .wrap(from_fn(rewrite_errors))
                .route("/bare", web::get().to(HttpResponse::InternalServerError))
                .route("/form", web::get().to(|_: web::Query<(u8,)>| async { "" }))
                .service(
                    web::resource("/panic")
                        .wrap(from_fn(convert_failures))
                        .wrap(CatchPanic::default())
                        .route(web::get().to(|| async { panic_now() })),
                )
                .default_service(web::to(unknown_route)),
        )
        .await;
        let response = match test::try_call_service(&app, request.to_request()).await {
            Ok(response) => response.into_parts().1.map_into_boxed_body(),
            Err(error) => error.error_response(),
        };
        let kind = response.headers().get(header::CONTENT_TYPE).cloned();
        let status = response.status().as_u16();
        let body = actix_web::body::to_bytes(response.into_body()).await;
        let body = serde_json::from_slice(&body.expect("a body")).expect("JSON");
        let kind = kind.expect("a type").to_str().expect("text").to_owned();
        (status, kind, body)
    }

    fn panic_now() -> &'static str {
        panic!("a handler's own fault")
    }

    #[actix_web::test]
    async fn errors_of_actix_become_problems() {
        for (request, status, slug) in [
            (TestRequest::get().uri("/nowhere"), 404, "not-found"),
            (TestRequest::get().uri("/bare"), 500, "internal"),
            (TestRequest::get().uri("/panic"), 500, "internal"),
            (TestRequest::get().uri("/form?x"), 400, "bad-request"),
            (
                TestRequest::with_uri("/bare")
                    .method(actix_web::http::Method::OPTIONS)
                    .insert_header((header::ORIGIN, "http://b.example"))
                    .insert_header((header::ACCESS_CONTROL_REQUEST_METHOD, "GET")),
                400,
                "bad-request",
            ),
        ] {
            let (got, kind, body) = body_of(request).await;
            assert_eq!((got, kind.as_str()), (status, PROBLEM_JSON), "{body}");
            assert_eq!(body["type"], format!("urn:runcast:problem:{slug}"));
            assert_eq!(body["status"], status);
            assert!(body["detail"].as_str().is_some_and(|text| !text.is_empty()));
        }
    }

    #[test]
    fn a_run_id_with_a_slash_is_still_a_bad_run_id() {
        for path in [
            "/api/v1/runs/../etc/stream",
            "/api/v1/runs/../etc",
            "/api/v1/runs/a/b/stream/redis",
            "/api/v1/runs//events/x",
        ] {
            assert!(bad_run_id_in(path).is_some(), "{path}");
        }
        for path in ["/api/v1/runs/a/other", "/api/v1/other", "/nowhere"] {
            assert!(bad_run_id_in(path).is_none(), "{path}");
        }
    }
}
