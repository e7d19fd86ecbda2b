//! Orders that allow something which no group's record holds back: what they allow takes effect once they are stored, and nothing else
//! waits for that.

use std::collections::BTreeMap;

use crate::agent::AgentId;
use crate::controller::Controller;
use crate::fleet::GroupName;
use crate::rollout::record::Said;
use crate::time::Timestamp;

/// How many orders were given when one was, itself included: it is stored once so many are.
type Ordinal = u64;

/// What was ordered, is on its way into the journal, and has no effect yet. At most one entry an agent and kind.
#[derive(Debug, Default)]
pub(super) struct Deferred {
    retries: BTreeMap<AgentId, Ordinal>,
    restarts: BTreeMap<AgentId, Ordinal>,
    unpins: BTreeMap<AgentId, Ordinal>,
    /// The end of a freeze of everybody, with what ends.
    unfreeze: Option<(Ordinal, Said)>,
}

fn take_due(orders: &mut BTreeMap<AgentId, Ordinal>, stored: Ordinal) -> Vec<AgentId> {
    let due: Vec<AgentId> = orders.iter().filter(|(_, ordinal)| **ordinal <= stored).map(|(id, _)| *id).collect();
    for id in &due {
        orders.remove(id);
    }
    due
}

impl Controller {
    /// This agent is to be offered once more what it failed; the record of its group forgives it already.
    pub(super) fn defer_retry(&mut self, id: AgentId) {
        self.deferred.retries.insert(id, self.next_order());
        self.store_beside(id);
    }

    /// These agents are to restart; the records of their groups say so already.
    pub(super) fn defer_restarts(&mut self, ids: &[AgentId]) {
        let ordinal = self.next_order();
        for id in ids {
            self.deferred.restarts.insert(*id, ordinal);
            self.store_beside(*id);
        }
    }

    /// The agent's pin ends.
    pub(super) fn defer_unpin(&mut self, id: AgentId) {
        self.deferred.unpins.insert(id, self.next_order());
    }

    /// The agent is pinned anew: that an order before ends a pin is past.
    pub(super) fn keep_pin(&mut self, id: AgentId) {
        self.deferred.unpins.remove(&id);
    }

    /// The freeze of everybody ends, or begins.
    pub(super) fn order_freeze(&mut self, frozen: Option<Said>, now: Timestamp) {
        let before = self.held_by_freeze();
        self.deferred.unfreeze = before.filter(|_| frozen.is_none()).map(|before| (self.next_order(), before));
        self.frozen = frozen;
        self.spread_freeze();
        self.look_again(now);
    }

    /// The freeze of everybody that has an effect: one whose end is not stored has.
    pub(super) fn held_by_freeze(&self) -> Option<Said> {
        self.frozen.clone().or_else(|| self.deferred.unfreeze.as_ref().map(|(_, said)| said.clone()))
    }

    /// The order that is being carried out.
    fn next_order(&self) -> Ordinal {
        self.storage.orders.given + 1
    }

    /// The agent's part in the record of its group is to be stored; nobody else of the group waits for that.
    fn store_beside(&mut self, id: AgentId) {
        let group = self.roster.agent(id).and_then(|member| member.placement.group());
        self.storage.beside.extend(group.cloned());
    }

    /// True when a person forgave the agent what it failed, and that is on its way into the journal.
    pub(super) fn is_forgiven(&self, id: AgentId) -> bool {
        self.deferred.retries.contains_key(&id)
    }

    /// The group's agents that are to restart as soon as that is stored.
    pub(super) fn restarts_to_store(&self, name: &GroupName) -> impl Iterator<Item = AgentId> {
        let ids = self.deferred.restarts.keys().copied();
        ids.filter(move |id| self.roster.agent(*id).is_some_and(|member| member.placement.group() == Some(name)))
    }

    /// Orders were stored: what they allow takes effect.
    pub(super) fn allow_stored(&mut self, now: Timestamp) {
        let stored = self.storage.orders.stored;
        for id in take_due(&mut self.deferred.retries, stored) {
            self.roster.retry(id, now);
        }
        let restarts = take_due(&mut self.deferred.restarts, stored);
        self.roster.order_restarts(&restarts);
        for id in take_due(&mut self.deferred.unpins, stored) {
            self.roster.set_pin(id, None, now);
        }
        if self.deferred.unfreeze.take_if(|(ordinal, _)| *ordinal <= stored).is_some() {
            self.spread_freeze();
            self.look_again(now);
        }
    }

    /// Every group looks at what holds it back.
    fn look_again(&mut self, now: Timestamp) {
        for name in self.groups.keys().cloned().collect::<Vec<_>>() {
            if let Some(state) = self.groups.get_mut(&name) {
                state.machine.handle_timeout(now);
            }
            self.after_machine(&name, now);
        }
    }
}
