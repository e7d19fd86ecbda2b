//! The budget over all groups together, so that two groups merged in one commit do not restart together.

use std::collections::BTreeSet;

use crate::fleet::GroupName;
use crate::fleet::strategy::Amount;
use crate::rollout::budget;

/// How much of the fleet is in the middle of something.
#[derive(Debug, Default)]
pub(super) struct FleetLoad {
    /// `maxUnavailable` of `fleet.yaml`; `None`: only the groups' own limits hold.
    pub(super) max_unavailable: Option<Amount>,
    eligible: usize,
    unavailable: usize,
    /// Groups that have room of their own, and wait for some of the fleet's.
    starved: BTreeSet<GroupName>,
}

impl FleetLoad {
    /// A group's load became `after`.
    pub(super) fn change(&mut self, before: (usize, usize), after: (usize, usize)) {
        self.eligible = (self.eligible + after.0).saturating_sub(before.0);
        self.unavailable = (self.unavailable + after.1).saturating_sub(before.1);
    }

    /// True when one more agent may become unavailable, beside so many that are assumed to be.
    pub(super) fn has_room(&self, assumed: usize) -> bool {
        let is_below = |amount| self.unavailable + assumed < budget::limit(amount, self.eligible);
        self.max_unavailable.is_none_or(is_below)
    }

    /// The agents unavailable now beside those assumed, and how many may be; `None`: no limit is set.
    pub(super) fn state(&self) -> Option<(usize, usize)> {
        self.max_unavailable.map(|amount| (self.unavailable, budget::limit(amount, self.eligible)))
    }

    /// The group waits for room in the fleet.
    pub(super) fn starve(&mut self, name: &GroupName) {
        self.starved.insert(name.clone());
    }

    /// The group has nothing to wait for any more.
    pub(super) fn feed(&mut self, name: &GroupName) {
        self.starved.remove(name);
    }

    /// True when the group waits for room in the fleet.
    pub(super) fn is_starved(&self, name: &GroupName) -> bool {
        self.starved.contains(name)
    }

    /// The groups that waited.
    pub(super) fn take_starved(&mut self) -> BTreeSet<GroupName> {
        std::mem::take(&mut self.starved)
    }
}
