//! Who asks, and what they may do: keys, tokens, and what tokens claim.
//!
//! Knows no requests; `http/caller.rs` finds the token in one. What outlives a
//! request (revocations, tickets) the actors keep.

mod algorithm;
mod claims;
mod crypto;
mod jwks;
mod keys;
mod verifier;

pub(crate) use algorithm::Algorithm;
pub(crate) use claims::{Identity, Kinds, Rights, RunPattern};
pub(crate) use jwks::RemoteKeys;
pub(crate) use keys::{KeyError, KeySet};
pub(crate) use verifier::{TokenError, Verifier};
