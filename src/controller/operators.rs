//! Whether an operator may give an order, and what the journal keeps of commands that come to nothing.

use std::sync::Arc;
use std::time::Duration;

use crate::controller::orders::{Target, commit_of};
use crate::controller::record::{OrderEntry, Remark};
use crate::controller::{Controller, Guarded};
use crate::fleet::GroupName;
use crate::fleet::snapshot::CommitId;
use crate::rollout::record::Kind;
use crate::time::Timestamp;
use crate::view::command::{Command, Impact, Order, Refusal};
use crate::view::operator::{Attempt, Authors, Operator, Range, Role};

/// Lines of one kind (refusals, syncs) that the journal takes in within [`WINDOW`]; others are counted.
pub(super) const MOST_LINES: u32 = 10;

/// The length of time that [`MOST_LINES`] is about.
pub(super) const WINDOW: Duration = Duration::from_secs(60);

/// The same for what strangers try, who have more patience than operators.
const MOST_ATTEMPTS: u32 = 3;

/// The length of time that [`MOST_ATTEMPTS`] is about: a stranger who tries for a year writes 35,000 lines.
const WINDOW_OF_ATTEMPTS: Duration = Duration::from_secs(3_600);

/// Lines that are no orders and that the journal keeps beside its own history.
const MOST_REMARKS: usize = 100;

/// Lines in the journal that whoever repeats a command could otherwise make as many of as they like.
#[derive(Debug)]
pub(super) struct Bounded {
    /// What is counted, in the plural.
    what: &'static str,
    most: u32,
    window: Duration,
    began: Timestamp,
    taken: u32,
    omitted: u64,
}

impl Bounded {
    /// Of operators.
    pub(super) const fn new(what: &'static str) -> Self {
        Self { what, most: MOST_LINES, window: WINDOW, began: Timestamp::from_millis(0), taken: 0, omitted: 0 }
    }

    /// Of strangers.
    pub(super) const fn of_strangers(what: &'static str) -> Self {
        Self { most: MOST_ATTEMPTS, window: WINDOW_OF_ATTEMPTS, ..Self::new(what) }
    }

    /// True when one more may stand there by itself; otherwise it is counted.
    fn takes(&mut self, now: Timestamp) -> bool {
        if now.since(self.began) >= self.window {
            (self.began, self.taken) = (now, 0);
        }
        let takes = self.taken < self.most;
        if takes {
            self.taken += 1;
        } else {
            self.omitted += 1;
        }
        takes
    }

    /// When there is something to be told of those that were counted.
    fn due(&self) -> Option<Timestamp> {
        (self.omitted > 0).then(|| self.began + self.window)
    }

    /// The line about those that were counted, once their time is over.
    fn poll(&mut self, now: Timestamp) -> Option<String> {
        self.due().filter(|due| *due <= now)?;
        let omitted = std::mem::take(&mut self.omitted);
        Some(format!("{omitted} more {} since {}, not recorded one by one", self.what, self.began))
    }
}

impl Controller {
    /// Carries out an order of this operator, and has it recorded in the journal, refused or not. `authors` answer [`Controller::ranges`]. At most ten refusals a minute are recorded
    /// one by one, and others counted: nobody fills a repository by asking for what is refused.
    ///
    /// # Errors
    /// When they may not give it, or it cannot be carried out; then nothing was changed.
    pub fn handle_order_of(
        &mut self,
        order: &Order,
        who: &Operator,
        authors: &Authors,
        now: Timestamp,
    ) -> Result<Impact, Refusal> {
        match self.permits(&order.command, who, authors) {
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

    /// Has an order of this operator that was refused when it was tried recorded in the journal, within the same bounds as other refusals. Nothing is ever
    /// carried out, also where it would be possible by now: nobody has been shown what it would do.
    ///
    /// Returns why it is refused now.
    pub fn handle_refused_of(&mut self, order: &Order, who: &Operator, now: Timestamp) -> Refusal {
        self.notice_gap(now);
        let command = &order.command;
        let role = check_role(who, needed(command, self.releases(command).is_some()), command.name());
        let refusal = match role.and_then(|()| self.preview(command, now)) {
            Err(refusal) => refusal,
            Ok(_) => Refusal::new("it can be done by now: look, and give the order again"),
        };
        self.record(order, Err(&refusal), now);
        self.settle(now);
        self.flush(now);
        refusal
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

    /// Somebody tried what only others may; at most three lines an hour of each kind are recorded one by one, and others counted. The line
    /// is fit to be shown.
    pub fn handle_attempt(&mut self, kind: Attempt, line: String, now: Timestamp) {
        self.notice_gap(now);
        let bound = match kind {
            Attempt::Command => &mut self.uninvited,
            Attempt::Identity => &mut self.impostors,
        };
        if bound.takes(now) {
            self.remark(line, now);
        }
        self.settle(now);
        self.flush(now);
    }

    /// Has an order and what came of it recorded.
    pub(super) fn record(&mut self, order: &Order, outcome: Result<&Impact, &Refusal>, now: Timestamp) {
        if outcome.is_err() && !self.refusals.takes(now) {
            return;
        }
        let result = match outcome {
            Ok(impact) => {
                let unstored = impact.unstored.as_ref().map_or("", |_| "; its record is refused by the journal");
                impact.effects.join("; ") + unstored
            }
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
        [&self.refusals, &self.syncs, &self.uninvited, &self.impostors].into_iter().filter_map(Bounded::due).min()
    }

    /// Tells of what was counted only, once its time is over.
    pub(super) fn tell_omitted(&mut self, now: Timestamp) {
        let counted = [&mut self.refusals, &mut self.syncs, &mut self.uninvited, &mut self.impostors];
        for line in counted.map(|bounded| bounded.poll(now)).into_iter().flatten() {
            self.remark(line, now);
        }
    }

    /// What has to be found out before this operator may give this command: whose commits it would let through. Empty when nothing has.
    pub fn ranges(&self, command: &Command, who: &Operator) -> Vec<Range> {
        if who.approves_own || who.role < Role::Approve || who.email.is_none() {
            return Vec::new();
        }
        self.releases(command).into_iter().flatten().flat_map(|(_, ranges)| ranges).collect()
    }

    /// Whether this operator may give this command now, as far as `authors` tell whose commits it lets through.
    ///
    /// # Errors
    /// With the reason why not.
    fn permits(&self, command: &Command, who: &Operator, authors: &Authors) -> Result<(), Refusal> {
        let releases = self.releases(command);
        check_role(who, needed(command, releases.is_some()), command.name())?;
        let Some(released) = releases.filter(|_| !who.approves_own) else { return Ok(()) };
        if who.email.is_none() {
            return Err(Refusal::forbidden(format!(
                "{} has no e-mail address (or none that the issuer has verified), so that nobody knows whether this is an own commit, which \
                 others have to approve",
                who.by
            )));
        }
        for (what, ranges) in released {
            for range in ranges {
                match authors.get(&range) {
                    Some(Ok(people)) if who.is_one_of(people.iter().map(String::as_str)) => {
                        return Err(Refusal::forbidden(format!(
                            "{} wrote or committed a part of what {what} waits with, and nobody approves an own commit here",
                            who.by
                        )));
                    }
                    Some(Ok(_)) => {}
                    Some(Err(reason)) => {
                        return Err(Refusal::forbidden(format!(
                            "it is not known who wrote what {what} waits with ({reason}): approve it on the daemon's machine"
                        )));
                    }
                    None => {
                        return Err(Refusal::new(format!(
                            "{what} waits with something else meanwhile: look, and give the order again"
                        )));
                    }
                }
            }
        }
        Ok(())
    }

    /// What this command would let go on that waits for a person's word, each with the commits that it brings. `None`: the command approves
    /// nothing.
    fn releases(&self, command: &Command) -> Option<Vec<(String, Vec<Range>)>> {
        let of_groups = |names: &[GroupName]| {
            let group = |name: &GroupName| Some((name.to_string(), self.brought(name)?));
            names.iter().filter_map(group).collect()
        };
        match command {
            Command::Promote { target, now: _ } => Some(match self.promoted_by(target) {
                Ok(Target::Groups(names)) => of_groups(&names),
                Ok(Target::Guarded) => {
                    let since = self.accepted.as_ref().map(|accepted| accepted.id);
                    let range = |guarded: &Guarded| Range { since, head: guarded.revision.info.id, paths: Vec::new() };
                    vec![(format!("commit {target}"), self.guarded.iter().map(range).collect())]
                }
                // It approves nothing, and is refused for what it is.
                Ok(Target::Undo(..) | Target::Fleet | Target::Agent(_) | Target::Retry(..) | Target::Restart(..))
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

    /// The commits that lie between what a group runs for good and what its rollout brings, as far as they touch its files. `None`: it has no
    /// rollout.
    fn brought(&self, name: &GroupName) -> Option<Vec<Range>> {
        let state = self.groups.get(name)?;
        let rollout = state.machine.rollout()?;
        let head = commit_of(&rollout.revision).and_then(|commit| commit.parse().ok())?;
        let paths = files_of(name, state.layers.as_deref());
        let promoted = state.machine.stable().and_then(|stable| state.machine.record().promoted.get(&stable));
        let since = promoted.and_then(|promoted| promoted.times().next());
        let since = since.and_then(|(_, revision)| commit_of(revision)?.parse::<CommitId>().ok());
        if since.is_some() {
            // Who moved agents here need not have touched the group's own files.
            let moved = self.commits.before(&rollout.revision).filter(|_| rollout.kind == Kind::Move);
            let moved = moved.map(|since| Range { since: Some(since), head, paths: Vec::new() });
            return Some([Range { since, head, paths }].into_iter().chain(moved).collect());
        }
        // Its first: all that was ever written in its own directory, and of what it shares with others what came with it.
        let own = paths.first().cloned().into_iter().collect();
        let shared = self.commits.before(&rollout.revision).map(|since| Range { since: Some(since), head, paths });
        Some([Range { since: None, head, paths: own }].into_iter().chain(shared).collect())
    }
}

/// The files that say what a group runs: its directory first, the defaults above it, and its layers elsewhere. Empty, which is everything,
/// when nobody knows its layers.
fn files_of(name: &GroupName, layers: Option<&[Arc<str>]>) -> Vec<Arc<str>> {
    let Some(layers) = layers else { return Vec::new() };
    let directory = name.as_str().split('@').next().unwrap_or_default();
    let above = directory.match_indices('/').map(|(at, _)| Arc::from(format!("{}/defaults.yaml", &directory[..at])));
    let is_elsewhere = |path: &&Arc<str>| path.strip_prefix(directory).is_none_or(|rest| !rest.starts_with('/'));
    [Arc::from(directory), Arc::from("defaults.yaml")]
        .into_iter()
        .chain(above)
        .chain(layers.iter().filter(is_elsewhere).cloned())
        .collect()
}

/// The role for this command, which may let something go on that waits for a person's word.
fn needed(command: &Command, releases_something: bool) -> Role {
    if releases_something { Role::Approve } else { command.needs() }
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
