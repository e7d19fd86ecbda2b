//! Places for connections: so many in all, and so many of one address, so that one address does not take them all.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use crate::serve::links::lock;

/// The part of an address that one customer of a network usually has to himself: all of IPv4, the first 64 bits of IPv6.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
    }
}

/// The places of one listener.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    most_of_one: usize,
    taken: Mutex<(usize, BTreeMap<IpAddr, usize>)>,
}

impl Places {
    pub(super) fn new(most: usize, most_of_one: usize) -> Self {
        Self { most, most_of_one, taken: Mutex::default() }
    }

    /// A place for somebody from this network, until it is dropped.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn take(self: &Arc<Self>, network: IpAddr) -> Result<Place, NoPlace> {
        let mut taken = lock(&self.taken);
        let (all, of_each) = &mut *taken;
        let of_one = of_each.get(&network).copied().unwrap_or_default();
        if of_one >= self.most_of_one {
            return Err(NoPlace::OfAddress);
        }
        if *all >= self.most {
            return Err(NoPlace::OfAll);
        }
        *all += 1;
        of_each.insert(network, of_one + 1);
        Ok(Place { places: Arc::clone(self), network })
    }
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// As many are taken as there are.
    OfAll,
    /// As many are taken as one network may have.
    OfAddress,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    network: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.places.taken);
        let (all, of_each) = &mut *taken;
        *all = all.saturating_sub(1);
        match of_each.get_mut(&self.network) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => drop(of_each.remove(&self.network)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_network_does_not_take_all_places() {
        let ip = |text: &str| network(text.parse().expect("an address"));
        assert_eq!(ip("2001:db8::1"), ip("2001:db8::ffff:1"));
        assert_ne!(ip("2001:db8::1"), ip("2001:db8:0:1::1"));
        assert_eq!(ip("::ffff:192.0.2.1"), ip("192.0.2.1"));
        let places = Arc::new(Places::new(4, 2));
        let first = places.take(ip("192.0.2.1")).expect("a place");
        let _second = places.take(ip("192.0.2.1")).expect("a place");
        assert_eq!(places.take(ip("192.0.2.1")).err(), Some(NoPlace::OfAddress), "it has its two");
        let _others = [places.take(ip("192.0.2.2")).expect("a place"), places.take(ip("192.0.2.3")).expect("a place")];
        assert_eq!(places.take(ip("192.0.2.4")).err(), Some(NoPlace::OfAll), "all are taken");
        drop(first);
        assert!(places.take(ip("192.0.2.4")).is_ok());
        assert_eq!(lock(&places.taken).1.len(), 3, "who has none is forgotten");
    }
}
