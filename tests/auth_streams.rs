//! What holds while a stream is open: its token ends, or is revoked.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::http::{Request, Response, slug};
use crate::support::sse::Next;
use crate::support::token::{admin, claims_but, guarded, now, token, token_for};
use crate::support::wait::{SOON, eventually};
use crate::support::{Broker, Redis, SseClient};

/// A revocation is to have reached every stream by then.
const REVOKED_WITHIN: Duration = Duration::from_secs(2);

async fn follow(broker: &Broker, token: &str) -> SseClient {
    let request = Request::get("/api/v1/runs/42/stream");
    let request = request.header("Authorization", format!("Bearer {token}"));
    let mut stream = SseClient::request(broker.addr, &request).await;
    stream.preamble().await;
    stream
}

fn reader(changes: Value) -> String {
    token(&claims_but(json!({"subscribe": ["42"]}), changes))
}

async fn revoke(broker: &Broker, wish: Value) -> Response {
    let root = admin();
    let request = Request::post("/api/v1/revocations", "application/json", wish.to_string());
    let request = request.header("Authorization", format!("Bearer {root}"));
    request.send(broker.addr).await
}

async fn status(broker: &Broker, token: &str) -> u16 {
    let request = Request::get("/api/v1/runs/42");
    let request = request.header("Authorization", format!("Bearer {token}"));
    request.send(broker.addr).await.status()
}

/// Checks that the stream ends, in time, as one whose token ended.
async fn ends(stream: &mut SseClient, within: Duration) {
    let frames = stream.rest(within).await;
    let last = frames.last().expect("a goodbye");
    assert_eq!(last.event, "goodbye", "{frames:?}");
    assert_eq!(last.json()["reason"], "token_expired");
    assert!(last.retry.is_some(), "it says when to come back");
}

async fn goes_on(stream: &mut SseClient) {
    let next = stream.next_within(Duration::from_millis(300)).await;
    assert_eq!(next, Next::Silence);
}

/// A post's body may take its time, in which its token is taken back.
#[tokio::test]
async fn a_post_begun_before_its_token_was_revoked_is_refused() {
    let broker = guarded(Broker::embedded()).start().await;
    let writer = token(&claims_but(json!({"publish": ["42"]}), json!({"jti": "w"})));
    let body = r#"{"kind":"output","data":1}"#;
    let mut post = tokio::net::TcpStream::connect(broker.addr)
        .await
        .expect("it listens");
    let head = format!(
        "POST /api/v1/runs/42/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {writer}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let begun = head + &body[..3];
    post.write_all(begun.as_bytes()).await.expect("it reads");
    let root = format!("Bearer {}", admin());
    let metrics = Request::get("/metrics").header("Authorization", root);
    eventually("the body is being read", SOON, async || {
        let text = metrics.send(broker.addr).await.text();
        text.contains("runcast_http_body_bytes 3\n")
    })
    .await;
    assert_eq!(revoke(&broker, json!({"jti": "w"})).await.status(), 200);
    post.write_all(&body.as_bytes()[3..])
        .await
        .expect("it reads");
    let mut answer = String::new();
    post.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
}

#[tokio::test]
async fn a_stream_ends_with_its_token_and_others_go_on() {
    let broker = guarded(Broker::embedded())
        .set("auth.leeway", "0s")
        .start()
        .await;
    let ends_at = now() + 3;
    let short = reader(json!({"exp": ends_at}));
    let mut ending = follow(&broker, &short).await;
    let mut going_on = follow(&broker, &reader(json!({}))).await;
    ends(&mut ending, SOON).await;
    let late = jiff::Timestamp::now().as_millisecond() - ends_at * 1000;
    assert!((0..1500).contains(&late), "{late} ms after exp");
    goes_on(&mut going_on).await;
    assert_eq!(status(&broker, &short).await, 401);
    let root = admin();
    let closed = [("reason", "token_expired")];
    let request = Request::get("/metrics").header("Authorization", format!("Bearer {root}"));
    let text = request.send(broker.addr).await.text();
    let sum = crate::support::broker::sum_samples(&text, "runcast_sessions_closed_total", &closed);
    assert_eq!(sum, 1.0);
}

/// Streams that were opened together do not end together, and none after its
/// token would open another.
#[tokio::test]
async fn ends_are_spread_over_the_leeway() {
    let broker = guarded(Broker::embedded())
        .set("auth.leeway", "4s")
        .start()
        .await;
    let ends_at = now() + 1;
    let short = reader(json!({"exp": ends_at}));
    let mut streams = Vec::new();
    for _ in 0..24 {
        streams.push(follow(&broker, &short).await);
    }
    let ended = futures_util::future::join_all(streams.iter_mut().map(|stream| async move {
        ends(stream, SOON).await;
        jiff::Timestamp::now().as_millisecond() - ends_at * 1000
    }))
    .await;
    let (first, last) = (ended.iter().min(), ended.iter().max());
    let (first, last) = (first.expect("some"), last.expect("some"));
    assert!(*first >= 0 && *last < 5500, "{ended:?}");
    assert!(last - first > 1000, "they end together: {ended:?}");
}

#[tokio::test]
async fn the_greatest_age_holds_for_a_token_that_lives_longer() {
    let broker = guarded(Broker::embedded())
        .set("streaming.max_age", "1s")
        .start()
        .await;
    let mut stream = follow(&broker, &reader(json!({}))).await;
    let frames = stream.rest(SOON).await;
    let last = frames.last().expect("a goodbye");
    assert_eq!(last.json()["reason"], "max_age");
}

#[tokio::test]
async fn a_revocation_reaches_the_streams_of_every_broker() {
    let redis = Redis::start().await;
    let settings = guarded(Broker::redis(&redis)).set("server.workers", 2);
    let (one, other) = tokio::join!(settings.start_ready(), settings.start_ready());
    let before = now() - 60;
    let alice = reader(json!({"iat": before, "jti": "a1"}));
    let alice_too = reader(json!({"iat": before, "jti": "a2"}));
    let bob = reader(json!({"iat": before, "sub": "bob", "jti": "b1"}));
    let bob_too = reader(json!({"iat": before, "sub": "bob", "jti": "b2"}));
    let mut of_alice = Vec::new();
    for token in [&alice, &alice_too] {
        for broker in [&one, &other, &one, &other] {
            of_alice.push(follow(broker, token).await);
        }
    }
    let (mut bob_here, mut bob_there) = (follow(&one, &bob).await, follow(&other, &bob).await);
    let mut bob_second = follow(&other, &bob_too).await;

    let begin = Instant::now();
    let response = revoke(&one, json!({"sub": "alice"})).await;
    assert_eq!(response.status(), 200, "{}", response.text());
    for stream in &mut of_alice {
        ends(stream, REVOKED_WITHIN).await;
    }
    assert!(begin.elapsed() < REVOKED_WITHIN);
    for broker in [&one, &other] {
        assert_eq!(status(broker, &alice).await, 401);
        assert_eq!(status(broker, &bob).await, 200);
    }
    goes_on(&mut bob_here).await;

    // One token of two.
    assert_eq!(revoke(&other, json!({"jti": "b1"})).await.status(), 200);
    ends(&mut bob_here, REVOKED_WITHIN).await;
    ends(&mut bob_there, REVOKED_WITHIN).await;
    goes_on(&mut bob_second).await;
    for broker in [&one, &other] {
        assert_eq!(status(broker, &bob).await, 401);
        assert_eq!(status(broker, &bob_too).await, 200);
    }

    // A broker that comes later knows, and so does one whose Redis was away.
    let late = settings.start_ready().await;
    eventually("a new broker knows", SOON, async || {
        status(&late, &alice).await == 401 && status(&late, &bob).await == 401
    })
    .await;
    // What was issued after it counts again.
    let fresh = reader(json!({"iat": now() + 31, "exp": now() + 300}));
    assert_eq!(status(&one, &fresh).await, 401, "from the future");
    let carol = reader(json!({"sub": "carol"}));
    assert_eq!(status(&late, &carol).await, 200);
}

#[tokio::test]
async fn a_token_issued_after_the_revocation_counts() {
    let broker = guarded(Broker::embedded())
        .set("auth.leeway", "0s")
        .start()
        .await;
    let old = reader(json!({"iat": now() - 1}));
    let mut stream = follow(&broker, &old).await;
    assert_eq!(revoke(&broker, json!({"sub": "alice"})).await.status(), 200);
    ends(&mut stream, REVOKED_WITHIN).await;
    assert_eq!(status(&broker, &old).await, 401);
    assert_eq!(status(&broker, &reader(json!({"iat": null}))).await, 401);
    // The second that is under way counts as before.
    eventually("a second is over", SOON, async || {
        status(&broker, &reader(json!({"iat": now()}))).await == 200
    })
    .await;
    assert_eq!(status(&broker, &old).await, 401);
}

/// The notice is lost, and what is kept is found all the same.
#[tokio::test]
async fn a_broker_that_was_away_learns_what_was_revoked() {
    let redis = Redis::start().await;
    let settings = guarded(Broker::redis(&redis));
    let (one, other) = tokio::join!(settings.start_ready(), settings.start_ready());
    let before = now() - 60;
    let alice = reader(json!({"iat": before}));
    let mut stream = follow(&other, &alice).await;
    // Its subscription is cut while the other one revokes.
    let mut redis_admin = redis.publisher().await;
    let member = "sub:alice";
    let at = now().to_string();
    let _: i64 = redis_admin
        .command(&["ZADD", "run:_revoked", &at, member])
        .await;
    assert_eq!(status(&other, &alice).await, 200, "nobody has told it");
    let _: i64 = redis_admin
        .command(&["CLIENT", "KILL", "TYPE", "pubsub"])
        .await;
    ends(&mut stream, SOON).await;
    eventually("both know", SOON, async || {
        status(&one, &alice).await == 401 && status(&other, &alice).await == 401
    })
    .await;
}

#[tokio::test]
async fn what_a_publisher_can_say_on_the_channel_revokes_nothing() {
    let redis = Redis::start().await;
    let broker = guarded(Broker::redis(&redis)).start_ready().await;
    let alice = reader(json!({}));
    let mut stream = follow(&broker, &alice).await;
    let mut publisher = redis.publisher().await;
    for payload in ["", "sub:alice", "*", "{\"sub\":\"alice\"}"] {
        publisher.publish("run:_revoked", payload).await;
    }
    // What follows on the same connection has been seen after those.
    publisher.publish("run:42:output:stdout", "1").await;
    assert_eq!(stream.run_event().await.payload(), "1");
    goes_on(&mut stream).await;
    assert_eq!(status(&broker, &alice).await, 200);
    // A key that is no set is an error, and no revocation.
    let _: String = publisher
        .command(&["SET", "run:_revoked", "sub:alice"])
        .await;
    let response = revoke(&broker, json!({"sub": "bob"})).await;
    assert_eq!(slug(&response.problem(503)), "store-unavailable");
    assert_eq!(status(&broker, &alice).await, 200);
}

#[tokio::test]
async fn who_may_revoke_and_what() {
    let broker = guarded(Broker::embedded())
        .set("auth.max_revocations", 2)
        .start()
        .await;
    let all = token_for(json!({"subscribe": ["*"], "publish": ["*"]}));
    let request = Request::post("/api/v1/revocations", "application/json", r#"{"sub":"x"}"#);
    let request = request.header("Authorization", format!("Bearer {all}"));
    assert_eq!(
        slug(&request.send(broker.addr).await.problem(403)),
        "not-allowed"
    );
    for (wish, status) in [
        (json!({}), 422),
        (json!({"sub": null, "jti": null}), 422),
        (json!({"sub": "a", "jti": "b"}), 422),
        (json!({"sub": ""}), 422),
        (json!({"sub": "a\nb"}), 422),
        (json!({"sub": "s".repeat(256)}), 422),
        (json!({"sub": 7}), 400),
        (json!({"sub": "a", "all": true}), 400),
        (json!([]), 400),
        (json!({"sub": "x".repeat(5000)}), 413),
        (json!({"sub": "*"}), 200),
        (json!({"jti": "b"}), 200),
        (json!({"jti": "c"}), 503),
    ] {
        let response = revoke(&broker, wish.clone()).await;
        assert_eq!(response.status(), status, "{wish}: {}", response.text());
    }
    // A star is a subject's name like any other.
    assert_eq!(self::status(&broker, &reader(json!({}))).await, 200);
}

/// What is revoked already takes no more room: anew, it concerns the tokens
/// issued since.
#[tokio::test]
async fn at_the_limit_what_is_revoked_can_be_revoked_anew() {
    let redis = Redis::start().await;
    for settings in [Broker::embedded(), Broker::redis(&redis)] {
        let settings = guarded(settings).set("auth.leeway", "0s");
        let broker = settings.set("auth.max_revocations", 2).start_ready().await;
        for (wish, status) in [
            (json!({"sub": "alice"}), 200),
            (json!({"jti": "alice"}), 200),
            (json!({"sub": "bob"}), 503),
            (json!({"jti": "bob"}), 503),
        ] {
            assert_eq!(
                revoke(&broker, wish.clone()).await.status(),
                status,
                "{wish}"
            );
        }
        let before = now();
        eventually("a second is over", SOON, async || now() > before).await;
        let later = reader(json!({"iat": now()}));
        assert_eq!(status(&broker, &later).await, 200);
        assert_eq!(revoke(&broker, json!({"sub": "alice"})).await.status(), 200);
        assert_eq!(status(&broker, &later).await, 401);
        assert_eq!(revoke(&broker, json!({"sub": "bob"})).await.status(), 503);
    }
}

/// The client's going took the revocation along: not kept, or kept and not told.
#[tokio::test]
async fn a_revocation_is_done_though_its_client_has_gone() {
    let redis = Redis::start().await;
    let settings = guarded(Broker::redis(&redis)).set("redis.command_timeout", "30s");
    let (one, other) = tokio::join!(settings.start_ready(), settings.start_ready());
    let alice = reader(json!({}));
    let mut stream = follow(&other, &alice).await;
    redis.freeze();
    let body = r#"{"sub":"alice"}"#;
    let mut client = tokio::net::TcpStream::connect(one.addr)
        .await
        .expect("it listens");
    let (root, length) = (admin(), body.len());
    let request = format!(
        "POST /api/v1/revocations HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {root}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    client
        .write_all(request.as_bytes())
        .await
        .expect("connected");
    // Nothing shows that the request has been read, nor that the broker knows
    // of the client's going: it has this long for each.
    tokio::time::sleep(Duration::from_millis(500)).await;
    drop(client);
    tokio::time::sleep(Duration::from_millis(500)).await;
    redis.thaw();
    ends(&mut stream, SOON).await;
    assert_eq!(status(&other, &alice).await, 401);
}

/// With the rules that the documentation gives publishers, an agent publishes,
/// and neither lets anybody in nor shuts anybody out.
#[tokio::test]
async fn a_publisher_of_redis_has_no_hand_in_tickets_and_revocations() {
    let redis = Redis::start().await;
    let _broker = guarded(Broker::redis(&redis)).start_ready().await;
    let mut admin = redis.publisher().await;
    let rules = "resetkeys ~run:{* resetchannels &run:[^_]* -@all +auth +fcall +fcall_ro +hmget \
                 +hlen +hgetall +hset +hdel +del +expire +time +xadd +xrange +xrevrange +publish \
                 +zadd +set";
    let words: Vec<&str> = ["ACL", "SETUSER", "agent", "on", ">s3cret"]
        .into_iter()
        .chain(rules.split_whitespace())
        .collect();
    let _: String = admin.command(&words).await;
    let dry = async |words: &[&str]| {
        let mut connection = redis.publisher().await;
        let words = [&["ACL", "DRYRUN", "agent"], words].concat();
        let answer: String = connection.command(&words).await;
        answer == "OK"
    };
    let publish = [
        "FCALL",
        "runcast_publish",
        "2",
        "run:{42}:stream",
        "run:{42}:meta",
    ];
    let event = ["42", "output", "stdout", "1"];
    let mut agent = redis.publisher().await;
    let _: String = agent.command(&["AUTH", "agent", "s3cret"]).await;
    let call = [&publish[..], &event].concat();
    let answer: Vec<String> = agent.command(&call).await;
    assert_eq!(answer[0], "OK");
    assert!(dry(&["PUBLISH", "run:42:output:stdout", "1"]).await);
    assert!(dry(&["PUBLISH", "run:{42}:events", "1"]).await);
    assert!(!dry(&["PUBLISH", "run:_revoked", ""]).await);
    assert!(!dry(&["ZADD", "run:_revoked", "1", "sub:alice"]).await);
    assert!(!dry(&["DEL", "run:_revoked"]).await);
    assert!(!dry(&["SET", "run:_ticket:00", "{}"]).await);
    let keys = [
        "FCALL",
        "runcast_publish",
        "2",
        "run:_ticket:00",
        "run:_revoked",
    ];
    assert!(!dry(&[&keys[..], &event].concat()).await);
}
