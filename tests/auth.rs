//! Who may do what, on every route, with `auth.mode = "jwt"`; and where a broker
//! without tokens may listen.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::http::{Request, Response, slug};
use crate::support::sse::Next;
use crate::support::token::{RSA, SECRET, admin, claims, guarded, token, token_for};
use crate::support::wait::SOON;
use crate::support::{Broker, Redis, SseClient};

/// Routes that say nothing of runs.
const PUBLIC: [&str; 6] = [
    "/",
    "/api/v1/config",
    "/api/v1/openapi.json",
    "/health",
    "/health/live",
    "/health/ready",
];

fn bearing(request: Request, token: &str) -> Request {
    request.header("Authorization", format!("Bearer {token}"))
}

async fn get(broker: &Broker, path: &str, token: &str) -> Response {
    bearing(Request::get(path), token).send(broker.addr).await
}

async fn post(broker: &Broker, run_id: &str, event: &Value, token: &str) -> Response {
    let path = format!("/api/v1/runs/{run_id}/events");
    let request = Request::post(path, "application/json", event.to_string());
    bearing(request, token).send(broker.addr).await
}

async fn publish(broker: &Broker, run_id: &str, kind: &str, data: &str) {
    let all = token_for(json!({"publish": ["*"]}));
    let response = post(broker, run_id, &json!({"kind": kind, "data": data}), &all).await;
    assert_eq!(response.status(), 202, "{}", response.text());
}

fn output(data: &str) -> Value {
    json!({"kind": "output", "data": data})
}

/// Runs the program to its end, with these settings.
fn runcast(arguments: &[&str], settings: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runcast"));
    command.args(arguments).env_clear();
    for (key, value) in settings {
        command.args(["--set", &format!("{key}={value}")]);
    }
    let directory = std::env::temp_dir();
    let output = command.current_dir(directory).output();
    output.expect("the program was built")
}

#[test]
fn without_tokens_it_does_not_listen_where_others_reach_it() {
    for bind in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[::ffff:10.0.0.1]:0"] {
        for command in ["serve", "dev", "check"] {
            let output = runcast(&[command, "--bind", bind], &[]);
            assert_eq!(
                output.status.code(),
                Some(64),
                "{command} {bind}: {output:?}"
            );
            let text = String::from_utf8(output.stderr).expect("UTF-8");
            assert_eq!(text.lines().count(), 1, "{text}");
            for part in [
                "server.bind",
                "auth.mode",
                "auth.allow_anonymous = true",
                "every run",
            ] {
                assert!(text.contains(part), "{part} is not in {text}");
            }
        }
    }
}

#[tokio::test]
async fn it_listens_on_loopback_and_where_it_is_told_that_anybody_may_come() {
    for (bind, anonymous) in [
        ("127.0.0.2:0", "false"),
        ("[::ffff:127.0.0.1]:0", "false"),
        ("0.0.0.0:0", "true"),
    ] {
        let broker = Broker::embedded()
            .set("server.bind", bind)
            .set("auth.allow_anonymous", anonymous)
            .start()
            .await;
        assert!(broker.addr.port() > 0);
    }
    let broker = guarded(Broker::embedded())
        .set("server.bind", "0.0.0.0:0")
        .start()
        .await;
    assert!(broker.addr.port() > 0);
}

#[test]
fn keys_that_are_none_are_refused_without_being_shown() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("the directory is ours");
        path.to_str().expect("UTF-8").to_owned()
    };
    let private = "-----BEGIN PRIVATE KEY-----\nczNjcmV0\n-----END PRIVATE KEY-----\n";
    let cases = [
        ("auth.secret", "s3cret".to_owned(), "32 bytes or more"),
        (
            "auth.secret",
            format!("-----BEGIN PUBLIC KEY----- s3cret {SECRET}"),
            "no secret",
        ),
        (
            "auth.secret_file",
            file("short", "s3cret\n"),
            "32 bytes or more",
        ),
        (
            "auth.secret_file",
            "/nowhere/s3cret".to_owned(),
            "cannot be read",
        ),
        ("auth.keys_file", file("empty", ""), "PUBLIC KEY"),
        ("auth.keys_file", file("text", "s3cret"), "PUBLIC KEY"),
        ("auth.keys_file", file("private", private), "private key"),
        (
            "auth.keys_file",
            file("broken", &RSA.public_pem.replace("MII", "s3cret")),
            "block 1",
        ),
        ("auth.keys_file", file("none", r#"{"keys":[]}"#), "no key"),
        (
            "auth.keys_file",
            file("oct", r#"{"keys":[{"kty":"oct","k":"czNjcmV0"}]}"#),
            "no key",
        ),
        (
            "auth.jwks_url",
            "http://s3cret:s3cret@issuer.example/keys".to_owned(),
            "https://",
        ),
        (
            "auth.jwks_url",
            "https://s3cret@issuer.example/keys".to_owned(),
            "auth.issuer",
        ),
    ];
    for (key, value, reason) in cases {
        let settings = [("auth.mode", "jwt"), (key, value.as_str())];
        let output = runcast(&["serve", "--bind", "127.0.0.1:0"], &settings);
        assert_eq!(output.status.code(), Some(64), "{key} {output:?}");
        let text = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(text.contains(key) && text.contains(reason), "{key}: {text}");
        let is_path = value.starts_with("/nowhere");
        assert!(is_path || !text.contains("s3cret"), "{key}: {text}");
    }
    let output = runcast(&["serve", "--set", "auth.secret:s3cret"], &[]);
    assert_eq!(output.status.code(), Some(64));
    assert!(!format!("{output:?}").contains("s3cret"), "{output:?}");
    for settings in [
        &[("auth.mode", "jwt")][..],
        &[("auth.secret", SECRET)],
        &[
            ("auth.mode", "jwt"),
            ("auth.secret", SECRET),
            ("auth.cookie", "s"),
            ("cors.allowed_origins", "*"),
        ],
        &[
            ("auth.mode", "jwt"),
            ("auth.secret", SECRET),
            ("auth.cookie", "a=b"),
        ],
        &[
            ("auth.mode", "jwt"),
            ("auth.secret", SECRET),
            ("auth.algorithms", "none"),
        ],
    ] {
        let output = runcast(&["serve", "--bind", "127.0.0.1:0"], settings);
        assert_eq!(output.status.code(), Some(64), "{settings:?} {output:?}");
        assert!(!format!("{output:?}").contains(SECRET), "{output:?}");
    }
}

/// Taken from the description of the API: a route that is added and forgets to
/// ask shows here.
#[tokio::test]
async fn every_route_asks_for_a_token_but_those_that_say_nothing_of_runs() {
    let broker = guarded(Broker::embedded()).start().await;
    let document = broker.json("/api/v1/openapi.json").await;
    let mut asked = 0;
    for (path, methods) in document["paths"].as_object().expect("paths") {
        let at = path.replace("{run_id}", "42");
        for method in methods.as_object().expect("methods").keys() {
            let method = method.to_ascii_uppercase();
            let response = Request::new(&method, at.clone()).send(broker.addr).await;
            if PUBLIC.contains(&path.as_str()) {
                assert_eq!(response.status(), 200, "{method} {path}");
                continue;
            }
            asked += 1;
            let problem = response.problem(401);
            assert_eq!(slug(&problem), "token-required", "{method} {path}");
            let challenge = response.header("www-authenticate");
            assert_eq!(
                challenge.as_deref(),
                Some("Bearer realm=\"runcast\""),
                "{path}"
            );
        }
    }
    assert_eq!(asked, 12, "routes that ask");
    for path in [
        "/api/v1/runs/42/stream",
        "/api/v1/runs/42/stream/redis",
        "/api/v1/runs/42/events",
        "/api/v1/runs",
    ] {
        let response = Request::new("HEAD", path).send(broker.addr).await;
        assert_eq!(response.status(), 401, "HEAD {path}");
    }
    // An EventSource that is not let in is not to try for ever.
    let stream = Request::get("/api/v1/runs/42/stream").header("Accept", "text/event-stream");
    stream.send(broker.addr).await.problem(401);
}

#[tokio::test]
async fn without_tokens_nothing_asks_for_one_and_the_access_routes_say_so() {
    let broker = Broker::embedded().start().await;
    publish_openly(&broker).await;
    for token in ["", "a.b.c"] {
        assert_eq!(get(&broker, "/api/v1/runs/42", token).await.status(), 200);
    }
    let in_query = broker.get("/api/v1/runs/42?access_token=x&token=y").await;
    assert_eq!(in_query.status(), 200);
    for path in ["/api/v1/tickets", "/api/v1/revocations"] {
        let request = Request::post(path, "application/json", "{}");
        let problem = request.send(broker.addr).await.problem(404);
        assert_eq!(slug(&problem), "auth-disabled");
    }
}

async fn publish_openly(broker: &Broker) {
    assert_eq!(broker.post("42", &output("x")).await.status(), 202);
}

#[tokio::test]
async fn a_token_admits_to_its_runs_and_no_more() {
    let broker = guarded(Broker::embedded()).start().await;
    for run_id in ["42", "43", "team-a-1", "team-b-1"] {
        publish(&broker, run_id, "output", "x").await;
    }
    let reader = token_for(json!({"subscribe": ["42", "team-a-*"]}));
    let writer = token_for(json!({"publish": ["43"]}));
    let both = token_for(json!({"subscribe": ["43"], "publish": ["43"]}));
    let root = admin();
    let nobody = token(&claims(json!({})));
    let all = token_for(json!({"subscribe": ["*"], "publish": ["*"]}));
    for (token, run_id, reads, writes) in [
        (&reader, "42", 200, 403),
        (&reader, "team-a-1", 200, 403),
        (&reader, "team-a-new", 200, 403),
        (&reader, "43", 404, 404),
        (&reader, "team-b-1", 404, 404),
        (&writer, "43", 404, 202),
        (&writer, "42", 404, 404),
        (&both, "43", 200, 202),
        (&root, "42", 403, 403),
        (&root, "no-such-run", 403, 403),
        (&nobody, "42", 404, 404),
        (&all, "team-b-1", 200, 202),
    ] {
        for suffix in ["", "/events", "/events?limit=1"] {
            let path = format!("/api/v1/runs/{run_id}{suffix}");
            let response = get(&broker, &path, token).await;
            assert_eq!(response.status(), reads, "{path}: {}", response.text());
        }
        for suffix in ["", "/redis"] {
            let path = format!("/api/v1/runs/{run_id}/stream{suffix}");
            let head = bearing(Request::new("HEAD", path.clone()), token);
            assert_eq!(head.send(broker.addr).await.status(), reads, "{path}");
            if reads != 200 {
                let request = bearing(Request::get(path), token);
                let request = request.header("Accept", "text/event-stream");
                request.send(broker.addr).await.problem(reads);
            }
        }
        let response = post(&broker, run_id, &output("y"), token).await;
        assert_eq!(response.status(), writes, "{run_id}: {}", response.text());
    }
    let request = bearing(Request::get("/api/v1/runs/42/stream"), &reader);
    let mut stream = SseClient::request(broker.addr, &request).await;
    stream.preamble().await;
    assert_eq!(stream.run_event().await.payload(), r#""x""#);
}

/// What is forbidden is told as what does not exist, to the letter.
#[tokio::test]
async fn a_forbidden_run_looks_like_one_that_never_was() {
    let broker = guarded(Broker::embedded()).start().await;
    publish(&broker, "secret-1", "output", "x").await;
    let reader = token_for(json!({"subscribe": ["42"], "publish": ["42"]}));
    for (method, suffix) in [
        ("GET", ""),
        ("GET", "/events"),
        ("GET", "/events?before=1-1-1"),
        ("GET", "/stream"),
        ("GET", "/stream/redis"),
        ("GET", "/stream?from=-1&kinds=status"),
        ("HEAD", "/stream"),
        ("POST", "/events"),
    ] {
        let mut answers = Vec::new();
        for run_id in ["secret-1", "secret-2"] {
            let path = format!("/api/v1/runs/{run_id}{suffix}");
            let request = match method {
                "POST" => Request::post(path, "application/json", output("y").to_string()),
                method => Request::new(method, path),
            };
            let response = bearing(request, &reader).send(broker.addr).await;
            assert_eq!(response.status(), 404, "{method} {suffix}");
            let headers = [
                "content-type",
                "content-length",
                "www-authenticate",
                "x-streaming-backend",
            ];
            let headers = headers.map(|name| response.header(name));
            answers.push((headers, response.text().replace(run_id, "RUN")));
        }
        assert_eq!(answers[0], answers[1], "{method} {suffix}");
    }
    // Nor do the lists tell: not by a run, and not by a page that is short.
    for index in 0..5 {
        publish(&broker, &format!("hidden-{index}"), "output", "x").await;
    }
    publish(&broker, "42", "output", "x").await;
    let list = get(&broker, "/api/v1/runs?limit=1", &reader).await.json();
    assert_eq!(list["runs"].as_array().map(Vec::len), Some(1), "{list}");
    assert_eq!(list["runs"][0]["run_id"], "42");
    assert_eq!(list["next"], Value::Null);
    let list = get(&broker, "/api/v1/runs?after=hidden-0", &reader)
        .await
        .json();
    assert_eq!(list, json!({"runs": [], "next": null}));
    let all = token_for(json!({"subscribe": ["*"]}));
    let list = get(&broker, "/api/v1/runs", &all).await.json();
    assert_eq!(list["runs"].as_array().map(Vec::len), Some(7), "{list}");
}

#[tokio::test]
async fn only_the_kinds_of_a_token_are_shown_and_taken() {
    let broker = guarded(Broker::embedded()).start().await;
    for (kind, data) in [
        ("output", "a"),
        ("status", "running"),
        ("log", "c"),
        ("output", "d"),
    ] {
        publish(&broker, "42", kind, data).await;
    }
    let rights = json!({"subscribe": ["*"], "publish": ["*"], "kinds": ["output"]});
    let outputs = token_for(rights);
    let page = get(&broker, "/api/v1/runs/42/events", &outputs)
        .await
        .json();
    let kinds: Vec<&Value> = page["events"]
        .as_array()
        .expect("events")
        .iter()
        .map(|it| &it["event"])
        .collect();
    assert_eq!(kinds, ["output", "output"]);
    let page = get(
        &broker,
        "/api/v1/runs/42/events?kinds=log,output&limit=1",
        &outputs,
    )
    .await
    .json();
    assert_eq!(page["events"][0]["event"], "output");
    for path in [
        "events?kinds=log",
        "events?kinds=status,log",
        "stream?kinds=status",
    ] {
        let response = get(&broker, &format!("/api/v1/runs/42/{path}"), &outputs).await;
        assert_eq!(slug(&response.problem(403)), "not-allowed", "{path}");
    }
    let run = get(&broker, "/api/v1/runs/42", &outputs).await.json();
    assert_eq!(run["events"], json!({"output": 2}));
    assert_eq!(run["status"], Value::Null);
    let list = get(&broker, "/api/v1/runs", &outputs).await.json();
    assert_eq!(list["runs"][0]["status"], Value::Null);

    let request = bearing(
        Request::get("/api/v1/runs/42/stream?kinds=output,status"),
        &outputs,
    );
    let mut stream = SseClient::request(broker.addr, &request).await;
    stream.preamble().await;
    assert_eq!(stream.run_event().await.payload(), r#""a""#);
    assert_eq!(stream.run_event().await.payload(), r#""d""#);
    publish(&broker, "42", "log", "hidden").await;
    publish(&broker, "42", "output", "e").await;
    assert_eq!(stream.run_event().await.payload(), r#""e""#);

    for (kind, status) in [("output", 202), ("status", 403), ("log", 403)] {
        let response = post(&broker, "42", &json!({"kind": kind, "data": "x"}), &outputs).await;
        assert_eq!(response.status(), status, "{kind}");
    }
    let lines = "{\"kind\":\"output\",\"data\":1}\n{\"kind\":\"status\",\"data\":\"failed\"}\n";
    let request = Request::post("/api/v1/runs/42/events", "application/x-ndjson", lines);
    bearing(request, &outputs)
        .send(broker.addr)
        .await
        .problem(403);
    let path = "/api/v1/runs/42/events?restart=true";
    let request = Request::post(path, "application/json", output("x").to_string());
    bearing(request, &outputs)
        .send(broker.addr)
        .await
        .problem(403);
    let run = get(&broker, "/api/v1/runs/42", &outputs).await.json();
    assert_eq!(
        run["events"],
        json!({"output": 4}),
        "nothing of it was published"
    );

    // Who may read no kind may read no run.
    let none = token_for(json!({"subscribe": ["*"], "kinds": []}));
    get(&broker, "/api/v1/runs/42", &none).await.problem(404);
}

#[tokio::test]
async fn metrics_are_for_admins() {
    let broker = guarded(Broker::embedded()).start().await;
    let all = token_for(json!({"subscribe": ["*"], "publish": ["*"]}));
    let problem = get(&broker, "/metrics", &all).await;
    assert_eq!(slug(&problem.problem(403)), "not-allowed");
    let challenge = problem.header("www-authenticate").expect("a challenge");
    assert!(challenge.contains("insufficient_scope"), "{challenge}");
    let text = get(&broker, "/metrics", &admin()).await.text();
    assert!(text.contains("runcast_auth_refusals_total"), "{text}");
}

/// Prometheus need not be given a token where only operators come.
#[tokio::test]
async fn metrics_on_a_socket_of_their_own_need_no_token() {
    let settings = guarded(Broker::embedded()).set("metrics.bind", "127.0.0.1:0");
    let broker = settings.start().await;
    let operator = broker.operator_addr();
    let text = Request::get("/metrics").send(operator).await.text();
    assert!(text.contains("runcast_auth_refusals_total"), "{text}");
    Request::get("/api/v1/runs")
        .send(operator)
        .await
        .problem(404);
    get(&broker, "/metrics", &admin()).await.problem(404);
}

#[tokio::test]
async fn a_token_in_the_query_is_refused_and_shown_nowhere() {
    let redis = Redis::start().await;
    let cookie = "session";
    let broker = guarded(Broker::redis(&redis))
        .set("auth.cookie", cookie)
        .set("log.level", "trace")
        .start_ready()
        .await;
    let good = token_for(json!({"subscribe": ["42"], "publish": ["42"]}));
    for key in [
        "access_token",
        "token",
        "jwt",
        "Access_Token",
        "id_token",
        "x",
        "ticket",
    ] {
        for path in ["", "/stream", "/events"] {
            let path = format!("/api/v1/runs/42{path}?from=now&{key}={good}");
            // Whatever else is shown: by now it stands in somebody's log.
            for request in [
                Request::get(path.clone()),
                bearing(Request::get(path.clone()), &good),
            ] {
                let response = request.send(broker.addr).await;
                let problem = response.problem(400);
                assert_eq!(slug(&problem), "token-in-query", "{key}");
                let detail = problem["detail"].as_str().expect("a sentence");
                assert!(detail.contains("Authorization") && detail.contains("/api/v1/tickets"));
                assert!(!response.text().contains(&good));
            }
        }
    }
    // Good ones, broken ones, and a stream: nothing of any of them is logged.
    let broken = format!("{}x", &good[..good.len() - 1]);
    get(&broker, "/api/v1/runs/42", &broken).await.problem(401);
    let request = Request::get("/api/v1/runs/42")
        .header("Cookie", format!("{cookie}={good}"))
        .header("Sec-Fetch-Site", "same-origin");
    assert_eq!(request.send(broker.addr).await.status(), 200);
    let wish = Request::post("/api/v1/tickets", "application/json", r#"{"run_id":"42"}"#);
    let ticket = bearing(wish, &good).send(broker.addr).await.json();
    let ticket = ticket["ticket"].as_str().expect("a code");
    let request = Request::get(format!("/api/v1/runs/42/stream?ticket={ticket}"));
    let mut stream = SseClient::request(broker.addr, &request).await;
    stream.preamble().await;
    assert_eq!(post(&broker, "42", &output("x"), &good).await.status(), 202);
    assert_eq!(stream.run_event().await.payload(), r#""x""#);
    let signature = good.rsplit('.').next().expect("a signature");
    let log = broker.process.log().join("\n");
    assert!(log.contains("request answered"), "the log is at trace");
    for secret in [good.as_str(), signature, ticket, SECRET] {
        assert!(!log.contains(secret), "a secret is in the log");
    }
    let root = admin();
    let metrics = get(&broker, "/metrics", &root).await.text();
    for secret in [signature, ticket, "alice"] {
        assert!(!metrics.contains(secret), "a secret is in the metrics");
    }
}

#[tokio::test]
async fn a_cookie_counts_from_pages_that_are_ours_or_named() {
    let broker = guarded(Broker::embedded())
        .set("auth.cookie", "session")
        .set("cors.allowed_origins", "https://console.example")
        .start()
        .await;
    let good = token_for(json!({"subscribe": ["42"], "publish": ["42"]}));
    let cookie = format!("a=1; session={good}; b=2");
    for (headers, status) in [
        (&[("Origin", "https://console.example")][..], 200),
        (&[("Origin", "http://localhost")], 200),
        (&[("Sec-Fetch-Site", "same-origin")], 200),
        (&[("Sec-Fetch-Site", "none")], 200),
        (
            &[
                ("Origin", "https://behind.a.proxy"),
                ("Sec-Fetch-Site", "same-origin"),
            ],
            200,
        ),
        (&[], 403),
        (&[("Sec-Fetch-Site", "same-site")], 403),
        (&[("Sec-Fetch-Site", "cross-site")], 403),
        (&[("Origin", "null")], 403),
        (&[("Origin", "https://evil.example")], 403),
        (
            &[
                ("Origin", "https://evil.example"),
                ("Sec-Fetch-Site", "none"),
            ],
            403,
        ),
        (&[("Origin", "http://console.example")], 403),
        (&[("Origin", "https://console.example.evil.example")], 403),
        (&[("Origin", "https://CONSOLE.example")], 403),
        (&[("Origin", "http://localhost:81")], 403),
        (&[("Origin", "http://localhost.evil.example")], 403),
    ] {
        let with = |mut request: Request| {
            request = request.header("Cookie", cookie.clone());
            for (name, value) in headers {
                request = request.header(name, *value);
            }
            request
        };
        let response = with(Request::get("/api/v1/runs/42"))
            .send(broker.addr)
            .await;
        assert_eq!(
            response.status(),
            status,
            "{headers:?}: {}",
            response.text()
        );
        let body = output("x").to_string();
        let request = with(Request::post(
            "/api/v1/runs/42/events",
            "application/json",
            body,
        ));
        let response = request.send(broker.addr).await;
        let accepted = if status == 200 { 202 } else { status };
        assert_eq!(
            response.status(),
            accepted,
            "{headers:?}: {}",
            response.text()
        );
    }
    // Two are one planted by somebody else; another name is another cookie.
    for (cookies, status) in [
        (format!("session={good}; session={good}"), 401),
        (format!("session=x; session={good}"), 401),
        (format!("session={}", &good[1..]), 401),
        (format!("Session={good}"), 401),
        (format!("session ={good}"), 401),
    ] {
        let request = Request::get("/api/v1/runs/42")
            .header("Sec-Fetch-Site", "same-origin")
            .header("Cookie", cookies);
        assert_eq!(request.send(broker.addr).await.status(), status);
    }
    // The header wins, good or not.
    let request = Request::get("/api/v1/runs/42")
        .header("Cookie", cookie.clone())
        .header("Sec-Fetch-Site", "same-origin");
    bearing(request, "x.y.z")
        .send(broker.addr)
        .await
        .problem(401);
    // Only a named page may send it across.
    for (origin, credentials) in [
        ("https://console.example", Some("true")),
        ("https://evil.example", None),
    ] {
        let preflight = Request::new("OPTIONS", "/api/v1/runs/42/events")
            .header("Origin", origin)
            .header("Access-Control-Request-Method", "POST");
        let response = preflight.send(broker.addr).await;
        let told = response.header("access-control-allow-credentials");
        assert_eq!(told.as_deref(), credentials, "{origin}");
        let allowed = response.header("access-control-allow-origin");
        assert_eq!(allowed.as_deref(), credentials.map(|_| origin), "{origin}");
    }
}

#[tokio::test]
async fn without_a_cookie_set_none_counts_and_no_page_may_send_one() {
    let broker = guarded(Broker::embedded()).start().await;
    let good = token_for(json!({"subscribe": ["42"]}));
    let request = Request::get("/api/v1/runs/42")
        .header("Sec-Fetch-Site", "same-origin")
        .header("Cookie", format!("session={good}; token={good}"));
    let problem = request.send(broker.addr).await.problem(401);
    assert_eq!(slug(&problem), "token-required");
    let request = Request::get("/api/v1/runs/42").header("Origin", "http://localhost:3000");
    let response = bearing(request, &good).send(broker.addr).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.header("access-control-allow-credentials"), None);
}

/// A run's end is told to whoever may see the run, whatever kinds.
#[tokio::test]
async fn the_end_is_told_whatever_the_kinds() {
    let broker = guarded(Broker::embedded())
        .set("runs.end_grace", "10ms")
        .start()
        .await;
    let outputs = token_for(json!({"subscribe": ["42"], "kinds": ["output"]}));
    publish(&broker, "42", "output", "a").await;
    let request = bearing(Request::get("/api/v1/runs/42/stream"), &outputs);
    let mut stream = SseClient::request(broker.addr, &request).await;
    stream.preamble().await;
    publish(&broker, "42", "status", "failed").await;
    assert_eq!(stream.run_event().await.payload(), r#""a""#);
    let end = loop {
        let Next::Frame(frame) = stream.next_within(SOON).await else {
            panic!("no end came");
        };
        assert_ne!(frame.event, "status");
        if frame.event == "end" {
            break frame;
        }
    };
    assert_eq!(end.json()["status"], "failed");
    let run = get(&broker, "/api/v1/runs/42", &outputs).await.json();
    assert_eq!(
        (&run["status"], &run["ended"]),
        (&json!("failed"), &json!(true))
    );
}
