//! `GET /`: one small page that follows a run, until the console takes its
//! place.

use actix_web::HttpResponse;
use actix_web::http::header;

/// The whole page: no other file, no other origin.
const PAGE: &str = include_str!("../page/index.html");

/// The page's own script and style stand in it, so these two are allowed
/// inline; nothing may be loaded, framed or sent anywhere but to this origin.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Answers with the page.
#[utoipa::path(
    get,
    path = "/",
    tag = "about",
    responses((status = 200, description = "A page that follows a run", content_type = "text/html", body = String))
)]
pub(super) async fn page() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/html; charset=utf-8"))
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(PAGE)
}
