//! How many agents are unavailable at once, in truth: who was given something and is in the middle of it, whatever the product thinks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gitamp::agent::{AgentId, ConfigStatus};
use gitamp::fleet::GroupName;
use gitamp::fleet::strategy::Strategy;
use gitamp::roster::restarts::RESTART_TAKES;
use gitamp::roster::standing::Standing;
use gitamp::time::Timestamp;

use crate::judge::Judge;
use crate::world::State;
use crate::world::agent::ModelAgent;

/// The longest `progressDeadline` of any group.
const LONGEST_DEADLINE: Duration = Duration::from_secs(600);

/// What was known when a process took over from another one.
pub(crate) struct Restarted {
    pub(crate) took_over: Timestamp,
    /// The same, moved on by the time that the process stood still since.
    pub(crate) at: Timestamp,
    /// The members that the one before knew in each group.
    pub(crate) known: BTreeMap<GroupName, BTreeSet<AgentId>>,
    /// How many agents each group had by the record.
    pub(crate) population: BTreeMap<String, usize>,
    /// Members that came too late for the last record: it is only on its way while they are there.
    pub(crate) unrecorded: BTreeMap<GroupName, usize>,
    /// True when a commit changed who belongs where since then.
    pub(crate) is_shaken: bool,
}

/// Who takes room now, and of how many.
#[derive(Debug, Default)]
struct Load<'a> {
    eligible: usize,
    unavailable: Vec<&'a str>,
}

impl Judge {
    /// After a restart a newcomer may be taken for one who is back, as long as the room of the earlier process is counted: what the
    /// journal knows of single agents does not tell them apart.
    fn newcomers(&self, world: &State, group: &str, strategy: &Strategy) -> usize {
        let Some(restarted) = &self.restarted else { return 0 };
        let name = GroupName::new(group);
        let is_assumed = world.now < restarted.at + strategy.progress_deadline;
        let is_first = self.files.get(group).is_some_and(|stored| stored.file.rollouts.stables.is_empty());
        if is_first && is_assumed {
            // Before anything is stable nothing that agents hold tells newcomers from those who are back.
            return world.agents.len();
        }
        if restarted.is_shaken {
            // Who belonged to which group then is known to nobody after a commit that changed it before everybody was back.
            return usize::from(world.now < restarted.at + LONGEST_DEADLINE) * world.agents.len();
        }
        let is_new = |id: &&AgentId| restarted.known.get(&name).is_none_or(|members| !members.contains(id));
        let unrecorded = restarted.unrecorded.get(&name).copied().unwrap_or(0);
        let now = world.controller.roster().group(&name).filter(|_| is_assumed);
        now.map_or(0, |group| group.members.iter().filter(is_new).count() + unrecorded)
    }

    /// True when the agent is in the middle of something, or known to be ill, and did not fail what it was given; or when it restarts.
    fn is_unavailable(&self, world: &State, agent: &ModelAgent, group: &str, deadline: Duration) -> bool {
        let is_busy = agent.given.is_some_and(|given| !agent.said_goodbye && given.at + deadline > world.now);
        let is_restarting =
            agent.connection.is_some() && agent.restarted.is_some_and(|at| at + RESTART_TAKES > world.now);
        let roster = world.controller.roster();
        // Whoever was forgotten meanwhile has to tell again.
        let is_remembered = || roster.agent(agent.id).is_some_and(|member| member.health.is_some());
        let is_ill = agent.is_eligible() && agent.told_ill() && is_remembered();
        // Failures count against maxFailures instead. One of what is stable, beside a rollout, is none that is remembered.
        let has_failed = || {
            roster.group(&GroupName::new(group)).is_some_and(|group| group.failures.contains_key(&agent.id))
                || roster.agent(agent.id).is_some_and(|member| member.verdict.standing == Standing::Failed)
        };
        (is_busy || is_ill) && !has_failed() || is_restarting && agent.is_eligible()
    }

    /// True when an agent that was told to restart then counts as restarting once more, because a process took over meanwhile: what the
    /// journal knows of when that was is when it was stored.
    fn may_restart(&self, world: &State, told: Timestamp) -> bool {
        self.restarted.as_ref().is_some_and(|restarted| {
            let is_recent = restarted.took_over < told + RESTART_TAKES + RESTART_TAKES;
            is_recent && world.now < restarted.took_over + RESTART_TAKES
        })
    }

    /// Truth against the budget of the group, and of the fleet. True when it was judged to the agent: nobody may have been taken for one
    /// who is back after a restart.
    pub(crate) fn check_budget(&self, world: &State, target: &str, group: &str, strategy: &Strategy) -> bool {
        let agent = &world.agents[target];
        let is_counted = agent.counted.is_some_and(|(_, since)| since + strategy.progress_deadline > world.now);
        let is_applying = agent.told_status().is_some_and(|state| state.status == ConfigStatus::Applying);
        let is_restarting =
            agent.restarted.is_some_and(|at| at + RESTART_TAKES > world.now || self.may_restart(world, at));
        if is_counted || is_applying || is_restarting || agent.given.is_some() || agent.told_ill() {
            // It takes no room that is not taken already.
            return true;
        }
        let (mut own, mut fleet) = (Load::default(), Load::default());
        for (name, agent) in &world.agents {
            let Some(home) = self.home_of(agent) else { continue };
            let deadline = self.accepted[home].definition.strategy.progress_deadline;
            let is_eligible = agent.is_eligible();
            let is_unavailable = name != target && self.is_unavailable(world, agent, home, deadline);
            for load in std::iter::once(&mut fleet).chain((home == group).then_some(&mut own)) {
                load.eligible += usize::from(is_eligible);
                load.unavailable.extend(is_unavailable.then_some(name.as_str()));
            }
        }
        if let Some(amount) = self.fleet_budget {
            let groups = || self.accepted.iter().map(|(name, group)| (name, &group.definition.strategy));
            let slack: usize = groups().map(|(name, strategy)| self.newcomers(world, name, strategy)).sum();
            let (busy, limit) = (fleet.unavailable.len(), amount.round_down(fleet.eligible).max(1) + slack);
            assert!(
                busy < limit,
                "{target} is one too many in the fleet: {busy} are unavailable, {limit} of {} may be",
                fleet.eligible
            );
        }
        let newcomers = self.newcomers(world, group, strategy);
        let limit = strategy.max_unavailable.round_down(own.eligible).max(1) + newcomers;
        assert!(
            own.unavailable.len() < limit,
            "{group}: {target} is one too many: {:?} are unavailable, {limit} of {} may be",
            own.unavailable,
            own.eligible
        );
        newcomers == 0
    }
}
