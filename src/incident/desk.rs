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
    /// The message of this number may never have come: it is on its way, or nobody knows what became of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    doubt: Option<Event>,
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
    /// It does not work, at the moment or before a person did something. Nothing was taken.
    Failed,
    /// The same, but nobody knows whether it was taken.
    Doubtful,
    /// Not this one; others it may take.
    Refused,
}

/// What went wrong with one message. Another message about the same incident begins anew.
#[derive(Debug)]
struct Setback {
    gist: Gist,
    is_over: bool,
    refusals: u32,
    failures: u32,
    /// Others go first until then: it may be this message that the receiver cannot bear.
    until: Timestamp,
}

impl Setback {
    fn is_about(&self, gist: &Gist, is_over: bool) -> bool {
        self.is_over == is_over && self.gist == *gist
    }
}

/// One receiver.
#[derive(Debug)]
pub struct Desk {
    /// How often it has to hear of what has not ended; `None`: it remembers.
    repeat: Option<Duration>,
    told: Memory,
    setbacks: BTreeMap<String, Setback>,
    /// What was known of the incident of the message that is on its way, before it went out.
    before: Option<(String, Option<Told>)>,
    /// The message that failed last, when nothing has come of another since: it may be the one that cannot be borne, so others go first.
    failed_last: Option<String>,
    not_before: Timestamp,
    failures: u32,
}

impl Desk {
    /// Goes on with what the receiver took before. What seems to have been told in the future, because the clock was another, counts as
    /// told now.
    pub fn new(repeat: Option<Duration>, mut told: Memory, now: Timestamp) -> Self {
        for told in told.values_mut() {
            told.at = told.at.min(now);
        }
        Self {
            repeat,
            told,
            setbacks: BTreeMap::new(),
            before: None,
            failed_last: None,
            not_before: Timestamp::default(),
            failures: 0,
        }
    }

    /// What the receiver took.
    pub fn memory(&self) -> &Memory {
        &self.told
    }

    /// What to do now about these incidents, which are those that concern the receiver. What ended comes first, which is the shortest to
    /// tell, then what is critical, and reminders last; of several what has been due for longest.
    pub fn next(&self, incidents: &[Incident], now: Timestamp) -> Next {
        let mut later: Option<Timestamp> = None;
        let mut due: Option<((bool, u8, Timestamp), Event, &Incident)> = None;
        for incident in incidents {
            let Some((at, event)) = self.due(incident) else { continue };
            let until = self.setback(incident).map(|setback| setback.until).unwrap_or_default();
            let earliest = at.max(self.not_before).max(until);
            let urgency = (self.failed_last.as_ref() == Some(&incident.id), rank(event, incident), at);
            if earliest > now {
                later = Some(later.map_or(earliest, |later| later.min(earliest)));
            } else if due.as_ref().is_none_or(|(best, ..)| urgency < *best) {
                due = Some((urgency, event, incident));
            }
        }
        match (due, later) {
            (Some((_, event, incident)), _) => Next::Send(Box::new(self.delivery(event, incident))),
            (None, Some(at)) => Next::At(at),
            (None, None) => Next::Idle,
        }
    }

    fn delivery(&self, event: Event, incident: &Incident) -> Delivery {
        let told = self.told.get(&incident.id);
        // Another try of the same message keeps its number; one that says something else is another message, whether that came or not.
        let is_same = |told: &Told| told.doubt == Some(event) && told.gist == Gist::of(incident);
        Delivery {
            event,
            incident: incident.clone(),
            sequence: told.map_or(1, |told| told.sequence.saturating_add(u32::from(!is_same(told)))),
            named: told.map(|told| told.named.clone()).unwrap_or_default(),
        }
    }

    fn setback(&self, incident: &Incident) -> Option<&Setback> {
        let setback = self.setbacks.get(&incident.id)?;
        setback.is_about(&Gist::of(incident), incident.ended.is_some()).then_some(setback)
    }

    /// When there is something to tell of an incident, and what.
    fn due(&self, incident: &Incident) -> Option<(Timestamp, Event)> {
        if self.has_given_up(incident) {
            return None;
        }
        let told = self.told.get(&incident.id).filter(|told| !told.is_over || told.since >= incident.since);
        match (told, incident.ended) {
            (Some(told), Some(ended)) => (!told.is_over).then_some((ended, Event::Resolved)),
            // What began and ended before it could be told is no news.
            (None, Some(_)) => None,
            (None, None) => Some((incident.since, Event::Opened)),
            (Some(told), None) => match told.doubt {
                Some(Event::Opened) => Some((incident.since, Event::Opened)),
                Some(Event::Updated | Event::Repeated | Event::Resolved) => Some((told.at, Event::Updated)),
                None => {
                    let gist = Gist::of(incident);
                    let worse = gist.severity > told.gist.severity;
                    if gist.is_news_after(&told.gist) {
                        let at = if worse { told.at } else { told.at + UPDATE_PAUSE };
                        return Some((at, Event::Updated));
                    }
                    self.repeat.map(|repeat| (told.at + repeat, Event::Repeated))
                }
            },
        }
    }

    /// A message goes out: from now on the receiver may have it, and hears of its end whatever becomes of it. True when what is remembered
    /// changed.
    pub fn begin(&mut self, delivery: &Delivery, now: Timestamp) -> bool {
        let id = &delivery.incident.id;
        let before = self.told.get(id).cloned();
        let is_new = delivery.event != Event::Repeated;
        if is_new {
            let mut told = Told::of(delivery, now);
            (told.is_over, told.doubt) = (false, Some(delivery.event));
            // What was named before has to be ended as well.
            told.named.extend(before.iter().flat_map(|before| before.named.clone()));
            let is_other = before.as_ref().is_none_or(|before| Told { at: before.at, ..told.clone() } != *before);
            self.told.insert(id.clone(), told);
            self.before = Some((id.clone(), before));
            return is_other;
        }
        false
    }

    /// What came of a message. `jitter` is from 0 to 1. True when what is remembered changed.
    pub fn handle(&mut self, delivery: &Delivery, outcome: Outcome, now: Timestamp, jitter: f64) -> bool {
        let id = &delivery.incident.id;
        let before = self.before.take().filter(|(of, _)| of == id);
        self.failed_last = matches!(outcome, Outcome::Failed | Outcome::Doubtful).then(|| id.clone());
        match outcome {
            Outcome::Taken => {
                self.failures = 0;
                self.setbacks.remove(id);
                self.not_before = now + LEAST_PAUSE;
                let told = Told::of(delivery, now);
                let is_new =
                    delivery.event != Event::Repeated || self.told.get(id).is_none_or(|one| one.named != told.named);
                self.told.insert(id.clone(), told);
                return is_new;
            }
            Outcome::Later(pause) => self.not_before = now + pause.max(LEAST_PAUSE),
            Outcome::Failed | Outcome::Doubtful => {
                let own = self.setback_of(delivery);
                own.until = now + retry(own.failures, jitter);
                own.failures = own.failures.saturating_add(1);
                self.not_before = now + retry(self.failures, jitter);
                self.failures = self.failures.saturating_add(1);
            }
            Outcome::Refused => {
                let own = self.setback_of(delivery);
                own.refusals += 1;
                own.until = now + FIRST_RETRY;
                self.failures = 0;
                self.not_before = now + LEAST_PAUSE;
            }
        }
        if outcome == Outcome::Doubtful {
            return false;
        }
        self.take_back(before)
    }

    /// The message that was on its way did not come.
    fn take_back(&mut self, before: Option<(String, Option<Told>)>) -> bool {
        let Some((id, before)) = before else { return false };
        let is_other = self.told.get(&id) != before.as_ref();
        match before {
            Some(before) => self.told.insert(id, before),
            None => self.told.remove(&id),
        };
        is_other
    }

    fn setback_of(&mut self, delivery: &Delivery) -> &mut Setback {
        let incident = &delivery.incident;
        let (gist, is_over) = (Gist::of(incident), incident.ended.is_some());
        self.setbacks.retain(|id, setback| *id != incident.id || setback.is_about(&gist, is_over));
        let fresh = Setback { gist, is_over, refusals: 0, failures: 0, until: Timestamp::default() };
        self.setbacks.entry(incident.id.clone()).or_insert(fresh)
    }

    /// True when this receiver refused what there is to say of an incident so often that it is left out.
    pub fn has_given_up(&self, incident: &Incident) -> bool {
        self.setbacks.contains_key(&incident.id)
            && self.setback(incident).is_some_and(|setback| setback.refusals >= MOST_REFUSALS)
    }

    /// True when there is nothing left to tell of an incident that is over.
    pub fn is_done(&self, incident: &Incident) -> bool {
        incident.ended.is_some() && self.due(incident).is_none()
    }

    /// Forgets what is none of these any more; true when there was something.
    pub fn retain(&mut self, is_known: impl Fn(&str) -> bool) -> bool {
        let before = self.told.len();
        self.told.retain(|id, _| is_known(id));
        self.setbacks.retain(|id, _| is_known(id));
        self.told.len() < before
    }
}

/// What goes first: what has ended, then what is bad, then everything that is new, and at last what is as it was.
fn rank(event: Event, incident: &Incident) -> u8 {
    match (event, incident.severity()) {
        (Event::Resolved, _) => 0,
        (Event::Opened | Event::Updated, Severity::Critical) => 1,
        (Event::Opened | Event::Updated, Severity::Warning) => 2,
        (Event::Repeated, _) => 3,
    }
}

/// How long to wait after so many failures.
fn retry(failures: u32, jitter: f64) -> Duration {
    let full = FIRST_RETRY.saturating_mul(1 << failures.min(6)).min(LONGEST_RETRY);
    full.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
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
            doubt: None,
        }
    }
}
