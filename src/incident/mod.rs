//! What needs a person: incidents, from the first sign of one to its end, and who is told what of them when. Pure: time is an argument.
//!
//! [`find`] reads out of a [`FleetStatus`](crate::view::FleetStatus) what is wrong at this moment. [`watch`] makes incidents of it: what
//! stands for a moment begins one, what is gone for a moment ends it, and what cannot be known (the daemon has only just started) changes
//! nothing. What happens in several groups for the same reason, one commit or one order, is one incident. [`desk`] decides for one receiver
//! what it is told next, [`words`] says it.

pub mod desk;
pub mod find;
pub mod watch;
pub mod words;

#[cfg(test)]
mod bad_days;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;
use crate::view::{Counts, FailureCluster};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Somebody should look.
    Warning,
    /// Somebody should look now.
    Critical,
}

impl Severity {
    /// Both, the lesser first.
    pub const ALL: [Self; 2] = [Self::Warning, Self::Critical];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What an incident is about. Together with its subject it tells one incident from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Topic {
    /// A commit in the groups that get it.
    Rollout,
    /// An order that holds rollouts.
    Order,
    /// A commit that a guard holds.
    Guard,
    /// Files that are refused.
    Files,
    /// A head that is not taken because of who signed it.
    Head,
    /// The repository cannot be followed.
    Sync,
    /// Nothing can be stored.
    Journal,
    /// What is stored does not reach the remote.
    Push,
}

impl Topic {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rollout => "rollout",
            Self::Order => "order",
            Self::Guard => "guard",
            Self::Files => "files",
            Self::Head => "head",
            Self::Sync => "sync",
            Self::Journal => "journal",
            Self::Push => "push",
        }
    }
}

/// What is wrong, in one group or in the whole fleet. Later ones weigh more where several are true of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Situation {
    /// Agents could not use what they were offered; the rollout goes on, or went well for enough of the others.
    AgentsFailing,
    /// More or fewer agents match than the group expects.
    UnexpectedAgents,
    /// The rollout has stood still for longer than it should.
    WaitsTooLong,
    /// Agents fall sick, and not because of what is being introduced as far as can be told: the rollout stands still.
    Outage,
    /// Too many agents failed: stable goes back to everybody.
    RollingBack,
    /// The same, and it is done.
    RolledBack,
    /// Too many agents failed, or the way back stopped: a person has to say what comes next.
    RolloutFailed,
    /// A person paused a rollout.
    Paused,
    /// A person froze the group or the fleet while a rollout was under way.
    Frozen,
    /// A guard holds a commit until a person promotes it.
    Guarded,
    /// Files of a commit are refused.
    Rejected,
    /// The head of what is followed is refused because of its signatures.
    HeadRefused,
    /// The repository cannot be followed.
    SyncStale,
    /// The journal cannot be stored, so nothing new is offered.
    JournalNotStored,
    /// The journal does not reach the remote.
    JournalNotPushed,
}

impl Situation {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::AgentsFailing => "agents-failing",
            Self::UnexpectedAgents => "unexpected-agents",
            Self::WaitsTooLong => "waits-too-long",
            Self::Outage => "outage",
            Self::RollingBack => "rolling-back",
            Self::RolledBack => "rolled-back",
            Self::RolloutFailed => "rollout-failed",
            Self::Paused => "paused",
            Self::Frozen => "frozen",
            Self::Guarded => "guarded",
            Self::Rejected => "rejected",
            Self::HeadRefused => "head-refused",
            Self::SyncStale => "sync-stale",
            Self::JournalNotStored => "journal-not-stored",
            Self::JournalNotPushed => "journal-not-pushed",
        }
    }

    /// How bad it is, unless somebody wanted it so.
    pub fn severity(self) -> Severity {
        match self {
            Self::AgentsFailing
            | Self::UnexpectedAgents
            | Self::WaitsTooLong
            | Self::Paused
            | Self::Frozen
            | Self::Guarded
            | Self::Rejected
            | Self::JournalNotPushed => Severity::Warning,
            Self::Outage
            | Self::RollingBack
            | Self::RolledBack
            | Self::RolloutFailed
            | Self::HeadRefused
            | Self::SyncStale
            | Self::JournalNotStored => Severity::Critical,
        }
    }
}

/// The commit that it came with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Commit {
    /// `main@sha1:<commit>`.
    pub revision: String,
    /// The first line of its message; empty when it is not known.
    pub subject: String,
    /// Who committed it; empty when it is not known.
    pub author: String,
}

impl Commit {
    /// Its id in full.
    pub fn id(&self) -> &str {
        self.revision.rsplit(':').next().unwrap_or_default()
    }

    /// Its id as people write it.
    pub fn short(&self) -> String {
        self.id().chars().take(7).collect()
    }
}

/// What is wrong in one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    /// What.
    pub situation: Situation,
    /// How bad it is.
    pub severity: Severity,
    /// Why, in a sentence.
    pub message: String,
    /// The running stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// The agents.
    #[serde(default)]
    pub counts: Counts,
    /// How agents failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<FailureCluster>,
    /// How far the rollout was, for what waits too long: it has moved on when this differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<find::Mark>,
    /// Why it is over, where that is not as the topic says ([`words::ending`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<String>,
}

/// What became of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// What is wrong, or was last.
    pub part: Part,
    /// The worst that it was.
    pub worst: Severity,
    /// Since when.
    pub since: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
}

/// One incident, as far as it concerns somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// The same in every message about it, also after a restart.
    pub id: String,
    /// Which daemon saw it (`--instance`).
    pub instance: String,
    /// What it is about.
    pub topic: Topic,
    /// The commit that it came with, when there is one.
    pub commit: Option<Commit>,
    /// Since when.
    pub since: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// By group; what concerns no group in particular stands under the empty name. Never empty.
    pub sections: BTreeMap<String, Section>,
}

impl Incident {
    /// How bad it is; once it ended, how bad it was.
    pub fn severity(&self) -> Severity {
        let sections = || self.sections.values();
        let open = sections().filter(|section| section.ended.is_none()).map(|section| section.part.severity).max();
        open.or_else(|| sections().map(|section| section.worst).max()).unwrap_or(Severity::Warning)
    }

    /// The section that weighs most: of those that have not ended, when there is one.
    pub fn worst(&self) -> Option<(&str, &Section)> {
        let weight = |section: &Section| (section.ended.is_none(), section.part.severity, section.part.situation);
        let first = |one: &(&String, &Section), other: &(&String, &Section)| {
            // Of two that weigh the same, the one whose name comes first.
            weight(one.1).cmp(&weight(other.1)).then_with(|| other.0.cmp(one.0))
        };
        self.sections.iter().max_by(first).map(|(name, section)| (name.as_str(), section))
    }

    /// The same for somebody who hears only of what is this bad, in groups of which `concerns` says true (the empty name stands for what
    /// concerns no group in particular); `None`: it is none of their business. What once was this bad remains it until it ends.
    #[must_use]
    pub fn for_whom(&self, least: Severity, concerns: impl Fn(&str) -> bool) -> Option<Self> {
        let mut own = self.clone();
        own.sections.retain(|name, section| section.worst >= least && concerns(name));
        own.since = own.sections.values().map(|section| section.since).min()?;
        let ends = own.sections.values().map(|section| section.ended);
        own.ended = ends.collect::<Option<Vec<Timestamp>>>().and_then(|ends| ends.into_iter().max());
        Some(own)
    }
}
