//! What one receiver is told next, and when: what there is to tell against what it took last. Latest wins; nothing is queued.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::incident::{Incident, Severity, Situation, words};
use crate::time::Timestamp;

/// Two messages about an incident that only became another, not worse, are at least so far apart.
pub const UPDATE_PAUSE: Duration = Duration::from_secs(300);

/// Between two messages: chats take about one a second.
const LEAST_PAUSE: Duration = Duration::from_secs(1);

/// After the first failure.
pub const FIRST_RETRY: Duration = Duration::from_secs(5);

/// Between two tries while nothing works.
pub const LONGEST_RETRY: Duration = Duration::from_secs(300);

/// How often a receiver may refuse one message before it is left out.
const MOST_REFUSALS: u32 = 5;

/// Why a message is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// It is new.
    Opened,
    /// It has become another.
    Updated,
    /// It is as it was: only for receivers that forget.
    Repeated,
    /// It is over.
    Resolved,
}

impl Event {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Updated => "updated",
            Self::Repeated => "repeated",
            Self::Resolved => "resolved",
        }
    }
}

/// What of an incident is worth another message when it changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Gist {
    severity: Severity,
    /// By group, while it has not ended there.
    situations: BTreeMap<String, Situation>,
    /// The digits of the number of agents that failed.
    magnitude: usize,
    /// How agents failed.
    clusters: BTreeSet<String>,
}

impl Gist {
    fn of(incident: &Incident) -> Self {
        let failed: usize = incident.sections.values().map(words::failed).sum();
        let open = incident.sections.iter().filter(|(_, section)| section.ended.is_none());
        let clusters = incident.sections.values().flat_map(|section| &section.part.failures);
        Self {
            severity: incident.severity(),
            situations: open.map(|(name, section)| (name.clone(), section.part.situation)).collect(),
            magnitude: failed.checked_ilog10().map_or(0, |digits| digits as usize + 1),
            clusters: clusters.map(|cluster| cluster.message.clone()).collect(),
        }
    }

    /// True when this is worth another message to somebody who knows `before`.
    fn is_news_after(&self, before: &Self) -> bool {
        self.severity != before.severity
            || self.situations != before.situations
            || self.magnitude > before.magnitude
            || !self.clusters.is_subset(&before.clusters)
    }
}

/// What a receiver took of one incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Told {
    gist: Gist,
    /// Since when it stood in what was told: one that came back after its end is a new one.
    since: Timestamp,
    at: Timestamp,
    /// Messages so far.
    sequence: u32,
    is_over: bool,
    /// The groups that were named, with the severity they were named with.
    named: BTreeMap<String, Severity>,
}

/// What a receiver took, by incident.
pub type Memory = BTreeMap<String, Told>;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Why it is sent.
    pub event: Event,
    /// What about.
    pub incident: Incident,
    /// Counts the messages about this incident to this receiver, from 1; a try that failed is not counted.
    pub sequence: u32,
    /// The groups that the message before named, with the severity then.
    pub named: BTreeMap<String, Severity>,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Send this, and then say how it went.
    Send(Box<Delivery>),
    /// Nothing before this.
    At(Timestamp),
    /// Nothing.
    Idle,
}

/// What came of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It took it.
    Taken,
    /// It wants nothing before this time has passed.
    Later(Duration),
    /// It does not work, at the moment or before a person did something.
    Failed,
    /// Not this one; others it may take.
    Refused,
}

/// One receiver.
#[derive(Debug)]
pub struct Desk {
    /// How often it has to hear of what has not ended; `None`: it remembers.
    repeat: Option<Duration>,
    told: Memory,
    refusals: BTreeMap<String, u32>,
    not_before: Timestamp,
    failures: u32,
}

impl Desk {
    /// Goes on with what the receiver took before.
    pub fn new(repeat: Option<Duration>, told: Memory) -> Self {
        Self { repeat, told, refusals: BTreeMap::new(), not_before: Timestamp::default(), failures: 0 }
    }

    /// What the receiver took.
    pub fn memory(&self) -> &Memory {
        &self.told
    }

    /// What to do now about these incidents, which are those that concern the receiver. What ended comes first: it is the shortest to tell.
    pub fn next(&self, incidents: &[Incident], now: Timestamp) -> Next {
        let mut later: Option<Timestamp> = None;
        let mut due: Option<(Timestamp, Event, &Incident)> = None;
        for incident in incidents {
            let Some((at, event)) = self.due(incident) else { continue };
            let at = at.max(self.not_before);
            if at > now {
                later = Some(later.map_or(at, |later| later.min(at)));
            } else if due.as_ref().is_none_or(|(best, ..)| at < *best) {
                due = Some((at, event, incident));
            }
        }
        match (due, later) {
            (Some((_, event, incident)), _) => {
                let told = self.told.get(&incident.id);
                Next::Send(Box::new(Delivery {
                    event,
                    incident: incident.clone(),
                    sequence: told.map_or(1, |told| told.sequence.saturating_add(1)),
                    named: told.map(|told| told.named.clone()).unwrap_or_default(),
                }))
            }
            (None, Some(at)) => Next::At(at),
            (None, None) => Next::Idle,
        }
    }

    /// When there is something to tell of an incident, and what.
    fn due(&self, incident: &Incident) -> Option<(Timestamp, Event)> {
        if self.refusals.get(&incident.id).is_some_and(|refusals| *refusals >= MOST_REFUSALS) {
            return None;
        }
        let told = self.told.get(&incident.id).filter(|told| !told.is_over || told.since >= incident.since);
        match (told, incident.ended) {
            (Some(told), Some(ended)) => (!told.is_over).then_some((ended, Event::Resolved)),
            // What began and ended before it could be told is no news.
            (None, Some(_)) => None,
            (None, None) => Some((incident.since, Event::Opened)),
            (Some(told), None) => {
                let gist = Gist::of(incident);
                let worse = gist.severity > told.gist.severity;
                if gist.is_news_after(&told.gist) {
                    let at = if worse { told.at } else { told.at + UPDATE_PAUSE };
                    return Some((at, Event::Updated));
                }
                self.repeat.map(|repeat| (told.at + repeat, Event::Repeated))
            }
        }
    }

    /// What came of a message. `jitter` is from 0 to 1. True when what is remembered changed.
    pub fn handle(&mut self, delivery: &Delivery, outcome: Outcome, now: Timestamp, jitter: f64) -> bool {
        let id = &delivery.incident.id;
        match outcome {
            Outcome::Taken => {
                self.failures = 0;
                self.refusals.remove(id);
                self.not_before = now + LEAST_PAUSE;
                let told = Told::of(delivery, now);
                let is_new =
                    delivery.event != Event::Repeated || self.told.get(id).is_none_or(|one| one.named != told.named);
                self.told.insert(id.clone(), told);
                return is_new;
            }
            Outcome::Later(pause) => self.not_before = now + pause.max(LEAST_PAUSE),
            Outcome::Failed => {
                let full = FIRST_RETRY.saturating_mul(1 << self.failures.min(6)).min(LONGEST_RETRY);
                self.failures = self.failures.saturating_add(1);
                self.not_before = now + full.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0));
            }
            Outcome::Refused => {
                self.failures = 0;
                self.not_before = now + FIRST_RETRY;
                *self.refusals.entry(id.clone()).or_default() += 1;
            }
        }
        false
    }

    /// True when this receiver refused a message so often that it is left out.
    pub fn has_given_up(&self, id: &str) -> bool {
        self.refusals.get(id).is_some_and(|refusals| *refusals >= MOST_REFUSALS)
    }

    /// True when there is nothing left to tell of an incident that is over.
    pub fn is_done(&self, incident: &Incident) -> bool {
        incident.ended.is_some() && self.due(incident).is_none()
    }

    /// Forgets what is none of these any more; true when there was something.
    pub fn retain(&mut self, is_known: impl Fn(&str) -> bool) -> bool {
        let before = self.told.len();
        self.told.retain(|id, _| is_known(id));
        self.refusals.retain(|id, _| is_known(id));
        self.told.len() < before
    }
}

impl Told {
    fn of(delivery: &Delivery, now: Timestamp) -> Self {
        let incident = &delivery.incident;
        let open = incident.sections.iter().filter(|(_, section)| section.ended.is_none());
        Self {
            gist: Gist::of(incident),
            since: incident.since,
            at: now,
            sequence: delivery.sequence,
            is_over: incident.ended.is_some(),
            named: open.map(|(name, section)| (name.clone(), section.part.severity)).collect(),
        }
    }
}
