//! How fast agents may come: a fleet that reconnects at once is spread over time, by answers that its clients obey.

use std::sync::Mutex;

use super::links::lock;
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
}

/// Thousandths that one admission takes.
const ONE: u64 = 1_000;

impl Admission {
    /// At most `rate` a second.
    pub(super) fn new(rate: Option<u32>) -> Self {
        let rate = rate.map(|rate| u64::from(rate.max(1)));
        Self { rate, state: Mutex::new(State { left: rate.unwrap_or_default() * ONE, at: Timestamp::default() }) }
    }

    /// True when one more may come now.
    pub(super) fn admits(&self, now: Timestamp) -> bool {
        let Some(rate) = self.rate else { return true };
        let mut state = lock(&self.state);
        let elapsed = u64::try_from(now.since(state.at).as_millis()).unwrap_or(u64::MAX);
        state.left = state.left.saturating_add(rate.saturating_mul(elapsed)).min(rate * ONE);
        state.at = state.at.max(now);
        let admits = state.left >= ONE;
        if admits {
            state.left -= ONE;
        }
        admits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_there_may_be_in_a_second() {
        let at = |milliseconds: u64| Timestamp::from_millis(1_000_000 + milliseconds);
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
        assert!((0..1_000).all(|_| open.admits(at(0))));
        assert!(Admission::new(Some(0)).admits(at(0)), "somebody may always come");
    }
}
