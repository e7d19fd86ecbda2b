//! Persist, then speak: what is to be stored, what is under way, and what may be published once it is done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::agent::{AgentId, ConnectionId};
use crate::config::ConfigHash;
use crate::controller::record::{CommitFile, FailureFile, FleetFile, GroupFile, NextFile, VERSION};
use crate::controller::{Action, Content, Controller, Reported, Store};
use crate::fleet::GroupName;
use crate::fleet::snapshot::CommitId;
use crate::rollout::{Closed, Desired, MOST_REMEMBERED};
use crate::time::Timestamp;
use crate::view::CommitReport;

/// Counts in notes, watched time and memories of failures are stored so often at most.
pub(super) const LAZY_INTERVAL: Duration = Duration::from_secs(10);

/// Reports of running rollouts are brought up to date so often at most.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// After a failed store the next attempt is made after so long.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// What the journal refuses of one group is tried again after so long.
const REFUSED_INTERVAL: Duration = Duration::from_secs(60);

/// The fleet's file below `state/`.
pub(super) const FLEET_FILE: &str = "fleet.yaml";

/// The operators' orders below `state/`.
pub(super) const ORDERS_FILE: &str = "orders.yaml";

/// The file of a group below `state/`. `@` begins no directory of a fleet, so it can never be another group's folder.
pub(super) fn group_file(name: &GroupName) -> String {
    format!("groups/{name}/@record.yaml")
}

/// The group whose record this file of the journal's state is; `None`: it is something else's.
pub fn group_of_file(path: &str) -> Option<GroupName> {
    let name = path.strip_prefix("groups/")?.strip_suffix("/@record.yaml")?;
    Some(GroupName::new(name))
}

/// The file of a rendered body below `state/`.
pub(super) fn config_file(hash: ConfigHash) -> String {
    format!("configs/{hash}.yaml")
}

/// The file of an open commit below `state/`.
pub(super) fn commit_file(id: CommitId) -> String {
    format!("commits/{id}.yaml")
}

/// The commit whose file this is.
pub(super) fn commit_of_file(path: &str) -> Option<CommitId> {
    path.strip_prefix("commits/")?.strip_suffix(".yaml")?.parse().ok()
}

/// A store that is under way.
#[derive(Debug)]
struct InFlight {
    ticket: u64,
    groups: BTreeSet<GroupName>,
    beside: BTreeSet<GroupName>,
    ordered: Vec<String>,
    /// Orders that are in it, or were stored before.
    orders: u64,
    news: BTreeMap<CommitId, (Arc<CommitReport>, bool)>,
    forgotten: BTreeSet<CommitId>,
    configs: BTreeSet<ConfigHash>,
}

/// An agent that is to be told to restart, at most once: a process that dies meanwhile leaves a record in which it was.
#[derive(Debug)]
pub(super) struct Untold {
    /// The group whose record that is.
    pub group: GroupName,
    /// Where.
    pub connection: ConnectionId,
    /// Who.
    pub id: AgentId,
}

/// A group whose record the journal does not take, while it takes everything else.
#[derive(Debug)]
pub(super) struct Refused {
    /// Why.
    pub reason: String,
    /// When it is tried again.
    at: Timestamp,
}

/// How far the journal is with the orders that were given since this process started, refused ones included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OrdersKept {
    /// So many were given.
    pub given: u64,
    /// The first so many were tried to be stored; as long as this is above [`OrdersKept::stored`], the last attempt failed.
    pub tried: u64,
    /// The first so many are stored.
    pub stored: u64,
}

/// What is to be stored.
#[derive(Debug, Default)]
pub(super) struct Storage {
    /// Groups whose records allow more than the stored ones.
    pub urgent: BTreeSet<GroupName>,
    /// Groups whose records are out of date in what can wait.
    pub lazy: BTreeSet<GroupName>,
    /// Groups whose records go with orders about single agents. Nothing that they allow without these waits for that.
    pub beside: BTreeSet<GroupName>,
    /// Groups that are offered nothing, because the journal refuses just their records.
    pub refused: BTreeMap<GroupName, Refused>,
    /// Restarts that are to be told once the record is stored that no longer has them.
    pub untold: Vec<Untold>,
    /// Groups whose part in the reports may be out of date.
    pub touched: BTreeSet<GroupName>,
    refreshed: Option<Timestamp>,
    /// True when the fleet's file is out of date.
    pub fleet_changed: bool,
    /// Orders that the journal does not hold yet, for its history.
    pub ordered: Vec<String>,
    /// How many orders there were, and what became of their records.
    pub orders: OrdersKept,
    /// True when a note has more to tell than other counts.
    pub news: bool,
    /// Bodies that the journal holds.
    pub configs: BTreeSet<ConfigHash>,
    /// Bodies that it may hold as well: a store that failed may have been done all the same.
    litter: BTreeSet<ConfigHash>,
    in_flight: Option<InFlight>,
    tickets: u64,
    last: Option<Timestamp>,
    retry_at: Option<Timestamp>,
    due: Option<Timestamp>,
}

impl Storage {
    /// True while a store is under way or has to be repeated.
    pub(super) fn is_busy(&self) -> bool {
        self.in_flight.is_some() || self.retry_at.is_some()
    }

    /// True when what the group's record allows now is what the journal allows.
    pub(super) fn holds(&self, name: &GroupName) -> bool {
        let is_under_way = self.in_flight.as_ref().is_some_and(|in_flight| in_flight.groups.contains(name));
        !is_under_way && !self.urgent.contains(name) && !self.refused.contains_key(name)
    }

    /// Why the journal does not take the group's record, and is not asked to before some time has passed.
    pub(super) fn refusal(&self, name: &GroupName, now: Timestamp) -> Option<&str> {
        self.refused.get(name).filter(|refused| refused.at > now).map(|refused| refused.reason.as_str())
    }

    /// What the journal refused waits for its time, so that nothing else waits for it. Returns when that is.
    fn set_aside(&mut self, now: Timestamp) -> Option<Timestamp> {
        for (name, refused) in &self.refused {
            if refused.at > now {
                for names in [&mut self.urgent, &mut self.lazy, &mut self.beside] {
                    names.remove(name);
                }
            } else {
                self.urgent.insert(name.clone());
            }
        }
        self.refused.values().map(|refused| refused.at).filter(|at| *at > now).min()
    }

    /// When something is to be stored that waits for its time.
    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        if self.in_flight.is_some() { None } else { self.retry_at.or(self.due) }
    }
}

impl Controller {
    /// Stores what has to be stored, when its time has come and nothing is under way.
    pub(super) fn flush(&mut self, now: Timestamp) {
        if self.storage.in_flight.is_some() || self.storage.retry_at.is_some_and(|at| at > now) {
            return;
        }
        self.storage.retry_at = None;
        let refused_at = self.storage.set_aside(now);
        let refresh_due = self.storage.refreshed.map_or(now, |last| last + REFRESH_INTERVAL);
        if refresh_due <= now && !self.storage.touched.is_empty() {
            self.refresh_reports(now);
            self.storage.refreshed = Some(now);
        }
        let is_urgent = !self.storage.urgent.is_empty()
            || self.storage.fleet_changed
            || !self.storage.ordered.is_empty()
            || !self.storage.beside.is_empty()
            || self.storage.news
            || self.commits.has_ended();
        let is_lazy = !self.storage.lazy.is_empty() || self.commits.has_news();
        let lazy_at = is_lazy.then(|| self.storage.last.map_or(now, |last| last + LAZY_INTERVAL));
        let refresh_at = (!self.storage.touched.is_empty()).then_some(refresh_due);
        self.storage.due = lazy_at.into_iter().chain(refresh_at).chain(refused_at).min();
        if is_urgent || lazy_at.is_some_and(|at| at <= now) {
            self.store(now);
        }
    }

    fn store(&mut self, now: Timestamp) {
        self.storage.due = None;
        self.refresh_reports(now);
        let mut groups = std::mem::take(&mut self.storage.urgent);
        groups.append(&mut self.storage.lazy);
        let beside: BTreeSet<GroupName> =
            std::mem::take(&mut self.storage.beside).difference(&groups).cloned().collect();
        let mut files = BTreeMap::new();
        for name in groups.iter().chain(&beside) {
            let file = self.group_record(name, now).map(|file| Content::Group(Arc::new(file)));
            files.insert(group_file(name), file);
        }
        let configs = self.collect_configs(&mut files);
        // Who belongs to no group is no reason to store anything, and goes along with what is stored.
        if std::mem::take(&mut self.storage.fleet_changed) | self.roster.take_outsiders_changed() {
            let file = FleetFile {
                version: VERSION,
                commit: self.accepted.as_ref().map(CommitFile::from),
                refused: self.refused.map(|id| id.to_string()),
                policy: self.policy.as_ref().map(|policy| String::from_utf8_lossy(policy).into_owned()),
                frozen: self.frozen.clone(),
                pins: self.pins.iter().map(|(id, pin)| (id.to_string(), pin.clone())).collect(),
                rejected: self.rejected.iter().map(ToString::to_string).collect(),
                promoted: self.promoted.map(|id| id.to_string()),
                generations: self.earlier.file(),
                earlier: None,
                outsiders: self.roster.known_outsiders(now).map(|known| known.to_text()),
            };
            files.insert(FLEET_FILE.to_owned(), Some(Content::Fleet(Arc::new(file))));
        }
        let ordered = std::mem::take(&mut self.storage.ordered);
        if !ordered.is_empty() {
            files.insert(ORDERS_FILE.to_owned(), Some(Content::Orders(Arc::new(self.orders.clone()))));
        }
        self.storage.news = false;
        let news = self.commits.take_news();
        let forgotten = self.commits.take_forgotten();
        files.extend(forgotten.iter().map(|id| (commit_file(*id), None)));
        let mut notes = BTreeMap::new();
        for (id, (report, is_open)) in &news {
            let is_kept = *is_open || self.commits.is_kept(*id);
            notes.insert(*id, report.clone());
            files.insert(commit_file(*id), is_kept.then(|| Content::Commit(report.clone())));
        }
        self.storage.tickets += 1;
        let (ticket, message) = (self.storage.tickets, message(&ordered, &news, groups.len()));
        let orders = self.storage.orders.given;
        self.storage.in_flight = Some(InFlight { ticket, groups, beside, ordered, orders, news, forgotten, configs });
        self.storage.last = Some(now);
        self.actions.push_back(Action::Store(Store { ticket, message, notes, files }));
    }

    fn group_record(&self, name: &GroupName, now: Timestamp) -> Option<GroupFile> {
        let state = self.groups.get(name)?;
        let mut file = GroupFile::new(&state.revision, &state.definition, state.machine.record().clone());
        file.next = state.next.as_ref().map(|next| NextFile {
            wanted: next.plan.wanted,
            revision: next.revision.clone(),
            moved_in: next.plan.moved_in,
            hold: next.plan.hold.clone(),
            fast: next.plan.fast,
        });
        if state.machine.rollout().is_some() {
            file.layers = state.layers.iter().flat_map(|layers| layers.iter()).map(ToString::to_string).collect();
        }
        if let Some(group) = self.roster.group(name) {
            // What a person forgave is forgotten by the record that allows the other try.
            let is_retry = state.machine.record().retries > group.desired.retries;
            let forgiven = state.machine.rollout().map(|rollout| rollout.candidate).filter(|_| is_retry);
            let remembered =
                group.failures.iter().filter(|(id, failure)| Some(failure.hash) != forgiven && !self.is_forgiven(**id));
            // Where there are too many, what gates count is what a successor has to know.
            let (evidence, others): (Vec<_>, Vec<_>) = remembered.partition(|(_, failure)| failure.is_evidence());
            file.failures = evidence
                .into_iter()
                .chain(others)
                .take(MOST_REMEMBERED)
                .map(|(id, failure)| {
                    (
                        id.to_string(),
                        FailureFile {
                            hash: failure.hash,
                            message: failure.message.to_string(),
                            is_absent: failure.is_absent,
                            at: failure.at,
                        },
                    )
                })
                .collect();
            let forgiven = group.failures.iter().filter(|(id, _)| self.is_forgiven(**id));
            let retries = group.to_retry.iter().map(|(id, hash)| (*id, *hash));
            let retries = retries.chain(forgiven.map(|(id, failure)| (*id, failure.hash)));
            file.to_retry = retries.take(MOST_REMEMBERED).map(|(id, hash)| (id.to_string(), hash)).collect();
            let ordered = group.restarts.waiting.union(&group.restarts.to_come).copied();
            let restarts: BTreeSet<AgentId> = ordered.chain(self.restarts_to_store(name)).collect();
            file.restarts = restarts.iter().take(MOST_REMEMBERED).map(ToString::to_string).collect();
            // Who is claimed is told as soon as this is stored.
            file.restarts_told = group.restarts.told + group.restarts.claimed.len();
            let under_way = self.roster.under_way(group, now).into_iter().take(MOST_REMEMBERED);
            file.restarting = under_way.map(|(id, at)| (id.to_string(), at)).collect();
            file.members = Some(group.known(now).to_text());
            file.ill_before = group.ill.iter().take(MOST_REMEMBERED).map(ToString::to_string).collect();
        }
        Some(file)
    }

    /// Writes the bodies that became needed, removes those that are not needed any more, and returns what the journal then holds.
    fn collect_configs(&mut self, files: &mut BTreeMap<String, Option<Content>>) -> BTreeSet<ConfigHash> {
        let waiting = self.groups.values().filter_map(|state| state.next.as_ref()).map(|next| next.config.hash());
        let mut needed: Vec<ConfigHash> =
            self.groups.values().flat_map(|state| state.machine.needed()).chain(waiting).collect();
        needed.sort_unstable();
        needed.dedup();
        // Both are in order.
        let mut rest = needed.iter().peekable();
        self.configs.retain(|hash, _| {
            while rest.next_if(|one| *one < hash).is_some() {}
            rest.peek() == Some(&hash)
        });
        let needed: BTreeSet<ConfigHash> = needed.into_iter().collect();
        let (configs, stored) = (&self.configs, &self.storage.configs);
        files.extend(
            needed
                .difference(stored)
                .filter_map(|hash| Some((config_file(*hash), Some(Content::Config(configs.get(hash)?.clone()))))),
        );
        let litter = self.storage.litter.iter().filter(|hash| !needed.contains(hash));
        files.extend(stored.difference(&needed).chain(litter).map(|hash| (config_file(*hash), None)));
        self.configs.keys().copied().collect()
    }

    /// How far the journal is with the orders that were given.
    pub fn orders_kept(&self) -> OrdersKept {
        self.storage.orders
    }

    /// The store with this ticket is done: what it allows takes effect.
    pub fn handle_stored(&mut self, ticket: u64, now: Timestamp) {
        self.notice_gap(now);
        let Some(done) = self.storage.in_flight.take_if(|in_flight| in_flight.ticket == ticket) else { return };
        (self.storage.orders.tried, self.storage.orders.stored) = (done.orders, done.orders);
        self.storage.configs = done.configs;
        self.storage.litter.clear();
        for name in &done.groups {
            if self.storage.refused.remove(name).is_some() {
                self.notice(Some(name), false, "its record is stored again".to_owned());
            }
        }
        self.storage.set_aside(now);
        if self.commits.tells() && !done.news.is_empty() {
            let reports = done.news.into_iter().map(|(commit, (report, is_open))| Reported {
                commit,
                report: Arc::unwrap_or_clone(report),
                is_open,
            });
            self.actions.push_back(Action::Report(reports.collect()));
        }
        for name in &done.groups {
            // Where the record allows more by now, that is on its way. Otherwise what is desired now follows from what was stored,
            // and from the agents as they are now: what they forbade meanwhile stays forbidden.
            let state = self.groups.get(name).filter(|_| !self.storage.urgent.contains(name));
            if let Some(desired) = state.map(|state| state.machine.desired(now)) {
                self.publish(name, desired, now);
            }
        }
        self.tell_restarts(&done.groups, now);
        self.allow_stored(now);
        if self.storage.urgent.is_empty() {
            self.roster.resume();
        }
        self.settle(now);
        self.flush(now);
    }

    /// The records of these groups are stored: who is no longer among those to restart is told to.
    fn tell_restarts(&mut self, stored: &BTreeSet<GroupName>, now: Timestamp) {
        // A claim that came after the record was written is in the next one.
        let urgent = &self.storage.urgent;
        let (due, later): (Vec<Untold>, Vec<Untold>) = std::mem::take(&mut self.storage.untold)
            .into_iter()
            .partition(|one| stored.contains(&one.group) && !urgent.contains(&one.group));
        self.storage.untold = later;
        let mut ended = BTreeSet::new();
        for Untold { group, connection, id } in due {
            if self.roster.restart(&group, id, connection, now) {
                self.actions.push_back(Action::Restart { connection, id });
                ended.insert(group);
            }
        }
        for name in ended {
            let told =
                self.roster.group(&name).filter(|group| group.restarts.is_over()).map(|group| group.restarts.told);
            if let Some(told) = told {
                let agents = if told == 1 { "1 agent was".to_owned() } else { format!("all {told} agents were") };
                self.notice(Some(&name), false, format!("{agents} told to restart, as ordered"));
            }
        }
    }

    /// The store with this ticket failed: it is tried again, and until then no group whose record is out of date is offered anything.
    pub fn handle_store_failed(&mut self, ticket: u64, now: Timestamp) {
        self.notice_gap(now);
        let Some(failed) = self.storage.in_flight.take_if(|in_flight| in_flight.ticket == ticket) else { return };
        for name in &failed.groups {
            if let Some(group) = self.roster.group(name) {
                let closed = Desired { closed: Some(Closed::NotStored), ..group.desired.clone() };
                self.publish(name, closed, now);
            }
        }
        self.storage.orders.tried = failed.orders;
        self.storage.urgent.extend(failed.groups);
        self.storage.beside.extend(failed.beside);
        self.storage.ordered.splice(..0, failed.ordered);
        self.commits.give_back(failed.news);
        self.commits.give_back_forgotten(failed.forgotten);
        // Nobody knows whether it was done: what only one of the two states holds is neither relied on nor left behind.
        let (before, after) = (std::mem::take(&mut self.storage.configs), failed.configs);
        self.storage.litter.extend(before.symmetric_difference(&after));
        self.storage.configs = before.intersection(&after).copied().collect();
        self.storage.fleet_changed = true;
        self.storage.retry_at = Some(now + RETRY_INTERVAL);
        self.settle(now);
    }
}

impl Controller {
    /// The store with this ticket failed because of these files below `state/`; none of them: the journal as a whole cannot be written. Where
    /// they are records of groups, only those groups wait, and the rest is stored at once without them.
    pub fn handle_store_refused(&mut self, ticket: u64, files: &[String], reason: &str, now: Timestamp) {
        let names: Option<BTreeSet<GroupName>> = files.iter().map(|path| group_of_file(path)).collect();
        let is_it = self.storage.in_flight.as_ref().is_some_and(|in_flight| in_flight.ticket == ticket);
        self.handle_store_failed(ticket, now);
        let Some(names) = names.filter(|names| is_it && !names.is_empty()) else { return };
        for name in names {
            let refused = Refused { reason: reason.to_owned(), at: now + REFUSED_INTERVAL };
            if self.storage.refused.insert(name.clone(), refused).is_none() {
                let message = format!("nothing is offered here, its record cannot be stored: {reason}");
                self.notice(Some(&name), true, message);
            }
        }
        self.storage.retry_at = None;
        self.flush(now);
        if !self.storage.is_busy() {
            self.roster.resume();
            self.settle(now);
        }
    }
}

fn message(ordered: &[String], news: &BTreeMap<CommitId, (Arc<CommitReport>, bool)>, groups: usize) -> String {
    let mut parts = ordered.to_vec();
    let endings = news.values().take(3).map(|(report, _)| match report.ending {
        Some(ending) => format!("{}: {ending}", report.revision),
        None => format!("{}: running", report.revision),
    });
    parts.extend(endings);
    if parts.is_empty() {
        parts.push(if groups == 1 { "1 group".to_owned() } else { format!("{groups} groups") });
    }
    format!("gitamp: {}", parts.join(", "))
}
