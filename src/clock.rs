//! The one place where time is read: a monotonic clock, anchored to the wall clock once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::time::Timestamp;

/// Tells the time for the whole process; clones tell the same. A wall clock that jumps, backwards or by hours, moves no deadline; a machine that was
/// suspended does not make every deadline expire at once, because its monotonic clock stood still meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    wall: Duration,
    started: Instant,
    /// How far it is ahead of this machine's.
    ahead: Duration,
    /// How many milliseconds this machine slept, if that is made up.
    slept: Option<&'static AtomicU64>,
}

impl Clock {
    /// Anchors the clock now.
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else gets its time from")]
    pub fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { wall, started: Instant::now(), ahead: Duration::ZERO, slept: None }
    }

    /// The same, at another time than now, which must not be past: to see what will be then.
    pub fn start_at(at: Timestamp) -> Self {
        let now = Self::start();
        let ahead = at.since(now.now());
        Self { wall: now.wall + ahead, ahead, ..now }
    }

    /// The same, on a machine that sleeps for as many milliseconds as are added to what comes with it: to see what is then. One such number
    /// stays in memory for good.
    pub fn start_on_a_machine_that_sleeps() -> (Self, &'static AtomicU64) {
        let slept: &'static AtomicU64 = Box::leak(Box::default());
        (Self { slept: Some(slept), ..Self::start() }, slept)
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        let millis = (self.wall + self.started.elapsed()).as_millis();
        Timestamp::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// The time of the wall clock at this moment, for others to read: after a suspension, or once the clock was set, theirs is not
    /// [`Clock::now`]. Nothing of our own is measured by it, but what others dated is: certificates and tokens.
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else gets its time from")]
    pub fn wall(&self) -> Timestamp {
        let slept = Duration::from_millis(self.slept.map_or(0, |slept| slept.load(Ordering::Relaxed)));
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(self.wall, |wall| wall + self.ahead) + slept;
        Timestamp::from_millis(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX))
    }

    /// When the wall clock will say `at`, as far as that can be known now, for the runtime's timers; whoever is woken looks again.
    pub fn instant_of_wall(&self, at: Timestamp) -> tokio::time::Instant {
        let left = at.since(self.wall()).min(crate::time::LONGEST_DURATION) + Duration::from_millis(1);
        tokio::time::Instant::from_std(self.started + self.started.elapsed() + left)
    }

    /// When `at` is, for the runtime's timers: never before it, although timestamps are whole milliseconds.
    pub fn instant(&self, at: Timestamp) -> tokio::time::Instant {
        let since_start = Duration::from_millis(at.as_millis()).saturating_sub(self.wall);
        let since_start = since_start.min(crate::time::LONGEST_DURATION) + Duration::from_millis(1);
        tokio::time::Instant::from_std(self.started + since_start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_may_be_ahead_and_its_timers_are_not_late() {
        let end: Timestamp = "2120-01-01T00:00:00Z".parse().expect("a time");
        let clock = Clock::start_at(end);
        assert!(clock.now() >= end && clock.wall() >= end);
        assert!(clock.instant_of_wall(end) <= clock.instant_of_wall(end + Duration::from_secs(60)));
        let far = clock.instant_of_wall(end + crate::time::LONGEST_DURATION * 9);
        assert!(far <= clock.instant_of_wall(end) + crate::time::LONGEST_DURATION, "whoever is woken looks again");
        assert!(Clock::start().wall() < end, "others tell their own time");
    }
}
