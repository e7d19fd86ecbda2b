//! Files that say who may speak, and why one of them cannot be used.

use std::fmt;
use std::path::{Path, PathBuf};

/// A file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", .path.display())]
pub struct Unusable {
    path: PathBuf,
    reason: String,
}

impl Unusable {
    /// This file, for this reason, which must not repeat what is secret in it.
    pub(super) fn new(path: &Path, reason: impl fmt::Display) -> Self {
        Self { path: path.to_owned(), reason: reason.to_string() }
    }
}

/// The largest file that is read: 16 MiB. Lists of revocations of large authorities have megabytes.
const LARGEST: u64 = 16 << 20;

/// Reads a file, whole.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Unusable> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes))
        .map_err(|error| Unusable::new(path, error))?;
    if bytes.len() as u64 > LARGEST {
        return Err(Unusable::new(path, "it is larger than 16 MiB"));
    }
    Ok(bytes)
}
