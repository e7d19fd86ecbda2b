//! The rollout of one group as a state machine: what the repository wants goes in with [`Machine::plan`], what the agents do with
//! [`Machine::observe`], the passing of time with [`Machine::handle_timeout`]; out come [`Machine::desired`], endings, reasons
//! for waiting, and the record that has to be stored before offers may leave.
//!
//! The caller stores [`Machine::record`] whenever [`Machine::take_unstored`] says so, and hands a new [`Machine::desired`] to the
//! roster only once that is done.

use std::time::Duration;

use crate::config::ConfigHash;
use crate::fleet::strategy::{Amount, Expect, OnNewCommit, Stage, Strategy};
use crate::rollout::record::{GroupRecord, Kind, Progress, RolloutRecord};
use crate::rollout::{
    Closed, DEFAULT_MAX_FAILURES, Desired, FailedBecause, MOST_REMEMBERED, SETTLE, SETTLE_AT_MOST, Tally, Waiting,
    budget,
};
use crate::time::Timestamp;

/// Stable configurations that are retained, the current one included.
const STABLES: usize = 3;

/// Superseded candidates that are remembered, newest first. Whoever still holds an older one is a case of drift.
const SUPERSEDED: usize = 16;

/// What the repository says of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The hash that the newest accepted revision renders.
    pub wanted: ConfigHash,
    /// How changes arrive, and what holds them back.
    pub rules: Rules,
    /// True when the revision moved agents of other groups here.
    pub moved_in: bool,
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
    /// Why no rollout may start.
    pub held: Option<String>,
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
#[derive(Debug)]
pub struct Machine {
    rules: Rules,
    observe: bool,
    record: GroupRecord,
    tally: Tally,
    /// When this process took the group over, and the agents it then had; `None` for a group that this process saw first.
    restarted: Option<usize>,
    since: Timestamp,
    forget_after: Duration,
    /// True while the record in memory allows more than the stored one does.
    unstored: bool,
    /// True while the record differs in what may be stored later.
    outdated: bool,
    /// When watched time was last added.
    watching_since: Option<Timestamp>,
    finished: Vec<Finished>,
    successes: u64,
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
            finished: Vec::new(),
            successes: 0,
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

    /// The rollout that runs or failed.
    pub fn rollout(&self) -> Option<&RolloutRecord> {
        self.record.rollout.as_ref()
    }

    /// True when the rollout runs: it exists and has not failed.
    pub fn is_running(&self) -> bool {
        self.rollout().is_some_and(|rollout| !is_failed(rollout))
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
        self.is_running() && somebody && !is_hopeless
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
            self.rules = plan.rules;
            self.unstored = true;
        }
        let is_other = |rollout: &RolloutRecord| rollout.candidate != wanted;
        let is_finished_first = self.rules.strategy.on_new_commit == OnNewCommit::Finish && !is_revert;
        if is_finished_first && self.can_finish(now) && self.rollout().is_some_and(is_other) {
            return Effect::Waits;
        }
        let effect = match self.record.rollout.take() {
            Some(same) if same.candidate == wanted => {
                let effect = if is_failed(&same) { Effect::FailedBefore } else { Effect::Joined };
                self.record.rollout = Some(same);
                effect
            }
            Some(other) => {
                if !is_failed(&other) {
                    self.finish(other.candidate, Outcome::Superseded);
                }
                if !self.record.stables.contains(&other.candidate) {
                    self.record.superseded.retain(|hash| *hash != other.candidate && *hash != wanted);
                    self.record.superseded.insert(0, other.candidate);
                    self.record.superseded.truncate(SUPERSEDED);
                }
                self.start(wanted, other.seed, if is_revert { Kind::Revert } else { Kind::Forward }, now)
            }
            None if self.stable() == Some(wanted) && !plan.moved_in => Effect::Nothing,
            None if self.stable() == Some(wanted) => self.start(wanted, wanted, Kind::Move, now),
            None => self.start(wanted, wanted, if is_revert { Kind::Revert } else { Kind::Forward }, now),
        };
        if self.record.wanted != Some(wanted) {
            self.record.wanted = Some(wanted);
            self.unstored = true;
        }
        effect
    }

    fn start(&mut self, candidate: ConfigHash, seed: ConfigHash, kind: Kind, now: Timestamp) -> Effect {
        self.record.rollout =
            Some(RolloutRecord { candidate, seed, kind, started: now, stage: 0, progress: Progress::Rolling });
        self.watching_since = None;
        self.unstored = true;
        Effect::Started
    }

    /// Ends the group: it is no longer in the repository.
    pub fn abandon(&mut self) {
        if let Some(rollout) = self.record.rollout.take()
            && !is_failed(&rollout)
        {
            self.finish(rollout.candidate, Outcome::Superseded);
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
        if members > reach && (self.tally.pending > 0 || self.tally.unavailable > 0) {
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

    /// When [`Machine::handle_timeout`] is due, and why.
    pub fn poll_timeout(&self, now: Timestamp) -> Option<(Timestamp, &'static str)> {
        let rollout = self.rollout()?;
        let due = match rollout.progress {
            Progress::Failed { .. } => None,
            Progress::Rolling => {
                if !self.is_complete() {
                    // What cannot end without those who never came back gives up on them, so that newer commits need not wait.
                    return (self.absent(now) > 0).then(|| (self.since + self.forget_after, "forget"));
                }
                let settled = self.restless_until(now).map(|at| (at, "settle"));
                let missing = self.missing(now).and_then(|(.., until)| until).map(|at| (at, "forget"));
                settled.or(missing)
            }
            Progress::Soaking { watched } => self.watched_until(self.stage().soak, watched, now).map(|at| (at, "soak")),
            Progress::Baking { watched } => {
                self.watched_until(self.rules.strategy.bake, watched, now).map(|at| (at, "bake"))
            }
        };
        // What was due already and did not move the rollout on waits for agents, not for time.
        due.filter(|(at, _)| *at > now)
    }

    fn advance(&mut self, now: Timestamp) {
        let Some(rollout) = self.record.rollout.clone() else { return };
        if is_failed(&rollout) || self.tally.candidate != Some(rollout.candidate) {
            self.watching_since = None;
            return;
        }
        let (failed, allowed) = (self.tally.failed, self.allowed_failures(&rollout));
        if failed > allowed || failed > MOST_REMEMBERED {
            self.set_progress(Progress::Failed { failed, allowed });
            self.finish(rollout.candidate, Outcome::Failed);
            return;
        }
        match rollout.progress {
            Progress::Failed { .. } => {}
            Progress::Rolling => {
                let may_end = self.blocked().is_none() && self.is_complete() && self.is_proven();
                if may_end && self.restless_until(now).is_none() && self.missing(now).is_none() {
                    let is_forward = rollout.kind == Kind::Forward;
                    if is_forward && !self.stage().soak.is_zero() {
                        self.watch(Progress::Soaking { watched: Duration::ZERO }, now);
                    } else if is_forward && !self.rules.strategy.bake.is_zero() {
                        self.watch(Progress::Baking { watched: Duration::ZERO }, now);
                    } else {
                        self.succeed(rollout.candidate);
                    }
                }
            }
            Progress::Soaking { watched } => {
                let watched = watched + self.watched_since(now);
                if watched < self.stage().soak || !self.is_complete() {
                    self.keep_watching(Progress::Soaking { watched });
                } else if self.rules.strategy.bake.is_zero() {
                    self.succeed(rollout.candidate);
                } else {
                    self.watch(Progress::Baking { watched: Duration::ZERO }, now);
                }
            }
            Progress::Baking { watched } => {
                let watched = watched + self.watched_since(now);
                if watched < self.rules.strategy.bake || !self.is_complete() {
                    self.keep_watching(Progress::Baking { watched });
                } else {
                    self.succeed(rollout.candidate);
                }
            }
        }
    }

    fn succeed(&mut self, candidate: ConfigHash) {
        self.finish(candidate, Outcome::Succeeded);
        self.successes += 1;
        self.record.stables.retain(|hash| *hash != candidate);
        self.record.stables.insert(0, candidate);
        self.record.stables.truncate(STABLES);
        self.record.superseded.clear();
        self.record.rollout = None;
        self.record.population = self.tally.selected + self.tally.vanished;
        self.watching_since = None;
        self.unstored = true;
    }

    fn finish(&mut self, candidate: ConfigHash, outcome: Outcome) {
        self.finished.push(Finished { candidate, outcome, tally: self.tally.clone() });
    }

    fn set_progress(&mut self, progress: Progress) {
        if let Some(rollout) = &mut self.record.rollout {
            rollout.progress = progress;
            self.unstored = true;
        }
    }

    fn watch(&mut self, progress: Progress, now: Timestamp) {
        self.set_progress(progress);
        self.watching_since = self.is_watching(now).then_some(now);
    }

    /// Watched time that is not lost to a restart is worth a record now and then, but not a wait.
    fn keep_watching(&mut self, progress: Progress) {
        if let Some(rollout) = &mut self.record.rollout
            && rollout.progress != progress
        {
            rollout.progress = progress;
            self.outdated = true;
        }
    }

    /// Watched time since the last look; the clock of soak and bake stands still while too few are connected, while agents are
    /// in the middle of something, and while nothing may be offered.
    fn watched_since(&mut self, now: Timestamp) -> Duration {
        let watched = self.watching_since.map_or(Duration::ZERO, |since| now.since(since));
        self.watching_since = self.is_watching(now).then_some(now);
        watched
    }

    fn is_watching(&self, now: Timestamp) -> bool {
        let (connected, of) = self.watched_agents(now);
        self.blocked().is_none() && connected * 10 >= of * 9
    }

    /// Of those who were offered something and said no goodbye: how many are connected.
    fn watched_agents(&self, now: Timestamp) -> (usize, usize) {
        let connected = self.tally.confirmed + self.tally.offered;
        (connected, connected + self.tally.vanished + self.absent(now))
    }

    /// Agents that the group had before a restart and that were not heard since; until they are forgotten.
    fn absent(&self, now: Timestamp) -> usize {
        let expected = self.restarted.filter(|_| now < self.since + self.forget_after);
        expected.map_or(0, |population| population.saturating_sub(self.tally.heard))
    }

    fn stage(&self) -> &Stage {
        const NONE: &Stage = &Stage {
            name: String::new(),
            agents: Some(Amount::ALL),
            selector: None,
            soak: Duration::ZERO,
            needs_approval: false,
            max_failures: None,
        };
        let index = self.rollout().map_or(0, |rollout| rollout.stage);
        self.rules.strategy.stages.get(index).unwrap_or(NONE)
    }

    /// The running stage's name.
    pub fn stage_name(&self) -> Option<&str> {
        self.is_running().then(|| self.stage().name.as_str())
    }

    fn allowed_failures(&self, rollout: &RolloutRecord) -> usize {
        let of_stage = if rollout.kind == Kind::Forward { self.stage().max_failures } else { None };
        let amount = of_stage.or(self.rules.strategy.max_failures).unwrap_or(DEFAULT_MAX_FAILURES);
        budget::allowed_failures(amount, self.population())
    }

    /// The agents that a share is a share of. After a restart the recorded number holds until so many were heard: a hundredth of
    /// the first ten to come back is nothing.
    fn population(&self) -> usize {
        let recorded = self.restarted.filter(|population| self.tally.heard < *population).unwrap_or(0);
        self.tally.eligible.max(recorded)
    }

    /// Why a running rollout may not move at all.
    fn blocked(&self) -> Option<Closed> {
        if self.observe {
            return Some(Closed::Observing);
        }
        if self.rules.suspend {
            return Some(Closed::Suspended);
        }
        let rollout = self.rollout()?;
        if rollout.kind == Kind::Revert {
            return None;
        }
        if let Some(reason) = &self.rules.held {
            return Some(Closed::Unsupported(reason.clone()));
        }
        let Expect { min, max } = self.rules.expect?;
        let selected = self.tally.selected;
        let is_outside =
            min.is_some_and(|min| selected < min as usize) || max.is_some_and(|max| selected > max as usize);
        is_outside.then_some(Closed::Unexpected { selected, min, max })
    }

    fn is_complete(&self) -> bool {
        let tally = &self.tally;
        tally.eligible > 0 && tally.pending == 0 && tally.offered == 0 && tally.lost == 0
    }

    /// At least one agent confirmed that was well before; where nobody was well, one that was ill will do.
    fn is_proven(&self) -> bool {
        self.tally.proof > 0 || (self.tally.confirmed > 0 && self.tally.ill_before == self.tally.eligible)
    }

    fn restless_until(&self, now: Timestamp) -> Option<Timestamp> {
        let started = self.rollout()?.started.max(self.since);
        let until = (self.tally.restless_at? + SETTLE).min(started + SETTLE_AT_MOST);
        (until > now).then_some(until)
    }

    /// Gone without a goodbye, of how many, until when; only when that is more than a fifth.
    fn missing(&self, now: Timestamp) -> Option<(usize, usize, Option<Timestamp>)> {
        let absent = self.absent(now);
        let missing = absent + self.tally.vanished;
        let of = self.tally.selected + missing;
        let until = if absent > 0 { Some(self.since + self.forget_after) } else { self.tally.forgotten_at };
        (missing * 5 > of).then_some((missing, of, until))
    }

    /// What the agents should have now. Only to be given to the roster once the record is stored.
    pub fn desired(&self) -> Desired {
        let strategy = &self.rules.strategy;
        let blocked = self.blocked();
        let rollout = self.rollout();
        let candidate =
            rollout.filter(|rollout| blocked.is_none() && !is_failed(rollout)).map(|rollout| rollout.candidate);
        let mut kept = self.record.superseded.clone();
        kept.extend(rollout.filter(|rollout| candidate != Some(rollout.candidate)).map(|rollout| rollout.candidate));
        kept.retain(|hash| Some(*hash) != self.stable());
        let is_paused = rollout.is_some_and(|rollout| {
            // Forward: who does not hold the candidate may still have stable. Otherwise stable is what is reverted, or what failed.
            is_failed(rollout) && (rollout.kind != Kind::Forward || self.stable().is_none())
        });
        let closed = match blocked {
            Some(closed @ (Closed::Observing | Closed::Suspended)) => Some(closed),
            Some(closed) if self.stable().is_none() => Some(closed),
            Some(_) | None => is_paused.then_some(Closed::RolloutFailed),
        };
        Desired {
            candidate,
            stable: self.stable(),
            successes: self.successes,
            wanted: self.record.wanted,
            kept,
            seed: rollout.map(|rollout| rollout.seed).or(self.stable()),
            closed,
            watched: self.is_running(),
            max_unavailable: strategy.max_unavailable,
            room: self.record.room,
            reach: self.record.reach,
            progress_deadline: strategy.progress_deadline,
        }
    }

    /// Everything that the rollout waits for, in the order of their weight.
    pub fn waiting(&self, now: Timestamp) -> Vec<Waiting> {
        let Some(rollout) = self.rollout() else {
            return self.blocked().map(Waiting::Closed).into_iter().chain(self.waiting_for_room()).collect();
        };
        let tally = &self.tally;
        if let Progress::Failed { failed, allowed } = rollout.progress {
            return vec![Waiting::Failed(FailedBecause::TooManyFailures { failed, allowed })];
        }
        if let Some(closed) = self.blocked() {
            return vec![Waiting::Closed(closed)];
        }
        if tally.selected == 0 && tally.lost == 0 && self.missing(now).is_none() {
            return vec![Waiting::NoAgents];
        }
        let mut waiting = Vec::new();
        if tally.eligible == 0 && tally.selected > 0 {
            waiting.push(Waiting::NobodyEligible { selected: tally.selected });
        }
        waiting.extend(self.waiting_for_room());
        if tally.unready > 0 {
            waiting.push(Waiting::Illness { agents: tally.unready });
        }
        if tally.offered > 0 {
            waiting.push(Waiting::Confirmation { agents: tally.offered });
        }
        if tally.lost > 0 {
            waiting.push(Waiting::LostAgents { agents: tally.lost });
        }
        if let Some((missing, of, until)) = self.missing(now) {
            waiting.push(Waiting::TooManyMissing { missing, of, until });
        }
        match rollout.progress {
            Progress::Rolling if self.is_complete() => {
                waiting.extend(self.restless_until(now).map(|until| Waiting::Settling { until }));
                if !self.is_proven() {
                    waiting.push(Waiting::NoProof);
                }
            }
            Progress::Rolling | Progress::Failed { .. } => {}
            Progress::Soaking { watched } => waiting.extend(self.watching(self.stage().soak, watched, now, true)),
            Progress::Baking { watched } => {
                waiting.extend(self.watching(self.rules.strategy.bake, watched, now, false));
            }
        }
        waiting
    }

    /// When a watch is over; when it stands still for agents that never came back after a restart: when they are forgotten.
    fn watched_until(&self, whole: Duration, watched: Duration, now: Timestamp) -> Option<Timestamp> {
        let forgotten = (self.absent(now) > 0).then(|| self.since + self.forget_after);
        self.watching_since.map(|since| since + whole.saturating_sub(watched)).or(forgotten)
    }

    /// Agents that would be offered something if enough of the others were available.
    fn waiting_for_room(&self) -> Option<Waiting> {
        let Tally { eligible, pending, unready, unavailable, assumed, .. } = self.tally;
        let limit = budget::limit(self.rules.strategy.max_unavailable, eligible).min(self.record.room);
        let pending = pending.saturating_sub(unready);
        (pending > 0 && unavailable >= limit).then_some(Waiting::Budget { pending, unavailable, assumed, limit })
    }

    /// What the watch waits for; `None` when it was long enough, and agents are waited for.
    fn watching(&self, whole: Duration, watched: Duration, now: Timestamp, is_soak: bool) -> Option<Waiting> {
        let (connected, of) = self.watched_agents(now);
        let Some(since) = self.watching_since else { return Some(Waiting::NotWatching { connected, of }) };
        let until = since + whole.saturating_sub(watched);
        (until > now).then_some(if is_soak { Waiting::Soak { until } } else { Waiting::Bake { until } })
    }
}

fn is_failed(rollout: &RolloutRecord) -> bool {
    match rollout.progress {
        Progress::Failed { .. } => true,
        Progress::Rolling | Progress::Soaking { .. } | Progress::Baking { .. } => false,
    }
}
