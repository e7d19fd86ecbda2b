//! What must be remembered of a group's rollout: enough for a fresh process to go on where the last one was.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::ConfigHash;
use crate::time::Timestamp;

/// What a rollout is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Something new.
    Forward,
    /// Back to one of the last three stable configurations.
    Revert,
    /// What is stable already, for agents that a commit moved here.
    Move,
}

/// Who ordered something, when and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Said {
    /// Who.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// Why, in the operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Why a rollout stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "is")]
pub enum Cause {
    /// More agents failed than allowed.
    TooManyFailures {
        /// How many had failed.
        failed: usize,
        /// How many were allowed to.
        allowed: usize,
    },
    /// A person ended it.
    Aborted {
        /// Who, when and why.
        said: Said,
    },
}

/// What became of the way back to stable after a rollout stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "is")]
pub enum WayBack {
    /// None was taken: the agents keep what they have.
    None,
    /// Everybody is back on stable, but for those who could not use it.
    Done {
        /// How many that are.
        #[serde(default, skip_serializing_if = "is_zero")]
        failed: usize,
    },
    /// It failed as well, and stopped.
    Failed {
        /// How many agents failed stable.
        failed: usize,
        /// How many were allowed to.
        allowed: usize,
    },
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// Where a rollout is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "is")]
pub enum Progress {
    /// The stage has not begun.
    Opening,
    /// Offers are made to the stage.
    Rolling,
    /// The stage is confirmed and watched.
    Soaking {
        /// How long it was watched already.
        #[serde(with = "millis")]
        watched: Duration,
    },
    /// The last stage is through, and the group is watched.
    Baking {
        /// How long it was watched already.
        #[serde(with = "millis")]
        watched: Duration,
    },
    /// It stopped, and stable goes back to everybody.
    RollingBack {
        /// Why it stopped.
        cause: Cause,
        /// Since when. An outcome of stable counts only when it was offered since.
        since: Timestamp,
    },
    /// It stopped.
    Failed {
        /// Why.
        cause: Cause,
        /// What became of the way back.
        way_back: WayBack,
    },
}

/// The thresholds that were drawn when stages opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Drawn {
    /// The labels whose values make the kinds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub spread_by: Vec<String>,
    /// True when only values that credentials gave make kinds.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub spread_proven: bool,
    /// For each large kind: the highest rank that is in; `None`: nobody of this kind yet.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub strata: BTreeMap<String, Option<u64>>,
    /// The same for all others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rest: Option<u64>,
}

/// A rollout that has not come to an end, or that failed and was not replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutRecord {
    /// What it introduces.
    pub candidate: ConfigHash,
    /// What orders the agents: the first candidate since stable.
    pub seed: ConfigHash,
    /// What it is for.
    pub kind: Kind,
    /// When it started.
    pub started: Timestamp,
    /// The revision that brought it.
    pub revision: String,
    /// The stage it is in, from 0.
    pub stage: usize,
    /// Where it is.
    pub progress: Progress,
    /// Who is in the stages that were opened, beside those whom a stage's selector names.
    #[serde(default, skip_serializing_if = "Drawn::is_empty")]
    pub drawn: Drawn,
    /// How many agents the opened stages had when the last of them was opened.
    pub size: usize,
    /// How often a cohort was drawn: counts of agents are about one of them.
    pub draws: u32,
    /// True when the stage added somebody who did not have the candidate already.
    pub adds: bool,
    /// True once any stage did.
    pub introduced: bool,
    /// How often all agents of a stage had vanished, and others were drawn in their place: once a stage at most.
    pub replaced: usize,
    /// The stage in which that happened last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_in: Option<usize>,
    /// A person asked for this other try: who failed the candidate before may be offered it once more.
    pub retry: bool,
    /// Stages below this one are approved.
    pub approved: usize,
    /// True when a person skips the wait that runs: for the stage's start (a window, for example), its soak, or the bake. The next wait is
    /// another one.
    pub hurried: bool,
    /// A person wants it to begin although groups that it depends on have not finished.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub alone: bool,
    /// One stage of everybody, without a watch: its commit said so, and may.
    pub fast: bool,
    /// The commit itself holds it until a person says more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Said>,
    /// A person holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Said>,
    /// All who have the candidate fell sick together, with nobody to compare them with: it stands still until they are well.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fell_together: bool,
}

impl RolloutRecord {
    /// One stage of everybody: reverts, and what a commit may have fast.
    pub fn takes_everybody(&self) -> bool {
        self.kind == Kind::Revert || self.fast
    }
}

/// What a person ordered in the repository's place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Undone {
    /// What the group is to have.
    pub to: ConfigHash,
    /// Who, when and why.
    pub said: Said,
    /// The hold of the commit that is gone behind, which nobody ended: it holds again when the undo ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Said>,
}

/// A group that keeps what it has for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pin {
    /// Until when.
    pub until: Timestamp,
    /// Who, when and why.
    pub said: Said,
}

/// How a configuration became stable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Promoted {
    /// When its rollout started.
    pub started: Timestamp,
    /// When it became stable; `None`: the record is of a release that did not write it down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// The revision that brought it.
    pub revision: String,
    /// When and how it had become that before, the newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Earlier>,
}

impl Promoted {
    /// Every start of a rollout that made it stable, with the revision, the newest first.
    pub fn times(&self) -> impl Iterator<Item = (Timestamp, &str)> {
        let earlier = self.earlier.iter().rev().map(|one| (one.started, one.revision.as_str()));
        std::iter::once((self.started, self.revision.as_str())).chain(earlier)
    }
}

/// How a configuration had become stable before it did once more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Earlier {
    /// When its rollout started.
    pub started: Timestamp,
    /// The revision that brought it.
    pub revision: String,
}

/// What must be remembered of one group's rollouts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupRecord {
    /// What the newest accepted revision renders.
    pub wanted: Option<ConfigHash>,
    /// The configurations that finished a whole rollout, the newest (stable) first, at most three.
    pub stables: Vec<ConfigHash>,
    /// When the first rollout started that made something stable here; `None`: none has, or a release wrote this that did not remember.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_stable: Option<Timestamp>,
    /// How each of them became that.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub promoted: BTreeMap<ConfigHash, Promoted>,
    /// The rollout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutRecord>,
    /// Candidates that were superseded since stable: whoever holds one keeps it until the next reaches them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub superseded: Vec<ConfigHash>,
    /// A person went back behind what the repository says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undone: Option<Undone>,
    /// The group keeps what it has for a while.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pinned: Option<Pin>,
    /// Nothing at all is offered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frozen: Option<Said>,
    /// How often a person asked for another try: with each one, failures before it are forgiven.
    pub retries: u64,
    /// The most agents that could be in the middle of an offer.
    pub room: usize,
    /// The most members, connected or not, among whom offers could be made: whoever is not back after a restart may be in the middle
    /// of one.
    pub reach: usize,
    /// How many agents the group had when this was written.
    pub population: usize,
}

mod millis {
    //! Durations as whole milliseconds.
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(length: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(length.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}
