//! [`RunPath`]: the run id of a request's path, checked before anything else.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest};
use percent_encoding::percent_decode_str;
use runcast_actors::protocol::{RunId, RunIdError};

use super::problem::ApiError;

/// What every path with a run id begins with; the id is the next segment.
const PREFIX: &str = "/api/v1/runs/";

/// Extracts the run id of `/api/v1/runs/{run_id}…`.
///
/// Reads the path as it was sent and not the router's match: the router's
/// decoding leaves `%2F` as it is and replaces bytes that are not UTF-8.
#[derive(Debug)]
pub(super) struct RunPath(pub(super) RunId);

impl FromRequest for RunPath {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let parsed = run_id_of(request.uri().path());
        ready(parsed.map(Self).map_err(ApiError::bad_run_id))
    }
}

fn run_id_of(path: &str) -> Result<RunId, RunIdError> {
    let rest = path.strip_prefix(PREFIX).unwrap_or_default();
    let segment = rest.split('/').next().unwrap_or_default();
    let decoded = percent_decode_str(segment)
        .decode_utf8()
        .map_err(|_| RunIdError::BadCharacter)?;
    RunId::parse(&decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_segment_is_decoded_then_checked() {
        for (segment, expected) in [
            ("42", Ok("42")),
            ("%34%32", Ok("42")),
            ("a.b_c-D9", Ok("a.b_c-D9")),
            ("", Err(RunIdError::Empty)),
            (&"x".repeat(129), Err(RunIdError::TooLong(129))),
            ("..%2Fetc", Err(RunIdError::BadCharacter)),
            ("%2e%2e%2fetc", Err(RunIdError::BadCharacter)),
            ("%252e", Err(RunIdError::BadCharacter)),
            ("-oyaml", Err(RunIdError::BadEdge)),
            ("a%20b", Err(RunIdError::BadCharacter)),
            ("a+b", Err(RunIdError::BadCharacter)),
            ("%00", Err(RunIdError::BadCharacter)),
            ("a%0ab", Err(RunIdError::BadCharacter)),
            ("%ff%fe", Err(RunIdError::BadCharacter)),
            ("%", Err(RunIdError::BadCharacter)),
            ("%C3%A9", Err(RunIdError::BadCharacter)),
        ] {
            for tail in ["", "/stream", "/stream/redis"] {
                let path = format!("{PREFIX}{segment}{tail}");
                let run_id = run_id_of(&path);
                assert_eq!(
                    run_id.as_ref().map(RunId::as_str),
                    expected.as_ref().copied(),
                    "{path}"
                );
            }
        }
    }
}
