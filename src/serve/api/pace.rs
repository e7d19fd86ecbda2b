//! How often somebody may do something: so many at once, and so many more as time passes, for each of a bounded number of keys.

use std::collections::BTreeMap;

use crate::time::Timestamp;

/// Thousandths of one.
const ONE: u64 = 1_000;

/// How often.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// So many at once.
    pub burst: u32,
    /// So many come back,
    pub back: u32,
    /// within so many milliseconds.
    pub within: u64,
}

impl Pace {
    const fn full(self) -> u64 {
        self.burst as u64 * ONE
    }

    /// What there is after so many milliseconds.
    fn refilled(self, left: u64, millis: u64) -> u64 {
        let back = millis.saturating_mul(ONE).saturating_mul(self.back.into()) / self.within.max(1);
        left.saturating_add(back).min(self.full())
    }

    /// Seconds until one more is allowed, at least 1.
    pub(super) fn seconds_for_one(self) -> u64 {
        self.within.div_ceil(u64::from(self.back.max(1)) * 1_000).max(1)
    }
}

/// What each key has left.
#[derive(Debug)]
pub(super) struct Paces<K> {
    pace: Pace,
    most: usize,
    left: BTreeMap<K, (u64, Timestamp)>,
}

impl<K: Ord + Clone> Paces<K> {
    /// Knows `most` keys at a time.
    pub(super) const fn new(pace: Pace, most: usize) -> Self {
        Self { pace, most, left: BTreeMap::new() }
    }

    /// True when this key may once more. While more keys are in use than are known, new ones may not.
    pub(super) fn admits(&mut self, key: &K, now: Timestamp) -> bool {
        let (pace, elapsed) = (self.pace, |at: Timestamp| u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX));
        if !self.left.contains_key(key) && self.left.len() >= self.most {
            self.left.retain(|_, (left, at)| pace.refilled(*left, elapsed(*at)) < pace.full());
            if self.left.len() >= self.most {
                return false;
            }
        }
        let (left, at) = self.left.entry(key.clone()).or_insert((pace.full(), now));
        let have = pace.refilled(*left, elapsed(*at));
        if have < ONE {
            // Nothing is rounded down here: who asks all the time would never have anything back.
            return false;
        }
        (*left, *at) = (have - ONE, (*at).max(now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + millis)
    }

    #[test]
    fn each_key_has_its_own_pace() {
        let mut paces = Paces::new(Pace { burst: 3, back: 1, within: 100 }, 8);
        let mut count = |key: &str, now| (0..10).filter(|_| paces.admits(&key.to_owned(), now)).count();
        assert_eq!(count("a", at(0)), 3, "at once");
        assert_eq!(count("b", at(0)), 3, "another key");
        assert_eq!(count("a", at(99)), 0);
        assert_eq!(count("a", at(200)), 2);
        assert_eq!(count("a", at(150)), 0, "a clock that goes back gives nothing");
        assert_eq!(count("a", at(3_600_000)), 3, "never more than at once");
    }

    #[test]
    fn as_many_come_back_as_were_said() {
        for (back, within, seconds) in [(600, 1_000, 1), (400, 1_000, 1), (40_000, 60_000, 1), (10, 60_000, 6)] {
            let pace = Pace { burst: back, back, within };
            let mut paces = Paces::new(pace, 8);
            let mut count = |now| (0..=2 * back).filter(|_| paces.admits(&"a", now)).count();
            assert_eq!((count(at(0)), count(at(within / 2))), (back as usize, back as usize / 2), "{pace:?}");
            assert_eq!(pace.seconds_for_one(), seconds, "{pace:?}");
        }
        let mut paces = Paces::new(Pace { burst: 1, back: 1, within: 60_000 }, 8);
        assert!(paces.admits(&"a", at(0)));
        let first = (1..=60_000).find(|millis| paces.admits(&"a", at(*millis)));
        assert_eq!(first, Some(60_000), "asking all the time changes nothing");
    }

    #[test]
    fn keys_are_bounded_and_forgotten_once_nothing_is_to_be_remembered() {
        let mut paces = Paces::new(Pace { burst: 1, back: 1, within: 1_000 }, 4);
        for key in 0..4 {
            assert!(paces.admits(&key, at(0)));
        }
        for key in 4..1_000 {
            assert!(!paces.admits(&key, at(0)), "there is no room to remember it");
        }
        assert!(paces.left.len() <= 4);
        assert!(paces.admits(&7, at(1_000)), "the others are full again, and forgotten");
        assert_eq!(paces.left.len(), 1);
    }
}
