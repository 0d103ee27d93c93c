//! Tokens of an issuer, and of those who would like to be one: signed by hand,
//! byte for byte, so that nothing of the broker's own library helps them.

use std::process::Command;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA384, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair, RsaPublicKeyComponents,
};
use serde_json::{Value, json};

use super::broker::BrokerSettings;

/// The secret of HS256, HS384 and HS512.
pub(crate) const SECRET: &str =
    "a secret of the tests that is sixty-four bytes long or more, as it is due";

/// What every good token says.
pub(crate) const ISSUER: &str = "https://issuer.example";
pub(crate) const AUDIENCE: &str = "runcast";

/// A key pair, and its public part as others are given it.
pub(crate) struct Pair {
    pkcs8: Vec<u8>,
    pub(crate) public_pem: String,
}

impl Pair {
    fn new(algorithm: &[&str]) -> Self {
        let openssl = |arguments: &[&str], input: &str| {
            let mut child = Command::new("openssl")
                .args(arguments)
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::null())
                .spawn()
                .expect("openssl is installed");
            let mut stdin = child.stdin.take().expect("piped");
            std::io::Write::write_all(&mut stdin, input.as_bytes()).expect("it reads");
            drop(stdin);
            let output = child.wait_with_output().expect("it ends");
            assert!(output.status.success(), "openssl {arguments:?}");
            String::from_utf8(output.stdout).expect("PEM")
        };
        let private = openssl(&[&["genpkey"], algorithm].concat(), "");
        Self {
            pkcs8: der_of(&private),
            public_pem: openssl(&["pkey", "-pubout"], &private),
        }
    }

    /// The public part without its armour.
    pub(crate) fn public_der(&self) -> Vec<u8> {
        der_of(&self.public_pem)
    }

    pub(crate) fn rsa(&self) -> RsaKeyPair {
        RsaKeyPair::from_pkcs8(&self.pkcs8).expect("an RSA key")
    }

    pub(crate) fn ec(&self) -> EcdsaKeyPair {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        EcdsaKeyPair::from_pkcs8(algorithm, &self.pkcs8, &SystemRandom::new()).expect("a P-256 key")
    }

    pub(crate) fn ed(&self) -> Ed25519KeyPair {
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(&self.pkcs8).expect("an Ed25519 key")
    }

    /// The public part of an RSA key as a JSON Web Key.
    pub(crate) fn rsa_jwk(&self, id: &str) -> Value {
        let key = self.rsa();
        let public: RsaPublicKeyComponents<Vec<u8>> = key.public().into();
        let (n, e) = (encode(&public.n), encode(&public.e));
        json!({"kty": "RSA", "use": "sig", "kid": id, "n": n, "e": e})
    }

    /// The same of a P-256 key.
    pub(crate) fn ec_jwk(&self, id: &str) -> Value {
        let key = self.ec();
        let (x, y) = key.public_key().as_ref()[1..].split_at(32);
        json!({"kty": "EC", "crv": "P-256", "kid": id, "x": encode(x), "y": encode(y)})
    }
}

/// The issuer's keys, and those of somebody else.
pub(crate) static RSA: LazyLock<Pair> = LazyLock::new(new_rsa);
pub(crate) static OTHER_RSA: LazyLock<Pair> = LazyLock::new(new_rsa);
pub(crate) static EC: LazyLock<Pair> = LazyLock::new(new_ec);
pub(crate) static OTHER_EC: LazyLock<Pair> = LazyLock::new(new_ec);
pub(crate) static ED: LazyLock<Pair> = LazyLock::new(|| Pair::new(&["-algorithm", "ED25519"]));
pub(crate) static OTHER_ED: LazyLock<Pair> =
    LazyLock::new(|| Pair::new(&["-algorithm", "ED25519"]));

fn new_rsa() -> Pair {
    Pair::new(&["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])
}

fn new_ec() -> Pair {
    Pair::new(&["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"])
}

fn der_of(pem: &str) -> Vec<u8> {
    let lines = pem.lines().filter(|line| !line.starts_with("-----"));
    STANDARD.decode(lines.collect::<String>()).expect("base64")
}

/// Encodes a part of a token.
pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Signs what stands before the last dot.
pub(crate) type Sign<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;

pub(crate) fn hs256(secret: &[u8]) -> impl Fn(&[u8]) -> Vec<u8> {
    hs(hmac::HMAC_SHA256, secret)
}

pub(crate) fn hs384(secret: &[u8]) -> impl Fn(&[u8]) -> Vec<u8> {
    hs(hmac::HMAC_SHA384, secret)
}

pub(crate) fn hs512(secret: &[u8]) -> impl Fn(&[u8]) -> Vec<u8> {
    hs(hmac::HMAC_SHA512, secret)
}

fn hs(algorithm: hmac::Algorithm, secret: &[u8]) -> impl Fn(&[u8]) -> Vec<u8> {
    let key = hmac::Key::new(algorithm, secret);
    move |message| hmac::sign(&key, message).as_ref().to_vec()
}

pub(crate) fn rs256(pair: &Pair) -> impl Fn(&[u8]) -> Vec<u8> {
    rsa_with(pair, &RSA_PKCS1_SHA256)
}

pub(crate) fn rs384(pair: &Pair) -> impl Fn(&[u8]) -> Vec<u8> {
    rsa_with(pair, &RSA_PKCS1_SHA384)
}

pub(crate) fn ps256(pair: &Pair) -> impl Fn(&[u8]) -> Vec<u8> {
    rsa_with(pair, &RSA_PSS_SHA256)
}

fn rsa_with(pair: &Pair, encoding: &'static dyn RsaEncoding) -> impl Fn(&[u8]) -> Vec<u8> {
    let key = pair.rsa();
    move |message| {
        let mut signature = vec![0; key.public().modulus_len()];
        let random = SystemRandom::new();
        let signed = key.sign(encoding, &random, message, &mut signature);
        signed.expect("the key is long enough");
        signature
    }
}

pub(crate) fn es256(pair: &Pair) -> impl Fn(&[u8]) -> Vec<u8> {
    let key = pair.ec();
    move |message| {
        let signature = key.sign(&SystemRandom::new(), message);
        signature.expect("there is randomness").as_ref().to_vec()
    }
}

pub(crate) fn eddsa(pair: &Pair) -> impl Fn(&[u8]) -> Vec<u8> {
    let key = pair.ed();
    move |message| key.sign(message).as_ref().to_vec()
}

/// Joins and signs the parts as they are given.
pub(crate) fn signed(header: &str, claims: &str, sign: Sign<'_>) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let signature = encode(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

/// A token of the issuer with these claims, by HS256.
pub(crate) fn token(claims: &Value) -> String {
    let header = r#"{"alg":"HS256","typ":"JWT"}"#;
    signed(header, &claims.to_string(), &hs256(SECRET.as_bytes()))
}

/// The time now, in seconds since the Unix epoch.
pub(crate) fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// Claims of a good token with these rights.
pub(crate) fn claims(rights: Value) -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "alice",
        "iat": now(), "exp": now() + 3600, "runcast": rights,
    })
}

/// As `claims`, with some of them changed; null takes one out.
pub(crate) fn claims_but(rights: Value, changes: Value) -> Value {
    let mut all = claims(rights);
    for (name, value) in changes.as_object().expect("changes by name") {
        match value {
            Value::Null => all.as_object_mut().expect("an object").remove(name),
            value => all
                .as_object_mut()
                .expect("an object")
                .insert(name.clone(), value.clone()),
        };
    }
    all
}

/// A token of the issuer that admits these rights.
pub(crate) fn token_for(rights: Value) -> String {
    token(&claims(rights))
}

/// A token of the issuer that admits the admin routes; another subject than
/// that of the others.
pub(crate) fn admin() -> String {
    token(&claims_but(json!({"admin": true}), json!({"sub": "root"})))
}

/// Has a broker ask for the issuer's tokens, by its secret.
pub(crate) fn guarded(settings: BrokerSettings) -> BrokerSettings {
    settings
        .set("auth.mode", "jwt")
        .set("auth.secret", SECRET)
        .set("auth.issuer", ISSUER)
        .set("auth.audience", AUDIENCE)
}
