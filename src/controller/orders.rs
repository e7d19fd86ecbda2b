//! What operators order: whom it concerns, what it would do, and doing it. Every order goes into the journal.

use std::collections::BTreeSet;

use crate::agent::AgentId;
use crate::config::ConfigHash;
use crate::controller::record::OrderEntry;
use crate::controller::since::Stays;
use crate::controller::{Controller, GroupState};
use crate::fleet::GroupName;
use crate::fleet::snapshot::CommitId;
use crate::rollout::record::{Pin, Progress, Said};
use crate::rollout::{Closed, MOST_REMEMBERED, Machine, Waiting};
use crate::time::{Timestamp, show_duration};
use crate::view::command::{Command, Impact, NOT_STORED, Order, Refusal};
use crate::view::present;

/// Orders that the journal keeps beside its own history.
const MOST_ORDERS: usize = 200;

/// Agents that may be pinned one by one; a larger part of a fleet is a group.
const MOST_PINS: usize = 1_000;

/// Hex digits of a commit or a configuration that are enough to name it.
const FEWEST_DIGITS: usize = 7;

/// Longest pin. What is to stay longer belongs into the repository.
const LONGEST_PIN: std::time::Duration = std::time::Duration::from_secs(366 * 24 * 3600);

/// The refusal of any other length.
const PIN_LENGTH: &str = "a pin lasts longer than nothing, and a year at most";

/// What an order comes down to, once its words are understood.
pub(super) enum Target {
    /// Of these groups, each by itself.
    Groups(Vec<GroupName>),
    /// Each of these groups goes back to this configuration. Others cannot, and stay as they are.
    Undo(Vec<(GroupName, ConfigHash)>, Vec<(GroupName, Stays)>),
    /// The whole fleet.
    Fleet,
    /// One agent.
    Agent(AgentId),
    /// A commit that a guard holds.
    Guarded,
    /// One agent that failed is to be offered this once more.
    Retry(AgentId, ConfigHash),
    /// These agents restart; so many more of the same group cannot.
    Restart(Vec<AgentId>, usize),
}

impl Controller {
    /// What this command would do now; nothing is changed.
    ///
    /// # Errors
    /// When it cannot be carried out, with what to do instead.
    pub fn preview(&self, command: &Command, now: Timestamp) -> Result<Impact, Refusal> {
        let target = self.target(command)?;
        let said = Said { by: String::new(), at: now, reason: None };
        match &target {
            Target::Groups(names) => {
                for name in names {
                    let state = self.state_of(name.as_str())?;
                    let mut tried = state.machine.clone();
                    order_machine(&mut tried, command, &said, &state.revision, now)
                        .map_err(|error| Refusal::new(format!("{name}: {error}")))?;
                }
            }
            Target::Undo(names, _) => {
                for (name, to) in names {
                    let state = self.state_of(name.as_str())?;
                    let mut tried = state.machine.clone();
                    tried
                        .undo(*to, said.clone(), &state.revision, now)
                        .map_err(|error| Refusal::new(format!("{name}: {error}")))?;
                }
            }
            Target::Fleet => self.check_fleet(command)?,
            Target::Agent(id) => self.check_pin(command, *id)?,
            Target::Guarded | Target::Restart(..) | Target::Retry(..) => {}
        }
        Ok(self.impact(command, &target, now))
    }

    /// Carries out an order of somebody who may give it, and has it recorded in the journal, refused ones too.
    ///
    /// # Errors
    /// When it cannot be carried out, with what to do instead; then nothing was changed.
    pub fn handle_order(&mut self, order: &Order, now: Timestamp) -> Result<Impact, Refusal> {
        self.notice_gap(now);
        let outcome = self.preview(&order.command, now).and_then(|impact| {
            let target = self.target(&order.command)?;
            let unstored = self.unstored(&target, now);
            self.carry_out(order, target, now)?;
            Ok(Impact { unstored, ..impact })
        });
        self.record(order, outcome.as_ref(), now);
        self.settle(now);
        self.flush(now);
        outcome
    }

    /// Keeps an order among the newest ones.
    pub(super) fn keep_order(&mut self, entry: OrderEntry) {
        self.orders.orders.push(entry);
        let superfluous = self.orders.orders.len().saturating_sub(MOST_ORDERS);
        self.orders.orders.drain(..superfluous);
    }

    fn carry_out(&mut self, order: &Order, target: Target, now: Timestamp) -> Result<(), Refusal> {
        let said = Said { by: order.by.clone(), at: now, reason: order.reason.clone() };
        let refuse = |error: &str| Refusal::new(error);
        match target {
            Target::Groups(names) => {
                for name in names {
                    let Some(state) = self.groups.get_mut(&name) else { continue };
                    order_machine(&mut state.machine, &order.command, &said, &state.revision, now).map_err(refuse)?;
                    let candidate = state.machine.rollout().map(|rollout| rollout.candidate);
                    if let (Command::Retry { .. }, Some(candidate)) = (&order.command, candidate) {
                        self.commits.reopen(&name, candidate);
                    }
                    self.after_machine(&name, now);
                }
            }
            Target::Undo(names, _) => {
                for (name, to) in names {
                    let Some(state) = self.groups.get_mut(&name) else { continue };
                    state.machine.undo(to, said.clone(), &state.revision, now).map_err(refuse)?;
                    if let Some(next) = state.next.take() {
                        state.machine.take_wish(next.plan.wanted);
                    }
                    // A commit that waited for what ran does not come any more, unless the undo is taken back.
                    self.commits.supersede(&name, &[Some(to)], now);
                    self.after_machine(&name, now);
                }
            }
            Target::Fleet => {
                self.storage.fleet_changed = true;
                self.order_freeze(matches!(order.command, Command::Freeze { .. }).then_some(said), now);
            }
            Target::Agent(id) => {
                self.pins.retain(|_, pin| pin.until > now);
                if let Command::Pin { length, .. } = &order.command {
                    let until = now + *length;
                    self.pins.insert(id, Pin { until, said });
                    self.keep_pin(id);
                    self.roster.set_pin(id, Some(until), now);
                } else {
                    self.pins.remove(&id);
                    self.defer_unpin(id);
                }
                self.storage.fleet_changed = true;
            }
            Target::Restart(ids, _) => self.defer_restarts(&ids),
            Target::Retry(id, _) => self.defer_retry(id),
            Target::Guarded => {
                if let Some(guarded) = self.guarded.take() {
                    self.promoted = Some(guarded.revision.info.id);
                    self.storage.fleet_changed = true;
                    self.handle_revision(*guarded.revision, now);
                }
            }
        }
        Ok(())
    }

    /// What is to be said of an order that stands in records of groups which the journal does not take now.
    fn unstored(&self, target: &Target, now: Timestamp) -> Option<String> {
        let of_agent = |id: &AgentId| self.roster.agent(*id).and_then(|member| member.placement.group());
        let names: BTreeSet<&GroupName> = match target {
            Target::Groups(names) => names.iter().collect(),
            Target::Undo(names, _) => names.iter().map(|(name, _)| name).collect(),
            Target::Retry(id, _) => of_agent(id).into_iter().collect(),
            Target::Restart(ids, _) => ids.iter().filter_map(of_agent).collect(),
            // That stands in the fleet's record.
            Target::Fleet | Target::Agent(_) | Target::Guarded => BTreeSet::new(),
        };
        let refused = names.into_iter().filter_map(|name| Some((name, self.storage.refusal(name, now)?)));
        let words: String =
            refused.map(|(name, reason)| format!("; the journal refuses that of {name}: {reason}")).collect();
        (!words.is_empty()).then(|| format!("{NOT_STORED}{words}"))
    }

    /// Understands whom a command means.
    fn target(&self, command: &Command) -> Result<Target, Refusal> {
        let one = |name: &str| self.state_of(name).map(|_| Target::Groups(vec![GroupName::new(name)]));
        match command {
            Command::Pause { group } | Command::Resume { group } | Command::Abort { group } => one(group),
            Command::Retry { target } => match self.group_or_agent(target)? {
                None => one(target),
                Some(id) => {
                    let hash = self.roster.retryable(id).map_err(Refusal::new)?;
                    Ok(Target::Retry(id, hash))
                }
            },
            Command::Promote { target, .. } => self.promoted_by(target),
            Command::Undo { group, to } => {
                let state = self.state_of(group)?;
                let to = self.undo_target(group, state, to.as_deref())?;
                Ok(Target::Undo(vec![(GroupName::new(group.as_str()), to)], Vec::new()))
            }
            Command::UndoSince { since } => self.changed_since(*since),
            Command::Pin { target, .. } | Command::Unpin { target } => {
                self.group_or_agent(target)?.map_or_else(|| one(target), |id| Ok(Target::Agent(id)))
            }
            Command::Restart { target } => self.restarted_by(target),
            Command::Freeze { group: Some(group) } | Command::Unfreeze { group: Some(group) } => one(group),
            Command::Freeze { group: None } | Command::Unfreeze { group: None } => Ok(Target::Fleet),
        }
    }

    /// The agent that is meant; `None`: it is a group.
    fn group_or_agent(&self, target: &str) -> Result<Option<AgentId>, Refusal> {
        if self.groups.contains_key(&GroupName::new(target)) {
            return Ok(None);
        }
        let neither = |_| Refusal::new(format!("`{target}` is no group and no agent's id"));
        target.parse().map(Some).map_err(neither)
    }

    fn state_of(&self, name: &str) -> Result<&GroupState, Refusal> {
        self.groups
            .get(&GroupName::new(name))
            .ok_or_else(|| Refusal::new(format!("there is no group `{name}`; `gitamp status` lists them")))
    }

    fn restarted_by(&self, target: &str) -> Result<Target, Refusal> {
        let Some(id) = self.group_or_agent(target)? else {
            let name = GroupName::new(target);
            let (can, cannot) = self.roster.restartable(&name);
            if can.is_empty() {
                return Err(Refusal::new(format!("no connected agent of {target} takes the restart command")));
            }
            self.check_open(&name)?;
            return Ok(Target::Restart(can, cannot));
        };
        if !self.roster.can_restart(id) {
            return Err(Refusal::new("the agent is not connected, or does not take the restart command"));
        }
        let Some(name) = self.roster.agent(id).and_then(|member| member.placement.group()) else {
            return Err(Refusal::new("the agent is in no group, and none of ours to restart"));
        };
        self.check_open(name)?;
        Ok(Target::Restart(vec![id], 0))
    }

    /// A restart in a group where nothing may leave would come at a time that nobody thinks of any more.
    fn check_open(&self, name: &GroupName) -> Result<(), Refusal> {
        let closed = self.roster.group(name).and_then(|group| group.desired.closed.as_ref());
        let Some(closed) = closed.filter(|closed| **closed != Closed::NotStored) else { return Ok(()) };
        let reason = present::waiting(&Waiting::Closed(closed.clone()), name.as_str()).message;
        Err(Refusal::new(format!("nothing is restarted in {name} now: {reason}")))
    }

    pub(super) fn promoted_by(&self, target: &str) -> Result<Target, Refusal> {
        if self.groups.contains_key(&GroupName::new(target)) {
            return Ok(Target::Groups(vec![GroupName::new(target)]));
        }
        if !is_hex(target) {
            return Err(Refusal::new(format!(
                "`{target}` is no group, and no commit of {FEWEST_DIGITS} hex digits or more"
            )));
        }
        if self.guarded.as_ref().is_some_and(|guarded| guarded.revision.info.id.to_string().starts_with(target)) {
            return Ok(Target::Guarded);
        }
        let is_of = |revision: &str| commit_of(revision).is_some_and(|commit| commit.starts_with(target));
        let waits = |state: &GroupState| {
            let rollout = state.machine.rollout();
            rollout.is_some_and(|rollout| is_of(&rollout.revision)) && state.machine.waits_for_a_word()
        };
        let names: Vec<GroupName> =
            self.groups.iter().filter(|(_, state)| waits(state)).map(|(name, _)| name.clone()).collect();
        if names.is_empty() {
            return Err(Refusal::new(format!("nothing of commit {target} waits for a person's word")));
        }
        Ok(Target::Groups(names))
    }

    fn undo_target(&self, group: &str, state: &GroupState, to: Option<&str>) -> Result<ConfigHash, Refusal> {
        let machine = &state.machine;
        let Some(to) = to else {
            let nothing = || Refusal::new(format!("{group} has no earlier stable configuration to go back to"));
            return machine.undo_target().ok_or_else(nothing);
        };
        if !is_hex(to) {
            return Err(Refusal::new(format!("`{to}` is no hash or commit of {FEWEST_DIGITS} hex digits or more")));
        }
        let record = machine.record();
        let is_meant = |hash: &&ConfigHash| {
            let is_its = |(_, revision): (_, &str)| commit_of(revision).is_some_and(|commit| commit.starts_with(to));
            hash.to_string().starts_with(to)
                || record.promoted.get(hash).is_some_and(|promoted| promoted.times().any(is_its))
        };
        record.stables.iter().find(is_meant).copied().ok_or_else(|| {
            let known: Vec<String> = record.stables.iter().map(|hash| hash.short()).collect();
            let only =
                if known.is_empty() { "none at all yet".to_owned() } else { format!("only {}", known.join(", ")) };
            Refusal::new(format!("{group} retains no configuration `{to}`, {only}"))
        })
    }

    fn check_fleet(&self, command: &Command) -> Result<(), Refusal> {
        match (command, &self.frozen) {
            (Command::Freeze { .. }, Some(said)) => {
                Err(Refusal::new(format!("the whole fleet is frozen already, by {}", said.by)))
            }
            (Command::Unfreeze { .. }, None) => Err(Refusal::new("the whole fleet is not frozen")),
            (_, _) => Ok(()),
        }
    }

    fn check_pin(&self, command: &Command, id: AgentId) -> Result<(), Refusal> {
        let is_pinned = self.pins.contains_key(&id);
        let Command::Pin { length, .. } = command else {
            return if is_pinned { Ok(()) } else { Err(Refusal::new("the agent is not pinned")) };
        };
        if length.is_zero() || *length > LONGEST_PIN {
            return Err(Refusal::new(PIN_LENGTH));
        }
        if self.pins.len() >= MOST_PINS && !is_pinned {
            return Err(Refusal::new(format!("{MOST_PINS} agents are pinned already: pin the group instead")));
        }
        Ok(())
    }

    /// Why nothing of what is ordered leaves at once, although it will be done; empty: nothing is in the way.
    fn but(&self, command: &Command, name: &GroupName, now: Timestamp) -> String {
        let offers = match command {
            Command::Undo { .. }
            | Command::UndoSince { .. }
            | Command::Resume { .. }
            | Command::Retry { .. }
            | Command::Promote { .. }
            | Command::Abort { .. } => true,
            Command::Pause { .. }
            | Command::Pin { .. }
            | Command::Unpin { .. }
            | Command::Restart { .. }
            | Command::Freeze { .. }
            | Command::Unfreeze { .. } => false,
        };
        let closed = self.groups.get(name).filter(|_| offers).and_then(|state| state.machine.desired(now).closed);
        match closed {
            Some(closed @ (Closed::Frozen { .. } | Closed::Suspended | Closed::Observing)) => {
                format!("; not yet: {}", present::waiting(&Waiting::Closed(closed), name.as_str()).message)
            }
            Some(Closed::Pinned { .. } | Closed::Unexpected { .. } | Closed::RolloutFailed | Closed::NotStored)
            | None => String::new(),
        }
    }

    fn impact(&self, command: &Command, target: &Target, now: Timestamp) -> Impact {
        let selected = |name: &GroupName| self.groups.get(name).map_or(0, |state| state.machine.tally().selected);
        let of = |names: &[GroupName], effect: &dyn Fn(&GroupName) -> String| Impact {
            groups: names.iter().map(ToString::to_string).collect(),
            agents: names.iter().map(selected).sum(),
            effects: names.iter().map(effect).collect(),
            unstored: None,
        };
        let of_agent = |effect: String| Impact { agents: 1, effects: vec![effect], ..Impact::default() };
        match target {
            Target::Groups(names) => of(names, &|name| {
                let machine = self.groups.get(name).map(|state| &state.machine);
                let effect = machine.map_or_else(|| effect_of(command), |machine| effect_on(machine, command));
                format!("{name}: {effect}{}", self.but(command, name, now))
            }),
            Target::Undo(names, lost) => {
                // First what is not done: a list may be cut where it is shown.
                let lost = lost.iter().map(|(name, why)| format!("{name}: stays as it is: {}", why.words()));
                let undone = names.iter();
                let undone = undone
                    .map(|(name, to)| format!("{name}: goes back to {}{}", to.short(), self.but(command, name, now)));
                Impact {
                    groups: names.iter().map(|(name, _)| name.to_string()).collect(),
                    agents: names.iter().map(|(name, _)| selected(name)).sum(),
                    effects: lost.chain(undone).collect(),
                    unstored: None,
                }
            }
            Target::Fleet => Impact {
                groups: self.groups.keys().map(ToString::to_string).collect(),
                agents: self.roster.connected(),
                effects: vec![format!("the whole fleet: {}", effect_of(command))],
                unstored: None,
            },
            Target::Agent(id) => of_agent(format!("agent {id}: {}", effect_of(command))),
            Target::Retry(id, hash) => {
                of_agent(format!("agent {id}: is offered {} once more, when there is room", hash.short()))
            }
            Target::Restart(ids, cannot) => {
                let groups = ids.iter().filter_map(|id| self.roster.agent(*id)?.placement.group());
                let others = if *cannot == 0 { String::new() } else { format!("; {cannot} do not take the command") };
                let beyond = match ids.len().saturating_sub(MOST_REMEMBERED) {
                    0 => String::new(),
                    more => format!("; {more} of them are not restarted when the daemon itself is before their turn"),
                };
                Impact {
                    groups: groups.map(ToString::to_string).collect::<BTreeSet<_>>().into_iter().collect(),
                    agents: ids.len(),
                    effects: vec![format!("{} restart, in waves of maxUnavailable{others}{beyond}", ids.len())],
                    unstored: None,
                }
            }
            Target::Guarded => {
                let guarded = self.guarded.as_ref();
                let id: Option<CommitId> = guarded.map(|guarded| guarded.revision.info.id);
                let reason = guarded.map_or("", |guarded| guarded.reason.as_str());
                let commit = id.map(|id| id.to_string()).unwrap_or_default();
                Impact {
                    groups: guarded
                        .map(|guarded| guarded.revision.fleet.groups.keys().map(ToString::to_string).collect())
                        .unwrap_or_default(),
                    agents: self.roster.connected(),
                    effects: vec![format!("commit {commit} is taken, although {reason}")],
                    unstored: None,
                }
            }
        }
    }
}

/// What an order does, of one group, whose rollout tells what there is to skip or to go back to.
fn effect_on(machine: &Machine, command: &Command) -> String {
    let progress = machine.rollout().map(|rollout| &rollout.progress);
    let stage = machine.stage_name().unwrap_or_default();
    match (command, progress) {
        (Command::Abort { .. }, _) if !machine.goes_back_when_aborted() => {
            "its rollout ends, and its agents keep what they have: there is nothing to go back to".to_owned()
        }
        (Command::Promote { now: true, .. }, Some(Progress::Opening)) if machine.waits_for_others() => {
            "it does not wait for the groups that it depends on".to_owned()
        }
        (Command::Promote { now: true, .. }, Some(Progress::Opening)) => {
            format!("stage `{stage}` starts without waiting any longer; it is watched all the same")
        }
        (Command::Promote { now: true, .. }, Some(Progress::Rolling | Progress::Soaking { .. })) => {
            format!("stage `{stage}` ends without a soak")
        }
        (Command::Promote { now: true, .. }, Some(Progress::Baking { .. })) => {
            "it becomes stable without the rest of the bake".to_owned()
        }
        (_, _) => effect_of(command),
    }
}

fn effect_of(command: &Command) -> String {
    match command {
        Command::Pause { .. } => "its rollout offers nothing new".to_owned(),
        Command::Resume { .. } => "goes on".to_owned(),
        Command::Abort { .. } => "its rollout ends, and its agents go back to stable".to_owned(),
        Command::Retry { .. } => "what failed is tried again from the first stage".to_owned(),
        Command::Promote { now: false, .. } => "the stage that waits may start".to_owned(),
        Command::Promote { now: true, .. } => "what it waits for now is skipped".to_owned(),
        Command::Undo { .. } | Command::UndoSince { .. } => "goes back".to_owned(),
        Command::Pin { length, .. } => format!("keeps what it has for {}", show_duration(*length)),
        Command::Unpin { .. } => "takes part in rollouts again".to_owned(),
        Command::Restart { .. } => "restarts".to_owned(),
        Command::Freeze { .. } => "no offer of any kind leaves".to_owned(),
        Command::Unfreeze { .. } => "offers may leave again".to_owned(),
    }
}

/// Orders one group's rollouts.
fn order_machine(
    machine: &mut Machine,
    command: &Command,
    said: &Said,
    revision: &str,
    now: Timestamp,
) -> Result<(), &'static str> {
    match command {
        Command::Pause { .. } => machine.pause(said.clone()),
        Command::Resume { .. } => machine.resume(revision, now),
        Command::Abort { .. } => machine.abort(said.clone(), now),
        Command::Retry { .. } => machine.retry(now),
        Command::Promote { now: hurry, .. } => machine.promote(*hurry, now),
        Command::Pin { length, .. } if length.is_zero() || *length > LONGEST_PIN => Err(PIN_LENGTH),
        Command::Pin { length, .. } => {
            machine.pin(Pin { until: now + *length, said: said.clone() });
            Ok(())
        }
        Command::Unpin { .. } => machine.unpin(now),
        Command::Freeze { .. } => machine.freeze(said.clone()),
        Command::Unfreeze { .. } => machine.unfreeze(now),
        // They name a configuration or agents, and go another way.
        Command::Undo { .. } | Command::UndoSince { .. } | Command::Restart { .. } => Ok(()),
    }
}

fn is_hex(text: &str) -> bool {
    text.len() >= FEWEST_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The commit of `main@sha1:<commit>`.
pub(super) fn commit_of(revision: &str) -> Option<&str> {
    revision.rsplit_once(':').map(|(_, commit)| commit)
}
