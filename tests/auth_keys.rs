//! Keys from a URL: had late, exchanged, gone, and too much of them.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::broker::BrokerSettings;
use crate::support::http::{Request, slug};
use crate::support::token::{
    AUDIENCE, EC, ISSUER, OTHER_RSA, RSA, Sign, claims, es256, hs256, rs256, signed,
};
use crate::support::wait::{SOON, eventually};
use crate::support::{Broker, SseClient};

/// A server of one answer, which a test changes.
struct KeyServer {
    url: String,
    answer: Arc<Mutex<Answer>>,
}

#[derive(Clone)]
struct Answer {
    head: String,
    body: String,
    /// How often it was given.
    count: usize,
}

impl KeyServer {
    async fn start(keys: &[Value]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let answer = Arc::new(Mutex::new(Answer {
            head: "200 OK".to_owned(),
            body: json!({ "keys": keys }).to_string(),
            count: 0,
        }));
        let shared = Arc::clone(&answer);
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let answer = {
                    let mut answer = shared.lock().expect("nobody panicked");
                    answer.count += 1;
                    answer.clone()
                };
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        match socket.read_buf(&mut head).await {
                            Ok(read) if read > 0 => {}
                            _ => return,
                        }
                    }
                    let Answer { head, body, .. } = answer;
                    let length = body.len();
                    let text = format!(
                        "HTTP/1.1 {head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                    );
                    // A client that has read enough is gone.
                    let _ = socket.write_all(text.as_bytes()).await;
                });
            }
        });
        let url = format!("http://{address}/keys.json");
        Self { url, answer }
    }

    fn answer(&self, head: &str, body: impl Into<String>) {
        let mut answer = self.answer.lock().expect("nobody panicked");
        answer.head = head.to_owned();
        answer.body = body.into();
    }

    fn keys(&self, keys: &[Value]) {
        self.answer("200 OK", json!({ "keys": keys }).to_string());
    }

    fn count(&self) -> usize {
        self.answer.lock().expect("nobody panicked").count
    }

    fn settings(&self) -> BrokerSettings {
        Broker::embedded()
            .set("auth.mode", "jwt")
            .set("auth.jwks_url", &self.url)
            .set("auth.issuer", ISSUER)
            .set("auth.audience", AUDIENCE)
    }
}

fn by(algorithm: &str, id: Option<&str>, sign: Sign<'_>) -> String {
    let mut header = json!({"alg": algorithm, "typ": "JWT"});
    if let Some(id) = id {
        header["kid"] = id.into();
    }
    let claims = claims(json!({"subscribe": ["42"]}));
    signed(&header.to_string(), &claims.to_string(), sign)
}

async fn status(broker: &Broker, token: &str) -> u16 {
    let request = Request::get("/api/v1/runs/42");
    let request = request.header("Authorization", format!("Bearer {token}"));
    request.send(broker.addr).await.status()
}

#[tokio::test]
async fn keys_are_fetched_and_each_serves_its_own_algorithms() {
    let mut narrow = OTHER_RSA.rsa_jwk("narrow");
    narrow["alg"] = "PS256".into();
    let mut encrypts = OTHER_RSA.rsa_jwk("encrypts");
    encrypts["use"] = "enc".into();
    let server = KeyServer::start(&[
        json!({"kty": "OKP", "crv": "X448", "kid": "odd", "x": "AA"}),
        json!({"kty": "quantum", "kid": "new"}),
        json!("no key at all"),
        // "c2VjcmV0…": what is published is no secret.
        json!({"kty": "oct", "kid": "shared", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U"}),
        RSA.rsa_jwk("r1"),
        EC.ec_jwk("e1"),
        narrow,
        encrypts,
    ])
    .await;
    let broker = server.settings().start().await;
    let published = b"secretsecretsecretsecretsecretse";
    for (name, token, expected) in [
        ("its key", by("RS256", Some("r1"), &rs256(&RSA)), 200),
        ("no key id", by("RS256", None, &rs256(&RSA)), 200),
        ("another kind", by("ES256", Some("e1"), &es256(&EC)), 200),
        ("another's id", by("RS256", Some("e1"), &rs256(&RSA)), 401),
        (
            "an algorithm it is not for",
            by("RS256", Some("narrow"), &rs256(&OTHER_RSA)),
            401,
        ),
        (
            "a key that encrypts",
            by("RS256", Some("encrypts"), &rs256(&OTHER_RSA)),
            401,
        ),
        (
            "a published secret",
            by("HS256", Some("shared"), &hs256(published)),
            401,
        ),
        (
            "a modulus as secret",
            by("HS256", Some("r1"), &hs256(&RSA.public_der())),
            401,
        ),
    ] {
        assert_eq!(status(&broker, &token).await, expected, "{name}");
    }
}

#[tokio::test]
async fn keys_are_exchanged_while_it_runs_and_made_up_ids_cost_no_flood() {
    let server = KeyServer::start(&[RSA.rsa_jwk("old")]).await;
    let broker = server.settings().start().await;
    let old = by("RS256", Some("old"), &rs256(&RSA));
    let new = by("RS256", Some("new"), &rs256(&OTHER_RSA));
    assert_eq!(status(&broker, &old).await, 200);
    assert_eq!(status(&broker, &new).await, 401);
    server.keys(&[OTHER_RSA.rsa_jwk("new")]);
    // Found when a token names it, and not only at the next refresh (5m).
    eventually("the new key counts", SOON, async || {
        status(&broker, &new).await == 200
    })
    .await;
    assert_eq!(status(&broker, &old).await, 401, "the old key is gone");
    let before = server.count();
    for index in 0..200 {
        let forged = by("RS256", Some(&format!("made-up-{index}")), &rs256(&RSA));
        assert_eq!(status(&broker, &forged).await, 401);
    }
    let asked = server.count() - before;
    assert!(asked <= 3, "{asked} fetches for 200 made-up ids");
}

#[tokio::test]
async fn the_last_keys_count_while_the_url_does_not_answer_well() {
    let server = KeyServer::start(&[RSA.rsa_jwk("r1")]).await;
    let broker = server
        .settings()
        .set("auth.jwks_refresh", "1s")
        .start()
        .await;
    let good = by("RS256", Some("r1"), &rs256(&RSA));
    let evil = OTHER_RSA.rsa_jwk("r1");
    assert_eq!(status(&broker, &good).await, 200);
    let huge = format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(300 * 1024));
    let many: Vec<Value> = (0..33)
        .map(|id| OTHER_RSA.rsa_jwk(&id.to_string()))
        .collect();
    for (head, body) in [
        ("500 Internal Server Error", String::new()),
        ("200 OK", String::new()),
        ("200 OK", "<html>".to_owned()),
        ("200 OK", "{}".to_owned()),
        ("200 OK", json!({"keys": []}).to_string()),
        ("200 OK", json!({"keys": {}}).to_string()),
        ("200 OK", huge),
        ("200 OK", json!({ "keys": many }).to_string()),
        ("200 OK", RSA.public_pem.clone()),
        ("404 Not Found", json!({"keys": [evil]}).to_string()),
        (
            "302 Found\r\nLocation: http://127.0.0.1:1/",
            json!({"keys": [evil]}).to_string(),
        ),
    ] {
        let before = server.count();
        server.answer(head, body);
        eventually("it was asked again", SOON, async || {
            server.count() >= before + 2
        })
        .await;
        assert_eq!(status(&broker, &good).await, 200, "{head}");
    }
    server.keys(&[EC.ec_jwk("e1")]);
    eventually("it is well again", SOON, async || {
        status(&broker, &good).await == 401
    })
    .await;
}

#[tokio::test]
async fn without_keys_yet_nobody_is_sent_away_for_good() {
    let server = KeyServer::start(&[RSA.rsa_jwk("r1")]).await;
    server.answer("503 Service Unavailable", "");
    let broker = server
        .settings()
        .set("auth.jwks_refresh", "1s")
        .start()
        .await;
    let good = by("RS256", Some("r1"), &rs256(&RSA));
    let ask = |path: &str| Request::get(path).header("Authorization", format!("Bearer {good}"));
    let response = ask("/api/v1/runs/42").send(broker.addr).await;
    assert_eq!(slug(&response.problem(503)), "keys-unavailable");
    assert!(response.header("retry-after").is_some());
    let mut stream = SseClient::request(broker.addr, &ask("/api/v1/runs/42/stream")).await;
    let frames = stream.rest(SOON).await;
    let events: Vec<&str> = frames.iter().map(|frame| frame.event.as_str()).collect();
    assert_eq!(events, ["", "problem", "goodbye"]);
    server.keys(&[RSA.rsa_jwk("r1")]);
    eventually("the keys are there", SOON, async || {
        status(&broker, &good).await == 200
    })
    .await;
}
