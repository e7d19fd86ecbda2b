//! Who gets it, when: the rollout of one group, its budget and what must be remembered of it.
//!
//! A [`Machine`] sees one group's [`Tally`], never an agent, and publishes what the group's agents should have as a [`Desired`].
//! The roster turns that into offers and counts what becomes of them. Nothing about a single agent crosses this line, so a
//! rollout costs the same for ten agents and for ten thousand, and resumes from a record of a few lines.

mod advance;
pub mod budget;
pub mod cohort;
pub mod machine;
pub mod orders;
pub mod record;
#[cfg(test)]
mod tests;
mod waiting;

use std::time::Duration;

use crate::config::ConfigHash;
use crate::fleet::strategy::{Amount, OutsideWindows};
use crate::rollout::cohort::Cohort;
use crate::rollout::record::{Cause, Said, WayBack};
use crate::time::Timestamp;

pub use machine::{Finished, Machine, Outcome, Plan};

/// A group counts as steady when for so long fewer than one in twenty of its agents came anew.
pub const SETTLE: Duration = Duration::from_secs(5);

/// A group that never becomes steady is taken as it is after so long.
pub const SETTLE_AT_MOST: Duration = Duration::from_secs(120);

/// Watched time is added up at least so often: a restart, or a process that stood still, costs no more of it.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(300);

/// Failures allowed when the strategy names no number: one in fifty.
pub const DEFAULT_MAX_FAILURES: Amount = Amount::Share(200);

/// Agents whose failure is remembered one by one in the journal; a group with more stops its rollout.
pub const MOST_REMEMBERED: usize = 1_000;

/// The agents of one group, counted by the roster. "Connected" is said where it is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// The candidate that these counts are about; `None`: they are about what is stable. Between the decision for a candidate and
    /// the record of it they are about something else, and prove nothing.
    pub candidate: Option<ConfigHash>,
    /// Who belongs to the group, connected or not, and can be offered something.
    pub members: usize,
    /// Connected agents that the group selects.
    pub selected: usize,
    /// Connected, selected, and able to take a configuration and to tell what became of it.
    pub eligible: usize,
    /// The draw that these counts are about.
    pub draws: u32,
    /// True: these counts are about the way back to stable.
    pub restoring: bool,
    /// True: nothing new is offered, so those who have not got the candidate are held and wait for nothing. That nobody waits then
    /// ends no stage, also when what held it back is over already.
    pub held_back: bool,
    /// Eligible agents that the counts from here to `failed_absent` are about: those in the cohort of the candidate, or all.
    pub cohort: usize,
    /// Connected and waiting for an offer.
    pub pending: usize,
    /// Of these: ill only just now, so that it is open whether they were ill before.
    pub unready: usize,
    /// Connected, offered what is desired of them, neither confirmed nor failed.
    pub offered: usize,
    /// Connected and confirmed.
    pub confirmed: usize,
    /// Confirmed, and not ill before their offer: these prove something.
    pub proof: usize,
    /// Eligible agents that were ill before their offer: they prove nothing.
    pub ill_before: usize,
    /// Vanished after their offer.
    pub lost: usize,
    /// Gone without a goodbye, whether offered or not; the lost are among them.
    pub cohort_vanished: usize,
    /// Would count as failed, if those who were not offered the candidate were not as sick.
    pub excused: usize,
    /// Failed because they vanished and did not come back in time.
    pub failed_absent: usize,
    /// When the last of those who were offered something counts as failed, and the last of the lost.
    pub decided_by: (Option<Timestamp>, Option<Timestamp>),
    /// While nothing may be offered: who has what the repository wants.
    pub holding: usize,
    /// Those who are not in the cohort yet.
    pub outside: Outside,
    /// Holders of the candidate, and those who were offered it.
    pub treated: Sickness,
    /// Those with whom they are compared.
    pub peers: Sickness,
    /// Who that is.
    pub compared_with: Peers,
    /// Failed the candidate, connected or not.
    pub failed: usize,
    /// Connected but not to be offered anything, for reasons that the roster lists.
    pub held: usize,
    /// Of these: a commit moved them here, they have what they had before, and only a rollout brings them what is stable.
    pub stranded: usize,
    /// Said goodbye, or left before any offer.
    pub away: usize,
    /// Of the whole group: gone without a goodbye, whether offered or not.
    pub vanished: usize,
    /// Count against the budget: offered and unresolved, ill, lost, or assumed so after a restart.
    pub unavailable: usize,
    /// Of these: not heard since this process started, and perhaps in the middle of an offer of the one before.
    pub assumed: usize,
    /// When these no longer count, whether they are back or not; `None`: there are none.
    pub assumed_until: Option<Timestamp>,
    /// Agents heard since this process started.
    pub heard: usize,
    /// Of those who can be offered something: who was here before it started, as far as that can be told.
    pub back: usize,
    /// When the group was last in motion: more newcomers than [`SETTLE`] allows.
    pub restless_at: Option<Timestamp>,
    /// When the agents that count against "too many vanished" are forgotten.
    pub forgotten_at: Option<Timestamp>,
}

/// Agents whose stage has not come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outside {
    /// Connected and eligible.
    pub eligible: usize,
    /// Waiting for an offer of stable.
    pub pending: usize,
}

/// How many of some agents fell sick since a rollout began: unhealthy, or gone without a goodbye.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sickness {
    /// Of so many.
    pub of: usize,
    /// So many.
    pub sick: usize,
}

impl Sickness {
    /// True when these are as sick as those who have the candidate. Half their share is enough, because nobody falls sick all at once.
    pub fn is_like(self, treated: Self) -> bool {
        self.sick > 0 && self.sick * treated.of * 2 >= treated.sick * self.of
    }
}

/// With whom agents that have the candidate are compared when they fall sick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Peers {
    /// The others of their group, who were not offered it.
    #[default]
    Group,
    /// All of the fleet to whom no rollout has given anything since theirs began: too few of their group are left without it.
    Fleet,
    /// Nobody is without it. They are compared with themselves: with how they were while they had it already.
    Nobody,
}

/// What a group's agents should have; the roster makes it so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// What the running rollout introduces, for everybody in its cohort.
    pub candidate: Option<ConfigHash>,
    /// Who that is.
    pub cohort: Cohort,
    /// How often that was drawn: counts say which draw they are about.
    pub draws: u32,
    /// When the candidate's rollout started: who falls sick later may have done so because of it.
    pub since: Option<Timestamp>,
    /// True: who does not have the candidate yet is not offered it for now.
    pub holds_back: bool,
    /// True: something else is to take the candidate's place, as soon as that is stored. Whom it has not reached yet does not get it.
    pub replaced: bool,
    /// True: the candidate is stable itself, on its way to agents that a commit moved here; who is not in the cohort keeps what it has.
    pub moving: bool,
    /// True: a person asked for this other try, and who failed the candidate before may be offered it once more.
    pub retry: bool,
    /// Stable goes back to everybody since then: its outcomes count.
    pub restoring_since: Option<Timestamp>,
    /// True: the candidate is an earlier stable; it reaches pinned agents as well.
    pub reverting: bool,
    /// What everybody else should have.
    pub stable: Option<ConfigHash>,
    /// When it became stable; `None`: nothing is.
    pub stable_since: Option<Timestamp>,
    /// True while the rollout stands still because all who have the candidate fell sick together, with nobody to compare them with.
    pub fell_together: bool,
    /// How many rollouts of this process succeeded: with each one, what happened before is settled.
    pub successes: u64,
    /// How often a person asked for another try: with each one, failures of the candidate are forgiven.
    pub retries: u64,
    /// What the newest accepted revision renders; the memory of failures lasts as long as this stays.
    pub wanted: Option<ConfigHash>,
    /// Configurations whose holders keep them until another reaches them: superseded candidates, a failed one.
    pub kept: Vec<ConfigHash>,
    /// What was stable before: who comes with one of these was in this group, and away for a while.
    pub retained: Vec<ConfigHash>,
    /// What orders the agents: the first candidate since stable.
    pub seed: Option<ConfigHash>,
    /// Why nothing may be offered; `None`: offers may be made.
    pub closed: Option<Closed>,
    /// True while outcomes count: from the start of a rollout to its end. Otherwise an ill or vanished agent fails nothing.
    pub watched: bool,
    /// How many agents may be unavailable at once.
    pub max_unavailable: Amount,
    /// The most agents that may be offered at once, as stored in the journal.
    pub room: usize,
    /// The most members among whom offers may be made, as stored in the journal.
    pub reach: usize,
    /// From an offer to its confirmation.
    pub progress_deadline: Duration,
}

impl Closed {
    /// True when only what is new is held back, and what is out already is judged on: it may have to be taken back.
    pub fn only_holds(&self) -> bool {
        match self {
            Self::Pinned { .. } | Self::Unexpected { .. } => true,
            Self::Suspended | Self::Observing | Self::Frozen { .. } | Self::RolloutFailed | Self::NotStored => false,
        }
    }
}

impl Desired {
    /// True when what is introduced was stable here before: what agents said of it then says nothing about now.
    pub fn introduces_old(&self) -> bool {
        let was_stable = self.candidate.is_some_and(|candidate| self.retained.contains(&candidate));
        self.reverting || self.moving || was_stable
    }
}

/// Why a whole group is offered nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// `suspend: true`.
    Suspended,
    /// The daemon only watches.
    Observing,
    /// A person froze it.
    Frozen {
        /// Who, when and why.
        said: Said,
        /// True when that holds for the whole fleet.
        whole_fleet: bool,
    },
    /// A person wants it to keep what it has.
    Pinned {
        /// Until when.
        until: Timestamp,
        /// Who, when and why.
        said: Said,
    },
    /// Fewer or more agents match than the group expects.
    Unexpected {
        /// How many match.
        selected: usize,
        /// At least so many were expected.
        min: Option<u32>,
        /// At most so many were expected.
        max: Option<u32>,
    },
    /// The rollout failed, and agents that do not hold the candidate have nothing to go back to: nothing is stable, or a revert
    /// failed, and stable is what was to be left.
    RolloutFailed,
    /// The record that allows the offers is not stored yet.
    NotStored,
}

/// Why a rollout does not go on at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Nothing may be offered.
    Closed(Closed),
    /// No agent that matches has ever been seen.
    NoAgents,
    /// Agents match, and none of them can be offered anything.
    NobodyEligible {
        /// How many match.
        selected: usize,
    },
    /// Offers wait because enough agents are unavailable.
    Budget {
        /// Agents waiting for an offer.
        pending: usize,
        /// Agents unavailable now.
        unavailable: usize,
        /// Of these: not heard since this process started, and perhaps in the middle of an offer of the one before.
        assumed: usize,
        /// Agents that may be.
        limit: usize,
        /// When there is room at the latest, because these no longer count; `None`: others take it.
        until: Option<Timestamp>,
    },
    /// Agents fell ill only just now; what they are offered next must not be blamed for it, nor excused by it.
    Illness {
        /// How many.
        agents: usize,
    },
    /// Offers are out, their outcome is awaited.
    Confirmation {
        /// How many.
        agents: usize,
        /// When the last of them counts as failed, unless something is heard of it.
        until: Option<Timestamp>,
    },
    /// Agents vanished after their offer and may still come back before their deadline.
    LostAgents {
        /// How many.
        agents: usize,
        /// When the last of them counts as failed.
        until: Option<Timestamp>,
    },
    /// Too many agents came only just now.
    Settling {
        /// When the group is taken as it is.
        until: Timestamp,
    },
    /// More than a fifth of the group is gone without a goodbye.
    TooManyMissing {
        /// How many are gone.
        missing: usize,
        /// Of how many.
        of: usize,
        /// When they are forgotten.
        until: Option<Timestamp>,
    },
    /// Everybody has it, and is watched.
    Soak {
        /// When it ends if all stays well.
        until: Timestamp,
    },
    /// Everybody has it, and is watched before it becomes stable.
    Bake {
        /// When it ends if all stays well.
        until: Timestamp,
    },
    /// Watched time stands still, because too many of those who were offered are not connected.
    NotWatching {
        /// How many are connected.
        connected: usize,
        /// Of how many.
        of: usize,
    },
    /// Nobody confirmed: without a single proof nothing becomes stable.
    NoProof,
    /// The rollout stopped; the group keeps what it has until a commit changes what is wanted, or a person asks for another try.
    Failed {
        /// Why.
        cause: Cause,
        /// What became of the way back.
        way_back: WayBack,
        /// True when there is nothing stable to go back to.
        nothing_stable: bool,
    },
    /// The rollout stopped, and stable goes back to its agents.
    RollingBack {
        /// Why.
        cause: Cause,
        /// Agents that are not back yet.
        left: usize,
    },
    /// A person, or the commit itself, holds the rollout.
    Paused {
        /// Who, when and why.
        said: Said,
    },
    /// A stage needs a person's word before it starts.
    Approval {
        /// Which.
        stage: String,
    },
    /// No stage may start at this time.
    Window(OutsideWindows),
    /// Another group has to finish first.
    Prerequisite {
        /// Which and why, in words.
        reason: String,
    },
    /// Agents are sick with the candidate, and it is not the candidate as far as can be told.
    Outage {
        /// Those that have it.
        treated: Sickness,
        /// Those with whom they are compared.
        peers: Sickness,
        /// Who that is.
        with: Peers,
        /// True when these are well again: the others have a moment to follow.
        is_over: bool,
    },
    /// The next stage waits until the record of it is stored and its agents are known.
    Opening {
        /// Which.
        stage: String,
    },
    /// A person went back behind what the repository says.
    Undone {
        /// Who, when and why.
        said: Said,
    },
    /// A newer commit waits for the end of the running rollout.
    NewerCommit,
}

impl Waiting {
    /// When it is over by itself, at the latest; `None`: that depends on agents, on a person or on the repository.
    pub fn until(&self) -> Option<Timestamp> {
        match self {
            Self::Closed(Closed::Pinned { until, .. })
            | Self::Settling { until }
            | Self::Soak { until }
            | Self::Bake { until } => Some(*until),
            Self::Budget { until, .. }
            | Self::TooManyMissing { until, .. }
            | Self::Confirmation { until, .. }
            | Self::LostAgents { until, .. } => *until,
            Self::Window(outside) => outside.opens,
            Self::Closed(
                Closed::Suspended
                | Closed::Observing
                | Closed::Frozen { .. }
                | Closed::Unexpected { .. }
                | Closed::RolloutFailed
                | Closed::NotStored,
            )
            | Self::NoAgents
            | Self::NobodyEligible { .. }
            | Self::Illness { .. }
            | Self::NotWatching { .. }
            | Self::NoProof
            | Self::Failed { .. }
            | Self::RollingBack { .. }
            | Self::Paused { .. }
            | Self::Approval { .. }
            | Self::Prerequisite { .. }
            | Self::Outage { .. }
            | Self::Opening { .. }
            | Self::Undone { .. }
            | Self::NewerCommit => None,
        }
    }
}
