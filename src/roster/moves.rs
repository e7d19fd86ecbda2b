//! What another way of assigning agents would move.

use std::collections::BTreeSet;

use crate::fleet::GroupName;
use crate::fleet::assign::{Assigner, Assignment};
use crate::roster::Roster;
use crate::roster::member::{Member, Placement};

impl Roster {
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
