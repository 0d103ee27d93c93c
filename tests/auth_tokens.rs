//! Hostile tokens. Each is a good one but for one thing, and is to be refused
//! for that thing: so a case fails both if the token is taken and if it is
//! refused for something else.

use serde_json::{Value, json};

use crate::support::Broker;
use crate::support::http::{Request, slug};
use crate::support::token::{
    AUDIENCE, EC, ED, ISSUER, OTHER_EC, OTHER_ED, OTHER_RSA, RSA, SECRET, Sign, admin, claims,
    claims_but, eddsa, encode, es256, guarded, hs256, hs384, hs512, now, ps256, rs256, rs384,
    signed, token, token_for,
};

const RUN: &str = "/api/v1/runs/42";

/// What a refusal says of its cause.
const MALFORMED: &str = "it is no JSON Web Token";
const LONG: &str = "longer than auth.max_token_bytes";
const ALGORITHM: &str = "an algorithm that auth.algorithms does not have";
const SIGNATURE: &str = "its signature is not that of its key";
const EXPIRED: &str = "it has expired";
const EARLY: &str = "it does not count yet";
const LIFE: &str = "for longer than auth.max_token_life";
const WRONG_ISSUER: &str = "not of auth.issuer";
const WRONG_AUDIENCE: &str = "not for this broker";
const CLAIMS: &str = "its claims are not as they must be";
const FORM: &str = "Authorization is given once";

struct Case {
    name: String,
    token: String,
    refusal: &'static str,
}

#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    fn add(&mut self, name: impl Into<String>, token: impl Into<String>, refusal: &'static str) {
        self.0.push(Case {
            name: name.into(),
            token: token.into(),
            refusal,
        });
    }

    /// The header of a good HS256 token with this in its place.
    fn header(&mut self, header: &str, refusal: &'static str) {
        let token = signed(header, &good().to_string(), &hs256(SECRET.as_bytes()));
        self.add(format!("header {header}"), token, refusal);
    }

    /// The same with the claims given as text.
    fn body(&mut self, claims: &str, refusal: &'static str) {
        let header = r#"{"alg":"HS256"}"#;
        let token = signed(header, claims, &hs256(SECRET.as_bytes()));
        let shown: String = claims.chars().take(100).collect();
        self.add(format!("claims {shown}"), token, refusal);
    }

    /// The same with one claim changed, or left out.
    fn claim(&mut self, name: &str, value: Value, refusal: &'static str) {
        let changed = claims_but(rights(), json!({ name: value }));
        self.add(format!("{name} = {value}"), token(&changed), refusal);
    }

    /// The same with one claim spelt as given.
    fn spelt(&mut self, name: &str, text: &str, refusal: &'static str) {
        let mut all = claims_but(rights(), json!({ name: null })).to_string();
        all.truncate(all.len() - 1);
        self.body(&format!("{all},\"{name}\":{text}}}"), refusal);
    }

    /// Signed by somebody in some way, under a header of his own.
    fn forged(&mut self, name: &str, header: &str, sign: Sign<'_>, refusal: &'static str) {
        self.add(name, signed(header, &good().to_string(), sign), refusal);
    }
}

fn rights() -> Value {
    json!({"subscribe": ["42", "team-a-*"], "publish": ["42"]})
}

fn good() -> Value {
    claims(rights())
}

fn header(algorithm: &str) -> String {
    json!({"alg": algorithm, "typ": "JWT"}).to_string()
}

/// A broker that takes tokens of every algorithm.
async fn broker(keys: &tempfile::TempDir) -> Broker {
    let pem = [&*RSA, &*EC, &*ED].map(|pair| pair.public_pem.clone());
    let path = keys.path().join("keys.pem");
    std::fs::write(&path, pem.concat()).expect("the directory is ours");
    guarded(Broker::embedded())
        .set("auth.keys_file", path.display())
        .start()
        .await
}

async fn ask(broker: &Broker, token: &str) -> crate::support::http::Response {
    let request = Request::get(RUN).header("Authorization", format!("Bearer {token}"));
    request.send(broker.addr).await
}

async fn check(broker: &Broker, cases: Cases) {
    let mut failures = Vec::new();
    for Case {
        name,
        token,
        refusal,
    } in &cases.0
    {
        let response = ask(broker, token).await;
        let text = response.text();
        let is_refused = response.status() == 401
            && slug(&response.json()) == "invalid-token"
            && response
                .header("www-authenticate")
                .is_some_and(|it| it.starts_with("Bearer ") && it.contains("invalid_token"));
        let tells_no_more = token.len() < 8 || !text.contains(token.as_str());
        if !(is_refused && text.contains(refusal) && tells_no_more) {
            failures.push(format!("{name}: {} {text}", response.status()));
        }
    }
    let count = cases.0.len();
    assert!(
        failures.is_empty(),
        "{} of {count}:\n{}",
        failures.len(),
        failures.join("\n")
    );
    // It has seen all of them, and is still there for others.
    assert_eq!(ask(broker, &token(&good())).await.status(), 200);
    let root = admin();
    let metrics = Request::get("/metrics").header("Authorization", format!("Bearer {root}"));
    let text = metrics.send(broker.addr).await.text();
    let refused = crate::support::broker::sum_samples(&text, "runcast_auth_refusals_total", &[]);
    assert_eq!(refused, count as f64);
}

#[tokio::test]
async fn a_good_token_of_every_algorithm_is_taken() {
    let keys = tempfile::tempdir().expect("a temporary directory");
    let broker = broker(&keys).await;
    let secret = SECRET.as_bytes();
    let signers: [(&str, Sign<'_>); 7] = [
        ("HS256", &hs256(secret)),
        ("HS384", &hs384(secret)),
        ("HS512", &hs512(secret)),
        ("RS256", &rs256(&RSA)),
        ("PS256", &ps256(&RSA)),
        ("ES256", &es256(&EC)),
        ("EdDSA", &eddsa(&ED)),
    ];
    for (algorithm, sign) in signers {
        let text = signed(&header(algorithm), &good().to_string(), sign);
        let response = ask(&broker, &text).await;
        assert_eq!(response.status(), 200, "{algorithm}: {}", response.text());
    }
    for changes in [
        json!({"aud": ["other", AUDIENCE]}),
        json!({"nbf": now() - 60}),
        json!({"nbf": now() + 20}),
        json!({"iat": null}),
        json!({"exp": now() - 20}),
        json!({"exp": now() as f64 + 60.5}),
        json!({"jti": "7f1c", "name": "Alice", "scope": {"a": [1]}}),
        json!({"sub": "ünïcødé"}),
    ] {
        let response = ask(&broker, &token(&claims_but(rights(), changes.clone()))).await;
        assert_eq!(response.status(), 200, "{changes}: {}", response.text());
    }
    for header in [
        r#"{"alg":"HS256"}"#,
        r#"{"alg":"HS256","typ":"at+JWT"}"#,
        r#"{"alg":"HS256","kid":"any","extra":1}"#,
    ] {
        let text = signed(header, &good().to_string(), &hs256(secret));
        assert_eq!(ask(&broker, &text).await.status(), 200, "{header}");
    }
    let lower = Request::get(RUN).header("authorization", format!("bEARER   {}", token(&good())));
    assert_eq!(lower.send(broker.addr).await.status(), 200);
}

#[tokio::test]
async fn tokens_out_of_form_are_refused() {
    let keys = tempfile::tempdir().expect("a temporary directory");
    let broker = broker(&keys).await;
    let good_token = token(&good());
    let parts: Vec<&str> = good_token.split('.').collect();
    let (head, body, signature) = (parts[0], parts[1], parts[2]);
    let mut cases = Cases::default();
    for text in [
        "a".to_owned(),
        "a.b".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        format!("{head}.{body}"),
        format!(".{body}.{signature}"),
        format!("{good_token}.{signature}"),
        format!("{head}.{body}.{signature}.x.y"),
        format!(".{good_token}"),
        format!("{good_token}="),
        format!("{head}=.{body}.{signature}"),
        format!("{head}.{body}+.{signature}"),
        format!("{head}.{body}/.{signature}"),
        format!("{head}%2E{body}%2E{signature}"),
        format!("\"{good_token}\""),
        format!("{head},{body}.{signature}.x"),
        format!("{}.{body}.{signature}", encode("no JSON")),
        format!("{}.{body}.{signature}", encode("7")),
        format!("{}.{body}.{signature}", encode("null")),
        format!("{}.{body}.{signature}", encode("[]")),
        format!("{}.{body}.{signature}", encode("{}")),
        format!("{}.{body}.{signature}", encode(b"\xff\xfe")),
        format!("{}.{body}.{signature}", encode(r#"{"typ":"JWT"}"#)),
    ] {
        cases.add(format!("token {text}"), text, MALFORMED);
    }
    cases.add("no claims", format!("{head}..{signature}"), SIGNATURE);
    cases.add("no signature", format!("{head}.{body}."), SIGNATURE);
    for header in [
        r#"{"alg":"HS256","crit":["exp"]}"#,
        r#"{"alg":"HS256","crit":[]}"#,
        r#"{"alg":"HS256","b64":false,"crit":["b64"]}"#,
        r#"{"alg":"HS256","zip":"DEF"}"#,
        r#"{"alg":"HS256","enc":"A128GCM"}"#,
        r#"{"alg":"HS256","typ":"logout+jwt"}"#,
        r#"{"alg":"HS256","typ":"dpop+jwt"}"#,
        r#"{"alg":"HS256","typ":""}"#,
        r#"{"alg":"HS256","typ":7}"#,
        r#"{"alg":"HS256","kid":7}"#,
        r#"{"alg":"HS256","kid":["a"]}"#,
        r#"{"alg":"HS256","alg":"HS256"}"#,
        r#"{"alg":"none","alg":"HS256"}"#,
        r#"{"alg":null}"#,
        r#"{"alg":0}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":{"HS256":null}}"#,
        r#"["JWT","HS256"]"#,
    ] {
        cases.header(header, MALFORMED);
    }
    for claims in [
        "",
        "no JSON",
        "null",
        "7",
        "\"x\"",
        "[]",
        "{}",
        "{\"sub\":\"alice\"",
    ] {
        cases.body(claims, CLAIMS);
    }
    let deep = format!("{}{}", "[".repeat(2000), "]".repeat(2000));
    cases.spelt("runcast", &deep, CLAIMS);
    cases.spelt("sub", &deep, CLAIMS);
    cases.add(
        "too long by one",
        format!(
            "{head}.{}.{signature}",
            "a".repeat(8193 - 2 - head.len() - signature.len())
        ),
        LONG,
    );
    check(&broker, cases).await;
}

#[tokio::test]
async fn tokens_of_another_algorithm_or_key_are_refused() {
    let keys = tempfile::tempdir().expect("a temporary directory");
    let broker = broker(&keys).await;
    let mut cases = Cases::default();
    // Not signed, or by what nobody has said he would take.
    for algorithm in [
        "none",
        "None",
        "NONE",
        "nOnE",
        "",
        " ",
        "hs256",
        "HS256 ",
        "HS256\u{0}",
        "HS1",
        "HMAC",
        "ＨＳ256",
        "HS２56",
        "RS1",
        "ES512",
        "ES256K",
        "RSA-OAEP",
        "dir",
        "A128KW",
        "eddsa",
        "Ed25519",
    ] {
        cases.header(&header(algorithm), ALGORITHM);
        let unsigned = signed(&header(algorithm), &good().to_string(), &|_| Vec::new());
        cases.add(format!("unsigned {algorithm:?}"), unsigned, ALGORITHM);
    }
    for algorithm in ["RS512", "PS384", "PS512", "ES384"] {
        cases.header(&header(algorithm), ALGORITHM);
    }
    cases.forged(
        "RS384 of the right key",
        &header("RS384"),
        &rs384(&RSA),
        ALGORITHM,
    );
    // Public keys as secrets: everybody has them.
    let public: [(&str, Vec<u8>); 9] = [
        ("RSA PEM", RSA.public_pem.clone().into_bytes()),
        ("RSA PEM trimmed", RSA.public_pem.trim().into()),
        ("RSA DER", RSA.public_der()),
        ("RSA PKCS #1", RSA.rsa().public().as_ref().to_vec()),
        ("EC PEM", EC.public_pem.clone().into_bytes()),
        ("EC DER", EC.public_der()),
        ("Ed25519 PEM", ED.public_pem.clone().into_bytes()),
        ("Ed25519 DER", ED.public_der()),
        ("JWK", RSA.rsa_jwk("1").to_string().into_bytes()),
    ];
    for (name, secret) in &public {
        let forged = [
            ("HS256", &hs256(secret) as Sign<'_>),
            ("HS384", &hs384(secret)),
            ("HS512", &hs512(secret)),
        ];
        for (algorithm, sign) in forged {
            let name = format!("{algorithm} with {name}");
            cases.forged(&name, &header(algorithm), sign, SIGNATURE);
        }
    }
    // Secrets that a careless loader ends up with.
    for secret in [
        "",
        "\0",
        "null",
        "undefined",
        "(hidden)",
        "secret",
        &SECRET[1..],
    ] {
        let name = format!("secret {secret:?}");
        cases.forged(
            &name,
            &header("HS256"),
            &hs256(secret.as_bytes()),
            SIGNATURE,
        );
    }
    // One algorithm's signature under another's name.
    let secret = SECRET.as_bytes();
    cases.forged("RS256 is PS256", &header("RS256"), &ps256(&RSA), SIGNATURE);
    cases.forged("PS256 is RS256", &header("PS256"), &rs256(&RSA), SIGNATURE);
    cases.forged("ES256 is RS256", &header("ES256"), &rs256(&RSA), SIGNATURE);
    cases.forged("RS256 is ES256", &header("RS256"), &es256(&EC), SIGNATURE);
    cases.forged("EdDSA is ES256", &header("EdDSA"), &es256(&EC), SIGNATURE);
    cases.forged("ES256 is EdDSA", &header("ES256"), &eddsa(&ED), SIGNATURE);
    cases.forged(
        "RS256 is HS256",
        &header("RS256"),
        &hs256(secret),
        SIGNATURE,
    );
    cases.forged(
        "HS256 is HS512",
        &header("HS256"),
        &hs512(secret),
        SIGNATURE,
    );
    cases.forged(
        "HS512 is HS256",
        &header("HS512"),
        &hs256(secret),
        SIGNATURE,
    );
    // Keys of somebody else, also where he brings his own along.
    cases.forged(
        "RS256 of another",
        &header("RS256"),
        &rs256(&OTHER_RSA),
        SIGNATURE,
    );
    cases.forged(
        "PS256 of another",
        &header("PS256"),
        &ps256(&OTHER_RSA),
        SIGNATURE,
    );
    cases.forged(
        "ES256 of another",
        &header("ES256"),
        &es256(&OTHER_EC),
        SIGNATURE,
    );
    cases.forged(
        "EdDSA of another",
        &header("EdDSA"),
        &eddsa(&OTHER_ED),
        SIGNATURE,
    );
    let own = OTHER_RSA.rsa_jwk("own");
    for header in [
        json!({"alg": "RS256", "jwk": own}),
        json!({"alg": "RS256", "kid": "own", "jwk": own}),
        json!({"alg": "RS256", "jku": "http://127.0.0.1:1/keys.json"}),
        json!({"alg": "RS256", "x5u": "http://127.0.0.1:1/cert.pem"}),
        json!({"alg": "RS256", "x5c": [encode(OTHER_RSA.public_der())]}),
    ] {
        cases.forged(
            &header.to_string(),
            &header.to_string(),
            &rs256(&OTHER_RSA),
            SIGNATURE,
        );
    }
    // Key ids that would be paths, queries or commands elsewhere, signed with
    // what they would lead to.
    for (kid, secret) in [
        ("/dev/null", &b""[..]),
        ("../../../../../../dev/null", b""),
        ("/proc/sys/kernel/randomize_va_space", b"2\n"),
        ("x' UNION SELECT 'a secret'; --", b"a secret"),
        ("x\"; return true; //", b"true"),
        ("| echo secret", b"secret\n"),
        ("http://169.254.169.254/", b""),
        ("run:_revoked", b""),
        ("\r\nX-Injected: 1", b""),
        ("__proto__", b""),
    ] {
        let header = json!({"alg": "HS256", "kid": kid}).to_string();
        cases.forged(&format!("kid {kid:?}"), &header, &hs256(secret), SIGNATURE);
    }
    let long = json!({"alg": "HS256", "kid": "k".repeat(4000)}).to_string();
    cases.forged("a long kid", &long, &hs256(b""), SIGNATURE);
    // Signatures that broken libraries have taken.
    let zeros = |length: usize| move |_: &[u8]| vec![0; length];
    cases.forged("ES256 of zeros", &header("ES256"), &zeros(64), SIGNATURE);
    cases.forged("ES256 of nothing", &header("ES256"), &zeros(0), SIGNATURE);
    cases.forged("EdDSA of zeros", &header("EdDSA"), &zeros(64), SIGNATURE);
    cases.forged("RS256 of zeros", &header("RS256"), &zeros(256), SIGNATURE);
    cases.forged(
        "RS256 of one",
        &header("RS256"),
        &|_| {
            let mut one = vec![0; 256];
            one[255] = 1;
            one
        },
        SIGNATURE,
    );
    cases.forged("HS256 of zeros", &header("HS256"), &zeros(32), SIGNATURE);
    cases.forged(
        "HS256 cut",
        &header("HS256"),
        &|message| hs256(secret)(message)[..31].to_vec(),
        SIGNATURE,
    );
    cases.forged(
        "HS256 and more",
        &header("HS256"),
        &|message| [hs256(secret)(message), vec![0]].concat(),
        SIGNATURE,
    );
    cases.forged(
        "HS256 with a bit changed",
        &header("HS256"),
        &|message| {
            let mut signature = hs256(secret)(message);
            signature[0] ^= 1;
            signature
        },
        SIGNATURE,
    );
    // Parts of two good tokens.
    let (one, other) = (
        token(&good()),
        token_for(json!({"admin": true, "subscribe": ["*"]})),
    );
    let (one, other): (Vec<_>, Vec<_>) = (one.split('.').collect(), other.split('.').collect());
    let spliced = format!("{}.{}.{}", one[0], other[1], one[2]);
    cases.add("claims of another", spliced, SIGNATURE);
    let last = one[2].chars().last().expect("a signature");
    let stretched = format!(
        "{}.{}.{}{}",
        one[0],
        one[1],
        &one[2][..42],
        match last {
            // The last two bits of a 32 byte signature are none of it.
            'A'..='Z' | 'a'..='y' | '0'..='8' => char::from(last as u8 + 1),
            _ => '9',
        }
    );
    cases.add("a bit beyond the signature", stretched, MALFORMED);
    check(&broker, cases).await;
}

#[tokio::test]
async fn tokens_that_claim_too_much_or_too_little_are_refused() {
    let keys = tempfile::tempdir().expect("a temporary directory");
    let broker = broker(&keys).await;
    let mut cases = Cases::default();
    for exp in [json!(0), json!(1), json!(now() - 3600), json!(now() - 32)] {
        cases.claim("exp", exp, EXPIRED);
    }
    for exp in [
        json!(now() + 25 * 3600),
        json!(253_402_300_799_i64),
        json!(9_007_199_254_740_000_i64),
    ] {
        cases.claim("exp", exp, LIFE);
    }
    for exp in [
        "null",
        "\"1795464000\"",
        "-1",
        "true",
        "[]",
        "{}",
        "1e300",
        "1e999",
        "18446744073709551615",
        "\"never\"",
        "Infinity",
        "NaN",
    ] {
        cases.spelt("exp", exp, CLAIMS);
    }
    cases.claim("exp", Value::Null, CLAIMS);
    cases.claim("nbf", json!(now() + 3600), EARLY);
    cases.claim("nbf", json!(now() + 35), EARLY);
    cases.claim("iat", json!(now() + 3600), EARLY);
    for time in ["\"now\"", "-5", "[]"] {
        cases.spelt("nbf", time, CLAIMS);
        cases.spelt("iat", time, CLAIMS);
    }
    cases.claim("aud", Value::Null, WRONG_AUDIENCE);
    for audience in [
        json!("other"),
        json!(""),
        json!("Runcast"),
        json!("runcas"),
        json!("runcast "),
        json!("runcast/"),
        json!("runсast"),
        json!("*"),
        json!([]),
        json!(["other", "runcast2"]),
        json!(7),
        json!({"runcast": true}),
    ] {
        cases.claim("aud", audience, WRONG_AUDIENCE);
    }
    cases.claim("iss", Value::Null, WRONG_ISSUER);
    for issuer in [
        json!("https://evil.example"),
        json!("https://issuer.example/"),
        json!("HTTPS://issuer.example"),
        json!("https://issuer.example.evil.example"),
        json!(""),
    ] {
        cases.claim("iss", issuer, WRONG_ISSUER);
    }
    for issuer in [json!([ISSUER]), json!(7), json!({})] {
        cases.claim("iss", issuer, CLAIMS);
    }
    cases.claim("sub", Value::Null, CLAIMS);
    for subject in [
        json!(""),
        json!(7),
        json!(["alice"]),
        json!({}),
        json!("a\nb"),
        json!("a\u{0}"),
        json!("s".repeat(256)),
    ] {
        cases.claim("sub", subject, CLAIMS);
    }
    for id in [json!(""), json!(7), json!("a\r\nb"), json!("j".repeat(256))] {
        cases.claim("jti", id, CLAIMS);
    }
    for claim in [
        "null",
        "[]",
        "\"*\"",
        "true",
        "7",
        "[[\"*\"],[\"*\"],[\"output\"],true]",
    ] {
        cases.spelt("runcast", claim, CLAIMS);
    }
    for rights in [
        json!({"subscribe": "*"}),
        json!({"subscribe": {"42": true}}),
        json!({"subscribe": [7]}),
        json!({"subscribe": [null]}),
        json!({"subscribe": ["42", "a*b"]}),
        json!({"subscribe": ["**"]}),
        json!({"subscribe": ["*42"]}),
        json!({"subscribe": ["4?"]}),
        json!({"subscribe": ["[0-9]*"]}),
        json!({"subscribe": ["{42,43}"]}),
        json!({"subscribe": ["4|.*"]}),
        json!({"subscribe": [""]}),
        json!({"subscribe": [" 42"]}),
        json!({"subscribe": ["42\u{0}*"]}),
        json!({"subscribe": ["42\n"]}),
        json!({"subscribe": ["../42"]}),
        json!({"subscribe": ["run:*"]}),
        json!({"subscribe": ["_*"]}),
        json!({"subscribe": ["team-a-＊"]}),
        json!({"subscribe": ["team‐a-*"]}),
        json!({"subscribe": ["４２"]}),
        json!({"subscribe": ["42\u{200b}"]}),
        json!({"subscribe": ["tеam-a-*"]}),
        json!({"subscribe": ["x".repeat(129)]}),
        json!({"publish": ["%2A"]}),
        json!({"publish": "42"}),
        json!({"kinds": "output"}),
        json!({"kinds": ["Output"]}),
        json!({"kinds": ["*"]}),
        json!({"kinds": ["output", "metric"]}),
        json!({"kinds": null}),
        json!({"admin": "true"}),
        json!({"admin": 1}),
        json!({"admin": null}),
        json!({"Admin": true}),
        json!({"subscribe": ["42"], "role": "admin"}),
        json!({"subscribes": ["42"]}),
    ] {
        cases.claim("runcast", rights, CLAIMS);
    }
    // Said twice, whatever comes first.
    for (name, text) in [
        ("exp", "9999999999"),
        ("sub", "\"root\""),
        ("iss", "\"https://issuer.example\""),
        ("aud", "\"runcast\""),
        ("runcast", "{\"admin\":true}"),
    ] {
        let mut all = good().to_string();
        all.truncate(all.len() - 1);
        cases.body(&format!("{all},\"{name}\":{text}}}"), CLAIMS);
    }
    cases.spelt("runcast", r#"{"admin":false,"admin":true}"#, CLAIMS);
    check(&broker, cases).await;
}

#[tokio::test]
async fn a_header_out_of_form_is_refused() {
    let keys = tempfile::tempdir().expect("a temporary directory");
    let broker = broker(&keys).await;
    let good = token(&good());
    for value in [
        format!("Basic {good}"),
        format!("Token {good}"),
        format!("Bearer: {good}"),
        format!("Bearer={good}"),
        format!("Bearer\t{good}"),
        format!("BearerX {good}"),
        format!("Bearer {good} {good}"),
        format!("Bearer {good}, Bearer {good}"),
        format!("Bearer {good}\u{e9}"),
        format!("Вearer {good}"),
        good.clone(),
        "Bearer".to_owned(),
        "Basic YWxpY2U6c2VjcmV0".to_owned(),
    ] {
        let request = Request::get(RUN).header("Authorization", value.clone());
        let problem = request.send(broker.addr).await.problem(401);
        assert_eq!(slug(&problem), "invalid-token", "{value}");
        assert!(
            problem["detail"]
                .as_str()
                .is_some_and(|it| it.contains(FORM)),
            "{value}: {problem}"
        );
    }
    // Twice is once too often, in whatever order and case.
    for (first, second) in [
        (good.as_str(), good.as_str()),
        (good.as_str(), "x"),
        ("x", good.as_str()),
    ] {
        let request = Request::get(RUN)
            .header("Authorization", format!("Bearer {first}"))
            .header("AUTHORIZATION", format!("Bearer {second}"));
        let problem = request.send(broker.addr).await.problem(401);
        assert_eq!(slug(&problem), "invalid-token");
    }
    // One that is none wins over nothing else, and no other header counts.
    for name in [
        "X-Authorization",
        "Proxy-Authorization",
        "X-Forwarded-Authorization",
        "Authorization-Token",
    ] {
        let request = Request::get(RUN).header(name, format!("Bearer {good}"));
        let problem = request.send(broker.addr).await.problem(401);
        assert_eq!(slug(&problem), "token-required", "{name}");
    }
}

#[tokio::test]
async fn an_algorithm_that_is_not_set_is_refused_whatever_keys_there_are() {
    let keys = tempfile::tempdir().expect("a temporary directory");
    let path = keys.path().join("keys.pem");
    std::fs::write(&path, &RSA.public_pem).expect("the directory is ours");
    let broker = guarded(Broker::embedded())
        .set("auth.keys_file", path.display())
        .set("auth.algorithms", "PS256")
        .start()
        .await;
    let claims = good().to_string();
    let taken = signed(&header("PS256"), &claims, &ps256(&RSA));
    assert_eq!(ask(&broker, &taken).await.status(), 200);
    for (algorithm, sign) in [
        ("RS256", &rs256(&RSA) as Sign<'_>),
        ("HS256", &hs256(SECRET.as_bytes())),
    ] {
        let response = ask(&broker, &signed(&header(algorithm), &claims, sign)).await;
        let problem = response.problem(401);
        assert!(
            problem["detail"]
                .as_str()
                .is_some_and(|it| it.contains(ALGORITHM))
        );
    }
}

/// Valid tokens, and runs that only look as if they were meant.
#[tokio::test]
async fn a_run_that_looks_like_another_is_another() {
    let broker = guarded(Broker::embedded()).start().await;
    let token = token(&good());
    for (run_id, status) in [
        ("42", 200),
        ("%34%32", 200),
        ("team-a-1", 200),
        ("team-a-..b", 200),
        ("team-a", 404),
        ("team-a1", 404),
        ("Team-a-1", 404),
        ("TEAM-A-1", 404),
        ("team-b-1", 404),
        ("xteam-a-1", 404),
        ("421", 404),
        ("4", 404),
        ("042", 404),
        ("42.", 400),
        ("*", 400),
        ("%2A", 400),
        ("team-a-*", 400),
        ("team-a-%2A", 400),
        ("team-a-", 400),
        ("42%00", 400),
        ("42%0A", 400),
        ("42%20", 400),
        ("%2042", 400),
        ("team-a-1%2F..%2F..%2F43", 400),
        ("team-a-%252e", 400),
        ("%EF%BC%94%EF%BC%92", 400),
        ("team%E2%80%90a-1", 400),
        ("t%D0%B5am-a-1", 400),
        ("team-a-1%E2%80%8B", 400),
    ] {
        for suffix in ["", "/events"] {
            let request = Request::get(format!("/api/v1/runs/{run_id}{suffix}"))
                .header("Authorization", format!("Bearer {token}"));
            let response = request.send(broker.addr).await;
            assert_eq!(
                response.status(),
                status,
                "{run_id}{suffix}: {}",
                response.text()
            );
        }
    }
}
