//! What the controller knows, for people: statuses, parts of notes, lists of agents.

use std::collections::BTreeSet;

use crate::controller::commits::Part;
use crate::controller::{Controller, GroupState, texts};
use crate::fleet::GroupName;
use crate::rollout::record::{Progress, Said, WayBack};
use crate::rollout::{Closed, Machine, Waiting, budget};
use crate::roster::failures;
use crate::roster::member::Placement;
use crate::time::Timestamp;
use crate::view::{
    AgentCounts, AgentList, AgentQuery, Counts, FleetStatus, GroupStatus, JournalStatus, ListenerStatus, Phase,
    RestartStatus, SyncStatus, WaitingOn, present,
};

/// Agents in an answer when the question names no number.
const DEFAULT_LIMIT: usize = 1_000;

/// Agents in an answer at most.
const MOST_AGENTS: usize = 100_000;

impl Controller {
    /// A group's part in the notes, now.
    pub(super) fn part(&self, name: &GroupName, now: Timestamp) -> Part {
        let Some(state) = self.groups.get(name) else {
            return Part {
                stage: None,
                stable: None,
                counts: Counts::default(),
                waiting_on: Vec::new(),
                failures: Vec::new(),
                unproven: false,
            };
        };
        Part {
            stage: state.machine.stage_name().map(str::to_owned),
            stable: state.machine.stable(),
            counts: state.machine.tally().into(),
            waiting_on: self.waiting(name, state, now),
            failures: self.failures(name, state),
            unproven: state.machine.is_unproven(),
        }
    }

    fn waiting(&self, name: &GroupName, state: &GroupState, now: Timestamp) -> Vec<WaitingOn> {
        let group = self.roster.group(name);
        let tell = |reason: &Waiting| present::waiting(reason, name.as_str());
        let mut waiting: Vec<WaitingOn> = state.machine.waiting(now).iter().map(tell).collect();
        if let Some(refused) = self.storage.refused.get(name) {
            waiting.push(present::record_refused(&refused.reason));
        } else if group.is_some_and(|group| group.desired.closed == Some(Closed::NotStored)) {
            waiting.push(tell(&Waiting::Closed(Closed::NotStored)));
        }
        if let (Some(taken), Some(stable), Some(group)) = (state.machine.taken_back(), state.machine.stable(), group) {
            let holding = failures::not_back(group, taken.candidate, stable, taken.started, |id| self.roster.agent(id));
            waiting.extend(present::not_back(&holding, taken.candidate));
        }
        if state.next.is_some() {
            waiting.push(tell(&Waiting::NewerCommit));
        }
        if let Some((unavailable, limit)) = self.roster.fleet_limit(name, now) {
            waiting.push(present::fleet_budget(unavailable, limit));
        }
        if let Some(group) = group {
            waiting.extend(present::held(group.held()));
        }
        waiting
    }

    fn failures(&self, name: &GroupName, state: &GroupState) -> Vec<crate::view::FailureCluster> {
        let machine = &state.machine;
        let wanted = machine.rollout().map(|rollout| rollout.candidate).or(machine.record().wanted);
        // On the way back, and when that stopped, what agents said of stable matters as much.
        let restored = machine.stable().filter(|_| machine.taken_back().is_some());
        let Some(group) = self.roster.group(name) else { return Vec::new() };
        let hashes: Vec<_> = wanted.into_iter().chain(restored).collect();
        failures::of_group(group, &hashes, |id| self.roster.agent(id)).iter().map(Into::into).collect()
    }

    /// The restarts that a person ordered of a group's agents: how many are through, and why the others wait.
    fn restarts(&self, name: &GroupName, now: Timestamp) -> Option<RestartStatus> {
        let group = self.roster.group(name)?;
        let restarts = &group.restarts;
        let unstored = self.restarts_to_store(name).count() + restarts.claimed.len();
        let (waiting, to_come) = (restarts.waiting.len(), restarts.to_come.len());
        let mut waiting_on = Vec::new();
        if waiting > 0 {
            let closed = group.desired.closed.clone().map(Waiting::Closed);
            waiting_on.extend(closed.as_ref().map(|closed| present::waiting(closed, name.as_str())));
            if closed.is_none() && !group.has_room(now) {
                let tally = self.roster.tally(name, now);
                let limit = budget::limit(group.desired.max_unavailable, tally.eligible).min(group.desired.room);
                waiting_on.push(present::restart_room(waiting, tally.unavailable, tally.assumed, limit));
            }
            let fleet = self.roster.fleet_limit(name, now);
            waiting_on.extend(fleet.map(|(unavailable, limit)| present::fleet_budget(unavailable, limit)));
        }
        if unstored > 0 {
            waiting_on.push(present::restart_unstored(unstored));
        }
        if to_come > 0 {
            waiting_on.push(present::restart_to_come(to_come, group.assumed.as_ref().map(|assumed| assumed.until)));
        }
        let waiting = unstored + waiting + to_come;
        (waiting > 0).then_some(RestartStatus { told: restarts.told, waiting, waiting_on })
    }

    fn phase(&self, state: &GroupState, now: Timestamp) -> Phase {
        let Some(rollout) = state.machine.rollout() else {
            return if state.machine.record().undone.is_some() { Phase::Undone } else { Phase::Steady };
        };
        if state.machine.is_unproven() {
            return Phase::Unproven;
        }
        match rollout.progress {
            Progress::Failed { way_back: WayBack::Done { .. }, .. } => Phase::RolledBack,
            Progress::Failed { .. } => Phase::Failed,
            Progress::RollingBack { .. } => Phase::RollingBack,
            Progress::Soaking { .. } | Progress::Baking { .. } => Phase::Soaking,
            Progress::Opening | Progress::Rolling => {
                let holds = |waiting: &Waiting| {
                    matches!(waiting, Waiting::Closed(_) | Waiting::Paused { .. } | Waiting::Approval { .. })
                };
                if state.machine.waiting(now).iter().any(holds) { Phase::Held } else { Phase::Rolling }
            }
        }
    }

    /// What is known of a group, without what takes long to gather ([`Controller::with_details`]).
    fn group_status(&self, name: &GroupName, state: &GroupState, findings: Vec<String>, now: Timestamp) -> GroupStatus {
        let machine = &state.machine;
        let part = self.part(name, now);
        let hex = |hash: crate::config::ConfigHash| hash.to_string();
        GroupStatus {
            name: name.to_string(),
            phase: self.phase(state, now),
            revision: Some(state.revision.clone()),
            wanted: machine.record().wanted.map(hex),
            stable: part.stable.map(hex),
            candidate: machine.rollout().map(|rollout| hex(rollout.candidate)),
            stage: part.stage,
            counts: part.counts,
            waiting_on: part.waiting_on,
            failures: part.failures,
            diagnostics: findings,
            started_at: machine.rollout().map(|rollout| rollout.started),
            rolled_back: machine.rollout().filter(|_| machine.is_rolled_back()).map(|rollout| hex(rollout.candidate)),
            brought_by: brought_by(machine),
            ..GroupStatus::default()
        }
    }

    fn with_details(&self, group: GroupStatus, name: &GroupName, state: &GroupState, now: Timestamp) -> GroupStatus {
        GroupStatus {
            stages: self.stages(name, state, now),
            orders: self.orders_in(name, &state.machine, now),
            restarts: self.restarts(name, now),
            ..group
        }
    }

    /// What persons ordered that still holds for a group, a sentence each.
    pub(super) fn standing_orders(&self, machine: &Machine, now: Timestamp) -> Vec<String> {
        let record = machine.record();
        let mut orders = Vec::new();
        let mut add = |what: &str, said: &Said| orders.push(format!("{what} {}", present::said_by(said)));
        if let Some(said) = &self.frozen {
            add("the whole fleet is frozen", said);
        }
        if let Some(said) = &record.frozen {
            add("frozen", said);
        }
        if let Some(pin) = record.pinned.as_ref().filter(|pin| pin.until > now) {
            add(&format!("pinned until {}", pin.until), &pin.said);
        }
        if let Some(undone) = &record.undone {
            add(&format!("undone to {}", undone.to.short()), &undone.said);
        }
        if let Some(rollout) = machine.rollout() {
            for said in rollout.paused.iter().chain(&rollout.held) {
                add("paused", said);
            }
        }
        orders
    }

    /// What a commit that a guard holds waits for.
    fn held_commit(&self) -> Option<String> {
        let guarded = self.guarded.as_ref()?;
        let id = guarded.revision.info.id.to_string();
        Some(format!(
            "{} is held: {}; `gitamp promote {}` lets it go on",
            guarded.revision.info.revision(),
            guarded.reason,
            &id[..7]
        ))
    }

    /// Everything that the controller knows of the fleet; how following and writing go is for the caller to add.
    pub fn status(&self, instance: &str, now: Timestamp) -> FleetStatus {
        FleetStatus { agents: self.agent_counts(), ..self.status_of(instance, now, true, |_, _| true) }
    }

    /// The same, cheap enough to be asked for every other second: without groups that are settled and of which nothing is to be said,
    /// without stages, orders and restarts, and without counting the fleet's agents.
    pub fn unsettled(&self, instance: &str, now: Timestamp) -> FleetStatus {
        let faulty: BTreeSet<&GroupName> =
            self.diagnostics.iter().filter_map(|finding| finding.group.as_ref()).collect();
        self.status_of(instance, now, false, |name, state| {
            let has_failures = || self.roster.group(name).is_some_and(|group| !group.failures.is_empty());
            state.machine.rollout().is_some() || faulty.contains(name) || has_failures()
        })
    }

    fn status_of(
        &self,
        instance: &str,
        now: Timestamp,
        is_detailed: bool,
        shows: impl Fn(&GroupName, &GroupState) -> bool,
    ) -> FleetStatus {
        let findings = self.findings_by_group();
        let findings_of =
            |name: &GroupName| findings.get(name).map_or_else(Vec::new, |found| texts(found.iter().copied()));
        let shown = self.groups.iter().filter(|(name, state)| shows(name, state));
        let show = |(name, state): (&GroupName, &GroupState)| {
            let group = self.group_status(name, state, findings_of(name), now);
            if is_detailed { self.with_details(group, name, state, now) } else { group }
        };
        let mut groups: Vec<GroupStatus> = shown.map(show).collect();
        groups.extend(self.stillborn.iter().map(|name| GroupStatus {
            name: name.to_string(),
            phase: Phase::Held,
            diagnostics: findings_of(name),
            ..GroupStatus::default()
        }));
        groups.sort_by(|one, other| one.name.cmp(&other.name));
        FleetStatus {
            instance: instance.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            now,
            observe: self.options.observe,
            sync: SyncStatus::default(),
            journal: JournalStatus::default(),
            forge: None,
            listener: ListenerStatus::default(),
            alerts: None,
            agents: AgentCounts::default(),
            groups,
            commits: self.commits.shown(),
            diagnostics: texts(self.diagnostics.iter().filter(|finding| finding.group.is_none()))
                .into_iter()
                .chain(self.held_commit())
                .chain(self.earlier.forgotten())
                .collect(),
        }
    }

    fn agent_counts(&self) -> AgentCounts {
        let mut counts = AgentCounts { connected: self.roster.connected(), ..AgentCounts::default() };
        for (_, member) in self.roster.agents() {
            let number = match &member.placement {
                _ if !member.is_connected() => &mut counts.away,
                Placement::Group(_) => &mut counts.managed,
                Placement::Unmanaged | Placement::Orphaned(_) => &mut counts.unmanaged,
                Placement::Conflict(_) => &mut counts.conflict,
                Placement::Unknown => &mut counts.unknown,
            };
            *number += 1;
        }
        counts
    }

    /// The agents that a query asks for.
    pub fn agents(&self, query: &AgentQuery) -> AgentList {
        let limit = query.limit.unwrap_or(DEFAULT_LIMIT).min(MOST_AGENTS);
        let mut list = AgentList::default();
        for (id, member) in self.roster.agents() {
            let group = member.placement.group();
            let is_asked = query.group.as_deref().is_none_or(|name| group.is_some_and(|group| group.as_str() == name))
                && query.state.as_deref().is_none_or(|state| present::standing(member).0 == state)
                && query.id.as_deref().is_none_or(|prefix| id.to_string().starts_with(prefix));
            if !is_asked {
                continue;
            }
            if list.agents.len() < limit {
                let mut agent = present::agent(id, member, group.and_then(|name| self.roster.group(name)));
                if query.id.is_some() {
                    let names = member.available.iter().flat_map(|names| names.iter());
                    agent.available_components = names.map(str::to_owned).collect();
                }
                list.agents.push(agent);
            } else {
                list.more += 1;
            }
        }
        list
    }
}

/// The revision that brought what is being introduced or failed; when that is nothing, what is stable.
fn brought_by(machine: &Machine) -> Option<String> {
    let stable = || machine.stable().and_then(|stable| machine.record().promoted.get(&stable));
    let rollout = machine.rollout().map(|rollout| rollout.revision.clone());
    rollout.or_else(|| stable().map(|promoted| promoted.revision.clone()))
}
