//! [`Places`]: how many streams there are of each address, of each subject and
//! of each run.

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use dashmap::DashMap;

use crate::protocol::{BackendKind, RunId};

/// The part of an IPv6 address that one client has to itself: whoever has a
/// /64 has all of its addresses.
const V6_NETWORK: u128 = !0 << 64;

/// Counts streams by a key against a limit. Holds an entry for each key with
/// open streams, so it is bounded by `limits.max_streams`.
#[derive(Debug)]
pub(crate) struct Places<K: Hash + Eq> {
    open: DashMap<K, usize>,
}

/// A place of one stream, given back when it is dropped; nothing where there
/// is no limit.
#[derive(Debug)]
pub(crate) struct Place<K: Hash + Eq> {
    _taken: Option<Box<Taken<K>>>,
}

#[derive(Debug)]
struct Taken<K: Hash + Eq> {
    key: K,
    of: Arc<Places<K>>,
}

/// The places that a stream takes.
#[derive(Debug)]
pub(crate) struct StreamPlaces {
    /// Of its client's address.
    pub(crate) _address: Place<IpAddr>,
    /// Of its token's subject.
    pub(crate) _subject: Place<Arc<str>>,
    /// Of its run.
    pub(crate) _run: Place<(BackendKind, RunId)>,
}

impl<K: Hash + Eq> Default for Places<K> {
    fn default() -> Self {
        Self {
            open: DashMap::new(),
        }
    }
}

impl<K: Hash + Eq + Clone> Places<K> {
    /// Takes a place of `max` for a stream with this key; `None` if all are
    /// taken. With 0 there is no limit, and the stream is not counted, not even
    /// when there is one later.
    pub(crate) fn take(
        self: &Arc<Self>,
        max: usize,
        key: impl FnOnce() -> Option<K>,
    ) -> Option<Place<K>> {
        if max == 0 {
            return Some(Place { _taken: None });
        }
        let Some(key) = key() else {
            return Some(Place { _taken: None });
        };
        let mut open = self.open.entry(key.clone()).or_default();
        if *open >= max {
            return None;
        }
        *open += 1;
        drop(open);
        let of = Arc::clone(self);
        let taken = Box::new(Taken { key, of });
        Some(Place {
            _taken: Some(taken),
        })
    }
}

impl<K: Hash + Eq> Drop for Taken<K> {
    fn drop(&mut self) {
        self.of.open.remove_if_mut(&self.key, |_, open| {
            *open -= 1;
            *open == 0
        });
    }
}

/// Returns what limits per client address count by: the address, or with IPv6
/// its /64.
pub fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & V6_NETWORK).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_own_places_and_gives_them_back() {
        let streams: Arc<Places<u32>> = Arc::default();
        let first = streams.take(2, || Some(1));
        let _second = streams.take(2, || Some(1)).expect("free");
        assert!(streams.take(2, || Some(1)).is_none());
        assert!(streams.take(2, || Some(2)).is_some());
        drop(first);
        assert!(streams.take(2, || Some(1)).is_some());
        assert_eq!(streams.open.len(), 1, "key 2 is forgotten");
    }

    #[test]
    fn no_limit_counts_nothing() {
        let streams: Arc<Places<u32>> = Arc::default();
        let _places: Vec<_> = (0..10).map(|_| streams.take(0, || Some(1))).collect();
        assert!(streams.open.is_empty());
    }

    #[test]
    fn a_client_with_ipv6_has_a_network_of_its_own() {
        for (address, network) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:2::", "2001:db8:1:2::"),
        ] {
            let address: IpAddr = address.parse().expect("an address");
            assert_eq!(client_network(address).to_string(), network);
        }
    }
}
