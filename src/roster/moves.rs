//! Who is moved by another way of assigning agents, who was while it was away, and whom it takes in.

use std::collections::BTreeSet;

use crate::agent::AgentId;
use crate::fleet::GroupName;
use crate::fleet::assign::{Assigner, Assignment};
use crate::roster::Roster;
use crate::roster::member::{Member, Placement};
use crate::time::Timestamp;

impl Roster {
    /// Everybody is assigned anew. Returns the groups that connected agents moved into, from others or from none; who is away keeps what
    /// it has as well, and asks for a rollout when it is back.
    pub fn set_assigner(&mut self, assigner: Assigner, now: Timestamp) -> BTreeSet<GroupName> {
        self.assigner = assigner;
        let mut receivers = BTreeSet::new();
        let everybody: Vec<AgentId> = self.agents.keys().copied().collect();
        for id in everybody {
            let Some(placed) = self.agents.get(&id).map(|member| member.placement.clone()) else { continue };
            let before = match &placed {
                Placement::Group(name) | Placement::Orphaned(name) => Some(name.clone()),
                Placement::Unknown | Placement::Unmanaged | Placement::Conflict(_) => None,
            };
            self.place(id, now);
            let after = self.agents.get(&id).and_then(|member| member.placement.group().cloned());
            if after == before {
                continue;
            }
            // Between two groups it may have been in a conflict, or in none.
            let is_moved = |member: &Member| match (&after, &placed) {
                (Some(name), Placement::Unmanaged | Placement::Conflict(_)) => {
                    self.is_foreign(name, member) || self.is_taken_in(name, member)
                }
                (Some(_), Placement::Unknown | Placement::Group(_) | Placement::Orphaned(_)) | (None, _) => false,
            };
            if before.is_some() || self.agents.get(&id).is_some_and(is_moved) {
                if let Some(member) = self.agents.get_mut(&id) {
                    member.moved = true;
                    receivers.extend(after.filter(|_| member.is_connected()));
                }
                self.judge(id, now);
            }
        }
        receivers
    }

    /// An agent that was not here when a commit moved it is found out by what it has: its group of before gave it that. One that
    /// changed its own labels would have belonged here before as well.
    ///
    /// Who belonged to no group cannot be told from a newcomer by what it has, but by whether the process before knew it
    /// ([`Roster::may_come_back`]).
    pub(super) fn recognise(&mut self, id: AgentId, now: Timestamp) {
        let Some(member) = self.agents.get(&id) else { return };
        let (Some(labels), false, true) = (&member.labels, member.recognised, member.heard_once) else { return };
        let group = member.placement.group().and_then(|name| self.groups.get(name).map(|group| (name, group)));
        let is_moved = group.is_some_and(|(name, group)| {
            let comes_back = self.may_come_back(id, group, now);
            let (is_foreign, is_taken_in) = (group.holds_another_groups(member), self.is_taken_in(name, member));
            // Newcomers take part in a rollout to those who were moved: what becomes of that holds for them, too.
            let takes_part = group.desired.moving && (is_foreign || is_taken_in);
            // Nearly everybody who comes back has what its group gave it: nothing more is to be found out.
            let may_be_moved = is_foreign || comes_back && is_taken_in;
            let was_elsewhere = |place: &Assignment| match place {
                Assignment::Group(before) => is_foreign && before != name,
                Assignment::Unmanaged | Assignment::Conflict(_) => true,
            };
            takes_part || may_be_moved && self.earlier.belonged(labels).iter().any(was_elsewhere)
        });
        if let Some(member) = self.agents.get_mut(&id) {
            member.recognised = true;
            member.moved |= is_moved;
        }
    }

    /// True when the agent has not what a rollout to moved agents brings: newcomers that wait take part in it as well, and what becomes of
    /// it holds for them, too.
    pub(super) fn takes_part_in_move(&self, name: &GroupName, id: AgentId) -> bool {
        let group = self.groups.get(name);
        let candidate = group.and_then(|group| Some((group, group.desired.candidate?)));
        let waits = |member: &&Member| candidate.is_some_and(|(group, hash)| !group.holds(member, hash));
        let member = self.agents.get(&id).filter(waits);
        member.is_some_and(|member| self.is_foreign(name, member) || self.is_taken_in(name, member))
    }

    /// Who has had for long what moved agents get now, and is ill, says nothing about them.
    pub(super) fn excuse_from_move(&mut self, name: &GroupName, id: AgentId) {
        let (Some(group), Some(member)) = (self.groups.get_mut(name), self.agents.get(&id)) else { return };
        if member.is_ill() && group.had_before(member) && group.ill.insert(id) {
            group.memory_changed = true;
        }
    }

    /// True when the member has nothing of ours, and this group something stable that it never proved with agents like it.
    fn is_taken_in(&self, name: &GroupName, member: &Member) -> bool {
        let has_stable = self.groups.get(name).is_some_and(|group| group.desired.stable.is_some());
        has_stable
            && member.is_eligible()
            && member.heard_once
            && member.state().is_none_or(|state| state.known().is_none())
    }

    /// True when the member has a configuration that this group, which has a stable one, never gave it.
    pub(super) fn is_foreign(&self, name: &GroupName, member: &Member) -> bool {
        let group = self.groups.get(name).filter(|group| group.desired.stable.is_some());
        group.is_some_and(|group| group.holds_another_groups(member))
    }

    /// How many agents another assigner would move between groups, and the groups that would receive them.
    pub fn moves(&self, assigner: &Assigner) -> (usize, BTreeSet<GroupName>) {
        let mut receivers = BTreeSet::new();
        let mut moved = 0;
        for member in self.agents.values() {
            let Some(labels) = &member.labels else { continue };
            let Assignment::Group(after) = assigner.assign(labels) else { continue };
            let is_moved = match &member.placement {
                Placement::Group(before) | Placement::Orphaned(before) => after != *before,
                Placement::Unmanaged | Placement::Conflict(_) => self.is_foreign(&after, member),
                Placement::Unknown => false,
            };
            if is_moved {
                moved += 1;
                receivers.insert(after);
            }
        }
        (moved, receivers)
    }
}
