//! Makes incidents of what is found at each look: when one begins, when it has ended, and what cannot be told at the moment.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::incident::find::{Clocks, Found, Limits, Seen, find, is_under_way, reason};
use crate::incident::{Commit, Incident, Part, Section, Severity, Situation, Topic};
use crate::time::Timestamp;
use crate::view::{FleetStatus, GroupStatus};

/// What stands for so long is an incident, and so is over what is gone for so long: a rollout that fails and is taken back at once is
/// told in one message, and what comes and goes in none.
pub const HOLD: Duration = Duration::from_secs(10);

/// After a start agents come back within this time, and what they reported before it counts as still true until then.
const WARM_UP: Duration = Duration::from_secs(60);

/// After a start the journal may have nothing to store: when nothing was said of it for so long, it works.
const QUIET_JOURNAL: Duration = Duration::from_secs(600);

/// Incidents at once. A critical one takes the place of the newest that is not; all others wait until one is over.
pub const MOST_INCIDENTS: usize = 100;

/// Further ones that concern no group in particular, of which there are few.
pub const MOST_OF_FLEET: usize = 20;

/// Groups in one incident. What is over makes room for what is not, and what is worse takes the place of what is less bad.
pub const MOST_SECTIONS: usize = 500;

/// Reasons for which a rollout stands still on somebody's order: what was wrong with it before is not over.
const CLOSED: [&str; 3] = ["frozen", "paused", "observing"];

/// An incident that is over is kept until everybody was told, and no longer than this.
const LONGEST_MEMORY: Duration = Duration::from_secs(7 * 86_400);

/// What is known of one part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tracked {
    part: Part,
    worst: Severity,
    since: Timestamp,
    /// When it was seen last; nothing that has to be remembered.
    #[serde(skip)]
    seen: Timestamp,
    /// True once it has stood for [`HOLD`]: before that it is nobody's business.
    stands: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended: Option<Timestamp>,
}

/// What is known of one incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Case {
    topic: Topic,
    subject: String,
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    commit: Option<Commit>,
    parts: BTreeMap<String, Tracked>,
}

impl Case {
    /// What it weighs when there is room for one of two: how bad it is now, nothing when it is over; whether anybody may have heard of it;
    /// and the older one more.
    fn weight(&self) -> (Option<Severity>, bool, std::cmp::Reverse<Timestamp>) {
        let severity = self.parts.values().filter_map(Tracked::severity).max();
        let since = self.parts.values().map(|tracked| tracked.since).min().unwrap_or_default();
        (severity, self.parts.values().any(|tracked| tracked.stands), std::cmp::Reverse(since))
    }

    fn is_critical(&self) -> bool {
        self.parts.values().any(|tracked| tracked.severity() == Some(Severity::Critical))
    }

    fn is_of_fleet(&self) -> bool {
        self.parts.contains_key("")
    }

    /// Makes room for another part, when it is worth it.
    fn make_room(&mut self, severity: Severity) {
        if self.parts.len() < MOST_SECTIONS {
            return;
        }
        let weight = |tracked: &Tracked| (tracked.severity(), tracked.stands, std::cmp::Reverse(tracked.since));
        let least = self.parts.iter().min_by_key(|(_, tracked)| weight(tracked));
        let least = least.filter(|(_, tracked)| tracked.severity() < Some(severity)).map(|(name, _)| name.clone());
        if let Some(least) = least {
            self.parts.remove(&least);
        }
    }
}

/// What has to be remembered so that a process which starts anew goes on with the same incidents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Memory(Vec<Case>);

/// Watches for incidents.
#[derive(Clone, Debug)]
pub struct Watch {
    instance: String,
    limits: Limits,
    started: Timestamp,
    clocks: Clocks,
    cases: Vec<Case>,
    left_out: usize,
}

impl Watch {
    /// Goes on where a memory ends; an empty one is a good beginning.
    pub fn new(instance: &str, limits: Limits, memory: Memory, now: Timestamp) -> Self {
        let mut clocks = Clocks::default();
        let mut cases = memory.0;
        cases.truncate(MOST_INCIDENTS + MOST_OF_FLEET);
        for case in &mut cases {
            for (group, tracked) in &mut case.parts {
                // Nobody looked meanwhile.
                tracked.seen = now;
                // The clock may have been another.
                tracked.since = tracked.since.min(now);
                tracked.ended = tracked.ended.map(|ended| ended.min(now));
                if let Some(mark) = tracked.part.mark.clone().filter(|_| tracked.ended.is_none()) {
                    clocks.resume(group, mark, &limits, now);
                }
            }
        }
        Self { instance: instance.to_owned(), limits, started: now, clocks, cases, left_out: 0 }
    }

    /// What has to be remembered.
    pub fn memory(&self) -> Memory {
        let is_known = |case: &&Case| case.parts.values().any(|tracked| tracked.stands);
        let mut cases: Vec<Case> = self.cases.iter().filter(is_known).cloned().collect();
        for tracked in cases.iter_mut().flat_map(|case| case.parts.values_mut()) {
            tracked.seen = Timestamp::default();
        }
        Memory(cases)
    }

    /// Takes a look.
    pub fn handle(&mut self, seen: &Seen<'_>) {
        let now = seen.status.now;
        self.clocks.handle(seen);
        self.left_out = 0;
        for found in find(seen, &self.clocks, &self.limits) {
            self.take(found, now);
        }
        let running = now.since(self.started);
        let held = held(seen.status);
        for case in &mut self.cases {
            let (topic, subject) = (case.topic, case.subject.as_str());
            case.parts.retain(|group, tracked| {
                if tracked.seen == now || tracked.ended.is_some() {
                    return true;
                }
                if !tracked.stands {
                    return false;
                }
                let is_held = topic == Topic::Rollout && held.get(group.as_str()) == Some(&subject);
                if is_held && is_about_progress(tracked.part.situation) || !is_over(topic, tracked, seen, running) {
                    tracked.seen = now;
                } else if now.since(tracked.seen) >= HOLD {
                    tracked.ended = Some(now);
                    tracked.part.ending = ending(topic, seen);
                }
                true
            });
        }
        self.cases.retain(|case| !case.parts.is_empty());
    }

    fn take(&mut self, found: Found, now: Timestamp) {
        let Found { topic, subject, group, commit, part } = found;
        let is_it = |case: &Case| case.topic == topic && case.subject == subject;
        let index = match self.cases.iter().position(is_it) {
            Some(index) => index,
            None if !self.make_room(group.is_empty(), part.severity) => {
                self.left_out += 1;
                return;
            }
            None => {
                let id = id(&self.instance, topic, &subject, now);
                self.cases.push(Case { topic, subject, id, commit: None, parts: BTreeMap::new() });
                self.cases.len() - 1
            }
        };
        let Some(case) = self.cases.get_mut(index) else { return };
        // What is known once stays known: a commit is forgotten by the fleet when a newer one has ended.
        if let Some(commit) = commit {
            let known = case.commit.get_or_insert_with(|| commit.clone());
            for (slot, value) in [(&mut known.subject, commit.subject), (&mut known.author, commit.author)] {
                if slot.is_empty() {
                    *slot = value;
                }
            }
        }
        if let Some(tracked) = case.parts.get_mut(&group) {
            tracked.update(part, now);
            return;
        }
        case.make_room(part.severity);
        if case.parts.len() < MOST_SECTIONS {
            let worst = part.severity;
            case.parts.insert(group, Tracked { part, worst, since: now, seen: now, stands: false, ended: None });
        } else {
            self.left_out += 1;
        }
    }

    /// True when there is room for another incident that is this bad, also because a lesser one had to go.
    fn make_room(&mut self, is_of_fleet: bool, severity: Severity) -> bool {
        let of_fleet = self.cases.iter().filter(|case| case.is_of_fleet()).count();
        if is_of_fleet {
            return of_fleet < MOST_OF_FLEET;
        }
        if self.cases.len() - of_fleet < MOST_INCIDENTS {
            return true;
        }
        // What is over gives way to what is critical alone: its end may not have been told.
        let is_lesser = |case: &Case| severity == Severity::Critical && !case.is_of_fleet() && !case.is_critical();
        let lesser = self.cases.iter().enumerate().filter(|(_, case)| is_lesser(case));
        let least = lesser.map(|(index, case)| (case.weight(), index)).min();
        least.map(|(_, index)| self.cases.remove(index)).is_some()
    }

    /// How much of the last look belongs to no incident, because there were too many.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// Everything that stands, or has ended and is not forgotten; the oldest first.
    pub fn incidents(&self) -> Vec<Incident> {
        let mut incidents: Vec<Incident> = self.cases.iter().filter_map(|case| self.incident(case)).collect();
        incidents.sort_by(|one, other| (one.since, &one.id).cmp(&(other.since, &other.id)));
        incidents
    }

    fn incident(&self, case: &Case) -> Option<Incident> {
        let standing = case.parts.iter().filter(|(_, tracked)| tracked.stands);
        let sections: BTreeMap<String, Section> =
            standing.map(|(group, tracked)| (group.clone(), tracked.section())).collect();
        let incident = Incident {
            id: case.id.clone(),
            instance: self.instance.clone(),
            topic: case.topic,
            commit: case.commit.clone(),
            since: Timestamp::default(),
            ended: None,
            sections,
        };
        incident.for_whom(Severity::Warning, |_| true)
    }

    /// Everybody was told that this one is over. True when it was there.
    pub fn forget(&mut self, id: &str) -> bool {
        let before = self.cases.len();
        self.cases.retain(|case| case.id != id || case.parts.values().any(|tracked| tracked.ended.is_none()));
        self.cases.len() < before
    }

    /// Incidents that have been over for so long that whoever was not told of their end never will be.
    pub fn outdated(&self, now: Timestamp) -> Vec<String> {
        let is_old = |incident: &Incident| incident.ended.is_some_and(|ended| now.since(ended) >= LONGEST_MEMORY);
        self.incidents().iter().filter(|incident| is_old(incident)).map(|incident| incident.id.clone()).collect()
    }
}

impl Tracked {
    /// How bad it is; `None` once it is over.
    fn severity(&self) -> Option<Severity> {
        self.ended.is_none().then_some(self.part.severity)
    }

    fn update(&mut self, mut part: Part, now: Timestamp) {
        if self.ended.take().is_some() {
            // It is back before everybody was told of its end.
            self.since = now;
        }
        // After a restart agents have to report again what failed.
        if part.failures.is_empty() && self.part.situation <= part.situation {
            part.failures = std::mem::take(&mut self.part.failures);
        }
        self.worst = self.worst.max(part.severity);
        self.part = part;
        self.seen = now;
        self.stands = self.stands || now.since(self.since) >= HOLD;
    }

    fn section(&self) -> Section {
        Section { part: self.part.clone(), worst: self.worst, since: self.since, ended: self.ended }
    }
}

/// The commits whose rollout stands still on somebody's order, by group.
fn held(status: &FleetStatus) -> BTreeMap<&str, &str> {
    let is_held =
        |group: &&GroupStatus| is_under_way(group.phase) && CLOSED.iter().any(|name| reason(group, name).is_some());
    status.groups.iter().filter(is_held).filter_map(|group| Some((group.name.as_str(), brought_by(group)?))).collect()
}

/// The id of the commit that brought what a group introduces.
fn brought_by(group: &GroupStatus) -> Option<&str> {
    let revision = group.brought_by.as_ref().or(group.revision.as_ref())?;
    revision.rsplit(':').next()
}

/// True for what is only seen while the rollout may go on.
fn is_about_progress(situation: Situation) -> bool {
    match situation {
        Situation::Outage | Situation::WaitsTooLong | Situation::UnexpectedAgents => true,
        Situation::AgentsFailing
        | Situation::RollingBack
        | Situation::RolledBack
        | Situation::RolloutFailed
        | Situation::Paused
        | Situation::Frozen
        | Situation::Guarded
        | Situation::Rejected
        | Situation::HeadRefused
        | Situation::SyncStale
        | Situation::JournalNotStored
        | Situation::JournalNotPushed => false,
    }
}

/// Why it is over, where that is not as the topic says.
fn ending(topic: Topic, seen: &Seen<'_>) -> Option<String> {
    (topic == Topic::Push && seen.status.journal.local_only)
        .then(|| "over: the remote is expected to take no notes any more, the journal stays on this disk".to_owned())
}

/// True when that it was not found shows that it is over; false when nobody can tell at the moment.
fn is_over(topic: Topic, tracked: &Tracked, seen: &Seen<'_>, running: Duration) -> bool {
    let (sync, journal) = (&seen.status.sync, &seen.status.journal);
    match topic {
        Topic::Sync => sync.last_success.is_some() && (sync.error.is_none() || sync.refused && !sync.unreachable),
        Topic::Head => sync.last_success.is_some() && !sync.refused,
        Topic::Files | Topic::Guard => seen.is_whole && sync.last_success.is_some(),
        Topic::Order => seen.is_whole,
        Topic::Rollout => {
            let needs_agents = matches!(tracked.part.situation, Situation::AgentsFailing | Situation::Outage);
            seen.is_whole && (!needs_agents || running >= WARM_UP)
        }
        Topic::Journal => {
            seen.is_whole && !journal.blocked && (journal.last_stored.is_some() || running >= QUIET_JOURNAL)
        }
        Topic::Push => {
            seen.is_whole && (journal.last_pushed.is_some() && journal.error.is_none() || journal.local_only)
        }
    }
}

/// The id of an incident: made of what it is about, so that a daemon that has lost its memory finds the same one. What can happen again and
/// again without a commit or an order that tells one time from another is told by when it began.
fn id(instance: &str, topic: Topic, subject: &str, now: Timestamp) -> String {
    let time = if subject.is_empty() { now.to_string() } else { String::new() };
    let mut digest = Sha256::new();
    for word in [instance, topic.name(), subject, &time] {
        digest.update((word.len() as u64).to_be_bytes());
        digest.update(word);
    }
    hex::encode(digest.finalize()).chars().take(16).collect()
}
