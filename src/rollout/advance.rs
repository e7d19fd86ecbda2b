//! How a rollout moves: stages open, are watched and end; gates stop it; stable goes back.

use std::time::Duration;

use crate::fleet::strategy::{Amount, OnFailure, Stage};
use crate::rollout::cohort::{Cohort, Draw, Opening};
use crate::rollout::machine::{Machine, Outcome, is_failed, is_stopped};
use crate::rollout::record::{Cause, Kind, Progress, RolloutRecord, WayBack};
use crate::rollout::{DEFAULT_MAX_FAILURES, MOST_REMEMBERED, Peers, SETTLE, SETTLE_AT_MOST, Tally, budget};
use crate::time::Timestamp;

/// A rollout without stages of its own: everybody at once, unwatched.
static EVERYBODY: Stage = Stage {
    name: String::new(),
    agents: Some(Amount::ALL),
    selector: None,
    soak: Duration::ZERO,
    needs_approval: false,
    max_failures: None,
};

impl Machine {
    /// Moves on as far as the agents and the time allow.
    pub(super) fn advance(&mut self, now: Timestamp) {
        // Each step ends a state for good; a draw ends the loop.
        while self.step(now) {}
    }

    /// One step; false when nothing moved.
    fn step(&mut self, now: Timestamp) -> bool {
        let Some(rollout) = self.record.rollout.clone() else { return false };
        if let Progress::RollingBack { cause, .. } = &rollout.progress {
            self.go_back(&rollout, cause.clone(), now);
            return false;
        }
        let is_about_it = self.tally.candidate == Some(rollout.candidate) && self.tally.draws == rollout.draws;
        if is_failed(&rollout) || !is_about_it {
            self.watching_since = None;
            return false;
        }
        self.note_who_fell_together(&rollout, now);
        let (failed, allowed) = (self.failures_that_count(&rollout), self.allowed_failures(&rollout));
        if failed > allowed || self.tally.failed > MOST_REMEMBERED {
            let goes_back = self.rules.strategy.on_failure == OnFailure::Rollback;
            self.stop(&rollout, Cause::TooManyFailures { failed, allowed }, goes_back, now);
            return false;
        }
        match rollout.progress {
            Progress::Failed { .. } | Progress::RollingBack { .. } => false,
            Progress::Opening => self.open_next(&rollout, now),
            Progress::Rolling => self.roll(&rollout, now),
            Progress::Soaking { watched } => {
                let watched = watched + self.watched_since(now);
                let is_over = watched >= self.stage().soak || rollout.hurried;
                if is_over && self.may_end(now) {
                    return self.end_stage(&rollout, now);
                }
                self.keep_watching(Progress::Soaking { watched });
                self.replace_vanished(&rollout, now);
                false
            }
            Progress::Baking { watched } => {
                let watched = watched + self.watched_since(now);
                let is_over = watched >= self.rules.strategy.bake || rollout.hurried;
                if is_over && self.may_end(now) {
                    self.succeed(&rollout, now);
                } else {
                    self.keep_watching(Progress::Baking { watched });
                }
                false
            }
        }
    }

    /// Opens the stage when nothing is in its way. One that is not everybody has its agents drawn first.
    fn open_next(&mut self, rollout: &RolloutRecord, now: Timestamp) -> bool {
        if !self.obstacles(now).is_empty() {
            return false;
        }
        if !self.is_last_stage() {
            self.wants_draw = Some(self.draw(rollout, false));
            return false;
        }
        let added = self.tally.outside.eligible;
        if let Some(current) = &mut self.record.rollout {
            current.adds = added > 0;
            current.introduced |= added > 0;
            current.size = self.tally.eligible;
            current.draws += 1;
            // The wait that a person skipped was for its start; what it introduces is watched all the same.
            current.hurried = false;
        }
        self.set_progress(Progress::Rolling);
        false
    }

    fn draw(&self, rollout: &RolloutRecord, replace: bool) -> Draw {
        let opened = self.rules.strategy.stages.iter().take(rollout.stage + 1);
        let selectors = opened.filter_map(|stage| stage.selector.clone()).collect();
        Draw {
            agents: self.stage().agents,
            cohort: Cohort { everybody: false, selectors, drawn: rollout.drawn.clone() },
            spread_by: self.rules.strategy.spread_by.clone(),
            spread_proven: self.rules.strategy.spread_proven,
            replace,
        }
    }

    /// The agents of a stage are drawn: it begins, or passes at once when it adds nobody.
    pub fn open(&mut self, opening: Opening, now: Timestamp) {
        let Some(rollout) = &mut self.record.rollout else { return };
        let is_opening = rollout.progress == Progress::Opening;
        let is_vain = if is_opening { opening.available == 0 && opening.pinned > 0 } else { opening.added == 0 };
        if is_vain {
            // Nobody can be drawn: all are pinned, for example. It is tried again when something changes.
            return;
        }
        (rollout.drawn, rollout.size) = (opening.drawn, opening.size);
        rollout.draws += 1;
        self.unstored = true;
        match rollout.progress {
            Progress::Opening => {
                rollout.adds = opening.added > 0;
                rollout.introduced |= rollout.adds;
                if rollout.adds {
                    rollout.hurried = false;
                    self.set_progress(Progress::Rolling);
                } else {
                    self.next_stage();
                    self.advance(now);
                }
            }
            Progress::Rolling
            | Progress::Soaking { .. }
            | Progress::Baking { .. }
            | Progress::RollingBack { .. }
            | Progress::Failed { .. } => {}
        }
    }

    fn roll(&mut self, rollout: &RolloutRecord, now: Timestamp) -> bool {
        let is_nobodys = self.tally.cohort == 0 && self.tally.lost == 0 && self.tally.cohort_vanished == 0;
        if rollout.kind == Kind::Revert && is_nobodys && self.tally.stranded > 0 {
            // Everybody here was moved by a commit: for them it is nothing to go back to, and takes all stages.
            if let Some(current) = &mut self.record.rollout {
                (current.kind, current.adds, current.draws) = (Kind::Move, true, current.draws + 1);
            }
            self.set_progress(Progress::Opening);
            return false;
        }
        if !self.may_end(now) {
            self.replace_vanished(rollout, now);
            return false;
        }
        let is_watched = rollout.kind != Kind::Revert && rollout.adds && !rollout.hurried && !rollout.fast;
        if is_watched && !self.stage().soak.is_zero() {
            self.watch(Progress::Soaking { watched: Duration::ZERO }, now);
            return false;
        }
        self.end_stage(rollout, now)
    }

    /// True when everybody in the stage has it, somebody proves it, and enough of the group is there.
    fn may_end(&self, now: Timestamp) -> bool {
        let is_hurried = self.rollout().is_some_and(|rollout| rollout.hurried);
        let is_quiet = is_hurried || self.restless_until(now).is_none() && self.missing(now).is_none();
        self.blocked(now).is_none() && !self.holds_back() && is_quiet && self.has_passed(now)
    }

    /// Everybody in the stage has it and somebody proves it; or the stage names agents none of whom is there any more.
    fn has_passed(&self, now: Timestamp) -> bool {
        let is_named = !self.is_last_stage() && self.stage().agents.is_none();
        let is_deserted = is_named && self.tally.cohort == 0 && self.tally.lost == 0;
        is_deserted && !self.is_returning(now) || self.is_complete() && self.is_proven()
    }

    fn end_stage(&mut self, rollout: &RolloutRecord, now: Timestamp) -> bool {
        if !self.is_last_stage() {
            self.next_stage();
            return true;
        }
        let is_watched = rollout.kind != Kind::Revert && rollout.introduced && !rollout.fast;
        if is_watched && !self.rules.strategy.bake.is_zero() {
            if let Some(current) = &mut self.record.rollout {
                // A soak that a person skipped is no word about the bake.
                current.hurried = false;
            }
            self.watch(Progress::Baking { watched: Duration::ZERO }, now);
        } else {
            self.succeed(rollout, now);
        }
        false
    }

    fn next_stage(&mut self) {
        if let Some(rollout) = &mut self.record.rollout {
            rollout.stage += 1;
            (rollout.hurried, rollout.adds) = (false, false);
        }
        self.watching_since = None;
        self.set_progress(Progress::Opening);
    }

    /// When all agents of a small stage are gone, others take their place, so that the rollout need not wait for them. Once for
    /// those that vanished: the next to vanish may have done so because of what they were offered.
    fn replace_vanished(&mut self, rollout: &RolloutRecord, now: Timestamp) {
        let nobody_left = self.is_bereft() && self.missing(now).is_none() && !self.is_returning(now);
        if !nobody_left || self.blocked(now).is_some() || self.holds_back() || self.unsettled_until(now).is_some() {
            return;
        }
        // Of those who were not heard since a restart nobody knows whether they vanished.
        if self.tally.lost > 0 || self.absent(now) > 0 {
            if rollout.replaced_in == Some(rollout.stage) {
                return;
            }
            if let Some(current) = &mut self.record.rollout {
                (current.replaced, current.replaced_in) = (current.replaced + 1, Some(current.stage));
            }
        }
        self.wants_draw = Some(self.draw(rollout, true));
    }

    /// True when all who were drawn for a small stage are gone, and others are there. Failures of those who are gone are no reason to wait:
    /// the gate allowed them, and counts on.
    pub(super) fn is_bereft(&self) -> bool {
        let others = self.tally.cohort == 0 && self.tally.outside.eligible > 0;
        others && !self.is_last_stage() && self.stage().agents.is_some()
    }

    /// True while agents may still come back after a restart: so long it is open whether they are gone.
    fn is_returning(&self, now: Timestamp) -> bool {
        self.absent(now) > 0 && now < self.since + self.rules.strategy.progress_deadline
    }

    /// Until when newcomers are waited for before others take the place of a stage's agents, who may be among them.
    pub(super) fn unsettled_until(&self, now: Timestamp) -> Option<Timestamp> {
        let until = self.tally.restless_at? + SETTLE;
        (until > now).then_some(until)
    }

    /// Failures that count against the stage: an agent that vanished and was replaced does not.
    fn failures_that_count(&self, rollout: &RolloutRecord) -> usize {
        self.tally.failed - rollout.replaced.min(self.tally.failed_absent)
    }

    /// Ends the rollout of its candidate.
    pub(super) fn stop(&mut self, rollout: &RolloutRecord, cause: Cause, goes_back: bool, now: Timestamp) {
        let has_somewhere = self.stable().is_some_and(|stable| stable != rollout.candidate);
        self.watching_since = None;
        if goes_back && has_somewhere && rollout.kind == Kind::Forward {
            self.set_progress(Progress::RollingBack { cause, since: now });
            self.finish(rollout.candidate, Outcome::RollingBack);
        } else {
            self.set_progress(Progress::Failed { cause, way_back: WayBack::None });
            self.finish(rollout.candidate, Outcome::Failed);
        }
    }

    /// Stable goes back to everybody who holds the candidate.
    fn go_back(&mut self, rollout: &RolloutRecord, cause: Cause, now: Timestamp) {
        if !self.tally.restoring {
            return;
        }
        let amount = self.rules.strategy.max_failures.unwrap_or(DEFAULT_MAX_FAILURES);
        let (failed, allowed) = (self.tally.failed, budget::allowed_on_the_way_back(amount, self.population()));
        if failed > allowed || failed > MOST_REMEMBERED {
            self.set_progress(Progress::Failed { cause, way_back: WayBack::Failed { failed, allowed } });
            self.finish(rollout.candidate, Outcome::Failed);
            return;
        }
        let tally = &self.tally;
        let is_done = tally.pending == 0 && tally.offered == 0 && tally.lost == 0;
        let may_be_told = self.absent(now) == 0 || self.missing(now).is_none();
        if !is_done || !may_be_told || self.blocked(now).is_some() {
            return;
        }
        let (way_back, outcome) = if failed > 0 && tally.confirmed == 0 {
            (WayBack::Failed { failed, allowed: 0 }, Outcome::Failed)
        } else {
            (WayBack::Done { failed }, Outcome::RolledBack)
        };
        self.set_progress(Progress::Failed { cause, way_back });
        self.finish(rollout.candidate, outcome);
    }

    pub(super) fn set_progress(&mut self, progress: Progress) {
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

    /// The process did not run for so long: that was no watched time.
    pub fn handle_gap(&mut self, gap: Duration, now: Timestamp) {
        if self.watching_since.is_some() {
            self.watching_since = Some(now);
        }
        if self.restarted.is_some() {
            // Who was to come back meanwhile could not.
            self.since = self.since + gap;
        }
    }

    fn is_watching(&self, now: Timestamp) -> bool {
        let (connected, of) = self.watched_agents(now);
        // With nobody there nothing is watched.
        self.blocked(now).is_none() && !self.holds_back() && connected > 0 && connected * 10 >= of * 9
    }

    /// Of those who were offered something and said no goodbye: how many are there and well, or sick as others are and not waited for. Whoever
    /// else is sick says nothing about it yet.
    pub(super) fn watched_agents(&self, now: Timestamp) -> (usize, usize) {
        let Tally { confirmed, offered, excused, cohort_vanished, .. } = self.tally;
        let excused = if self.is_outage() { 0 } else { excused.min(offered) };
        (confirmed + excused, confirmed + offered + cohort_vanished + self.absent(now))
    }

    /// Agents that the group had before a restart and that were not heard since; until they are forgotten.
    pub(super) fn absent(&self, now: Timestamp) -> usize {
        let expected = self.restarted.filter(|_| now < self.since + self.forget_after);
        expected.map_or(0, |population| population.saturating_sub(self.tally.heard))
    }

    /// The stage that runs or opens next.
    pub(super) fn stage(&self) -> &Stage {
        match self.rollout() {
            Some(rollout) if !takes_everybody(rollout) => {
                self.rules.strategy.stages.get(rollout.stage).unwrap_or(&EVERYBODY)
            }
            Some(_) | None => self.rules.strategy.stages.last().unwrap_or(&EVERYBODY),
        }
    }

    /// True when the stage is everybody.
    pub(super) fn is_last_stage(&self) -> bool {
        let stages = self.rules.strategy.stages.len();
        self.rollout().is_none_or(|rollout| takes_everybody(rollout) || rollout.stage + 1 >= stages)
    }

    /// The running stage's name.
    pub fn stage_name(&self) -> Option<&str> {
        let rollout = self.rollout()?;
        match rollout.progress {
            Progress::Failed { .. } => None,
            Progress::RollingBack { .. } => Some("rolling back"),
            Progress::Baking { .. } => Some("bake"),
            Progress::Opening | Progress::Rolling | Progress::Soaking { .. } => Some(self.stage().name.as_str()),
        }
    }

    pub(super) fn allowed_failures(&self, rollout: &RolloutRecord) -> usize {
        // Between two stages the one that ran is judged.
        let is_between = rollout.progress == Progress::Opening;
        let index = rollout.stage.saturating_sub(usize::from(is_between));
        let stages = &self.rules.strategy.stages;
        let is_last = takes_everybody(rollout) || index + 1 >= stages.len();
        let default = if index == 0 && !is_last { Amount::Count(0) } else { DEFAULT_MAX_FAILURES };
        let stage = stages.get(index).filter(|_| !takes_everybody(rollout));
        let of_stage = stage.and_then(|stage| stage.max_failures);
        let amount = of_stage.or(self.rules.strategy.max_failures).unwrap_or(default);
        let size = if is_last { self.population() } else { rollout.size.max(self.tally.cohort) };
        budget::allowed_failures(amount, size)
    }

    /// The agents that a share is a share of. After a restart the recorded number holds until so many were heard: a hundredth of
    /// the first ten to come back is nothing.
    pub(super) fn population(&self) -> usize {
        let recorded = self.restarted.filter(|population| self.tally.heard < *population).unwrap_or(0);
        self.tally.eligible.max(recorded)
    }

    pub(super) fn is_complete(&self) -> bool {
        let tally = &self.tally;
        // As many as may fail are not waited for when they are sick as everybody is.
        let excused = if self.is_outage() { 0 } else { tally.excused };
        let open = (tally.offered + tally.lost).saturating_sub(excused);
        !tally.held_back && tally.cohort > 0 && tally.pending == 0 && open == 0
    }

    /// More agents than may fail are sick with the candidate, and it is not because of it, as far as can be told.
    pub(super) fn is_outage(&self) -> bool {
        let Some(rollout) = self.rollout().filter(|rollout| !is_stopped(rollout)) else { return false };
        let excused = self.tally.excused;
        rollout.fell_together
            || excused > 0 && self.failures_that_count(rollout) + excused > self.allowed_failures(rollout)
    }

    /// That all fell sick together, with nobody to compare them with, nobody could see any more after a restart: it is remembered until most
    /// of them are well. Who stays sick then is judged as anybody else: one that never recovers holds up nothing for ever.
    fn note_who_fell_together(&mut self, rollout: &RolloutRecord, now: Timestamp) {
        let Tally { treated, peers, compared_with, .. } = self.tally;
        let fell_together = if rollout.fell_together {
            self.absent(now) > 0 || treated.sick > 0 && treated.sick * 2 >= treated.of
        } else {
            // Of these it is because of that, and not because other peers, who have a rollout of their own by now, were as sick.
            compared_with == Peers::Nobody && peers.sick * 2 >= peers.of && self.is_outage()
        };
        if fell_together != rollout.fell_together
            && let Some(current) = &mut self.record.rollout
        {
            current.fell_together = fell_together;
            self.unstored = true;
        }
    }

    /// At least one agent confirmed that was well before; where nobody was well, one that was ill will do.
    pub(super) fn is_proven(&self) -> bool {
        self.tally.proof > 0 || (self.tally.confirmed > 0 && self.tally.ill_before == self.tally.cohort)
    }

    /// No new offer of the candidate leaves, but what is out is watched on: a person or the commit holds it, or the agents that were
    /// not offered it are as sick as those that were.
    pub(super) fn holds_back(&self) -> bool {
        let Some(rollout) = self.rollout().filter(|rollout| !is_stopped(rollout)) else { return false };
        let is_held = rollout.paused.is_some() || rollout.held.is_some();
        rollout.kind != Kind::Revert && (is_held || self.is_outage())
    }

    pub(super) fn restless_until(&self, now: Timestamp) -> Option<Timestamp> {
        let started = self.rollout()?.started.max(self.since);
        let until = (self.tally.restless_at? + SETTLE).min(started + SETTLE_AT_MOST);
        (until > now).then_some(until)
    }

    /// Gone without a goodbye, of how many, until when; only when that is more than a fifth.
    pub(super) fn missing(&self, now: Timestamp) -> Option<(usize, usize, Option<Timestamp>)> {
        let absent = self.absent(now);
        let missing = absent + self.tally.vanished;
        let of = self.tally.selected + missing;
        let until = if absent > 0 { Some(self.since + self.forget_after) } else { self.tally.forgotten_at };
        (missing * 5 > of).then_some((missing, of, until))
    }
}

/// One stage of everybody: reverts, and what a commit may have fast.
pub(super) fn takes_everybody(rollout: &RolloutRecord) -> bool {
    rollout.takes_everybody()
}
