//! A fleet on disk as a [`Snapshot`]: what `gitamp check` would see if this were committed.
//!
//! The same limits as for commits hold, and nothing is followed: a link out of the tree shows nothing of what it leads to.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::fleet::snapshot::{Entry, Snapshot, SnapshotLimits};

/// Why a directory cannot be read as a fleet.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The operating system refused.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no such directory.
    #[error("{} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// A limit of [`SnapshotLimits`] is exceeded, or a name cannot be in a fleet.
    #[error("{}: {reason}", path.display())]
    Refused {
        /// What.
        path: PathBuf,
        /// Which limit, or what is wrong with the name.
        reason: String,
    },
}

/// Reads the fleet whose root is `root`.
///
/// # Errors
/// Whatever keeps the whole of it from being read; a file over its limit is only marked.
pub fn read_directory(root: &Path, limits: &SnapshotLimits) -> Result<Snapshot, DirectoryError> {
    if !root.is_dir() {
        return Err(DirectoryError::NotADirectory(root.to_owned()));
    }
    let mut walk = Walk { limits, seen: 0, bytes: 0, entries: BTreeMap::new() };
    let mut directories = vec![(root.to_owned(), String::new(), 0)];
    while let Some((path, prefix, depth)) = directories.pop() {
        walk.directory(&path, &prefix, depth, &mut directories)?;
    }
    Ok(Snapshot::new(walk.entries).within(limits.rendering))
}

struct Walk<'l> {
    limits: &'l SnapshotLimits,
    seen: usize,
    bytes: u64,
    entries: BTreeMap<Arc<str>, Entry>,
}

impl Walk<'_> {
    fn directory(
        &mut self,
        path: &Path,
        prefix: &str,
        depth: usize,
        directories: &mut Vec<(PathBuf, String, usize)>,
    ) -> Result<(), DirectoryError> {
        let unreadable = |source| DirectoryError::Unreadable { path: path.to_owned(), source };
        for entry in fs::read_dir(path).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let (path, kind) = (entry.path(), entry.file_type().map_err(unreadable)?);
            let refuse = |reason: String| DirectoryError::Refused { path: path.clone(), reason };
            self.seen += 1;
            if self.seen > self.limits.files {
                return Err(refuse(format!("more than {} files below the fleet root", self.limits.files)));
            }
            let name = entry.file_name();
            let is_yaml = name.as_encoded_bytes().ends_with(b".yaml") || name.as_encoded_bytes().ends_with(b".yml");
            if name == ".git" || !(kind.is_dir() || kind.is_symlink() || (kind.is_file() && is_yaml)) {
                continue;
            }
            let Some(name) = name.to_str() else { return Err(refuse("the name is not UTF-8".to_owned())) };
            let full = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
            if full.len() > self.limits.path_bytes {
                return Err(refuse(format!("the path is longer than {} bytes", self.limits.path_bytes)));
            }
            if kind.is_symlink() {
                self.entries.insert(full.into(), Entry::Symlink);
            } else if kind.is_file() {
                let file = self.file(&path)?;
                self.entries.insert(full.into(), file);
            } else if path.join(".git").exists() {
                // Another repository within this one: what Git stores is a submodule, if anything.
                self.entries.insert(full.into(), Entry::Submodule);
            } else if depth >= self.limits.depth {
                return Err(refuse(format!("nested deeper than {} directories", self.limits.depth)));
            } else {
                directories.push((path, full, depth + 1));
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) -> Result<Entry, DirectoryError> {
        let unreadable = |source| DirectoryError::Unreadable { path: path.to_owned(), source };
        let file = File::open(path).map_err(unreadable)?;
        let size = file.metadata().map_err(unreadable)?.len();
        if size > self.limits.file_bytes {
            return Ok(Entry::TooLarge(size));
        }
        let mut content = Vec::new();
        // The file may grow while it is read.
        file.take(self.limits.file_bytes).read_to_end(&mut content).map_err(unreadable)?;
        self.bytes += content.len() as u64;
        if self.bytes > self.limits.total_bytes {
            let reason = format!("more than {} MiB of YAML below the fleet root", self.limits.total_bytes >> 20);
            return Err(DirectoryError::Refused { path: path.to_owned(), reason });
        }
        Ok(Entry::File(Bytes::from(content)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, content: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directories can be made");
        fs::write(path, content).expect("files can be written");
    }

    #[test]
    fn only_yaml_is_read_and_nothing_is_followed() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let outside = tempfile::tempdir().expect("another one");
        write(outside.path(), "secret.yaml", "secret: true\n");
        write(root.path(), "all/group.yaml", "a: 1\n");
        write(root.path(), "all/part.yml", "b: 1\n");
        write(root.path(), "all/README.md", "text\n");
        write(root.path(), ".git/config.yaml", "c: 1\n");
        write(root.path(), "vendor/.git", "gitdir: elsewhere\n");
        write(root.path(), "vendor/group.yaml", "d: 1\n");
        write(root.path(), "large.yaml", &"#".repeat(1_000));
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(outside.path().join("secret.yaml"), root.path().join("all/link.yaml"))
                .expect("a link");
            std::os::unix::fs::symlink(outside.path(), root.path().join("tree")).expect("a link");
        }
        let limits = SnapshotLimits { file_bytes: 500, ..SnapshotLimits::default() };
        let snapshot = read_directory(root.path(), &limits).expect("a readable directory");
        let paths: Vec<(&str, &Entry)> = snapshot.iter().map(|(path, entry)| (&**path, entry)).collect();
        let file = |text: &'static str| Entry::File(Bytes::from_static(text.as_bytes()));
        let expected = [
            ("all/group.yaml", file("a: 1\n")),
            ("all/link.yaml", Entry::Symlink),
            ("all/part.yml", file("b: 1\n")),
            ("large.yaml", Entry::TooLarge(1_000)),
            ("tree", Entry::Symlink),
            ("vendor", Entry::Submodule),
        ];
        assert_eq!(paths, expected.iter().map(|(path, entry)| (*path, entry)).collect::<Vec<_>>());
    }

    #[test]
    fn limits_refuse_the_whole() {
        let root = tempfile::tempdir().expect("a temporary directory");
        write(root.path(), "a/b/c.yaml", "1\n");
        write(root.path(), "d.yaml", "2\n");
        let default = SnapshotLimits::default;
        for (limits, why) in [
            (SnapshotLimits { files: 2, ..default() }, "files"),
            (SnapshotLimits { depth: 1, ..default() }, "depth"),
            (SnapshotLimits { path_bytes: 5, ..default() }, "path"),
            (SnapshotLimits { total_bytes: 3, ..default() }, "bytes"),
        ] {
            assert!(matches!(read_directory(root.path(), &limits), Err(DirectoryError::Refused { .. })), "{why}");
        }
        let missing = read_directory(&root.path().join("nowhere"), &default());
        assert!(matches!(missing, Err(DirectoryError::NotADirectory(_))));
    }
}
