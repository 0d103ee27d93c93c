//! `POST /api/v1/revocations`: takes back what tokens admit.

use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use runcast_actors::access::{Revocation, RevokedName};
use runcast_actors::protocol::{Problem, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::HttpState;
use super::caller::Caller;
use super::cors::check_origin;
use super::problem::{ApiError, ProblemJson, json_answer, task_failed};
use super::small_body::read_json;

/// Longest name of a subject or token.
const NAME_BYTES_MAX: usize = 255;

/// What is to be revoked: one of the two.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RevocationRequestJson {
    /// All tokens of this subject that were issued until now.
    #[schema(example = "alice")]
    sub: Option<String>,
    /// The token with this id.
    jti: Option<String>,
}

/// What was revoked.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RevocationJson {
    /// Since when.
    revoked_at: String,
}

/// Revokes a subject or a token, on all brokers.
#[utoipa::path(
    post,
    path = "/api/v1/revocations",
    tag = "access",
    request_body = RevocationRequestJson,
    responses(
        (status = 200, description = "Revoked: open streams end within two seconds", body = RevocationJson),
        (status = 400, description = "Bad JSON", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 401, description = "No token, or one that does not count", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 403, description = "The token is no admin's; from a page of an origin that is not allowed", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 404, description = "auth.mode is none", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 413, description = "Body too large", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 415, description = "Unsupported body type", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 422, description = "Neither sub nor jti, or both", content_type = "application/problem+json", body = ProblemJson<'_>),
        (status = 503, description = "The store is unavailable, or auth.max_revocations are kept", content_type = "application/problem+json", body = ProblemJson<'_>),
    )
)]
pub(super) async fn revocations(
    caller: Caller,
    request: HttpRequest,
    payload: Payload,
    state: Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    if state.gate.is_none() {
        return Err(ApiError::auth_disabled());
    }
    caller.may_administer()?;
    check_origin(&request, &state.settings.allowed_origins)?;
    let wish: RevocationRequestJson = {
        let client = caller.client(&state, &request);
        read_json(&state, &request, payload, client).await?
    };
    caller.still_counts(&state)?;
    let revocation = Revocation::now(name_of(wish)?);
    let at = revocation.at;
    let broker = state.broker.clone();
    // A task of its own: a client that goes away in the middle must not leave
    // it half done, kept and not told to the other brokers.
    let revoking = actix_web::rt::spawn(async move { broker.revoke(revocation).await });
    if !revoking.await.map_err(task_failed)?? {
        let detail = "as many subjects and tokens are revoked as may be (auth.max_revocations); exchange the keys instead";
        let (slug, title) = ("too-many-revocations", "Too many revocations");
        return Err(Problem::new(503, slug, title, detail).into());
    }
    tracing::info!("a subject or token was revoked");
    let micros = i64::try_from(at.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
    let revoked_at = Timestamp::from_micros(micros).to_string();
    Ok(json_answer(&RevocationJson { revoked_at }))
}

fn name_of(wish: RevocationRequestJson) -> Result<RevokedName, ApiError> {
    let is_good = |name: &String| {
        (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
    };
    match (wish.sub, wish.jti) {
        (Some(subject), None) if is_good(&subject) => Ok(RevokedName::Subject(subject)),
        (None, Some(id)) if is_good(&id) => Ok(RevokedName::Token(id)),
        _ => {
            let detail = format!(
                "a revocation names either sub or jti, of 1 to {NAME_BYTES_MAX} bytes without control characters"
            );
            Err(Problem::new(422, "bad-revocation", "Bad revocation", detail).into())
        }
    }
}
