//! What agents tell of what a group gave them that they have left since: it counts there, and nowhere else.

use crate::agent::{AgentId, ConfigStatus};
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
        let Some(offer) = state.known().and_then(|hash| member.offered_elsewhere(hash)) else { return };
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
            let at = if counts { now } else { failure.at };
            group.remember(id, member.labels.as_ref(), Failure { at, ..failure.clone() });
            self.changed.insert(name.clone());
        }
    }
}
