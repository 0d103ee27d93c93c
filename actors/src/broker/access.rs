//! What is asked of a broker about tokens: which are revoked, what tickets
//! there are, how long a stream may last.

use std::time::Duration;

use super::{Broker, BrokerResult, StreamRequest, unavailable};
use crate::access::{Bearer, Revocation};
use crate::protocol::Problem;
use crate::session::CloseReason;

impl Broker {
    /// Whether a token counts no more, as far as this broker knows.
    pub fn is_revoked(&self, bearer: &Bearer) -> bool {
        self.shared.revocations.read().has(bearer)
    }

    /// Revokes a subject or a token, on all brokers: no stream is opened with
    /// it, and those that are open end within two seconds. `false` if as many
    /// are revoked as may be.
    ///
    /// # Errors
    /// When the store does not answer; then nothing may be revoked.
    pub async fn revoke(&self, revocation: Revocation) -> BrokerResult<bool> {
        let revoked = self.shared.access().revoke(&revocation).await;
        let revoked = revoked.map_err(|error| unavailable(&error, "revoke again"))?;
        if revoked {
            self.shared.learn_revocations(vec![revocation]);
        }
        Ok(revoked)
    }

    /// Keeps a ticket under a name that nobody can guess, for `ttl`.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn put_ticket(&self, name: &str, ticket: String, ttl: Duration) -> BrokerResult<()> {
        let kept = self.shared.access().put_ticket(name, ticket, ttl).await;
        kept.map_err(|error| unavailable(&error, "ask again"))
    }

    /// Returns a ticket that any broker keeps. It is taken by the stream that
    /// it opens ([`StreamRequest::ticket`](super::StreamRequest::ticket)).
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn ticket(&self, name: &str) -> BrokerResult<Option<String>> {
        let ticket = self.shared.access().look_at_ticket(name).await;
        ticket.map_err(|error| unavailable(&error, "try again"))
    }

    /// Takes a stream's ticket, after all else that may refuse the stream:
    /// `false` if somebody was faster, whichever broker they asked.
    pub(super) async fn use_ticket(
        &self,
        request: &StreamRequest,
    ) -> Result<bool, (Problem, CloseReason)> {
        let Some(ticket) = &request.ticket else {
            return Ok(true);
        };
        self.check_room()?;
        self.check_bearer(request.bearer.as_ref())?;
        let (backend, run_id) = (request.backend, &request.run_id);
        if self.shared.with_hub(backend, run_id, |_| ()).is_none() {
            return Err(self.no_hub(self.shared.no_hub(backend, run_id)));
        }
        let taken = self.shared.access().take_ticket(ticket).await;
        let taken = taken.map_err(|error| unavailable(&error, "ask for a new ticket"));
        let taken = taken.map_err(|problem| (problem, CloseReason::Unavailable))?;
        Ok(taken.is_some())
    }

    /// Refuses a token that was revoked.
    pub(super) fn check_bearer(
        &self,
        bearer: Option<&Bearer>,
    ) -> Result<(), (Problem, CloseReason)> {
        if !bearer.is_some_and(|bearer| self.is_revoked(bearer)) {
            return Ok(());
        }
        let detail = "the token was revoked; come back with a new one";
        let problem = Problem::new(401, "invalid-token", "Invalid token", detail);
        Err((problem, CloseReason::TokenRevoked))
    }

    /// When a stream ends at the latest: at its greatest age, or with its
    /// token.
    pub(super) fn ends_at(&self, bearer: Option<&Bearer>) -> Option<(Duration, CloseReason)> {
        let settings = &self.shared.settings;
        let max_age = settings.live.now().streaming.max_age;
        // Up to a half earlier, so that clients that came together (after a
        // broker went, say) do not go together.
        let max_age = max_age - max_age.mul_f64(fastrand::f64() * 0.5);
        let max_age = (!max_age.is_zero()).then_some((max_age, CloseReason::MaxAge));
        let token = bearer.map(|bearer| {
            let left = bearer.time_left(settings.access.leeway);
            (left, CloseReason::TokenExpired)
        });
        max_age.into_iter().chain(token).min_by_key(|end| end.0)
    }
}
