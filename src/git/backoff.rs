//! How long to wait before a failed transfer is tried again.

use std::time::Duration;

use super::Deadlines;
use super::failure::{FailureClass, FailureKind};

/// Who was asked for patience and does not know for how long waits so long at least.
pub const HIDDEN_WAIT: Duration = Duration::from_secs(60);

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
    /// time on, and who was asked for patience never less than `HIDDEN_WAIT`. `jitter` in `0.0..1.0` spreads the delay over its
    /// upper half, so that many processes do not come back together.
    pub fn failed(&mut self, class: FailureClass, jitter: f64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let full = match class {
            FailureClass::Stalled if self.failures > 2 => Self::LONGEST,
            FailureClass::Stalled | FailureClass::Transient => doubled(Self::FIRST, self.failures, Self::LONGEST),
            FailureClass::Throttled => return at_least_hidden(jitter).max(spread(self.failures, jitter)),
        };
        full.mul_f64(upper_half(jitter))
    }
}

fn spread(failures: u32, jitter: f64) -> Duration {
    doubled(Backoff::FIRST, failures, Backoff::LONGEST).mul_f64(upper_half(jitter))
}

/// `first` after the first failure, twice as long after each further one, at most `longest`.
fn doubled(first: Duration, failures: u32, longest: Duration) -> Duration {
    first.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(longest)
}

fn upper_half(jitter: f64) -> f64 {
    0.5 + 0.5 * jitter.clamp(0.0, 1.0)
}

/// `HIDDEN_WAIT` and up to a quarter more.
fn at_least_hidden(jitter: f64) -> Duration {
    HIDDEN_WAIT.mul_f64(1.0 + 0.25 * jitter.clamp(0.0, 1.0))
}

/// When the journal is pushed again after a push that failed. Pure, like [`Backoff`], but in more of a hurry: a push costs little,
/// nothing else waits for it, and whoever repaired the remote waits for the notes. So the pause after a failure and the
/// longest failing push together stay below 30 s, unless the remote asked for patience or a person has to change its rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PushPace {
    failures: u32,
    /// Pushes in a row that a deadline ended.
    timeouts: u32,
    /// True once a push was good that took the patience of `deadlines` to the full: this remote is slow, not broken.
    is_slow: bool,
}

impl PushPace {
    /// After the first failure: 2 s.
    pub const FIRST: Duration = Duration::from_secs(2);
    /// At most, when failing took no time: 25 s.
    pub const LONGEST: Duration = Duration::from_secs(25);
    /// At most after a push that a deadline ended: 8 s, because the push itself took up to 15 s.
    pub const LONGEST_AFTER_TIMEOUT: Duration = Duration::from_secs(8);
    /// So often a refusal is questioned at this pace, over a quarter of an hour; then it is how that remote is, and asked for every
    /// five minutes only.
    pub const PATIENCE_WITH_REFUSALS: u32 = 40;
    /// The same for refusals that may mean that the remote is asked too much.
    pub const PATIENCE_WITH_THROTTLING: u32 = 15;
    /// What a push may take: far more than any usual one needs, and short enough to notice a repaired remote soon.
    pub const HURRIED: Deadlines =
        Deadlines { connect: Duration::from_secs(5), silence: Duration::from_secs(7), total: Duration::from_secs(15) };
    /// After so many pushes in a row that a deadline ended, every `PATIENT_EVERY`th takes as long as it is allowed to.
    pub const HURRIED_PUSHES: u32 = 10;
    /// See `HURRIED_PUSHES`.
    pub const PATIENT_EVERY: u32 = 5;

    /// What the next push may take, where `allowed` is what the settings say.
    pub fn deadlines(&self, allowed: &Deadlines) -> Deadlines {
        if self.is_patient() {
            return *allowed;
        }
        Deadlines {
            connect: allowed.connect.min(Self::HURRIED.connect),
            silence: allowed.silence.min(Self::HURRIED.silence),
            total: allowed.total.min(Self::HURRIED.total),
        }
    }

    fn is_patient(&self) -> bool {
        self.is_slow || (self.timeouts >= Self::HURRIED_PUSHES && self.timeouts.is_multiple_of(Self::PATIENT_EVERY))
    }

    /// It went well, and took so long: the next failure starts over.
    pub fn succeeded(&mut self, took: Duration) {
        let is_slow = self.is_patient() && took > Self::HURRIED.silence;
        *self = Self { is_slow, ..Self::default() };
    }

    /// It failed like this: how long to wait. `jitter` in `0.0..1.0` makes it longer.
    pub fn failed(&mut self, kind: FailureKind, jitter: f64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.timeouts = if kind == FailureKind::Timeout { self.timeouts.saturating_add(1) } else { 0 };
        let seldom = Backoff::LONGEST.mul_f64(upper_half(jitter));
        let up_to = |longest| doubled(Self::FIRST, self.failures, longest).mul_f64(upper_half(jitter));
        match kind {
            FailureKind::Throttled | FailureKind::Forbidden if self.failures > Self::PATIENCE_WITH_THROTTLING => seldom,
            FailureKind::Throttled | FailureKind::Forbidden => at_least_hidden(jitter),
            FailureKind::PushRefused if self.failures > Self::PATIENCE_WITH_REFUSALS => seldom,
            // Somebody may stand between us and the remote: no hurry to meet them again.
            FailureKind::HostKey | FailureKind::Certificate if self.failures > 2 => seldom,
            FailureKind::Timeout => up_to(Self::LONGEST_AFTER_TIMEOUT),
            FailureKind::PushRefused
            | FailureKind::HostKey
            | FailureKind::Certificate
            | FailureKind::Network
            | FailureKind::Server
            | FailureKind::Credentials
            | FailureKind::NotFound
            | FailureKind::NoSuchRef
            | FailureKind::NotFastForward
            | FailureKind::Protocol
            | FailureKind::Content
            | FailureKind::Local
            | FailureKind::Child => up_to(Self::LONGEST),
        }
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
        let mut throttled = Backoff::default();
        let seconds: Vec<u64> = (0..8).map(|_| throttled.failed(FailureClass::Throttled, 0.0).as_secs()).collect();
        assert_eq!(seconds, [60, 60, 60, 60, 60, 80, 150, 150], "whoever asks for patience gets it");
    }

    #[test]
    fn it_never_overflows() {
        let mut backoff = Backoff { failures: u32::MAX };
        assert_eq!(backoff.failed(FailureClass::Transient, f64::INFINITY), Backoff::LONGEST);
        let mut pace = PushPace { failures: u32::MAX, timeouts: u32::MAX, is_slow: false };
        assert_eq!(pace.failed(FailureKind::Timeout, f64::INFINITY), PushPace::LONGEST_AFTER_TIMEOUT);
    }

    const KINDS: [FailureKind; 16] = [
        FailureKind::Network,
        FailureKind::Timeout,
        FailureKind::Server,
        FailureKind::Throttled,
        FailureKind::Credentials,
        FailureKind::Forbidden,
        FailureKind::HostKey,
        FailureKind::Certificate,
        FailureKind::NotFound,
        FailureKind::NoSuchRef,
        FailureKind::NotFastForward,
        FailureKind::PushRefused,
        FailureKind::Protocol,
        FailureKind::Content,
        FailureKind::Local,
        FailureKind::Child,
    ];

    /// A remote that fails like this from second 0 on, for so many seconds: when it is asked, and when after the repair.
    fn outage(kind: FailureKind, seconds: f64, jitter: f64) -> (Vec<f64>, f64) {
        let mut pace = PushPace::default();
        let allowed = Deadlines::default();
        let (mut now, mut asked) = (0.0, Vec::new());
        while now < seconds {
            asked.push(now);
            if kind == FailureKind::Timeout {
                now += pace.deadlines(&allowed).total.as_secs_f64();
            }
            now += pace.failed(kind, jitter).as_secs_f64();
        }
        (asked, now - seconds)
    }

    #[test]
    fn a_repaired_remote_is_found_within_30_seconds_and_none_is_stormed() {
        for kind in KINDS {
            for jitter in [0.0, 0.3, 0.999] {
                for seconds in [1.0, 7.0, 40.0, 100.0, 160.0, 600.0] {
                    let (asked, after) = outage(kind, seconds, jitter);
                    let gaps: Vec<f64> = asked.windows(2).map(|two| two[1] - two[0]).collect();
                    let least =
                        if matches!(kind, FailureKind::Throttled | FailureKind::Forbidden) { 60.0 } else { 1.0 };
                    assert!(gaps.iter().all(|gap| *gap >= least), "{kind:?} {jitter}: {gaps:?}");
                    let in_a_minute = |from: f64| asked.iter().filter(|at| **at >= from && **at < from + 60.0).count();
                    assert!(asked.iter().all(|at| in_a_minute(*at) <= 8), "{kind:?} {jitter}: {asked:?}");
                    let most = if least > 1.0 {
                        75.0
                    } else if matches!(kind, FailureKind::HostKey | FailureKind::Certificate) {
                        300.0
                    } else if kind == FailureKind::Timeout && seconds > 150.0 {
                        // Now and then one push is given its time, see `HURRIED_PUSHES`.
                        610.0
                    } else {
                        30.0
                    };
                    assert!(after <= most, "{kind:?} {jitter} after {seconds} s: found {after} s later");
                }
            }
        }
    }

    #[test]
    fn a_rule_that_stays_is_questioned_seldom() {
        for (kind, patience) in [
            (FailureKind::PushRefused, PushPace::PATIENCE_WITH_REFUSALS),
            (FailureKind::Forbidden, PushPace::PATIENCE_WITH_THROTTLING),
        ] {
            let mut pace = PushPace::default();
            let pauses: Vec<u64> = (0..patience + 2).map(|_| pace.failed(kind, 1.0).as_secs()).collect();
            assert!(pauses.iter().take(patience as usize).all(|pause| *pause <= 75), "{kind:?}: {pauses:?}");
            assert!(pauses.iter().skip(patience as usize).all(|pause| *pause == 300), "{kind:?}: {pauses:?}");
            pace.succeeded(Duration::ZERO);
            assert!(pace.failed(kind, 1.0) <= Duration::from_secs(75), "{kind:?}: it starts over");
        }
    }

    #[test]
    fn a_slow_remote_gets_its_time_in_the_end() {
        let mut pace = PushPace::default();
        let allowed = Deadlines::default();
        let mut hurried = 0;
        while pace.deadlines(&allowed) != allowed {
            pace.failed(FailureKind::Timeout, 0.5);
            hurried += 1;
        }
        assert_eq!(hurried, PushPace::HURRIED_PUSHES);
        pace.succeeded(Duration::from_secs(20));
        assert_eq!(pace.deadlines(&allowed), allowed, "it is known to be slow now");
        pace.succeeded(Duration::from_secs(2));
        assert_eq!(pace.deadlines(&allowed), PushPace::HURRIED, "and that it no longer is");
        let mut quick = PushPace::default();
        quick.failed(FailureKind::Timeout, 0.5);
        assert_eq!(quick.deadlines(&allowed), PushPace::HURRIED);
        let short = Deadlines { total: Duration::from_secs(1), ..PushPace::HURRIED };
        assert_eq!(quick.deadlines(&short), short, "never longer than allowed");
    }
}
