//! What a process before this one knew of the agents, as the journal has it, and what a successor is to know.

use std::collections::{BTreeMap, BTreeSet};

use crate::agent::AgentId;
use crate::config::ConfigHash;
use crate::fleet::GroupName;
use crate::roster::Roster;
use crate::roster::group::{Assumed, Failure, Group};
use crate::roster::known::Known;
use crate::roster::member::{Member, Placement};
use crate::time::Timestamp;

impl Roster {
    /// A group comes back with what the journal remembers of its agents, and with what is stable there: what was remembered since that
    /// became stable goes on.
    pub fn restore(
        &mut self,
        name: &GroupName,
        failures: BTreeMap<AgentId, Failure>,
        ill: BTreeSet<AgentId>,
        assumed: Assumed,
        stable: Option<ConfigHash>,
    ) {
        self.assumptions.insert((assumed.until, name.clone()));
        let group = self.groups.entry(name.clone()).or_default();
        (group.ill, group.assumed, group.desired.stable) = (ill, Some(assumed), stable);
        group.restore_failures(failures);
    }

    /// True when the agent was here before this process: it is one of those whom the process before knew, until those who are away are
    /// forgotten. As long as that one may have left agents in the middle of something, all that come are taken for old ones: who came
    /// last may be in no record.
    pub(super) fn may_come_back(&self, id: AgentId, group: &Group, now: Timestamp) -> bool {
        group.assumed.as_ref().is_some_and(|assumed| {
            now < assumed.until || now < assumed.known_until && (group.knew(id) || self.knew_outside(id))
        })
    }

    /// An agent that comes with the configuration already, ill, and that nobody offered anything, was ill before us.
    pub(super) fn recall_illness(&mut self, id: AgentId) {
        let Some(member) = self.agents.get(&id) else { return };
        let Some(group) = member.placement.group().and_then(|name| self.groups.get_mut(name)) else { return };
        let adopted = member.offer.as_ref().is_some_and(|offer| offer.connection.is_none() && !offer.confirmed);
        if group.assumed.is_none() && adopted && member.is_ill() && group.ill.insert(id) {
            group.memory_changed = true;
        }
    }

    /// The agents of no group that the process before this one knew, until they are forgotten.
    pub fn restore_outsiders(&mut self, known: Known, until: Timestamp) {
        self.outsiders = Some((known, until));
    }

    fn knew_outside(&self, id: AgentId) -> bool {
        self.outsiders.as_ref().is_some_and(|(known, _)| known.contains(id))
    }

    /// The agents of no group, as a successor is to know them; `None`: there are none.
    pub fn known_outsiders(&self, now: Timestamp) -> Option<Known> {
        let is_outside = |member: &Member| match member.placement {
            Placement::Unmanaged | Placement::Conflict(_) => member.is_eligible(),
            Placement::Unknown | Placement::Orphaned(_) | Placement::Group(_) => false,
        };
        let before = self.outsiders.as_ref().filter(|(_, until)| now < *until).map(|(known, _)| known);
        let outside: Vec<AgentId> =
            self.agents.iter().filter(|(_, member)| is_outside(member)).map(|(id, _)| *id).collect();
        (before.is_some() || !outside.is_empty()).then(|| Known::of(outside.into_iter(), before))
    }

    /// True when other agents belong to no group than at the last call.
    pub fn take_outsiders_changed(&mut self) -> bool {
        std::mem::take(&mut self.outsiders_changed)
    }
}
