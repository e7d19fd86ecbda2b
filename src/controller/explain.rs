//! Why one agent has what it has: gathers what is known of it.

use crate::agent::AgentId;
use crate::controller::{Controller, GroupState};
use crate::fleet::GroupName;
use crate::fleet::assign::Assigner;
use crate::rollout::Machine;
use crate::rollout::record::{Pin, Progress};
use crate::roster::member::Member;
use crate::time::Timestamp;
use crate::view::command::Refusal;
use crate::view::explain::{Facts, explain};
use crate::view::present;
use crate::view::stages::{Course, stages};
use crate::view::{Explanation, StageStatus};

/// Pins of single agents that a group's status names.
const MOST_PINS: usize = 10;

/// Ids that are named when several begin alike.
const MOST_IDS: usize = 5;

impl Controller {
    /// Explains the agent whose id begins with `prefix`.
    ///
    /// # Errors
    /// When no agent's id does, or those of several.
    pub fn explain(&self, prefix: &str, now: Timestamp) -> Result<Explanation, Refusal> {
        let (id, member) = self.only_one(prefix)?;
        let name = member.placement.group();
        let state = name.and_then(|name| self.groups.get(name));
        let group = name.and_then(|name| self.roster.group(name));
        let mut part = name.map(|name| self.part(name, now));
        if let (Some(part), Some(group)) = (&mut part, group) {
            // Why others are held is nothing about this one.
            let held = present::held(group.held());
            part.waiting_on.retain(|waiting| !held.contains(waiting));
        }
        let matches = member.labels.as_ref().map_or_else(Vec::new, |labels| {
            Assigner::new(self.groups.iter().map(|(name, state)| (name, &*state.definition))).explain(labels)
        });
        let stage = part.as_ref().and_then(|part| part.stage.clone());
        Ok(explain(&Facts {
            id,
            member,
            group,
            selector: state.map(|state| &state.definition.selector),
            revision: state.map(|state| state.revision.as_str()),
            stage: stage.as_deref(),
            can_retry: state.is_some_and(|state| {
                let progress = state.machine.rollout().map(|rollout| &rollout.progress);
                matches!(progress, Some(Progress::Failed { .. }))
            }),
            waiting: part.map_or_else(Vec::new, |part| part.waiting_on),
            orders: self.orders_for(id, state, now),
            matches,
            now,
        }))
    }

    /// What persons ordered for this agent or its group.
    fn orders_for(&self, id: AgentId, state: Option<&GroupState>, now: Timestamp) -> Vec<String> {
        let mut orders = state.map_or_else(Vec::new, |state| self.standing_orders(&state.machine, now));
        orders.extend(self.pins.get(&id).filter(|pin| pin.until > now).map(pin_sentence));
        orders
    }

    /// What persons ordered that holds for a group, or for single agents of it; a sentence each.
    pub(super) fn orders_in(&self, name: &GroupName, machine: &Machine, now: Timestamp) -> Vec<String> {
        let is_here = |id: &AgentId| self.roster.agent(*id).is_some_and(|one| one.placement.group() == Some(name));
        let pinned = self.pins.iter().filter(|(id, pin)| pin.until > now && is_here(id));
        let pinned = pinned.take(MOST_PINS).map(|(id, pin)| format!("agent {id} {}", pin_sentence(pin)));
        self.standing_orders(machine, now).into_iter().chain(pinned).collect()
    }

    /// The stages of a group's rollout.
    pub(super) fn stages(&self, name: &GroupName, state: &GroupState, now: Timestamp) -> Vec<StageStatus> {
        let machine = &state.machine;
        let Some(rollout) = machine.rollout() else { return Vec::new() };
        let (strategy, waiting) = (&machine.rules().strategy, machine.waiting(now));
        let course = Course { strategy, rollout, tally: machine.tally(), waiting: &waiting };
        stages(course, |selector| {
            let members = self.roster.group(name).into_iter().flat_map(|group| &group.members);
            let members = members.filter_map(|id| self.roster.agent(*id)).filter(|member| member.is_connected());
            members.filter(|member| member.labels.as_ref().is_some_and(|labels| selector.matches(labels))).count()
        })
    }

    /// The agent whose id begins so.
    fn only_one(&self, prefix: &str) -> Result<(AgentId, &Member), Refusal> {
        let prefix = prefix.to_ascii_lowercase();
        let mut found = self.roster.agents().filter(|(id, _)| id.to_string().starts_with(&prefix));
        let shown: String = prefix.chars().take(64).collect();
        let Some(first) = found.next() else {
            return Err(Refusal::new(format!(
                "no agent's id begins with `{shown}`: none that is called so has been here, or it was forgotten; see `gitamp agents`"
            )));
        };
        let mut ids: Vec<String> = found.by_ref().take(MOST_IDS - 1).map(|(id, _)| id.to_string()).collect();
        if ids.is_empty() {
            return Ok(first);
        }
        let more = found.count();
        ids.insert(0, first.0.to_string());
        let count = ids.len() + more;
        let more = if more > 0 { ", ..." } else { "" };
        Err(Refusal::new(format!(
            "the ids of {count} agents begin with `{shown}`: say more of it ({}{more})",
            ids.join(", ")
        )))
    }
}

fn pin_sentence(pin: &Pin) -> String {
    format!("pinned until {} {}", pin.until, present::said_by(&pin.said))
}
