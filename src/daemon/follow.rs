//! Follows the repository: waits for a bell or the interval, brings the mirror up to date, reads and renders what is new, and
//! hands it to the loop.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::Clock;
use crate::controller::Revision;
use crate::fleet::diagnostic::Diagnostic;
use crate::fleet::snapshot::{CommitId, CommitInfo, RolloutTrailer, Snapshot, SnapshotLimits};
use crate::fleet::{self, RenderedFleet};
use crate::git::TreeId;
use crate::git::backoff::Backoff;
use crate::git::mirror::{Head, Mirror, ReadError};
use crate::serve::bell::Bell;
use crate::serve::metrics::Metrics;
use crate::view::SyncStatus;

/// At most one fetch in this time, however often the bell rings.
const LEAST_PAUSE: Duration = Duration::from_secs(1);

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

/// The follower's task.
pub(super) struct Follower {
    /// The mirror, its own.
    pub mirror: Mirror,
    /// Without a bell the remote is asked so often.
    pub interval: Duration,
    /// What rings when somebody thinks that there is something new.
    pub bell: Bell,
    /// The policy that the next revision is judged by.
    pub policy: Arc<ArcSwapOption<Bytes>>,
    /// The commit that the journal says was accepted last.
    pub accepted: Option<CommitId>,
    /// Where findings go.
    pub found: mpsc::Sender<Found>,
    /// Where everybody sees how it goes.
    pub progress: watch::Sender<Progress>,
    /// The time.
    pub clock: Clock,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// What was taken last.
struct Taken {
    commit: CommitId,
    /// What was accepted; `None` after a refusal, so that the next commit is looked at whatever it changed.
    tree: Option<TreeId>,
}

impl Follower {
    /// Follows for ever; ends when nobody listens any more.
    pub(super) async fn run(mut self) {
        let mut taken: Option<Taken> = None;
        let mut backoff = Backoff::default();
        loop {
            self.progress.send_modify(|progress| progress.begun += 1);
            let begun = self.clock.now();
            let outcome = self.attempt(&mut taken).await;
            let seconds = self.clock.now().since(begun).as_secs_f64();
            let pause = match &outcome {
                Ok(()) => {
                    backoff.succeeded();
                    self.metrics.sync_succeeded(seconds, self.clock.now());
                    // A tenth more or less, so that a hundred daemons do not ask one server at the same moment.
                    self.interval.mul_f64(0.9 + 0.2 * fastrand::f64())
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

    fn tell(&self, outcome: &Result<(), Trouble>, pause: Duration) {
        let now = self.clock.now();
        let stale_after = self.interval * STALE_AFTER_INTERVALS;
        self.progress.send_modify(|progress| {
            progress.ended += 1;
            let status = &mut progress.status;
            status.next_attempt = Some(now + pause.max(LEAST_PAUSE));
            match outcome {
                Ok(()) => {
                    (status.last_success, status.error, status.stale) = (Some(now), None, false);
                    progress.is_ready = true;
                }
                Err(Trouble::Failed { message, class }) => {
                    let is_old = status.last_success.is_none_or(|last| now.since(last) > stale_after);
                    status.error = Some(message.clone());
                    status.stale = is_old || *class == crate::git::FailureClass::Stalled;
                }
                Err(Trouble::Closed) => {}
            }
        });
    }

    async fn attempt(&mut self, taken: &mut Option<Taken>) -> Result<(), Trouble> {
        let head = self.mirror.sync().await.map_err(|error| Trouble::failed(error.class(), &error))?;
        if taken.as_ref().is_some_and(|taken| taken.commit == head.commit) {
            return Ok(());
        }
        let tree = self.mirror.tree_id(head.commit).await.map_err(Trouble::read)?;
        let reading = match self.mirror.read(head.commit, &head.reference, &SnapshotLimits::default()).await {
            Ok(reading) => reading,
            Err(ReadError::Refused { reason, .. }) => return self.refuse(&head, taken, &reason).await,
            Err(error @ (ReadError::Unknown(_) | ReadError::Damaged(_))) => return Err(Trouble::read(error)),
        };
        let info = reading.info;
        let is_unrelated = taken.as_ref().is_some_and(|taken| taken.tree.is_some() && taken.tree == tree);
        let found = if is_unrelated {
            Found::Unrelated(info.clone())
        } else {
            let Some(snapshot) = reading.snapshot else {
                return Err(Trouble::Failed {
                    class: crate::git::FailureClass::Stalled,
                    message: format!("commit {} has no directory at the fleet root (--path)", info.id.short()),
                });
            };
            let fleet = self.render(snapshot, &info).await;
            let rewritten = self.is_rewritten(&head, taken.as_ref()).await;
            let (done, taken_up) = oneshot::channel();
            let revision = Revision { info: info.clone(), rewritten, fleet };
            self.send(Found::Revision(Box::new(revision), done)).await?;
            let is_accepted = taken_up.await.map_err(|_| Trouble::Closed)?;
            self.took(&info, tree.filter(|_| is_accepted), taken);
            return Ok(());
        };
        self.send(found).await?;
        self.took(&info, tree, taken);
        Ok(())
    }

    fn took(&self, info: &CommitInfo, tree: Option<TreeId>, taken: &mut Option<Taken>) {
        *taken = Some(Taken { commit: info.id, tree });
        self.progress.send_modify(|progress| {
            progress.status.revision = Some(info.revision());
            progress.status.subject = Some(info.subject.clone());
        });
    }

    async fn send(&self, found: Found) -> Result<(), Trouble> {
        self.found.send(found).await.map_err(|_| Trouble::Closed)
    }

    /// The mirror knows the head before; a fresh one knows only what the journal accepted last.
    async fn is_rewritten(&self, head: &Head, taken: Option<&Taken>) -> bool {
        let before = taken.map(|taken| taken.commit).or(self.accepted);
        let Some(before) = before.filter(|before| *before != head.commit) else { return head.rewritten };
        !self.mirror.descends(head.commit, before).await.unwrap_or(!head.rewritten)
    }

    /// Renders on a thread of its own. A commit that brings the renderer down is tried once and then refused.
    async fn render(&self, snapshot: Snapshot, info: &CommitInfo) -> RenderedFleet {
        let policy = self.policy.load_full();
        let begun = self.clock.now();
        let rendered =
            tokio::task::spawn_blocking(move || fleet::load(&snapshot, policy.as_deref().map(AsRef::as_ref))).await;
        let fleet = rendered
            .unwrap_or_else(|_| refusal("the renderer crashed on this commit; please report it with the commit"));
        if let Some(finding) = info.trailer.as_ref().and_then(RolloutTrailer::finding) {
            tracing::warn!(revision = %info.revision(), "{finding}");
        }
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
        let (done, taken_up) = oneshot::channel();
        let revision = Revision { info: info.clone(), rewritten: head.rewritten, fleet: refusal(reason) };
        self.send(Found::Revision(Box::new(revision), done)).await?;
        let _never_accepted = taken_up.await.map_err(|_| Trouble::Closed)?;
        self.took(&info, None, taken);
        Ok(())
    }
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
