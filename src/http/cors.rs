//! Which pages of other origins may call the API.

use actix_cors::Cors;
use actix_web::http::Method;
use actix_web::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderName};

use super::stream::X_STREAMING_BACKEND;

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
