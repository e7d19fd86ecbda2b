//! How long to wait before a failed transfer is tried again.

use std::time::Duration;

use super::failure::FailureClass;

/// Exponential backoff with jitter. Pure: the jitter is an argument.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// After the first failure: 5 s, longer than any hiccup of a load balancer.
    pub const FIRST: Duration = Duration::from_secs(5);
    /// At most: 5 min, so that a repaired remote is noticed while somebody still looks.
    pub const LONGEST: Duration = Duration::from_secs(300);

    /// It went well: the next failure starts over.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// How many failures there were since it last went well.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// It failed: how long to wait. Doubles from `FIRST` to `LONGEST`; what needs a person waits `LONGEST` from the third
    /// time on. `jitter` in `0.0..1.0` spreads the delay over its upper half, so that many processes do not come back together.
    pub fn failed(&mut self, class: FailureClass, jitter: f64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let full = match class {
            FailureClass::Stalled if self.failures > 2 => Self::LONGEST,
            FailureClass::Stalled | FailureClass::Transient => {
                Self::FIRST.saturating_mul(1 << (self.failures - 1).min(6)).min(Self::LONGEST)
            }
        };
        full.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest_and_start_over() {
        let mut backoff = Backoff::default();
        let seconds: Vec<u64> = (0..9).map(|_| backoff.failed(FailureClass::Transient, 1.0).as_secs()).collect();
        assert_eq!(seconds, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
        assert_eq!(backoff.failures(), 9);
        backoff.succeeded();
        assert_eq!(backoff.failed(FailureClass::Transient, 0.0), Duration::from_millis(2500), "half of it at least");
        let mut stalled = Backoff::default();
        let seconds: Vec<u64> = (0..4).map(|_| stalled.failed(FailureClass::Stalled, 1.0).as_secs()).collect();
        assert_eq!(seconds, [5, 10, 300, 300], "what needs a person is asked seldom");
    }

    #[test]
    fn it_never_overflows() {
        let mut backoff = Backoff { failures: u32::MAX };
        assert_eq!(backoff.failed(FailureClass::Transient, f64::INFINITY), Backoff::LONGEST);
    }
}
