//! `GET /`: the console, or where it was not built, one small page that follows a
//! run.

use std::sync::LazyLock;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::console;

/// The whole small page: no other file, no other origin.
const PAGE: &str = include_str!("../page/index.html");

/// The page's own script and style are admitted by their hash and nothing
/// else is: nothing may be loaded, framed, or sent but to this origin.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let (script, style) = (hash_of("script"), hash_of("style"));
    format!(
        "default-src 'none'; script-src '{script}'; style-src '{style}'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
});

/// Answers with the console, or else with the small page.
#[utoipa::path(
    get,
    path = "/",
    tag = "about",
    security(()),
    responses((status = 200, description = "The console: the runs, and one run as it happens", content_type = "text/html", body = String))
)]
pub(super) async fn page(request: HttpRequest) -> HttpResponse {
    console::page(&request).unwrap_or_else(small_page)
}

fn small_page() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/html; charset=utf-8"))
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY.as_str()))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(PAGE)
}

/// The hash a policy names the page's one `tag` element by.
fn hash_of(tag: &str) -> String {
    let inner = PAGE
        .split_once(&format!("<{tag}>"))
        .and_then(|(_, rest)| rest.split_once(&format!("</{tag}>")))
        .map_or("", |(inner, _)| inner);
    format!("sha256-{}", STANDARD.encode(Sha256::digest(inner)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_covers_all_that_the_page_holds() {
        for tag in ["script", "style"] {
            assert_eq!(PAGE.matches(&format!("<{tag}")).count(), 1, "{tag}");
            assert_ne!(
                hash_of(tag),
                format!("sha256-{}", STANDARD.encode(Sha256::digest("")))
            );
        }
        for forbidden in [
            " style=",
            " onclick=",
            "innerHTML",
            "http://",
            "https://",
            "eval(",
        ] {
            assert!(!PAGE.contains(forbidden), "{forbidden}");
        }
    }
}
