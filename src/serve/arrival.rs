//! How fast a message has to come to keep the room that it holds: arithmetic over bytes and lengths of time.

use std::time::Duration;

/// What is asked of messages that hold room.
///
/// Nobody is hit who would be in time: whoever sends evenly, begins within the grace and is done when a message has to be, fulfils this
/// all along if that makes at least `least` bytes a second. Of a link of 64 kbit/s that is a quarter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// So long a message may be behind.
    pub grace: Duration,
    /// Bytes a second, after that.
    pub least: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { grace: Duration::from_secs(5), least: 2 << 10 }
    }
}

impl Pace {
    /// For how long after it was given room a message of which `arrived` bytes are there keeps it without any more. `total`: how many it will
    /// have, where it says so. `time`: when it has to be complete, at the latest, also counted from then.
    pub(super) fn suffices(self, arrived: usize, total: Option<usize>, time: Duration) -> Duration {
        let by_least = self.grace.saturating_add(part(Duration::from_secs(1), arrived, self.least));
        // What would be too late in the end keeps others waiting for nothing.
        let evenly =
            total.map(|total| part(time.saturating_sub(self.grace), arrived, total).saturating_add(self.grace));
        by_least.min(evenly.unwrap_or(time)).min(time)
    }
}

/// `of` parts in `whole` of a length of time.
fn part(length: Duration, of: usize, whole: usize) -> Duration {
    let micros = length.as_micros().saturating_mul(of as u128) / whole.max(1) as u128;
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIME: Duration = Duration::from_secs(30);

    /// When somebody who begins after `delay` and sends so many bytes a second loses the room; `None`: never. It is looked at in every
    /// hundredth of a second, before what comes then.
    fn lost(bytes_a_second: usize, total: usize, is_told: bool, delay: Duration) -> Option<Duration> {
        (0..3_000_u64).map(|tick| Duration::from_millis(tick * 10)).find(|at| {
            let arrived = part(at.saturating_sub(delay), bytes_a_second, 1_000_000).as_micros() as usize;
            arrived < total && Pace::default().suffices(arrived, is_told.then_some(total), TIME) <= *at
        })
    }

    #[test]
    fn slow_links_keep_their_room_and_who_sends_nothing_loses_it_after_the_grace() {
        let grace = Duration::from_secs(5);
        for told in [true, false] {
            // 64 kbit/s, of which a tenth is lost to the protocols below; all that can be done by then.
            assert_eq!(lost(7_200, 7_200 * 25, told, Duration::from_secs(4)), None, "{told}");
            // The same while something else takes two thirds of the link.
            assert_eq!(lost(2_400, 2_400 * 25, told, Duration::from_secs(4)), None, "{told}");
            assert_eq!(lost(0, 1 << 20, told, Duration::ZERO), Some(grace), "{told}");
            // A thousand bytes a second are half of what is asked for: the grace is used up after twice its length.
            let at = lost(1_024, 1 << 20, false, Duration::ZERO).expect("lost");
            assert!((grace * 2..grace * 2 + Duration::from_millis(100)).contains(&at), "{at:?}");
        }
        let too_late = lost(16_000, 1 << 20, true, Duration::ZERO).expect("a megabyte in a minute");
        assert!(too_late < Duration::from_secs(11), "told that early: {too_late:?}");
        assert_eq!(lost(16_000, 1 << 20, false, Duration::ZERO), None, "nobody can know how long it is");
    }

    #[test]
    fn nothing_is_longer_than_a_message_may_take() {
        let pace = Pace::default();
        for (arrived, total, time) in [
            (usize::MAX, None, TIME),
            (usize::MAX, Some(usize::MAX), TIME),
            (1, Some(0), TIME),
            (0, None, Duration::from_secs(1)),
            (0, Some(1), Duration::from_secs(1)),
            (usize::MAX, Some(1), Duration::MAX),
        ] {
            assert!(pace.suffices(arrived, total, time) <= time, "{arrived} of {total:?}");
        }
        assert!(Pace { least: 0, ..pace }.suffices(0, None, TIME) <= TIME);
    }

    proptest! {
        #[test]
        fn who_sends_evenly_and_would_be_in_time_is_never_refused(
            total in 8_193_usize..=1 << 20,
            delay in 0_u64..5_000,
            spare in 0_u64..5_000,
        ) {
            let delay = Duration::from_millis(delay);
            let length = TIME - delay - Duration::from_millis(spare);
            let bytes_a_second = (total as f64 / length.as_secs_f64()).ceil() as usize + 1;
            prop_assume!(bytes_a_second >= Pace::default().least);
            prop_assert_eq!(lost(bytes_a_second, total, true, delay), None);
            prop_assert_eq!(lost(bytes_a_second, total, false, delay), None);
        }

        #[test]
        fn more_is_never_worse(arrived in 0_usize..2_000_000, more in 0_usize..2_000_000, total in 1_usize..=1 << 20) {
            let pace = Pace::default();
            for total in [None, Some(total)] {
                prop_assert!(pace.suffices(arrived, total, TIME) <= pace.suffices(arrived + more, total, TIME));
            }
        }
    }
}
