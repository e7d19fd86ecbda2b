//! What takes several requests in turn: the comment on a merged pull request, and the pull request that reverts. Pure: says what to
//! ask next, and takes the answers.

use std::collections::VecDeque;
use std::time::Duration;

use crate::fleet::snapshot::CommitId;
use crate::forge::outbound::comment;
use crate::forge::outbound::pulls::NewPull;
use crate::forge::outbound::statuses::reference_of;
use crate::time::Timestamp;
use crate::view::text::{clip, plain};
use crate::view::{CommitReport, Ending};

/// Commits that are remembered; the oldest ones are forgotten first.
const MOST_COMMITS: usize = 128;

/// Between two versions of a comment while the rollout runs.
const PAUSE: Duration = Duration::from_secs(30);

/// The same before its last version, and between a question that found nothing and the next.
const SHORT_PAUSE: Duration = Duration::from_secs(10);

/// How often something is tried that the forge refuses, the pause doubling from [`SHORT_PAUSE`].
const MOST_TRIES: u32 = 5;

/// The same for what ends without an answer that is one (5xx, too slow, too large): three quarters of an hour of trouble are waited out.
const MOST_LOSSES: u32 = 8;

/// How often a forge is asked which pull request a commit came from; it may take a moment to know.
const MOST_LOOKS: u32 = 3;

/// A comment's list is read from so long before the commit was synced: the forge's clock is not ours.
const CLOCK_SLACK: Duration = Duration::from_secs(600);

/// A request to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Which pull request did this commit come from?
    Merged,
    /// Is there a comment of ours on this pull request, made since then?
    Comments {
        /// The pull request.
        pull: u64,
        /// Since when.
        since: Timestamp,
        /// What it begins with.
        marker: String,
    },
    /// Say this on the pull request.
    Comment {
        /// The pull request.
        pull: u64,
        /// The comment to replace; `None`: make one.
        comment: Option<u64>,
        /// The text.
        text: String,
    },
    /// Is there a pull request from this branch?
    PullFrom(String),
    /// Make this branch: the revert of the commit.
    Branch(String),
    /// Open this.
    Open(NewPull),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The number of what was asked for, if there is one.
    Number(Option<u64>),
    /// Where the pull request is, if there is one.
    Address(Option<String>),
    /// The branch stands; the branch that it is for.
    Branch(String),
    /// There is nothing to be done, and why.
    Needless(String),
    /// The forge refuses; it may be asked again a few times.
    Refused,
    /// Nobody knows whether it was done; it may be asked again a few times.
    Lost,
    /// It was turned away unheard, or nobody was there to hear it: it is asked again as it is.
    Unheard,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask this about a commit.
    Ask(CommitId, Ask),
    /// Nothing before this.
    At(Timestamp),
    /// Nothing.
    Idle,
}

/// When an errand may ask again.
#[derive(Clone, Copy, Debug, Default)]
struct Patience {
    not_before: Option<Timestamp>,
    tries: u32,
}

impl Patience {
    /// Counts a refusal; true when that was the last one.
    fn refused(&mut self, now: Timestamp) -> bool {
        self.failed(now) >= MOST_TRIES
    }

    /// Counts a request whose fate nobody knows; true when that was the last one.
    fn lost(&mut self, now: Timestamp) -> bool {
        self.failed(now) >= MOST_LOSSES
    }

    fn failed(&mut self, now: Timestamp) -> u32 {
        self.tries += 1;
        self.not_before = Some(now + SHORT_PAUSE * (1 << self.tries.min(8)));
        self.tries
    }
}

/// Where a comment stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Talk {
    Searching { looks: u32 },
    Reading { pull: u64 },
    Known { pull: u64, comment: Option<u64> },
    Over,
}

/// Where a revert stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Undo {
    NotDue,
    Looking,
    Branching,
    Opening { base: String },
    Over { address: Option<String> },
}

/// Everything about one commit.
#[derive(Debug)]
struct Errand {
    commit: CommitId,
    report: CommitReport,
    is_open: bool,
    talk: Talk,
    talk_patience: Patience,
    said: Option<(String, Timestamp)>,
    undo: Undo,
    undo_patience: Patience,
}

/// All errands.
#[derive(Debug)]
pub struct Errands {
    instance: String,
    comments: bool,
    reverts: bool,
    errands: VecDeque<Errand>,
}

/// True when a commit was taken back by itself, and nothing of it runs any more.
fn is_taken_back(report: &CommitReport) -> bool {
    let has_ended = matches!(report.ending, Some(Ending::RolledBack | Ending::Failed));
    has_ended && report.groups.values().any(|part| part.ending == Some(Ending::RolledBack))
}

/// The branch with the revert of a commit. Daemons that share a repository mean the same one.
pub fn branch_of(commit: CommitId) -> String {
    format!("gitamp/revert-{}", commit.short())
}

impl Errands {
    /// None yet.
    pub fn new(instance: &str, comments: bool, reverts: bool) -> Self {
        Self { instance: instance.to_owned(), comments, reverts, errands: VecDeque::new() }
    }

    /// Takes what is known of a commit now.
    pub fn want(&mut self, commit: CommitId, report: CommitReport, is_open: bool) {
        if !self.comments && !self.reverts {
            return;
        }
        let is_due = self.reverts && is_taken_back(&report);
        match self.errands.iter_mut().find(|errand| errand.commit == commit) {
            Some(errand) => {
                (errand.report, errand.is_open) = (report, is_open);
                match (&errand.undo, is_due) {
                    (Undo::NotDue, true) => {
                        (errand.undo, errand.undo_patience) = (Undo::Looking, Patience::default());
                    }
                    // A person tries it once more: what was not said yet need not be.
                    (Undo::Looking | Undo::Branching | Undo::Opening { .. }, false) => errand.undo = Undo::NotDue,
                    (_, _) => {}
                }
            }
            None => {
                self.errands.push_back(Errand {
                    commit,
                    report,
                    is_open,
                    talk: if self.comments { Talk::Searching { looks: 0 } } else { Talk::Over },
                    talk_patience: Patience::default(),
                    said: None,
                    undo: if is_due { Undo::Looking } else { Undo::NotDue },
                    undo_patience: Patience::default(),
                });
                if self.errands.len() > MOST_COMMITS {
                    self.errands.pop_front();
                }
            }
        }
    }

    /// What to do now; the revert of a commit before its comment, which names it.
    pub fn next(&self, now: Timestamp) -> Next {
        let mut later: Option<Timestamp> = None;
        for errand in &self.errands {
            let asks = [errand.next_of_undo(), errand.next_of_talk(&self.instance)];
            for (at, ask) in asks.into_iter().flatten() {
                if at.is_none_or(|at| at <= now) {
                    return Next::Ask(errand.commit, ask);
                }
                later = later.into_iter().chain(at).min();
            }
        }
        later.map_or(Next::Idle, Next::At)
    }

    /// Takes an answer.
    pub fn answered(&mut self, commit: CommitId, ask: &Ask, reply: Reply, now: Timestamp) {
        let Some(errand) = self.errands.iter_mut().find(|errand| errand.commit == commit) else { return };
        match ask {
            Ask::Merged | Ask::Comments { .. } | Ask::Comment { .. } => errand.talk_answered(ask, reply, now),
            Ask::PullFrom(_) | Ask::Branch(_) | Ask::Open(_) => errand.undo_answered(ask, reply, now),
        }
    }

    /// What is known of a commit.
    pub fn report(&self, commit: CommitId) -> Option<&CommitReport> {
        self.errands.iter().find(|errand| errand.commit == commit).map(|errand| &errand.report)
    }

    /// True when there is nothing left to do about a commit, for ever.
    pub fn is_done(&self, commit: CommitId) -> bool {
        let errand = self.errands.iter().find(|errand| errand.commit == commit);
        errand.is_none_or(|errand| {
            !errand.is_open && errand.next_of_undo().is_none() && errand.next_of_talk(&self.instance).is_none()
        })
    }
}

impl Errand {
    fn next_of_talk(&self, instance: &str) -> Option<(Option<Timestamp>, Ask)> {
        let at = self.talk_patience.not_before;
        match &self.talk {
            Talk::Searching { .. } => Some((at, Ask::Merged)),
            Talk::Reading { pull } => {
                let since = self.report.synced_at.as_millis().saturating_sub(CLOCK_SLACK.as_millis() as u64);
                let marker = comment::marker(instance, self.commit);
                Some((at, Ask::Comments { pull: *pull, since: Timestamp::from_millis(since), marker }))
            }
            Talk::Known { pull, comment } => {
                let revert = match &self.undo {
                    Undo::Over { address } => address.as_deref(),
                    Undo::NotDue | Undo::Looking | Undo::Branching | Undo::Opening { .. } => None,
                };
                let text = comment::body(self.commit, &self.report, self.is_open, instance, revert);
                let pause = if self.is_open { PAUSE } else { SHORT_PAUSE };
                let at = at.max(self.said.as_ref().map(|(_, said_at)| *said_at + pause));
                let is_news = self.said.as_ref().is_none_or(|(said, _)| *said != text);
                is_news.then_some((at, Ask::Comment { pull: *pull, comment: *comment, text }))
            }
            Talk::Over => None,
        }
    }

    fn talk_answered(&mut self, ask: &Ask, reply: Reply, now: Timestamp) {
        let patience = &mut self.talk_patience;
        match (ask, reply) {
            (Ask::Merged, Reply::Number(Some(pull))) => self.talk = Talk::Reading { pull },
            (Ask::Merged, Reply::Number(None)) => {
                let looks = match &self.talk {
                    Talk::Searching { looks } => looks + 1,
                    Talk::Reading { .. } | Talk::Known { .. } | Talk::Over => return,
                };
                patience.not_before = Some(now + SHORT_PAUSE);
                self.talk = if looks >= MOST_LOOKS { Talk::Over } else { Talk::Searching { looks } };
            }
            (Ask::Comments { pull, .. }, Reply::Number(comment)) => self.talk = Talk::Known { pull: *pull, comment },
            (Ask::Comment { pull, comment, text }, Reply::Number(made)) => {
                self.said = Some((text.clone(), now));
                *patience = Patience::default();
                self.talk = Talk::Known { pull: *pull, comment: comment.or(made) };
            }
            (_, Reply::Refused) => {
                if patience.refused(now) {
                    self.talk = Talk::Over;
                }
            }
            (_, Reply::Lost) => {
                if patience.lost(now) {
                    self.talk = Talk::Over;
                } else if let Ask::Comment { pull, comment: None, .. } = ask {
                    // It may have been made all the same: a second one is worse than a look.
                    self.talk = Talk::Reading { pull: *pull };
                }
            }
            (_, _) => {}
        }
    }

    fn next_of_undo(&self) -> Option<(Option<Timestamp>, Ask)> {
        let at = self.undo_patience.not_before;
        let branch = branch_of(self.commit);
        match &self.undo {
            Undo::NotDue | Undo::Over { .. } => None,
            Undo::Looking => Some((at, Ask::PullFrom(branch))),
            Undo::Branching => Some((at, Ask::Branch(branch))),
            Undo::Opening { base } => Some((at, Ask::Open(self.pull(branch, base.clone())))),
        }
    }

    /// Tries are counted over all steps: after one that went well the next may fail each time, and all begins again.
    fn undo_answered(&mut self, ask: &Ask, reply: Reply, now: Timestamp) {
        let patience = &mut self.undo_patience;
        let is_last = match (ask, reply) {
            (Ask::PullFrom(_), Reply::Address(None)) => {
                self.undo = Undo::Branching;
                return;
            }
            (Ask::PullFrom(_) | Ask::Open(_), Reply::Address(address)) => {
                self.undo = Undo::Over { address };
                return;
            }
            // The report changed while it was made.
            (Ask::Branch(_), _) if self.undo != Undo::Branching => return,
            (Ask::Branch(_), Reply::Branch(base)) => {
                self.undo = Undo::Opening { base };
                return;
            }
            (Ask::Branch(_), Reply::Needless(_)) => true,
            (_, Reply::Refused) => patience.refused(now),
            (_, Reply::Lost) => patience.lost(now),
            (_, _) => return,
        };
        if is_last {
            self.undo = Undo::Over { address: None };
        } else if matches!(ask, Ask::Open(_)) {
            // Somebody may have opened it meanwhile, or the answer went astray.
            self.undo = Undo::Looking;
        }
    }

    /// The pull request with its evidence.
    fn pull(&self, branch: String, base: String) -> NewPull {
        let subject = clip(&plain(&self.report.subject), 120);
        let failed = comment::failures(&self.report);
        let text = format!(
            "gitamp took {commit} back by itself: its agents run what was stable before, and Git still says otherwise. Merging this \
             makes Git say what the fleet runs; nobody is sent anything then.\n\n{table}{failed}\nGitamp-Reverts: {commit}\n",
            commit = self.commit,
            table = comment::table(&self.report),
        );
        let base = if base.is_empty() { reference_of(&self.report.revision).to_owned() } else { base };
        NewPull { branch, base, title: format!("Revert \"{subject}\""), text }
    }
}
