//! How often the repository is looked at without a bell: less often while hooks tell of every push.

use std::time::Duration;

use crate::time::Timestamp;

/// A push that was found belongs to a hook that came at most so long before.
const ANNOUNCED_WITHIN: Duration = Duration::from_secs(60);

/// A hook that came longer ago says nothing about whether they still come.
const TRUSTED_FOR: Duration = Duration::from_secs(86_400);

/// Looks from hook to hook. Pure.
#[derive(Debug)]
pub(super) struct Pace {
    /// Without hooks.
    normal: Duration,
    /// While they come.
    with_hooks: Duration,
    /// When a push was found that no hook had told of.
    missed: Option<Timestamp>,
}

impl Pace {
    pub(super) fn new(normal: Duration, with_hooks: Option<Duration>) -> Self {
        Self { normal, with_hooks: with_hooks.unwrap_or(normal), missed: None }
    }

    /// A look that began at `begun` found a new head. True when no hook had told of it, which is how their silence is noticed.
    pub(super) fn found(&mut self, begun: Timestamp, last_push: Option<Timestamp>) -> bool {
        let is_announced = last_push.is_some_and(|at| at >= begun || begun.since(at) <= ANNOUNCED_WITHIN);
        let was_trusted = self.is_trusted(begun, last_push);
        if !is_announced {
            self.missed = Some(begun);
        }
        was_trusted && !is_announced
    }

    /// How long to wait for a bell.
    pub(super) fn interval(&self, now: Timestamp, last_push: Option<Timestamp>) -> Duration {
        if self.is_trusted(now, last_push) { self.with_hooks } else { self.normal }
    }

    fn is_trusted(&self, now: Timestamp, last_push: Option<Timestamp>) -> bool {
        last_push.is_some_and(|at| self.missed.is_none_or(|missed| missed < at) && now.since(at) <= TRUSTED_FOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_rare_only_while_hooks_tell_of_every_push() {
        let (minute, ten) = (Duration::from_secs(60), Duration::from_secs(600));
        let at = |seconds: u64| Timestamp::from_millis(seconds * 1000);
        let mut pace = Pace::new(minute, Some(ten));
        assert!(!pace.found(at(100), None), "the first revision, and no hook has ever come");
        assert_eq!(pace.interval(at(100), None), minute);

        let hook = Some(at(1000));
        assert_eq!(pace.interval(at(1001), hook), ten, "one came");
        assert!(!pace.found(at(1001), hook), "and told of this");
        assert_eq!(pace.interval(at(1001), hook), ten);
        assert_eq!(pace.interval(at(1000 + 86_400), hook), ten, "a day without a push");
        assert_eq!(pace.interval(at(1001 + 86_400), hook), minute, "and longer: who knows");

        assert!(pace.found(at(5000), hook), "a push without a hook");
        assert_eq!(pace.interval(at(5000), hook), minute);
        assert!(!pace.found(at(6000), hook), "said once");

        let again = Some(at(7000));
        assert_eq!(pace.interval(at(7001), again), ten, "they are back");
        assert!(!pace.found(at(7059), again), "found by a later look, because a replica was behind");
        assert_eq!(pace.interval(at(7060), again), ten);
        assert!(!pace.found(at(8000), Some(at(8001))), "it came while the look was under way");

        let same = Pace::new(minute, None);
        assert_eq!(same.interval(at(1001), hook), minute, "nothing else was asked for");
    }
}
