//! A bell for repositories of this machine: rings when their refs may have moved, so that a commit is seen at once.

use std::path::{Path, PathBuf};

use git2::Repository;
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::hermetic;

/// Why a repository cannot be watched; polling finds its commits all the same.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// It is no repository (yet).
    #[error("{} cannot be watched: {reason}", .path.display())]
    Repository {
        /// What was to be watched.
        path: PathBuf,
        /// What libgit2 says.
        reason: String,
    },
    /// The system refuses, mostly because it has no more watches to give.
    #[error("{} cannot be watched", .path.display())]
    System {
        /// What was to be watched.
        path: PathBuf,
        /// Why.
        source: notify::Error,
    },
}

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    _watcher: RecommendedWatcher,
}

/// Watches the refs of the repository at `repository`, bare or not, a worktree too. `ring` is called from a thread of the
/// watcher whenever a ref may have moved, often several times for one commit, and also for refs that nobody follows: it only
/// means "look now", whoever listens looks once for many.
pub fn watch(repository: &Path, ring: impl Fn() + Send + 'static) -> Result<Watcher, WatchError> {
    hermetic::prepare();
    let opened = Repository::open(repository).map_err(|error| WatchError::Repository {
        path: repository.to_owned(),
        reason: super::remote::sanitise(error.message()),
    })?;
    // Links resolved, because events name real paths.
    let directory = opened.commondir().canonicalize().unwrap_or_else(|_| opened.commondir().to_owned());
    let system = |source| WatchError::System { path: repository.to_owned(), source };
    let refs = directory.join("refs");
    let (top, below) = (directory.clone(), refs.clone());
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        // An error means that events were lost: looking once too often costs less than not looking.
        if event.map_or(true, |event| matters(&event, &top, &below)) {
            ring();
        }
    })
    .map_err(system)?;
    // `packed-refs` and `HEAD` are replaced by renaming, so their directory is watched, not they.
    watcher.watch(&directory, RecursiveMode::NonRecursive).map_err(system)?;
    watcher.watch(&refs, RecursiveMode::Recursive).map_err(system)?;
    let reftable = directory.join("reftable");
    if reftable.exists() {
        watcher.watch(&reftable, RecursiveMode::NonRecursive).map_err(system)?;
    }
    Ok(Watcher { _watcher: watcher })
}

/// Whether an event can mean that a branch or tag moved. Our own notes in the same repository do not ring, or each push
/// would make us look.
fn matters(event: &Event, top: &Path, refs: &Path) -> bool {
    if matches!(event.kind, EventKind::Access(_)) {
        return false;
    }
    event.need_rescan()
        || event.paths.iter().any(|path| {
            let locked = path.extension().is_some_and(|extension| extension == "lock");
            match path.strip_prefix(refs) {
                _ if locked => false,
                Ok(below) => !below.starts_with("notes") && !below.starts_with("gitamp"),
                Err(_) => {
                    let name = path.file_name().and_then(|name| name.to_str());
                    match path.parent() {
                        Some(parent) if parent == top => matches!(name, Some("HEAD" | "packed-refs")),
                        Some(_) | None => true,
                    }
                }
            }
        })
}
