//! The bare mirror of the fleet's repository: kept up to date, read without a checkout, thrown away when it is damaged.

use std::collections::{HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use git2::{ErrorCode, Oid, Repository};

use super::answers::Done;
use super::authors::History;
use super::child::DEPTH_KEY;
use super::failure::{FailureClass, FailureKind, TransportError};
use super::lineage::{self, Lineage, Question};
use super::reader::CommitReader;
pub use super::reader::ReadError;
use super::remote::sanitise;
use super::transport::{Action, Transport};
use super::{SourceOptions, Tracked, commit_of, hermetic, oid_of, upkeep};
use crate::fleet::snapshot::{CommitId, CommitInfo, Snapshot, SnapshotLimits};

/// Commits that are looked at where history ends somewhere.
const FARTHEST_BACK: usize = 10_000;
/// Where a fetch lands, before it is known to be good.
const FETCHED: &str = "refs/gitamp/fetched";
/// The last head that was good.
pub(super) const HEAD: &str = "refs/gitamp/head";

/// What the tracked ref says now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The commit; an annotated tag is followed to its commit.
    pub commit: CommitId,
    /// The ref in its short form: `main`, `v1.2.0`.
    pub reference: String,
    /// True when history was rewritten: this commit does not descend from the head before. Where tags are followed, a newer
    /// tag may stand anywhere; there only a tag that was moved counts. `None`: the history that would tell was not fetched.
    pub rewritten: Option<bool>,
}

/// Why the mirror could not be brought up to date. It still holds what it held before.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The transfer failed.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The tracked ref points to something that is no commit (a tag of a file, say).
    #[error("{reference} does not lead to a commit")]
    NotACommit {
        /// The ref.
        reference: String,
    },
    /// Our own directory cannot be used.
    #[error("the mirror in {}: {reason}", .path.display())]
    Local {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl SyncError {
    /// Whether waiting helps.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Transport(error) => error.class(),
            Self::NotACommit { .. } => FailureClass::Stalled,
            Self::Local { .. } => FailureClass::Transient,
        }
    }
}

/// A commit as it was read.
#[derive(Clone, Debug)]
pub struct Reading {
    /// What it says of itself.
    pub info: CommitInfo,
    /// The files below the fleet root; `None` when the commit has no such directory, which is not the same as an empty one.
    pub snapshot: Option<Snapshot>,
}

/// The mirror. One owner: `sync` needs it alone, `read` may run several at a time.
#[derive(Debug)]
pub struct Mirror {
    transport: Transport,
    options: SourceOptions,
    path: PathBuf,
    head: Option<CommitId>,
    /// The ref that led to it, if it was synced by this process.
    reference: Option<String>,
    /// Set when something could not be read, or all history is missing: the next sync clones anew.
    damaged: AtomicBool,
    /// What came could not be taken in, and a new mirror could not take it in either: the remote is to blame, not ours.
    remote_is_broken: bool,
}

impl Mirror {
    /// The mirror below the state directory, as it stands: no network. A mirror that cannot be opened is made anew by the
    /// first sync.
    pub async fn open(options: SourceOptions) -> Result<Self, SyncError> {
        let path = options.state_dir.join("mirror.git");
        let local = |reason: String| SyncError::Local { path: path.clone(), reason };
        std::fs::create_dir_all(&options.state_dir).map_err(|error| local(error.to_string()))?;
        let opened = blocking(path.clone(), |path| path.exists().then(|| ref_commit(path, HEAD))).await?;
        let wants_history = !options.shallow;
        let lacks_history = blocking(path.clone(), move |path| wants_history && is_marked_shallow(path)).await?;
        let (head, damaged) = match opened {
            None => (None, false),
            Some(Ok(head)) if lacks_history => {
                tracing::info!(mirror = %path.display(), "the mirror has no history (--depth 1) and is made anew with it");
                (head, true)
            }
            Some(Ok(head)) => (head, false),
            Some(Err(error)) => {
                tracing::warn!(mirror = %path.display(), error = error.message(), "the mirror is damaged and is made anew");
                (None, true)
            }
        };
        Ok(Self {
            transport: options.transport(),
            options,
            path,
            head,
            reference: None,
            damaged: AtomicBool::new(damaged),
            remote_is_broken: false,
        })
    }

    /// The head of the last sync that went well, also over restarts.
    pub fn head(&self) -> Option<CommitId> {
        self.head
    }

    /// Fetches the tracked ref. A mirror that turns out to be damaged is set aside, and only once a new one is complete; when
    /// that fails too, the old one stays. Errors leave the head as it was.
    pub async fn sync(&mut self) -> Result<Head, SyncError> {
        if self.damaged.load(Ordering::Relaxed) {
            return self.clone_anew().await;
        }
        match self.fetch(self.path.clone()).await {
            Err(SyncError::Transport(error)) if error.kind == FailureKind::Local => {
                tracing::warn!(%error, "the mirror cannot be used and is made anew");
                self.clone_anew().await
            }
            // What comes builds on what is here, so either may be broken. A new mirror needs nothing of ours, but is too dear to try each time.
            Err(SyncError::Transport(error)) if error.kind == FailureKind::Content && !self.remote_is_broken => {
                tracing::warn!(%error, "perhaps the mirror is damaged: it is made anew");
                let outcome = self.clone_anew().await;
                self.remote_is_broken =
                    matches!(&outcome, Err(SyncError::Transport(error)) if error.kind == FailureKind::Content);
                outcome
            }
            Err(SyncError::Local { reason, .. }) => {
                tracing::warn!(reason, "the mirror cannot be used and is made anew");
                self.clone_anew().await
            }
            Err(error) => Err(error),
            Ok(head) => {
                self.remember(&head);
                Ok(head)
            }
        }
    }

    /// Clones beside the old mirror, and swaps when it is complete.
    async fn clone_anew(&mut self) -> Result<Head, SyncError> {
        let fresh = self.options.state_dir.join("mirror.git.new");
        let local =
            |path: &Path, error: std::io::Error| SyncError::Local { path: path.to_owned(), reason: error.to_string() };
        upkeep::remove(&fresh).map_err(|error| local(&fresh, error))?;
        let head = match self.fetch(fresh.clone()).await {
            Ok(head) => head,
            Err(error) => {
                // Half a clone is worth nothing, and the disk may be full. What cannot be removed now is removed next time.
                let _removed = upkeep::remove(&fresh);
                return Err(error);
            }
        };
        let aside = upkeep::set_aside(&self.path).map_err(|error| local(&self.path, error))?;
        std::fs::rename(&fresh, &self.path).map_err(|error| local(&fresh, error))?;
        if let Some(aside) = aside {
            tracing::warn!(aside = %aside.display(), "the mirror was cloned anew; the old one is kept aside");
        }
        self.damaged.store(false, Ordering::Relaxed);
        self.remember(&head);
        Ok(head)
    }

    fn remember(&mut self, head: &Head) {
        self.head = Some(head.commit);
        self.remote_is_broken = false;
        self.reference = Some(head.reference.clone());
    }

    async fn fetch(&self, path: PathBuf) -> Result<Head, SyncError> {
        let action = Action::FetchTracked {
            repository: path.clone(),
            tracked: self.options.tracked.clone(),
            shallow: self.options.shallow,
            into: FETCHED.to_owned(),
        };
        let done = self.transport.run(action).await?;
        let before = self.head;
        let mut head = blocking(path, move |path| accept(path, &done, before)).await??;
        if matches!(self.options.tracked, Tracked::Tags(_)) && self.reference.as_ref() != Some(&head.reference) {
            head.rewritten = Some(false);
        }
        Ok(head)
    }

    /// Reads one commit: what it says, and everything that matters below the fleet root. Bounded by `limits`. Of what `before` has
    /// too, a snapshot that this mirror read within the same limits, nothing is read again. When the mirror turns out to be damaged,
    /// the next sync makes it anew.
    pub async fn read(
        &self,
        commit: CommitId,
        reference: &str,
        limits: &SnapshotLimits,
        before: Option<&Snapshot>,
    ) -> Result<Reading, ReadError> {
        let (root, limits, reference) = (self.options.fleet_root.clone(), limits.clone(), reference.to_owned());
        let before = before.cloned();
        self.reading(commit, move |reader| {
            let snapshot = reader.snapshot(&root, &limits, before.as_ref())?;
            Ok(Reading { info: reader.info(&reference)?, snapshot })
        })
        .await
    }

    /// Whether `commit` is `ancestor` or descends from it. An ancestor that the mirror does not know is none. `None`: the history
    /// that would tell was not fetched.
    pub async fn descends(&self, commit: CommitId, ancestor: CommitId) -> Result<Option<bool>, ReadError> {
        self.with_repository(move |repository| {
            descends(repository, commit, ancestor).map_err(|error| ReadError::Damaged(sanitise(error.message())))
        })
        .await
    }

    /// What a commit says of itself, without reading any file.
    pub async fn info(&self, commit: CommitId, reference: &str) -> Result<CommitInfo, ReadError> {
        let reference = reference.to_owned();
        self.reading(commit, move |reader| reader.info(&reference)).await
    }

    /// The commits that lead to a head, to be judged by their signatures.
    pub async fn lineage(&self, question: Question) -> Result<Lineage, ReadError> {
        let root = self.options.fleet_root.clone();
        self.with_repository(move |repository| lineage::lineage(repository, &root, &question)).await
    }

    /// Its history, for questions that others ask beside this.
    pub fn history(&self) -> History {
        History { mirror: self.path.clone(), fleet_root: self.options.fleet_root.as_str().into() }
    }

    /// Whether the mirror has this commit.
    pub async fn knows(&self, commit: CommitId) -> Result<bool, ReadError> {
        self.with_repository(move |repository| {
            let known = || Ok(repository.odb()?.exists(oid_of(commit)?));
            known().map_err(|error: git2::Error| ReadError::Damaged(sanitise(error.message())))
        })
        .await
    }

    async fn reading<T: Send + 'static>(
        &self,
        commit: CommitId,
        job: impl FnOnce(&CommitReader<'_>) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        self.with_repository(move |repository| job(&CommitReader::new(repository, commit)?)).await
    }

    async fn with_repository<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Repository) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let outcome = blocking(self.path.clone(), move |path| {
            let damaged = |error: git2::Error| ReadError::Damaged(sanitise(error.message()));
            open(path).map_err(damaged).and_then(|repository| job(&repository))
        })
        .await
        .unwrap_or_else(|error| Err(ReadError::Damaged(error.to_string())));
        if let Err(ReadError::Damaged(_)) = &outcome {
            self.damaged.store(true, Ordering::Relaxed);
        }
        outcome
    }
}

/// Runs what blocks on a thread where it may.
async fn blocking<T: Send + 'static>(
    path: PathBuf,
    job: impl FnOnce(&Path) -> T + Send + 'static,
) -> Result<T, SyncError> {
    let shown = path.clone();
    tokio::task::spawn_blocking(move || job(&path))
        .await
        .map_err(|error| SyncError::Local { path: shown, reason: error.to_string() })
}

fn open(path: &Path) -> Result<Repository, git2::Error> {
    hermetic::prepare();
    Repository::open_bare(path)
}

/// Whether history was left out of this mirror by choice.
fn is_marked_shallow(path: &Path) -> bool {
    let depth = open(path).and_then(|repository| repository.config()?.get_i32(DEPTH_KEY));
    depth.is_ok_and(|depth| depth > 0)
}

/// The commit that a ref of ours names; `None` when there is no such ref.
fn ref_commit(path: &Path, name: &str) -> Result<Option<CommitId>, git2::Error> {
    let repository = open(path)?;
    match repository.find_reference(name).and_then(|reference| reference.peel_to_commit()) {
        Ok(commit) => Ok(commit_of(commit.id())),
        Err(error) if error.code() == ErrorCode::NotFound && repository.refname_to_id(name).is_err() => Ok(None),
        Err(error) => Err(error),
    }
}

fn descends(repository: &Repository, commit: CommitId, ancestor: CommitId) -> Result<Option<bool>, git2::Error> {
    if commit == ancestor {
        return Ok(Some(true));
    }
    let (commit, ancestor) = (oid_of(commit)?, oid_of(ancestor)?);
    if repository.is_shallow() {
        // Where history was left out, the way that leads there may have been, too.
        return Ok(is_reached(repository, commit, ancestor)?.then_some(true));
    }
    Ok(Some(repository.odb()?.exists(ancestor) && repository.graph_descendant_of(commit, ancestor)?))
}

/// Whether a way leads from a commit back to another one, in a repository where history ends somewhere: libgit2's own walks take that for
/// damage. Looks at so many commits at most; of what is farther it cannot be told.
fn is_reached(repository: &Repository, from: Oid, wanted: Oid) -> Result<bool, git2::Error> {
    let (mut open, mut seen) = (VecDeque::from([from]), HashSet::from([from]));
    while let Some(commit) = open.pop_front() {
        let commit = match repository.find_commit(commit) {
            Ok(commit) => commit,
            Err(error) if error.code() == ErrorCode::NotFound => continue,
            Err(error) => return Err(error),
        };
        for parent in commit.parent_ids() {
            if parent == wanted {
                return Ok(true);
            }
            if seen.len() < FARTHEST_BACK && seen.insert(parent) {
                open.push_back(parent);
            }
        }
    }
    Ok(false)
}

/// Takes what was fetched as the new head.
fn accept(path: &Path, done: &Done, before: Option<CommitId>) -> Result<Head, SyncError> {
    let local = |error: git2::Error| SyncError::Local { path: path.to_owned(), reason: sanitise(error.message()) };
    let reference = done.reference.clone().unwrap_or_default();
    let repository = open(path).map_err(local)?;
    let object = repository
        .find_reference(FETCHED)
        .and_then(|fetched| fetched.resolve())
        .and_then(|fetched| repository.find_object(fetched.target().unwrap_or(Oid::ZERO_SHA1), None))
        .map_err(local)?;
    let commit = match object.peel_to_commit() {
        Ok(commit) => commit,
        Err(error) if error.code() == ErrorCode::NotFound => return Err(local(error)),
        Err(_) => return Err(SyncError::NotACommit { reference: sanitise(&reference) }),
    };
    let Some(id) = commit_of(commit.id()) else {
        return Err(SyncError::NotACommit { reference: sanitise(&reference) });
    };
    let rewritten = match before {
        Some(before) => descends(&repository, id, before).map_err(local)?.map(|descends| !descends),
        None => Some(false),
    };
    if before != Some(id) || repository.refname_to_id(HEAD).ok() != Some(commit.id()) {
        repository.reference(HEAD, commit.id(), true, "gitamp: synced").map_err(local)?;
    }
    if let Err(error) = upkeep::tidy(&repository) {
        tracing::warn!(%error, "the mirror's packs could not be made fewer");
    }
    let short = reference.strip_prefix("refs/heads/").or_else(|| reference.strip_prefix("refs/tags/"));
    Ok(Head { commit: id, reference: short.unwrap_or(&reference).to_owned(), rewritten })
}
