//! What must be remembered of a group's rollout: enough for a fresh process to go on where the last one was.

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

/// Where a rollout is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "is")]
pub enum Progress {
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
    /// It stopped.
    Failed {
        /// How many agents had failed.
        failed: usize,
        /// How many were allowed to.
        allowed: usize,
    },
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
    /// The stage it is in, from 0.
    #[serde(default)]
    pub stage: usize,
    /// Where it is.
    pub progress: Progress,
}

/// What must be remembered of one group's rollouts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupRecord {
    /// What the newest accepted revision renders.
    pub wanted: Option<ConfigHash>,
    /// The configurations that finished a whole rollout, the newest (stable) first, at most three.
    pub stables: Vec<ConfigHash>,
    /// The rollout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutRecord>,
    /// Candidates that were superseded since stable: whoever holds one keeps it until the next reaches them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub superseded: Vec<ConfigHash>,
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
