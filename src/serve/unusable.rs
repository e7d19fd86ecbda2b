//! Files that say who may speak, and why one of them cannot be used.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::settings::secret::SecretError;

/// A file that cannot be used: which one, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(String);

impl Unusable {
    /// This file, for this reason, which must not repeat what is secret in it.
    pub(super) fn new(path: &Path, reason: impl fmt::Display) -> Self {
        Self(format!("{}: {reason}", path.display()))
    }
}

impl From<SecretError> for Unusable {
    fn from(error: SecretError) -> Self {
        Self(error.to_string())
    }
}

/// The largest file that is read: 16 MiB. Lists of revocations of large authorities have megabytes.
const LARGEST: u64 = 16 << 20;

/// Reads a file, whole. It decides who is let in, or what this machine shows of itself, so that not everybody may write it.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Unusable> {
    let wrong = |error| Unusable::new(path, error);
    let file = File::open(path).map_err(wrong)?;
    if file.metadata().map_err(wrong)?.permissions().mode() & 0o002 != 0 {
        let reason = "every user of this machine may change it, and so let anybody in: chmod o-w";
        return Err(Unusable::new(path, reason));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(wrong)?;
    if bytes.len() as u64 > LARGEST {
        return Err(Unusable::new(path, "it is larger than 16 MiB"));
    }
    Ok(bytes)
}
