//! [`Gate`]: what lets requests in when `auth.mode` is `jwt`.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::{IntCounterVec, Opts, Registry};
use runcast_actors::access::Bearer;
use runcast_actors::broker::Broker;
use runcast_actors::protocol::Problem;

use super::credential::Credential;
use super::problem::ApiError;
use super::tickets::{Issued, TicketName, look_up};
use crate::auth::{Identity, KeySet, RemoteKeys, TokenError, Verifier};
use crate::settings::AuthSettings;

/// Why a request is sent away before its token is looked at.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unasked {
    /// It shows nothing.
    Missing,
    /// The header is not in its form.
    Header,
    /// A token stands in the query.
    Query,
    /// The cookie is given twice.
    Cookie,
    /// The cookie comes from a page of another origin.
    Origin,
    /// Its ticket is none.
    Ticket,
}

impl Unasked {
    const ALL: [Self; 6] = [
        Self::Missing,
        Self::Header,
        Self::Query,
        Self::Cookie,
        Self::Origin,
        Self::Ticket,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Header => "header",
            Self::Query => "query",
            Self::Cookie => "cookie",
            Self::Origin => "origin",
            Self::Ticket => "ticket",
        }
    }
}

/// Checks whoever comes, and counts whom it sends away.
#[derive(Debug)]
pub(crate) struct Gate {
    /// May change while we serve.
    verifier: ArcSwap<Verifier>,
    remote: Option<Arc<RemoteKeys>>,
    /// Name of the cookie that may carry a token.
    pub(super) cookie: Option<String>,
    /// `auth.ticket_ttl`.
    pub(super) ticket_ttl: Duration,
    /// Tickets that are good now.
    pub(super) issued: Issued,
    /// Requests sent away, by reason.
    refusals: IntCounterVec,
    /// Tickets, by what became of them.
    pub(super) tickets: IntCounterVec,
}

impl Gate {
    /// Makes a gate with the keys of the settings and those of a URL.
    ///
    /// # Errors
    /// [`prometheus::Error`] if a metric's name is none; they are fixed.
    pub(crate) fn new(
        settings: &AuthSettings,
        keys: KeySet,
        remote: Option<Arc<RemoteKeys>>,
    ) -> Result<Self, prometheus::Error> {
        let refusals = IntCounterVec::new(
            Opts::new(
                "runcast_auth_refusals_total",
                "Requests without a token that counts.",
            ),
            &["reason"],
        )?;
        let reasons = TokenError::ALL.map(TokenError::as_str);
        for reason in Unasked::ALL.map(Unasked::as_str).iter().chain(&reasons) {
            refusals.with_label_values(&[reason]);
        }
        let tickets = IntCounterVec::new(
            Opts::new("runcast_auth_tickets_total", "Tickets for one stream."),
            &["result"],
        )?;
        for result in ["issued", "used"] {
            tickets.with_label_values(&[result]);
        }
        Ok(Self {
            verifier: ArcSwap::from_pointee(Verifier::new(settings, keys, remote.clone())),
            remote,
            cookie: (!settings.cookie.is_empty()).then(|| settings.cookie.clone()),
            ticket_ttl: settings.ticket_ttl,
            issued: Issued::new(
                settings.ticket_ttl,
                settings.max_tickets,
                settings.max_tickets_per_subject,
            ),
            refusals,
            tickets,
        })
    }

    /// Checks by other keys and rules, from the next request on. Streams that
    /// are open stay: they end with their token, or when it is revoked.
    pub(super) fn change(&self, settings: &AuthSettings, keys: KeySet) {
        let verifier = Verifier::new(settings, keys, self.remote.clone());
        self.verifier.store(Arc::new(verifier));
    }

    /// Registers what it counts.
    ///
    /// # Errors
    /// [`prometheus::Error`] if another metric has one of the names.
    pub(super) fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.refusals.clone()))?;
        registry.register(Box::new(self.tickets.clone()))?;
        if let Some(remote) = &self.remote {
            registry.register(Box::new(remote.count.clone()))?;
            registry.register(Box::new(remote.fetches.clone()))?;
            registry.register(Box::new(remote.failures.clone()))?;
        }
        Ok(())
    }

    /// Returns who shows `credential`, and the ticket's name if it is one.
    ///
    /// # Errors
    /// 401 for a token or ticket that does not count; 503 while that cannot be
    /// known.
    pub(super) async fn admit(
        &self,
        credential: Credential,
        broker: &Broker,
    ) -> Result<(Identity, Option<TicketName>), ApiError> {
        let (identity, ticket) = match credential {
            Credential::Token(token) => {
                let verified = self.verifier.load_full().verify(&token).await;
                (verified.map_err(|error| self.refuse(error))?, None)
            }
            Credential::Ticket(code) => {
                let (identity, ticket) = look_up(self, broker, &code).await?;
                (identity, Some(ticket))
            }
        };
        self.check_bearer(&identity.bearer, broker)?;
        Ok((identity, ticket))
    }

    /// Checks that a token which was good before still is, or the one that a
    /// ticket was issued for.
    ///
    /// # Errors
    /// 401.
    pub(super) fn check_bearer(&self, bearer: &Bearer, broker: &Broker) -> Result<(), ApiError> {
        if bearer.has_ended(broker.settings().access.leeway) {
            return Err(self.refuse(TokenError::Expired));
        }
        match broker.is_revoked(bearer) {
            true => Err(self.refuse(TokenError::Revoked)),
            false => Ok(()),
        }
    }

    /// Counts a request that shows nothing, and returns its answer.
    pub(super) fn missing(&self) -> ApiError {
        self.count(Unasked::Missing);
        let detail = "this broker asks for a token: send Authorization: Bearer <token>";
        Problem::new(401, "token-required", "Token required", detail).into()
    }

    /// Counts a ticket that does not count.
    pub(super) fn bad_ticket(&self) -> ApiError {
        self.count(Unasked::Ticket);
        let detail = "the ticket is unknown, was used or has expired; ask POST /api/v1/tickets for another one";
        invalid(detail.to_owned())
    }

    /// Counts a request whose way of showing a token is wrong.
    pub(super) fn count(&self, reason: Unasked) {
        self.refusals.with_label_values(&[reason.as_str()]).inc();
    }

    fn refuse(&self, error: TokenError) -> ApiError {
        self.refusals.with_label_values(&[error.as_str()]).inc();
        match error {
            TokenError::NoKeys => {
                let detail = format!("the token cannot be judged: {error}");
                Problem::new(503, "keys-unavailable", "Keys unavailable", detail).into()
            }
            error => invalid(format!("the token does not count: {error}")),
        }
    }
}

/// 401 for what was shown.
pub(super) fn invalid(detail: String) -> ApiError {
    Problem::new(401, "invalid-token", "Invalid token", detail).into()
}
