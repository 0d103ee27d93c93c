//! The program as a fuzz target: what a request, a token or a proxy may say goes
//! to the code that reads it. Built by `scripts/fuzz`, with `--cfg fuzzing`; the
//! variable `RUNCAST_FUZZ` names the target.
#![allow(unsafe_code, reason = "the engine calls us by a symbol of C")]

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::FutureExt as _;
use libfuzzer_sys::fuzz_target;
use ring::hmac;
use runcast_actors::protocol::RunId;

use crate::auth::{KeySet, RunPattern, Verifier};
use crate::http::fuzzing;
use crate::settings::AuthSettings;

const SECRET: &[u8; 32] = b"of the fuzzer alone, 32 bytes ok";

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("RUNCAST_FUZZ").expect("RUNCAST_FUZZ names a target");
    match name.as_str() {
        "token" => token,
        "claims" => claims,
        "proxy_header" => fuzzing::proxy_header,
        "forwarded" => fuzzing::forwarded,
        "stream_query" => fuzzing::stream_query,
        "publish_body" => fuzzing::publish_body,
        other => panic!("{other} is no target"),
    }
});

fuzz_target!(|input: &[u8]| TARGET(input));

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    let keys = KeySet::from_secret(SECRET).expect("32 bytes");
    let settings = AuthSettings {
        max_token_life: std::time::Duration::from_secs(u64::from(u32::MAX) * 2),
        ..AuthSettings::default()
    };
    Verifier::new(&settings, keys, None)
});

fn signed(message: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    let signature = hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Any text as a token, and as the first two parts of one that is signed with
/// the right key: nothing is let in that is not signed, and no header but one of
/// our algorithm.
fn token(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let verified = |token: &str| {
        let outcome = VERIFIER.verify(token).now_or_never();
        outcome.expect("without remote keys nothing is waited for")
    };
    assert!(verified(text).is_err(), "nobody signed {text:?}");
    let _ = verified(&signed(text));
    // Any JSON as a header of good claims.
    let claims = r#"{"sub":"a","exp":4000000000}"#;
    let (head, claims) = (URL_SAFE_NO_PAD.encode(text), URL_SAFE_NO_PAD.encode(claims));
    if verified(&signed(&format!("{head}.{claims}"))).is_ok() {
        // In what nobody takes notice of may stand what is no text.
        if let Ok(header) = serde_json::from_str::<serde_json::Value>(text) {
            assert_eq!(header["alg"], "HS256", "{text}");
            assert!(header.get("crit").is_none_or(serde_json::Value::is_null));
        }
    }
}

/// Claims as an issuer may write them: what is let in has a subject, an end and
/// patterns of run ids that mean what they say.
fn claims(input: &[u8]) {
    let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#);
    let token = signed(&format!("{head}.{}", URL_SAFE_NO_PAD.encode(input)));
    let outcome = VERIFIER.verify(&token).now_or_never();
    let Ok(identity) = outcome.expect("nothing is waited for") else {
        return;
    };
    let subject = &identity.bearer.subject;
    assert!((1..=255).contains(&subject.len()), "{subject:?}");
    // In what nobody takes notice of may stand what is no text.
    let Ok(json) = serde_json::from_slice::<serde_json::Value>(input) else {
        return;
    };
    assert_eq!(json["sub"], **subject);
    assert_eq!(json["runcast"]["admin"] == true, identity.rights.admin);
    let rights = [&identity.rights.subscribe, &identity.rights.publish];
    for (name, patterns) in ["subscribe", "publish"].into_iter().zip(rights) {
        let written = json["runcast"][name].as_array();
        assert_eq!(written.map_or(0, Vec::len), patterns.len());
        for (pattern, written) in patterns.iter().zip(written.into_iter().flatten()) {
            check_pattern(pattern, written.as_str().expect("patterns are texts"));
        }
    }
}

fn check_pattern(pattern: &RunPattern, written: &str) {
    for id in ["42", "a", "team-a-1", "x.y_z-9", "0"] {
        let id = RunId::parse(id).expect("valid");
        let is_meant = match written.strip_suffix('*') {
            Some(prefix) => id.as_str().starts_with(prefix),
            None => id.as_str() == written,
        };
        assert_eq!(pattern.matches(&id), is_meant, "{written:?} and {id:?}");
    }
}
