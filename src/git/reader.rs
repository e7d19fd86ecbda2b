//! One commit as values: its own words, and the files below the fleet root, read from the object database.
//!
//! Trees come from whoever may push, so nothing in them is trusted: sizes are read from object headers before anything is
//! inflated, names are checked, links and submodules are recognised and never followed.

use std::sync::Arc;

use bytes::Bytes;
use git2::{ErrorCode, ObjectType, Odb, Oid, Repository, Tree, TreeEntry};

use super::remote::clean_line;
use super::{commit_of, oid_of};
use crate::fleet::snapshot::{
    Child, CommitId, CommitInfo, ContentId, Directory, Entry, Limit, RolloutTrailer, Snapshot, SnapshotLimits,
};
use crate::time::Timestamp;

/// The largest commit object that is parsed: 4 MiB. Its message is shown one line long.
const LARGEST_COMMIT_BYTES: usize = 4 << 20;
/// The largest tree object that is parsed: 64 MiB, over a million entries.
pub(super) const LARGEST_TREE_BYTES: usize = 64 << 20;
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
        /// The limit that it is over, when that can be set.
        limit: Option<Limit>,
    },
    /// It is not in the mirror.
    #[error("commit {} is not in the mirror", .0.short())]
    Unknown(CommitId),
    /// The mirror is damaged; the next sync makes it anew.
    #[error("the mirror cannot be read: {0}")]
    Damaged(String),
}

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
        ReadError::Refused { commit: self.id, reason: reason.into(), limit: None }
    }

    /// What is over a limit that can be set says so.
    fn refuse_over(&self, limit: Limit, reason: impl std::fmt::Display) -> ReadError {
        let reason = format!("{reason} (--{})", limit.name());
        ReadError::Refused { commit: self.id, reason, limit: Some(limit) }
    }

    pub(super) fn commit(&self) -> Result<git2::Commit<'r>, ReadError> {
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

    /// Everything that matters below the fleet root; `None` when the commit has no such directory. Where `before`, a snapshot of the
    /// same fleet root within the same limits, has the same object at the same path, it is shared and nothing is read.
    pub(super) fn snapshot(
        &self,
        fleet_root: &str,
        limits: &SnapshotLimits,
        before: Option<&Snapshot>,
    ) -> Result<Option<Snapshot>, ReadError> {
        let Some(root) = self.root(fleet_root)? else { return Ok(None) };
        let id = content_of(root.id());
        if let Some(before) = before.filter(|before| id.is_some() && before.root().id() == id) {
            return Ok(Some(before.clone().within(limits.rendering)));
        }
        let mut walk = Walk { reader: self, limits, seen: 0, bytes: 0 };
        let (children, ignored) = walk.children("", &root, 0, before.map(|before| &**before.root()))?;
        Ok(Some(Snapshot::of(Directory::root(id, children, ignored)).within(limits.rendering)))
    }
}

/// Reads trees into directories. It descends by calling itself, which the limit on depth bounds.
struct Walk<'w, 'r> {
    reader: &'w CommitReader<'r>,
    limits: &'w SnapshotLimits,
    seen: usize,
    bytes: u64,
}

impl<'r> Walk<'_, 'r> {
    /// What stands in one directory, and how many more things there are that nobody reads.
    fn children(
        &mut self,
        path: &str,
        tree: &Tree<'r>,
        depth: usize,
        before: Option<&Directory>,
    ) -> Result<(Vec<Child>, usize), ReadError> {
        let (mut children, mut ignored) = (Vec::new(), 0);
        let mut last: Option<Vec<u8>> = None;
        for entry in tree {
            self.saw(1)?;
            let mode = entry.filemode_raw();
            let matters = matches!(mode, MODE_TREE | MODE_LINK | MODE_SUBMODULE) || is_yaml(entry.name_bytes());
            if !matters {
                // Nothing reads it, so neither its name nor its content can do harm.
                ignored += 1;
                continue;
            }
            let name = self.name(path, &entry)?;
            if last.replace(entry.name_bytes().to_owned()).is_some_and(|last| last == entry.name_bytes()) {
                return Err(self.reader.refuse(format!("the name `{name}` stands twice in `{path}/`: remove one")));
            }
            let full = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
            if full.len() > self.limits.path_bytes {
                let shown = clean_line(&full, LONGEST_LINE);
                return Err(self
                    .reader
                    .refuse(format!("the path `{shown}` is longer than {} bytes", self.limits.path_bytes)));
            }
            children.push(match mode {
                MODE_TREE if depth >= self.limits.depth => {
                    let shown = clean_line(&full, LONGEST_LINE);
                    let reason = format!("`{shown}` is nested deeper than {} directories", self.limits.depth);
                    return Err(self.reader.refuse_over(Limit::Depth, reason));
                }
                MODE_TREE => {
                    let before = before.and_then(|before| before.directory(name));
                    Child::Directory(self.directory(full.into(), entry.id(), depth + 1, before)?)
                }
                MODE_LINK => Child::File { path: full.into(), id: None, entry: Entry::Symlink },
                MODE_SUBMODULE => Child::File { path: full.into(), id: None, entry: Entry::Submodule },
                _ => {
                    let id = content_of(entry.id());
                    let known =
                        before.and_then(|before| before.file(name)).filter(|known| known.1.is_some() && known.1 == id);
                    let (path, entry) = match known {
                        Some((path, _, known)) => (path.clone(), self.count(known.clone())?),
                        None => (full.into(), self.file(entry.id())?),
                    };
                    Child::File { path, id, entry }
                }
            });
        }
        Ok((children, ignored))
    }

    fn name<'e>(&self, path: &str, entry: &'e TreeEntry<'_>) -> Result<&'e str, ReadError> {
        let Ok(name) = std::str::from_utf8(entry.name_bytes()) else {
            let shown = clean_line(&String::from_utf8_lossy(entry.name_bytes()), LONGEST_LINE);
            return Err(self.reader.refuse(format!("the name `{shown}` in `{path}/` is not UTF-8: rename it")));
        };
        match evil(name) {
            None => Ok(name),
            Some(why) => {
                let shown = clean_line(name, LONGEST_LINE);
                Err(self.reader.refuse(format!("the name `{shown}` in `{path}/` {why}: rename it")))
            }
        }
    }

    fn directory(
        &mut self,
        path: Arc<str>,
        oid: Oid,
        depth: usize,
        before: Option<&Arc<Directory>>,
    ) -> Result<Arc<Directory>, ReadError> {
        let id = content_of(oid);
        if let Some(same) = before.filter(|before| id.is_some() && before.id() == id) {
            self.saw(same.objects())?;
            self.add(same.bytes())?;
            return Ok(same.clone());
        }
        let tree = self.reader.tree(oid, &path)?;
        let (children, ignored) = self.children(&path, &tree, depth, before.map(|before| &**before))?;
        Ok(Arc::new(Directory::new(path, id, children, ignored)))
    }

    fn saw(&mut self, objects: usize) -> Result<(), ReadError> {
        self.seen = self.seen.saturating_add(objects);
        if self.seen > self.limits.files {
            let reason = format!(
                "more than {} files below the fleet root: give the fleet a directory of its own with --path",
                self.limits.files
            );
            return Err(self.reader.refuse_over(Limit::Files, reason));
        }
        Ok(())
    }

    fn add(&mut self, bytes: u64) -> Result<(), ReadError> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.limits.total_bytes {
            let limit = self.limits.total_bytes >> 10;
            let reason = format!("more than {limit} KiB of YAML below the fleet root");
            return Err(self.reader.refuse_over(Limit::TotalBytes, reason));
        }
        Ok(())
    }

    fn count(&mut self, entry: Entry) -> Result<Entry, ReadError> {
        self.add(entry.bytes())?;
        Ok(entry)
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
        self.add(size)?;
        let object = self.reader.odb.read(oid).map_err(damaged)?;
        Ok(Entry::File(Bytes::copy_from_slice(object.data())))
    }
}

fn content_of(oid: Oid) -> Option<ContentId> {
    commit_of(oid).map(|id| ContentId(id.0))
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
