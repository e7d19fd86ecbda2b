//! What a person sees and says: statuses, reports, reasons and commands, in the words that log, note, status and page share.
//!
//! These types are the JSON of the admin interface and the YAML of the notes; their field names are a promise to scripts.

pub mod command;
pub mod explain;
pub mod operator;
pub mod present;
pub mod stages;
pub mod text;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// What became of a commit, or of one group in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// Every agent that could be had runs it.
    Succeeded,
    /// Too many agents could not use it; it stopped there.
    Failed,
    /// It failed, and its agents went back to stable.
    RolledBack,
    /// A newer commit took its place.
    Superseded,
    /// Nothing had to be sent.
    NoOp,
    /// It was refused before anything was sent.
    Rejected,
    /// No agent matched yet.
    Unproven,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::RolledBack => "rolled-back",
            Self::Superseded => "superseded",
            Self::NoOp => "no-op",
            Self::Rejected => "rejected",
            Self::Unproven => "unproven",
        })
    }
}

/// Why something waits, or why agents are held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaitingOn {
    /// A stable name of the kind, like `budget`, for scripts.
    pub reason: String,
    /// The sentence for people, with the numbers.
    pub message: String,
    /// How many agents this concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agents: Option<usize>,
    /// When it ends by itself at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// The agents of a group by what they are to its rollout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Counts {
    /// Agents that the group selects and that are connected.
    pub selected: usize,
    /// Of these: may be offered something, and tell what becomes of it.
    pub eligible: usize,
    /// Offered the wanted configuration, and neither confirmed nor failed.
    pub offered: usize,
    /// Run what the group wants them to run, and are well.
    pub confirmed: usize,
    /// Could not use it.
    pub failed: usize,
    /// Selected, but not to be offered it; the reasons are listed.
    pub held: usize,
    /// Will be offered it when there is room.
    pub pending: usize,
    /// Not connected: said goodbye, or left before any offer.
    pub away: usize,
    /// Not connected: vanished after an offer.
    pub lost: usize,
    /// Take from the budget.
    pub unavailable: usize,
    /// Wait for a later stage.
    pub later: usize,
}

/// Failures that are alike.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailureCluster {
    /// The message, with numbers and ids taken out.
    pub message: String,
    /// How many agents said so.
    pub count: usize,
    /// One of them.
    pub example: String,
    /// Labels (`os.type=windows`) that nine in ten of them share and one in ten of their peers at most; empty when there are none, or
    /// too few agents to tell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_common: Vec<String>,
    /// How many of them have all of these labels.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub sharing: usize,
    /// Their peers: agents of the group that run it or, where too few do, that have not failed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub peers: usize,
    /// How many of the peers have all of these labels as well.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub peers_sharing: usize,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl FailureCluster {
    /// What the failed have in common and their peers have not, as a sentence; `None` when nothing is known of it.
    pub fn commonality(&self) -> Option<String> {
        (!self.in_common.is_empty()).then(|| {
            format!(
                "{} of {} failed: {}; {} of {} others",
                self.sharing,
                self.count,
                self.in_common.join(", "),
                self.peers_sharing,
                self.peers
            )
        })
    }
}

/// One group in a commit's note.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupReport {
    /// What became of it; absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
    /// The running stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// The stable configuration's hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<String>,
    /// The hash that the commit introduces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<String>,
    /// The agents.
    pub counts: Counts,
    /// Why it waits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_on: Vec<WaitingOn>,
    /// How agents failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<FailureCluster>,
    /// What was wrong with its files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<String>,
    /// When its rollout started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
}

impl GroupReport {
    /// A part that was over at once, with the reason.
    pub fn ended(ending: Ending, reason: &str, now: Timestamp) -> Self {
        Self {
            ending: Some(ending),
            stage: None,
            stable: None,
            candidate: None,
            counts: Counts::default(),
            waiting_on: Vec::new(),
            failures: Vec::new(),
            diagnostics: vec![reason.to_owned()],
            started_at: None,
            ended_at: Some(now),
        }
    }
}

/// The note on one commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommitReport {
    /// `main@sha1:<commit>`.
    pub revision: String,
    /// What became of it; absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
    /// Who committed it.
    pub committer: String,
    /// Who wrote it, when that is somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The first line of its message.
    pub subject: String,
    /// When it was taken.
    pub synced_at: Timestamp,
    /// When the last of its groups ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// True when it does not descend from what was followed before (a force push).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rewritten_history: bool,
    /// True when nobody can tell whether it does, because its history was not fetched (`--depth 1`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unknown_history: bool,
    /// The commit that was accepted before it: what both differ in came with this one. Absent when there was none, or it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Errors that concern no group in particular.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<String>,
    /// The groups that it changed. Large fleets are summarised.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<String, GroupReport>,
    /// Groups left out above, by ending.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub more_groups: BTreeMap<String, usize>,
}

/// Groups that a note names one by one; more are summed up, the successful ones first.
pub const MOST_GROUPS_IN_A_NOTE: usize = 100;

impl CommitReport {
    /// The ending that the endings of its groups add up to; `None` while one of them is open.
    pub fn overall(&self) -> Option<Ending> {
        const BY_WEIGHT: [Ending; 6] = [
            Ending::Failed,
            Ending::RolledBack,
            Ending::Rejected,
            Ending::Superseded,
            Ending::Unproven,
            Ending::Succeeded,
        ];
        let endings: Option<Vec<Ending>> = self.groups.values().map(|group| group.ending).collect();
        let endings = endings?;
        Some(BY_WEIGHT.into_iter().find(|ending| endings.contains(ending)).unwrap_or(Ending::NoOp))
    }

    /// True when [`CommitReport::summarised`] leaves nothing out.
    pub fn is_short(&self) -> bool {
        self.groups.len() <= MOST_GROUPS_IN_A_NOTE
    }

    /// The same, short enough for a note: groups that went well are counted when there are too many.
    #[must_use]
    pub fn summarised(&self) -> Self {
        let mut short = self.clone();
        let weight = |group: &GroupReport| match group.ending {
            Some(Ending::Failed | Ending::RolledBack | Ending::Rejected) => 0,
            None => 1,
            Some(Ending::Superseded | Ending::Succeeded | Ending::NoOp | Ending::Unproven) => 2,
        };
        let mut names: Vec<(u8, String)> =
            short.groups.iter().map(|(name, group)| (weight(group), name.clone())).collect();
        names.sort();
        for (_, name) in names.into_iter().skip(MOST_GROUPS_IN_A_NOTE) {
            if let Some(group) = short.groups.remove(&name) {
                let ending = group.ending.map_or_else(|| "running".to_owned(), |ending| ending.to_string());
                *short.more_groups.entry(ending).or_default() += 1;
            }
        }
        short
    }
}

/// What a group is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Nothing to do: the group has what the repository says.
    #[default]
    Steady,
    /// The repository says something that no agent is there to prove.
    Unproven,
    /// A rollout is running.
    Rolling,
    /// All have it; it is watched.
    Soaking,
    /// A rollout stopped, and stable goes back to its agents.
    RollingBack,
    /// A rollout stopped, and its agents are back on stable: the repository says one thing, the group has another.
    RolledBack,
    /// A person went back behind what the repository says.
    Undone,
    /// A rollout failed: the repository says one thing, the group keeps another.
    Failed,
    /// It may not start; the reasons say why.
    Held,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Steady => "steady",
            Self::Unproven => "unproven",
            Self::Rolling => "rolling",
            Self::Soaking => "soaking",
            Self::RollingBack => "rolling-back",
            Self::RolledBack => "rolled-back",
            Self::Undone => "undone",
            Self::Failed => "failed",
            Self::Held => "held",
        })
    }
}

impl GroupStatus {
    /// The orders that no reason for waiting tells of anyway.
    pub fn further_orders(&self) -> impl Iterator<Item = &str> {
        let orders = self.orders.iter().map(String::as_str);
        orders.filter(|order| !self.waiting_on.iter().any(|waiting| waiting.message.contains(order)))
    }
}

/// Where a stage of a rollout is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StageState {
    /// Its turn has not come.
    #[default]
    Waiting,
    /// Its agents are offered the candidate.
    Running,
    /// Its agents have it, and are watched.
    Soaking,
    /// It was the last, and the whole group is watched before the candidate becomes stable.
    Baking,
    /// It is through.
    Done,
    /// The rollout ended in it.
    Failed,
}

impl fmt::Display for StageState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Soaking => "soaking",
            Self::Baking => "baking",
            Self::Done => "done",
            Self::Failed => "failed",
        })
    }
}

/// One stage of a rollout, now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StageStatus {
    /// Its name in the strategy.
    pub name: String,
    /// How many agents have the candidate when it is through, those of the stages before included.
    pub size: usize,
    /// How many of these have it and are well.
    pub confirmed: usize,
    /// How many of these failed.
    #[serde(skip_serializing_if = "is_zero")]
    pub failed: usize,
    /// Where it is.
    pub state: StageState,
    /// When the timer that runs in it ends, if all stays well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// True when a person has to approve it before it starts (`approval: manual`), and nobody has.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub needs_approval: bool,
}

/// Restarts that a person ordered of a group's agents, until the last was told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RestartStatus {
    /// Agents that were told to restart.
    pub told: usize,
    /// Agents that wait for their turn.
    pub waiting: usize,
    /// Why they wait; empty when they go on at once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waiting_on: Vec<WaitingOn>,
}

impl fmt::Display for RestartStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = self.told + self.waiting;
        let wait = if self.waiting == 1 { "waits" } else { "wait" };
        write!(f, "{} of {of} told to restart, {} {wait}", self.told, self.waiting)
    }
}

/// One group, now. Made with `..GroupStatus::default()`, so that it can grow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupStatus {
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub phase: Phase,
    /// The revision that it last accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The hash that this revision renders for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<String>,
    /// The hash it last finished a rollout of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<String>,
    /// The hash being introduced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<String>,
    /// The running stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// Its agents.
    pub counts: Counts,
    /// Why it waits, and why agents are held.
    pub waiting_on: Vec<WaitingOn>,
    /// How agents failed.
    pub failures: Vec<FailureCluster>,
    /// What is wrong with its files in the newest revision.
    pub diagnostics: Vec<String>,
    /// When the running or last rollout started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// The stages of the running or last rollout, in their order; empty when there is none, or only one of everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<StageStatus>,
    /// What operators ordered that still holds (pauses, undos, pins, freezes), a sentence each, with who and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub orders: Vec<String>,
    /// The restarts that a person ordered; absent when nobody waits for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts: Option<RestartStatus>,
    /// The hash that was taken back from the group although the repository still says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<String>,
    /// The revision that brought what is being introduced or failed; when that is nothing, what is stable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brought_by: Option<String>,
}

/// How following the repository goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncStatus {
    /// The repository, without credentials.
    pub repository: String,
    /// The newest revision that was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The subject of its commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// When the remote last answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success: Option<Timestamp>,
    /// When it is asked next, without a bell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt: Option<Timestamp>,
    /// Why the last attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// True when the remote has not answered for three intervals, or what it answered cannot be followed.
    pub stale: bool,
    /// True when the remote's head, as far as it is known, is not taken because of who signed it; the error says why, unless the remote is
    /// out of reach now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refused: bool,
    /// True when the last attempt failed for another reason than that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unreachable: bool,
    /// The last webhook that came from somebody who knows the secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_hook: Option<LastHook>,
}

/// A webhook that came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastHook {
    /// When.
    pub at: Timestamp,
    /// Whose software sent it: `GitHub`, `GitLab`, `Forgejo`, ...
    pub forge: String,
    /// What it was about, and whether anything followed from it, in words.
    pub about: String,
}

/// How writing the journal goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JournalStatus {
    /// When a record was last stored locally.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_stored: Option<Timestamp>,
    /// When the remote last took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_pushed: Option<Timestamp>,
    /// Why storing or pushing failed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// True while nothing can be stored here, so that nothing new is offered; the error says why.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub blocked: bool,
    /// True when the remote takes no notes, or none are sent (`--no-push`), so that they stay here.
    pub local_only: bool,
    /// True when the remote's ref holds something that is no journal, and is therefore left alone.
    #[serde(default)]
    pub foreign: bool,
    /// What was found last in the remote's ref in place of our records, and not believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disbelieved: Option<String>,
}

/// Agents by where they stand, over the whole fleet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentCounts {
    /// Connected now.
    pub connected: usize,
    /// Of these: in exactly one group.
    pub managed: usize,
    /// Connected, in no group; those whose group was removed are among them.
    pub unmanaged: usize,
    /// Connected, in several groups at equal priority.
    pub conflict: usize,
    /// Connected, not heard completely yet.
    pub unknown: usize,
    /// Not connected, not forgotten yet.
    pub away: usize,
}

/// Telling a forge what becomes of commits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ForgeStatus {
    /// Which forge.
    pub kind: String,
    /// The repository's full name there.
    pub project: String,
    /// When it last took something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_told: Option<Timestamp>,
    /// Why it did not take the last thing; absent when it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Who may speak on the agents' port, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListenerStatus {
    /// True when only TLS is spoken there.
    pub tls: bool,
    /// What proves who an agent is: `certificates`, `tokens`, `issuers`; empty: nobody is asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub proofs: Vec<String>,
    /// When the server's certificate ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_expires: Option<Timestamp>,
    /// What is wrong with its files; what was read before is in use.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// Alerting: what needs a person, and who was told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AlertsStatus {
    /// Incidents that have not ended: what they are about, one line each, the oldest first.
    pub open: Vec<OpenIncident>,
    /// Incidents that have not ended and are not named above.
    #[serde(skip_serializing_if = "is_zero")]
    pub more: usize,
    /// What else is wrong and belongs to no incident, because there are too many: by group.
    #[serde(skip_serializing_if = "is_zero")]
    pub left_out: usize,
    /// Who is told, in the order of the settings.
    pub receivers: Vec<ReceiverStatus>,
}

/// An incident that has not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OpenIncident {
    /// Its id, the same in every message about it.
    pub id: String,
    /// `warning` or `critical`.
    pub severity: String,
    /// What it is about, in one line.
    pub title: String,
    /// Since when.
    pub since: Timestamp,
}

/// Somebody who is told of incidents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReceiverStatus {
    /// Its name in the settings.
    pub name: String,
    /// `webhook`, `slack` or `alertmanager`.
    pub kind: String,
    /// When it last took a message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_sent: Option<Timestamp>,
    /// Why it did not take the last one; absent when it did. It never holds the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Everything `gitamp status` shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FleetStatus {
    /// This daemon's `--instance`.
    pub instance: String,
    /// Its version.
    pub version: String,
    /// When it was asked.
    pub now: Timestamp,
    /// True when it only watches (`--observe`).
    pub observe: bool,
    /// Following the repository.
    pub sync: SyncStatus,
    /// Writing the journal.
    pub journal: JournalStatus,
    /// Telling a forge; absent when none is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forge: Option<ForgeStatus>,
    /// Who may speak as an agent.
    #[serde(default)]
    pub listener: ListenerStatus,
    /// Alerts; absent when nobody is alerted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alerts: Option<AlertsStatus>,
    /// The agents.
    pub agents: AgentCounts,
    /// The groups, by name.
    pub groups: Vec<GroupStatus>,
    /// Commits whose rollouts run, and the newest one; newest first.
    pub commits: Vec<CommitReport>,
    /// Errors of the newest revision that concern no group in particular.
    pub diagnostics: Vec<String>,
}

/// One agent, now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    /// Its instance uid.
    pub id: String,
    /// Its group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Where it stands: `confirmed`, `offered`, `pending`, `failed`, `held`, `away`, `lost`, `unmanaged`, `orphaned`,
    /// `conflict`, `unknown`.
    pub state: String,
    /// Why, when it is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `websocket` or `http`.
    pub transport: String,
    /// True when it is connected.
    pub connected: bool,
    /// The hash it reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// `applied`, `applying`, `failed` or `unset`.
    pub config_status: String,
    /// What it said when it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_message: Option<String>,
    /// The hash it should have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<String>,
    /// What it says of its health; absent when it does not report any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy: Option<bool>,
    /// What it said when it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_message: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The names of those labels that a certificate or a token gave; the others are what the agent says of itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proven: Vec<String>,
    /// The components and pipelines it runs: names only, never values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub components: Vec<String>,
    /// The components that its build could run, when it told; only shown when one agent is asked for, because there are hundreds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub available_components: Vec<String>,
}

/// Which agents to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentQuery {
    /// Only of this group.
    pub group: Option<String>,
    /// Only in this state.
    pub state: Option<String>,
    /// Only this one: an id or the beginning of one.
    pub id: Option<String>,
    /// At most so many (1,000 when nothing is said, 100,000 at most).
    pub limit: Option<usize>,
}

/// The answer to an [`AgentQuery`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentList {
    /// The agents, by id.
    pub agents: Vec<AgentStatus>,
    /// How many matched and were left out.
    pub more: usize,
}

/// What one group has to do with an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupMatch {
    /// The group.
    pub group: String,
    /// Its priority.
    pub priority: i32,
    /// `chosen`, `conflict`, `outranked`, `varied` or `unmet`.
    pub verdict: String,
    /// The same in words.
    pub why: String,
}

/// Why an agent has what it has. Each list holds sentences, in the order in which they are to be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Explanation {
    /// The agent.
    pub agent: AgentStatus,
    /// Which group it belongs to and why, or why to none.
    pub belongs: Vec<String>,
    /// What it says of itself.
    pub reports: Vec<String>,
    /// What it should have, and why that.
    pub should_have: Vec<String>,
    /// What comes next, or what stands in the way.
    pub next: Vec<String>,
    /// The groups that select it or nearly do, its own among them; the nearest ones.
    pub matches: Vec<GroupMatch>,
}
