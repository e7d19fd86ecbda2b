//! With whom the agents that have a candidate are compared when they fall sick: whether it is the candidate, or everybody suffers.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::rollout::{Desired, Peers, Sickness};
use crate::roster::group::Group;
use crate::time::Timestamp;

/// Fewer peers than so many, and than those that they are compared with, prove nothing: what befalls one of two may be a coincidence.
pub const LEAST_PEERS: usize = 5;

/// Who was well for so long with what it was given, and falls sick together with the others, did not fall sick because of that: as long as
/// a stage is watched when nothing is said.
pub const WELL_FOR_LONG: Duration = Duration::from_secs(300);

/// Agents that fall sick within so long before and after one another fall sick together.
pub const TOGETHER: Duration = Duration::from_secs(120);

/// Who was excused is given so long when the peers are well again: nobody gets well all at once either.
pub const RECOVERY: Duration = Duration::from_secs(120);

/// Times are counted this finely: while everybody falls sick, few numbers are to be added up.
const GRAIN_MILLIS: u64 = 1_000;

/// An agent that no rollout has given anything since what it has became stable in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bystander {
    /// When what it has became stable.
    pub since: Timestamp,
    /// When it fell sick, or vanished; `None`: it is well.
    pub fell_sick: Option<Timestamp>,
}

/// How those stand who are compared with the agents that have a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compared {
    /// Who that is.
    pub with: Peers,
    /// How many of them fell sick since the rollout began.
    pub peers: Sickness,
}

/// Numbers of agents by a time that belongs to each.
#[derive(Clone, Debug, Default)]
pub(super) struct Times(BTreeMap<u64, usize>);

impl Times {
    pub(super) fn change(&mut self, at: Timestamp, by: isize) {
        let grain = at.as_millis() / GRAIN_MILLIS;
        let count = self.0.entry(grain).or_default();
        *count = count.saturating_add_signed(by);
        if *count == 0 {
            self.0.remove(&grain);
        }
    }

    /// Those of this time and later ones.
    fn since(&self, at: Timestamp) -> usize {
        self.0.range(at.as_millis() / GRAIN_MILLIS..).map(|(_, count)| count).sum()
    }

    /// Those around this time.
    fn around(&self, at: Timestamp, width: Duration) -> usize {
        let width = u64::try_from(width.as_millis()).unwrap_or(u64::MAX);
        let (first, last) = (at.as_millis().saturating_sub(width), at.as_millis().saturating_add(width));
        self.0.range(first / GRAIN_MILLIS..=last / GRAIN_MILLIS).map(|(_, count)| count).sum()
    }
}

/// All bystanders of the fleet, counted as they come and go: a comparison adds up what happened since a rollout began, and looks at no
/// agent.
#[derive(Debug, Default)]
pub struct Bystanders {
    all: usize,
    since: Times,
    /// Those who fell sick with what they have: by when they did, and by when that became stable.
    fell_sick: Times,
    sick_since: Times,
}

impl Bystanders {
    /// One more, or one less.
    pub(super) fn change(&mut self, bystander: Option<Bystander>, by: isize) {
        let Some(Bystander { since, fell_sick }) = bystander else { return };
        self.all = self.all.saturating_add_signed(by);
        self.since.change(since, by);
        if let Some(at) = fell_sick.filter(|at| *at >= since) {
            self.fell_sick.change(at, by);
            self.sick_since.change(since, by);
        }
    }

    /// Those who were left alone since a rollout began, and how many of them fell sick since then. Where something became stable later,
    /// that may be of the same commit: its agents are no bystanders.
    pub(super) fn since(&self, began: Timestamp) -> Sickness {
        let of = self.all.saturating_sub(self.since.since(began));
        Sickness { of, sick: self.fell_sick.since(began).saturating_sub(self.sick_since.since(began)).min(of) }
    }
}

/// Those of the group who were not offered it, where they are enough; else those of the fleet who were left alone; else what is left of the
/// former where they are as sick, because so few who are well prove nothing; and else those who have had it for long.
pub(super) fn compare(treated: Sickness, group: Sickness, fleet: Sickness, long_well: usize) -> Compared {
    let enough = LEAST_PEERS.min(treated.of).max(1);
    if group.of >= enough {
        Compared { with: Peers::Group, peers: group }
    } else if fleet.of >= enough {
        Compared { with: Peers::Fleet, peers: fleet }
    } else if group.is_like(treated) {
        Compared { with: Peers::Group, peers: group }
    } else {
        Compared { with: Peers::Nobody, peers: Sickness { of: treated.of, sick: long_well } }
    }
}

/// Those who have it and were well with it for long.
#[derive(Clone, Debug, Default)]
pub(super) struct LongWell {
    fell_sick: Times,
    /// How many fell sick.
    pub(super) sick: usize,
}

impl LongWell {
    pub(super) fn change(&mut self, fell_sick: Option<Timestamp>, by: isize) {
        let Some(at) = fell_sick else { return };
        self.fell_sick.change(at, by);
        self.sick = self.sick.saturating_add_signed(by);
    }

    /// True when, around the time that one fell sick, at least half of all who have it did who had been well with it for long.
    pub(super) fn fell_together(&self, at: Timestamp, treated: Sickness) -> bool {
        let together = self.fell_sick.around(at, TOGETHER);
        together >= LEAST_PEERS && together * 2 >= treated.of
    }
}

/// How sick a group's agents were.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    treated: Sickness,
    compared: Compared,
    long_well: LongWell,
}

impl Group {
    /// How many of those who have the candidate fell sick since the rollout began, and of those with whom they are compared.
    pub(super) fn compare(&self, fleet: &Bystanders) -> (Sickness, Compared) {
        if let Some(kept) = &self.kept {
            return (kept.treated, kept.compared);
        }
        let (treated, group) = (self.tally.treated, self.tally.peers);
        if treated.sick == 0 {
            return (treated, Compared { with: Peers::Group, peers: group });
        }
        let fleet = self.desired.since.map(|began| fleet.since(began)).unwrap_or_default();
        (treated, compare(treated, group, fleet, self.long_well.sick))
    }

    /// True when it is not because of the candidate, as far as can be told, that one who has it fell sick then: those without it are as sick;
    /// or nobody is without it, and those who had been well with it for long fell sick together with this one.
    pub fn excuses(&self, fell_sick: Option<Timestamp>, fleet: &Bystanders) -> bool {
        if self.desired.candidate.is_none() {
            return false;
        }
        let (treated, compared) = self.compare(fleet);
        let long_well = self.kept.as_ref().map_or(&self.long_well, |kept| &kept.long_well);
        match compared.with {
            Peers::Group => compared.peers.is_like(treated),
            // One that is ill somewhere else is no outage.
            Peers::Fleet => compared.peers.sick >= compared.peers.of.min(2) && compared.peers.is_like(treated),
            Peers::Nobody => {
                self.desired.fell_together || fell_sick.is_some_and(|at| long_well.fell_together(at, treated))
            }
        }
    }

    /// True when nobody is there with whom those who have the candidate could be compared.
    pub fn has_no_peers(&self, fleet: &Bystanders) -> bool {
        self.desired.candidate.is_some() && self.compare(fleet).1.with == Peers::Nobody
    }

    /// From now on the sick are counted as they are now, until [`Group::count_sickness_again`]: `desired` leads to a judgement of
    /// everybody, and is about the same rollout.
    pub fn keep_sickness(&mut self, desired: &Desired, fleet: &Bystanders) {
        let is_same = (desired.candidate, desired.since) == (self.desired.candidate, self.desired.since);
        self.kept = None;
        if is_same {
            let (treated, compared) = self.compare(fleet);
            self.kept = Some(Kept { treated, compared, long_well: self.long_well.clone() });
        }
    }

    /// Everybody is judged.
    pub fn count_sickness_again(&mut self) {
        self.kept = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + seconds * 1_000)
    }

    fn of(sick: usize, of: usize) -> Sickness {
        Sickness { of, sick }
    }

    #[test]
    fn bystanders_are_those_who_were_left_alone_since_a_rollout_began() {
        let mut fleet = Bystanders::default();
        let began = at(100);
        for (since, fell_sick, count) in [
            (at(0), None, 3),
            (at(0), Some(at(150)), 4),
            // Sick before it began, and sick before what it has was stable.
            (at(0), Some(at(50)), 2),
            (at(60), Some(at(50)), 1),
            // It became stable since: perhaps of the same commit.
            (at(120), None, 5),
            (at(120), Some(at(150)), 6),
            (at(120), Some(at(110)), 7),
        ] {
            for _ in 0..count {
                fleet.change(Some(Bystander { since, fell_sick }), 1);
            }
        }
        assert_eq!(fleet.since(began), of(4, 10));
        assert_eq!(fleet.since(at(130)), of(10, 28), "of a later rollout they all are");
        for _ in 0..4 {
            fleet.change(Some(Bystander { since: at(0), fell_sick: Some(at(150)) }), -1);
        }
        assert_eq!(fleet.since(began), of(0, 6));
    }

    #[test]
    fn peers_are_those_of_the_group_while_they_are_enough() {
        for (why, treated, group, fleet, with) in [
            ("enough", of(20, 30), of(5, 5), of(0, 400), Peers::Group),
            ("too few", of(20, 36), of(4, 4), of(0, 400), Peers::Fleet),
            ("too few, and the fleet is no better", of(20, 36), of(4, 4), of(0, 4), Peers::Group),
            ("so few who are well are no proof", of(20, 36), of(0, 4), of(0, 4), Peers::Nobody),
            ("as many as have it", of(1, 1), of(1, 1), of(0, 400), Peers::Group),
            ("nobody", of(40, 40), of(0, 0), of(5, 5), Peers::Fleet),
            ("nobody at all", of(40, 40), of(0, 0), of(4, 4), Peers::Nobody),
            ("the only one", of(1, 1), of(0, 0), of(1, 3), Peers::Fleet),
        ] {
            assert_eq!(compare(treated, group, fleet, 7).with, with, "{why}");
        }
        assert!(of(10, 40).is_like(of(20, 40)), "half their share");
        assert!(!of(9, 40).is_like(of(20, 40)));
        assert!(!of(0, 0).is_like(of(0, 40)), "nobody is no peer");
    }

    #[test]
    fn agents_fall_sick_together_when_half_of_them_do_within_minutes() {
        let mut holders = LongWell::default();
        for second in [0, 30, 60, 90, 115] {
            holders.change(Some(at(second)), 1);
        }
        assert!(holders.fell_together(at(60), of(5, 10)));
        assert!(!holders.fell_together(at(60), of(5, 11)), "less than half");
        assert!(!holders.fell_together(at(170), of(5, 10)), "the first of them were long before");
        holders.change(Some(at(0)), -1);
        assert!(!holders.fell_together(at(60), of(4, 4)), "so few may fall sick by chance");
    }
}
