//! [`BodyForm`]: how the body of a `POST …/events` is written.

use actix_web::http::header::{self, HeaderMap};
use runcast_actors::protocol::Problem;

use super::problem::ApiError;

/// The forms a body can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyForm {
    /// `application/json`: one event.
    Json,
    /// `application/x-ndjson`: an event a line.
    JsonLines,
    /// `text/plain`: a string a line.
    Text,
}

impl BodyForm {
    /// Reads the headers of a request; a body without a type is taken for JSON.
    ///
    /// # Errors
    /// 415 for any other type, a charset other than UTF-8, and compression.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        if let Some(encoding) = headers.get(header::CONTENT_ENCODING)
            && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
        {
            let detail =
                format!("content encoding {encoding:?} is not supported; send the body as it is");
            return Err(unsupported(detail));
        }
        let content_type = headers
            .get(header::CONTENT_TYPE)
            .map(|value| value.to_str());
        Self::of_type(content_type.map_or("application/json", Result::unwrap_or_default))
    }

    fn of_type(content_type: &str) -> Result<Self, ApiError> {
        let refused = || {
            unsupported(format!(
                "{content_type:?} is not supported; send application/json (one event), application/x-ndjson (one a line) or text/plain (UTF-8)"
            ))
        };
        let mut parts = content_type.split(';').map(str::trim);
        let form = match parts
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase()
            .as_str()
        {
            "application/json" => Self::Json,
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Self::JsonLines,
            "text/plain" => Self::Text,
            _ => return Err(refused()),
        };
        let foreign_charset = parts
            .filter_map(|parameter| parameter.split_once('='))
            .filter(|(name, _)| name.trim().eq_ignore_ascii_case("charset"))
            .map(|(_, charset)| charset.trim().trim_matches('"'))
            .any(|charset| {
                !["utf-8", "utf8", "us-ascii"]
                    .iter()
                    .any(|c| c.eq_ignore_ascii_case(charset))
            });
        if foreign_charset {
            return Err(refused());
        }
        Ok(form)
    }
}

fn unsupported(detail: String) -> ApiError {
    let (slug, title) = ("unsupported-media-type", "Unsupported media type");
    Problem::new(415, slug, title, detail).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_that_of_the_content_type() {
        for (content_type, expected) in [
            ("application/json", Some(BodyForm::Json)),
            ("Application/JSON; charset=UTF-8", Some(BodyForm::Json)),
            ("application/x-ndjson", Some(BodyForm::JsonLines)),
            ("text/plain;charset=\"utf-8\"", Some(BodyForm::Text)),
            ("text/plain; charset=latin1", None),
            ("text/html", None),
            ("application/x-www-form-urlencoded", None),
            ("", None),
        ] {
            assert_eq!(
                BodyForm::of_type(content_type).ok(),
                expected,
                "{content_type:?}"
            );
        }
    }
}
