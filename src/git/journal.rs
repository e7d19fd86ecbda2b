//! The journal: notes for people and records for machines in one ref, written locally by compare-and-swap, pushed forwards only.
//!
//! Invariants: what `store` returned `Ok` for is on the disk and in every later tip; a push never replaces a remote tip that it
//! does not contain; nothing here waits for the network while it keeps a `store` waiting.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use git2::{Oid, Reference};

use super::failure::{FailureClass, FailureKind, TransportError};
use super::lock;
use super::remote::sanitise;
use super::seal::JournalKeys;
use super::sealing::Sealer;
use super::settle::{Unbelieved, When};
use super::store::{Merged, PUSHING, Store};
use super::transport::{Action, Transport};
use super::{Deadlines, tree};
use crate::fleet::snapshot::CommitId;
use crate::time::Timestamp;

/// All journals of all instances stand below this.
pub const NOTES_PREFIX: &str = "refs/notes/gitamp/";
/// The remote's tip as last fetched.
const REMOTE: &str = "refs/gitamp/remote";

/// The longest note: 64 KiB. Whoever writes one keeps to it; what is longer is cut here, so that `git log` stays usable.
pub const LONGEST_NOTE_BYTES: usize = 64 << 10;
/// How often a push is tried when another writer is first.
const PUSH_ATTEMPTS: u32 = 6;
/// The longest pause between two of them; the first is a tenth of it.
const PUSH_PAUSE: Duration = Duration::from_millis(1000);
/// How long opening waits for a remote when there is a local journal to go on with.
const OPEN_PATIENCE: Duration = Duration::from_secs(10);

/// Where the journal stands and where it is pushed to.
#[derive(Clone, Debug)]
pub struct JournalOptions {
    /// The instance, the last part of `refs/notes/gitamp/<instance>`: no slash.
    pub instance: String,
    /// The directory for `journal.git`.
    pub state_dir: PathBuf,
    /// Where it is pushed to; `None`: it stays local.
    pub remote: Option<Transport>,
    /// The keys that notes and records are signed with. `None`: nothing is signed, and what stands in the ref is believed.
    pub keys: Option<JournalKeys>,
    /// With keys, when no records are believed: those of this commit of the journal are taken for ours, because the operator says so.
    pub adopt: Option<CommitId>,
}

/// One write: everything in it becomes visible together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalWrite {
    /// The message of the commit, shown by `git log refs/notes/gitamp/<instance>`: the audit log.
    pub message: String,
    /// Notes by the commit that they are about; each replaces the note before.
    pub notes: BTreeMap<CommitId, String>,
    /// Files by their path below `state/`; `None` deletes one.
    pub state: BTreeMap<String, Option<Bytes>>,
}

/// What the journal held when it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalContents {
    /// Files by their path below `state/`.
    pub state: BTreeMap<String, Bytes>,
    /// True when a seal stands beside them, which was checked if there are keys.
    pub is_sealed: bool,
}

/// What came of a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushOutcome {
    /// The remote has everything now.
    Pushed,
    /// It had everything already.
    UpToDate,
    /// The journal stays local. A supported way of working: look again now and then, not at once.
    ReadOnly {
        /// What the remote does to it.
        kind: FailureKind,
        /// The reason in words.
        reason: String,
    },
}

/// One commit of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The journal's own commit.
    pub commit: CommitId,
    /// When it was written.
    pub time: Timestamp,
    /// Its message.
    pub message: String,
}

/// Why the journal could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another process has it open.
    #[error("another gitamp uses {} already: give each its own --state-dir", .0.display())]
    InUse(PathBuf),
    /// The instance cannot be the name of a ref.
    #[error("`{0}` cannot name an instance: use letters, digits, `-` and `_`")]
    InvalidInstance(String),
    /// Files that cannot be stored below `state/`, because of their paths; nothing of the write was stored.
    #[error("{} cannot be stored in the journal: Git has no place for such a name", quoted(.0))]
    InvalidPath(Vec<String>),
    /// The remote could not be asked.
    #[error("the journal's remote")]
    Transport(#[from] TransportError),
    /// The local repository cannot be used.
    #[error("the journal in {}: {reason}", .path.display())]
    Local {
        /// Where it stands.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// There are records, and none that the keys prove.
    #[error("{}", unbelieved(.reference, *.commit, .reason, *.newest))]
    Unbelieved {
        /// The ref.
        reference: String,
        /// The journal's commit that the records stand in.
        commit: CommitId,
        /// Why they are not believed.
        reason: &'static str,
        /// The newest commit of the journal whose records are.
        newest: Option<CommitId>,
    },
    /// Other writers moved the remote's ref each time.
    #[error("other writers were first {PUSH_ATTEMPTS} times")]
    Contended,
}

impl JournalError {
    /// Whether waiting helps.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::InUse(_) | Self::InvalidInstance(_) | Self::InvalidPath(_) | Self::Unbelieved { .. } => {
                FailureClass::Stalled
            }
            Self::Transport(error) => error.class(),
            Self::Local { .. } | Self::Contended => FailureClass::Transient,
        }
    }

    /// What kind of failure it is to whoever pushes.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::InUse(_)
            | Self::InvalidInstance(_)
            | Self::InvalidPath(_)
            | Self::Unbelieved { .. }
            | Self::Local { .. } => FailureKind::Local,
            Self::Transport(error) => error.kind,
            Self::Contended => FailureKind::NotFastForward,
        }
    }
}

/// The journal of one instance. Clones share it.
#[derive(Clone, Debug)]
pub struct Journal {
    shared: Arc<Shared>,
    /// What transfers may take, where that is less than the remote's options say.
    hurry: Option<Deadlines>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    remote: Option<Transport>,
    /// Why the remote's ref is left alone, if it holds something that is no journal.
    foreign: Mutex<Option<String>>,
    /// What was said last of records that others wrote and that the keys do not prove.
    disbelieved: Mutex<Option<String>>,
    /// One writer at a time; the compare-and-swap beneath would only make others try again.
    writing: tokio::sync::Mutex<()>,
    pushing: tokio::sync::Mutex<()>,
    /// Held as long as the journal is open.
    _lock: File,
}

impl Journal {
    /// Opens the journal: the local one if there is one, brought together with the remote's; on an empty disk the remote's.
    /// An empty disk and a remote that cannot be asked is an error, not an empty journal: starting without the records would
    /// forget what agents may not be offered.
    pub async fn open(options: JournalOptions) -> Result<(Self, JournalContents), JournalError> {
        let reference = reference_of(&options.instance)?;
        let path = options.state_dir.join("journal.git");
        let lock = lock::take(&options.state_dir, "journal.lock")
            .await
            .map_err(|error| JournalError::Local {
                path: options.state_dir.join("journal.lock"),
                reason: error.to_string(),
            })?
            .ok_or_else(|| JournalError::InUse(options.state_dir.clone()))?;
        let sealer = options.keys.map(|keys| Sealer::new(keys, &reference));
        let has_keys = sealer.is_some();
        let store = Store { path, reference, sealer };
        let tip = store.clone().blocking(Store::prepare).await?;
        let journal = Self {
            hurry: None,
            shared: Arc::new(Shared {
                store,
                remote: options.remote,
                foreign: Mutex::default(),
                disbelieved: Mutex::default(),
                writing: tokio::sync::Mutex::new(()),
                pushing: tokio::sync::Mutex::new(()),
                _lock: lock,
            }),
        };
        let when = When::Opening { adopt: options.adopt };
        if let Some(mut transport) = journal.shared.remote.clone() {
            if tip.is_some() {
                transport.deadlines.total = transport.deadlines.total.min(OPEN_PATIENCE);
            }
            match journal.integrate(&transport, when.clone()).await {
                Err(JournalError::Transport(error)) if tip.is_some() => {
                    tracing::warn!(%error, "the journal's remote could not be asked; going on with the local journal");
                }
                // Whoever may push must not be able to stop a start that the disk is enough for. If the disk itself is what
                // fails, reading it says so below.
                Err(error @ JournalError::Local { .. }) if tip.is_some() => {
                    let error = error.to_string();
                    tracing::warn!(error, "the remote's journal cannot be used; going on with the local one");
                }
                Err(error) => return Err(error),
                Ok(()) => {}
            }
        }
        let merged = journal.shared.store.clone().blocking(move |store| store.believe(&when)).await?;
        if let Merged::Unbelieved(unbelieved) = merged {
            return Err(journal.unbelieved(unbelieved));
        }
        let contents = journal.shared.store.clone().blocking(Store::contents).await?;
        if contents.is_sealed && !has_keys {
            tracing::warn!("the journal's records carry a seal that nobody checks: is --journal-key-file missing?");
        }
        Ok((journal, contents))
    }

    /// Writes one commit and returns when it is on the disk. A write that changes nothing makes no commit.
    pub async fn store(&self, mut write: JournalWrite) -> Result<(), JournalError> {
        // What cannot be there need not be removed.
        write.state.retain(|path, content| content.is_some() || tree::is_storable(path));
        let refused: Vec<String> = write.state.keys().filter(|path| !tree::is_storable(path)).cloned().collect();
        if !refused.is_empty() {
            return Err(JournalError::InvalidPath(refused));
        }
        let _one_at_a_time = self.shared.writing.lock().await;
        let refused = self.shared.store.clone().blocking(move |store| store.write(&write)).await?;
        if refused.is_empty() { Ok(()) } else { Err(JournalError::InvalidPath(refused)) }
    }

    /// Brings the remote up to date, forwards only. When another writer was first, what we wrote is put on top of theirs.
    pub async fn push(&self) -> Result<PushOutcome, JournalError> {
        let Some(transport) = self.remote() else {
            let reason = "the journal has no remote".to_owned();
            return Ok(PushOutcome::ReadOnly { kind: FailureKind::PushRefused, reason });
        };
        let _one_at_a_time = self.shared.pushing.lock().await;
        for attempt in 0..PUSH_ATTEMPTS {
            if self.foreign().is_some() {
                // Somebody may have put it right.
                self.integrate(&transport, When::Running).await?;
            }
            if let Some(reason) = self.foreign() {
                return Ok(PushOutcome::ReadOnly { kind: FailureKind::PushRefused, reason });
            }
            let Some(tip) = self.shared.store.clone().blocking(Store::begin_push).await? else {
                return Ok(PushOutcome::UpToDate);
            };
            let action = Action::Push {
                repository: self.shared.store.path.clone(),
                from: PUSHING.to_owned(),
                to: self.shared.store.reference.clone(),
            };
            match transport.run(action).await {
                Ok(_) => {
                    self.shared.store.clone().blocking(move |store| store.pushed(tip)).await?;
                    return Ok(PushOutcome::Pushed);
                }
                Err(error) => match error.kind {
                    FailureKind::NotFastForward => {
                        tokio::time::sleep(pause(attempt, fastrand::f64())).await;
                        self.integrate(&transport, When::Running).await?;
                    }
                    kind @ (FailureKind::PushRefused | FailureKind::Credentials | FailureKind::Forbidden) => {
                        return Ok(PushOutcome::ReadOnly { kind, reason: error.message });
                    }
                    FailureKind::Network
                    | FailureKind::Timeout
                    | FailureKind::Server
                    | FailureKind::Throttled
                    | FailureKind::HostKey
                    | FailureKind::Certificate
                    | FailureKind::NotFound
                    | FailureKind::NoSuchRef
                    | FailureKind::Protocol
                    | FailureKind::Content
                    | FailureKind::Local
                    | FailureKind::Child => return Err(error.into()),
                },
            }
        }
        Err(JournalError::Contended)
    }

    /// Looks at the remote even when nothing was stored, and pushes what it lacks: somebody may have deleted its ref or set it back.
    pub async fn verify(&self) -> Result<PushOutcome, JournalError> {
        if let Some(transport) = self.remote() {
            let _one_at_a_time = self.shared.pushing.lock().await;
            self.integrate(&transport, When::Running).await?;
        }
        self.push().await
    }

    /// What transfers with the remote may take; `None` without a remote.
    pub fn deadlines(&self) -> Option<Deadlines> {
        self.remote().map(|remote| remote.deadlines)
    }

    /// The same journal, for transfers that may take so long and no longer.
    #[must_use]
    pub fn within(&self, deadlines: Deadlines) -> Self {
        Self { shared: Arc::clone(&self.shared), hurry: Some(deadlines) }
    }

    fn remote(&self) -> Option<Transport> {
        let remote = self.shared.remote.clone()?;
        Some(Transport { deadlines: self.hurry.unwrap_or(remote.deadlines), ..remote })
    }

    /// The note on a commit.
    pub async fn note(&self, commit: CommitId) -> Result<Option<String>, JournalError> {
        self.shared.store.clone().blocking(move |store| store.note(commit)).await
    }

    /// The newest `limit` writes, newest first.
    pub async fn history(&self, limit: usize) -> Result<Vec<HistoryEntry>, JournalError> {
        self.shared.store.clone().blocking(move |store| store.history(limit)).await
    }

    /// The ref, `refs/notes/gitamp/<instance>`.
    pub fn reference(&self) -> &str {
        &self.shared.store.reference
    }

    /// Why the remote's ref is left alone: it holds something that is no journal.
    pub fn foreign(&self) -> Option<String> {
        self.shared.foreign.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was found last in the remote's ref in place of our records, and not believed.
    pub fn disbelieved(&self) -> Option<String> {
        self.shared.disbelieved.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Fetches the remote's journal and brings it together with ours.
    async fn integrate(&self, transport: &Transport, when: When) -> Result<(), JournalError> {
        let action = Action::FetchRef {
            repository: self.shared.store.path.clone(),
            reference: self.shared.store.reference.clone(),
            into: REMOTE.to_owned(),
        };
        let done = transport.run(action).await?;
        let fetched = done.object.as_deref().and_then(|digits| digits.parse::<Oid>().ok());
        let _one_at_a_time = self.shared.writing.lock().await;
        let merged = self.shared.store.clone().blocking(move |store| store.merge(fetched, &when)).await?;
        self.note_merge(merged)
    }

    /// Remembers, and tells once, what a merge found in the remote's ref.
    fn note_merge(&self, merged: Merged) -> Result<(), JournalError> {
        let reference = &self.shared.store.reference;
        let foreign = match merged {
            Merged::Together { disbelieved: None } => None,
            Merged::Together { disbelieved: Some(what) } => {
                tracing::warn!("{what}");
                *self.shared.disbelieved.lock().unwrap_or_else(PoisonError::into_inner) = Some(what);
                None
            }
            Merged::Foreign(what) => Some(format!("{reference} of the remote holds {what}; it is left alone")),
            Merged::Unbelieved(unbelieved) => return Err(self.unbelieved(unbelieved)),
        };
        let mut known = self.shared.foreign.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = foreign.as_ref().filter(|_| known.is_none()) {
            tracing::warn!("{reason}");
        }
        *known = foreign;
        Ok(())
    }

    fn unbelieved(&self, unbelieved: Unbelieved) -> JournalError {
        let Unbelieved { commit, reason, newest } = unbelieved;
        JournalError::Unbelieved { reference: self.shared.store.reference.clone(), commit, reason, newest }
    }
}

/// The first of these paths, and how many more there are.
fn quoted(paths: &[String]) -> String {
    let more = paths.len().saturating_sub(1);
    let first = paths.first().map(|path| sanitise(path)).unwrap_or_default();
    if more == 0 { format!("`{first}`") } else { format!("`{first}` and {more} more") }
}

/// What to say when a start has to wait because the records are not believed: short enough for a status line.
fn unbelieved(reference: &str, commit: CommitId, reason: &str, newest: Option<CommitId>) -> String {
    let newest = newest.map_or(String::new(), |newest| format!(" (or {newest}, the newest that is believed)"));
    format!(
        "the records in commit {commit} of {reference} are not believed: {reason}. Nothing is offered until the ref is put right, or \
         you start with --journal-adopt and this commit{newest}"
    )
}

/// The ref of an instance.
fn reference_of(instance: &str) -> Result<String, JournalError> {
    let reference = format!("{NOTES_PREFIX}{instance}");
    if instance.is_empty() || instance.contains('/') || instance.len() > 100 || !Reference::is_valid_name(&reference) {
        return Err(JournalError::InvalidInstance(sanitise(instance)));
    }
    Ok(reference)
}

/// How long to wait before the next push when another writer was first: longer each time, spread by `jitter` (0 to 1).
fn pause(attempt: u32, jitter: f64) -> Duration {
    (PUSH_PAUSE / 10).saturating_mul(1 << attempt.min(10)).min(PUSH_PAUSE).mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}
