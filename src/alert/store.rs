//! The small file with what alerts have to remember over a restart.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::incident::{desk, watch};

/// Its name in the state directory.
const FILE: &str = "alerts.json";

/// The version that is written; of a newer one nothing is taken.
const VERSION: u32 = 1;

/// A disk that takes longer to write is not waited for: what has to be told is told, and written when the disk answers.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is larger is not ours.
const LARGEST: u64 = 64 << 20;

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Contents {
    version: u32,
    #[serde(default)]
    incidents: watch::Memory,
    /// By receiver.
    #[serde(default)]
    told: BTreeMap<String, desk::Memory>,
}

/// The file, and what is to stand in it. What is lost with it is only that open incidents are announced once more, with the same ids.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// Never held while the disk is at work.
    contents: Mutex<Contents>,
    /// What was written last, by the one who writes.
    written: Arc<tokio::sync::Mutex<Contents>>,
}

impl Store {
    /// Reads the file in this directory. What cannot be read counts as nothing; the warning says so.
    pub fn open(directory: &Path) -> (Self, Option<String>) {
        let path = directory.join(FILE);
        let (contents, warning) = match read(&path) {
            Ok(contents) => (contents, None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Contents::default(), None),
            Err(error) => {
                let path = path.display();
                (
                    Contents::default(),
                    Some(format!("{path} cannot be used, open incidents are announced again: {error}")),
                )
            }
        };
        let contents = Contents { version: VERSION, ..contents };
        let written = Arc::new(tokio::sync::Mutex::new(contents.clone()));
        (Self { path, contents: Mutex::new(contents), written }, warning)
    }

    /// The incidents that were known.
    pub fn incidents(&self) -> watch::Memory {
        self.lock().incidents.clone()
    }

    /// What a receiver had been told.
    pub fn told(&self, receiver: &str) -> desk::Memory {
        self.lock().told.get(receiver).cloned().unwrap_or_default()
    }

    /// The incidents that are known now. They are written by [`Store::keep`].
    pub fn set_incidents(&self, incidents: watch::Memory) {
        self.lock().incidents = incidents;
    }

    /// What a receiver was told. It is written by [`Store::keep`].
    pub fn set_told(&self, receiver: &str, told: desk::Memory) {
        self.lock().told.insert(receiver.to_owned(), told);
    }

    /// Writes what is to stand in the file, when that is something else than before. Takes two seconds at most: a write that is still
    /// under way goes on, and no second one begins meanwhile.
    ///
    /// # Errors
    /// When the file cannot be written, or not in time.
    pub async fn keep(&self) -> io::Result<()> {
        let write = async {
            let mut written = Arc::clone(&self.written).lock_owned().await;
            let (path, contents) = (self.path.clone(), self.lock().clone());
            let job = move || {
                if *written != contents {
                    write(&path, &contents)?;
                    *written = contents;
                }
                Ok(())
            };
            tokio::task::spawn_blocking(job).await.unwrap_or_else(|error| Err(io::Error::other(error)))
        };
        let too_slow = || io::Error::new(io::ErrorKind::TimedOut, "the disk does not answer");
        tokio::time::timeout(PATIENCE, write).await.unwrap_or_else(|_| Err(too_slow()))
    }

    /// Forgets what receivers were told that are none of these.
    pub fn retain(&self, receivers: &[&str]) {
        self.lock().told.retain(|name, _| receivers.contains(&name.as_str()));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(path: &Path) -> io::Result<Contents> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::other("it is larger than 64 MiB"));
    }
    let contents: Contents = serde_json::from_slice(&bytes).map_err(io::Error::other)?;
    if contents.version > VERSION {
        return Err(io::Error::other("a newer gitamp wrote it"));
    }
    Ok(contents)
}

/// Another file first, then its name: whoever reads sees the one or the other.
fn write(path: &Path, contents: &Contents) -> io::Result<()> {
    let directory = path.parent().ok_or_else(|| io::Error::other("it is in no directory"))?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(&serde_json::to_vec(contents).map_err(io::Error::other)?)?;
    file.as_file().sync_data()?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_disk_that_does_not_answer_is_not_waited_for() {
        let directory = tempfile::tempdir().expect("a directory");
        let (store, _) = Store::open(directory.path());
        store.set_told("ops", desk::Memory::default());
        let writing = Arc::clone(&store.written).lock_owned().await;
        let error = store.keep().await.expect_err("somebody writes for ever");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(store.told("ops"), desk::Memory::default(), "what is known can be read meanwhile");
        drop(writing);
        store.keep().await.expect("it answers again");
        assert!(directory.path().join(FILE).is_file(), "what was not written then is written now");
    }
}
