//! What stages need of the fleet around them: their agents, the groups they wait for, a person's word, and time that really passed.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::time::Duration;

use crate::controller::commits::GUARD;
use crate::controller::{Controller, GroupState, Guarded, Revision};
use crate::fleet::guards::{self, Extent};
use crate::fleet::snapshot::{CommitId, CommitInfo};
use crate::fleet::{GroupName, RenderedFleet, RenderedGroup};
use crate::time::{Timestamp, show_duration};
use crate::view::{CommitReport, Counts, GroupReport, WaitingOn};

/// A timer that is so late was not slept through by us: the process, or the machine, stood still.
const GAP: Duration = Duration::from_secs(60);

/// A revision that is held: why, and whom it concerns.
pub(super) struct Held {
    guarded: Guarded,
    groups: BTreeSet<GroupName>,
}

/// A group as it is and as a revision has it.
pub(super) struct Pair<'p> {
    /// Its name.
    pub(super) name: &'p GroupName,
    /// As it is; `None`: it is not there.
    pub(super) state: Option<&'p GroupState>,
    /// As the revision has it; `None`: it has no such group.
    pub(super) group: Option<&'p RenderedGroup>,
}

/// The groups that are new or gone or would get something else, and not something that they had.
fn groups_changed(pairs: &[Pair<'_>]) -> BTreeSet<GroupName> {
    let is_changed = |pair: &&Pair<'_>| {
        let Some(group) = pair.group else { return true };
        let Some(hash) = group.config.as_ref().map(|config| config.hash()) else { return false };
        let record = pair.state.map(|state| state.machine.record());
        record.is_none_or(|record| record.wanted != Some(hash) && !record.stables.contains(&hash))
    };
    pairs.iter().filter(is_changed).map(|pair| pair.name.clone()).collect()
}

impl Controller {
    /// Draws the agents of a stage that is about to open.
    pub(super) fn draw_stage(&mut self, name: &GroupName, now: Timestamp) {
        let Some(state) = self.groups.get_mut(name) else { return };
        if let Some(request) = state.machine.take_draw() {
            let opening = self.roster.draw(name, &request, now);
            if let Some(state) = self.groups.get_mut(name) {
                state.machine.open(opening, now);
            }
        }
    }

    /// Who waits for whom.
    pub(super) fn find_dependents(&mut self) {
        self.dependents.clear();
        for (name, state) in &self.groups {
            for wanted in &state.definition.strategy.depends_on {
                self.dependents.entry(wanted.clone()).or_default().insert(name.clone());
            }
        }
    }

    /// Which of the groups that `name` depends on have not finished what the accepted revision gives them, in words. `coming`: the
    /// revision that is being taken.
    pub(super) fn unfinished(&self, name: &GroupName, coming: Option<&RenderedFleet>) -> Vec<String> {
        let Some(state) = self.groups.get(name) else { return Vec::new() };
        let wanted = state.definition.strategy.depends_on.iter();
        wanted.filter_map(|other| self.is_unfinished(other, coming)).collect()
    }

    fn is_unfinished(&self, name: &GroupName, coming: Option<&RenderedFleet>) -> Option<String> {
        if self.rejected.contains(name) {
            return Some(format!("{name} is rejected in this revision"));
        }
        let Some(state) = self.groups.get(name) else { return Some(format!("{name} is not there")) };
        let machine = &state.machine;
        let config = coming.and_then(|fleet| fleet.groups.get(name)).and_then(|group| group.config.as_ref());
        let expected = config.map(|config| config.hash()).or(machine.record().wanted);
        let is_finished = expected.is_some() && machine.stable() == expected && machine.has_finished(&state.revision);
        let short = expected.map_or_else(|| "anything".to_owned(), |hash| hash.short());
        if is_finished && state.next.is_none() {
            return None;
        }
        let has_ended =
            machine.rollout().filter(|rollout| expected == Some(rollout.candidate) && !machine.is_running());
        Some(match has_ended {
            Some(_) if machine.has_failed_move() => {
                format!(
                    "{name} could not give {short} to agents that a commit moved there; `gitamp retry {name}` tries it again"
                )
            }
            Some(_) => format!("{name} has failed {short}; `gitamp retry {name}` tries it again"),
            None => {
                let why = machine.stands_still().map_or_else(String::new, |why| format!(": {why}"));
                format!("waits until {name} has finished {short}{why}")
            }
        })
    }

    /// Looks again at what a group waits for; true when that changed.
    pub(super) fn refresh_prerequisites(&mut self, name: &GroupName) -> bool {
        let unfinished = self.unfinished(name, None);
        self.groups.get_mut(name).is_some_and(|state| state.machine.set_prerequisites(unfinished))
    }

    /// A group changed: those that wait for it look again.
    pub(super) fn tell_dependents(&mut self, name: &GroupName, now: Timestamp) {
        for dependent in self.dependents.get(name).cloned().unwrap_or_default() {
            if self.refresh_prerequisites(&dependent) {
                if let Some(state) = self.groups.get_mut(&dependent) {
                    state.machine.handle_timeout(now);
                }
                self.after_machine(&dependent, now);
            }
        }
    }

    /// Every machine knows of a freeze of the whole fleet.
    pub(super) fn spread_freeze(&mut self) {
        let frozen = self.held_by_freeze();
        for state in self.groups.values_mut() {
            state.machine.set_fleet_frozen(frozen.clone());
        }
    }

    /// Whoever drives this comes back by then, whether or not anything is due: if not, it stood still.
    pub fn expect_back(&mut self, by: Timestamp) {
        self.back_by = Some(by);
    }

    /// When the process stood still, so did every deadline, soak and bake.
    pub(super) fn notice_gap(&mut self, now: Timestamp) {
        // What was told once is over: a timer that has not been looked after since is late for no other reason.
        let awake = self.awake.replace(now).unwrap_or(now);
        let due = self.poll_timeout().into_iter().chain(self.back_by.take()).min();
        let late = due.map(|due| now.since(due.max(awake)));
        let Some(gap) = late.filter(|late| *late > GAP) else { return };
        self.notice(
            None,
            true,
            format!("stood still for {}: deadlines and watches wait so much longer", show_duration(gap)),
        );
        // What agents said meanwhile still waits to be read: no deadline is over before that.
        let gap = gap + GAP;
        for state in self.groups.values_mut() {
            state.machine.handle_gap(gap, now);
        }
        self.roster.handle_gap(gap, now);
    }

    /// A revision that changes more than the policy lets pass without a person's word. What goes back to a retained configuration
    /// is never held back.
    pub(super) fn guard(&self, info: &CommitInfo, rewritten: Option<bool>, fleet: &RenderedFleet) -> Option<Held> {
        let is_known = self.promoted == Some(info.id) || self.accepted.as_ref().is_some_and(|one| one.id == info.id);
        if is_known || self.accepted.is_none() {
            return None;
        }
        let pairs = self.beside(fleet);
        let changed = groups_changed(&pairs);
        let of = pairs.len();
        let (moved, receivers) = self.moved_by(&pairs);
        // Who comes from a conflict, or from no group, is managed by none yet.
        let (moved_agents, agents) = (moved, self.roster.managed().max(moved));
        let extent = Extent { changed_groups: changed.len(), groups: of, moved_agents, agents };
        let reason = guards::needs_promotion(&fleet.judged_by, extent)?;
        let revision = Revision { info: info.clone(), rewritten, fleet: fleet.clone() };
        let guarded = Guarded { revision: Box::new(revision), reason };
        Some(Held { guarded, groups: changed.into_iter().chain(receivers).collect() })
    }

    /// Every group that there is and that the revision has, side by side, by name.
    pub(super) fn beside<'p>(&'p self, fleet: &'p RenderedFleet) -> Vec<Pair<'p>> {
        let mut pairs = Vec::with_capacity(fleet.groups.len());
        let (mut here, mut there) = (self.groups.iter().peekable(), fleet.groups.iter().peekable());
        loop {
            let order = match (here.peek(), there.peek()) {
                (None, None) => return pairs,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((one, _)), Some((other, _))) => one.cmp(other),
            };
            let state = if order.is_le() { here.next() } else { None };
            let group = if order.is_ge() { there.next() } else { None };
            let name = state.map(|(name, _)| name).or(group.map(|(name, _)| name));
            pairs.extend(name.map(|name| Pair {
                name,
                state: state.map(|(_, state)| state),
                group: group.map(|(_, group)| group),
            }));
        }
    }

    /// Keeps a revision until a person promotes its commit, or a newer one comes.
    pub(super) fn hold(&mut self, id: CommitId, held: Held, mut report: CommitReport, now: Timestamp) {
        let Held { guarded, groups } = held;
        let message = format!("{}; `gitamp promote {}` lets it go on", guarded.reason, &id.to_string()[..7]);
        let waiting = WaitingOn { reason: GUARD.to_owned(), message: message.clone(), agents: None, until: None };
        for name in groups {
            let config = guarded.revision.fleet.groups.get(&name).and_then(|group| group.config.as_ref());
            let machine = self.groups.get(&name).map(|state| &state.machine);
            let part = GroupReport {
                ending: None,
                stage: None,
                stable: machine.and_then(|machine| machine.stable()).map(|hash| hash.to_string()),
                candidate: config.map(|config| config.hash().to_string()),
                counts: Counts::default(),
                waiting_on: vec![waiting.clone()],
                failures: Vec::new(),
                diagnostics: Vec::new(),
                started_at: None,
                ended_at: None,
            };
            report.groups.insert(name.to_string(), part);
        }
        report.diagnostics.push(message.clone());
        self.notice(None, true, format!("{} is held: {message}", report.revision));
        self.guarded = Some(guarded);
        self.commits.supersede_held(id, now);
        self.commits.add(id, report, now);
        self.storage.news = true;
        self.flush(now);
    }
}
