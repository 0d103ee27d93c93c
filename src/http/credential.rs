//! [`Credential`]: what a request shows to be let in, and where it may not
//! stand.

use actix_web::HttpRequest;
use actix_web::http::header::{AUTHORIZATION, COOKIE, HeaderMap};
use runcast_actors::protocol::Problem;

use super::cors::{AllowedOrigins, check_page};
use super::gate::{Gate, Unasked, invalid};
use super::problem::ApiError;
use super::query::Pairs;

/// Query keys that a token comes under elsewhere.
const TOKEN_KEYS: [&str; 8] = [
    "access_token",
    "token",
    "jwt",
    "id_token",
    "auth_token",
    "bearer",
    "authorization",
    "auth",
];

/// What a request shows.
pub(super) enum Credential {
    /// A JSON Web Token.
    Token(String),
    /// A code of `POST /api/v1/tickets`.
    Ticket(String),
}

/// Finds what a request shows: the header wins, then a ticket, then the cookie,
/// which a browser sends without being asked.
///
/// # Errors
/// 400 for a token in the query, 401 for a credential given twice or not in its
/// form, 403 for the cookie of a page of another origin.
pub(super) fn credential_of(
    request: &HttpRequest,
    gate: &Gate,
    allowed_origins: &AllowedOrigins,
) -> Result<Option<Credential>, ApiError> {
    let query = Pairs::parse(request.query_string());
    if query.iter().any(|(key, value)| is_token(key, value)) {
        gate.count(Unasked::Query);
        return Err(token_in_query());
    }
    let headers = request.headers();
    if let Some(token) = bearer_of(headers).inspect_err(|_| gate.count(Unasked::Header))? {
        return Ok(Some(Credential::Token(token)));
    }
    if let Some(code) = query.get("ticket") {
        return Ok(Some(Credential::Ticket(code.to_owned())));
    }
    let Some(name) = &gate.cookie else {
        return Ok(None);
    };
    let Some(token) = cookie_of(headers, name).inspect_err(|_| gate.count(Unasked::Cookie))? else {
        return Ok(None);
    };
    check_page(request, allowed_origins).inspect_err(|_| gate.count(Unasked::Origin))?;
    Ok(Some(Credential::Token(token)))
}

/// Whether a pair of the query holds a token, by its name or its looks: every
/// JSON Web Token begins with `{"`, in base64.
fn is_token(key: &str, value: &str) -> bool {
    let is_named = TOKEN_KEYS.iter().any(|name| name.eq_ignore_ascii_case(key));
    let looks_so = value.starts_with("eyJ") && value.matches('.').count() == 2;
    !value.is_empty() && (is_named || looks_so)
}

fn token_in_query() -> ApiError {
    let detail = "a token in a URL ends up in logs and histories, and is not taken: send Authorization: Bearer <token>, or for an EventSource ?ticket= of POST /api/v1/tickets";
    Problem::new(400, "token-in-query", "Token in query", detail).into()
}

/// Returns the token of the one `Authorization` header.
fn bearer_of(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all(AUTHORIZATION);
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let wrong = || invalid("Authorization is given once, as: Bearer <token>".to_owned());
    if values.next().is_some() {
        return Err(wrong());
    }
    let (scheme, token) = value
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .ok_or_else(wrong)?;
    let token = token.trim_start_matches(' ');
    let is_good = scheme.eq_ignore_ascii_case("bearer")
        && !token.is_empty()
        && token.bytes().all(|byte| byte.is_ascii_graphic());
    is_good.then(|| Some(token.to_owned())).ok_or_else(wrong)
}

/// Returns the value of the one cookie of this name.
fn cookie_of(headers: &HeaderMap, name: &str) -> Result<Option<String>, ApiError> {
    let mut found = None;
    for header in headers.get_all(COOKIE) {
        let pairs = header.as_bytes().split(|byte| *byte == b';');
        for pair in pairs {
            let Ok(pair) = std::str::from_utf8(pair) else {
                continue;
            };
            let Some((key, value)) = pair.trim().split_once('=') else {
                continue;
            };
            // A second one may have been planted by a page of a sibling domain.
            if key == name && found.replace(value.to_owned()).is_some() {
                let detail = "the cookie with the token is given twice; log in anew";
                return Err(invalid(detail.to_owned()));
            }
        }
    }
    Ok(found.filter(|token| !token.is_empty()))
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a header's value");
            map.append(HeaderName::from_static(name), value);
        }
        map
    }

    #[test]
    fn the_header_is_given_once_as_bearer() {
        let read = |values: &[&str]| {
            let pairs: Vec<_> = values.iter().map(|it| ("authorization", *it)).collect();
            bearer_of(&headers(&pairs)).map_err(|_| ())
        };
        assert_eq!(read(&[]), Ok(None));
        for value in ["Bearer a.b.c", "bearer a.b.c", "BEARER   a.b.c"] {
            assert_eq!(read(&[value]), Ok(Some("a.b.c".to_owned())), "{value}");
        }
        for values in [
            &["Bearer a", "Bearer a"][..],
            &["Bearer"],
            &["Bearer "],
            &["Bearer a b"],
            &["Bearer a,b c"],
            &["Basic YTpi"],
            &["a.b.c"],
            &["Bearer\ta"],
            &["Bearer é"],
            &[""],
        ] {
            assert_eq!(read(values), Err(()), "{values:?}");
        }
    }

    #[test]
    fn the_cookie_is_given_once_whatever_stands_beside_it() {
        let read = |values: &[&str]| {
            let pairs: Vec<_> = values.iter().map(|it| ("cookie", *it)).collect();
            cookie_of(&headers(&pairs), "s").map_err(|_| ())
        };
        for (values, expected) in [
            (&["s=a"][..], Ok(Some("a".to_owned()))),
            (&["x=1; s=a; S=b; ss=c"], Ok(Some("a".to_owned()))),
            (&["x=1", "s=a"], Ok(Some("a".to_owned()))),
            (&["s="], Ok(None)),
            (&["xs=a; s"], Ok(None)),
            (&["s=a; s=a"], Err(())),
            (&["s=a", "s=b"], Err(())),
        ] {
            assert_eq!(read(values), expected, "{values:?}");
        }
    }

    #[test]
    fn a_token_in_the_query_is_known_by_name_or_looks() {
        for (key, value, is) in [
            ("access_token", "x", true),
            ("Access_Token", "x", true),
            ("token", "x", true),
            ("token", "", false),
            ("x", "eyJhbGciOiJub25lIn0.e30.", true),
            ("ticket", "eyJhbGciOiJub25lIn0.e30.", true),
            ("ticket", "Zm9v", false),
            ("from", "now", false),
        ] {
            assert_eq!(is_token(key, value), is, "{key}={value}");
        }
    }
}
