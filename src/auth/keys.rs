//! [`KeySet`]: the keys that tokens are checked with, each bound to the
//! algorithms of its family.

use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::{AlgorithmFamily, DecodingKey, DecodingKeyKind};
use serde::Deserialize;
use serde_json::Value;

use super::Algorithm;

/// Most keys of one set: a token without a key id is tried with each.
const KEYS_MAX: usize = 32;

/// What every PEM block begins with.
const PEM_BEGIN: &str = "-----BEGIN ";

/// An RSA modulus has at least 2048 bits; ring takes none below.
const RSA_MODULUS_BYTES_MIN: usize = 256;

/// Bytes of an uncompressed point on P-256, and of an Ed25519 key.
const P256_POINT_BYTES: usize = 65;
const ED25519_KEY_BYTES: usize = 32;

/// One key. What it is shown as holds no key material.
#[derive(Debug, Clone)]
pub(super) struct Key {
    /// `kid`; a key without one may have signed any token.
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    pub(super) decoding: DecodingKey,
}

/// Keys from one place, or from several together.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeySet(Vec<Key>);

/// Why a text gives no keys. Says nothing of what stands in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyError {
    /// The secret is shorter than the hash of any algorithm.
    #[error("must have 32 bytes or more (48 for HS384, 64 for HS512)")]
    ShortSecret,
    /// A key pair's public part makes no secret: everybody knows it.
    #[error("is a PEM key, which is no secret: give a public key as auth.keys_file")]
    SecretIsKey,
    /// Neither PEM nor JSON.
    #[error("must hold PUBLIC KEY blocks (PEM), or a JSON Web Key Set")]
    NoKeys,
    /// It has no place here.
    #[error("holds a private key: only public ones belong on a broker")]
    PrivateKey,
    /// A PEM block that cannot be used.
    #[error("PEM block {0} is no RSA (2048 bits or more), P-256 or Ed25519 public key")]
    BadBlock(usize),
    /// A set in which there is nothing for us.
    #[error("holds no key for RS256, PS256, ES256 or EdDSA")]
    NoneUsable,
    /// Too long a list.
    #[error("holds more than {KEYS_MAX} keys")]
    TooMany,
}

impl KeySet {
    /// Makes the key of HS256 and, where it is long enough, HS384 and HS512.
    ///
    /// # Errors
    /// [`KeyError`] for a secret that is short or none.
    pub(crate) fn from_secret(secret: &[u8]) -> Result<Self, KeyError> {
        if secret.trim_ascii_start().starts_with(PEM_BEGIN.as_bytes()) {
            return Err(KeyError::SecretIsKey);
        }
        let fits = |algorithm: &Algorithm| {
            let least = algorithm.secret_bytes_min();
            least.is_some_and(|least| secret.len() >= least)
        };
        let algorithms: Vec<Algorithm> = Algorithm::ALL.into_iter().filter(fits).collect();
        if algorithms.is_empty() {
            return Err(KeyError::ShortSecret);
        }
        Ok(Self(vec![Key {
            id: None,
            algorithms,
            decoding: DecodingKey::from_secret(secret),
        }]))
    }

    /// Reads public keys: PEM blocks, or a JSON Web Key Set.
    ///
    /// # Errors
    /// [`KeyError`] says what is wrong with it as a whole. A key of a set that
    /// is of no use here is left out: others may need it.
    pub(crate) fn from_text(text: &str) -> Result<Self, KeyError> {
        match text.trim_start() {
            json if json.starts_with('{') => Self::from_jwks_text(json),
            pem if pem.contains(PEM_BEGIN) => Self::of(from_pem(pem)?),
            _ => Err(KeyError::NoKeys),
        }
    }

    /// Reads a JSON Web Key Set, and nothing else.
    ///
    /// # Errors
    /// As of [`from_text`](Self::from_text).
    pub(super) fn from_jwks_text(json: &str) -> Result<Self, KeyError> {
        Self::of(from_jwks(json)?)
    }

    fn of(keys: Vec<Key>) -> Result<Self, KeyError> {
        match keys.len() {
            0 => Err(KeyError::NoneUsable),
            1..=KEYS_MAX => Ok(Self(keys)),
            _ => Err(KeyError::TooMany),
        }
    }

    /// Adds the keys of another set.
    pub(crate) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Returns the keys that may have signed a token of `algorithm`.
    pub(super) fn candidates<'a>(
        &'a self,
        algorithm: Algorithm,
        id: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Key> {
        self.0.iter().filter(move |key| {
            let is_named = match (&key.id, id) {
                (Some(known), Some(id)) => known == id,
                _ => true,
            };
            is_named && key.algorithms.contains(&algorithm)
        })
    }

    /// Returns how many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

fn from_pem(text: &str) -> Result<Vec<Key>, KeyError> {
    let mut keys = Vec::new();
    for (index, block) in text.split(PEM_BEGIN).skip(1).enumerate() {
        let label = block.split("-----").next().unwrap_or_default();
        if label.contains("PRIVATE") {
            return Err(KeyError::PrivateKey);
        }
        let block = format!("{PEM_BEGIN}{block}");
        keys.push(pem_key(&block).ok_or(KeyError::BadBlock(index + 1))?);
    }
    Ok(keys)
}

fn pem_key(block: &str) -> Option<Key> {
    let block = block.as_bytes();
    let decoding = DecodingKey::from_rsa_pem(block)
        .or_else(|_| DecodingKey::from_ec_pem(block))
        .or_else(|_| DecodingKey::from_ed_pem(block))
        .ok()?;
    Some(Key {
        id: None,
        algorithms: algorithms_of(&decoding)?,
        decoding,
    })
}

fn from_jwks(json: &str) -> Result<Vec<Key>, KeyError> {
    /// Each key is read by itself, so that an odd one spoils no other.
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let set: Set = serde_json::from_str(json).map_err(|_| KeyError::NoKeys)?;
    let keys = set.keys.into_iter();
    let jwks = keys.filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
    Ok(jwks.filter_map(|jwk| jwk_key(&jwk)).collect())
}

/// Returns a key that signs tokens; `None` for any other. A symmetric one is
/// none: what is published is no secret.
fn jwk_key(jwk: &Jwk) -> Option<Key> {
    let common = &jwk.common;
    let signs = matches!(common.public_key_use, None | Some(PublicKeyUse::Signature));
    let operations = common.key_operations.as_ref();
    let verifies = operations.is_none_or(|all| all.contains(&KeyOperations::Verify));
    let is_curve_ours = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => true,
        AlgorithmParameters::EllipticCurve(key) => key.curve == EllipticCurve::P256,
        AlgorithmParameters::OctetKeyPair(key) => key.curve == EllipticCurve::Ed25519,
        _ => false,
    };
    if !(signs && verifies && is_curve_ours) {
        return None;
    }
    let decoding = DecodingKey::from_jwk(jwk).ok()?;
    let mut algorithms = algorithms_of(&decoding)?;
    if let Some(named) = common.key_algorithm {
        algorithms.retain(|algorithm| is_named(*algorithm, named));
    }
    (!algorithms.is_empty()).then(|| Key {
        id: common.key_id.clone(),
        algorithms,
        decoding,
    })
}

fn is_named(algorithm: Algorithm, named: KeyAlgorithm) -> bool {
    let name = jsonwebtoken::Algorithm::try_from(named);
    name.is_ok_and(|name| name == algorithm.name())
}

/// Returns the algorithms of a public key, `None` if its size is not ours.
fn algorithms_of(key: &DecodingKey) -> Option<Vec<Algorithm>> {
    let (algorithms, fits) = match (key.family(), key.kind()) {
        (AlgorithmFamily::Rsa, DecodingKeyKind::RsaModulusExponent { n, .. }) => (
            vec![Algorithm::Rs256, Algorithm::Ps256],
            n.len() >= RSA_MODULUS_BYTES_MIN,
        ),
        (AlgorithmFamily::Rsa, DecodingKeyKind::SecretOrDer(der)) => (
            vec![Algorithm::Rs256, Algorithm::Ps256],
            der.len() >= RSA_MODULUS_BYTES_MIN,
        ),
        (AlgorithmFamily::Ec, DecodingKeyKind::SecretOrDer(point)) => {
            (vec![Algorithm::Es256], point.len() == P256_POINT_BYTES)
        }
        (AlgorithmFamily::Ed, DecodingKeyKind::SecretOrDer(bytes)) => {
            (vec![Algorithm::EdDsa], bytes.len() == ED25519_KEY_BYTES)
        }
        _ => return None,
    };
    fits.then_some(algorithms)
}
