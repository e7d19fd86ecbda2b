//! Another try for one agent that failed what its group has: the rollout went on without it, and a person repaired it since.

use std::collections::BTreeMap;

use crate::agent::{AgentId, ConfigStatus};
use crate::config::ConfigHash;
use crate::fleet::GroupName;
use crate::rollout::Closed;
use crate::roster::Roster;
use crate::roster::member::{Member, Offer};
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
        let is_given =
            group.desired.candidate == Some(failure.hash) || group.desired_for(id, member) == Some(failure.hash);
        if is_stuck || !is_given {
            return Err("its group does not give that to anybody now: `gitamp retry GROUP` tries a rollout again");
        }
        if has(member, failure.hash) && (member.is_ill() || group.runs_something_else(failure.hash, member)) {
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
            if !has(member, hash) {
                group.to_retry.insert(id, hash);
            }
        }
        member.forgive(hash);
        self.judge(id, now);
        self.dispatch_later(id);
    }

    /// A group's agents that were to try once more what they failed when the process before this one ended: each does once it is back. Whoever
    /// tried and failed just before that may be told once more than a person asked; nobody is told less.
    pub fn restore_retries(&mut self, name: &GroupName, ids: BTreeMap<AgentId, ConfigHash>) {
        self.groups.entry(name.clone()).or_default().to_retry = ids;
    }

    /// An agent tells of its configuration: whether it still has to be offered what a person wants it to try once more. What it says of the time
    /// before is no answer to that.
    pub(super) fn recall_retry(&mut self, id: AgentId) {
        let Some(member) = self.agents.get_mut(&id) else { return };
        let Some(group) = member.placement.group().and_then(|name| self.groups.get_mut(name)) else { return };
        let Some(hash) = group.to_retry.get(&id).copied() else { return };
        let is_told = |offer: &Offer| offer.hash == hash && offer.answered && offer.connection.is_some();
        let has_tried = member.offer.as_ref().is_some_and(is_told);
        let has_failed = member.says_it_failed(hash);
        if has_tried || !has_failed && member.state().is_some_and(|state| state.is_about(hash)) {
            group.end_retry(id, hash);
        } else if has_failed && member.retried != Some(hash) {
            member.forgive(hash);
        }
    }
}

/// True when it runs this.
fn has(member: &Member, hash: ConfigHash) -> bool {
    let is_applied = member.state().is_some_and(|state| state.is_about(hash) && state.status == ConfigStatus::Applied);
    member.is_connected() && is_applied
}
