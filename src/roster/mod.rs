//! The agents connected here: group, configuration, failures -> offers and tallies.
//!
//! The roster knows single agents and no stages. Reports go in with [`Roster::handle_event`], what a group should have with
//! [`Roster::set_desired`], time with [`Roster::handle_timeout`]; out come the groups whose counts changed
//! ([`Roster::take_changed`]) with their [`Tally`], and once the rollouts have seen these, [`Roster::make_offers`] and
//! [`Roster::poll_action`]. Work follows change: an event costs the judgement of one agent.
//!
//! Invariants, each kept in one place: an agent is counted in its group exactly as its last [`Verdict`] says (`Roster::judge`); an
//! offer leaves only through `Roster::offer`, which is reached only by an agent that is `Pending` and for which
//! `Group::next_pending` found room.

mod before;
pub mod failures;
pub mod group;
pub mod known;
mod left;
mod load;
pub mod member;
mod moves;
mod offers;
pub mod peers;
pub mod restarts;
mod retries;
pub mod standing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::agent::{AgentEvent, AgentId, AgentReport, ConnectionId, Transport};
use crate::config::{ConfigHash, RenderedConfig};
use crate::fleet::GroupName;
use crate::fleet::assign::{Assigner, Assignment};
use crate::fleet::generations::Generations;
use crate::labels::Labels;
use crate::rollout::cohort::{Draw, Opening};
use crate::rollout::{Desired, Tally};
use crate::roster::group::{Failure, Group};
use crate::roster::known::Known;
use crate::roster::load::FleetLoad;
use crate::roster::member::{Gone, Link, Member, Placement};
use crate::roster::offers::still_wanted;
use crate::roster::peers::Bystanders;
use crate::roster::standing::{Standing, Verdict, judge};
use crate::time::Timestamp;

/// What is to be done about one agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RosterAction {
    /// Put this into its slot.
    Offer {
        /// Where.
        connection: ConnectionId,
        /// Who.
        id: AgentId,
        /// What.
        config: RenderedConfig,
        /// True when the same may go out a second time on this connection.
        retry: bool,
    },
    /// Tell it to restart, once the record of its group is stored: then call [`Roster::restart`].
    Restart {
        /// The group that it was in when that was decided.
        group: GroupName,
        /// Where.
        connection: ConnectionId,
        /// Who.
        id: AgentId,
    },
    /// Empty its slot, if the offer has not left yet.
    Withdraw {
        /// Where.
        connection: ConnectionId,
        /// Who.
        id: AgentId,
    },
}

/// Agents that are away and remembered, beside twice as many as were ever connected at once: two generations of the whole fleet.
/// Somebody who makes up new identities is forgotten at once beyond that.
const MOST_ABSENT: usize = 10_000;

/// All agents.
#[derive(Debug)]
pub struct Roster {
    agents: BTreeMap<AgentId, Member>,
    groups: BTreeMap<GroupName, Group>,
    assigner: Assigner,
    /// Who belonged where before the commits of the last days: agents come back that were not here then.
    earlier: Generations,
    timers: BTreeSet<(Timestamp, AgentId)>,
    changed: BTreeSet<GroupName>,
    actions: VecDeque<RosterAction>,
    forget_after: Duration,
    connected: usize,
    /// The most that ever were.
    most_connected: usize,
    /// When what an earlier process may have left behind is no longer assumed.
    assumptions: BTreeSet<(Timestamp, GroupName)>,
    /// Groups in which an offer may have become possible.
    to_dispatch: BTreeSet<GroupName>,
    /// The budget over all groups together.
    fleet: FleetLoad,
    /// Those with whom agents are compared that have a candidate, where too few of their group have none.
    bystanders: Bystanders,
    /// Agents that a person wants to keep what they have, known or not.
    pins: BTreeMap<AgentId, Timestamp>,
    /// Agents that a process before this one told to restart, until they are heard.
    restarting: BTreeMap<AgentId, Timestamp>,
    /// Agents of no group that the process before this one knew, and until when they are remembered.
    outsiders: Option<(Known, Timestamp)>,
    /// True when there are others than at the last look.
    outsiders_changed: bool,
    /// True while a revision is being taken: agents may have moved to groups whose new configuration is not known yet.
    paused: bool,
}

impl Roster {
    /// Nobody yet. Agents that are away are forgotten after `forget_after`.
    pub fn new(forget_after: Duration) -> Self {
        Self {
            agents: BTreeMap::new(),
            groups: BTreeMap::new(),
            assigner: Assigner::new([]),
            earlier: Generations::default(),
            timers: BTreeSet::new(),
            changed: BTreeSet::new(),
            actions: VecDeque::new(),
            forget_after,
            connected: 0,
            most_connected: 0,
            assumptions: BTreeSet::new(),
            to_dispatch: BTreeSet::new(),
            fleet: FleetLoad::default(),
            bystanders: Bystanders::default(),
            pins: BTreeMap::new(),
            restarting: BTreeMap::new(),
            outsiders: None,
            outsiders_changed: false,
            paused: false,
        }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<RosterAction> {
        self.actions.pop_front()
    }

    /// The groups whose counts changed since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<GroupName> {
        std::mem::take(&mut self.changed)
    }

    /// When [`Roster::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let timer = self.timers.first().map(|(at, _)| *at);
        timer.into_iter().chain(self.assumptions.first().map(|(at, _)| *at)).min()
    }

    /// From now on nothing is offered to anybody, until [`Roster::resume`].
    pub fn pause(&mut self) {
        self.paused = true;
    }

    /// Offers may be made again.
    pub fn resume(&mut self) {
        if std::mem::take(&mut self.paused) {
            self.to_dispatch.extend(self.groups.keys().cloned());
        }
    }

    /// Draws a stage's agents.
    pub fn draw(&self, name: &GroupName, request: &Draw, now: Timestamp) -> Opening {
        let group = self.groups.get(name);
        group.map(|group| group.draw(request, |id| self.agents.get(&id), now)).unwrap_or_default()
    }

    /// The process stood still for so long: every deadline moves by as much.
    pub fn handle_gap(&mut self, gap: Duration, now: Timestamp) {
        for (until, name) in std::mem::take(&mut self.assumptions) {
            if let Some(assumed) = self.groups.get_mut(&name).and_then(|group| group.assumed.as_mut()) {
                assumed.until = assumed.until + gap;
                assumed.known_until = assumed.known_until + gap;
            }
            self.assumptions.insert((until + gap, name));
        }
        if let Some((_, until)) = &mut self.outsiders {
            *until = *until + gap;
        }
        let everybody: Vec<AgentId> = self.agents.keys().copied().collect();
        for id in everybody {
            self.uncount(id);
            if let Some(member) = self.agents.get_mut(&id) {
                member.shift(gap);
            }
            self.judge(id, now);
        }
        // What does not wait longer, a pin, may be over.
        self.to_dispatch.extend(self.groups.keys().cloned());
        self.changed.extend(self.groups.keys().cloned());
    }

    /// The counts of a group; all zero for one without agents.
    pub fn tally(&self, name: &GroupName, now: Timestamp) -> Tally {
        self.groups.get(name).map(|group| group.tally(now, self.forget_after, &self.bystanders)).unwrap_or_default()
    }

    /// A group's agents.
    pub fn group(&self, name: &GroupName) -> Option<&Group> {
        self.groups.get(name)
    }

    /// Everybody, by id.
    pub fn agents(&self) -> impl Iterator<Item = (AgentId, &Member)> {
        self.agents.iter().map(|(id, member)| (*id, member))
    }

    /// One agent.
    pub fn agent(&self, id: AgentId) -> Option<&Member> {
        self.agents.get(&id)
    }

    /// How many are connected.
    pub fn connected(&self) -> usize {
        self.connected
    }

    /// What a group's memory of failures and illnesses is, when it changed since the last call.
    pub fn take_memory_changed(&mut self, name: &GroupName) -> bool {
        self.groups.get_mut(name).is_some_and(|group| std::mem::take(&mut group.memory_changed))
    }

    /// Who belonged where before the commits that agents may have missed.
    pub fn set_earlier(&mut self, earlier: Generations) {
        self.earlier = earlier;
    }

    /// Agents that belong to a group, connected or not.
    pub fn managed(&self) -> usize {
        self.groups.values().map(|group| group.members.len()).sum()
    }

    /// The group is gone from the repository: who was in it is on their own, unless another group takes them with the next
    /// [`Roster::set_assigner`].
    pub fn remove_group(&mut self, name: &GroupName, now: Timestamp) {
        let Some(group) = self.groups.remove(name) else { return };
        self.fleet.change(group.load(), (0, 0));
        self.fleet.feed(name);
        for id in group.members {
            if let Some(member) = self.agents.get_mut(&id) {
                member.placement = Placement::Orphaned(name.clone());
                member.leave(None);
                if let Some(offer) = member.offer.as_mut().filter(|offer| offer.group.as_ref() == Some(name)) {
                    // What it gave is judged by the group that takes the agent: a directory may just have another name by now.
                    offer.group = None;
                }
                self.bystanders.change(member.verdict.bystander, -1);
                member.verdict = Verdict::NOBODY;
            }
            self.judge(id, now);
        }
    }

    /// What a group's agents should have from now on, with the bodies to offer.
    pub fn set_desired(
        &mut self,
        name: &GroupName,
        desired: Desired,
        config: impl Fn(ConfigHash) -> Option<RenderedConfig>,
        now: Timestamp,
    ) {
        let group = self.groups.entry(name.clone()).or_default();
        if group.desired == desired && (group.candidate.is_some() || desired.candidate.is_none()) {
            return;
        }
        // A rollout that failed is no end: who fell sick with its candidate was not ill before the next one.
        let is_over = desired.successes != group.desired.successes;
        // What was confirmed in one rollout is no evidence in the next, also where that brings the same once more.
        let is_other = desired.candidate != group.desired.candidate;
        // While the group is frozen nothing is rolled out, and what will be is what is wanted.
        let forgiven = desired.candidate.or(desired.wanted).filter(|_| group.is_retry(&desired));
        let only_room = Desired { room: desired.room, reach: desired.reach, ..group.desired.clone() } == desired;
        let begins_move = desired.moving && !group.desired.moving;
        // Who waits is ordered by the seed: counts come out as they went in, before anything changes.
        let members: Vec<AgentId> = if only_room { Vec::new() } else { group.members.iter().copied().collect() };
        if let Some(group) = self.groups.get_mut(name) {
            group.keep_sickness(&desired, &self.bystanders);
        }
        for id in &members {
            self.uncount(*id);
        }
        let Some(group) = self.groups.get_mut(name) else { return };
        group.candidate = desired.candidate.and_then(&config);
        group.stable = desired.stable.and_then(&config);
        group.set_desired(desired);
        for id in members {
            let takes_part = begins_move && self.takes_part_in_move(name, id);
            if begins_move {
                self.excuse_from_move(name, id);
            }
            if let Some(member) = self.agents.get_mut(&id) {
                if let Some(hash) = forgiven {
                    member.forgive(hash);
                }
                member.tried &= !is_over;
                member.moved |= takes_part;
                if let Some(offer) = &mut member.offer {
                    offer.settled |= is_over && offer.answered || is_other && offer.confirmed;
                }
            }
            self.judge(id, now);
        }
        if let Some(group) = self.groups.get_mut(name) {
            group.count_sickness_again();
        }
        self.changed.insert(name.clone());
        self.to_dispatch.insert(name.clone());
    }

    /// Takes what a session tells.
    pub fn handle_event(&mut self, event: AgentEvent, now: Timestamp) {
        match event {
            AgentEvent::Connected { id, connection, transport, proofs } => {
                self.connect(id, connection, transport, now);
                self.doubt_labels(id, connection, proofs, now);
            }
            AgentEvent::Report { id, connection, report } => {
                let Some(member) = self.agents.get_mut(&id) else { return };
                if member.link.is_none_or(|link| link.connection != connection) {
                    return;
                }
                let heard_before = member.heard_once;
                let has_new_labels = member.take(*report, now);
                let voided = if has_new_labels { member.void_offer() } else { None };
                let first_heard = member.heard_once && !heard_before;
                self.recall_illness(id);
                if first_heard {
                    self.count_heard(id, 1);
                }
                if has_new_labels {
                    self.place(id, now);
                }
                self.recall_retry(id);
                if first_heard || has_new_labels {
                    self.expect_restart(id);
                }
                self.recognise(id, now);
                self.attribute_failure(id, now);
                self.judge(id, now);
                if let Some(hash) = voided {
                    self.put_again(id, hash, now);
                }
                self.dispatch_later(id);
            }
            AgentEvent::Gone { id, connection, goodbye } => {
                let Some(member) = self.agents.get_mut(&id) else { return };
                if member.link.is_none_or(|link| link.connection != connection) {
                    return;
                }
                self.uncount(id);
                self.drop_claim(id);
                if let Some(member) = self.agents.get_mut(&id) {
                    member.link = None;
                    member.gone = Some(Gone { at: now, left: now, goodbye });
                    self.connected -= 1;
                }
                self.judge(id, now);
                self.dispatch_later(id);
                if self.agents.len() - self.connected > MOST_ABSENT + 2 * self.most_connected {
                    self.forget(id, now);
                }
            }
        }
    }

    /// What was known of an agent that now proves something else was said by somebody else: until it describes itself it is what it proves,
    /// so that nobody is offered what another one was meant to get.
    fn doubt_labels(&mut self, id: AgentId, connection: ConnectionId, proofs: Labels, now: Timestamp) {
        let known = self.agents.get(&id).and_then(|member| member.labels.as_ref());
        if known.is_some_and(|labels| labels.proofs() != proofs) {
            let report = AgentReport { labels: Some(proofs), ..AgentReport::default() };
            self.handle_event(AgentEvent::Report { id, connection, report: Box::new(report) }, now);
        }
    }

    fn connect(&mut self, id: AgentId, connection: ConnectionId, transport: Transport, now: Timestamp) {
        self.uncount(id);
        self.drop_claim(id);
        let member = self.agents.entry(id).or_default();
        member.pinned_until = self.pins.get(&id).copied().filter(|until| *until > now);
        if member.link.is_none() {
            self.connected += 1;
            self.most_connected = self.most_connected.max(self.connected);
        }
        let was_gone = member.gone.take();
        member.link = Some(Link { connection, transport, heard: false, offered: None, found_applying: None });
        if was_gone.is_some_and(|gone| gone.goodbye) {
            // It left in order: the time that it was away does not count, and what it had not answered is void unless it says
            // now that it got it.
            if let Some(offer) = member.offer.as_mut().filter(|offer| !offer.confirmed) {
                (offer.at, offer.made, offer.void) = (now, now, !offer.answered);
            }
        }
        let group = member.placement.group().and_then(|name| self.groups.get_mut(name));
        if let Some(group) = group.filter(|_| was_gone.is_some()) {
            // It has not been heard yet; a rollout must not end just before that.
            group.join(now);
        }
        self.judge(id, now);
        self.dispatch_later(id);
    }

    fn count_heard(&mut self, id: AgentId, by: isize) {
        let name = self.agents.get(&id).and_then(|member| member.placement.group());
        if let Some(group) = name.and_then(|name| self.groups.get_mut(name)) {
            group.count_heard(by);
        }
    }

    /// Finds the agent's group by its labels.
    fn place(&mut self, id: AgentId, now: Timestamp) {
        let Some(member) = self.agents.get(&id) else { return };
        let Some(labels) = &member.labels else { return };
        let placement = match self.assigner.assign(labels) {
            Assignment::Group(name) => Placement::Group(name),
            Assignment::Conflict(names) => Placement::Conflict(Arc::from(names)),
            Assignment::Unmanaged => match &member.placement {
                Placement::Orphaned(name) => Placement::Orphaned(name.clone()),
                Placement::Unknown | Placement::Unmanaged | Placement::Conflict(_) | Placement::Group(_) => {
                    Placement::Unmanaged
                }
            },
        };
        if placement == member.placement {
            return;
        }
        self.outsiders_changed |= matches!(placement, Placement::Unmanaged | Placement::Conflict(_));
        let (before, heard) = (member.placement.clone(), member.heard_once);
        self.uncount(id);
        self.drop_claim(id);
        if let Some(group) = before.group().and_then(|name| self.groups.get_mut(name)) {
            group.members.remove(&id);
            group.memory_changed |= group.to_retry.remove(&id).is_some();
            if heard {
                group.count_heard(-1);
            }
        }
        let joined = placement.group().cloned();
        if let Some(member) = self.agents.get_mut(&id) {
            member.placement = placement;
            member.leave(before.group());
        }
        if let Some(name) = &joined {
            let group = self.groups.entry(name.clone()).or_default();
            group.members.insert(id);
            if heard {
                group.count_heard(1);
            }
            if let Some(member) = self.agents.get(&id) {
                group.memory_changed |= member.restarting_until().is_some_and(|until| until > now);
                if let Some(labels) = &member.labels {
                    group.reform(id, labels);
                }
            }
        }
        self.recall_retry(id);
        self.judge(id, now);
        if let Some(name) = joined {
            if let Some(group) = self.groups.get_mut(&name) {
                group.join(now);
            }
            self.to_dispatch.insert(name);
        }
    }

    /// Takes the agent out of its group's counts until it is judged again.
    fn uncount(&mut self, id: AgentId) {
        let Some(member) = self.agents.get_mut(&id) else { return };
        let verdict = std::mem::replace(&mut member.verdict, Verdict::NOBODY);
        if verdict.standing == Standing::Unplaced {
            return;
        }
        if let Some(name) = member.placement.group()
            && let Some(group) = self.groups.get_mut(name)
        {
            let before = group.load();
            group.count_out(id, &verdict, member.gone.map(|gone| gone.at));
            self.bystanders.change(verdict.bystander, -1);
            self.fleet.change(before, group.load());
            self.changed.insert(name.clone());
        }
    }

    /// Judges the agent, counts it accordingly, sets its timer, withdraws what it is not to get any more.
    fn judge(&mut self, id: AgentId, now: Timestamp) {
        let Some(member) = self.agents.get(&id) else { return };
        let group = member.placement.group().and_then(|name| self.groups.get(name));
        let verdict = group.map_or(Verdict::NOBODY, |group| judge(id, member, group, &self.bystanders, now));
        let desired = group.and_then(|group| still_wanted(group, id, member));
        if verdict != member.verdict {
            self.uncount(id);
            self.settle(id, verdict, now);
        }
        self.withdraw_unwanted(id, desired);
        self.set_timer(id, now);
    }

    fn settle(&mut self, id: AgentId, mut verdict: Verdict, now: Timestamp) {
        let Some(member) = self.agents.get_mut(&id) else { return };
        let Some(name) = member.placement.group() else { return };
        let Some(group) = self.groups.get_mut(name) else { return };
        if let Some(failure) = verdict.failure.take() {
            group.remember(id, member.labels.as_ref(), Failure { at: failure.at.min(now), ..failure });
        }
        let is_confirmed = verdict.standing == Standing::Confirmed;
        let held = member.config.as_ref().and_then(|(state, _)| state.known()).filter(|_| is_confirmed);
        if let Some(offer) = member.offer.as_mut().filter(|offer| Some(offer.hash) == held) {
            offer.confirmed = true;
            if member.health.as_ref().is_none_or(|health| health.healthy) {
                offer.well_since.get_or_insert(now);
            }
            offer.well |= member.health.as_ref().is_some_and(|health| health.healthy);
        }
        let before = group.load();
        group.count_in(id, &verdict, member.gone.map(|gone| gone.at));
        self.bystanders.change(verdict.bystander, 1);
        self.fleet.change(before, group.load());
        self.changed.insert(name.clone());
        member.moved &= !is_confirmed;
        if verdict.excused && !verdict.recovers {
            member.excused_at = Some(now);
        }
        member.verdict = verdict;
    }

    fn set_timer(&mut self, id: AgentId, now: Timestamp) {
        let Some(member) = self.agents.get_mut(&id) else { return };
        let forget = member.gone.map(|gone| gone.at + self.forget_after);
        let until =
            [member.verdict.until, forget, member.pinned_until].into_iter().flatten().filter(|at| *at > now).min();
        if until == member.timer {
            return;
        }
        if let Some(old) = std::mem::replace(&mut member.timer, until) {
            self.timers.remove(&(old, id));
        }
        if let Some(at) = until {
            self.timers.insert((at, id));
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        while let Some(&(at, id)) = self.timers.first().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, id));
            let Some(member) = self.agents.get_mut(&id) else { continue };
            member.timer = None;
            let is_forgotten = member.gone.is_some_and(|gone| gone.at + self.forget_after <= now);
            if is_forgotten {
                self.forget(id, now);
                continue;
            }
            let is_unpinned = member.pinned_until.take_if(|until| *until <= now).is_some();
            self.judge(id, now);
            self.dispatch_later(id);
            if is_unpinned {
                self.look_again(id);
            }
        }
        while let Some((_, name)) = self.assumptions.first().filter(|(at, _)| *at <= now).cloned() {
            self.assumptions.pop_first();
            self.forget_restarts_to_come(&name);
            self.changed.insert(name.clone());
            self.to_dispatch.insert(name);
        }
    }

    fn forget(&mut self, id: AgentId, now: Timestamp) {
        self.judge(id, now);
        self.uncount(id);
        let Some(member) = self.agents.remove(&id) else { return };
        if let Some(timer) = member.timer {
            self.timers.remove(&(timer, id));
        }
        if let Some(group) = member.placement.group().and_then(|name| self.groups.get_mut(name)) {
            group.forget(id);
            if member.heard_once {
                group.count_heard(-1);
            }
        }
    }

    /// It may be drawn for a stage by now, although it is to its group what it was.
    fn look_again(&mut self, id: AgentId) {
        self.dispatch_later(id);
        let name = self.agents.get(&id).and_then(|member| member.placement.group());
        self.changed.extend(name.cloned());
    }

    fn dispatch_later(&mut self, id: AgentId) {
        let name = self.agents.get(&id).and_then(|member| member.placement.group());
        self.to_dispatch.extend(name.cloned());
    }
}
