//! The stand-in's routes, and the faults that strike them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use serde_json::json;

use super::cluster::{Shared, groups, list_pods, ok, read_job, read_pod, resources, status};
use super::log::log;
use super::pod_watch::watch;
use super::{Ask, Fault};

/// Serves on a thread of its own, so that a test that blocks does not.
pub(super) fn serve(shared: &Arc<Shared>, address: SocketAddr) -> (ServerHandle, SocketAddr) {
    let (started, starting) = mpsc::sync_channel(1);
    let shared = web::Data::from(Arc::clone(shared));
    std::thread::spawn(move || {
        actix_web::rt::System::new().block_on(async move {
            let app = move || {
                App::new()
                    .app_data(shared.clone())
                    .default_service(web::to(answer))
            };
            let server = HttpServer::new(app)
                .workers(1)
                // One who has gone is noticed, though nothing is sent to him.
                .h1_allow_half_closed(false)
                .disable_signals()
                .bind(address)
                .expect("a free port");
            let address = server.addrs()[0];
            let server = server.run();
            started.send((server.handle(), address)).expect("awaited");
            server.await.expect("it serves until it is stopped");
        });
    });
    starting.recv().expect("it starts")
}

async fn answer(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    let path = request.path().to_owned();
    let query: BTreeMap<String, String> = web::Query::from_query(request.query_string())
        .map_or_else(|_| BTreeMap::new(), web::Query::into_inner);
    shared.lock().requests.push(request.uri().to_string());
    if !is_let_in(&request, &shared) {
        return status(401, "Unauthorized", "Unauthorized");
    }
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts[..] {
        ["version"] => ok(json!({"major": "1", "minor": "32", "gitVersion": "v1.32.0"})),
        ["api"] => {
            ok(json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}))
        }
        ["apis"] => ok(groups()),
        ["api", "v1"] => ok(resources("v1", "pods", "Pod", "po")),
        ["apis", "batch", "v1"] => ok(resources("batch/v1", "jobs", "Job", "job")),
        ["api", "v1", "namespaces", _, "pods"] => match strike(&shared, Ask::Pods).await {
            Some(Struck::Answer(answer)) => answer,
            _ if query.contains_key("watch") => watch(&shared, &query),
            _ => ok(list_pods(&shared, query.get("labelSelector"))),
        },
        ["api", "v1", "namespaces", _, "pods", name] => read_pod(&shared, name),
        ["api", "v1", "namespaces", _, "pods", name, "log"] => {
            match strike(&shared, Ask::Log).await {
                Some(Struck::Answer(answer)) => answer,
                Some(Struck::Cut(after)) => log(&shared, name, &query, after),
                None => log(&shared, name, &query, usize::MAX),
            }
        }
        ["apis", "batch", "v1", "namespaces", _, "jobs", name] => {
            match strike(&shared, Ask::Job).await {
                Some(Struck::Answer(answer)) => answer,
                _ => read_job(&shared, name),
            }
        }
        _ => status(
            404,
            "NotFound",
            "the server could not find the requested resource",
        ),
    }
}

fn is_let_in(request: &HttpRequest, shared: &Shared) -> bool {
    let header = request.headers().get("authorization");
    let cluster = shared.lock();
    let Some(token) = &cluster.token else {
        return true;
    };
    header.is_some_and(|header| header.as_bytes() == format!("Bearer {token}").as_bytes())
}

enum Struck {
    Answer(HttpResponse),
    Cut(usize),
}

/// Takes the next fault for `ask`, if one is due.
async fn strike(shared: &Shared, ask: Ask) -> Option<Struck> {
    let fault = {
        let mut cluster = shared.lock();
        let due = |(of, _, times): &&mut (Ask, Fault, usize)| *of == ask && *times > 0;
        let (_, fault, times) = cluster.faults.iter_mut().find(due)?;
        *times -= 1;
        *fault
    };
    Some(match fault {
        Fault::Status(code, reason) => Struck::Answer(status(code, reason, "as the test wants it")),
        Fault::Hang => std::future::pending().await,
        Fault::CutAfter(bytes) => Struck::Cut(bytes),
        Fault::LogText(text) => {
            Struck::Answer(HttpResponse::Ok().content_type("text/plain").body(text))
        }
    })
}
