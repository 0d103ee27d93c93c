//! `GET /api/v1/openapi.json`: the API's description, generated from the code.

use actix_web::HttpResponse;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::problem::json_answer;
use super::{
    config, diagnostics, explain, health, history, metrics, page, publish, revocations, runs,
    stream, tickets,
};

/// Describes the API.
#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "Runcast",
        description = "A live-run streaming broker: the events of agent and job runs as Server-Sent Events. Errors are RFC 9457 problem details.",
    ),
    modifiers(&Tokens),
    // Of a broker that asks for tokens; another one takes no notice.
    security(
        ("token" = []),
    ),
    paths(
        stream::stream,
        stream::stream_redis,
        stream::stream_kubectl,
        history::history,
        publish::publish,
        runs::runs,
        runs::run,
        explain::explain,
        tickets::tickets,
        revocations::revocations,
        config::config,
        diagnostics::diagnostics,
        openapi,
        health::health,
        health::live,
        health::ready,
        metrics::metrics,
        page::page,
    )
)]
pub(super) struct ApiDoc;

/// Adds how tokens are sent.
struct Tokens;

impl Modify for Tokens {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .description(Some(
                "Asked for with auth.mode = \"jwt\"; see docs/security.md.",
            ))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// Answers with this document.
#[utoipa::path(
    get,
    path = "/api/v1/openapi.json",
    tag = "about",
    security(()),
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json", body = Object))
)]
pub(super) async fn openapi() -> HttpResponse {
    json_answer(&ApiDoc::openapi())
}

#[cfg(test)]
mod tests {
    use super::super::{operator_routes, public_routes};
    use super::*;

    #[test]
    fn every_registered_route_is_described() {
        let document = serde_json::to_value(ApiDoc::openapi()).expect("JSON");
        let described = document["paths"].as_object().expect("paths");
        let mut routes = public_routes();
        routes.extend(operator_routes());
        for route in &routes {
            let path = &described[route.path];
            for method in route.allow.split(", ").filter(|method| *method != "HEAD") {
                let method = method.to_ascii_lowercase();
                assert!(
                    path[&method].is_object(),
                    "{method} {} is missing",
                    route.path
                );
            }
        }
        assert_eq!(described.len(), routes.len(), "a path without a route");
    }
}
