//! What a person can order of one group's rollouts. Every order is remembered in the record until it is taken back or over.

use crate::config::ConfigHash;
use crate::rollout::machine::{Machine, is_failed, is_stopped};
use crate::rollout::record::{Cause, Drawn, Kind, Pin, Progress, RolloutRecord, Said, Undone};
use crate::time::Timestamp;

/// Why an order is not carried out: a sentence that says what to do instead.
pub type Refused = &'static str;

impl Machine {
    /// Nothing new is offered until [`Machine::resume`]; what is out is watched on, and may still be rolled back.
    ///
    /// # Errors
    /// When no rollout runs, or it is paused already.
    pub fn pause(&mut self, said: Said) -> Result<(), Refused> {
        let rollout = self.record.rollout.as_mut().filter(|rollout| !is_stopped(rollout));
        let rollout =
            rollout.ok_or("no rollout is running: there is nothing to pause; `gitamp freeze` stops every offer")?;
        if rollout.kind == Kind::Revert {
            return Err("what goes back cannot be paused; `gitamp freeze` stops every offer");
        }
        if rollout.paused.is_some() {
            return Err("it is paused already; `gitamp resume` lets it go on");
        }
        rollout.paused = Some(said);
        self.unstored = true;
        Ok(())
    }

    /// Takes back a pause, a hold of the commit, or an undo.
    ///
    /// # Errors
    /// When there is nothing to take back.
    pub fn resume(&mut self, revision: &str, now: Timestamp) -> Result<(), Refused> {
        if let Some(undone) = self.record.undone.take() {
            self.unstored = true;
            let runs = self.record.rollout.is_some();
            let Some(wanted) = self.record.wanted.filter(|wanted| runs || Some(*wanted) != self.stable()) else {
                return Ok(());
            };
            if let Some(running) = self.record.rollout.take() {
                self.replace(&running, wanted);
            }
            // In stages also where that was stable before: somebody had a reason to go back behind it.
            let kind = if self.stable() == Some(wanted) { Kind::Revert } else { Kind::Forward };
            let again = fresh(wanted, undone.to, kind, revision, now);
            self.begin(RolloutRecord { held: undone.held, ..again }, now);
            return Ok(());
        }
        let rollout = self.record.rollout.as_mut().filter(|rollout| !is_stopped(rollout));
        let rollout =
            rollout.ok_or("no rollout is running that could go on; `gitamp retry` tries a failed one again")?;
        if rollout.paused.take().is_none() && rollout.held.take().is_none() {
            return Err("it is not paused; `gitamp status` tells what it waits for");
        }
        self.unstored = true;
        self.advance(now);
        Ok(())
    }

    /// Ends the rollout and takes its agents back to stable; its candidate counts as failed.
    ///
    /// # Errors
    /// When no rollout runs.
    pub fn abort(&mut self, said: Said, now: Timestamp) -> Result<(), Refused> {
        let rollout = self.rollout().filter(|rollout| !is_failed(rollout)).cloned();
        let rollout =
            rollout.ok_or("no rollout is running: there is nothing to abort; `gitamp undo` goes back further")?;
        if is_stopped(&rollout) {
            return Err("it is going back to stable already");
        }
        self.stop(&rollout, Cause::Aborted { said }, true, now);
        Ok(())
    }

    /// True when an end of the running rollout takes its agents back to something.
    pub fn goes_back_when_aborted(&self) -> bool {
        let has_somewhere = |rollout: &RolloutRecord| self.stable().is_some_and(|stable| stable != rollout.candidate);
        self.rollout().is_some_and(|rollout| rollout.kind == Kind::Forward && has_somewhere(rollout))
    }

    /// Tries what failed once more, from its first stage.
    ///
    /// # Errors
    /// When nothing failed.
    pub fn retry(&mut self, now: Timestamp) -> Result<(), Refused> {
        let failed = self.rollout().filter(|rollout| is_stopped(rollout)).cloned();
        let failed = failed.ok_or("nothing failed that could be tried again")?;
        if !is_failed(&failed) {
            return Err("its agents are still on their way back to stable: try again when that has ended");
        }
        self.record.retries += 1;
        let again = fresh(failed.candidate, failed.seed, failed.kind, &failed.revision, now);
        // What its commit asked for holds as before: only a person's word for that ends it.
        self.begin(RolloutRecord { retry: true, held: failed.held, ..again }, now);
        Ok(())
    }

    /// True when the rollout has not begun, and waits for groups that it depends on.
    pub fn waits_for_others(&self) -> bool {
        let may_wait =
            |rollout: &RolloutRecord| rollout.progress == Progress::Opening && rollout.stage == 0 && !rollout.alone;
        self.rollout().is_some_and(may_wait) && !self.prerequisites.is_empty()
    }

    /// A person's word for the stage that waits for it. `hurry`: what it waits for now is skipped, groups that it depends on first.
    ///
    /// # Errors
    /// When nothing waits for a word.
    pub fn promote(&mut self, hurry: bool, now: Timestamp) -> Result<(), Refused> {
        let (needs_approval, waits_for_others) = (self.stage().needs_approval, self.waits_for_others());
        let rollout = self.record.rollout.as_mut().filter(|rollout| !is_stopped(rollout));
        let rollout = rollout.ok_or("no rollout is running that waits for a word")?;
        let is_asked = rollout.progress == Progress::Opening && needs_approval && rollout.approved <= rollout.stage;
        if is_asked {
            rollout.approved = rollout.stage + 1;
        }
        if rollout.held.take().is_none() && !is_asked && !hurry {
            return Err(
                "nothing of it waits for approval; `--now` skips the wait that runs, `gitamp resume` ends a pause",
            );
        }
        if hurry && waits_for_others {
            // The wait for others is what is skipped: what it introduces is watched all the same.
            rollout.alone = true;
        } else {
            rollout.hurried |= hurry;
        }
        self.unstored = true;
        self.advance(now);
        Ok(())
    }

    /// Where [`Machine::undo`] goes when nothing is said: to stable while another configuration is on its way, else to the one before.
    pub fn undo_target(&self) -> Option<ConfigHash> {
        // What failed and was not taken back is still with some of the agents.
        let is_about = |rollout: &RolloutRecord| Some(rollout.candidate) != self.stable() && !self.is_rolled_back();
        let runs = self.rollout().is_some_and(is_about);
        self.record.stables.get(usize::from(!runs)).copied()
    }

    /// Goes back to a retained configuration, until a later commit changes the group or [`Machine::resume`].
    ///
    /// # Errors
    /// When it is no retained configuration, or what the group has already.
    pub fn undo(&mut self, to: ConfigHash, said: Said, revision: &str, now: Timestamp) -> Result<(), Refused> {
        if !self.record.stables.contains(&to) {
            return Err(
                "that configuration is not retained: the last three stable ones are; revert the commit instead",
            );
        }
        let running = self.record.rollout.take();
        if running.is_none() && self.stable() == Some(to) {
            return Err("the group has that configuration already");
        }
        if let Some(running) = &running {
            self.replace(running, to);
        }
        let before = self.record.undone.take().and_then(|undone| undone.held);
        let held = running.and_then(|running| running.held).or(before);
        self.record.undone = Some(Undone { to, said, held });
        self.begin(fresh(to, to, Kind::Revert, revision, now), now);
        Ok(())
    }

    /// A newer revision's wish that waited and does not come any more: only a change of it ends an undo.
    pub fn take_wish(&mut self, wanted: ConfigHash) {
        self.record.wanted = Some(wanted);
        self.unstored = true;
    }

    /// The group keeps what it has; only reverts and rollbacks reach it.
    pub fn pin(&mut self, pin: Pin) {
        self.record.pinned = Some(pin);
        self.unstored = true;
    }

    /// Ends the pin.
    ///
    /// # Errors
    /// When there is none.
    pub fn unpin(&mut self, now: Timestamp) -> Result<(), Refused> {
        self.record.pinned.take().ok_or("it is not pinned")?;
        self.unstored = true;
        self.advance(now);
        Ok(())
    }

    /// No offer of any kind leaves.
    ///
    /// # Errors
    /// When it is frozen already.
    pub fn freeze(&mut self, said: Said) -> Result<(), Refused> {
        if self.record.frozen.is_some() {
            return Err("it is frozen already");
        }
        self.record.frozen = Some(said);
        self.unstored = true;
        Ok(())
    }

    /// Offers may leave again.
    ///
    /// # Errors
    /// When it is not frozen.
    pub fn unfreeze(&mut self, now: Timestamp) -> Result<(), Refused> {
        self.record.frozen.take().ok_or("it is not frozen itself; the whole fleet may be: `gitamp unfreeze`")?;
        self.unstored = true;
        self.advance(now);
        Ok(())
    }
}

/// A rollout that has not begun.
pub(super) fn fresh(
    candidate: ConfigHash,
    seed: ConfigHash,
    kind: Kind,
    revision: &str,
    now: Timestamp,
) -> RolloutRecord {
    RolloutRecord {
        candidate,
        seed,
        kind,
        started: now,
        revision: revision.to_owned(),
        stage: 0,
        progress: Progress::Opening,
        drawn: Drawn::default(),
        size: 0,
        draws: 0,
        adds: true,
        introduced: false,
        replaced: 0,
        replaced_in: None,
        retry: false,
        approved: 0,
        hurried: false,
        alone: false,
        fast: false,
        held: None,
        paused: None,
        fell_together: false,
    }
}
