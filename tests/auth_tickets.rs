//! Tickets: for one stream, once, on any broker.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::http::{Request, Response, slug};
use crate::support::token::{admin, claims_but, guarded, now, token, token_for};
use crate::support::wait::{SOON, eventually};
use crate::support::{Broker, Redis, SseClient};

async fn ask(broker: &Broker, token: &str, wish: &Value) -> Response {
    let request = Request::post("/api/v1/tickets", "application/json", wish.to_string());
    let request = request.header("Authorization", format!("Bearer {token}"));
    request.send(broker.addr).await
}

async fn ticket(broker: &Broker, token: &str, run_id: &str) -> String {
    let response = ask(broker, token, &json!({"run_id": run_id})).await;
    assert_eq!(response.status(), 201, "{}", response.text());
    assert_eq!(
        response.header("cache-control").as_deref(),
        Some("no-store")
    );
    let answer = response.json();
    assert_eq!(answer["expires_in"], 30);
    answer["ticket"].as_str().expect("a code").to_owned()
}

fn at(run_id: &str, ticket: &str) -> Request {
    let path = format!("/api/v1/runs/{run_id}/stream?from=now&ticket={ticket}");
    Request::get(path).header("Accept", "text/event-stream")
}

/// Returns the status of a stream, which is left open no longer.
async fn opened(broker: &Broker, request: &Request) -> u16 {
    let answer = request.open(broker.addr).await.expect("an answer");
    answer.head.status
}

#[tokio::test]
async fn a_ticket_opens_one_stream_of_its_run_on_any_broker() {
    let redis = Redis::start().await;
    let settings = guarded(Broker::redis(&redis));
    let (one, other) = tokio::join!(settings.start_ready(), settings.start_ready());
    let rights = json!({"subscribe": ["42", "43"], "kinds": ["output"]});
    let reader = token_for(rights);
    let code = ticket(&one, &reader, "42").await;
    let mut stream = SseClient::request(other.addr, &at("42", &code)).await;
    stream.preamble().await;
    let mut publisher = redis.publisher().await;
    publisher.publish("run:42:logs:app", "\"hidden\"").await;
    publisher.publish("run:42:output:stdout", "1").await;
    assert_eq!(stream.run_event().await.payload(), "1");
    for broker in [&one, &other] {
        let problem = at("42", &code).send(broker.addr).await.problem(401);
        assert_eq!(slug(&problem), "invalid-token");
    }
    // Of another run it opens nothing.
    let code = ticket(&one, &reader, "42").await;
    assert_eq!(opened(&other, &at("43", &code)).await, 404);
    assert_eq!(opened(&one, &at("42", &code)).await, 200);
    assert_eq!(opened(&other, &at("42", &code)).await, 401);
    // A code is kept under its hash: who reads the store learns none.
    let code = ticket(&one, &reader, "42").await;
    let keys: Vec<String> = publisher.command(&["KEYS", "run:_ticket:*"]).await;
    assert_eq!(keys.len(), 1);
    let kept: String = publisher.command(&["GET", &keys[0]]).await;
    assert!(!keys[0].contains(&code) && !kept.contains(&code));
    let left: i64 = publisher.command(&["TTL", &keys[0]]).await;
    assert!((1..=30).contains(&left), "{left}");
    assert_eq!(opened(&one, &at("42", &code)).await, 200);
    let keys: Vec<String> = publisher.command(&["KEYS", "run:_ticket:*"]).await;
    assert_eq!(keys, Vec::<String>::new());
}

#[tokio::test]
async fn of_many_who_show_one_ticket_at_once_one_gets_in() {
    let redis = Redis::start().await;
    let settings = guarded(Broker::redis(&redis)).set("server.workers", 2);
    let brokers = join_all((0..3).map(|_| settings.start_ready())).await;
    let reader = token_for(json!({"subscribe": ["42"]}));
    for _ in 0..10 {
        let code = ticket(&brokers[0], &reader, "42").await;
        let request = at("42", &code);
        let opening = brokers.iter().cycle().take(30);
        let statuses = join_all(opening.map(|broker| opened(broker, &request))).await;
        let in_all = |status: u16| statuses.iter().filter(|it| **it == status).count();
        assert_eq!((in_all(200), in_all(401)), (1, 29), "{statuses:?}");
    }
}

#[tokio::test]
async fn tickets_are_for_streams_that_their_token_admits() {
    let broker = guarded(Broker::embedded()).start().await;
    let reader = token_for(json!({"subscribe": ["42"], "publish": ["42", "43"]}));
    for (wish, status, slug_) in [
        (json!({"run_id": "43"}), 404, "run-not-found"),
        (json!({"run_id": "*"}), 400, "bad-run-id"),
        (json!({"run_id": ""}), 400, "bad-run-id"),
        (json!({"run_id": "42", "ttl": 3600}), 400, "bad-json"),
        (json!({"run_id": 42}), 400, "bad-json"),
        (json!({}), 400, "bad-json"),
        (json!("42"), 400, "bad-json"),
        (json!({"run_id": "4".repeat(5000)}), 413, "body-too-large"),
    ] {
        let problem = ask(&broker, &reader, &wish).await.problem(status);
        assert_eq!(slug(&problem), slug_, "{wish}");
    }
    let text = Request::post("/api/v1/tickets", "text/plain", r#"{"run_id":"42"}"#);
    let text = text.header("Authorization", format!("Bearer {reader}"));
    text.send(broker.addr).await.problem(415);
    let foreign = Request::post("/api/v1/tickets", "application/json", r#"{"run_id":"42"}"#);
    let foreign = foreign
        .header("Authorization", format!("Bearer {reader}"))
        .header("Origin", "https://evil.example");
    foreign.send(broker.addr).await.problem(403);

    // On other routes it is nothing, and is not used up.
    let code = ticket(&broker, &reader, "42").await;
    for (method, path) in [
        ("GET", "/api/v1/runs/42"),
        ("GET", "/api/v1/runs/42/events"),
        ("POST", "/api/v1/runs/42/events"),
        ("GET", "/api/v1/runs"),
        ("POST", "/api/v1/tickets"),
        ("POST", "/api/v1/revocations"),
        ("GET", "/metrics"),
    ] {
        let request = Request::new(method, format!("{path}?ticket={code}"));
        let problem = request.send(broker.addr).await.problem(403);
        assert_eq!(slug(&problem), "not-allowed", "{method} {path}");
    }
    // The header wins, and the ticket stays.
    let request = at("42", &code).header("Authorization", format!("Bearer {reader}"));
    assert_eq!(opened(&broker, &request).await, 200);
    for wrong in [
        "".to_owned(),
        "x".to_owned(),
        code.to_lowercase(),
        format!("{code}A"),
        code[1..].to_owned(),
        format!("{code}%00"),
        format!("{code}%0a"),
        format!("run:_ticket:{code}"),
        "*".repeat(43),
        "A".repeat(43),
        "%EF%BC%A1".repeat(43),
    ] {
        let status = opened(&broker, &at("42", &wrong)).await;
        assert_eq!(status, 401, "{wrong}");
    }
    assert_eq!(opened(&broker, &at("42", &code)).await, 200);
    assert_eq!(opened(&broker, &at("42", &code)).await, 401);
}

#[tokio::test]
async fn a_ticket_ends_and_so_does_the_stream_with_its_token() {
    let redis = Redis::start().await;
    let broker = guarded(Broker::redis(&redis))
        .set("auth.ticket_ttl", "1s")
        .set("auth.leeway", "0s")
        .start_ready()
        .await;
    let reader = token_for(json!({"subscribe": ["42"]}));
    let response = ask(&broker, &reader, &json!({"run_id": "42"})).await.json();
    let code = response["ticket"].as_str().expect("a code").to_owned();
    let admin = redis.publisher().await;
    eventually("the ticket has ended", SOON, async || {
        let keys: Vec<String> = admin.clone().command(&["KEYS", "run:_ticket:*"]).await;
        keys.is_empty()
    })
    .await;
    assert_eq!(opened(&broker, &at("42", &code)).await, 401);

    let short = token(&claims_but(
        json!({"subscribe": ["42"]}),
        json!({"exp": now() + 3}),
    ));
    let response = ask(&broker, &short, &json!({"run_id": "42"})).await.json();
    let code = response["ticket"].as_str().expect("a code");
    let mut stream = SseClient::request(broker.addr, &at("42", code)).await;
    stream.preamble().await;
    let frames = stream.rest(SOON).await;
    let last = frames.last().expect("a goodbye");
    assert_eq!(last.json()["reason"], "token_expired");
}

#[tokio::test]
async fn a_ticket_of_a_token_that_was_revoked_opens_nothing() {
    let redis = Redis::start().await;
    let broker = guarded(Broker::redis(&redis)).start_ready().await;
    let reader = token(&claims_but(
        json!({"subscribe": ["42"]}),
        json!({"jti": "t1"}),
    ));
    let code = ticket(&broker, &reader, "42").await;
    let root = admin();
    let request = Request::post("/api/v1/revocations", "application/json", r#"{"jti":"t1"}"#);
    let request = request.header("Authorization", format!("Bearer {root}"));
    assert_eq!(request.send(broker.addr).await.status(), 200);
    assert_eq!(opened(&broker, &at("42", &code)).await, 401);
}

#[tokio::test]
async fn one_subject_does_not_take_the_tickets_of_all() {
    let broker = guarded(Broker::embedded())
        .set("auth.max_tickets", 5)
        .set("auth.max_tickets_per_subject", 3)
        .start()
        .await;
    let of = |subject: &str| {
        let rights = json!({"subscribe": ["42"]});
        token(&claims_but(rights, json!({"sub": subject})))
    };
    let wish = json!({"run_id": "42"});
    let mut statuses = Vec::new();
    for subject in ["a", "a", "a", "a", "b", "b", "b", "c"] {
        statuses.push(ask(&broker, &of(subject), &wish).await.status());
    }
    assert_eq!(statuses, [201, 201, 201, 429, 201, 201, 503, 503]);
}

/// A ticket was taken before it was known whether there would be a stream.
#[tokio::test]
async fn what_opens_no_stream_uses_up_no_ticket() {
    let redis = Redis::start().await;
    let broker = guarded(Broker::redis(&redis))
        .set("limits.max_streams_per_subject", 1)
        .set("limits.max_streams_per_run", 2)
        .set("kubectl.enabled", false)
        .start_ready()
        .await;
    let of = |subject: &str| {
        let rights = json!({"subscribe": ["*"], "kinds": ["output"]});
        token(&claims_but(rights, json!({"sub": subject})))
    };
    let code = ticket(&broker, &of("alice"), "42").await;
    let path = format!("/api/v1/runs/42/stream?ticket={code}");
    for (request, status) in [
        (Request::new("HEAD", path.clone()), 200),
        (Request::get(format!("{path}&from=yesterday")), 400),
        (Request::get(format!("{path}&kinds=shouts")), 400),
        (Request::get(format!("{path}&kinds=log")), 403),
        (Request::get(format!("{path}&access_token=x")), 400),
        (
            Request::get(format!("/api/v1/runs/42/stream/kubectl?ticket={code}")),
            404,
        ),
        (
            Request::get(format!("/api/v1/runs/43/stream?ticket={code}")),
            404,
        ),
        (Request::post(path.clone(), "text/plain", ""), 405),
    ] {
        let answer = request.clone().header("Accept", "text/event-stream");
        assert_eq!(
            answer.send(broker.addr).await.status(),
            status,
            "{request:?}"
        );
    }
    // Nor does a limit: of the subject, then of the run.
    let mut others = Vec::new();
    for subject in ["alice", "bob"] {
        let token = of(subject);
        let request = Request::get("/api/v1/runs/42/stream");
        let request = request.header("Authorization", format!("Bearer {token}"));
        let mut stream = SseClient::request(broker.addr, &request).await;
        stream.preamble().await;
        others.push(stream);
    }
    let plain = Request::get(path).header("Accept", "application/json");
    assert_eq!(plain.send(broker.addr).await.status(), 429);
    others.remove(0);
    eventually(
        "the run is at its limit, and nobody else",
        SOON,
        async || {
            let carol = ticket(&broker, &of("carol"), "42").await;
            opened(&broker, &at("42", &carol)).await == 200
        },
    )
    .await;
    eventually("there is room again", SOON, async || {
        let mut stream = SseClient::request(broker.addr, &at("42", &code)).await;
        stream.frame().await;
        stream.frame().await.event == "hello"
    })
    .await;
    assert_eq!(opened(&broker, &at("42", &code)).await, 401);
}

/// What the store did not keep took a subject's room for the life of a ticket.
#[tokio::test]
async fn a_ticket_that_the_store_refuses_takes_no_room() {
    let mut redis = Redis::start().await;
    let broker = guarded(Broker::redis(&redis))
        .set("redis.command_timeout", "500ms")
        .set("auth.max_tickets_per_subject", 1)
        .set("auth.ticket_ttl", "5m")
        .start_ready()
        .await;
    let reader = token_for(json!({"subscribe": ["42"]}));
    let wish = json!({"run_id": "42"});
    redis.kill();
    for _ in 0..3 {
        assert_eq!(ask(&broker, &reader, &wish).await.status(), 503);
    }
    redis.restart().await;
    eventually("a ticket is issued", SOON, async || {
        let status = ask(&broker, &reader, &wish).await.status();
        assert!(matches!(status, 201 | 503), "{status}");
        status == 201
    })
    .await;
    let refused = ask(&broker, &reader, &wish).await;
    assert_eq!(slug(&refused.problem(429)), "too-many-tickets");
    assert!(refused.header("retry-after").is_some());
}

/// Temporary trouble is told in a stream, so that an EventSource comes back.
#[tokio::test]
async fn a_ticket_that_cannot_be_looked_up_is_trouble_that_passes() {
    let mut redis = Redis::start().await;
    let broker = guarded(Broker::redis(&redis))
        .set("redis.command_timeout", "500ms")
        .start_ready()
        .await;
    let reader = token_for(json!({"subscribe": ["42"]}));
    let code = ticket(&broker, &reader, "42").await;
    redis.kill();
    let mut stream = SseClient::request(broker.addr, &at("42", &code)).await;
    let frames = stream.rest(SOON).await;
    let events: Vec<&str> = frames.iter().map(|frame| frame.event.as_str()).collect();
    assert_eq!(events, ["", "problem", "goodbye"]);
    assert_eq!(frames[1].json()["retryable"], true);
    // Who wants no stream is told as by any other route.
    let plain = Request::get(format!("/api/v1/runs/42/stream?ticket={code}"));
    let plain = plain.header("Accept", "application/json");
    assert_eq!(
        slug(&plain.send(broker.addr).await.problem(503)),
        "store-unavailable"
    );
    redis.restart().await;
    eventually("tickets are issued again", SOON, async || {
        ask(&broker, &reader, &json!({"run_id": "42"}))
            .await
            .status()
            == 201
    })
    .await;
}

/// A ticket admits to no more than the token that it was issued for.
#[tokio::test]
async fn a_ticket_ends_with_its_token() {
    let settings = guarded(Broker::embedded()).set("auth.leeway", "0s");
    let broker = settings.start().await;
    let ends_at = now() + 2;
    let rights = json!({"subscribe": ["42"]});
    let short = token(&claims_but(rights, json!({"exp": ends_at})));
    let code = ticket(&broker, &short, "42").await;
    eventually("the token has ended", SOON, async || now() > ends_at).await;
    let problem = at("42", &code).send(broker.addr).await.problem(401);
    assert_eq!(slug(&problem), "invalid-token");
}
