//! The journal's own repository on the disk: one ref, moved by compare-and-swap, every write synced. Everything here blocks.

use std::fs;
use std::path::{Path, PathBuf};

use git2::{ErrorCode, Oid, Repository, RepositoryInitOptions, Signature, Tree};

use super::journal::{HistoryEntry, JournalContents, JournalError, JournalWrite, LONGEST_NOTE_BYTES};
use super::remote::sanitise;
use super::seal::NOTE_LINE_BYTES;
use super::sealing::{SEAL_FILE, Sealer};
use super::settle::{Unbelieved, When};
use super::tree::{self, Edits, Pen, found};
use super::{commit_of, hermetic, upkeep};
use crate::fleet::snapshot::CommitId;
use crate::time::Timestamp;

/// What the remote is known to have.
const PUSHED: &str = "refs/gitamp/pushed";
/// What the running push pushes: the journal's ref itself may move meanwhile.
pub(super) const PUSHING: &str = "refs/gitamp/pushing";
/// How often a write is tried when another writer moves the ref.
pub(super) const ATTEMPTS: u32 = 8;
/// What is said when that was not enough.
pub(super) const KEEPS_MOVING: &str = "another process keeps moving the journal's ref";
/// The message of a commit that brings two histories together.
pub(super) const TOGETHER: &str = "Bring the journal together with what others wrote";

/// What a merge with the remote came to.
#[derive(Debug)]
pub(super) enum Merged {
    /// Everything that counts is in the local ref now.
    Together {
        /// What was said of the others' records, if they do not count.
        disbelieved: Option<String>,
    },
    /// The remote's ref holds this instead of a journal.
    Foreign(&'static str),
    /// With a key: there are records, and none that it proves.
    Unbelieved(Unbelieved),
}

/// The local repository; every method blocks.
#[derive(Clone, Debug)]
pub(super) struct Store {
    /// Where it stands.
    pub(super) path: PathBuf,
    /// The journal's ref.
    pub(super) reference: String,
    /// Seals records and signs notes, when there is a key.
    pub(super) sealer: Option<Sealer>,
}

impl Store {
    /// Runs a job on a thread that may block. It goes on to its end even when the caller is dropped.
    pub(super) async fn blocking<T: Send + 'static>(
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

    pub(super) fn open(&self) -> Result<Repository, git2::Error> {
        hermetic::prepare();
        Repository::open_bare(&self.path)
    }

    /// Makes the repository ready after whatever happened to the process before: its tip, if there is one.
    pub(super) fn prepare(&self) -> Result<Option<Oid>, git2::Error> {
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
        tree::read_state(&repository, &tree)?;
        Ok(Some(tip))
    }

    pub(super) fn tip(&self, repository: &Repository) -> Result<Option<Oid>, git2::Error> {
        found(repository.refname_to_id(&self.reference))
    }

    /// The remote has this commit now.
    pub(super) fn pushed(&self, tip: Oid) -> Result<(), git2::Error> {
        self.open()?.reference(PUSHED, tip, true, "gitamp").map(drop)
    }

    pub(super) fn contents(&self) -> Result<JournalContents, git2::Error> {
        let repository = self.open()?;
        let Some(tip) = self.tip(&repository)? else { return Ok(JournalContents::default()) };
        let tree = repository.find_commit(tip)?.tree()?;
        let mut state = tree::read_state(&repository, &tree)?;
        let is_sealed = state.remove(SEAL_FILE).is_some();
        Ok(JournalContents { state, is_sealed })
    }

    /// Makes a commit and moves the ref from `expected` to it; `Ok(false)` when somebody else moved it first.
    pub(super) fn advance(
        &self,
        pen: &Pen<'_>,
        expected: Option<Oid>,
        tree: Option<Oid>,
        parents: &[Oid],
        message: &str,
    ) -> Result<bool, git2::Error> {
        let repository = pen.repository();
        let tree = match tree {
            Some(tree) => tree,
            None => pen.note(repository.treebuilder(None)?.write()?),
        };
        let tree = repository.find_tree(tree)?;
        let parents = parents.iter().map(|parent| repository.find_commit(*parent)).collect::<Result<Vec<_>, _>>()?;
        let author = Signature::now("gitamp", "gitamp@localhost")?;
        let message = message.replace('\0', "");
        let parents: Vec<_> = parents.iter().collect();
        let commit = pen.note(repository.commit(None, &author, &author, &message, &tree, &parents)?);
        // The objects first: a ref must never lead to what a crash can take away.
        pen.ink()?;
        self.swap(repository, expected, commit)
    }

    pub(super) fn swap(&self, repository: &Repository, expected: Option<Oid>, to: Oid) -> Result<bool, git2::Error> {
        let expected = expected.unwrap_or(Oid::ZERO_SHA1);
        match repository.reference_matching(&self.reference, to, true, expected, "gitamp") {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.code(), ErrorCode::Modified | ErrorCode::Locked | ErrorCode::NotFound) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Writes one commit, which is on the disk when this returns; or nothing, and returns the paths of the files that Git refuses.
    pub(super) fn write(&self, write: &JournalWrite) -> Result<Vec<String>, git2::Error> {
        let repository = self.open()?;
        let pen = Pen::new(&repository)?;
        for _ in 0..ATTEMPTS {
            let tip = self.tip(&repository)?;
            let base = match tip {
                Some(tip) => Some(repository.find_commit(tip)?.tree()?),
                None => None,
            };
            let edits = self.edits(&pen, base.as_ref(), write)?;
            let tree = match tree::apply(&pen, base.as_ref(), &edits) {
                Err(error) if tree::is_conflict(&error) => {
                    let refused = tree::refused(&pen, write.state.keys())?;
                    return if refused.is_empty() { Err(error) } else { Ok(refused) };
                }
                tree => tree?,
            };
            if tree == base.as_ref().map(Tree::id) {
                return Ok(Vec::new());
            }
            let tree = self.sealed(&pen, tip, base.as_ref(), tree)?;
            if self.advance(&pen, tip, tree, tip.as_slice(), &write.message)? {
                // With a handle of its own: this one keeps objects in memory.
                if let Err(error) = self.open().map_err(Into::into).and_then(|repository| upkeep::tidy(&repository)) {
                    tracing::warn!(%error, "the journal's packs could not be made fewer");
                }
                return Ok(Vec::new());
            }
        }
        Err(git2::Error::from_str(KEEPS_MOVING))
    }

    /// The tree of a write with a new seal, when there is a key and the records are not those of `base`.
    fn sealed(
        &self,
        pen: &Pen<'_>,
        tip: Option<Oid>,
        base: Option<&Tree<'_>>,
        tree: Option<Oid>,
    ) -> Result<Option<Oid>, git2::Error> {
        let (Some(sealer), Some(tree)) = (&self.sealer, tree) else { return Ok(tree) };
        let repository = pen.repository();
        let records = |tree: &Tree<'_>| tree.get_name(tree::STATE).map(|entry| entry.id());
        if records(&repository.find_tree(tree)?) == base.and_then(records) {
            return Ok(Some(tree));
        }
        let age = match (base.map(|base| Sealer::claimed_sequence(repository, base)).transpose()?, tip) {
            // No records in this commit, but maybe before it: the number must not begin anew.
            (Some(0), Some(tip)) => sealer.newest_genuine(repository, tip)?.age(),
            (age, _) => age.unwrap_or(0),
        };
        sealer.seal(pen, tree, age.saturating_add(1)).map(Some)
    }

    /// A write as edits of the tree, its contents written to the object database.
    fn edits(&self, pen: &Pen<'_>, base: Option<&Tree<'_>>, write: &JournalWrite) -> Result<Edits, git2::Error> {
        let mut edits = Edits::new();
        for (commit, text) in &write.notes {
            let text = match &self.sealer {
                Some(sealer) => {
                    let text = fit(text, LONGEST_NOTE_BYTES - NOTE_LINE_BYTES - 1);
                    sealer.keys.sign_note(&self.reference, *commit, &text)
                }
                None => fit(text, LONGEST_NOTE_BYTES),
            };
            let blob = pen.blob(text.as_bytes())?;
            tree::place_note(pen.repository(), base, *commit, Some(blob), &mut edits)?;
        }
        for (path, content) in &write.state {
            let blob = content.as_ref().map(|content| pen.blob(content)).transpose()?;
            edits.insert(format!("{}/{path}", tree::STATE), blob);
        }
        Ok(edits)
    }

    /// Freezes what is to be pushed; `None` when the remote has it.
    pub(super) fn begin_push(&self) -> Result<Option<Oid>, git2::Error> {
        let repository = self.open()?;
        let Some(tip) = self.tip(&repository)? else { return Ok(None) };
        if found(repository.refname_to_id(PUSHED))? == Some(tip) {
            return Ok(None);
        }
        repository.reference(PUSHING, tip, true, "gitamp")?;
        Ok(Some(tip))
    }

    /// Brings what was fetched together with what is here. `None`: the remote has nothing.
    pub(super) fn merge(&self, fetched: Option<Oid>, when: &When) -> Result<Merged, git2::Error> {
        let repository = self.open()?;
        if let Some(fetched) = fetched {
            let Ok(theirs) = repository.find_object(fetched, None)?.into_commit() else {
                return Ok(Merged::Foreign("no commit"));
            };
            if !tree::looks_like_notes(&theirs.tree()?) && !self.hides_records(&repository, fetched, when)? {
                return Ok(Merged::Foreign("something that is no notes"));
            }
            // A fetch syncs nothing, and from here on we build on what it brought.
            upkeep::sync_packs(&repository).map_err(|error| git2::Error::from_str(&error.to_string()))?;
        } else if let Some(mut pushed) = found(repository.find_reference(PUSHED))? {
            // The ref was deleted, or never was: the next push makes it again, with all that is here.
            pushed.delete()?;
        }
        let merged = match (&self.sealer, fetched) {
            (Some(sealer), _) => self.settle(&repository, sealer, fetched, when),
            (None, Some(fetched)) => self.merge_unsealed(&repository, fetched),
            (None, None) => Ok(Merged::Together { disbelieved: None }),
        };
        let merged = match merged {
            Err(error) if tree::is_conflict(&error) => {
                tracing::debug!(error = error.message(), "a conflict in the journal");
                return Ok(Merged::Foreign("what cannot be brought together with the notes and records here"));
            }
            merged => merged?,
        };
        if let (Merged::Together { .. }, Some(fetched)) = (&merged, fetched) {
            repository.reference(PUSHED, fetched, true, "gitamp")?;
        }
        Ok(merged)
    }

    /// With a key and an empty disk: whether something that is no journal stands on top of one whose records are believed.
    fn hides_records(&self, repository: &Repository, fetched: Oid, when: &When) -> Result<bool, git2::Error> {
        match (&self.sealer, when) {
            (Some(sealer), When::Opening { .. }) if self.tip(repository)?.is_none() => {
                Ok(sealer.newest_genuine(repository, fetched)?.found.is_some())
            }
            (Some(_) | None, When::Opening { .. } | When::Running) => Ok(false),
        }
    }

    /// With a key: makes sure that the records here are believed, without asking the remote.
    pub(super) fn believe(&self, when: &When) -> Result<Merged, git2::Error> {
        match &self.sealer {
            Some(sealer) => self.settle(&self.open()?, sealer, None, when),
            None => Ok(Merged::Together { disbelieved: None }),
        }
    }

    fn merge_unsealed(&self, repository: &Repository, fetched: Oid) -> Result<Merged, git2::Error> {
        let pen = Pen::new(repository)?;
        for _ in 0..ATTEMPTS {
            let tip = self.tip(repository)?;
            let moved = match tip {
                Some(tip) if tip == fetched || repository.graph_descendant_of(tip, fetched)? => true,
                Some(tip) if !repository.graph_descendant_of(fetched, tip)? => {
                    let tree_of = |oid| repository.find_commit(oid)?.tree();
                    let base = found(repository.merge_base(tip, fetched))?.map(tree_of).transpose()?;
                    let tree = tree::three_way(&pen, base.as_ref(), &tree_of(tip)?, &tree_of(fetched)?)?;
                    self.advance(&pen, Some(tip), tree, &[fetched, tip], TOGETHER)?
                }
                Some(_) | None => self.swap(repository, tip, fetched)?,
            };
            if moved {
                return Ok(Merged::Together { disbelieved: None });
            }
        }
        Err(git2::Error::from_str(KEEPS_MOVING))
    }

    pub(super) fn note(&self, commit: CommitId) -> Result<Option<String>, git2::Error> {
        let repository = self.open()?;
        let Some(tip) = self.tip(&repository)? else { return Ok(None) };
        let tree = repository.find_commit(tip)?.tree()?;
        note_in(&repository, &tree, commit)
    }

    pub(super) fn history(&self, limit: usize) -> Result<Vec<HistoryEntry>, git2::Error> {
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

/// The text as Git can hold it: without NUL, and no longer than that.
fn fit(text: &str, longest: usize) -> String {
    const CUT: &str = "\n# cut: the note was too long\n";
    let mut text = text.replace('\0', "");
    if text.len() > longest {
        let mut end = longest - CUT.len();
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
