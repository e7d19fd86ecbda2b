//! Makes incidents of what is found at each look: when one begins, when it has ended, and what cannot be told at the moment.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::incident::find::{Clocks, Found, Limits, Seen, find};
use crate::incident::{Commit, Incident, Part, Section, Severity, Situation, Topic};
use crate::time::Timestamp;

/// What stands for so long is an incident, and so is over what is gone for so long: a rollout that fails and is taken back at once is
/// told in one message, and what comes and goes in none.
pub const HOLD: Duration = Duration::from_secs(10);

/// After a start agents come back within this time, and what they reported before it counts as still true until then.
const WARM_UP: Duration = Duration::from_secs(60);

/// After a start the journal may have nothing to store: when nothing was said of it for so long, it works.
const QUIET_JOURNAL: Duration = Duration::from_secs(600);

/// Incidents at once; further ones wait until one is over.
pub const MOST_INCIDENTS: usize = 100;

/// Groups in one incident; the others are left out.
pub const MOST_SECTIONS: usize = 500;

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
}

impl Watch {
    /// Goes on where a memory ends; an empty one is a good beginning.
    pub fn new(instance: &str, limits: Limits, memory: Memory, now: Timestamp) -> Self {
        let mut clocks = Clocks::default();
        let mut cases = memory.0;
        cases.truncate(MOST_INCIDENTS);
        for case in &mut cases {
            for (group, tracked) in &mut case.parts {
                // Nobody looked meanwhile.
                tracked.seen = now;
                if let Some(mark) = tracked.part.mark.clone().filter(|_| tracked.ended.is_none()) {
                    clocks.resume(group, mark, &limits, now);
                }
            }
        }
        Self { instance: instance.to_owned(), limits, started: now, clocks, cases }
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
        for found in find(seen, &self.clocks, &self.limits) {
            self.take(found, now);
        }
        let (started, status) = (self.started, seen.status);
        for case in &mut self.cases {
            let topic = case.topic;
            case.parts.retain(|_, tracked| {
                if tracked.seen == now || tracked.ended.is_some() {
                    return true;
                }
                if !tracked.stands {
                    return false;
                }
                if !is_over(topic, tracked, seen, status.now.since(started)) {
                    tracked.seen = now;
                } else if now.since(tracked.seen) >= HOLD {
                    tracked.ended = Some(now);
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
            None if self.cases.len() >= MOST_INCIDENTS => return,
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
        } else if case.parts.len() < MOST_SECTIONS {
            let worst = part.severity;
            case.parts.insert(group, Tracked { part, worst, since: now, seen: now, stands: false, ended: None });
        }
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

/// True when that it was not found shows that it is over; false when nobody can tell at the moment.
fn is_over(topic: Topic, tracked: &Tracked, seen: &Seen<'_>, running: Duration) -> bool {
    let (sync, journal) = (&seen.status.sync, &seen.status.journal);
    match topic {
        Topic::Sync => sync.last_success.is_some() && (sync.error.is_none() || sync.refused),
        Topic::Head => sync.last_success.is_some() && !sync.refused,
        Topic::Files | Topic::Guard => seen.is_whole && sync.last_success.is_some(),
        Topic::Order => seen.is_whole,
        Topic::Rollout => seen.is_whole && (tracked.part.situation != Situation::AgentsFailing || running >= WARM_UP),
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
