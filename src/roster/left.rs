//! Failures that agents tell and that nobody asked for: of what a group gave them that they have left since, which counts there and nowhere
//! else, and of what their own group has not given them yet, which counts when their stage comes.

use crate::agent::{AgentId, ConfigStatus};
use crate::rollout::MOST_REMEMBERED;
use crate::roster::Roster;
use crate::roster::group::Failure;
use crate::roster::standing::{failure_message, is_bare_timeout};
use crate::time::Timestamp;

impl Roster {
    /// An agent says that it failed what another group than its own gave it. The group that gave it has one failure more, as if the agent
    /// were still there; the one that it belongs to now only remembers not to offer it the same.
    ///
    /// Only what agents say counts so: of who is silent, or timed out and may yet turn out to be well, the group that it left expects
    /// nothing any more.
    pub(super) fn attribute_failure(&mut self, id: AgentId, now: Timestamp) {
        let Some(member) = self.agents.get(&id) else { return };
        let Some(state) = member.state().filter(|state| state.status == ConfigStatus::Failed) else { return };
        let Some(offer) = state.known().and_then(|hash| member.offered_elsewhere(hash)) else {
            return self.remember_beside(id);
        };
        let failure = Failure::new(offer.hash, failure_message(state));
        if is_bare_timeout(&failure.message) {
            return;
        }
        for name in [offer.group.as_ref(), member.placement.group()].into_iter().flatten() {
            let Some(group) = self.groups.get_mut(name) else { continue };
            let desired = &group.desired;
            if group.has_failed(id, offer.hash) || ![desired.candidate, desired.wanted].contains(&Some(offer.hash)) {
                continue;
            }
            let is_its = offer.group.as_ref() == Some(name) && desired.since.is_none_or(|since| offer.made >= since);
            let counts = is_its && group.judges(offer.hash, Some(offer));
            if !counts && group.failures.len() >= MOST_REMEMBERED {
                continue;
            }
            let at = if counts { now } else { failure.at };
            group.remember(id, member.labels.as_ref(), Failure { at, ..failure.clone() });
            self.changed.insert(name.clone());
        }
    }

    /// An agent says that it failed what its group rolls out, and its stage has not come: long ago, for example, or by what a process before
    /// this one gave it. That is remembered while it says so, because an agent that loses its disk says it no more; and it counts once the
    /// stage has come.
    fn remember_beside(&mut self, id: AgentId) {
        let Some(member) = self.agents.get(&id) else { return };
        let Some(group) = member.placement.group().and_then(|name| self.groups.get_mut(name)) else { return };
        let Some((hash, state)) = member.state().and_then(|state| Some((state.known()?, state))) else { return };
        let desired = &group.desired;
        let is_asked_again = desired.retry && desired.candidate == Some(hash)
            || member.retried == Some(hash)
            || group.to_retry.get(&id) == Some(&hash);
        let is_its = [desired.candidate, desired.wanted].contains(&Some(hash));
        let failure = Failure::new(hash, failure_message(state));
        if is_its
            && !is_asked_again
            && group.failures.len() < MOST_REMEMBERED
            && !group.has_failed(id, hash)
            // Of those who hold what is held back just now it counts at once.
            && !group.holds_kept(id, member)
            && group.desired_for(id, member) != Some(hash)
            && !is_bare_timeout(&failure.message)
        {
            group.remember(id, member.labels.as_ref(), failure.before_its_stage());
        }
    }
}
