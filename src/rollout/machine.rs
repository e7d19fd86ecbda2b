//! The rollout of one group as a state machine: what the repository wants goes in with [`Machine::plan`], what the agents do with
//! [`Machine::observe`], the passing of time with [`Machine::handle_timeout`]; out come [`Machine::desired`], endings, reasons
//! for waiting, and the record that has to be stored before offers may leave.
//!
//! The caller stores [`Machine::record`] whenever [`Machine::take_unstored`] says so, and hands a new [`Machine::desired`] to the
//! roster only once that is done.

use std::time::Duration;

use crate::config::ConfigHash;
use crate::fleet::strategy::{Expect, OnNewCommit, Strategy};
use crate::rollout::cohort::{Cohort, Draw};
use crate::rollout::record::{Earlier, GroupRecord, Kind, Progress, Promoted, RolloutRecord, Said, WayBack};
use crate::rollout::{Closed, Desired, Tally, budget, orders};
use crate::time::Timestamp;

/// Stable configurations that are retained, the current one included.
const STABLES: usize = 3;

/// How often a configuration became stable before, as far as that is remembered: for those who go back to what was at some time.
const EARLIER: usize = 8;

/// Superseded candidates that are remembered, newest first. Whoever still holds an older one is a case of drift.
const SUPERSEDED: usize = 16;

/// How long after a rollout for agents that a commit moved here those which it left behind get another one.
const LEFT_BEHIND: Duration = Duration::from_secs(3600);

/// What the repository says of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The hash that the newest accepted revision renders.
    pub wanted: ConfigHash,
    /// How changes arrive, and what holds them back.
    pub rules: Rules,
    /// True when the revision moved agents of other groups here.
    pub moved_in: bool,
    /// The revision.
    pub revision: String,
    /// The commit wants its rollout held until a person says more (`Gitamp-Rollout: hold`).
    pub hold: Option<Said>,
    /// The commit wants one stage of everybody without a watch, and may (`Gitamp-Rollout: fast`).
    pub fast: bool,
}

/// How changes of a group arrive, and what holds them back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The checked `rollout:`.
    pub strategy: Strategy,
    /// `suspend: true` here or above.
    pub suspend: bool,
    /// How many agents should match.
    pub expect: Option<Expect>,
}

/// What a [`Plan`] led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The group has it already, nothing is to be done.
    Nothing,
    /// A rollout started.
    Started,
    /// The running rollout introduces just this.
    Joined,
    /// This very configuration failed here; it is not tried again by itself.
    FailedBefore,
    /// The running rollout goes first (`onNewCommit: finish`): plan it again when that has ended.
    Waits,
}

/// How a rollout ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its candidate is stable now.
    Succeeded,
    /// It stopped.
    Failed,
    /// It stopped, and its agents are on their way back to stable: no end yet.
    RollingBack,
    /// It stopped, and its agents are back on stable.
    RolledBack,
    /// Another candidate took its place.
    Superseded,
}

/// A rollout that came to an end, with the agents as they were just before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// What it introduced.
    pub candidate: ConfigHash,
    /// How it ended.
    pub outcome: Outcome,
    /// The agents at that moment.
    pub tally: Tally,
}

/// The rollout of one group.
#[derive(Clone, Debug)]
pub struct Machine {
    pub(super) rules: Rules,
    observe: bool,
    pub(super) record: GroupRecord,
    pub(super) tally: Tally,
    /// When this process took the group over, and the agents it then had, as far as they are still expected; `None` for a group that this
    /// process saw first.
    pub(super) restarted: Option<usize>,
    pub(super) since: Timestamp,
    pub(super) forget_after: Duration,
    /// True while the record in memory allows more than the stored one does.
    pub(super) unstored: bool,
    /// True while the record differs in what may be stored later.
    pub(super) outdated: bool,
    /// When watched time was last added.
    pub(super) watching_since: Option<Timestamp>,
    /// The groups that have to finish the same revision first, and have not; with the reason.
    pub(super) prerequisites: Vec<String>,
    /// The whole fleet is frozen.
    pub(super) fleet_frozen: Option<Said>,
    /// True while the next stage's agents are to be drawn.
    pub(super) wants_draw: Option<Draw>,
    pub(super) finished: Vec<Finished>,
    successes: u64,
    /// How many agents that a commit moved here the last rollout for such did not reach either (pinned ones, for example), and when.
    left_behind: Option<(usize, Timestamp)>,
}

impl Machine {
    /// A group that nothing is known of yet.
    pub fn new(observe: bool, forget_after: Duration, now: Timestamp) -> Self {
        Self {
            rules: Rules::default(),
            observe,
            record: GroupRecord::default(),
            tally: Tally::default(),
            restarted: None,
            since: now,
            forget_after,
            unstored: false,
            outdated: false,
            watching_since: None,
            prerequisites: Vec::new(),
            fleet_frozen: None,
            wants_draw: None,
            finished: Vec::new(),
            successes: 0,
            left_behind: None,
        }
    }

    /// A group that goes on where the journal says it was. Watched time stands still until agents are back.
    pub fn restore(record: GroupRecord, rules: Rules, observe: bool, forget_after: Duration, now: Timestamp) -> Self {
        let restarted = Some(record.population);
        Self { rules, record, restarted, ..Self::new(observe, forget_after, now) }
    }

    /// What must be remembered.
    pub fn record(&self) -> &GroupRecord {
        &self.record
    }

    /// How changes arrive.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The agents as last counted.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The configuration that last finished a whole rollout.
    pub fn stable(&self) -> Option<ConfigHash> {
        self.record.stables.first().copied()
    }

    /// When that became stable.
    fn stable_since(&self) -> Option<Timestamp> {
        let promoted = self.stable().and_then(|stable| self.record.promoted.get(&stable));
        promoted.map(|promoted| promoted.at.unwrap_or(promoted.started))
    }

    /// The agents that the next stage asks for, once when they are to be drawn; then call [`Machine::open`].
    pub fn take_draw(&mut self) -> Option<Draw> {
        self.wants_draw.take()
    }

    /// Which of `dependsOn` have not finished yet, in words; true when that changed.
    pub fn set_prerequisites(&mut self, unfinished: Vec<String>) -> bool {
        let is_news = self.prerequisites != unfinished;
        self.prerequisites = unfinished;
        is_news
    }

    /// The whole fleet is frozen, or no longer.
    pub fn set_fleet_frozen(&mut self, said: Option<Said>) {
        self.fleet_frozen = said;
    }

    /// The rollout that runs or failed.
    pub fn rollout(&self) -> Option<&RolloutRecord> {
        self.record.rollout.as_ref()
    }

    /// True when the group runs this for good and the repository wanted it before: to plan it once more under the same rules, without
    /// agents that moved in, has no effect.
    pub fn is_settled_on(&self, hash: ConfigHash) -> bool {
        self.record.rollout.is_none()
            && self.record.undone.is_none()
            && self.record.wanted == Some(hash)
            && self.stable() == Some(hash)
    }

    /// True when the rollout runs, or its agents are on their way back: it exists and has not failed.
    pub fn is_running(&self) -> bool {
        self.rollout().is_some_and(|rollout| !is_failed(rollout))
    }

    /// True when a rollout that began since introduces something.
    pub fn introduced_since(&self, since: Timestamp) -> bool {
        let runs = |rollout: &RolloutRecord| {
            !is_stopped(rollout) && rollout.started >= since && Some(rollout.candidate) != self.stable()
        };
        self.rollout().is_some_and(runs)
    }

    /// True when nothing of this revision is on its way here any more: what is stable stays, also where agents that an earlier revision
    /// moved here could not use it.
    pub fn has_finished(&self, revision: &str) -> bool {
        self.rollout().is_none_or(|rollout| self.is_failed_move(rollout) && rollout.revision != revision)
    }

    /// True when agents that were moved here could not use what is stable for all others.
    pub fn has_failed_move(&self) -> bool {
        self.rollout().is_some_and(|rollout| self.is_failed_move(rollout))
    }

    /// The same of this rollout.
    fn is_failed_move(&self, rollout: &RolloutRecord) -> bool {
        let is_stable = self.stable() == Some(rollout.candidate);
        rollout.kind == Kind::Move && way_back(rollout) == Some(WayBack::None) && is_stable
    }

    /// True when a rollout stopped and its agents are back on stable.
    pub fn is_rolled_back(&self) -> bool {
        matches!(self.rollout().and_then(way_back), Some(WayBack::Done { .. }))
    }

    /// What is taken back, or was as far as agents could use stable; `None`: no such thing was tried.
    pub fn taken_back(&self) -> Option<&RolloutRecord> {
        let is_it = |rollout: &&RolloutRecord| is_stopped(rollout) && way_back(rollout) != Some(WayBack::None);
        self.rollout().filter(is_it)
    }

    /// True while the rollout introduces its candidate.
    pub(super) fn is_introducing(&self) -> bool {
        self.rollout().is_some_and(|rollout| !is_stopped(rollout))
    }

    /// True when the repository says something that no agent has ever been there to prove.
    pub fn is_unproven(&self) -> bool {
        self.is_running()
            && self.tally.selected == 0
            && self.tally.away == 0
            && self.tally.lost == 0
            && self.record.population == 0
    }

    /// True when the rollout runs and can come to an end with the agents that there are. Otherwise no newer commit waits for it:
    /// it would wait for ever.
    pub fn can_finish(&self, now: Timestamp) -> bool {
        let somebody = self.tally.eligible > 0 || self.tally.vanished > 0 || self.absent(now) > 0;
        let is_hopeless = self.tally.eligible > 0 && self.is_complete() && !self.is_proven();
        let is_paused = self.rollout().is_some_and(|rollout| rollout.paused.is_some() || rollout.held.is_some());
        self.is_introducing() && somebody && !is_hopeless && !is_paused
    }

    /// Every configuration that may be needed: to offer, to go back to, to recognise.
    pub fn needed(&self) -> impl Iterator<Item = ConfigHash> {
        let rollout = self.record.rollout.as_ref().map(|rollout| rollout.candidate);
        self.record.stables.iter().copied().chain(rollout).chain(self.record.wanted)
    }

    /// True once after something changed that must be stored before a new [`Machine::desired`] may take effect.
    pub fn take_unstored(&mut self) -> bool {
        std::mem::take(&mut self.unstored)
    }

    /// True once after something changed that should be stored some time.
    pub fn take_outdated(&mut self) -> bool {
        std::mem::take(&mut self.outdated)
    }

    /// Rollouts that ended since the last call.
    pub fn take_finished(&mut self) -> Vec<Finished> {
        std::mem::take(&mut self.finished)
    }

    /// Takes what a newer revision says.
    pub fn plan(&mut self, plan: Plan, now: Timestamp) -> Effect {
        let wanted = plan.wanted;
        let is_revert = self.record.stables.contains(&wanted);
        // Rules hold at once, also while the configuration itself has to wait: a `suspend: true` never waits.
        if self.rules != plan.rules {
            let before = std::mem::replace(&mut self.rules, plan.rules.clone());
            self.unstored = true;
            self.take_other_stages(&before.strategy);
        }
        if self.record.undone.is_some() {
            if self.record.wanted == Some(wanted) {
                return Effect::Nothing;
            }
            (self.record.undone, self.unstored) = (None, true);
        }
        let is_other = |rollout: &RolloutRecord| rollout.candidate != wanted;
        let is_finished_first = self.rules.strategy.on_new_commit == OnNewCommit::Finish && !is_revert;
        if is_finished_first && self.can_finish(now) && self.rollout().is_some_and(is_other) {
            return Effect::Waits;
        }
        let effect = match self.record.rollout.take() {
            Some(same) if same.candidate == wanted => {
                let is_done = self.is_failed_move(&same) && !plan.moved_in;
                let effect = match is_failed(&same) {
                    true if is_done => Effect::Nothing,
                    true => Effect::FailedBefore,
                    false => Effect::Joined,
                };
                self.record.rollout = Some(same);
                effect
            }
            Some(other) if self.stable() == Some(wanted) && !plan.moved_in && self.has_gone_back(&other) => {
                self.unstored = true;
                Effect::Nothing
            }
            Some(other) => {
                self.replace(&other, wanted);
                let kind = if is_revert { Kind::Revert } else { Kind::Forward };
                self.start(&plan, other.seed, kind, now)
            }
            None if self.stable() == Some(wanted) && !plan.moved_in => Effect::Nothing,
            None if self.stable() == Some(wanted) => self.start(&plan, wanted, Kind::Move, now),
            None => self.start(&plan, wanted, if is_revert { Kind::Revert } else { Kind::Forward }, now),
        };
        if self.record.wanted != Some(wanted) {
            self.record.wanted = Some(wanted);
            self.unstored = true;
        }
        effect
    }

    /// True when agents are here that a commit moved, and nothing is on its way that would reach them: they came back only now. Those that
    /// such a rollout left behind are tried again when more have come, or an hour later: another one at once would end as that one did.
    pub fn strands(&self, now: Timestamp) -> bool {
        let is_steady = self.record.rollout.is_none() && self.record.undone.is_none();
        let left = self.left_behind.filter(|(_, at)| now < *at + LEFT_BEHIND).map_or(0, |(count, _)| count);
        is_steady && self.tally.stranded > left && self.stable().is_some() && self.stable() == self.record.wanted
    }

    /// What is stable goes to agents that a commit moved here, with all stages.
    pub fn receive(&mut self, revision: &str, now: Timestamp) {
        let Some(stable) = self.stable() else { return };
        // What was counted so far may be about another rollout of the same.
        let draws = self.tally.draws + 1;
        self.begin(RolloutRecord { draws, ..orders::fresh(stable, stable, Kind::Move, revision, now) }, now);
    }

    /// True when everybody is there and has stable again: whoever reverts the commit in Git finds that done.
    fn has_gone_back(&self, rollout: &RolloutRecord) -> bool {
        let tally = &self.tally;
        let undecided = tally.pending + tally.offered + tally.lost + tally.vanished + tally.excused + tally.assumed;
        matches!(way_back(rollout), Some(WayBack::Done { .. }))
            && tally.candidate.is_none()
            && tally.confirmed > 0
            && tally.confirmed == tally.cohort
            && undecided + tally.stranded == 0
    }

    /// A running stage is not another one because the list of stages is another: it has to open under the new one.
    fn take_other_stages(&mut self, before: &Strategy) {
        let form = |strategy: &Strategy| {
            let stages = strategy.stages.iter();
            stages.map(|stage| (stage.agents, stage.selector.clone(), stage.needs_approval)).collect::<Vec<_>>()
        };
        let stages = self.rules.strategy.stages.len();
        let is_other = form(before) != form(&self.rules.strategy);
        let Some(rollout) = self.record.rollout.as_mut().filter(|rollout| is_other && !is_stopped(rollout)) else {
            return;
        };
        if !rollout.takes_everybody() && rollout.progress != Progress::Opening {
            (rollout.progress, rollout.stage) = (Progress::Opening, rollout.stage.min(stages.saturating_sub(1)));
            (rollout.approved, rollout.hurried) = (rollout.approved.min(rollout.stage), false);
            self.watching_since = None;
        }
    }

    /// Another candidate takes the place of this rollout. Who holds a superseded candidate keeps it until the next one comes; what
    /// tripped a gate nobody keeps.
    pub(super) fn replace(&mut self, other: &RolloutRecord, wanted: ConfigHash) {
        if is_stopped(other) {
            if !is_failed(other) {
                self.finish(other.candidate, Outcome::Failed);
            }
            return;
        }
        self.finish(other.candidate, Outcome::Superseded);
        // What was stable before, and went through stages once more, is what some have like any other candidate.
        if other.kind == Kind::Forward || !self.record.stables.contains(&other.candidate) {
            self.record.superseded.retain(|hash| *hash != other.candidate && *hash != wanted);
            self.record.superseded.insert(0, other.candidate);
            self.record.superseded.truncate(SUPERSEDED);
        }
    }

    fn start(&mut self, plan: &Plan, seed: ConfigHash, kind: Kind, now: Timestamp) -> Effect {
        let hold = plan.hold.clone().filter(|_| kind != Kind::Revert);
        let fresh = orders::fresh(plan.wanted, seed, kind, &plan.revision, now);
        self.begin(RolloutRecord { fast: plan.fast, held: hold, ..fresh }, now);
        Effect::Started
    }

    /// A rollout of everybody at once that nothing holds back is open from the start: the first agent to come is offered it.
    pub(super) fn begin(&mut self, rollout: RolloutRecord, now: Timestamp) {
        self.record.rollout = Some(rollout);
        (self.watching_since, self.wants_draw) = (None, None);
        self.unstored = true;
        let is_open = self.is_last_stage() && self.obstacles(now).is_empty();
        if let Some(rollout) = self.record.rollout.as_mut().filter(|_| is_open) {
            (rollout.progress, rollout.introduced) = (Progress::Rolling, true);
        }
    }

    /// Ends the group: it is no longer in the repository.
    pub fn abandon(&mut self) {
        if let Some(rollout) = self.record.rollout.take()
            && !is_failed(&rollout)
        {
            let outcome = if is_stopped(&rollout) { Outcome::Failed } else { Outcome::Superseded };
            self.finish(rollout.candidate, outcome);
        }
    }

    /// Takes the agents as they are now.
    pub fn observe(&mut self, tally: Tally, now: Timestamp) {
        self.tally = tally;
        if self.tally.eligible > 0 || self.record.rollout.is_some() {
            let needed = budget::limit(self.rules.strategy.max_unavailable, self.tally.eligible);
            if needed > self.record.room {
                self.record.room = budget::room_to_store(self.rules.strategy.max_unavailable, self.tally.eligible);
                self.unstored = true;
            }
        }
        self.extend_reach(now);
        let all_back = self.restarted.is_none_or(|population| self.tally.heard >= population);
        let population = self.tally.selected + self.tally.vanished;
        if all_back && population.abs_diff(self.record.population) * 10 > self.record.population {
            self.record.population = population;
            self.outdated = true;
        }
        self.advance(now);
    }

    /// Offers are made, and outcomes awaited, among no more members than the record says: a successor counts those of them who are not back as in the
    /// middle of something. It shrinks only once everybody who could be in the middle of something has shown up or is overdue.
    fn extend_reach(&mut self, now: Timestamp) {
        let (members, reach) = (self.tally.members, self.record.reach);
        let is_known = self.restarted.is_none() || now >= self.since + self.rules.strategy.progress_deadline;
        let waits = self.tally.pending > 0 || self.tally.outside.pending > 0 || self.tally.unavailable > 0;
        if members > reach && waits {
            self.record.reach = budget::reach_to_store(reach, members);
            self.unstored = true;
        } else if is_known && reach > members + members / 10 {
            self.record.reach = members;
            self.outdated = true;
        }
    }

    /// Moves on when nothing but time has passed.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.advance(now);
    }

    pub(super) fn succeed(&mut self, rollout: &RolloutRecord, now: Timestamp) {
        let candidate = rollout.candidate;
        self.finish(candidate, Outcome::Succeeded);
        self.left_behind = (rollout.kind == Kind::Move).then_some((self.tally.stranded, now));
        self.successes += 1;
        if self.record.stables.is_empty() {
            self.record.first_stable = Some(rollout.started);
        }
        self.record.stables.retain(|hash| *hash != candidate);
        self.record.stables.insert(0, candidate);
        self.record.stables.truncate(STABLES);
        let mut earlier = Vec::new();
        let mut brought_by = rollout.revision.clone();
        if let Some(Promoted { started, revision, earlier: before, .. }) = self.record.promoted.remove(&candidate) {
            // An order to go back brings nothing of the newest commit.
            if self.record.undone.as_ref().is_some_and(|undone| undone.to == candidate) {
                brought_by.clone_from(&revision);
            }
            earlier = before;
            earlier.push(Earlier { started, revision });
            earlier.drain(..earlier.len().saturating_sub(EARLIER));
        }
        let promoted = Promoted { started: rollout.started, at: Some(now), revision: brought_by, earlier };
        self.record.promoted.insert(candidate, promoted);
        let stables = &self.record.stables;
        self.record.promoted.retain(|hash, _| stables.contains(hash));
        self.record.superseded.clear();
        self.record.rollout = None;
        self.record.population = self.tally.selected + self.tally.vanished;
        // Whom the process before this one counted and who is not here by now is not part of what follows.
        self.restarted = self.restarted.map(|before| before.min(self.record.population));
        self.watching_since = None;
        self.unstored = true;
    }

    pub(super) fn finish(&mut self, candidate: ConfigHash, outcome: Outcome) {
        self.finished.push(Finished { candidate, outcome, tally: self.tally.clone() });
    }

    /// Why the group may not move at all. Only a freeze, `suspend` and a daemon that watches hold back reverts and rollbacks.
    pub(super) fn blocked(&self, now: Timestamp) -> Option<Closed> {
        if self.observe {
            return Some(Closed::Observing);
        }
        if let Some(said) = self.fleet_frozen.as_ref().or(self.record.frozen.as_ref()) {
            return Some(Closed::Frozen { said: said.clone(), whole_fleet: self.fleet_frozen.is_some() });
        }
        if self.rules.suspend {
            return Some(Closed::Suspended);
        }
        if self.rollout().is_some_and(|rollout| rollout.kind == Kind::Revert || is_stopped(rollout)) {
            return None;
        }
        if let Some(pin) = self.record.pinned.as_ref().filter(|pin| pin.until > now) {
            return Some(Closed::Pinned { until: pin.until, said: pin.said.clone() });
        }
        self.rollout()?;
        let Expect { min, max } = self.rules.expect?;
        let selected = self.tally.selected;
        let is_outside =
            min.is_some_and(|min| selected < min as usize) || max.is_some_and(|max| selected > max as usize);
        is_outside.then_some(Closed::Unexpected { selected, min, max })
    }

    /// Who is to have the candidate now.
    pub(super) fn cohort(&self) -> Cohort {
        let Some(rollout) = self.rollout() else { return Cohort::default() };
        let opened = match rollout.progress {
            Progress::Opening => rollout.stage,
            Progress::Rolling | Progress::Soaking { .. } | Progress::Baking { .. } => {
                if self.is_last_stage() {
                    return Cohort::everybody();
                }
                rollout.stage + 1
            }
            Progress::RollingBack { .. } | Progress::Failed { .. } => return Cohort::default(),
        };
        let opened = self.rules.strategy.stages.iter().take(opened);
        let selectors = opened.filter_map(|stage| stage.selector.clone()).collect();
        Cohort { everybody: false, selectors, drawn: rollout.drawn.clone() }
    }

    /// What the agents should have now. Only to be given to the roster once the record is stored.
    pub fn desired(&self, now: Timestamp) -> Desired {
        let strategy = &self.rules.strategy;
        let blocked = self.blocked(now);
        let rollout = self.rollout();
        // A pin, and too few or too many agents, hold back what is new; what is out already is judged on, and may have to go back.
        let is_judged = |rollout: &&RolloutRecord| match &blocked {
            Some(closed) => closed.only_holds() && rollout.introduced,
            None => true,
        };
        let introduced = rollout.filter(is_judged).filter(|rollout| !is_stopped(rollout));
        let candidate = introduced.map(|rollout| rollout.candidate);
        let restoring_since = match rollout.map(|rollout| &rollout.progress) {
            Some(Progress::RollingBack { since, .. }) => Some(*since),
            Some(_) | None => None,
        };
        let way_back = rollout.and_then(way_back);
        let goes_back =
            restoring_since.is_some() || matches!(way_back, Some(WayBack::Done { .. } | WayBack::Failed { .. }));
        let mut kept = if goes_back { Vec::new() } else { self.record.superseded.clone() };
        kept.extend(
            rollout
                .filter(|rollout| candidate != Some(rollout.candidate) && !goes_back)
                .map(|rollout| rollout.candidate),
        );
        kept.retain(|hash| Some(*hash) != self.stable());
        let is_stuck = rollout.is_some_and(|rollout| match way_back {
            // Forward: who does not hold the candidate may still have stable. Otherwise stable is what is reverted. Where a move
            // failed, stable is what everybody else is well with: only those who were moved do not get it.
            Some(WayBack::None) if self.is_failed_move(rollout) => false,
            Some(WayBack::None) => rollout.kind != Kind::Forward || self.stable().is_none(),
            Some(WayBack::Failed { .. }) => true,
            Some(WayBack::Done { .. }) | None => false,
        });
        let closed = match blocked.clone() {
            Some(closed @ (Closed::Observing | Closed::Suspended | Closed::Frozen { .. } | Closed::Pinned { .. })) => {
                Some(closed)
            }
            Some(closed) if self.stable().is_none() => Some(closed),
            Some(_) | None => is_stuck.then_some(Closed::RolloutFailed),
        };
        Desired {
            candidate,
            cohort: candidate.map(|_| self.cohort()).unwrap_or_default(),
            draws: introduced.map_or(0, |rollout| rollout.draws),
            since: introduced.map(|rollout| rollout.started),
            holds_back: introduced.is_some() && (blocked.is_some() || self.holds_back()),
            replaced: false,
            // Also while it may not begin: who was moved here keeps what it has until then.
            moving: rollout.is_some_and(|rollout| rollout.kind == Kind::Move && !is_stopped(rollout)),
            // Also while it is frozen: who failed before has not failed since.
            retry: rollout.is_some_and(|rollout| rollout.retry && !is_stopped(rollout)),
            restoring_since,
            reverting: introduced.is_some_and(|rollout| rollout.kind == Kind::Revert),
            stable: self.stable(),
            stable_since: self.stable_since(),
            fell_together: introduced.is_some_and(|rollout| rollout.fell_together),
            successes: self.successes,
            retries: self.record.retries,
            wanted: self.record.wanted,
            kept,
            retained: self.record.stables.get(1..).unwrap_or_default().to_vec(),
            seed: rollout.map(|rollout| rollout.seed).or(self.stable()),
            closed,
            watched: self.is_running(),
            max_unavailable: strategy.max_unavailable,
            room: self.record.room,
            reach: self.record.reach,
            progress_deadline: strategy.progress_deadline,
        }
    }
}

/// True when the rollout is over, without having succeeded.
pub(super) fn is_failed(rollout: &RolloutRecord) -> bool {
    way_back(rollout).is_some()
}

/// True when the rollout does not introduce its candidate any more.
pub(super) fn is_stopped(rollout: &RolloutRecord) -> bool {
    match rollout.progress {
        Progress::Failed { .. } | Progress::RollingBack { .. } => true,
        Progress::Opening | Progress::Rolling | Progress::Soaking { .. } | Progress::Baking { .. } => false,
    }
}

fn way_back(rollout: &RolloutRecord) -> Option<WayBack> {
    match rollout.progress {
        Progress::Failed { way_back, .. } => Some(way_back),
        Progress::Opening
        | Progress::Rolling
        | Progress::Soaking { .. }
        | Progress::Baking { .. }
        | Progress::RollingBack { .. } => None,
    }
}
