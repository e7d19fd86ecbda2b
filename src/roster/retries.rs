//! Another try for one agent that failed what its group has: the rollout went on without it, and a person repaired it since.

use crate::agent::{AgentId, ConfigStatus};
use crate::config::ConfigHash;
use crate::rollout::Closed;
use crate::roster::Roster;
use crate::time::Timestamp;

impl Roster {
    /// What the agent would be offered once more.
    ///
    /// # Errors
    /// When there is nothing that it could be, as a sentence that says what to do instead.
    pub fn retryable(&self, id: AgentId) -> Result<ConfigHash, &'static str> {
        let member = self.agents.get(&id).ok_or("no agent with this id is known; `gitamp agents` lists them")?;
        let group = member.placement.group().and_then(|name| self.groups.get(name));
        let group = group.ok_or("the agent is in no group, and nothing is given to it")?;
        let failure = group.failures.get(&id).ok_or("the agent has not failed: there is nothing to try again")?;
        let is_stuck = group.desired.closed == Some(Closed::RolloutFailed);
        if is_stuck || group.desired_for(id, member) != Some(failure.hash) {
            return Err("its group does not give that to anybody now: `gitamp retry GROUP` tries a rollout again");
        }
        let has_it = member.state().is_some_and(|state| {
            state.known() == Some(failure.hash) && state.status == ConfigStatus::Applied && member.is_connected()
        });
        if has_it && (member.is_ill() || group.runs_something_else(failure.hash, member)) {
            return Err(
                "the agent has it already, and is not well with it: nothing would be offered; `gitamp restart AGENT` restarts it",
            );
        }
        Ok(failure.hash)
    }

    /// What the agent failed is forgiven: it is offered once more when there is room, or counts as confirmed if it is well by now.
    pub fn retry(&mut self, id: AgentId, now: Timestamp) {
        let Ok(hash) = self.retryable(id) else { return };
        self.uncount(id);
        let Some(member) = self.agents.get_mut(&id) else { return };
        if let Some(group) = member.placement.group().and_then(|name| self.groups.get_mut(name)) {
            group.forgive(id);
        }
        member.forgive(hash);
        self.judge(id, now);
        self.dispatch_later(id);
    }
}
