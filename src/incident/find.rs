//! Reads out of a status what is wrong at this moment.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::incident::{Commit, Part, Severity, Situation, Topic};
use crate::time::{Timestamp, show_duration};
use crate::view::present::ABORTED;
use crate::view::text::{clip, plain};
use crate::view::{CommitReport, Counts, Ending, FleetStatus, GroupStatus, Phase, WaitingOn};

/// Characters of one sentence in an incident.
pub const LONGEST_SENTENCE: usize = 400;

/// Characters of a name in an incident.
const LONGEST_NAME: usize = 200;

/// Between two looks no more than this counts as waited: a process that stood still has not watched anything wait.
const LONGEST_LOOK: Duration = Duration::from_secs(60);

/// Why a rollout waits when that is as it should be: the strategy says so, a person does, or another incident tells of it.
const AS_IT_SHOULD: [&str; 14] = [
    "soak",
    "bake",
    "window",
    "approval",
    "opening",
    "settling",
    "paused",
    "frozen",
    "pinned",
    "suspended",
    "observing",
    "journal",
    "guard",
    "no-agents",
];

/// How an error begins that tells of the journal's way to the remote.
const PUSHING: &str = "pushing failed";

/// What counts as too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For a rollout to stand still without a reason that its strategy or a person gave.
    pub waits_too_long: Duration,
    /// For the repository or the journal's remote not to be reached.
    pub stale_after: Duration,
}

/// What the daemon knows at a moment.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The status, of which settled groups may be missing.
    pub status: &'a FleetStatus,
    /// False while the daemon starts, and knows nothing of groups, commits and the journal.
    pub is_whole: bool,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it is about.
    pub topic: Topic,
    /// What of that: a commit, an order, a text. Empty where there can only be one.
    pub subject: String,
    /// The group; empty when it concerns none in particular.
    pub group: String,
    /// The commit that it came with.
    pub commit: Option<Commit>,
    /// What is wrong.
    pub part: Part,
}

/// How far a rollout is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Mark {
    /// What it introduces.
    pub candidate: Option<String>,
    /// Its stage.
    pub stage: Option<String>,
    /// The most agents that had confirmed it.
    pub confirmed: usize,
}

#[derive(Clone, Debug)]
struct Wait {
    mark: Mark,
    waited: Duration,
    looked: Timestamp,
}

/// For how long things have been as they are.
#[derive(Clone, Debug, Default)]
pub struct Clocks {
    waits: BTreeMap<String, Wait>,
    sync: Option<Timestamp>,
    push: Option<Timestamp>,
}

impl Clocks {
    /// This group had waited too long when the process before ended: it still does, unless it has moved on.
    pub(super) fn resume(&mut self, group: &str, mark: Mark, limits: &Limits, now: Timestamp) {
        let wait = Wait { mark, waited: limits.waits_too_long, looked: now };
        self.waits.insert(group.to_owned(), wait);
    }

    /// Looks at the time.
    pub(super) fn handle(&mut self, seen: &Seen<'_>) {
        let status = seen.status;
        let now = status.now;
        let is_stale = status.sync.error.is_some() && (!status.sync.refused || status.sync.unreachable);
        self.sync = is_stale.then(|| self.sync.unwrap_or(now));
        let is_unpushed = status.journal.error.as_ref().is_some_and(|error| error.starts_with(PUSHING));
        self.push = (is_unpushed && !status.journal.local_only).then(|| self.push.unwrap_or(now));
        if !seen.is_whole {
            return;
        }
        let mut before = std::mem::take(&mut self.waits);
        let phases = phases(status);
        for group in status.groups.iter().filter(|group| is_under_way(group.phase)) {
            let (candidate, stage) = (group.candidate.clone(), group.stage.clone());
            let confirmed = group.counts.confirmed;
            let mut wait = match before.remove(&group.name) {
                Some(wait)
                    if wait.mark.candidate == candidate
                        && wait.mark.stage == stage
                        && confirmed <= wait.mark.confirmed =>
                {
                    wait
                }
                _ => Wait { mark: Mark { candidate, stage, confirmed }, waited: Duration::ZERO, looked: now },
            };
            if !stalled(group, &phases).is_empty() {
                wait.waited += now.since(wait.looked).min(LONGEST_LOOK);
            }
            wait.looked = now;
            self.waits.insert(group.name.clone(), wait);
        }
    }
}

/// Where each group is.
fn phases(status: &FleetStatus) -> BTreeMap<&str, Phase> {
    status.groups.iter().map(|group| (group.name.as_str(), group.phase)).collect()
}

/// A rollout is there that has not come to an end.
pub(super) fn is_under_way(phase: Phase) -> bool {
    match phase {
        Phase::Rolling | Phase::Soaking | Phase::Held | Phase::RollingBack => true,
        Phase::Steady | Phase::Unproven | Phase::RolledBack | Phase::Undone | Phase::Failed => false,
    }
}

/// Why a group's rollout stands still, when none of the reasons is as it should be. What waits for another group counts only when that one
/// has nothing under way that would be told itself.
fn stalled<'a>(group: &'a GroupStatus, all: &BTreeMap<&str, Phase>) -> Vec<&'a WaitingOn> {
    let is_fine = |waiting: &WaitingOn| AS_IT_SHOULD.contains(&waiting.reason.as_str());
    let is_told_there = |waiting: &WaitingOn| {
        let other = waiting.message.strip_prefix("waits until ").and_then(|rest| rest.split(" has finished ").next());
        let other = other.and_then(|name| all.get(name));
        waiting.reason == "depends-on" && other.is_some_and(|other| *other != Phase::Unproven)
    };
    if group.waiting_on.iter().any(|waiting| is_fine(waiting) || is_told_there(waiting)) {
        return Vec::new();
    }
    group.waiting_on.iter().collect()
}

/// Everything that is wrong.
pub(super) fn find(seen: &Seen<'_>, clocks: &Clocks, limits: &Limits) -> Vec<Found> {
    let status = seen.status;
    let mut found: Vec<Found> = of_sync(status, clocks, limits).into_iter().collect();
    if seen.is_whole || status.journal.blocked {
        found.extend(of_journal(status, clocks, limits));
    }
    if !seen.is_whole {
        return found;
    }
    let phases = phases(status);
    for group in &status.groups {
        let wait = clocks.waits.get(&group.name).filter(|wait| wait.waited >= limits.waits_too_long);
        let stalled = if wait.is_some() { stalled(group, &phases) } else { Vec::new() };
        found.extend(of_rollout(group, status, wait, &stalled, limits));
        found.extend(of_orders(group, status));
        found.extend(of_files(group, status));
    }
    found.extend(of_commits(status));
    found
}

fn sentence(text: &str) -> String {
    clip(&plain(text), LONGEST_SENTENCE)
}

fn part(situation: Situation, message: &str) -> Part {
    Part {
        situation,
        severity: situation.severity(),
        message: sentence(message),
        stage: None,
        counts: Counts::default(),
        failures: Vec::new(),
        mark: None,
        ending: None,
    }
}

fn of_fleet(topic: Topic, subject: String, commit: Option<Commit>, part: Part) -> Found {
    Found { topic, subject, group: String::new(), commit, part }
}

fn of_sync(status: &FleetStatus, clocks: &Clocks, limits: &Limits) -> Option<Found> {
    let sync = &status.sync;
    let error = sync.error.as_deref()?;
    // While the remote is out of reach the error is about that, and nobody knows more of the head than before.
    if sync.refused && !sync.unreachable {
        // One incident however many heads are refused one after the other: the same person has to do the same.
        return Some(of_fleet(Topic::Head, String::new(), None, part(Situation::HeadRefused, error)));
    }
    let since = clocks.sync?;
    (status.now.since(since) >= limits.stale_after)
        .then(|| of_fleet(Topic::Sync, String::new(), None, part(Situation::SyncStale, error)))
}

fn of_journal(status: &FleetStatus, clocks: &Clocks, limits: &Limits) -> Option<Found> {
    let error = status.journal.error.as_deref()?;
    if status.journal.blocked {
        return Some(of_fleet(Topic::Journal, String::new(), None, part(Situation::JournalNotStored, error)));
    }
    let since = clocks.push?;
    (status.now.since(since) >= limits.stale_after)
        .then(|| of_fleet(Topic::Push, String::new(), None, part(Situation::JournalNotPushed, error)))
}

pub(super) fn reason<'a>(group: &'a GroupStatus, name: &str) -> Option<&'a WaitingOn> {
    group.waiting_on.iter().find(|waiting| waiting.reason == name)
}

fn of_rollout(
    group: &GroupStatus,
    status: &FleetStatus,
    wait: Option<&Wait>,
    stalled: &[&WaitingOn],
    limits: &Limits,
) -> Option<Found> {
    let says = |name: &str| reason(group, name).map(|waiting| waiting.message.clone()).unwrap_or_default();
    let (situation, message) = match group.phase {
        Phase::Failed => (Situation::RolloutFailed, says("failed")),
        Phase::RolledBack => (Situation::RolledBack, says("failed")),
        Phase::RollingBack => (Situation::RollingBack, says("rolling-back")),
        Phase::Steady | Phase::Unproven | Phase::Rolling | Phase::Soaking | Phase::Undone | Phase::Held => {
            going_on(group, stalled, limits)?
        }
    };
    let revision = group.brought_by.as_ref().or(group.revision.as_ref())?;
    let mut part = part(situation, &message);
    if message.starts_with(ABORTED) {
        // A person wanted it so.
        part.severity = Severity::Warning;
    }
    part.stage.clone_from(&group.stage);
    part.counts = group.counts;
    part.failures.clone_from(&group.failures);
    for cluster in &mut part.failures {
        cluster.message = sentence(&cluster.message);
        cluster.example = clip(&plain(&cluster.example), LONGEST_NAME);
        cluster.in_common = cluster.in_common.iter().map(|label| clip(&plain(label), LONGEST_NAME)).collect();
    }
    part.mark = wait.filter(|_| situation == Situation::WaitsTooLong).map(|wait| wait.mark.clone());
    let commit = commit(revision, status);
    let subject = commit.id().to_owned();
    Some(Found { topic: Topic::Rollout, subject, group: group.name.clone(), commit: Some(commit), part })
}

/// What is wrong with a rollout that has not stopped, or that went well.
fn going_on(group: &GroupStatus, stalled: &[&WaitingOn], limits: &Limits) -> Option<(Situation, String)> {
    let is_under_way = is_under_way(group.phase);
    if let Some(outage) = reason(group, "outage") {
        return Some((Situation::Outage, outage.message.clone()));
    }
    if is_under_way && !stalled.is_empty() {
        let reasons: Vec<&str> = stalled.iter().map(|waiting| waiting.message.as_str()).collect();
        let longest = show_duration(limits.waits_too_long);
        return Some((Situation::WaitsTooLong, format!("no progress for more than {longest}: {}", reasons.join("; "))));
    }
    if let Some(expected) = reason(group, "expect").filter(|_| is_under_way) {
        return Some((Situation::UnexpectedAgents, expected.message.clone()));
    }
    let failed = group.counts.failed.max(group.failures.iter().map(|cluster| cluster.count).sum());
    let word = if failed == 1 { "agent" } else { "agents" };
    (failed > 0).then(|| (Situation::AgentsFailing, format!("{failed} {word} could not use it")))
}

/// The orders that hold a rollout which is under way.
fn of_orders(group: &GroupStatus, status: &FleetStatus) -> Vec<Found> {
    if !is_under_way(group.phase) {
        return Vec::new();
    }
    let orders = [("paused", Situation::Paused), ("frozen", Situation::Frozen)];
    let told = orders.iter().filter_map(|(name, situation)| Some((reason(group, name)?, *situation)));
    told.map(|(waiting, situation)| Found {
        topic: Topic::Order,
        subject: sentence(&waiting.message),
        group: group.name.clone(),
        commit: group.brought_by.as_ref().or(group.revision.as_ref()).map(|revision| commit(revision, status)),
        part: Part { stage: group.stage.clone(), counts: group.counts, ..part(situation, &waiting.message) },
    })
    .collect()
}

/// Files of a group that are refused. The same words about several groups are one incident: a layer that they share is broken.
fn of_files(group: &GroupStatus, status: &FleetStatus) -> Option<Found> {
    let first = group.diagnostics.first()?;
    let is_its = |report: &&CommitReport| {
        report.groups.get(&group.name).is_some_and(|part| part.ending == Some(Ending::Rejected))
    };
    let revision = status.commits.iter().find(is_its).map(|report| report.revision.as_str());
    let revision = revision.or(status.sync.revision.as_deref());
    Some(Found {
        topic: Topic::Files,
        subject: sentence(first),
        group: group.name.clone(),
        commit: revision.map(|revision| commit(revision, status)),
        part: part(Situation::Rejected, &group.diagnostics.join("; ")),
    })
}

/// What the newest commit is refused or held for.
fn of_commits(status: &FleetStatus) -> Vec<Found> {
    let mut found = Vec::new();
    for report in &status.commits {
        let commit = commit(&report.revision, status);
        for (name, group) in &report.groups {
            let Some(held) = group.waiting_on.iter().find(|waiting| waiting.reason == "guard") else { continue };
            found.push(Found {
                topic: Topic::Guard,
                subject: commit.id().to_owned(),
                group: name.clone(),
                commit: Some(commit.clone()),
                part: part(Situation::Guarded, &held.message),
            });
        }
    }
    let refused = status.commits.first().filter(|newest| newest.ending == Some(Ending::Rejected));
    if let Some(refused) = refused.filter(|newest| !newest.diagnostics.is_empty() && !status.sync.refused) {
        let commit = commit(&refused.revision, status);
        let part = Part { severity: Severity::Critical, ..part(Situation::Rejected, &refused.diagnostics.join("; ")) };
        found.push(of_fleet(Topic::Files, commit.id().to_owned(), Some(commit), part));
    }
    found
}

/// A commit with what is known of it.
fn commit(revision: &str, status: &FleetStatus) -> Commit {
    let report = status.commits.iter().find(|report| report.revision == revision);
    let known = |text: Option<&String>| text.map(|text| clip(&plain(text), LONGEST_NAME)).unwrap_or_default();
    let is_head = status.sync.revision.as_deref() == Some(revision);
    let subject = report.map(|report| &report.subject).or(status.sync.subject.as_ref().filter(|_| is_head));
    Commit {
        revision: clip(&plain(revision), LONGEST_NAME),
        subject: known(subject),
        author: known(report.map(|report| &report.committer)),
    }
}
