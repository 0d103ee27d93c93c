//! [`MemoryAccess`]: tickets and revocations of a broker that has no Redis.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::ready;

use super::{AccessSettings, AccessStore, Revocation, Revocations};
use crate::store::StoreFuture;

/// Keeps tickets in this process's memory; who issues them bounds their number
/// (`auth.max_tickets`). Revocations are those that the broker knows anyway:
/// only their number is looked at here.
#[derive(Debug)]
pub(crate) struct MemoryAccess {
    tickets: Mutex<HashMap<String, (Instant, String)>>,
    revocations: Revocations,
    max_revocations: usize,
}

impl MemoryAccess {
    pub(crate) fn new(settings: &AccessSettings) -> Self {
        Self {
            tickets: Mutex::default(),
            revocations: Revocations::new(settings.clone()),
            max_revocations: settings.max_revocations,
        }
    }

    fn tickets(&self) -> MutexGuard<'_, HashMap<String, (Instant, String)>> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, name: &str, ticket: String, ttl: Duration) {
        let now = Instant::now();
        let mut tickets = self.tickets();
        tickets.retain(|_, (ends, _)| *ends > now);
        tickets.insert(name.to_owned(), (now + ttl, ticket));
    }

    fn look_at(&self, name: &str) -> Option<String> {
        let tickets = self.tickets();
        let (ends, ticket) = tickets.get(name)?;
        (*ends > Instant::now()).then(|| ticket.clone())
    }

    fn take(&self, name: &str) -> Option<String> {
        let (ends, ticket) = self.tickets().remove(name)?;
        (ends > Instant::now()).then_some(ticket)
    }
}

impl AccessStore for MemoryAccess {
    fn put_ticket<'a>(
        &'a self,
        name: &'a str,
        ticket: String,
        ttl: Duration,
    ) -> StoreFuture<'a, ()> {
        self.put(name, ticket, ttl);
        Box::pin(ready(Ok(())))
    }

    fn look_at_ticket<'a>(&'a self, name: &'a str) -> StoreFuture<'a, Option<String>> {
        Box::pin(ready(Ok(self.look_at(name))))
    }

    fn take_ticket<'a>(&'a self, name: &'a str) -> StoreFuture<'a, Option<String>> {
        Box::pin(ready(Ok(self.take(name))))
    }

    fn revoke<'a>(&'a self, revocation: &'a Revocation) -> StoreFuture<'a, bool> {
        // Forgets what is too old first.
        self.revocations.learn(Vec::new());
        // One that is known already takes no room.
        let has_room = self.revocations.len() < self.max_revocations
            || self.revocations.read().names(&revocation.name);
        if has_room {
            self.revocations.learn(vec![revocation.clone()]);
        }
        Box::pin(ready(Ok(has_room)))
    }

    fn revocations(&self) -> StoreFuture<'_, Vec<Revocation>> {
        Box::pin(ready(Ok(self.revocations.read().all())))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::access::RevokedName;

    #[test]
    fn a_ticket_is_taken_once_and_in_time() {
        let access = MemoryAccess::new(&AccessSettings::default());
        let minute = Duration::from_secs(60);
        access.put("a", "1".to_owned(), minute);
        access.put("b", "2".to_owned(), Duration::ZERO);
        assert_eq!(access.look_at("a").as_deref(), Some("1"));
        assert_eq!(access.look_at("b"), None);
        assert_eq!(access.take("a").as_deref(), Some("1"));
        assert_eq!(access.look_at("a"), None);
        assert_eq!(access.take("a"), None);
        assert_eq!(access.take("b"), None);
        access.put("b", "2".to_owned(), Duration::ZERO);
        access.put("c", "3".to_owned(), minute);
        assert_eq!(access.tickets().len(), 1, "the expired one is forgotten");
    }

    #[test]
    fn past_the_bound_nothing_more_is_revoked() {
        let access = MemoryAccess::new(&AccessSettings {
            max_revocations: 2,
            ..AccessSettings::default()
        });
        let mut taken = Vec::new();
        for id in ["a", "b", "c"] {
            let revocation = Revocation::now(RevokedName::Token(id.to_owned()));
            taken.push(access.revoke(&revocation).now_or_never());
        }
        assert_eq!(taken, [true, true, false].map(|it| Some(Ok(it))));
        assert_eq!(access.revocations.len(), 2);
        // Anew, what is revoked already is.
        for (id, is_taken) in [("a", true), ("c", false)] {
            let revocation = Revocation::now(RevokedName::Token(id.to_owned()));
            let revoked = access.revoke(&revocation).now_or_never();
            assert_eq!(revoked, Some(Ok(is_taken)), "{id}");
        }
    }
}
