//! Who holds a stream, and what takes it away: tokens end, and are revoked.
//!
//! Tokens are read by whoever has HTTP; here is what outlives the request:
//! whose a stream is ([`Bearer`]), which subjects and tokens are revoked
//! ([`Revocation`]), and where brokers that belong together keep that and the
//! tickets they issued ([`AccessStore`]).

mod keeper;
mod memory;
mod revocations;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) use keeper::{RevocationNews, keep_revocations};
pub(crate) use memory::MemoryAccess;
pub(crate) use revocations::Revocations;
pub use revocations::{Revocation, RevokedName};

use crate::store::StoreFuture;

/// What the actors need to know of `[auth]`.
#[derive(Debug, Clone)]
pub struct AccessSettings {
    /// Whether there are tokens at all; without them nothing is kept.
    pub enabled: bool,
    /// How long a revocation is kept: no token lives longer.
    pub revocation_ttl: Duration,
    /// Most revocations kept at once; past it a further one is refused.
    pub max_revocations: usize,
    /// How far clocks may be apart.
    pub leeway: Duration,
}

impl Default for AccessSettings {
    fn default() -> Self {
        Self {
            enabled: false,
            revocation_ttl: Duration::from_secs(24 * 3600),
            max_revocations: 10_000,
            leeway: Duration::from_secs(30),
        }
    }
}

/// Whose stream it is, by the claims of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// `sub`: who holds the token.
    pub subject: Arc<str>,
    /// `jti`: which token it is.
    pub token_id: Option<Arc<str>>,
    /// `iat`: when it was issued, in seconds since the Unix epoch.
    pub issued_at: Option<u64>,
    /// `exp`: when it ends, likewise.
    pub expires_at: u64,
}

impl Bearer {
    /// How long a stream of this token may last, drawn anew with each call:
    /// to the token's end, and then up to `leeway`, so that streams opened
    /// together do not end together. No longer than the token would open
    /// another one.
    pub(crate) fn time_left(&self, leeway: Duration) -> Duration {
        let end = Duration::from_secs(self.expires_at) + leeway.mul_f64(fastrand::f64());
        end.saturating_sub(since_epoch())
    }

    /// Whether the token has ended, clocks being up to `leeway` apart.
    pub fn has_ended(&self, leeway: Duration) -> bool {
        Duration::from_secs(self.expires_at) + leeway <= since_epoch()
    }
}

/// Returns the time since the Unix epoch by this machine's clock.
pub(crate) fn since_epoch() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default()
}

/// Where tickets and revocations are kept, for all brokers that share it.
pub(crate) trait AccessStore: Send + Sync {
    /// Keeps a ticket under a name nobody can guess, for `ttl`.
    fn put_ticket<'a>(
        &'a self,
        name: &'a str,
        ticket: String,
        ttl: Duration,
    ) -> StoreFuture<'a, ()>;

    /// Reads a ticket and leaves it where it is.
    fn look_at_ticket<'a>(&'a self, name: &'a str) -> StoreFuture<'a, Option<String>>;

    /// Takes a ticket out: of all who ask, on whichever broker, one gets it.
    fn take_ticket<'a>(&'a self, name: &'a str) -> StoreFuture<'a, Option<String>>;

    /// Keeps a revocation and tells the other brokers; `false` if as many are
    /// kept as may be.
    fn revoke<'a>(&'a self, revocation: &'a Revocation) -> StoreFuture<'a, bool>;

    /// Reads the revocations that are kept, the newest ones if there are too
    /// many.
    fn revocations(&self) -> StoreFuture<'_, Vec<Revocation>>;
}
