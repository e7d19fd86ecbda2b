//! How fast agents may come: a fleet that reconnects at once is spread over time, by answers that its clients obey, and who comes again and
//! again takes nobody else's turn.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use super::links::lock;
use super::quota::{Origin, Origins};
use crate::time::Timestamp;

/// Lets so many in a second, and as many at once.
#[derive(Debug)]
pub(super) struct Admission {
    /// Thousandths of an admission that come back each millisecond, which is the number a second; `None`: everybody may come.
    rate: Option<u64>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// In thousandths.
    left: u64,
    at: Timestamp,
    /// Who came lately.
    recent: Recent,
}

/// Thousandths that one admission takes.
const ONE: u64 = 1_000;

/// Why somebody has to come back later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotNow {
    /// As many came as may.
    All,
    /// As many came of one origin as may while others want to.
    Origin,
}

impl Admission {
    /// At most `rate` a second.
    pub(super) fn new(rate: Option<u32>) -> Self {
        let rate = rate.map(|rate| u64::from(rate.max(1)));
        let recent = Recent::within(Duration::from_secs(1));
        let state = State { left: rate.unwrap_or_default() * ONE, at: Timestamp::default(), recent };
        Self { rate, state: Mutex::new(state) }
    }

    /// True when one more may come now.
    pub(super) fn admits(&self, now: Timestamp) -> bool {
        self.admit(None, now).is_ok()
    }

    /// Lets one more in, which counts for whom it is of.
    ///
    /// # Errors
    /// When it may not come now.
    pub(super) fn admit(&self, origins: Option<Origins>, now: Timestamp) -> Result<(), NotNow> {
        let Some(rate) = self.rate else { return Ok(()) };
        let mut state = lock(&self.state);
        let elapsed = u64::try_from(now.since(state.at).as_millis()).unwrap_or(u64::MAX);
        state.left = state.left.saturating_add(rate.saturating_mul(elapsed)).min(rate * ONE);
        state.at = state.at.max(now);
        if state.left < ONE {
            return Err(NotNow::All);
        }
        if let Some(Origins { whole, part }) = origins {
            let path = [whole, part];
            let path = if part == whole { &path[..1] } else { &path };
            let left = state.left as f64 / ONE as f64;
            if !state.recent.admits(left, path, now) {
                return Err(NotNow::Origin);
            }
        }
        state.left -= ONE;
        Ok(())
    }
}

/// How much of late somebody may have taken, by what is left for everybody: one that is alone takes three quarters at once, and from then on
/// all that comes back, while a third of what comes back in that time stays there for whoever comes newly. Two have half of it each, and so on.
const WEIGHT: f64 = 3.0;

/// Who took how much lately, fading.
#[derive(Debug)]
pub(super) struct Recent {
    fade: Duration,
    taken: HashMap<Origin, (f64, Timestamp)>,
    swept: Timestamp,
}

/// Origins that are remembered. More than that are let in without being counted, within what there is for all.
const MOST_REMEMBERED: usize = 65_536;

/// What has faded to this is forgotten.
const FORGOTTEN: f64 = 0.05;

impl Recent {
    /// What was taken within about this time counts.
    pub(super) fn within(fade: Duration) -> Self {
        Self { fade, taken: HashMap::new(), swept: Timestamp::default() }
    }

    /// True when one more may be taken of the `left` that all share, by the last of `path`, in which each is a part of the one before. It is
    /// counted then.
    pub(super) fn admits(&mut self, left: f64, path: &[Origin], now: Timestamp) -> bool {
        let mut share = left;
        for origin in path {
            share = share * WEIGHT - self.of(*origin, now);
            if share <= 0.0 {
                return false;
            }
        }
        if self.taken.len() + path.len() > MOST_REMEMBERED && now.since(self.swept) >= self.fade {
            self.swept = now;
            let fade = self.fade;
            self.taken.retain(|_, taken| faded(*taken, fade, now) > FORGOTTEN);
        }
        for origin in path {
            let count = self.of(*origin, now) + 1.0;
            if self.taken.len() < MOST_REMEMBERED || self.taken.contains_key(origin) {
                self.taken.insert(*origin, (count, now));
            }
        }
        true
    }

    fn of(&self, origin: Origin, now: Timestamp) -> f64 {
        self.taken.get(&origin).map_or(0.0, |taken| faded(*taken, self.fade, now))
    }
}

fn faded((count, at): (f64, Timestamp), fade: Duration, now: Timestamp) -> f64 {
    count * (-now.since(at).as_secs_f64() / fade.as_secs_f64()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + milliseconds)
    }

    fn from(last: u8) -> Option<Origins> {
        let origin = Origin::of([192, 0, 2, last].into());
        Some(Origins { whole: origin, part: origin })
    }

    fn with_token(last: u8) -> Option<Origins> {
        let whole = Origin::Token([7; 32]);
        Some(Origins { whole, part: whole.at(Some([192, 0, 2, last].into())) })
    }

    #[test]
    fn as_many_as_there_may_be_in_a_second() {
        let admission = Admission::new(Some(10));
        let count = |now| (0..100).filter(|_| admission.admits(now)).count();
        assert_eq!(count(at(0)), 10, "at once");
        assert_eq!(count(at(0)), 0);
        assert_eq!(count(at(99)), 0);
        assert_eq!(count(at(100)), 1, "a tenth of a second later");
        assert_eq!(count(at(50)), 0, "a clock that goes back gives nothing");
        assert_eq!(count(at(600)), 5);
        assert_eq!(count(at(3_600_000)), 10, "never more than that, however long nobody came");
        let open = Admission::new(None);
        assert!((0..1_000).all(|_| open.admit(from(1), at(0)).is_ok()));
        assert!(Admission::new(Some(0)).admit(from(1), at(0)).is_ok(), "somebody may always come");
    }

    /// How many of each came when each tries ten times a millisecond, from one millisecond to another.
    fn storm(admission: &Admission, who: &[Option<Origins>], millis: std::ops::Range<u64>) -> Vec<usize> {
        let mut came = vec![0; who.len()];
        for now in millis.flat_map(|now| [now; 10]) {
            for (count, who) in came.iter_mut().zip(who) {
                *count += usize::from(admission.admit(*who, at(now)).is_ok());
            }
        }
        came
    }

    #[test]
    fn one_address_that_comes_again_and_again_leaves_turns_to_others() {
        let admission = Admission::new(Some(1_000));
        let fleet = storm(&admission, &[from(1)], 0..10_000)[0];
        assert!(fleet >= 10_000, "a fleet behind one address has all that nobody else wants: {fleet}");
        assert_eq!(admission.admit(from(1), at(9_999)), Err(NotNow::Origin));
        for number in 0..250 {
            let origin = Origin::of(std::net::Ipv6Addr::from_bits(number << 64).into());
            let newcomer = Some(Origins { whole: origin, part: origin });
            assert_eq!(admission.admit(newcomer, at(9_999)), Ok(()), "newcomer {number} of many at once");
        }
        let both = storm(&admission, &[from(1), from(2)], 20_000..30_000);
        assert!(both.iter().all(|count| (4_500..=6_500).contains(count)), "half for each: {both:?}");
        let modest = (0..100).filter(|number| {
            storm(&admission, &[from(1), from(2)], 30_000 + number * 50..30_050 + number * 50);
            admission.admit(from(3), at(30_049 + number * 50)).is_ok()
        });
        assert_eq!(modest.count(), 100, "who wants less than its share has all that it wants");
    }

    #[test]
    fn one_machine_with_a_token_leaves_turns_to_those_with_the_same_one() {
        let admission = Admission::new(Some(1_000));
        let alone = storm(&admission, &[with_token(1)], 0..10_000)[0];
        assert!(alone >= 9_900, "{alone}");
        assert_eq!(admission.admit(with_token(1), at(9_999)), Err(NotNow::Origin));
        assert_eq!(admission.admit(with_token(2), at(9_999)), Ok(()), "another machine with the token");
        let all: Vec<_> = (1..=4).map(with_token).chain([from(9)]).collect();
        let came = storm(&admission, &all, 20_000..30_000);
        let (token, other) = (came[..4].iter().sum::<usize>(), came[4]);
        assert!(other >= 4_000 && token >= 4_000, "a token has no more than an address: {came:?}");
    }

    #[test]
    fn a_crowd_of_origins_is_bounded() {
        let admission = Admission::new(Some(1_000_000));
        for number in 0..MOST_REMEMBERED as u128 + 10 {
            let origin = Origin::of(std::net::Ipv6Addr::from_bits(number << 64).into());
            assert!(admission.admit(Some(Origins { whole: origin, part: origin }), at(0)).is_ok());
        }
        assert_eq!(lock(&admission.state).recent.taken.len(), MOST_REMEMBERED);
        assert!(admission.admit(from(1), at(4_000)).is_ok());
        assert!(lock(&admission.state).recent.taken.len() < 10, "what faded is forgotten");
    }
}
