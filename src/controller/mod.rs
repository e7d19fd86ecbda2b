//! Joins what the repository says, who gets it when, and who is there.
//!
//! One state machine for the whole fleet: revisions, agents' events and time go in with `handle_*`; [`Controller::poll_action`] says
//! what is to be done, [`Controller::poll_timeout`] when to come back. The caller performs the actions in their order.
//!
//! **Persist, then speak.** What a rollout newly allows reaches the roster, and so an agent, only after the record of it was
//! stored: `Action::Store` goes out, [`Controller::handle_stored`] comes back, and only then are offers made. What a rollout
//! forbids takes effect at once.

mod commits;
pub mod record;
mod report;
mod restore;
mod storage;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::agent::{AgentEvent, AgentId, ConnectionId};
use crate::config::{ConfigHash, RenderedConfig};
use crate::controller::commits::Commits;
use crate::controller::storage::Storage;
use crate::fleet::assign::Assigner;
use crate::fleet::diagnostic::{Diagnostic, Severity};
use crate::fleet::snapshot::{CommitId, CommitInfo};
use crate::fleet::{GroupDefinition, GroupName, RenderedFleet};
use crate::rollout::machine::{Effect, Finished, Machine, Outcome, Plan, Rules};
use crate::roster::{Roster, RosterAction};
use crate::time::Timestamp;
use crate::view::{CommitReport, Ending, GroupReport};

/// Findings of one group that its part of a note names.
const MOST_DIAGNOSTICS: usize = 10;

/// How a controller works.
#[derive(Clone, Debug)]
pub struct Options {
    /// True: everything is computed, nothing is offered.
    pub observe: bool,
    /// Agents that are away are forgotten after this.
    pub forget_after: Duration,
}

/// A revision, read and rendered.
#[derive(Clone, Debug)]
pub struct Revision {
    /// The commit.
    pub info: CommitInfo,
    /// True when it does not descend from the revision before.
    pub rewritten: bool,
    /// What it says.
    pub fleet: RenderedFleet,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Action {
    /// Put a configuration into an agent's slot.
    Offer {
        /// Where.
        connection: ConnectionId,
        /// Who.
        id: AgentId,
        /// What.
        config: RenderedConfig,
        /// True when the same may go out again on this connection.
        retry: bool,
    },
    /// Empty an agent's slot.
    Withdraw {
        /// Where.
        connection: ConnectionId,
        /// Who.
        id: AgentId,
    },
    /// Store this locally; then call [`Controller::handle_stored`] or [`Controller::handle_store_failed`]. At most one is under way.
    Store(Store),
    /// Worth a line in the log.
    Notice(Notice),
}

/// What the journal shall hold, in one commit.
#[derive(Clone, Debug, Default)]
pub struct Store {
    /// Names this request.
    pub ticket: u64,
    /// One line for the journal's own history.
    pub message: String,
    /// Notes by commit.
    pub notes: BTreeMap<CommitId, String>,
    /// Files below `state/`; `None` removes one.
    pub files: BTreeMap<String, Option<Bytes>>,
}

/// Something that happened, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// True when somebody should look.
    pub is_warning: bool,
    /// The group.
    pub group: Option<GroupName>,
    /// The sentence.
    pub message: String,
}

/// A revision that waits until the running rollout of a group has ended.
#[derive(Debug)]
struct Next {
    plan: Plan,
    config: RenderedConfig,
    revision: String,
}

/// A group with everything that belongs to it but its agents.
#[derive(Debug)]
struct GroupState {
    machine: Machine,
    definition: Arc<GroupDefinition>,
    revision: String,
    next: Option<Next>,
    timer: Option<Timestamp>,
}

/// The whole fleet.
#[derive(Debug)]
pub struct Controller {
    options: Options,
    roster: Roster,
    groups: BTreeMap<GroupName, GroupState>,
    /// The bodies of every configuration that some group needs.
    configs: BTreeMap<ConfigHash, RenderedConfig>,
    accepted: Option<CommitInfo>,
    /// The commit that was refused last.
    refused: Option<CommitId>,
    policy: Option<Bytes>,
    /// The newest revision's findings.
    diagnostics: Vec<Diagnostic>,
    /// Groups of the newest revision that are rejected and have never been good.
    stillborn: BTreeSet<GroupName>,
    commits: Commits,
    storage: Storage,
    actions: VecDeque<Action>,
    timers: BTreeSet<(Timestamp, GroupName)>,
}

impl Controller {
    /// A controller that knows nothing yet.
    pub fn new(options: Options) -> Self {
        Self {
            roster: Roster::new(options.forget_after),
            options,
            groups: BTreeMap::new(),
            configs: BTreeMap::new(),
            accepted: None,
            refused: None,
            policy: None,
            diagnostics: Vec::new(),
            stillborn: BTreeSet::new(),
            commits: Commits::default(),
            storage: Storage::default(),
            actions: VecDeque::new(),
            timers: BTreeSet::new(),
        }
    }

    /// The `fleet.yaml` that the next revision is to be judged by; `None` when nothing was accepted yet, and the next one is judged
    /// by its own. An accepted revision without a `fleet.yaml` has an empty one.
    pub fn policy(&self) -> Option<Bytes> {
        self.accepted.as_ref().map(|_| self.policy.clone().unwrap_or_default())
    }

    /// The accepted commit.
    pub fn accepted(&self) -> Option<&CommitInfo> {
        self.accepted.as_ref()
    }

    /// The agents.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Controller::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let timers = self.timers.first().map(|(at, _)| *at);
        [timers, self.roster.poll_timeout(), self.storage.poll_timeout()].into_iter().flatten().min()
    }

    /// Takes a revision; false when it is refused as a whole. Taking the same one again changes nothing.
    pub fn handle_revision(&mut self, revision: Revision, now: Timestamp) -> bool {
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
        let mut report = CommitReport {
            revision: info.revision(),
            ending: None,
            committer: info.committer.clone(),
            subject: info.subject.clone(),
            synced_at: now,
            ended_at: None,
            rewritten_history: rewritten,
            diagnostics: texts(fleet.diagnostics.iter().filter(|finding| finding.group.is_none())),
            groups: BTreeMap::new(),
            more_groups: BTreeMap::new(),
        };
        self.diagnostics = fleet.diagnostics.clone();
        if is_refused {
            self.refuse(&info, report, now);
            return false;
        }
        self.accepted = Some(info.clone());
        self.policy = fleet.policy.clone();
        self.storage.fleet_changed = true;
        self.roster.pause();
        self.remove_groups(&fleet, &mut report, now);
        let ready = self.take_definitions(&fleet, &mut report);
        let receivers = self.assign(now);
        let mut begun = BTreeSet::new();
        for name in &ready {
            let config = fleet.groups.get(name).and_then(|group| group.config.clone());
            let definition = fleet.groups.get(name).and_then(|group| group.definition.clone());
            let (Some(config), Some(definition)) = (config, definition) else { continue };
            let plan = Plan { wanted: config.hash(), rules: rules(&definition), moved_in: receivers.contains(name) };
            let next = Next { plan, config, revision: info.revision() };
            let hash = next.config.hash();
            let effect = self.plan(name, next, now);
            if matches!(effect, Effect::Started | Effect::Waits) {
                begun.insert(name.to_string());
            }
            let part = self.entry(name, hash, effect, now);
            report.groups.extend(part.map(|part| (name.to_string(), part)));
        }
        if !is_new {
            // A commit that is taken once more, after a restart: what is known of it is in the journal already.
            report.groups.retain(|name, _| begun.contains(name));
        }
        if is_new || !report.groups.is_empty() {
            self.notice(None, false, format!("{}: {} ({})", report.revision, report.subject, changes(&report)));
            self.merge_report(info.id, report, now);
        }
        for name in &ready {
            // Other rules may end what runs, a shorter soak for example: only now is the commit there to be told.
            if let Some(state) = self.groups.get_mut(name) {
                state.machine.handle_timeout(now);
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

    fn refuse(&mut self, info: &CommitInfo, mut report: CommitReport, now: Timestamp) {
        self.notice(None, true, format!("{} is rejected: {}", report.revision, report.diagnostics.join("; ")));
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
        self.accepted = Some(info);
        self.storage.fleet_changed = true;
    }

    fn remove_groups(&mut self, fleet: &RenderedFleet, report: &mut CommitReport, now: Timestamp) {
        // The variants of a group whose file cannot be read have no names in the revision; they are not gone for that.
        let is_hidden = |state: &GroupState| {
            let base = state.definition.variant_of.as_ref().and_then(|(base, _)| fleet.groups.get(base));
            base.is_some_and(|base| base.definition.is_none())
        };
        let gone = self.groups.iter().filter(|(name, state)| !fleet.groups.contains_key(*name) && !is_hidden(state));
        let gone: Vec<GroupName> = gone.map(|(name, _)| name.clone()).collect();
        for name in gone {
            if let Some(state) = self.groups.get_mut(&name) {
                state.machine.abandon();
            }
            self.collect_finished(&name, now);
            if let Some(at) = self.groups.remove(&name).and_then(|state| state.timer) {
                self.timers.remove(&(at, name.clone()));
            }
            self.roster.remove_group(&name, now);
            self.commits.supersede(&name, &[], now);
            self.storage.urgent.insert(name.clone());
            let message = "is no longer in the repository; its agents keep what they have";
            report.groups.insert(name.to_string(), GroupReport::ended(Ending::NoOp, message, now));
            self.notice(Some(&name), true, message.to_owned());
        }
    }

    /// Takes the definitions of the groups that are good, and tells of those that are not. Returns the good ones.
    fn take_definitions(&mut self, fleet: &RenderedFleet, report: &mut CommitReport) -> Vec<GroupName> {
        let mut ready = Vec::new();
        self.stillborn.clear();
        for (name, group) in &fleet.groups {
            if group.definition.is_some() && group.config.is_some() {
                ready.push(name.clone());
                continue;
            }
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
        for name in &ready {
            let Some(definition) = fleet.groups.get(name).and_then(|group| group.definition.clone()) else { continue };
            match self.groups.get_mut(name) {
                Some(state) => {
                    if state.definition != definition {
                        state.definition = definition;
                        self.storage.urgent.insert(name.clone());
                    }
                }
                None => {
                    let machine = Machine::new(self.options.observe, self.options.forget_after, report.synced_at);
                    let revision = report.revision.clone();
                    let state = GroupState { machine, definition, revision, next: None, timer: None };
                    self.groups.insert(name.clone(), state);
                    self.storage.urgent.insert(name.clone());
                }
            }
        }
        ready
    }

    fn findings(&self, name: &GroupName) -> Vec<String> {
        texts(self.diagnostics.iter().filter(|finding| finding.group.as_ref() == Some(name)))
    }

    fn assign(&mut self, now: Timestamp) -> BTreeSet<GroupName> {
        let assigner = Assigner::new(self.groups.iter().map(|(name, state)| (name, &*state.definition)));
        self.roster.set_assigner(assigner, now)
    }

    fn plan(&mut self, name: &GroupName, next: Next, now: Timestamp) -> Effect {
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
    fn entry(&mut self, name: &GroupName, hash: ConfigHash, effect: Effect, now: Timestamp) -> Option<GroupReport> {
        let state = self.groups.get(name)?;
        let ending = match effect {
            Effect::Nothing => return None,
            Effect::Started | Effect::Joined | Effect::Waits => None,
            Effect::FailedBefore => Some(Ending::Failed),
        };
        let started_at = state.machine.rollout().filter(|_| effect != Effect::Waits).map(|rollout| rollout.started);
        let mut part = self.part(name, now);
        if effect == Effect::Waits {
            // The counts are about what runs, not about what waits for it.
            (part.stage, part.counts) = (None, crate::view::Counts::default());
            part.waiting_on = vec![(&crate::rollout::Waiting::NewerCommit).into()];
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
            for (name, group) in &before.groups {
                report.groups.entry(name.clone()).or_insert_with(|| group.clone());
            }
        }
        self.commits.add(id, report, now);
    }

    /// Takes what a session tells.
    pub fn handle_agent(&mut self, event: AgentEvent, now: Timestamp) {
        self.roster.handle_event(event, now);
        self.settle(now);
    }

    /// Time has passed. Also to be called after a batch of [`Controller::handle_agent`]: records are stored from here.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.roster.handle_timeout(now);
        self.settle(now);
        while let Some((at, name)) = self.timers.first().filter(|(at, _)| *at <= now).cloned() {
            self.timers.remove(&(at, name.clone()));
            if let Some(state) = self.groups.get_mut(&name) {
                state.timer = None;
                state.machine.handle_timeout(now);
            }
            self.after_machine(&name, now);
        }
        self.settle(now);
        self.flush(now);
    }

    /// Brings machines and roster to agreement: counts up, what is forbidden down, until nothing changes any more.
    fn settle(&mut self, now: Timestamp) {
        loop {
            let mut changed = self.roster.take_changed();
            if changed.is_empty() {
                self.roster.make_offers(now);
                changed = self.roster.take_changed();
            }
            if changed.is_empty() {
                break;
            }
            for name in changed {
                let tally = self.roster.tally(&name, now);
                if let Some(state) = self.groups.get_mut(&name) {
                    state.machine.observe(tally, now);
                    if self.roster.take_memory_changed(&name) {
                        self.storage.lazy.insert(name.clone());
                    }
                }
                self.after_machine(&name, now);
            }
        }
        while let Some(action) = self.roster.poll_action() {
            self.actions.push_back(match action {
                RosterAction::Offer { connection, id, config, retry } => {
                    Action::Offer { connection, id, config, retry }
                }
                RosterAction::Withdraw { connection, id } => Action::Withdraw { connection, id },
            });
        }
    }

    /// What a machine's change leads to.
    fn after_machine(&mut self, name: &GroupName, now: Timestamp) {
        self.collect_finished(name, now);
        let is_vain = |state: &&mut GroupState| state.next.is_some() && !state.machine.can_finish(now);
        if let Some(next) = self.groups.get_mut(name).filter(is_vain).and_then(|state| state.next.take()) {
            // The plan comes back here.
            let _effect = self.plan(name, next, now);
            return;
        }
        let Some(state) = self.groups.get_mut(name) else { return };
        if state.machine.take_unstored() {
            self.storage.urgent.insert(name.clone());
        }
        if state.machine.take_outdated() {
            self.storage.lazy.insert(name.clone());
        }
        let due = state.machine.poll_timeout(now).map(|(at, _)| at);
        if due != state.timer {
            if let Some(old) = std::mem::replace(&mut state.timer, due) {
                self.timers.remove(&(old, name.clone()));
            }
            self.timers.extend(due.map(|at| (at, name.clone())));
        }
        let mut desired = state.machine.desired();
        let current = self.roster.group(name).map(|group| &group.desired);
        let closes = current.is_some_and(|current| {
            current.candidate.is_some() && desired.candidate.is_none()
                || desired.closed.is_some() && current.closed.is_none()
        });
        if self.storage.holds(name) {
            self.publish(name, desired, now);
        } else if closes {
            // Only what is forbidden takes effect at once. What is new and allowed waits for the record.
            desired.room = desired.room.min(current.map_or(0, |current| current.room));
            desired.reach = desired.reach.min(current.map_or(0, |current| current.reach));
            self.publish(name, desired, now);
        }
        self.storage.touched.insert(name.clone());
    }

    /// Brings the reports of open commits up to date for the groups that were touched.
    fn refresh_reports(&mut self, now: Timestamp) {
        for name in std::mem::take(&mut self.storage.touched) {
            if !self.commits.waits_for(&name) {
                continue;
            }
            let rollout = self.groups.get(&name).and_then(|state| state.machine.rollout());
            let candidate = rollout.map(|rollout| rollout.candidate);
            let part = self.part(&name, now);
            if self.commits.refresh(&name, candidate, &part, now) {
                self.storage.news = true;
            }
        }
    }

    fn publish(&mut self, name: &GroupName, desired: crate::rollout::Desired, now: Timestamp) {
        let configs = &self.configs;
        self.roster.set_desired(name, desired, |hash| configs.get(&hash).cloned(), now);
    }

    /// Rollouts that ended: their commits are told, and what waited for them begins.
    fn collect_finished(&mut self, name: &GroupName, now: Timestamp) {
        let finished = self.groups.get_mut(name).map(|state| state.machine.take_finished()).unwrap_or_default();
        for Finished { candidate, outcome, tally } in finished {
            let mut part = self.part(name, now);
            part.counts = (&tally).into();
            let (ending, is_warning) = match outcome {
                Outcome::Succeeded => (Ending::Succeeded, false),
                Outcome::Failed => (Ending::Failed, true),
                Outcome::Superseded => (Ending::Superseded, false),
            };
            let summary = format!(
                "{} {ending}: {} confirmed, {} failed, {} held, {} away",
                candidate.short(),
                tally.confirmed,
                tally.failed,
                tally.held,
                tally.away
            );
            let causes = part
                .failures
                .iter()
                .filter(|_| is_warning)
                .map(|cluster| format!("; {}: {}", cluster.count, cluster.message));
            self.notice(Some(name), is_warning, summary + &causes.collect::<String>());
            self.commits.finish(name, candidate, ending, &part, now);
            self.storage.news = true;
            let next = self.groups.get_mut(name).and_then(|state| state.next.take());
            if let Some(next) = next.filter(|_| outcome != Outcome::Superseded) {
                let _effect = self.plan(name, next, now);
            }
        }
    }

    fn notice(&mut self, group: Option<&GroupName>, is_warning: bool, message: String) {
        self.actions.push_back(Action::Notice(Notice { is_warning, group: group.cloned(), message }));
    }
}

fn rules(definition: &GroupDefinition) -> Rules {
    Rules {
        strategy: definition.strategy.clone(),
        suspend: definition.suspend,
        expect: definition.expect,
        held: definition.held.clone(),
    }
}

fn texts<'a>(findings: impl Iterator<Item = &'a Diagnostic>) -> Vec<String> {
    let mut errors: Vec<&Diagnostic> = findings.filter(|finding| finding.severity == Severity::Error).collect();
    let more = errors.len().saturating_sub(MOST_DIAGNOSTICS);
    errors.truncate(MOST_DIAGNOSTICS);
    let mut texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    if more > 0 {
        texts.push(format!("and {more} more"));
    }
    texts
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

#[cfg(test)]
mod tests;
