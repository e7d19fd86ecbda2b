//! Follows the repository: waits for a bell or the interval, brings the mirror up to date, reads and renders what is new, and
//! hands it to the loop.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::Clock;
use crate::controller::Revision;
use crate::daemon::Known;
use crate::daemon::pace::Pace;
use crate::daemon::verify::{Trust, Verifier, VerifyError};
use crate::fleet::diagnostic::Diagnostic;
use crate::fleet::snapshot::{CommitId, CommitInfo, ContentId, RolloutTrailer, Snapshot, SnapshotLimits};
use crate::fleet::{self, Memory, RenderedFleet};
use crate::forge::hooks::Announced;
use crate::git::backoff::Backoff;
use crate::git::mirror::{Head, Mirror, ReadError};
use crate::serve::bell::Bell;
use crate::serve::hints::Hints;
use crate::serve::metrics::Metrics;
use crate::time::Timestamp;
use crate::view::SyncStatus;

/// At most one fetch in this time, however often the bell rings.
const LEAST_PAUSE: Duration = Duration::from_secs(1);

/// How long after a look that did not show the head which a hook had told of the remote is looked at once more: forges answer from
/// replicas, and a hook may be ahead of them.
const SECOND_LOOK: Duration = Duration::from_secs(4);

/// The remote is called stale when it has not answered for so many intervals.
const STALE_AFTER_INTERVALS: u32 = 3;

/// What the follower has found.
#[derive(Debug)]
pub(super) enum Found {
    /// A revision to take; the answer says whether it was accepted.
    Revision(Box<Revision>, oneshot::Sender<bool>),
    /// A commit that changed nothing below the fleet root.
    Unrelated(CommitInfo),
}

/// How far the follower is, for everybody who waits for it.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// Attempts that were begun.
    pub begun: u64,
    /// Attempts that ended.
    pub ended: u64,
    /// True once a revision was taken, or found to be known already.
    pub is_ready: bool,
    /// The state in words.
    pub status: SyncStatus,
}

/// The revision before the one that is looked at; a process that has looked at nothing yet has none.
#[derive(Default)]
pub(super) struct Before {
    /// The one that was looked at last, accepted or not.
    snapshot: Option<Snapshot>,
    memory: Option<Memory>,
}

/// The follower's task.
pub(super) struct Follower {
    /// The mirror, its own.
    pub mirror: Mirror,
    /// How often the remote is asked without a bell.
    pub pace: Pace,
    /// What rings when somebody thinks that there is something new.
    pub bell: Bell,
    /// What hooks said.
    pub hints: Hints,
    /// What the next revision is judged by.
    pub known: Known,
    /// What judges the signatures of a new head.
    pub verifier: Verifier,
    /// What was read last, and what was made of it: of what a newer commit shares with it, nothing is read or rendered again.
    pub before: Before,
    /// Where findings go.
    pub found: mpsc::Sender<Found>,
    /// Where everybody sees how it goes.
    pub progress: watch::Sender<Progress>,
    /// The time.
    pub clock: Clock,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// How much one commit may bring.
    pub limits: SnapshotLimits,
}

/// What was taken last.
struct Taken {
    commit: CommitId,
    /// What was accepted; `None` after a refusal, so that the next commit is looked at whatever it changed.
    tree: Option<ContentId>,
}

impl Progress {
    /// Nothing was read yet of this repository.
    pub(super) fn of(repository: String) -> Self {
        Self { status: SyncStatus { repository, ..SyncStatus::default() }, ..Self::default() }
    }
}

impl Follower {
    /// Follows for ever; ends when nobody listens any more.
    pub(super) async fn run(mut self) {
        let mut taken: Option<Taken> = None;
        let mut backoff = Backoff::default();
        let mut expected: Option<Arc<Announced>> = None;
        loop {
            self.progress.send_modify(|progress| progress.begun += 1);
            let begun = self.clock.now();
            let before = taken.as_ref().map(|taken| taken.commit);
            let announced = self.hints.take_announced();
            let is_second_look = announced.is_none();
            expected = announced.or(expected);
            let outcome = self.attempt(&mut taken).await;
            let now = self.clock.now();
            let seconds = now.since(begun).as_secs_f64();
            let pause = match &outcome {
                Ok(head) => {
                    backoff.succeeded();
                    self.metrics.sync_succeeded(seconds, now);
                    if before != Some(head.commit) && self.pace.found(begun, self.hints.last_push()) {
                        tracing::warn!(
                            "no webhook told of this push: looking as often as without hooks until one comes"
                        );
                    }
                    match expected.take() {
                        Some(announced) if !is_second_look && self.is_behind(head, &announced).await => {
                            tracing::info!(branch = %announced.branch, commit = %announced.commit.short(),
                                "the remote does not show what a webhook told of: looking once more");
                            expected = Some(announced);
                            SECOND_LOOK
                        }
                        // A tenth more or less, so that a hundred daemons do not ask one server at the same moment.
                        Some(_) | None => self.interval().mul_f64(0.9 + 0.2 * fastrand::f64()),
                    }
                }
                Err(Trouble::Closed) => return,
                Err(Trouble::Failed { class, message }) => {
                    self.metrics.sync_failed(seconds);
                    let pause = backoff.failed(*class, fastrand::f64());
                    tracing::warn!(retry_in = ?pause, "the repository cannot be followed: {message}");
                    pause
                }
            };
            self.tell(&outcome, pause);
            tokio::time::sleep(LEAST_PAUSE).await;
            tokio::select! {
                () = self.bell.wait() => {}
                () = tokio::time::sleep(pause.saturating_sub(LEAST_PAUSE)) => {}
            }
        }
    }

    fn interval(&self) -> Duration {
        self.pace.interval(self.clock.now(), self.hints.last_push())
    }

    /// True when a hook told of a head of our branch that is not there.
    async fn is_behind(&self, head: &Head, announced: &Announced) -> bool {
        // What cannot be read is no reason to look again; the next look makes the mirror anew.
        announced.branch == head.reference && !self.mirror.knows(announced.commit).await.unwrap_or(true)
    }

    fn tell(&self, outcome: &Result<Head, Trouble>, pause: Duration) {
        let now = self.clock.now();
        let stale_after = self.interval() * STALE_AFTER_INTERVALS;
        let refused = self.verifier.refused.as_ref().map(|one| format!("the head is not synced: {}", one.reason));
        self.progress.send_modify(|progress| {
            progress.ended += 1;
            let status = &mut progress.status;
            status.next_attempt = Some(now + pause.max(LEAST_PAUSE));
            match outcome {
                Ok(_) => {
                    succeeded(status, refused, now);
                    progress.is_ready = true;
                }
                Err(Trouble::Failed { message, class }) => {
                    let is_old = status.last_success.is_none_or(|last| now.since(last) > stale_after);
                    failed(status, message, refused.is_some());
                    status.stale = is_old || *class == crate::git::FailureClass::Stalled;
                }
                Err(Trouble::Closed) => {}
            }
        });
    }

    /// Looks once, and hands on what is new.
    async fn attempt(&mut self, taken: &mut Option<Taken>) -> Result<Head, Trouble> {
        let head = self.mirror.sync().await.map_err(|error| Trouble::failed(error.class(), &error))?;
        let is_known = taken.as_ref().is_some_and(|taken| taken.commit == head.commit);
        if !is_known || self.verifier.has_new_keys() {
            self.take(&head, taken).await?;
        }
        Ok(head)
    }

    /// Judges the signatures of a head; true when it may be taken. One that may not is told, and then left alone.
    async fn is_trusted(&mut self, head: &Head, taken: &mut Option<Taken>) -> Result<bool, Trouble> {
        let (accepted, policy) = (self.known.accepted(), self.known.policy());
        let judged = self.verifier.judge(&self.mirror, head, accepted, policy.as_deref().map(AsRef::as_ref)).await;
        match judged {
            Ok(Trust::Given(told)) => {
                if let Some(told) = told {
                    tracing::warn!(commit = %head.commit.short(), "{told}");
                }
                self.verifier.refused = None;
                Ok(true)
            }
            Ok(Trust::Refused(reason)) => {
                let info = self.mirror.info(head.commit, &head.reference).await.map_err(Trouble::read)?;
                let fleet = refusal(&format!("not synced: {reason}"));
                let _never_accepted = self.offer(Revision { info, rewritten: head.rewritten, fleet }).await?;
                self.tell_unverified(head, accepted).await?;
                self.verifier.refuse(reason);
                *taken = Some(Taken { commit: head.commit, tree: None });
                Ok(false)
            }
            Err(VerifyError::Read(error)) => Err(Trouble::read(error)),
            Err(error @ VerifyError::Keys { .. }) => Err(Trouble::failed(crate::git::FailureClass::Stalled, &error)),
        }
    }

    /// The repository was read, and what was accepted before still holds; without that there is the head alone to name.
    async fn tell_unverified(&self, head: &Head, accepted: Option<CommitId>) -> Result<(), Trouble> {
        if self.progress.borrow().status.revision.is_some() {
            return Ok(());
        }
        let holds = match accepted {
            Some(accepted) => self.mirror.info(accepted, &head.reference).await.ok(),
            None => None,
        };
        let info = match holds {
            Some(info) => info,
            None => self.mirror.info(head.commit, &head.reference).await.map_err(Trouble::read)?,
        };
        self.show(&info);
        Ok(())
    }

    async fn take(&mut self, head: &Head, taken: &mut Option<Taken>) -> Result<(), Trouble> {
        if !self.is_trusted(head, taken).await? {
            return Ok(());
        }
        let before = self.before.snapshot.as_ref();
        let reading = match self.mirror.read(head.commit, &head.reference, &self.limits, before).await {
            Ok(reading) => reading,
            Err(ReadError::Refused { reason, limit, .. }) => {
                limit.into_iter().for_each(|limit| self.metrics.commit_exceeded(limit.name()));
                return self.refuse(head, taken, &reason).await;
            }
            Err(error @ (ReadError::Unknown(_) | ReadError::Damaged(_))) => return Err(Trouble::read(error)),
        };
        let info = reading.info;
        let tree = reading.snapshot.as_ref().and_then(|snapshot| snapshot.root().id());
        if taken.as_ref().is_some_and(|taken| taken.tree.is_some() && taken.tree == tree) {
            self.send(Found::Unrelated(info.clone())).await?;
            self.took(&info, tree, taken);
            return Ok(());
        }
        let Some(snapshot) = reading.snapshot else {
            return Err(Trouble::Failed {
                class: crate::git::FailureClass::Stalled,
                message: format!("commit {} has no directory at the fleet root (--path)", info.id.short()),
            });
        };
        self.before.snapshot = Some(snapshot.clone());
        let fleet = self.render(snapshot, &info).await;
        let rewritten = self.is_rewritten(head, taken.as_ref()).await;
        let is_accepted = self.offer(Revision { info: info.clone(), rewritten, fleet }).await?;
        self.took(&info, tree.filter(|_| is_accepted), taken);
        Ok(())
    }

    /// Hands a revision to the loop; whether it was accepted.
    async fn offer(&self, revision: Revision) -> Result<bool, Trouble> {
        let (done, taken_up) = oneshot::channel();
        self.send(Found::Revision(Box::new(revision), done)).await?;
        taken_up.await.map_err(|_| Trouble::Closed)
    }

    fn took(&self, info: &CommitInfo, tree: Option<ContentId>, taken: &mut Option<Taken>) {
        *taken = Some(Taken { commit: info.id, tree });
        self.show(info);
    }

    fn show(&self, info: &CommitInfo) {
        self.progress.send_modify(|progress| {
            progress.status.revision = Some(info.revision());
            progress.status.subject = Some(info.subject.clone());
        });
    }

    async fn send(&self, found: Found) -> Result<(), Trouble> {
        self.found.send(found).await.map_err(|_| Trouble::Closed)
    }

    /// The mirror knows the head before; a fresh one knows only what the journal accepted last.
    async fn is_rewritten(&self, head: &Head, taken: Option<&Taken>) -> Option<bool> {
        let before = taken.map(|taken| taken.commit).or_else(|| self.known.accepted());
        let Some(before) = before.filter(|before| *before != head.commit) else { return head.rewritten };
        let known = self.mirror.descends(head.commit, before).await;
        known.map_or(head.rewritten, |descends| descends.map(|descends| !descends))
    }

    /// Renders on a thread of its own. A commit that brings the renderer down is tried once and then refused.
    async fn render(&mut self, snapshot: Snapshot, info: &CommitInfo) -> RenderedFleet {
        let (policy, memory) = (self.known.policy(), self.before.memory.take());
        let begun = self.clock.now();
        let job = move || fleet::load_after(&snapshot, policy.as_deref().map(AsRef::as_ref), memory.as_ref());
        let fleet = match tokio::task::spawn_blocking(job).await {
            Ok((fleet, memory)) => {
                self.before.memory = Some(memory);
                fleet
            }
            Err(_) => refusal("the renderer crashed on this commit; please report it with the commit"),
        };
        if let Some(finding) = info.trailer.as_ref().and_then(RolloutTrailer::finding) {
            tracing::warn!(revision = %info.revision(), "{finding}");
        }
        fleet
            .diagnostics
            .iter()
            .filter_map(|one| one.limit)
            .for_each(|limit| self.metrics.commit_exceeded(limit.name()));
        let took = self.clock.now().since(begun);
        tracing::debug!(revision = %info.revision(), groups = fleet.groups.len(), ?took, "rendered");
        fleet
    }

    /// A commit that was refused before it was rendered: told once, not tried again.
    async fn refuse(&self, head: &Head, taken: &mut Option<Taken>, reason: &str) -> Result<(), Trouble> {
        let info = CommitInfo {
            id: head.commit,
            reference: head.reference.clone(),
            committer: String::new(),
            author: String::new(),
            subject: String::new(),
            time: self.clock.now(),
            trailer: None,
        };
        let _never_accepted =
            self.offer(Revision { info: info.clone(), rewritten: head.rewritten, fleet: refusal(reason) }).await?;
        self.took(&info, None, taken);
        Ok(())
    }
}

/// The remote answered; `refused` says why its head is not taken.
fn succeeded(status: &mut SyncStatus, refused: Option<String>, now: Timestamp) {
    (status.last_success, status.stale) = (Some(now), refused.is_some());
    (status.refused, status.unreachable) = (refused.is_some(), false);
    status.error = refused;
}

/// The attempt failed: of a head that was refused before nobody knows more than before.
fn failed(status: &mut SyncStatus, message: &str, is_refused: bool) {
    (status.refused, status.unreachable) = (is_refused, true);
    status.error = Some(message.to_owned());
}

fn refusal(reason: &str) -> RenderedFleet {
    let refused =
        Diagnostic::error("refused", None, reason).help("nothing of this commit is used; commit a correction");
    RenderedFleet { diagnostics: vec![refused], ..RenderedFleet::default() }
}

/// Why an attempt did not succeed.
enum Trouble {
    /// Nobody listens any more: the daemon is ending.
    Closed,
    /// It failed.
    Failed {
        /// Whether waiting helps.
        class: crate::git::FailureClass,
        /// For people.
        message: String,
    },
}

impl Trouble {
    fn failed(class: crate::git::FailureClass, error: &dyn std::error::Error) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            message.push_str(&format!(": {error}"));
            cause = error.source();
        }
        Self::Failed { class, message }
    }

    fn read(error: ReadError) -> Self {
        Self::failed(crate::git::FailureClass::Transient, &error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_stays_refused_while_the_remote_is_out_of_reach() {
        let now = Timestamp::from_millis(1_800_000_000_000);
        let mut status = SyncStatus::default();
        succeeded(&mut status, Some("the head is not synced: it is not signed".to_owned()), now);
        assert_eq!((status.refused, status.unreachable, status.stale), (true, false, true));
        failed(&mut status, "cannot connect", true);
        assert_eq!((status.refused, status.unreachable, status.last_success), (true, true, Some(now)));
        assert_eq!(status.error.as_deref(), Some("cannot connect"));
        succeeded(&mut status, None, now);
        assert_eq!((status.refused, status.unreachable, &status.error), (false, false, &None));
    }
}
