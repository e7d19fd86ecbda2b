//! Why a rollout does not go on, as values made where the decision is made, and when it goes on by itself.

use std::time::Duration;

use crate::rollout::advance::takes_everybody;
use crate::rollout::machine::{Machine, is_stopped};
use crate::rollout::record::{Kind, Progress, RolloutRecord};
use crate::rollout::{Peers, Tally, WATCH_INTERVAL, Waiting, budget};
use crate::time::Timestamp;

impl Machine {
    /// What is in the way of the next stage.
    pub(super) fn obstacles(&self, now: Timestamp) -> Vec<Waiting> {
        let Some(rollout) = self.rollout() else { return Vec::new() };
        let mut obstacles = Vec::new();
        obstacles.extend(self.blocked(now).map(Waiting::Closed));
        obstacles.extend(self.holding_back(rollout));
        if rollout.kind == Kind::Revert || !obstacles.is_empty() {
            return obstacles;
        }
        if rollout.stage == 0 && !rollout.alone {
            let prerequisites = self.prerequisites.iter().cloned();
            obstacles.extend(prerequisites.map(|reason| Waiting::Prerequisite { reason }));
        }
        if self.stage().needs_approval && rollout.approved <= rollout.stage && !takes_everybody(rollout) {
            obstacles.push(Waiting::Approval { stage: self.stage().name.clone() });
        }
        if !self.is_last_stage() {
            obstacles.extend(self.nobody());
        }
        if rollout.hurried {
            return obstacles;
        }
        obstacles.extend(self.rules.strategy.outside_windows(now).map(Waiting::Window));
        if let Some((missing, of, until)) = self.missing(now) {
            obstacles.push(Waiting::TooManyMissing { missing, of, until });
        }
        if !self.is_last_stage() {
            obstacles.extend(self.restless_until(now).map(|until| Waiting::Settling { until }));
        }
        obstacles
    }

    /// Why the candidate is offered to nobody else for now.
    fn holding_back(&self, rollout: &RolloutRecord) -> Vec<Waiting> {
        let mut reasons = Vec::new();
        let said = rollout.paused.iter().chain(&rollout.held).filter(|_| rollout.kind != Kind::Revert);
        reasons.extend(said.cloned().map(|said| Waiting::Paused { said }));
        reasons.extend(self.outage().filter(|_| rollout.kind != Kind::Revert));
        reasons
    }

    /// Agents are sick with it that would have failed, were it not that everybody is sick.
    fn outage(&self) -> Option<Waiting> {
        let Tally { treated, peers, compared_with, .. } = self.tally;
        let is_known = self.tally.excused > 0;
        let with = if is_known { compared_with } else { Peers::Nobody };
        let is_over = with != Peers::Nobody && !peers.is_like(treated);
        self.is_outage().then_some(Waiting::Outage { treated, peers, with, is_over })
    }

    /// True when the rollout needs a person: for approval, or because its commit holds it.
    pub fn waits_for_a_word(&self) -> bool {
        let is_asked = |rollout: &RolloutRecord| {
            let needs = rollout.progress == Progress::Opening && rollout.approved <= rollout.stage;
            rollout.held.is_some() || needs && self.stage().needs_approval
        };
        self.rollout().is_some_and(|rollout| !is_stopped(rollout) && is_asked(rollout))
    }

    /// What keeps it from going on that agents and time do not end, in words for those who wait for it.
    pub fn stands_still(&self) -> Option<&'static str> {
        let is_held = |rollout: &RolloutRecord| rollout.paused.is_some() || rollout.held.is_some();
        if self.fleet_frozen.is_some() || self.record.frozen.is_some() {
            Some("it is frozen")
        } else if self.rules.suspend {
            Some("it is suspended")
        } else if self.record.undone.is_some() {
            Some("a person went back behind that (undo)")
        } else if self.rollout().is_some_and(is_held) {
            Some("it is paused")
        } else if self.waits_for_a_word() {
            Some("its stage needs a person's word")
        } else if self.is_unproven() {
            Some("no agent matches it yet")
        } else {
            None
        }
    }

    /// Nobody is there who could be offered anything.
    fn nobody(&self) -> Option<Waiting> {
        let tally = &self.tally;
        if tally.eligible > 0 {
            None
        } else if tally.selected > 0 {
            Some(Waiting::NobodyEligible { selected: tally.selected })
        } else {
            Some(Waiting::NoAgents)
        }
    }

    /// When [`Machine::handle_timeout`] is due, and why.
    pub fn poll_timeout(&self, now: Timestamp) -> Option<(Timestamp, &'static str)> {
        let pin = self.record.pinned.as_ref().map(|pin| (pin.until, "pin"));
        // What was due already and did not move the rollout on waits for agents, not for time.
        let due = [pin, self.rollout().and_then(|rollout| self.due(rollout, now))];
        due.into_iter().flatten().filter(|(at, _)| *at > now).min()
    }

    fn due(&self, rollout: &RolloutRecord, now: Timestamp) -> Option<(Timestamp, &'static str)> {
        let missing = || self.missing(now).and_then(|(.., until)| until).map(|at| (at, "forget"));
        let absent = || (self.absent(now) > 0).then(|| (self.since + self.forget_after, "forget"));
        let settled = || self.restless_until(now).map(|at| (at, "settle"));
        let returned = self.since + self.rules.strategy.progress_deadline;
        let replaced = || {
            let at = self.unsettled_until(now).or((self.absent(now) > 0 && returned > now).then_some(returned));
            at.filter(|_| self.tally.cohort == 0 && !self.is_last_stage()).map(|at| (at, "replace"))
        };
        match rollout.progress {
            Progress::Failed { .. } => None,
            Progress::RollingBack { .. } => absent(),
            Progress::Opening => {
                let outside = self.rules.strategy.outside_windows(now);
                let window = outside.and_then(|outside| outside.opens).map(|at| (at, "window"));
                [window, settled(), missing()].into_iter().flatten().min()
            }
            // What cannot end without those who never came back gives up on them, so that newer commits need not wait.
            Progress::Rolling if !self.is_complete() => [absent(), replaced()].into_iter().flatten().min(),
            Progress::Rolling => settled().or_else(missing),
            Progress::Soaking { watched } => {
                let soaked = self.watched_until(self.stage().soak, watched, now).map(|at| (at, "soak"));
                let to_come = |(at, _): &(Timestamp, &str)| *at > now;
                [soaked.filter(to_come).or_else(settled), replaced()].into_iter().flatten().min()
            }
            Progress::Baking { watched } => {
                let baked = self.watched_until(self.rules.strategy.bake, watched, now).map(|at| (at, "bake"));
                baked.filter(|(at, _)| *at > now).or_else(settled)
            }
        }
    }

    /// Everything that the rollout waits for, in the order of their weight.
    pub fn waiting(&self, now: Timestamp) -> Vec<Waiting> {
        let Some(rollout) = self.rollout() else {
            let undone = self.record.undone.clone().map(|undone| Waiting::Undone { said: undone.said });
            let closed = self.blocked(now).map(Waiting::Closed);
            return closed.into_iter().chain(undone).chain(self.waiting_for_room()).collect();
        };
        if is_stopped(rollout) {
            return self.waiting_after(rollout, now);
        }
        if let Some(closed) = self.blocked(now) {
            // What is out already is judged on, and that may stand still for a reason of its own.
            return [Waiting::Closed(closed)].into_iter().chain(self.outage()).collect();
        }
        let tally = &self.tally;
        if rollout.progress == Progress::Opening {
            let obstacles = self.obstacles(now);
            let opening = || vec![Waiting::Opening { stage: self.stage().name.clone() }];
            return if obstacles.is_empty() { opening() } else { obstacles };
        }
        if tally.selected == 0 && tally.lost == 0 && self.missing(now).is_none() {
            return vec![Waiting::NoAgents];
        }
        let mut waiting = self.holding_back(rollout);
        if rollout.kind == Kind::Revert {
            // It is not held back, but neither does it end as long as nobody can tell what its agents suffer from.
            waiting.extend(self.outage());
        }
        if tally.eligible == 0 && tally.selected > 0 {
            waiting.push(Waiting::NobodyEligible { selected: tally.selected });
        }
        self.waiting_for_agents(&mut waiting);
        if let Some((missing, of, until)) = self.missing(now) {
            waiting.push(Waiting::TooManyMissing { missing, of, until });
        }
        if tally.candidate == Some(rollout.candidate) && self.is_complete() && !self.is_proven() {
            waiting.push(Waiting::NoProof);
        }
        match rollout.progress {
            Progress::Rolling if self.is_complete() => {
                waiting.extend(self.restless_until(now).map(|until| Waiting::Settling { until }));
            }
            Progress::Rolling if tally.cohort == 0 && tally.lost == 0 && tally.eligible > 0 => {
                waiting.push(Waiting::NoAgents);
            }
            Progress::Opening | Progress::Rolling | Progress::RollingBack { .. } | Progress::Failed { .. } => {}
            Progress::Soaking { watched } => waiting.extend(self.watching(self.stage().soak, watched, now, true)),
            Progress::Baking { watched } => {
                waiting.extend(self.watching(self.rules.strategy.bake, watched, now, false));
            }
        }
        if waiting.is_empty() {
            // A watch that is over ends with a steady group only.
            waiting.extend(self.restless_until(now).map(|until| Waiting::Settling { until }));
        }
        waiting
    }

    fn waiting_for_agents(&self, waiting: &mut Vec<Waiting>) {
        let tally = &self.tally;
        waiting.extend(self.waiting_for_room());
        if tally.unready > 0 {
            waiting.push(Waiting::Illness { agents: tally.unready });
        }
        if tally.offered > tally.excused {
            let agents = tally.offered - tally.excused;
            waiting.push(Waiting::Confirmation { agents, until: tally.decided_by.0 });
        }
        if tally.lost > 0 {
            waiting.push(Waiting::LostAgents { agents: tally.lost, until: tally.decided_by.1 });
        }
    }

    /// What a rollout waits for that does not introduce its candidate any more.
    fn waiting_after(&self, rollout: &RolloutRecord, now: Timestamp) -> Vec<Waiting> {
        match &rollout.progress {
            Progress::RollingBack { cause, .. } => {
                let left = self.tally.pending + self.tally.offered + self.tally.lost;
                let mut waiting = vec![Waiting::RollingBack { cause: cause.clone(), left }];
                waiting.extend(self.blocked(now).map(Waiting::Closed));
                self.waiting_for_agents(&mut waiting);
                waiting
            }
            Progress::Failed { cause, way_back } => {
                let nothing_stable = self.stable().is_none();
                let failed = Waiting::Failed { cause: cause.clone(), way_back: *way_back, nothing_stable };
                std::iter::once(failed).chain(self.blocked(now).map(Waiting::Closed)).collect()
            }
            Progress::Opening | Progress::Rolling | Progress::Soaking { .. } | Progress::Baking { .. } => Vec::new(),
        }
    }

    /// When a watch is over; when it stands still for agents that never came back after a restart: when they are forgotten.
    fn watched_until(&self, whole: Duration, watched: Duration, now: Timestamp) -> Option<Timestamp> {
        let forgotten = (self.absent(now) > 0).then(|| self.since + self.forget_after);
        let ends = self.watching_since.map(|since| since + whole.saturating_sub(watched));
        ends.map(|at| at.min(now + WATCH_INTERVAL)).or(forgotten)
    }

    /// Agents that would be offered something if enough of the others were available.
    fn waiting_for_room(&self) -> Option<Waiting> {
        let Tally { eligible, pending, unready, unavailable, assumed, assumed_until, outside, .. } = self.tally;
        let limit = budget::limit(self.rules.strategy.max_unavailable, eligible).min(self.record.room);
        let pending = (pending + outside.pending).saturating_sub(unready);
        let until = assumed_until.filter(|_| unavailable < limit + assumed);
        (pending > 0 && unavailable >= limit).then_some(Waiting::Budget { pending, unavailable, assumed, limit, until })
    }

    /// What the watch waits for; `None` when it was long enough, and agents are waited for.
    fn watching(&self, whole: Duration, watched: Duration, now: Timestamp, is_soak: bool) -> Option<Waiting> {
        if self.holds_back() {
            // What holds it back stops the watch as well, and is told already.
            return None;
        }
        let (connected, of) = self.watched_agents(now);
        let Some(since) = self.watching_since else {
            // Enough are connected: then something else is in the way, which is told.
            let is_enough = connected > 0 && connected * 10 >= of * 9;
            return (!is_enough).then_some(Waiting::NotWatching { connected, of });
        };
        let until = since + whole.saturating_sub(watched);
        (until > now).then_some(if is_soak { Waiting::Soak { until } } else { Waiting::Bake { until } })
    }
}
