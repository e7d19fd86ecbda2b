//! Another process begins with what the journal holds, and so does what must hold from then on.

use std::collections::BTreeSet;

use gitamp::agent::AgentId;
use gitamp::config::ConfigHash;
use gitamp::controller::Content;
use gitamp::fleet::GroupName;
use gitamp::rollout::record::Progress;

use crate::judge::{Accepted, Judge, Stored};
use crate::world::State;
use crate::world::agent::ModelAgent;
use crate::world::repository;

impl Judge {
    /// What was not stored is forgotten; what was has to hold on.
    pub(crate) fn recall(&mut self, world: &State) {
        self.read_files(world);
        self.accepted.clear();
        self.put.clear();
        self.coming = None;
        self.stored_at = [None; 2];
        (self.frozen, self.pinned) = Default::default();
        // Where the end of a rollout was not stored, it goes on.
        self.ended.clear();
        let files = &self.files;
        self.retried_agents.retain(|id, own| {
            own.received = world.agents.values().find(|agent| agent.id == *id).map_or(0, |agent| agent.received.len());
            files.get(&own.group).is_some_and(|stored| stored.file.to_retry.contains_key(&id.to_string()))
        });
        self.heard.clear();
        let files = &self.files;
        self.tripped.retain(|(group, _), _| files.contains_key(group));
        if let Some(Content::Fleet(file)) = world.files.get("fleet.yaml") {
            self.frozen.extend(file.frozen.as_ref().map(|_| String::new()));
            for (name, agent) in &world.agents {
                self.pinned.extend(file.pins.get(&agent.id.to_string()).map(|pin| (name.clone(), pin.until)));
            }
            let policy = file.policy.as_deref().map(repository::policy);
            self.fleet_budget = policy.and_then(|policy| policy.max_unavailable);
        }
        for (name, stored) in self.files.clone() {
            let rollouts = &stored.file.rollouts;
            let accepted = Accepted { definition: stored.definition.clone(), wanted: rollouts.wanted };
            self.accepted.insert(name.clone(), accepted);
            let stopped = stored
                .rollout()
                .filter(|rollout| matches!(rollout.progress, Progress::RollingBack { .. } | Progress::Failed { .. }));
            let stopped = stopped.map(|rollout| rollout.candidate.short());
            self.tripped.retain(|(group, short), _| *group != name || Some(short) == stopped.as_ref());
            let tried_again = stored.rollout().filter(|rollout| rollout.retry).map(|rollout| rollout.candidate);
            let is_told = |agent: &&ModelAgent| tried_again.is_none_or(|hash| !has_failed(&stored, agent.id, hash));
            match self.retried.get_mut(&name).filter(|_| tried_again.is_some()) {
                // Of whom the journal does not know that it failed once more it is not known whether it tried.
                Some(retry) => retry
                    .received
                    .extend(world.agents.values().filter(is_told).map(|agent| (agent.id, agent.received.len()))),
                None => {
                    self.retried.remove(&name);
                }
            }
            self.frozen.extend(rollouts.frozen.as_ref().map(|_| name.clone()));
            self.pinned.extend(rollouts.pinned.as_ref().map(|pin| (name.clone(), pin.until)));
            if let Some(restarted) = &mut self.restarted {
                let known = restarted.known.get(&GroupName::new(name.as_str())).map_or(0, BTreeSet::len);
                let unrecorded = known.saturating_sub(rollouts.reach);
                restarted.unrecorded.insert(GroupName::new(name.as_str()), unrecorded);
                restarted.population.insert(name.clone(), rollouts.population);
            }
        }
        self.tries.restart(&self.files);
        let files = &self.files;
        // What is not stored this process learns from the agent, unless that loses its disk before it is heard.
        self.failed
            .retain(|(id, hash), (group, _)| files.get(group).is_some_and(|stored| has_failed(stored, *id, *hash)));
    }
}

/// True when the journal holds that the agent failed this.
fn has_failed(stored: &Stored, id: AgentId, hash: ConfigHash) -> bool {
    stored.file.failures.get(&id.to_string()).is_some_and(|failure| failure.hash == hash)
}
