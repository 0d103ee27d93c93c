//! The console's files, as `npm run build` left them in `frontend/console/dist`
//! when this program was compiled; none, if it had not been run.

use actix_web::http::header::{self, EntityTag, Header as _, IfNoneMatch};
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use rust_embed::{Embed, EmbeddedFile};

use super::problem::ApiError;

#[derive(Embed)]
#[folder = "frontend/console/dist"]
struct Dist;

/// Only files of this origin: no inline script, no frame, no other place to
/// send anything to.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What a build names after its content never changes.
const FOR_EVER: &str = "public, max-age=31536000, immutable";
const ASK_AGAIN: &str = "no-cache";

/// Answers with the console's page; `None` if it is not built in.
pub(super) fn page(request: &HttpRequest) -> Option<HttpResponse> {
    let file = Dist::get("index.html")?;
    Some(answer(request, "index.html", file, ASK_AGAIN))
}

/// Registers the files that the page loads. They are no part of the API.
pub(super) fn configure(app: &mut ServiceConfig) {
    for path in ["/assets/{file:[^/]+}", "/icon.svg"] {
        app.service(
            web::resource(path)
                .route(web::get().to(file))
                .route(web::head().to(file)),
        );
    }
}

/// Answers with one of them, packed if the client can unpack it.
async fn file(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let path = request.path().trim_start_matches('/');
    let caching = match path.starts_with("assets/") {
        true => FOR_EVER,
        false => ASK_AGAIN,
    };
    let packed = accepts_gzip(&request).then(|| Dist::get(&format!("{path}.gz")));
    if let Some(file) = packed.flatten() {
        let mut response = answer(&request, path, file, caching);
        let gzip = header::HeaderValue::from_static("gzip");
        response
            .headers_mut()
            .insert(header::CONTENT_ENCODING, gzip);
        return Ok(response);
    }
    let file = Dist::get(path).ok_or_else(ApiError::not_found)?;
    Ok(answer(&request, path, file, caching))
}

/// Answers with a file, or 304 if the client has it. Its type is that of `path`.
fn answer(request: &HttpRequest, path: &str, file: EmbeddedFile, caching: &str) -> HttpResponse {
    let hash = file.metadata.sha256_hash();
    let tag: String = hash[..16].iter().map(|b| format!("{b:02x}")).collect();
    let tag = EntityTag::new_strong(tag);
    let known = match IfNoneMatch::parse(request) {
        Ok(IfNoneMatch::Items(tags)) => tags.iter().any(|known| known.weak_eq(&tag)),
        Ok(IfNoneMatch::Any) => request.headers().contains_key(header::IF_NONE_MATCH),
        Err(_) => false,
    };
    let mut response = match known {
        true => HttpResponse::NotModified(),
        false => HttpResponse::Ok(),
    };
    response
        .insert_header(header::ETag(tag))
        .insert_header((header::CACHE_CONTROL, caching))
        .insert_header((header::VARY, "Accept-Encoding"))
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"));
    if known {
        return response.finish();
    }
    response
        .insert_header((header::CONTENT_TYPE, content_type(path)))
        .body(file.data.into_owned())
}

fn content_type(path: &str) -> String {
    let guess = mime_of(path);
    match guess.starts_with("text/") {
        true => format!("{guess}; charset=utf-8"),
        false => guess,
    }
}

/// The file's own type, also where what is sent is its packed form.
fn mime_of(path: &str) -> String {
    Dist::get(path).map_or_else(
        || "application/octet-stream".to_owned(),
        |file| file.metadata.mimetype().to_owned(),
    )
}

fn accepts_gzip(request: &HttpRequest) -> bool {
    let accepted = request.headers().get(header::ACCEPT_ENCODING);
    let accepted = accepted.and_then(|value| value.to_str().ok());
    accepted.is_some_and(|list| {
        list.split(',').any(|coding| {
            let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
            name.trim().eq_ignore_ascii_case("gzip")
                && weight.trim().trim_end_matches(['0', '.']) != "q="
        })
    })
}
