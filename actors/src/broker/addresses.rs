//! [`StreamsPerAddress`]: how many streams each client address has open.

use std::net::IpAddr;
use std::sync::Arc;

use dashmap::DashMap;

/// Counts open streams per client address against a limit. Holds an entry for
/// each address with open streams, so it is bounded by `limits.max_streams`.
#[derive(Debug)]
pub(crate) struct StreamsPerAddress {
    open: DashMap<IpAddr, usize>,
    /// 0: no limit, and nothing is counted.
    max: usize,
}

impl StreamsPerAddress {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            open: DashMap::new(),
            max,
        })
    }

    /// Takes a place for a stream of `address`; `None` if all are taken.
    pub(crate) fn take(self: &Arc<Self>, address: Option<IpAddr>) -> Option<AddressPlace> {
        let counted = address.filter(|_| self.max > 0);
        if let Some(address) = counted {
            let mut open = self.open.entry(address).or_default();
            if *open >= self.max {
                return None;
            }
            *open += 1;
        }
        Some(AddressPlace {
            address: counted,
            of: Arc::clone(self),
        })
    }
}

/// A place of one stream, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct AddressPlace {
    address: Option<IpAddr>,
    of: Arc<StreamsPerAddress>,
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        if let Some(address) = self.address {
            self.of.open.remove_if_mut(&address, |_, open| {
                *open -= 1;
                *open == 0
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(last: u8) -> Option<IpAddr> {
        Some(Ipv4Addr::new(127, 0, 0, last).into())
    }

    #[test]
    fn each_address_has_its_own_places_and_gives_them_back() {
        let streams = StreamsPerAddress::new(2);
        let first = streams.take(address(1));
        let _second = streams.take(address(1)).expect("free");
        assert!(streams.take(address(1)).is_none());
        assert!(streams.take(address(2)).is_some());
        drop(first);
        assert!(streams.take(address(1)).is_some());
        assert_eq!(streams.open.len(), 1, "address 2 is forgotten");
    }

    #[test]
    fn no_limit_counts_nothing() {
        let streams = StreamsPerAddress::new(0);
        let _places: Vec<_> = (0..10).map(|_| streams.take(address(1))).collect();
        assert!(streams.open.is_empty());
    }
}
