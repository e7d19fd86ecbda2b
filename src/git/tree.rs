//! Editing the journal's trees: only the directories on the way to what changes are read and written, everything else in them
//! stays, whoever wrote it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use git2::{Delta, ErrorClass, ErrorCode, FileMode, ObjectType, Odb, Oid, Repository, Tree};

use crate::fleet::snapshot::CommitId;

/// The folder of the records, beside the notes.
pub(super) const STATE: &str = "state";
/// How what was in our way is called, with the id of the object behind it.
const ASIDE: &str = "foreign-";
/// The state that is read at most: 256 MiB, a thousand times what 10,000 groups need.
pub(super) const LARGEST_STATE_BYTES: u64 = 256 << 20;
/// What an entry counts for besides its content, so that empty files are not free.
pub(super) const BYTES_OF_AN_ENTRY: u64 = 64;
/// How deep a path below `state/` may be.
pub(super) const DEEPEST: usize = 40;
/// How long it may be, in bytes.
const LONGEST_PATH_BYTES: usize = 4096;

/// The priority of the memory among the places for objects: above packs (2) and loose files (1), so that it takes new ones.
const IN_MEMORY_FIRST: i32 = 1000;

/// What to change, by path: a blob to put there, or nothing to have there.
pub(super) type Edits = BTreeMap<String, Option<Oid>>;

/// Writes objects that reach the disk together, as one pack: a write of the journal has some twenty objects, and syncing each
/// one by itself would take twenty times as long.
pub(super) struct Pen<'r> {
    repository: &'r Repository,
    odb: Odb<'r>,
    written: RefCell<BTreeSet<Oid>>,
}

impl<'r> Pen<'r> {
    /// From here on the repository keeps new objects in memory; what `ink` does not write is forgotten with it.
    pub(super) fn new(repository: &'r Repository) -> Result<Self, git2::Error> {
        let odb = repository.odb()?;
        // The backend belongs to the repository; the handle is only for what we do not need.
        let _memory = odb.add_new_mempack_backend(IN_MEMORY_FIRST)?;
        Ok(Self { repository, odb, written: RefCell::default() })
    }

    /// The repository, to read from.
    pub(super) fn repository(&self) -> &'r Repository {
        self.repository
    }

    /// Remembers an object that was just made.
    pub(super) fn note(&self, oid: Oid) -> Oid {
        self.written.borrow_mut().insert(oid);
        oid
    }

    /// What was made on the way to something else need not reach the disk.
    pub(super) fn forget(&self, oid: Oid) {
        self.written.borrow_mut().remove(&oid);
    }

    /// A blob of this content.
    pub(super) fn blob(&self, content: &[u8]) -> Result<Oid, git2::Error> {
        self.odb.write(ObjectType::Blob, content).map(|oid| self.note(oid))
    }

    /// Writes everything to the disk and syncs it (as `core.fsyncObjectFiles` says).
    pub(super) fn ink(&self) -> Result<(), git2::Error> {
        let mut builder = self.repository.packbuilder()?;
        builder.set_threads(1);
        for oid in self.written.take() {
            builder.insert_object(oid, None)?;
        }
        builder.write(&self.repository.path().join("objects/pack"), 0o444)
    }
}

/// The tree `base` with `edits` made; `None` when nothing is left.
///
/// A file where we need a directory, or the other way round, is nothing that Git or gitamp reads: no note of anybody has such a place. It is
/// kept at the top as `foreign-<its id>`, so that whoever may push can neither stop our writes nor lose what they put there.
pub(super) fn apply(pen: &Pen<'_>, base: Option<&Tree<'_>>, edits: &Edits) -> Result<Option<Oid>, git2::Error> {
    let edits: Vec<(&str, Option<Oid>)> = edits.iter().map(|(path, oid)| (path.as_str(), *oid)).collect();
    let mut aside = Vec::new();
    let tree = apply_below(pen, base, &edits, &mut aside)?;
    if aside.is_empty() {
        return Ok(tree);
    }
    let root = tree.map(|tree| pen.repository().find_tree(tree)).transpose()?;
    let mut builder = pen.repository().treebuilder(root.as_ref())?;
    for (oid, mode) in aside {
        drop(builder.insert(format!("{ASIDE}{oid}"), oid, mode).map_err(|error| conflict(error.message()))?);
    }
    tree.into_iter().for_each(|step| pen.forget(step));
    builder.write().map(|oid| Some(pen.note(oid)))
}

/// True when two trees cannot be brought together, whatever the disk does.
pub(super) fn is_conflict(error: &git2::Error) -> bool {
    error.code() == ErrorCode::Conflict
}

fn conflict(what: &str) -> git2::Error {
    git2::Error::new(ErrorCode::Conflict, ErrorClass::Tree, what)
}

/// What was in the way of an edit: its id and its mode.
type Displaced = (Oid, i32);

fn apply_below(
    pen: &Pen<'_>,
    base: Option<&Tree<'_>>,
    edits: &[(&str, Option<Oid>)],
    aside: &mut Vec<Displaced>,
) -> Result<Option<Oid>, git2::Error> {
    let repository = pen.repository();
    let mut builder = repository.treebuilder(base)?;
    let mut directories: BTreeMap<&str, Vec<(&str, Option<Oid>)>> = BTreeMap::new();
    for (path, oid) in edits {
        if let Some((directory, rest)) = path.split_once('/') {
            directories.entry(directory).or_default().push((rest, *oid));
            continue;
        }
        let here = builder.get(path)?.map(|entry| (entry.kind(), entry.id(), entry.filemode()));
        match (oid, here) {
            // There is no such file, so nothing is to be removed.
            (None, None | Some((Some(ObjectType::Tree), _, _))) => {}
            (None, Some(_)) => builder.remove(path)?,
            // Inserting fails for names and objects that others can bring in and libgit2 does not write.
            (Some(oid), here) => {
                aside.extend(
                    here.filter(|(kind, _, _)| *kind == Some(ObjectType::Tree)).map(|(_, id, mode)| (id, mode)),
                );
                drop(builder.insert(path, *oid, FileMode::Blob.into()).map_err(|error| conflict(error.message()))?);
            }
        }
    }
    for (directory, edits) in directories {
        let here = builder.get(directory)?.map(|entry| (entry.kind(), entry.id(), entry.filemode()));
        let (old, in_the_way) = match here {
            Some((Some(ObjectType::Tree), id, _)) => (Some(repository.find_tree(id)?), None),
            Some((_, id, mode)) => (None, Some((id, mode))),
            None => (None, None),
        };
        match apply_below(pen, old.as_ref(), &edits, aside)? {
            Some(tree) => {
                aside.extend(in_the_way);
                drop(
                    builder
                        .insert(directory, tree, FileMode::Tree.into())
                        .map_err(|error| conflict(error.message()))?,
                );
            }
            None if old.is_some() => builder.remove(directory)?,
            None => {}
        }
    }
    if builder.is_empty() { Ok(None) } else { builder.write().map(|oid| Some(pen.note(oid))) }
}

/// All places where a note on this commit stands: Git itself moves notes between fan-outs (`abcdef...`, `ab/cdef...`).
pub(super) fn note_places(
    repository: &Repository,
    tree: &Tree<'_>,
    commit: CommitId,
) -> Result<Vec<(String, Oid)>, git2::Error> {
    let digits = commit.to_string();
    let mut found = Vec::new();
    let mut path = String::new();
    let mut rest = digits.as_str();
    let mut tree = Some(tree.clone());
    while let Some(here) = tree.take() {
        if let Some(entry) = here.get_name(rest)
            && entry.kind() == Some(ObjectType::Blob)
        {
            found.push((format!("{path}{rest}"), entry.id()));
        }
        let Some((directory, deeper)) = rest.split_at_checked(2) else { break };
        if let Some(entry) = here.get_name(directory)
            && entry.kind() == Some(ObjectType::Tree)
        {
            tree = Some(repository.find_tree(entry.id())?);
        }
        path = format!("{path}{directory}/");
        rest = deeper;
    }
    Ok(found)
}

/// Edits that leave exactly this note on the commit, in our fan-out of two digits.
pub(super) fn place_note(
    repository: &Repository,
    tree: Option<&Tree<'_>>,
    commit: CommitId,
    note: Option<Oid>,
    edits: &mut Edits,
) -> Result<(), git2::Error> {
    if let Some(tree) = tree {
        edits.extend(note_places(repository, tree, commit)?.into_iter().map(|(path, _)| (path, None)));
    }
    let digits = commit.to_string();
    let (directory, rest) = digits.split_at(2);
    edits.insert(format!("{directory}/{rest}"), note);
    Ok(())
}

/// The commit that a path of a notes tree is about.
pub(super) fn noted_commit(path: &str) -> Option<CommitId> {
    let digits: String = path.split('/').collect();
    if digits.len() == 40 { digits.parse().ok() } else { None }
}

/// Whether a tree can be the journal of some gitamp, or notes that people made: notes, a folder of state, or nothing yet.
pub(super) fn looks_like_notes(tree: &Tree<'_>) -> bool {
    tree.is_empty()
        || tree.iter().any(|entry| {
            let name = entry.name_bytes();
            let digits = name.iter().all(u8::is_ascii_hexdigit);
            match entry.kind() {
                Some(ObjectType::Tree) => name == STATE.as_bytes() || (digits && name.len() == 2),
                Some(ObjectType::Blob) => digits && name.len() == 40,
                _ => false,
            }
        })
}

/// What `ours` changed since `base`, made to `theirs`: on one path our word counts, everywhere else theirs. Without a common
/// base everything of ours counts and nothing of theirs is dropped. What cannot be written is an error, see [`is_conflict`].
pub(super) fn three_way(
    pen: &Pen<'_>,
    base: Option<&Tree<'_>>,
    ours: &Tree<'_>,
    theirs: &Tree<'_>,
) -> Result<Option<Oid>, git2::Error> {
    let repository = pen.repository();
    let diff = repository.diff_tree_to_tree(base, Some(ours), None)?;
    let mut edits = Edits::new();
    let mut notes: BTreeMap<CommitId, Option<Oid>> = BTreeMap::new();
    for delta in diff.deltas() {
        let (file, put) = if delta.status() == Delta::Deleted {
            (delta.old_file(), None)
        } else {
            (delta.new_file(), Some(delta.new_file().id()))
        };
        let Some(path) = file.path_bytes().and_then(|path| std::str::from_utf8(path).ok()) else { continue };
        match noted_commit(path) {
            // A note that moved between fan-outs is deleted in one place and added in another: the content counts.
            Some(commit) => {
                let slot = notes.entry(commit).or_default();
                *slot = put.or(*slot);
            }
            None => drop(edits.insert(path.to_owned(), put)),
        }
    }
    for (commit, note) in notes {
        place_note(repository, Some(theirs), commit, note, &mut edits)?;
    }
    apply(pen, Some(theirs), &edits)
}

/// Every file below `state/`, by its path there; `Err` when they are larger than any that we write.
pub(super) fn read_state(
    repository: &Repository,
    tree: &Tree<'_>,
) -> Result<BTreeMap<String, bytes::Bytes>, git2::Error> {
    let mut files = BTreeMap::new();
    let state = match tree.get_name(STATE) {
        Some(entry) if entry.kind() == Some(ObjectType::Tree) => repository.find_tree(entry.id())?,
        Some(_) | None => return Ok(files),
    };
    let odb = repository.odb()?;
    let mut total = 0_u64;
    let mut directories = vec![(String::new(), state, 0_usize)];
    while let Some((path, tree, depth)) = directories.pop() {
        for entry in &tree {
            let full = format!("{path}{}", String::from_utf8_lossy(entry.name_bytes()));
            match entry.kind() {
                Some(ObjectType::Tree) if depth < DEEPEST => {
                    directories.push((format!("{full}/"), repository.find_tree(entry.id())?, depth + 1));
                }
                Some(ObjectType::Blob) => {
                    let (size, _) = odb.read_header(entry.id())?;
                    total = total.saturating_add(size as u64).saturating_add(BYTES_OF_AN_ENTRY);
                    if total > LARGEST_STATE_BYTES {
                        return Err(git2::Error::from_str("the journal's state is larger than its limit"));
                    }
                    files.insert(full, bytes::Bytes::copy_from_slice(odb.read(entry.id())?.data()));
                }
                _ => {}
            }
        }
    }
    Ok(files)
}

/// Whether a path below `state/` can be stored.
pub(super) fn is_storable(path: &str) -> bool {
    path.len() <= LONGEST_PATH_BYTES
        && path.split('/').count() <= DEEPEST
        && path.split('/').all(|name| {
            !name.is_empty()
                && name != "."
                && name != ".."
                && !name.eq_ignore_ascii_case(".git")
                && !name.contains('\\')
                && !name.chars().any(char::is_control)
        })
}

/// Of these paths those with a name in them that Git does not take, whatever else stands in the tree (`.git.`, for example).
pub(super) fn refused<'p>(pen: &Pen<'_>, paths: impl Iterator<Item = &'p String>) -> Result<Vec<String>, git2::Error> {
    let anything = pen.blob(&[])?;
    let mut refused = Vec::new();
    for path in paths {
        let mut builder = pen.repository().treebuilder(None)?;
        let mut names = path.split('/');
        if !names.all(|name| builder.insert(name, anything, FileMode::Blob.into()).is_ok()) {
            refused.push(path.clone());
        }
    }
    pen.forget(anything);
    Ok(refused)
}

/// What is missing, as `None`.
pub(super) fn found<T>(outcome: Result<T, git2::Error>) -> Result<Option<T>, git2::Error> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
