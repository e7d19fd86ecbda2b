//! The small file with what alerts have to remember over a restart.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::incident::{desk, watch};

/// Its name in the state directory.
const FILE: &str = "alerts.json";

/// The version that is written; of a newer one nothing is taken.
const VERSION: u32 = 1;

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
    contents: Mutex<Contents>,
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
        (Self { path, contents: Mutex::new(Contents { version: VERSION, ..contents }) }, warning)
    }

    /// The incidents that were known.
    pub fn incidents(&self) -> watch::Memory {
        self.lock().incidents.clone()
    }

    /// What a receiver had been told.
    pub fn told(&self, receiver: &str) -> desk::Memory {
        self.lock().told.get(receiver).cloned().unwrap_or_default()
    }

    /// Writes the incidents, when they are others than before.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn keep_incidents(&self, incidents: watch::Memory) -> io::Result<()> {
        let mut contents = self.lock();
        if contents.incidents == incidents {
            return Ok(());
        }
        contents.incidents = incidents;
        write(&self.path, &contents)
    }

    /// Writes what a receiver was told. Receivers that are not among `all` are forgotten.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn keep_told(&self, receiver: &str, told: desk::Memory) -> io::Result<()> {
        let mut contents = self.lock();
        contents.told.insert(receiver.to_owned(), told);
        write(&self.path, &contents)
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
