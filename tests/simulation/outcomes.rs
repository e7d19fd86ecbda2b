//! What agents made of what they were offered: who failed it, when that stops a rollout, and what makes one a success.

use std::collections::{BTreeMap, BTreeSet};

use gitamp::agent::{AgentId, ConfigState, ConfigStatus, ConnectionId};
use gitamp::config::ConfigHash;
use gitamp::fleet::strategy::Amount;
use gitamp::rollout::record::{Kind, Progress, RolloutRecord};
use gitamp::roster::standing::{HeldReason, Standing};
use gitamp::time::Timestamp;

use crate::judge::{Judge, Stored};
use crate::world::agent::ModelAgent;
use crate::world::{OfferMade, State};

/// What a supervisor says when its own timer ran out; the collector may be well all the same.
const APPLY_TIMEOUT: &str = "Config apply timeout exceeded";

/// Failures that a rollout may have when nothing is said: one in fifty. Written down a second time.
const DEFAULT_MAX_FAILURES: Amount = Amount::Share(200);

/// Failures that so many agents may have: of fewer than twenty a share that allows one of twenty allows one, and never all. Written down
/// a second time.
fn allowed_failures(amount: Amount, population: usize) -> usize {
    match amount {
        Amount::Share(_) if population < 20 => {
            let least = amount.round_down(20).min(1);
            amount.round_down(population).max(least).min(population.saturating_sub(1))
        }
        Amount::Share(_) | Amount::Count(_) => amount.round_down(population),
    }
}

/// A person wanted what failed to be tried once more.
#[derive(Clone, Debug)]
pub(crate) struct Retry {
    /// In which epoch of the group.
    pub(crate) epoch: u64,
    /// What each agent had received by then.
    pub(crate) received: BTreeMap<AgentId, usize>,
}

/// A person wanted one agent to try once more what it failed.
#[derive(Clone, Debug)]
pub(crate) struct AgentRetry {
    /// In which group.
    pub(crate) group: String,
    /// In which epoch of it.
    pub(crate) epoch: u64,
    /// What it had received by then.
    pub(crate) received: usize,
}

/// One rollout: its group, its candidate and when it started.
type Rollout = (String, ConfigHash, Timestamp);

/// Who was offered which candidate in which rollout, and who failed it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tries {
    /// What each agent was offered last, and on which connection.
    offered: BTreeMap<AgentId, (Rollout, ConnectionId)>,
    failed: BTreeMap<Rollout, BTreeSet<AgentId>>,
    /// Who was in an open stage of a rollout, by what it was then.
    placed: BTreeSet<(AgentId, Rollout)>,
}

impl Tries {
    /// The agent is another one by its labels: what it was in says nothing about what it is in now.
    pub(crate) fn forget_places(&mut self, id: AgentId) {
        self.placed.retain(|(placed, _)| *placed != id);
    }

    pub(crate) fn place(&mut self, id: AgentId, group: &str, rollout: &RolloutRecord) {
        self.placed.insert((id, (group.to_owned(), rollout.candidate, rollout.started)));
    }

    pub(crate) fn was_placed(&self, id: AgentId, group: &str, rollout: &RolloutRecord) -> bool {
        self.placed.contains(&(id, (group.to_owned(), rollout.candidate, rollout.started)))
    }

    /// What the agent failed so far is forgiven by a person.
    pub(crate) fn forgive(&mut self, id: AgentId) {
        for agents in self.failed.values_mut() {
            agents.remove(&id);
        }
    }

    /// Another process knows only what was stored, and what the agents tell it.
    pub(crate) fn restart(&mut self, files: &BTreeMap<String, std::sync::Arc<Stored>>) {
        self.placed.clear();
        for ((group, candidate, _), agents) in &mut self.failed {
            let failures = files.get(group).map(|stored| &stored.file.failures);
            let is_stored = |id: &AgentId| {
                failures
                    .and_then(|failures| failures.get(&id.to_string()))
                    .is_some_and(|failure| failure.hash == *candidate)
            };
            agents.retain(is_stored);
        }
    }
}

/// What is taken back when an order turns out to be refused.
pub(crate) struct Forgiven {
    retried: BTreeMap<String, Retry>,
    retried_agents: BTreeMap<AgentId, AgentRetry>,
    tripped: BTreeMap<(String, String), u64>,
    failed: BTreeMap<(AgentId, ConfigHash), (String, u64)>,
    put: BTreeMap<ConnectionId, ConfigHash>,
    tries: Tries,
}

impl Judge {
    /// What an order may forgive, as it is now.
    pub(crate) fn forgiven(&self) -> Forgiven {
        Forgiven {
            retried: self.retried.clone(),
            retried_agents: self.retried_agents.clone(),
            tripped: self.tripped.clone(),
            failed: self.failed.clone(),
            put: self.put.clone(),
            tries: self.tries.clone(),
        }
    }

    /// Nothing was forgiven.
    pub(crate) fn restore(&mut self, before: Forgiven) {
        let Forgiven { retried, retried_agents, tripped, failed, put, tries } = before;
        (self.retried, self.retried_agents, self.tripped) = (retried, retried_agents, tripped);
        (self.failed, self.put, self.tries) = (failed, put, tries);
    }

    /// A person wants what failed to be tried once more: by a group, or by one agent. The same once more is what is asked for.
    pub(crate) fn expect_retry(&mut self, world: &State, target: &str) {
        let agent = world.agents.values().find(|agent| agent.id.to_string() == target);
        let Some(agent) = agent else {
            let received = world.agents.values().map(|agent| (agent.id, agent.received.len())).collect();
            let epoch = self.epoch(world, target);
            self.retried.insert(target.to_owned(), Retry { epoch, received });
            self.put.clear();
            return;
        };
        let Some(group) = self.home_of(agent).map(str::to_owned) else { return };
        let epoch = self.epoch(world, &group);
        let retry = AgentRetry { group, epoch, received: agent.received.len() };
        self.retried_agents.insert(agent.id, retry);
        self.failed.retain(|(id, _), _| *id != agent.id);
        self.tries.forgive(agent.id);
        if let Some(connection) = agent.connection {
            self.put.remove(&connection);
        }
    }

    /// True when a person wants what the agent failed to be tried once more, and the agent has not done so since.
    pub(crate) fn is_first_retry(&self, agent: &ModelAgent, hash: ConfigHash, group: &str, epoch: u64) -> bool {
        let stored = self.files.get(group);
        // An order holds as long as the group gives that, whatever else is wanted by now.
        let is_given = stored.is_some_and(|stored| {
            stored.stable() == Some(hash) || stored.rollout().is_some_and(|rollout| rollout.candidate == hash)
        });
        let own = self.retried_agents.get(&agent.id);
        let own = own.filter(|own| own.group == group && (own.epoch == epoch || is_given));
        if own.is_some_and(|own| !agent.received[own.received..].contains(&hash)) {
            return true;
        }
        // A newer commit that waits for the end of that very rollout changes what is wanted, and not what the person asked.
        let rollout = stored.and_then(|stored| stored.rollout());
        let still_runs = rollout.is_some_and(|rollout| rollout.retry && rollout.candidate == hash);
        let is_stable = stored.is_some_and(|stored| stored.stable() == Some(hash));
        let holds = |retry: &&Retry| retry.epoch == epoch || still_runs || is_stable;
        let Some(retry) = self.retried.get(group).filter(holds) else {
            return false;
        };
        let before = retry.received.get(&agent.id).copied().unwrap_or(0);
        !agent.received[before..].contains(&hash)
    }

    /// An agent tells what became of a configuration.
    pub(crate) fn take_outcome(&mut self, world: &State, agent: &ModelAgent, state: &ConfigState) {
        // A bare apply timeout may turn out to be a late confirmation.
        let (ConfigStatus::Failed, Some(hash), false) =
            (state.status, state.known(), state.message.as_deref() == Some(APPLY_TIMEOUT))
        else {
            return;
        };
        let home = self.home_of(agent).map(str::to_owned);
        // Whatever it is by now, it failed what the group that it was in then gave it.
        let is_its = |(rollout, connection): &&(Rollout, ConnectionId)| {
            rollout.1 == hash && (home.as_ref() == Some(&rollout.0) || agent.connection == Some(*connection))
        };
        if let Some((rollout, _)) = self.tries.offered.get(&agent.id).filter(is_its).cloned() {
            self.take_failure(world, agent, rollout);
        }
        let Some(group) = home else { return };
        let epoch = self.epoch(world, &group);
        // Before it was tried once more, what it tells is what a person knew already.
        if self.wanted[&group].0 == Some(hash) && !self.is_first_retry(agent, hash, &group, epoch) {
            self.failed.insert((agent.id, hash), (group, epoch));
        }
    }

    fn take_failure(&mut self, world: &State, agent: &ModelAgent, rollout: Rollout) {
        let (group, hash, _) = &rollout;
        let epoch = self.epoch(world, group);
        // What goes back, or was stable before, may have been failed at any time before the first word to this process.
        let running = self.files.get(group).and_then(|stored| stored.rollout());
        let is_old_wine =
            running.is_some_and(|rollout| rollout.kind != Kind::Forward) && !self.heard.contains(&agent.id);
        if !is_old_wine && !self.is_first_retry(agent, *hash, group, epoch) {
            self.tries.failed.entry(rollout).or_default().insert(agent.id);
        }
    }

    /// Agents that failed the candidate in this very rollout, wherever they are by now, and how many of them its stages allow at the most.
    fn failures(&self, group: &str, rollout: &RolloutRecord, population: usize) -> (usize, usize) {
        let strategy = &self.accepted[group].definition.strategy;
        let its = (group.to_owned(), rollout.candidate, rollout.started);
        let failed = self.tries.failed.get(&its).map_or(0, BTreeSet::len);
        let whole = allowed_failures(strategy.max_failures.unwrap_or(DEFAULT_MAX_FAILURES), population);
        if rollout.takes_everybody() || strategy.stages.is_empty() {
            return (failed, whole);
        }
        let stages = strategy.stages.iter().enumerate().take(rollout.stage + 1);
        let allowed = stages.map(|(index, stage)| {
            let is_first = index == 0 && strategy.stages.len() > 1;
            let default = if is_first { Amount::Count(0) } else { DEFAULT_MAX_FAILURES };
            allowed_failures(stage.max_failures.or(strategy.max_failures).unwrap_or(default), population)
        });
        (failed, allowed.max().unwrap_or(whole))
    }

    /// After a gate tripped nobody else is offered what tripped it: neither by what the product says, nor by what agents told.
    pub(crate) fn check_gate(&mut self, world: &State, offer: &OfferMade<'_>, group: &str, stored: &Stored) {
        let (name, hash) = (offer.name, offer.config.hash());
        let epoch = self.epoch(world, group);
        let tripped = self.tripped.get(&(group.to_owned(), hash.short()));
        let is_wanted = self.wanted[group].0 == Some(hash);
        // Where agents that a commit moved cannot use what is stable, all others get it as before: those that come with nothing of another
        // group, and those that came by themselves.
        let has_failed_moved = |rollout: &RolloutRecord| {
            let agent = &world.agents[name];
            let held = agent.told_status().and_then(|state| state.known());
            let is_its = held.is_none_or(|held| stored.file.rollouts.stables.contains(&held));
            let is_its = is_its || self.came.contains(&agent.id);
            is_its && rollout.kind == Kind::Move && matches!(rollout.progress, Progress::Failed { .. })
        };
        let is_wanted = is_wanted && !stored.rollout().is_some_and(has_failed_moved);
        assert!(!is_wanted || tripped != Some(&epoch), "{group}: {name} is offered what tripped a gate");
        let Some(rollout) = stored.rollout().filter(|rollout| rollout.candidate == hash) else { return };
        let is_over = matches!(rollout.progress, Progress::Failed { .. } | Progress::RollingBack { .. });
        if is_over && stored.stable() == Some(hash) {
            return;
        }
        let members = self.members(world, group).count();
        let population = members.max(stored.file.rollouts.population).max(rollout.size);
        let (failed, allowed) = self.failures(group, rollout, population);
        assert!(
            failed <= allowed,
            "{group}: {name} is offered {}, which {failed} agents failed already, and {allowed} may",
            hash.short()
        );
        let its = (group.to_owned(), hash, rollout.started);
        self.tries.offered.insert(world.agents[name].id, (its, offer.connection));
    }

    /// A rollout is said to have succeeded: everybody who could has what it introduced, and somebody proves it.
    pub(crate) fn check_success(&mut self, world: &State, group: &str, short: &str) {
        let roster = world.controller.roster();
        let mut proofs = 0;
        for (name, agent) in self.members(world, group).filter(|(_, agent)| agent.is_eligible()) {
            let Some(member) = roster.agent(agent.id) else { continue };
            let state = agent.told_status().and_then(|state| state.known()).map(|hash| hash.short());
            let has_it = state.as_deref() == Some(short);
            proofs += usize::from(has_it);
            let is_pinned = self.pinned.get(name).is_some_and(|until| *until > world.now);
            // Who vanished with it failed it until now: that is forgiven with the success, and it is given what the others proved.
            let failure = self.files.get(group).and_then(|stored| stored.file.failures.get(&agent.id.to_string()));
            let has_vanished = failure.is_some_and(|failure| failure.is_absent && failure.hash.short() == short);
            // Who waits for an offer, or is offered none because the rollout or the whole group is held, was left behind.
            let is_excused = match member.verdict.standing {
                Standing::Failed => true,
                // What closes the group came with the success, or after it: the record of the next rollout, for example. Before that it
                // waited for a rollout to those whom a commit moved here, or tells another configuration than it was given (rule 2).
                Standing::Held(HeldReason::GroupClosed) => {
                    let given = agent.connection.and_then(|connection| self.put.get(&connection));
                    member.moved || given.is_some_and(|given| given.short() == short)
                }
                Standing::Held(HeldReason::RolloutHeld) => member.moved,
                Standing::Held(HeldReason::NothingForIt) => false,
                Standing::Held(_) => true,
                Standing::Unplaced
                | Standing::Pending
                | Standing::Offered
                | Standing::Confirmed
                | Standing::Away
                | Standing::Lost => has_vanished || !member.is_heard(),
            };
            assert!(
                has_it || is_pinned || is_excused,
                "{group}: {short} succeeded, and an agent has {state:?}: {:?}",
                member.verdict
            );
        }
        assert!(proofs > 0, "{group}: {short} succeeded, and nobody has it");
        self.proven.insert((group.to_owned(), short.to_owned()));
    }

    /// What stands for stable in the journal was proven by a whole rollout.
    pub(crate) fn check_stables(&self, group: &str, stored: &Stored) {
        for stable in &stored.file.rollouts.stables {
            let is_proven = self.proven.contains(&(group.to_owned(), stable.short()));
            assert!(is_proven, "{group}: {} became stable unproven", stable.short());
        }
    }
}
