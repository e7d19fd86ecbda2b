//! How much one address or one token may take: places at a time, and new agents in a minute. Who takes more stands back; nobody else does.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::admission::Recent;
use super::links::lock;
use crate::time::Timestamp;

/// The part of an address that one customer of a network usually has to himself: all of IPv4, the first 64 bits of IPv6.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (!0 << 64)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Who takes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Origin {
    /// Whoever connects from this network.
    Address(IpAddr),
    /// Whoever shows a token of this holder.
    Token([u8; 32]),
    /// Those of them who connect from this network.
    TokenAt([u8; 32], IpAddr),
}

impl Origin {
    pub(super) fn of(address: IpAddr) -> Self {
        Self::Address(network(address))
    }

    /// The part of an origin that is at this address: one token may be on every machine of a fleet, and one of them may be a thief's.
    pub(super) fn at(self, address: Option<IpAddr>) -> Self {
        match (self, address) {
            (Self::Token(holder), Some(address)) => Self::TokenAt(holder, network(address)),
            (whole @ (Self::Address(_) | Self::Token(_) | Self::TokenAt(..)), _) => whole,
        }
    }
}

/// Those who take something: all who count as one, and the part of them that asks. Both are the same where there are no parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origins {
    pub(super) whole: Origin,
    pub(super) part: Origin,
}

/// Places: so many at a time, and so many of them for each.
#[derive(Debug)]
pub(super) struct Quota {
    all: usize,
    of_each: Option<u32>,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    of_each: HashMap<Origin, u32>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// As many are taken as there are.
    OfAll,
    /// As many are taken as one origin may have.
    OfOrigin,
}

impl Quota {
    /// `all` places at a time, and of them at most `of_each` for each; `None`: as many as there are.
    pub(super) fn new(all: usize, of_each: Option<u32>) -> Arc<Self> {
        Arc::new(Self { all, of_each, taken: Mutex::default() })
    }

    /// One more, until the place is dropped.
    ///
    /// # Errors
    /// When there is none left.
    pub(super) fn take(self: &Arc<Self>, origin: Origin) -> Result<Place, NoPlace> {
        let mut taken = lock(&self.taken);
        let Taken { all, of_each } = &mut *taken;
        let count = of_each.get(&origin).copied().unwrap_or_default();
        if self.of_each.is_some_and(|most| count >= most) {
            return Err(NoPlace::OfOrigin);
        }
        if *all >= self.all {
            return Err(NoPlace::OfAll);
        }
        *all += 1;
        of_each.insert(origin, count + 1);
        Ok(Place { quota: Arc::clone(self), origin })
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
        taken.all = taken.all.saturating_sub(1);
        if let Some(count) = taken.of_each.get_mut(&self.origin) {
            *count -= 1;
            if *count == 0 {
                taken.of_each.remove(&self.origin);
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
#[derive(Debug)]
struct Remembered {
    /// Thousandths of one that are left, and when.
    left: HashMap<Origin, (u64, Timestamp)>,
    /// When those were forgotten last whose allowance was whole again.
    swept: Timestamp,
    /// What parts of them took.
    parts: Recent,
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
        let parts = Recent::within(Duration::from_secs(60));
        let state = Remembered { left: HashMap::new(), swept: Timestamp::default(), parts };
        Self { a_minute: a_minute.map(|number| u64::from(number.max(1))), state: Mutex::new(state) }
    }

    /// True when one more may come now; it is counted then. A part of an origin gets no more than its share of what that has left.
    pub(super) fn admits(&self, Origins { whole: origin, part }: Origins, now: Timestamp) -> bool {
        let Some(a_minute) = self.a_minute else { return true };
        let mut state = lock(&self.state);
        let whole = a_minute * ONE;
        let refilled = |left| refilled(left, a_minute, now);
        if state.left.len() >= MOST_REMEMBERED && now.since(state.swept) >= SWEEP_PAUSE {
            state.swept = now;
            state.left.retain(|_, left| refilled(*left) < whole);
        }
        let known = state.left.get(&origin).copied();
        if known.is_none() && state.left.len() >= MOST_REMEMBERED {
            return false;
        }
        let have = known.map_or(whole, refilled);
        if have < ONE || (part != origin && !state.parts.admits(have as f64 / ONE as f64, &[part], now)) {
            return false;
        }
        // A clock that goes back gives nothing twice.
        let at = known.map_or(now, |(_, at)| at.max(now));
        state.left.insert(origin, (have - ONE, at));
        true
    }

    /// True while nothing more may come of this origin. Nothing is counted.
    pub(super) fn is_used_up(&self, origin: Origin, now: Timestamp) -> bool {
        let Some(a_minute) = self.a_minute else { return false };
        let state = lock(&self.state);
        let known = state.left.get(&origin);
        known.is_some_and(|left| refilled(*left, a_minute, now) < ONE)
    }
}

/// What is left of so many a minute by now.
fn refilled((before, at): (u64, Timestamp), a_minute: u64, now: Timestamp) -> u64 {
    let elapsed = u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX);
    // Thousandths a millisecond: so many a minute, times a thousand, through 60,000.
    before.saturating_add(a_minute.saturating_mul(elapsed) / 60).min(a_minute * ONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Origin {
        Origin::of(text.parse().expect("an address"))
    }

    fn alone(origin: Origin) -> Origins {
        Origins { whole: origin, part: origin }
    }

    #[test]
    fn places_are_counted_for_each_and_given_back() {
        let quota = Quota::new(4, Some(2));
        let (one, other) = (address("192.0.2.1"), address("192.0.2.2"));
        let first = quota.take(one).expect("a place");
        let _second = quota.take(one).expect("a place");
        assert_eq!(quota.take(one).err(), Some(NoPlace::OfOrigin), "it has its two");
        let others = [quota.take(other).expect("a place"), quota.take(address("192.0.2.3")).expect("a place")];
        assert_eq!(quota.take(address("192.0.2.4")).err(), Some(NoPlace::OfAll), "all are taken");
        drop(first);
        assert!(quota.take(address("192.0.2.4")).is_ok());
        drop(others);
        assert_eq!(lock(&quota.taken).of_each.len(), 1, "nobody is remembered for ever");
        let open = Quota::new(100, None);
        assert_eq!((0..200).filter_map(|_| open.take(one).ok()).collect::<Vec<_>>().len(), 100);
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff"), "one network");
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_eq!(address("::ffff:192.0.2.1"), one);
    }

    #[test]
    fn an_allowance_comes_back_within_a_minute() {
        let at = |seconds: u64| Timestamp::from_millis(1_000_000 + seconds * 1_000);
        let allowance = Allowance::new(Some(60));
        let (one, other) = (alone(Origin::Token([1; 32])), alone(Origin::Token([2; 32])));
        let count = |origin, now| (0..1_000).filter(|_| allowance.admits(origin, now)).count();
        assert!(!allowance.is_used_up(one.whole, at(0)), "nobody has asked yet");
        assert_eq!(count(one, at(0)), 60);
        let used_up = |origin: Origins, now| allowance.is_used_up(origin.whole, now);
        assert_eq!((used_up(one, at(0)), used_up(one, at(1)), used_up(other, at(0))), (true, false, false));
        assert_eq!(count(other, at(0)), 60, "another one has its own");
        assert_eq!((count(one, at(1)), count(one, at(0)), count(one, at(11))), (1, 0, 10));
        assert_eq!(count(one, at(3_600)), 60, "never more than that");
        assert_eq!((0..1_000).filter(|_| Allowance::new(None).admits(one, at(0))).count(), 1_000);
        assert!(!Allowance::new(None).is_used_up(one.whole, at(0)));
    }

    #[test]
    fn one_machine_with_a_token_leaves_some_to_the_others_with_it() {
        let at = |seconds: u64| Timestamp::from_millis(1_000_000 + seconds * 1_000);
        let allowance = Allowance::new(Some(60));
        let whole = Origin::Token([1; 32]);
        let from = |last| Origins { whole, part: whole.at(Some([192, 0, 2, last].into())) };
        let count = |last, now| (0..1_000).filter(|_| allowance.admits(from(last), now)).count();
        assert_eq!((count(1, at(0)), count(1, at(0))), (45, 0), "three quarters");
        assert_eq!(count(2, at(0)), 12, "of what is left");
        assert!(count(3, at(0)) > 0);
        assert_eq!(count(1, at(1)), 0, "it took much lately");
        assert!(count(4, at(1)) > 0);
    }

    #[test]
    fn a_crowd_of_origins_is_bounded_and_those_who_are_known_go_on() {
        let at = |seconds: u64| Timestamp::from_millis(1_000_000 + seconds * 1_000);
        let allowance = Allowance::new(Some(60));
        let origin = |number: usize| alone(Origin::of(Ipv6Addr::from_bits((number as u128) << 64).into()));
        assert!((0..MOST_REMEMBERED).all(|number| allowance.admits(origin(number), at(0))));
        assert!(!allowance.admits(origin(MOST_REMEMBERED), at(0)), "there is no room to remember it");
        assert!(allowance.admits(origin(7), at(0)), "who is known has what is left");
        assert!(allowance.admits(origin(MOST_REMEMBERED), at(2)), "the others are whole again, and forgotten");
        assert!(lock(&allowance.state).left.len() < 10);
    }
}
