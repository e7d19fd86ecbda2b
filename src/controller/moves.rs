//! Agents that a commit moves from one group to another, those among them that were not here at that time included.
//!
//! Who is here is known by its labels, and moved when the commit is taken. Who is not, or whom a process before this one knew, comes back with
//! what its former group gave it; who belonged where before is told by the definitions that commits replaced, commit by commit. Those
//! of each are kept for a week, in the journal as well.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::controller::Controller;
use crate::controller::record::{BelongingFile, EarlierFile, GenerationFile, GenerationsFile, RecordError};
use crate::controller::stages::Pair;
use crate::fleet::assign::Assigner;
use crate::fleet::generations::{Generations, Replaced};
use crate::fleet::{GroupDefinition, GroupName};
use crate::rollout::machine::Effect;
use crate::time::Timestamp;

/// What a commit replaced is remembered for so long. Who is away for longer is new.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3600);

/// Commits of which is remembered what they replaced. With more, the oldest is forgotten, and that is said.
const MOST_GENERATIONS: usize = 200;

/// Definitions that are remembered over all of these commits, which bounds what the journal writes; those of the newest in any case.
const MOST_DEFINITIONS: usize = 1_000;

/// What one commit replaced.
#[derive(Clone, Debug)]
struct Generation {
    /// When.
    since: Timestamp,
    replaced: Replaced,
}

/// Who belonged where before commits changed that.
#[derive(Debug, Default)]
pub(super) struct Earlier {
    /// The oldest first.
    generations: VecDeque<Generation>,
    /// When the newest commit was taken whose generation had to be forgotten before its time.
    evicted: Option<Timestamp>,
}

/// True when both select the same agents, as far as they say so.
pub(super) fn select_the_same(one: &GroupDefinition, other: &GroupDefinition) -> bool {
    std::ptr::eq(one, other)
        || (&one.selector, one.priority, &one.variant_of) == (&other.selector, other.priority, &other.variant_of)
}

impl Earlier {
    /// What the journal keeps of it; `None`: nothing.
    pub(super) fn file(&self) -> Option<GenerationsFile> {
        let belonging = |definition: &Option<Arc<GroupDefinition>>| definition.as_deref().map(BelongingFile::from);
        let generation = |one: &Generation| GenerationFile {
            since: one.since,
            groups: one.replaced.iter().map(|(name, definition)| (name.to_string(), belonging(definition))).collect(),
        };
        let is_empty = self.generations.is_empty() && self.evicted.is_none();
        let generations = self.generations.iter().map(generation).collect();
        (!is_empty).then_some(GenerationsFile { evicted: self.evicted, generations })
    }

    /// What the journal kept. `before`: the form of earlier releases, in which all of it was one generation.
    ///
    /// # Errors
    /// When a value in it makes no sense.
    pub(super) fn read(file: Option<GenerationsFile>, before: Option<EarlierFile>) -> Result<Self, RecordError> {
        let older = before.map(|EarlierFile { since, groups }| GenerationFile { since, groups });
        let (evicted, files) = file.map_or((None, Vec::new()), |file| (file.evicted, file.generations));
        let mut generations = VecDeque::new();
        for GenerationFile { since, groups } in older.into_iter().chain(files) {
            let mut replaced = Replaced::new();
            for (name, belonging) in groups {
                let definition = belonging.map(GroupDefinition::try_from).transpose()?;
                replaced.insert(GroupName::new(name), definition.map(Arc::new));
            }
            generations.push_back(Generation { since, replaced });
        }
        Ok(Self { generations, evicted })
    }

    /// Forgets what is too old to matter; true when there was something.
    fn expire(&mut self, now: Timestamp) -> bool {
        let is_over = |since: Timestamp| now.since(since) > REMEMBERED;
        let before = self.generations.len();
        while self.generations.front().is_some_and(|oldest| is_over(oldest.since)) {
            self.generations.pop_front();
        }
        self.evicted.take_if(|since| is_over(*since)).is_some() || self.generations.len() < before
    }

    /// Forgets the oldest until the rest is little enough; the newest stays. Returns how many were forgotten.
    fn evict(&mut self) -> usize {
        let mut definitions: usize = self.generations.iter().map(|one| one.replaced.len()).sum();
        let mut forgotten = 0;
        while self.generations.len() > 1
            && (self.generations.len() > MOST_GENERATIONS || definitions > MOST_DEFINITIONS)
        {
            let Some(oldest) = self.generations.pop_front() else { break };
            definitions -= oldest.replaced.len();
            self.evicted = Some(oldest.since);
            forgotten += 1;
        }
        forgotten
    }

    /// What is missing before its time, for the status; `None`: nothing is.
    pub(super) fn forgotten(&self) -> Option<String> {
        let evicted = self.evicted?;
        Some(format!(
            "more than {MOST_GENERATIONS} commits, or commits of more than {MOST_DEFINITIONS} groups, changed within a week whom groups \
             select: who belonged where before {evicted} is forgotten, and an agent that has been away since then joins its group as a \
             newcomer, without stages"
        ))
    }
}

impl Controller {
    /// A commit replaced these definitions, those of other agents than now: who was not here belongs where they say until it is back.
    pub(super) fn remember_belonging(&mut self, replaced: Replaced, now: Timestamp) {
        let has_expired = self.earlier.expire(now);
        if replaced.is_empty() && !has_expired {
            return;
        }
        if !replaced.is_empty() {
            self.earlier.generations.push_back(Generation { since: now, replaced });
        }
        let known = self.earlier.evicted.is_some();
        if self.earlier.evict() > 0
            && !known
            && let Some(sentence) = self.earlier.forgotten()
        {
            self.notice(None, true, sentence);
        }
        self.recall_belonging();
    }

    /// What was replaced too long ago is forgotten, also when no commit comes.
    pub(super) fn expire_belonging(&mut self, now: Timestamp) {
        if self.earlier.expire(now) {
            self.recall_belonging();
        }
    }

    /// Tells the roster who belonged where before.
    pub(super) fn recall_belonging(&mut self) {
        let replaced: Vec<&Replaced> = self.earlier.generations.iter().map(|one| &one.replaced).collect();
        let current = self.groups.iter().map(|(name, state)| (name, &*state.definition));
        let generations =
            if replaced.is_empty() { Generations::default() } else { Generations::new(&replaced, current) };
        self.roster.set_earlier(generations);
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

    /// How many agents the revision moves between groups, and the groups that receive them. `pairs`: all of both sides.
    pub(super) fn moved_by(&self, pairs: &[Pair<'_>]) -> (usize, BTreeSet<GroupName>) {
        fn new<'p>(pair: &Pair<'p>) -> Option<&'p Arc<GroupDefinition>> {
            pair.group.and_then(|group| group.definition.as_ref())
        }
        let is_same = |pair: &Pair<'_>| {
            let both = pair.state.zip(new(pair));
            both.is_some_and(|(state, new)| select_the_same(&state.definition, new))
        };
        if pairs.iter().all(is_same) {
            return (0, BTreeSet::new());
        }
        // A group that is broken keeps what it had, one that is gone does not.
        let definition = |pair: &Pair<'_>| {
            let kept = pair.state.filter(|_| pair.group.is_some()).map(|state| &state.definition);
            new(pair).or(kept).cloned()
        };
        let definitions: Vec<_> = pairs.iter().filter_map(|pair| Some((pair.name, definition(pair)?))).collect();
        self.roster.moves(&Assigner::new(definitions.iter().map(|(name, definition)| (*name, &**definition))))
    }
}
