//! Redis under TLS, with a certificate of our own, as a user who may do no more
//! than the documentation says.

use serde_json::json;

use crate::support::authority::Authority;
use crate::support::broker::BrokerSettings;
use crate::support::http::Request;
use crate::support::port::free_port;
use crate::support::redis::Publisher;
use crate::support::token::{admin, guarded, token_for};
use crate::support::wait::SOON;
use crate::support::{Broker, Redis, SseClient, eventually};

const PASSWORD: &str = "s3cret";

/// A Redis that asks for certificates at a second port.
struct TlsRedis {
    redis: Redis,
    tls_port: u16,
    authority: Authority,
}

impl TlsRedis {
    async fn start() -> Self {
        let authority = Authority::new();
        for name in ["localhost", "runcast.example"] {
            authority.issue(name);
        }
        let tls_port = free_port();
        let (cert, key) = (
            authority.path("localhost.pem"),
            authority.path("localhost.key"),
        );
        let redis = Redis::start_with(&[
            "--tls-port",
            &tls_port.to_string(),
            "--tls-cert-file",
            &cert,
            "--tls-key-file",
            &key,
            "--tls-ca-cert-file",
            &authority.path("ca.pem"),
            "--tls-auth-clients",
            "yes",
        ])
        .await;
        let mut publisher = redis.publisher().await;
        let rule = documented_user();
        let words: Vec<&str> = rule.split_whitespace().collect();
        let _: String = publisher.command(&words).await;
        Self {
            redis,
            tls_port,
            authority,
        }
    }

    fn broker(&self) -> BrokerSettings {
        let url = format!("rediss://runcast:{PASSWORD}@localhost:{}", self.tls_port);
        Broker::redis(&self.redis)
            .set("redis.url", url)
            .set("redis.tls_ca", self.authority.path("ca.pem"))
            .set("redis.tls_cert", self.authority.path("runcast.example.pem"))
            .set("redis.tls_key", self.authority.path("runcast.example.key"))
    }
}

/// The `ACL SETUSER` of the documentation.
fn documented_user() -> String {
    let text = include_str!("../../docs/configuration.md");
    let mut lines = text.lines().map(str::trim);
    let line = lines.find(|line| line.starts_with("ACL SETUSER runcast "));
    line.expect("it is documented")
        .replace("PASSWORD", PASSWORD)
}

/// What the user was not let do.
async fn denied(publisher: &mut Publisher) -> Vec<String> {
    let log: ::redis::Value = publisher.command(&["ACL", "LOG"]).await;
    let mut denied = Vec::new();
    for entry in log.as_sequence().expect("a list") {
        let text = format!("{entry:?}");
        // The name of the client library is no need.
        if !text.contains("client") || !text.contains("setinfo") {
            denied.push(text);
        }
    }
    denied
}

fn check_secret(broker: &Broker) {
    let log = broker.process.log().join("\n");
    assert!(!log.contains(PASSWORD), "{log}");
}

#[tokio::test]
async fn the_documented_user_is_all_that_is_needed() {
    let redis = TlsRedis::start().await;
    let mut publisher = redis.redis.publisher().await;
    let forbidden: Vec<String> = publisher.command(&["ACL", "CAT", "dangerous"]).await;
    let rule = documented_user();
    for command in rule
        .split_whitespace()
        .filter_map(|word| word.strip_prefix('+'))
    {
        let command = command.replace('|', " ");
        assert!(!forbidden.contains(&command), "{command} is dangerous");
    }
    for record_plain in [false, true] {
        let broker = redis
            .broker()
            .set("history.record_plain", record_plain)
            .start_ready()
            .await;
        let run = format!("run-{record_plain}");
        let mut client = broker.follow(&format!("{run}/stream")).await;
        let first = broker.publish(&run, json!("durable")).await;
        assert_eq!(client.run_event().await.id(), first);
        let channel = format!("run:{run}:output:stdout");
        publisher.publish(channel, "\"plain\"").await;
        assert_eq!(client.run_event().await.payload(), "\"plain\"");
        let keyed = |body: &str| {
            let path = format!("/api/v1/runs/{run}/events?restart=false");
            Request::post(path, "text/plain", body).header("Idempotency-Key", "once")
        };
        for _ in 0..2 {
            assert_eq!(keyed("keyed").send(broker.addr).await.status(), 202);
        }
        assert_eq!(client.run_event().await.payload(), "\"keyed\"");
        let mut back = broker.resume(&format!("{run}/stream"), &first).await;
        back.preamble().await;
        back.run_event().await;
        broker
            .json(&format!("/api/v1/runs/{run}/events?limit=1"))
            .await;
        broker.json(&format!("/api/v1/runs/{run}")).await;
        broker.publish_status(&run, json!("completed")).await;
        let frames = client.rest(SOON).await;
        assert_eq!(frames.last().expect("an end").event, "end");
        check_secret(&broker);
    }
    let broker = guarded(redis.broker()).start_ready().await;
    let bearing = async |request: Request, token: &str| {
        let request = request.header("Authorization", format!("Bearer {token}"));
        request.send(broker.addr).await
    };
    let post = |path: &str, body: &str| Request::post(path, "application/json", body);
    let wish = post("/api/v1/tickets", r#"{"run_id":"42"}"#);
    let ticket = bearing(wish, &token_for(json!({"subscribe": ["42"]}))).await;
    assert_eq!(ticket.status(), 201, "{}", ticket.text());
    let code = ticket.json()["ticket"].as_str().expect("a code").to_owned();
    let stream = Request::get(format!("/api/v1/runs/42/stream?ticket={code}"));
    SseClient::request(broker.addr, &stream)
        .await
        .preamble()
        .await;
    let wish = post("/api/v1/revocations", r#"{"sub":"mallory"}"#);
    assert_eq!(bearing(wish, &admin()).await.status(), 200);
    let check = guarded(redis.broker()).arguments(&["check"]).output();
    assert!(check.status.success(), "{check:?}");
    let left: Vec<String> = publisher.command(&["KEYS", "run:_*"]).await;
    assert_eq!(left, ["run:_revoked"], "check leaves nothing");
    assert_eq!(denied(&mut publisher).await, Vec::<String>::new());
    // And no more than that.
    let mut user = Publisher::at(redis.redis.port()).await;
    let _: String = user.command(&["AUTH", "runcast", PASSWORD]).await;
    for words in [
        &["GET", "other"][..],
        &["HGET", "other", "field"],
        &["PUBLISH", "other", "x"],
        &["PSUBSCRIBE", "*"],
        &["KEYS", "*"],
        &["FLUSHALL"],
        &["CONFIG", "GET", "*"],
        &["FUNCTION", "FLUSH"],
        &["ACL", "LIST"],
    ] {
        assert!(user.is_refused(words).await, "{words:?} is allowed");
    }
}

/// Such a Redis takes a stream all right, and refuses the first ticket.
#[tokio::test]
async fn check_tries_what_tickets_and_revocations_need() {
    let redis = TlsRedis::start().await;
    let mut publisher = redis.redis.publisher().await;
    for (command, cannot) in [
        ("set", "cannot keep a ticket"),
        ("get", "cannot read a ticket"),
        ("getdel", "cannot take a ticket"),
        ("zadd", "cannot keep a revocation"),
        ("zrevrange", "cannot read revocations"),
    ] {
        let (without, with) = (format!("-{command}"), format!("+{command}"));
        let _: String = publisher
            .command(&["ACL", "SETUSER", "runcast", &without])
            .await;
        let check = guarded(redis.broker()).arguments(&["check"]).output();
        let text = String::from_utf8_lossy(&check.stdout);
        assert_eq!(check.status.code(), Some(1), "{text}");
        assert!(text.contains(cannot), "{text}");
        // Nobody has a ticket where there are no tokens.
        let check = redis.broker().arguments(&["check"]).output();
        assert!(check.status.success(), "{check:?}");
        let _: String = publisher
            .command(&["ACL", "SETUSER", "runcast", &with])
            .await;
    }
}

#[tokio::test]
async fn a_redis_that_is_not_trusted_or_does_not_trust_us_is_told() {
    let redis = TlsRedis::start().await;
    let stranger = Authority::new();
    stranger.issue("runcast.example");
    for (name, settings) in [
        (
            "no certificate of ours",
            redis
                .broker()
                .set("redis.tls_cert", "")
                .set("redis.tls_key", ""),
        ),
        (
            "a certificate of a stranger",
            redis
                .broker()
                .set("redis.tls_cert", stranger.path("runcast.example.pem"))
                .set("redis.tls_key", stranger.path("runcast.example.key")),
        ),
        (
            "another authority",
            redis.broker().set("redis.tls_ca", stranger.path("ca.pem")),
        ),
        (
            "a file that is not there",
            redis.broker().set("redis.tls_ca", "/nowhere.pem"),
        ),
        (
            "another name",
            redis.broker().set(
                "redis.url",
                format!("rediss://runcast:{PASSWORD}@127.0.0.1:{}", redis.tls_port),
            ),
        ),
        (
            "a wrong password",
            redis.broker().set(
                "redis.url",
                format!("rediss://runcast:{PASSWORD}x@localhost:{}", redis.tls_port),
            ),
        ),
    ] {
        let broker = settings.start().await;
        eventually(&format!("{name} is told"), SOON, async || {
            let health = broker.json("/health").await;
            let redis = &health["dependencies"]["redis"];
            redis["status"] == "down" && redis["error"].is_string()
        })
        .await;
        check_secret(&broker);
    }
}
