//! Which status is to be posted next, and when: what is wanted against what was posted last, one at a time, latest wins.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::fleet::snapshot::CommitId;
use crate::forge::outbound::statuses::{State, Status};
use crate::time::Timestamp;

/// Two posts to one context of a commit are at least so far apart.
pub const PAUSE: Duration = Duration::from_secs(10);

/// Commits that are remembered; the oldest ones are forgotten first. What is forgotten and comes again is posted again.
const MOST_COMMITS: usize = 128;

/// Posts of another description alone that may come at once, and one more every [`PAUSE`]: GitHub wants no more than 500 posts an hour.
const MOST_TOUCHES: u32 = 30;

/// The longer a commit takes, the less often its descriptions change: the pause grows to this part of its age, so that a week of
/// rollout stays far below the 1,000 posts that GitHub takes for a context.
const AGE_PART: u32 = 50;

/// How often a forge may refuse one status before it is left out.
const MOST_REFUSALS: u32 = 5;

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Post this, and then say how it went.
    Post(Status),
    /// Nothing before this.
    At(Timestamp),
    /// Nothing.
    Idle,
}

/// One context.
#[derive(Debug)]
struct Slot {
    wanted: Status,
    /// What the forge took last.
    posted: Option<(State, String)>,
    /// When it was asked last.
    asked_at: Option<Timestamp>,
    refusals: u32,
}

/// How urgent a post is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Urgency {
    /// An ending.
    Ending,
    /// Another state.
    State,
    /// Only other words.
    Words,
}

impl Slot {
    fn urgency(&self, with_words: bool) -> Option<Urgency> {
        if self.refusals >= MOST_REFUSALS {
            return None;
        }
        let (state, words) = match &self.posted {
            Some((state, words)) => (*state == self.wanted.state, *words == self.wanted.description),
            None => (false, false),
        };
        match (state, words) {
            (true, true) => None,
            (true, false) => with_words.then_some(Urgency::Words),
            (false, _) if self.wanted.state.is_final() => Some(Urgency::Ending),
            (false, _) => Some(Urgency::State),
        }
    }
}

/// A commit.
#[derive(Debug)]
struct Entry {
    commit: CommitId,
    since: Timestamp,
    is_open: bool,
    slots: BTreeMap<String, Slot>,
}

/// Everything that is to be posted, and what was.
#[derive(Debug)]
pub struct Board {
    /// Oldest first.
    entries: VecDeque<Entry>,
    /// False when the forge takes no new description for a state that it has.
    with_words: bool,
    touches: u32,
    touched_at: Option<Timestamp>,
}

impl Board {
    /// An empty board. `with_words`: the forge takes another description for the same state.
    pub fn new(with_words: bool) -> Self {
        Self { entries: VecDeque::new(), with_words, touches: MOST_TOUCHES, touched_at: None }
    }

    /// Takes what is to be said of a commit now, instead of what was to be said before. A context that was posted before and is not
    /// named any more stays as it is.
    pub fn want(&mut self, commit: CommitId, statuses: Vec<Status>, is_open: bool, now: Timestamp) {
        let index = match self.entries.iter().position(|entry| entry.commit == commit) {
            Some(index) => index,
            None => {
                self.entries.push_back(Entry { commit, since: now, is_open, slots: BTreeMap::new() });
                if self.entries.len() > MOST_COMMITS {
                    self.entries.pop_front();
                }
                self.entries.len() - 1
            }
        };
        let Some(entry) = self.entries.get_mut(index) else { return };
        entry.is_open = is_open;
        for status in statuses {
            match entry.slots.get_mut(&status.context) {
                Some(slot) => {
                    if slot.wanted.state != status.state {
                        slot.refusals = 0;
                    }
                    slot.wanted = status;
                }
                None => {
                    let context = status.context.clone();
                    entry.slots.insert(context, Slot { wanted: status, posted: None, asked_at: None, refusals: 0 });
                }
            }
        }
    }

    /// What to do now. The most urgent comes first, then what has waited longest.
    pub fn next(&self, now: Timestamp) -> Next {
        let touches = self.touches_at(now);
        let mut due: Option<(Urgency, Timestamp, &Slot)> = None;
        let mut later: Option<Timestamp> = None;
        for entry in &self.entries {
            for slot in entry.slots.values() {
                let Some(urgency) = slot.urgency(self.with_words) else { continue };
                let at = match (slot.asked_at, urgency) {
                    (None, _) => entry.since,
                    (Some(asked), Urgency::Ending | Urgency::State) => asked + PAUSE,
                    (Some(asked), Urgency::Words) => {
                        let at = asked + PAUSE.max(now.since(entry.since) / AGE_PART);
                        let refilled = self.touched_at.map_or(now, |touched| touched + PAUSE);
                        if touches == 0 { at.max(refilled) } else { at }
                    }
                };
                if at > now {
                    later = Some(later.map_or(at, |later| later.min(at)));
                } else if due.is_none_or(|(best, since, _)| (urgency, at) < (best, since)) {
                    due = Some((urgency, at, slot));
                }
            }
        }
        match (due, later) {
            (Some((_, _, slot)), _) => Next::Post(slot.wanted.clone()),
            (None, Some(at)) => Next::At(at),
            (None, None) => Next::Idle,
        }
    }

    /// How many posts of other words alone may come now: the allowance grows with time.
    fn touches_at(&self, now: Timestamp) -> u32 {
        self.touches.saturating_add(self.grown(now)).min(MOST_TOUCHES)
    }

    fn grown(&self, now: Timestamp) -> u32 {
        let since = self.touched_at.map_or(Duration::ZERO, |touched| now.since(touched));
        u32::try_from(since.as_secs() / PAUSE.as_secs()).unwrap_or(u32::MAX)
    }

    fn slot(&mut self, status: &Status) -> Option<&mut Slot> {
        let entry = self.entries.iter_mut().find(|entry| entry.commit == status.commit)?;
        entry.slots.get_mut(&status.context)
    }

    /// The forge has this now.
    pub fn posted(&mut self, status: &Status, now: Timestamp) {
        let with_words = self.with_words;
        let Some(slot) = self.slot(status) else { return };
        let was_words = slot.urgency(with_words) == Some(Urgency::Words);
        slot.posted = Some((status.state, status.description.clone()));
        slot.asked_at = Some(now);
        slot.refusals = 0;
        if was_words {
            let grown = self.grown(now);
            let left = self.touches_at(now);
            let since = self.touched_at.filter(|_| left < MOST_TOUCHES).map(|touched| touched + PAUSE * grown);
            (self.touches, self.touched_at) = (left.saturating_sub(1), Some(since.unwrap_or(now)));
        }
    }

    /// The forge does not take this one; others it may. True when it is left out from now on.
    pub fn refused(&mut self, status: &Status, now: Timestamp) -> bool {
        let Some(slot) = self.slot(status) else { return false };
        slot.asked_at = Some(now);
        slot.refusals += 1;
        slot.refusals >= MOST_REFUSALS
    }

    /// True when the forge has everything that there is to say of this commit, for ever; also when it is not known here.
    pub fn is_told(&self, commit: CommitId) -> bool {
        let entry = self.entries.iter().find(|entry| entry.commit == commit);
        entry.is_none_or(|entry| {
            !entry.is_open && entry.slots.values().all(|slot| slot.urgency(self.with_words).is_none())
        })
    }

    /// How many contexts wait to be posted.
    pub fn waiting(&self) -> usize {
        let slots = self.entries.iter().flat_map(|entry| entry.slots.values());
        slots.filter(|slot| slot.urgency(self.with_words).is_some()).count()
    }
}
