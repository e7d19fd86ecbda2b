//! The files below the fleet root in one commit, as values: read by `git::mirror` from the object database, or from a
//! directory by `gitamp check`. Nothing is followed and nothing is checked out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;

use crate::fleet::tree;
use crate::time::Timestamp;

pub use crate::fleet::trailer::RolloutTrailer;
pub use crate::fleet::tree::{Child, ContentId, Directory, Files};

/// A Git commit's object id (SHA-1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(pub [u8; 20]);

impl CommitId {
    /// The first seven hexadecimal digits, as Git abbreviates.
    pub fn short(&self) -> String {
        self.to_string().chars().take(7).collect()
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A text that is not 40 hexadecimal digits.
#[derive(Debug, thiserror::Error)]
#[error("a commit id has 40 hexadecimal digits")]
pub struct NotACommitId;

impl FromStr for CommitId {
    type Err = NotACommitId;

    fn from_str(text: &str) -> Result<Self, NotACommitId> {
        let mut bytes = [0; 20];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| NotACommitId)?;
        Ok(Self(bytes))
    }
}

/// What a commit says of itself, sanitised (no control characters) and bounded (a line of at most 200 characters each).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitInfo {
    /// Its id.
    pub id: CommitId,
    /// The tracked ref in its short form (`main`), to show a revision as `main@sha1:<commit>`.
    pub reference: String,
    /// Who committed, as `Name <mail>`.
    pub committer: String,
    /// Who wrote it.
    pub author: String,
    /// The first line of the message.
    pub subject: String,
    /// When it was committed.
    pub time: Timestamp,
    /// What its `Gitamp-Rollout` trailer asks for.
    pub trailer: Option<RolloutTrailer>,
}

impl CommitInfo {
    /// `main@sha1:<commit>`.
    pub fn revision(&self) -> String {
        format!("{}@sha1:{}", self.reference, self.id)
    }
}

/// One thing at a path of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A regular file with its content.
    File(Bytes),
    /// A file over the limit, with its size in bytes: its content was never read.
    TooLarge(u64),
    /// A symbolic link; never followed.
    Symlink,
    /// A submodule; never followed.
    Submodule,
}

impl Entry {
    /// How many bytes of it were read.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::File(content) => content.len() as u64,
            Self::TooLarge(_) | Self::Symlink | Self::Submodule => 0,
        }
    }
}

/// Limits on a snapshot. Exceeding `files`, `depth` or `total_bytes` refuses the whole commit (nothing of it can be trusted to
/// be complete); `file_bytes` only marks the file.
#[derive(Clone, Debug)]
pub struct SnapshotLimits {
    /// Files below the fleet root: 200,000, four times the largest fleet we measure.
    pub files: usize,
    /// Nested directories: 32.
    pub depth: usize,
    /// Bytes of a path: 1,024.
    pub path_bytes: usize,
    /// Bytes of one file: 1 MiB. A collector configuration of that size is already a mistake.
    pub file_bytes: u64,
    /// Bytes of all files: 256 MiB.
    pub total_bytes: u64,
    /// What of it is rendered.
    pub rendering: RenderLimits,
}

/// Limits on what is made of a snapshot. Exceeding one holds back the groups that it concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenderLimits {
    /// Bytes of one layer: those of one file.
    pub layer_bytes: usize,
    /// Collections within collections of a layer: 64. At most 255.
    pub yaml_depth: usize,
    /// Bytes of one rendered configuration: 512 KiB, half of the 1 MiB that a message may have by default, because agents report it
    /// back with all that they resolved. At most 1 MiB, because the journal keeps it.
    pub config_bytes: usize,
}

impl Default for RenderLimits {
    fn default() -> Self {
        Self { layer_bytes: 1 << 20, yaml_depth: 64, config_bytes: 512 << 10 }
    }
}

/// A limit on commits that can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// [`SnapshotLimits::files`].
    Files,
    /// [`SnapshotLimits::depth`].
    Depth,
    /// [`SnapshotLimits::file_bytes`].
    FileBytes,
    /// [`SnapshotLimits::total_bytes`].
    TotalBytes,
    /// [`RenderLimits::yaml_depth`].
    YamlDepth,
    /// [`RenderLimits::config_bytes`].
    ConfigBytes,
}

impl Limit {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Files, Self::Depth, Self::FileBytes, Self::TotalBytes, Self::YamlDepth, Self::ConfigBytes];

    /// The name by which people set it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Files => "max-files",
            Self::Depth => "max-directory-depth",
            Self::FileBytes => "max-file-size",
            Self::TotalBytes => "max-fleet-size",
            Self::YamlDepth => "max-yaml-depth",
            Self::ConfigBytes => "max-config-size",
        }
    }
}

impl Default for SnapshotLimits {
    fn default() -> Self {
        Self {
            files: 200_000,
            depth: 32,
            path_bytes: 1024,
            file_bytes: 1 << 20,
            total_bytes: 256 << 20,
            rendering: RenderLimits::default(),
        }
    }
}

/// The files below the fleet root in one commit, by path from the fleet root (`prod/gateways/group.yaml`, no leading slash).
/// Only files that can matter are read: `*.yaml` and `*.yml` (others are left out). Immutable; directories that two snapshots have
/// in common are shared.
#[derive(Clone, Debug)]
pub struct Snapshot {
    root: Arc<Directory>,
    limits: RenderLimits,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self::new(BTreeMap::new())
    }
}

impl PartialEq for Snapshot {
    fn eq(&self, other: &Self) -> bool {
        self.changed_since(other).is_empty()
    }
}

impl Eq for Snapshot {}

impl Snapshot {
    /// A snapshot of these entries.
    pub fn new(entries: BTreeMap<Arc<str>, Entry>) -> Self {
        Self::of(Directory::of_files(entries))
    }

    /// A snapshot of this fleet root.
    pub fn of(root: Directory) -> Self {
        Self { root: Arc::new(root), limits: RenderLimits::default() }
    }

    /// The same, to be rendered within these limits.
    #[must_use]
    pub fn within(self, limits: RenderLimits) -> Self {
        Self { limits, ..self }
    }

    /// The limits on what is made of it.
    pub fn limits(&self) -> &RenderLimits {
        &self.limits
    }

    /// The fleet root.
    pub fn root(&self) -> &Arc<Directory> {
        &self.root
    }

    /// What is at `path`.
    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.get_entry(path).map(|(_, entry)| entry)
    }

    /// What is at `path`, with the path itself.
    pub fn get_entry(&self, path: &str) -> Option<(&Arc<str>, &Entry)> {
        let (directory, name) = match path.rsplit_once('/') {
            Some((directory, name)) => {
                (directory.split('/').try_fold(&self.root, |here, name| here.directory(name))?, name)
            }
            None => (&self.root, path),
        };
        directory.file(name).map(|(path, _, entry)| (path, entry))
    }

    /// The directory at `path`; `""` is the fleet root.
    pub fn directory(&self, path: &str) -> Option<&Arc<Directory>> {
        self.root.descend(path)
    }

    /// Everything, by path.
    pub fn iter(&self) -> Files<'_> {
        Files::below(&self.root)
    }

    /// The paths at which something else stands than in `before`, in one of them perhaps nothing. Costs what differs and is not
    /// shared.
    pub fn changed_since(&self, before: &Self) -> BTreeSet<Arc<str>> {
        let mut changed = BTreeSet::new();
        tree::differences(&before.root, &self.root, &mut changed);
        changed
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.root.files()
    }

    /// True when nothing is below the fleet root.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
