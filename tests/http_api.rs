//! The routes beside the streams: config, health, runs, OpenAPI, the page, CORS.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::http::Request;
use crate::support::process::require;
use crate::support::wait::SOON;
use crate::support::{Broker, Redis, eventually};

fn keys(value: &Value) -> Vec<&str> {
    let object = value.as_object().unwrap_or_else(|| panic!("{value}"));
    let mut keys: Vec<&str> = object.keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[tokio::test]
async fn config_tells_a_frontend_what_it_needs() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis)
        .set("kubectl.enabled", "true")
        .set("heartbeat.interval", "7s")
        .start_ready()
        .await;
    assert_eq!(
        broker.json("/api/v1/config").await,
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "default_backend": "redis",
            "backends": ["redis", "kubectl"],
            "heartbeat_seconds": 7,
            "reconnect": {"redis": 10, "kubectl": 3},
        })
    );
    let only_redis = Broker::redis(&redis).start_ready().await;
    let config = only_redis.json("/api/v1/config").await;
    assert_eq!(config["backends"], json!(["redis"]));
    let embedded = Broker::embedded().start_ready().await;
    let config = embedded.json("/api/v1/config").await;
    assert_eq!(config["default_backend"], "embedded");
}

#[tokio::test]
async fn health_names_each_dependency() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let health = broker.json("/health").await;
    assert_eq!(
        keys(&health),
        [
            "dependencies",
            "draining",
            "status",
            "uptime_seconds",
            "version"
        ]
    );
    assert_eq!(health["status"], "ok");
    assert_eq!(health["draining"], false);
    assert_eq!(health["version"], env!("CARGO_PKG_VERSION"));
    assert!(health["uptime_seconds"].is_number());
    let of_redis = &health["dependencies"]["redis"];
    assert_eq!(keys(of_redis), ["error", "latency_ms", "since", "status"]);
    assert_eq!(
        (&of_redis["status"], &of_redis["error"]),
        (&json!("up"), &Value::Null)
    );
    let since = of_redis["since"].as_str().expect("a time");
    since.parse::<jiff::Timestamp>().expect("RFC 3339");
    eventually("a probe measures the way to Redis", SOON, async || {
        let health = broker.json("/health").await;
        health["dependencies"]["redis"]["latency_ms"].is_number()
    })
    .await;
    for path in ["/health/live", "/health/ready", "/health/ready?strict=true"] {
        let response = broker.get(path).await;
        assert_eq!(response.status(), 200, "{path}");
        let kind = response.header("content-type").unwrap_or_default();
        assert!(kind.starts_with("application/json"), "{path}: {kind}");
        response.json();
    }
}

#[tokio::test]
async fn a_run_is_described() {
    let broker = Broker::embedded()
        .set("runs.end_grace", "100ms")
        .start_ready()
        .await;
    let mut client = broker.follow("42/stream").await;
    let first = broker.publish("42", json!(1)).await;
    broker
        .post("42", &json!({"kind": "log", "source": "app", "data": "x"}))
        .await;
    let last = broker
        .publish_status("42", json!({"status": "running"}))
        .await;
    client.run_events(3).await;

    let run = broker.json("/api/v1/runs/42").await;
    assert_eq!(
        keys(&run),
        [
            "backend",
            "clients",
            "ended",
            "epoch",
            "events",
            "first_id",
            "gaps",
            "last_event_ts",
            "last_id",
            "quiet_because",
            "run_id",
            "status",
        ]
    );
    assert_eq!(
        (&run["run_id"], &run["backend"]),
        (&json!("42"), &json!("embedded"))
    );
    assert_eq!(
        (&run["status"], &run["ended"]),
        (&json!("running"), &json!(false))
    );
    assert_eq!(run["clients"], 1);
    assert_eq!(run["events"], json!({"output": 1, "status": 1, "log": 1}));
    assert_eq!(
        (&run["first_id"], &run["last_id"]),
        (&json!(first), &json!(last))
    );
    let epoch = first.split('-').next().expect("an epoch");
    assert_eq!(run["epoch"].to_string(), epoch);
    assert_eq!(run["gaps"], json!([]));
    assert!(run["quiet_because"].is_string());

    let runs = broker.json("/api/v1/runs").await;
    assert_eq!(keys(&runs), ["next", "runs"]);
    assert_eq!(runs["next"], Value::Null);
    let listed = &runs["runs"][0];
    assert_eq!(
        keys(listed),
        [
            "backend",
            "clients",
            "ended",
            "last_event_ts",
            "last_id",
            "run_id",
            "status"
        ]
    );
    for key in keys(listed) {
        assert_eq!(listed[key], run[key], "{key}");
    }

    broker.publish_status("42", json!("completed")).await;
    client.rest(SOON).await;
    eventually("the run is over and unwatched", SOON, async || {
        let run = broker.json("/api/v1/runs/42").await;
        run["ended"] == true && run["clients"] == 0 && run["status"] == "completed"
    })
    .await;
}

#[tokio::test]
async fn a_run_never_seen_is_described_too() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let run = broker.json("/api/v1/runs/never-seen").await;
    assert_eq!(run["run_id"], "never-seen");
    assert_eq!(
        (&run["status"], &run["ended"]),
        (&Value::Null, &json!(false))
    );
    assert_eq!(
        (&run["last_id"], &run["first_id"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(run["events"], json!({"output": 0, "status": 0, "log": 0}));
    let why = run["quiet_because"].as_str().expect("a sentence");
    assert!(!why.is_empty());
    assert_eq!(broker.json("/api/v1/runs").await["runs"], json!([]));
}

#[tokio::test]
async fn all_runs_are_listed_page_by_page() {
    let broker = Broker::embedded().start_ready().await;
    let mut names: Vec<String> = (0..250).map(|n| format!("run-{n:03}")).collect();
    for run in &names {
        broker.publish(run, json!(1)).await;
    }
    let mut seen = Vec::new();
    let mut next = Value::Null;
    for _ in 0..250 {
        let path = match next.as_str() {
            Some(next) => format!("/api/v1/runs?after={next}"),
            None => "/api/v1/runs".to_owned(),
        };
        let page = broker.json(&path).await;
        let runs = page["runs"].as_array().expect("a list");
        seen.extend(
            runs.iter()
                .map(|run| run["run_id"].as_str().expect("text").to_owned()),
        );
        next = page["next"].clone();
        if next.is_null() {
            break;
        }
    }
    seen.sort();
    names.sort();
    assert_eq!(seen, names);
}

/// Nobody ever watched them, and they are in memory no more.
#[tokio::test]
async fn runs_that_went_quiet_stay_on_the_list_as_they_were() {
    let redis = Redis::start().await;
    for settings in [Broker::embedded(), Broker::redis(&redis)] {
        let broker = settings.set("hub.idle_ttl", "1s").start_ready().await;
        let mut last_ids = Vec::new();
        for run in ["1", "2", "3"] {
            broker.publish_status(run, json!("running")).await;
            last_ids.push(broker.publish(run, json!(1)).await);
        }
        broker.wait_metric("runcast_hubs", &[], 0.0).await;
        assert_eq!(broker.metric("runcast_past_runs", &[]).await, 3.0);
        let page = broker.json("/api/v1/runs?limit=2").await;
        assert_eq!(page["next"], "2");
        let rest = broker.json("/api/v1/runs?after=2").await;
        assert_eq!(rest["next"], Value::Null);
        let runs: Vec<&Value> = [&page, &rest]
            .into_iter()
            .flat_map(|page| page["runs"].as_array().expect("a list"))
            .collect();
        assert_eq!(runs.len(), 3, "{runs:?}");
        for ((run, name), last_id) in runs.into_iter().zip(["1", "2", "3"]).zip(&last_ids) {
            let told = [&run["run_id"], &run["status"], &run["last_id"]];
            assert_eq!(told, [name, "running", last_id]);
            assert_eq!((&run["clients"], &run["ended"]), (&json!(0), &json!(false)));
            assert!(run["last_event_ts"].is_string());
        }
        // With a hub again, it is listed once.
        let _client = broker.follow("2/stream").await;
        let runs = broker.json("/api/v1/runs").await["runs"].clone();
        assert_eq!(runs.as_array().map(Vec::len), Some(3), "{runs}");
        assert_eq!(
            (&runs[1]["clients"], &runs[1]["status"]),
            (&json!(1), &json!("running"))
        );
    }
}

#[tokio::test]
async fn posts_work_on_redis_too() {
    let redis = Redis::start().await;
    let broker = Broker::redis(&redis).start_ready().await;
    let mut client = broker.follow("42/stream").await;
    let ids = [
        broker.publish("42", json!({"n": 1})).await,
        broker.publish("42", json!({"n": 2})).await,
    ];
    for (n, id) in ids.iter().enumerate() {
        let frame = client.run_event().await;
        assert_eq!(frame.id(), id);
        assert_eq!(frame.payload(), json!({"n": n + 1}).to_string());
        let seq: usize = id
            .split('-')
            .nth(1)
            .and_then(|n| n.parse().ok())
            .expect("a seq");
        assert_eq!(seq, n + 1);
    }
    // Plain events in between carry the last durable id with them.
    let mut publisher = redis.publisher().await;
    publisher.publish("run:42:output:stdout", "\"plain\"").await;
    let plain = client.run_event().await;
    assert!(plain.id().starts_with('~') && plain.id().ends_with(&format!("~{}", ids[1])));
    let length: i64 = publisher.command(&["XLEN", "run:{42}:stream"]).await;
    assert_eq!(length, 2, "only durable events are kept by Redis");
}

/// Every route of the contract stands in the document, and a validator of the
/// OpenAPI initiative's schema accepts it.
#[tokio::test]
async fn the_openapi_document_is_valid_and_complete() {
    let broker = Broker::embedded().start_ready().await;
    let document = broker.json("/api/v1/openapi.json").await;
    let paths = &document["paths"];
    for (path, method) in [
        ("/api/v1/runs/{run_id}/stream", "get"),
        ("/api/v1/runs/{run_id}/stream/redis", "get"),
        ("/api/v1/runs/{run_id}/stream/kubectl", "get"),
        ("/api/v1/runs/{run_id}/events", "post"),
        ("/api/v1/runs", "get"),
        ("/api/v1/runs/{run_id}", "get"),
        ("/api/v1/config", "get"),
        ("/health", "get"),
        ("/health/live", "get"),
        ("/health/ready", "get"),
        ("/metrics", "get"),
    ] {
        assert!(
            paths[path][method].is_object(),
            "{method} {path} is missing"
        );
    }
    let dir = tempfile::TempDir::new().expect("a temporary directory");
    let file = dir.path().join("openapi.json");
    std::fs::write(&file, document.to_string()).expect("the directory is ours");
    let python = crate::clients::python();
    require(&python);
    let output = Command::new(python)
        .args(["-m", "openapi_spec_validator"])
        .arg(&file)
        .output()
        .expect("python starts");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test]
async fn a_page_that_follows_a_run_stands_at_the_root() {
    let broker = Broker::embedded().start_ready().await;
    let response = broker.get("/").await;
    assert_eq!(response.status(), 200);
    let kind = response.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("text/html"), "{kind}");
    assert!(response.text().contains("<html"));
}

/// Where the console is built in: each file that the page names, under its type,
/// for ever, and only once. Else the small page names none.
#[tokio::test]
async fn what_the_page_loads_is_there_and_stays() {
    let broker = Broker::embedded().start_ready().await;
    let page = broker.get("/").await.text();
    let named = page
        .split("\"./")
        .skip(1)
        .filter_map(|rest| rest.split('"').next());
    let named: Vec<&str> = named.collect();
    let built = std::path::Path::new("frontend/console/dist/index.html").exists();
    assert_eq!(built, !named.is_empty(), "{named:?}");
    for name in named {
        let path = format!("/{name}");
        let response = broker.get(&path).await;
        assert_eq!(response.status(), 200, "{path}");
        let kind = response.header("content-type").unwrap_or_default();
        let wanted = match name.rsplit('.').next() {
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            _ => "image/svg+xml",
        };
        assert_eq!(kind, wanted, "{path}");
        let caching = response.header("cache-control").unwrap_or_default();
        assert_eq!(caching.contains("immutable"), name.starts_with("assets/"));
        let tag = response.header("etag").expect("a tag");
        let again = Request::get(&path).header("If-None-Match", &tag);
        let again = again.send(broker.addr).await;
        assert_eq!((again.status(), again.body.len()), (304, 0), "{path}");
        if name.ends_with(".js") {
            let packed = Request::get(&path).header("Accept-Encoding", "br, gzip");
            let packed = packed.send(broker.addr).await;
            assert_eq!(packed.header("content-encoding").as_deref(), Some("gzip"));
            assert_eq!(packed.header("content-type").as_deref(), Some(wanted));
            assert!(packed.body.len() * 2 < response.body.len());
        }
    }
    let response = broker.get("/assets/..%2findex.html").await;
    assert_eq!(response.status(), 404);
    assert_eq!(broker.get("/assets/none.js").await.status(), 404);
}

#[tokio::test]
async fn head_answers_as_get_without_a_body() {
    let broker = Broker::embedded().start_ready().await;
    for path in ["/health", "/health/live", "/api/v1/config", "/metrics", "/"] {
        let response = Request::new("HEAD", path).send(broker.addr).await;
        assert_eq!((response.status(), response.body.len()), (200, 0), "{path}");
    }
    // A stream has no length, and a head that tells one would be another's.
    let path = "/api/v1/runs/42/stream";
    let response = Request::new("HEAD", path).send(broker.addr).await;
    assert_eq!((response.status(), response.body.len()), (200, 0), "{path}");
    let header = |name| response.header(name);
    assert_eq!(header("content-type").as_deref(), Some("text/event-stream"));
    assert_eq!(header("content-length"), None);
}

#[tokio::test]
async fn cors_admits_the_local_frontend_by_default() {
    let broker = Broker::embedded().start_ready().await;
    let origin = "http://localhost:3000";
    for (path, status) in [("/api/v1/config", 200), ("/api/v1/runs/-bad/stream", 400)] {
        let response = Request::get(path)
            .header("Origin", origin)
            .send(broker.addr)
            .await;
        assert_eq!(response.status(), status);
        let allowed = response.header("access-control-allow-origin");
        assert_eq!(allowed.as_deref(), Some(origin), "{path}");
    }
    let request = Request::get("/api/v1/runs/42/stream").header("Origin", origin);
    let client = crate::support::SseClient::request(broker.addr, &request).await;
    let header = |name| {
        client
            .head()
            .header(name)
            .unwrap_or_default()
            .to_lowercase()
    };
    assert_eq!(header("access-control-allow-origin"), origin);
    assert!(header("access-control-expose-headers").contains("x-streaming-backend"));

    let stranger = Request::get("/api/v1/config")
        .header("Origin", "http://evil.example")
        .send(broker.addr)
        .await;
    assert_eq!(stranger.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn preflights_of_the_client_are_answered() {
    let broker = Broker::embedded()
        .file("[cors]\nallowed_origins = [\"https://app.example\"]\n")
        .start_ready()
        .await;
    let preflight = |path: &str, method: &str, headers: &str| {
        Request::new("OPTIONS", path)
            .header("Origin", "https://app.example")
            .header("Access-Control-Request-Method", method)
            .header("Access-Control-Request-Headers", headers)
    };
    for (path, method, headers) in [
        ("/api/v1/runs/42/stream", "GET", "last-event-id"),
        ("/api/v1/runs/42/events", "POST", "content-type"),
        ("/api/v1/runs/42/events", "POST", "idempotency-key"),
    ] {
        let response = preflight(path, method, headers).send(broker.addr).await;
        assert!(
            matches!(response.status(), 200 | 204),
            "{}",
            response.status()
        );
        let header = |name| response.header(name).unwrap_or_default().to_lowercase();
        assert_eq!(header("access-control-allow-origin"), "https://app.example");
        let methods = header("access-control-allow-methods");
        assert!(methods.contains(&method.to_lowercase()), "{methods}");
        let allowed = header("access-control-allow-headers");
        assert!(allowed.contains(headers), "{headers} not in {allowed}");
    }
}
