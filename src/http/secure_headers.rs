//! What every answer says to browsers about itself.

use actix_web::Error;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::middleware::Next;

/// Pages set a policy of their own; nothing else of ours is to be shown, run or
/// framed.
const NO_PAGE: &str = "default-src 'none'; frame-ancestors 'none'";

/// Each stands unless the answer has it already.
const HEADERS: [(HeaderName, &str); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CONTENT_SECURITY_POLICY, NO_PAGE),
    (header::REFERRER_POLICY, "no-referrer"),
    // What CORS admits is read by other origins; this is for what asks without.
    (header::CROSS_ORIGIN_RESOURCE_POLICY, "same-origin"),
];

/// Middleware: adds them to every answer. `Strict-Transport-Security` is no
/// part of it: that binds a whole host name, and is for its owner to say.
pub(super) async fn secure_headers<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let mut answer = next.call(request).await?;
    let headers = answer.headers_mut();
    for (name, value) in HEADERS {
        if !headers.contains_key(&name) {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
    Ok(answer)
}
