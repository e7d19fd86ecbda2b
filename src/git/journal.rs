//! The journal: notes for people and records for machines in one ref, written locally by compare-and-swap, pushed forwards only.
//!
//! Invariants: what `store` returned `Ok` for is on the disk and in every later tip; a push never replaces a remote tip that it
//! does not contain; nothing here waits for the network while it keeps a `store` waiting.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use git2::{ErrorCode, Oid, Reference, Repository, RepositoryInitOptions, Signature, Tree};

use super::failure::{FailureClass, FailureKind, TransportError};
use super::remote::sanitise;
use super::transport::{Action, Transport};
use super::tree::{self, Edits, found};
use super::{commit_of, hermetic, upkeep};
use crate::fleet::snapshot::CommitId;
use crate::time::Timestamp;

/// All journals of all instances stand below this.
pub const NOTES_PREFIX: &str = "refs/notes/gitamp/";
/// The remote's tip as last fetched.
const REMOTE: &str = "refs/gitamp/remote";
/// What the running push pushes: the ref itself may move meanwhile.
const PUSHING: &str = "refs/gitamp/pushing";
/// What the remote is known to have.
const PUSHED: &str = "refs/gitamp/pushed";

/// The longest note: 64 KiB. Whoever writes one keeps to it; what is longer is cut here, so that `git log` stays usable.
pub const LONGEST_NOTE_BYTES: usize = 64 << 10;
/// The state that is read at most: 256 MiB, a thousand times what 10,000 groups need.
const LARGEST_STATE_BYTES: u64 = 256 << 20;
/// How often a store is tried when another writer moves the ref.
const STORE_ATTEMPTS: u32 = 8;
/// How often a push is tried when another writer is first.
const PUSH_ATTEMPTS: u32 = 6;
/// The longest pause between two of them; the first is a tenth of it.
const PUSH_PAUSE: Duration = Duration::from_millis(1000);
/// How long opening waits for a remote when there is a local journal to go on with.
const OPEN_PATIENCE: Duration = Duration::from_secs(10);
/// After this many stores it is looked whether loose objects should be packed.
const STORES_BETWEEN_PACKING: u32 = 200;
/// More loose objects than this are packed: opening directories of more is slow on any file system.
const LOOSE_BEFORE_PACKING: usize = 4000;

/// Where the journal stands and where it is pushed to.
#[derive(Clone, Debug)]
pub struct JournalOptions {
    /// The instance, the last part of `refs/notes/gitamp/<instance>`: no slash.
    pub instance: String,
    /// The directory for `journal.git`.
    pub state_dir: PathBuf,
    /// Where it is pushed to; `None`: it stays local.
    pub remote: Option<Transport>,
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
}

/// What came of a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushOutcome {
    /// The remote has everything now.
    Pushed,
    /// It had everything already.
    UpToDate,
    /// The journal stays local, for this reason. A supported way of working: look again now and then, not at once.
    ReadOnly(String),
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
    /// A path that cannot be stored below `state/`.
    #[error("`{0}` cannot be stored in the journal")]
    InvalidPath(String),
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
    /// Other writers moved the remote's ref each time.
    #[error("other writers were first {PUSH_ATTEMPTS} times")]
    Contended,
}

impl JournalError {
    /// Whether waiting helps.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::InUse(_) | Self::InvalidInstance(_) | Self::InvalidPath(_) => FailureClass::Stalled,
            Self::Transport(error) => error.class(),
            Self::Local { .. } | Self::Contended => FailureClass::Transient,
        }
    }
}

/// The journal of one instance. Clones share it.
#[derive(Clone, Debug)]
pub struct Journal {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    remote: Option<Transport>,
    /// Why the remote's ref is left alone, if it holds something that is no journal.
    foreign: Mutex<Option<String>>,
    /// One writer at a time; the compare-and-swap beneath would only make others try again.
    writing: tokio::sync::Mutex<()>,
    pushing: tokio::sync::Mutex<()>,
    stores: AtomicU32,
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
        let lock = lock(&options.state_dir)?;
        let store = Store { path, reference };
        let tip = store.clone().blocking(Store::prepare).await?;
        let journal = Self {
            shared: Arc::new(Shared {
                store,
                remote: options.remote,
                foreign: Mutex::new(None),
                writing: tokio::sync::Mutex::new(()),
                pushing: tokio::sync::Mutex::new(()),
                stores: AtomicU32::new(0),
                _lock: lock,
            }),
        };
        if let Some(mut transport) = journal.shared.remote.clone() {
            if tip.is_some() {
                transport.deadlines.total = transport.deadlines.total.min(OPEN_PATIENCE);
            }
            match journal.integrate(&transport).await {
                Err(JournalError::Transport(error)) if tip.is_some() => {
                    tracing::warn!(%error, "the journal's remote could not be asked; going on with the local journal");
                }
                Err(error) => return Err(error),
                Ok(()) => {}
            }
        }
        let contents = journal.shared.store.clone().blocking(Store::contents).await?;
        Ok((journal, contents))
    }

    /// Writes one commit and returns when it is on the disk. A write that changes nothing makes no commit.
    pub async fn store(&self, write: JournalWrite) -> Result<(), JournalError> {
        if let Some(path) = write.state.keys().find(|path| !tree::is_storable(path)) {
            return Err(JournalError::InvalidPath(sanitise(path)));
        }
        let _one_at_a_time = self.shared.writing.lock().await;
        let pack =
            self.shared.stores.fetch_add(1, Ordering::Relaxed) % STORES_BETWEEN_PACKING == STORES_BETWEEN_PACKING - 1;
        self.shared.store.clone().blocking(move |store| store.write(&write, pack)).await
    }

    /// Brings the remote up to date, forwards only. When another writer was first, what we wrote is put on top of theirs.
    pub async fn push(&self) -> Result<PushOutcome, JournalError> {
        let Some(transport) = self.shared.remote.clone() else {
            return Ok(PushOutcome::ReadOnly("the journal has no remote".to_owned()));
        };
        let _one_at_a_time = self.shared.pushing.lock().await;
        for attempt in 0..PUSH_ATTEMPTS {
            if let Some(reason) = self.foreign() {
                return Ok(PushOutcome::ReadOnly(reason));
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
                    self.shared.store.clone().blocking(move |store| store.set(PUSHED, tip)).await?;
                    return Ok(PushOutcome::Pushed);
                }
                Err(error) => match error.kind {
                    FailureKind::NotFastForward => {
                        tokio::time::sleep(pause(attempt, fastrand::f64())).await;
                        self.integrate(&transport).await?;
                    }
                    FailureKind::PushRefused | FailureKind::Credentials => {
                        return Ok(PushOutcome::ReadOnly(error.message));
                    }
                    FailureKind::Network
                    | FailureKind::Timeout
                    | FailureKind::Server
                    | FailureKind::HostKey
                    | FailureKind::Certificate
                    | FailureKind::NotFound
                    | FailureKind::NoSuchRef
                    | FailureKind::Protocol
                    | FailureKind::Local
                    | FailureKind::Child => return Err(error.into()),
                },
            }
        }
        Err(JournalError::Contended)
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

    fn foreign(&self) -> Option<String> {
        self.shared.foreign.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Fetches the remote's journal and brings it together with ours.
    async fn integrate(&self, transport: &Transport) -> Result<(), JournalError> {
        let action = Action::FetchRef {
            repository: self.shared.store.path.clone(),
            reference: self.shared.store.reference.clone(),
            into: REMOTE.to_owned(),
        };
        let done = transport.run(action).await?;
        let fetched = done.object.as_deref().and_then(|digits| digits.parse::<Oid>().ok());
        let _one_at_a_time = self.shared.writing.lock().await;
        let merged = self.shared.store.clone().blocking(move |store| store.merge(fetched)).await?;
        if let Merged::Foreign(what) = &merged {
            let reason = format!("{} of the remote holds {what}; it is left alone", self.shared.store.reference);
            tracing::warn!(reason, "the journal stays local");
            *self.shared.foreign.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(reason);
        }
        Ok(())
    }
}

/// The ref of an instance.
fn reference_of(instance: &str) -> Result<String, JournalError> {
    let reference = format!("{NOTES_PREFIX}{instance}");
    if instance.is_empty() || instance.contains('/') || instance.len() > 100 || !Reference::is_valid_name(&reference) {
        return Err(JournalError::InvalidInstance(sanitise(instance)));
    }
    Ok(reference)
}

/// Takes the directory for this process, until the file is closed.
fn lock(directory: &Path) -> Result<File, JournalError> {
    let path = directory.join("journal.lock");
    let local = |error: std::io::Error| JournalError::Local { path: path.clone(), reason: error.to_string() };
    fs::create_dir_all(directory).map_err(local)?;
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(local)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(JournalError::InUse(directory.to_owned())),
        Err(TryLockError::Error(error)) => Err(local(error)),
    }
}

/// How long to wait before the next push when another writer was first: longer each time, spread by `jitter` (0 to 1).
fn pause(attempt: u32, jitter: f64) -> Duration {
    (PUSH_PAUSE / 10).saturating_mul(1 << attempt.min(10)).min(PUSH_PAUSE).mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

/// What a merge with the remote came to.
#[derive(Debug)]
enum Merged {
    Together,
    Foreign(&'static str),
}

/// The local repository; every method blocks.
#[derive(Clone, Debug)]
struct Store {
    path: PathBuf,
    reference: String,
}

impl Store {
    /// Runs a job on a thread that may block. It goes on to its end even when the caller is dropped.
    async fn blocking<T: Send + 'static>(
        self,
        job: impl FnOnce(&Self) -> Result<T, git2::Error> + Send + 'static,
    ) -> Result<T, JournalError> {
        let path = self.path.clone();
        let local = |reason: String| JournalError::Local { path: path.clone(), reason };
        match tokio::task::spawn_blocking(move || job(&self)).await {
            Ok(outcome) => outcome.map_err(|error| local(sanitise(error.message()))),
            Err(error) => Err(local(error.to_string())),
        }
    }

    fn open(&self) -> Result<Repository, git2::Error> {
        hermetic::prepare();
        Repository::open_bare(&self.path)
    }

    /// Makes the repository ready after whatever happened to the process before: its tip, if there is one.
    fn prepare(&self) -> Result<Option<Oid>, git2::Error> {
        let io = |error: std::io::Error| git2::Error::from_str(&error.to_string());
        hermetic::prepare();
        if self.path.exists() {
            // We hold the directory alone, so a lock in it is from a process that was killed.
            remove_stale_locks(&self.path).map_err(io)?;
            match self.check() {
                Ok(tip) => return Ok(tip),
                Err(error) => {
                    let aside = upkeep::set_aside(&self.path).map_err(io)?;
                    tracing::error!(
                        error = error.message(),
                        aside = aside.map(|path| path.display().to_string()),
                        "the local journal is damaged and set aside; what was not pushed is lost"
                    );
                }
            }
        }
        let mut options = RepositoryInitOptions::new();
        options.bare(true).mkpath(true).external_template(false);
        Repository::init_opts(&self.path, &options)?;
        self.check()
    }

    /// Reads everything that a start needs, and makes sure that writes are synced to the disk.
    fn check(&self) -> Result<Option<Oid>, git2::Error> {
        let repository = self.open()?;
        repository.config()?.set_bool("core.fsyncObjectFiles", true)?;
        drop(repository);
        let repository = self.open()?;
        if !repository.config()?.get_bool("core.fsyncObjectFiles")? {
            return Err(git2::Error::from_str("writes would not be synced"));
        }
        let Some(tip) = self.tip(&repository)? else { return Ok(None) };
        let tree = repository.find_commit(tip)?.tree()?;
        tree::read_state(&repository, &tree, LARGEST_STATE_BYTES)?;
        Ok(Some(tip))
    }

    fn tip(&self, repository: &Repository) -> Result<Option<Oid>, git2::Error> {
        found(repository.refname_to_id(&self.reference))
    }

    fn set(&self, name: &str, to: Oid) -> Result<(), git2::Error> {
        self.open()?.reference(name, to, true, "gitamp").map(drop)
    }

    fn contents(&self) -> Result<JournalContents, git2::Error> {
        let repository = self.open()?;
        let Some(tip) = self.tip(&repository)? else { return Ok(JournalContents::default()) };
        let tree = repository.find_commit(tip)?.tree()?;
        Ok(JournalContents { state: tree::read_state(&repository, &tree, LARGEST_STATE_BYTES)? })
    }

    /// Moves the ref from `expected` to a new commit; `Ok(false)` when somebody else moved it first.
    fn advance(
        &self,
        repository: &Repository,
        expected: Option<Oid>,
        tree: Option<Oid>,
        parents: &[Oid],
        message: &str,
    ) -> Result<bool, git2::Error> {
        let tree = match tree {
            Some(tree) => tree,
            None => repository.treebuilder(None)?.write()?,
        };
        let tree = repository.find_tree(tree)?;
        let parents = parents.iter().map(|parent| repository.find_commit(*parent)).collect::<Result<Vec<_>, _>>()?;
        let author = Signature::now("gitamp", "gitamp@localhost")?;
        let message = message.replace('\0', "");
        let commit = repository.commit(None, &author, &author, &message, &tree, &parents.iter().collect::<Vec<_>>())?;
        self.swap(repository, expected, commit)
    }

    fn swap(&self, repository: &Repository, expected: Option<Oid>, to: Oid) -> Result<bool, git2::Error> {
        let expected = expected.unwrap_or(Oid::ZERO_SHA1);
        match repository.reference_matching(&self.reference, to, true, expected, "gitamp") {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.code(), ErrorCode::Modified | ErrorCode::Locked | ErrorCode::NotFound) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn write(&self, write: &JournalWrite, pack: bool) -> Result<(), git2::Error> {
        let repository = self.open()?;
        for _ in 0..STORE_ATTEMPTS {
            let tip = self.tip(&repository)?;
            let base = match tip {
                Some(tip) => Some(repository.find_commit(tip)?.tree()?),
                None => None,
            };
            let tree = tree::apply(&repository, base.as_ref(), &edits(&repository, base.as_ref(), write)?)?;
            if tree == base.as_ref().map(Tree::id) {
                return Ok(());
            }
            if self.advance(&repository, tip, tree, tip.as_slice(), &write.message)? {
                if pack && let Err(error) = upkeep::pack_loose(&repository, LOOSE_BEFORE_PACKING) {
                    tracing::warn!(%error, "the journal's loose objects could not be packed");
                }
                return Ok(());
            }
        }
        Err(git2::Error::from_str("another process keeps moving the journal's ref"))
    }

    /// Freezes what is to be pushed; `None` when the remote has it.
    fn begin_push(&self) -> Result<Option<Oid>, git2::Error> {
        let repository = self.open()?;
        let Some(tip) = self.tip(&repository)? else { return Ok(None) };
        if found(repository.refname_to_id(PUSHED))? == Some(tip) {
            return Ok(None);
        }
        repository.reference(PUSHING, tip, true, "gitamp")?;
        Ok(Some(tip))
    }

    /// Brings what was fetched together with what is here. `None`: the remote has nothing.
    fn merge(&self, fetched: Option<Oid>) -> Result<Merged, git2::Error> {
        let repository = self.open()?;
        let Some(fetched) = fetched else {
            // The ref was deleted, or never was: the next push makes it again, with all that is here.
            if let Some(mut pushed) = found(repository.find_reference(PUSHED))? {
                pushed.delete()?;
            }
            return Ok(Merged::Together);
        };
        let Ok(theirs) = repository.find_object(fetched, None)?.into_commit() else {
            return Ok(Merged::Foreign("no commit"));
        };
        if !tree::looks_like_notes(&theirs.tree()?) {
            return Ok(Merged::Foreign("something that is no notes"));
        }
        for _ in 0..STORE_ATTEMPTS {
            let tip = self.tip(&repository)?;
            let moved = match tip {
                Some(tip) if tip == fetched || repository.graph_descendant_of(tip, fetched)? => true,
                Some(tip) if !repository.graph_descendant_of(fetched, tip)? => {
                    let base = found(repository.merge_base(tip, fetched))?;
                    let base = match base {
                        Some(base) => Some(repository.find_commit(base)?.tree()?),
                        None => None,
                    };
                    let ours = repository.find_commit(tip)?.tree()?;
                    let tree = tree::three_way(&repository, base.as_ref(), &ours, &theirs.tree()?)?;
                    let message = "Bring the journal together with what others wrote";
                    self.advance(&repository, Some(tip), tree, &[fetched, tip], message)?
                }
                Some(_) | None => self.swap(&repository, tip, fetched)?,
            };
            if moved {
                repository.reference(PUSHED, fetched, true, "gitamp")?;
                return Ok(Merged::Together);
            }
        }
        Err(git2::Error::from_str("another process keeps moving the journal's ref"))
    }

    fn note(&self, commit: CommitId) -> Result<Option<String>, git2::Error> {
        let repository = self.open()?;
        let Some(tip) = self.tip(&repository)? else { return Ok(None) };
        let tree = repository.find_commit(tip)?.tree()?;
        note_in(&repository, &tree, commit)
    }

    fn history(&self, limit: usize) -> Result<Vec<HistoryEntry>, git2::Error> {
        let repository = self.open()?;
        let Some(tip) = self.tip(&repository)? else { return Ok(Vec::new()) };
        let mut walk = repository.revwalk()?;
        walk.set_sorting(git2::Sort::TOPOLOGICAL)?;
        walk.push(tip)?;
        let mut entries = Vec::new();
        for oid in walk.take(limit) {
            let commit = repository.find_commit(oid?)?;
            let seconds = u64::try_from(commit.time().seconds()).unwrap_or(0);
            entries.extend(commit_of(commit.id()).map(|id| HistoryEntry {
                commit: id,
                time: Timestamp::from_millis(seconds.saturating_mul(1000)),
                message: String::from_utf8_lossy(commit.message_bytes()).into_owned(),
            }));
        }
        Ok(entries)
    }
}

/// The text of the note on a commit in a notes tree; several (Git may leave them in two fan-outs) are joined.
pub(super) fn note_in(
    repository: &Repository,
    tree: &Tree<'_>,
    commit: CommitId,
) -> Result<Option<String>, git2::Error> {
    let odb = repository.odb()?;
    let mut text: Option<String> = None;
    for (_, oid) in tree::note_places(repository, tree, commit)? {
        let (size, _) = odb.read_header(oid)?;
        if size > 16 * LONGEST_NOTE_BYTES {
            return Err(git2::Error::from_str("the note is too long to be one of ours"));
        }
        let part = String::from_utf8_lossy(odb.read(oid)?.data()).into_owned();
        text = Some(text.map_or_else(|| part.clone(), |before| format!("{before}\n{part}")));
    }
    Ok(text)
}

/// A write as edits of the tree, its contents written to the object database.
fn edits(repository: &Repository, base: Option<&Tree<'_>>, write: &JournalWrite) -> Result<Edits, git2::Error> {
    let mut edits = Edits::new();
    for (commit, text) in &write.notes {
        let blob = repository.blob(fit(text).as_bytes())?;
        tree::place_note(repository, base, *commit, Some(blob), &mut edits)?;
    }
    for (path, content) in &write.state {
        let blob = content.as_ref().map(|content| repository.blob(content)).transpose()?;
        edits.insert(format!("{}/{path}", tree::STATE), blob);
    }
    Ok(edits)
}

/// The text as Git can hold it: without NUL, at most 64 KiB.
fn fit(text: &str) -> String {
    const CUT: &str = "\n# cut: the note was too long\n";
    let mut text = text.replace('\0', "");
    if text.len() > LONGEST_NOTE_BYTES {
        let mut end = LONGEST_NOTE_BYTES - CUT.len();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(CUT);
    }
    text
}

fn remove_stale_locks(directory: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        let is_directory = entry.file_type()?.is_dir();
        if is_directory && entry.file_name() != "objects" {
            remove_stale_locks(&path)?;
        } else if !is_directory && path.extension().is_some_and(|extension| extension == "lock") {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}
