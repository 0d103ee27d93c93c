//! [`AuthSettings`]: the section `[auth]`.

use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;
use runcast_actors::access::AccessSettings;
use serde::{Deserialize, Serialize, Serializer};

use crate::auth::{Algorithm, KeyError, KeySet};

/// `[auth]`: who may watch and publish.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AuthSettings {
    /// Whether requests need a token.
    pub(crate) mode: AuthMode,
    /// Whether `none` may listen where others can reach it.
    pub(crate) allow_anonymous: bool,
    /// Secret of HS256, HS384 and HS512; empty is none.
    pub(crate) secret: Secret,
    /// File that holds the secret; empty is none.
    pub(crate) secret_file: String,
    /// File of public keys, PEM or a JSON Web Key Set; empty is none.
    pub(crate) keys_file: String,
    /// URL of a JSON Web Key Set; empty is none.
    pub(crate) jwks_url: Secret,
    /// How often it is fetched.
    #[serde(with = "humantime_serde")]
    pub(crate) jwks_refresh: Duration,
    /// Algorithms that count.
    pub(crate) algorithms: Vec<Algorithm>,
    /// What `iss` must be; empty is anything.
    pub(crate) issuer: String,
    /// Of which `aud` must name one; empty is none.
    pub(crate) audience: Vec<String>,
    /// How far the issuer's clock may be from ours.
    #[serde(with = "humantime_serde")]
    pub(crate) leeway: Duration,
    /// Longest time a token may still count.
    #[serde(with = "humantime_serde")]
    pub(crate) max_token_life: Duration,
    /// Longest token read.
    pub(crate) max_token_bytes: ByteSize,
    /// Cookie that may carry the token; empty is none.
    pub(crate) cookie: String,
    /// How long a ticket is good.
    #[serde(with = "humantime_serde")]
    pub(crate) ticket_ttl: Duration,
    /// Most tickets of one broker that are good at once.
    pub(crate) max_tickets: usize,
    /// The same of one subject.
    pub(crate) max_tickets_per_subject: usize,
    /// Most revocations kept.
    pub(crate) max_revocations: usize,
}

impl Default for AuthSettings {
    fn default() -> Self {
        Self {
            mode: AuthMode::None,
            allow_anonymous: false,
            secret: Secret::default(),
            secret_file: String::new(),
            keys_file: String::new(),
            jwks_url: Secret::default(),
            jwks_refresh: Duration::from_secs(300),
            algorithms: Algorithm::ALL.to_vec(),
            issuer: String::new(),
            audience: Vec::new(),
            leeway: Duration::from_secs(30),
            max_token_life: Duration::from_secs(24 * 3600),
            max_token_bytes: ByteSize::kib(8),
            cookie: String::new(),
            ticket_ttl: Duration::from_secs(30),
            max_tickets: 10_000,
            max_tickets_per_subject: 100,
            max_revocations: 10_000,
        }
    }
}

/// A value of `auth.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AuthMode {
    /// Whoever reaches the broker may do everything.
    None,
    /// Each request carries a JSON Web Token.
    Jwt,
}

/// A text that is shown nowhere.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(String);

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl Secret {
    /// Returns the text.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn hidden(&self) -> &'static str {
        match self.0.is_empty() {
            true => "",
            false => "(hidden)",
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.hidden())
    }
}

/// Only defaults are ever written, and those are empty.
impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.hidden())
    }
}

impl AuthSettings {
    /// Returns what the actors need of it.
    pub(crate) fn access(&self) -> AccessSettings {
        AccessSettings {
            enabled: self.mode == AuthMode::Jwt,
            // Until the last token that it concerns has ended by any clock.
            revocation_ttl: self.max_token_life + 2 * self.leeway,
            max_revocations: self.max_revocations,
            leeway: self.leeway,
        }
    }

    /// Reads the keys that the settings name themselves.
    ///
    /// # Errors
    /// The key of the setting at fault, and why; never what the file holds.
    pub(crate) fn keys(&self) -> Result<KeySet, (&'static str, String)> {
        let mut keys = KeySet::default();
        let fault = |key: &'static str| move |error: KeyError| (key, error.to_string());
        if !self.secret.is_empty() {
            let secret = self.secret.reveal().as_bytes();
            keys.extend(KeySet::from_secret(secret).map_err(fault("auth.secret"))?);
        }
        if !self.secret_file.is_empty() {
            let secret = read("auth.secret_file", &self.secret_file)?;
            // An editor's line break is no part of it.
            let secret = secret.trim_end_matches(['\r', '\n']).as_bytes();
            keys.extend(KeySet::from_secret(secret).map_err(fault("auth.secret_file"))?);
        }
        if !self.keys_file.is_empty() {
            let text = read("auth.keys_file", &self.keys_file)?;
            keys.extend(KeySet::from_text(&text).map_err(fault("auth.keys_file"))?);
        }
        Ok(keys)
    }
}

fn read(key: &'static str, path: &str) -> Result<String, (&'static str, String)> {
    let text = std::fs::read_to_string(path);
    text.map_err(|error| (key, format!("{path} cannot be read: {error}")))
}
