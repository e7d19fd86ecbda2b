//! How a group wants its changes to arrive: the checked form of `rollout:`, with every default filled in.

use std::fmt;
use std::time::Duration;

use crate::fleet::GroupName;
use crate::fleet::opening;
use crate::fleet::window::Window;
use crate::labels::Selector;
use crate::time::Timestamp;

pub use crate::fleet::opening::OutsideWindows;

/// A number of agents, or a share of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// So many.
    Count(u32),
    /// So many hundredths of a percent: `2.5%` is 250, at most 10,000.
    Share(u16),
}

impl Amount {
    /// Everybody.
    pub const ALL: Self = Self::Share(10_000);

    /// Of `total`, rounded up: sizes of stages.
    pub fn round_up(self, total: usize) -> usize {
        match self {
            Self::Count(count) => count as usize,
            Self::Share(share) => (total * usize::from(share)).div_ceil(10_000),
        }
    }

    /// Of `total`, rounded down: budgets and tolerated failures.
    pub fn round_down(self, total: usize) -> usize {
        match self {
            Self::Count(count) => count as usize,
            Self::Share(share) => total * usize::from(share) / 10_000,
        }
    }
}

impl Default for Amount {
    /// A fifth: the default budget.
    fn default() -> Self {
        Self::Share(2_000)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Share(share) if share % 100 == 0 => write!(f, "{}%", share / 100),
            Self::Share(share) if share % 10 == 0 => write!(f, "{}.{}%", share / 100, share / 10 % 10),
            Self::Share(share) => write!(f, "{}.{:02}%", share / 100, share % 100),
        }
    }
}

/// How many agents a group expects; outside, its rollout is held with the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expect {
    /// At least.
    pub min: Option<u32>,
    /// At most.
    pub max: Option<u32>,
}

/// One entry of `stages`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Its name, unique in the group.
    pub name: String,
    /// How much of the group has the candidate at the end of it, cumulative; everybody in the last one.
    pub agents: Option<Amount>,
    /// Or who: agents that this matches join the cohort.
    pub selector: Option<Selector>,
    /// How long it is watched once everybody in it is confirmed.
    pub soak: Duration,
    /// True when a person must promote it before it starts.
    pub needs_approval: bool,
    /// Failures of this stage above which the rollout fails; otherwise the rollout's own number holds.
    pub max_failures: Option<Amount>,
}

/// What happens when a rollout fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// Everybody goes back to stable.
    Rollback,
    /// Everybody keeps what they have until a person or a commit decides.
    Pause,
}

/// What a newer commit does to a running rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnNewCommit {
    /// It ends it and takes its place.
    Supersede,
    /// It waits for its end. Reverts never wait.
    Finish,
}

/// The checked `rollout:` of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strategy {
    /// At least one; the last one is everybody.
    pub stages: Vec<Stage>,
    /// How long the whole group is watched after the last stage.
    pub bake: Duration,
    /// How many agents of the group may be unavailable at once; a share rounds down, at least one.
    pub max_unavailable: Amount,
    /// From an offer to its confirmation, for each agent; afterwards it counts as failed.
    pub progress_deadline: Duration,
    /// More failures than this end the rollout; `None`: the default (0 in the first stage of several; otherwise 2 %).
    pub max_failures: Option<Amount>,
    /// What then happens.
    pub on_failure: OnFailure,
    /// What a newer commit does.
    pub on_new_commit: OnNewCommit,
    /// Labels of which every value shall be among the first.
    pub spread_by: Vec<String>,
    /// True when only the values count that credentials gave.
    pub spread_proven: bool,
    /// Groups that have to finish the same revision first.
    pub depends_on: Vec<GroupName>,
    /// When stages may start; always, when nothing is said. Reverts and rollbacks never wait for them.
    pub windows: Vec<Window>,
}

impl Strategy {
    /// The same, looking at labels that credentials gave alone: nobody claims a place among the first.
    #[must_use]
    pub fn demanding_proof(&self) -> Self {
        let stages = self
            .stages
            .iter()
            .map(|stage| Stage { selector: stage.selector.as_ref().map(Selector::demanding_proof), ..stage.clone() });
        Self { stages: stages.collect(), spread_proven: true, ..self.clone() }
    }

    /// Why no stage may start at `now`, by the windows, and when the next one may; `None`: one may. It is asked whenever a stage is
    /// about to start, never for a revert or a rollback.
    pub fn outside_windows(&self, now: Timestamp) -> Option<OutsideWindows> {
        opening::outside(&self.windows, now)
    }
}

/// How long a stage is watched when its file does not say.
pub const SOAK: Duration = Duration::from_secs(300);

/// How long the whole group is watched when no file says.
pub const BAKE: Duration = Duration::from_secs(600);

impl Strategy {
    /// What holds for a group of which no file says anything: one agent of a hundred first, then a tenth, half, everybody.
    pub fn unspecified() -> Self {
        let stage = |name: &str, hundredths: u16, soak: Duration| Stage {
            name: name.to_owned(),
            agents: Some(Amount::Share(hundredths)),
            selector: None,
            soak,
            needs_approval: false,
            max_failures: None,
        };
        // The last stage is watched by the bake.
        let stages = vec![
            stage("canary", 100, SOAK),
            stage("tenth", 1_000, SOAK),
            stage("half", 5_000, SOAK),
            stage("all", 10_000, Duration::ZERO),
        ];
        Self { stages, bake: BAKE, ..Self::default() }
    }
}

impl Default for Strategy {
    /// One stage of everybody, unsoaked and unbaked: what a person asks for who wants a change everywhere at once.
    fn default() -> Self {
        Self {
            stages: vec![Stage {
                name: "all".to_owned(),
                agents: Some(Amount::ALL),
                selector: None,
                soak: Duration::ZERO,
                needs_approval: false,
                max_failures: None,
            }],
            bake: Duration::ZERO,
            max_unavailable: Amount::Share(2_000),
            progress_deadline: Duration::from_secs(600),
            max_failures: None,
            on_failure: OnFailure::Rollback,
            on_new_commit: OnNewCommit::Supersede,
            spread_by: Vec::new(),
            spread_proven: false,
            depends_on: Vec::new(),
            windows: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_round_up_and_budgets_round_down() {
        for (amount, total, up, down, shown) in [
            (Amount::Count(3), 100, 3, 3, "3"),
            (Amount::Share(100), 250, 3, 2, "1%"),
            (Amount::Share(250), 100, 3, 2, "2.5%"),
            (Amount::Share(33), 10_000, 33, 33, "0.33%"),
            (Amount::ALL, 7, 7, 7, "100%"),
            (Amount::Share(2_000), 1, 1, 0, "20%"),
            (Amount::Share(100), 0, 0, 0, "1%"),
        ] {
            assert_eq!(amount.round_up(total), up, "{amount} of {total}, up");
            assert_eq!(amount.round_down(total), down, "{amount} of {total}, down");
            assert_eq!(amount.to_string(), shown);
        }
    }
}
