//! Which pages of other origins may call the API.

use std::fmt;
use std::sync::Arc;

use actix_cors::Cors;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderMap,
    HeaderName, HeaderValue, ORIGIN,
};
use actix_web::middleware::Next;
use actix_web::{Error, HttpRequest};
use arc_swap::{ArcSwap, Guard};
use runcast_actors::protocol::Problem;

use super::problem::ApiError;
use super::stream::X_STREAMING_BACKEND;

/// Says how the page of a request and its address are related; no script can
/// set it.
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// How long a browser may keep a preflight's answer, in seconds.
const MAX_AGE_SECONDS: usize = 3600;

/// `cors.allowed_origins`, which may change while we serve. Clones read the
/// same.
#[derive(Clone, Default)]
pub(crate) struct AllowedOrigins(Arc<ArcSwap<Vec<String>>>);

impl AllowedOrigins {
    pub(crate) fn new(origins: &[String]) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(origins.to_vec())))
    }

    /// Admits others, from the next request on.
    pub(crate) fn replace(&self, origins: &[String]) {
        self.0.store(Arc::new(origins.to_vec()));
    }

    fn now(&self) -> Guard<Arc<Vec<String>>> {
        self.0.load()
    }

    fn are_any(&self) -> bool {
        self.now().iter().any(|origin| origin == "*")
    }

    /// Whether the page of a request may be answered; `*` admits every one.
    fn admit(&self, origin: &HeaderValue) -> bool {
        let is_it = |allowed: &String| allowed == "*" || allowed.as_bytes() == origin.as_bytes();
        self.now().iter().any(is_it)
    }

    /// Whether it is named itself.
    fn name(&self, origin: &HeaderValue) -> bool {
        let is_it = |allowed: &String| allowed != "*" && allowed.as_bytes() == origin.as_bytes();
        self.now().iter().any(is_it)
    }
}

impl fmt::Debug for AllowedOrigins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.now().fmt(f)
    }
}

/// Returns the middleware for `cors.allowed_origins`. Errors carry its headers
/// too: a page is to see why.
pub(super) fn cors(allowed: &AllowedOrigins) -> Cors {
    let allowed = allowed.clone();
    Cors::default()
        .allowed_methods([Method::GET, Method::HEAD, Method::POST])
        .allowed_headers([
            AUTHORIZATION,
            CACHE_CONTROL,
            CONTENT_TYPE,
            HeaderName::from_static("last-event-id"),
            HeaderName::from_static("idempotency-key"),
        ])
        .expose_headers([X_STREAMING_BACKEND])
        .max_age(MAX_AGE_SECONDS)
        .allowed_origin_fn(move |origin, _| allowed.admit(origin))
}

/// Middleware around it: where every page may read, says so, and not to each
/// page its own name, so that an answer kept for one serves all.
pub(super) async fn say_any_origin<B: MessageBody>(
    allowed: AllowedOrigins,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let mut answer = next.call(request).await?;
    if allowed.are_any()
        && let Some(origin) = answer.headers_mut().get_mut(ACCESS_CONTROL_ALLOW_ORIGIN)
    {
        *origin = HeaderValue::from_static("*");
    }
    Ok(answer)
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
    allowed: &AllowedOrigins,
) -> Result<(), ApiError> {
    let Some(origin) = request.headers().get(ORIGIN) else {
        return Ok(());
    };
    if allowed.admit(origin) || is_same_origin(request.headers()) {
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
pub(super) fn check_page(request: &HttpRequest, allowed: &AllowedOrigins) -> Result<(), ApiError> {
    let headers = request.headers();
    // Where a browser names no origin, as for a GET of one's own page or an
    // address typed in, it says this instead.
    let is_own_get = headers.get(ORIGIN).is_none()
        && headers
            .get(SEC_FETCH_SITE)
            .is_some_and(|site| site == "same-origin" || site == "none");
    if headers.get(ORIGIN).is_some_and(|it| allowed.name(it))
        || is_own_get
        || is_same_origin(headers)
    {
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
