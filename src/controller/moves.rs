//! Agents that a commit moves from one group to another, those among them that were not here at that time included.
//!
//! Who is here is known by its labels, and moved when the commit is taken. Who is not, or whom a process before this one knew, comes back with
//! what its former group gave it; who belonged where before is told by the definitions that commits replaced. They are kept for a
//! week, in the journal as well.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::controller::Controller;
use crate::controller::record::{BelongingFile, EarlierFile, RecordError};
use crate::fleet::assign::Assigner;
use crate::fleet::{GroupDefinition, GroupName, RenderedFleet};
use crate::rollout::machine::Effect;
use crate::time::Timestamp;

/// Definitions that commits replaced are remembered for so long after the last such commit. Who is away for longer is new.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3600);

/// Groups whose definitions of before are remembered. With more, only what the newest commit replaced is.
const MOST_REMEMBERED: usize = 1_000;

/// Who belonged where, as far as commits changed that.
#[derive(Debug, Default)]
pub(super) struct Earlier {
    /// When a commit last did.
    since: Timestamp,
    /// What such groups said before; `None`: they were not there.
    groups: BTreeMap<GroupName, Option<Arc<GroupDefinition>>>,
}

/// True when both select the same agents, as far as they say so.
pub(super) fn select_the_same(one: &GroupDefinition, other: &GroupDefinition) -> bool {
    (&one.selector, one.priority, &one.variant_of) == (&other.selector, other.priority, &other.variant_of)
}

impl Earlier {
    /// What the journal keeps of it; `None`: nothing.
    pub(super) fn file(&self) -> Option<EarlierFile> {
        let belonging = |definition: &Option<Arc<GroupDefinition>>| definition.as_deref().map(BelongingFile::from);
        let groups = self.groups.iter().map(|(name, definition)| (name.to_string(), belonging(definition)));
        (!self.groups.is_empty()).then(|| EarlierFile { since: self.since, groups: groups.collect() })
    }

    /// What the journal kept.
    ///
    /// # Errors
    /// When a value in it makes no sense.
    pub(super) fn read(file: EarlierFile) -> Result<Self, RecordError> {
        let mut groups = BTreeMap::new();
        for (name, belonging) in file.groups {
            let definition = belonging.map(GroupDefinition::try_from).transpose()?;
            groups.insert(GroupName::new(name), definition.map(Arc::new));
        }
        Ok(Self { since: file.since, groups })
    }
}

impl Controller {
    /// The definitions as they are, to be compared with those that a commit brings.
    pub(super) fn definitions(&self) -> BTreeMap<GroupName, Arc<GroupDefinition>> {
        self.groups.iter().map(|(name, state)| (name.clone(), state.definition.clone())).collect()
    }

    /// A commit replaced these definitions: who was not here belongs where they say until it is back.
    pub(super) fn remember_belonging(&mut self, before: &BTreeMap<GroupName, Arc<GroupDefinition>>, now: Timestamp) {
        // Nobody belonged anywhere before the first commit.
        if before.is_empty() {
            return;
        }
        let mut replaced = BTreeMap::new();
        for name in before.keys().chain(self.groups.keys()) {
            let (old, new) = (before.get(name), self.groups.get(name).map(|state| &state.definition));
            if !old.zip(new).is_some_and(|(old, new)| select_the_same(old, new)) {
                replaced.insert(name.clone(), old.cloned());
            }
        }
        let is_over = now.since(self.earlier.since) > REMEMBERED;
        if replaced.is_empty() && (!is_over || self.earlier.groups.is_empty()) {
            return;
        }
        let mut groups = std::mem::take(&mut self.earlier.groups);
        if is_over || groups.len() + replaced.len() > MOST_REMEMBERED {
            groups.clear();
        }
        for (name, definition) in replaced {
            // Who was away for several commits belongs where the first of them found it.
            groups.entry(name).or_insert(definition);
        }
        (self.earlier.groups, self.earlier.since) = (groups, now);
        self.recall_belonging();
    }

    /// Tells the roster who belonged where before.
    pub(super) fn recall_belonging(&mut self) {
        let earlier = &self.earlier.groups;
        let unchanged = self.groups.iter().filter(|(name, _)| !earlier.contains_key(*name));
        let unchanged = unchanged.map(|(name, state)| (name, &*state.definition));
        let replaced = earlier.iter().filter_map(|(name, definition)| Some((name, definition.as_deref()?)));
        let assigner = (!earlier.is_empty()).then(|| Assigner::new(unchanged.chain(replaced)));
        self.roster.set_earlier(assigner);
    }

    /// Agents are here that a commit moved to this group, and that its rollouts did not reach, because they were away or it went back
    /// to something: what is stable goes to them with all stages.
    pub(super) fn receive_moved(&mut self, name: &GroupName, now: Timestamp) {
        let Some(state) = self.groups.get_mut(name).filter(|state| state.machine.strands(now)) else { return };
        let revision = state.revision.clone();
        let Some(stable) = state.machine.stable() else { return };
        state.machine.receive(&revision, now);
        self.notice(Some(name), false, "takes in agents that a commit moved here".to_owned());
        let part = self.entry(name, stable, Effect::Started, now);
        // Its note tells of it, as long as it is known and is what the group follows; the status does in any case.
        let followed = self.accepted.as_ref().filter(|accepted| accepted.revision() == revision);
        if let (Some(part), Some(accepted)) = (part, followed) {
            self.commits.join(accepted.id, name, part);
        }
    }

    /// How many agents the revision moves between groups, and the groups that receive them.
    pub(super) fn moved_by(&self, fleet: &RenderedFleet) -> (usize, BTreeSet<GroupName>) {
        let definition = |name: &GroupName| fleet.groups.get(name).and_then(|group| group.definition.as_ref());
        let is_same = |name: &GroupName| {
            let both = self.groups.get(name).zip(definition(name));
            both.is_some_and(|(state, new)| select_the_same(&state.definition, new))
        };
        if self.groups.len() == fleet.groups.len() && self.groups.keys().all(is_same) {
            return (0, BTreeSet::new());
        }
        let kept =
            self.groups.iter().filter(|(name, _)| fleet.groups.contains_key(*name) && definition(name).is_none());
        let kept = kept.map(|(name, state)| (name, &*state.definition));
        let new = fleet.groups.iter().filter_map(|(name, group)| Some((name, group.definition.as_deref()?)));
        self.roster.moves(&Assigner::new(kept.chain(new)))
    }
}
