//! Whether an operator may give an order, and what the journal keeps of commands that come to nothing.

use std::time::Duration;

use crate::controller::Controller;
use crate::controller::orders::Target;
use crate::controller::record::{OrderEntry, Remark};
use crate::fleet::GroupName;
use crate::time::Timestamp;
use crate::view::command::{Command, Impact, Order, Refusal};
use crate::view::operator::{Operator, Role};

/// Lines of one kind (refusals, syncs) that the journal takes in within [`WINDOW`]; others are counted.
pub(super) const MOST_LINES: u32 = 10;

/// The length of time that [`MOST_LINES`] is about.
pub(super) const WINDOW: Duration = Duration::from_secs(60);

/// Lines that are no orders and that the journal keeps beside its own history.
const MOST_REMARKS: usize = 100;

/// Lines in the journal that whoever repeats a command could otherwise make as many of as they like.
#[derive(Debug)]
pub(super) struct Bounded {
    /// What is counted, in the plural.
    what: &'static str,
    began: Timestamp,
    taken: u32,
    omitted: u64,
}

impl Bounded {
    pub(super) const fn new(what: &'static str) -> Self {
        Self { what, began: Timestamp::from_millis(0), taken: 0, omitted: 0 }
    }

    /// True when one more may stand there by itself; otherwise it is counted.
    fn takes(&mut self, now: Timestamp) -> bool {
        if now.since(self.began) >= WINDOW {
            (self.began, self.taken) = (now, 0);
        }
        let takes = self.taken < MOST_LINES;
        if takes {
            self.taken += 1;
        } else {
            self.omitted += 1;
        }
        takes
    }

    /// When there is something to be told of those that were counted.
    fn due(&self) -> Option<Timestamp> {
        (self.omitted > 0).then(|| self.began + WINDOW)
    }

    /// The line about those that were counted, once their time is over.
    fn poll(&mut self, now: Timestamp) -> Option<String> {
        self.due().filter(|due| *due <= now)?;
        let omitted = std::mem::take(&mut self.omitted);
        Some(format!("{omitted} more {} since {}, not recorded one by one", self.what, self.began))
    }
}

impl Controller {
    /// Carries out an order of this operator, and has it recorded in the journal, refused or not. At most ten refusals a minute are recorded
    /// one by one, and others counted: nobody fills a repository by asking for what is refused.
    ///
    /// # Errors
    /// When they may not give it, or it cannot be carried out; then nothing was changed.
    pub fn handle_order_of(&mut self, order: &Order, who: &Operator, now: Timestamp) -> Result<Impact, Refusal> {
        match self.permits(&order.command, who) {
            Ok(()) => self.handle_order(order, now),
            Err(denied) => {
                self.notice_gap(now);
                self.record(order, Err(&denied), now);
                self.settle(now);
                self.flush(now);
                Err(denied)
            }
        }
    }

    /// A sync that an operator asked for: it stands in the journal's history.
    ///
    /// # Errors
    /// When they may not ask for it.
    pub fn handle_sync_of(&mut self, who: &Operator, now: Timestamp) -> Result<(), Refusal> {
        self.notice_gap(now);
        let outcome = check_role(who, Role::Operate, "sync");
        let (bound, line) = match &outcome {
            Ok(()) => (&mut self.syncs, format!("sync by {}", who.by)),
            Err(refusal) => (&mut self.refusals, format!("sync by {}: refused: {}", who.by, refusal.message)),
        };
        if bound.takes(now) {
            self.remark(line, now);
        }
        self.settle(now);
        self.flush(now);
        outcome
    }

    /// Has an order and what came of it recorded.
    pub(super) fn record(&mut self, order: &Order, outcome: Result<&Impact, &Refusal>, now: Timestamp) {
        if outcome.is_err() && !self.refusals.takes(now) {
            return;
        }
        let result = match outcome {
            Ok(impact) => impact.effects.join("; "),
            Err(refusal) => format!("refused: {}", refusal.message),
        };
        let reason = order.reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
        self.tell(format!("{} by {}{reason}: {result}", order.command.name(), order.by));
        self.storage.orders.given += 1;
        self.keep_order(OrderEntry { order: order.clone(), result });
    }

    /// A line for the log and for the journal's history.
    fn tell(&mut self, line: String) {
        self.notice(None, false, line.clone());
        self.storage.ordered.push(line);
    }

    /// The same, and among the newest lines that are no orders: a store that changes no file would leave no trace.
    fn remark(&mut self, what: String, now: Timestamp) {
        self.tell(what.clone());
        self.orders.remarks.push(Remark { at: now, what });
        let superfluous = self.orders.remarks.len().saturating_sub(MOST_REMARKS);
        self.orders.remarks.drain(..superfluous);
    }

    /// When something is to be told of what was counted only.
    pub(super) fn audit_timeout(&self) -> Option<Timestamp> {
        self.refusals.due().into_iter().chain(self.syncs.due()).min()
    }

    /// Tells of what was counted only, once its time is over.
    pub(super) fn tell_omitted(&mut self, now: Timestamp) {
        let lines = [self.refusals.poll(now), self.syncs.poll(now)];
        for line in lines.into_iter().flatten() {
            self.remark(line, now);
        }
    }

    /// Whether this operator may give this command now.
    ///
    /// # Errors
    /// With the reason why not.
    fn permits(&self, command: &Command, who: &Operator) -> Result<(), Refusal> {
        let releases = self.releases(command);
        let needed = if releases.is_some() { Role::Approve } else { command.needs() };
        check_role(who, needed, command.name())?;
        let Some(groups) = releases.filter(|_| !who.approves_own) else { return Ok(()) };
        if who.email.is_none() {
            return Err(Refusal::forbidden(format!(
                "{} has no e-mail address, so that nobody knows whether this is an own commit, which others have to approve",
                who.by
            )));
        }
        for (what, people) in groups {
            let Some(people) = people else {
                return Err(Refusal::forbidden(format!(
                    "it is not known any more who wrote what {what} waits with: approve it on the daemon's machine"
                )));
            };
            if who.is_one_of(people.iter().map(String::as_str)) {
                return Err(Refusal::forbidden(format!(
                    "{} wrote or committed what {what} waits with, and nobody approves an own commit here",
                    who.by
                )));
            }
        }
        Ok(())
    }

    /// What this command would let go on that waits for a person's word, each with who wrote and who committed it, where that is known.
    /// `None`: the command approves nothing.
    fn releases(&self, command: &Command) -> Option<Vec<(String, Option<Vec<String>>)>> {
        let of_groups = |names: &[GroupName]| {
            let group = |name: &GroupName| {
                let state = self.groups.get(name)?;
                let rollout = state.machine.rollout()?;
                Some((name.to_string(), self.commits.people(&rollout.revision)))
            };
            names.iter().filter_map(group).collect()
        };
        match command {
            Command::Promote { target, now: _ } => Some(match self.promoted_by(target) {
                Ok(Target::Groups(names)) => of_groups(&names),
                Ok(Target::Guarded) => {
                    let info = self.guarded.as_ref().map(|guarded| &guarded.revision.info);
                    let people = info.map(|info| vec![info.author.clone(), info.committer.clone()]);
                    vec![(format!("commit {target}"), people)]
                }
                // It approves nothing, and is refused for what it is.
                Ok(Target::Undo(_) | Target::Fleet | Target::Agent(_) | Target::Retry(..) | Target::Restart(..))
                | Err(_) => Vec::new(),
            }),
            Command::Resume { group } => {
                let name = GroupName::new(group.as_str());
                let record = self.groups.get(&name)?.machine.record();
                let rollout = record.rollout.as_ref().filter(|_| record.undone.is_none())?;
                let is_held = rollout.held.is_some() && rollout.paused.is_none();
                is_held.then(|| of_groups(&[name]))
            }
            Command::Pause { .. }
            | Command::Abort { .. }
            | Command::Retry { .. }
            | Command::Undo { .. }
            | Command::UndoSince { .. }
            | Command::Pin { .. }
            | Command::Unpin { .. }
            | Command::Restart { .. }
            | Command::Freeze { .. }
            | Command::Unfreeze { .. } => None,
        }
    }
}

fn check_role(who: &Operator, needed: Role, what: &str) -> Result<(), Refusal> {
    if who.role >= needed {
        return Ok(());
    }
    let (needed, own) = (needed.name(), who.role.name());
    Err(Refusal::forbidden(format!("{what} needs the role {needed}, and {} has the role {own}", who.by)))
}

#[cfg(test)]
#[path = "operators_tests.rs"]
mod tests;
