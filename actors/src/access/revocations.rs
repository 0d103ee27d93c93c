//! [`Revocations`]: which subjects and tokens are revoked, as this broker
//! knows it.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use super::{AccessSettings, Bearer, since_epoch};

/// What is revoked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RevokedName {
    /// All tokens of a subject that were issued until then.
    Subject(String),
    /// One token, by its `jti`.
    Token(String),
}

/// A subject or a token that counts no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// What.
    pub name: RevokedName,
    /// When, in seconds since the Unix epoch.
    pub at: u64,
}

impl Revocation {
    /// Revokes something from now on.
    pub fn now(name: RevokedName) -> Self {
        let at = since_epoch().as_secs();
        Self { name, at }
    }

    /// The text it is kept under: `sub:alice`, `jti:7f1c`.
    pub(crate) fn member(&self) -> String {
        match &self.name {
            RevokedName::Subject(subject) => format!("sub:{subject}"),
            RevokedName::Token(id) => format!("jti:{id}"),
        }
    }

    /// Reads what [`member`](Self::member) wrote.
    pub(crate) fn of_member(member: &str, at: u64) -> Option<Self> {
        let name = match member.split_once(':')? {
            ("sub", subject) => RevokedName::Subject(subject.to_owned()),
            ("jti", id) => RevokedName::Token(id.to_owned()),
            _ => return None,
        };
        Some(Self { name, at })
    }
}

/// The revocations that this broker knows. Bounded by `max_revocations`; past
/// it the oldest go.
#[derive(Debug)]
pub(crate) struct Revocations {
    settings: AccessSettings,
    known: RwLock<Known>,
}

/// When each name was revoked.
#[derive(Debug, Default)]
pub(crate) struct Known {
    subjects: HashMap<String, u64>,
    tokens: HashMap<String, u64>,
    leeway: Duration,
}

impl Known {
    /// Whether a token of `bearer` counts no more. A subject's tokens do not if
    /// they were issued until the revocation, by a clock that may be ahead by
    /// the leeway, or do not say when.
    pub(crate) fn has(&self, bearer: &Bearer) -> bool {
        let token_id = bearer.token_id.as_deref();
        if token_id.is_some_and(|id| self.tokens.contains_key(id)) {
            return true;
        }
        self.subjects.get(&*bearer.subject).is_some_and(|at| {
            let until = at.saturating_add(self.leeway.as_secs());
            bearer.issued_at.is_none_or(|issued| issued <= until)
        })
    }

    /// Whether this very name is revoked.
    pub(super) fn names(&self, name: &RevokedName) -> bool {
        match name {
            RevokedName::Subject(subject) => self.subjects.contains_key(subject),
            RevokedName::Token(id) => self.tokens.contains_key(id),
        }
    }

    /// Returns all of them.
    pub(super) fn all(&self) -> Vec<Revocation> {
        let subjects = self.subjects.iter().map(|(name, at)| Revocation {
            name: RevokedName::Subject(name.clone()),
            at: *at,
        });
        let tokens = self.tokens.iter().map(|(name, at)| Revocation {
            name: RevokedName::Token(name.clone()),
            at: *at,
        });
        subjects.chain(tokens).collect()
    }

    fn len(&self) -> usize {
        self.subjects.len() + self.tokens.len()
    }

    /// Adds one; says whether it is news.
    fn add(&mut self, revocation: Revocation) -> bool {
        let (map, name) = match revocation.name {
            RevokedName::Subject(subject) => (&mut self.subjects, subject),
            RevokedName::Token(id) => (&mut self.tokens, id),
        };
        let known = map.entry(name).or_default();
        let is_news = *known < revocation.at;
        *known = revocation.at.max(*known);
        is_news
    }

    fn forget_before(&mut self, oldest: u64) {
        self.subjects.retain(|_, at| *at >= oldest);
        self.tokens.retain(|_, at| *at >= oldest);
    }

    /// Keeps the `max` newest.
    fn keep_newest(&mut self, max: usize) {
        if self.len() <= max {
            return;
        }
        let times = self.subjects.values().chain(self.tokens.values());
        let mut times: Vec<u64> = times.copied().collect();
        times.sort_unstable();
        let oldest = times[times.len() - max];
        // Of those of the oldest second, as many as fit.
        let newer = times.iter().filter(|at| **at > oldest).count();
        let mut room = max - newer;
        let mut stays = |at: u64| {
            let fits = at > oldest || at == oldest && room > 0;
            room -= usize::from(fits && at == oldest);
            fits
        };
        self.subjects.retain(|_, at| stays(*at));
        self.tokens.retain(|_, at| stays(*at));
    }
}

impl Revocations {
    pub(crate) fn new(settings: AccessSettings) -> Self {
        let known = RwLock::new(Known {
            leeway: settings.leeway,
            ..Known::default()
        });
        Self { settings, known }
    }

    /// Returns what is known, for as long as the guard is held.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn len(&self) -> usize {
        self.read().len()
    }

    /// Adds what was learned to what is known: a store that forgot some takes
    /// nothing back. Says whether anything is new.
    pub(crate) fn learn(&self, revocations: Vec<Revocation>) -> bool {
        let now = since_epoch().as_secs();
        let ttl = self.settings.revocation_ttl.as_secs();
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let mut is_news = false;
        for revocation in revocations {
            is_news |= known.add(revocation);
        }
        known.forget_before(now.saturating_sub(ttl));
        known.keep_newest(self.settings.max_revocations);
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(subject: &str, id: Option<&str>, issued_at: Option<u64>) -> Bearer {
        Bearer {
            subject: subject.into(),
            token_id: id.map(Into::into),
            issued_at,
            expires_at: u64::MAX,
        }
    }

    fn subject(name: &str, at: u64) -> Revocation {
        let name = RevokedName::Subject(name.to_owned());
        Revocation { name, at }
    }

    fn token(id: &str, at: u64) -> Revocation {
        let name = RevokedName::Token(id.to_owned());
        Revocation { name, at }
    }

    fn revocations(max_revocations: usize) -> Revocations {
        Revocations::new(AccessSettings {
            max_revocations,
            leeway: Duration::from_secs(30),
            ..AccessSettings::default()
        })
    }

    #[test]
    fn a_subject_is_revoked_up_to_a_time_and_a_token_for_good() {
        let now = since_epoch().as_secs();
        let all = revocations(10);
        assert!(all.learn(vec![subject("alice", now), token("t1", now)]));
        for (bearer, revoked) in [
            (bearer("alice", None, Some(now - 60)), true),
            (bearer("alice", None, Some(now + 30)), true),
            (bearer("alice", None, Some(now + 31)), false),
            (bearer("alice", None, None), true),
            (bearer("bob", None, None), false),
            (bearer("bob", Some("t1"), Some(now + 60)), true),
            (bearer("bob", Some("t2"), Some(now - 60)), false),
            // The name of a token is no name of a subject.
            (bearer("t1", Some("alice"), None), false),
        ] {
            assert_eq!(all.read().has(&bearer), revoked, "{bearer:?}");
        }
    }

    #[test]
    fn what_is_known_is_no_news_and_is_not_taken_back() {
        let now = since_epoch().as_secs();
        let all = revocations(10);
        assert!(all.learn(vec![subject("alice", now)]));
        assert!(!all.learn(vec![subject("alice", now - 5)]));
        assert!(!all.learn(Vec::new()));
        assert!(all.learn(vec![subject("alice", now + 1)]));
        assert!(all.read().has(&bearer("alice", None, Some(now))));
    }

    #[test]
    fn no_more_are_kept_than_may_be_and_none_for_ever() {
        let now = since_epoch().as_secs();
        let all = revocations(3);
        let ids = ["a", "b", "c", "d", "e"].iter().zip(now - 4..);
        all.learn(ids.map(|(id, at)| token(id, at)).collect());
        assert_eq!(all.len(), 3);
        assert!(!all.read().has(&bearer("x", Some("a"), None)));
        assert!(all.read().has(&bearer("x", Some("e"), None)));
        all.learn(["f", "g", "h", "i"].map(|id| token(id, now)).to_vec());
        assert_eq!(all.len(), 3, "of one second, too");
        all.learn(vec![subject("old", now - 24 * 3600 - 1)]);
        assert!(!all.read().has(&bearer("old", None, None)));
    }

    #[test]
    fn a_member_is_read_as_it_was_written() {
        for revocation in [subject("a:b sub:c", 7), token("", 0), token("jti:x", 9)] {
            let member = revocation.member();
            let read = Revocation::of_member(&member, revocation.at);
            assert_eq!(read, Some(revocation), "{member}");
        }
        for member in ["", "alice", "other:x"] {
            assert_eq!(Revocation::of_member(member, 1), None, "{member}");
        }
    }
}
