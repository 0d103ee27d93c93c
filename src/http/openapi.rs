//! `GET /api/v1/openapi.json`: the API's description, generated from the code.

use actix_web::HttpResponse;
use utoipa::OpenApi;

use super::problem::json_answer;
use super::{config, health, history, metrics, page, publish, runs, stream};

/// Describes the API.
#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "Runcast",
        description = "A live-run streaming broker: the events of agent and job runs as Server-Sent Events. Errors are RFC 9457 problem details.",
    ),
    paths(
        stream::stream,
        stream::stream_redis,
        stream::stream_kubectl,
        history::history,
        publish::publish,
        runs::runs,
        runs::run,
        config::config,
        openapi,
        health::health,
        health::live,
        health::ready,
        metrics::metrics,
        page::page,
    )
)]
pub(super) struct ApiDoc;

/// Answers with this document.
#[utoipa::path(
    get,
    path = "/api/v1/openapi.json",
    tag = "about",
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
