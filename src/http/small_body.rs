//! Reading the small JSON bodies of the access routes.

use actix_web::HttpRequest;
use actix_web::web::Payload;
use runcast_actors::protocol::Problem;
use serde::de::DeserializeOwned;

use super::HttpState;
use super::body_form::BodyForm;
use super::caller::Client;
use super::problem::ApiError;

/// Longest body read.
const BODY_BYTES_MAX: u64 = 4096;

/// Reads a body of `application/json` as a `T`.
///
/// # Errors
/// 415 for another type, 413 for a long body, 400 for JSON that is no `T`.
pub(super) async fn read_json<T: DeserializeOwned>(
    state: &HttpState,
    request: &HttpRequest,
    payload: Payload,
    client: Client,
) -> Result<T, ApiError> {
    if BodyForm::of(request.headers())? != BodyForm::Json {
        let (slug, title) = ("unsupported-media-type", "Unsupported media type");
        let detail = "this route takes application/json";
        return Err(Problem::new(415, slug, title, detail).into());
    }
    let body = state
        .small_body_room
        .read(request, payload, BODY_BYTES_MAX, client)
        .await?;
    serde_json::from_slice(&body.bytes).map_err(|error| {
        let detail = format!("the body is not the JSON that this route takes: {error}");
        Problem::new(400, "bad-json", "Bad JSON", detail).into()
    })
}
