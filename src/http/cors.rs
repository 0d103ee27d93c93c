//! Which pages of other origins may call the API.

use actix_cors::Cors;
use actix_web::HttpRequest;
use actix_web::http::Method;
use actix_web::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN,
};
use runcast_actors::protocol::Problem;

use super::problem::ApiError;
use super::stream::X_STREAMING_BACKEND;

/// Says how the page of a request and its address are related; no script can
/// set it.
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// How long a browser may keep a preflight's answer, in seconds.
const MAX_AGE_SECONDS: usize = 3600;

/// Returns the middleware for `cors.allowed_origins`; `*` among them admits
/// every origin. Errors carry its headers too: a page is to see why.
pub(super) fn cors(allowed_origins: &[String]) -> Cors {
    let cors = Cors::default()
        .allowed_methods([Method::GET, Method::HEAD, Method::POST])
        .allowed_headers([
            AUTHORIZATION,
            CACHE_CONTROL,
            CONTENT_TYPE,
            HeaderName::from_static("last-event-id"),
            HeaderName::from_static("idempotency-key"),
        ])
        .expose_headers([X_STREAMING_BACKEND])
        .max_age(MAX_AGE_SECONDS);
    if allowed_origins.iter().any(|origin| origin == "*") {
        return cors.allow_any_origin().send_wildcard();
    }
    allowed_origins
        .iter()
        .fold(cors, |cors, origin| cors.allowed_origin(origin))
}

/// Refuses what a page of an origin that is not allowed wants to change.
///
/// CORS alone keeps such a page from reading only: a browser sends a post of
/// plain text without asking first, so that any page could publish into a
/// broker on its reader's machine. Clients that are no browsers name no origin.
///
/// # Errors
/// 403 with what to set.
pub(super) fn check_origin(
    request: &HttpRequest,
    allowed_origins: &[String],
) -> Result<(), ApiError> {
    let Some(origin) = request.headers().get(ORIGIN) else {
        return Ok(());
    };
    let is_allowed = |allowed: &String| allowed == "*" || allowed.as_bytes() == origin.as_bytes();
    if allowed_origins.iter().any(is_allowed) || is_same_origin(request.headers()) {
        return Ok(());
    }
    Err(forbidden_origin(
        "pages of this origin may not publish here; add it to cors.allowed_origins",
    ))
}

/// Refuses the cookie of a request unless it is known that a page of ours, or
/// of an origin that is named, has made it: a browser sends cookies along with
/// what any page asks for.
///
/// # Errors
/// 403 with what to set.
pub(super) fn check_page(
    request: &HttpRequest,
    allowed_origins: &[String],
) -> Result<(), ApiError> {
    let headers = request.headers();
    let is_named = |origin: &HeaderValue| {
        let origin = origin.as_bytes();
        allowed_origins
            .iter()
            .any(|allowed| allowed != "*" && allowed.as_bytes() == origin)
    };
    // Where a browser names no origin, as for a GET of one's own page or an
    // address typed in, it says this instead.
    let is_own_get = headers.get(ORIGIN).is_none()
        && headers
            .get(SEC_FETCH_SITE)
            .is_some_and(|site| site == "same-origin" || site == "none");
    if headers.get(ORIGIN).is_some_and(is_named) || is_own_get || is_same_origin(headers) {
        return Ok(());
    }
    Err(forbidden_origin(
        "the cookie of a page counts only with an Origin of cors.allowed_origins or our own, or Sec-Fetch-Site: same-origin; send Authorization instead",
    ))
}

/// Whether the page that a request names as its origin is one of this broker.
fn is_same_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN).map(HeaderValue::as_bytes) else {
        return false;
    };
    // A proxy may have changed the host; then the browser's own word counts.
    headers
        .get(SEC_FETCH_SITE)
        .is_some_and(|site| site == "same-origin")
        || headers.get(HOST).is_some_and(|host| {
            let schemes = [&b"http://"[..], b"https://"];
            let mut authority = schemes
                .iter()
                .filter_map(|scheme| origin.strip_prefix(*scheme));
            authority.any(|authority| authority == host.as_bytes())
        })
}

fn forbidden_origin(detail: &str) -> ApiError {
    Problem::new(403, "forbidden-origin", "Forbidden origin", detail).into()
}
