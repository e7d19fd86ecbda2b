//! Who is offered something now: room in the group and in the fleet, and what is taken back because it is wrong by now.

use crate::agent::AgentId;
use crate::config::ConfigHash;
use crate::fleet::GroupName;
use crate::fleet::strategy::Amount;
use crate::rollout::Closed;
use crate::roster::group::Group;
use crate::roster::member::{Link, Member, Offer};
use crate::roster::standing::Standing;
use crate::roster::{Roster, RosterAction};
use crate::time::Timestamp;

impl Roster {
    /// Makes the offers that are possible now. To be called once the rollouts know the counts as they are: what the last report
    /// closed must not be offered any more.
    pub fn make_offers(&mut self, now: Timestamp) {
        if self.paused {
            return;
        }
        let assumed = self.assumed(now);
        if self.fleet.has_room(assumed) {
            let starved = self.fleet.take_starved();
            self.changed.extend(starved.iter().cloned());
            self.to_dispatch.extend(starved);
        }
        for name in std::mem::take(&mut self.to_dispatch) {
            self.dispatch(&name, assumed, now);
            self.dispatch_restarts(&name, assumed, now);
        }
    }

    /// A person wants this agent to keep what it has until then; `None`: no longer.
    pub fn set_pin(&mut self, id: AgentId, until: Option<Timestamp>, now: Timestamp) {
        match until {
            Some(until) => self.pins.insert(id, until),
            None => self.pins.remove(&id),
        };
        if let Some(member) = self.agents.get_mut(&id) {
            member.pinned_until = until;
            self.judge(id, now);
            self.look_again(id);
        }
    }

    /// Agents of all groups that are assumed to be in the middle of something; counted only when a limit for the fleet is set.
    pub(super) fn assumed(&self, now: Timestamp) -> usize {
        if self.fleet.max_unavailable.is_none() {
            return 0;
        }
        let groups = self.assumptions.iter().filter_map(|(_, name)| self.groups.get(name));
        groups.map(|group| group.assumed(now)).sum()
    }

    /// How many agents of the whole fleet may be unavailable at once; `None`: only the groups' own limits hold.
    pub fn set_fleet_budget(&mut self, max_unavailable: Option<Amount>) {
        if self.fleet.max_unavailable != max_unavailable {
            self.fleet.max_unavailable = max_unavailable;
            self.to_dispatch.extend(self.groups.keys().cloned());
        }
    }

    /// The agents of the whole fleet that are unavailable, and how many may be, when this group waits for that.
    pub fn fleet_limit(&self, name: &GroupName, now: Timestamp) -> Option<(usize, usize)> {
        let (unavailable, limit) = self.fleet.state().filter(|_| self.fleet.is_starved(name))?;
        Some((unavailable + self.assumed(now), limit))
    }

    /// An offer that has not been answered and is not what the agent should have any more must not leave (rule 1).
    pub(super) fn withdraw_unwanted(&mut self, id: AgentId, desired: Option<ConfigHash>) {
        let Some(member) = self.agents.get_mut(&id) else { return };
        let (Some(link), Some(offer)) = (member.link, &mut member.offer) else { return };
        let is_out = !offer.answered && !offer.withdrawn && offer.connection == Some(link.connection);
        if is_out && Some(offer.hash) != desired {
            offer.withdrawn = true;
            self.actions.push_back(RosterAction::Withdraw { connection: link.connection, id });
        }
    }

    /// A session drops what waits in its slot when the agent describes itself anew (rule 1). Where it is still the right thing by
    /// what the agent is now, it is put there again; the session knows whether it had left already.
    pub(super) fn put_again(&mut self, id: AgentId, hash: ConfigHash, now: Timestamp) {
        let Some(member) = self.agents.get_mut(&id) else { return };
        let is_it = |offer: &Offer| offer.hash == hash && offer.withdrawn;
        let (Some(link), true) = (member.link, member.offer.as_ref().is_some_and(is_it)) else { return };
        let group = member.placement.group().and_then(|name| self.groups.get(name));
        let group = group.filter(|group| group.desired.closed.is_none());
        let right = group.filter(|group| group.desired_for(id, member) == Some(hash));
        let connection = link.connection;
        let Some(config) = right.and_then(|group| group.config(hash).cloned()) else {
            self.actions.push_back(RosterAction::Withdraw { connection, id });
            return;
        };
        if let Some(offer) = &mut member.offer {
            offer.withdrawn = false;
        }
        self.judge(id, now);
        let is_out = self.agents.get(&id).is_some_and(|member| member.verdict.standing == Standing::Offered);
        if is_out {
            self.actions.push_back(RosterAction::Offer { connection, id, config, retry: false });
        }
    }

    /// Offers to those who wait, as far as there is room.
    fn dispatch(&mut self, name: &GroupName, assumed: usize, now: Timestamp) {
        while let Some((id, takes_room)) = self.groups.get(name).and_then(|group| group.next_pending(now)) {
            if takes_room && !self.fleet.has_room(assumed) {
                self.fleet.starve(name);
                self.changed.insert(name.clone());
                return;
            }
            if !self.offer(name, id, now) {
                // Without a body nothing can be offered; the controller keeps one for every hash that is desired.
                return;
            }
        }
    }

    fn offer(&mut self, name: &GroupName, id: AgentId, now: Timestamp) -> bool {
        let (Some(member), Some(group)) = (self.agents.get_mut(&id), self.groups.get_mut(name)) else { return false };
        let config = group.desired_for(id, member).and_then(|hash| group.config(hash).cloned());
        let (Some(config), Some(link)) = (config, member.link) else { return false };
        let is_same = |offer: &&Offer| {
            let is_own = offer.group.as_ref().is_none_or(|group| group == name);
            is_own && offer.hash == config.hash() && !offer.settled && !offer.withdrawn
        };
        // An agent that keeps reconnecting does not get a new deadline each time; one whose deadline has passed does.
        let still_runs = |offer: &&Offer| offer.at + group.desired.progress_deadline > now;
        let earlier = member.offer.as_ref().filter(is_same).filter(still_runs);
        let (at, made) = earlier.map_or((now, now), |offer| (offer.at, offer.made));
        if member.is_ill() && !group.was_tried(id, member) && group.ill.insert(id) {
            group.memory_changed = true;
        }
        member.tried |= group.desired.candidate == Some(config.hash());
        // Whatever this group gave it, what is stable here is nothing that it is to be kept from any more: a candidate that failed is
        // taken back from it as well.
        member.moved = false;
        if let Some(before) = member.offer.take() {
            let is_others = before.hash != config.hash() && before.group.as_ref().is_some_and(|group| group != name);
            member.left = if is_others { Some(Box::new(before)) } else { member.left.take() };
        }
        let fresh = Offer { group: Some(name.clone()), ..Offer::new(config.hash(), now, Some(link.connection)) };
        member.offer = Some(Offer { at, made, ..fresh });
        member.link = Some(Link { offered: Some(config.hash()), ..link });
        // What it failed is given to it only when a person wants that, be it that this process heard so or the one before it; its
        // session would leave out what the agent reports already.
        let retry = member.retried == Some(config.hash()) || member.says_it_failed(config.hash());
        self.actions.push_back(RosterAction::Offer { connection: link.connection, id, config, retry });
        self.judge(id, now);
        // Whatever the judgement, an agent that was just offered something does not wait for an offer.
        self.agents.get(&id).is_some_and(|member| member.verdict.standing != Standing::Pending)
    }
}

/// What an agent may still get if it waits in its slot.
pub(super) fn still_wanted(group: &Group, id: AgentId, member: &Member) -> Option<ConfigHash> {
    // `suspend` stops every offer, also those that allow no more than before.
    let stops = |closed: &Closed| {
        matches!(closed, Closed::Suspended | Closed::Observing | Closed::Frozen { .. } | Closed::Pinned { .. })
    };
    if group.desired.closed.as_ref().is_some_and(stops) {
        return None;
    }
    let is_replaced = |hash: &ConfigHash| group.desired.replaced && group.desired.candidate == Some(*hash);
    group.desired_for(id, member).filter(|hash| !is_replaced(hash))
}
