//! The commits whose rollouts have not all ended, and the notes that tell about them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::config::ConfigHash;
use crate::fleet::GroupName;
use crate::fleet::snapshot::CommitId;
use crate::time::Timestamp;
use crate::view::{CommitReport, Counts, Ending, FailureCluster, GroupReport, WaitingOn};

/// Commits that may be open at once. With more, the oldest are closed as they stand: nobody reads on in them.
const MOST_OPEN: usize = 64;

/// Endings that may wait until they were told outside. With more, the oldest are forgotten: a forge that was silent for so long is told
/// of the newest commits.
const MOST_UNTOLD: usize = 64;

/// After a rollout failed, the outcomes of the offers that were out by then are told for so long: a deadline of ten minutes has
/// brought every one of them by then.
const AFTERMATH: Duration = Duration::from_secs(600);

/// What a group's part waits for in a commit that a guard holds.
pub(super) const GUARD: &str = "guard";

/// What is known of a group's part in a commit at this moment.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// The running stage.
    pub stage: Option<String>,
    /// The stable hash.
    pub stable: Option<ConfigHash>,
    /// The agents.
    pub counts: Counts,
    /// Why it waits.
    pub waiting_on: Vec<WaitingOn>,
    /// How agents failed.
    pub failures: Vec<FailureCluster>,
    /// True while no agent is there to prove it.
    pub unproven: bool,
}

/// A commit that has not ended.
#[derive(Clone, Debug)]
struct Open {
    id: CommitId,
    report: CommitReport,
    /// Groups of it whose rollouts have not ended. `report` may call one `unproven` meanwhile.
    waiting: BTreeSet<GroupName>,
}

/// Open commits, oldest first, and the newest one whatever it is.
#[derive(Debug, Default)]
pub(super) struct Commits {
    open: Vec<Open>,
    newest: Option<(CommitId, CommitReport)>,
    /// Commits whose notes differ from what is stored.
    changed: BTreeSet<CommitId>,
    /// Commits that ended since the last store: their notes are final.
    ended: Vec<(CommitId, CommitReport)>,
    /// True when somebody outside is told, and endings are kept until then.
    tells: bool,
    /// Commits that ended and whose endings nobody outside was told yet, oldest first.
    untold: VecDeque<CommitId>,
    /// Commits that the journal need not keep any more.
    forgotten: BTreeSet<CommitId>,
}

impl Commits {
    /// Takes a commit. Its groups without an ending are waited for.
    pub(super) fn add(&mut self, id: CommitId, report: CommitReport, now: Timestamp) {
        let waiting = report
            .groups
            .iter()
            .filter(|(_, group)| group.ending.is_none() || group.ending == Some(Ending::Unproven))
            .map(|(name, _)| GroupName::new(name.as_str()))
            .collect();
        self.open.retain(|open| open.id != id);
        self.open.push(Open { id, report, waiting });
        self.changed.insert(id);
        self.close(now);
        while self.open.len() > MOST_OPEN {
            let mut oldest = self.open.remove(0);
            oldest.report.ending = oldest.report.overall().or(Some(Ending::Superseded));
            self.ended.push((oldest.id, oldest.report));
        }
    }

    /// The report of an open commit.
    pub(super) fn get(&self, id: CommitId) -> Option<&CommitReport> {
        self.open.iter().find(|open| open.id == id).map(|open| &open.report)
    }

    /// The commit that was accepted before the one of this revision (`main@sha1:<commit>`), where that is known.
    pub(super) fn before(&self, revision: &str) -> Option<CommitId> {
        let newest = self.newest.iter().map(|(_, report)| report);
        let mut known = self.open.iter().map(|open| &open.report).chain(newest);
        known.find(|report| report.revision == revision)?.after.as_deref()?.parse().ok()
    }

    /// Open commits and the newest one, newest first.
    pub(super) fn shown(&self) -> Vec<CommitReport> {
        let newest = self.newest.iter().filter(|(id, _)| self.get(*id).is_none()).map(|(_, report)| report);
        newest.chain(self.open.iter().rev().map(|open| &open.report)).map(CommitReport::summarised).collect()
    }

    /// True when an open commit waits for this group.
    pub(super) fn waits_for(&self, group: &GroupName) -> bool {
        self.open.iter().any(|open| open.waiting.contains(group))
    }

    /// A group's part as it is now. Counts alone make no note worth writing at once; the caller decides by the answer: true
    /// when something else than counts changed.
    pub(super) fn refresh(
        &mut self,
        group: &GroupName,
        candidate: Option<ConfigHash>,
        part: &Part,
        now: Timestamp,
    ) -> bool {
        let mut is_news = false;
        let candidate = candidate.map(|hash| hash.to_string());
        for open in self.open.iter_mut().filter(|open| open.waiting.contains(group)) {
            let Some(report) = open.report.groups.get_mut(group.as_str()) else { continue };
            if report.candidate != candidate || is_held(report) {
                continue;
            }
            let before = report.clone();
            if report.ending == Some(Ending::Failed) {
                // The counts stay those of the ending, but for the outcomes that came later.
                let late = part.counts.failed.saturating_sub(report.counts.failed);
                report.counts.failed += late;
                report.counts.offered = report.counts.offered.saturating_sub(late);
                report.counts.unavailable = report.counts.unavailable.saturating_sub(late);
                report.failures.clone_from(&part.failures);
                let is_over = report.ended_at.is_none_or(|ended_at| now.since(ended_at) >= AFTERMATH);
                if is_over {
                    open.waiting.remove(group);
                }
                if before != *report {
                    self.changed.insert(open.id);
                }
                continue;
            }
            part.write(report);
            report.ending = part.unproven.then_some(Ending::Unproven);
            is_news |= before.ending != report.ending || before.stage != report.stage;
            if before != *report {
                open.report.ending =
                    if open.report.overall() == Some(Ending::Unproven) { Some(Ending::Unproven) } else { None };
                self.changed.insert(open.id);
            }
        }
        self.close(now);
        is_news
    }

    /// A group's rollout of `candidate` ended. Of one that failed the outcomes of offers that were out are still told, for a while.
    pub(super) fn finish(
        &mut self,
        group: &GroupName,
        candidate: ConfigHash,
        ending: Ending,
        part: &Part,
        now: Timestamp,
    ) {
        let candidate = candidate.to_string();
        for open in &mut self.open {
            let Some(report) = open.report.groups.get_mut(group.as_str()) else { continue };
            if report.candidate.as_deref() != Some(&candidate) || !open.waiting.contains(group) || is_held(report) {
                continue;
            }
            part.write(report);
            (report.ending, report.ended_at, report.stage) = (Some(ending), Some(now), None);
            report.waiting_on.clear();
            if ending != Ending::Failed {
                open.waiting.remove(group);
            }
            open.report.ending = open.report.overall();
            open.report.ended_at = open.report.ending.map(|_| now);
            self.changed.insert(open.id);
        }
        self.close(now);
    }

    /// A person wants `candidate` tried once more: the commits that brought it, as far as they are known, have not ended with its failure.
    pub(super) fn reopen(&mut self, group: &GroupName, candidate: ConfigHash) {
        let candidate = candidate.to_string();
        let is_its = |report: &CommitReport| {
            let part = report.groups.get(group.as_str());
            part.is_some_and(|part| {
                part.candidate.as_ref() == Some(&candidate)
                    && matches!(part.ending, Some(Ending::Failed | Ending::RolledBack))
            })
        };
        self.open_newest(|_, report| is_its(report));
        for open in self.open.iter_mut().filter(|open| is_its(&open.report)) {
            let Some(part) = open.report.groups.get_mut(group.as_str()) else { continue };
            (part.ending, part.ended_at) = (None, None);
            (open.report.ending, open.report.ended_at) = (None, None);
            open.waiting.insert(group.clone());
            self.changed.insert(open.id);
        }
    }

    /// The newest commit has not ended, when it did and is meant.
    fn open_newest(&mut self, is_meant: impl Fn(CommitId, &CommitReport) -> bool) {
        let is_open = |id| self.open.iter().any(|open| open.id == id);
        let newest = self.newest.take_if(|(id, report)| !is_open(*id) && is_meant(*id, report));
        if let Some((id, report)) = newest {
            self.ended.retain(|(ended, _)| *ended != id);
            self.open.push(Open { id, report, waiting: BTreeSet::new() });
        }
    }

    /// A rollout begins that belongs to a commit, although that ended, or said nothing of the group. Of a commit that is not known
    /// any more, or that was rejected for this group, nothing is told: what was written about it stays.
    pub(super) fn join(&mut self, id: CommitId, group: &GroupName, part: GroupReport) {
        let takes = |report: &CommitReport| {
            report.groups.get(group.as_str()).is_none_or(|part| part.ending != Some(Ending::Rejected))
        };
        self.open_newest(|newest, report| newest == id && takes(report));
        let Some(open) = self.open.iter_mut().find(|open| open.id == id && takes(&open.report)) else { return };
        open.report.groups.insert(group.to_string(), part);
        (open.report.ending, open.report.ended_at) = (None, None);
        open.waiting.insert(group.clone());
        self.changed.insert(id);
    }

    /// What still waits for `group` with another candidate than these will never come.
    pub(super) fn supersede(&mut self, group: &GroupName, candidates: &[Option<ConfigHash>], now: Timestamp) {
        let candidates: Vec<String> = candidates.iter().flatten().map(ToString::to_string).collect();
        for open in &mut self.open {
            let Some(report) = open.report.groups.get_mut(group.as_str()) else { continue };
            let is_coming = report.candidate.as_ref().is_some_and(|candidate| candidates.contains(candidate));
            if !is_coming && !is_held(report) && open.waiting.remove(group) {
                supersede(report, now);
                self.changed.insert(open.id);
            }
        }
        self.close(now);
    }

    /// A newer commit than those that a guard holds: they will never come.
    pub(super) fn supersede_held(&mut self, newer: CommitId, now: Timestamp) {
        for open in self.open.iter_mut().filter(|open| open.id != newer) {
            for (name, report) in open.report.groups.iter_mut().filter(|(_, report)| is_held(report)) {
                open.waiting.remove(&GroupName::new(name.as_str()));
                supersede(report, now);
                self.changed.insert(open.id);
            }
        }
        self.close(now);
    }

    fn close(&mut self, now: Timestamp) {
        let (open, ended): (Vec<Open>, Vec<Open>) =
            std::mem::take(&mut self.open).into_iter().partition(|open| !open.waiting.is_empty());
        self.open = open;
        for mut commit in ended {
            commit.report.ending = commit.report.ending.filter(|ending| *ending == Ending::Rejected);
            commit.report.ending = commit.report.ending.or_else(|| commit.report.overall());
            commit.report.ended_at.get_or_insert(now);
            self.changed.remove(&commit.id);
            if self.newest.as_ref().is_none_or(|(_, newest)| newest.synced_at <= commit.report.synced_at) {
                self.newest = Some((commit.id, commit.report.clone()));
            }
            self.ended.push((commit.id, commit.report));
        }
    }

    /// Endings are to be kept until [`Commits::told`].
    pub(super) fn keep_until_told(&mut self) {
        self.tells = true;
    }

    /// True when endings are kept until somebody outside was told.
    pub(super) fn tells(&self) -> bool {
        self.tells
    }

    /// True while the journal has to keep the report of this commit, although it ended.
    pub(super) fn is_kept(&self, id: CommitId) -> bool {
        self.untold.contains(&id)
    }

    /// Everybody outside knows how this commit ended.
    pub(super) fn told(&mut self, id: CommitId) {
        let before = self.untold.len();
        self.untold.retain(|one| *one != id);
        if self.untold.len() < before && self.get(id).is_none() {
            self.forgotten.insert(id);
        }
    }

    /// Commits whose files the journal is to drop.
    pub(super) fn take_forgotten(&mut self) -> BTreeSet<CommitId> {
        std::mem::take(&mut self.forgotten)
    }

    /// The files of these could not be dropped.
    pub(super) fn give_back_forgotten(&mut self, forgotten: BTreeSet<CommitId>) {
        self.forgotten.extend(forgotten);
    }

    /// True when a note is to be written, or a file to be dropped.
    pub(super) fn has_news(&self) -> bool {
        !self.changed.is_empty() || !self.ended.is_empty() || !self.forgotten.is_empty()
    }

    /// True when a commit has ended since the last store.
    pub(super) fn has_ended(&self) -> bool {
        !self.ended.is_empty()
    }

    /// The notes to write: for each commit its report, and whether it is still open.
    pub(super) fn take_news(&mut self) -> BTreeMap<CommitId, (Arc<CommitReport>, bool)> {
        let changed = std::mem::take(&mut self.changed);
        let open = self.open.iter().filter(|open| changed.contains(&open.id));
        let mut news: BTreeMap<_, _> = open.map(|open| (open.id, (Arc::new(open.report.clone()), true))).collect();
        for (id, report) in std::mem::take(&mut self.ended) {
            self.untold.retain(|one| *one != id);
            if self.tells {
                self.untold.push_back(id);
            }
            news.insert(id, (Arc::new(report), false));
        }
        while self.untold.len() > MOST_UNTOLD {
            self.forgotten.extend(self.untold.pop_front());
        }
        news
    }

    /// What was taken could not be stored: it is news again.
    pub(super) fn give_back(&mut self, news: BTreeMap<CommitId, (Arc<CommitReport>, bool)>) {
        for (id, (report, is_open)) in news {
            if is_open {
                self.changed.insert(id);
            } else if self.ended.iter().all(|(ended, _)| *ended != id) {
                self.ended.push((id, Arc::unwrap_or_clone(report)));
            }
        }
    }
}

/// True for what a commit would change that a guard holds: nothing that happens meanwhile is its doing.
pub(super) fn is_held(report: &GroupReport) -> bool {
    report.waiting_on.iter().any(|waiting| waiting.reason == GUARD)
}

fn supersede(report: &mut GroupReport, now: Timestamp) {
    let kept = report.ending.filter(|ending| matches!(ending, Ending::Unproven | Ending::Failed));
    let ended_at = report.ended_at.unwrap_or(now);
    report.ending = kept.or(Some(Ending::Superseded));
    (report.ended_at, report.stage) = (Some(ended_at), None);
    report.waiting_on.clear();
}

impl Part {
    fn write(&self, report: &mut GroupReport) {
        report.stage.clone_from(&self.stage);
        report.stable = self.stable.map(|hash| hash.to_string());
        report.counts = self.counts;
        report.waiting_on.clone_from(&self.waiting_on);
        report.failures.clone_from(&self.failures);
    }
}
