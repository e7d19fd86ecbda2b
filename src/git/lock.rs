//! The lock that makes a directory belong to one process at a time.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::Duration;

/// How long a lock that somebody holds is waited for. A process that was killed needs a moment to be gone, with its thousands
/// of connections; and a lock just let go of is still held by a child of ours between its fork and its exec.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// Takes `directory` for this process by the lock file `name` in it, until the file is closed; makes the directory when it is
/// not there, for its owner alone. `None`: another process holds it, and still did after five seconds.
///
/// # Errors
/// The directory or the file cannot be made, or the file system has no locks.
pub async fn take(directory: &Path, name: &str) -> io::Result<Option<File>> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let file = File::options().create(true).truncate(false).write(true).open(directory.join(name))?;
    let waiting = async {
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) => tokio::time::sleep(PAUSE).await,
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    };
    match tokio::time::timeout(PATIENCE, waiting).await {
        Ok(locked) => locked.map(|()| Some(file)),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_directory_has_one_holder_and_who_waits_gets_it() {
        let home = tempfile::tempdir().expect("a directory");
        let directory = home.path().join("state");
        let first = take(&directory, "lock").await.expect("it can be asked").expect("nobody holds it");
        assert!(take(&directory, "lock").await.expect("it can be asked").is_none(), "held by the first");
        assert!(
            take(&directory, "other.lock").await.expect("it can be asked").is_some(),
            "each name is a lock of its own"
        );
        let (second, ()) = tokio::join!(take(&directory, "lock"), async {
            tokio::time::sleep(PAUSE * 3).await;
            drop(first);
        });
        assert!(second.expect("it can be asked").is_some(), "let go of while it was waited for");
    }
}
