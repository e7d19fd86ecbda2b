//! What the statuses of a commit are to say, computed from its report: one context a changed group, and one for all of them.

use std::fmt;

use crate::fleet::snapshot::{CommitId, CommitInfo};
use crate::settings::forge::UrlTemplate;
use crate::time::Timestamp;
use crate::view::text::{clip, plain};
use crate::view::{CommitReport, Ending, GroupReport};

/// Groups that get a context of their own; a commit that changes more gets the one for all of them only.
pub const MOST_CONTEXTS: usize = 20;

/// Characters of a description: GitHub refuses more.
pub const LONGEST_DESCRIPTION: usize = 140;

/// Characters of a context: GitLab refuses more than 255.
const LONGEST_CONTEXT: usize = 200;

/// What a status says; each forge has words of its own for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing has been sent yet.
    Waiting,
    /// Agents are being offered it, or are watched.
    Running,
    /// It went well, or nothing had to be done.
    Success,
    /// It was refused, failed, or was taken back.
    Failure,
    /// It ended without a verdict: a newer commit took its place.
    Stopped,
}

impl State {
    /// True for the states that a commit ends in.
    pub fn is_final(self) -> bool {
        match self {
            Self::Waiting | Self::Running => false,
            Self::Success | Self::Failure | Self::Stopped => true,
        }
    }
}

/// One status of one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The commit.
    pub commit: CommitId,
    /// The branch or tag that it was found on, in its short form.
    pub reference: String,
    /// What tells it from other statuses of the commit: `gitamp/<instance>` or `gitamp/<instance>/<group>`.
    pub context: String,
    /// How it stands.
    pub state: State,
    /// The same in a sentence of at most [`LONGEST_DESCRIPTION`] characters, without control characters.
    pub description: String,
    /// Where a click leads.
    pub target_url: Option<String>,
}

/// What all statuses of a daemon have in common.
#[derive(Clone, Debug)]
pub struct Naming {
    /// The daemon's `--instance`.
    pub instance: String,
    /// Where a click leads, if anywhere.
    pub target: Option<UrlTemplate>,
}

/// The report of a commit that changed nothing below the fleet root: it has no note, but whoever waits for its status is told.
pub fn unrelated(info: &CommitInfo, now: Timestamp) -> CommitReport {
    CommitReport {
        revision: info.revision(),
        ending: Some(Ending::NoOp),
        committer: info.committer.clone(),
        subject: info.subject.clone(),
        synced_at: now,
        ended_at: Some(now),
        author: None,
        rewritten_history: false,
        unknown_history: false,
        after: None,
        diagnostics: Vec::new(),
        groups: std::collections::BTreeMap::new(),
        more_groups: std::collections::BTreeMap::new(),
    }
}

/// Everything that is to be said about a commit. `is_open`: its report may still change.
pub fn statuses(commit: CommitId, report: &CommitReport, is_open: bool, naming: &Naming) -> Vec<Status> {
    let reference = reference_of(&report.revision);
    let status = |group: Option<&str>, (state, description): (State, String)| Status {
        commit,
        reference: reference.to_owned(),
        context: context(&naming.instance, group),
        state,
        description: clip(&plain(&description), LONGEST_DESCRIPTION),
        target_url: naming.target.as_ref().map(|target| target.fill(&commit.to_string(), &naming.instance, group)),
    };
    let mut statuses = vec![status(None, of_all(report, is_open))];
    if report.groups.len() <= MOST_CONTEXTS && report.more_groups.is_empty() {
        statuses.extend(report.groups.iter().map(|(name, part)| status(Some(name), of_group(part, is_open))));
    }
    statuses
}

/// `main` of `main@sha1:...`.
pub fn reference_of(revision: &str) -> &str {
    revision.rsplit_once('@').map_or(revision, |(reference, _)| reference)
}

fn context(instance: &str, group: Option<&str>) -> String {
    let whole = group.map_or_else(|| format!("gitamp/{instance}"), |group| format!("gitamp/{instance}/{group}"));
    if whole.chars().count() <= LONGEST_CONTEXT {
        return whole;
    }
    // Two long names may begin alike; their ends must still differ.
    let digest = <sha2::Sha256 as sha2::Digest>::digest(whole.as_bytes());
    let mark: String = hex::encode(digest).chars().take(12).collect();
    format!("{}~{mark}", whole.chars().take(LONGEST_CONTEXT - 13).collect::<String>())
}

/// What the ending of a whole commit or of a group is to a forge; `None` while it runs.
fn verdict(ending: Option<Ending>, is_open: bool) -> Option<State> {
    match ending {
        // Agents may still come and prove it.
        Some(Ending::Unproven) if is_open => None,
        None if is_open => None,
        Some(Ending::Succeeded | Ending::NoOp) => Some(State::Success),
        Some(Ending::Failed | Ending::RolledBack | Ending::Rejected) => Some(State::Failure),
        Some(Ending::Superseded | Ending::Unproven) | None => Some(State::Stopped),
    }
}

fn of_group(part: &GroupReport, is_open: bool) -> (State, String) {
    let counts = &part.counts;
    let Some(state) = verdict(part.ending, is_open) else {
        if part.ending == Some(Ending::Unproven) {
            return (State::Waiting, "waits for the first agent that matches".to_owned());
        }
        return (if part.stage.is_some() { State::Running } else { State::Waiting }, progress(part));
    };
    let causes: Vec<String> = match part.ending {
        Some(Ending::Failed | Ending::RolledBack) => {
            let clusters = part.failures.iter().map(|cluster| format!("{}: {}", cluster.count, cluster.message));
            [format!("{} of {} failed", counts.failed, counts.selected)].into_iter().chain(clusters).collect()
        }
        Some(Ending::Rejected | Ending::NoOp) => part.diagnostics.clone(),
        Some(Ending::Succeeded) => {
            let others = [(counts.held, "held"), (counts.failed, "failed"), (counts.away, "away")];
            let others = others.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
            let all = [format!("{} confirmed", counts.confirmed)].into_iter().chain(others).collect::<Vec<_>>();
            vec![all.join(", ")]
        }
        Some(Ending::Unproven) => vec!["no agent ever matched".to_owned()],
        Some(Ending::Superseded) | None => vec!["a newer commit took its place".to_owned()],
    };
    (state, format!("{}: {}", part.ending.unwrap_or(Ending::Superseded), causes.join("; ")))
}

/// Where a running group is, and what it waits for.
fn progress(part: &GroupReport) -> String {
    let counts = &part.counts;
    let failed = if counts.failed > 0 { format!(", {} failed", counts.failed) } else { String::new() };
    let mut parts = Vec::new();
    if let Some(stage) = &part.stage {
        parts.push(format!("stage {stage}: {} of {} confirmed{failed}", counts.confirmed, counts.selected));
    }
    parts.extend(part.waiting_on.iter().map(|waiting| waiting.message.clone()));
    if parts.is_empty() { "about to start".to_owned() } else { parts.join("; ") }
}

fn of_all(report: &CommitReport, is_open: bool) -> (State, String) {
    let parts = || report.groups.iter().map(|(name, part)| (name, part, verdict(part.ending, is_open)));
    let count = report.groups.len() + report.more_groups.values().sum::<usize>();
    let done = parts().filter(|(_, _, state)| state.is_some()).count();
    let is_bad = |state: Option<State>| state == Some(State::Failure);
    let bad = || {
        parts().filter(|(_, _, state)| is_bad(*state)).map(|(name, part, _)| {
            let (_, what) = of_group(part, is_open);
            format!("{name} {what}")
        })
    };
    let Some(state) = verdict(report.ending, is_open) else {
        // One that failed decides how the whole ends, whatever the others do.
        let state = match parts().any(|(_, _, state)| is_bad(state)) {
            true => State::Failure,
            false if done > 0 || parts().any(|(_, part, _)| of_group(part, is_open).0 == State::Running) => {
                State::Running
            }
            false => State::Waiting,
        };
        let runs = parts().filter(|(_, _, state)| state.is_none()).map(|(name, part, _)| {
            let (_, what) = of_group(part, is_open);
            format!("{name} {what}")
        });
        let all = if count == 1 { None } else { Some(format!("{done} of {count} groups done")) };
        let sentences: Vec<String> = bad().chain(all).chain(runs).collect();
        return (state, sentences.join("; "));
    };
    let what = match report.ending {
        Some(Ending::Failed | Ending::RolledBack | Ending::Rejected) => {
            let reasons: Vec<String> = report.diagnostics.iter().cloned().chain(bad()).collect();
            reasons.join("; ")
        }
        Some(Ending::NoOp) if count == 0 => "it changes nothing for any group".to_owned(),
        Some(Ending::Superseded) | None => "a newer commit took its place".to_owned(),
        Some(Ending::Unproven) => "no agent ever matched".to_owned(),
        Some(Ending::Succeeded | Ending::NoOp) => match (count, report.groups.iter().next()) {
            (1, Some((name, part))) => return (state, format!("{name} {}", of_group(part, is_open).1)),
            (_, _) => format!("{count} groups"),
        },
    };
    (state, format!("{}: {what}", report.ending.unwrap_or(Ending::Superseded)))
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Stopped => "stopped",
        })
    }
}
