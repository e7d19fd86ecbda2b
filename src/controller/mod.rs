//! Joins what the repository says, who gets it when, and who is there.
//!
//! One state machine for the whole fleet: revisions, agents' events and time go in with `handle_*`; [`Controller::poll_action`] says
//! what is to be done, [`Controller::poll_timeout`] when to come back. The caller performs the actions in their order.
//!
//! **Persist, then speak.** What a rollout newly allows reaches the roster, and so an agent, only after the record of it was
//! stored: `Action::Store` goes out, [`Controller::handle_stored`] comes back, and only then are offers made. What a rollout
//! forbids takes effect at once.

mod commits;
mod content;
mod deferred;
mod explain;
mod moves;
mod operators;
mod orders;
pub mod record;
mod report;
mod restore;
mod revision;
mod since;
mod stages;
mod storage;

pub use content::{Content, Store, Unwritten, Written};
pub use storage::{OrdersKept, group_of_file};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::agent::{AgentEvent, AgentId, ConnectionId};
use crate::config::{ConfigHash, RenderedConfig};
use crate::controller::commits::Commits;
use crate::controller::deferred::Deferred;
use crate::controller::moves::Earlier;
use crate::controller::operators::Bounded;
use crate::controller::record::OrdersFile;
use crate::controller::storage::{Storage, Untold};
use crate::fleet::assign::Assigner;
use crate::fleet::diagnostic::{Diagnostic, Severity};
use crate::fleet::snapshot::{CommitId, CommitInfo};
use crate::fleet::{GroupDefinition, GroupName, RenderedFleet};
use crate::rollout::machine::{Finished, Machine, Outcome, Plan, Rules};
use crate::rollout::record::{Pin, Said};
use crate::rollout::{Closed, Desired};
use crate::roster::{Roster, RosterAction};
use crate::time::Timestamp;
use crate::view::{CommitReport, Ending};

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
    /// True when it does not descend from the revision before; `None`: nobody can tell, the history was not fetched.
    pub rewritten: Option<bool>,
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
    /// Tell an agent to restart.
    Restart {
        /// Where.
        connection: ConnectionId,
        /// Who.
        id: AgentId,
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
    /// What became of commits, or is becoming of them, once the journal holds it. Only after [`Controller::keep_until_told`].
    Report(Vec<Reported>),
    /// Worth a line in the log.
    Notice(Notice),
}

/// A commit's report as the journal holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    /// The commit.
    pub commit: CommitId,
    /// What is known of it.
    pub report: CommitReport,
    /// True while its report may still change. One that ended is reported again after a restart, until
    /// [`Controller::handle_told`].
    pub is_open: bool,
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

/// A revision that changes more than the policy allows without a person's word.
#[derive(Debug)]
struct Guarded {
    revision: Box<Revision>,
    reason: String,
}

/// A group with everything that belongs to it but its agents.
#[derive(Debug)]
struct GroupState {
    machine: Machine,
    definition: Arc<GroupDefinition>,
    revision: String,
    next: Option<Next>,
    timer: Option<Timestamp>,
    /// The layers of its newest good definition, and while a rollout runs those that it was rendered from; `None`: nobody knows.
    layers: Option<Arc<[Arc<str>]>>,
}

impl GroupState {
    /// Takes the layers of the definition in this revision. What runs meanwhile was rendered from those of before, and is judged by both. True
    /// when that is something else than the record says.
    fn take_layers(&mut self, layers: Option<Arc<[Arc<str>]>>, revision: &str) -> bool {
        let Some(running) = self.machine.rollout() else {
            self.layers = layers;
            return false;
        };
        let before = self.layers.take();
        self.layers = match (layers, &before) {
            // Nobody wrote down what it was rendered from: everything counts until it is over.
            (Some(_), None) if running.revision != revision => None,
            (Some(new), Some(before)) => {
                let both: BTreeSet<Arc<str>> = new.iter().chain(&**before).cloned().collect();
                Some(both.into_iter().collect())
            }
            (layers, _) => layers,
        };
        self.layers != before
    }
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
    /// Groups that the newest revision rejects.
    rejected: BTreeSet<GroupName>,
    /// True when this process has taken a revision.
    has_taken: bool,
    /// True while every agent has the group that the definitions as they are give it.
    is_assigned: bool,
    /// For each group: those that wait for it (`dependsOn`).
    dependents: BTreeMap<GroupName, BTreeSet<GroupName>>,
    /// A revision that a guard holds until a person promotes its commit.
    guarded: Option<Guarded>,
    /// The guarded commit that a person promoted.
    promoted: Option<CommitId>,
    /// A person stopped every offer to the whole fleet.
    frozen: Option<Said>,
    /// Agents that a person wants to keep what they have.
    pins: BTreeMap<AgentId, Pin>,
    orders: OrdersFile,
    /// Orders that have no effect before they are stored.
    deferred: Deferred,
    /// Refused commands, as far as the journal takes them in.
    refusals: Bounded,
    /// Syncs that were asked for, likewise.
    syncs: Bounded,
    /// Commands of nobody who is known, likewise.
    uninvited: Bounded,
    /// Agents that used the identity of another one, likewise.
    impostors: Bounded,
    /// Who belonged where before commits moved agents.
    earlier: Earlier,
    commits: Commits,
    storage: Storage,
    actions: VecDeque<Action>,
    timers: BTreeSet<(Timestamp, GroupName)>,
    /// When this process last did anything.
    awake: Option<Timestamp>,
    /// When it does something again at the latest.
    back_by: Option<Timestamp>,
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
            rejected: BTreeSet::new(),
            has_taken: false,
            is_assigned: false,
            dependents: BTreeMap::new(),
            guarded: None,
            promoted: None,
            frozen: None,
            pins: BTreeMap::new(),
            orders: OrdersFile::default(),
            deferred: Deferred::default(),
            refusals: Bounded::new("refused commands"),
            syncs: Bounded::new("syncs"),
            uninvited: Bounded::of_strangers("commands that nobody who is known gave"),
            impostors: Bounded::of_strangers("attempts to use the identity of another agent"),
            earlier: Earlier::default(),
            commits: Commits::default(),
            storage: Storage::default(),
            actions: VecDeque::new(),
            timers: BTreeSet::new(),
            awake: None,
            back_by: None,
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
        [timers, self.roster.poll_timeout(), self.storage.poll_timeout(), self.audit_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// From now on what becomes of commits is reported ([`Action::Report`]), and the journal keeps each ending until
    /// [`Controller::handle_told`]: a process that dies before it could tell anybody leaves that to its successor.
    pub fn keep_until_told(&mut self) {
        self.commits.keep_until_told();
    }

    /// Everybody who is to know how this commit ended does.
    pub fn handle_told(&mut self, commit: CommitId) {
        self.commits.told(commit);
    }

    /// True when what this commit brought is still what some group of it is told to run, and was taken back all the same: nothing that
    /// came later has answered it. False for a commit that merely still says what an earlier one brought.
    pub fn stands_rolled_back(&self, report: &CommitReport) -> bool {
        report.groups.iter().any(|(name, part)| {
            let state = self.groups.get(&GroupName::new(name.as_str())).filter(|state| state.machine.is_rolled_back());
            let rollout = state.and_then(|state| state.machine.rollout());
            let rollout = rollout.filter(|rollout| rollout.revision == report.revision);
            rollout.is_some_and(|rollout| part.candidate == Some(rollout.candidate.to_string()))
        })
    }

    /// The findings by the group that they are about: where many groups are asked for, each is looked at once.
    fn findings_by_group(&self) -> BTreeMap<&GroupName, Vec<&Diagnostic>> {
        let mut all: BTreeMap<&GroupName, Vec<&Diagnostic>> = BTreeMap::new();
        for finding in &self.diagnostics {
            if let Some(group) = &finding.group {
                all.entry(group).or_default().push(finding);
            }
        }
        all
    }

    fn findings(&self, name: &GroupName) -> Vec<String> {
        texts(self.diagnostics.iter().filter(|finding| finding.group.as_ref() == Some(name)))
    }

    /// Gives every agent its group; nothing is to be done while all groups select whom they selected when that was last done.
    fn assign(&mut self, now: Timestamp) -> BTreeSet<GroupName> {
        if std::mem::replace(&mut self.is_assigned, true) {
            return BTreeSet::new();
        }
        let assigner = Assigner::new(self.groups.iter().map(|(name, state)| (name, &*state.definition)));
        self.roster.set_assigner(assigner, now)
    }

    /// Takes what a session tells. What follows from it is decided by [`Controller::handle_timeout`], once all of a batch is known: of
    /// reports that come together, the failure counts before anybody gets the room that another one leaves.
    pub fn handle_agent(&mut self, event: AgentEvent, now: Timestamp) {
        self.notice_gap(now);
        self.roster.handle_event(event, now);
    }

    /// Time has passed. Also to be called after a batch of [`Controller::handle_agent`]: what follows from it is decided and stored here.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.notice_gap(now);
        self.expire_belonging(now);
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
        self.tell_omitted(now);
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
                RosterAction::Restart { group, connection, id } => {
                    // First a record without it is stored: a successor must not tell it once more.
                    self.storage.urgent.insert(group.clone());
                    self.storage.untold.push(Untold { group, connection, id });
                    continue;
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
        self.receive_moved(name, now);
        self.draw_stage(name, now);
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
        let desired = state.machine.desired(now);
        if self.storage.holds(name) {
            self.publish(name, desired, now);
        } else {
            self.close(name, desired, now);
        }
        self.storage.touched.insert(name.clone());
        self.tell_dependents(name, now);
    }

    /// Only what is forbidden takes effect at once. What is new and allowed waits for the record.
    fn close(&mut self, name: &GroupName, mut desired: Desired, now: Timestamp) {
        let Some(current) = self.roster.group(name).map(|group| &group.desired) else { return };
        if current.candidate.is_some() && desired.candidate.is_some() && desired.candidate != current.candidate {
            // Another one takes its place, perhaps because this one failed: nobody else is offered it meanwhile, nor gets what waits for
            // a poll.
            if !current.replaced {
                let closed = current.closed.clone().or(Some(Closed::NotStored));
                let replaced = Desired { closed, replaced: true, ..current.clone() };
                self.publish(name, replaced, now);
            }
            return;
        }
        let closes = current.candidate.is_some() && desired.candidate.is_none()
            || desired.closed.is_some() && current.closed.is_none()
            || desired.holds_back && !current.holds_back;
        if !closes {
            return;
        }
        (desired.room, desired.reach) = (desired.room.min(current.room), desired.reach.min(current.reach));
        if current.closed == Some(Closed::NotStored) {
            // What is in the way of every offer stays there until the record is stored.
            desired.closed.get_or_insert(Closed::NotStored);
        }
        if desired.candidate.is_some() {
            // It is held back, and nobody joins it.
            (desired.cohort, desired.draws) = (current.cohort.clone(), current.draws);
        }
        // The way back begins, and who was kept waiting by a rollout to moved agents gets what is stable, only by a record that says so.
        if desired.restoring_since.is_some() || current.moving && !desired.moving {
            desired.restoring_since = None;
            desired.closed.get_or_insert(Closed::NotStored);
        }
        self.publish(name, desired, now);
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

    fn publish(&mut self, name: &GroupName, desired: Desired, now: Timestamp) {
        let configs = &self.configs;
        self.roster.set_desired(name, desired, |hash| configs.get(&hash).cloned(), now);
    }

    /// Rollouts that ended: their commits are told, and what waited for them begins.
    fn collect_finished(&mut self, name: &GroupName, now: Timestamp) {
        let finished = self.groups.get_mut(name).map(|state| state.machine.take_finished()).unwrap_or_default();
        for Finished { candidate, outcome, tally } in finished {
            let mut part = self.part(name, now);
            part.counts = (&tally).into();
            if outcome == Outcome::RolledBack {
                // The counts are about the way back; who failed is who failed what was taken back.
                part.counts.failed = self.failed(name, candidate);
            }
            let (ending, is_warning) = match outcome {
                Outcome::Succeeded => (Some(Ending::Succeeded), false),
                Outcome::Failed => (Some(Ending::Failed), true),
                Outcome::RollingBack => (None, true),
                Outcome::RolledBack => (Some(Ending::RolledBack), true),
                Outcome::Superseded => (Some(Ending::Superseded), false),
            };
            let what = ending.map_or_else(|| "is taken back".to_owned(), |ending| ending.to_string());
            let summary = format!(
                "{} {what}: {} confirmed, {} failed, {} held, {} away",
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
            self.storage.news = true;
            let Some(ending) = ending else { continue };
            self.commits.finish(name, candidate, ending, &part, now);
            let next = self.groups.get_mut(name).and_then(|state| state.next.take());
            if let Some(next) = next.filter(|_| outcome != Outcome::Superseded) {
                let _effect = self.plan(name, next, now);
            }
        }
    }

    /// How many agents failed this configuration.
    fn failed(&self, name: &GroupName, hash: ConfigHash) -> usize {
        let failures = self.roster.group(name).map(|group| group.failures.values());
        failures.map_or(0, |failures| failures.filter(|failure| failure.hash == hash).count())
    }

    fn notice(&mut self, group: Option<&GroupName>, is_warning: bool, message: String) {
        self.actions.push_back(Action::Notice(Notice { is_warning, group: group.cloned(), message }));
    }
}

fn rules(definition: &GroupDefinition) -> Rules {
    Rules { strategy: definition.strategy.clone(), suspend: definition.suspend, expect: definition.expect }
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

#[cfg(test)]
mod tests;
