//! [`Verifier`]: from the text of a token to who holds it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Header, Validation, decode, decode_header};
use serde::Deserialize;

use super::claims::{Claims, Object};
use super::{Algorithm, Identity, KeySet, RemoteKeys, crypto};
use crate::settings::AuthSettings;

/// Types of token that are meant for us (`typ`): others may be signed with the
/// same key and mean something else, such as a log-out.
const TYPES: [&str; 4] = ["jwt", "application/jwt", "at+jwt", "application/at+jwt"];

/// Why a token does not count. Says nothing of what stands in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    /// It is no JWT in compact form, or has a header that we cannot honour.
    #[error("it is no JSON Web Token")]
    Malformed,
    /// Past `auth.max_token_bytes`.
    #[error("it is longer than auth.max_token_bytes")]
    TooLong,
    /// Not one of `auth.algorithms`.
    #[error("it is signed with an algorithm that auth.algorithms does not have")]
    Algorithm,
    /// No key of its algorithm has its key id.
    #[error("it is signed with a key that this broker does not have")]
    UnknownKey,
    /// No key has made its signature.
    #[error("its signature is not that of its key")]
    Signature,
    /// `exp` is past.
    #[error("it has expired; ask for a new one")]
    Expired,
    /// `nbf` or `iat` is yet to come.
    #[error("it does not count yet")]
    Early,
    /// Past `auth.max_token_life`.
    #[error("it would count for longer than auth.max_token_life")]
    LivesTooLong,
    /// `iss` is not `auth.issuer`.
    #[error("it is not of auth.issuer")]
    Issuer,
    /// `aud` names nobody of `auth.audience`.
    #[error("it is not for this broker (auth.audience)")]
    Audience,
    /// A claim is missing or not of its form.
    #[error("its claims are not as they must be: sub, exp, and runcast if there is one")]
    Claims,
    /// It was revoked.
    #[error("it was revoked; ask for a new one")]
    Revoked,
    /// No keys were had from `auth.jwks_url` yet.
    #[error("the keys of auth.jwks_url cannot be had; try again")]
    NoKeys,
}

impl TokenError {
    /// All of them.
    pub(crate) const ALL: [Self; 13] = [
        Self::Malformed,
        Self::TooLong,
        Self::Algorithm,
        Self::UnknownKey,
        Self::Signature,
        Self::Expired,
        Self::Early,
        Self::LivesTooLong,
        Self::Issuer,
        Self::Audience,
        Self::Claims,
        Self::Revoked,
        Self::NoKeys,
    ];

    /// Returns the word that it is counted under.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLong => "too_long",
            Self::Algorithm => "algorithm",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::Early => "early",
            Self::LivesTooLong => "lives_too_long",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Claims => "claims",
            Self::Revoked => "revoked",
            Self::NoKeys => "no_keys",
        }
    }
}

/// Checks tokens. Knows the keys; shows none of them.
#[derive(Debug)]
pub(crate) struct Verifier {
    keys: KeySet,
    remote: Option<Arc<RemoteKeys>>,
    algorithms: Vec<Algorithm>,
    issuer: Option<String>,
    audience: Vec<String>,
    leeway: Duration,
    max_life: Duration,
    max_bytes: usize,
}

impl Verifier {
    /// Makes a verifier with the keys of the settings and those of a URL.
    pub(crate) fn new(
        settings: &AuthSettings,
        keys: KeySet,
        remote: Option<Arc<RemoteKeys>>,
    ) -> Self {
        crypto::install();
        Self {
            keys,
            remote,
            algorithms: settings.algorithms.clone(),
            issuer: (!settings.issuer.is_empty()).then(|| settings.issuer.clone()),
            audience: settings.audience.clone(),
            leeway: settings.leeway,
            max_life: settings.max_token_life,
            max_bytes: settings.max_token_bytes.as_u64() as usize,
        }
    }

    /// Checks a token. Waits only if its key is not known and may be had from
    /// the URL meanwhile.
    ///
    /// # Errors
    /// [`TokenError`] names the first rule that it breaks.
    pub(crate) async fn verify(&self, token: &str) -> Result<Identity, TokenError> {
        let header = self.header(token)?;
        let algorithm = Algorithm::of(header.alg)
            .filter(|algorithm| self.algorithms.contains(algorithm))
            .ok_or(TokenError::Algorithm)?;
        let id = header.kid.as_deref();
        let outcome = self.verify_with(&self.keys, token, algorithm, id);
        let Some(remote) = &self.remote else {
            return outcome;
        };
        // Of keys from two places, either may have signed it.
        let Err(TokenError::UnknownKey | TokenError::Signature) = outcome else {
            return outcome;
        };
        let keys = remote.keys();
        let outcome = self.verify_with(&keys, token, algorithm, id);
        match outcome {
            Err(TokenError::UnknownKey) => {
                let keys = remote.newer_than(&keys).await;
                if keys.len() == 0 {
                    return Err(TokenError::NoKeys);
                }
                self.verify_with(&keys, token, algorithm, id)
            }
            outcome => outcome,
        }
    }

    /// Reads the header, and refuses what nobody has signed for us.
    fn header(&self, token: &str) -> Result<Header, TokenError> {
        if token.len() > self.max_bytes {
            return Err(TokenError::TooLong);
        }
        let is_compact = token
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
            && token.bytes().filter(|byte| *byte == b'.').count() == 2;
        if !is_compact {
            return Err(TokenError::Malformed);
        }
        let name = algorithm_named(token).ok_or(TokenError::Malformed)?;
        // `none`, and all else that the library does not know.
        name.parse::<jsonwebtoken::Algorithm>()
            .map_err(|_| TokenError::Algorithm)?;
        let header = decode_header(token).map_err(|_| TokenError::Malformed)?;
        let is_ours = |typ: &String| TYPES.iter().any(|known| known.eq_ignore_ascii_case(typ));
        let is_good = header.typ.as_ref().is_none_or(is_ours)
            // What is critical must be honoured (RFC 7515, section 4.1.11), and
            // we know no extension.
            && header.crit.is_none()
            && header.zip.is_none()
            && header.enc.is_none();
        is_good.then_some(header).ok_or(TokenError::Malformed)
    }

    fn verify_with(
        &self,
        keys: &KeySet,
        token: &str,
        algorithm: Algorithm,
        id: Option<&str>,
    ) -> Result<Identity, TokenError> {
        let validation = self.validation(algorithm);
        let mut outcome = Err(TokenError::UnknownKey);
        for key in keys.candidates(algorithm, id) {
            let decoded = decode::<Object<Claims>>(token, &key.decoding, &validation);
            outcome = decoded.map_err(|error| refusal(error.kind()));
            if !matches!(outcome, Err(TokenError::Signature)) {
                break;
            }
        }
        self.in_time(outcome?.claims.0)
    }

    /// The rules for a token of one algorithm: so a key is never tried with
    /// another one than the header names.
    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm.name());
        validation.leeway = self.leeway.as_secs();
        validation.validate_nbf = true;
        let mut required = HashSet::from(["exp".to_owned(), "sub".to_owned()]);
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            required.insert("iss".to_owned());
        }
        // Without an audience of ours, a token that names one is refused.
        if !self.audience.is_empty() {
            validation.set_audience(&self.audience);
            required.insert("aud".to_owned());
        }
        validation.required_spec_claims = required;
        validation
    }

    fn in_time(&self, claims: Claims) -> Result<Identity, TokenError> {
        let identity = claims.into_identity();
        let bearer = &identity.bearer;
        // The library takes a token for the whole second that it ends in.
        if bearer.has_ended(self.leeway) {
            return Err(TokenError::Expired);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default();
        let latest = (now + self.leeway).as_secs();
        if bearer.issued_at.is_some_and(|issued| issued > latest) {
            return Err(TokenError::Early);
        }
        let longest = (now + self.leeway + self.max_life).as_secs();
        if bearer.expires_at > longest {
            return Err(TokenError::LivesTooLong);
        }
        Ok(identity)
    }
}

/// Returns the name of the algorithm in a token's header; the library takes it
/// in other forms than a text, too.
fn algorithm_named(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        alg: String,
    }
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next()?).ok()?;
    let named: Object<Named> = serde_json::from_slice(&header).ok()?;
    Some(named.0.alg)
}

fn refusal(kind: &ErrorKind) -> TokenError {
    match kind {
        ErrorKind::InvalidSignature => TokenError::Signature,
        ErrorKind::ExpiredSignature => TokenError::Expired,
        ErrorKind::ImmatureSignature => TokenError::Early,
        ErrorKind::InvalidIssuer => TokenError::Issuer,
        ErrorKind::InvalidAudience => TokenError::Audience,
        ErrorKind::MissingRequiredClaim(claim) if claim == "iss" => TokenError::Issuer,
        ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => TokenError::Audience,
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => TokenError::Algorithm,
        ErrorKind::Json(_)
        | ErrorKind::MissingRequiredClaim(_)
        | ErrorKind::InvalidClaimFormat(_) => TokenError::Claims,
        _ => TokenError::Malformed,
    }
}
