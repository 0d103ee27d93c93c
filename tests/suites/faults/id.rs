//! Ids as the wire contract spells them, read apart from the code under test.

use std::fmt;

/// The id of a durable event. Sorts by epoch, then by sequence.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Durable {
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
    pub(crate) us: u64,
}

impl fmt::Debug for Durable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.epoch, self.seq, self.us)
    }
}

/// The id of any event of the redis backend.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Id {
    Durable(Durable),
    Plain {
        hub: u64,
        n: u64,
        durable: Option<Durable>,
    },
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Durable(id) => write!(f, "{id:?}"),
            Self::Plain { hub, n, durable } => write!(f, "~{hub:x}-{n}~{durable:?}"),
        }
    }
}

impl Durable {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-').map(str::parse);
        let id = Self {
            epoch: parts.next()?.ok()?,
            seq: parts.next()?.ok()?,
            us: parts.next()?.ok()?,
        };
        parts.next().is_none().then_some(id)
    }
}

impl Id {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let Some(rest) = text.strip_prefix('~') else {
            return Durable::parse(text).map(Self::Durable);
        };
        let (plain, durable) = match rest.split_once('~') {
            Some((plain, durable)) => (plain, Some(Durable::parse(durable)?)),
            None => (rest, None),
        };
        let (hub, n) = plain.split_once('-')?;
        Some(Self::Plain {
            hub: u64::from_str_radix(hub, 16).ok()?,
            n: n.parse().ok()?,
            durable,
        })
    }

    /// Returns the last durable event at or before this one.
    pub(crate) fn durable(self) -> Option<Durable> {
        match self {
            Self::Durable(id) => Some(id),
            Self::Plain { durable, .. } => durable,
        }
    }
}
