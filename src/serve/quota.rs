//! How much one address or one token may take: connections at a time, and new agents in a minute. Who takes more stands back; nobody else does.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::links::lock;
use crate::time::Timestamp;

/// Who takes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Origin {
    /// Whoever connects from there. Of IPv6 addresses the first half counts: whoever has one has all of the rest.
    Address(IpAddr),
    /// Whoever shows this token, by its hash or by that of the key that signed it.
    Token([u8; 32]),
}

impl Origin {
    pub(super) fn of(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (!0 << 64)).into(),
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

/// So many at a time for each.
#[derive(Debug)]
pub(super) struct Quota {
    most: Option<u32>,
    taken: Mutex<HashMap<Origin, u32>>,
}

impl Quota {
    /// At most `most` at a time for each; `None`: as many as come.
    pub(super) fn new(most: Option<u32>) -> Arc<Self> {
        Arc::new(Self { most, taken: Mutex::default() })
    }

    /// One more, until the place is dropped; `None`: there is none left.
    pub(super) fn take(self: &Arc<Self>, origin: Origin) -> Option<Place> {
        let mut taken = lock(&self.taken);
        let count = taken.entry(origin).or_default();
        // An entry that was just made has room.
        if self.most.is_some_and(|most| *count >= most) {
            return None;
        }
        *count += 1;
        Some(Place { quota: Arc::clone(self), origin })
    }
}

/// One of those that a quota counts.
#[derive(Debug)]
pub(super) struct Place {
    quota: Arc<Quota>,
    origin: Origin,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.quota.taken);
        if let Some(count) = taken.get_mut(&self.origin) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.origin);
            }
        }
    }
}

/// So many in a minute for each, and as many at once.
#[derive(Debug)]
pub(super) struct Allowance {
    a_minute: Option<u64>,
    state: Mutex<Remembered>,
}

/// What is left to whom.
#[derive(Debug, Default)]
struct Remembered {
    /// Thousandths of one that are left, and when.
    left: HashMap<Origin, (u64, Timestamp)>,
    /// When those were forgotten last whose allowance was whole again.
    swept: Timestamp,
}

/// Thousandths that one takes.
const ONE: u64 = 1_000;

/// Origins that are remembered. While more take something, others that come for the first time get nothing.
const MOST_REMEMBERED: usize = 65_536;

/// Between two looks for those whose allowance is whole again, because each costs a look at everybody.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

impl Allowance {
    /// At most so many in a minute; `None`: as many as come.
    pub(super) fn new(a_minute: Option<u32>) -> Self {
        Self { a_minute: a_minute.map(|number| u64::from(number.max(1))), state: Mutex::default() }
    }

    /// True when one more may come now; it is counted then.
    pub(super) fn admits(&self, origin: Origin, now: Timestamp) -> bool {
        let Some(a_minute) = self.a_minute else { return true };
        let mut state = lock(&self.state);
        let whole = a_minute * ONE;
        let refilled = |(before, at): (u64, Timestamp)| {
            let elapsed = u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX);
            // Thousandths a millisecond: so many a minute, times a thousand, through 60,000.
            before.saturating_add(a_minute.saturating_mul(elapsed) / 60).min(whole)
        };
        if state.left.len() >= MOST_REMEMBERED && now.since(state.swept) >= SWEEP_PAUSE {
            state.swept = now;
            state.left.retain(|_, left| refilled(*left) < whole);
        }
        let known = state.left.get(&origin).copied();
        if known.is_none() && state.left.len() >= MOST_REMEMBERED {
            return false;
        }
        let have = known.map_or(whole, refilled);
        if have < ONE {
            return false;
        }
        // A clock that goes back gives nothing twice.
        let at = known.map_or(now, |(_, at)| at.max(now));
        state.left.insert(origin, (have - ONE, at));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Origin {
        Origin::of(text.parse().expect("an address"))
    }

    #[test]
    fn places_are_counted_for_each_and_given_back() {
        let quota = Quota::new(Some(2));
        let (one, other) = (address("192.0.2.1"), address("192.0.2.2"));
        let places = [quota.take(one), quota.take(one), quota.take(other)];
        assert!(places.iter().all(Option::is_some) && quota.take(one).is_none());
        drop(places);
        assert!(lock(&quota.taken).is_empty(), "nobody is remembered for ever");
        let open = Quota::new(None);
        assert_eq!((0..100).filter_map(|_| open.take(one)).count(), 100);
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff"), "one network");
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_eq!(address("::ffff:192.0.2.1"), one);
    }

    #[test]
    fn an_allowance_comes_back_within_a_minute() {
        let at = |seconds: u64| Timestamp::from_millis(1_000_000 + seconds * 1_000);
        let allowance = Allowance::new(Some(60));
        let (one, other) = (Origin::Token([1; 32]), Origin::Token([2; 32]));
        let count = |origin, now| (0..1_000).filter(|_| allowance.admits(origin, now)).count();
        assert_eq!(count(one, at(0)), 60);
        assert_eq!(count(other, at(0)), 60, "another one has its own");
        assert_eq!((count(one, at(1)), count(one, at(0)), count(one, at(11))), (1, 0, 10));
        assert_eq!(count(one, at(3_600)), 60, "never more than that");
        assert_eq!((0..1_000).filter(|_| Allowance::new(None).admits(one, at(0))).count(), 1_000);
    }

    #[test]
    fn a_crowd_of_origins_is_bounded_and_those_who_are_known_go_on() {
        let at = |seconds: u64| Timestamp::from_millis(1_000_000 + seconds * 1_000);
        let allowance = Allowance::new(Some(60));
        let origin = |number: usize| Origin::of(Ipv6Addr::from_bits((number as u128) << 64).into());
        assert!((0..MOST_REMEMBERED).all(|number| allowance.admits(origin(number), at(0))));
        assert!(!allowance.admits(origin(MOST_REMEMBERED), at(0)), "there is no room to remember it");
        assert!(allowance.admits(origin(7), at(0)), "who is known has what is left");
        assert!(allowance.admits(origin(MOST_REMEMBERED), at(2)), "the others are whole again, and forgotten");
        assert!(lock(&allowance.state).left.len() < 10);
    }
}
