//! Restarts that a person ordered, in waves: each takes room in the budget for a moment, as an offer does.
//!
//! Each is told at most once: the agent is taken out of the queue, that is stored, and only then it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::agent::{AgentId, Capabilities, ConnectionId};
use crate::fleet::GroupName;
use crate::roster::group::Group;
use crate::roster::{Roster, RosterAction};
use crate::time::Timestamp;

/// How long an agent that was told to restart counts as unavailable, when it does not say more: the protocol has no answer to the
/// command, and a collector needs seconds.
pub const RESTART_TAKES: Duration = Duration::from_secs(30);

/// The members of one group that a person wants to restart.
#[derive(Debug, Default)]
pub struct Restarts {
    /// They wait for room.
    pub waiting: BTreeSet<AgentId>,
    /// They have not been heard since this process started; when [`crate::roster::group::Group::assumed`] is over they are not waited
    /// for.
    pub to_come: BTreeSet<AgentId>,
    /// They have room, and are told once a record is stored that no longer has them.
    pub claimed: BTreeSet<AgentId>,
    /// How many were told since the queue was last empty.
    pub told: usize,
    /// Who was told last, and when: whoever takes over has to count them for a while.
    pub recent: BTreeMap<AgentId, Timestamp>,
}

impl Restarts {
    /// True when nobody is to be told any more.
    pub fn is_over(&self) -> bool {
        self.waiting.is_empty() && self.to_come.is_empty() && self.claimed.is_empty()
    }
}

impl Roster {
    /// Who is in the middle of a restart, whichever group told it to, and who is told as soon as that is stored; since when.
    pub fn under_way(&self, group: &Group, now: Timestamp) -> BTreeMap<AgentId, Timestamp> {
        let here = group.members.iter().filter_map(|id| Some((*id, self.agents.get(id)?.restarted_at?)));
        let recent = group.restarts.recent.iter().map(|(id, at)| (*id, *at));
        let told = recent.chain(here).filter(|(_, at)| *at + RESTART_TAKES > now);
        told.chain(group.restarts.claimed.iter().map(|id| (*id, now))).collect()
    }

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
                if group.restarts.is_over() {
                    group.restarts.told = 0;
                }
                group.memory_changed |= group.restarts.waiting.insert(*id);
                self.changed.insert(name.clone());
                self.to_dispatch.insert(name);
            }
        }
    }

    /// A group's agents that a process before this one was to restart: each once it is back. So many were told already, and these so
    /// lately, or perhaps only just before that process ended, that they count as restarting from now on.
    pub fn restore_restarts(
        &mut self,
        name: &GroupName,
        ids: BTreeSet<AgentId>,
        told: usize,
        recent: &[(AgentId, Timestamp)],
        now: Timestamp,
    ) {
        // They were told when this was stored, which may have taken a while.
        let still = recent.iter().filter(|(_, at)| *at + RESTART_TAKES + RESTART_TAKES > now);
        let recent: BTreeMap<AgentId, Timestamp> = still.map(|(id, _)| (*id, now)).collect();
        self.restarting.extend(recent.clone());
        let group = self.groups.entry(name.clone()).or_default();
        group.restarts = Restarts { to_come: ids, told, recent, ..Restarts::default() };
    }

    /// An agent was heard for the first time: if a process before this one was to restart it, it waits for room from now on; if that one
    /// did, it takes room for the rest of it.
    pub(super) fn expect_restart(&mut self, id: AgentId) {
        if let (Some(at), Some(member)) = (self.restarting.remove(&id), self.agents.get_mut(&id)) {
            member.restarted_at = Some(at);
        }
        let Some(name) = self.agents.get(&id).and_then(|member| member.placement.group()) else { return };
        let Some(group) = self.groups.get_mut(name) else { return };
        if group.restarts.to_come.remove(&id) {
            group.restarts.waiting.insert(id);
            self.to_dispatch.insert(name.clone());
        }
    }

    /// Who is not back by now is not restarted any more.
    pub(super) fn forget_restarts_to_come(&mut self, name: &GroupName) {
        let Some(group) = self.groups.get_mut(name) else { return };
        group.memory_changed |= !std::mem::take(&mut group.restarts.to_come).is_empty();
    }

    /// Claims room for those who wait, and has them told once that is stored.
    pub(super) fn dispatch_restarts(&mut self, name: &GroupName, assumed: usize, now: Timestamp) {
        while let Some(id) = self.groups.get(name).and_then(|group| group.restarts.waiting.first().copied()) {
            let is_here = self.agents.get(&id).is_some_and(|member| member.placement.group() == Some(name));
            if !is_here || !self.can_restart(id) {
                self.forget_restart(name, id);
                continue;
            }
            if !self.may_restart(name, id, assumed, now) {
                return;
            }
            self.forget_restart(name, id);
            let Some(link) = self.agents.get(&id).and_then(|member| member.link) else { continue };
            if let Some(group) = self.groups.get_mut(name) {
                group.restarts.claimed.insert(id);
            }
            self.actions.push_back(RosterAction::Restart { group: name.clone(), connection: link.connection, id });
            self.judge(id, now);
        }
    }

    /// True when nothing is in the way of a restart, and no more agents would be unavailable by it than may be: whoever is already takes no
    /// room.
    fn may_restart(&mut self, name: &GroupName, id: AgentId, assumed: usize, now: Timestamp) -> bool {
        let Some(group) = self.groups.get(name).filter(|group| group.desired.closed.is_none()) else { return false };
        let takes_room = self.agents.get(&id).is_some_and(|member| !member.verdict.unavailable);
        if takes_room && !group.has_room(now) {
            return false;
        }
        if takes_room && !self.fleet.has_room(assumed) {
            self.fleet.starve(name);
            self.changed.insert(name.clone());
            return false;
        }
        true
    }

    /// The record without it is stored: true when the agent is still there, and is to be told now. Where nothing may leave by now, or others
    /// fell ill or came back meanwhile and there is no room any more, it waits once more.
    pub fn restart(&mut self, name: &GroupName, id: AgentId, connection: ConnectionId, now: Timestamp) -> bool {
        let Some(group) = self.groups.get_mut(name).filter(|group| group.restarts.claimed.contains(&id)) else {
            return false;
        };
        let Some(member) = self.agents.get(&id) else { return false };
        if member.link.is_none_or(|link| link.connection != connection) {
            return false;
        }
        group.restarts.claimed.remove(&id);
        group.memory_changed = true;
        // Its own claim is no reason to wait.
        self.judge(id, now);
        let assumed = self.assumed(now);
        let is_told = self.may_restart(name, id, assumed, now);
        if let (Some(member), Some(group)) = (self.agents.get_mut(&id), self.groups.get_mut(name)) {
            if is_told {
                group.restarts.told += 1;
                group.restarts.recent.retain(|_, at| *at + RESTART_TAKES > now);
                group.restarts.recent.insert(id, now);
                member.restarted_at = Some(now);
            } else {
                group.restarts.waiting.insert(id);
                self.to_dispatch.insert(name.clone());
            }
        }
        self.changed.insert(name.clone());
        self.judge(id, now);
        is_told
    }

    /// The agent left its connection or its group before it was told: it is not told any more.
    pub(super) fn drop_claim(&mut self, id: AgentId) {
        let name = self.agents.get(&id).and_then(|member| member.placement.group());
        if let Some(group) = name.and_then(|name| self.groups.get_mut(name)) {
            group.restarts.claimed.remove(&id);
        }
    }

    fn forget_restart(&mut self, name: &GroupName, id: AgentId) {
        if let Some(group) = self.groups.get_mut(name) {
            group.memory_changed |= group.restarts.waiting.remove(&id);
        }
    }
}
