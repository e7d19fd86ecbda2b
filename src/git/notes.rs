//! The notes as a person's clone has them: fetched from its remote, and read commit by commit.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use git2::{Repository, Sort};

use super::journal::NOTES_PREFIX;
use super::reader::CommitReader;
use super::remote::{NotARemote, sanitise};
use super::seal::{Authenticity, JournalKeys};
use super::transport::{Action, Transport};
use super::{RemoteUrl, Tracked, TransportError, commit_of, hermetic, store};
use crate::fleet::snapshot::CommitInfo;

/// How many commits are looked at for notes, from the newest backwards: 20,000 take a second.
const FARTHEST_BACK: usize = 20_000;

/// Why notes could not be shown.
#[derive(Debug, thiserror::Error)]
pub enum NotesError {
    /// There is no repository here.
    #[error("{} is in no Git repository: {reason}", .path.display())]
    NoRepository {
        /// Where it was looked for.
        path: PathBuf,
        /// What libgit2 says.
        reason: String,
    },
    /// The revision names no commit of it.
    #[error("`{revision}` names no commit here: {reason}")]
    NoSuchRevision {
        /// The revision.
        revision: String,
        /// What libgit2 says.
        reason: String,
    },
    /// The remote's address is not understood.
    #[error(transparent)]
    Remote(#[from] NotARemote),
    /// The repository cannot be read.
    #[error("the repository cannot be read: {0}")]
    Unreadable(String),
}

/// One commit and what each instance noted on it.
#[derive(Clone, Debug)]
pub struct NotedCommit {
    /// The commit.
    pub commit: CommitInfo,
    /// The notes by instance.
    pub notes: BTreeMap<String, Note>,
}

/// A note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Its text, from whoever may push, not sanitised.
    pub text: String,
    /// Whether it is ours, when there are keys to tell.
    pub authenticity: Option<Authenticity>,
}

impl Note {
    /// True unless there are keys and none of them proves it.
    pub fn is_believed(&self) -> bool {
        match self.authenticity {
            None | Some(Authenticity::Genuine) => true,
            Some(Authenticity::Unsigned | Authenticity::Wrong) => false,
        }
    }
}

/// The repositories that notes are read from: the commits stand in one, the notes in the same or in another.
#[derive(Clone, Debug)]
pub struct NotesPlace {
    commits: PathBuf,
    notes: PathBuf,
    start: String,
    keys: Option<JournalKeys>,
}

impl NotesPlace {
    /// The clone that this directory is in.
    pub fn clone_at(directory: &Path) -> Result<Self, NotesError> {
        hermetic::prepare();
        let found = Repository::discover(directory).map_err(|error| NotesError::NoRepository {
            path: directory.to_owned(),
            reason: sanitise(error.message()),
        })?;
        let path = found.path().to_owned();
        Ok(Self { commits: path.clone(), notes: path, start: "HEAD".to_owned(), keys: None })
    }

    /// A copy of a remote's branches and tags, with the notes of that remote or of another one, made in this empty directory.
    pub async fn copy_of(directory: &Path, commits: &Transport, notes: &Transport) -> Result<Self, TransportError> {
        let repository = directory.join("copy.git");
        let into = super::mirror::HEAD.to_owned();
        let tracked = Tracked::Default;
        commits
            .run(Action::FetchTracked { repository: repository.clone(), tracked, shallow: false, into: into.clone() })
            .await?;
        for prefix in ["refs/heads/", "refs/tags/"] {
            commits.run(Action::FetchBelow { repository: repository.clone(), prefix: prefix.to_owned() }).await?;
        }
        let place = Self { commits: repository.clone(), notes: repository, start: into, keys: None };
        place.fetch(notes).await?;
        Ok(place)
    }

    /// The same place, whose notes are judged by these keys.
    #[must_use]
    pub fn judged_by(self, keys: Option<JournalKeys>) -> Self {
        Self { keys, ..self }
    }

    /// A daemon's own copies, below its state directory.
    pub fn state_dir(directory: &Path) -> Result<Self, NotesError> {
        hermetic::prepare();
        let place = Self {
            commits: directory.join("mirror.git"),
            notes: directory.join("journal.git"),
            start: super::mirror::HEAD.to_owned(),
            keys: None,
        };
        for path in [&place.commits, &place.notes] {
            open(path)?;
        }
        Ok(place)
    }

    /// The address of this remote of the clone; `None` when it has no such remote. A relative path counts from the clone.
    pub fn remote(&self, name: &str) -> Result<Option<RemoteUrl>, NotesError> {
        let repository = open(&self.notes)?;
        let Ok(remote) = repository.find_remote(name) else { return Ok(None) };
        let url: RemoteUrl = String::from_utf8_lossy(remote.url_bytes()).parse()?;
        let from = repository.workdir().unwrap_or_else(|| repository.path());
        Ok(Some(url.anchored_at(from)))
    }

    /// Brings all instances' notes up to the remote's. Notes that were changed here are left as they are.
    pub async fn fetch(&self, transport: &Transport) -> Result<(), TransportError> {
        let action = Action::FetchBelow { repository: self.notes.clone(), prefix: NOTES_PREFIX.to_owned() };
        transport.run(action).await.map(drop)
    }

    /// The notes on the commit that `revision` names, of this instance or of all. Blocks.
    pub fn on(&self, revision: &str, instance: Option<&str>) -> Result<NotedCommit, NotesError> {
        let commits = open(&self.commits)?;
        // The mirror has no branch that it is on; what it is at is what was synced last.
        let named = revision.strip_prefix("HEAD").map(|rest| format!("{}{rest}", self.start));
        let named = commits.revparse_single(named.as_deref().unwrap_or(revision));
        let named = named.and_then(|object| object.peel_to_commit());
        let commit = named.map_err(|error| NotesError::NoSuchRevision {
            revision: sanitise(revision),
            reason: sanitise(error.message()),
        })?;
        let notes = open(&self.notes)?;
        self.noted(&commits, &notes, commit.id(), &trees(&notes, instance)?).map_err(|error| unreadable(&error))
    }

    /// The newest `limit` commits that have a note, newest first. Blocks.
    pub fn newest(&self, limit: usize, instance: Option<&str>) -> Result<Vec<NotedCommit>, NotesError> {
        let commits = open(&self.commits)?;
        let notes = open(&self.notes)?;
        let trees = trees(&notes, instance)?;
        let mut found = Vec::new();
        let mut walk = commits.revwalk().map_err(|error| unreadable(&error))?;
        let started = walk.set_sorting(Sort::TIME | Sort::TOPOLOGICAL).and_then(|()| walk.push_ref(&self.start));
        started.map_err(|error| NotesError::NoSuchRevision {
            revision: self.start.clone(),
            reason: sanitise(error.message()),
        })?;
        for oid in walk.take(FARTHEST_BACK) {
            if found.len() == limit {
                break;
            }
            let noted =
                oid.and_then(|oid| self.noted(&commits, &notes, oid, &trees)).map_err(|error| unreadable(&error))?;
            if !noted.notes.is_empty() {
                found.push(noted);
            }
        }
        Ok(found)
    }

    fn noted(
        &self,
        commits: &Repository,
        notes: &Repository,
        oid: git2::Oid,
        trees: &BTreeMap<String, git2::Tree<'_>>,
    ) -> Result<NotedCommit, git2::Error> {
        let id = commit_of(oid).ok_or_else(|| git2::Error::from_str("only SHA-1 repositories are supported"))?;
        let mut found = BTreeMap::new();
        for (instance, tree) in trees {
            if let Some(text) = store::note_in(notes, tree, id)? {
                let judge = |keys: &JournalKeys| keys.judge_note(&format!("{NOTES_PREFIX}{instance}"), id, &text);
                let authenticity = self.keys.as_ref().map(judge);
                found.insert(instance.clone(), Note { text, authenticity });
            }
        }
        let info = CommitReader::new(commits, id).and_then(|reader| reader.info(""));
        let commit = info.map_err(|error| git2::Error::from_str(&error.to_string()))?;
        Ok(NotedCommit { commit, notes: found })
    }
}

fn open(path: &Path) -> Result<Repository, NotesError> {
    hermetic::prepare();
    Repository::open(path)
        .map_err(|error| NotesError::NoRepository { path: path.to_owned(), reason: sanitise(error.message()) })
}

fn unreadable(error: &git2::Error) -> NotesError {
    NotesError::Unreadable(sanitise(error.message()))
}

/// The tree of notes of each instance; a ref that leads to something else is passed over.
fn trees<'r>(
    repository: &'r Repository,
    instance: Option<&str>,
) -> Result<BTreeMap<String, git2::Tree<'r>>, NotesError> {
    let references = repository.references_glob(&format!("{NOTES_PREFIX}*")).map_err(|error| unreadable(&error))?;
    let mut trees = BTreeMap::new();
    for reference in references.flatten() {
        let name = String::from_utf8_lossy(reference.name_bytes()).into_owned();
        let Some(name) = name.strip_prefix(NOTES_PREFIX) else { continue };
        if instance.is_none_or(|instance| instance == name)
            && let Ok(tree) = reference.peel_to_tree()
        {
            trees.insert(name.to_owned(), tree);
        }
    }
    Ok(trees)
}
