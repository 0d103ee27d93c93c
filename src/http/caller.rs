//! [`Caller`]: who asks, for routes to ask what they may do.

use std::net::IpAddr;
use std::sync::Arc;

use actix_web::dev::Payload;
use actix_web::web::Data;
use actix_web::{FromRequest, HttpRequest};
use futures_util::future::LocalBoxFuture;
use runcast_actors::access::Bearer;
use runcast_actors::broker::{StreamFilter, client_network};
use runcast_actors::protocol::{EventKind, Problem, RunId};

use super::HttpState;
use super::credential::{Credential, credential_of};
use super::problem::ApiError;
use super::tickets::TicketName;
use crate::auth::{Identity, Kinds, RunPattern};

/// Who asks. With `auth.mode = "none"` nobody is known, and may do everything.
#[derive(Debug)]
pub(super) struct Caller(Option<Identity>);

/// Who asks for a stream: also by a ticket, which is taken when the stream
/// begins.
#[derive(Debug)]
pub(super) struct Follower {
    pub(super) caller: Caller,
    pub(super) ticket: Option<TicketName>,
}

/// One client, as limits see it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Client {
    /// Whoever has a token of this subject.
    Subject(Arc<str>),
    /// Whoever has this address, or with IPv6 one of its /64.
    Address(Option<IpAddr>),
}

impl Caller {
    /// Checks that the events of a run may be read.
    ///
    /// # Errors
    /// 404, whether there is such a run or not; 403 for an admin.
    pub(super) fn may_read(&self, run_id: &RunId) -> Result<(), ApiError> {
        match self.sees(run_id) {
            true => Ok(()),
            false => Err(self.unseen(run_id)),
        }
    }

    /// Checks that a run may be published to.
    ///
    /// # Errors
    /// 403 for a run that may be read, else as [`may_read`](Self::may_read).
    pub(super) fn may_publish(&self, run_id: &RunId) -> Result<(), ApiError> {
        let Some(Identity { rights, .. }) = &self.0 else {
            return Ok(());
        };
        match matches(&rights.publish, run_id) {
            true => Ok(()),
            false if self.sees(run_id) => Err(not_allowed(
                "the token may read this run and not publish to it",
            )),
            false => Err(self.unseen(run_id)),
        }
    }

    /// Checks that events of these kinds may be published.
    ///
    /// # Errors
    /// 403 that names the first kind that may not.
    pub(super) fn may_publish_kinds(
        &self,
        kinds: impl IntoIterator<Item = EventKind>,
    ) -> Result<(), ApiError> {
        let allowed = self.kinds();
        match kinds.into_iter().find(|kind| !allowed.has(*kind)) {
            None => Ok(()),
            Some(kind) => Err(not_allowed(&format!(
                "the token may not publish events of kind {kind}"
            ))),
        }
    }

    /// Checks that a run may be begun anew, which takes all that it has.
    ///
    /// # Errors
    /// 403 unless all kinds may be published.
    pub(super) fn may_restart(&self) -> Result<(), ApiError> {
        match self.kinds().is_all() {
            true => Ok(()),
            false => Err(not_allowed(
                "to begin a run anew takes the events of all kinds, and the token has not all of them",
            )),
        }
    }

    /// Checks that the admin routes may be used.
    ///
    /// # Errors
    /// 403.
    pub(super) fn may_administer(&self) -> Result<(), ApiError> {
        match &self.0 {
            Some(identity) if !identity.rights.admin => Err(not_allowed(
                "this route is for tokens with runcast.admin = true",
            )),
            _ => Ok(()),
        }
    }

    /// Whether a run may be known of.
    pub(super) fn sees(&self, run_id: &RunId) -> bool {
        self.0.as_ref().is_none_or(|Identity { rights, .. }| {
            !rights.kinds.is_empty() && matches(&rights.subscribe, run_id)
        })
    }

    /// Kinds that may be read and published.
    pub(super) fn kinds(&self) -> Kinds {
        let kinds = self.0.as_ref().map(|identity| identity.rights.kinds);
        kinds.unwrap_or_default()
    }

    /// Takes the kinds out of a filter that may not be read.
    ///
    /// # Errors
    /// 403 if none is left.
    pub(super) fn narrow(&self, filter: &mut StreamFilter) -> Result<(), ApiError> {
        let allowed = self.kinds();
        if allowed.is_all() {
            return Ok(());
        }
        if filter.kinds.is_empty() {
            filter.kinds = allowed.into();
        } else {
            filter.kinds.retain(|kind| allowed.has(*kind));
        }
        match filter.kinds.is_empty() {
            true => Err(not_allowed("the token may read none of these kinds")),
            false => Ok(()),
        }
    }

    /// Checks once more that the token counts: a body may take half a minute
    /// to come.
    ///
    /// # Errors
    /// 401.
    pub(super) fn still_counts(&self, state: &HttpState) -> Result<(), ApiError> {
        match (&state.gate, self.bearer()) {
            (Some(gate), Some(bearer)) => gate.check_bearer(bearer, &state.broker),
            _ => Ok(()),
        }
    }

    /// Whom limits of what one client may hold count by: the token's subject,
    /// or else the address.
    pub(super) fn client(&self, state: &HttpState, request: &HttpRequest) -> Client {
        match self.bearer() {
            Some(bearer) => Client::Subject(Arc::clone(&bearer.subject)),
            None => Client::Address(state.addresses.of(request).map(client_network)),
        }
    }

    /// Whose token it is, if there is one.
    pub(super) fn bearer(&self) -> Option<&Bearer> {
        self.0.as_ref().map(|identity| &identity.bearer)
    }

    /// What is said of a run that may not be seen: only whom it is no news to
    /// is told that it is forbidden.
    fn unseen(&self, run_id: &RunId) -> ApiError {
        let is_admin = self.0.as_ref().is_some_and(|it| it.rights.admin);
        if is_admin {
            let detail = format!("the token has no right to run {run_id}");
            return Problem::new(403, "run-forbidden", "Run forbidden", detail).into();
        }
        let detail = format!("there is no run {run_id}, or the token has no right to it");
        Problem::new(404, "run-not-found", "Run not found", detail).into()
    }
}

fn matches(patterns: &[RunPattern], run_id: &RunId) -> bool {
    patterns.iter().any(|pattern| pattern.matches(run_id))
}

/// 403 for what the token's rights do not hold.
pub(super) fn not_allowed(detail: &str) -> ApiError {
    Problem::new(403, "not-allowed", "Not allowed", detail).into()
}

impl FromRequest for Caller {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let admitted = admitted(request, |credential| match credential {
            Credential::Ticket(_) => Err(not_allowed(
                "a ticket opens a stream and nothing else: send Authorization: Bearer <token>",
            )),
            Credential::Token(_) => Ok(()),
        });
        Box::pin(async { admitted.await.map(|(caller, _)| caller) })
    }
}

impl FromRequest for Follower {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let admitted = admitted(request, |_| Ok(()));
        Box::pin(async {
            let (caller, ticket) = admitted.await?;
            Ok(Self { caller, ticket })
        })
    }
}

fn admitted(
    request: &HttpRequest,
    takes: fn(&Credential) -> Result<(), ApiError>,
) -> LocalBoxFuture<'static, Result<(Caller, Option<TicketName>), ApiError>> {
    let state = request.app_data::<Data<HttpState>>();
    let state = state.expect("every route has the state").clone();
    let Some(gate) = &state.gate else {
        return Box::pin(async { Ok((Caller(None), None)) });
    };
    let found = credential_of(request, gate, &state.settings.allowed_origins)
        .and_then(|found| found.ok_or_else(|| gate.missing()))
        .and_then(|credential| takes(&credential).map(|()| credential));
    Box::pin(async move {
        let gate = state.gate.as_ref().expect("just seen");
        let (identity, ticket) = gate.admit(found?, &state.broker).await?;
        Ok((Caller(Some(identity)), ticket))
    })
}
