//! One commit as values: its own words, and the files below the fleet root, read from the object database.
//!
//! Trees come from whoever may push, so nothing in them is trusted: sizes are read from object headers before anything is
//! inflated, names are checked, links and submodules are recognised and never followed.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use git2::{ErrorCode, ObjectType, Odb, Oid, Repository, Tree};

use super::remote::clean_line;
use super::{commit_of, oid_of};
use crate::fleet::snapshot::{CommitId, CommitInfo, Entry, RolloutTrailer, Snapshot, SnapshotLimits};
use crate::time::Timestamp;

/// The largest commit object that is parsed: 4 MiB. Its message is shown one line long.
const LARGEST_COMMIT_BYTES: usize = 4 << 20;
/// The largest tree object that is parsed: 64 MiB, over a million entries.
const LARGEST_TREE_BYTES: usize = 64 << 20;
/// The longest line of a commit that is shown, in characters.
const LONGEST_LINE: usize = 200;

const MODE_TREE: i32 = 0o040_000;
const MODE_LINK: i32 = 0o120_000;
const MODE_SUBMODULE: i32 = 0o160_000;

/// Why a commit could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Its content is over a limit or made to harm: the commit is rejected as a whole, waiting does not help.
    #[error("commit {}: {reason}", .commit.short())]
    Refused {
        /// The commit.
        commit: CommitId,
        /// What is wrong with it and what to do.
        reason: String,
    },
    /// It is not in the mirror.
    #[error("commit {} is not in the mirror", .0.short())]
    Unknown(CommitId),
    /// The mirror is damaged; the next sync makes it anew.
    #[error("the mirror cannot be read: {0}")]
    Damaged(String),
}

/// An object's id of the fleet root, to see whether anything below it changed between two commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeId([u8; 20]);

/// Reads one commit of an open repository.
pub(super) struct CommitReader<'r> {
    repository: &'r Repository,
    odb: Odb<'r>,
    id: CommitId,
}

impl<'r> CommitReader<'r> {
    pub(super) fn new(repository: &'r Repository, id: CommitId) -> Result<Self, ReadError> {
        Ok(Self { repository, odb: repository.odb().map_err(damaged)?, id })
    }

    fn refuse(&self, reason: impl Into<String>) -> ReadError {
        ReadError::Refused { commit: self.id, reason: reason.into() }
    }

    fn commit(&self) -> Result<git2::Commit<'r>, ReadError> {
        let oid = oid_of(self.id).map_err(damaged)?;
        let (size, kind) = match self.odb.read_header(oid) {
            Ok(header) => header,
            Err(error) if error.code() == ErrorCode::NotFound => return Err(ReadError::Unknown(self.id)),
            Err(error) => return Err(damaged(error)),
        };
        if kind != ObjectType::Commit {
            return Err(ReadError::Unknown(self.id));
        }
        if size > LARGEST_COMMIT_BYTES {
            return Err(self.refuse(format!("its message has {size} bytes, over the limit of 4 MiB")));
        }
        self.repository.find_commit(oid).map_err(damaged)
    }

    /// What the commit says of itself.
    pub(super) fn info(&self, reference: &str) -> Result<CommitInfo, ReadError> {
        let commit = self.commit()?;
        let person = |signature: &git2::Signature<'_>| {
            let name = String::from_utf8_lossy(signature.name_bytes()).into_owned();
            let mail = String::from_utf8_lossy(signature.email_bytes()).into_owned();
            clean_line(&format!("{} <{}>", name.trim(), mail.trim()), LONGEST_LINE)
        };
        let message = String::from_utf8_lossy(commit.message_raw_bytes()).into_owned();
        let subject = message.lines().find(|line| !line.trim().is_empty()).unwrap_or("");
        let seconds = u64::try_from(commit.time().seconds()).unwrap_or(0);
        Ok(CommitInfo {
            id: self.id,
            reference: clean_line(reference, LONGEST_LINE),
            committer: person(&commit.committer()),
            author: person(&commit.author()),
            subject: clean_line(subject, LONGEST_LINE),
            time: Timestamp::from_millis(seconds.saturating_mul(1000)),
            trailer: RolloutTrailer::read(&message),
        })
    }

    fn tree(&self, oid: Oid, shown: &str) -> Result<Tree<'r>, ReadError> {
        let (size, _) = self.odb.read_header(oid).map_err(damaged)?;
        if size > LARGEST_TREE_BYTES {
            return Err(self.refuse(format!("the directory `{shown}` has too many entries ({size} bytes of them)")));
        }
        self.repository.find_tree(oid).map_err(damaged)
    }

    /// The tree at the fleet root; `None` when the commit has no such directory.
    pub(super) fn root(&self, fleet_root: &str) -> Result<Option<Tree<'r>>, ReadError> {
        let mut tree = self.tree(self.commit()?.tree_id(), "/")?;
        for name in fleet_root.split('/').filter(|name| !name.is_empty() && *name != ".") {
            let Some(entry) = tree.get_name(name) else { return Ok(None) };
            if entry.filemode_raw() != MODE_TREE {
                let what = match entry.filemode_raw() {
                    MODE_LINK => "a symbolic link, which is never followed",
                    MODE_SUBMODULE => "a submodule, which is never followed",
                    _ => "a file",
                };
                return Err(
                    self.refuse(format!("the fleet root `{fleet_root}` leads through `{name}`, {what}: check --path"))
                );
            }
            let id = entry.id();
            drop(entry);
            tree = self.tree(id, name)?;
        }
        Ok(Some(tree))
    }

    /// The id of the tree at the fleet root.
    pub(super) fn root_id(&self, fleet_root: &str) -> Result<Option<TreeId>, ReadError> {
        let root = self.root(fleet_root)?;
        Ok(root.and_then(|tree| commit_of(tree.id())).map(|id| TreeId(id.0)))
    }

    /// Everything that matters below the fleet root; `None` when the commit has no such directory.
    pub(super) fn snapshot(&self, fleet_root: &str, limits: &SnapshotLimits) -> Result<Option<Snapshot>, ReadError> {
        let Some(root) = self.root(fleet_root)? else { return Ok(None) };
        let mut walk = Walk { reader: self, limits, seen: 0, bytes: 0, entries: BTreeMap::new() };
        // An own stack: the depth comes from outside.
        let mut directories = vec![(String::new(), root, 0_usize)];
        while let Some((path, tree, depth)) = directories.pop() {
            walk.directory(&path, &tree, depth, &mut directories)?;
        }
        Ok(Some(Snapshot::new(walk.entries)))
    }
}

struct Walk<'w, 'r> {
    reader: &'w CommitReader<'r>,
    limits: &'w SnapshotLimits,
    seen: usize,
    bytes: u64,
    entries: BTreeMap<Arc<str>, Entry>,
}

impl<'r> Walk<'_, 'r> {
    fn directory(
        &mut self,
        path: &str,
        tree: &Tree<'r>,
        depth: usize,
        directories: &mut Vec<(String, Tree<'r>, usize)>,
    ) -> Result<(), ReadError> {
        for entry in tree {
            self.seen += 1;
            if self.seen > self.limits.files {
                return Err(self.reader.refuse(format!(
                    "more than {} files below the fleet root: give the fleet a directory of its own with --path",
                    self.limits.files
                )));
            }
            let mode = entry.filemode_raw();
            let matters = matches!(mode, MODE_TREE | MODE_LINK | MODE_SUBMODULE) || is_yaml(entry.name_bytes());
            if !matters {
                // Nothing reads it, so neither its name nor its content can do harm.
                continue;
            }
            let Ok(name) = std::str::from_utf8(entry.name_bytes()) else {
                let shown = clean_line(&String::from_utf8_lossy(entry.name_bytes()), LONGEST_LINE);
                return Err(self.reader.refuse(format!("the name `{shown}` in `{path}/` is not UTF-8: rename it")));
            };
            if let Some(why) = evil(name) {
                let shown = clean_line(name, LONGEST_LINE);
                return Err(self.reader.refuse(format!("the name `{shown}` in `{path}/` {why}: rename it")));
            }
            let full = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
            if full.len() > self.limits.path_bytes {
                let shown = clean_line(&full, LONGEST_LINE);
                return Err(self
                    .reader
                    .refuse(format!("the path `{shown}` is longer than {} bytes", self.limits.path_bytes)));
            }
            match mode {
                MODE_TREE if depth >= self.limits.depth => {
                    let shown = clean_line(&full, LONGEST_LINE);
                    return Err(self
                        .reader
                        .refuse(format!("`{shown}` is nested deeper than {} directories", self.limits.depth)));
                }
                MODE_TREE => {
                    let tree = self.reader.tree(entry.id(), &full)?;
                    directories.push((full, tree, depth + 1));
                }
                MODE_LINK => self.insert(full, Entry::Symlink),
                MODE_SUBMODULE => self.insert(full, Entry::Submodule),
                _ => {
                    let entry = self.file(entry.id())?;
                    self.insert(full, entry);
                }
            }
        }
        Ok(())
    }

    fn insert(&mut self, path: String, entry: Entry) {
        self.entries.insert(path.into(), entry);
    }

    fn file(&mut self, oid: Oid) -> Result<Entry, ReadError> {
        let (size, kind) = self.reader.odb.read_header(oid).map_err(damaged)?;
        let size = size as u64;
        if kind != ObjectType::Blob {
            return Err(self.reader.refuse("a directory claims that something is a file and it is not"));
        }
        if size > self.limits.file_bytes {
            return Ok(Entry::TooLarge(size));
        }
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > self.limits.total_bytes {
            let limit = self.limits.total_bytes >> 20;
            return Err(self.reader.refuse(format!("more than {limit} MiB of YAML below the fleet root")));
        }
        let object = self.reader.odb.read(oid).map_err(damaged)?;
        Ok(Entry::File(Bytes::copy_from_slice(object.data())))
    }
}

fn damaged(error: git2::Error) -> ReadError {
    ReadError::Damaged(clean_line(error.message(), LONGEST_LINE))
}

fn is_yaml(name: &[u8]) -> bool {
    name.ends_with(b".yaml") || name.ends_with(b".yml")
}

/// Why no honest commit has such a name.
fn evil(name: &str) -> Option<&'static str> {
    if name.is_empty() || name == "." || name == ".." {
        return Some("leads elsewhere");
    }
    if name.eq_ignore_ascii_case(".git") {
        return Some("is Git's own");
    }
    if name.contains(['/', '\\']) {
        return Some("contains a slash or backslash");
    }
    if name.chars().any(char::is_control) {
        return Some("contains control characters");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evil_names_are_told_from_odd_ones() {
        for name in ["", ".", "..", ".git", ".GIT", "a/b", "a\\b.yaml", "a\0b", "a\nb.yaml"] {
            assert!(evil(name).is_some(), "{name:?}");
        }
        for name in [".github", "a b.yaml", "ä.yaml", "...", ".gitignore", "-x.yaml"] {
            assert!(evil(name).is_none(), "{name:?}");
        }
    }
}
