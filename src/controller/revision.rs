//! Takes a revision: who is gone, who is new, what is rejected, and what every group is to do about it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::config::ConfigHash;
use crate::controller::commits::is_held;
use crate::controller::moves::select_the_same;
use crate::controller::stages::Pair;
use crate::controller::{Controller, GroupState, Next, Revision, rules, texts};
use crate::fleet::diagnostic::{Diagnostic, Severity};
use crate::fleet::generations::Replaced;
use crate::fleet::snapshot::{CommitId, CommitInfo, RolloutTrailer};
use crate::fleet::{GroupDefinition, GroupName, RenderedFleet};
use crate::rollout::Waiting;
use crate::rollout::machine::{Effect, Machine, Plan};
use crate::rollout::record::Said;
use crate::time::Timestamp;
use crate::view::{CommitReport, Counts, Ending, GroupReport, present};

impl Controller {
    /// Takes a revision; false when it is refused as a whole. Taking the same one again changes nothing.
    pub fn handle_revision(&mut self, revision: Revision, now: Timestamp) -> bool {
        self.notice_gap(now);
        let Revision { info, rewritten, mut fleet } = revision;
        let holds_back = |finding: &Diagnostic| finding.severity == Severity::Error && finding.group.is_none();
        if fleet.groups.is_empty() && !self.groups.is_empty() && !fleet.diagnostics.iter().any(holds_back) {
            let empty = Diagnostic::error("empty-fleet", None, "no group is left: everything stays as it is");
            fleet
                .diagnostics
                .push(empty.help("a repository without any group looks like an accident; commit at least one"));
        }
        let is_refused = fleet.diagnostics.iter().any(holds_back);
        let is_new = self.accepted.as_ref().is_none_or(|accepted| accepted.id != info.id);
        let mut report = first_report(&info, rewritten, &fleet, now);
        let before = self.accepted.as_ref().map(|accepted| accepted.id);
        report.after = before.filter(|before| *before != info.id).map(|before| before.to_string());
        if is_refused {
            self.learn_beside(&fleet);
            self.refuse(&info, report, now);
            return false;
        }
        if let Some(held) = self.guard(&info, rewritten, &fleet) {
            self.learn_beside(&fleet);
            self.hold(info.id, held, report, now);
            return true;
        }
        self.diagnostics = fleet.diagnostics.clone();
        self.guarded = None;
        self.commits.supersede_held(info.id, now);
        self.accepted = Some(info.clone());
        self.policy = fleet.policy.clone();
        self.storage.fleet_changed = true;
        self.roster.pause();
        self.roster.set_fleet_budget(fleet.judged_by.max_unavailable);
        let (ready, renewed) = self.take_groups(&fleet, &mut report, now);
        let receivers = self.assign(now);
        let ready = self.concerned(ready, &renewed, &receivers, &fleet);
        let begun = self.plan_all(&ready, &receivers, &info, &fleet, &mut report, now);
        if !is_new {
            // A commit that is taken once more, after a restart: what is known of it is in the journal already.
            report.groups.retain(|name, _| begun.contains(name));
        }
        if is_new || !report.groups.is_empty() {
            self.notice(None, false, format!("{}: {} ({})", report.revision, report.subject, changes(&report)));
            self.merge_report(info.id, report, now);
        }
        for name in &ready {
            // Other rules may end what runs, a shorter soak for example: only now is the commit there to be told. What was counted
            // before it was about other members.
            self.refresh_prerequisites(name);
            let tally = self.roster.tally(name, now);
            if let Some(state) = self.groups.get_mut(name) {
                state.machine.observe(tally, now);
            }
            self.after_machine(name, now);
        }
        self.settle(now);
        self.flush(now);
        if !self.storage.is_busy() {
            self.roster.resume();
            self.settle(now);
        }
        true
    }

    /// What is found in a revision that is not taken. The groups are as the accepted one left them, and so is what is said of each.
    fn learn_beside(&mut self, fleet: &RenderedFleet) {
        self.diagnostics.retain(|finding| finding.group.is_some());
        self.diagnostics.extend(fleet.diagnostics.iter().filter(|finding| finding.group.is_none()).cloned());
    }

    /// Takes who belongs where from now on. Returns the groups that are good, and those of them whose definitions are new.
    fn take_groups(
        &mut self,
        fleet: &RenderedFleet,
        report: &mut CommitReport,
        now: Timestamp,
    ) -> (Vec<GroupName>, BTreeSet<GroupName>) {
        // Nobody belonged anywhere before the first commit.
        let is_first = self.groups.is_empty();
        let mut replaced = Replaced::new();
        self.remove_groups(fleet, report, &mut replaced, now);
        let taken = self.take_definitions(fleet, report, &mut replaced);
        self.find_dependents();
        if !is_first {
            self.remember_belonging(replaced, now);
        }
        taken
    }

    /// Plans what the revision says of every good group. Returns the groups in which something begins.
    fn plan_all(
        &mut self,
        ready: &[GroupName],
        receivers: &BTreeSet<GroupName>,
        info: &CommitInfo,
        fleet: &RenderedFleet,
        report: &mut CommitReport,
        now: Timestamp,
    ) -> BTreeSet<String> {
        for name in ready {
            let unfinished = self.unfinished(name, Some(fleet));
            if let Some(state) = self.groups.get_mut(name) {
                state.machine.set_prerequisites(unfinished);
            }
        }
        let mut begun = BTreeSet::new();
        for name in ready {
            let config = fleet.groups.get(name).and_then(|group| group.config.clone());
            let definition = fleet.groups.get(name).and_then(|group| group.definition.clone());
            let (Some(config), Some(definition)) = (config, definition) else { continue };
            let hash = config.hash();
            let plan = Plan {
                wanted: hash,
                rules: rules(&definition),
                moved_in: receivers.contains(name),
                revision: info.revision(),
                hold: hold_of(info, now),
                fast: info.trailer == Some(RolloutTrailer::Fast) && fleet.judged_by.allows_fast(name),
            };
            let next = Next { plan, config, revision: info.revision() };
            let effect = self.plan(name, next, now);
            if matches!(effect, Effect::Started | Effect::Waits) {
                begun.insert(name.to_string());
            }
            let part = self.entry(name, hash, effect, now);
            report.groups.extend(part.map(|part| (name.to_string(), part)));
        }
        begun
    }

    fn refuse(&mut self, info: &CommitInfo, mut report: CommitReport, now: Timestamp) {
        self.notice(None, true, format!("{} is rejected: {}", report.revision, report.diagnostics.join("; ")));
        // It is newer than what a guard holds, and the next good one is compared anew.
        self.guarded = None;
        self.commits.supersede_held(info.id, now);
        if self.refused == Some(info.id) {
            return;
        }
        self.refused = Some(info.id);
        self.storage.fleet_changed = true;
        report.ending = Some(Ending::Rejected);
        self.commits.add(info.id, report, now);
        self.flush(now);
    }

    /// A revision whose commit changed nothing below the fleet root.
    pub fn handle_unrelated(&mut self, info: CommitInfo) {
        if self.guarded.is_some() {
            // What is held stays so; the accepted commit is the one that the next is compared with.
            return;
        }
        self.accepted = Some(info);
        self.storage.fleet_changed = true;
    }

    fn remove_groups(
        &mut self,
        fleet: &RenderedFleet,
        report: &mut CommitReport,
        replaced: &mut Replaced,
        now: Timestamp,
    ) {
        // The variants of a group whose file cannot be read have no names in the revision; they are not gone for that.
        let is_hidden_not = |state: &GroupState| {
            let base = state.definition.variant_of.as_ref().and_then(|(base, _)| fleet.groups.get(base));
            base.is_none_or(|base| base.definition.is_some())
        };
        let pairs = self.beside(fleet);
        let gone = pairs.iter().filter(|pair| pair.group.is_none() && pair.state.is_some_and(is_hidden_not));
        let gone: Vec<GroupName> = gone.map(|pair| pair.name.clone()).collect();
        for name in gone {
            if let Some(state) = self.groups.get_mut(&name) {
                state.machine.abandon();
            }
            self.collect_finished(&name, now);
            if let Some(state) = self.groups.remove(&name) {
                if let Some(at) = state.timer {
                    self.timers.remove(&(at, name.clone()));
                }
                replaced.insert(name.clone(), Some(state.definition));
            }
            self.roster.remove_group(&name, now);
            self.storage.refused.remove(&name);
            self.is_assigned = false;
            self.commits.supersede(&name, &[], now);
            self.storage.urgent.insert(name.clone());
            let message = "is no longer in the repository; its agents keep what they have";
            report.groups.insert(name.to_string(), GroupReport::ended(Ending::NoOp, message, now));
            self.notice(Some(&name), true, message.to_owned());
        }
    }

    /// Of these groups those that the revision may mean something to. The others run for good what it says too, under the same
    /// rules and with the same agents: planning that once more would change nothing, and a fleet has many of them.
    pub(super) fn concerned(
        &mut self,
        ready: Vec<GroupName>,
        renewed: &BTreeSet<GroupName>,
        receivers: &BTreeSet<GroupName>,
        fleet: &RenderedFleet,
    ) -> Vec<GroupName> {
        if !std::mem::replace(&mut self.has_taken, true) {
            // The first revision of a process is compared with what the journal says, and every group looks again.
            return ready;
        }
        let revision = self.accepted.as_ref().map(CommitInfo::revision).unwrap_or_default();
        // All three are in the order of names, and who is ready is in both of the others: one walk finds them all.
        let (mut states, mut coming, commits) = (self.groups.iter_mut(), fleet.groups.iter(), &self.commits);
        let mut is_concerned = |name: &GroupName| {
            let state = states.find(|(other, _)| *other == name).map(|(_, state)| state);
            let group = coming.find(|(other, _)| *other == name).map(|(_, group)| group);
            let hash = group.and_then(|group| group.config.as_ref()).map(|config| config.hash());
            let (Some(state), Some(hash)) = (state, hash) else { return true };
            let is_left_alone = state.next.is_none()
                && state.machine.is_settled_on(hash)
                && state.definition.strategy.depends_on.is_empty()
                && !renewed.contains(name)
                && !receivers.contains(name)
                && !commits.waits_for(name);
            if is_left_alone {
                state.revision.clone_from(&revision);
            }
            !is_left_alone
        };
        ready.into_iter().filter(|name| is_concerned(name)).collect()
    }

    /// Takes the definitions of the groups that are good, and tells of those that are not. Returns the good ones, and those of them
    /// whose definitions are new.
    fn take_definitions(
        &mut self,
        fleet: &RenderedFleet,
        report: &mut CommitReport,
        replaced: &mut Replaced,
    ) -> (Vec<GroupName>, BTreeSet<GroupName>) {
        let (mut ready, mut renewed) = (Vec::new(), BTreeSet::new());
        self.stillborn.clear();
        self.rejected.clear();
        for (name, group) in &fleet.groups {
            if group.definition.is_some() && group.config.is_some() {
                ready.push(name.clone());
                continue;
            }
            self.rejected.insert(name.clone());
            let state = self.groups.get(name);
            let part = GroupReport {
                ending: Some(Ending::Rejected),
                stage: None,
                stable: state.and_then(|state| state.machine.stable()).map(|hash| hash.to_string()),
                candidate: None,
                counts: state.map(|state| state.machine.tally().into()).unwrap_or_default(),
                waiting_on: Vec::new(),
                failures: Vec::new(),
                diagnostics: self.findings(name),
                started_at: None,
                ended_at: Some(report.synced_at),
            };
            if state.is_none() {
                self.stillborn.insert(name.clone());
            }
            let findings = part.diagnostics.join("; ");
            report.groups.insert(name.to_string(), part);
            self.notice(Some(name), true, format!("is rejected and keeps what it had: {findings}"));
        }
        // Most are the very same as before.
        let is_new = |pair: &Pair<'_>| {
            let new = pair.group.filter(|group| group.config.is_some()).and_then(|group| group.definition.as_ref())?;
            let is_same = pair.state.is_some_and(|state| Arc::ptr_eq(&state.definition, new));
            // After a restart definitions are known, and layers are not.
            let is_known = pair.state.is_some_and(|state| state.layers.is_some());
            let layers = pair.group.map(|group| group.layers.clone());
            (!is_same || !is_known).then(|| (pair.name.clone(), new.clone(), layers))
        };
        let new: Vec<(GroupName, Arc<GroupDefinition>, _)> = self.beside(fleet).iter().filter_map(is_new).collect();
        for (name, definition, layers) in new {
            match self.groups.get_mut(&name) {
                Some(state) => {
                    if state.take_layers(layers, &report.revision) {
                        self.storage.urgent.insert(name.clone());
                    }
                    if state.definition != definition {
                        if !select_the_same(&state.definition, &definition) {
                            self.is_assigned = false;
                            replaced.insert(name.clone(), Some(state.definition.clone()));
                        }
                        state.definition = definition;
                        self.storage.urgent.insert(name.clone());
                        renewed.insert(name.clone());
                    }
                }
                None => {
                    let mut machine = Machine::new(self.options.observe, self.options.forget_after, report.synced_at);
                    // A freeze of the whole fleet holds for those that come later, too.
                    machine.set_fleet_frozen(self.held_by_freeze());
                    let revision = report.revision.clone();
                    let state = GroupState { machine, definition, revision, next: None, timer: None, layers };
                    self.groups.insert(name.clone(), state);
                    self.storage.urgent.insert(name.clone());
                    self.is_assigned = false;
                    replaced.insert(name.clone(), None);
                    renewed.insert(name.clone());
                }
            }
        }
        (ready, renewed)
    }

    pub(super) fn plan(&mut self, name: &GroupName, next: Next, now: Timestamp) -> Effect {
        let Some(state) = self.groups.get_mut(name) else { return Effect::Nothing };
        let (wanted, revision) = (next.plan.wanted, next.revision.clone());
        let effect = state.machine.plan(next.plan.clone(), now);
        if effect == Effect::Waits {
            self.configs.insert(wanted, next.config.clone());
            state.next = Some(next);
            self.storage.lazy.insert(name.clone());
        } else {
            state.next = None;
            state.revision = revision;
            self.configs.insert(wanted, next.config);
        }
        self.collect_finished(name, now);
        // What runs goes on while the newest waits for it; everything between the two will never come.
        let running = self.groups.get(name).and_then(|state| state.machine.rollout()).map(|rollout| rollout.candidate);
        self.commits.supersede(name, &[Some(wanted), running], now);
        self.after_machine(name, now);
        effect
    }

    /// A group's part in the report of a commit that changes it; `None` when it does not.
    pub(super) fn entry(
        &mut self,
        name: &GroupName,
        hash: ConfigHash,
        effect: Effect,
        now: Timestamp,
    ) -> Option<GroupReport> {
        let state = self.groups.get(name)?;
        let ending = match effect {
            Effect::Nothing => return None,
            Effect::Started | Effect::Joined | Effect::Waits => None,
            Effect::FailedBefore if state.machine.is_rolled_back() => Some(Ending::RolledBack),
            Effect::FailedBefore => Some(Ending::Failed),
        };
        let started_at = state.machine.rollout().filter(|_| effect != Effect::Waits).map(|rollout| rollout.started);
        let mut part = self.part(name, now);
        if effect == Effect::Waits {
            // The counts are about what runs, not about what waits for it.
            (part.stage, part.counts) = (None, Counts::default());
            part.waiting_on = vec![present::waiting(&Waiting::NewerCommit, name.as_str())];
        }
        if effect == Effect::Started {
            let stable = part.stable.map_or_else(|| "nothing".to_owned(), |hash| hash.short());
            self.notice(Some(name), false, format!("rolls out {} (stable: {stable})", hash.short()));
        }
        Some(GroupReport {
            ending,
            stage: part.stage,
            stable: part.stable.map(|hash| hash.to_string()),
            candidate: Some(hash.to_string()),
            counts: part.counts,
            waiting_on: part.waiting_on,
            failures: part.failures,
            diagnostics: self.findings(name),
            started_at,
            ended_at: ending.map(|_| now),
        })
    }

    /// A commit that is taken once more (after a restart) keeps what was written about it.
    fn merge_report(&mut self, id: CommitId, mut report: CommitReport, now: Timestamp) {
        if let Some(before) = self.commits.get(id) {
            report.synced_at = before.synced_at;
            report.after = report.after.or_else(|| before.after.clone());
            // What a guard held is known better by now.
            for (name, group) in before.groups.iter().filter(|(_, group)| !is_held(group)) {
                report.groups.entry(name.clone()).or_insert_with(|| group.clone());
            }
        }
        self.commits.add(id, report, now);
    }
}

/// What is to be said of a commit before anything is planned.
fn first_report(info: &CommitInfo, rewritten: Option<bool>, fleet: &RenderedFleet, now: Timestamp) -> CommitReport {
    CommitReport {
        revision: info.revision(),
        ending: None,
        committer: info.committer.clone(),
        author: (info.author != info.committer).then(|| info.author.clone()),
        subject: info.subject.clone(),
        synced_at: now,
        ended_at: None,
        rewritten_history: rewritten == Some(true),
        unknown_history: rewritten.is_none(),
        after: None,
        diagnostics: texts(fleet.diagnostics.iter().filter(|finding| finding.group.is_none())),
        groups: BTreeMap::new(),
        more_groups: BTreeMap::new(),
    }
}

/// `Gitamp-Rollout: hold` of a commit.
fn hold_of(info: &CommitInfo, now: Timestamp) -> Option<Said> {
    let reason = Some("Gitamp-Rollout: hold".to_owned());
    (info.trailer == Some(RolloutTrailer::Hold)).then(|| Said { by: info.committer.clone(), at: now, reason })
}

fn changes(report: &CommitReport) -> String {
    let rejected = report.groups.values().filter(|group| group.ending == Some(Ending::Rejected)).count();
    match (report.groups.len(), rejected) {
        (0, _) => "changes nothing for any group".to_owned(),
        (1, 0) => "changes 1 group".to_owned(),
        (count, 0) => format!("changes {count} groups"),
        (count, rejected) => format!("concerns {count} groups, {rejected} of them rejected"),
    }
}
