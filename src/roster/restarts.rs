//! Restarts that a person ordered, in waves: each takes room in the budget for a moment, as an offer does.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::agent::{AgentId, Capabilities};
use crate::fleet::GroupName;
use crate::roster::{Roster, RosterAction};
use crate::time::Timestamp;

/// How long an agent that was told to restart counts as unavailable, when it does not say more: the protocol has no answer to the
/// command, and a collector needs seconds.
pub const RESTART_TAKES: Duration = Duration::from_secs(30);

impl Roster {
    /// The connected agents of a group that take the restart command, and how many do not.
    pub fn restartable(&self, name: &GroupName) -> (Vec<AgentId>, usize) {
        let Some(group) = self.groups.get(name) else { return (Vec::new(), 0) };
        let connected = group.members.iter().filter(|id| self.agents.get(id).is_some_and(|one| one.is_connected()));
        let (can, cannot): (Vec<AgentId>, Vec<AgentId>) = connected.partition(|id| self.can_restart(**id));
        (can, cannot.len())
    }

    /// True when the agent is connected and takes the restart command.
    pub fn can_restart(&self, id: AgentId) -> bool {
        let can = |capabilities: Capabilities| capabilities.contains(Capabilities::ACCEPTS_RESTART_COMMAND);
        self.agents.get(&id).is_some_and(|member| member.is_connected() && can(member.capabilities))
    }

    /// These agents are to restart, as soon as there is room.
    pub fn order_restarts(&mut self, ids: &[AgentId]) {
        for id in ids {
            let Some(name) = self.agents.get(id).and_then(|member| member.placement.group()).cloned() else { continue };
            if let Some(group) = self.groups.get_mut(&name) {
                group.memory_changed |= group.restarts.insert(*id);
                self.changed.insert(name.clone());
                self.to_dispatch.insert(name);
            }
        }
    }

    /// A group's agents that a process before this one was to restart: each once it is back.
    pub fn restore_restarts(&mut self, name: &GroupName, ids: BTreeSet<AgentId>) {
        self.groups.entry(name.clone()).or_default().restarts_to_come = ids;
    }

    /// An agent was heard for the first time: if a process before this one was to restart it, it waits for room from now on.
    pub(super) fn expect_restart(&mut self, id: AgentId) {
        let Some(name) = self.agents.get(&id).and_then(|member| member.placement.group()) else { return };
        let Some(group) = self.groups.get_mut(name) else { return };
        if group.restarts_to_come.remove(&id) {
            group.restarts.insert(id);
            self.to_dispatch.insert(name.clone());
        }
    }

    /// Who is not back by now is not restarted any more.
    pub(super) fn forget_restarts_to_come(&mut self, name: &GroupName) {
        let Some(group) = self.groups.get_mut(name) else { return };
        group.memory_changed |= !std::mem::take(&mut group.restarts_to_come).is_empty();
    }

    /// Tells those to restart for whom there is room.
    pub(super) fn dispatch_restarts(&mut self, name: &GroupName, assumed: usize, now: Timestamp) {
        while let Some(id) = self.groups.get(name).and_then(|group| group.restarts.first().copied()) {
            let is_here = self.agents.get(&id).is_some_and(|member| member.placement.group() == Some(name));
            if !is_here || !self.can_restart(id) {
                self.forget_restart(name, id);
                continue;
            }
            let takes_room = self.agents.get(&id).is_some_and(|member| !member.verdict.unavailable);
            let group = self.groups.get(name).filter(|group| group.desired.closed.is_none());
            if !group.is_some_and(|group| !takes_room || group.has_room(now)) {
                return;
            }
            if takes_room && !self.fleet.has_room(assumed) {
                self.fleet.starve(name);
                self.changed.insert(name.clone());
                return;
            }
            self.forget_restart(name, id);
            let Some(member) = self.agents.get_mut(&id) else { continue };
            member.restarted_at = Some(now);
            if let Some(link) = member.link {
                self.actions.push_back(RosterAction::Restart { connection: link.connection, id });
            }
            self.judge(id, now);
        }
    }

    fn forget_restart(&mut self, name: &GroupName, id: AgentId) {
        if let Some(group) = self.groups.get_mut(name) {
            group.memory_changed |= group.restarts.remove(&id);
        }
    }
}
